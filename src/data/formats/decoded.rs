//! Decoded images: with all bits, with the samples of their file, or as gray or RGB with 8 bits.

use image::metadata::Orientation;
use image::{DynamicImage, ImageBuffer};

use crate::data::encoding::Encoding;
use crate::data::metadata::Metadata;
use crate::data::normalization::check_finite;
use crate::error::{Error, Result};
use crate::sample_type::{SampleType, is_value};
use crate::shape::Dims;

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
    /// Refuses floats that are not finite.
    ///
    /// # Errors
    /// If there is one. The message has its position.
    pub fn refuse_nan(&self) -> Result<()> {
        if self.sample.is_integer() {
            return Ok(());
        }
        check_finite(&self.sample.values(&self.pixels), self.dims.c, self.dims.w)
    }

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
    /// Refuses floats that are not finite.
    ///
    /// # Errors
    /// If there is one. The message has its position.
    pub fn refuse_nan(&self) -> Result<()> {
        let Self::Floats(dims, values) = self else { return Ok(()) };
        let Some(index) = values.iter().position(|value| !is_value(*value)) else { return Ok(()) };
        let pixel = index / dims.c;
        Err(Error::usage(format!(
            "the value at row {}, column {} is {:?}; remove or replace it",
            pixel / dims.w,
            pixel % dims.w,
            values[index]
        )))
    }

    /// Integers; floats in 0…1 or 0…255, which the largest value decides, become 16 bits.
    ///
    /// # Errors
    /// If a float is outside, or not finite.
    pub fn into_integers(self) -> Result<DynamicImage> {
        self.refuse_nan()?;

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

    /// Turns the image.
    pub(super) fn apply_orientation(&mut self, orientation: Orientation) {
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
    /// The quantization steps of the luma of a JPEG file ([`super::jpeg::luma_steps`]).
    pub luma_steps: Option<[u16; 64]>,
}

impl Lossless {
    /// A single image that is no JPEG.
    pub const fn of(image: Raster, metadata: Metadata) -> Self {
        Self { image, metadata, frames: 1, is_jpeg: false, luma_steps: None }
    }
}

/// Reduces an image to 8 bits, composes alpha over white, and makes it gray if red, green and blue
/// are equal in every pixel.
pub(super) fn reduce(lossless: Lossless) -> Result<Decoded> {
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
