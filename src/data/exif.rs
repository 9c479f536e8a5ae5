//! Changes to EXIF metadata that keep it true for a result: the image was turned, its pixels have
//! changed, and its size can be another.

use std::io::{Cursor, Read, Seek};

use image::metadata::Orientation;

use super::formats::directory::Directory;
use super::metadata::{Density, Unit};
use crate::shape::Size;

/// Tags (Exif 3.0, 4.6).
const X_RESOLUTION: u16 = 282;
const Y_RESOLUTION: u16 = 283;
const RESOLUTION_UNIT: u16 = 296;
const THUMBNAIL_OFFSET: u16 = 513;
const THUMBNAIL_LENGTH: u16 = 514;
const EXIF_DIRECTORY: u16 = 0x8769;
/// Width and height, in the first directory and in the EXIF directory.
const SIZES: [[u16; 2]; 2] = [[256, 257], [0xa002, 0xa003]];

/// EXIF metadata from the byte order on. Some programs write the identifier of JPEG segments in
/// front of it into other formats.
pub fn without_prefix(exif: Vec<u8>) -> Vec<u8> {
    exif.strip_prefix(b"Exif\0\0").map_or_else(|| exif.clone(), <[u8]>::to_vec)
}

/// Resets the orientation, since pixels are turned when they are read, and removes the thumbnail,
/// which shows the pixels before they were changed. `exif` begins with the byte order.
pub fn forget_pixels(exif: &mut [u8]) {
    let _ = Orientation::remove_from_exif_chunk(exif);
    let Some(first) = Directory::first(&mut Cursor::new(&*exif)) else { return };
    let next = first.at(&mut Cursor::new(&*exif), first.next).filter(|_| first.next != 0);
    if let Some(thumbnail) = next {
        let file = &mut Cursor::new(&*exif);
        let range = thumbnail.value(file, THUMBNAIL_OFFSET);
        let range = range.zip(thumbnail.value(file, THUMBNAIL_LENGTH));
        if let Some((at, length)) = range {
            let end = (at.saturating_add(length) as usize).min(exif.len());
            exif[(at as usize).min(end)..end].fill(0);
        }
    }
    write(exif, first.next_at, &[0; 4]);
}

/// Sets width and height where the metadata has them.
pub fn set_size(exif: &mut [u8], size: Size) {
    let Some(first) = Directory::first(&mut Cursor::new(&*exif)) else { return };
    let at = first.value(&mut Cursor::new(&*exif), EXIF_DIRECTORY);
    let inner = at.and_then(|at| first.at(&mut Cursor::new(&*exif), at));
    for (directory, tags) in [Some(first), inner].iter().zip(SIZES) {
        let Some(directory) = directory else { continue };
        for (tag, side) in tags.into_iter().zip([size.w, size.h]) {
            match directory.entry(tag) {
                Some(entry) if entry.kind == 3 => {
                    write(exif, entry.at, &directory.short(side as u16));
                }
                Some(entry) if entry.kind == 4 => {
                    write(exif, entry.at, &directory.long(side as u32));
                }
                _ => {}
            }
        }
    }
}

/// The resolution.
pub fn density(exif: &[u8]) -> Option<Density> {
    let file = &mut Cursor::new(exif);
    density_in(&Directory::first(file)?, file)
}

/// The resolution in the first directory of EXIF metadata or of a TIFF file.
pub fn density_in(first: &Directory, file: &mut (impl Read + Seek)) -> Option<Density> {
    let unit = match first.value(file, RESOLUTION_UNIT) {
        Some(1) => Unit::Ratio,
        Some(3) => Unit::Centimetre,
        _ => Unit::Inch,
    };
    let [x, y] = [first.fraction(file, X_RESOLUTION)?, first.fraction(file, Y_RESOLUTION)?];
    (x > 0.0 && y > 0.0).then_some(Density { x, y, unit })
}

/// Overwrites bytes, if they are inside.
fn write(exif: &mut [u8], at: u64, bytes: &[u8]) {
    let place =
        usize::try_from(at).ok().and_then(|at| exif.get_mut(at..at.checked_add(bytes.len())?));
    if let Some(place) = place {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// EXIF metadata: orientation 6, 300 dpi, the size 40×30, and a thumbnail of the bytes `THUMB`.
    pub(crate) fn sample() -> Vec<u8> {
        let entry = |tag: u16, kind: u16, value: u32| {
            [
                &tag.to_le_bytes()[..],
                &kind.to_le_bytes(),
                &1_u32.to_le_bytes(),
                &value.to_le_bytes(),
            ]
            .concat()
        };
        let directory = |entries: &[Vec<u8>], next: u32| {
            [&(entries.len() as u16).to_le_bytes()[..], &entries.concat(), &next.to_le_bytes()]
                .concat()
        };
        // Sizes: a directory of five entries has 66 bytes, one of two 30.
        let (first, inner, second, data) = (8, 74, 104, 134);
        [
            b"II*\0".to_vec(),
            (first as u32).to_le_bytes().to_vec(),
            directory(
                &[
                    entry(274, 3, 6),
                    entry(282, 5, data),
                    entry(283, 5, data),
                    entry(296, 3, 2),
                    entry(0x8769, 4, inner),
                ],
                second,
            ),
            directory(&[entry(0xa002, 4, 40), entry(0xa003, 3, 30)], 0),
            directory(&[entry(513, 4, data + 8), entry(514, 4, 5)], 0),
            [300_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat(),
            b"THUMB".to_vec(),
        ]
        .concat()
    }

    #[test]
    fn orientation_and_thumbnail_are_removed() {
        let mut exif = sample();
        assert_eq!(Orientation::from_exif_chunk(&exif), Some(Orientation::Rotate90));
        forget_pixels(&mut exif);
        assert_eq!(Orientation::from_exif_chunk(&exif), Some(Orientation::NoTransforms));
        assert!(!exif.windows(5).any(|bytes| bytes == b"THUMB"));
        assert_eq!(Directory::first(&mut Cursor::new(&exif)).unwrap().next, 0);
        assert_eq!(density(&exif), Some(Density { x: 300.0, y: 300.0, unit: Unit::Inch }));
    }

    #[test]
    fn the_size_is_that_of_the_result() {
        let mut exif = sample();
        set_size(&mut exif, Size::new(60, 80));
        let file = &mut Cursor::new(&exif[..]);
        let inner = Directory::first(file).unwrap().at(file, 74).unwrap();
        assert_eq!((inner.value(file, 0xa002), inner.value(file, 0xa003)), (Some(80), Some(60)));
    }

    #[test]
    fn damaged_metadata_does_not_cause_a_panic() {
        let whole = sample();
        for end in 0..whole.len() {
            let mut cut = whole[..end].to_vec();
            forget_pixels(&mut cut);
            set_size(&mut cut, Size::new(1, 1));
            let _ = density(&cut);
        }
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] = 0xff;
            forget_pixels(&mut bad);
            set_size(&mut bad, Size::new(1, 1));
            let _ = density(&bad);
        }
    }
}
