//! Noise level estimation: the standard deviation of white Gaussian noise in an image, by a
//! combination of two published methods.
//!
//! The first is by Chen, Zhu & Heng ("An Efficient Statistical Method for Image Noise Level
//! Estimation", ICCV 2015). Patches of a noise-free image lie near a subspace. So the smallest
//! eigenvalues of the covariance of noisy patches scatter evenly around the noise variance. The
//! largest eigenvalues are removed one by one until the mean of the rest equals their median; that
//! mean is the variance. Patches have 8×8 pixels.
//!
//! That estimate is too high, by 2 at σ = 5, since texture fills all dimensions. So it is repeated
//! on weakly textured patches, selected as by Liu, Tanaka & Okutomi ("Single-Image Noise Level
//! Estimation for Blind Denoising", TIP 2013): patches whose gradients are below the level that
//! pure noise of the current estimate stays below with a probability of 1 − 10⁻⁶.
//!
//! The noise of a colour image is estimated from its luma (Rec. 601), divided by the norm of luma's
//! weights: white noise of all channels keeps its σ. JPEG files store chroma with half of the
//! resolution, which removes most of its fine noise. What remains in a channel is the noise of the
//! luma, and as much of the chroma's as is found there. A model of colour images has to remove that
//! much. A gray model restores luma and chroma planes, each with its own level.
//!
//! The method assumes noise that is white, additive and not clipped. Patches of equal values, such
//! as the bars of a letterbox, do not count, nor those with many clipped values while there are
//! others.
//! If noise is white, an image of half the size has the same level. If that level is higher, then
//! fine noise was removed, by JPEG compression or demosaicing, or texture passes for noise. Which
//! of them it is cannot be told, so the lower level is used, and the higher one is reported.
//!
//! JPEG compression also changes the level of the luma by quantization. If the steps are known,
//! this is undone, or the estimate is doubtful ([`Quantization`]).
//!
//! White noise has the same variance in all directions of the space of patches, and texture has
//! less at high frequencies. So if the smallest eigenvalue is far below the estimate, though
//! quantization does not explain it, what was found is texture, grain or correlated noise. Which of
//! them cannot be told: the level is then 0, so that texture stays, and the one that was found is
//! reported.

use std::ops::Range;

use rayon::prelude::*;

use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::infer::conditions::{Condition, Strength};
use crate::linalg::eigenvalues::eigenvalues;
use crate::shape::{Dims, Size};
use crate::tasks::restore::quantization::Quantization;

/// Side of a patch in pixels.
const PATCH: usize = 8;
/// Number of values of a patch.
const VALUES: usize = PATCH * PATCH;
/// Maximum number of patches, which bounds the time. Larger images use patches further apart.
const MAX_PATCHES: usize = 1 << 16;
/// Maximum side of the part that [`estimate_middle`] uses. Four megapixels have far more patches
/// than [`MAX_PATCHES`] allows, so that a larger part would not change much.
const MIDDLE: usize = 2048;
/// How often the selection of weakly textured patches is repeated with the new estimate.
const ITERATIONS: usize = 3;
/// Patches whose products are summed together. It is fixed, so that rounding does not depend on the
/// number of threads.
const AT_ONCE: usize = 512;
/// The weights of luma and of the two chroma planes (Rec. 601).
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];
const CHROMA: [[f32; 3]; 2] = [[-0.168_736, -0.331_264, 0.5], [0.5, -0.418_688, -0.081_312]];

/// The estimated noise of an image. Standard deviations are on the 0–255 scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseLevel {
    /// Standard deviation before JPEG compression.
    pub sigma: f64,
    /// Standard deviation of the fine noise that remains in the luma.
    pub luma: f64,
    /// Standard deviation of white noise that is removed best from the chroma planes.
    pub chroma: f64,
    /// Standard deviation of the fine noise that remains in a channel.
    pub in_channel: f64,
    /// A higher level, if the estimate is doubtful: the noise can be as strong as this. Fine noise
    /// was removed, or texture passes for noise.
    pub at_most: Option<f64>,
}

