//! Twins of `ops/conv2d.rs`. A convolution is one of
//! - a plain matrix product (1×1 kernels, fully connected layers);
//! - im2col and a product: y (pixels, K) = columns (pixels, R·S·C) · w, block by block of pixels;
//! - a product and col2im: columns (pixels, R·S·C) = y (pixels, K) · wᵀ, added up in the map of
//!   each sample.
//!
//! With stride 1 each of the last two also computes what the other is for, with the kernel turned
//! by half a turn, and the cheaper one is taken: a map of few channels is cheap to add to and
//! expensive to compute as narrow products.

use rayon::prelude::*;

use super::depthwise;
use super::im2col::{Columns, col2im_row, im2col};
use crate::ops::activation;
use crate::ops::pool2d::cpu::max_pool;
use crate::reference::parallel::CHUNK;
use crate::reference::{Memory, Reference};

use crate::linalg::gemm::{Matrix, gemm};
use crate::linalg::real::Real;
use crate::ops::{Activation, Conv2dBwdInput, Conv2dBwdWeight, Conv2dFwd, Conv2dMaxPoolFwd};
use crate::shape::{Conv2d, Pool2d};
use crate::view::View;

/// Elements of a block of columns: 512 KiB of f32, within a second-level cache.
const COLUMNS: usize = 131_072;

/// Below this many columns a product is computed as its transpose, which fills the vector
/// registers.
const NARROW: usize = 16;

/// Side of the squares by which a matrix is transposed: one or two cache lines.
const TILE: usize = 16;

/// What follows the sum: bias and activation, or the slope of the activation by its output.
#[derive(Clone, Copy)]
struct Epilogue<'a, T> {
    bias: Option<&'a [T]>,
    activation: Activation,
    gate: Option<&'a [T]>,
}

impl<'a, T: Real> Epilogue<'a, T> {
    fn new(
        memory: &'a Memory<T>,
        activation: Activation,
        bias: Option<View>,
        gate: Option<View>,
    ) -> Self {
        let [bias, gate] = [bias, gate].map(|view| view.map(|view| memory.real(view)));
        Self { bias, activation, gate }
    }

    /// Finishes whole pixels, the first of which begins at element `at`.
    fn apply(&self, at: usize, block: &mut [T]) {
        if let Some(gate) = self.gate {
            return activation::cpu::scale_by_slope_of_output(
                self.activation,
                &gate[at..at + block.len()],
                block,
            );
        }
        if let Some(bias) = self.bias {
            for pixel in block.chunks_exact_mut(bias.len()) {
                for (y, &b) in pixel.iter_mut().zip(bias) {
                    *y += b;
                }
            }
        }
        activation::cpu::apply(self.activation, block);
    }
}

/// 1×1 kernel, stride 1, no padding: a matrix product of all pixels.
fn is_product(size: &Conv2d) -> bool {
    let taps = &size.taps;
    size.groups == 1
        && taps.kernel == [1, 1]
        && taps.stride == [1, 1]
        && taps.padding == [0, 0]
        && size.x.area() == size.y.area()
}

/// Whether to add up columns (true) or to gather them, for `from` channels to `to` channels with
/// stride 1. By measurements on one core, in units of a multiply-add: a gathered element costs 14,
/// an added one 27, products round up to whole vectors of 16.
fn adding_is_cheaper(taps: usize, from: usize, to: usize) -> bool {
    let gather = taps * from * (to.next_multiple_of(16) + 14);
    let add = from * (taps * to).next_multiple_of(16) + 27 * taps * to;
    add < gather
}

/// The same sums read from the other side: the convolution with x and y swapped and the kernel
/// turned. Stride 1 only.
fn turned(size: &Conv2d) -> Option<Conv2d> {
    let taps = &size.taps;
    if taps.stride != [1, 1] {
        return None;
    }
    let pad = |i: usize| (taps.dilation[i] * (taps.kernel[i] - 1)).checked_sub(taps.padding[i]);
    let padding = [pad(0)?, pad(1)?];
    Some(Conv2d { x: size.y, y: size.x, taps: crate::shape::Taps { padding, ..*taps }, ..*size })
}

