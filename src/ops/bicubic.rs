//! The loss of detail that super-resolution is to undo: samples shrunk and enlarged again, on the
//! device.

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
    /// y = x shrunk by a scale s and enlarged again to its size, both by Keys' cubic (a = −½;
    /// stretched by s when shrinking; mirrored at the edges, the edge pixel twice) as MATLAB's
    /// `imresize` has it ([`crate::raster::resample`]), nothing rounded between. s is one of
    /// `scales`, drawn for each sample by `rng::word([n, step, 0x7363_616c, …])`; `level` is
    /// [`BicubicDownUp::level_of`], one value a sample. The sides are multiples of every
    /// scale. x, y (N,H,W,C).
    BicubicDownUp {
        /// Batch.
        n: usize,
        /// One sample.
        dims: Dims,
        /// One at least, [`BicubicDownUp::MAX_SCALES`] at most, each up to
        /// [`BicubicDownUp::MAX_SCALE`].
        scales: Vec<usize>,
    }
    reads { x } writes { y, level }
    scratch {
        /// The samples changed along the columns alone.
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
    struct BicubicDownUpParams { len: u32, side: u32, inner: u32, sample: u32, scales: u32, count: u32 }
}

impl BicubicDownUp {
    /// Largest scale: it is packed into four bits, and 8 is the largest that anyone publishes.
    pub const MAX_SCALE: usize = 8;
    /// Maximum number of scales: so many fit into a word of 32 bits beside a spare nibble.
    pub const MAX_SCALES: usize = 7;

    const STREAM: u32 = 0x7363_616c;

    /// The scale of sample `n` of the batch at a step.
    pub fn scale_of(&self, n: u32, step: u32, seed: u64) -> usize {
        self.scales
            [rng::below(rng::word(n, step, Self::STREAM, seed), self.scales.len() as u32) as usize]
    }

    /// The condition that a model gets for a scale: by how much the side has grown, in tens.
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
