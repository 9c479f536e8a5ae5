//! Folders of image files, and single image files.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::catalogue::{Catalogue, Storage};
use super::images::{Images, Labels};
use super::{LoadOptions, Opened, Pixels};
use crate::advice::Advice;
use crate::data::formats::decode::{Decoded, bytes_to_decode, decode_file};
use crate::data::formats::idx;
use crate::error::{Error, Result};
use crate::shape::{Dims, Size};

/// The file name extensions of image files, in lower case.
pub const EXTENSIONS: [&str; 12] =
    ["png", "jpg", "jpeg", "bmp", "gif", "tif", "tiff", "webp", "pbm", "pgm", "ppm", "pnm"];

/// Number of files per thread that are decoded before their pixels are added to the set. More keep
/// the threads busy when files differ in size; but a decoded photograph takes tens of megabytes.
const FILES_PER_THREAD: usize = 4;

/// Loads one image file as a set of one image.
///
/// # Errors
/// If the file cannot be decoded.
pub(super) fn load_file(path: &Path, want: &LoadOptions, limit: u64) -> Result<Opened> {
    let root = path.parent().unwrap_or(Path::new(""));
    let file = [PathBuf::from(path.file_name().unwrap_or_default())];
    let want = LoadOptions { strict: true, ..*want };
    load_files(
        &Files { source: &path.display().to_string(), root, files: &file, labelled: false },
        &want,
        limit,
    )
}

/// Loads every image below `root`, in the order of the paths. Hidden files and folders are ignored,
/// as are files without an extension of [`EXTENSIONS`].
///
/// # Errors
/// If there is no image, a folder cannot be read, or [`load_files`] fails.
pub(super) fn load(root: &Path, want: &LoadOptions, limit: u64) -> Result<Opened> {
    let found = find(root)?;
    if found.images.is_empty() {
        return Err(no_images(root, &found.idx));
    }
    load_files(
        &Files { source: &root.display().to_string(), root, files: &found.images, labelled: true },
        want,
        limit,
    )
}

/// Like [`load`], for the images whose paths relative to `root` satisfy `keep`. Returns `None` if
/// there is no such image. The images have no labels.
///
/// # Errors
/// Those of [`load`].
pub(super) fn load_filtered(
    root: &Path,
    keep: impl Fn(&Path) -> bool,
    want: &LoadOptions,
    limit: u64,
) -> Result<Option<Opened>> {
    let mut found = find(root)?;
    found.images.retain(|image| keep(image));
    if found.images.is_empty() {
        return Ok(None);
    }
    load_files(
        &Files { source: &root.display().to_string(), root, files: &found.images, labelled: false },
        want,
        limit,
    )
    .map(Some)
}

/// The image files of a source.
pub(super) struct Files<'a> {
    /// The name of the source in messages.
    pub source: &'a str,
    /// The folder that the paths are relative to.
    pub root: &'a Path,
    /// The paths, in order.
    pub files: &'a [PathBuf],
    /// Whether sub-folders are classes.
    pub labelled: bool,
}

