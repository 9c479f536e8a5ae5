//! Loading of image files: all in a folder, or a single one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rayon::prelude::*;

use super::accumulator::Accumulator;
use super::catalogue::{Catalogue, Storage};
use super::find::{Found, find, no_images};
use super::images::Labels;
#[cfg(feature = "cli")]
use super::pattern::Matches;
use super::storage::Page;
use super::{LoadOptions, NanName, Opened, Pixels};
use crate::advice::Advice;
use crate::data::file_report::FileReport;
use crate::data::formats::decode::{
    Limit, Stored, bytes_to_decode, decode_stored, decode_stored_page, pages_alike,
};
use crate::error::{Error, Result};
use crate::sample_type::SampleType;

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

/// Loads every image below `root`, in the order of the paths. Hidden files and folders are ignored.
/// Folders that cannot be read and images of kinds that are not supported are skipped.
///
/// # Errors
/// If there is no image, `root` cannot be read, or [`load_files`] fails. With `want.strict` also if
/// a file or folder would be skipped.
pub(super) fn load(root: &Path, want: &LoadOptions, limit: u64) -> Result<Opened> {
    let found = find(root)?;
    if found.images.is_empty() {
        #[cfg(feature = "cli")]
        if let Some(opened) = super::waveforms::open(root, want, limit) {
            return opened;
        }
        return Err(no_images(root, &found));
    }
    load_found(root, found, true, want, limit)
}

/// Loads the images that were found below `root`.
fn load_found(
    root: &Path,
    found: Found,
    labelled: bool,
    want: &LoadOptions,
    limit: u64,
) -> Result<Opened> {
    let Found { images, mut report, .. } = found;
    if want.strict {
        report.refuse_skipped()?;
    }
    let source = root.display().to_string();
    let files = Files { source: &source, root, files: &images, labelled };
    let opened = load_files(&files, want, limit)?;
    report.extend(opened.report);
    Ok(Opened { report, ..opened })
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
    load_found(root, found, false, want, limit).map(Some)
}

/// Loads the files that match a pattern. Sub-folders below its first wildcard are classes.
///
/// # Errors
/// Those of [`load`].
#[cfg(feature = "cli")]
pub(super) fn load_matches(
    pattern: &str,
    found: Matches,
    want: &LoadOptions,
    limit: u64,
) -> Result<Opened> {
    let Matches { root, files, mut report } = found;
    if want.strict {
        report.refuse_skipped()?;
    }
    let files = Files { source: pattern, root: &root, files: &files, labelled: true };
    let opened = load_files(&files, want, limit)?;
    report.extend(opened.report);
    Ok(Opened { report, ..opened })
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

/// The images of files to decode.
#[derive(Clone, Copy, Default)]
pub(super) struct Chosen<'a> {
    /// The pages of each file, in order and numbered from 1. A file without pages has page 1.
    /// `None`: all pages of all files.
    pub pages: Option<&'a BTreeMap<usize, Vec<usize>>>,
    /// The type of the samples of all images, if it is known.
    pub sample: Option<SampleType>,
}

impl Chosen<'_> {
    fn contains(&self, file: usize, page: usize) -> bool {
        self.pages.is_none_or(|pages| pages.get(&file).is_some_and(|all| all.contains(&page)))
    }
}

/// Decodes all files. If their pixels take at most `limit` bytes, they are kept in memory,
/// otherwise the files are streamed. The files decoded at the same time take at most `limit` bytes
/// together, or are one file.
///
/// # Errors
/// If no file can be decoded; if one cannot and `want.strict` is set; if one takes more memory than
/// `want.memory`; or if `want.channels` is neither 1 nor 3.
pub(super) fn load_files(files: &Files, want: &LoadOptions, limit: u64) -> Result<Opened> {
    let (opened, places) = load_chosen(files, Chosen::default(), want, limit)?;
    if places.is_empty() {
        let (first, reason) = &opened.report.skipped[0];
        let others = match opened.report.skipped.len() - 1 {
            0 => String::new(),
            1 => " (and 1 other file failed)".to_owned(),
            n => format!(" (and {n} other files failed)"),
        };
        return Err(Error::usage(format!(
            "{}: no image can be used; {first}: {reason}{others}",
            files.source
        )));
    }
    Ok(opened)
}

