//! Folders of image files, and single ones.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::catalogue::{Catalogue, Places};
use super::images::{Images, Labels};
use super::{Opened, Pixels, Wanted};
use crate::data::formats::decode::{Decoded, bytes_to_decode, decode_file};
use crate::data::formats::idx;
use crate::error::{Error, Result};

/// The file name endings that are taken for images.
pub const EXTENSIONS: [&str; 12] =
    ["png", "jpg", "jpeg", "bmp", "gif", "tif", "tiff", "webp", "pbm", "pgm", "ppm", "pnm"];

/// Files decoded at a time for each thread, before their pixels join the set: few, since
/// photographs take tens of megabytes each.
const AT_ONCE: usize = 4;

/// Reads one image file as a set of one, which must decode.
pub(super) fn load_file(path: &Path, want: &Wanted, limit: u64) -> Result<Opened> {
    let root = path.parent().unwrap_or(Path::new(""));
    let file = [PathBuf::from(path.file_name().unwrap_or_default())];
    let want = Wanted { strict: true, ..*want };
    gather(
        &Files { place: &path.display().to_string(), root, files: &file, labelled: false },
        &want,
        limit,
    )
}

/// Reads every image below `root`, in the order of their paths. Hidden files and folders are passed
/// over, as are files that are not called like images.
pub(super) fn load(root: &Path, want: &Wanted, limit: u64) -> Result<Opened> {
    let found = find(root)?;
    if found.images.is_empty() {
        return Err(nothing_found(root, &found.idx));
    }
    gather(
        &Files { place: &root.display().to_string(), root, files: &found.images, labelled: true },
        want,
        limit,
    )
}

/// As [`load`], of those images whose paths below `root` are to be kept; there may be none.
pub(super) fn load_some(
    root: &Path,
    keep: impl Fn(&Path) -> bool,
    want: &Wanted,
    limit: u64,
) -> Result<Option<Opened>> {
    let mut found = find(root)?;
    found.images.retain(|image| keep(image));
    if found.images.is_empty() {
        return Ok(None);
    }
    gather(
        &Files { place: &root.display().to_string(), root, files: &found.images, labelled: false },
        want,
        limit,
    )
    .map(Some)
}

/// Image files to read.
pub(super) struct Files<'a> {
    /// What names them, for people.
    pub place: &'a str,
    /// What their paths are relative to.
    pub root: &'a Path,
    /// The paths, in order.
    pub files: &'a [PathBuf],
    /// Whether sub-folders are classes.
    pub labelled: bool,
}

/// Decodes files. Their pixels are kept as long as they do not exceed `limit` bytes, and as many
/// are decoded at once as take no more than that, or one.
pub(super) fn gather(source: &Files, want: &Wanted, limit: u64) -> Result<Opened> {
    let Files { place, root, files, labelled } = *source;
    if let Some(channels) = want.channels.filter(|c| ![1, 3].contains(c)) {
        return Err(Error::usage(format!(
            "{place}: image files give 1 channel (gray) or 3 (RGB), not {channels}; change the model's channels"
        )));
    }
    let channels = want.channels.unwrap_or(1);
    let mut gathered = Gathered {
        images: Some(Images::new(channels)),
        channels,
        sizes: Vec::new(),
        grows: want.channels.is_none(),
        from: Vec::new(),
        decoding: 0,
        limit,
    };
    let mut skipped = Vec::new();
    let at_once = AT_ONCE * rayon::current_num_threads();
    for first in (0..files.len()).step_by(at_once) {
        let part: Vec<usize> = (first..files.len().min(first + at_once)).collect();
        let takes: Vec<u64> =
            part.par_iter().map(|index| bytes_to_decode(&root.join(&files[*index]))).collect();
        let many = part
            .iter()
            .zip(&takes)
            .find(|(_, takes)| want.memory.is_some_and(|memory| **takes > memory));
        if let Some((index, takes)) = many {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            return Err(Error::usage(format!(
                "{}: takes {} MiB while it is decoded, more than the {} MiB that may be taken; raise --max-memory, or shrink it",
                root.join(&files[*index]).display(),
                mib(*takes),
                mib(want.memory.unwrap_or(*takes))
            )));
        }
        for part in within(&part, &takes, limit) {
            // What is certain to exceed the limit is not held until its turn comes.
            let held = AtomicU64::new(
                gathered.images.as_ref().map_or(u64::MAX / 2, |images| images.bytes.len() as u64),
            );
            let decode = |(index, takes): &(usize, u64)| -> Result<(Decoded, u64)> {
                let mut decoded = decode_file(&root.join(&files[*index]))?;
                let bytes =
                    (decoded.h * decoded.w * want.channels.unwrap_or(decoded.channels)) as u64;
                if held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > limit {
                    decoded.pixels = Vec::new();
                }
                Ok((decoded, *takes))
            };
            let decoded: Vec<Result<(Decoded, u64)>> = part.par_iter().map(decode).collect();
            for ((index, _), decoded) in part.iter().zip(decoded) {
                let name = root.join(&files[*index]).display().to_string();
                match decoded {
                    Ok((decoded, takes)) => gathered.push(*index, decoded, takes)?,
                    Err(error) if want.strict => return Err(error.at(name)),
                    Err(error) => skipped.push((name, error.to_string())),
                }
            }
        }
    }
    let Gathered { images, channels, sizes, from, decoding, .. } = gathered;
    if from.is_empty() {
        let (first, why) = &skipped[0];
        let others = if skipped.len() == 1 {
            String::new()
        } else {
            format!(", nor can any of the other {}", skipped.len() - 1)
        };
        return Err(Error::usage(format!("{place}: no image can be used; {first}: {why}{others}")));
    }
    let labels = if labelled { labels(files, &from) } else { None };
    let pixels = match images {
        Some(mut images) => {
            (images.names, images.labels) =
                (from.iter().map(|index| slashed(&files[*index])).collect(), labels);
            Pixels::Resident(images)
        }
        None => {
            let mut files: Vec<PathBuf> = from.iter().map(|index| files[*index].clone()).collect();
            files.iter_mut().for_each(PathBuf::shrink_to_fit);
            Pixels::Streamed(Arc::new(Catalogue::new(
                Places::Files { root: root.to_owned(), files, sizes, decoding },
                channels,
                labels,
            )))
        }
    };
    Ok(Opened { skipped, ..Opened::new(place, pixels, "") })
}

