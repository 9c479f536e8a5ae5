//! TIFF files, also with 64-bit offsets (BigTIFF): the first image or another one, as gray, RGB or
//! either with alpha, in 8 bits, 16 bits or floats. Palettes, CMYK and YCbCr are converted to RGB.

use std::io::{Cursor, Seek, SeekFrom};
use std::path::Path;

use half::f16;
use image::metadata::Orientation;
use image::{DynamicImage, ImageBuffer};
use tiff::TiffError;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::{CompressionMethod, SampleFormat, Tag};

use super::decode::Raster;
use super::directory::{self, Directory};
use super::reader::Reader;
use super::tiff_zstd::{self, Pages};
use crate::data::exif;
use crate::data::metadata::Density;
use crate::data::numbers::Input;
use crate::error::{Error, Result};
use crate::sample_type::SampleType;
use crate::shape::Dims;

/// XMP metadata (Adobe's tag, not part of the specification).
const XMP: Tag = Tag::Unknown(700);
/// The version of DNG that a raw file conforms to.
const DNG_VERSION: u16 = 50706;
/// Maximum size of the values of a tag in bytes. The largest are tables of tiles and colour
/// profiles, of a few megabytes.
const MAX_TAG_BYTES: usize = 16 << 20;
/// Photometric interpretations (TIFF 6.0, section 8).
const BLACK_IS_ZERO: u16 = 1;
const PALETTE: u16 = 3;
/// Those of raw files (TIFF/EP, DNG).
const COLOR_FILTER_ARRAY: u16 = 32803;
const LINEAR_RAW: u16 = 34892;

/// What the samples of a pixel stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Color {
    Gray,
    GrayAlpha,
    /// Gray and a sample without a meaning, which is dropped.
    GrayExtra,
    Rgb,
    Rgba,
    Cmyk,
    YCbCr,
    /// Indices into a table of colours.
    Palette,
}

impl Color {
    /// Number of samples of a pixel in the file.
    const fn stored(self) -> usize {
        match self {
            Self::Gray | Self::Palette => 1,
            Self::GrayAlpha | Self::GrayExtra => 2,
            Self::Rgb | Self::YCbCr => 3,
            Self::Rgba | Self::Cmyk => 4,
        }
    }

    /// Number of samples of a decoded pixel.
    const fn decoded(self) -> usize {
        match self {
            Self::Gray | Self::GrayExtra => 1,
            Self::GrayAlpha => 2,
            Self::Rgb | Self::Cmyk | Self::YCbCr | Self::Palette => 3,
            Self::Rgba => 4,
        }
    }
}

/// An image of a TIFF file, before it is decoded.
pub(super) struct TiffFile<'a> {
    /// The decoder of arrays in TIFF files has the same type, so that it is compiled once.
    inner: Decoder<Box<dyn Input + 'a>>,
    /// Width and height.
    pub size: (u32, u32),
    color: Color,
    /// Bits of a sample in the file.
    bits: u8,
    is_float: bool,
    /// The resolution of the image.
    pub density: Option<Density>,
}