impl NoiseLevel {
    /// White noise that is known to have this standard deviation.
    pub const fn white(sigma: f64) -> Self {
        Self { sigma, luma: sigma, chroma: sigma, in_channel: sigma, at_most: None }
    }

    /// The condition of a model that removes the noise. A colour image with weak noise is left as
    /// it is if the estimate is doubtful: luma has √3 times the contrast of a channel, and the
    /// model's error grows with it.
    pub fn condition(&self) -> Condition {
        let is_weak = Strength::noise(self.luma / 3_f64.sqrt()).kept > 0.5;
        let planes =
            if self.at_most.is_some() && is_weak { [0.0; 2] } else { [self.luma, self.chroma] };
        Condition::noise_in(self.in_channel, planes)
    }
}

/// Estimates the noise of an image (H,W,C; 0…1) with 1 or 3 channels. `quantization` is that of the
/// JPEG file that it was read from.
///
/// # Errors
/// When the image has fewer patches than a patch has values, which are too few for a covariance.
pub fn estimate(
    pixels: &[f32],
    dims: Dims,
    quantization: Option<&Quantization>,
) -> Result<NoiseLevel> {
    /// At half of the size the level of white noise is at most this much higher: by a factor, and
    /// by a difference.
    const WHITE: (f64, f64) = (1.15, 0.2);
    /// Below this level noise cannot be told from texture at half of the size.
    const TEXTURE: f64 = 3.0;
    /// Level for a model of noise that chroma with half of the resolution has: the best one is half
    /// to 0.7 of the noise before (`benches/results/2026-11-30-color.md`).
    const COARSE_CHROMA: f64 = 0.6;
    /// Smallest standard deviation in a direction, relative to the estimate, below which the
    /// estimate is doubtful, and below which it is of texture. White noise has 0.94 or more, and
    /// clean photographs whose texture passes for noise have 0.45 to 0.7.
    const DOUBTFUL: f64 = 0.9;
    const TEXTURE_SHARE: f64 = 0.75;

    let Dims { c, h, w } = dims;
    assert!(pixels.len() == dims.len() && (c == 1 || c == 3), "an image of {dims:?}");
    let plane = Plane::weighted(pixels, dims, LUMA);
    let Some(Found { sigma, least, .. }) = plane.sigma() else {
        return Err(Error::usage(format!(
            "an image of {w}x{h} pixels is too small for estimating its noise; {}",
            Advice::NoiseLevel
        )));
    };
    let half = plane.half().sigma().filter(|half| half.sigma >= TEXTURE && half.weak > 0.0);
    let above = WHITE.0 * sigma + WHITE.1;
    let mut at_most = half.map(|half| half.sigma).filter(|half| *half > above);
    let is_colour = c == 3 && !pixels.chunks_exact(3).all(has_equal_samples);
    // Of luma, which has a smaller scale than the plane.
    let norm = if is_colour { f64::from(norm(LUMA)) } else { 1.0 };
    let before = quantization.map(|quantization| quantization.undo(norm * sigma));
    if before == Some(None) && sigma >= TEXTURE {
        at_most = at_most.or(Some(above));
    }
    let kept = quantization.map_or(1.0, |quantization| {
        quantization.least_share(before.flatten().unwrap_or(norm * sigma))
    });
    if sigma >= TEXTURE && least < DOUBTFUL * kept {
        at_most = at_most.or(Some(above));
        if least < TEXTURE_SHARE * kept {
            let most = at_most.map(|most| most.max(sigma));
            return Ok(NoiseLevel { at_most: most, ..NoiseLevel::white(0.0) });
        }
    }

    let mut found = NoiseLevel { at_most, ..NoiseLevel::white(sigma) };
    if is_colour {
        let chroma = CHROMA.map(|weights| Plane::weighted(pixels, dims, weights));
        let square = |found: Found| found.sigma.min(sigma).powi(2);
        let mean = |found: [Option<Found>; 2]| found.into_iter().flatten().map(square).sum::<f64>();
        let fine = mean(chroma.each_ref().map(Plane::sigma)) / 2.0;
        let share = f64::from(LUMA.iter().map(|weight| weight * weight).sum::<f32>());
        found.in_channel = (share * sigma.powi(2) + (1.0 - share) * fine).sqrt();
        // Compression also quantizes what is left of the chroma's noise. The luma's tells more.
        let coarse = if quantization.is_some() {
            sigma
        } else {
            let halves = chroma.each_ref().map(|plane| {
                plane.half().sigma().filter(|half| half.sigma >= TEXTURE && half.weak > 0.0)
            });
            (mean(halves) / 2.0).sqrt()
        };
        found.chroma = fine.sqrt().max(COARSE_CHROMA * coarse);
    }
    found.sigma = before.flatten().map_or(sigma, |before| before / norm);
    Ok(found)
}

