//! Image quality metrics on the 0–1 scale: PSNR and SSIM, as scikit-image 0.26 defines them.
//!
//! They do not clip. A caller whose image can exceed 0–1 clips it first, as saving does.

use crate::shape::Dims;

/// Standard deviation of the Gaussian window of SSIM in pixels (Wang et al. 2004).
const SIGMA: f64 = 1.5;
/// The window is cut off at this many standard deviations, as in scikit-image: radius 5, 11×11
/// pixels.
const TRUNCATE: f64 = 3.5;
/// (K₁·data range)² with K₁ = 0.01 (Wang et al. 2004).
const C1: f64 = 0.01 * 0.01;
/// (K₂·data range)² with K₂ = 0.03 (Wang et al. 2004).
const C2: f64 = 0.03 * 0.03;

/// Mean squared error over all pixels and channels of two images of the same size.
pub fn mse(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "pictures of the same size");
    let square = |(&a, &b): (&f32, &f32)| (f64::from(a) - f64::from(b)).powi(2);
    a.iter().zip(b).map(square).sum::<f64>() / a.len() as f64
}

/// Peak signal-to-noise ratio in dB, like `peak_signal_noise_ratio(a, b, data_range=1)`:
/// −10·log₁₀ of the mean squared error. It is infinite for equal images.
pub fn psnr(a: &[f32], b: &[f32]) -> f64 {
    let error = mse(a, b);
    if error == 0.0 { f64::INFINITY } else { -10.0 * error.log10() }
}

/// Structural similarity of two images H,W,C (Wang, Bovik, Sheikh & Simoncelli, "Image Quality
/// Assessment: From Error Visibility to Structural Similarity", 2004), like
/// `structural_similarity(a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
/// data_range=1, channel_axis=-1)`. It is the mean over all channels and pixels, except for the
/// border that the window does not cover. Hence the boundary treatment has no effect.
///
/// scikit-image refuses images smaller than the 11×11 window. Here the window shrinks to the
/// largest odd side that fits, with the same σ.
pub fn ssim(a: &[f32], b: &[f32], dims: Dims) -> f64 {
    assert!(
        a.len() == dims.len() && b.len() == a.len() && !a.is_empty(),
        "two pictures of {dims:?}"
    );
    let radius = ((TRUNCATE * SIGMA + 0.5) as usize).min((dims.h.min(dims.w) - 1) / 2);
    let window = gaussian(radius);
    (0..dims.c).map(|channel| channel_ssim(a, b, dims, channel, &window)).sum::<f64>()
        / dims.c as f64
}

/// A Gaussian window of 2·radius + 1 weights that sum to 1.
fn gaussian(radius: usize) -> Vec<f64> {
    let weight = |i: usize| (-0.5 * ((i as f64 - radius as f64) / SIGMA).powi(2)).exp();
    let weights: Vec<f64> = (0..=2 * radius).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Number of filtered maps: a, b, a², b², ab.
const MOMENTS: usize = 5;

/// The mean SSIM of one channel. Each row is filtered horizontally once and kept in a ring buffer
/// of as many rows as the window has, so that memory grows only with the width.
fn channel_ssim(a: &[f32], b: &[f32], dims: Dims, channel: usize, window: &[f64]) -> f64 {
    let Dims { c, h, w } = dims;
    let size = window.len();
    let (rows, columns) = (h + 1 - size, w + 1 - size);
    let mut moments = vec![[0.0f64; MOMENTS]; w];
    let mut ring = vec![vec![[0.0f64; MOMENTS]; columns]; size];
    let mut filtered = vec![[0.0f64; MOMENTS]; columns];
    let mut sum = 0.0;
    for y in 0..h {
        let row = y * w * c..(y + 1) * w * c;
        let samples = |picture: &[f32]| -> Vec<f64> {
            picture[row.clone()].iter().skip(channel).step_by(c).map(|&v| f64::from(v)).collect()
        };
        for ((moment, a), b) in moments.iter_mut().zip(samples(a)).zip(samples(b)) {
            *moment = [a, b, a * a, b * b, a * b];
        }
        for (out, taps) in ring[y % size].iter_mut().zip(moments.windows(size)) {
            *out = [0.0; MOMENTS];
            add_weighted(out, taps.iter().zip(window));
        }
        if y + 1 < size {
            continue;
        }
        let top = y + 1 - size;
        filtered.fill([0.0; MOMENTS]);
        for (tap, &weight) in window.iter().enumerate() {
            for (out, moment) in filtered.iter_mut().zip(&ring[(top + tap) % size]) {
                add_weighted(out, [(moment, &weight)].into_iter());
            }
        }
        sum += filtered.iter().map(similarity).sum::<f64>();
    }
    sum / (rows * columns) as f64
}

/// Adds the weighted moments of `taps` to `out`.
fn add_weighted<'a>(
    out: &mut [f64; MOMENTS],
    taps: impl Iterator<Item = (&'a [f64; MOMENTS], &'a f64)>,
) {
    for (moment, weight) in taps {
        for (o, m) in out.iter_mut().zip(moment) {
            *o += weight * m;
        }
    }
}

