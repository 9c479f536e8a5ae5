//! Lists of image files: one path per line, from standard input or a file. Standard input can also
//! be a film.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::folder::{Files, load_files};
use super::{LoadOptions, Opened, film};
use crate::error::{Error, Result};
use crate::files;

/// Maximum size of a list in bytes. It refuses a large binary file that was given by mistake before
/// the memory is exhausted.
const MAX_LIST: u64 = 1 << 30;

/// Opens the source `-`: paths from standard input, relative to the working directory, or a film.
///
/// # Errors
/// If the list is invalid or [`load_files`] fails, or if the film cannot be read.
pub(super) fn standard_input(want: &LoadOptions, limit: u64) -> Result<Opened> {
    match input(want, limit)? {
        Input::Film(opened) => Ok(*opened),
        Input::Paths(files) => load(&files, STANDARD_INPUT, Path::new(""), want, limit),
    }
}

/// The name of standard input in messages.
pub(super) const STANDARD_INPUT: &str = "standard input";

/// What standard input has.
pub(super) enum Input {
    /// A film, which is opened.
    Film(Box<Opened>),
    /// Paths of image files, relative to the working directory.
    Paths(Vec<PathBuf>),
}

/// Reads standard input.
///
/// # Errors
/// If the list is invalid, or the film cannot be read.
pub(super) fn input(want: &LoadOptions, limit: u64) -> Result<Input> {
    let (is_film, input) = detect(std::io::stdin().lock())
        .map_err(|e| Error::failed(format!("{STANDARD_INPUT}: cannot be read ({e})")))?;
    if is_film {
        return film::open(input, STANDARD_INPUT, want, limit)
            .map(|film| Input::Film(Box::new(film)));
    }
    parse(input, MAX_LIST).map(Input::Paths).map_err(|e| e.at(STANDARD_INPUT))
}

/// The paths in a list, relative to its folder.
///
/// # Errors
/// If the list cannot be read or is invalid.
pub(super) fn paths(path: &Path) -> Result<Vec<PathBuf>> {
    let list = std::fs::File::open(path).map_err(|e| Error::io(path, &e))?;
    parse(list, MAX_LIST).map_err(|e| e.at(path.display()))
}

/// Whether the input is a film, and the input from its start.
fn detect(mut input: impl BufRead) -> std::io::Result<(bool, impl BufRead)> {
    let mut start = Vec::new();
    input.by_ref().take(film::START.len() as u64).read_to_end(&mut start)?;
    let is_film = start == film::START;
    Ok((is_film, BufReader::new(std::io::Cursor::new(start).chain(input))))
}

/// Opens the source `@FILE`: paths from a file, relative to its folder.
///
/// # Errors
/// If the list cannot be read or is invalid, or [`load_files`] fails.
pub(super) fn file(path: &Path, want: &LoadOptions, limit: u64) -> Result<Opened> {
    let root = path.parent().unwrap_or(Path::new(""));
    load(&paths(path)?, &path.display().to_string(), root, want, limit)
}

fn load(
    files: &[PathBuf],
    source: &str,
    root: &Path,
    want: &LoadOptions,
    limit: u64,
) -> Result<Opened> {
    load_files(&Files { source, root, files, labelled: false }, want, limit)
}

/// Parses a list: one path per line. Spaces around a path and empty lines are ignored.
///
/// # Errors
/// If the list is longer than `max` bytes, is not UTF-8, or contains no path. The message does not
/// name the list.
fn parse(list: impl Read, max: u64) -> Result<Vec<PathBuf>> {
    let mut bytes = Vec::new();
    list.take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::failed(format!("cannot be read ({e})")))?;
    if bytes.len() as u64 > max {
        return Err(Error::usage(format!(
            "is longer than {} MiB, the limit for a list; divide it into several",
            max >> 20
        )));
    }
    let text = files::decode_text(&bytes)
        .map_err(|error| error.and("a list is a text file with one path per line"))?;
    let files: Vec<PathBuf> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(PathBuf::from).collect();
    if files.is_empty() {
        return Err(Error::usage(
            "the list is empty; write one path per line, or pipe a film (y4m)",
        ));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "a.png\n b/c.png \n\n";

    fn refusal(list: &[u8], max: u64) -> String {
        parse(list, max).unwrap_err().to_string()
    }

    #[test]
    fn spaces_and_empty_lines_are_ignored() {
        let paths = parse(LIST.as_bytes(), LIST.len() as u64).unwrap();
        assert_eq!(paths, [Path::new("a.png"), Path::new("b/c.png")]);
    }

    #[test]
    fn a_byte_order_mark_and_line_ends_of_windows_are_ignored() {
        let list = format!("\u{feff}{}", LIST.replace('\n', "\r\n"));
        let paths = parse(list.as_bytes(), list.len() as u64).unwrap();
        assert_eq!(paths, [Path::new("a.png"), Path::new("b/c.png")]);
    }

    #[test]
    fn a_film_is_recognised_also_if_it_comes_in_pieces() {
        let read = |input: &'static [u8]| {
            let pieces = input
                .chunks(1)
                .fold(Box::new(std::io::empty()) as Box<dyn Read>, |before, piece| {
                    Box::new(before.chain(piece))
                });
            let (is_film, mut input) = detect(BufReader::with_capacity(1, pieces)).unwrap();
            let mut all = Vec::new();
            input.read_to_end(&mut all).unwrap();
            (is_film, all)
        };
        assert_eq!(read(b"YUV4MPEG2 W1 H1\n"), (true, b"YUV4MPEG2 W1 H1\n".to_vec()));
        assert_eq!(read(b"YUV4.png\nb.png"), (false, b"YUV4.png\nb.png".to_vec()));
        assert_eq!(read(b"a"), (false, b"a".to_vec()));
    }

    #[test]
    fn a_list_that_is_too_long_is_refused_and_not_truncated() {
        let message = refusal(LIST.as_bytes(), LIST.len() as u64 - 1);
        assert!(message.contains("is longer than"), "{message}");
    }

    #[test]
    fn an_empty_list_is_refused() {
        let message = refusal(b"\n\n", 9);
        assert!(message.contains("the list is empty"), "{message}");
    }

    #[test]
    fn a_list_that_is_not_text_is_refused() {
        let message = refusal(b"a\xff", 9);
        assert!(message.contains("byte 1 is not UTF-8"), "{message}");
    }
}
