//! Hole filling by the pull–push algorithm: a smooth initial guess for missing pixels (Gortler et
//! al., "The Lumigraph", SIGGRAPH 1996, section 3.3.2, with weights 0 and 1).
//!
//! Pull: each pixel of the next coarser level is the mean of its known children. It is known if at
//! least one child is. Sides are halved and rounded up. Push, from the coarsest level to the
//! finest: an unknown pixel takes the bilinear interpolation of the coarser level.

use crate::raster::corrupt::Mask;
use crate::shape::Size;

/// The arithmetic that [`pull_push`] needs.
pub trait Value: Copy + std::ops::Add<Output = Self> + std::ops::Mul<Output = Self> {
    /// Converts from f64, rounded.
    fn real(value: f64) -> Self;
}

impl Value for f32 {
    fn real(value: f64) -> Self {
        value as Self
    }
}

impl Value for f64 {
    fn real(value: f64) -> Self {
        value
    }
}

/// A level of the image pyramid.
struct Level<T> {
    size: Size,
    /// H,W.
    values: Vec<T>,
    /// H,W; whether each value is known.
    known: Vec<bool>,
}

impl<T: Value> Level<T> {
    /// The next coarser level (pull).
    fn coarser(&self) -> Self {
        let (fine, size) = (self.size, self.size.map(|side| side.div_ceil(2)));
        let (mut values, mut known) =
            (Vec::with_capacity(size.area()), Vec::with_capacity(size.area()));
        for (y, x) in (0..size.h).flat_map(|y| (0..size.w).map(move |x| (y, x))) {
            let (mut sum, mut count) = (T::real(0.0), 0);
            for (y, x) in
                [(2 * y, 2 * x), (2 * y, 2 * x + 1), (2 * y + 1, 2 * x), (2 * y + 1, 2 * x + 1)]
            {
                if y < fine.h && x < fine.w && self.known[y * fine.w + x] {
                    sum = sum + self.values[y * fine.w + x];
                    count += 1;
                }
            }
            values.push(sum * T::real(1.0 / f64::from(count.max(1))));
            known.push(count > 0);
        }
        Self { size, values, known }
    }

    /// The bilinear interpolation of this level at pixel (y, x) of the next finer level (push).
    fn interpolate(&self, y: usize, x: usize) -> T {
        // The centre of a fine pixel lies a quarter of a coarse pixel from the centre of its
        // parent, hence the weights 3/4 and 1/4 for the parent and its neighbour on that side.
        let neighbours = |at: usize, side: usize| {
            let other = if at.is_multiple_of(2) {
                (at / 2).saturating_sub(1)
            } else {
                (at / 2 + 1).min(side - 1)
            };
            [at / 2, other]
        };
        let Size { h, w } = self.size;
        let (rows, columns) = (neighbours(y, h), neighbours(x, w));
        let row = |y: usize| {
            self.values[y * w + columns[0]] * T::real(0.75)
                + self.values[y * w + columns[1]] * T::real(0.25)
        };
        row(rows[0]) * T::real(0.75) + row(rows[1]) * T::real(0.25)
    }
}

/// Replaces the unknown values (H,W) by a smooth guess and returns all values. `known[i]` is
/// whether `values[i]` is known. If no value is known, the result is 0 everywhere.
pub fn pull_push<T: Value>(size: Size, values: Vec<T>, known: Vec<bool>) -> Vec<T> {
    assert!([values.len(), known.len()] == [size.area(); 2], "values and mask of {size} pixels");
    let mut levels = vec![Level { size, values, known }];
    while let Some(last) = levels.last().filter(|level| level.size.area() > 1) {
        levels.push(last.coarser());
    }
    let mut coarse = levels.pop().expect("there is a level");
    if !coarse.known[0] {
        coarse.values[0] = T::real(0.0);
    }
    while let Some(mut level) = levels.pop() {
        for at in 0..level.values.len() {
            if !level.known[at] {
                level.values[at] = coarse.interpolate(at / level.size.w, at % level.size.w);
            }
        }
        coarse = level;
    }
    coarse.values
}

/// Fills the missing pixels of an image (H,W,C) in place, each channel separately.
pub fn fill(pixels: &mut [f32], c: usize, mask: &Mask) {
    assert_eq!(pixels.len(), mask.missing.len() * c, "a mask of the image's size");
    for channel in 0..c {
        let plane = pixels.iter().skip(channel).step_by(c).copied().collect();
        let known = mask.missing.iter().map(|missing| *missing == 0).collect();
        let filled = pull_push(mask.size, plane, known);
        pixels.iter_mut().skip(channel).step_by(c).zip(filled).for_each(|(to, from)| *to = from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_smoothly_and_known_pixels_stay() {
        // A ramp with a hole: the guess lies between the ends of the hole and increases along it.
        let (size, w) = (Size::new(9, 16), 16);
        let ramp: Vec<f64> = (0..size.area()).map(|i| (i % w) as f64).collect();
        let known: Vec<bool> = (0..size.area()).map(|i| !(5..11).contains(&(i % w))).collect();
        let filled = pull_push(
            size,
            ramp.iter().zip(&known).map(|(v, known)| if *known { *v } else { 1e9 }).collect(),
            known.clone(),
        );
        for (at, value) in filled.iter().enumerate() {
            if known[at] {
                assert_eq!(*value, ramp[at]);
            } else {
                assert!(
                    (3.0..12.0).contains(value) && (value - ramp[at]).abs() < 3.0,
                    "{at}: {value}"
                );
            }
        }
        assert!(filled[9] > filled[6], "the ramp increases");
    }

    #[test]
    fn one_known_pixel_fills_the_image() {
        let known = (0..15).map(|i| i == 4).collect();
        let filled = pull_push(Size::new(3, 5), vec![7.0_f32; 15], known);
        assert!(filled.iter().all(|v| *v == 7.0), "{filled:?}");
        assert_eq!(pull_push(Size::new(1, 1), vec![5.0_f32], vec![true]), [5.0]);
    }

    #[test]
    fn an_image_without_known_pixels_is_0() {
        assert_eq!(pull_push(Size::new(2, 3), vec![5.0_f32; 6], vec![false; 6]), [0.0; 6]);
    }

    #[test]
    fn channels_are_filled_separately() {
        let mask = Mask { size: Size::new(1, 2), missing: vec![0, 1] };
        let mut pixels = [0.25, 0.5, 9.0, 9.0];
        fill(&mut pixels, 2, &mask);
        assert_eq!(pixels, [0.25, 0.5, 0.25, 0.5]);
    }
}
