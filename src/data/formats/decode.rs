//! Image files, decoded to gray or RGB with 8 bits a sample.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::{Format, no_folder};
use crate::data::folder;
use crate::data::images::{gray_to_rgb, rgb_to_gray};
use crate::error::{Error, Result};

/// The most bytes one image may take, decoded and while it is decoded.
const MAX_IMAGE_BYTES: u64 = 512 << 20;

/// The largest image file that is read.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// The row of image files in the table of formats. They come last: any file may be an image.
pub(super) const FORMAT: Format =
    Format { sniffs: |_, _| true, open: folder::load_file, open_folder: no_folder };

/// A decoded image: gray (1) or RGB (3), H,W,C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Height in pixels.
    pub h: usize,
    /// Width in pixels.
    pub w: usize,
    /// 1 where red, green and blue are equal everywhere, else 3.
    pub channels: usize,
    /// The samples.
    pub pixels: Vec<u8>,
}

impl Decoded {
    /// The samples as gray (1) or RGB (3).
    pub(crate) fn into_channels(self, channels: usize) -> Vec<u8> {
        match (self.channels, channels) {
            (1, 3) => gray_to_rgb(&self.pixels),
            (3, 1) => rgb_to_gray(&self.pixels),
            _ => self.pixels,
        }
    }
}

/// Decodes one image file: PNG, JPEG, BMP, GIF (its first frame), TIFF, WebP or PNM, recognised by
/// its content. The EXIF orientation is applied, 16-bit and float samples are reduced to 8 bits,
/// and what is transparent is laid over white.
///
/// # Errors
/// A line without the file's name: what is wrong and what to do.
pub fn decode_file(path: &Path) -> Result<Decoded> {
    decode(&bytes_of(path)?)
}

/// A file as its samples are saved, alpha and 16 bits kept, and its colour profile, where it takes
/// no more than `most` bytes when decoded; else as [`decode_file`].
///
/// # Errors
/// As [`decode_file`].
pub(crate) fn picture_of_file(path: &Path, most: u64) -> Result<(DynamicImage, Option<Vec<u8>>)> {
    let bytes = bytes_of(path)?;
    let (image, profile) = guarded(&bytes, |bytes| picture(bytes, most))?;
    // GIF's decoder gives alpha to every image; those without any are no longer told apart.
    let opaque = || image.as_bytes().iter().skip(3).step_by(4).all(|alpha| *alpha == 255);
    let is_gif = image::guess_format(&bytes).ok() == Some(ImageFormat::Gif);
    if is_gif && matches!(image, DynamicImage::ImageRgba8(_)) && opaque() {
        return Ok((image.into_rgb8().into(), profile));
    }
    Ok((image, profile))
}

fn bytes_of(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(|e| unreadable_file(&e))?;
    Ok(bytes)
}

fn open(path: &Path) -> Result<BufReader<File>> {
    // Before it is opened: a pipe would be waited for.
    let metadata = std::fs::metadata(path).map_err(|e| unreadable_file(&e))?;
    if !metadata.is_file() {
        return Err(Error::usage("is not a regular file"));
    }
    let file = File::open(path).map_err(|e| unreadable_file(&e))?;
    if metadata.len() > MAX_FILE_BYTES {
        return Err(Error::usage("is larger than 1 GiB; cut it into smaller images"));
    }
    Ok(BufReader::new(file))
}

fn unreadable_file(error: &std::io::Error) -> Error {
    Error::failed(format!("cannot be read ({error}); check the file and its permissions"))
}

/// Bytes that decoding a file takes at most, by its head: the file, what is decoded and what its
/// decoder keeps beside (a progressive JPEG as much again; so does turning), and the copy with 8
/// bits. 0 where [`decode_file`] will refuse it.
pub(crate) fn bytes_to_decode(path: &Path) -> u64 {
    let look = || -> Result<u64> {
        let file = open(path)?;
        let size = file.get_ref().metadata().map_err(|e| unreadable_file(&e))?.len();
        let decoder = begin(file, size, MAX_IMAGE_BYTES)?;
        let (w, h) = decoder.dimensions();
        Ok(size + 2 * decoder.total_bytes() + 4 * u64::from(w) * u64::from(h))
    };
    catch_unwind(AssertUnwindSafe(look)).map_or(0, |found| found.unwrap_or(0))
}

/// Decodes an image in memory, as [`decode_file`].
///
/// # Errors
/// As [`decode_file`].
pub fn decode(bytes: &[u8]) -> Result<Decoded> {
    guarded(bytes, |bytes| picture(bytes, MAX_IMAGE_BYTES).map(|(image, _)| reduce(image)))
}

/// Runs a decoder: one that panics on a hostile file must not take the program along.
fn guarded<T>(bytes: &[u8], decode: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    if bytes.is_empty() {
        return Err(Error::usage("the file is empty; remove it"));
    }
    let decoded = catch_unwind(AssertUnwindSafe(|| decode(bytes)));
    decoded.unwrap_or_else(|_| {
        Err(Error::usage("its decoder failed; the file is damaged: save it again or remove it"))
    })
}

