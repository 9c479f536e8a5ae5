//! Augmentation of labelled images: random transforms of pixels, label images and boxes.

use super::boxes::Bounds;
use crate::rng::Stream;
use crate::shape::Size;

/// A dihedral transform of a square or, without `transpose`, of a rectangle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flips {
    /// Exchange left and right.
    pub flip_x: bool,
    /// Exchange top and bottom.
    pub flip_y: bool,
    /// Exchange rows and columns, after the flips.
    pub transpose: bool,
}

impl Flips {
    /// A random transform: each of the allowed flips has a probability of ½.
    pub fn draw(allowed: Self, stream: &mut Stream) -> Self {
        let mut coin = |allowed: bool| allowed && stream.below(2) == 1;
        Self {
            flip_x: coin(allowed.flip_x),
            flip_y: coin(allowed.flip_y),
            transpose: coin(allowed.transpose),
        }
    }

    /// Row and column in the source image, which has `size`, of the pixel (`y`, `x`) of the
    /// transformed image.
    pub const fn source(self, y: usize, x: usize, size: Size) -> (usize, usize) {
        let (y, x) = if self.transpose { (x, y) } else { (y, x) };
        let row = if self.flip_y { size.h - 1 - y } else { y };
        (row, if self.flip_x { size.w - 1 - x } else { x })
    }

    /// Transforms a box in a square image of side `side`.
    pub fn bounds(self, bounds: Bounds, side: f64) -> Bounds {
        let Bounds { mut left, mut top, mut right, mut bottom } = bounds;
        if self.flip_x {
            (left, right) = (side - right, side - left);
        }
        if self.flip_y {
            (top, bottom) = (side - bottom, side - top);
        }
        if self.transpose {
            Bounds { left: top, top: left, right: bottom, bottom: right }
        } else {
            Bounds { left, top, right, bottom }
        }
    }
}

/// A change of brightness and contrast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter {
    /// Added to every value.
    pub brightness: f32,
    /// Factor on the distance from middle gray.
    pub contrast: f32,
}

impl Jitter {
    /// Applies the change to a value on the 0–1 scale and clips the result to 0–1.
    pub fn apply(self, value: f32) -> f32 {
        ((value - 0.5) * self.contrast + 0.5 + self.brightness).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_move_with_their_pixels() {
        // A box of one pixel must be transformed as its pixel is, under all eight transforms.
        let side = 5;
        for bits in 0..8 {
            let flips =
                Flips { flip_x: bits & 1 == 1, flip_y: bits & 2 == 2, transpose: bits & 4 == 4 };
            for (y, x) in [(0, 0), (1, 3), (4, 2)] {
                let (from_y, from_x) = flips.source(y, x, Size::new(side, side));
                let pixel = |y: usize, x: usize| Bounds {
                    left: x as f64,
                    top: y as f64,
                    right: x as f64 + 1.0,
                    bottom: y as f64 + 1.0,
                };
                assert_eq!(flips.bounds(pixel(from_y, from_x), side as f64), pixel(y, x), "{bits}");
            }
        }
    }
}
