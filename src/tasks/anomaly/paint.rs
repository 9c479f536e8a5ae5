//! Synthetic defects painted into normal images, with masks: test sets for a detector where no real
//! defects are available.
//!
//! A defect's position and size are drawn again until it is visible: inside its mask, pixels change
//! by at least 0.08 of the range on average. Lengths are shares of the image's shorter side s.

use super::Image;
use super::smooth::blur;
use crate::rng::Stream;
use crate::shape::{Dims, Size};

/// Minimum mean change inside a mask for a defect to count as visible.
const MIN_CHANGE: f32 = 0.08;
/// Number of attempts before a defect is skipped.
const ATTEMPTS: usize = 40;
/// Minimum side of an image to paint on, in pixels: the smallest defect then has a radius of about
/// 2 pixels.
pub const MIN_SIDE: usize = 24;

/// Kinds of defects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A spot of another colour, with opacity 0.7.
    Blot,
    /// A crooked line, light or dark, 1 to 3 pixels wide.
    Scratch,
    /// A spot that is blurred by a Gaussian with standard deviation 0.08·s.
    Smear,
    /// A spot of noise with standard deviation 0.25.
    Speckle,
    /// A spot that shows another image.
    Patch,
}

impl Defect {
    /// Every defect with its name.
    pub const ALL: [(&'static str, Self); 5] = [
        ("blot", Self::Blot),
        ("scratch", Self::Scratch),
        ("smear", Self::Smear),
        ("speckle", Self::Speckle),
        ("patch", Self::Patch),
    ];
}

/// An image with a defect.
#[derive(Clone, Debug, PartialEq)]
pub struct PaintedDefect {
    /// Pixels, H,W,C, in 0–1.
    pub pixels: Vec<f32>,
    /// Whether each pixel belongs to the defect.
    pub mask: Vec<bool>,
}

/// Paints a defect into an image. `other` is the image that a patch shows. Returns `None` if no
/// attempt was visible: for example, a smear on an even surface never is.
///
/// # Panics
/// If the images differ in their number of channels.
pub fn paint(
    defect: Defect,
    image: &Image,
    other: &Image,
    stream: &mut Stream,
) -> Option<PaintedDefect> {
    assert_eq!(image.dims.c, other.dims.c, "both images have the same channels");
    (0..ATTEMPTS)
        .map(|_| attempt(defect, image, other, stream))
        .find(|painted| is_visible(image, painted))
}

fn is_visible(image: &Image, painted: &PaintedDefect) -> bool {
    let c = image.dims.c;
    let of = painted.mask.iter().filter(|on| **on).count() * c;
    let pairs = image.pixels.chunks_exact(c).zip(painted.pixels.chunks_exact(c)).zip(&painted.mask);
    let changed: f32 = pairs
        .filter(|(_, on)| **on)
        .flat_map(|((a, b), _)| a.iter().zip(b))
        .map(|(a, b)| (a - b).abs())
        .sum();
    of > 0 && changed >= MIN_CHANGE * of as f32
}

fn attempt(defect: Defect, image: &Image, other: &Image, stream: &mut Stream) -> PaintedDefect {
    let (c, size) = (image.dims.c, image.dims.size());
    let side = size.h.min(size.w) as f32;
    let shape = if defect == Defect::Scratch { line(size, stream) } else { spot(size, stream) };
    let mut over = image.pixels.clone();
    let mut opacity = 1.0;
    match defect {
        Defect::Blot => {
            opacity = 0.7;
            let colour: Vec<f32> = (0..c).map(|_| stream.uniform()).collect();
            over.chunks_exact_mut(c).for_each(|pixel| pixel.copy_from_slice(&colour));
        }
        Defect::Scratch => {
            let shade = if stream.uniform() < 0.5 { 0.05 } else { 0.95 };
            over.fill(shade);
            opacity = 0.8;
        }
        Defect::Smear => {
            for channel in 0..c {
                let of: Vec<f32> = image.pixels.iter().skip(channel).step_by(c).copied().collect();
                let smooth = blur(&of, size, 0.08 * f64::from(side));
                over.iter_mut()
                    .skip(channel)
                    .step_by(c)
                    .zip(smooth)
                    .for_each(|(over, smooth)| *over = smooth);
            }
        }
        Defect::Speckle => over
            .iter_mut()
            .for_each(|value| *value = (*value + 0.25 * stream.normal()).clamp(0.0, 1.0)),
        Defect::Patch => {
            let Dims { h, w, .. } = other.dims;
            let (down, across) = (stream.below(h), stream.below(w));
            for (at, pixel) in over.chunks_exact_mut(c).enumerate() {
                let from = (at / size.w + down) % h * w + (at % size.w + across) % w;
                pixel.copy_from_slice(&other.pixels[from * c..(from + 1) * c]);
            }
        }
    }
    // soften the edge over about one pixel
    let soft =
        blur(&shape.iter().map(|on| f32::from(u8::from(*on))).collect::<Vec<f32>>(), size, 0.5);
    let mut pixels = image.pixels.clone();
    for ((pixel, over), soft) in pixels.chunks_exact_mut(c).zip(over.chunks_exact(c)).zip(&soft) {
        let share = opacity * soft;
        pixel.iter_mut().zip(over).for_each(|(value, over)| *value += share * (over - *value));
    }
    // Round to 8 bits, so that visibility is checked on what will be written.
    pixels.iter_mut().for_each(|value| *value = (value.clamp(0.0, 1.0) * 255.0).round() / 255.0);
    PaintedDefect { pixels, mask: soft.into_iter().map(|soft| soft >= 0.1).collect() }
}

/// A spot with a wavy edge and a mean radius of 0.08·s to 0.2·s.
fn spot(Size { h, w }: Size, stream: &mut Stream) -> Vec<bool> {
    let side = h.min(w) as f32;
    let radius = side * (0.08 + 0.12 * stream.uniform());
    let (y, x) = (
        radius + stream.uniform() * (h as f32 - 2.0 * radius),
        radius + stream.uniform() * (w as f32 - 2.0 * radius),
    );
    let waves: Vec<[f32; 3]> = (2..5_u8)
        .map(|n| {
            [
                f32::from(n),
                0.3 * stream.uniform() / f32::from(n - 1),
                std::f32::consts::TAU * stream.uniform(),
            ]
        })
        .collect();
    let inside = |at: usize| {
        let (dy, dx) = ((at / w) as f32 + 0.5 - y, (at % w) as f32 + 0.5 - x);
        let angle = dy.atan2(dx);
        let edge = 1.0
            + waves
                .iter()
                .map(|[n, strength, phase]| strength * (n * angle + phase).sin())
                .sum::<f32>();
        dy.hypot(dx) <= radius * edge
    };
    (0..h * w).map(inside).collect()
}

/// A line of length 0.3·s to 0.8·s whose direction drifts.
fn line(Size { h, w }: Size, stream: &mut Stream) -> Vec<bool> {
    let side = h.min(w) as f32;
    let (length, half) = (side * (0.3 + 0.5 * stream.uniform()), 0.5 + stream.uniform());
    let (mut y, mut x) = (h as f32 * stream.uniform(), w as f32 * stream.uniform());
    let mut angle = std::f32::consts::TAU * stream.uniform();
    let mut mask = vec![false; h * w];
    for _ in 0..(2.0 * length) as usize {
        // a disc every half pixel
        let reach = half.ceil() as i64;
        for at_y in y as i64 - reach..=y as i64 + reach {
            for at_x in x as i64 - reach..=x as i64 + reach {
                let near = (at_y as f32 + 0.5 - y).hypot(at_x as f32 + 0.5 - x) <= half.max(0.71);
                if near && (0..h as i64).contains(&at_y) && (0..w as i64).contains(&at_x) {
                    mask[at_y as usize * w + at_x as usize] = true;
                }
            }
        }
        angle += 0.08 * stream.normal();
        y += 0.5 * angle.sin();
        x += 0.5 * angle.cos();
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texture(k: usize) -> Image {
        let pixels = (0..64 * 48 * 3)
            .map(|i| (76 + 102 * ((i / 3 % 48 / (2 + k)) % 2)) as f32 / 255.0)
            .collect();
        Image { pixels, dims: Dims::new(3, 64, 48) }
    }

    #[test]
    fn defects_change_pixels_inside_their_masks() {
        let (image, other) = (texture(0), texture(5));
        for (name, defect) in Defect::ALL {
            let mut stream = Stream::new(3, name);
            let painted = paint(defect, &image, &other, &mut stream)
                .unwrap_or_else(|| panic!("{name} is visible"));
            let (mut inside, mut outside) = (0.0, 0.0);
            for (at, on) in painted.mask.iter().enumerate() {
                let change = (0..3)
                    .map(|ch| (painted.pixels[at * 3 + ch] - image.pixels[at * 3 + ch]).abs())
                    .sum::<f32>();
                *if *on { &mut inside } else { &mut outside } += change;
            }
            let of = painted.mask.iter().filter(|on| **on).count();
            assert!(of > 10 && of < 64 * 48 / 4, "{name}: {of} pixels");
            assert!(outside < 0.1 * inside, "{name}: {outside} of {inside} outside");
            let again = paint(defect, &image, &other, &mut Stream::new(3, name));
            assert_eq!(Some(painted), again, "{name}: the same seed");
        }
    }

    #[test]
    fn invisible_defects_are_skipped() {
        let even = Image { pixels: vec![0.5; 32 * 32], dims: Dims::new(1, 32, 32) };
        assert_eq!(paint(Defect::Smear, &even, &even, &mut Stream::new(1, "a")), None);
        assert_eq!(paint(Defect::Patch, &even, &even, &mut Stream::new(1, "a")), None);
        assert!(paint(Defect::Blot, &even, &even, &mut Stream::new(1, "a")).is_some());
    }
}
