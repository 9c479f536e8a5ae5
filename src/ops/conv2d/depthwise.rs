//! Depthwise convolutions (C = K = groups): one product for each tap, vectorised over channels.
//! Memory: x (N,H,W,C), y (N,P,Q,C), w (R,S,C).

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::reference::parallel::units;
use crate::shape::Conv2d;

/// Whether these functions support the problem.
pub fn takes(size: &Conv2d) -> bool {
    size.groups > 1 && size.groups == size.x.c && size.groups == size.y.c
}

/// Position in x of output `p` and tap `r` along one axis. None if it is in the padding.
fn position(size: &Conv2d, axis: usize, p: usize, r: usize) -> Option<usize> {
    let h = (p * size.taps.stride[axis] + r * size.taps.dilation[axis])
        .checked_sub(size.taps.padding[axis])?;
    (h < [size.x.h, size.x.w][axis]).then_some(h)
}

/// The output whose tap `r` is at position `h` of x along one axis, if it exists.
fn source(size: &Conv2d, axis: usize, h: usize, r: usize) -> Option<usize> {
    let p = (h + size.taps.padding[axis]).checked_sub(r * size.taps.dilation[axis])?;
    (p.is_multiple_of(size.taps.stride[axis])
        && p / size.taps.stride[axis] < [size.y.h, size.y.w][axis])
        .then(|| p / size.taps.stride[axis])
}

/// The channels of a pixel.
fn pixel<T>(x: &[T], index: usize, channels: usize) -> &[T] {
    &x[index * channels..(index + 1) * channels]
}

/// to += a·b, element by element.
fn add_product<T: Real>(to: &mut [T], a: &[T], b: &[T]) {
    for ((to, &a), &b) in to.iter_mut().zip(a).zip(b) {
        *to += a * b;
    }
}

/// y = conv(x, w). `finish` is called with each finished block and the index of its first element.
pub fn forward<T: Real>(
    size: &Conv2d,
    x: &[T],
    w: &[T],
    y: &mut [T],
    finish: impl Fn(usize, &mut [T]) + Sync,
) {
    let (c, [_, s_taps]) = (size.x.c, size.taps.kernel);
    let row = size.y.w * c;
    let rows = units(row);
    y.par_chunks_mut(rows * row).enumerate().for_each(|(block, y)| {
        y.fill(T::ZERO);
        for (i, y) in y.chunks_exact_mut(row).enumerate() {
            let (n, p) = ((block * rows + i) / size.y.h, (block * rows + i) % size.y.h);
            for r in 0..size.taps.kernel[0] {
                let Some(h) = position(size, 0, p, r) else { continue };
                for (q, y) in y.chunks_exact_mut(c).enumerate() {
                    for s in 0..s_taps {
                        if let Some(w_at) = position(size, 1, q, s) {
                            add_product(
                                y,
                                pixel(x, (n * size.x.h + h) * size.x.w + w_at, c),
                                pixel(w, r * s_taps + s, c),
                            );
                        }
                    }
                }
            }
        }
        finish(block * rows * row, y);
    });
}

/// x = convᵀ(y, w), the adjoint. `finish` is called with each finished block and the index of its
/// first element.
pub fn backward_input<T: Real>(
    size: &Conv2d,
    y: &[T],
    w: &[T],
    x: &mut [T],
    finish: impl Fn(usize, &mut [T]) + Sync,
) {
    let (c, [_, s_taps]) = (size.x.c, size.taps.kernel);
    let row = size.x.w * c;
    let rows = units(row);
    x.par_chunks_mut(rows * row).enumerate().for_each(|(block, x)| {
        x.fill(T::ZERO);
        for (i, x) in x.chunks_exact_mut(row).enumerate() {
            let (n, h) = ((block * rows + i) / size.x.h, (block * rows + i) % size.x.h);
            for r in 0..size.taps.kernel[0] {
                let Some(p) = source(size, 0, h, r) else { continue };
                for (w_at, x) in x.chunks_exact_mut(c).enumerate() {
                    for s in 0..s_taps {
                        if let Some(q) = source(size, 1, w_at, s) {
                            add_product(
                                x,
                                pixel(y, (n * size.y.h + p) * size.y.w + q, c),
                                pixel(w, r * s_taps + s, c),
                            );
                        }
                    }
                }
            }
        }
        finish(block * rows * row, x);
    });
}

/// Adds the weight gradient of the output rows `rows`, counted over n and p, to dw.
pub fn add_weight_gradient<T: Real>(
    size: &Conv2d,
    x: &[T],
    dy: &[T],
    rows: std::ops::Range<usize>,
    dw: &mut [T],
) {
    let (c, [_, s_taps]) = (size.x.c, size.taps.kernel);
    for i in rows {
        let (n, p) = (i / size.y.h, i % size.y.h);
        for r in 0..size.taps.kernel[0] {
            let Some(h) = position(size, 0, p, r) else { continue };
            for q in 0..size.y.w {
                for s in 0..s_taps {
                    if let Some(w_at) = position(size, 1, q, s) {
                        let tap = r * s_taps + s;
                        let to = &mut dw[tap * c..(tap + 1) * c];
                        add_product(
                            to,
                            pixel(x, (n * size.x.h + h) * size.x.w + w_at, c),
                            pixel(dy, i * size.y.w + q, c),
                        );
                    }
                }
            }
        }
    }
}
