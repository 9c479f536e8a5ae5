//! Decoding of image files to gray or RGB with 8 bits per sample.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::{Format, no_folder};
use crate::data::folder;
use crate::data::images::{gray_to_rgb, rgb_to_gray};
use crate::error::{Error, Result};
use crate::shape::Dims;

/// Maximum memory for one decoded image, and for decoding it, in bytes. A forged header must not
/// exhaust the memory; 512 MiB are 178 megapixels of RGB.
const MAX_IMAGE_BYTES: u64 = 512 << 20;

/// Maximum size of an image file in bytes. A file is read into memory as a whole.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// The entry in the table of formats. It is the last one, because it accepts every file.
pub(super) const FORMAT: Format =
    Format { sniffs: |_, _| true, open: folder::load_file, open_folder: no_folder };

/// A decoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Size, with 1 channel (gray) if red, green and blue are equal in every pixel, otherwise 3.
    pub dims: Dims,
    /// The samples, H,W,C.
    pub pixels: Vec<u8>,
}

impl Decoded {
    /// Converts the samples to gray (1 channel) or RGB (3 channels).
    pub(crate) fn into_channels(self, channels: usize) -> Vec<u8> {
        match (self.dims.c, channels) {
            (1, 3) => gray_to_rgb(&self.pixels),
            (3, 1) => rgb_to_gray(&self.pixels),
            _ => self.pixels,
        }
    }
}

/// Decodes a PNG, JPEG, BMP, GIF (first frame), TIFF, WebP or PNM file. The format is detected from
/// the content. The EXIF orientation is applied, 16-bit and float samples are reduced to 8 bits,
/// and transparent pixels are composed over white.
///
/// # Errors
/// If the file cannot be read or decoded, or takes more than 512 MiB. The message does not name the
/// file.
pub fn decode_file(path: &Path) -> Result<Decoded> {
    decode(&read_file(path)?)
}

/// Decodes a file without reducing alpha and bit depth. Returns the image and its ICC profile.
/// Decoding can take up to `max_bytes`.
///
/// # Errors
/// Those of [`decode_file`], with another limit.
pub(crate) fn decode_lossless(
    path: &Path,
    max_bytes: u64,
) -> Result<(DynamicImage, Option<Vec<u8>>)> {
    let bytes = read_file(path)?;
    let (image, profile) = catch_panic(&bytes, |bytes| decode_image(bytes, max_bytes))?;
    // The GIF decoder adds alpha to every image. It is removed if all pixels are opaque.
    let opaque = || image.as_bytes().iter().skip(3).step_by(4).all(|alpha| *alpha == 255);
    let is_gif = image::guess_format(&bytes).ok() == Some(ImageFormat::Gif);
    if is_gif && matches!(image, DynamicImage::ImageRgba8(_)) && opaque() {
        return Ok((image.into_rgb8().into(), profile));
    }
    Ok((image, profile))
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(|e| unreadable_file(&e))?;
    Ok(bytes)
}

/// Opens a regular file of at most [`MAX_FILE_BYTES`].
fn open(path: &Path) -> Result<BufReader<File>> {
    // Checked before opening, because opening a named pipe waits for a writer.
    let metadata = std::fs::metadata(path).map_err(|e| unreadable_file(&e))?;
    if !metadata.is_file() {
        return Err(Error::usage("is not a regular file"));
    }
    let file = File::open(path).map_err(|e| unreadable_file(&e))?;
    if metadata.len() > MAX_FILE_BYTES {
        return Err(Error::usage("is larger than 1 GiB; divide it into smaller images"));
    }
    Ok(BufReader::new(file))
}

fn unreadable_file(error: &std::io::Error) -> Error {
    Error::failed(format!("cannot be read ({error}); check the file and its permissions"))
}

/// An upper bound for the memory in bytes that [`decode_file`] takes, from the header of the file.
/// Returns 0 if `decode_file` will refuse the file.
pub(crate) fn bytes_to_decode(path: &Path) -> u64 {
    let estimate = || -> Result<u64> {
        let file = open(path)?;
        let size = file.get_ref().metadata().map_err(|e| unreadable_file(&e))?.len();
        let decoder = decoder(file, size, MAX_IMAGE_BYTES)?;
        let (w, h) = decoder.dimensions();
        // The file; the decoded image, twice because the decoder of progressive JPEG and a rotation
        // need as much again; and the copy with 8 bits.
        Ok(size + 2 * decoder.total_bytes() + 4 * u64::from(w) * u64::from(h))
    };
    catch_unwind(AssertUnwindSafe(estimate)).map_or(0, |bytes| bytes.unwrap_or(0))
}

