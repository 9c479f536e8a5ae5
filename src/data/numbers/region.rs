//! A part of a file as a file.

use std::io::{self, Read, Seek, SeekFrom};

use super::Input;

/// A part of a file as a file of its own.
pub(super) struct Region {
    file: Box<dyn Input>,
    start: u64,
    len: u64,
    at: u64,
}

impl Region {
    pub fn new(file: Box<dyn Input>, start: u64, len: u64) -> Self {
        Self { file, start, len, at: 0 }
    }
}

impl Read for Region {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.at).min(buffer.len() as u64) as usize;
        self.file.seek(SeekFrom::Start(self.start + self.at))?;
        let read = self.file.read(&mut buffer[..left])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Region {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
