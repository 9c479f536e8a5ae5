//! Decoding of image files to gray or RGB with 8 bits per sample.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::metadata::Orientation;
use image::{
    DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits,
};

use super::content::{self, Content};
use super::tiff::TiffFile;
use super::{Format, frames, no_folder};
use crate::advice::Advice;
use crate::data::encoding::Encoding;
use crate::data::exif;
use crate::data::file_report::refusal;
use crate::data::folder;
use crate::data::metadata::Metadata;
use crate::error::{Error, Result};
use crate::sample_type::SampleType;
use crate::shape::Dims;

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

/// A decoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Size, with 1 channel (gray) if red, green and blue are equal in every pixel, otherwise 3.
    pub dims: Dims,
    /// The samples, H,W,C.
    pub pixels: Vec<u8>,
    /// Number of images in the file: frames of an animation or pages. This is the first one.
    pub frames: usize,
}

impl Decoded {
    /// Converts the samples to gray (1 channel) or RGB (3 channels).
    pub(crate) fn into_channels(self, channels: usize) -> Vec<u8> {
        let Self { dims, pixels, .. } = self;
        let converted = Encoding::default().convert_channels(pixels, dims.c, channels);
        converted.expect("a decoded image is gray or RGB")
    }
}

/// A decoded image with the samples of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Size, with 1 channel (gray) if red, green and blue are equal in every pixel, otherwise 3.
    pub dims: Dims,
    /// The type of the samples.
    pub sample: SampleType,
    /// The samples, H,W,C.
    pub pixels: Vec<u8>,
    /// See [`Decoded::frames`].
    pub frames: usize,
}

impl Stored {
    /// The image with 8 bits per sample. Floats are in 0…1 or in 0…255, which the largest value
    /// decides.
    ///
    /// # Errors
    /// If a float is outside.
    pub fn into_bytes(self) -> Result<Self> {
        let values = match self.sample {
            SampleType::U8 => return Ok(self),
            SampleType::U16 => {
                self.sample.values(&self.pixels).into_iter().map(|v| v / 257.0).collect()
            }
            SampleType::F16 | SampleType::F32 => {
                let image = Raster::Floats(self.dims, self.sample.values(&self.pixels));
                let integers = Self::from_integers(image.into_integers()?, self.frames);
                return integers.into_bytes();
            }
        };
        let values: Vec<f32> = values;
        let sample = SampleType::U8;
        Ok(Self { sample, pixels: sample.bytes(values), ..self })
    }

    /// The samples as gray (1 channel) or RGB (3 channels) of a type. An 8-bit value v becomes the
    /// 16-bit value 257·v, and back by rounding. Floats stay floats.
    ///
    /// # Errors
    /// If integers would become floats or floats integers: their scales cannot be compared.
    pub fn into_stored(self, channels: usize, sample: SampleType) -> Result<Vec<u8>> {
        let encoding = Encoding::full_range(self.sample);
        let pixels = encoding.convert_channels(self.pixels, self.dims.c, channels)?;
        Ok(match (self.sample, sample) {
            (from, to) if from == to => pixels,
            (SampleType::U8, SampleType::U16) => pixels.into_iter().flat_map(|v| [v; 2]).collect(),
            (_, SampleType::U8) => Self { pixels, ..self }.into_bytes()?.pixels,
            (from, to) if !from.is_integer() && !to.is_integer() => to.bytes(from.values(&pixels)),
            (from, to) => {
                return Err(mixed_types(from, to));
            }
        })
    }
}

/// Decoded pixels with alpha and all bits.
pub(crate) enum Raster {
    /// Integers.
    Integers(DynamicImage),
    /// Floats as they are: size and values (H,W,C), where an even number of channels has alpha.
    Floats(Dims, Vec<f32>),
}

