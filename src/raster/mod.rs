//! Pure functions on arrays of pixels, interleaved as H,W,C: resampling, filling holes, noise and
//! masks, colour spaces.

use std::ops::Range;

pub mod color;
pub mod corrupt;
pub mod fill;
pub(crate) mod glyphs;
pub mod resample;

/// A part of a picture (H,W,C) of width `w`.
pub fn crop<T: Copy>(
    pixels: &[T],
    w: usize,
    c: usize,
    rows: Range<usize>,
    columns: Range<usize>,
) -> Vec<T> {
    rows.flat_map(|y| &pixels[(y * w + columns.start) * c..(y * w + columns.end) * c])
        .copied()
        .collect()
}
