//! CPU twins of `ops/revive.rs`.

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::{FiringUpdate, IdleOnly, IdleUpdate, Revive};
use crate::reference::parallel::units;
use crate::reference::{Memory, Reference};

impl Reference for FiringUpdate {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut idle = memory.take(self.idle);
        let (z, c) = (memory.real(self.z), self.dims.c);
        // Or does not depend on the order, so it can be reduced in parallel.
        let fired = z
            .par_chunks(units(c) * c)
            .map(|z| {
                let mut fired = vec![false; c];
                for pixel in z.chunks_exact(c) {
                    for (fired, &z) in fired.iter_mut().zip(pixel) {
                        *fired |= z != T::ZERO;
                    }
                }
                fired
            })
            .reduce(
                || vec![false; c],
                |mut a, b| {
                    a.iter_mut().zip(b).for_each(|(a, b)| *a |= b);
                    a
                },
            );
        for (idle, fired) in idle.iter_mut().zip(fired) {
            *idle = if fired { T::ZERO } else { *idle + T::ONE };
        }
        memory.put(idle);
    }
}

impl Reference for IdleUpdate {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let (mut unseen, mut idle) = (memory.take(self.unseen), memory.take(self.idle));
        let parts = T::of(self.parts as f64);
        for (unseen, idle) in unseen.iter_mut().zip(idle.iter_mut()) {
            *idle = if *unseen == parts { *idle + T::ONE } else { T::ZERO };
            *unseen = T::ZERO;
        }
        memory.put(unseen);
        memory.put(idle);
    }
}

impl Reference for IdleOnly {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        let (x, idle, c) = (memory.real(self.x), memory.real(self.idle), self.dims.c);
        let (patience, fill) = (T::of(self.patience as f64), T::of(self.fill));
        let block = units(c) * c;
        y.par_chunks_mut(block).zip(x.par_chunks(block)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                for (y, (&x, &idle)) in y.iter_mut().zip(x.iter().zip(idle)) {
                    *y = if idle >= patience { x } else { fill };
                }
            }
        });
        memory.put(y);
    }
}

/// The push for each unit: `by` if it is dead, else 0.
pub fn pushes<T: Real>(idle: &[T], patience: usize, by: f64) -> Vec<T> {
    let (patience, by) = (T::of(patience as f64), T::of(by));
    idle.iter().map(|&idle| if idle >= patience { by } else { T::ZERO }).collect()
}

/// Subtracts the pushes from the gradients of whole pixels.
pub fn push<T: Real>(dx: &mut [T], pushes: &[T]) {
    for pixel in dx.chunks_exact_mut(pushes.len()) {
        for (dx, &push) in pixel.iter_mut().zip(pushes) {
            *dx -= push;
        }
    }
}

impl Reference for Revive {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dx = memory.take(self.dx);
        let (c, by) = (self.dims.c, self.strength / (self.n * self.dims.area()) as f64);
        let pushes = pushes(memory.real(self.idle), self.patience, by);
        if pushes.iter().any(|&push| push != T::ZERO) {
            dx.par_chunks_mut(units(c) * c).for_each(|dx| push(dx, &pushes));
        }
        memory.put(dx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::testing::Setup;
    use crate::shape::Dims;

    #[test]
    fn idle_units_are_counted_and_pushed() {
        let (n, dims) = (2, Dims::new(3, 1, 2));
        let mut s = Setup::<f64>::new();
        let mut values = [0.0; 12];
        values[10] = -0.5; // the last pixel of channel 1
        let (z, idle, dx) = (s.real(&values), s.real(&[4.0, 4.0, 1.0]), s.real(&[1.0; 12]));
        assert_eq!(s.run(&FiringUpdate { n, dims, z, idle }, idle), [5.0, 0.0, 2.0]);
        let got = s.run(&Revive { n, dims, patience: 5, strength: 2.0, idle, dx }, dx);
        for pixel in got.chunks(3) {
            assert_eq!(pixel, [0.5, 1.0, 1.0]);
        }
    }

    #[test]
    fn a_batch_in_parts_updates_the_counters_once() {
        let dims = Dims::new(3, 1, 1);
        let mut s = Setup::<f64>::new();
        let (unseen, idle) = (s.real(&[0.0; 3]), s.real(&[4.0, 4.0, 4.0]));
        for values in [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 2.0]] {
            let z = s.real(&values);
            s.run(&FiringUpdate { n: 1, dims, z, idle: unseen }, unseen);
        }
        assert_eq!(s.run(&IdleUpdate { parts: 3, unseen, idle }, idle), [0.0, 5.0, 0.0]);
        assert_eq!(s.memory.real(unseen), [0.0; 3]);
    }
}