impl Raster {
    /// Integers; floats in 0…1 or 0…255, which the largest value decides, become 16 bits.
    ///
    /// # Errors
    /// If a float is outside.
    pub fn into_integers(self) -> Result<DynamicImage> {
        let (dims, values) = match self {
            Self::Integers(image) => return Ok(image),
            Self::Floats(dims, values) => (dims, values),
        };
        let (min, max) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), v| {
            (min.min(f64::from(*v)), max.max(f64::from(*v)))
        });
        let scale = float_scale(min, max)? * 257.0;
        let deep: Vec<u16> =
            values.iter().map(|v| (f64::from(*v) * scale).round() as u16).collect();
        let (w, h) = (dims.w as u32, dims.h as u32);
        let image = match dims.c {
            1 => ImageBuffer::from_raw(w, h, deep).map(DynamicImage::ImageLuma16),
            2 => ImageBuffer::from_raw(w, h, deep).map(DynamicImage::ImageLumaA16),
            3 => ImageBuffer::from_raw(w, h, deep).map(DynamicImage::ImageRgb16),
            _ => ImageBuffer::from_raw(w, h, deep).map(DynamicImage::ImageRgba16),
        };
        Ok(image.expect("the samples match the size"))
    }

    fn apply_orientation(&mut self, orientation: Orientation) {
        match self {
            Self::Integers(image) => image.apply_orientation(orientation),
            Self::Floats(dims, values) => {
                // The image crate turns images of three or four floats a pixel only, so the indices
                // of the pixels are turned.
                let (w, h) = (dims.w as u32, dims.h as u32);
                let index = |i: u32| [i as u16, (i >> 16) as u16, 0, 0];
                let indices: Vec<u16> = (0..w * h).flat_map(index).collect();
                let image = ImageBuffer::from_raw(w, h, indices).map(DynamicImage::ImageRgba16);
                let mut image = image.expect("the indices match the size");
                image.apply_orientation(orientation);
                let turned = image.to_rgba16().into_raw();
                *values = turned
                    .chunks_exact(4)
                    .map(|index| usize::from(index[0]) | usize::from(index[1]) << 16)
                    .flat_map(|pixel| values[pixel * dims.c..][..dims.c].to_vec())
                    .collect();
                *dims = Dims::new(dims.c, image.height() as usize, image.width() as usize);
            }
        }
    }
}

/// The factor that takes the floats of an image to 0…255: the largest value decides between 0…1 and
/// 0…255.
///
/// # Errors
/// If a value is negative or above 255.
fn float_scale(min: f64, max: f64) -> Result<f64> {
    if min < 0.0 || max > 255.0 {
        return Err(Error::usage(format!(
            "the values are in {min}…{max}, but images are in 0…1 or 0…255: rescale them"
        )));
    }
    Ok(if max <= 1.0 { 255.0 } else { 1.0 })
}

/// The error for an image of one type in a set of another.
pub(crate) fn mixed_types(own: SampleType, others: SampleType) -> Error {
    Error::usage(format!(
        "has {} samples, but the images before it have {} samples, and their values cannot be \
         compared; convert all to one type",
        own.name(),
        others.name()
    ))
}

/// An image as in its file, with alpha and all bits.
pub(crate) struct Lossless {
    /// The pixels, turned by the orientation.
    pub image: Raster,
    /// The metadata, without the orientation.
    pub metadata: Metadata,
    /// See [`Decoded::frames`].
    pub frames: usize,
    /// Whether the file is a JPEG.
    pub is_jpeg: bool,
}

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