/// Turns w (R,S,C/groups,K) of `size` into the weight (R,S,K/groups,C) of [`turned`].
fn turn_weight<T: Real>(size: &Conv2d, w: &[T], to: &mut [T]) {
    let (c, k) = (size.x.c / size.groups, size.y.c / size.groups);
    let tap = c * size.y.c;
    let taps = size.taps.kernel[0] * size.taps.kernel[1];
    to.par_chunks_exact_mut(tap).enumerate().for_each(|(i, to)| {
        let w = &w[(taps - 1 - i) * tap..(taps - i) * tap];
        // in squares, so that a cache line is used whole on both sides
        for c0 in (0..c).step_by(TILE) {
            for k0 in (0..size.y.c).step_by(TILE) {
                for ci in c0..c.min(c0 + TILE) {
                    for ki in k0..size.y.c.min(k0 + TILE) {
                        to[ki % k * size.x.c + ki / k * c + ci] = w[ci * size.y.c + ki];
                    }
                }
            }
        }
    });
}

fn forward<T: Real>(size: &Conv2d, x: &[T], w: &[T], y: &mut [T], epilogue: Epilogue<'_, T>) {
    let taps = size.taps.kernel[0] * size.taps.kernel[1];
    if is_product(size) {
        product(size.y.c, x, size.x.c, Matrix::rows(w, size.y.c), y, epilogue);
    } else if depthwise::takes(size) {
        depthwise::forward(size, x, w, y, |at, block| epilogue.apply(at, block));
    } else if let Some(turned) = turned(size)
        .filter(|_| adding_is_cheaper(taps, size.x.c / size.groups, size.y.c / size.groups))
    {
        T::scratch(w.len(), |other| {
            turn_weight(size, w, other);
            add_columns(&turned, x, other, y, epilogue);
        });
    } else {
        gather_columns(size, x, w, y, epilogue);
    }
}

fn backward_input<T: Real>(
    size: &Conv2d,
    y: &[T],
    w: &[T],
    x: &mut [T],
    epilogue: Epilogue<'_, T>,
) {
    let taps = size.taps.kernel[0] * size.taps.kernel[1];
    if is_product(size) {
        product(size.x.c, y, size.y.c, Matrix::rows(w, size.y.c).t(), x, epilogue);
    } else if depthwise::takes(size) {
        depthwise::backward_input(size, y, w, x, |at, block| epilogue.apply(at, block));
    } else if let Some(turned) = turned(size)
        .filter(|_| !adding_is_cheaper(taps, size.y.c / size.groups, size.x.c / size.groups))
    {
        T::scratch(w.len(), |other| {
            turn_weight(size, w, other);
            gather_columns(&turned, y, other, x, epilogue);
        });
    } else {
        add_columns(size, y, w, x, epilogue);
    }
}