/// SSIM at one pixel from the local means of a, b, a², b² and ab.
fn similarity(&[a, b, aa, bb, ab]: &[f64; MOMENTS]) -> f64 {
    let (var_a, var_b, covariance) = (aa - a * a, bb - b * b, ab - a * b);
    ((2.0 * a * b + C1) * (2.0 * covariance + C2)) / ((a * a + b * b + C1) * (var_a + var_b + C2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pattern with a little noise, by integer arithmetic. The Python function below is the same.
    fn picture(dims: Dims, k: u64) -> Vec<f32> {
        let sample = |i: usize| {
            let noise = ((i as u64 * 2_654_435_761 + k * 40_503) & 0xffff_ffff) >> 24;
            let (y, x) = ((i / dims.c / dims.w) as u64, (i / dims.c % dims.w) as u64);
            (((y * 7 + x * 3 + k * 11) % 200) as f32 + (noise % 56) as f32) / 255.0
        };
        (0..dims.len()).map(sample).collect()
    }

    /// The expected values are those of scikit-image 0.26.0 in float64, for `picture(…, 1)` against
    /// 0.75·`picture(…, 1)` + 0.25·`picture(…, 5)`, and against `picture(…, 9)`:
    ///
    /// ```python
    /// def picture(h, w, c, k):
    ///     i = np.arange(h * w * c, dtype=np.uint64)
    ///     noise = (i * np.uint64(2654435761) + np.uint64(k * 40503)) & np.uint64(0xffffffff)
    ///     noise = noise >> np.uint64(24)
    ///     y, x = np.divmod((i // np.uint64(c)).astype(int), w)
    ///     s = ((y * 7 + x * 3 + k * 11) % 200).astype(np.float32)
    ///     s += (noise % np.uint64(56)).astype(np.float32)
    ///     return (s / np.float32(255)).reshape(h, w, c)
    /// ```
    #[test]
    fn equals_scikit_image() {
        let cases = [
            (
                Dims::new(1, 28, 28),
                [21.743129374767605, 0.8493902354253412, 8.174702718037446, 0.24279152544902055],
            ),
            (
                Dims::new(1, 11, 11),
                [27.30294858206735, 0.991386643840866, 9.239509527433608, 0.7701089002886222],
            ),
            (
                Dims::new(3, 11, 17),
                [27.301169858421183, 0.9940711744536651, 9.069882713652916, 0.8013276795454614],
            ),
            (
                Dims::new(3, 40, 33),
                [22.521034397395248, 0.9022248217854303, 8.252920801331827, 0.3451224986002235],
            ),
            (
                Dims::new(1, 64, 100),
                [21.91854327215525, 0.8866525604837239, 8.211994546602417, 0.33470063415273316],
            ),
        ];
        for (dims, expected) in cases {
            let a = picture(dims, 1);
            let mixed: Vec<f32> =
                a.iter().zip(picture(dims, 5)).map(|(a, b)| 0.75 * a + 0.25 * b).collect();
            let other = picture(dims, 9);
            let got = [
                psnr(&a, &mixed),
                ssim(&a, &mixed, dims),
                psnr(&a, &other),
                ssim(&a, &other, dims),
            ];
            for (got, expected) in got.into_iter().zip(expected) {
                assert!(
                    (got - expected).abs() <= 1e-9 * expected,
                    "{dims}: {got} instead of {expected}"
                );
            }
        }
    }

    #[test]
    fn equal_images_have_the_highest_values() {
        let dims = Dims::new(3, 20, 20);
        let a = picture(dims, 1);
        assert_eq!(psnr(&a, &a), f64::INFINITY);
        assert!((ssim(&a, &a, dims) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn black_against_white_has_the_lowest_values() {
        assert_eq!(psnr(&[0.0; 4], &[1.0; 4]), 0.0);
        let black_white = ssim(&[0.0; 144], &[1.0; 144], Dims::new(1, 12, 12));
        assert!((black_white - C1 / (1.0 + C1)).abs() < 1e-12, "{black_white}");
    }

    #[test]
    fn images_smaller_than_the_window_have_a_smaller_window() {
        for (h, w) in [(1, 1), (1, 30), (2, 2), (8, 8), (10, 40)] {
            let dims = Dims::new(1, h, w);
            let (a, b) = (picture(dims, 1), picture(dims, 2));
            assert!((ssim(&a, &a, dims) - 1.0).abs() < 1e-12);
            let value = ssim(&a, &b, dims);
            assert!(value > -1.0 && value < 1.0, "{dims}: {value}");
        }
        // Expected: the same formula with scipy's gaussian_filter(truncate=2), which has radius 3,
        // without the border of 3 pixels.
        let dims = Dims::new(1, 8, 8);
        let value = ssim(&picture(dims, 1), &picture(dims, 9), dims);
        assert!((value - 0.7501951285148839).abs() < 1e-9, "{value}");
    }
}
