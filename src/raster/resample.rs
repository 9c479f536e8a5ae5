//! Bicubic resizing that equals MATLAB's `imresize`, which the published super-resolution protocols
//! use for downscaling.
//!
//! The kernel is Keys' cubic with a = −0.5 ("Cubic Convolution Interpolation for Digital Image
//! Processing", 1981), stretched by 1/scale for downscaling (antialiasing). The centre of output
//! pixel i is at (i + ½)/scale − ½ in input pixels. Beyond an edge the image is mirrored, including
//! the edge pixel (symmetric padding). The weights of a pixel sum to 1. The two dimensions are
//! resized one after the other, first the one with the smaller scale.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::shape::{Dims, Size};

/// Half the width of the kernel at scale 1.
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

/// The weighted inputs of one output sample: (index, weight).
type WeightedInputs = Vec<(usize, f64)>;

/// The weights that resize a side of `from` samples to `to` samples at `scale`, one list per output
/// sample.
fn resize_weights(from: usize, to: usize, scale: f64) -> Vec<WeightedInputs> {
    let stretch = scale.min(1.0);
    let radius = RADIUS / stretch;
    let mirror = |i: i64| {
        let i = i.rem_euclid(2 * from as i64) as usize;
        if i < from { i } else { 2 * from - 1 - i }
    };
    let weights_of = |i: usize| {
        let centre = (i as f64 + 0.5) / scale - 0.5;
        let support = (centre - radius).floor() as i64..=(centre + radius).ceil() as i64;
        let weigh = |j: i64| (mirror(j), cubic(stretch * (centre - j as f64)));
        let mut inputs: WeightedInputs =
            support.map(weigh).filter(|(_, weight)| *weight != 0.0).collect();
        let sum: f64 = inputs.iter().map(|(_, weight)| weight).sum();
        inputs.iter_mut().for_each(|(_, weight)| *weight /= sum);
        inputs
    };
    (0..to).map(weights_of).collect()
}

/// The weights that downscale a side of `side` samples by the factor `scale` and upscale it again:
/// for each output sample the pairs (index of an input, weight).
///
/// # Panics
/// If `scale` is 0 or does not divide `side`.
pub fn down_up(side: usize, scale: usize) -> Vec<Vec<(usize, f64)>> {
    assert!(scale > 0 && side.is_multiple_of(scale), "{side} is not a multiple of scale {scale}");
    let (down, up) = (
        resize_weights(side, side / scale, 1.0 / scale as f64),
        resize_weights(side / scale, side, scale as f64),
    );
    let compose = |row: &WeightedInputs| {
        let mut sum = vec![0.0; side];
        for &(middle, weight) in row {
            down[middle].iter().for_each(|(from, other)| sum[*from] += weight * other);
        }
        sum.into_iter().enumerate().filter(|(_, weight)| *weight != 0.0).collect()
    };
    up.iter().map(compose).collect()
}

/// Resizes vertically. A row has `width` samples; output row i is the weighted sum of the input
/// rows in `weights[i]`.
fn resize_columns(pixels: &[f32], width: usize, weights: &[WeightedInputs]) -> Vec<f32> {
    let mut out = vec![0.0; weights.len() * width];
    out.par_chunks_exact_mut(width).zip(weights).for_each(|(row, inputs)| {
        let mut sum = vec![0.0_f64; width];
        for &(from, weight) in inputs {
            for (sum, &v) in sum.iter_mut().zip(&pixels[from * width..][..width]) {
                *sum += weight * f64::from(v);
            }
        }
        row.iter_mut().zip(sum).for_each(|(out, sum)| *out = sum as f32);
    });
    out
}

/// Resizes horizontally. A row has `width` pixels of `c` channels; output pixel i of each row is
/// the weighted sum of the input pixels in `weights[i]`.
fn resize_rows(pixels: &[f32], width: usize, c: usize, weights: &[WeightedInputs]) -> Vec<f32> {
    let mut out = vec![0.0; pixels.len() / width * weights.len()];
    out.par_chunks_exact_mut(weights.len() * c).zip(pixels.par_chunks_exact(width * c)).for_each(
        |(out, row)| {
            for (pixel, inputs) in out.chunks_exact_mut(c).zip(weights) {
                for (channel, out) in pixel.iter_mut().enumerate() {
                    *out = inputs
                        .iter()
                        .map(|&(from, weight)| weight * f64::from(row[from * c + channel]))
                        .sum::<f64>() as f32;
                }
            }
        },
    );
    out
}

fn resize(pixels: &[f32], from: Dims, to: Size, scales: [f64; 2]) -> Vec<f32> {
    assert!(
        pixels.len() == from.len() && !pixels.is_empty() && to.area() > 0,
        "a picture of {from:?} to {to:?}"
    );
    let Dims { c, h, w } = from;
    let (rows, columns) = (resize_weights(h, to.h, scales[0]), resize_weights(w, to.w, scales[1]));
    if scales[0] <= scales[1] {
        resize_rows(&resize_columns(pixels, w * c, &rows), w, c, &columns)
    } else {
        resize_columns(&resize_rows(pixels, w, c, &columns), to.w * c, &rows)
    }
}

/// The side that `imresize(A, scale)` gives: ⌈side·scale⌉. A product within 10⁻⁹ (relative) of a
/// whole number counts as that number, so that 9·(1/3) gives 3 and 100·1.1 gives 110.
pub fn scaled(side: usize, scale: f64) -> usize {
    let exact = side as f64 * scale;
    let side = if (exact - exact.round()).abs() < 1e-9 * exact.max(1.0) {
        exact.round()
    } else {
        exact.ceil()
    };
    side as usize
}