impl<'a> TiffFile<'a> {
    /// Reads the header of the image whose directory is at an offset, or of the first image.
    /// Decoding can take up to `max_bytes`.
    ///
    /// # Errors
    /// If the file is damaged, is the raw file of a camera, or is of a kind that is not supported.
    pub fn open(mut file: Reader<'a>, at: Option<u64>, max_bytes: u64) -> Result<Self> {
        let size = file.seek(SeekFrom::End(0)).map_err(|_| damaged())?;
        let first = Directory::first(&mut file).ok_or_else(damaged)?;
        let at = at.unwrap_or(first.start);
        let directory = first.at(&mut file, at).ok_or_else(damaged)?;
        if directory.contains(DNG_VERSION) || directory.is_preview(&mut file) {
            return Err(raw());
        }
        let density = exif::density_in(&directory, &mut file);
        let photometric = directory.photometric(&mut file);
        match photometric.map(|(value, _)| value) {
            Some(8..=10) => return Err(unsupported("the colour space L*a*b*")),
            Some(32844 | 32845) => return Err(unsupported("the colour space LogLuv")),
            Some(COLOR_FILTER_ARRAY | LINEAR_RAW) => return Err(raw()),
            _ => {}
        }
        // The decoder refuses palettes. It reads the indices as gray.
        let palette = photometric.filter(|(value, _)| *value == PALETTE);
        let mut file = tiff_zstd::unpack(file, Pages::At(at), max_bytes)?;
        // The decoder reads the first image.
        file.replace(directory.first_at(), &directory.offset(at));
        if let Some((_, at)) = palette {
            file.replace(at, &directory.short(BLACK_IS_ZERO));
        }
        let file: Box<dyn Input + 'a> = Box::new(file);
        let mut inner = Decoder::new(file).map_err(|e| undecodable(&e))?;
        let bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        let mut limits = Limits::default();
        limits.decoding_buffer_size = bytes;
        limits.intermediate_buffer_size = bytes;
        // The values of a tag are in the file. The decoder takes 32 bytes for each of them.
        limits.ifd_value_size = usize::try_from(size).unwrap_or(usize::MAX).min(MAX_TAG_BYTES);
        inner = inner.with_limits(limits);
        let size = inner.dimensions().map_err(|e| undecodable(&e))?;
        check_compression(&mut inner)?;
        let format = inner.find_tag_unsigned_vec::<u16>(Tag::SampleFormat).ok().flatten();
        let format = format.and_then(|all| all.first().copied()).unwrap_or(1);
        if matches!(format, 5 | 6) {
            return Err(unsupported("complex numbers"));
        }
        let is_float = SampleFormat::from_u16(format) == Some(SampleFormat::IEEEFP);
        let is_signed = SampleFormat::from_u16(format) == Some(SampleFormat::Int);
        let found = inner.colortype().map_err(|e| undecodable(&e))?;
        let bits = found.bit_depth();
        let color = match found {
            tiff::ColorType::Gray(_) if palette.is_some() => Color::Palette,
            tiff::ColorType::Gray(_) => Color::Gray,
            tiff::ColorType::Multiband { num_samples: 2, .. } => {
                let extra = inner.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).ok().flatten();
                let is_alpha = extra.is_some_and(|extra| matches!(extra[..], [1 | 2, ..]));
                if is_alpha { Color::GrayAlpha } else { Color::GrayExtra }
            }
            tiff::ColorType::Multiband { num_samples, .. } => {
                return Err(Error::usage(format!(
                    "has {num_samples} samples per pixel of unknown meaning; save it as RGB, or \
                     each of them as a gray image"
                )));
            }
            tiff::ColorType::RGB(_) => Color::Rgb,
            tiff::ColorType::RGBA(_) => Color::Rgba,
            tiff::ColorType::CMYK(_) => Color::Cmyk,
            tiff::ColorType::YCbCr(_) => Color::YCbCr,
            tiff::ColorType::Lab(_) => return Err(unsupported("the colour space L*a*b*")),
            other => return Err(unsupported(&format!("the colour type {other:?}"))),
        };
        let is_read = match (is_float, color) {
            (
                true,
                Color::Gray | Color::GrayAlpha | Color::GrayExtra | Color::Rgb | Color::Rgba,
            ) => {
                matches!(bits, 16 | 32 | 64)
            }
            (true, _) => false,
            (false, Color::Gray) => matches!(bits, 1 | 2 | 4 | 8 | 16),
            (false, Color::Palette) => matches!(bits, 1 | 2 | 4 | 8),
            (false, Color::YCbCr) => bits == 8,
            (false, _) => matches!(bits, 8 | 16),
        };
        if is_signed || (!is_read && !is_float && bits > 16) {
            let sign = if is_signed { "signed " } else { "" };
            return Err(Error::usage(format!(
                "has {sign}integers of {bits} bits, whose black and white are unknown; save it \
                 with 8 or 16 unsigned bits, or as floats from 0 to 1"
            )));
        }
        if !is_read {
            let kind = if is_float { "floats" } else { "integers" };
            return Err(unsupported(&format!("{kind} of {bits} bits in {color:?} pixels")));
        }
        Ok(Self { inner, size, color, bits, is_float, density })
    }

    /// Size of the decoded image in bytes, or of what is decoded first if that is larger.
    pub fn bytes(&self) -> u64 {
        let area = u64::from(self.size.0) * u64::from(self.size.1);
        let size = match (self.is_float, self.bits) {
            (true, _) => 4,
            (false, 16) => 2,
            (false, _) => 1,
        };
        let decoded = self.color.decoded() as u64 * size;
        let stored = self.color.stored() as u64 * u64::from(self.bits) / 8;
        area.saturating_mul(decoded.max(stored))
    }

    /// The type of the samples of the decoded image.
    pub const fn sample(&self) -> SampleType {
        match (self.is_float, self.bits) {
            (true, _) => SampleType::F32,
            (false, 16) => SampleType::U16,
            (false, _) => SampleType::U8,
        }
    }

    /// Whether the decoded image has colours.
    pub const fn has_color(&self) -> bool {
        self.color.decoded() > 2
    }

    /// The orientation by which the image is turned.
    pub fn orientation(&mut self) -> Option<Orientation> {
        let value = self.inner.find_tag_unsigned::<u8>(Tag::Orientation).ok().flatten()?;
        Orientation::from_exif(value)
    }

    /// The ICC profile.
    pub fn profile(&mut self) -> Option<Vec<u8>> {
        self.inner.get_tag_u8_vec(Tag::IccProfile).ok()
    }

    /// The XMP packet.
    pub fn xmp(&mut self) -> Option<Vec<u8>> {
        self.inner.get_tag(XMP).ok()?.into_u8_vec().ok()
    }

    /// Decodes the image.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn decode(mut self) -> Result<Raster> {
        let table = if self.color == Color::Palette {
            let table = self.inner.get_tag(Tag::ColorMap).and_then(|value| value.into_u16_vec());
            table.map_err(|e| undecodable(&e))?
        } else {
            Vec::new()
        };
        let mut buffer = DecodingResult::U8(Vec::new());
        let layout = self.inner.read_image_to_buffer(&mut buffer).map_err(|e| undecodable(&e))?;
        if buffer.as_buffer(0).as_bytes().len() < layout.complete_len {
            return Err(Error::usage("needs too much memory; shrink it"));
        }
        let planes = layout.planes;
        match buffer {
            DecodingResult::U8(v) if self.bits < 8 => {
                let v = unpack(&v, self.bits, self.size.0 as usize);
                let max = (1_u16 << self.bits) - 1;
                if self.color == Color::Palette {
                    return self.shallow(colours(&v, &table, self.bits)?);
                }
                self.shallow(v.iter().map(|v| (u16::from(*v) * 255 / max) as u8).collect())
            }
            DecodingResult::U8(v) => {
                let v = interleaved(v, planes, self.color.stored());
                match self.color {
                    Color::Palette => self.shallow(colours(&v, &table, self.bits)?),
                    Color::Cmyk => self.shallow(rgb_of_cmyk(&v)),
                    Color::YCbCr => self.shallow(rgb_of_ycbcr(&v)),
                    _ => self.shallow(v),
                }
            }
            DecodingResult::U16(v) => {
                let v = interleaved(v, planes, self.color.stored());
                if self.color == Color::Cmyk {
                    return self.deep(rgb_of_deep_cmyk(&v));
                }
                self.deep(v)
            }
            DecodingResult::F16(v) => Ok(self.floats(v, planes, f16::to_f32)),
            DecodingResult::F32(v) => Ok(self.floats(v, planes, |v: f32| v)),
            DecodingResult::F64(v) => Ok(self.floats(v, planes, |v: f64| v as f32)),
            _ => Err(damaged()),
        }
    }

    /// The image of floats.
    fn floats<T: Copy>(&self, values: Vec<T>, planes: usize, value: impl Fn(T) -> f32) -> Raster {
        let values = interleaved(values, planes, self.color.stored());
        let values: Vec<f32> = values.into_iter().map(value).collect();

        let values = self.without_extra(values);
        let (w, h) = (self.size.0 as usize, self.size.1 as usize);
        Raster::Floats(Dims::new(self.color.decoded(), h, w), values)
    }

    /// The image of samples with 8 bits.
    fn shallow(&self, samples: Vec<u8>) -> Result<Raster> {
        let (w, h) = self.size;
        let samples = self.without_extra(samples);
        let image = match self.color.decoded() {
            1 => ImageBuffer::from_raw(w, h, samples).map(DynamicImage::ImageLuma8),
            2 => ImageBuffer::from_raw(w, h, samples).map(DynamicImage::ImageLumaA8),
            3 => ImageBuffer::from_raw(w, h, samples).map(DynamicImage::ImageRgb8),
            _ => ImageBuffer::from_raw(w, h, samples).map(DynamicImage::ImageRgba8),
        };
        image.map(Raster::Integers).ok_or_else(damaged)
    }

    /// The image of samples with 16 bits.
    fn deep(&self, samples: Vec<u16>) -> Result<Raster> {
        let (w, h) = self.size;
        let samples = self.without_extra(samples);
        let image = match self.color.decoded() {
            1 => ImageBuffer::from_raw(w, h, samples).map(DynamicImage::ImageLuma16),
            2 => ImageBuffer::from_raw(w, h, samples).map(DynamicImage::ImageLumaA16),
            3 => ImageBuffer::from_raw(w, h, samples).map(DynamicImage::ImageRgb16),
            _ => ImageBuffer::from_raw(w, h, samples).map(DynamicImage::ImageRgba16),
        };
        image.map(Raster::Integers).ok_or_else(damaged)
    }

    /// The samples without those that have no meaning.
    fn without_extra<T: Copy>(&self, samples: Vec<T>) -> Vec<T> {
        if self.color == Color::GrayExtra {
            return samples.into_iter().step_by(2).collect();
        }
        samples
    }
}