/// The norm of the weights of a plane.
fn norm(weights: [f32; 3]) -> f32 {
    weights.iter().map(|v| v * v).sum::<f32>().sqrt()
}

fn has_equal_samples(pixel: &[f32]) -> bool {
    pixel.iter().all(|v| *v == pixel[0])
}

/// Estimates the noise as [`estimate`] does, from the centre of an image: at most 2048×2048 pixels.
/// `read(y, columns, row)` appends the given columns of row y (W,C; 0…1) to `row`.
///
/// # Errors
/// As [`estimate`].
pub fn estimate_middle(
    dims: Dims,
    quantization: Option<&Quantization>,
    read: impl Fn(usize, Range<usize>, &mut Vec<f32>),
) -> Result<NoiseLevel> {
    let middle = Dims::of(dims.size().at_most(Size::new(MIDDLE, MIDDLE)), dims.c);
    let (top, left) = ((dims.h - middle.h) / 2, (dims.w - middle.w) / 2);
    let mut pixels = Vec::with_capacity(middle.len());
    (top..top + middle.h).for_each(|y| read(y, left..left + middle.w, &mut pixels));
    estimate(&pixels, middle, quantization)
}

/// The sum of squared gradients that a patch of noise with variance 1 stays below with a
/// probability of 1 − 10⁻⁶: a quantile of the gamma distribution (Liu et al., equation 15), by the
/// Wilson–Hilferty approximation.
fn weak_texture() -> f64 {
    /// Quantile of the normal distribution at 1 − 10⁻⁶.
    const Z: f64 = 4.753_424;
    // A patch has 8·6 central differences (½, −½) in each direction. They are blind to the 4
    // dimensions that alternate between even and odd positions.
    let mean = (2 * PATCH * (PATCH - 2)) as f64 * 0.5;
    let k = (VALUES - 4) as f64 / 2.0;
    mean * (1.0 - 1.0 / (9.0 * k) + Z / (3.0 * k.sqrt())).powi(3)
}

/// The mean of the smallest eigenvalues, with the largest number of them for which the mean is
/// their median. `values` are in ascending order.
fn noise_variance(values: &[f64]) -> f64 {
    for end in (1..values.len()).rev() {
        let rest = &values[..end];
        let mean = rest.iter().sum::<f64>() / end as f64;
        let below = rest.iter().filter(|v| **v < mean).count();
        let above = rest.iter().filter(|v| **v > mean).count();
        if below == above {
            return mean;
        }
    }
    values[0]
}

/// The estimate from a plane.
struct Found {
    /// Standard deviation on the 0–255 scale.
    sigma: f64,
    /// The smallest standard deviation in a direction, relative to `sigma`, less the scatter of as
    /// many patches of white noise: 1 for white noise.
    least: f64,
    /// Share of weakly textured patches, which the estimate is from. 0 if there were too few, so
    /// that it is from all patches.
    weak: f64,
}

