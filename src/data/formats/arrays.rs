//! Files of numbers as sets of samples, with the labels that lie beside them.

use std::path::{Path, PathBuf};

use super::content::Content;
#[cfg(feature = "cli")]
use super::inner_labels;
use super::{Format, no_folder, tiff};
use crate::data::images::Labels;
use crate::data::number_set::{self, Beside};
use crate::data::numbers::{self, Element, NumberFile};
use crate::data::{LoadOptions, Opened};
use crate::error::{Error, Result};

/// Maximum number of classes. A class takes a name and a row of the classifier, so that a single
/// wrong label must not create billions of classes.
const MAX_CLASSES: i64 = 1 << 20;

/// Maximum number of labels: that of samples in a file.
const MAX_LABELS: u64 = crate::data::array::MAX_COUNT;

/// The entry in the table of formats.
pub(super) const FORMAT: Format = Format { sniffs, open, open_folder: no_folder };

/// Whether a file is of numbers, and not an image. A TIFF file is one if it has several pages.
fn sniffs(start: &[u8], path: &Path) -> bool {
    match Content::of(start, path) {
        Content::Image(image::ImageFormat::Tiff) => tiff::has_pages(path),
        Content::Image(_) => false,
        // An image of another kind that its own reader refuses better.
        Content::Unsupported(_) | Content::Other => numbers::sniffs(start, path),
    }
}

/// Opens a file of one array, with the labels of a file beside it if there is one.
fn open(path: &Path, want: &LoadOptions, limit: u64) -> Result<Opened> {
    open_array(path, None, want, limit)
}

/// Opens an array, with the labels of a file beside it if there is one. `inside` is its path inside
/// the file; without it, the file must have a single array.
///
/// # Errors
/// If a file cannot be read, its axes are ambiguous, or there are other labels than samples.
pub(super) fn open_array(
    path: &Path,
    inside: Option<&str>,
    want: &LoadOptions,
    limit: u64,
) -> Result<Opened> {
    #[cfg(feature = "cli")]
    {
        let inside = inside.map(|name| name.strip_suffix(".npy").unwrap_or(name));
        let found = inner_labels::choose(&numbers::arrays_of_npz(path)?, inside);
        if let Some(samples) = &found.samples {
            let beside = |count| inner(path, &found, count, want, limit);
            return number_set::open(path, Some(samples), want, limit, beside);
        }
    }
    number_set::open(path, inside, want, limit, |count| outer(path, count, want, limit))
}

/// The labels in the same file as the samples, otherwise those beside it. Other arrays are named.
#[cfg(feature = "cli")]
fn inner(
    path: &Path,
    found: &inner_labels::Choice,
    count: usize,
    want: &LoadOptions,
    limit: u64,
) -> Result<Beside> {
    let mut beside = Beside::default();
    if let Some(name) = &found.labels {
        let memory = want.memory.unwrap_or(limit).max(limit);
        let mut file = numbers::open(path, Some(name), memory)?;
        let labels = labels(&mut file).map_err(|e| e.at(name).at(path.display()))?;
        // The layout can join or divide samples.
        if labels.of.len() == count {
            beside.notes.push(format!("labels of {name}"));
            beside.labels = Some(labels);
        } else {
            let own = labels.of.len();
            beside.notes.push(format!("{name} is left out: {own} labels for {count} samples"));
        }
    } else {
        beside = outer(path, count, want, limit)?;
    }
    if !found.others.is_empty() {
        beside.notes.push(format!("other arrays are left out: {}", found.others.join(", ")));
    }
    Ok(beside)
}

/// The labels of a file beside the file of the samples.
fn outer(path: &Path, count: usize, want: &LoadOptions, limit: u64) -> Result<Beside> {
    let Some(beside) = labels_beside(path) else { return Ok(Beside::default()) };
    let memory = want.memory.unwrap_or(limit).max(limit);
    let mut file = numbers::open(&beside, None, memory)?;
    let is_any_y = beside.file_name().is_some_and(|name| name == "y.npy");
    if is_any_y && !matches!(file.shape(), [_] | [_, 1]) {
        // Results can have this name.
        let note = "y.npy is left out: it is not one label per sample".to_owned();
        return Ok(Beside { labels: None, notes: vec![note] });
    }
    let labels = labels(&mut file).map_err(|e| e.at(beside.display()))?;
    if labels.of.len() != count {
        return Err(Error::usage(format!(
            "{}: {} labels for the {count} samples of {}; rename this file if it does not belong \
             to them",
            beside.display(),
            labels.of.len(),
            path.display()
        )));
    }
    Ok(Beside { labels: Some(labels), notes: Vec::new() })
}

/// The labels that lie beside samples: `NAME.labels.npy`, else `labels.npy`, else `y.npy`.
fn labels_beside(path: &Path) -> Option<PathBuf> {
    let stem = path.file_stem()?.to_string_lossy().into_owned();
    let names = [format!("{stem}.labels.npy"), "labels.npy".to_owned(), "y.npy".to_owned()];
    names
        .into_iter()
        .map(|name| path.with_file_name(name))
        .find(|beside| beside != path && beside.is_file())
}

/// Reads labels: a vector of integers (N or N×1) of any type. The names of the classes are their
/// numbers.
///
/// # Errors
/// If it is not such a vector, or a label is negative or too large.
pub fn labels(file: &mut NumberFile) -> Result<Labels> {
    match file.element() {
        Element::F16 | Element::F32 | Element::F64 => {
            return Err(Error::usage(format!(
                "labels are integers, not {} numbers: convert with astype(int)",
                file.element().name()
            )));
        }
        Element::Bool
        | Element::U8
        | Element::I8
        | Element::U16
        | Element::I16
        | Element::U32
        | Element::I32
        | Element::U64
        | Element::I64 => {}
    }
    let (&[n] | &[n, 1]) = file.shape() else {
        let shape: Vec<String> = file.shape().iter().map(usize::to_string).collect();
        return Err(Error::usage(format!(
            "shape {}: labels are one integer per sample, N or N×1",
            shape.join("x")
        )));
    };
    if n as u64 > MAX_LABELS {
        return Err(Error::usage(format!(
            "{n} labels; at most {MAX_LABELS} are supported: split the file"
        )));
    }
    /// Number of labels that are read at a time.
    const PART: usize = 1 << 16;
    let (element, mut of) = (file.element(), Vec::new());
    for first in (0..n).step_by(PART) {
        let mut bytes = Vec::new();
        file.read(first as u64, PART.min(n - first), &mut bytes)?;
        for (at, label) in bytes.chunks_exact(element.size()).enumerate() {
            let label = element.value(label);
            if !(0.0..MAX_CLASSES as f64).contains(&label) {
                return Err(Error::usage(format!(
                    "label {} is {label}; classes are numbered from 0 to {}",
                    first + at,
                    MAX_CLASSES - 1
                )));
            }
            of.push(label as u32);
        }
    }
    Ok(Labels::of_numbers(&of))
}

#[cfg(test)]
#[path = "arrays_tests.rs"]
mod tests;
