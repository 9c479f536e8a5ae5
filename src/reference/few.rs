//! Convolutions of maps with few channels, straight from the map: columns of so few elements cost more to gather than to multiply.
//! Memory: x (N,H,W,C), y (N,P,Q,K), w (R,S,C,K).

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::Real;
use super::parallel::units;
use crate::shape::Conv2d;

/// Filters whose sums are held at once: two vector registers of f32.
const LANES: usize = 16;

/// Output pixels that share a load of the weights.
const PIXELS: usize = 4;

/// Slices of the batch, each with a gradient of its own.
const SLICES: usize = 16;

/// Whether these functions take the problem.
pub fn takes(size: &Conv2d) -> bool {
    size.groups == 1 && size.x.c <= 4 && size.y.c >= LANES && size.taps.kernel != [1, 1]
}

/// The rows of a map that one row of outputs reads, zeros around them.
struct Lines<'a> {
    size: &'a Conv2d,
    /// Elements of one.
    len: usize,
    /// Where the elements of the first window lie, (r, s, c) ordered as the rows of the weight.
    taps: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(size: &'a Conv2d) -> Self {
        let (c, [r_taps, s_taps]) = (size.x.c, size.taps.kernel);
        let len = ((size.y.w - 1) * size.taps.stride[1] + (s_taps - 1) * size.taps.dilation[1] + 1) * c;
        let tap = |i: usize| i / (s_taps * c) * len + i / c % s_taps * size.taps.dilation[1] * c + i % c;
        Self { size, len, taps: (0..r_taps * s_taps * c).map(tap).collect() }
    }

    /// Elements of all of them.
    fn all(&self) -> usize {
        self.size.taps.kernel[0] * self.len
    }

    /// Elements between the windows of two neighbours.
    fn step(&self) -> usize {
        self.size.taps.stride[1] * self.size.x.c
    }

    /// Copies those of the output row `row`, counted over n and p.
    fn fill<T: Real>(&self, x: &[T], row: usize, lines: &mut [T]) {
        let (size, c) = (self.size, self.size.x.c);
        let (n, p) = (row / size.y.h, row % size.y.h);
        let before = (size.taps.padding[1] * c).min(self.len);
        for (r, line) in lines.chunks_exact_mut(self.len).enumerate() {
            let h = (p * size.taps.stride[0] + r * size.taps.dilation[0]).wrapping_sub(size.taps.padding[0]);
            if h >= size.x.h {
                line.fill(T::ZERO);
                continue;
            }
            let from = &x[n * size.x.len() + h * size.x.w * c..][..size.x.w * c];
            let inside = from.len().min(self.len - before);
            line[..before].fill(T::ZERO);
            line[before..before + inside].copy_from_slice(&from[..inside]);
            line[before + inside..].fill(T::ZERO);
        }
    }
}

/// The sums of `P` pixels whose windows begin `step` apart.
#[inline(always)]
fn pixel_sums<T: Real, const P: usize>(x: &[T], taps: &[usize], step: usize, w: &[[T; LANES]]) -> [[T; LANES]; P] {
    let mut sums = [[T::ZERO; LANES]; P];
    for (&tap, w) in taps.iter().zip(w) {
        let x = &x[tap..=tap + (P - 1) * step];
        for (i, sums) in sums.iter_mut().enumerate() {
            let x = x[i * step];
            for (sum, &w) in sums.iter_mut().zip(w) {
                *sum += x * w;
            }
        }
    }
    sums
}

/// One row of outputs from its lines. `w` holds blocks of [`LANES`] filters, each with all taps.
#[inline(always)]
fn output_row<T: Real>(lines: &Lines<'_>, x: &[T], w: &[[T; LANES]], y: &mut [T]) {
    let (k, step) = (lines.size.y.c, lines.step());
    for (k0, w) in (0..k).step_by(LANES).zip(w.chunks_exact(lines.taps.len())) {
        let count = LANES.min(k - k0);
        for (i, y) in y.chunks_mut(PIXELS * k).enumerate() {
            let x = &x[i * PIXELS * step..];
            if y.len() == PIXELS * k {
                let sums: [_; PIXELS] = pixel_sums(x, &lines.taps, step, w);
                for (y, sums) in y.chunks_exact_mut(k).zip(&sums) {
                    y[k0..k0 + count].copy_from_slice(&sums[..count]);
                }
            } else {
                for (j, y) in y.chunks_exact_mut(k).enumerate() {
                    let [sums]: [_; 1] = pixel_sums(&x[j * step..], &lines.taps, step, w);
                    y[k0..k0 + count].copy_from_slice(&sums[..count]);
                }
            }
        }
    }
}

