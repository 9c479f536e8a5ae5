//! Bicubic resizing as MATLAB's `imresize` does it, which the published protocols of
//! super-resolution shrink with.
//!
//! The kernel is Keys' cubic with a = −0.5 ("Cubic Convolution Interpolation for Digital Image
//! Processing", 1981), stretched by 1/scale when shrinking (antialiasing). Output pixel i lies at
//! (i + ½)/scale − ½ of the input (pixels have centres); what the kernel reaches beyond an edge is
//! mirrored there, the edge pixel twice; weights sum to 1. One dimension after the other, the one
//! that shrinks most first.

use rayon::prelude::*;

use crate::error::{Error, Result};

/// Half the kernel's width at scale 1.
const RADIUS: f64 = 2.0;

/// Keys' cubic, a = −0.5.
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x <= 2.0 {
        ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    } else {
        0.0
    }
}

/// What an output sample is made of: inputs and their weights.
type Taps = Vec<(usize, f64)>;

/// The taps of every sample of a side of `to` made from `from` at `scale`.
fn taps(from: usize, to: usize, scale: f64) -> Vec<Taps> {
    let stretch = scale.min(1.0);
    let radius = RADIUS / stretch;
    let fold = |i: i64| {
        let i = i.rem_euclid(2 * from as i64) as usize;
        if i < from { i } else { 2 * from - 1 - i }
    };
    let taps_of = |i: usize| {
        let centre = (i as f64 + 0.5) / scale - 0.5;
        let reach = (centre - radius).floor() as i64..=(centre + radius).ceil() as i64;
        let weigh = |j: i64| (fold(j), cubic(stretch * (centre - j as f64)));
        let mut taps: Taps = reach.map(weigh).filter(|(_, weight)| *weight != 0.0).collect();
        let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
        taps.iter_mut().for_each(|(_, weight)| *weight /= sum);
        taps
    };
    (0..to).map(taps_of).collect()
}

/// What every sample of a side is made of after the side was shrunk by a whole scale, which divides
/// it, and enlarged again: inputs and their weights.
pub fn down_up(side: usize, scale: usize) -> Vec<Vec<(usize, f64)>> {
    assert!(scale > 0 && side.is_multiple_of(scale), "a side of {side} shrunk by {scale}");
    let (down, up) =
        (taps(side, side / scale, 1.0 / scale as f64), taps(side / scale, side, scale as f64));
    let both = |row: &Taps| {
        let mut sum = vec![0.0; side];
        for &(middle, weight) in row {
            down[middle].iter().for_each(|(from, other)| sum[*from] += weight * other);
        }
        sum.into_iter().enumerate().filter(|(_, weight)| *weight != 0.0).collect()
    };
    up.iter().map(both).collect()
}

/// Rows of `width` samples from other rows: output row i is the sum of its taps' rows.
fn along_columns(pixels: &[f32], width: usize, taps: &[Taps]) -> Vec<f32> {
    let mut out = vec![0.0; taps.len() * width];
    out.par_chunks_exact_mut(width).zip(taps).for_each(|(row, taps)| {
        let mut sum = vec![0.0_f64; width];
        for &(from, weight) in taps {
            for (sum, &v) in sum.iter_mut().zip(&pixels[from * width..][..width]) {
                *sum += weight * f64::from(v);
            }
        }
        row.iter_mut().zip(sum).for_each(|(out, sum)| *out = sum as f32);
    });
    out
}

/// Every row of `width` pixels from itself.
fn along_rows(pixels: &[f32], width: usize, c: usize, taps: &[Taps]) -> Vec<f32> {
    let mut out = vec![0.0; pixels.len() / width * taps.len()];
    out.par_chunks_exact_mut(taps.len() * c).zip(pixels.par_chunks_exact(width * c)).for_each(
        |(out, row)| {
            for (pixel, taps) in out.chunks_exact_mut(c).zip(taps) {
                for (channel, out) in pixel.iter_mut().enumerate() {
                    *out = taps
                        .iter()
                        .map(|&(from, weight)| weight * f64::from(row[from * c + channel]))
                        .sum::<f64>() as f32;
                }
            }
        },
    );
    out
}

fn resize(
    pixels: &[f32],
    (h, w): (usize, usize),
    c: usize,
    (to_h, to_w): (usize, usize),
    scales: [f64; 2],
) -> Vec<f32> {
    assert!(
        pixels.len() == h * w * c && !pixels.is_empty() && to_h * to_w > 0,
        "a picture of {h}x{w}x{c} to {to_h}x{to_w}"
    );
    let (rows, columns) = (taps(h, to_h, scales[0]), taps(w, to_w, scales[1]));
    if scales[0] <= scales[1] {
        along_rows(&along_columns(pixels, w * c, &rows), w, c, &columns)
    } else {
        along_columns(&along_rows(pixels, w, c, &columns), to_w * c, &rows)
    }
}

/// A side of `imresize(A, scale)`: ⌈side·scale⌉, taking a product that is whole but for rounding as
/// whole.
pub fn scaled(side: usize, scale: f64) -> usize {
    let exact = side as f64 * scale;
    let side = if (exact - exact.round()).abs() < 1e-9 * exact.max(1.0) {
        exact.round()
    } else {
        exact.ceil()
    };
    side as usize
}

