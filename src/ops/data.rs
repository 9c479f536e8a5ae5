//! Batches made on the device from the resident bytes.

use super::operation;
use crate::gpu::{Kernel, Recorder, params};
use crate::shape::Dims;

/// What may be done at random to each sample of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// Crop at a random place instead of the centre.
    pub crop: bool,
    /// Flip left to right with probability ½.
    pub flip_x: bool,
    /// Flip top to bottom with probability ½.
    pub flip_y: bool,
}

operation! {
    /// x[i] = a crop of image order[cursor + i], converted from bytes: x = byte·scale + shift, channels innermost.
    ///
    /// `bytes` holds images (H,W,C) one after the other, four bytes a word, little end first. `table` holds three words an image: byte offset,
    /// height, width; every image is at least as large as `dims`. Sample i draws w_j = `rng::word([cursor + i, step, 0x6a7468 + j, …])`: the crop's
    /// top is w₀ mod (height − h + 1), its left w₁ mod (width − w + 1) (else centred, rounded down); flips are the top bits of w₂ and w₃.
    GatherBatch {
        /// Batch.
        n: usize,
        /// One sample of the batch.
        dims: Dims,
        /// Augmentation.
        augment: Augment,
        /// Factor on bytes.
        scale: f64,
        /// Added after scaling.
        shift: f64,
    }
    reads { bytes, table, order } writes { x }
}

params! {
    struct GatherBatchParams {
        len: u32,
        height: u32,
        width: u32,
        channels: u32,
        crop: u32,
        flip_x: u32,
        flip_y: u32,
        scale: f32,
        shift: f32,
    }
}

impl GatherBatch {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let params = GatherBatchParams {
            len: self.x.len as u32,
            height: self.dims.h as u32,
            width: self.dims.w as u32,
            channels: self.dims.c as u32,
            crop: self.augment.crop.into(),
            flip_x: self.augment.flip_x.into(),
            flip_y: self.augment.flip_y.into(),
            scale: self.scale as f32,
            shift: self.shift as f32,
        };
        r.kernel(Kernel::GatherBatch, &params)
            .bind("bytes", self.bytes)
            .bind("table", self.table)
            .bind("order", self.order)
            .bind("x", self.x)
            .threads(self.x.len.div_ceil(4));
    }
}
