//! CPU twins of `ops/conv2d.rs`. A convolution is computed in one of three ways:
//! - as a plain matrix product (1×1 kernels, fully connected layers);
//! - by im2col and a product: y (pixels, K) = columns (pixels, R·S·C) · w, in blocks of pixels;
//! - by a product and col2im: columns (pixels, R·S·C) = y (pixels, K) · wᵀ, added into the map of
//!   each sample.
//!
//! With stride 1 both of the last two can compute the forward pass and the gradient by the input:
//! one of them with the kernel rotated by 180°. The cheaper one is used. For maps of few channels
//! that is col2im, since products with few columns use the vector registers badly.

use rayon::prelude::*;

use super::depthwise;
use super::im2col::{Columns, col2im_row, im2col};
use crate::ops::activation;
use crate::ops::gate::{Gate, Slopes};
use crate::ops::pool2d::cpu::max_pool;
use crate::reference::parallel::CHUNK;
use crate::reference::{Memory, Reference};

use crate::linalg::gemm::{Matrix, gemm};
use crate::linalg::real::Real;
use crate::ops::{Activation, Conv2dBwdInput, Conv2dBwdWeight, Conv2dFwd, Conv2dMaxPoolFwd};
use crate::shape::{Conv2d, Pool2d};
use crate::view::View;

/// Elements of a block of columns: 512 KiB of f32, which fits a second-level cache.
const COLUMNS: usize = 131_072;

/// Products with fewer columns are computed transposed, to fill the vector registers (16 f32 in 512
/// bits).
const NARROW: usize = 16;

/// Side of the squares in which a matrix is transposed: one cache line of f32, two of f64.
const TILE: usize = 16;

/// The operation after the sum: bias and activation, or with a gate the slope of the activation.
#[derive(Clone, Copy)]
struct Epilogue<'a, T> {
    bias: Option<&'a [T]>,
    activation: Activation,
    gate: Option<Slopes<'a, T>>,
}

impl<'a, T: Real> Epilogue<'a, T> {
    fn new(memory: &'a Memory<T>, bias: Option<View>, gate: Gate) -> Self {
        let bias = bias.map(|view| memory.real(view));
        Self { bias, activation: gate.activation, gate: gate.slopes(memory) }
    }

