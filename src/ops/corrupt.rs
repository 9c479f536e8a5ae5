//! Corruption of a batch on the device, which a restoration model learns to remove.

mod cpu;

use super::alone::{Alone, MAPS};
use super::{Work, each, maps_of, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};
use crate::rng;
use crate::shape::Dims;

shaders! {
    GaussianNoise "gaussian_noise",
}

operation! {
    /// y = x + σ_n·ε with ε from N(0,1): white Gaussian noise, neither clipped nor rounded. `level`
    /// receives σ_n for each sample, uniform in low…high (on the scale of x, 0…1).
    ///
    /// The element with NCHW index i in the batch uses the word w = `rng::word([i, step,
    /// 0x6e6f_6973, …])` ("nois" in ASCII): ε = √2·erf⁻¹(2u − 1) with u = (w + ½)/2³², erf⁻¹ by
    /// Giles, "Approximating the erfinv function", GPU Computing Gems 2011 (single precision). The
    /// level of sample n uses `rng::word([n, step, 0x6c65_7665, …])` ("leve").
    GaussianNoise {
        /// Batch size.
        n: usize,
        /// Size of a sample.
        dims: Dims,
        /// Minimum σ.
        low: f64,
        /// Maximum σ.
        high: f64,
    }
    reads { x } writes { y, level }
}

impl Work for GaussianNoise {
    fn flops(&self) -> f64 {
        each(self.y.len, 25)
    }

    fn sizes(&self) -> String {
        maps_of(self.n, self.dims)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let dims = MAPS;
            let ([x, y], level) = (m.two(n * dims.len()), m.real(n));
            Self { n, dims, low: 0.1, high: 0.1, x, y, level }
        });
        vec![one]
    }
}

params! {
    struct GaussianNoiseParams { vectors: u32, len: u32, c: u32, area: u32, low: f32, high: f32 }
}

impl GaussianNoise {
    /// The random streams of the noise and of the levels.
    const STREAMS: [u32; 2] = [0x6e6f_6973, 0x6c65_7665];

    /// σ of sample `n` of the batch at a step.
    pub fn level_of(&self, n: u32, step: u32, seed: u64) -> f64 {
        let share = f64::from(rng::word(n, step, Self::STREAMS[1], seed) >> 8) / 16_777_216.0;
        self.low + (self.high - self.low) * share
    }

    /// The random word of element `i` of the batch at a step.
    pub fn word_of(i: u32, step: u32, seed: u64) -> u32 {
        rng::word(i, step, Self::STREAMS[0], seed)
    }

    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.y.len.div_ceil(4);
        let params = GaussianNoiseParams {
            vectors: vectors as u32,
            len: self.y.len as u32,
            c: self.dims.c as u32,
            area: self.dims.area() as u32,
            low: self.low as f32,
            high: self.high as f32,
        };
        r.kernel(Kernel::GaussianNoise, &params)
            .bind("x", self.x)
            .bind("y", self.y)
            .bind("level", self.level)
            .threads(vectors);
    }
}
