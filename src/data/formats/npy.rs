//! NumPy's `.npy` files (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
//! The parser is strict.
//!
//! Images have the type `|u1`, `<f4`, `>f4`, `<f8` or `>f8`, C order and 1 or 3 channels. The shape
//! is N×H×W, N×C×H×W or N×H×W×C; if both of the latter are possible, it is N×C×H×W. Floats are in
//! 0…1 or in 0…255, which the largest value decides. They are rounded to 8 bits, because images are
//! stored as bytes.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Format, no_folder};
use crate::data::array::{Array, MAX_COUNT};
use crate::data::images::Labels;
use crate::data::records::{self, reader};
use crate::data::{LoadOptions, Opened};
use crate::error::{Error, Result};
use crate::shape::Dims;

/// Maximum length of a header in bytes. NumPy itself refuses headers above 10,000 bytes.
const MAX_HEADER: usize = 1 << 16;

/// Maximum number of classes. A class takes a name and a row of the classifier, so that a single
/// wrong label must not create billions of classes.
const MAX_CLASSES: i64 = 1 << 20;

/// The entry in the table of formats.
pub(super) const FORMAT: Format = Format { sniffs: looks_like, open, open_folder: no_folder };

/// Opens a file, with the labels of a file beside it if there is one.
fn open(path: &Path, want: &LoadOptions, limit: u64) -> Result<Opened> {
    let (mut file, size) = reader(path)?;
    let array = array(&mut file, size).map_err(|e| e.at(path.display()))?;
    let labels = labels_beside(path).map(|beside| -> Result<Labels> {
        let (mut file, size) = reader(&beside)?;
        let labels = labels(&mut file, size).map_err(|e| e.at(beside.display()))?;
        if labels.of.len() != array.count {
            return Err(Error::usage(format!(
                "{}: {} labels for the {} images of {}; rename this file if it does not belong to \
                 them",
                beside.display(),
                labels.of.len(),
                array.count,
                path.display()
            )));
        }
        Ok(labels)
    });

    records::open(
        &path.display().to_string(),
        vec![(path.to_owned(), array)],
        labels.transpose()?,
        want,
        limit,
        "",
    )
}

/// Whether a file that begins with these bytes is `.npy`, or is called so.
fn looks_like(start: &[u8], path: &Path) -> bool {
    start.starts_with(b"\x93NUM") || path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy"))
}

/// Header of NumPy's format, version 1.0, of an array in C order.
pub fn encode_header(dtype: &str, shape: &[usize]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|size| format!("{size},")).collect();
    let mut text = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // The values begin at a multiple of 64.
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    text.extend(std::iter::repeat_n(' ', length - 1 - text.len()));
    text.push('\n');
    [b"\x93NUMPY\x01\x00", &(length as u16).to_le_bytes()[..], text.as_bytes()].concat()
}

/// The contents of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    /// The type of the values, such as `<f4`.
    descr: String,
    shape: Vec<u64>,
    /// Offset of the first value in bytes.
    start: u64,
}

/// Reads the header of an array of images and, for floats, the range of the values. `size` is the
/// size of the file in bytes.
///
/// # Errors
/// If the file is not a valid `.npy` file, or not an array of images as described above.
pub fn array(file: &mut (impl Read + Seek), size: u64) -> Result<Array> {
    let header = header(file)?;
    match header.descr.as_str() {
        "|u1" => {}
        other => {
            return Err(Error::usage(format!(
                "dtype {other:?} is not supported; images are |u1, <f4, >f4, <f8 or >f8: convert \
                 with astype"
            )));
        }
    };
    check_size(&header, 1, size)?;
    let shape = shape_text(&header.shape);
    let axes: Vec<usize> = header.shape.iter().map(|&axis| axis as usize).collect();
    let channels = |c: usize| c == 1 || c == 3;
    let (count, dims, planar) = match axes[..] {
        [n, h, w] => (n, Dims::new(1, h, w), false),
        [n, c, h, w] if channels(c) => (n, Dims::new(c, h, w), true),
        [n, h, w, c] if channels(c) => (n, Dims::new(c, h, w), false),
        [_, _, _, _] => {
            return Err(Error::usage(format!(
                "shape {shape}: images have 1 or 3 channels, N×C×H×W or N×H×W×C"
            )));
        }
        [_] => {
            return Err(Error::usage(format!(
                "shape {shape} looks like labels; name the file of the images instead"
            )));
        }
        _ => {
            return Err(Error::usage(format!(
                "shape {shape}: images are N×H×W, N×C×H×W or N×H×W×C; reshape the array"
            )));
        }
    };
    if count as u64 > MAX_COUNT {
        return Err(Error::usage(format!(
            "{count} images; at most {MAX_COUNT} are supported: split the file"
        )));
    }
    Ok(Array { start: header.start, count, skip: 0, dims, planar })
}