/// The image, upright, and its colour profile.
fn picture(bytes: &[u8], most: u64) -> Result<(DynamicImage, Option<Vec<u8>>)> {
    // Its decoder would fill up what is missing.
    if image::guess_format(bytes).ok() == Some(ImageFormat::Jpeg) && !jpeg_ends(bytes) {
        return Err(Error::usage("is cut off: its end is missing; get it again or remove it"));
    }
    let mut decoder = begin(Cursor::new(bytes), bytes.len() as u64, most)?;
    // a broken tag or profile is no reason to refuse the picture
    let orientation = decoder.orientation().ok();
    let profile = decoder.icc_profile().ok().flatten();
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| unreadable(&e, most))?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok((image, profile))
}

/// Whether a JPEG's segments and scans lead to its end-of-image marker (ITU-T T.81, annex B).
fn jpeg_ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // To the next marker: 0xff, perhaps repeated, and what is neither a stuffed zero of a scan
        // nor a restart within one.
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

/// The decoder of a file of `size` bytes, where its head promises what may be decoded: no more than
/// `most` bytes.
fn begin<'a>(
    file: impl BufRead + Seek + 'a,
    size: u64,
    most: u64,
) -> Result<impl ImageDecoder + 'a> {
    let mut reader =
        ImageReader::new(file).with_guessed_format().map_err(|e| Error::failed(e.to_string()))?;
    let Some(format) = reader.format() else {
        return Err(Error::usage(
            "is not an image of a known kind (PNG, JPEG, BMP, GIF, TIFF, WebP, PNM); convert or remove it",
        ));
    };
    let mut limits = Limits::default();
    limits.max_alloc = Some(most);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|e| unreadable(&e, most))?;
    let (w, h) = decoder.dimensions();
    if w == 0 || h == 0 {
        return Err(Error::usage(format!("has no pixels ({w}x{h}); remove it")));
    }
    // the RGB copy made of it counts too
    if decoder.total_bytes().max(u64::from(w) * u64::from(h) * 3) > most {
        return Err(Error::usage(format!(
            "{w}x{h} pixels need more than the {} MiB that one image may take; shrink it or cut it into pieces",
            most >> 20
        )));
    }
    // These decoders fill in what is missing, however much it is. A JPEG block of 64 pixels takes a
    // bit at least, a GIF code stands for 4096 pixels at most; twice that is allowed.
    let most_per_byte = match format {
        ImageFormat::Jpeg => 2 * 64 * 8,
        ImageFormat::Gif => 2 * 4096,
        _ => u64::MAX,
    };
    if u64::from(w) * u64::from(h) > most_per_byte.saturating_mul(size) {
        return Err(Error::usage(format!(
            "{size} bytes cannot hold its {w}x{h} pixels; it is cut off: get it again or remove it"
        )));
    }
    Ok(decoder)
}

fn unreadable(error: &ImageError, most: u64) -> Error {
    // some decoders' messages run over several lines
    let detail = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    match error {
        ImageError::Limits(_) => Error::usage(format!(
            "needs more than the {} MiB that one image may take ({detail}); shrink it or cut it into pieces",
            most >> 20
        )),
        ImageError::Unsupported(_) => Error::usage(format!("{detail}; convert it to PNG")),
        _ => Error::usage(format!("cannot be decoded ({detail}); save it again or remove it")),
    }
}

/// 8 bits, alpha over white, gray where it is gray.
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
        return Decoded { h, w, channels: 1, pixels };
    }
    if pixels.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]) {
        return Decoded { h, w, channels: 1, pixels: pixels.into_iter().step_by(3).collect() };
    }
    Decoded { h, w, channels: 3, pixels }
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
        assert_eq!(decode(&whole).unwrap().h, 70);
        // Cameras write more behind the end.
        assert!(decode(&[&whole[..], b"\xff\xe1 more"].concat()).is_ok());
        for end in (2..whole.len()).step_by(37).chain([whole.len() - 1]) {
            assert!(decode(&whole[..end]).is_err(), "{end} of {}", whole.len());
        }
    }

    #[test]
    fn what_decoding_takes_is_known_from_the_head() {
        let folder = Folder::new("decode");
        let deep: ImageBuffer<Rgba<u16>, Vec<u16>> = ImageBuffer::new(200, 100);
        let shallow = GrayImage::new(200, 100);
        let bytes = |name: &str, image: DynamicImage| {
            let file = encoded(&image, ImageFormat::Png);
            bytes_to_decode(&folder.write(name, &file)) - file.len() as u64
        };
        // Decoded, 8 bytes a pixel, and the two copies with 8 bits, 4 and 3.
        assert!(bytes("deep.png", deep.into()) >= 200 * 100 * 15);
        assert_eq!(bytes("shallow.png", shallow.into()), 200 * 100 * 6);
        assert_eq!(bytes_to_decode(&folder.write("cut.png", b"\x89PNG")), 0);
        assert_eq!(bytes_to_decode(&folder.path.join("none.png")), 0);
    }
}
