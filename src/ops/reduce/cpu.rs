//! CPU twins of `ops/reduce.rs`. Sums are in f64 and are added block by block, in order.

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::{ChannelSum, CountNonzero, SumSquares};
use crate::reference::parallel::{CHUNK, sum_map, units};
use crate::reference::{Memory, Reference};

/// Adds the rows of `x` to `sums`. With few channels several rows are added at once, to fill the
/// vector registers.
fn add_rows<T: Real>(x: &[T], sums: &mut [f64]) {
    let c = sums.len();
    let mut lanes = vec![0.0; 16_usize.div_ceil(c) * c];
    let groups = x.chunks_exact(lanes.len());
    for (lane, &x) in lanes.iter_mut().zip(groups.remainder()) {
        *lane += x.f64();
    }
    for group in groups {
        for (lane, &x) in lanes.iter_mut().zip(group) {
            *lane += x.f64();
        }
    }
    for lanes in lanes.chunks_exact(c) {
        for (sum, &lane) in sums.iter_mut().zip(lanes) {
            *sum += lane;
        }
    }
}

impl Reference for ChannelSum {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        let (x, c) = (memory.real(self.x), self.channels);
        assert!(x.len() == self.rows * c && y.len() == c, "{self:?}");
        if let Some(weight) = self.weight {
            let weight = memory.real(weight);
            let samples: Vec<Vec<f64>> = x
                .par_chunks(x.len() / weight.len())
                .map(|x| {
                    let mut sums = vec![0.0; c];
                    add_rows(x, &mut sums);
                    sums
                })
                .collect();
            for (c, y) in y.iter_mut().enumerate() {
                *y = T::of(
                    samples.iter().zip(weight).map(|(sums, weight)| sums[c] * weight.f64()).sum(),
                );
            }
            return memory.put(y);
        }
        let sums = if self.rows >= 256 {
            let parts: Vec<Vec<f64>> = x
                .par_chunks(units(c).max(128) * c)
                .map(|x| {
                    let mut sums = vec![0.0; c];
                    add_rows(x, &mut sums);
                    sums
                })
                .collect();
            parts.into_iter().fold(vec![0.0; c], |mut sums, part| {
                sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                sums
            })
        } else {
            let mut sums = vec![0.0; c];
            sums.par_chunks_mut(1024).enumerate().for_each(|(i, sums)| {
                for row in x.chunks_exact(c) {
                    for (sum, &x) in sums.iter_mut().zip(&row[i * 1024..]) {
                        *sum += x.f64();
                    }
                }
            });
            sums
        };
        for (y, sum) in y.iter_mut().zip(sums) {
            *y = T::of(sum);
        }
        memory.put(y);
    }
}

/// Writes a scalar of the current step.
pub fn put_scalar<T: Real>(
    memory: &mut Memory<T>,
    scalars: crate::view::View,
    width: usize,
    index: usize,
    value: f64,
) {
    let at = memory.scalar_index(width, index);
    let mut scalars = memory.take(scalars);
    scalars[at] = T::of(value);
    memory.put(scalars);
}

impl Reference for CountNonzero {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let count: usize = memory
            .real(self.x)
            .par_chunks(CHUNK)
            .map(|x| x.iter().filter(|&&v| v != T::ZERO).count())
            .sum();
        put_scalar(memory, self.scalars, self.width, self.index, self.scale * count as f64);
    }
}

impl Reference for SumSquares {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let sum = sum_map(memory.real(self.x), |v| v.f64() * v.f64());
        put_scalar(memory, self.scalars, self.width, self.index, self.scale * sum.sqrt());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::WINDOW;
    use crate::reference::testing::{Setup, assert_close, assert_threads_agree};
    use crate::testing::normals;

    fn channel_sum(rows: usize, channels: usize) -> (Vec<f64>, Vec<f64>) {
        let values = normals(1, rows * channels);
        let mut s = Setup::<f32>::new();
        let (x, y, partials) = (s.real(&values), s.out(channels), s.out(1));
        let expected =
            (0..channels).map(|c| values.iter().skip(c).step_by(channels).sum()).collect();
        (s.run(&ChannelSum { rows, channels, x, weight: None, y, partials }, y), expected)
    }

    #[test]
    fn channels_are_summed() {
        for (rows, channels) in
            [(1, 1), (7, 3), (1000, 1), (20_011, 3), (300, 17), (700, 100), (5, 2500), (256, 300)]
        {
            let (got, expected) = channel_sum(rows, channels);
            assert_close(&got, &expected, 1e-6);
        }
        assert_threads_agree(|| channel_sum(20_011, 3).0);
    }

    #[test]
    fn scalars_are_written_to_their_slot() {
        let mut s = Setup::<f64>::new();
        let (x, scalars, partials) =
            (s.real(&[3.0, 0.0, -4.0, -0.0]), s.real(&[-1.0; 6]), s.out(1));
        s.memory.step.slot = 1;
        s.run(
            &SumSquares { scale: 1.0, width: 3, index: 2, window: WINDOW, x, scalars, partials },
            scalars,
        );
        let got =
            s.run(&CountNonzero { scale: 0.5, width: 3, index: 0, x, scalars, partials }, scalars);
        assert_eq!(got, [-1.0, -1.0, -1.0, 1.0, -1.0, 5.0]);
    }
}
