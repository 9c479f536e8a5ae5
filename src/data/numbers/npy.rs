//! NumPy's `.npy` files of every numeric type, in both byte orders and in C or Fortran order.

use super::flat::{Flat, c_order};
use super::npy_header::{self, shape_text};
use super::{Element, Format, Input, NumberFile, checked_shape, damaged, too_large};
use crate::error::{Error, Result};

pub(super) const FORMAT: Format = Format {
    name: "npy",
    extensions: &["npy"],
    sniffs: |start| start.starts_with(b"\x93NUMPY"),
    open: |opening| {
        opening.single()?;
        array(opening.file, opening.size, opening.limit)
    },
};

/// The type of a `descr`, and whether its byte order is big-endian.
pub(super) fn element(descr: &str) -> Result<(Element, bool)> {
    let (order, kind) = descr.split_at_checked(1).unwrap_or_default();
    let element = match kind {
        "b1" => Some(Element::Bool),
        "f2" | "f4" | "f8" => Element::float(usize::from(kind.as_bytes()[1] - b'0')),
        "u1" | "u2" | "u4" | "u8" | "i1" | "i2" | "i4" | "i8" => {
            Element::integer(usize::from(kind.as_bytes()[1] - b'0'), kind.starts_with('i'))
        }
        _ => None,
    };
    match (element, order) {
        (Some(element), "<" | ">" | "|" | "=") => Ok((element, order == ">")),
        _ => {
            let what = match kind.chars().next() {
                _ if order == "O" => "Python objects",
                Some('O') => "Python objects",
                Some('c') => "complex numbers; save real and imaginary parts as two channels",
                Some('U' | 'S' | 'a') => "text",
                Some('M' | 'm') => "dates or times",
                Some('V') => "structures",
                Some('f') => "floats of another size",
                _ => "an unknown type",
            };
            Err(Error::usage(format!(
                "dtype {:?} ({what}) is not supported; convert with astype, for example to float32",
                descr.chars().take(40).collect::<String>()
            )))
        }
    }
}

/// Opens an array. `size` is that of the file in bytes.
pub(super) fn array(mut file: Box<dyn Input>, size: u64, limit: u64) -> Result<NumberFile> {
    let header = npy_header::read(&mut file)?;
    let (element, big) = element(&header.descr)?;
    let shape = checked_shape(element, &header.shape)?;
    let bytes = shape.iter().product::<usize>() * element.size();
    let actual = size.saturating_sub(header.start);
    if actual != bytes as u64 {
        return Err(damaged(&format!(
            "the shape {} of {} needs {bytes} bytes of values, and it has {actual}",
            shape_text(&header.shape),
            header.descr
        )));
    }
    let mut flat = Flat { file, start: header.start, size: element.size(), big };
    // With a single axis longer than 1, both orders are the same.
    if !header.fortran || shape.iter().filter(|&&size| size > 1).count() < 2 {
        return NumberFile::new(element, &header.shape, Box::new(flat));
    }
    if 2 * actual > limit {
        let advice = "save it in C order, with numpy.save(name, numpy.ascontiguousarray(x))";
        return Err(too_large(2 * actual, limit, advice));
    }
    let mut values = Vec::new();
    super::Source::read(&mut flat, 0, bytes / element.size(), &mut values)?;
    let values = c_order(&values, &shape, element.size())?;
    let source = Flat::in_memory(values, element);
    NumberFile::new(element, &header.shape, Box::new(source))
}