/// The number of images in a file, without reduced copies and masks of others.
pub(super) fn count(bytes: &[u8]) -> Option<usize> {
    directory::pages(&mut Cursor::new(bytes)).map(|pages| pages.offsets.len())
}

/// The images in a file, without reduced copies and masks of others. A file that cannot be read has
/// none.
pub(super) fn pages(path: &Path) -> directory::Pages {
    let file = std::fs::File::open(path).map(std::io::BufReader::new);
    file.ok().and_then(|mut file| directory::pages(&mut file)).unwrap_or_default()
}

/// Whether a TIFF file has several images.
pub(super) fn has_pages(path: &Path) -> bool {
    pages(path).offsets.len() > 1
}

/// Refuses compression that the decoder does not have, and names it.
fn check_compression(inner: &mut Decoder<Box<dyn Input + '_>>) -> Result<()> {
    let value = inner.find_tag_unsigned::<u16>(Tag::Compression).ok().flatten().unwrap_or(1);
    let name = match CompressionMethod::from_u16_exhaustive(value) {
        CompressionMethod::None
        | CompressionMethod::LZW
        | CompressionMethod::PackBits
        | CompressionMethod::Deflate
        | CompressionMethod::OldDeflate
        | CompressionMethod::ModernJPEG
        | CompressionMethod::Fax4
        | CompressionMethod::WebP => return Ok(()),
        CompressionMethod::Huffman => "CCITT RLE".to_owned(),
        CompressionMethod::Fax3 => "CCITT Group 3".to_owned(),
        CompressionMethod::JPEG => "old-style JPEG".to_owned(),
        _ => match value {
            34712 => "JPEG 2000".to_owned(),
            34887 => "LERC".to_owned(),
            34925 => "LZMA".to_owned(),
            50002 => "JPEG XL".to_owned(),
            _ => format!("number {value}"),
        },
    };
    Err(Error::usage(format!(
        "the compression {name} of this TIFF file is not supported; save it with LZW or Deflate"
    )))
}

