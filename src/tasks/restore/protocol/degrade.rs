//! Degraded test images, and the scores of restored ones.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::{Pixels, Protocol};
use crate::data::formats::decode::decode_file;
use crate::error::{Error, Result};
use crate::metrics::quality;
use crate::raster::color;
use crate::raster::corrupt;
use crate::raster::corrupt::{Mask, MaskKind};
use crate::raster::jpeg;
use crate::raster::resample::{imresize, quantise};
use crate::report::picture::Picture;
use crate::shape::{Dims, Size};

/// A degradation of clean images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Degradation {
    /// White Gaussian noise of this standard deviation on the 0–255 scale.
    Sigma(f64),
    /// Down-scaling by this factor.
    Scale(usize),
    /// Missing pixels, this share of all.
    Missing(f64),
    /// JPEG compression of this quality.
    Quality(u8),
}

impl fmt::Display for Degradation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sigma(sigma) => write!(f, "sigma {sigma}"),
            Self::Scale(scale) => write!(f, "x{scale}"),
            Self::Quality(quality) => write!(f, "quality {quality}"),
            Self::Missing(share) => write!(f, "{:.0} % missing", share * 100.0),
        }
    }
}

/// Reads a clean image of a protocol: in colour, gray, or for super-resolution the BT.601 luma
/// rounded to 8 bits.
///
/// # Errors
/// When the file cannot be decoded.
pub fn clean(protocol: Protocol, file: &Path) -> Result<Picture> {
    let decoded = decode_file(file).map_err(|error| error.at(file.display()))?;
    let pixels = protocol.row().pixels;
    let c = if pixels == Pixels::Colour { 3 } else { 1 };
    let dims = Dims { c, ..decoded.dims };
    let reals =
        |bytes: Vec<u8>| bytes.into_iter().map(|v| f32::from(v) / 255.0).collect::<Vec<f32>>();
    let pixels = match pixels {
        // A gray file is already luma: the published MATLAB scripts leave it unchanged.
        Pixels::Luma if decoded.dims.c == 3 => {
            let mut luma = color::luma(&reals(decoded.pixels), 3);
            quantise(&mut luma);
            luma
        }
        Pixels::Luma | Pixels::Gray | Pixels::Colour => reals(decoded.into_channels(c)),
    };
    Ok(Picture { dims, pixels })
}

/// A degraded image: the input of a restorer.
#[derive(Clone, Debug)]
pub struct Degraded {
    /// The degraded image. Noisy values can exceed the 0–1 scale. Missing pixels are 0. A
    /// down-scaled image is small, and the restorer must return it `scale` times as large.
    pub picture: Picture,
    /// The degradation.
    pub degradation: Degradation,
    /// Mask of missing pixels, if there are any.
    pub mask: Option<Mask>,
}

/// Degrades a clean image. `image`, its number in the test set, seeds its noise or mask.
/// Returns the reference for scoring, which is the clean image cropped to a multiple of the scale,
/// and the degraded image.
///
/// # Errors
/// When the image is smaller than the scale.
pub fn degrade(
    clean: &Picture,
    degradation: Degradation,
    seed: u64,
    image: usize,
) -> Result<(Picture, Degraded)> {
    let mut reference = clean.clone();
    let mut mask = None;
    let picture = match degradation {
        Degradation::Sigma(sigma) => {
            let mut noisy = clean.clone();
            corrupt::add_noise(
                &mut noisy.pixels,
                sigma,
                &mut corrupt::stream(seed, "noise", image),
            );
            noisy
        }
        Degradation::Quality(quality) => {
            let pixels = jpeg::compressed(&clean.pixels, clean.dims.size(), quality);
            Picture { dims: clean.dims, pixels }
        }
        Degradation::Missing(share) => {
            let missing = MaskKind::Pixels.draw(
                clean.dims.size(),
                share,
                &mut corrupt::stream(seed, "mask", image),
            );
            let mut holes = clean.clone();
            missing.apply(&mut holes.pixels, clean.dims.c, 0.0);
            mask = Some(missing);
            holes
        }
        Degradation::Scale(scale) => {
            let own = clean.dims.size();
            let size = own.map(|side| side / scale * scale);
            if size.area() == 0 {
                crate::bail_usage!("{own} pixels cannot be shrunk by {scale}; remove this image");
            }
            reference = crop(clean, 0, size);
            let (pixels, small) = imresize(&reference.pixels, reference.dims, 1.0 / scale as f64)?;
            Picture { dims: Dims::of(small, clean.dims.c), pixels }
        }
    };
    Ok((reference, Degraded { picture, degradation, mask }))
}

/// The part of a picture of `size` that begins in row and column `start`.
fn crop(picture: &Picture, start: usize, size: Size) -> Picture {
    let pixels = crate::raster::crop(&picture.pixels, picture.dims, (start, start), size);
    Picture { dims: Dims::of(size, picture.dims.c), pixels }
}

/// PSNR (dB) and SSIM of a result against its reference. The result is clipped to 0–1. For
/// super-resolution it is also rounded to 8 bits, and `scale` pixels at each border are ignored.
///
/// # Errors
/// When the result has another size than the reference, or is nothing but border.
pub fn score(
    reference: &Picture,
    restored: &Picture,
    degradation: Degradation,
) -> Result<(f64, f64)> {
    let (size, c) = (reference.dims.size(), reference.dims.c);
    if restored.dims != reference.dims {
        return Err(Error::failed(format!(
            "the result has {} pixels and {} channels instead of {size} and {c}; use a model for \
             this task and this scale",
            restored.dims.size(),
            restored.dims.c
        )));
    }
    let (mut a, mut b) = (reference.clone(), restored.clone());
    b.pixels.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
    if let Degradation::Quality(_) = degradation {
        quantise(&mut b.pixels);
    }
    if let Degradation::Scale(scale) = degradation {
        if size.h.min(size.w) <= 2 * scale {
            return Err(Error::usage(format!(
                "{size} pixels are nothing but border at x{scale}; remove this image"
            )));
        }
        quantise(&mut b.pixels);
        let inside = size.map(|side| side - 2 * scale);
        (a, b) = (crop(&a, scale, inside), crop(&b, scale, inside));
    }
    Ok((quality::psnr(&a.pixels, &b.pixels), quality::ssim(&a.pixels, &b.pixels, a.dims)))
}
