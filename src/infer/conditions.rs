//! Samples as a restorer is given them, made on the host: to validate on, and for pictures.
//! Training has the same done on its device ([`crate::train::step`]).

use crate::error::Result;
use crate::raster::corrupt;
use crate::raster::corrupt::Mask;
use crate::raster::fill::fill;
use crate::raster::resample::imresize;
use crate::spec::CorruptionSpec;

/// What a model is told of an image beside its pixels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// How strong the corruption is, for a model that knows the level: σ on the 0–1 scale, or
    /// [`CorruptionSpec::level_of_scale`].
    pub level: f64,
    /// Which pixels are missing, if some are.
    pub mask: Option<Mask>,
}

impl Condition {
    /// White Gaussian noise of this standard deviation on the 0–255 scale.
    pub fn noise(sigma: f64) -> Self {
        Self { level: sigma / 255.0, mask: None }
    }

    /// Missing pixels.
    pub const fn missing(mask: Mask) -> Self {
        Self { level: 0.0, mask: Some(mask) }
    }

    /// An image that was enlarged by this scale.
    pub fn enlarged(scale: usize) -> Self {
        Self { level: CorruptionSpec::level_of_scale(scale), mask: None }
    }
}

/// Does to image `number` (H,W,C; 0–1 scale) what a model is trained to undo, at the middle of the
/// ranges that are trained on, the kinds of masks and the scales in turn; sides are multiples of
/// every scale. Returns what the model is told.
///
/// # Errors
/// When the pixels cannot be resized.
pub fn degrade(
    spec: &CorruptionSpec,
    seed: u64,
    number: usize,
    (h, w, c): (usize, usize, usize),
    pixels: &mut [f32],
) -> Result<Condition> {
    let middle = |[low, high]: [f64; 2]| 0.5 * (low + high);
    if let Some(sigma) = spec.sigma.map(middle) {
        corrupt::add_noise(pixels, sigma, &mut corrupt::stream(seed, "validation", number));
        return Ok(Condition::noise(sigma));
    }
    if let Some(share) = spec.missing.map(middle) {
        let kind = spec.masks[number % spec.masks.len()];
        let mask = kind.draw(h, w, share, &mut corrupt::stream(seed, "validation", number));
        fill(pixels, c, &mask);
        return Ok(Condition::missing(mask));
    }
    if spec.scales.is_empty() {
        return Ok(Condition::default());
    }
    let scale = spec.scales[number % spec.scales.len()];
    let (small, small_h, small_w) = imresize(pixels, (h, w), c, 1.0 / scale as f64)?;
    pixels.copy_from_slice(&imresize(&small, (small_h, small_w), c, scale as f64)?.0);
    Ok(Condition::enlarged(scale))
}