    /// Applies the epilogue to `block`, whole pixels of the output from element `at` on.
    fn apply(&self, at: usize, block: &mut [T]) {
        if let Some(gate) = self.gate {
            return gate.apply(at, block);
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

/// Whether the convolution is a matrix product over all pixels: 1×1 kernel, stride 1, no padding.
fn is_product(size: &Conv2d) -> bool {
    let taps = &size.taps;
    size.groups == 1
        && taps.kernel == [1, 1]
        && taps.stride == [1, 1]
        && taps.padding == [0, 0]
        && size.x.area() == size.y.area()
}

/// Whether col2im is cheaper than im2col for a convolution of stride one from `from` to `to`
/// channels. Costs were measured on one core, in units of a multiply-add: 14 for each element that
/// im2col copies, 27 for each that col2im adds. Products round up to whole vectors of 16.
fn col2im_is_cheaper(taps: usize, from: usize, to: usize) -> bool {
    let im2col = taps * from * (to.next_multiple_of(16) + 14);
    let col2im = from * (taps * to).next_multiple_of(16) + 27 * taps * to;
    col2im < im2col
}

/// The size of the convolution that computes the same sums with x and y swapped and the kernel
/// rotated by 180°. None unless the stride is 1, or if its padding would be negative.
fn rotated(size: &Conv2d) -> Option<Conv2d> {
    let taps = &size.taps;
    if taps.stride != [1, 1] {
        return None;
    }
    let pad = |i: usize| (taps.dilation[i] * (taps.kernel[i] - 1)).checked_sub(taps.padding[i]);
    let padding = [pad(0)?, pad(1)?];
    Some(Conv2d { x: size.y, y: size.x, taps: crate::shape::Taps { padding, ..*taps }, ..*size })
}

/// Rotates the weight w (R,S,C/groups,K) of `size` into the weight (R,S,K/groups,C) of [`rotated`].
fn rotate_weight<T: Real>(size: &Conv2d, w: &[T], to: &mut [T]) {
    let (c, k) = (size.x.c / size.groups, size.y.c / size.groups);
    let tap = c * size.y.c;
    let taps = size.taps.kernel[0] * size.taps.kernel[1];
    to.par_chunks_exact_mut(tap).enumerate().for_each(|(i, to)| {
        let w = &w[(taps - 1 - i) * tap..(taps - i) * tap];
        // In squares, so that whole cache lines are used on both sides.
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
    } else if let Some(rotated) = rotated(size)
        .filter(|_| col2im_is_cheaper(taps, size.x.c / size.groups, size.y.c / size.groups))
    {
        T::scratch(w.len(), |rotated_w| {
            rotate_weight(size, w, rotated_w);
            by_col2im(&rotated, x, rotated_w, y, epilogue);
        });
    } else {
        by_im2col(size, x, w, y, epilogue);
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
    } else if let Some(rotated) = rotated(size)
        .filter(|_| !col2im_is_cheaper(taps, size.y.c / size.groups, size.x.c / size.groups))
    {
        T::scratch(w.len(), |rotated_w| {
            rotate_weight(size, w, rotated_w);
            by_im2col(&rotated, y, rotated_w, x, epilogue);
        });
    } else {
        by_col2im(size, y, w, x, epilogue);
    }
}

/// Writes the transpose of `from` (rows, columns), in squares, so that whole cache lines are used
/// on both sides.
fn transpose<T: Real>(from: &[T], columns: usize, to: &mut [T]) {
    let rows = from.len() / columns;
    to.par_chunks_mut(TILE * rows).enumerate().for_each(|(i, to)| {
        for (j, from) in from.chunks(TILE * columns).enumerate() {
            for (column, to) in to.chunks_exact_mut(rows).enumerate() {
                let to = to[j * TILE..].iter_mut();
                for (to, row) in to.zip(from.chunks_exact(columns)) {
                    *to = row[i * TILE + column];
                }
            }
        }
    });
}

/// y (rows, n) = a (rows, k) · b (k, n). Many rows are split into blocks of rows. Few rows with
/// many columns are split into blocks of columns, so that each element of a large weight is read
/// once.
fn product<T: Real>(
    n: usize,
    a: &[T],
    k: usize,
    b: Matrix<'_, T>,
    y: &mut [T],
    epilogue: Epilogue<'_, T>,
) {
    /// Columns of a block: a multiple of the block widths of the gemm crate's kernels.
    const WIDTH: usize = 96;
    /// Rows of b that are copied into a dense block, which fits a second-level cache.
    const DEPTH: usize = 512;
    /// Numbers of rows for which b is copied: with so few rows the gemm crate does not pack b,
    /// whose rows can be memory pages apart. With even fewer, b is read only once or twice, so a
    /// copy does not pay.
    const UNPACKED: std::ops::RangeInclusive<usize> = 5..=64;
    /// Rows from which blocks of rows are fastest.
    const MANY: usize = 512;
    let rows = a.len() / k;
    let by_column = b.row == 1;
    if rows >= MANY && by_column && n > 1 {
        // The gemm crate packs b again for each block of rows, and that takes long if its columns
        // are contiguous.
        return T::scratch(k * n, |copy| {
            transpose(&b.data[..k * n], k, copy);
            product(n, a, k, Matrix::rows(&*copy, n), y, epilogue);
        });
    }
    if rows >= MANY || n < 2 * WIDTH {
        let block = (rows / 8).next_multiple_of(16).clamp(32, 1024);
        y.par_chunks_mut(block * n).zip(a.par_chunks(block * k)).enumerate().for_each(
            |(i, (y, a))| {
                gemm([y.len() / n, n, k], y, [n, 1], Matrix::rows(a, k), b, false);
                epilogue.apply(i * block * n, y);
            },
        );
        return;
    }
    T::scratch(rows * (n + if by_column { k } else { 0 }), |scratch| {
        let (parts, transposed) = scratch.split_at_mut(rows * n);
        // A part is transposed if b is, so that b, the larger operand, is read in memory order.
        if by_column {
            transpose(a, k, transposed);
        }
        let transposed = Matrix::rows(&*transposed, rows);
        parts.par_chunks_mut(rows * WIDTH).enumerate().for_each(|(i, part)| {
            let width = part.len() / rows;
            let (a, b) = (Matrix::rows(a, k), b.from(i * WIDTH * b.col));
            if by_column {
                return gemm([width, rows, k], part, [rows, 1], b.t(), transposed, false);
            }
            if !UNPACKED.contains(&rows) {
                return gemm([rows, width, k], part, [width, 1], a, b, false);
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
                    // In squares, so that whole cache lines are used on both sides.
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

/// y = im2col(x) · w, in blocks of pixels.
fn by_im2col<T: Real>(size: &Conv2d, x: &[T], w: &[T], y: &mut [T], epilogue: Epilogue<'_, T>) {
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

/// x = col2im(y · wᵀ). Each task computes some samples, or a band of rows of one sample.
fn by_col2im<T: Real>(size: &Conv2d, y: &[T], w: &[T], x: &mut [T], epilogue: Epilogue<'_, T>) {
    let reach = size.taps.dilation[0] * (size.taps.kernel[0] - 1);
    let sample = size.x.len();
    if size.n >= 16 || size.y.area() < 64 {
        // Enough samples for all threads. Small ones share a product of at least 32 rows.
        let samples = 32_usize.div_ceil(size.y.area());
        x.par_chunks_mut(samples * sample).enumerate().for_each(|(i, x)| {
            add_band(size, y, w, i * samples, 0..size.x.h, x);
            epilogue.apply(i * samples * sample, x);
        });
    } else {
        // Rows of columns that two bands need are computed twice. A band is at least four times as
        // long as the overlap.
        let band = size.x.h.div_ceil(16).max(4 * reach).max(1);
        x.par_chunks_mut(sample).enumerate().for_each(|(n, x)| {
            x.par_chunks_mut(band * size.x.w * size.x.c).enumerate().for_each(|(i, x)| {
                add_band(size, y, w, n, i * band..size.x.h.min((i + 1) * band), x);
                epilogue.apply(n * sample + i * band * size.x.w * size.x.c, x);
            });
        });
    }
}

/// Computes `x`: the rows `band` of sample `n`, or several whole samples from `n` on.
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
    // The range of output rows whose windows intersect the band.
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

/// dw = im2col(x)ᵀ · dy.
fn backward_weight<T: Real>(size: &Conv2d, x: &[T], dy: &[T], dw: &mut [T]) {
    let k = size.y.c;
    let pixels = size.n * size.y.area();
    if is_product(size) && size.x.area() == 1 {
        // A fully connected layer: in blocks of rows of dw.
        let rows = CHUNK.div_ceil(k).max(size.x.c / 8).next_multiple_of(16);
        dw.par_chunks_mut(rows * k).enumerate().for_each(|(i, dw)| {
            let x = Matrix::rows(x, size.x.c).from(i * rows).t();
            gemm([dw.len() / k, k, size.n], dw, [k, 1], x, Matrix::rows(dy, k), false);
        });
        return;
    }
    if let Some(rotated) =
        rotated(size).filter(|_| k < size.x.c && !is_product(size) && !depthwise::takes(size))
    {
        // The same sums with the columns of the side with fewer channels.
        return T::scratch(dw.len(), |rotated_dw| {
            backward_weight(&rotated, dy, x, rotated_dw);
            rotate_weight(&rotated, rotated_dw, dw);
        });
    }
    // The pixels are split into slices, each with its own partial gradient. Large gradients get
    // fewer slices, to bound the memory (4 Mi elements), and are split by kernel rows as well. The
    // numbers depend on the problem only, so that results do not depend on the number of threads.
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

/// The gradient of the kernel rows `r`, summed over the output pixels `pixels`.
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
        T::scratch(if narrow { width * k } else { 0 }, |transposed| {
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
                        gemm([width, k, count], transposed, [1, width], columns.t(), dy, add);
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
                            *dw = transposed[j * width + i];
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
        let epilogue = Epilogue::new(memory, self.b, self.gate());
        forward(&self.size, memory.real(self.x), memory.real(self.w), &mut y, epilogue);
        memory.put(y);
    }
}

/// Elements of the samples that a thread convolves before it pools them: 256 KiB of f32, which
/// stay in its second-level cache.
const POOLED: usize = 65_536;
/// Elements of a sample above which samples come one after the other, so that threads do not need
/// memory for one each: 4 MiB of f32.
const LARGE: usize = 1_048_576;

impl Reference for Conv2dMaxPoolFwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let (mut y, mut switches) = (memory.take(self.y), memory.take_words(self.switches));
        let epilogue =
            Epilogue::new(memory, self.b, Gate { activation: self.activation, ..Gate::NONE });
        let (x, w) = (memory.real(self.x), memory.real(self.w));
        let (size, pool) = (&self.size, self.pool());
        let samples = (POOLED / size.y.len()).clamp(1, size.n);
        let one = |(x, (y, switches)): (&[T], (&mut [T], &mut [u32]))| {
            let n = x.len() / size.x.len();
            T::scratch(n * size.y.len(), |maps| {
                forward(&Conv2d { n, ..*size }, x, w, maps, epilogue);
                max_pool(&Pool2d { n, ..pool }, maps, y, switches);
            });
        };
        let (len, pooled) = (samples * size.x.len(), samples * pool.y.len());
        if size.y.len() > LARGE {
            let results = y.chunks_mut(pooled).zip(switches.chunks_mut(pooled));
            x.chunks(len).zip(results).for_each(one);
        } else {
            let results = y.par_chunks_mut(pooled).zip(switches.par_chunks_mut(pooled));
            x.par_chunks(len).zip(results).for_each(one);
        }
        memory.put(y);
        memory.put_words(switches);
    }
}

impl Reference for Conv2dBwdInput {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut x = memory.take(self.x);
        let epilogue = Epilogue::new(memory, self.b, self.gate());
        backward_input(&self.size, memory.real(self.y), memory.real(self.w), &mut x, epilogue);
        memory.put(x);
    }
}

impl Reference for Conv2dBwdWeight {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        if let Some(db) = self.db {
            self.bias_sum(db, self.partials).run(memory);
        }
        let mut dw = memory.take(self.dw);
        backward_weight(&self.size, memory.real(self.x), memory.real(self.dy), &mut dw);
        memory.put(dw);
    }
}

#[cfg(test)]
#[path = "cpu_tests.rs"]
mod tests;
