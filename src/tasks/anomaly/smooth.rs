//! Gaussian smoothing of maps.

use rayon::prelude::*;

use crate::shape::Size;

/// Gaussian smoothing of a single-channel picture. The window ends at three standard deviations. At
/// the edges it is renormalised.
pub fn blur(picture: &[f32], size: Size, sigma: f64) -> Vec<f32> {
    if sigma <= 0.0 {
        return picture.to_vec();
    }
    let Size { h, w } = size;
    let radius = (3.0 * sigma).ceil() as usize;
    let taps: Vec<f64> = (0..=radius).map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp()).collect();
    let near = |at: usize, side: usize| at.saturating_sub(radius)..(at + radius + 1).min(side);
    let weight = |at: usize, side: usize| near(at, side).map(|i| taps[i.abs_diff(at)]).sum::<f64>();
    let weights: Vec<f64> = (0..w).map(|x| weight(x, w)).collect();
    let mut across = vec![0.0_f64; h * w];
    across.par_chunks_exact_mut(w).zip(picture.par_chunks_exact(w)).for_each(|(out, row)| {
        for (x, out) in out.iter_mut().enumerate() {
            let sum: f64 = near(x, w).map(|i| taps[i.abs_diff(x)] * f64::from(row[i])).sum();
            *out = sum / weights[x];
        }
    });
    let mut out = vec![0.0_f32; h * w];
    out.par_chunks_exact_mut(w).enumerate().for_each(|(y, out)| {
        // Row by row, because the pixels of a column are far apart in memory.
        let mut sums = vec![0.0_f64; w];
        for from in near(y, h) {
            let tap = taps[from.abs_diff(y)];
            let row = &across[from * w..(from + 1) * w];
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += tap * value);
        }
        let weight = weight(y, h);
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = (sum / weight) as f32);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn blur_is_the_weighted_mean_of_the_window() {
        let size = Size::new(9, 13);
        let picture: Vec<f32> = (0..9 * 13).map(|i| (i * 29 % 31) as f32).collect();
        let found = blur(&picture, size, 1.3);
        let bell = |d: f64| (-0.5 * (d / 1.3).powi(2)).exp();
        for (at, found) in found.iter().enumerate() {
            let (y, x) = (at / 13, at % 13);
            let (mut sum, mut weights) = (0.0, 0.0);
            for (from, value) in picture.iter().enumerate() {
                let (dy, dx) = ((from / 13).abs_diff(y), (from % 13).abs_diff(x));
                if dy <= 4 && dx <= 4 {
                    let tap = bell(dy as f64) * bell(dx as f64);
                    sum += tap * f64::from(*value);
                    weights += tap;
                }
            }
            assert!((f64::from(*found) - sum / weights).abs() < 1e-5, "{y}, {x}");
        }
    }
}
