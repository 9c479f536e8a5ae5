//! CPU twins of `ops/pool2d.rs`. The innermost loops run over channels, which are contiguous.
//! Gradients are scattered within a sample, in the order of the windows.

use std::ops::Range;

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::activation;
use crate::ops::{
    AvgPool2dBwd, AvgPool2dFwd, L2Pool2dBwd, L2Pool2dFwd, MaxPool2dBwd, MaxPool2dFwd,
};
use crate::reference::parallel::units;
use crate::reference::{Memory, Reference};
use crate::shape::Pool2d;

/// The rows and columns of a window that are inside the map.
#[inline(always)]
fn window(size: &Pool2d, p: usize, q: usize) -> [Range<usize>; 2] {
    let range = |axis: usize, p: usize, limit: usize| {
        let start = p * size.stride[axis];
        start.saturating_sub(size.padding[axis])
            ..(start + size.kernel[axis] - size.padding[axis]).min(limit)
    };
    [range(0, p, size.x.h), range(1, q, size.x.w)]
}

/// The divisor of the mean over a window.
fn divisor(size: &Pool2d, count_include_pad: bool, p: usize, q: usize) -> f64 {
    let count = if count_include_pad {
        let side = |axis: usize, p: usize, limit: usize| {
            let start = p * size.stride[axis];
            (start + size.kernel[axis]).min(limit + 2 * size.padding[axis]) - start
        };
        side(0, p, size.x.h) * side(1, q, size.x.w)
    } else {
        let [h, w] = window(size, p, q);
        h.len() * w.len()
    };
    count as f64
}

/// Calls `f(pixel of y, n, p, q)` for every pixel, in parallel over blocks of whole rows.
fn for_pixels<Y: Send>(
    size: &Pool2d,
    y: &mut [Y],
    f: impl Fn(&mut [Y], usize, usize, usize) + Sync,
) {
    let (c, row) = (size.y.c, size.y.w * size.y.c);
    let rows = units(row);
    y.par_chunks_mut(rows * row).enumerate().for_each(|(block, y)| {
        for (i, y) in y.chunks_exact_mut(row).enumerate() {
            let (n, p) = ((block * rows + i) / size.y.h, (block * rows + i) % size.y.h);
            for (q, y) in y.chunks_exact_mut(c).enumerate() {
                f(y, n, p, q);
            }
        }
    });
}

/// Computes dx: calls `f(dx of the sample, index of the pixel in y, p, q)` for every output pixel,
/// which adds the pixel's contribution.
fn scatter<T: Real>(size: &Pool2d, dx: &mut [T], f: impl Fn(&mut [T], usize, usize, usize) + Sync) {
    let sample = size.x.len();
    let samples = units(sample);
    dx.par_chunks_mut(samples * sample).enumerate().for_each(|(block, dx)| {
        dx.fill(T::ZERO);
        for (i, dx) in dx.chunks_exact_mut(sample).enumerate() {
            for p in 0..size.y.h {
                for q in 0..size.y.w {
                    f(dx, (((block * samples + i) * size.y.h + p) * size.y.w + q) * size.y.c, p, q);
                }
            }
        }
    });
}

/// The pixels of a window: the index of the first channel of each within the sample.
fn pixels(size: &Pool2d, p: usize, q: usize) -> impl Iterator<Item = usize> + use<> {
    let [h, w] = window(size, p, q);
    let (width, c) = (size.x.w, size.x.c);
    h.flat_map(move |h| w.clone().map(move |w| (h * width + w) * c))
}

/// The maxima of a window for `L` channels, and their positions. `x` is the sample's map from the
/// first of these channels on. Ties go to the first element, and the first NaN wins over numbers.
#[inline(always)]
fn max_window<T: Real, const L: usize>(
    size: &Pool2d,
    x: &[T],
    [h, w]: &[Range<usize>; 2],
) -> ([T; L], [u32; L]) {
    let (c, width) = (size.x.c, size.x.w);
    let first = h.start * width + w.start;
    // Arrays of fixed length stay in registers from pixel to pixel.
    let mut max = *x[first * c..].first_chunk::<L>().expect("the channels are in the map");
    let mut at = [first as u32; L];
    for h in h.clone() {
        for position in h * width + w.start..h * width + w.end {
            let x = x[position * c..].first_chunk::<L>().expect("the channels are in the map");
            for lane in 0..L {
                let better = ((x[lane] > max[lane]) | x[lane].is_nan()) & !max[lane].is_nan();
                max[lane] = if better { x[lane] } else { max[lane] };
                at[lane] = if better { position as u32 } else { at[lane] };
            }
        }
    }
    (max, at)
}

