//! The pages of a column: their headers, their compression and the encodings of their values.

use std::io::Read;
use std::ops::Range;

use flate2::read::MultiGzDecoder;

use super::thrift::{Reader, Value};
use super::{lz4, snappy};
use crate::data::numbers::{Input, damaged, too_large};
use crate::data::zstd;
use crate::error::{Error, Result};

/// Number of bytes of a page's header that are read first, and then if it is longer.
const HEADER: [u64; 2] = [256, 1 << 18];

/// What a page contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dictionary,
    /// Levels are compressed with the values.
    Data,
    /// Version 2: the length of the levels, which are not compressed, and whether the values are.
    DataV2(usize, bool),
}

/// The header of a page.
#[derive(Clone, Debug)]
pub(super) struct Page {
    kind: Kind,
    /// Offset and length of the page in the file.
    start: u64,
    stored: usize,
    len: usize,
    /// Number of values, with those that are null.
    pub count: usize,
    encoding: i64,
}

impl Page {
    pub fn is_dictionary(&self) -> bool {
        self.kind == Kind::Dictionary
    }

    /// Reads the header at an offset. Returns the page, or `None` for one without values, and the
    /// offset after it.
    pub fn read(file: &mut Box<dyn Input>, size: u64, at: u64) -> Result<(Option<Self>, u64)> {
        let mut answer = Err(damaged("a column ends too early"));
        for len in HEADER {
            let bytes =
                super::super::bytes(file, size, at, len.min(size.saturating_sub(at)) as usize)?;
            let mut reader = Reader::new(&bytes);
            answer = reader.structure().map(|header| (header, reader.at as u64));
            if answer.is_ok() || at + len > size {
                break;
            }
        }
        let (header, len) = answer?;
        let start = at + len;
        let length = |number| {
            let len = header.integer(number).and_then(|len| usize::try_from(len).ok());
            len.ok_or_else(|| damaged("a page has no length"))
        };
        let (len, stored) = (length(2)?, length(3)?);
        let end = start + stored as u64;
        if end > size {
            return Err(damaged("a column ends too early"));
        }
        let (kind, own) = match header.integer(1) {
            Some(0) => (Kind::Data, header.field(5)),
            Some(2) => (Kind::Dictionary, header.field(7)),
            Some(3) => {
                let own = header.field(8);
                let levels = |number| own.and_then(|own| own.integer(number)).unwrap_or(0);
                let levels = levels(5).checked_add(levels(6));
                let levels = levels.and_then(|levels| usize::try_from(levels).ok());
                let levels = levels.filter(|levels| *levels <= stored.min(len));
                let levels = levels.ok_or_else(|| damaged("a page has impossible levels"))?;
                let is_plain = own.and_then(|own| own.field(7)) == Some(&Value::Bool(false));
                (Kind::DataV2(levels, !is_plain), own)
            }
            // An index, or a type of the future.
            _ => return Ok((None, end)),
        };
        let own = own.ok_or_else(|| damaged("a page has no description"))?;
        let count = own.integer(1).and_then(|count| usize::try_from(count).ok());
        let count = count.ok_or_else(|| damaged("a page has no number of values"))?;
        let encoding = own.integer(if let Kind::DataV2(..) = kind { 4 } else { 2 });
        let encoding = encoding.ok_or_else(|| damaged("a page has no encoding"))?;
        Ok((Some(Self { kind, start, stored, len, count, encoding }), end))
    }

    /// The decompressed bytes.
    fn bytes(&self, column: &mut Column<'_>) -> Result<Vec<u8>> {
        if self.len as u64 > column.limit || self.stored as u64 > column.limit {
            let needed = self.len.max(self.stored) as u64;
            return Err(too_large(needed, column.limit, "save it with smaller pages"));
        }
        let mut stored = super::super::bytes(column.file, column.size, self.start, self.stored)?;
        let (plain, is_compressed) = match self.kind {
            Kind::DataV2(levels, is_compressed) => (levels, is_compressed),
            Kind::Dictionary | Kind::Data => (0, true),
        };
        let codec = if is_compressed { column.codec } else { 0 };
        if codec == 0 {
            return Ok(stored);
        }
        let compressed = stored.split_off(plain);
        let len = self.len - plain;
        let damaged = || damaged("a page cannot be decompressed");
        let values = match codec {
            1 => snappy::decode(&compressed, len).ok_or_else(damaged)?,
            2 => {
                let mut values = Vec::new();
                let stream = MultiGzDecoder::new(&compressed[..]).take(len as u64 + 1);
                { stream }.read_to_end(&mut values).map_err(|_| damaged())?;
                if values.len() != len {
                    return Err(damaged());
                }
                values
            }
            5 => lz4::decode_framed(&compressed, len).ok_or_else(damaged)?,
            6 => zstd::decode(&compressed, len as u64)?,
            7 => lz4::decode(&compressed, len).ok_or_else(damaged)?,
            other => {
                let name = match other {
                    3 => "LZO",
                    4 => "Brotli",
                    _ => "an unknown one",
                };
                return Err(Error::usage(format!(
                    "the compression {name} is not supported; save it with snappy, zstd or none"
                )));
            }
        };
        stored.extend(values);
        Ok(stored)
    }
}