/// Decodes all files. If their pixels take at most `limit` bytes, they are kept in memory,
/// otherwise the files are streamed. The files decoded at the same time take at most `limit` bytes
/// together, or are one file.
///
/// # Errors
/// If no file can be decoded; if one cannot and `want.strict` is set; if one takes more memory than
/// `want.memory`; or if `want.channels` is neither 1 nor 3.
pub(super) fn load_files(files: &Files, want: &LoadOptions, limit: u64) -> Result<Opened> {
    let Files { source, root, files, labelled } = *files;
    if let Some(channels) = want.channels.filter(|c| ![1, 3].contains(c)) {
        return Err(Error::usage(format!(
            "{source}: image files have 1 channel (gray) or 3 (RGB), not {channels}; change the \
             model's channels"
        )));
    }
    let channels = want.channels.unwrap_or(1);
    let mut set = Accumulator {
        images: Some(Images::new(channels)),
        channels,
        sizes: Vec::new(),
        infer_channels: want.channels.is_none(),
        indices: Vec::new(),
        decoding: 0,
        limit,
    };
    let mut skipped = Vec::new();
    let batch = FILES_PER_THREAD * rayon::current_num_threads();
    for first in (0..files.len()).step_by(batch) {
        let indices: Vec<usize> = (first..files.len().min(first + batch)).collect();
        let costs: Vec<u64> =
            indices.par_iter().map(|index| bytes_to_decode(&root.join(&files[*index]))).collect();
        let too_large = indices
            .iter()
            .zip(&costs)
            .find(|(_, cost)| want.memory.is_some_and(|memory| **cost > memory));
        if let Some((index, cost)) = too_large {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            return Err(Error::usage(format!(
                "{}: decoding takes {} MiB, more than the limit of {} MiB; {}, or shrink the image",
                root.join(&files[*index]).display(),
                mib(*cost),
                mib(want.memory.unwrap_or(*cost)),
                Advice::RaiseMemoryLimit
            )));
        }
        for group in group_by_cost(&indices, &costs, limit) {
            // Pixels that will certainly exceed the limit are dropped at once and not held until
            // their turn comes.
            let held = AtomicU64::new(
                set.images.as_ref().map_or(u64::MAX / 2, |images| images.bytes.len() as u64),
            );
            let decode = |(index, cost): &(usize, u64)| -> Result<(Decoded, u64)> {
                let mut decoded = decode_file(&root.join(&files[*index]))?;
                let dims = decoded.dims;
                let bytes = (dims.area() * want.channels.unwrap_or(dims.c)) as u64;
                if held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > limit {
                    decoded.pixels = Vec::new();
                }
                Ok((decoded, *cost))
            };
            let decoded: Vec<Result<(Decoded, u64)>> = group.par_iter().map(decode).collect();
            for ((index, _), decoded) in group.iter().zip(decoded) {
                let name = root.join(&files[*index]).display().to_string();
                match decoded {
                    Ok((decoded, cost)) => set.push(*index, decoded, cost)?,
                    Err(error) if want.strict => return Err(error.at(name)),
                    Err(error) => skipped.push((name, error.to_string())),
                }
            }
        }
    }
    let Accumulator { images, channels, sizes, indices, decoding, .. } = set;
    if indices.is_empty() {
        let (first, reason) = &skipped[0];
        let others = match skipped.len() - 1 {
            0 => String::new(),
            1 => " (and 1 other file failed)".to_owned(),
            n => format!(" (and {n} other files failed)"),
        };
        return Err(Error::usage(format!(
            "{source}: no image can be used; {first}: {reason}{others}"
        )));
    }
    let labels = if labelled { labels(files, &indices) } else { None };
    let pixels = match images {
        Some(mut images) => {
            (images.names, images.labels) =
                (indices.iter().map(|index| slashed(&files[*index])).collect(), labels);
            Pixels::Resident(images)
        }
        None => {
            let mut files: Vec<PathBuf> =
                indices.iter().map(|index| files[*index].clone()).collect();
            files.iter_mut().for_each(PathBuf::shrink_to_fit);
            Pixels::Streamed(Arc::new(Catalogue::new(
                Storage::Files { root: root.to_owned(), files, sizes, decoding },
                channels,
                labels,
            )))
        }
    };
    Ok(Opened { skipped, ..Opened::new(source, pixels, "") })
}

/// The images decoded so far.
struct Accumulator {
    /// The pixels, or `None` once they exceed the limit.
    images: Option<Images>,
    channels: usize,
    /// Height and width of each image.
    sizes: Vec<[u32; 2]>,
    /// Whether the set becomes RGB with the first colour image.
    infer_channels: bool,
    /// The index of the file of each image.
    indices: Vec<usize>,
    /// Maximum memory for decoding an image, in bytes.
    decoding: u64,
    /// Maximum size of the pixels in memory, in bytes.
    limit: u64,
}

/// Divides files into groups of consecutive files that cost at most `limit` bytes together, or that
/// are a single file. Returns (index, cost) pairs.
fn group_by_cost(indices: &[usize], costs: &[u64], limit: u64) -> Vec<Vec<(usize, u64)>> {
    let mut groups: Vec<Vec<(usize, u64)>> = Vec::new();
    let mut left = 0_u64;
    for (index, cost) in indices.iter().zip(costs) {
        if groups.is_empty() || *cost > left {
            groups.push(Vec::new());
            left = limit;
        }
        left = left.saturating_sub(*cost);
        groups.last_mut().expect("there is a group").push((*index, *cost));
    }
    groups
}

impl Accumulator {
    /// Adds an image. Its pixels are empty if they are known not to fit. Without given channels the
    /// set is gray until the first colour image.
    fn push(&mut self, index: usize, decoded: Decoded, cost: u64) -> Result<()> {
        let Dims { c, h, w } = decoded.dims;
        let before = self.channels;
        if self.infer_channels && c > before {
            self.channels = c;
        }
        let channels = self.channels;
        self.indices.push(index);
        self.decoding = self.decoding.max(cost);
        self.sizes.push([h as u32, w as u32]);
        let held = self.images.as_ref().map_or(0, |images| images.bytes.len() / before * channels);
        if decoded.pixels.is_empty() || (held + h * w * channels) as u64 > self.limit {
            self.images = None;
        }
        if let Some(images) = &mut self.images {
            images.convert_channels(channels)?;
            images.push(String::new(), Size { h, w }, &decoded.into_channels(channels))?;
        }
        Ok(())
    }
}

