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
    let files = paths(list, MAX_LIST).map_err(|e| e.at(place))?;
    gather(&Files { place, root, files: &files, labelled: false }, want, limit)
}

/// The paths of a list of `most` bytes at most.
fn paths(list: impl Read, most: u64) -> Result<Vec<PathBuf>> {
    let mut bytes = Vec::new();
    list.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::failed(format!("cannot be read ({e})")))?;
    if bytes.len() as u64 > most {
        return Err(Error::usage(format!(
            "is longer than the {} MiB that a list may have; cut it into several",
            most >> 20
        )));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        Error::usage(format!("byte {} is not UTF-8; a list is text", e.utf8_error().valid_up_to()))
    })?;
    let files: Vec<PathBuf> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(PathBuf::from).collect();
    if files.is_empty() {
        return Err(Error::usage("names no image; write one path a line"));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_too_long_is_refused_not_cut() {
        let list = "a.png\n b/c.png \n\n";
        assert_eq!(
            paths(list.as_bytes(), list.len() as u64).unwrap(),
            [Path::new("a.png"), Path::new("b/c.png")]
        );
        let refused = paths(list.as_bytes(), list.len() as u64 - 1).unwrap_err().to_string();
        assert!(refused.contains("longer"), "{refused}");
        assert!(paths(&b"\n\n"[..], 9).unwrap_err().to_string().contains("names no image"));
    }
}