/// Reads labels: a vector of integers (N or N×1) of any type. The names of the classes are their
/// numbers.
///
/// # Errors
/// If the file is not a valid `.npy` file or not such a vector, or a label is negative or too
/// large.
pub fn labels(file: &mut (impl Read + Seek), size: u64) -> Result<Labels> {
    let header = header(file)?;
    let (order, integer) = header.descr.split_at_checked(1).unwrap_or_default();
    let (width, signed) = match integer {
        "u1" | "b1" => (1, false),
        "i1" => (1, true),
        "u2" => (2, false),
        "i2" => (2, true),
        "u4" => (4, false),
        "i4" => (4, true),
        "u8" => (8, false),
        "i8" => (8, true),
        _ => {
            return Err(Error::usage(format!(
                "dtype {:?} is not supported; labels are integers: convert with astype(int)",
                header.descr
            )));
        }
    };
    check_size(&header, width as u64, size)?;
    let (&[n] | &[n, 1]) = header.shape.as_slice() else {
        return Err(Error::usage(format!(
            "shape {}: labels are one integer per image, N or N×1",
            shape_text(&header.shape)
        )));
    };
    if n > MAX_COUNT {
        return Err(Error::usage(format!(
            "{n} labels; at most {MAX_COUNT} are supported: split the file"
        )));
    }
    let mut of = Vec::new();
    for_each_value(file, header.start, n, width, |index, bytes| {
        let byte = |i: usize| if order == ">" { bytes[i] } else { bytes[width - 1 - i] };
        let bits = (0..width).fold(0u64, |bits, i| bits << 8 | u64::from(byte(i)));
        let unused = 64 - 8 * width as u32;
        let value = if signed {
            // Sign extension.
            ((bits << unused) as i64) >> unused
        } else {
            i64::try_from(bits).unwrap_or(i64::MAX)
        };
        if !(0..MAX_CLASSES).contains(&value) {
            return Err(Error::usage(format!(
                "label {index} is {value}; classes are numbered from 0 to {}",
                MAX_CLASSES - 1
            )));
        }
        of.push(value as u32);
        Ok(())
    })?;
    Ok(Labels::of_numbers(&of))
}

/// The labels that lie beside images: `NAME.labels.npy`, else `labels.npy`, else `y.npy`.
fn labels_beside(path: &Path) -> Option<PathBuf> {
    let stem = path.file_stem()?.to_string_lossy().into_owned();
    let names = [format!("{stem}.labels.npy"), "labels.npy".to_owned(), "y.npy".to_owned()];
    names
        .into_iter()
        .map(|name| path.with_file_name(name))
        .find(|beside| beside != path && beside.is_file())
}

fn shape_text(shape: &[u64]) -> String {
    shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x")
}

/// Checks that the file contains exactly the values of its header. `width` is the size of a value
/// and `size` that of the file, in bytes.
fn check_size(header: &Header, width: u64, size: u64) -> Result<()> {
    let shape = shape_text(&header.shape);
    if header.shape.contains(&0) {
        return Err(Error::usage(format!("the array is empty: its shape is {shape}")));
    }
    let expected = header.shape.iter().try_fold(width, |bytes, &dim| bytes.checked_mul(dim));
    let actual = size.saturating_sub(header.start);
    match expected {
        Some(expected) if expected == actual => Ok(()),
        Some(expected) if expected < actual => Err(Error::usage(format!(
            "the file has {actual} bytes of values, more than the shape {shape} of {} needs; save \
             it again",
            header.descr
        ))),
        _ => Err(Error::usage(format!(
            "the header has the shape {shape} of {}, but the file has {actual} bytes of values; \
             the file is cut off or damaged: save it again",
            header.descr
        ))),
    }
}

/// Calls `f` with the index and the bytes of each of `count` values of `width` bytes.
fn for_each_value(
    file: &mut (impl Read + Seek),
    start: u64,
    count: u64,
    width: usize,
    mut f: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    /// Number of values that are read at a time: at most 64 KiB.
    const PART: u64 = 1 << 13;
    let failed = |e: std::io::Error| Error::failed(format!("cannot be read: {e}"));
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let mut bytes = vec![0; PART.min(count) as usize * width];
    let mut done = 0;
    while done < count {
        let part = PART.min(count - done);
        let bytes = &mut bytes[..part as usize * width];
        file.read_exact(bytes).map_err(failed)?;
        for (i, value) in bytes.chunks_exact(width).enumerate() {
            f(done + i as u64, value)?;
        }
        done += part;
    }
    Ok(())
}

