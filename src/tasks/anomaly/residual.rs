//! Per-pixel differences between an image and its reconstruction.

use crate::shape::{Dims, Size};

/// Standard deviation of SSIM's Gaussian window, as in [`crate::metrics::quality`].
const SIGMA: f64 = 1.5;
/// SSIM's constants (K₁·range)² and (K₂·range)², with K₁ = 0.01, K₂ = 0.03 and range 1.
const C: [f64; 2] = [0.01 * 0.01, 0.03 * 0.03];

/// Gaussian smoothing of a single-channel picture. The window ends at three standard deviations. At
/// the edges it is renormalised.
pub fn blur(picture: &[f32], size: Size, sigma: f64) -> Vec<f32> {
    if sigma <= 0.0 {
        return picture.to_vec();
    }
    let Size { h, w } = size;
    let radius = (3.0 * sigma).ceil() as usize;
    let taps: Vec<f64> = (0..=radius).map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp()).collect();
    let line = |read: &dyn Fn(usize) -> f64, n: usize, write: &mut dyn FnMut(usize, f64)| {
        for at in 0..n {
            let (mut sum, mut weights) = (0.0, 0.0);
            for from in at.saturating_sub(radius)..(at + radius + 1).min(n) {
                let tap = taps[from.abs_diff(at)];
                sum += tap * read(from);
                weights += tap;
            }
            write(at, sum / weights);
        }
    };
    let mut across = vec![0.0_f64; h * w];
    for y in 0..h {
        let row = &picture[y * w..(y + 1) * w];
        line(&|x| f64::from(row[x]), w, &mut |x, value| across[y * w + x] = value);
    }
    let mut out = vec![0.0_f32; h * w];
    for x in 0..w {
        line(&|y| across[y * w + x], h, &mut |y, value| out[y * w + x] = value as f32);
    }
    out
}

/// Squared error of each pixel, averaged over channels.
pub fn squared_error(a: &[f32], b: &[f32], c: usize) -> Vec<f32> {
    let pixel = |(a, b): (&[f32], &[f32])| {
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>() / c as f32
    };
    a.chunks_exact(c).zip(b.chunks_exact(c)).map(pixel).collect()
}

/// 1 − SSIM around each pixel, averaged over channels (Wang et al., "Image Quality Assessment: From
/// Error Visibility to Structural Similarity", 2004; Gaussian window with σ = 1.5). 0 where the
/// pictures are equal.
pub fn structure(a: &[f32], b: &[f32], dims: Dims) -> Vec<f32> {
    let (mut out, c) = (vec![0.0_f32; dims.area()], dims.c);
    for channel in 0..c {
        let of = |picture: &[f32]| {
            picture.iter().skip(channel).step_by(c).copied().collect::<Vec<f32>>()
        };
        let product =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<f32>>();
        let (a, b) = (of(a), of(b));
        let smooth = |picture: &[f32]| blur(picture, dims.size(), SIGMA);
        let moments = [
            smooth(&a),
            smooth(&b),
            smooth(&product(&a, &a)),
            smooth(&product(&b, &b)),
            smooth(&product(&a, &b)),
        ];
        for (at, out) in out.iter_mut().enumerate() {
            let [a, b, aa, bb, ab] = std::array::from_fn(|i| f64::from(moments[i][at]));
            let ssim = ((2.0 * a * b + C[0]) * (2.0 * (ab - a * b) + C[1]))
                / ((a * a + b * b + C[0]) * (aa - a * a + bb - b * b + C[1]));
            *out += ((1.0 - ssim) / c as f64) as f32;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::quality;

    fn picture(size: Size, k: u32) -> Vec<f32> {
        (0..size.area())
            .map(|i| ((i as u32).wrapping_mul(2_654_435_761 + k) >> 24) as f32 / 255.0)
            .collect()
    }

    #[test]
    fn blur_keeps_flat_pictures_and_spreads_points() {
        assert!(blur(&[0.5; 35], Size::new(5, 7), 1.3).iter().all(|v| (v - 0.5).abs() < 1e-6));
        let mut point = vec![0.0; 21 * 21];
        point[10 * 21 + 10] = 1.0;
        let size = Size::new(21, 21);
        let spread = blur(&point, size, 1.0);
        assert!((spread.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert!((spread[10 * 21 + 11] / spread[10 * 21 + 10] - (-0.5_f32).exp()).abs() < 1e-4);
        assert_eq!(blur(&point, size, 0.0), point);
    }

    #[test]
    fn the_mean_of_the_inner_map_is_ssim() {
        let dims = Dims::new(1, 30, 26);
        let Size { h, w } = dims.size();
        let a = picture(dims.size(), 0);
        let b: Vec<f32> =
            a.iter().zip(picture(dims.size(), 6_000_006)).map(|(a, b)| 0.8 * a + 0.2 * b).collect();
        let map = structure(&a, &b, dims);
        let inner: Vec<f64> = (5..h - 5)
            .flat_map(|y| (5..w - 5).map(move |x| (y, x)))
            .map(|(y, x)| f64::from(map[y * w + x]))
            .collect();
        let mean = 1.0 - inner.iter().sum::<f64>() / inner.len() as f64;
        assert!((mean - quality::ssim(&a, &b, dims)).abs() < 1e-3, "{mean}");
        assert!(structure(&a, &a, dims).iter().all(|v| v.abs() < 1e-5));
        assert!(mean < 0.99);
    }

    #[test]
    fn errors_are_means_over_channels() {
        assert_eq!(squared_error(&[1.0, 0.0, 0.5, 0.5], &[0.0, 0.0, 0.5, 0.0], 2), [0.5, 0.125]);
    }
}
