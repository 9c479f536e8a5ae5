//! Elements that lie one after the other in a file or in memory, in either byte order.

use std::io::{Cursor, Read, Seek, SeekFrom};

use super::{Element, Input, Result, Source, damaged, read_error, too_large};
use crate::budget;

/// Contiguous elements in C order.
pub(super) struct Flat {
    pub file: Box<dyn Input>,
    /// Offset of the first element in bytes.
    pub start: u64,
    /// Size of an element in bytes.
    pub size: usize,
    /// Whether the byte order is big-endian.
    pub big: bool,
}

impl Flat {
    /// Elements in memory, in little-endian byte order.
    pub fn in_memory(bytes: Vec<u8>, element: Element) -> Self {
        Self { file: Box::new(Cursor::new(bytes)), start: 0, size: element.size(), big: false }
    }
}

impl Source for Flat {
    fn read(&mut self, first: u64, count: usize, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.resize(start + count * self.size, 0);
        let new = &mut out[start..];
        let at = self.start + first * self.size as u64;
        self.file
            .seek(SeekFrom::Start(at))
            .and_then(|_| self.file.read_exact(new))
            .map_err(|e| read_error(&e))?;
        if self.big {
            swap(new, self.size);
        }
        Ok(())
    }
}

/// Reverses the bytes of each element of `size` bytes.
pub(super) fn swap(bytes: &mut [u8], size: usize) {
    match size {
        1 => {}
        2 => bytes.as_chunks_mut::<2>().0.iter_mut().for_each(|x| x.reverse()),
        4 => bytes.as_chunks_mut::<4>().0.iter_mut().for_each(|x| x.reverse()),
        _ => bytes.as_chunks_mut::<8>().0.iter_mut().for_each(|x| x.reverse()),
    }
}

/// The elements of `size` bytes of an array whose first axis is the fastest (Fortran order), in C
/// order. `shape` is that of the result, outermost first.
pub(super) fn c_order(bytes: &[u8], shape: &[usize], size: usize) -> Result<Vec<u8>> {
    let mut out = budget::reserved(bytes.len(), "the numbers in C order")?;
    // The distance of neighbours along each axis, in elements.
    let mut step = 1;
    let steps: Vec<usize> = shape
        .iter()
        .map(|&axis| {
            let this = step;
            step *= axis;
            this
        })
        .collect();
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    for _ in 0..bytes.len() / size {
        let element = bytes.get(at * size..(at + 1) * size);
        out.extend_from_slice(element.ok_or_else(|| damaged("its shape is impossible"))?);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += steps[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= steps[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    Ok(out)
}

/// Reads all bytes of a stream that are expected to be `len` bytes, at most `limit`. The memory
/// grows with what the stream contains, because the declared length is not trusted.
///
/// # Errors
/// If `len` exceeds the limit, or the stream is shorter or longer.
pub(super) fn inflate(stream: impl Read, len: u64, limit: u64, advice: &str) -> Result<Vec<u8>> {
    if len > limit {
        return Err(too_large(len, limit, advice));
    }
    let mut bytes = Vec::new();
    stream.take(len + 1).read_to_end(&mut bytes).map_err(|e| read_error(&e))?;
    if bytes.len() as u64 != len {
        return Err(damaged("its compressed part has another length than it declares"));
    }
    Ok(bytes)
}
