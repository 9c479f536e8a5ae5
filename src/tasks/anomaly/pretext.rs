//! Training samples of the network: crops of normal images with painted defects.
//!
//! The network must find defects that nobody painted. The painted ones therefore vary more than
//! those of [`mod@super::paint`], which makes test sets: ten times in size, from faint to obvious,
//! with sharp and with soft edges. This follows Li et al., "CutPaste", 2021, and Zavrtanik et al.,
//! "DRAEM", 2021.

use super::Image;
use super::smooth::blur;
use crate::infer::tiles::mirrored;
use crate::rng::Stream;
use crate::shape::{Dims, Size};

/// Share of the samples that keep their crop as it is.
const UNCHANGED: f32 = 0.2;
/// Maximum number of defects of a sample.
const MAX_DEFECTS: usize = 3;
/// Minimum radius of a spot in pixels. Smaller ones are not distinguishable from noise.
const MIN_RADIUS: f32 = 2.5;
/// Range of the logarithm of a crop's random gain: surfaces are photographed under different light.
const GAIN: [f32; 2] = [-0.5, 0.7];
/// Minimum mean change in 3×3 pixels that counts as a defect, relative to their mean value.
const MIN_CHANGE: f32 = 0.12;
/// Lower limit of that mean value, so that a change of rounding errors in black does not count.
const DARK: f32 = 0.08;

/// A crop with defects.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Pixels, H,W,C.
    pub pixels: Vec<f32>,
    /// 1 for each pixel of a defect, 0 for normal ones.
    pub classes: Vec<u32>,
}

/// A random crop of `size`, flipped at random. An image that is smaller is mirrored at its edges.
pub fn random_crop(image: &Image, size: Size, stream: &mut Stream) -> Image {
    let (c, Size { h, w }) = (image.dims.c, image.dims.size());
    let mut start = |length: usize, side: usize| stream.below(length.saturating_sub(side) + 1);
    let (top, left) = (start(h, size.h), start(w, size.w));
    let (flip_y, flip_x) = (stream.uniform() < 0.5, stream.uniform() < 0.5);
    let mut pixels = Vec::with_capacity(size.area() * c);
    for y in 0..size.h {
        let y = if flip_y { size.h - 1 - y } else { y };
        for x in 0..size.w {
            let x = if flip_x { size.w - 1 - x } else { x };
            let at = (mirrored(top + y, h) * w + mirrored(left + x, w)) * c;
            pixels.extend_from_slice(&image.pixels[at..at + c]);
        }
    }
    Image { pixels, dims: Dims::of(size, c) }
}

/// Paints up to [`MAX_DEFECTS`] defects into a crop. `other` is another crop of the same size,
/// which some of the defects show.
pub fn sample(crop: &Image, other: &Image, stream: &mut Stream) -> Sample {
    let (c, size) = (crop.dims.c, crop.dims.size());
    let gain = between(GAIN, stream).exp();
    let mut pixels: Vec<f32> = crop.pixels.iter().map(|value| value * gain).collect();
    let mut classes = vec![0; size.area()];
    if stream.uniform() >= UNCHANGED {
        for _ in 0..=stream.below(MAX_DEFECTS) {
            let painted = defect(&pixels, (other, gain), size, stream);
            mark(&pixels, &painted, c, size, &mut classes);
            pixels = painted;
        }
    }
    Sample { pixels, classes }
}

fn between([from, to]: [f32; 2], stream: &mut Stream) -> f32 {
    from + (to - from) * stream.uniform()
}

/// A factor e^±x with x in a range: darker or brighter, with equal probability.
fn factor(range: [f32; 2], stream: &mut Stream) -> f32 {
    let x = between(range, stream);
    if stream.uniform() < 0.5 { x.exp() } else { (-x).exp() }
}

