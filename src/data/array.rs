//! Arrays of 8-bit images of one size: consecutive records in a file, which can be read by seeking
//! (IDX, CIFAR).

use std::io::{ErrorKind, Read, Seek, SeekFrom};

use super::images::{Entry, Images};
use crate::budget;
use crate::error::{Error, Result};
use crate::shape::Dims;

/// Maximum number of records in a file. Each image in memory has a table entry and a name, so that
/// a header with a huge count of tiny images would exhaust the memory.
pub(super) const MAX_COUNT: u64 = 10_000_000;

/// The layout of the records in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Offset of the first record in bytes.
    pub start: u64,
    /// Number of records.
    pub count: usize,
    /// Number of bytes before the pixels of each record (labels).
    pub skip: usize,
    /// Size of an image.
    pub dims: Dims,
    /// Whether the channels are separate planes (C,H,W). Otherwise they are interleaved (H,W,C).
    pub planar: bool,
}

impl Array {
    /// Size of a record in bytes.
    pub fn record(&self) -> usize {
        self.skip + self.dims.len()
    }

    /// Size of all decoded images in bytes.
    pub fn total(&self) -> u64 {
        self.dims.len() as u64 * self.count as u64
    }

    /// Reads image `index` by seeking. Returns H,W,C.
    ///
    /// # Errors
    /// If the file cannot be read, or has become shorter.
    pub fn read(&self, file: &mut (impl Read + Seek), index: usize) -> Result<Vec<u8>> {
        let mut record = budget::zeroed(self.record(), "an image")?;
        let at = self.start + index as u64 * self.record() as u64;
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.read_exact(&mut record))
            .map_err(|e| read_error(index, &e))?;
        Ok(self.decode(&record))
    }

    /// Reads all images. Their names are their numbers.
    ///
    /// # Errors
    /// Those of [`Array::read`], or if there is not enough memory.
    pub fn read_all(&self, file: &mut (impl Read + Seek)) -> Result<Images> {
        let mut images = Images::new(self.dims.c);
        let each = self.dims.len();
        images.bytes = budget::reserved(each * self.count, "the images")?;
        file.seek(SeekFrom::Start(self.start)).map_err(|e| read_error(0, &e))?;
        let mut record = vec![0; self.record()];
        for i in 0..self.count {
            file.read_exact(&mut record).map_err(|e| read_error(i, &e))?;
            images.bytes.extend(self.decode(&record));
            images.table.push(Entry { offset: i * each, size: self.dims.size() });
        }
        images.names = self.names();
        Ok(images)
    }

    /// The names of all images; see [`Array::name`].
    pub fn names(&self) -> Vec<String> {
        (0..self.count).map(|index| self.name(index)).collect()
    }

    /// The name of an image: its number with leading zeros, so that all names have the same length.
    pub fn name(&self, index: usize) -> String {
        let digits = self.count.saturating_sub(1).max(1).ilog10() as usize + 1;
        format!("{index:0digits$}")
    }

    /// The pixels (H,W,C) of a record.
    fn decode(&self, record: &[u8]) -> Vec<u8> {
        let pixels = &record[self.skip..];
        if self.planar && self.dims.c > 1 {
            let area = self.dims.area();
            (0..area)
                .flat_map(|p| (0..self.dims.c).map(move |c| (p, c)))
                .map(|(p, c)| pixels[c * area + p])
                .collect()
        } else {
            pixels.to_vec()
        }
    }
}

fn read_error(index: usize, error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => Error::failed(format!(
            "the file ends before image {index}; did it change while it was read?"
        )),
        _ => Error::failed(format!("image {index} cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// Two RGB images of 1×2 pixels, each after one byte, in bytes 3 to 16 of a file.
    const BYTES: Array =
        Array { start: 3, count: 2, skip: 1, dims: Dims::new(3, 1, 2), planar: true };

    fn file() -> Cursor<Vec<u8>> {
        Cursor::new((0..17).collect())
    }

    #[test]
    fn planar_channels_are_interleaved() {
        assert_eq!(BYTES.read(&mut file(), 1).unwrap(), [11, 13, 15, 12, 14, 16]);
    }

    #[test]
    fn interleaved_channels_are_kept() {
        let array = Array { planar: false, ..BYTES };
        assert_eq!(array.read_all(&mut file()).unwrap().image(1), [11, 12, 13, 14, 15, 16]);
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let message = BYTES.read(&mut file(), 2).unwrap_err().to_string();
        assert!(message.contains("the file ends before image 2"), "{message}");
    }
}
