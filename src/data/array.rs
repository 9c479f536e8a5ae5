//! Arrays of images of one size: records that follow one another in a file and can be read by
//! seeking (IDX, CIFAR, npy).

use std::io::{ErrorKind, Read, Seek, SeekFrom};

use super::images::{Entry, Images};
use crate::error::{Error, Result};

/// The most records a file may hold: the table and the names take memory too.
pub(super) const MAX_COUNT: u64 = 10_000_000;

/// How a sample is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample {
    /// A byte.
    U8,
    /// A float, times `scale` a byte.
    F32 {
        /// Big end first.
        big: bool,
        /// 255 for values in 0…1, else 1.
        scale: f64,
    },
    /// A double, times `scale` a byte.
    F64 {
        /// Big end first.
        big: bool,
        /// As above.
        scale: f64,
    },
}

impl Sample {
    /// Bytes of one.
    pub const fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F32 { .. } => 4,
            Self::F64 { .. } => 8,
        }
    }

    /// The value stored in the bytes of one sample.
    pub fn value(self, bytes: &[u8]) -> f64 {
        match self {
            Self::U8 => f64::from(bytes[0]),
            Self::F32 { big, .. } => {
                let four = [bytes[0], bytes[1], bytes[2], bytes[3]];
                f64::from(if big { f32::from_be_bytes(four) } else { f32::from_le_bytes(four) })
            }
            Self::F64 { big, .. } => {
                let eight = std::array::from_fn(|i| bytes[i]);
                if big { f64::from_be_bytes(eight) } else { f64::from_le_bytes(eight) }
            }
        }
    }

    fn byte(self, bytes: &[u8]) -> u8 {
        match self {
            Self::U8 => bytes[0],
            Self::F32 { scale, .. } | Self::F64 { scale, .. } => {
                (self.value(bytes) * scale).round() as u8
            }
        }
    }
}

/// Where the records lie and how to read one.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Offset of the first record.
    pub start: u64,
    /// Number of records.
    pub count: usize,
    /// Bytes in front of each record's pixels (labels).
    pub skip: usize,
    /// Height in pixels.
    pub h: usize,
    /// Width in pixels.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Whether the channels follow one another (C,H,W), not the pixels (H,W,C).
    pub planar: bool,
    /// What a sample is.
    pub sample: Sample,
}

impl Array {
    /// Samples of an image.
    pub fn samples(&self) -> usize {
        self.h * self.w * self.c
    }

    /// Bytes of a record.
    pub fn record(&self) -> usize {
        self.skip + self.samples() * self.sample.size()
    }

    /// Decoded bytes of all images.
    pub fn total(&self) -> u64 {
        self.samples() as u64 * self.count as u64
    }

    /// Reads one image by seeking: H,W,C.
    ///
    /// # Errors
    /// When the file does not give the bytes (any more).
    pub fn read(&self, file: &mut (impl Read + Seek), index: usize) -> Result<Vec<u8>> {
        let mut record = vec![0; self.record()];
        let at = self.start + index as u64 * self.record() as u64;
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.read_exact(&mut record))
            .map_err(|e| lost(index, &e))?;
        Ok(self.decode(&record))
    }

    /// Reads all images, named by their number.
    ///
    /// # Errors
    /// As [`Array::read`].
    pub fn read_all(&self, file: &mut (impl Read + Seek)) -> Result<Images> {
        let mut images = Images::new(self.c);
        let each = self.samples();
        images.bytes.reserve_exact(each * self.count);
        file.seek(SeekFrom::Start(self.start)).map_err(|e| lost(0, &e))?;
        let mut record = vec![0; self.record()];
        for i in 0..self.count {
            file.read_exact(&mut record).map_err(|e| lost(i, &e))?;
            images.bytes.extend(self.decode(&record));
            images.table.push(Entry { offset: i * each, h: self.h, w: self.w });
        }
        images.names = self.names();
        Ok(images)
    }

    /// The images' names: their numbers, all of one length.
    pub fn names(&self) -> Vec<String> {
        (0..self.count).map(|index| self.name(index)).collect()
    }

    /// An image's name: its number, with as many digits as the last one's.
    pub fn name(&self, index: usize) -> String {
        let digits = self.count.saturating_sub(1).max(1).ilog10() as usize + 1;
        format!("{index:0digits$}")
    }

    /// One record's pixels, H,W,C.
    fn decode(&self, record: &[u8]) -> Vec<u8> {
        let pixels = &record[self.skip..];
        let size = self.sample.size();
        if self.planar && self.c > 1 {
            let area = self.h * self.w;
            let at = |pixel: usize, channel: usize| (channel * area + pixel) * size;
            (0..area)
                .flat_map(|p| (0..self.c).map(move |c| (p, c)))
                .map(|(p, c)| self.sample.byte(&pixels[at(p, c)..]))
                .collect()
        } else if self.sample == Sample::U8 {
            pixels.to_vec()
        } else {
            pixels.chunks_exact(size).map(|bytes| self.sample.byte(bytes)).collect()
        }
    }
}

fn lost(index: usize, error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => Error::failed(format!(
            "ends before image {index}; did the file change while it was read?"
        )),
        _ => Error::failed(format!("image {index} cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn records_are_found_in_every_layout() {
        let mut array = Array {
            start: 3,
            count: 2,
            skip: 1,
            h: 1,
            w: 2,
            c: 3,
            planar: true,
            sample: Sample::U8,
        };
        let bytes: Vec<u8> = (0..17).collect();
        assert_eq!(array.read(&mut Cursor::new(&bytes), 1).unwrap(), [11, 13, 15, 12, 14, 16]);
        array.planar = false;
        assert_eq!(
            array.read_all(&mut Cursor::new(&bytes)).unwrap().image(1),
            [11, 12, 13, 14, 15, 16]
        );
        assert!(
            array
                .read(&mut Cursor::new(&bytes), 2)
                .unwrap_err()
                .to_string()
                .contains("before image 2")
        );
        let floats = Array {
            start: 0,
            skip: 0,
            c: 1,
            sample: Sample::F32 { big: true, scale: 255.0 },
            ..array
        };
        let bytes: Vec<u8> =
            [0.0_f32, 0.5, 1.0, 0.2].iter().flat_map(|x| x.to_be_bytes()).collect();
        assert_eq!(floats.read_all(&mut Cursor::new(&bytes)).unwrap().bytes, [0, 128, 255, 51]);
    }
}