/// `imresize(A, scale)`: H,W,C pixels enlarged or shrunk by one factor, [`scaled`] sides. Returns
/// them with their height and width. Nothing is clipped or rounded, as MATLAB does with floats.
///
/// # Errors
/// When the scale is not a positive number.
pub fn imresize(
    pixels: &[f32],
    (h, w): (usize, usize),
    c: usize,
    scale: f64,
) -> Result<(Vec<f32>, usize, usize)> {
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(Error::usage(format!(
            "a picture cannot be resized by {scale}; give a scale above 0"
        )));
    }
    let to = (scaled(h, scale), scaled(w, scale));
    Ok((resize(pixels, (h, w), c, to, [scale; 2]), to.0, to.1))
}

/// `imresize(A, [rows columns])`: H,W,C pixels to a size (height, width); each side has a scale of
/// its own.
pub fn imresize_to(
    pixels: &[f32],
    (h, w): (usize, usize),
    c: usize,
    to: (usize, usize),
) -> Vec<f32> {
    resize(pixels, (h, w), c, to, [to.0 as f64 / h as f64, to.1 as f64 / w as f64])
}

/// Rounds to what 8 bits can hold, on the 0–1 scale, as an image written to a file would be.
pub fn quantise(pixels: &mut [f32]) {
    pixels.iter_mut().for_each(|v| *v = (v.clamp(0.0, 1.0) * 255.0).round() / 255.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &[f32], b: &[f64], tolerance: f64) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (f64::from(*a) - b).abs() <= tolerance)
    }

    /// By hand from the kernel: at ×2 outputs lie at ∓¼ of the input, with weights k(¾), k(¼),
    /// k(5/4), k(7/4) and the edge mirrored.
    #[test]
    fn enlarging_by_two_is_the_kernel() {
        let [a, b, c, d] = [-0.0234375, 0.2265625, 0.8671875, -0.0703125];
        assert_eq!([1.75, 0.75, 0.25, 1.25].map(cubic), [a, b, c, d]);
        let (out, h, w) = imresize(&[1.0, 0.0, 0.0, 0.0], (1, 4), 1, 2.0).unwrap();
        assert_eq!((h, w), (2, 8));
        // The first pixel and its mirror image.
        let expected = [c + b, c + d, b + a, d, a, 0.0, 0.0, 0.0];
        assert!(close(&out[..8], &expected, 1e-7) && close(&out[8..], &expected, 1e-7), "{out:?}");
        assert!(!close(&out[..8], &expected.map(|v| v + 1e-6), 1e-7), "the comparison can fail");
    }

    /// At ½ the kernel is stretched to 8 pixels: k(±¼), k(±¾), k(±5/4), k(±7/4), halved.
    #[test]
    fn shrinking_widens_the_kernel() {
        let mut pixels = vec![0.0; 16];
        pixels[8] = 1.0;
        let (out, _, w) = imresize(&pixels, (1, 16), 1, 0.5).unwrap();
        assert_eq!(w, 8);
        let [a, b, c, d] = [-0.0234375, 0.2265625, 0.8671875, -0.0703125].map(|v| v / 2.0);
        assert!(close(&out, &[0.0, 0.0, a, b, c, d, 0.0, 0.0], 1e-7), "{out:?}");
    }

    #[test]
    fn sizes_and_constants() {
        assert_eq!(
            (scaled(5, 0.5), scaled(9, 1.0 / 3.0), scaled(100, 1.1), scaled(1, 0.01)),
            (3, 3, 110, 1)
        );
        for (size, scale) in [((5, 7), 0.3), ((1, 1), 4.0), ((3, 2), 0.25), ((31, 17), 1.7)] {
            let (out, h, w) = imresize(&vec![0.4; size.0 * size.1 * 3], size, 3, scale).unwrap();
            assert_eq!(out.len(), h * w * 3);
            assert!(out.iter().all(|v| (v - 0.4).abs() < 1e-6), "{size:?} {scale}");
        }
        assert!(
            imresize(&[0.0], (1, 1), 1, f64::NAN).is_err()
                && imresize(&[0.0], (1, 1), 1, -1.0).is_err()
        );
    }

    #[test]
    fn channels_and_directions_are_apart() {
        let pixels: Vec<f32> = (0..6 * 9 * 2).map(|i| ((i * 29) % 31) as f32 / 31.0).collect();
        let one =
            |channel: usize| pixels.iter().skip(channel).step_by(2).copied().collect::<Vec<f32>>();
        let both = imresize_to(&pixels, (6, 9), 2, (4, 20));
        for channel in 0..2 {
            let alone = imresize_to(&one(channel), (6, 9), 1, (4, 20));
            assert_eq!(both.iter().skip(channel).step_by(2).copied().collect::<Vec<_>>(), alone);
        }
        // The transposed picture gives the transposed result, but for the rounding between passes.
        let transposed = |p: &[f32], h: usize, w: usize| {
            (0..h * w).map(|i| p[i % h * w + i / h]).collect::<Vec<f32>>()
        };
        let (a, b) = (
            imresize_to(&one(0), (6, 9), 1, (4, 20)),
            imresize_to(&transposed(&one(0), 6, 9), (9, 6), 1, (20, 4)),
        );
        assert!(transposed(&a, 4, 20).iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6));
        assert_eq!(imresize_to(&pixels, (6, 9), 2, (6, 9)), pixels);
    }

    #[test]
    fn quantised_is_what_a_file_holds() {
        let mut v = [-0.1, 0.5, 1.2, 100.4 / 255.0];
        quantise(&mut v);
        assert_eq!(v, [0.0, 128.0 / 255.0, 1.0, 100.0 / 255.0]);
    }
}
