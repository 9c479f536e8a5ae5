//! Letterboxing: images of any size in a square of fixed size.

use crate::annotations::boxes::Bounds;
use crate::raster::resample::imresize_to;
use crate::shape::Dims;

/// Value of the pixels of a square that the image does not cover.
const GRAY: f32 = 0.5;

/// The place of an image in a square. Parts of the image can be outside the square.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// Pixels of the square for one pixel of the image, down and across.
    pub scale: [f64; 2],
    /// Left edge of the image in the square, in pixels.
    pub left: f64,
    /// Upper edge of the image in the square, in pixels.
    pub top: f64,
}

impl Frame {
    /// Converts a box from pixels of the image to pixels of the square.
    pub fn to_square(&self, bounds: &Bounds) -> Bounds {
        let [down, across] = self.scale;
        Bounds {
            left: bounds.left * across + self.left,
            top: bounds.top * down + self.top,
            right: bounds.right * across + self.left,
            bottom: bounds.bottom * down + self.top,
        }
    }

    /// Converts a box from pixels of the square to pixels of the image.
    pub fn to_image(&self, bounds: &Bounds) -> Bounds {
        let [down, across] = self.scale;
        Bounds {
            left: (bounds.left - self.left) / across,
            top: (bounds.top - self.top) / down,
            right: (bounds.right - self.left) / across,
            bottom: (bounds.bottom - self.top) / down,
        }
    }
}

/// Puts an image (H,W,C bytes) into a square, whose values are on the 0–1 scale. The longer side of
/// the image becomes `zoom` times the side of the square. `at`, down and across, is the share of
/// the free space above and left of the image: 0 aligns it with the top or left edge, 0.5 centres
/// it, 1 aligns it with the bottom or right edge.
pub fn letterbox(
    pixels: &[u8],
    dims: Dims,
    side: usize,
    zoom: f64,
    at: [f64; 2],
) -> (Vec<f32>, Frame) {
    let Dims { c, h, w } = dims;
    let scale = zoom * side as f64 / h.max(w) as f64;
    let to = dims.size().map(|length| ((length as f64 * scale).round() as usize).max(1));
    let reals: Vec<f32> = pixels.iter().map(|byte| f32::from(*byte) / 255.0).collect();
    let resized = if to == dims.size() { reals } else { imresize_to(&reals, dims, to) };
    let place = |length: usize, at: f64| ((side as f64 - length as f64) * at).round() as isize;
    let (top, left) = (place(to.h, at[0]), place(to.w, at[1]));
    let mut out = vec![GRAY; side * side * c];
    for y in 0..side as isize {
        let from_y = y - top;
        if !(0..to.h as isize).contains(&from_y) {
            continue;
        }
        for x in 0..side as isize {
            let from_x = x - left;
            if (0..to.w as isize).contains(&from_x) {
                let (to_at, from) = (
                    (y as usize * side + x as usize) * c,
                    (from_y as usize * to.w + from_x as usize) * c,
                );
                let values = out[to_at..to_at + c].iter_mut().zip(&resized[from..from + c]);
                values.for_each(|(to, value)| *to = value.clamp(0.0, 1.0));
            }
        }
    }
    let scale = [to.h as f64 / h as f64, to.w as f64 / w as f64];
    (out, Frame { scale, left: left as f64, top: top as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_converted_to_the_square_and_back() {
        let mut pixels = vec![0_u8; 40 * 80];
        // A bright block in rows 10–20 and columns 40–60.
        (10..20).for_each(|y| pixels[y * 80 + 40..y * 80 + 60].fill(255));
        let dims = Dims::new(1, 40, 80);
        let (square, frame) = letterbox(&pixels, dims, 40, 1.0, [0.5, 0.5]);
        let bounds = Bounds { left: 40.0, top: 10.0, right: 60.0, bottom: 20.0 };
        let inside = frame.to_square(&bounds);
        assert_eq!(inside, Bounds { left: 20.0, top: 15.0, right: 30.0, bottom: 20.0 });
        assert_eq!(frame.to_image(&inside), bounds);
        assert!(square[17 * 40 + 25] > 0.9 && square[17 * 40 + 10] < 0.1 && square[0] == GRAY);
        // An image larger than the square: its lower right part is visible.
        let (_, near) = letterbox(&pixels, dims, 40, 2.0, [1.0, 1.0]);
        assert_eq!([near.left, near.top], [-40.0, 0.0]);
    }
}
