//! Local contrast normalisation (Jarrett et al., "What is the Best Multi-Stage Architecture for
//! Object Recognition?", 2009), here with a box window.

use rayon::prelude::*;

use super::alone::{Alone, MAPS};
use super::{Work, each, maps_of, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};
use crate::linalg::real::Real;
use crate::reference::{Memory, Reference};
use crate::shape::Dims;

shaders! {
    LocalContrastSums "local_contrast_sums",
    LocalContrast "local_contrast",
}

operation! {
    /// y = (x − μ)/√(σ² + eps), with μ and σ² the mean and variance over a square window around the
    /// pixel and over all channels. Only the part of the window inside the map counts. x, y
    /// (N,H,W,C).
    ///
    /// σ² is computed as the mean of x² minus μ², so its rounding error is relative to x². `eps`
    /// should be above 10⁻⁶ of x².
    LocalContrast {
        /// Batch size.
        n: usize,
        /// Size of a sample.
        dims: Dims,
        /// Side of the window, odd.
        window: usize,
        /// Added to the variance.
        eps: f64,
    }
    reads { x } writes { y }
    scratch {
        /// For each pixel Σx and Σx² over its channels and the window's rows: 2·n·H·W reals.
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
    /// Number of elements of `sums`.
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

// The CPU path sums in f64.
impl Reference for LocalContrast {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        let Dims { c, h, w } = self.dims;
        let (x, reach, len) = (memory.real(self.x), self.window / 2, self.dims.len());
        y.par_chunks_exact_mut(len).zip(x.par_chunks_exact(len)).for_each(|(y, x)| {
            let column = |row: usize, column: usize| {
                let (first, last) = (row.saturating_sub(reach), (row + reach).min(h - 1));
                let mut sums = [0.0_f64; 2];
                for row in first..=last {
                    for x in &x[(row * w + column) * c..][..c] {
                        sums[0] += x.f64();
                        sums[1] += x.f64() * x.f64();
                    }
                }
                sums
            };
            for row in 0..h {
                let sums: Vec<[f64; 2]> = (0..w).map(|at| column(row, at)).collect();
                let rows = (row + reach).min(h - 1) - row.saturating_sub(reach) + 1;
                for at in 0..w {
                    let (first, last) = (at.saturating_sub(reach), (at + reach).min(w - 1));
                    let total = sums[first..=last]
                        .iter()
                        .fold([0.0, 0.0], |a, b| [a[0] + b[0], a[1] + b[1]]);
                    let count = (rows * (last - first + 1) * c) as f64;
                    let mean = total[0] / count;
                    let factor =
                        ((total[1] / count - mean * mean).max(0.0) + self.eps).sqrt().recip();
                    let place = (row * w + at) * c;
                    for (y, x) in y[place..place + c].iter_mut().zip(&x[place..place + c]) {
                        *y = T::of((x.f64() - mean) * factor);
                    }
                }
            }
        });
        memory.put(y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::view::StepParams;

    #[test]
    fn flat_areas_vanish_and_steps_stay() {
        let dims = Dims::new(1, 5, 5);
        let mut device = Device::oracle();
        let (x, y) = (device.alloc_real("x", 25).unwrap(), device.alloc_real("y", 25).unwrap());
        let sums = device.alloc_real("sums", LocalContrast::work(1, dims)).unwrap();
        // The last column is brighter.
        let values: Vec<f64> = (0..25).map(|i| if i % 5 == 4 { 1.0 } else { 0.5 }).collect();
        device.write_f64(*x, &values);
        let call = LocalContrast { n: 1, dims, window: 3, eps: 1e-4, x: *x, y: *y, sums: *sums };
        let program = device.compile(vec![call.into()]).unwrap();
        device.run(&program, &StepParams::default()).unwrap();
        let found = device.read_f64(*y).unwrap();
        assert!(found[..3].iter().all(|y| y.abs() < 1e-9), "{found:?}");
        // At the right edge half of the window's six pixels are 1: the mean is 0.75, the standard
        // deviation 0.25.
        let wanted = 0.25 / (0.0625_f64 + 1e-4).sqrt();
        assert!((found[14] - wanted).abs() < 1e-9 && found[13] < 0.0, "{found:?}");
    }
}
