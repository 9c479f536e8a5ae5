//! TIFF files compressed with Zstandard, which the decoder does not know: it reads them as files
//! without compression, whose pixels are decompressed piece by piece when it reads them.

use std::io::{Read, Seek, SeekFrom};

use super::directory::Directory;
use super::overlay::Overlay;
use crate::data::zstd;
use crate::error::{Error, Result};

/// Tags (TIFF 6.0).
const WIDTH: u16 = 256;
const LENGTH: u16 = 257;
const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const STRIP_OFFSETS: u16 = 273;
const SAMPLES: u16 = 277;
const ROWS_PER_STRIP: u16 = 278;
const STRIP_BYTES: u16 = 279;
const PLANAR: u16 = 284;
const TILE_WIDTH: u16 = 322;
const TILE_LENGTH: u16 = 323;
const TILE_OFFSETS: u16 = 324;
const TILE_BYTES: u16 = 325;
/// The numbers of the compression Zstandard: that of libtiff, and an earlier one.
const ZSTD: [u64; 2] = [50000, 34926];
/// The number of no compression.
const NONE: u16 = 1;
/// The colour space YCbCr, whose chroma has fewer samples.
const YCBCR: u16 = 6;
/// Types of values: 16, 32 and 64 bits.
const SHORT: u16 = 3;
const LONG: u16 = 4;
const LONG8: u16 = 16;

/// How many of the directories are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// The one at an offset.
    At(u64),
    /// All of them.
    All,
}

/// A TIFF file in which images that are compressed with Zstandard look uncompressed. A strip or
/// tile takes at most `limit` bytes.
///
/// # Errors
/// If the file has no first directory, or such an image is damaged or too large.
pub fn unpack<R: Read + Seek>(file: R, pages: Pages, limit: u64) -> Result<Overlay<R>> {
    let mut overlay = Overlay::new(file, zstd::decode).map_err(|_| damaged())?;
    let size = overlay.file_size();
    let mut directory = Directory::first(overlay.file());
    if let Pages::At(offset) = pages {
        directory = directory.and_then(|first| first.at(overlay.file(), offset));
    }
    // Directories do not overlap, and an entry has at least 12 bytes. A damaged file can have a
    // cycle.
    let mut left = size / 12;
    while let Some(current) = directory {
        unpack_page(&mut overlay, &current, limit)?;
        left = left.saturating_sub(current.entry_count().max(1) as u64);
        let is_last = pages != Pages::All || current.next == 0 || left == 0;
        directory = if is_last { None } else { current.at(overlay.file(), current.next) };
    }
    overlay.seek(SeekFrom::Start(0)).map_err(|_| damaged())?;
    Ok(overlay)
}

fn unpack_page<R: Read + Seek>(
    overlay: &mut Overlay<R>,
    directory: &Directory,
    limit: u64,
) -> Result<()> {
    let file = overlay.file();
    let mut numbers = |tag| directory.values(file, tag);
    let one = |values: Option<Vec<u64>>| values.and_then(|values| values.first().copied());
    if !one(numbers(COMPRESSION)).is_some_and(|number| ZSTD.contains(&number)) {
        return Ok(());
    }
    let (Some(width), Some(height)) = (one(numbers(WIDTH)), one(numbers(LENGTH))) else {
        return Err(damaged());
    };
    let bits = one(numbers(BITS)).unwrap_or(1);
    let is_planar = one(numbers(PLANAR)) == Some(2);
    let samples = one(numbers(SAMPLES)).unwrap_or(1);
    let tile = one(numbers(TILE_WIDTH)).zip(one(numbers(TILE_LENGTH)));
    let (offset_tag, bytes_tag) =
        if tile.is_some() { (TILE_OFFSETS, TILE_BYTES) } else { (STRIP_OFFSETS, STRIP_BYTES) };
    let (Some(offsets), Some(stored)) = (numbers(offset_tag), numbers(bytes_tag)) else {
        return Err(damaged());
    };
    let rows_per_strip = one(numbers(ROWS_PER_STRIP)).unwrap_or(height).min(height).max(1);
    if directory.photometric(file).is_some_and(|(value, _)| value == YCBCR) {
        return Err(Error::usage(
            "has the colour space YCbCr, compressed with Zstandard, which is not supported; save \
             it as RGB",
        ));
    }
    let row = |width: u64| {
        let bits = width.checked_mul(bits)?.checked_mul(if is_planar { 1 } else { samples })?;
        Some(bits.div_ceil(8))
    };
    let strips = height.div_ceil(rows_per_strip);
    let len = |index: u64| match tile {
        Some((width, height)) => row(width)?.checked_mul(height),
        None => {
            let first = index.checked_rem(strips)? * rows_per_strip;
            row(width)?.checked_mul(rows_per_strip.min(height - first))
        }
    };
    // Each strip has an offset of at least two bytes in the file.
    let count = overlay.part_count() + offsets.len();
    if offsets.is_empty() || offsets.len() != stored.len() || count as u64 > overlay.file_size() {
        return Err(damaged());
    }
    let (mut starts, mut lens) = (Vec::new(), Vec::new());
    for (index, (at, stored)) in offsets.iter().zip(&stored).enumerate() {
        let len = len(index as u64).ok_or_else(damaged)?;
        if len > limit || *stored > limit {
            return Err(Error::usage("needs more memory than the limit; shrink it"));
        }
        starts.push(overlay.append_packed(*at, *stored, len));
        lens.push(len);
    }
    replace_numbers(overlay, directory, offset_tag, &starts)?;
    replace_numbers(overlay, directory, bytes_tag, &lens)?;
    if let Some(entry) = directory.entry(COMPRESSION) {
        overlay.replace(entry.start + 2, &directory.short(SHORT));
        overlay.replace(entry.at, &directory.short(NONE));
    }
    Ok(())
}

/// Replaces the values of an entry by the same number of offsets or lengths.
fn replace_numbers<R: Read + Seek>(
    overlay: &mut Overlay<R>,
    directory: &Directory,
    tag: u16,
    values: &[u64],
) -> Result<()> {
    let entry = *directory.entry(tag).ok_or_else(damaged)?;
    let is_long = directory.inline() == 8;
    let max = if is_long { u64::MAX } else { u64::from(u32::MAX) };
    if overlay.end() > max {
        return Err(Error::usage(
            "is larger than 4 GiB without its compression; save it as a BigTIFF file",
        ));
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| directory.offset(*value)).collect();
    // The type of the values is after the tag.
    overlay.replace(entry.start + 2, &directory.short(if is_long { LONG8 } else { LONG }));
    let value = match values {
        [_] => bytes,
        _ => {
            let at = overlay.append(bytes);
            directory.offset(at)
        }
    };
    overlay.replace(entry.at, &value);
    Ok(())
}

fn damaged() -> Error {
    Error::usage("cannot be decoded (the TIFF file is damaged); save it again or remove it")
}