/// An image with one channel.
struct Plane {
    size: Size,
    values: Vec<f32>,
    /// Share of the samples of each pixel that are clipped: at most one of 255 steps from an end of
    /// the scale.
    clipped: Vec<f32>,
}

impl Plane {
    /// The weighted sum of the channels of an image (H,W,C), scaled so that white noise keeps its
    /// standard deviation. Of a gray image, its one channel.
    fn weighted(pixels: &[f32], dims: Dims, weights: [f32; 3]) -> Self {
        let is_clipped = |v: &&f32| !(1.01 / 255.0..=253.99 / 255.0).contains(*v);
        let clipped =
            |pixel: &[f32]| pixel.iter().filter(is_clipped).count() as f32 / pixel.len() as f32;
        let each = pixels.chunks_exact(dims.c);
        let values = if each.clone().all(has_equal_samples) {
            each.clone().map(|pixel| pixel[0]).collect()
        } else {
            let norm = norm(weights);
            let sum = |pixel: &[f32]| pixel.iter().zip(weights).map(|(v, k)| v * k).sum::<f32>();
            each.clone().map(|pixel| sum(pixel) / norm).collect()
        };
        Self { size: dims.size(), values, clipped: each.map(clipped).collect() }
    }

    /// The plane at half of the size: the mean of 2×2 pixels, scaled so that white noise keeps its
    /// standard deviation.
    fn half(&self) -> Self {
        let size = Size::new(self.size.h / 2, self.size.w / 2);
        let each = |values: &[f32], factor: f32| {
            let at = |y: usize, x: usize| values[y * self.size.w + x];
            let four = |i: usize| {
                let (y, x) = (2 * (i / size.w), 2 * (i % size.w));
                factor * (at(y, x) + at(y, x + 1) + at(y + 1, x) + at(y + 1, x + 1))
            };
            (0..size.h * size.w).map(four).collect()
        };
        Self { size, values: each(&self.values, 0.5), clipped: each(&self.clipped, 0.25) }
    }

    /// The estimate. None if there are fewer patches than a patch has values.
    fn sigma(&self) -> Option<Found> {
        let patches = self.patches()?;
        let (covariance, _) = self.covariance(&patches, f64::INFINITY);
        let variance = |covariance| {
            let values = eigenvalues(covariance, VALUES);
            (noise_variance(&values).max(0.0), values[0].max(0.0))
        };
        let (mut found, mut least) = variance(covariance);
        let mut weak = 0;

        for _ in 0..ITERATIONS {
            let (covariance, n) = self.covariance(&patches, found * weak_texture());
            // With fewer patches the eigenvalues scatter too widely.
            if n < 2 * VALUES {
                break;
            }
            (found, least) = variance(covariance);
            weak = n;
        }
        // The smallest eigenvalue of n samples of white noise is near σ²·(1 − √(d/n))² (Marchenko &
        // Pastur 1967).
        let count = if weak > 0 { weak } else { patches.len().max(2 * VALUES) };
        let scatter = 1.0 - (VALUES as f64 / count as f64).sqrt();
        let least = if found > 0.0 { (least / found).sqrt() / scatter } else { 1.0 };
        let weak = weak as f64 / patches.len().max(1) as f64;
        Some(Found { sigma: 255.0 * found.sqrt(), least, weak })
    }