/// Computes the maxima of all whole groups of `L` channels from channel `from` on. Returns the
/// first channel that is left.
#[inline(always)]
fn max_groups<T: Real, const L: usize>(
    size: &Pool2d,
    x: &[T],
    window: &[Range<usize>; 2],
    mut from: usize,
    y: &mut [T],
    switches: &mut [u32],
) -> usize {
    while from + L <= y.len() {
        let (max, at) = max_window::<T, L>(size, &x[from..], window);
        y[from..from + L].copy_from_slice(&max);
        switches[from..from + L].copy_from_slice(&at);
        from += L;
    }
    from
}

/// Computes the rows of y from row `first` on, counted over n and p.
#[inline(always)]
fn max_rows<T: Real>(size: &Pool2d, x: &[T], first: usize, y: &mut [T], switches: &mut [u32]) {
    let (c, row) = (size.y.c, size.y.w * size.y.c);
    for (i, (y, switches)) in
        y.chunks_exact_mut(row).zip(switches.chunks_exact_mut(row)).enumerate()
    {
        let (n, p) = ((first + i) / size.y.h, (first + i) % size.y.h);
        let x = &x[n * size.x.len()..(n + 1) * size.x.len()];
        for (q, (y, switches)) in
            y.chunks_exact_mut(c).zip(switches.chunks_exact_mut(c)).enumerate()
        {
            let window = window(size, p, q);
            let from = max_groups::<T, 16>(size, x, &window, 0, y, switches);
            let from = max_groups::<T, 4>(size, x, &window, from, y, switches);
            max_groups::<T, 1>(size, x, &window, from, y, switches);
        }
    }
}

/// The maxima of all windows, and where they lie.
pub(in crate::ops) fn max_pool<T: Real>(size: &Pool2d, x: &[T], y: &mut [T], switches: &mut [u32]) {
    let row = size.y.w * size.y.c;
    let rows = units(row);
    let blocks = y.par_chunks_mut(rows * row).zip(switches.par_chunks_mut(rows * row)).enumerate();
    blocks.for_each(|(block, (y, switches))| {
        max_rows(size, x, block * rows, y, switches);
    });
}

impl Reference for MaxPool2dFwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let (mut y, mut switches) = (memory.take(self.y), memory.take_words(self.switches));
        max_pool(&self.size, memory.real(self.x), &mut y, &mut switches);
        memory.put(y);
        memory.put_words(switches);
    }
}

impl Reference for MaxPool2dBwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dx = memory.take(self.dx);
        let (dy, switches, c) = (memory.real(self.dy), memory.words(self.switches), self.size.y.c);
        let add = |dx: &mut [T], dy: &[T], switches: &[u32]| {
            for (i, (&dy, &switch)) in dy.iter().zip(switches).enumerate() {
                dx[switch as usize * c + i] += dy;
            }
        };
        let gate = self.gate.map(|gate| memory.real(gate));
        scatter(&self.size, &mut dx, |dx, at, _, _| {
            let pixel = at..at + c;
            let (dy, switches) = (&dy[pixel.clone()], &switches[pixel.clone()]);
            let Some(gate) = gate else { return add(dx, dy, switches) };
            T::scratch(c, |before| {
                before.copy_from_slice(dy);
                activation::cpu::scale_by_slope_of_output(self.activation, &gate[pixel], before);
                add(dx, before, switches);
            });
        });
        memory.put(dx);
    }
}

impl Reference for AvgPool2dFwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        let (x, size) = (memory.real(self.x), &self.size);
        for_pixels(size, &mut y, |y, n, p, q| {
            y.fill(T::ZERO);
            for at in pixels(size, p, q) {
                for (y, &x) in y.iter_mut().zip(&x[n * size.x.len() + at..]) {
                    *y += x;
                }
            }
            let scale = T::of(1.0 / divisor(size, self.count_include_pad, p, q));
            y.iter_mut().for_each(|y| *y *= scale);
        });
        memory.put(y);
    }
}

impl Reference for AvgPool2dBwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dx = memory.take(self.dx);
        let (dy, size) = (memory.real(self.dy), &self.size);
        scatter(size, &mut dx, |dx, at, p, q| {
            let scale = T::of(1.0 / divisor(size, self.count_include_pad, p, q));
            let dy = &dy[at..at + size.y.c];
            for at in pixels(size, p, q) {
                for (dx, &dy) in dx[at..].iter_mut().zip(dy) {
                    *dx += scale * dy;
                }
            }
        });
        memory.put(dx);
    }
}

