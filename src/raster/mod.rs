//! Pure functions on pixel arrays with interleaved channels (H,W,C): resampling, hole filling,
//! noise and masks, colour spaces.

use crate::shape::{Dims, Size};

pub mod color;
pub mod corrupt;
pub mod fill;
pub(crate) mod glyphs;
pub mod jpeg;
pub mod resample;

/// Cuts the part of `size` whose first row and column are `top` and `left` out of an image (H,W,C).
/// The result is H,W,C too.
pub fn crop<T: Copy>(pixels: &[T], from: Dims, (top, left): (usize, usize), size: Size) -> Vec<T> {
    (top..top + size.h)
        .flat_map(|y| &pixels[from.offset(0, y, left)..from.offset(0, y, left + size.w)])
        .copied()
        .collect()
}
