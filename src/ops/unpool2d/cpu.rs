//! CPU twins of `ops/unpool2d.rs`.

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::{MaxUnpool2dBwd, MaxUnpool2dFwd, UpsampleNearest2dBwd, UpsampleNearest2dFwd};
use crate::reference::parallel::units;
use crate::reference::{Memory, Reference};

impl Reference for MaxUnpool2dFwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        let (small, large, c) = (self.size.y.len(), self.size.x.len(), self.size.x.c);
        let (x, switches) = (memory.real(self.x), memory.words(self.switches));
        let samples = units(large);
        let sources = x.par_chunks(samples * small).zip(switches.par_chunks(samples * small));
        y.par_chunks_mut(samples * large).zip(sources).for_each(|(y, (x, switches))| {
            y.fill(T::ZERO);
            for ((y, x), switches) in y
                .chunks_exact_mut(large)
                .zip(x.chunks_exact(small))
                .zip(switches.chunks_exact(small))
            {
                for (x, switches) in x.chunks_exact(c).zip(switches.chunks_exact(c)) {
                    for (i, (&x, &switch)) in x.iter().zip(switches).enumerate() {
                        y[switch as usize * c + i] = x;
                    }
                }
            }
        });
        memory.put(y);
    }
}

impl Reference for MaxUnpool2dBwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dx = memory.take(self.dx);
        let (small, large, c) = (self.size.y.len(), self.size.x.len(), self.size.x.c);
        let (dy, switches) = (memory.real(self.dy), memory.words(self.switches));
        let pixels = units(c);
        dx.par_chunks_mut(pixels * c).zip(switches.par_chunks(pixels * c)).enumerate().for_each(
            |(block, (dx, switches))| {
                for (i, (dx, switches)) in
                    dx.chunks_exact_mut(c).zip(switches.chunks_exact(c)).enumerate()
                {
                    let dy = &dy[(block * pixels + i) * c / small * large..];
                    for (i, (dx, &switch)) in dx.iter_mut().zip(switches).enumerate() {
                        *dx = dy[switch as usize * c + i];
                    }
                }
            },
        );
        memory.put(dx);
    }
}

impl Reference for UpsampleNearest2dFwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        let (x, [tall, wide], c) = (memory.real(self.x), self.scale, self.x_dims.c);
        let x_row = self.x_dims.w * c;
        let y_row = x_row * wide;
        let rows = units(y_row);
        y.par_chunks_mut(rows * y_row).enumerate().for_each(|(block, y)| {
            for (i, y) in y.chunks_exact_mut(y_row).enumerate() {
                // The height of y is a multiple of the scale, so that rows can be counted over all
                // samples.
                let x = &x[(block * rows + i) / tall * x_row..][..x_row];
                for (y, x) in y.chunks_exact_mut(wide * c).zip(x.chunks_exact(c)) {
                    y.chunks_exact_mut(c).for_each(|y| y.copy_from_slice(x));
                }
            }
        });
        memory.put(y);
    }
}

impl Reference for UpsampleNearest2dBwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dx = memory.take(self.dx);
        let (dy, [tall, wide], c) = (memory.real(self.dy), self.scale, self.x_dims.c);
        let x_row = self.x_dims.w * c;
        let y_row = x_row * wide;
        let rows = units(x_row);
        dx.par_chunks_mut(rows * x_row).zip(dy.par_chunks(rows * tall * y_row)).for_each(
            |(dx, dy)| {
                dx.fill(T::ZERO);
                for (dx, dy) in dx.chunks_exact_mut(x_row).zip(dy.chunks_exact(tall * y_row)) {
                    for dy in dy.chunks_exact(y_row) {
                        for (dx, dy) in dx.chunks_exact_mut(c).zip(dy.chunks_exact(wide * c)) {
                            for dy in dy.chunks_exact(c) {
                                for (dx, &dy) in dx.iter_mut().zip(dy) {
                                    *dx += dy;
                                }
                            }
                        }
                    }
                }
            },
        );
        memory.put(dx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::MaxPool2dFwd;
    use crate::reference::testing::{Setup, assert_close};
    use crate::shape::{Dims, Pool2d};
    use crate::testing::{dot, normals};

    #[test]
    fn unpooling_undoes_pooling_and_its_gradient_is_its_adjoint() {
        let size = Pool2d::new(2, Dims::new(3, 5, 6), [2, 3], [2, 3], [0, 0]).unwrap();
        let (small, large) = (2 * size.y.len(), 2 * size.x.len());
        let values = normals(1, large);
        let mut s = Setup::<f64>::new();
        let (x, y, switches) = (s.real(&values), s.out(small), s.words(&vec![0; small]));
        let pooled = s.run(&MaxPool2dFwd { size, x, y, switches }, y);
        let up = s.out(large);
        let unpooled = s.run(&MaxUnpool2dFwd { size, x: y, switches, y: up }, up);
        assert_eq!(unpooled.iter().filter(|&&v| v != 0.0).count(), small);
        assert!(unpooled.iter().zip(&values).all(|(&u, &v)| u == 0.0 || u == v));
        assert!((unpooled.iter().sum::<f64>() - pooled.iter().sum::<f64>()).abs() < 1e-12);
        let dy = normals(2, large);
        let (dyv, dx) = (s.real(&dy), s.out(small));
        let dx = s.run(&MaxUnpool2dBwd { size, dy: dyv, switches, dx }, dx);
        assert_close(&[dot(&unpooled, &dy)], &[dot(&pooled, &dx)], 1e-13);
    }

    #[test]
    fn the_last_window_of_a_shared_switch_wins() {
        let size = Pool2d::new(1, Dims::new(1, 1, 3), [1, 2], [1, 1], [0, 0]).unwrap();
        let mut s = Setup::<f64>::new();
        let (x, switches, y) = (s.real(&[5.0, 7.0]), s.words(&[1, 1]), s.out(3));
        assert_eq!(s.run(&MaxUnpool2dFwd { size, x, switches, y }, y), [0.0, 7.0, 0.0]);
    }

    #[test]
    fn nearest_upsampling_repeats_pixels_and_its_gradient_is_the_adjoint() {
        let x_dims = Dims::new(2, 3, 2);
        let scale = [2, 3];
        let (small, large) = (24, 24 * 6);
        let values = normals(3, small);
        let mut s = Setup::<f64>::new();
        let (x, y) = (s.real(&values), s.out(large));
        let up = s.run(&UpsampleNearest2dFwd { n: 2, x_dims, scale, x, y }, y);
        let y_dims = Dims::new(2, 6, 6);
        for (n, c, h, w) in [(0, 0, 0, 0), (0, 1, 5, 5), (1, 0, 3, 2), (1, 1, 2, 3)] {
            assert_eq!(
                up[n * 72 + y_dims.offset(c, h, w)],
                values[n * 12 + x_dims.offset(c, h / 2, w / 3)]
            );
        }
        let dy = normals(4, large);
        let (dyv, dx) = (s.real(&dy), s.out(small));
        let dx = s.run(&UpsampleNearest2dBwd { n: 2, x_dims, scale, dy: dyv, dx }, dx);
        assert_close(&[dot(&up, &dy)], &[dot(&values, &dx)], 1e-13);
    }
}
