//! Decoding of image files to gray or RGB with 8 bits per sample.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytemuck::Pod;
use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader,
    Limits,
};

use super::content::{self, Content};
pub use super::decoded::Decoded;
use super::decoded::reduce;
pub(crate) use super::decoded::{Lossless, Raster, Stored, mixed_types};
use super::jpeg;
use super::reader::Reader;
use super::tiff::{self, TiffFile};
use super::{Format, frames, no_folder};
use crate::advice::Advice;
use crate::budget;
use crate::data::exif;
use crate::data::file_report::refusal;
use crate::data::folder;
use crate::data::metadata::Metadata;
use crate::error::{Error, Result};

/// Maximum memory for one decoded image, in bytes, without another limit. A forged header must not
/// exhaust the memory; 512 MiB are 178 megapixels of RGB.
const MAX_IMAGE_BYTES: u64 = 512 << 20;

/// The maximum memory for one decoded image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In bytes.
    pub bytes: u64,
    /// Whether the caller can allow more.
    pub can_raise: bool,
}

impl Limit {
    /// The limit for images of a set, where `memory` is the memory for all work, if it is limited.
    pub fn of_memory(memory: Option<u64>) -> Self {
        Self {
            bytes: memory.map_or(MAX_IMAGE_BYTES, |all| all.max(MAX_IMAGE_BYTES)),
            can_raise: true,
        }
    }

    /// What to do with an image that exceeds the limit.
    fn advice(self) -> String {
        let raise = if self.can_raise {
            format!("{}, or ", Advice::RaiseMemoryLimit)
        } else {
            String::new()
        };
        format!("{raise}shrink it or divide it into smaller images")
    }
}

/// Maximum size of an image file in bytes. A file is read into memory as a whole.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// The entry in the table of formats. It is the last one, because it accepts every file.
pub(super) const FORMAT: Format =
    Format { sniffs: |_, _| true, open: folder::load_file, open_folder: no_folder };

/// Decodes a PNG, JPEG, BMP, GIF, ICO, TGA, TIFF, WebP or PNM file; of several frames or pages the
/// first. The format is detected from the content. The EXIF orientation is applied, 16-bit and
/// float samples are reduced to 8 bits, and transparent pixels are composed over white. Floats are
/// in 0…1 or in 0…255, which the largest value decides.
///
/// # Errors
/// If the file cannot be read or decoded, or takes more than 512 MiB. The message does not name the
/// file.
pub fn decode_file(path: &Path) -> Result<Decoded> {
    decode_file_within(path, Limit::of_memory(None))
}

/// As [`decode_file`] with another limit.
///
/// # Errors
/// Those of [`decode_file`].
pub(crate) fn decode_file_within(path: &Path, limit: Limit) -> Result<Decoded> {
    let bytes = read_file(path)?;
    catch_panic(&bytes, |bytes| decode_image(bytes, path, limit).and_then(reduce))
}

/// As [`decode_file_within`], with the samples of the file: 8 bits, 16 bits or floats.
///
/// # Errors
/// Those of [`decode_file`], except that floats have any finite value.
pub(crate) fn decode_stored(path: &Path, limit: Limit) -> Result<Stored> {
    let bytes = read_file(path)?;
    catch_panic(&bytes, |bytes| decode_image(bytes, path, limit).map(Stored::from))
}

/// The places of the images of a TIFF file in which all are alike. None if there is one image, or
/// they differ.
pub(crate) fn pages_alike(path: &Path) -> Vec<u64> {
    let pages = tiff::pages(path);
    if pages.are_alike && pages.offsets.len() > 1 { pages.offsets } else { Vec::new() }
}

/// As [`decode_stored`], for the image at a place in a TIFF file. Only its part of the file is
/// read.
///
/// # Errors
/// Those of [`decode_stored`].
pub(crate) fn decode_stored_page(path: &Path, page: u64, limit: Limit) -> Result<Stored> {
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let file = open(path)?;
        let size = file.get_ref().metadata().map_err(|e| unreadable_file(&e))?.len();
        let mut source = source(Reader::File(file), path, size, limit, Some(page))?;
        let orientation = source.orientation();
        let mut image = source.decode(limit)?;
        if let Some(orientation) = orientation {
            image.apply_orientation(orientation);
        }
        let metadata = Metadata::default();
        Ok(Stored::from(Lossless::of(image, metadata)))
    }));
    decoded.unwrap_or_else(|_| Err(decoder_failed()))
}