/// Resizes an image (H,W,C) by a factor, like `imresize(A, scale)`. Returns the pixels and their
/// size; the sides are those of [`scaled`]. Values are neither clipped nor rounded, as with floats
/// in MATLAB.
///
/// # Errors
/// If the scale is not a finite number above 0.
pub fn imresize(pixels: &[f32], from: Dims, scale: f64) -> Result<(Vec<f32>, Size)> {
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(Error::usage(format!(
            "an image cannot be resized by {scale}; give a scale above 0"
        )));
    }
    let to = from.size().map(|side| scaled(side, scale));
    Ok((resize(pixels, from, to, [scale; 2]), to))
}

/// Resizes an image (H,W,C) to the size `to`, like `imresize(A, [rows columns])`. Each side has its
/// own scale.
pub fn imresize_to(pixels: &[f32], from: Dims, to: Size) -> Vec<f32> {
    resize(pixels, from, to, [to.h as f64 / from.h as f64, to.w as f64 / from.w as f64])
}

/// Quantises samples on the 0–1 scale to 8 bits, with clipping, as saving to a file does.
pub fn quantise(pixels: &mut [f32]) {
    pixels.iter_mut().for_each(|v| *v = (v.clamp(0.0, 1.0) * 255.0).round() / 255.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &[f32], b: &[f64], tolerance: f64) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (f64::from(*a) - b).abs() <= tolerance)
    }

    /// By hand: at ×2 the outputs are at ∓¼ of an input, so the weights are k(¾), k(¼), k(5/4),
    /// k(7/4), with the edge mirrored.
    #[test]
    fn upscaling_by_two_samples_the_kernel() {
        let [a, b, c, d] = [-0.0234375, 0.2265625, 0.8671875, -0.0703125];
        assert_eq!([1.75, 0.75, 0.25, 1.25].map(cubic), [a, b, c, d]);
        let (out, size) = imresize(&[1.0, 0.0, 0.0, 0.0], Dims::new(1, 1, 4), 2.0).unwrap();
        assert_eq!(size, Size::new(2, 8));
        // The input is 1 at its first pixel and hence at the mirror image of that pixel.
        let expected = [c + b, c + d, b + a, d, a, 0.0, 0.0, 0.0];
        assert!(close(&out[..8], &expected, 1e-7) && close(&out[8..], &expected, 1e-7), "{out:?}");
        assert!(!close(&out[..8], &expected.map(|v| v + 1e-6), 1e-7), "the comparison can fail");
    }

    /// At ½ the kernel is stretched to 8 pixels: k(±¼), k(±¾), k(±5/4), k(±7/4), halved.
    #[test]
    fn downscaling_stretches_the_kernel() {
        let mut pixels = vec![0.0; 16];
        pixels[8] = 1.0;
        let (out, size) = imresize(&pixels, Dims::new(1, 1, 16), 0.5).unwrap();
        assert_eq!(size.w, 8);
        let [a, b, c, d] = [-0.0234375, 0.2265625, 0.8671875, -0.0703125].map(|v| v / 2.0);
        assert!(close(&out, &[0.0, 0.0, a, b, c, d, 0.0, 0.0], 1e-7), "{out:?}");
    }

    #[test]
    fn sides_are_rounded_up() {
        assert_eq!(
            (scaled(5, 0.5), scaled(9, 1.0 / 3.0), scaled(100, 1.1), scaled(1, 0.01)),
            (3, 3, 110, 1)
        );
    }

    #[test]
    fn constant_images_stay_constant() {
        for (h, w, scale) in [(5, 7, 0.3), (1, 1, 4.0), (3, 2, 0.25), (31, 17, 1.7)] {
            let dims = Dims::new(3, h, w);
            let (out, size) = imresize(&vec![0.4; dims.len()], dims, scale).unwrap();
            assert_eq!(out.len(), size.area() * 3);
            assert!(out.iter().all(|v| (v - 0.4).abs() < 1e-6), "{dims} {scale}");
        }
    }

    #[test]
    fn invalid_scales_are_refused() {
        for scale in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
            assert!(imresize(&[0.0], Dims::flat(1), scale).is_err(), "{scale}");
        }
    }

    #[test]
    fn channels_and_directions_are_independent() {
        let pixels: Vec<f32> = (0..6 * 9 * 2).map(|i| ((i * 29) % 31) as f32 / 31.0).collect();
        let one =
            |channel: usize| pixels.iter().skip(channel).step_by(2).copied().collect::<Vec<f32>>();
        let (dims, to) = (Dims::new(2, 6, 9), Size::new(4, 20));
        let gray = Dims { c: 1, ..dims };
        let both = imresize_to(&pixels, dims, to);
        for channel in 0..2 {
            let alone = imresize_to(&one(channel), gray, to);
            assert_eq!(both.iter().skip(channel).step_by(2).copied().collect::<Vec<_>>(), alone);
        }
        // The transposed image gives the transposed result, except for rounding between the passes.
        let transposed = |p: &[f32], h: usize, w: usize| {
            (0..h * w).map(|i| p[i % h * w + i / h]).collect::<Vec<f32>>()
        };
        let (a, b) = (
            imresize_to(&one(0), gray, to),
            imresize_to(&transposed(&one(0), 6, 9), Dims::new(1, 9, 6), Size::new(20, 4)),
        );
        assert!(transposed(&a, 4, 20).iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6));
        assert_eq!(imresize_to(&pixels, dims, dims.size()), pixels);
    }

    #[test]
    fn quantising_rounds_and_clips() {
        let mut v = [-0.1, 0.5, 1.2, 100.4 / 255.0];
        quantise(&mut v);
        assert_eq!(v, [0.0, 128.0 / 255.0, 1.0, 100.0 / 255.0]);
    }
}
