//! Local contrast normalisation (Jarrett et al., "What is the Best Multi-Stage Architecture for
//! Object Recognition?", 2009; here with a box for a window).

mod cpu;

use super::alone::{Alone, MAPS};
use super::{Work, each, maps_of, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};
use crate::shape::Dims;

shaders! {
    LocalContrastSums "local_contrast_sums",
    LocalContrast "local_contrast",
}

operation! {
    /// y = (x − μ)/√(σ² + eps): μ and σ² are mean and variance over a square window around the
    /// pixel and over all channels; what lies outside the map is left out. σ² is the mean of x²
    /// less μ², so that it is rounded on the scale of x²: eps should be above 10⁻⁶ of that. x, y
    /// (N,H,W,C).
    LocalContrast {
        /// Batch.
        n: usize,
        /// One sample.
        dims: Dims,
        /// Side of the window, odd.
        window: usize,
        /// What is added to the variance.
        eps: f64,
    }
    reads { x } writes { y }
    scratch {
        /// Σx and Σx² of each pixel over its channels and over the window's rows: 2·n·H·W reals.
        sums
    }
}

impl Work for LocalContrast {
    fn flops(&self) -> f64 {
        each(self.x.len, 3 * self.window + 2)
    }

    fn sizes(&self) -> String {
        format!("{} w{}", maps_of(self.n, self.dims), self.window)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let dims = MAPS;
            let ([x, y], sums) = (m.two(n * dims.len()), m.real(Self::work(n, dims)));
            Self { n, dims, window: 9, eps: 1e-3, x, y, sums }
        });
        vec![one]
    }
}

params! {
    struct LocalContrastParams { len: u32, h: u32, w: u32, c: u32, reach: u32, eps: f32 }
}

impl LocalContrast {
    /// Elements of `sums`.
    pub const fn work(n: usize, dims: Dims) -> usize {
        2 * n * dims.area()
    }

    pub(crate) fn record(&self, r: &mut Recorder) {
        let Dims { c, h, w } = self.dims;
        let pixels = self.n * h * w;
        let reach = self.window / 2;
        let params = LocalContrastParams {
            len: self.y.len as u32,
            h: h as u32,
            w: w as u32,
            c: c as u32,
            reach: reach as u32,
            eps: self.eps as f32,
        };
        r.kernel(Kernel::LocalContrastSums, &params)
            .bind("x", self.x)
            .bind("sums", self.sums)
            .threads(pixels);
        r.kernel(Kernel::LocalContrast, &params)
            .bind("x", self.x)
            .bind("sums", self.sums)
            .bind("y", self.y)
            .threads(self.y.len.div_ceil(4));
    }
}