/// Decodes the bytes of an image file; see [`decode_file`].
///
/// # Errors
/// Those of [`decode_file`].
pub fn decode(bytes: &[u8]) -> Result<Decoded> {
    catch_panic(bytes, |bytes| decode_image(bytes, MAX_IMAGE_BYTES).map(|(image, _)| reduce(image)))
}

/// Runs a decoder and turns its panics into errors: a hostile file must not end the program.
fn catch_panic<T>(bytes: &[u8], decode: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    if bytes.is_empty() {
        return Err(Error::usage("the file is empty; remove it"));
    }
    let decoded = catch_unwind(AssertUnwindSafe(|| decode(bytes)));
    decoded.unwrap_or_else(|_| {
        Err(Error::usage("the decoder failed; the file is damaged: save it again or remove it"))
    })
}

/// Decodes an image, applies its orientation, and returns it with its ICC profile.
fn decode_image(bytes: &[u8], max_bytes: u64) -> Result<(DynamicImage, Option<Vec<u8>>)> {
    // The JPEG decoder fills in missing data without an error.
    if image::guess_format(bytes).ok() == Some(ImageFormat::Jpeg) && !jpeg_ends(bytes) {
        return Err(Error::usage("is cut off: its end is missing; get it again or remove it"));
    }
    let mut decoder = decoder(Cursor::new(bytes), bytes.len() as u64, max_bytes)?;
    // A damaged orientation tag or profile does not make the image unusable.
    let orientation = decoder.orientation().ok();
    let profile = decoder.icc_profile().ok().flatten();
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| undecodable(&e, max_bytes))?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok((image, profile))
}

/// The EXIF orientation of an image file, by which [`decode_file`] turns the image. `None` if it
/// has none or cannot be read.
pub fn orientation(path: &Path) -> Option<Orientation> {
    let bytes = read_file(path).ok()?;
    let orientation = catch_panic(&bytes, |bytes| {
        let mut decoder = decoder(Cursor::new(bytes), bytes.len() as u64, MAX_IMAGE_BYTES)?;
        Ok(decoder.orientation().ok())
    });
    orientation.ok().flatten()
}

/// Whether a JPEG's segments and scans lead to its end-of-image marker (ITU-T T.81, annex B).
fn jpeg_ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // Find the next marker: 0xff, possibly repeated, and its code. In the data of a scan, 0xff
        // is followed by a stuffed zero or the code of a restart.
        let Some(found) =
            bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0xff))
        else {
            return false;
        };
        at += found + 1;
        match bytes.get(at) {
            None => return false,
            Some(0xd9) => return true,
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            Some(0xff) => {}
            Some(_) => {
                let Some(&[high, low]) = bytes.get(at + 1..at + 3) else { return false };
                at += 1 + usize::from(u16::from_be_bytes([high, low])).max(2);
            }
        }
    }
}

/// Creates the decoder of a file of `size` bytes. It refuses images that take more than `max_bytes`
/// according to their header.
fn decoder<'a>(
    file: impl BufRead + Seek + 'a,
    size: u64,
    max_bytes: u64,
) -> Result<impl ImageDecoder + 'a> {
    let mut reader =
        ImageReader::new(file).with_guessed_format().map_err(|e| Error::failed(e.to_string()))?;
    let Some(format) = reader.format() else {
        return Err(Error::usage(
            "is not an image of a known format (PNG, JPEG, BMP, GIF, TIFF, WebP, PNM); convert or \
             remove it",
        ));
    };
    let mut limits = Limits::default();
    limits.max_alloc = Some(max_bytes);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|e| undecodable(&e, max_bytes))?;
    let (w, h) = decoder.dimensions();
    if w == 0 || h == 0 {
        return Err(Error::usage(format!("has no pixels ({w}x{h}); remove it")));
    }
    // The RGB copy of a gray or palette image can be larger than the decoded image.
    if decoder.total_bytes().max(u64::from(w) * u64::from(h) * 3) > max_bytes {
        return Err(Error::usage(format!(
            "{w}x{h} pixels need more than {} MiB, the limit for one image; shrink it or divide \
             it into smaller images",
            max_bytes >> 20
        )));
    }
    // These two decoders fill in missing data, so that a few bytes can claim to be a huge image. A
    // JPEG block of 64 pixels takes at least one bit, and a GIF code at most 4096 pixels; both
    // limits are doubled for safety.
    let max_pixels_per_byte = match format {
        ImageFormat::Jpeg => 2 * 64 * 8,
        ImageFormat::Gif => 2 * 4096,
        _ => u64::MAX,
    };
    if u64::from(w) * u64::from(h) > max_pixels_per_byte.saturating_mul(size) {
        return Err(Error::usage(format!(
            "{size} bytes cannot contain {w}x{h} pixels; the file is cut off: get it again or \
             remove it"
        )));
    }
    Ok(decoder)
}