impl Reference for L2Pool2dFwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        let (x, size) = (memory.real(self.x), &self.size);
        for_pixels(size, &mut y, |y, n, p, q| {
            y.fill(T::ZERO);
            for at in pixels(size, p, q) {
                for (y, &x) in y.iter_mut().zip(&x[n * size.x.len() + at..]) {
                    *y += x * x;
                }
            }
            y.iter_mut().for_each(|y| *y = y.sqrt());
        });
        memory.put(y);
    }
}

impl Reference for L2Pool2dBwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dx = memory.take(self.dx);
        let (x, y, dy, size) =
            (memory.real(self.x), memory.real(self.y), memory.real(self.dy), &self.size);
        scatter(size, &mut dx, |dx, at, p, q| {
            let (y, dy) = (&y[at..at + size.y.c], &dy[at..at + size.y.c]);
            let sample = at / size.y.len() * size.x.len();
            for at in pixels(size, p, q) {
                for (((dx, &x), &y), &dy) in
                    dx[at..].iter_mut().zip(&x[sample + at..]).zip(y).zip(dy)
                {
                    // x/y is at most 1, while dy/y could overflow.
                    *dx += if y == T::ZERO { T::ZERO } else { dy * (x / y) };
                }
            }
        });
        memory.put(dx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Activation;
    use crate::reference::testing::{Setup, assert_close, assert_threads_agree, numeric_gradient};
    use crate::shape::Dims;
    use crate::testing::{dot, normals};
    use crate::view::View;

    fn sizes() -> Vec<Pool2d> {
        [
            (1, Dims::new(1, 1, 1), [1, 1], [1, 1], [0, 0]),
            (2, Dims::new(3, 7, 5), [3, 2], [2, 1], [1, 1]),
            (2, Dims::new(2, 4, 6), [2, 2], [2, 2], [0, 0]),
            (3, Dims::new(5, 5, 5), [3, 3], [1, 2], [1, 0]),
            (1, Dims::new(2, 6, 6), [2, 3], [3, 3], [1, 1]),
        ]
        .map(|(n, x, kernel, stride, padding)| Pool2d::new(n, x, kernel, stride, padding).unwrap())
        .to_vec()
    }

    /// The elements of each window of y, in row-major order: (position in the map, value), by the
    /// definition.
    fn windows(size: &Pool2d, x: &[f64]) -> Vec<Vec<(u32, f64)>> {
        let mut all = Vec::new();
        for n in 0..size.n {
            for p in 0..size.y.h {
                for q in 0..size.y.w {
                    for c in 0..size.y.c {
                        let mut window = Vec::new();
                        for r in 0..size.kernel[0] {
                            for s in 0..size.kernel[1] {
                                let h =
                                    (p * size.stride[0] + r) as isize - size.padding[0] as isize;
                                let w =
                                    (q * size.stride[1] + s) as isize - size.padding[1] as isize;
                                if (0..size.x.h as isize).contains(&h)
                                    && (0..size.x.w as isize).contains(&w)
                                {
                                    let (h, w) = (h as usize, w as usize);
                                    window.push((
                                        (h * size.x.w + w) as u32,
                                        x[n * size.x.len() + size.x.offset(c, h, w)],
                                    ));
                                }
                            }
                        }
                        all.push(window);
                    }
                }
            }
        }
        all
    }

    /// Runs a pooling from x to y.
    type Pooling<'a> = &'a dyn Fn(&mut Setup<f64>, View, View) -> Vec<f64>;

    fn max_pool<T: Real>(size: Pool2d, values: &[f64]) -> (Vec<f64>, Vec<u32>) {
        let len = size.n * size.y.len();
        let mut s = Setup::<T>::new();
        let (x, y, switches) = (s.real(values), s.out(len), s.words(&vec![u32::MAX; len]));
        let got = s.run(&MaxPool2dFwd { size, x, y, switches }, y);
        (got, s.memory.words(switches).to_vec())
    }

    #[test]
    fn max_pooling_breaks_ties_by_position() {
        for size in sizes() {
            // Few distinct values, so that there are many ties.
            let x: Vec<f64> = normals(1, size.n * size.x.len()).iter().map(|v| v.round()).collect();
            let (y, switches) = max_pool::<f32>(size, &x);
            for (i, window) in windows(&size, &x).iter().enumerate() {
                let best = window
                    .iter()
                    .rev()
                    .fold((0, f64::NEG_INFINITY), |best, v| if v.1 >= best.1 { *v } else { best });
                assert_eq!((switches[i], y[i]), best, "{size:?} {i}");
            }
        }
        let size = Pool2d::new(1, Dims::new(1, 2, 2), [2, 2], [2, 2], [0, 0]).unwrap();
        let (y, switch) = max_pool::<f64>(size, &[1.0, f64::NAN, 5.0, f64::NAN]);
        assert!(y[0].is_nan() && switch == [1]);
        assert_eq!(
            max_pool::<f64>(size, &[f64::NEG_INFINITY; 4]),
            (vec![f64::NEG_INFINITY], vec![0])
        );
    }

    #[test]
    fn means_and_norms_follow_their_definitions() {
        for size in sizes() {
            let values = normals(2, size.n * size.x.len());
            let windows = windows(&size, &values);
            let mut s = Setup::<f64>::new();
            let (x, y) = (s.real(&values), s.out(size.n * size.y.len()));
            let means: Vec<f64> = windows
                .iter()
                .map(|w| w.iter().map(|v| v.1).sum::<f64>() / w.len() as f64)
                .collect();
            assert_close(
                &s.run(&AvgPool2dFwd { size, count_include_pad: false, x, y }, y),
                &means,
                1e-14,
            );
            let norms: Vec<f64> =
                windows.iter().map(|w| w.iter().map(|v| v.1 * v.1).sum::<f64>().sqrt()).collect();
            assert_close(&s.run(&L2Pool2dFwd { size, x, y }, y), &norms, 1e-14);
            // No window leaves the padded input here, so the divisor is the size of the kernel.
            let whole = (size.kernel[0] * size.kernel[1]) as f64;
            let means: Vec<f64> =
                windows.iter().map(|w| w.iter().map(|v| v.1).sum::<f64>() / whole).collect();
            assert_close(
                &s.run(&AvgPool2dFwd { size, count_include_pad: true, x, y }, y),
                &means,
                1e-14,
            );
        }
    }

    #[test]
    fn gradients_are_derivatives() {
        for size in sizes() {
            let (x_len, y_len) = (size.n * size.x.len(), size.n * size.y.len());
            let (values, weights) = (normals(3, x_len), normals(4, y_len));
            let mut s = Setup::<f64>::new();
            let (x, dy, y) = (s.real(&values), s.real(&weights), s.out(y_len));
            let (dx, switches) = (s.out(x_len), s.words(&vec![u32::MAX; y_len]));
            let numeric = |f: Pooling<'_>| {
                numeric_gradient(&values, 1e-6, |values| {
                    let mut s = Setup::<f64>::new();
                    let (x, y) = (s.real(values), s.out(y_len));
                    dot(&f(&mut s, x, y), &weights)
                })
            };
            s.run(&MaxPool2dFwd { size, x, y, switches }, y);
            let expected = numeric(&|s, x, y| {
                let switches = s.words(&vec![0; y_len]);
                s.run(&MaxPool2dFwd { size, x, y, switches }, y)
            });
            assert_close(
                &s.run(
                    &MaxPool2dBwd {
                        size,
                        activation: Activation::Identity,
                        dy,
                        switches,
                        gate: None,
                        dx,
                    },
                    dx,
                ),
                &expected,
                1e-7,
            );
            for count_include_pad in [false, true] {
                let expected =
                    numeric(&|s, x, y| s.run(&AvgPool2dFwd { size, count_include_pad, x, y }, y));
                assert_close(
                    &s.run(&AvgPool2dBwd { size, count_include_pad, dy, dx }, dx),
                    &expected,
                    1e-7,
                );
            }
            s.run(&L2Pool2dFwd { size, x, y }, y);
            let expected = numeric(&|s, x, y| s.run(&L2Pool2dFwd { size, x, y }, y));
            assert_close(&s.run(&L2Pool2dBwd { size, x, y, dy, dx }, dx), &expected, 1e-6);
        }
        let size = Pool2d::new(1, Dims::new(1, 2, 2), [2, 2], [2, 2], [0, 0]).unwrap();
        let mut s = Setup::<f32>::new();
        let (x, y, dy, dx) = (s.real(&[0.0; 4]), s.real(&[0.0]), s.real(&[1.0]), s.out(4));
        assert_eq!(s.run(&L2Pool2dBwd { size, x, y, dy, dx }, dx), [0.0; 4]);
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let size = Pool2d::new(9, Dims::new(7, 30, 30), [3, 3], [2, 2], [1, 1]).unwrap();
        let x = normals(5, size.n * size.x.len());
        assert_threads_agree(|| max_pool::<f32>(size, &x).0);
    }
}
