//! CPU twins of `ops/elementwise.rs`.

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::{AddAssign, Combine, CopyChannels};
use crate::reference::parallel::{CHUNK, units};
use crate::reference::{Memory, Reference};

impl Reference for Combine {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        let a = memory.real(self.a).par_chunks(CHUNK);
        let [alpha, beta] = [self.alpha, self.beta].map(T::of);
        match self.b {
            None => y.par_chunks_mut(CHUNK).zip(a).for_each(|(y, a)| {
                for (y, &a) in y.iter_mut().zip(a) {
                    *y = alpha * a;
                }
            }),
            Some(b) => {
                (y.par_chunks_mut(CHUNK), a, memory.real(b).par_chunks(CHUNK))
                    .into_par_iter()
                    .for_each(|(y, a, b)| {
                        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                            *y = alpha * a + beta * b;
                        }
                    });
            }
        }
        memory.put(y);
    }
}

impl Reference for AddAssign {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        y.par_chunks_mut(CHUNK).zip(memory.real(self.x).par_chunks(CHUNK)).for_each(|(y, x)| {
            for (y, &x) in y.iter_mut().zip(x) {
                *y += x;
            }
        });
        memory.put(y);
    }
}

impl Reference for CopyChannels {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        let x = memory.real(self.x);
        assert!(
            x.len() == self.rows * self.x_channels && y.len() == self.rows * self.y_channels,
            "{self:?}"
        );
        let rows = units(self.y_channels);
        let blocks =
            y.par_chunks_mut(rows * self.y_channels).zip(x.par_chunks(rows * self.x_channels));
        blocks.for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(self.y_channels).zip(x.chunks_exact(self.x_channels)) {
                y[self.to..self.to + self.count]
                    .copy_from_slice(&x[self.from..self.from + self.count]);
            }
        });
        memory.put(y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::testing::Setup;

    #[test]
    fn combine_and_add_assign_match_their_formulas() {
        let mut s = Setup::<f64>::new();
        let (a, b, y) = (s.real(&[1.0, 2.0, 3.0]), s.real(&[10.0, 20.0, -30.0]), s.out(3));
        assert_eq!(
            s.run(&Combine { alpha: 2.0, beta: 0.5, a, b: Some(b), y }, y),
            [7.0, 14.0, -9.0]
        );
        assert_eq!(s.run(&Combine { alpha: 2.0, beta: 0.5, a, b: None, y }, y), [2.0, 4.0, 6.0]);
        assert_eq!(s.run(&AddAssign { x: b, y }, y), [12.0, 24.0, -24.0]);
    }

    #[test]
    fn copying_a_channel_range_keeps_other_channels() {
        let mut s = Setup::<f64>::new();
        let x = s.real(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let y = s.real(&[-1.0; 8]);
        let op =
            CopyChannels { rows: 2, x_channels: 3, from: 1, y_channels: 4, to: 2, count: 2, x, y };
        assert_eq!(s.run(&op, y), [-1.0, -1.0, 2.0, 3.0, -1.0, -1.0, 5.0, 6.0]);
    }
}
