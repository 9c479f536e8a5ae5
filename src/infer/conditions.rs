//! Degraded samples and their conditions, made on the host for validation and pictures. Training
//! degrades on its device instead (`train/step`).

use crate::error::Result;
use crate::raster::corrupt;
use crate::raster::corrupt::Mask;
use crate::raster::fill::fill;
use crate::raster::jpeg;
use crate::raster::resample::imresize;
use crate::shape::Dims;
use crate::spec::CorruptionSpec;

/// Noise between these standard deviations, on the 0–255 scale, is removed only in part. A model
/// itself errs by about 2: the bundled one reaches 42 dB without noise. Weaker noise is less than
/// that error.
pub const WEAK_NOISE: [f64; 2] = [1.5, 4.0];

/// The strength of a corruption.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Strength {
    /// Corruption level, for a model that is conditioned on it: σ on the 0–1 scale, or
    /// [`CorruptionSpec::level_of_scale`].
    pub level: f64,
    /// Share of the input in the result of a model that is conditioned on the level.
    pub kept: f64,
}

impl Strength {
    /// White Gaussian noise with this standard deviation on the 0–255 scale. Below 4 a part of the
    /// noisy image is kept, from 1.5 down all of it.
    pub fn noise(sigma: f64) -> Self {
        let [weak, strong] = WEAK_NOISE;
        let removed = ((sigma - weak) / (strong - weak)).clamp(0.0, 1.0);
        Self { level: sigma / 255.0, kept: 1.0 - removed.powi(2) }
    }
}

/// What a restoration model is conditioned on besides the pixels of an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// The strength of the corruption in each channel.
    pub strength: Strength,
    /// The strength of noise in the luma and in the chroma planes of a colour image, if it is not
    /// that of each channel ([`crate::infer::planes`]).
    pub planes: Option<[Strength; 2]>,
    /// Mask of missing pixels, if there are any.
    pub mask: Option<Mask>,
    /// Mean of each channel of the whole image, for a sample that is a tile of it.
    pub mean: Option<Vec<f32>>,
}

impl Condition {
    /// Condition for white Gaussian noise with this standard deviation on the 0–255 scale, alike in
    /// all channels ([`Strength::noise`]).
    pub fn noise(sigma: f64) -> Self {
        Self { strength: Strength::noise(sigma), ..Self::default() }
    }

    /// Condition for noise with these standard deviations in a channel, and in the luma and the
    /// chroma planes.
    pub fn noise_in(channel: f64, planes: [f64; 2]) -> Self {
        Self { planes: Some(planes.map(Strength::noise)), ..Self::noise(channel) }
    }

    /// Condition for missing pixels.
    pub fn missing(mask: Mask) -> Self {
        Self { mask: Some(mask), ..Self::default() }
    }

    /// Condition for JPEG compression with this level ([`jpeg::level`]) of luma. Chroma is kept.
    pub fn compressed(level: f64) -> Self {
        let (luma, chroma) = (Strength { level, kept: 0.0 }, Strength { level, kept: 1.0 });
        Self { strength: luma, planes: Some([luma, chroma]), ..Self::default() }
    }

    /// Condition for an image that was enlarged by this scale.
    pub fn enlarged(scale: usize) -> Self {
        let strength = Strength { level: CorruptionSpec::level_of_scale(scale), kept: 0.0 };
        Self { strength, ..Self::default() }
    }
}

/// Degrades an image (H,W,C; 0–1 scale) in place and returns the condition for the model.
///
/// Noise and missing shares are the middle of the range in `spec`. The image `number` chooses the
/// kind of mask and the scale in turn, and the random numbers. Sides must be multiples of every
/// scale.
///
/// # Errors
/// When the image cannot be resized.
pub fn degrade(
    spec: &CorruptionSpec,
    seed: u64,
    number: usize,
    dims: Dims,
    pixels: &mut [f32],
) -> Result<Condition> {
    let middle = |[low, high]: [f64; 2]| 0.5 * (low + high);
    if let Some(sigma) = spec.sigma.map(middle) {
        corrupt::add_noise(pixels, sigma, &mut corrupt::stream(seed, "validation", number));
        return Ok(Condition::noise(sigma));
    }
    if let Some(share) = spec.missing.map(middle) {
        let kind = spec.masks[number % spec.masks.len()];
        let mask = kind.draw(dims.size(), share, &mut corrupt::stream(seed, "validation", number));
        fill(pixels, dims.c, &mask);
        return Ok(Condition::missing(mask));
    }
    if let Some(quality) = spec.quality.map(middle) {
        let quality = quality.round() as u8;
        pixels.copy_from_slice(&jpeg::compressed(pixels, dims.size(), quality));
        return Ok(Condition::compressed(jpeg::level_of_quality(quality)));
    }
    if spec.scales.is_empty() {
        return Ok(Condition::default());
    }
    let scale = spec.scales[number % spec.scales.len()];
    let (small, size) = imresize(pixels, dims, 1.0 / scale as f64)?;
    pixels.copy_from_slice(&imresize(&small, Dims::of(size, dims.c), scale as f64)?.0);
    Ok(Condition::enlarged(scale))
}