/// y (rows, n) = a (rows, k) · b (k, n). Many rows are split into blocks of rows; few rows of many
/// columns into blocks of columns, so that each element of a large weight is read once.
fn product<T: Real>(
    n: usize,
    a: &[T],
    k: usize,
    b: Matrix<'_, T>,
    y: &mut [T],
    epilogue: Epilogue<'_, T>,
) {
    /// A multiple of every vector register's block.
    const WIDTH: usize = 96;
    /// Rows of b that are copied side by side, within a second-level cache.
    const DEPTH: usize = 512;
    /// So few rows the crate multiplies without packing b, whose rows may lie pages apart; a
    /// handful reads b but once or twice.
    const UNPACKED: std::ops::RangeInclusive<usize> = 5..=64;
    let rows = a.len() / k;
    if rows >= 512 || n < 2 * WIDTH {
        let block = (rows / 8).next_multiple_of(16).clamp(32, 1024);
        y.par_chunks_mut(block * n).zip(a.par_chunks(block * k)).enumerate().for_each(
            |(i, (y, a))| {
                gemm([y.len() / n, n, k], y, [n, 1], Matrix::rows(a, k), b, false);
                epilogue.apply(i * block * n, y);
            },
        );
        return;
    }
    T::scratch(rows * n, |parts| {
        // the sides are chosen so that b, the larger operand, is read along its memory
        let by_column = b.row == 1;
        parts.par_chunks_mut(rows * WIDTH).enumerate().for_each(|(i, part)| {
            let width = part.len() / rows;
            let (a, b) = (Matrix::rows(a, k), b.from(i * WIDTH * b.col));
            if by_column || !UNPACKED.contains(&rows) {
                gemm(
                    [rows, width, k],
                    part,
                    if by_column { [1, rows] } else { [width, 1] },
                    a,
                    b,
                    false,
                );
                return;
            }
            T::scratch(DEPTH.min(k) * width, |copy| {
                for start in (0..k).step_by(DEPTH) {
                    let depth = DEPTH.min(k - start);
                    for (to, from) in copy
                        .chunks_exact_mut(width)
                        .zip(b.data[start * b.row..].chunks(b.row))
                        .take(depth)
                    {
                        to.copy_from_slice(&from[..width]);
                    }
                    gemm(
                        [rows, width, depth],
                        part,
                        [width, 1],
                        a.from(start),
                        Matrix::rows(&*copy, width),
                        start > 0,
                    );
                }
            });
        });
        let parts = &*parts;
        y.par_chunks_mut(TILE * n).enumerate().for_each(|(i, y)| {
            for (j, part) in parts.chunks(rows * WIDTH).enumerate() {
                let width = part.len() / rows;
                if by_column {
                    // in squares, so that a cache line is used whole on both sides
                    for (l, columns) in part.chunks(TILE * rows).enumerate() {
                        for (row, y) in y.chunks_exact_mut(n).enumerate() {
                            let y = y[j * WIDTH + l * TILE..].iter_mut();
                            for (y, column) in y.zip(columns.chunks_exact(rows)) {
                                *y = column[i * TILE + row];
                            }
                        }
                    }
                } else {
                    for (y, part) in
                        y.chunks_exact_mut(n).zip(part[i * TILE * width..].chunks_exact(width))
                    {
                        y[j * WIDTH..j * WIDTH + width].copy_from_slice(part);
                    }
                }
            }
            epilogue.apply(i * TILE * n, y);
        });
    });
}

/// y = columns of x · w.
fn gather_columns<T: Real>(
    size: &Conv2d,
    x: &[T],
    w: &[T],
    y: &mut [T],
    epilogue: Epilogue<'_, T>,
) {
    let (k_all, k) = (size.y.c, size.y.c / size.groups);
    let width = size.weight_len() / k_all;
    let block = (COLUMNS / width).clamp(32, 1024);
    y.par_chunks_mut(block * k_all).enumerate().for_each(|(i, y)| {
        let pixels = y.len() / k_all;
        T::scratch(pixels * width, |col| {
            for group in 0..size.groups {
                im2col(size, &Columns { r: 0..size.taps.kernel[0], group }, x, i * block, col);
                let w = Matrix::rows(w, k_all).from(group * k);
                gemm(
                    [pixels, k, width],
                    &mut y[group * k..],
                    [k_all, 1],
                    Matrix::rows(col, width),
                    w,
                    false,
                );
            }
        });
        epilogue.apply(i * block * k_all, y);
    });
}

/// x = Σ of the columns y · wᵀ. A task owns some samples, or a band of rows of one sample.
fn add_columns<T: Real>(size: &Conv2d, y: &[T], w: &[T], x: &mut [T], epilogue: Epilogue<'_, T>) {
    let reach = size.taps.dilation[0] * (size.taps.kernel[0] - 1);
    let sample = size.x.len();
    if size.n >= 16 || size.y.area() < 64 {
        // enough samples; small ones share a product
        let samples = 32_usize.div_ceil(size.y.area());
        x.par_chunks_mut(samples * sample).enumerate().for_each(|(i, x)| {
            add_band(size, y, w, i * samples, 0..size.x.h, x);
            epilogue.apply(i * samples * sample, x);
        });
    } else {
        // rows that two bands need are computed twice: a band is long against what it shares
        let band = size.x.h.div_ceil(16).max(4 * reach).max(1);
        x.par_chunks_mut(sample).enumerate().for_each(|(n, x)| {
            x.par_chunks_mut(band * size.x.w * size.x.c).enumerate().for_each(|(i, x)| {
                add_band(size, y, w, n, i * band..size.x.h.min((i + 1) * band), x);
                epilogue.apply(n * sample + i * band * size.x.w * size.x.c, x);
            });
        });
    }
}

