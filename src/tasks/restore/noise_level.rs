//! Noise level estimation: the standard deviation of white Gaussian noise in an image, by a
//! combination of two published methods.
//!
//! The first is by Chen, Zhu & Heng ("An Efficient Statistical Method for Image Noise Level
//! Estimation", ICCV 2015). Patches of a noise-free image lie near a subspace. So the smallest
//! eigenvalues of the covariance of noisy patches scatter evenly around the noise variance. The
//! largest eigenvalues are removed one by one until the mean of the rest equals their median; that
//! mean is the variance. Patches have 8×8 pixels. A colour patch is one vector of all three
//! channels, so that the estimate assumes equal noise in all channels.
//!
//! For gray images that estimate is too high, by 2 at σ = 5, since their texture fills all
//! dimensions. So the estimate is repeated on weakly textured patches, selected as by Liu, Tanaka &
//! Okutomi ("Single-Image Noise Level Estimation for Blind Denoising", TIP 2013): patches whose
//! gradients are below the level that pure noise of the current estimate stays below with a
//! probability of 1 − 10⁻⁶.
//!
//! The method assumes noise that is white, additive and not clipped. If noise in dark or bright
//! areas was clipped, the estimate is somewhat too low.

use std::ops::Range;

use rayon::prelude::*;

use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::shape::{Dims, Size};

/// Side of a patch in pixels.
const PATCH: usize = 8;
/// Maximum number of pixel values in all patches, which bounds the time: 65,536 gray or 21,845
/// colour patches. Larger images use patches further apart.
const MAX_VALUES: usize = 1 << 22;
/// Maximum side of the part that [`estimate_middle`] uses. Four megapixels have far more patches
/// than [`MAX_VALUES`] allows, so that a larger part would not change much.
const MIDDLE: usize = 2048;
/// How often the selection of weakly textured patches is repeated with the new estimate.
const ITERATIONS: usize = 3;
/// Rows of patches whose products are summed together. It is fixed, so that rounding does not
/// depend on the number of threads.
const ROWS_AT_ONCE: usize = 8;

/// Estimates the standard deviation of the noise, on the 0–255 scale, of an image (H,W,C; 0…1) with
/// 1 or 3 channels. A colour image with equal channels is treated as gray.
///
/// # Errors
/// When the image has fewer patches than a patch has values, which are too few for a covariance.
pub fn estimate(pixels: &[f32], dims: Dims) -> Result<f64> {
    let Dims { c, h, w } = dims;
    assert!(pixels.len() == dims.len() && (c == 1 || c == 3), "an image of {dims:?}");
    if c == 3 && pixels.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]) {
        let gray: Vec<f32> = pixels.iter().step_by(3).copied().collect();
        return estimate(&gray, Dims { c: 1, ..dims });
    }
    let places =
        |side: usize, step: usize| if side < PATCH { 0 } else { (side - PATCH) / step + 1 };
    let count = |step: usize| places(h, step) * places(w, step);
    let d = PATCH * PATCH * c;
    if count(1) < d {
        return Err(Error::usage(format!(
            "an image of {w}x{h} pixels is too small for estimating its noise; {}",
            Advice::NoiseLevel
        )));
    }
    let step = (1..).find(|step| count(*step) * d <= MAX_VALUES).unwrap_or(1);
    let grid = Grid { w, c, rows: places(h, step), columns: places(w, step), step };
    let variance = |below: f64| -> Option<f64> {
        let (covariance, n) = grid.covariance(pixels, below);
        // With fewer patches the eigenvalues scatter too widely.
        (n >= 2 * d || below == f64::INFINITY).then(|| {
            let mut values = eigenvalues(covariance, d);
            values.sort_by(f64::total_cmp);
            noise_variance(&values).max(0.0)
        })
    };
    let mut found = variance(f64::INFINITY).expect("all patches count");
    for _ in 0..ITERATIONS {
        let Some(next) = variance(found * weak_texture(c)) else { break };
        found = next;
    }
    Ok(255.0 * found.sqrt())
}

/// Estimates the noise as [`estimate`] does, from the centre of an image: at most 2048×2048 pixels.
/// `read(y, columns, row)` appends the given columns of row y (W,C; 0…1) to `row`.
///
/// # Errors
/// As [`estimate`].
pub fn estimate_middle(
    dims: Dims,
    read: impl Fn(usize, Range<usize>, &mut Vec<f32>),
) -> Result<f64> {
    let middle = Dims::of(dims.size().at_most(Size::new(MIDDLE, MIDDLE)), dims.c);
    let (top, left) = ((dims.h - middle.h) / 2, (dims.w - middle.w) / 2);
    let mut pixels = Vec::with_capacity(middle.len());
    (top..top + middle.h).for_each(|y| read(y, left..left + middle.w, &mut pixels));
    estimate(&pixels, middle)
}