fn raw() -> Error {
    Error::usage(
        "is a raw file of a camera, or begins with a small preview; develop or convert it to a \
         TIFF or PNG file of the whole image",
    )
}

fn unsupported(what: &str) -> Error {
    Error::usage(format!("a TIFF file with {what} is not supported; save it as RGB or gray"))
}

fn damaged() -> Error {
    Error::usage("cannot be decoded (the TIFF file is damaged); save it again or remove it")
}

fn undecodable(error: &TiffError) -> Error {
    let detail = error.to_string();
    match error {
        TiffError::UnsupportedError(_) => unsupported(&format!("this content ({detail})")),
        TiffError::LimitsExceeded => Error::usage("needs too much memory; shrink it"),
        _ => Error::usage(format!("cannot be decoded ({detail}); save it again or remove it")),
    }
}

/// Joins separate planes to pixels. Planes after the first `samples` are dropped.
fn interleaved<T: Copy>(values: Vec<T>, planes: usize, samples: usize) -> Vec<T> {
    if planes <= 1 {
        return values;
    }
    let area = values.len() / planes;
    (0..area)
        .flat_map(|pixel| (0..samples).map(move |s| s * area + pixel))
        .map(|i| values[i])
        .collect()
}

/// The numbers of `bits` each that rows of whole bytes contain.
fn unpack(bytes: &[u8], bits: u8, width: usize) -> Vec<u8> {
    let bits = usize::from(bits);
    let value =
        |row: &[u8], x: usize| (row[x * bits / 8] >> (8 - bits - x * bits % 8)) & ((1 << bits) - 1);
    let rows = bytes.chunks_exact((width * bits).div_ceil(8));
    rows.flat_map(|row| (0..width).map(move |x| value(row, x))).collect()
}

