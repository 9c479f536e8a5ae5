//! The header of NumPy's `.npy` files
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>), versions 1 to 3. The
//! parser is strict.

use std::io::{Read, Seek, SeekFrom};

use crate::error::{Error, Result};

/// Maximum length of a header in bytes. NumPy itself refuses headers above 10,000 bytes.
const MAX_HEADER: usize = 1 << 16;

/// The contents of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type of the values, such as `<f4`.
    pub descr: String,
    /// Whether the first axis is the fastest.
    pub fortran: bool,
    /// The size of each axis.
    pub shape: Vec<u64>,
    /// Offset of the first value in bytes.
    pub start: u64,
}

/// Header of NumPy's format, version 1.0, of an array in C order.
pub fn encode(dtype: &str, shape: &[usize]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|size| format!("{size},")).collect();
    let mut text = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // The values begin at a multiple of 64.
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    text.extend(std::iter::repeat_n(' ', length - 1 - text.len()));
    text.push('\n');
    [b"\x93NUMPY\x01\x00", &(length as u16).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A shape in messages, such as `100x28x28`.
pub fn shape_text(shape: &[u64]) -> String {
    shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x")
}

/// Reads the header: the magic bytes, the version, the length, and the literal of a Python
/// dictionary.
///
/// # Errors
/// If it is not a valid header, or one of a structured type.
pub fn read(file: &mut (impl Read + Seek)) -> Result<Header> {
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
    if text.contains("'descr': [") {
        return Err(Error::usage(
            "structured types are not supported; save each field as an array of its own",
        ));
    }
    let (descr, fortran, shape) = Parser { rest: &text }.dictionary().map_err(damaged)?;
    Ok(Header { descr, fortran, shape, start: 8 + (width + len) as u64 })
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
