//! The reader of image files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};

/// The bytes of an image file, in memory or in the file. The compiler makes a copy of every decoder
/// for each type of reader, and one type for both saves 0.8 MB of the program.
pub enum Reader<'a> {
    /// In memory.
    Memory(Cursor<&'a [u8]>),
    /// In the file.
    File(BufReader<File>),
}

impl<'a> Reader<'a> {
    /// A reader of bytes in memory.
    pub const fn of(bytes: &'a [u8]) -> Self {
        Self::Memory(Cursor::new(bytes))
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(bytes) => bytes.read(out),
            Self::File(file) => file.read(out),
        }
    }

    fn read_exact(&mut self, out: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Memory(bytes) => bytes.read_exact(out),
            Self::File(file) => file.read_exact(out),
        }
    }

    fn read_to_end(&mut self, out: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Memory(bytes) => bytes.read_to_end(out),
            Self::File(file) => file.read_to_end(out),
        }
    }
}

impl BufRead for Reader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Memory(bytes) => bytes.fill_buf(),
            Self::File(file) => file.fill_buf(),
        }
    }

    fn consume(&mut self, count: usize) {
        match self {
            Self::Memory(bytes) => bytes.consume(count),
            Self::File(file) => file.consume(count),
        }
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::Memory(bytes) => bytes.seek(to),
            Self::File(file) => file.seek(to),
        }
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        match self {
            Self::Memory(bytes) => bytes.stream_position(),
            Self::File(file) => file.stream_position(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn bytes_in_memory_and_in_a_file_are_read_alike() {
        let bytes: Vec<u8> = (0..20_000_u32).map(|i| ((i * i) >> 3) as u8).collect();
        let folder = Folder::new("reader");
        let file = File::open(folder.write("bytes", &bytes)).unwrap();
        for mut reader in [Reader::of(&bytes), Reader::File(BufReader::new(file))] {
            let mut some = [0; 3];
            reader.read_exact(&mut some).unwrap();
            assert_eq!(some, bytes[..3]);
            reader.seek(SeekFrom::End(-5)).unwrap();
            assert_eq!(reader.stream_position().unwrap(), 19_995);
            assert_eq!(reader.fill_buf().unwrap(), &bytes[19_995..]);
            reader.consume(4);
            assert_eq!(reader.read(&mut some).unwrap(), 1);
            assert_eq!(some[0], bytes[19_999]);
            assert!(reader.read_exact(&mut some).is_err());
            reader.rewind().unwrap();
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            assert!(all == bytes);
        }
    }
}
