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

use std::ops::Range;

use rayon::prelude::*;

use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::infer::conditions::Condition;
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

    /// The condition of a model that removes the noise.
    pub fn condition(&self) -> Condition {
        Condition::noise_in(self.in_channel, [self.luma, self.chroma])
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
    let Dims { c, h, w } = dims;
    assert!(pixels.len() == dims.len() && (c == 1 || c == 3), "an image of {dims:?}");
    let plane = Plane::weighted(pixels, dims, LUMA);
    let Some(Found { sigma, .. }) = plane.sigma() else {
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
            let mut values = eigenvalues(covariance, VALUES);
            values.sort_by(f64::total_cmp);
            noise_variance(&values).max(0.0)
        };
        let mut found = variance(covariance);
        let mut weak = 0;
        for _ in 0..ITERATIONS {
            let (covariance, n) = self.covariance(&patches, found * weak_texture());
            // With fewer patches the eigenvalues scatter too widely.
            if n < 2 * VALUES {
                break;
            }
            (found, weak) = (variance(covariance), n);
        }
        Some(Found { sigma: 255.0 * found.sqrt(), weak: weak as f64 / patches.len().max(1) as f64 })
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

/// The eigenvalues of a symmetric matrix (d×d), unordered, by Jacobi's method with cyclic rotations
/// (Golub & Van Loan, "Matrix Computations", 8.5).
fn eigenvalues(mut a: Vec<f64>, d: usize) -> Vec<f64> {
    /// A guard: the method always converges, typically in ten sweeps.
    const MAX_SWEEPS: usize = 50;
    let scale = a.iter().map(|v| v * v).sum::<f64>();
    for _ in 0..MAX_SWEEPS {
        let off: f64 = (0..d).flat_map(|i| a[i * d..i * d + i].iter()).map(|v| v * v).sum();
        if off <= 1e-26 * scale {
            break;
        }
        for p in 0..d {
            for q in p + 1..d {
                rotate(&mut a, d, p, q);
            }
        }
    }
    (0..d).map(|i| a[i * d + i]).collect()
}

/// Rotates rows and columns p < q so that element (p, q) becomes 0.
fn rotate(a: &mut [f64], d: usize, p: usize, q: usize) {
    let apq = a[p * d + q];
    if apq == 0.0 {
        return;
    }
    let (app, aqq) = (a[p * d + p], a[q * d + q]);
    let theta = (aqq - app) / (2.0 * apq);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let cos = 1.0 / t.hypot(1.0);
    let sin = t * cos;
    let (head, tail) = a.split_at_mut(q * d);
    for (x, y) in head[p * d..p * d + d].iter_mut().zip(&mut tail[..d]) {
        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
    }
    a[p * d + p] = app - t * apq;
    a[q * d + q] = aqq + t * apq;
    (a[p * d + q], a[q * d + p]) = (0.0, 0.0);
    for i in (0..d).filter(|i| *i != p && *i != q) {
        a[i * d + p] = a[p * d + i];
        a[i * d + q] = a[q * d + i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::bundled;
    use crate::data::formats::decode::decode_file;
    use crate::data::image_file::{Depth, ImageFile};
    use crate::infer::conditions::Strength;
    use crate::raster::{color, corrupt};
    use crate::testing::Folder;

    fn noisy(clean: &[f32], sigma: f64, image: usize) -> Vec<f32> {
        let mut pixels = clean.to_vec();
        corrupt::add_noise(&mut pixels, sigma, &mut corrupt::stream(7, "noise", image));
        pixels
    }

    #[test]
    fn eigenvalues_of_known_matrices() {
        // The second-difference matrix has eigenvalues 2 − 2·cos(kπ/(d + 1)).
        let d = 20_usize;
        let matrix = (0..d * d).map(|i| [2.0, -1.0, 0.0][(i / d).abs_diff(i % d).min(2)]).collect();
        let mut values = eigenvalues(matrix, d);
        values.sort_by(f64::total_cmp);
        for (k, value) in values.iter().enumerate() {
            let expected =
                2.0 - 2.0 * ((k + 1) as f64 * std::f64::consts::PI / (d + 1) as f64).cos();
            assert!((value - expected).abs() < 1e-12, "{value} {expected}");
        }
        // A matrix of ones has eigenvalue d once and 0 otherwise. Its equal diagonal elements need
        // rotations by 45 degrees.
        let mut values = eigenvalues(vec![1.0; 36], 6);
        values.sort_by(f64::total_cmp);
        assert!(
            (values[5] - 6.0).abs() < 1e-12 && values[..5].iter().all(|v| v.abs() < 1e-12),
            "{values:?}"
        );
    }

    #[test]
    fn eigenvalues_of_the_image_are_removed() {
        // Four noise eigenvalues around 1 and two of the image. With those of the image the mean is
        // far above the median.
        assert_eq!(noise_variance(&[0.9, 0.95, 1.05, 1.1, 7.0, 90.0]), 1.0);
        assert_eq!(noise_variance(&[2.0]), 2.0);
    }

    #[test]
    fn pure_noise_is_estimated_within_two_percent() {
        for (c, sigma) in [(1, 10.0), (3, 40.0)] {
            let dims = Dims::new(c, 200, 150);
            let NoiseLevel { sigma: got, at_most, .. } =
                estimate(&noisy(&vec![0.5; dims.len()], sigma, 0), dims, None).unwrap();
            assert_eq!(at_most, None);
            assert!((got / sigma - 1.0).abs() < 0.02, "{got} instead of {sigma}");
        }
    }

    /// Photographs have noise of their own, whose variance adds to that of the test. The estimate
    /// can exceed σ by that, and must otherwise be within 5 %.
    #[test]
    fn photographs() {
        let photos = bundled::load("photos").unwrap();
        for image in 0..photos.len() {
            let size = photos.table[image].size;
            let rgb = photos.image_f32(image);
            let green: Vec<f32> = rgb.iter().skip(1).step_by(3).copied().collect();
            // Two of the four photographs are gray.
            let is_gray = rgb.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]);
            for (clean, c) in
                [(&rgb, 3), (&green, 1)].into_iter().filter(|(_, c)| *c == 1 || !is_gray)
            {
                let dims = Dims::of(size, c);
                let own = estimate(clean, dims, None).unwrap().sigma;
                for sigma in if c == 1 { &[5.0, 15.0, 25.0, 50.0][..] } else { &[5.0, 25.0] } {
                    let sigma = *sigma;
                    let got = estimate(&noisy(clean, sigma, image), dims, None).unwrap().sigma;
                    println!("{} c={c} own {own:.2}: {sigma} -> {got:.2}", photos.names[image]);
                    let bound = 0.05 * sigma + 0.3 + (sigma.hypot(own) - sigma);
                    assert!(
                        (got - sigma).abs() <= bound,
                        "{}: {got} instead of {sigma}, own {own}",
                        photos.names[image]
                    );
                }
                assert!(own < 4.0, "{}: {own}", photos.names[image]);
            }
        }
    }

    /// A noisy colour photograph, its size, and the noise.
    fn colour(sigma: f64) -> (Vec<f32>, Dims) {
        let photos = bundled::load("photos").unwrap();
        let image = photos.names.iter().position(|name| name == "astronaut.webp").unwrap();
        let dims = Dims::of(photos.table[image].size, 3);
        let mut pixels = noisy(&photos.image_f32(image), sigma, 3);
        pixels.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
        (pixels, dims)
    }

    /// The same with chroma at half of the resolution, as in most JPEG files.
    fn with_coarse_chroma(pixels: &[f32], dims: Dims) -> Vec<f32> {
        let mut ycbcr = color::rgb_to_ycbcr(pixels);
        for (y, x) in (0..dims.h / 2).flat_map(|y| (0..dims.w / 2).map(move |x| (2 * y, 2 * x))) {
            for channel in 1..3 {
                let places = [(y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1)];
                let places = places.map(|(y, x)| 3 * (y * dims.w + x) + channel);
                let mean = places.iter().map(|at| ycbcr[*at]).sum::<f32>() / 4.0;
                places.iter().for_each(|at| ycbcr[*at] = mean);
            }
        }
        color::ycbcr_to_rgb(&ycbcr)
    }

    #[test]
    fn coarse_chroma_does_not_hide_the_noise() {
        for sigma in [15.0, 25.0, 50.0] {
            let (pixels, dims) = colour(sigma);
            let white = estimate(&pixels, dims, None).unwrap();
            assert!((white.in_channel / white.sigma - 1.0).abs() < 0.1, "{white:?}");
            let found = estimate(&with_coarse_chroma(&pixels, dims), dims, None).unwrap();
            assert!((found.sigma / sigma - 1.0).abs() < 0.15, "{found:?} instead of {sigma}");
            let share = found.in_channel / sigma;
            assert!((0.6..0.8).contains(&share), "{found:?}");
            // Chroma has noise of half the resolution, whose best level is half to 0.7 of this.
            assert!((white.chroma / sigma - 1.0).abs() < 0.15, "{white:?}");
            assert!((0.5..0.7).contains(&(found.chroma / sigma)), "{found:?}");
            assert_eq!(found.condition().planes.unwrap()[1], Strength::noise(found.chroma));
        }
    }

    #[test]
    fn bars_and_black_halves_do_not_count() {
        let (pixels, dims) = colour(25.0);
        // Black bars are clipped; gray ones only do not vary.
        let letterbox = |v: f32| {
            let bar = vec![v; 3 * dims.w * 80];
            [&bar[..], &pixels, &bar].concat()
        };
        let tall = Dims { h: dims.h + 160, ..dims };
        let mut black = pixels.clone();
        let half = |row: &mut [f32]| row[..3 * (dims.w / 2)].fill(0.0);
        black.chunks_exact_mut(3 * dims.w).for_each(half);
        for (pixels, dims) in [(letterbox(0.0), tall), (letterbox(0.5), tall), (black, dims)] {
            let found = estimate(&pixels, dims, None).unwrap();
            assert!((found.sigma / 25.0 - 1.0).abs() < 0.1, "{found:?}");
        }
    }

    #[test]
    fn noise_without_its_fine_part_is_doubtful() {
        let (pixels, dims) = colour(25.0);
        assert_eq!(estimate(&pixels, dims, None).unwrap().at_most, None);
        // The mean of each pixel and its right neighbour, and of these the mean with the lower one.
        let smooth = |pixels: &[f32], step: usize| -> Vec<f32> {
            let next = |i: usize| pixels[(i + step).min(pixels.len() - 1)];
            pixels.iter().enumerate().map(|(i, v)| 0.5 * (v + next(i))).collect()
        };
        let smoothed = smooth(&smooth(&pixels, 3), 3 * dims.w);
        let found = estimate(&smoothed, dims, None).unwrap();
        assert!(found.at_most.is_some_and(|most| most > 2.0 * found.sigma), "{found:?}");
    }

    /// The estimate of a JPEG file of noise, with and without the steps of the file.
    fn compressed(sigma: f64, quality: u8) -> [NoiseLevel; 2] {
        let (pixels, dims) = colour(sigma);
        let folder = Folder::new("noise-level");
        let path = folder.write("noisy.jpg", b"");
        let clean = ImageFile::from_pixels(&pixels, dims, Depth::Eight);
        clean.save_with(&path, quality).unwrap();
        let file = ImageFile::read(&path).unwrap();
        let quantization = Quantization::new(&file.luma_steps().unwrap());
        [Some(&quantization), None].map(|known| estimate(&file.pixels(), dims, known).unwrap())
    }

    #[test]
    fn quantization_is_undone_or_makes_the_estimate_doubtful() {
        for (sigma, quality) in [(15.0, 90), (25.0, 85), (25.0, 80), (8.0, 95)] {
            let [known, unknown] = compressed(sigma, quality);
            let share = known.sigma / sigma;
            assert!((0.9..1.1).contains(&share), "{sigma} {quality}: {known:?}");
            assert!(unknown.sigma > 1.02 * known.sigma, "{sigma} {quality}: {unknown:?}");
            assert_eq!(known.in_channel, unknown.in_channel);
            assert!(known.chroma >= 0.6 * known.luma, "{known:?}");
            assert_eq!(known.at_most, None);
        }
        let [known, unknown] = compressed(25.0, 50);
        assert!(known.at_most.is_some_and(|most| most > 1.1 * known.sigma), "{known:?}");
        assert_eq!(known.sigma, unknown.sigma);
        // An image without noise gives the same limit with and without a known table.
        let [known, unknown] = compressed(0.0, 75);
        assert_eq!(known.at_most, unknown.at_most);
    }

    #[test]
    fn the_texture_bound_accepts_noise_and_rejects_edges() {
        let mut stream = corrupt::stream(1, "texture", 0);
        let patches: Vec<Vec<f64>> =
            (0..20_000).map(|_| (0..64).map(|_| f64::from(stream.normal())).collect()).collect();
        let mean = patches.iter().map(|patch| texture(patch)).sum::<f64>() / patches.len() as f64;
        assert!((mean - 48.0).abs() < 0.5, "{mean}");
        // The formula assumes independent gradients. Neighbouring ones are correlated, so that some
        // patches in 100,000 exceed the bound.
        let above = patches.iter().filter(|patch| texture(patch) >= weak_texture()).count();
        assert!(above <= 5, "{above}");
        let edge: Vec<f64> = patches[0]
            .iter()
            .enumerate()
            .map(|(i, v)| v + if i % 8 < 4 { 6.0 } else { 0.0 })
            .collect();
        assert!(texture(&edge) > weak_texture());
    }

    #[test]
    fn equal_channels_are_gray_and_small_images_are_refused() {
        let gray = noisy(&vec![0.3; 64 * 64], 20.0, 1);
        let rgb: Vec<f32> = gray.iter().flat_map(|&v| [v; 3]).collect();
        let of =
            |pixels: &[f32], c: usize, h: usize, w: usize| estimate(pixels, Dims { c, h, w }, None);
        assert_eq!(of(&gray, 1, 64, 64).unwrap(), of(&rgb, 3, 64, 64).unwrap());
        for (h, w) in [(1, 1), (7, 900), (14, 14)] {
            let message = of(&vec![0.0; h * w], 1, h, w).unwrap_err().to_string();
            assert!(message.contains("too small"), "{message}");
        }
        let small = of(&noisy(&[0.5; 32 * 32], 25.0, 0), 1, 32, 32).unwrap();
        assert!((small.sigma - 25.0).abs() < 5.0, "{small:?}");
        let clean = NoiseLevel::white(0.0);
        assert_eq!(of(&[0.5; 32 * 32], 1, 32, 32).unwrap(), clean);
    }

    /// Mean absolute error of the estimate on the test sets of denoising.
    #[test]
    fn test_sets() {
        let Some(data) = std::env::var_os("CSAE_DATA").map(std::path::PathBuf::from) else {
            println!("skipped: CSAE_DATA names no folder of data sets");
            return;
        };
        for (set, bound) in [("set12", 0.05), ("bsd68", 0.05)] {
            let mut files: Vec<_> =
                std::fs::read_dir(data.join(set)).unwrap().map(|e| e.unwrap().path()).collect();
            files.retain(|path| path.extension().is_some_and(|e| e == "png"));
            files.sort();
            for sigma in [5.0, 15.0, 25.0, 50.0] {
                let error = |(image, path): (usize, &std::path::PathBuf)| {
                    let decoded = decode_file(path).unwrap();
                    let clean: Vec<f32> =
                        decoded.pixels.iter().map(|&v| f32::from(v) / 255.0).collect();
                    let dims = Dims { c: 1, ..decoded.dims };
                    estimate(&noisy(&clean, sigma, image), dims, None).unwrap().sigma - sigma
                };
                let errors: Vec<f64> =
                    files.par_iter().enumerate().map(|(i, path)| error((i, path))).collect();
                let mean =
                    |f: fn(&f64) -> f64| errors.iter().map(f).sum::<f64>() / errors.len() as f64;
                let (bias, mean_error, max_error) = (
                    mean(|e| *e),
                    mean(|e| e.abs()),
                    errors.iter().fold(0.0_f64, |m, e| m.max(e.abs())),
                );
                println!(
                    "{set} sigma {sigma}: bias {bias:+.2}, mean error {mean_error:.2}, \
                     maximum {max_error:.2}"
                );
                assert!(mean_error <= bound * sigma + 0.7, "{set} {sigma}: {mean_error}");
            }
        }
    }
}