/// y from x; `finish` ends each block, which begins at an element.
pub fn forward<T: Real>(size: &Conv2d, x: &[T], w: &[T], y: &mut [T], finish: impl Fn(usize, &mut [T]) + Sync) {
    let lines = Lines::new(size);
    let (k, row) = (size.y.c, size.y.w * size.y.c);
    let mut blocks = vec![[T::ZERO; LANES]; k.div_ceil(LANES) * lines.taps.len()];
    for (i, block) in blocks.iter_mut().enumerate() {
        let (k0, tap) = (i / lines.taps.len() * LANES, i % lines.taps.len());
        let w = &w[tap * k..(tap + 1) * k][k0..k.min(k0 + LANES)];
        block[..w.len()].copy_from_slice(w);
    }
    let rows = units(row);
    y.par_chunks_mut(rows * row).enumerate().for_each(|(block, y)| {
        T::scratch(lines.all(), |buffer| {
            for (i, y) in y.chunks_exact_mut(row).enumerate() {
                lines.fill(x, block * rows + i, buffer);
                Arch::new().dispatch(
                    #[inline(always)]
                    || output_row(&lines, buffer, &blocks, y),
                );
            }
        });
        finish(block * rows * row, y);
    });
}

/// Adds to `sums`, which holds blocks of filters with all taps each, what one row of outputs gives, `G` taps at once.
#[inline(always)]
fn add_row<T: Real, const G: usize>(lines: &Lines<'_>, x: &[T], dy: &[T], sums: &mut [[T; LANES]]) {
    let (k, step) = (lines.size.y.c, lines.step());
    let taps = lines.taps.len();
    for (k0, sums) in (0..k).step_by(LANES).zip(sums.chunks_exact_mut(taps)) {
        let count = LANES.min(k - k0);
        for (offsets, sums) in lines.taps.chunks(G).zip(sums.chunks_mut(G)) {
            let mut at = [0; G];
            at[..offsets.len()].copy_from_slice(offsets);
            let mut row = [[T::ZERO; LANES]; G];
            for (q, dy) in dy.chunks_exact(k).enumerate() {
                let mut lane = [T::ZERO; LANES];
                if count == LANES {
                    lane.copy_from_slice(&dy[k0..k0 + LANES]);
                } else {
                    lane[..count].copy_from_slice(&dy[k0..]);
                }
                let x = &x[q * step..];
                for (row, &at) in row.iter_mut().zip(&at) {
                    let x = x[at];
                    for (sum, &dy) in row.iter_mut().zip(&lane) {
                        *sum += x * dy;
                    }
                }
            }
            for (sums, row) in sums.iter_mut().zip(&row) {
                for (sum, &row) in sums.iter_mut().zip(row) {
                    *sum += row;
                }
            }
        }
    }
}

/// The gradient of one slice of the rows of outputs.
fn slice<T: Real>(lines: &Lines<'_>, x: &[T], dy: &[T], rows: Range<usize>) -> Vec<[T; LANES]> {
    let (k, row) = (lines.size.y.c, lines.size.y.w * lines.size.y.c);
    let mut sums = vec![[T::ZERO; LANES]; k.div_ceil(LANES) * lines.taps.len()];
    T::scratch(lines.all(), |buffer| {
        for i in rows {
            lines.fill(x, i, buffer);
            let dy = &dy[i * row..(i + 1) * row];
            let (buffer, sums) = (&*buffer, sums.as_mut_slice());
            if lines.taps.len().is_multiple_of(4) {
                Arch::new().dispatch(
                    #[inline(always)]
                    || add_row::<T, 4>(lines, buffer, dy, sums),
                );
            } else {
                Arch::new().dispatch(
                    #[inline(always)]
                    || add_row::<T, 3>(lines, buffer, dy, sums),
                );
            }
        }
    });
    sums
}

/// dw from x and dy.
pub fn backward_weight<T: Real>(size: &Conv2d, x: &[T], dy: &[T], dw: &mut [T]) {
    let lines = Lines::new(size);
    let (k, rows) = (size.y.c, size.n * size.y.h);
    let slices = SLICES.min(rows);
    let parts: Vec<Vec<[T; LANES]>> =
        (0..slices).into_par_iter().map(|i| slice(&lines, x, dy, i * rows / slices..(i + 1) * rows / slices)).collect();
    for (tap, dw) in dw.chunks_exact_mut(k).enumerate() {
        for (block, dw) in dw.chunks_mut(LANES).enumerate() {
            for (lane, dw) in dw.iter_mut().enumerate() {
                *dw = T::ZERO;
                for part in &parts {
                    *dw += part[block * lines.taps.len() + tap][lane];
                }
            }
        }
    }
}
