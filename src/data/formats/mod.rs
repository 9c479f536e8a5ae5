//! File formats of image sets: image files, IDX, CIFAR, CSV and files of numbers. A table lists how
//! each format is detected and read.

pub mod arrays;
pub mod cifar;
mod container;
pub mod content;
pub mod csv;
pub mod decode;
mod decoded;
pub mod directory;
mod frames;
pub mod head;
pub mod idx;
#[cfg(feature = "cli")]
mod inner_labels;
pub(crate) mod jpeg;
mod overlay;
pub mod png_chunks;
pub mod reader;
mod tiff;
pub mod tiff_zstd;

use std::io::Read;
use std::path::Path;

use super::{LoadOptions, Opened, container_set, containers};
use crate::error::{Error, Result};

/// A file format.
pub(super) struct Format {
    /// Whether a file is in this format, by its first bytes (at most [`START`]) and its path.
    pub sniffs: fn(start: &[u8], path: &Path) -> bool,
    /// Opens a file. Images that take more than `limit` bytes when decoded are streamed.
    pub open: fn(path: &Path, want: &LoadOptions, limit: u64) -> Result<Opened>,
    /// Opens a folder whose files form one data set in this format. Returns `None` for any other
    /// folder, or if the format has no such folders.
    pub open_folder: fn(path: &Path, want: &LoadOptions, limit: u64) -> Option<Result<Opened>>,
}

/// The formats. The first one that detects a file opens it, so the order matters: CIFAR files have
/// no magic bytes and are detected by name only, and [`decode`] accepts every file.
const FORMATS: &[Format] =
    &[container::FORMAT, arrays::FORMAT, cifar::FORMAT, csv::FORMAT, idx::FORMAT, decode::FORMAT];

/// Number of bytes at the start of a file that are passed to [`Format::sniffs`]. It must cover the
/// magic bytes of every format.
const START: u64 = 512;

/// [`Format::open_folder`] of formats without folders.
fn no_folder(_: &Path, _: &LoadOptions, _: u64) -> Option<Result<Opened>> {
    None
}

/// The first bytes of a file.
fn start(path: &Path) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, &e))?;
    file.take(START).read_to_end(&mut start).map_err(|e| Error::io(path, &e))?;
    Ok(start)
}

/// Detects the format of a file and opens it.
///
/// # Errors
/// If the file is empty, or cannot be read in its format.
pub(super) fn open(path: &Path, want: &LoadOptions, limit: u64) -> Result<Opened> {
    let start = start(path)?;
    if start.is_empty() {
        return Err(Error::usage(format!("{}: the file is empty", path.display())));
    }
    // A safetensors file begins with the length of its JSON header, in eight bytes. A header is
    // shorter than 4 GiB.
    if start.get(4..9) == Some(b"\0\0\0\0{") {
        return Err(Error::usage(format!(
            "{} is a model or another file of tensors, not images (where a command takes both, the \
             model comes first, then the images)",
            path.display()
        )));
    }
    let format = FORMATS.iter().find(|format| (format.sniffs)(&start, path));
    (format.expect("the last format accepts every file").open)(path, want, limit)
}

/// Whether a file has one image, so that it is not opened as a set in a format of several.
pub(super) fn is_image(path: &Path) -> bool {
    let Ok(start) = start(path) else { return false };
    let is_set = |format: &Format| (format.sniffs)(&start, path);
    !FORMATS[..FORMATS.len() - 1].iter().any(is_set)
        && matches!(content::Content::of(&start, path), content::Content::Image(_))
}

/// Opens the array `inside` a file.
///
/// # Errors
/// If the file is not one of arrays, or cannot be read.
pub(super) fn open_inside(
    path: &Path,
    inside: &str,
    want: &LoadOptions,
    limit: u64,
) -> Result<Opened> {
    let start = start(path)?;
    if containers::sniffs(&start, path) {
        return container_set::open(path, Some(inside), want, limit);
    }
    arrays::open_array(path, Some(inside), want, limit)
}

/// Opens a folder whose files form one data set in one of the formats. Returns `None` for any other
/// folder.
pub(super) fn open_folder(path: &Path, want: &LoadOptions, limit: u64) -> Option<Result<Opened>> {
    FORMATS.iter().find_map(|format| (format.open_folder)(path, want, limit))
}