/// The colours of indices. The table has all values of red, then of green and blue, in 16 bits.
fn colours(indices: &[u8], table: &[u16], bits: u8) -> Result<Vec<u8>> {
    let count = 1 << bits;
    if table.len() < 3 * count {
        return Err(damaged());
    }
    // Some programs write 8 bits.
    let shift = if table.iter().all(|value| *value < 256) { 0 } else { 8 };
    let value =
        |index: u8, channel: usize| (table[channel * count + usize::from(index)] >> shift) as u8;
    Ok(indices.iter().flat_map(|index| [0, 1, 2].map(|channel| value(*index, channel))).collect())
}

/// RGB of CMYK without a profile: each ink and black reduce the light in proportion.
fn rgb_of_cmyk(cmyk: &[u8]) -> Vec<u8> {
    let light =
        |ink: u8, black: u8| ((255.0 - f32::from(ink)) * (1.0 - f32::from(black) / 255.0)) as u8;
    cmyk.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|i| light(p[i], p[3]))).collect()
}

/// As [`rgb_of_cmyk`], with 16 bits.
fn rgb_of_deep_cmyk(cmyk: &[u16]) -> Vec<u16> {
    let light = |ink: u16, black: u16| {
        ((65535.0 - f32::from(ink)) * (1.0 - f32::from(black) / 65535.0)) as u16
    };
    cmyk.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|i| light(p[i], p[3]))).collect()
}

/// RGB of full-range YCbCr (ITU-T T.871, 7).
fn rgb_of_ycbcr(ycbcr: &[u8]) -> Vec<u8> {
    let convert = |p: &[u8]| {
        let [y, cb, cr] = [f32::from(p[0]), f32::from(p[1]) - 128.0, f32::from(p[2]) - 128.0];
        [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb]
            .map(|v| v.round() as u8)
    };
    ycbcr.chunks_exact(3).flat_map(convert).collect()
}

#[cfg(test)]
mod tests;