/// A column of a row group.
pub(super) struct Column<'a> {
    pub file: &'a mut Box<dyn Input>,
    pub size: u64,
    /// The number of the compression.
    pub codec: i64,
    /// Number of levels above a value that can be null.
    pub max_level: u32,
    /// Maximum size of a page in bytes.
    pub limit: u64,
    /// Size of a value in bytes. `None`: each has its length before it.
    pub width: Option<usize>,
}

/// The values of a page: ranges of its bytes, or of those of the dictionary. None are null.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    pub bytes: Vec<u8>,
    pub ranges: Vec<Option<Range<usize>>>,
    /// Whether the ranges are those of the dictionary.
    pub of_dictionary: bool,
}

impl Column<'_> {
    /// The values of a page.
    pub fn values(&mut self, page: &Page, dictionary: Option<&Values>) -> Result<Values> {
        let bytes = page.bytes(self)?;
        let mut at = 0;
        let is_value = match page.kind {
            Kind::Dictionary => vec![true; bounded(page.count, bytes.len())?],
            Kind::Data if self.max_level == 0 => vec![true; self.bounded(page, &bytes)?],
            Kind::Data => {
                let len = bytes.first_chunk().map(|len| u32::from_le_bytes(*len) as usize);
                let end = len.and_then(|len| len.checked_add(4)).filter(|end| *end <= bytes.len());
                let end = end.ok_or_else(|| damaged("the levels of a page are cut off"))?;
                at = end;
                self.levels(&bytes[4..end], page)?
            }
            Kind::DataV2(levels, _) => {
                at = levels;
                if self.max_level == 0 {
                    vec![true; self.bounded(page, &bytes)?]
                } else {
                    self.levels(&bytes[..levels], page)?
                }
            }
        };
        let count = is_value.iter().filter(|is_value| **is_value).count();
        let (ranges, of_dictionary) = match page.encoding {
            // PLAIN, and in dictionaries its old name.
            0 => (self.plain(&bytes, at, count)?, false),
            2 if page.is_dictionary() => (self.plain(&bytes, at, count)?, false),
            2 | 8 => {
                let dictionary = dictionary.ok_or_else(|| damaged("a dictionary is missing"))?;
                (indexed(&bytes[at..], count, dictionary)?, true)
            }
            other => {
                let name = match other {
                    5 => "DELTA_BINARY_PACKED",
                    6 => "DELTA_LENGTH_BYTE_ARRAY",
                    7 => "DELTA_BYTE_ARRAY",
                    9 => "BYTE_STREAM_SPLIT",
                    _ => "unknown",
                };
                return Err(Error::usage(format!(
                    "the encoding {name} is not supported; save it with pyarrow's defaults"
                )));
            }
        };
        let mut ranges = ranges.into_iter();
        let ranges = is_value.iter().map(|is_value| is_value.then(|| ranges.next()).flatten());
        Ok(Values { ranges: ranges.collect(), bytes, of_dictionary })
    }

    /// The number of values of a page without levels, which takes memory: each value takes at least
    /// a part of a byte, except in a run of a dictionary's indices.
    fn bounded(&self, page: &Page, bytes: &[u8]) -> Result<usize> {
        match page.encoding {
            0 => bounded(page.count, bytes.len()),
            _ => bounded(page.count, self.limit as usize / 32),
        }
    }

    /// Whether each value is not null.
    fn levels(&self, bytes: &[u8], page: &Page) -> Result<Vec<bool>> {
        let count = bounded(page.count, self.limit as usize / 32)?;
        let width = 32 - self.max_level.leading_zeros();
        let levels = hybrid(bytes, width, count)?;
        Ok(levels.into_iter().map(|level| level == self.max_level).collect())
    }

    /// Values one after the other.
    fn plain(&self, bytes: &[u8], mut at: usize, count: usize) -> Result<Vec<Range<usize>>> {
        let mut ranges = Vec::new();
        for _ in 0..count {
            let width = match self.width {
                Some(width) => width,
                None => {
                    let len = bytes.get(at..).and_then(|rest| rest.first_chunk());
                    let len = len.ok_or_else(|| damaged("a value is cut off"))?;
                    at += 4;
                    u32::from_le_bytes(*len) as usize
                }
            };
            let end = at.checked_add(width).filter(|end| *end <= bytes.len());
            let end = end.ok_or_else(|| damaged("a value is cut off"))?;
            ranges.push(at..end);
            at = end;
        }
        Ok(ranges)
    }
}