/// As [`decode_stored`], for the bytes of a file.
///
/// # Errors
/// Those of [`decode_stored`].
pub(crate) fn decode_stored_bytes(bytes: &[u8], limit: Limit) -> Result<Stored> {
    catch_panic(bytes, |bytes| decode_image(bytes, Path::new(""), limit).map(Stored::from))
}

/// Decodes a file without reducing alpha and bit depth.
///
/// # Errors
/// Those of [`decode_file`], with another limit.
pub(crate) fn decode_lossless(path: &Path, limit: Limit) -> Result<Lossless> {
    let bytes = read_file(path)?;
    let mut lossless = catch_panic(&bytes, |bytes| decode_image(bytes, path, limit))?;
    // The GIF decoder adds alpha to every image. It is removed if all pixels are opaque.
    if content::image_format(&bytes, path) == Some(ImageFormat::Gif)
        && let Raster::Integers(image @ DynamicImage::ImageRgba8(_)) = &mut lossless.image
        && image.as_bytes().iter().skip(3).step_by(4).all(|alpha| *alpha == 255)
    {
        *image = image.to_rgb8().into();
    }
    Ok(lossless)
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(|e| unreadable_file(&e))?;
    Ok(bytes)
}

/// Opens a regular file of at most [`MAX_FILE_BYTES`].
pub(super) fn open(path: &Path) -> Result<BufReader<File>> {
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

pub(super) fn unreadable_file(error: &std::io::Error) -> Error {
    Error::failed(format!("cannot be read ({error}); check the file and its permissions"))
}

/// An upper bound for the memory in bytes that [`decode_file_within`] takes, from the header of the
/// file. Returns 0 if it will refuse the file.
pub(crate) fn bytes_to_decode(path: &Path, limit: Limit) -> u64 {
    let estimate = || -> Result<u64> {
        let file = open(path)?;
        let size = file.get_ref().metadata().map_err(|e| unreadable_file(&e))?.len();
        let source = source(Reader::File(file), path, size, limit, None)?;
        let (w, h) = source.size();
        // The file; the decoded image, twice because the decoder of progressive JPEG and a rotation
        // need as much again; and the copy without alpha.
        Ok(size + 2 * source.bytes() + source.bytes().max(4 * u64::from(w) * u64::from(h)))
    };
    catch_unwind(AssertUnwindSafe(estimate)).map_or(0, |bytes| bytes.unwrap_or(0))
}

/// Decodes the bytes of an image file; see [`decode_file`].
///
/// # Errors
/// Those of [`decode_file`].
pub fn decode(bytes: &[u8]) -> Result<Decoded> {
    let limit = Limit::of_memory(None);
    catch_panic(bytes, |bytes| decode_image(bytes, Path::new(""), limit).and_then(reduce))
}

/// Runs a decoder and turns its panics into errors: a hostile file must not end the program.
fn catch_panic<T>(bytes: &[u8], decode: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    if bytes.is_empty() {
        return Err(Error::usage("the file is empty; remove it"));
    }
    let decoded = catch_unwind(AssertUnwindSafe(|| decode(bytes)));
    decoded.unwrap_or_else(|_| Err(decoder_failed()))
}

pub(super) fn decoder_failed() -> Error {
    Error::usage("the decoder failed; the file is damaged: save it again or remove it")
}

/// Decodes an image and applies its orientation. `path` is its file, if it has one.
fn decode_image(bytes: &[u8], path: &Path, limit: Limit) -> Result<Lossless> {
    let format = content::image_format(bytes, path);
    // The JPEG decoder fills in missing data without an error.
    if format == Some(ImageFormat::Jpeg) && !jpeg::ends(bytes) {
        return Err(Error::usage("is cut off: its end is missing; get it again or remove it"));
    }
    let mut source = source(Reader::of(bytes), path, bytes.len() as u64, limit, None)?;
    // A damaged orientation tag or profile does not make the image unusable.
    let orientation = source.orientation();
    let metadata = source.metadata(bytes);
    let mut image = source.decode(limit)?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    let frames = format.map_or(1, |format| frames::count(bytes, format));
    let is_jpeg = format == Some(ImageFormat::Jpeg);
    let luma_steps = if is_jpeg { jpeg::luma_steps(bytes) } else { None };
    Ok(Lossless { image, metadata, frames, is_jpeg, luma_steps })
}

/// The EXIF orientation of an image file, by which [`decode_file`] turns the image. `None` if it
/// has none or cannot be read.
pub fn orientation(path: &Path) -> Option<Orientation> {
    let bytes = read_file(path).ok()?;
    let orientation = catch_panic(&bytes, |bytes| {
        let limit = Limit::of_memory(Some(u64::MAX));
        let mut source = source(Reader::of(bytes), path, bytes.len() as u64, limit, None)?;
        Ok(source.orientation())
    });
    orientation.ok().flatten()
}

/// An image that is not decoded yet.
pub(super) enum Source<'a> {
    /// A format of the crate `image`.
    Image(Box<dyn ImageDecoder + 'a>, ImageFormat),
    Tiff(Box<TiffFile<'a>>),
}

impl Source<'_> {
    /// Width and height.
    pub fn size(&self) -> (u32, u32) {
        match self {
            Self::Image(decoder, _) => decoder.dimensions(),
            Self::Tiff(file) => file.size,
        }
    }

    /// Size of the decoded image in bytes.
    fn bytes(&self) -> u64 {
        match self {
            Self::Image(decoder, _) => decoder.total_bytes(),
            Self::Tiff(file) => file.bytes(),
        }
    }

    pub fn orientation(&mut self) -> Option<Orientation> {
        match self {
            Self::Image(decoder, _) => {
                let exif = decoder.exif_metadata().ok().flatten().map(exif::without_prefix);
                Orientation::from_exif_chunk(&exif?)
            }
            Self::Tiff(file) => file.orientation(),
        }
    }

    /// The metadata in the file `bytes`.
    fn metadata(&mut self, bytes: &[u8]) -> Metadata {
        match self {
            Self::Image(decoder, format) => Metadata::read(decoder, *format, bytes),
            Self::Tiff(file) => Metadata::new(file.profile(), None, file.xmp(), file.density),
        }
    }

    fn decode(self, limit: Limit) -> Result<Raster> {
        match self {
            Self::Image(decoder, _) => decode_integers(decoder, limit).map(Raster::Integers),
            Self::Tiff(file) => file.decode(),
        }
    }
}

/// As [`DynamicImage::from_decoder`], but too little memory is an error instead of the end of the
/// process.
fn decode_integers(decoder: Box<dyn ImageDecoder + '_>, limit: Limit) -> Result<DynamicImage> {
    let (w, h) = decoder.dimensions();
    let image = match decoder.color_type() {
        ColorType::L8 => {
            ImageBuffer::from_raw(w, h, samples(decoder, limit)?).map(DynamicImage::ImageLuma8)
        }
        ColorType::La8 => {
            ImageBuffer::from_raw(w, h, samples(decoder, limit)?).map(DynamicImage::ImageLumaA8)
        }
        ColorType::Rgb8 => {
            ImageBuffer::from_raw(w, h, samples(decoder, limit)?).map(DynamicImage::ImageRgb8)
        }
        ColorType::Rgba8 => {
            ImageBuffer::from_raw(w, h, samples(decoder, limit)?).map(DynamicImage::ImageRgba8)
        }
        ColorType::L16 => {
            ImageBuffer::from_raw(w, h, samples(decoder, limit)?).map(DynamicImage::ImageLuma16)
        }
        ColorType::La16 => {
            ImageBuffer::from_raw(w, h, samples(decoder, limit)?).map(DynamicImage::ImageLumaA16)
        }
        ColorType::Rgb16 => {
            ImageBuffer::from_raw(w, h, samples(decoder, limit)?).map(DynamicImage::ImageRgb16)
        }
        ColorType::Rgba16 => {
            ImageBuffer::from_raw(w, h, samples(decoder, limit)?).map(DynamicImage::ImageRgba16)
        }
        // Floats are in TIFF files only, which have a decoder of their own.
        other => return Err(Error::usage(format!("has pixels of {other:?}; convert it to PNG"))),
    };
    Ok(image.expect("the samples match the size"))
}

/// The samples of an image, in the byte order of the machine.
fn samples<T: Pod>(decoder: Box<dyn ImageDecoder + '_>, limit: Limit) -> Result<Vec<T>> {
    let len = decoder.total_bytes() as usize / size_of::<T>();
    let mut samples = budget::zeroed(len, "an image")?;
    let read = decoder.read_image(bytemuck::cast_slice_mut(&mut samples));
    read.map_err(|e| undecodable(&e, limit))?;
    Ok(samples)
}

/// Reads the header of a file of `size` bytes. It refuses images that exceed the limit according to
/// their header. `page` is the place of an image in a TIFF file; otherwise it is the first one.
pub(super) fn source<'a>(
    mut file: Reader<'a>,
    path: &Path,
    size: u64,
    limit: Limit,
    page: Option<u64>,
) -> Result<Source<'a>> {
    let mut start = Vec::new();
    let read = file.by_ref().take(content::START as u64).read_to_end(&mut start);
    read.and_then(|_| file.rewind()).map_err(|e| unreadable_file(&e))?;
    let format = match Content::of(&start, path) {
        Content::Image(format) => format,
        Content::Unsupported(kind) => {
            return Err(Error::usage(refusal(kind)));
        }
        Content::Other => {
            return Err(Error::usage(content::describe_other(&start, path).unwrap_or(
                "is not an image of a known format (PNG, JPEG, BMP, GIF, ICO, TGA, TIFF, WebP, \
                 PNM); convert or remove it",
            )));
        }
    };
    let source = if format == ImageFormat::Tiff {
        Source::Tiff(Box::new(TiffFile::open(file, page, limit.bytes)?))
    } else {
        let mut reader = ImageReader::with_format(file, format);
        let mut limits = Limits::default();
        limits.max_alloc = Some(limit.bytes);
        reader.limits(limits);
        let decoder = reader.into_decoder().map_err(|e| undecodable(&e, limit))?;
        Source::Image(Box::new(decoder), format)
    };
    let (w, h) = source.size();
    if w == 0 || h == 0 {
        return Err(Error::usage(format!("has no pixels ({w}x{h}); remove it")));
    }
    if source.bytes() > limit.bytes {
        return Err(Error::usage(format!(
            "{w}x{h} pixels need more than {} MiB, the limit for one image; {}",
            limit.bytes >> 20,
            limit.advice()
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
    Ok(source)
}

fn undecodable(error: &ImageError, limit: Limit) -> Error {
    // The messages of some decoders have several lines.
    let detail = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    match error {
        ImageError::Limits(_) => Error::usage(format!(
            "needs more than {} MiB, the limit for one image ({detail}); {}",
            limit.bytes >> 20,
            limit.advice()
        )),
        ImageError::Unsupported(_) => Error::usage(format!("{detail}; convert it to PNG")),
        _ => Error::usage(format!("cannot be decoded ({detail}); save it again or remove it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Folder, encoded};
    use image::{GrayImage, Rgba};

    const LIMIT: Limit = Limit { bytes: MAX_IMAGE_BYTES, can_raise: true };

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
            bytes_to_decode(&folder.write(name, &file), LIMIT) - file.len() as u64
        };
        // 8 bytes per pixel decoded, and two copies with 8 bits, of 4 and 3 bytes per pixel.
        assert!(bytes("deep.png", deep.into()) >= 200 * 100 * 15);
        assert_eq!(bytes("shallow.png", shallow.into()), 200 * 100 * 6);
        assert_eq!(bytes_to_decode(&folder.write("cut.png", b"\x89PNG"), LIMIT), 0);
        assert_eq!(bytes_to_decode(&folder.path.join("none.png"), LIMIT), 0);
    }
}
