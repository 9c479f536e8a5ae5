//! MATLAB's files of version 5 to 7 ("MAT-File Format", MathWorks): arrays of numbers, also
//! compressed, in both byte orders.
//!
//! MATLAB stores the first axis as the fastest, and numbers in a smaller type if it holds them, so
//! an array is read into memory as a whole.

use std::io::{BufReader, Read, Seek, SeekFrom, Take};

use flate2::read::ZlibDecoder;

use super::flat::{Flat, c_order, inflate, swap};
use super::{
    Element, Format, Input, NumberFile, Opening, candidate, checked_shape, choose, damaged,
    read_error, too_large,
};
use crate::budget;
use crate::error::{Error, Result};

pub(super) const FORMAT: Format = Format {
    name: "MATLAB 5 to 7",
    extensions: &["mat"],
    sniffs: |start| start.starts_with(b"MATLAB 5.0"),
    open,
};

/// Length of the header in bytes.
const HEADER: u64 = 128;
/// Types of data elements.
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
/// Flags of an array.
const COMPLEX: u32 = 0x800;
const LOGICAL: u32 = 0x200;
/// Maximum length of a name. MATLAB allows 63 bytes.
const MAX_NAME: u32 = 1 << 10;
/// Maximum number of arrays that are listed.
const MAX_ARRAYS: usize = 1000;

/// The names of the classes that are not arrays of numbers, by number from 1.
const OTHERS: [&str; 5] = ["cell array", "struct", "object", "text", "sparse array"];

/// A part of the file.
type Part<'a> = Take<&'a mut Box<dyn Input>>;

/// A stream of data elements, possibly compressed.
enum Stream<'a> {
    Plain(Part<'a>),
    Compressed(Box<ZlibDecoder<BufReader<Part<'a>>>>),
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Compressed(stream) => stream.read(buffer),
        }
    }
}

/// Reads data elements from a stream.
struct Elements<R> {
    stream: R,
    big: bool,
}

/// The tag of a data element.
struct Tag {
    kind: u32,
    len: u32,
    /// The data of a small element, which are in the tag.
    small: Option<[u8; 4]>,
}

impl<R: Read> Elements<R> {
    fn number(&mut self) -> Result<u32> {
        let mut bytes = [0; 4];
        self.stream.read_exact(&mut bytes).map_err(|e| read_error(&e))?;
        Ok(self.of(bytes))
    }

    fn of(&self, bytes: [u8; 4]) -> u32 {
        if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn tag(&mut self) -> Result<Tag> {
        let word = self.number()?;
        if word >> 16 == 0 {
            return Ok(Tag { kind: word, len: self.number()?, small: None });
        }
        let mut small = [0; 4];
        self.stream.read_exact(&mut small).map_err(|e| read_error(&e))?;
        let len = word >> 16;
        if len > 4 {
            return Err(damaged("a small element has more than 4 bytes"));
        }
        Ok(Tag { kind: word & 0xffff, len, small: Some(small) })
    }

    /// The data of an element of at most `max` bytes, without padding.
    fn data(&mut self, tag: &Tag, max: u64) -> Result<Vec<u8>> {
        if let Some(small) = tag.small {
            return Ok(small[..tag.len as usize].to_vec());
        }
        let len = u64::from(tag.len);
        let bytes = inflate(self.stream.by_ref().take(len), len, max, "save less of it")?;
        let padding = len.next_multiple_of(8) - len;
        let skipped = std::io::copy(&mut self.stream.by_ref().take(padding), &mut std::io::sink());
        skipped.map_err(|e| read_error(&e))?;
        Ok(bytes)
    }

    /// The description of an array, up to its numbers.
    fn array(&mut self, at: u64) -> Result<Array> {
        let flags = self.tag()?;
        let flags = self.data(&flags, 8)?;
        let Some(flags) = flags.first_chunk() else { return Err(damaged("it has no flags")) };
        let flags = self.of(*flags);
        let class = flags & 0xff;
        // The flags of MATLAB's newer objects are followed by other elements.
        if class > 15 {
            return Ok(Array { at, name: String::new(), class, flags, shape: Vec::new() });
        }
        let tag = self.tag()?;
        let sizes = self.data(&tag, 1 << 12)?;
        let shape = sizes.as_chunks().0.iter().map(|&size| u64::from(self.of(size))).collect();
        let tag = self.tag()?;
        let name = self.data(&tag, u64::from(MAX_NAME))?;
        let name = String::from_utf8_lossy(&name).into_owned();
        Ok(Array { at, name, class, flags, shape })
    }
}

/// The description of an array.
struct Array {
    /// Offset of its data element in the file.
    at: u64,
    name: String,
    class: u32,
    flags: u32,
    shape: Vec<u64>,
}

impl Array {
    fn element(&self) -> Result<Element> {
        if self.flags & COMPLEX != 0 {
            return Err(Error::usage(
                "has complex numbers; save real and imaginary parts as two arrays",
            ));
        }
        if self.flags & LOGICAL != 0 && self.class == 9 {
            return Ok(Element::Bool);
        }
        Ok(match self.class {
            6 => Element::F64,
            7 => Element::F32,
            8 => Element::I8,
            9 => Element::U8,
            10 => Element::I16,
            11 => Element::U16,
            12 => Element::I32,
            13 => Element::U32,
            14 => Element::I64,
            15 => Element::U64,
            other => {
                let name = OTHERS.get((other as usize).wrapping_sub(1)).unwrap_or(&"object");
                let advice = if other == 5 { "convert it with full" } else { "save an array" };
                return Err(Error::usage(format!(
                    "is a {name}, not an array of numbers; {advice}"
                )));
            }
        })
    }