/// An upper bound for the memory in bytes that [`decode_file_within`] takes, from the header of the
/// file. Returns 0 if it will refuse the file.
pub(crate) fn bytes_to_decode(path: &Path, limit: Limit) -> u64 {
    let estimate = || -> Result<u64> {
        let file = open(path)?;
        let size = file.get_ref().metadata().map_err(|e| unreadable_file(&e))?.len();
        let source = source(file, path, size, limit)?;
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
    decoded.unwrap_or_else(|_| {
        Err(Error::usage("the decoder failed; the file is damaged: save it again or remove it"))
    })
}

/// Decodes an image and applies its orientation. `path` is its file, if it has one.
fn decode_image(bytes: &[u8], path: &Path, limit: Limit) -> Result<Lossless> {
    let format = content::image_format(bytes, path);
    // The JPEG decoder fills in missing data without an error.
    if format == Some(ImageFormat::Jpeg) && !jpeg_ends(bytes) {
        return Err(Error::usage("is cut off: its end is missing; get it again or remove it"));
    }
    let mut source = source(Cursor::new(bytes), path, bytes.len() as u64, limit)?;
    // A damaged orientation tag or profile does not make the image unusable.
    let orientation = source.orientation();
    let metadata = source.metadata(bytes);
    let mut image = source.decode(limit)?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    let frames = format.map_or(1, |format| frames::count(bytes, format));
    Ok(Lossless { image, metadata, frames, is_jpeg: format == Some(ImageFormat::Jpeg) })
}

/// The EXIF orientation of an image file, by which [`decode_file`] turns the image. `None` if it
/// has none or cannot be read.
pub fn orientation(path: &Path) -> Option<Orientation> {
    let bytes = read_file(path).ok()?;
    let orientation = catch_panic(&bytes, |bytes| {
        let limit = Limit::of_memory(Some(u64::MAX));
        let mut source = source(Cursor::new(bytes), path, bytes.len() as u64, limit)?;
        Ok(source.orientation())
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

/// An image that is not decoded yet.
enum Source<'a, R: Read + Seek> {
    /// A format of the crate `image`.
    Image(Box<dyn ImageDecoder + 'a>, ImageFormat),
    Tiff(Box<TiffFile<R>>),
}

impl<R: Read + Seek> Source<'_, R> {
    /// Width and height.
    fn size(&self) -> (u32, u32) {
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

    fn orientation(&mut self) -> Option<Orientation> {
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
            Self::Image(decoder, _) => DynamicImage::from_decoder(decoder)
                .map(Raster::Integers)
                .map_err(|e| undecodable(&e, limit)),
            Self::Tiff(file) => file.decode(),
        }
    }
}

/// Reads the header of a file of `size` bytes. It refuses images that exceed the limit according to
/// their header.
fn source<'a, R: BufRead + Seek + 'a>(
    mut file: R,
    path: &Path,
    size: u64,
    limit: Limit,
) -> Result<Source<'a, R>> {
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
        Source::Tiff(Box::new(TiffFile::open(file, limit.bytes)?))
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

/// Reduces an image to 8 bits, composes alpha over white, and makes it gray if red, green and blue
/// are equal in every pixel.
fn reduce(lossless: Lossless) -> Result<Decoded> {
    let Lossless { image, frames, .. } = lossless;
    Ok(reduce_integers(image.into_integers()?, frames))
}

fn reduce_integers(image: DynamicImage, frames: usize) -> Decoded {
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
    let (dims, pixels) =
        gray_if_equal(Dims::new(if color.has_color() { 3 } else { 1 }, h, w), pixels);
    Decoded { dims, pixels, frames }
}

/// Gray instead of RGB, if red, green and blue are equal in every pixel.
fn gray_if_equal<T: Copy + PartialEq>(dims: Dims, pixels: Vec<T>) -> (Dims, Vec<T>) {
    if dims.c == 3 && pixels.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]) {
        return (Dims { c: 1, ..dims }, pixels.into_iter().step_by(3).collect());
    }
    (dims, pixels)
}

impl From<Lossless> for Stored {
    /// Composes alpha over white; that of floats is dropped, because their white is unknown. The
    /// image becomes gray if red, green and blue are equal in every pixel.
    fn from(lossless: Lossless) -> Self {
        let Lossless { image, frames, .. } = lossless;
        let image = match image {
            Raster::Floats(mut dims, mut values) => {
                if dims.c.is_multiple_of(2) {
                    let with_alpha = dims.c;
                    dims.c -= 1;
                    let pixels = values.chunks_exact(with_alpha);
                    values = pixels.flat_map(|pixel| pixel[..dims.c].to_vec()).collect();
                }
                let (dims, values) = gray_if_equal(dims, values);
                let sample = SampleType::F32;
                return Self { dims, sample, pixels: sample.bytes(values), frames };
            }
            Raster::Integers(image) => image,
        };
        Self::from_integers(image, frames)
    }
}

impl Stored {
    fn from_integers(image: DynamicImage, frames: usize) -> Self {
        let (h, w, color) = (image.height() as usize, image.width() as usize, image.color());
        if color.bytes_per_pixel() == color.channel_count() {
            let Decoded { dims, pixels, frames } = reduce_integers(image, frames);
            return Self { dims, sample: SampleType::U8, pixels, frames };
        }
        let over_white = |pixel: &[u16]| {
            let (alpha, color) = pixel.split_last().expect("pixels have samples");
            let alpha = u64::from(*alpha);
            let over = |v: &u16| {
                ((u64::from(*v) * alpha + 65_535 * (65_535 - alpha) + 32_767) / 65_535) as u16
            };
            color.iter().map(over).collect::<Vec<_>>()
        };
        let values: Vec<u16> = match (color.has_color(), color.has_alpha()) {
            (false, false) => image.into_luma16().into_raw(),
            (false, true) => {
                image.into_luma_alpha16().into_raw().chunks_exact(2).flat_map(over_white).collect()
            }
            (true, false) => image.into_rgb16().into_raw(),
            (true, true) => {
                image.into_rgba16().into_raw().chunks_exact(4).flat_map(over_white).collect()
            }
        };
        let dims = Dims::new(if color.has_color() { 3 } else { 1 }, h, w);
        let (dims, values) = gray_if_equal(dims, values);
        let pixels = values.into_iter().flat_map(u16::to_le_bytes).collect();
        Self { dims, sample: SampleType::U16, pixels, frames }
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
