//! Pure functions on pixel arrays with interleaved channels (H,W,C): resampling, hole filling,
//! noise and masks, colour spaces.

use std::ops::Range;

pub mod color;
pub mod corrupt;
pub mod fill;
pub(crate) mod glyphs;
pub mod resample;

/// Cuts the given rows and columns out of an image (H,W,C) of width `w` with `c` channels. The
/// result is H,W,C too.
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
