//! Soft threshold with one learned threshold a channel: y = sign(x)·max(|x| − τ_c, 0).

use super::operation;
use crate::gpu::{Kernel, Recorder, params};
use crate::shape::Dims;

operation! {
    /// y = sign(x)·max(|x| − τ_c, 0).
    SoftThresholdFwd { n: usize, dims: Dims } reads { x, threshold } writes { y }
}

operation! {
    /// dx = dy where |x| > τ_c, else 0; `dt` = −sign(x)·dy there, else 0, element by element: its channel sums are the thresholds' gradient.
    SoftThresholdBwd { n: usize, dims: Dims } reads { x, threshold, dy } writes { dx, dt }
}

params! {
    struct SoftThresholdParams { vectors: u32, channels: u32 }
}

impl SoftThresholdFwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.y.len.div_ceil(4);
        r.kernel(Kernel::SoftThresholdFwd, &SoftThresholdParams { vectors: vectors as u32, channels: self.dims.c as u32 })
            .bind("x", self.x)
            .bind("threshold", self.threshold)
            .bind("y", self.y)
            .threads(vectors);
    }
}

impl SoftThresholdBwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.dx.len.div_ceil(4);
        r.kernel(Kernel::SoftThresholdBwd, &SoftThresholdParams { vectors: vectors as u32, channels: self.dims.c as u32 })
            .bind("x", self.x)
            .bind("threshold", self.threshold)
            .bind("dy", self.dy)
            .bind("dx", self.dx)
            .bind("dt", self.dt)
            .threads(vectors);
    }
}