fn undecodable(error: &ImageError, max_bytes: u64) -> Error {
    // The messages of some decoders have several lines.
    let detail = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    match error {
        ImageError::Limits(_) => Error::usage(format!(
            "needs more than {} MiB, the limit for one image ({detail}); shrink it or divide it \
             into smaller images",
            max_bytes >> 20
        )),
        ImageError::Unsupported(_) => Error::usage(format!("{detail}; convert it to PNG")),
        _ => Error::usage(format!("cannot be decoded ({detail}); save it again or remove it")),
    }
}

/// Reduces an image to 8 bits, composes alpha over white, and makes it gray if red, green and blue
/// are equal in every pixel.
fn reduce(image: DynamicImage) -> Decoded {
    let (h, w) = (image.height() as usize, image.width() as usize);
    let over_white = |value: u8, alpha: u8| {
        let (value, alpha) = (u32::from(value), u32::from(alpha));
        ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    let color = image.color();
    let pixels = match (color.has_color(), color.has_alpha()) {
        (false, false) => image.into_luma8().into_raw(),
        (false, true) => image
            .into_luma_alpha8()
            .into_raw()
            .chunks_exact(2)
            .map(|p| over_white(p[0], p[1]))
            .collect(),
        (true, false) => image.into_rgb8().into_raw(),
        (true, true) => {
            let rgba = image.into_rgba8().into_raw();
            rgba.chunks_exact(4)
                .flat_map(|p| {
                    [over_white(p[0], p[3]), over_white(p[1], p[3]), over_white(p[2], p[3])]
                })
                .collect()
        }
    };
    if !color.has_color() {
        return Decoded { dims: Dims::new(1, h, w), pixels };
    }
    if pixels.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]) {
        let pixels = pixels.into_iter().step_by(3).collect();
        return Decoded { dims: Dims::new(1, h, w), pixels };
    }
    Decoded { dims: Dims::new(3, h, w), pixels }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Folder, encoded};
    use image::{GrayImage, ImageBuffer, Rgba};

    #[test]
    fn a_jpeg_that_is_cut_off_is_refused_wherever_it_is_cut() {
        let image = GrayImage::from_fn(90, 70, |x, y| image::Luma([(x * 7 + y * y) as u8]));
        let whole = encoded(&image.into(), ImageFormat::Jpeg);
        assert_eq!(decode(&whole).unwrap().dims.h, 70);
        // Some cameras write data after the end marker.
        assert!(decode(&[&whole[..], b"\xff\xe1 more"].concat()).is_ok());
        for end in (2..whole.len()).step_by(37).chain([whole.len() - 1]) {
            assert!(decode(&whole[..end]).is_err(), "{end} of {}", whole.len());
        }
    }

    #[test]
    fn the_memory_for_decoding_is_known_from_the_header() {
        let folder = Folder::new("decode");
        let deep: ImageBuffer<Rgba<u16>, Vec<u16>> = ImageBuffer::new(200, 100);
        let shallow = GrayImage::new(200, 100);
        let bytes = |name: &str, image: DynamicImage| {
            let file = encoded(&image, ImageFormat::Png);
            bytes_to_decode(&folder.write(name, &file)) - file.len() as u64
        };
        // 8 bytes per pixel decoded, and two copies with 8 bits, of 4 and 3 bytes per pixel.
        assert!(bytes("deep.png", deep.into()) >= 200 * 100 * 15);
        assert_eq!(bytes("shallow.png", shallow.into()), 200 * 100 * 6);
        assert_eq!(bytes_to_decode(&folder.write("cut.png", b"\x89PNG")), 0);
        assert_eq!(bytes_to_decode(&folder.path.join("none.png")), 0);
    }
}