/// The pixels with one more defect.
fn defect(
    pixels: &[f32],
    (other, gain): (&Image, f32),
    size: Size,
    stream: &mut Stream,
) -> Vec<f32> {
    let c = other.dims.c;
    let kind = stream.below(6);
    let shape = if kind == 0 { line(size, stream) } else { spot(size, stream) };
    let inside: Vec<usize> = (0..size.area()).filter(|at| shape[*at]).collect();
    let mean_of = |picture: &[f32], channel: usize| {
        inside.iter().map(|at| picture[at * c + channel]).sum::<f32>() / inside.len().max(1) as f32
    };
    let means: Vec<f32> = (0..c).map(|channel| mean_of(pixels, channel)).collect();
    let mut over = pixels.to_vec();
    match kind {
        // An even colour, on a line or a spot. Colours differ by one factor or by one per channel.
        0 | 1 => {
            let range = if kind == 0 { [0.3, 1.5] } else { [0.25, 1.5] };
            let shared = factor(range, stream);
            let coloured = stream.uniform() < 0.5;
            let colour: Vec<f32> = means
                .iter()
                .map(|mean| mean.max(0.05) * if coloured { factor(range, stream) } else { shared })
                .collect();
            let noise = if kind == 0 { 0.0 } else { 0.03 * stream.uniform() };
            for pixel in over.chunks_exact_mut(c) {
                for (value, colour) in pixel.iter_mut().zip(&colour) {
                    *value = colour + noise * stream.normal();
                }
            }
        }
        // Another brightness, with the structure kept.
        2 => {
            let gain = factor([0.25, 1.2], stream);
            over.iter_mut().for_each(|value| *value *= gain);
        }
        // Structure lost.
        3 => {
            let sigma = f64::from(between([1.0, 5.0], stream));
            for channel in 0..c {
                let plane: Vec<f32> = pixels.iter().skip(channel).step_by(c).copied().collect();
                let smooth = blur(&plane, size, sigma);
                let values = over.iter_mut().skip(channel).step_by(c);
                values.zip(smooth).for_each(|(value, smooth)| *value = smooth);
            }
        }
        // Structure added.
        4 => {
            let share = between([0.05, 0.3], stream);
            for pixel in over.chunks_exact_mut(c) {
                for (value, mean) in pixel.iter_mut().zip(&means) {
                    *value += share * mean.abs() * stream.normal();
                }
            }
        }
        // A part of another place, turned, as bright as there or as here.
        _ => {
            let turn = if size.h == size.w { stream.below(4) } else { 2 * stream.below(2) };
            let there: Vec<f32> =
                (0..c).map(|channel| gain * mean_of(&other.pixels, channel)).collect();
            let matched = stream.uniform() < 0.5;
            for (at, pixel) in over.chunks_exact_mut(c).enumerate() {
                let (y, x) = (at / size.w, at % size.w);
                let (y, x) = match turn {
                    0 => (y, x),
                    1 => (x, size.w - 1 - y),
                    2 => (size.h - 1 - y, size.w - 1 - x),
                    _ => (size.h - 1 - x, y),
                };
                let from = &other.pixels[(y * size.w + x) * c..][..c];
                for (channel, value) in pixel.iter_mut().enumerate() {
                    let scale = means[channel] / there[channel].max(0.02);
                    *value =
                        gain * from[channel] * if matched { scale.clamp(0.1, 10.0) } else { 1.0 };
                }
            }
        }
    }
    let opacity = between([0.5, 1.0], stream);
    let edge: Vec<f32> = shape.iter().map(|on| f32::from(u8::from(*on))).collect();
    let soft = blur(&edge, size, f64::from(between([0.3, 1.2], stream)));
    let mut out = pixels.to_vec();
    for ((pixel, over), soft) in out.chunks_exact_mut(c).zip(over.chunks_exact(c)).zip(soft) {
        let share = opacity * soft;
        pixel.iter_mut().zip(over).for_each(|(value, over)| *value += share * (over - *value));
    }
    out
}

/// Marks the pixels that a defect changes visibly.
fn mark(before: &[f32], after: &[f32], c: usize, Size { h, w }: Size, classes: &mut [u32]) {
    let (mut change, mut level) = (vec![0.0_f32; h * w], vec![0.0_f32; h * w]);
    for (at, (a, b)) in before.chunks_exact(c).zip(after.chunks_exact(c)).enumerate() {
        change[at] = a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>();
        level[at] = a.iter().map(|a| a.abs()).sum::<f32>().max(DARK * c as f32);
    }
    for y in 0..h {
        for x in 0..w {
            // A pixel outside of the defect is unchanged; noise inside may cancel in one pixel.
            if change[y * w + x] == 0.0 {
                continue;
            }
            let (mut changed, mut all) = (0.0, 0.0);
            for y in y.saturating_sub(1)..(y + 2).min(h) {
                for x in x.saturating_sub(1)..(x + 2).min(w) {
                    changed += change[y * w + x];
                    all += level[y * w + x];
                }
            }
            if changed > MIN_CHANGE * all {
                classes[y * w + x] = 1;
            }
        }
    }
}