/// Fills `x`, which holds the rows `band` of sample `n`, or several whole samples from `n` on.
fn add_band<T: Real>(
    size: &Conv2d,
    y: &[T],
    w: &[T],
    n: usize,
    band: std::ops::Range<usize>,
    x: &mut [T],
) {
    let (taps, p_count) = (&size.taps, size.y.h);
    let (k_all, k) = (size.y.c, size.y.c / size.groups);
    let width = size.weight_len() / k_all;
    let one = band.len() * size.x.w * size.x.c;
    let samples = x.len() / one;
    x.fill(T::ZERO);
    // the output rows whose windows meet the band
    let first = (band.start + taps.padding[0])
        .saturating_sub(taps.dilation[0] * (taps.kernel[0] - 1))
        .div_ceil(taps.stride[0]);
    let last = ((band.end - 1 + taps.padding[0]) / taps.stride[0] + 1).min(p_count);
    let (first, last) = if samples == 1 {
        (n * p_count + first.min(last), n * p_count + last)
    } else {
        (n * p_count, (n + samples) * p_count)
    };
    let rows = (COLUMNS / (size.y.w * width)).max(1);
    T::scratch(rows.min(last - first) * size.y.w * width, |col| {
        for group in 0..size.groups {
            let w = Matrix::rows(w, k_all).from(group * k).t();
            for start in (first..last).step_by(rows) {
                let count = rows.min(last - start);
                let pixels = count * size.y.w;
                let col = &mut col[..pixels * width];
                let y = Matrix::rows(y, k_all).from(start * size.y.w * k_all + group * k);
                gemm([pixels, width, k], col, [width, 1], y, w, false);
                for (i, col) in col.chunks_exact(size.y.w * width).enumerate() {
                    let (sample, p) = ((start + i) / p_count - n, (start + i) % p_count);
                    col2im_row(
                        size,
                        group,
                        col,
                        p,
                        &band,
                        &mut x[sample * one..(sample + 1) * one],
                    );
                }
            }
        }
    });
}

/// dw = columnsᵀ · dy.
fn backward_weight<T: Real>(size: &Conv2d, x: &[T], dy: &[T], dw: &mut [T]) {
    let k = size.y.c;
    let pixels = size.n * size.y.area();
    if is_product(size) && size.x.area() == 1 {
        // a fully connected layer: blocks of rows of dw
        let rows = CHUNK.div_ceil(k).max(size.x.c / 8).next_multiple_of(16);
        dw.par_chunks_mut(rows * k).enumerate().for_each(|(i, dw)| {
            let x = Matrix::rows(x, size.x.c).from(i * rows).t();
            gemm([dw.len() / k, k, size.n], dw, [k, 1], x, Matrix::rows(dy, k), false);
        });
        return;
    }
    if let Some(turned) =
        turned(size).filter(|_| k < size.x.c && !is_product(size) && !depthwise::takes(size))
    {
        // the same sums with the columns of the narrower side
        return T::scratch(dw.len(), |other| {
            backward_weight(&turned, dy, x, other);
            turn_weight(&turned, other, dw);
        });
    }
    // Slices of the batch, each with a gradient of its own; large gradients in fewer slices, but
    // then split by kernel rows.
    let len = dw.len();
    let slices = pixels.div_ceil(512).min(4_194_304 / len).clamp(1, 16);
    let r_taps = size.taps.kernel[0];
    let r_each = if slices >= 8 || depthwise::takes(size) { r_taps } else { 1 };
    let fill = |parts: &mut [T]| {
        parts.par_chunks_mut(len / r_taps * r_each).enumerate().for_each(|(i, part)| {
            let (slice, r) = (i * r_each / r_taps, i * r_each % r_taps);
            if depthwise::takes(size) {
                let rows = size.n * size.y.h;
                part.fill(T::ZERO);
                depthwise::add_weight_gradient(
                    size,
                    x,
                    dy,
                    slice * rows / slices..(slice + 1) * rows / slices,
                    part,
                );
            } else {
                weight_slice(
                    size,
                    x,
                    dy,
                    slice * pixels / slices..(slice + 1) * pixels / slices,
                    r..r + r_each,
                    part,
                );
            }
        });
    };
    if slices == 1 {
        return fill(dw);
    }
    T::scratch(slices * len, |parts| {
        fill(parts);
        let parts = &*parts;
        dw.par_chunks_mut(CHUNK).enumerate().for_each(|(i, dw)| {
            dw.fill(T::ZERO);
            for part in parts.chunks_exact(len) {
                for (dw, &part) in dw.iter_mut().zip(&part[i * CHUNK..]) {
                    *dw += part;
                }
            }
        });
    });
}

