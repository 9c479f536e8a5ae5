//! Image file directories: the tables of tags in TIFF files and in EXIF metadata. The decoder of
//! TIFF files does not offer these parts.

use std::collections::HashSet;
use std::io::{Read, Seek, SeekFrom};

const NEW_SUBFILE_TYPE: u16 = 254;
const PHOTOMETRIC: u16 = 262;
/// Width, length, bits, colour, samples, planes and format: what images have in common that are
/// samples of one set.
const LIKE: [u16; 7] = [256, 257, 258, PHOTOMETRIC, 277, 284, 339];
/// Bits of the tag `NewSubfileType`: a reduced copy of another image, or the mask of one.
const REDUCED: u64 = 1;
const MASK: u64 = 4;
/// Maximum size of the values of an entry in bytes: millions of tiles.
const MAX_VALUES: u64 = 16 << 20;

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
    /// Its offset.
    pub start: u64,
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
    /// Number of values.
    count: u64,
    /// Offset of the entry.
    pub start: u64,
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
            let values = number(file, at + 4, (value - 4) as usize, is_little)?;
            entries.push(Entry { tag, kind, count: values, start: at, at: at + value });
        }
        let end = first.checked_add(count * width)?;
        let next = number(file, end, if is_big_tiff { 8 } else { 4 }, is_little).unwrap_or(0);
        Some(Self { layout, start: at, entries, next, next_at: end })
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

    /// The values of an entry of integers.
    pub fn values(&self, file: &mut (impl Read + Seek), tag: u16) -> Option<Vec<u64>> {
        let Entry { kind, count, at, .. } = *self.entry(tag)?;
        let size = match kind {
            1 => 1,
            3 => 2,
            4 => 4,
            16 => 8,
            _ => return None,
        };
        let (is_little, inline) = (self.layout.is_little, self.inline());
        let len = count.checked_mul(size).filter(|len| *len <= MAX_VALUES)?;
        let first = if len > inline { number(file, at, inline as usize, is_little)? } else { at };
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(first)).ok()?;
        file.by_ref().take(len).read_to_end(&mut bytes).ok()?;
        let push = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        let value = |bytes: &[u8]| {
            if is_little { bytes.iter().rev().fold(0, push) } else { bytes.iter().fold(0, push) }
        };
        let is_whole = bytes.len() as u64 == len;
        is_whole.then(|| bytes.chunks_exact(size as usize).map(value).collect())
    }

    /// Number of entries.
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Number of bytes of values that an entry holds itself.
    pub const fn inline(&self) -> u64 {
        if self.layout.is_big_tiff { 8 } else { 4 }
    }

    /// The bytes of an offset.
    pub fn offset(&self, value: u64) -> Vec<u8> {
        let bytes = value.to_le_bytes()[..self.inline() as usize].to_vec();
        if self.layout.is_little { bytes } else { bytes.into_iter().rev().collect() }
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

    /// Where the file has the offset of its first directory.
    pub const fn first_at(&self) -> u64 {
        self.inline()
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

/// The images in a file, without reduced copies and masks of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// The offset of the directory of each image.
    pub offsets: Vec<u64>,
    /// Whether all have the same size and the same kind of samples.
    pub are_alike: bool,
}

/// Finds the images in a file.
pub fn pages(file: &mut (impl Read + Seek)) -> Option<Pages> {
    let (layout, mut at) = header(file)?;
    let (mut pages, mut seen) = (Pages { offsets: Vec::new(), are_alike: true }, HashSet::new());
    let mut first = None;
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
        if kind & (REDUCED | MASK) == 0 {
            let own = LIKE.map(|tag| directory.values(file, tag));
            pages.are_alike &= *first.get_or_insert_with(|| own.clone()) == own;
            pages.offsets.push(at);
        }
        at = directory.next;
    }
    Some(pages)
}