    fn describe(&self) -> String {
        match self.element() {
            Ok(element) => candidate(&self.name, element, &self.shape),
            Err(_) => format!("{} (not supported)", self.name),
        }
    }
}

/// The type of stored numbers.
fn stored(kind: u32) -> Option<Element> {
    Some(match kind {
        1 => Element::I8,
        2 => Element::U8,
        3 => Element::I16,
        4 => Element::U16,
        5 => Element::I32,
        6 => Element::U32,
        7 => Element::F32,
        9 => Element::F64,
        12 => Element::I64,
        13 => Element::U64,
        _ => return None,
    })
}

/// The elements of the array whose data element begins at an offset, and the offset after it.
fn enter(file: &mut Box<dyn Input>, at: u64, big: bool) -> Result<(Elements<Stream<'_>>, u64)> {
    file.seek(SeekFrom::Start(at)).map_err(|e| read_error(&e))?;
    let tag = Elements { stream: &mut *file, big }.tag()?;
    let len = u64::from(tag.len);
    let stream = file.take(len);
    match tag.kind {
        MATRIX if tag.small.is_none() => {
            Ok((Elements { stream: Stream::Plain(stream), big }, at + 8 + len.next_multiple_of(8)))
        }
        COMPRESSED if tag.small.is_none() => {
            let stream = Box::new(ZlibDecoder::new(BufReader::new(stream)));
            let mut elements = Elements { stream: Stream::Compressed(stream), big };
            if elements.tag()?.kind != MATRIX {
                return Err(damaged("a compressed part is not an array"));
            }
            // Compressed elements have no padding.
            Ok((elements, at + 8 + len))
        }
        other => Err(damaged(&format!("it has an element of type {other} instead of an array"))),
    }
}

fn open(mut opening: Opening<'_>) -> Result<NumberFile> {
    let start = opening.bytes(0, HEADER.min(opening.size) as usize)?;
    if start.starts_with(b"MATLAB 7.3") {
        return Err(Error::usage(
            "is an HDF5 file, which this build cannot read; save it with -v7",
        ));
    }
    let big = match start.get(126..128) {
        Some(b"IM") => false,
        Some(b"MI") => true,
        None if start.starts_with(b"MATLAB 5.0") => return Err(damaged("it ends too early")),
        _ => {
            return Err(Error::usage(
                "is not a MATLAB file of version 5 to 7 (version 4 is not supported); save it with \
                 -v7",
            ));
        }
    };
    let Opening { mut file, size, inside, limit } = opening;
    let mut arrays = Vec::new();
    let mut at = HEADER;
    while at < size && arrays.len() < MAX_ARRAYS {
        let (mut elements, next) = enter(&mut file, at, big)?;
        if next.saturating_sub(7) > size {
            return Err(damaged("it ends before its last array does"));
        }
        let array = elements.array(at)?;
        // MATLAB keeps data of its own in an array without a name.
        if !array.name.is_empty() {
            arrays.push(array);
        }
        at = next;
    }
    let numbers: Vec<&Array> = arrays.iter().filter(|array| array.element().is_ok()).collect();
    let chosen = match inside {
        Some(name) => arrays.iter().find(|array| array.name == name),
        None if numbers.len() == 1 => Some(numbers[0]),
        None if arrays.len() == 1 => Some(&arrays[0]),
        None => None,
    };
    let Some(array) = chosen else {
        let listed = if numbers.is_empty() { arrays.iter().collect() } else { numbers };
        let candidates: Vec<String> = listed.iter().map(|array| array.describe()).collect();
        return Err(choose(inside, &candidates));
    };
    read(&mut file, array, big, limit).map_err(|e| e.at(&array.name))
}

/// Reads an array into memory.
fn read(file: &mut Box<dyn Input>, array: &Array, big: bool, limit: u64) -> Result<NumberFile> {
    let element = array.element()?;
    let shape = checked_shape(element, &array.shape)?;
    let count = shape.iter().product::<usize>();
    let (mut elements, _) = enter(file, array.at, big)?;
    elements.array(array.at)?;
    let tag = elements.tag()?;
    let Some(kind) = stored(tag.kind) else {
        return Err(damaged(&format!("its numbers have the unknown type {}", tag.kind)));
    };
    if u64::from(tag.len) != count as u64 * kind.size() as u64 {
        return Err(damaged("the length of its numbers is not that of its shape"));
    }
    // The stored numbers, the converted ones, and those in C order.
    let needed = u64::from(tag.len) + 2 * count as u64 * element.size() as u64;
    if needed > limit {
        return Err(too_large(needed, limit, "save it with numpy.save, or with -v7.3"));
    }
    let mut bytes = elements.data(&tag, limit)?;
    if big {
        swap(&mut bytes, kind.size());
    }
    if element != Element::Bool || kind.size() != 1 {
        bytes = convert(&bytes, kind, element)?;
    }
    let bytes = c_order(&bytes, &shape, element.size())?;
    NumberFile::new(element, &array.shape, Box::new(Flat::in_memory(bytes, element)))
}

/// Converts stored numbers to the type of the array, which holds them exactly.
fn convert(bytes: &[u8], from: Element, to: Element) -> Result<Vec<u8>> {
    if from == to {
        return Ok(bytes.to_vec());
    }
    let count = bytes.len() / from.size();
    let mut out = budget::reserved(count * to.size(), "the numbers")?;
    for stored in bytes.chunks_exact(from.size()) {
        let value = from.value(stored);
        match to {
            Element::F32 => out.extend_from_slice(&(value as f32).to_le_bytes()),
            Element::F64 => out.extend_from_slice(&value.to_le_bytes()),
            // Integers of up to 32 bits are exact in 64-bit floats, and wider ones are never
            // stored in another type.
            _ => out.extend_from_slice(&(value as i128).to_le_bytes()[..to.size()]),
        }
    }
    Ok(out)
}