/// The gradient of the kernel rows `r` from the output pixels `pixels`.
fn weight_slice<T: Real>(
    size: &Conv2d,
    x: &[T],
    dy: &[T],
    pixels: std::ops::Range<usize>,
    r: std::ops::Range<usize>,
    dw: &mut [T],
) {
    let (k_all, k) = (size.y.c, size.y.c / size.groups);
    let width = Columns { r: r.clone(), group: 0 }.len(size);
    let block = (COLUMNS / width).clamp(128, 2048).min(pixels.len().max(1));
    let direct = is_product(size);
    let narrow = k < NARROW;
    dw.fill(T::ZERO);
    T::scratch(if direct { 0 } else { block * width }, |col| {
        T::scratch(if narrow { width * k } else { 0 }, |turned| {
            for group in 0..size.groups {
                for first in pixels.clone().step_by(block) {
                    let count = block.min(pixels.end - first);
                    let columns = if direct {
                        Matrix::rows(x, width).from(first * width)
                    } else {
                        im2col(
                            size,
                            &Columns { r: r.clone(), group },
                            x,
                            first,
                            &mut col[..count * width],
                        );
                        Matrix::rows(&*col, width)
                    };
                    let dy = Matrix::rows(dy, k_all).from(first * k_all + group * k);
                    let add = first > pixels.start;
                    if narrow {
                        gemm([width, k, count], turned, [1, width], columns.t(), dy, add);
                    } else {
                        gemm(
                            [width, k, count],
                            &mut dw[group * k..],
                            [k_all, 1],
                            columns.t(),
                            dy,
                            add,
                        );
                    }
                }
                if narrow && !pixels.is_empty() {
                    for (i, dw) in dw.chunks_exact_mut(k_all).enumerate() {
                        for (j, dw) in dw[group * k..(group + 1) * k].iter_mut().enumerate() {
                            *dw = turned[j * width + i];
                        }
                    }
                }
            }
        });
    });
}

impl Reference for Conv2dFwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        let epilogue = Epilogue::new(memory, self.activation, self.b, self.gate);
        forward(&self.size, memory.real(self.x), memory.real(self.w), &mut y, epilogue);
        memory.put(y);
    }
}

/// Elements of as many samples as are convolved before they are pooled: 4 MiB of f32, most of them
/// still in a cache.
const POOLED: usize = 1_048_576;

impl Reference for Conv2dMaxPoolFwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let (mut y, mut switches) = (memory.take(self.y), memory.take_words(self.switches));
        let epilogue = Epilogue::new(memory, self.activation, self.b, None);
        let (x, w) = (memory.real(self.x), memory.real(self.w));
        let (size, pool) = (&self.size, self.pool());
        let samples = (POOLED / size.y.len()).clamp(1, size.n);
        T::scratch(samples * size.y.len(), |maps| {
            let pooled = y
                .chunks_mut(samples * pool.y.len())
                .zip(switches.chunks_mut(samples * pool.y.len()));
            for (x, (y, switches)) in x.chunks(samples * size.x.len()).zip(pooled) {
                let n = x.len() / size.x.len();
                let maps = &mut maps[..n * size.y.len()];
                forward(&Conv2d { n, ..*size }, x, w, maps, epilogue);
                max_pool(&Pool2d { n, ..pool }, maps, y, switches);
            }
        });
        memory.put(y);
        memory.put_words(switches);
    }
}

impl Reference for Conv2dBwdInput {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut x = memory.take(self.x);
        let epilogue = Epilogue::new(memory, self.activation, self.b, self.gate);
        backward_input(&self.size, memory.real(self.y), memory.real(self.w), &mut x, epilogue);
        memory.put(x);
    }
}

impl Reference for Conv2dBwdWeight {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dw = memory.take(self.dw);
        backward_weight(&self.size, memory.real(self.x), memory.real(self.dy), &mut dw);
        memory.put(dw);
    }
}

#[cfg(test)]
#[path = "cpu_tests.rs"]
mod tests;
