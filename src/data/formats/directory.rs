//! Image file directories: the tables of tags in TIFF files and in EXIF metadata. The decoder of
//! TIFF files does not offer these parts.

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom};

const NEW_SUBFILE_TYPE: u16 = 254;
const PHOTOMETRIC: u16 = 262;
/// Bits of the tag `NewSubfileType`: a reduced copy of another image, or the mask of one.
const REDUCED: u64 = 1;
const MASK: u64 = 4;

/// The byte order of a file, and whether its offsets have 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    is_little: bool,
    is_big_tiff: bool,
}

/// The entries of a directory.
#[derive(Debug)]
pub struct Directory {
    layout: Layout,
    entries: Vec<Entry>,
    /// Offset of the next directory, or 0 in the last one.
    pub next: u64,
    /// Where `next` is stored.
    pub next_at: u64,
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    tag: u16,
    /// Type of the values: 3 is 16 bits, 4 is 32 bits.
    pub kind: u16,
    /// Offset of the value, or of the offset of the values.
    pub at: u64,
}

/// Reads an unsigned number of `size` bytes.
fn number(file: &mut (impl Read + Seek), at: u64, size: usize, is_little: bool) -> Option<u64> {
    let mut bytes = [0; 8];
    file.seek(SeekFrom::Start(at)).ok()?;
    file.read_exact(&mut bytes[..size]).ok()?;
    let push = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    let bytes = &bytes[..size];
    Some(if is_little { bytes.iter().rev().fold(0, push) } else { bytes.iter().fold(0, push) })
}

/// The layout of a file and the offset of its first directory.
fn header(file: &mut (impl Read + Seek)) -> Option<(Layout, u64)> {
    let is_little = match number(file, 0, 2, false)? {
        0x4949 => true,
        0x4d4d => false,
        _ => return None,
    };
    let is_big_tiff = number(file, 2, 2, is_little)? == 43;
    let (at, size) = if is_big_tiff { (8, 8) } else { (4, 4) };
    Some((Layout { is_little, is_big_tiff }, number(file, at, size, is_little)?))
}

impl Directory {
    /// The first directory of a file.
    pub fn first(file: &mut (impl Read + Seek)) -> Option<Self> {
        let (layout, at) = header(file)?;
        Self::read(file, layout, at)
    }

    fn read(file: &mut (impl Read + Seek), layout: Layout, at: u64) -> Option<Self> {
        let Layout { is_little, is_big_tiff } = layout;
        let (counts, width, value) = if is_big_tiff { (8, 20, 12) } else { (2, 12, 8) };
        // No directory has more entries than there are tags.
        let count = number(file, at, counts, is_little)?.min(u64::from(u16::MAX));
        let mut entries = Vec::new();
        let first = at.checked_add(counts as u64)?;
        for i in 0..count {
            let at = first.checked_add(i * width)?;
            let tag = number(file, at, 2, is_little)? as u16;
            let kind = number(file, at + 2, 2, is_little)? as u16;
            entries.push(Entry { tag, kind, at: at + value });
        }
        let end = first.checked_add(count * width)?;
        let next = number(file, end, if is_big_tiff { 8 } else { 4 }, is_little).unwrap_or(0);
        Some(Self { layout, entries, next, next_at: end })
    }

    /// Another directory of the file, at an offset.
    pub fn at(&self, file: &mut (impl Read + Seek), offset: u64) -> Option<Self> {
        Self::read(file, self.layout, offset)
    }

    /// The entry of a tag.
    pub fn entry(&self, tag: u16) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.tag == tag)
    }

    /// Whether there is an entry.
    pub fn contains(&self, tag: u16) -> bool {
        self.entry(tag).is_some()
    }

    /// The value of an entry with one number.
    pub fn value(&self, file: &mut (impl Read + Seek), tag: u16) -> Option<u64> {
        let Entry { kind, at, .. } = *self.entry(tag)?;
        number(file, at, if kind == 3 { 2 } else { 4 }, self.layout.is_little)
    }

    /// Whether the image is a reduced copy of another one.
    pub fn is_preview(&self, file: &mut (impl Read + Seek)) -> bool {
        self.value(file, NEW_SUBFILE_TYPE).is_some_and(|value| value & REDUCED != 0)
    }

    /// The photometric interpretation, and its offset.
    pub fn photometric(&self, file: &mut (impl Read + Seek)) -> Option<(u16, u64)> {
        let value = self.value(file, PHOTOMETRIC)? as u16;
        Some((value, self.entry(PHOTOMETRIC)?.at))
    }

    /// The value of an entry with one fraction.
    pub fn fraction(&self, file: &mut (impl Read + Seek), tag: u16) -> Option<f64> {
        let at = self.value(file, tag)?;
        let mut part = |at| number(file, at, 4, self.layout.is_little).map(|part| part as f64);
        let value = part(at)? / part(at + 4)?;
        value.is_finite().then_some(value)
    }

    /// The bytes of a 16-bit number.
    pub fn short(&self, value: u16) -> [u8; 2] {
        if self.layout.is_little { value.to_le_bytes() } else { value.to_be_bytes() }
    }

    /// The bytes of a 32-bit number.
    pub fn long(&self, value: u32) -> [u8; 4] {
        if self.layout.is_little { value.to_le_bytes() } else { value.to_be_bytes() }
    }
}

/// The number of images in a file, without reduced copies and masks of others.
pub fn pages(file: &mut (impl Read + Seek)) -> Option<usize> {
    let (layout, mut at) = header(file)?;
    let (mut count, mut seen) = (0, HashSet::new());
    // Directories do not overlap, and an entry has 12 bytes or more. Reading the overlapping
    // directories of a forged file could take hours.
    let mut entries = file.seek(SeekFrom::End(0)).ok()? / 12;
    // A damaged file can have a cycle.
    while at != 0 && seen.insert(at) {
        let Some(directory) = Directory::read(file, layout, at) else { break };
        match entries.checked_sub(directory.entries.len() as u64) {
            Some(left) => entries = left,
            None => break,
        }
        let kind = directory.value(file, NEW_SUBFILE_TYPE).unwrap_or(0);
        count += usize::from(kind & (REDUCED | MASK) == 0);
        at = directory.next;
    }
    Some(count)
}

/// A file in which two bytes are replaced as it is read.
#[derive(Debug)]
pub struct Patched<R> {
    file: R,
    at: u64,
    /// Offset and value of the replaced bytes.
    patch: Option<(u64, [u8; 2])>,
}

impl<R: Read + Seek> Patched<R> {
    /// A file from its start on.
    ///
    /// # Errors
    /// If the file has no start to go back to.
    pub fn new(mut file: R, patch: Option<(u64, [u8; 2])>) -> io::Result<Self> {
        file.rewind()?;
        Ok(Self { file, at: 0, patch })
    }
}

impl<R: Read> Read for Patched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if let Some((at, bytes)) = self.patch {
            for (i, byte) in bytes.into_iter().enumerate() {
                let place = (at + i as u64).checked_sub(self.at).map(|place| place as usize);
                if let Some(replaced) = place.and_then(|place| buffer[..count].get_mut(place)) {
                    *replaced = byte;
                }
            }
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: Seek> Seek for Patched<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.file.seek(to)?;
        Ok(self.at)
    }
}