    /// The first pixels of the patches: those that vary, and of these the ones with few clipped
    /// samples if there are enough. None if the plane has fewer patches than a patch has values.
    fn patches(&self) -> Option<Vec<usize>> {
        /// Maximum shares of clipped samples, tried in turn.
        const CLIPPED: [f32; 2] = [0.1, 0.3];
        /// Number of patches that are enough.
        const ENOUGH: usize = 8 * VALUES;
        let Size { h, w } = self.size;
        let places =
            |side: usize, step: usize| if side < PATCH { 0 } else { (side - PATCH) / step + 1 };
        let count = |step: usize| places(h, step) * places(w, step);
        if count(1) < VALUES {
            return None;
        }
        let step = (1..).find(|step| count(*step) <= MAX_PATCHES).unwrap_or(1);
        let first = |i: usize| {
            let (row, column) = (i / places(w, step) * step, i % places(w, step) * step);
            row * w + column
        };
        let varying = |first: &usize| {
            let mut values = self.rows(&self.values, *first).flatten();
            let one = values.next();
            values.any(|v| Some(v) != one)
        };
        let varying: Vec<usize> =
            (0..count(step)).into_par_iter().map(first).filter(varying).collect();
        let share =
            |first: &usize| self.rows(&self.clipped, *first).flatten().sum::<f32>() / VALUES as f32;
        let shares: Vec<f32> = varying.par_iter().map(share).collect();
        for bound in CLIPPED {
            let kept = varying.iter().zip(&shares).filter(|(_, share)| **share <= bound);
            let kept: Vec<usize> = kept.map(|(first, _)| *first).collect();
            if kept.len() >= ENOUGH {
                return Some(kept);
            }
        }
        Some(varying)
    }

    /// The rows of the patch that begins at pixel `first`.
    fn rows<'a>(
        &self,
        values: &'a [f32],
        first: usize,
    ) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        let w = self.size.w;
        (0..PATCH).map(move |row| &values[first + row * w..][..PATCH])
    }

    /// Sums over the patches whose texture is below a bound.
    fn sums(&self, patches: &[usize], below: f64) -> PatchSums {
        let (mut n, mut sum, mut square, mut patch) =
            (0, vec![0.0_f64; VALUES], vec![0.0_f64; VALUES * VALUES], Vec::with_capacity(VALUES));
        for first in patches {
            patch.clear();
            // Centred on the middle of the scale, so that subtracting the mean later cancels fewer
            // digits.
            let rows = self.rows(&self.values, *first);
            patch.extend(rows.flatten().map(|&v| f64::from(v) - 0.5));
            if below < f64::INFINITY && texture(&patch) >= below {
                continue;
            }
            n += 1;
            for (i, &a) in patch.iter().enumerate() {
                sum[i] += a;
                square[i * VALUES..][..=i].iter_mut().zip(&patch).for_each(|(s, b)| *s += a * b);
            }
        }
        (n, sum, square)
    }

    /// The covariance of the patches whose texture is below a bound, row by row, and their number.
    fn covariance(&self, patches: &[usize], below: f64) -> (Vec<f64>, usize) {
        let d = VALUES;
        let (mut n, mut sum, mut square) = (0, vec![0.0; d], vec![0.0; d * d]);
        let parts: Vec<PatchSums> =
            patches.par_chunks(AT_ONCE).map(|part| self.sums(part, below)).collect();
        for (part_n, part_sum, part_square) in parts {
            n += part_n;
            sum.iter_mut().zip(part_sum).for_each(|(a, b)| *a += b);
            square.iter_mut().zip(part_square).for_each(|(a, b)| *a += b);
        }
        let count = n.max(1) as f64;
        for i in 0..d {
            for j in 0..=i {
                let value = square[i * d + j] / count - sum[i] / count * (sum[j] / count);
                (square[i * d + j], square[j * d + i]) = (value, value);
            }
        }
        (square, n)
    }
}

/// Sums over patches: their number, the values, and the products of two values (lower triangle).
type PatchSums = (usize, Vec<f64>, Vec<f64>);

/// The sum of a patch's squared gradients in both directions.
fn texture(patch: &[f64]) -> f64 {
    let square = |a: f64, b: f64| (0.5 * (a - b)).powi(2);
    let across = patch
        .chunks_exact(PATCH)
        .map(|row| row.iter().zip(&row[2..]).map(|(a, b)| square(*a, *b)).sum::<f64>());
    across.sum::<f64>()
        + patch.iter().zip(&patch[2 * PATCH..]).map(|(a, b)| square(*a, *b)).sum::<f64>()
}

#[cfg(test)]
#[path = "noise_level_tests.rs"]
mod tests;