struct Gathered {
    /// The pixels, while they fit.
    images: Option<Images>,
    channels: usize,
    /// Height and width of each.
    sizes: Vec<[u32; 2]>,
    /// Whether the first colour image makes the set RGB.
    grows: bool,
    /// Which of the found files each image is.
    from: Vec<usize>,
    /// Bytes that decoding the most demanding of them takes.
    decoding: u64,
    limit: u64,
}

/// What follows one another and takes no more than `room` together, or is one alone.
fn within(part: &[usize], takes: &[u64], room: u64) -> Vec<Vec<(usize, u64)>> {
    let mut groups: Vec<Vec<(usize, u64)>> = Vec::new();
    let mut left = 0_u64;
    for (index, takes) in part.iter().zip(takes) {
        if groups.is_empty() || *takes > left {
            groups.push(Vec::new());
            left = room;
        }
        left = left.saturating_sub(*takes);
        groups.last_mut().expect("one was begun").push((*index, *takes));
    }
    groups
}

impl Gathered {
    /// Adds an image, whose pixels are left out where they are certain not to fit. The set stays
    /// gray until the first colour image, unless the channels are given.
    fn push(&mut self, index: usize, decoded: Decoded, takes: u64) -> Result<()> {
        let Decoded { h, w, .. } = decoded;
        let before = self.channels;
        if self.grows && decoded.channels > before {
            self.channels = decoded.channels;
        }
        let channels = self.channels;
        self.from.push(index);
        self.decoding = self.decoding.max(takes);
        self.sizes.push([h as u32, w as u32]);
        let held = self.images.as_ref().map_or(0, |images| images.bytes.len() / before * channels);
        if decoded.pixels.is_empty() || (held + h * w * channels) as u64 > self.limit {
            self.images = None;
        }
        if let Some(images) = &mut self.images {
            images.convert_channels(channels)?;
            images.push(String::new(), h, w, &decoded.into_channels(channels))?;
        }
        Ok(())
    }
}

/// Sub-folders are classes where there are at least two and no image lies beside them.
fn labels(files: &[PathBuf], from: &[usize]) -> Option<Labels> {
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
    let of = from.iter().map(|&i| number(&of[i])).collect();
    Some(Labels { classes, of })
}

/// The path with slashes on every system, so that names are the same everywhere.
pub(super) fn slashed(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// The image files in a folder and below, sorted, with its path before each.
///
/// # Errors
/// When there is none, or a folder cannot be read.
pub fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let Found { images, idx } = find(root)?;
    if images.is_empty() {
        return Err(nothing_found(root, &idx));
    }
    Ok(images.into_iter().map(|image| root.join(image)).collect())
}

fn nothing_found(root: &Path, idx: &[PathBuf]) -> Error {
    // the training images, if the folder is one of the usual sets
    let name = |path: &&PathBuf| path.to_string_lossy().to_lowercase();
    let suggested = idx.iter().find(|p| name(p).contains("train") && name(p).contains("images"));
    let suggested = suggested
        .or_else(|| idx.iter().find(|p| name(p).contains("images")))
        .or_else(|| idx.first());
    Error::usage(match suggested {
        Some(file) => {
            format!(
                "{}: no image files here, but IDX data: name the file, {}",
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

#[derive(Default)]
struct Found {
    /// Image files, relative to the root, sorted.
    images: Vec<PathBuf>,
    /// IDX files, likewise.
    idx: Vec<PathBuf>,
}

fn find(root: &Path) -> Result<Found> {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let path = root.join(&folder);
        // links may lead in circles
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
            // follows links; a dangling one called like an image is named later, when it cannot be
            // read
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
    fn files_that_take_much_are_decoded_a_few_at_a_time() {
        let groups = |takes: &[u64], room| -> Vec<usize> {
            let part: Vec<usize> = (0..takes.len()).collect();
            let groups = within(&part, takes, room);
            assert_eq!(
                groups.concat(),
                part.into_iter().zip(takes.iter().copied()).collect::<Vec<_>>()
            );
            groups.iter().map(Vec::len).collect()
        };
        assert_eq!(groups(&[3, 3, 3, 3, 3], 9), [3, 2]);
        assert_eq!(groups(&[3, 20, 3, 0, 3], 9), [1, 1, 3]);
        assert_eq!(groups(&[5, 5], 0), [1, 1]);
        assert_eq!(groups(&[5, 5], u64::MAX), [2]);
    }
}
