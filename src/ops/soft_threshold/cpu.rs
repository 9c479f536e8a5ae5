//! CPU twins of `ops/soft_threshold.rs`.

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::{SoftThresholdBwd, SoftThresholdFwd};
use crate::reference::parallel::units;
use crate::reference::{Memory, Reference};
use crate::view::View;

/// The thresholds: C for each sample, or without noise levels C for all samples.
fn thresholds<T: Real>(
    memory: &Memory<T>,
    threshold: View,
    slope: Option<View>,
    level: Option<View>,
) -> Vec<T> {
    let threshold = memory.real(threshold);
    let Some((slope, level)) = slope.zip(level) else { return threshold.to_vec() };
    let row = |&level: &T| {
        threshold.iter().zip(memory.real(slope)).map(move |(&t, &slope)| t + slope * level)
    };
    memory.real(level).iter().flat_map(row).collect()
}

/// Maps the index of a pixel's first element to the range of its thresholds.
fn threshold_range<T: Real>(
    thresholds: &[T],
    c: usize,
    sample: usize,
) -> impl Fn(usize) -> std::ops::Range<usize> {
    let rows = thresholds.len() / c;
    move |element| {
        let row = if rows == 1 { 0 } else { element / sample };
        row * c..(row + 1) * c
    }
}

impl Reference for SoftThresholdFwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        let (x, c, sample) = (memory.real(self.x), self.dims.c, self.dims.len());
        let threshold = thresholds(memory, self.threshold, self.slope, self.level);
        let range = threshold_range(&threshold, c, sample);
        let block = units(c) * c;
        y.par_chunks_mut(block).zip(x.par_chunks(block)).enumerate().for_each(|(i, (y, x))| {
            for (j, (y, x)) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)).enumerate() {
                let threshold = &threshold[range(i * block + j * c)];
                for ((y, &x), &t) in y.iter_mut().zip(x).zip(threshold) {
                    let above = x.abs() - t;
                    let signed = if x < T::ZERO { -above } else { above };
                    // sign(0) = 0. This matters only for negative thresholds.
                    *y = if above <= T::ZERO || x == T::ZERO { T::ZERO } else { signed };
                }
            }
        });
        memory.put(y);
    }
}

impl Reference for SoftThresholdBwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let (mut dx, mut dt) = (memory.take(self.dx), memory.take(self.dt));
        let (x, dy) = (memory.real(self.x), memory.real(self.dy));
        let (c, sample) = (self.dims.c, self.dims.len());
        let threshold = thresholds(memory, self.threshold, self.slope, self.level);
        let range = threshold_range(&threshold, c, sample);
        let block = units(c) * c;
        let blocks = (
            dx.par_chunks_mut(block),
            dt.par_chunks_mut(block),
            x.par_chunks(block),
            dy.par_chunks(block),
        );
        blocks.into_par_iter().enumerate().for_each(|(i, (dx, dt, x, dy))| {
            let pixels = dx
                .chunks_exact_mut(c)
                .zip(dt.chunks_exact_mut(c))
                .zip(x.chunks_exact(c))
                .zip(dy.chunks_exact(c));
            for (j, (((dx, dt), x), dy)) in pixels.enumerate() {
                let threshold = &threshold[range(i * block + j * c)];
                for ((((dx, dt), &x), &dy), &t) in
                    dx.iter_mut().zip(dt).zip(x).zip(dy).zip(threshold)
                {
                    *dx = if x.abs() > t { dy } else { T::ZERO };
                    // sign(0) = 0. This matters only for negative thresholds.
                    *dt = if x > T::ZERO {
                        -*dx
                    } else if x < T::ZERO {
                        *dx
                    } else {
                        T::ZERO
                    };
                }
            }
        });
        memory.put(dx);
        memory.put(dt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::testing::{Setup, assert_close, numeric_gradient};
    use crate::shape::Dims;
    use crate::testing::{dot, normals};

    #[test]
    fn gradients_are_derivatives() {
        let (n, dims) = (2, Dims::new(3, 2, 2));
        let (x, dy) = (normals(1, 24), normals(2, 24));
        let threshold = [0.3, 0.5, 0.0];
        let forward = |x: &[f64], threshold: &[f64]| {
            let mut s = Setup::<f64>::new();
            let (x, threshold, y) = (s.real(x), s.real(threshold), s.out(24));
            s.run(&SoftThresholdFwd { n, dims, x, threshold, slope: None, level: None, y }, y)
        };
        let y = forward(&x, &threshold);
        assert!(
            y.iter()
                .zip(&x)
                .enumerate()
                .all(|(i, (y, x))| *y == x.signum() * (x.abs() - threshold[i % 3]).max(0.0))
        );
        let mut s = Setup::<f64>::new();
        let [xv, dyv, tv] = [&x, &dy, &threshold.to_vec()].map(|v| s.real(v));
        let (dx, dt) = (s.out(24), s.out(24));
        let got = s.run(
            &SoftThresholdBwd {
                n,
                dims,
                x: xv,
                threshold: tv,
                slope: None,
                level: None,
                dy: dyv,
                dx,
                dt,
            },
            dx,
        );
        assert_close(
            &got,
            &numeric_gradient(&x, 1e-6, |x| dot(&forward(x, &threshold), &dy)),
            1e-8,
        );
        let mut sums = [0.0; 3];
        s.get(dt).iter().enumerate().for_each(|(i, v)| sums[i % 3] += v);
        assert_close(
            &sums,
            &numeric_gradient(&threshold, 1e-6, |t| dot(&forward(&x, t), &dy)),
            1e-8,
        );
        assert_eq!(forward(&[0.1; 24], &[0.2; 3]), [0.0; 24]);
        assert_eq!(forward(&[0.0; 24], &[-0.2; 3]), [0.0; 24]);
    }
}
