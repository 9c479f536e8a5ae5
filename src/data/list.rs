//! Lists of image files: one path a line, from standard input or a file.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::folder::{Files, gather};
use super::{Opened, Wanted};
use crate::error::{Error, Result};

/// The longest list that is read.
const MAX_LIST: u64 = 1 << 30;

/// `-`: paths from standard input, relative to where the program runs.
pub(super) fn standard_input(want: &Wanted, limit: u64) -> Result<Opened> {
    read(std::io::stdin().lock(), "standard input", Path::new(""), want, limit)
}

/// `@FILE`: paths from a file, relative to its folder.
pub(super) fn file(path: &Path, want: &Wanted, limit: u64) -> Result<Opened> {
    let list = std::fs::File::open(path).map_err(|e| Error::io(path, &e))?;
    read(list, &path.display().to_string(), path.parent().unwrap_or(Path::new("")), want, limit)
}

fn read(list: impl Read, place: &str, root: &Path, want: &Wanted, limit: u64) -> Result<Opened> {
    let mut bytes = Vec::new();
    list.take(MAX_LIST).read_to_end(&mut bytes).map_err(|e| Error::failed(format!("{place}: cannot be read ({e})")))?;
    let text = String::from_utf8(bytes)
        .map_err(|e| Error::usage(format!("{place}: byte {} is not UTF-8; a list is text", e.utf8_error().valid_up_to())))?;
    let files: Vec<PathBuf> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(PathBuf::from).collect();
    if files.is_empty() {
        return Err(Error::usage(format!("{place}: names no image; write one path a line")));
    }
    gather(&Files { place, root, files: &files, labelled: false }, want, limit)
}
