//! A file in which bytes are replaced as it is read, and to which parts are appended. Decoders of
//! TIFF files read content through it that they do not know themselves.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use crate::error::Result;

/// A part after the end of the file.
#[derive(Clone, Debug)]
enum Part {
    Bytes(Vec<u8>),
    /// A part of the file that is decompressed when it is read: its offset and length in the file,
    /// and its length as decompressed.
    Packed {
        at: u64,
        stored: u64,
        len: u64,
    },
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Packed { len, .. } => *len,
        }
    }
}

/// Decompresses a part to a number of bytes.
type Decompress = fn(packed: &[u8], len: u64) -> Result<Vec<u8>>;

/// A file with replaced bytes and appended parts.
#[derive(Debug)]
pub struct Overlay<R> {
    file: R,
    at: u64,
    /// Size of the file without the parts.
    size: u64,
    /// Replaced bytes by their offset.
    replaced: BTreeMap<u64, u8>,
    /// The offset after the end of each part, and the part.
    parts: Vec<(u64, Part)>,
    decompress: Decompress,
    /// The number of the part that was decompressed last, and its bytes.
    last: Option<(usize, Vec<u8>)>,
}

impl<R: Read + Seek> Overlay<R> {
    /// A file from its start on.
    ///
    /// # Errors
    /// If the file has no start to go back to.
    pub fn new(mut file: R, decompress: Decompress) -> io::Result<Self> {
        let size = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        let (replaced, parts) = (BTreeMap::new(), Vec::new());
        Ok(Self { file, at: 0, size, replaced, parts, decompress, last: None })
    }

    /// Size of the file without the parts.
    pub const fn file_size(&self) -> u64 {
        self.size
    }

    /// The file without replaced bytes and parts.
    pub fn file(&mut self) -> &mut R {
        &mut self.file
    }

    /// Replaces bytes of the file.
    pub fn replace(&mut self, at: u64, bytes: &[u8]) {
        self.replaced.extend((at..).zip(bytes.iter().copied()));
    }

    /// Number of parts.
    pub fn part_count(&self) -> usize {
        self.parts.len()
    }

    /// The offset after the last part.
    pub fn end(&self) -> u64 {
        self.parts.last().map_or(self.size, |(end, _)| *end)
    }

    /// Appends bytes. Returns their offset.
    pub fn append(&mut self, bytes: Vec<u8>) -> u64 {
        self.push(Part::Bytes(bytes))
    }

    /// Appends `stored` compressed bytes of the file, which become `len` bytes. Returns the offset.
    pub fn append_packed(&mut self, at: u64, stored: u64, len: u64) -> u64 {
        self.push(Part::Packed { at, stored, len })
    }

    fn push(&mut self, part: Part) -> u64 {
        let start = self.end();
        self.parts.push((start.saturating_add(part.len()), part));
        start
    }

    /// Reads from the parts after the file.
    fn read_part(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let number = self.parts.partition_point(|(end, _)| *end <= self.at);
        let Some((end, part)) = self.parts.get(number) else { return Ok(0) };
        let start = (self.at - (end - part.len())) as usize;
        let bytes = match part {
            Part::Bytes(bytes) => bytes,
            Part::Packed { at, stored, len } => {
                if self.last.as_ref().is_none_or(|(last, _)| *last != number) {
                    self.last = None;
                    let mut packed = Vec::new();
                    self.file.seek(SeekFrom::Start(*at))?;
                    self.file.by_ref().take(*stored).read_to_end(&mut packed)?;
                    let bytes = (self.decompress)(&packed, *len)
                        .map_err(|error| io::Error::other(error.to_string()))?;
                    self.last = Some((number, bytes));
                }
                self.last.as_ref().map_or(&[][..], |(_, bytes)| bytes)
            }
        };
        let rest = bytes.get(start..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: Read + Seek> Read for Overlay<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.size {
            return self.read_part(buffer);
        }
        let len = usize::try_from(self.size - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read(&mut buffer[..len])?;
        for (at, byte) in self.replaced.range(self.at..self.at + count as u64) {
            buffer[(at - self.at) as usize] = *byte;
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: Read + Seek> Seek for Overlay<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.end().checked_add_signed(by),
        };
        self.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        if self.at < self.size {
            self.file.seek(SeekFrom::Start(self.at))?;
        }
        Ok(self.at)
    }
}
