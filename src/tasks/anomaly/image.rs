//! An image in memory.

use crate::data::{Handles, Pixels};
use crate::error::Result;
use crate::shape::{Dims, Size};

/// An image as floating-point pixels, H,W,C.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Values in 0–1.
    pub pixels: Vec<f32>,
    /// Its size.
    pub dims: Dims,
}

impl Image {
    /// Reads an image of a set.
    ///
    /// # Errors
    /// If its file can no longer be read.
    pub fn read(images: &Pixels, image: usize, handles: &mut Handles) -> Result<Self> {
        let dims = Dims::of(images.size(image), images.channels());
        let pixels = images.values(image, handles)?;
        Ok(Self { pixels, dims })
    }

    /// Bytes needed for an image of `size` with `channels` channels, besides the batches of the
    /// network.
    pub fn bytes(channels: usize, size: Size) -> u64 {
        // The image, padded to the tile and as read, and one combination of its channels; filtered
        // maps and descriptors on a grid of 2×2 pixels, twice; odds and their weights in f64; up to
        // eight maps of views and smoothing; features, about 2.5 values a pixel in f64 and f32.
        let filters = 4 * 6 + 2 * super::filters::depth(channels) as u64;
        size.area() as u64 * (9 * channels as u64 + filters + 16 + 8 * 4 + 30)
    }
}