/// The sum of squared gradients that a patch of noise with variance 1 stays below with a
/// probability of 1 − 10⁻⁶: a quantile of the gamma distribution (Liu et al., equation 15), by the
/// Wilson–Hilferty approximation.
fn weak_texture(c: usize) -> f64 {
    /// Quantile of the normal distribution at 1 − 10⁻⁶.
    const Z: f64 = 4.753_424;
    // A patch has 8·6 central differences (½, −½) in each direction. They are blind to the 4
    // dimensions that alternate between even and odd positions.
    let mean = (2 * PATCH * (PATCH - 2) * c) as f64 * 0.5;
    let k = ((PATCH * PATCH - 4) * c) as f64 / 2.0;
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

/// The positions of patches in an image.
#[derive(Clone, Copy)]
struct Grid {
    w: usize,
    c: usize,
    rows: usize,
    columns: usize,
    step: usize,
}

/// Sums over patches: their number, the values, and the products of two values (lower triangle).
type PatchSums = (usize, Vec<f64>, Vec<f64>);

impl Grid {
    /// Sums over the patches in a range of rows whose texture is below a bound.
    fn sums(&self, pixels: &[f32], rows: std::ops::Range<usize>, below: f64) -> PatchSums {
        let Self { w, c, columns, step, .. } = *self;
        let d = PATCH * PATCH * c;
        let (mut n, mut sum, mut square, mut patch) =
            (0, vec![0.0_f64; d], vec![0.0_f64; d * d], Vec::with_capacity(d));
        for (row, column) in
            rows.flat_map(|row| (0..columns).map(move |column| (row * step, column * step)))
        {
            patch.clear();
            for y in row..row + PATCH {
                // Centred on the middle of the scale, so that subtracting the mean later cancels
                // fewer digits.
                patch.extend(
                    pixels[(y * w + column) * c..][..PATCH * c].iter().map(|&v| f64::from(v) - 0.5),
                );
            }
            if below < f64::INFINITY && texture(&patch, c) >= below {
                continue;
            }
            n += 1;
            for (i, &a) in patch.iter().enumerate() {
                sum[i] += a;
                square[i * d..][..=i].iter_mut().zip(&patch).for_each(|(s, b)| *s += a * b);
            }
        }
        (n, sum, square)
    }

    /// The covariance of the patches whose texture is below a bound, row by row, and their number.
    fn covariance(&self, pixels: &[f32], below: f64) -> (Vec<f64>, usize) {
        let d = PATCH * PATCH * self.c;
        let starts: Vec<usize> = (0..self.rows).step_by(ROWS_AT_ONCE).collect();
        let (mut n, mut sum, mut square) = (0, vec![0.0; d], vec![0.0; d * d]);
        // 64 parts at a time bound the memory: a part of a colour image has 300 kB.
        for some in starts.chunks(64) {
            let part = |start: &usize| {
                self.sums(pixels, *start..self.rows.min(start + ROWS_AT_ONCE), below)
            };
            for (part_n, part_sum, part_square) in
                some.par_iter().map(part).collect::<Vec<PatchSums>>()
            {
                n += part_n;
                sum.iter_mut().zip(part_sum).for_each(|(a, b)| *a += b);
                square.iter_mut().zip(part_square).for_each(|(a, b)| *a += b);
            }
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

/// The sum of a patch's squared gradients, in both directions and all channels.
fn texture(patch: &[f64], c: usize) -> f64 {
    let row = PATCH * c;
    let square = |a: f64, b: f64| (0.5 * (a - b)).powi(2);
    let across = patch
        .chunks_exact(row)
        .map(|row| row.iter().zip(&row[2 * c..]).map(|(a, b)| square(*a, *b)).sum::<f64>());
    across.sum::<f64>()
        + patch.iter().zip(&patch[2 * row..]).map(|(a, b)| square(*a, *b)).sum::<f64>()
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
    use crate::raster::corrupt;

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
            let got = estimate(&noisy(&vec![0.5; dims.len()], sigma, 0), dims).unwrap();
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
                let own = estimate(clean, dims).unwrap();
                for sigma in if c == 1 { &[5.0, 15.0, 25.0, 50.0][..] } else { &[5.0, 25.0] } {
                    let sigma = *sigma;
                    let got = estimate(&noisy(clean, sigma, image), dims).unwrap();
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

    #[test]
    fn the_texture_bound_accepts_noise_and_rejects_edges() {
        let mut stream = corrupt::stream(1, "texture", 0);
        let patches: Vec<Vec<f64>> =
            (0..20_000).map(|_| (0..64).map(|_| f64::from(stream.normal())).collect()).collect();
        let mean =
            patches.iter().map(|patch| texture(patch, 1)).sum::<f64>() / patches.len() as f64;
        assert!((mean - 48.0).abs() < 0.5, "{mean}");
        // The formula assumes independent gradients. Neighbouring ones are correlated, so that some
        // patches in 100,000 exceed the bound.
        let above = patches.iter().filter(|patch| texture(patch, 1) >= weak_texture(1)).count();
        assert!(above <= 5, "{above}");
        let edge: Vec<f64> = patches[0]
            .iter()
            .enumerate()
            .map(|(i, v)| v + if i % 8 < 4 { 6.0 } else { 0.0 })
            .collect();
        assert!(texture(&edge, 1) > weak_texture(1));
    }

    #[test]
    fn equal_channels_are_gray_and_small_images_are_refused() {
        let gray = noisy(&vec![0.3; 64 * 64], 20.0, 1);
        let rgb: Vec<f32> = gray.iter().flat_map(|&v| [v; 3]).collect();
        let of = |pixels: &[f32], c: usize, h: usize, w: usize| estimate(pixels, Dims { c, h, w });
        assert_eq!(of(&gray, 1, 64, 64).unwrap(), of(&rgb, 3, 64, 64).unwrap());
        for (h, w) in [(1, 1), (7, 900), (14, 14)] {
            let message = of(&vec![0.0; h * w], 1, h, w).unwrap_err().to_string();
            assert!(message.contains("too small"), "{message}");
        }
        let small = of(&noisy(&[0.5; 32 * 32], 25.0, 0), 1, 32, 32).unwrap();
        assert!((small - 25.0).abs() < 5.0, "{small}");
        assert_eq!(of(&[0.5; 32 * 32], 1, 32, 32).unwrap(), 0.0);
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
                    estimate(&noisy(&clean, sigma, image), dims).unwrap() - sigma
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