/// The labels of the images `indices`: their top-level folders are the classes. `None` if there are
/// fewer than two such folders, or an image is outside of them.
fn labels(files: &[PathBuf], indices: &[usize]) -> Option<Labels> {
    let class = |file: &PathBuf| {
        let mut parts = file.components();
        let first = parts.next()?;
        parts.next().map(|_| first.as_os_str().to_string_lossy().into_owned())
    };
    let of: Vec<String> = files.iter().map(class).collect::<Option<_>>()?;
    let mut classes = of.clone();
    classes.sort();
    classes.dedup();
    if classes.len() < 2 {
        return None;
    }
    let number = |name: &String| classes.binary_search(name).map_or(0, |i| i as u32);
    let of = indices.iter().map(|&i| number(&of[i])).collect();
    Some(Labels { classes, of })
}

/// Writes a path with slashes, so that image names are the same on every system.
pub(super) fn slashed(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// The paths of the image files below `root`, sorted. They include `root`.
///
/// # Errors
/// If there is no image file, or a folder cannot be read.
pub fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let Found { images, idx } = find(root)?;
    if images.is_empty() {
        return Err(no_images(root, &idx));
    }
    Ok(images.into_iter().map(|image| root.join(image)).collect())
}

/// The error for a folder without images. `idx` are its IDX files, one of which is suggested.
fn no_images(root: &Path, idx: &[PathBuf]) -> Error {
    // Prefer the training images, as named in MNIST and its relatives.
    let name = |path: &&PathBuf| path.to_string_lossy().to_lowercase();
    let suggested = idx.iter().find(|p| name(p).contains("train") && name(p).contains("images"));
    let suggested = suggested
        .or_else(|| idx.iter().find(|p| name(p).contains("images")))
        .or_else(|| idx.first());
    Error::usage(match suggested {
        Some(file) => {
            format!(
                "{}: this folder has no image files, but IDX files; name the file: {}",
                root.display(),
                root.join(file).display()
            )
        }
        None => format!(
            "{}: no image found in this folder or below (looked for {})",
            root.display(),
            EXTENSIONS.join(", ")
        ),
    })
}

/// The files below a folder, relative to it and sorted.
#[derive(Default)]
struct Found {
    images: Vec<PathBuf>,
    idx: Vec<PathBuf>,
}

/// Finds the image and IDX files below `root`.
fn find(root: &Path) -> Result<Found> {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let path = root.join(&folder);
        // Symbolic links can form cycles.
        if !seen.insert(path.canonicalize().map_err(|e| Error::io(&path, &e))?) {
            continue;
        }
        for entry in std::fs::read_dir(&path).map_err(|e| Error::io(&path, &e))? {
            let entry = entry.map_err(|e| Error::io(&path, &e))?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with('.') || name == "__MACOSX" {
                continue;
            }
            let relative = folder.join(&name);
            let extension = relative
                .extension()
                .map(|e| e.to_string_lossy().to_lowercase())
                .unwrap_or_default();
            // This follows links. A broken link with an image extension is reported later, when the
            // file cannot be read.
            let metadata = std::fs::metadata(entry.path());
            if metadata.is_ok_and(|m| m.is_dir()) {
                open.push(relative);
            } else if EXTENSIONS.contains(&extension.as_str()) {
                found.images.push(relative);
            } else if idx::named_idx(&relative) {
                found.idx.push(relative);
            }
        }
    }
    found.images.sort();
    found.idx.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_cost_at_most_the_limit() {
        let groups = |costs: &[u64], limit| -> Vec<usize> {
            let indices: Vec<usize> = (0..costs.len()).collect();
            let groups = group_by_cost(&indices, costs, limit);
            assert_eq!(
                groups.concat(),
                indices.into_iter().zip(costs.iter().copied()).collect::<Vec<_>>()
            );
            groups.iter().map(Vec::len).collect()
        };
        assert_eq!(groups(&[3, 3, 3, 3, 3], 9), [3, 2]);
        assert_eq!(groups(&[3, 20, 3, 0, 3], 9), [1, 1, 3]);
        assert_eq!(groups(&[5, 5], 0), [1, 1]);
        assert_eq!(groups(&[5, 5], u64::MAX), [2]);
    }
}
