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
use crate::data::numbers::npy_header::{self, Header, shape_text};
use crate::data::records::{self, reader};
use crate::data::{LoadOptions, Opened};
use crate::error::{Error, Result};
use crate::shape::Dims;

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

/// Reads the header of an array in C order.
fn header(file: &mut (impl Read + Seek)) -> Result<Header> {
    let header = npy_header::read(file)?;
    if header.fortran {
        return Err(Error::usage(
            "the array is in Fortran order; save it with numpy.save(name, \
             numpy.ascontiguousarray(x))",
        ));
    }
    Ok(header)
}

#[cfg(test)]
#[path = "npy_tests.rs"]
mod tests;