/// Reads the header: the magic bytes, the version, the length, and the literal of a Python
/// dictionary.
fn header(file: &mut (impl Read + Seek)) -> Result<Header> {
    let read_error = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            Error::usage("the file ends inside the npy header; it is cut off: save it again")
        }
        _ => Error::failed(format!("cannot be read: {error}")),
    };
    let mut magic = [0; 8];
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut magic)).map_err(read_error)?;
    if !magic.starts_with(b"\x93NUMPY") {
        return Err(Error::usage("not an npy file (it does not start with \\x93NUMPY)"));
    }
    let version = magic[6];
    let mut four = [0; 4];
    let width = match version {
        1 => 2,
        2 | 3 => 4,
        _ => {
            return Err(Error::usage(format!(
                "npy version {version}.{} is not supported; save it with a version up to 3.0",
                magic[7]
            )));
        }
    };
    file.read_exact(&mut four[..width]).map_err(read_error)?;
    let len = u32::from_le_bytes(four) as usize;
    if len > MAX_HEADER {
        return Err(Error::usage(format!(
            "the header has {len} bytes, but at most {MAX_HEADER} are supported; the file is \
             damaged: save it again"
        )));
    }
    let mut text = vec![0; len];
    file.read_exact(&mut text).map_err(read_error)?;
    let damaged =
        |what: String| Error::usage(format!("the npy header is damaged: {what}; save it again"));
    let text = String::from_utf8(text).map_err(|_| damaged("it is not text".to_owned()))?;
    let (descr, fortran, shape) = Parser { rest: &text }.dictionary().map_err(damaged)?;
    if fortran {
        return Err(Error::usage(
            "the array is in Fortran order; save it with numpy.save(name, \
             numpy.ascontiguousarray(x))",
        ));
    }
    Ok(Header { descr, shape, start: 8 + (width + len) as u64 })
}

/// A parser for the dictionary of a header. Its errors are clauses without a subject.
struct Parser<'a> {
    /// The text that is not parsed yet.
    rest: &'a str,
}

impl Parser<'_> {
    /// Parses the dictionary. Returns `descr`, `fortran_order` and `shape`.
    fn dictionary(mut self) -> Result<(String, bool, Vec<u64>), String> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect('{')?;
        while !self.take('}') {
            let key = self.string()?;
            self.expect(':')?;
            let duplicate = match key.as_str() {
                "descr" if self.peek() == Some('[') => {
                    return Err("structured types are not supported".to_owned());
                }
                "descr" => descr.replace(self.string()?).is_some(),
                "fortran_order" => fortran.replace(self.boolean()?).is_some(),
                "shape" => shape.replace(self.tuple()?).is_some(),
                _ => {
                    return Err(format!(
                        "unknown key {:?}",
                        key.chars().take(40).collect::<String>()
                    ));
                }
            };
            if duplicate {
                return Err(format!("it has {key} twice"));
            }
            if !self.take(',') && self.peek() != Some('}') {
                return Err("a comma or } is missing".to_owned());
            }
        }
        if self.peek().is_some() {
            return Err("there is text after the }".to_owned());
        }
        match (descr, fortran, shape) {
            (Some(descr), Some(fortran), Some(shape)) => Ok((descr, fortran, shape)),
            _ => Err("descr, fortran_order or shape is missing".to_owned()),
        }
    }

    /// The next character that is not white space.
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start_matches([' ', '\n', '\t', '\r']);
        self.rest.chars().next()
    }

    /// Consumes the next character if it is `expected`. Returns whether it was.
    fn take(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        if found {
            self.rest = &self.rest[expected.len_utf8()..];
        }
        found
    }

    fn expect(&mut self, expected: char) -> Result<(), String> {
        if self.take(expected) { Ok(()) } else { Err(format!("{expected} is missing")) }
    }

    fn string(&mut self) -> Result<String, String> {
        let quote = self.peek().filter(|c| "'\"".contains(*c)).ok_or("a string is missing")?;
        let (string, rest) = self.rest[1..].split_once(quote).ok_or("a quote is not closed")?;
        self.rest = rest;
        Ok(string.to_owned())
    }

    fn boolean(&mut self) -> Result<bool, String> {
        self.peek();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err("fortran_order is neither True nor False".to_owned())
    }

    /// A tuple of non-negative integers.
    fn tuple(&mut self) -> Result<Vec<u64>, String> {
        self.expect('(')?;
        let mut dims = Vec::new();
        while !self.take(')') {
            if self.peek() == Some('-') {
                return Err("a size is negative".to_owned());
            }
            let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            let (digits, rest) = self.rest.split_at(end);
            dims.push(digits.parse().map_err(|_| "a size is not a 64-bit number".to_owned())?);
            self.rest = rest;
            // The limit of NumPy before version 2.
            if dims.len() > 32 {
                return Err("it has more than 32 dimensions".to_owned());
            }
            if !self.take(',') && self.peek() != Some(')') {
                return Err("a comma or ) is missing".to_owned());
            }
        }
        Ok(dims)
    }
}

#[cfg(test)]
#[path = "npy_tests.rs"]
mod tests;