/// As [`load_files`], for some images. Returns the file and the page of each image, too. There can
/// be no image.
///
/// # Errors
/// Those of [`load_files`], except if no file can be decoded.
pub(super) fn load_chosen(
    files: &Files,
    chosen: Chosen,
    want: &LoadOptions,
    limit: u64,
) -> Result<(Opened, Vec<(usize, usize)>)> {
    let Files { source, root, files, labelled } = *files;
    let mut set = Accumulator::new(source, want, limit)?;
    set.sample = chosen.sample;
    let mut report = FileReport::default();
    // The page that each image is, if it is one.
    let (mut pages, mut stacks) = (Vec::new(), 0);
    let reduced = AtomicUsize::new(0);
    let one = Limit::of_memory(want.memory);
    let batch = FILES_PER_THREAD * rayon::current_num_threads();
    let all: Vec<usize> = match chosen.pages {
        Some(pages) => pages.keys().copied().collect(),
        None => (0..files.len()).collect(),
    };
    for indices in all.chunks(batch) {
        let cost = |index: &usize| bytes_to_decode(&root.join(&files[*index]), one);
        let costs: Vec<u64> = indices.par_iter().map(cost).collect();
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
        for group in group_by_cost(indices, &costs, limit) {
            // Pixels that will certainly exceed the limit are dropped at once and not held until
            // their turn comes.
            let held = AtomicU64::new(
                set.images.as_ref().map_or(u64::MAX / 2, |images| images.bytes.len() as u64),
            );
            let fit = |mut decoded: Stored| -> Result<Stored> {
                if want.eight_bits && decoded.sample != SampleType::U8 {
                    decoded = decoded.into_bytes()?;
                    reduced.fetch_add(1, Ordering::Relaxed);
                }
                if want.nan == NanName::Error {
                    decoded.refuse_nan()?;
                }
                let (dims, sample) = (decoded.dims, decoded.sample.size());

                let bytes = (dims.area() * want.channels.unwrap_or(dims.c) * sample) as u64;
                if held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > limit {
                    decoded.pixels = Vec::new();
                }
                Ok(decoded)
            };
            let decode = |(index, _): &(usize, u64)| -> Result<(Stored, Vec<u64>)> {
                let path = root.join(&files[*index]);
                let decoded = decode_stored(&path, one)?;
                let is_stack = decoded.frames > 1 && !want.eight_bits;
                let several = if is_stack { pages_alike(&path) } else { Vec::new() };
                Ok((fit(decoded)?, several))
            };
            let decoded: Vec<Result<(Stored, Vec<u64>)>> = group.par_iter().map(decode).collect();
            for ((index, cost), decoded) in group.iter().zip(decoded) {
                let path = root.join(&files[*index]);
                let name = path.display().to_string();
                let (first, places) = match decoded {
                    Ok(decoded) => decoded,
                    Err(error) if want.strict => return Err(error.at(name)),
                    Err(error) => {
                        report.skip(name, error);
                        continue;
                    }
                };
                if places.is_empty() {
                    if first.frames > 1 {
                        report.several.push((name.clone(), first.frames));
                    }
                    set.push(*index, first, *cost).map_err(|error| error.at(&name))?;
                    pages.push(None);
                    continue;
                }
                stacks += 1;
                let page =
                    |number: usize| Page { number, of: places.len(), at: places[number - 1] };
                if chosen.contains(*index, 1) {
                    set.push(*index, first, *cost).map_err(|error| error.at(&name))?;
                    pages.push(Some(page(1)));
                }
                // As many pages at a time as files fit.
                let at_once = (limit / (*cost).max(1)).clamp(1, batch as u64) as usize;
                let own = |number: &usize| chosen.contains(*index, *number);
                let numbers: Vec<usize> = (2..=places.len()).filter(own).collect();
                for numbers in numbers.chunks(at_once) {
                    let decode = |number: &usize| {
                        decode_stored_page(&path, page(*number).at, one).and_then(fit)
                    };
                    let decoded: Vec<Result<Stored>> = numbers.par_iter().map(decode).collect();
                    for (number, decoded) in numbers.iter().zip(decoded) {
                        let name = format!("{name}: page {number}");
                        match decoded {
                            Ok(decoded) => {
                                set.push(*index, decoded, *cost).map_err(|e| e.at(&name))?;
                                pages.push(Some(page(*number)));
                            }
                            Err(error) if want.strict => return Err(error.at(name)),
                            Err(error) => report.skip(name, error),
                        }
                    }
                }
            }
        }
    }
    let Accumulator { images, channels, sample, sizes, indices, decoding, .. } = set;
    report.reduced = reduced.into_inner();
    let labels = if labelled { labels(files, &indices) } else { None };
    report.outside = strays(files).filter(|_| labelled);
    let note = report
        .outside
        .as_ref()
        .map_or_else(String::new, |why| format!("; no classes, since {why}"));
    let count = pages.iter().flatten().count();
    let of_pages = match stacks {
        0 => String::new(),
        1 => format!("; the {count} pages of a TIFF file are samples"),
        _ => format!("; the {count} pages of {stacks} TIFF files are samples"),
    };
    let note = of_pages + &note;
    let page = |page: &Option<Page>| page.map_or(1, |page| page.number);
    let places: Vec<(usize, usize)> = indices.iter().copied().zip(pages.iter().map(page)).collect();
    if stacks == 0 {
        pages.clear();
    }
    let pixels = match images {
        Some(mut images) => {
            let name = |(image, index): (usize, &usize)| match pages.get(image) {
                Some(Some(page)) => page.name(&files[*index]),
                Some(None) | None => slashed(&files[*index]),
            };
            images.names = indices.iter().enumerate().map(name).collect();
            images.labels = labels;
            Pixels::Resident(images)
        }
        None => {
            let mut files: Vec<PathBuf> =
                indices.iter().map(|index| files[*index].clone()).collect();
            files.iter_mut().for_each(PathBuf::shrink_to_fit);
            Pixels::Streamed(Arc::new(Catalogue::new(
                Storage::Files { root: root.to_owned(), files, sizes, decoding, pages },
                channels,
                sample.unwrap_or_default(),
                labels,
            )))
        }
    };
    Ok((Opened { report, ..Opened::new(source, pixels, &note) }, places))
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

/// The labels of the images `indices`: their top-level folders are the classes. `None` if there are
/// fewer than two such folders, or an image is outside of them.
pub(super) fn labels(files: &[PathBuf], indices: &[usize]) -> Option<Labels> {
    let of: Vec<String> = files.iter().map(|file| class(file)).collect::<Option<_>>()?;
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

/// The top-level folder of a file.
fn class(file: &Path) -> Option<String> {
    let mut parts = file.components();
    let first = parts.next()?;
    parts.next().map(|_| first.as_os_str().to_string_lossy().into_owned())
}

/// Says which images are outside of folders that look like those of classes: three quarters of the
/// images or more are in two or more folders.
fn strays(files: &[PathBuf]) -> Option<String> {
    let stray: Vec<&PathBuf> = files.iter().filter(|file| class(file).is_none()).collect();
    let mut classes: Vec<String> = files.iter().filter_map(|file| class(file)).collect();
    let is_likely = !stray.is_empty() && classes.len() >= 3 * stray.len();
    classes.sort();
    classes.dedup();
    let others = match stray.len() {
        0 | 1 => " is".to_owned(),
        2 => " and 1 other image are".to_owned(),
        n => format!(" and {} other images are", n - 1),
    };
    (is_likely && classes.len() > 1).then(|| {
        let first = slashed(stray[0]);
        format!("{first}{others} not in one of the {} folders", classes.len())
    })
}

/// Writes a path with slashes, so that image names are the same on every system.
pub(super) fn slashed(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
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
