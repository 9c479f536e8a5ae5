//! File formats, one file each: images, IDX, CIFAR and NumPy arrays. A table says how each is
//! recognised and read.

pub mod cifar;
pub mod decode;
pub mod idx;
pub mod npy;

use std::io::Read;
use std::path::Path;

use super::{Opened, Wanted};
use crate::error::{Error, Result};

/// A format of files that hold images.
pub(super) struct Format {
    /// Whether a file is in this format, by its first bytes ([`START`] at most) and its path.
    pub sniffs: fn(start: &[u8], path: &Path) -> bool,
    /// Reads a file. What takes more than `limit` bytes when decoded stays in its file.
    pub open: fn(path: &Path, want: &Wanted, limit: u64) -> Result<Opened>,
    /// Reads a folder that is in this format as a whole; `None` if it is not, or if the format has
    /// no such folders.
    pub open_folder: fn(path: &Path, want: &Wanted, limit: u64) -> Option<Result<Opened>>,
}

/// The formats. The first that recognises a file reads it, so the order matters: a CIFAR file has
/// no mark of its own and is known by its name alone, and [`decode`] takes whatever is left.
const FORMATS: &[Format] = &[npy::FORMAT, cifar::FORMAT, idx::FORMAT, decode::FORMAT];

/// Bytes of the start of a file that a format may look at.
const START: u64 = 16;

/// For formats that have no folders.
fn no_folder(_: &Path, _: &Wanted, _: u64) -> Option<Result<Opened>> {
    None
}

/// Reads a file in whichever format it is.
///
/// # Errors
/// When it is empty, or cannot be read in the format that it seems to be in.
pub(super) fn open(path: &Path, want: &Wanted, limit: u64) -> Result<Opened> {
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, &e))?;
    file.take(START).read_to_end(&mut start).map_err(|e| Error::io(path, &e))?;
    if start.is_empty() {
        return Err(Error::usage(format!("{}: the file is empty", path.display())));
    }
    let format = FORMATS.iter().find(|format| (format.sniffs)(&start, path));
    (format.expect("the last format takes any file").open)(path, want, limit)
}

/// Reads a folder whose files belong together in one of the formats; `None` if it is no such
/// folder.
pub(super) fn open_folder(path: &Path, want: &Wanted, limit: u64) -> Option<Result<Opened>> {
    FORMATS.iter().find_map(|format| (format.open_folder)(path, want, limit))
}