fn bounded(count: usize, max: usize) -> Result<usize> {
    if count > max { Err(damaged("a page has more values than bytes")) } else { Ok(count) }
}

/// The ranges of values that are indices into a dictionary.
fn indexed(bytes: &[u8], count: usize, dictionary: &Values) -> Result<Vec<Range<usize>>> {
    let Some((width, bytes)) = bytes.split_first() else {
        return if count == 0 { Ok(Vec::new()) } else { Err(damaged("a value is cut off")) };
    };
    let range = |index: u32| dictionary.ranges.get(index as usize).cloned().flatten();
    let indices = hybrid(bytes, u32::from(*width), count)?;
    let ranges: Option<Vec<_>> = indices.into_iter().map(range).collect();
    ranges.ok_or_else(|| damaged("a value is not in its dictionary"))
}

/// Numbers of `width` bits in runs of equal numbers and packed groups of eight.
fn hybrid(bytes: &[u8], width: u32, count: usize) -> Result<Vec<u32>> {
    if width > 32 {
        return Err(damaged("numbers have more than 32 bits"));
    }
    let cut_off = || damaged("a run of numbers is cut off");
    let (mut numbers, mut at) = (Vec::new(), 0);
    while numbers.len() < count {
        let mut head = 0_u64;
        for shift in (0..35).step_by(7) {
            let byte = *bytes.get(at).ok_or_else(cut_off)?;
            at += 1;
            head |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let left = count - numbers.len();
        if head & 1 == 0 {
            let len = width.div_ceil(8) as usize;
            let value = bytes.get(at..at + len).ok_or_else(cut_off)?;
            at += len;
            let value = value.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
            let run = (head >> 1) as usize;
            if run == 0 {
                return Err(damaged("a run of numbers is empty"));
            }
            numbers.extend(std::iter::repeat_n(value, run.min(left)));
        } else {
            let groups = (head >> 1) as usize;
            let len = groups.checked_mul(width as usize).ok_or_else(cut_off)?;
            // The last group can be cut off after the last number.
            let packed = &bytes[at..bytes.len().min(at.saturating_add(len))];
            at += packed.len();
            let available = match width {
                0 => groups.saturating_mul(8),
                width => packed.len() * 8 / width as usize,
            };
            let numbers_now = available.min(groups.saturating_mul(8)).min(left);
            if numbers_now == 0 {
                return Err(cut_off());
            }
            for i in 0..numbers_now {
                let first = i * width as usize;
                let bit = |k: usize| (packed[(first + k) / 8] >> ((first + k) % 8)) & 1;
                numbers.push((0..width as usize).fold(0, |n, k| n | u32::from(bit(k)) << k));
            }
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::hybrid;

    #[test]
    fn runs_and_packed_groups() {
        // The example of the specification: 0 to 7 in three bits.
        let packed = [0b11, 0b1000_1000, 0b1100_0110, 0b1111_1010];
        assert_eq!(hybrid(&packed, 3, 8).unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(hybrid(&[10, 4, 2, 1], 3, 6).unwrap(), [4, 4, 4, 4, 4, 1]);
        assert_eq!(hybrid(&[200, 1], 0, 3).unwrap(), [0, 0, 0]);
        assert!(hybrid(&packed[..2], 3, 8).is_err());
        assert!(hybrid(&[0, 0], 3, 1).is_err());
    }
}
