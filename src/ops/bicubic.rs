//! Degradation for super-resolution: shrinks samples and enlarges them again, on the device.

mod cpu;

use super::alone::{Alone, MAPS};
use super::{Work, each, maps_of, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};
use crate::rng;
use crate::shape::Dims;

shaders! {
    BicubicDownUp "bicubic_down_up",
}

operation! {
    /// y = x shrunk by a scale s and enlarged again to its size, without rounding in between. Both
    /// use Keys' cubic kernel with a = −½, as MATLAB's `imresize` ([`crate::raster::resample`]):
    /// stretched by s for shrinking, mirrored at the edges with the edge pixel twice.
    ///
    /// s is one of `scales`, selected for sample n by `rng::word([n, step, 0x7363_616c, …])`
    /// ("scal" in ASCII). `level` receives [`BicubicDownUp::level_of`] for each sample. Every scale
    /// must divide the sides. x, y (N,H,W,C).
    BicubicDownUp {
        /// Batch size.
        n: usize,
        /// Size of a sample.
        dims: Dims,
        /// From 1 to [`BicubicDownUp::MAX_SCALES`] scales, each at most
        /// [`BicubicDownUp::MAX_SCALE`].
        scales: Vec<usize>,
    }
    reads { x } writes { y, level }
    scratch {
        /// The samples after resampling along columns only.
        half
    }
}

impl Work for BicubicDownUp {
    fn flops(&self) -> f64 {
        each(self.y.len, 8 * (4 * self.scales.iter().max().unwrap_or(&1) + 1))
    }

    fn sizes(&self) -> String {
        maps_of(self.n, self.dims)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let dims = MAPS;
            let ([x, y], half, level) = (m.two(n * dims.len()), m.real(n * dims.len()), m.real(n));
            Self { n, dims, scales: vec![2, 4], x, y, level, half }
        });
        vec![one]
    }
}

params! {
    struct BicubicDownUpParams {
        len: u32, side: u32, inner: u32, sample: u32, scales: u32, count: u32,
    }
}

impl BicubicDownUp {
    /// Maximum scale. A scale is packed into four bits, and published results go up to 8.
    pub const MAX_SCALE: usize = 8;
    /// Maximum number of scales. They are packed into a word of 32 bits, and one nibble stays free.
    pub const MAX_SCALES: usize = 7;

    const STREAM: u32 = 0x7363_616c;

    /// The scale of sample `n` of the batch at a step.
    pub fn scale_of(&self, n: u32, step: u32, seed: u64) -> usize {
        self.scales
            [rng::below(rng::word(n, step, Self::STREAM, seed), self.scales.len() as u32) as usize]
    }

    /// The condition (noise level) that a model receives for a scale: (scale − 1)/10.
    pub fn level_of(scale: usize) -> f64 {
        0.1 * (scale as f64 - 1.0)
    }

    pub(crate) fn record(&self, r: &mut Recorder) {
        let dims = self.dims;
        let scales = self.scales.iter().rev().fold(0, |packed, scale| packed << 4 | *scale as u32);
        let params = BicubicDownUpParams {
            len: self.y.len as u32,
            side: dims.h as u32,
            inner: (dims.w * dims.c) as u32,
            sample: dims.len() as u32,
            scales,
            count: self.scales.len() as u32,
        };
        for (params, x, y) in [
            (params, self.x, self.half),
            (
                BicubicDownUpParams { side: dims.w as u32, inner: dims.c as u32, ..params },
                self.half,
                self.y,
            ),
        ] {
            r.kernel(Kernel::BicubicDownUp, &params)
                .bind("x", x)
                .bind("y", y)
                .bind("level", self.level)
                .threads(self.y.len);
        }
    }
}
