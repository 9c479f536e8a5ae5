//! Gaussian smoothing of maps.

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
}