/// A spot with a wavy edge, stretched in a random direction. Its radius is from [`MIN_RADIUS`] to a
/// quarter of the shorter side, uniform in the logarithm.
fn spot(Size { h, w }: Size, stream: &mut Stream) -> Vec<bool> {
    let max = (0.25 * h.min(w) as f32).max(MIN_RADIUS);
    let radius = between([MIN_RADIUS.ln(), max.ln()], stream).exp();
    let (y, x) = (h as f32 * stream.uniform(), w as f32 * stream.uniform());
    let (turn, stretch) =
        (std::f32::consts::PI * stream.uniform(), between([-0.8, 0.8], stream).exp());
    let (sin, cos) = turn.sin_cos();
    let waves: Vec<[f32; 3]> = (1..4_u8)
        .map(|n| {
            let strength = 0.3 * stream.uniform() / f32::from(n);
            [f32::from(n + 1), strength, std::f32::consts::TAU * stream.uniform()]
        })
        .collect();
    let inside = |at: usize| {
        let (dy, dx) = ((at / w) as f32 + 0.5 - y, (at % w) as f32 + 0.5 - x);
        let (u, v) = ((cos * dy + sin * dx) * stretch, (cos * dx - sin * dy) / stretch);
        let angle = v.atan2(u);
        let waves = waves.iter().map(|[n, strength, phase]| strength * (n * angle + phase).sin());
        u.hypot(v) < radius * (1.0 + waves.sum::<f32>())
    };
    (0..h * w).map(inside).collect()
}

/// A line 1 to 4 pixels wide whose direction drifts, of 0.1 to 0.8 of the shorter side.
fn line(Size { h, w }: Size, stream: &mut Stream) -> Vec<bool> {
    let length = h.min(w) as f32 * between([0.1, 0.8], stream);
    // A disc of a smaller radius can miss all centres of pixels.
    let half = between([0.5, 2.0], stream).max(0.71);
    let (mut y, mut x) = (h as f32 * stream.uniform(), w as f32 * stream.uniform());
    let mut angle = std::f32::consts::TAU * stream.uniform();
    let mut shape = vec![false; h * w];
    for _ in 0..length.ceil() as usize {
        let reach = half.ceil() as i64;
        for at_y in y as i64 - reach..=y as i64 + reach {
            for at_x in x as i64 - reach..=x as i64 + reach {
                let near = (at_y as f32 + 0.5 - y).hypot(at_x as f32 + 0.5 - x) <= half;
                if near && (0..h as i64).contains(&at_y) && (0..w as i64).contains(&at_x) {
                    shape[at_y as usize * w + at_x as usize] = true;
                }
            }
        }
        angle += 0.15 * stream.normal();
        y += angle.sin();
        x += angle.cos();
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crop_of(k: usize) -> Image {
        let value = |i: usize| 0.3 + 0.05 * ((i / 3 * (7 + k) % 11) as f32 / 11.0);
        Image { pixels: (0..48 * 48 * 3).map(value).collect(), dims: Dims::new(3, 48, 48) }
    }

    #[test]
    fn marked_pixels_changed_and_others_did_not() {
        let (crop, other) = (crop_of(0), crop_of(4));
        let (mut marked, mut clean) = (0, 0);
        for seed in 0..60 {
            let found = sample(&crop, &other, &mut Stream::new(seed, "test"));
            assert_eq!(found, sample(&crop, &other, &mut Stream::new(seed, "test")));
            let gain = between(GAIN, &mut Stream::new(seed, "test")).exp();
            let change = |at: usize| -> f32 {
                (0..3)
                    .map(|c| (found.pixels[at * 3 + c] - gain * crop.pixels[at * 3 + c]).abs())
                    .sum()
            };
            let [inside, outside] = [1, 0].map(|class| {
                let all = (0..48 * 48).filter(|at| found.classes[*at] == class);
                let changes: Vec<f32> = all.map(change).collect();
                changes.iter().sum::<f32>() / changes.len().max(1) as f32
            });
            let count = found.classes.iter().sum::<u32>();
            if count == 0 {
                clean += 1;
            } else {
                marked += 1;
                assert!(inside > 5.0 * outside, "{seed}: {inside} {outside}");
            }
            assert!(count < 48 * 48, "{seed}: everything is a defect");
        }
        assert!(marked > 30 && clean > 5, "{marked} with defects, {clean} without");
    }

    #[test]
    fn crops_of_small_images_are_mirrored() {
        let pixels: Vec<f32> = (0..20_u8).map(f32::from).collect();
        let image = Image { pixels, dims: Dims::new(1, 4, 5) };
        for seed in 0..20 {
            let crop = random_crop(&image, Size::new(8, 3), &mut Stream::new(seed, "test"));
            assert_eq!(crop.dims, Dims::new(1, 8, 3));
            // Neighbours along a row differ by 1, and rows by 5 or 0, where they are mirrored.
            for y in 0..8 {
                let row = &crop.pixels[y * 3..][..3];
                assert_eq!((row[1] - row[0]).abs(), 1.0, "{row:?}");
                if y > 0 {
                    let apart = (row[0] - crop.pixels[(y - 1) * 3]).abs();
                    assert!([0.0, 5.0].contains(&apart));
                }
            }
        }
    }
}
