//! im2col and col2im, which reduce a convolution to a matrix product. im2col copies the window of
//! each output pixel into a row. Its adjoint col2im adds such rows back into the map. Columns are
//! ordered (r, s, c), like the rows of the weight.

use std::ops::Range;

use crate::linalg::real::Real;
use crate::shape::Conv2d;

/// A range of columns: kernel rows `r` of the channels of one group.
#[derive(Clone, Debug)]
pub struct Columns {
    /// Kernel rows.
    pub r: Range<usize>,
    /// Group.
    pub group: usize,
}

impl Columns {
    /// Number of columns.
    pub fn len(&self, size: &Conv2d) -> usize {
        self.r.len() * size.taps.kernel[1] * (size.x.c / size.groups)
    }
}

/// The taps s of a kernel row that are inside the map, for a window that begins at column `start`
/// (negative in the padding).
#[inline]
fn inside(start: isize, taps: usize, dilation: usize, width: usize) -> Range<usize> {
    let end = start + ((taps - 1) * dilation) as isize;
    if start >= 0 && end < width as isize {
        return 0..taps;
    }
    let first = if start >= 0 { 0 } else { start.unsigned_abs().div_ceil(dilation).min(taps) };
    let last = if start >= width as isize {
        0
    } else {
        ((width as isize - start) as usize).div_ceil(dilation).min(taps)
    };
    first.min(last)..last
}

/// Writes the rows of the output pixels from `first` on (counted over n, p, q) to `col`. Its length
/// determines their number.
pub fn im2col<T: Real>(size: &Conv2d, columns: &Columns, x: &[T], first: usize, col: &mut [T]) {
    let width = columns.len(size);
    let (mut pixel, mut rest) = (first, col);
    while !rest.is_empty() {
        let (q, row) = (pixel % size.y.w, pixel / size.y.w);
        let count = (size.y.w - q).min(rest.len() / width);
        let (windows, after) = rest.split_at_mut(count * width);
        let map = &x[row / size.y.h * size.x.len()..][..size.x.len()];
        for (i, r) in columns.r.clone().enumerate() {
            kernel_row(size, columns.group, map, [row % size.y.h, q], r, [width, i], windows);
        }
        (pixel, rest) = (pixel + count, after);
    }
}

/// Writes the values under the taps of kernel row `r` to the `place`-th part of each window of
/// `width` columns. The windows are those of neighbouring output pixels, from (p, q) on.
fn kernel_row<T: Real>(
    size: &Conv2d,
    group: usize,
    map: &[T],
    [p, q]: [usize; 2],
    r: usize,
    [width, place]: [usize; 2],
    windows: &mut [T],
) {
    let ([stride_h, stride], [pad_h, pad]) = (size.taps.stride, size.taps.padding);
    let ([_, s_taps], [dilation_h, dilation]) = (size.taps.kernel, size.taps.dilation);
    let (channels, all) = (size.x.c / size.groups, size.x.c);
    let strip = s_taps * channels;
    let at = place * strip;
    // Above the map h wraps to a huge value.
    let h = (p * stride_h + r * dilation_h).wrapping_sub(pad_h);
    if h >= size.x.h {
        windows.chunks_exact_mut(width).for_each(|window| window[at..at + strip].fill(T::ZERO));
        return;
    }
    let map = &map[h * size.x.w * all..(h + 1) * size.x.w * all];
    let count = windows.len() / width;
    let contiguous = dilation == 1 && size.groups == 1;
    // The pixels whose taps are all inside the map, and lie one after the other in memory.
    let within = if contiguous && size.x.w + pad >= s_taps {
        let start = pad.div_ceil(stride).clamp(q, q + count) - q;
        let end = ((size.x.w + pad - s_taps) / stride + 1).clamp(q, q + count) - q;
        start..end.max(start)
    } else {
        0..0
    };
    for i in (0..within.start).chain(within.end..count) {
        let w = ((q + i) * stride) as isize - pad as isize;
        let taps = inside(w, s_taps, dilation, size.x.w);
        let window = &mut windows[i * width + at..][..strip];
        for (s, to) in window.chunks_exact_mut(channels).enumerate() {
            if taps.contains(&s) {
                let start = (w + (s * dilation) as isize) as usize * all + group * channels;
                to.copy_from_slice(&map[start..start + channels]);
            } else {
                to.fill(T::ZERO);
            }
        }
    }
    if !within.is_empty() {
        let map = &map[((q + within.start) * stride - pad) * all..];
        let windows = &mut windows[within.start * width..within.end * width];
        copy_strips(map, stride * all, strip, windows, width, at);
    }
}

/// Copies a strip of `strip` elements for each window of `width` to its element `at`. The strips
/// begin `step` elements apart.
fn copy_strips<T: Real>(
    from: &[T],
    step: usize,
    strip: usize,
    windows: &mut [T],
    width: usize,
    at: usize,
) {
    /// A copy of known length is a few instructions; one of any length is a call.
    fn fixed<T: Real, const N: usize>(
        from: &[T],
        step: usize,
        windows: &mut [T],
        width: usize,
        at: usize,
    ) {
        for (i, window) in windows.chunks_exact_mut(width).enumerate() {
            let strip: [T; N] = from[i * step..][..N].try_into().expect("N elements");
            window[at..at + N].copy_from_slice(&strip);
        }
    }
    macro_rules! lengths {
        ($($n:literal)*) => {
            match strip {
                $($n => fixed::<T, $n>(from, step, windows, width, at),)*
                _ => for (i, window) in windows.chunks_exact_mut(width).enumerate() {
                    window[at..at + strip].copy_from_slice(&from[i * step..i * step + strip]);
                },
            }
        };
    }
    // Kernels of up to 7 taps on maps of few channels.
    lengths!(1 2 3 4 5 6 7 8 9 10 12 15 16 20 21 24 28 32)
}

/// Adds the columns `col` (Q, R·S·C/groups) of output row p to `x`, which holds the rows `band` of
/// the sample's map.
pub fn col2im_row<T: Real>(
    size: &Conv2d,
    group: usize,
    col: &[T],
    p: usize,
    band: &Range<usize>,
    x: &mut [T],
) {
    let ([r_taps, s_taps], [_, dilation]) = (size.taps.kernel, size.taps.dilation);
    let (channels, all) = (size.x.c / size.groups, size.x.c);
    let offset = group * channels;
    let contiguous = dilation == 1 && size.groups == 1;
    for r in 0..r_taps {
        let h = (p * size.taps.stride[0] + r * size.taps.dilation[0])
            .wrapping_sub(size.taps.padding[0]);
        if !band.contains(&h) {
            continue;
        }
        let line = &mut x[(h - band.start) * size.x.w * all..(h - band.start + 1) * size.x.w * all];
        for (q, col) in col.chunks_exact(r_taps * s_taps * channels).enumerate() {
            let col = &col[r * s_taps * channels..(r + 1) * s_taps * channels];
            let w = (q * size.taps.stride[1]) as isize - size.taps.padding[1] as isize;
            let taps = inside(w, s_taps, dilation, size.x.w);
            if taps.is_empty() {
                continue;
            }
            if contiguous {
                let start = (w + taps.start as isize) as usize * channels;
                add(
                    &mut line[start..start + taps.len() * channels],
                    &col[taps.start * channels..taps.end * channels],
                );
            } else {
                for s in taps {
                    let start = (w + (s * dilation) as isize) as usize * all + offset;
                    add(&mut line[start..start + channels], &col[s * channels..(s + 1) * channels]);
                }
            }
        }
    }
}

#[inline]
fn add<T: Real>(to: &mut [T], from: &[T]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::{Dims, Taps};
    use crate::testing::{dot, normals};

    #[test]
    fn taps_inside_the_map() {
        for start in -12_isize..12 {
            for (taps, dilation, width) in [(1, 1, 1), (3, 1, 4), (3, 2, 4), (5, 3, 2), (4, 1, 9)] {
                let expected: Vec<usize> = (0..taps)
                    .filter(|s| (0..width as isize).contains(&(start + (s * dilation) as isize)))
                    .collect();
                assert_eq!(
                    inside(start, taps, dilation, width).collect::<Vec<_>>(),
                    expected,
                    "{start} {taps} {dilation} {width}"
                );
            }
        }
    }

    #[test]
    fn im2col_and_col2im_are_adjoint() {
        let taps = Taps { kernel: [3, 2], stride: [2, 1], padding: [2, 1], dilation: [1, 2] };
        let size = Conv2d::forward(2, Dims::new(4, 5, 6), 2, taps, 2).unwrap();
        let columns = Columns { r: 0..3, group: 1 };
        let width = columns.len(&size);
        let x = normals(1, 2 * size.x.len());
        let mut col = vec![f64::NAN; 2 * size.y.area() * width];
        im2col(&size, &columns, &x, 0, &mut col);
        let g = normals(2, col.len());
        let mut back = vec![0.0; x.len()];
        let row = size.y.w * width;
        for (i, g) in g.chunks_exact(row).enumerate() {
            let (n, p) = (i / size.y.h, i % size.y.h);
            col2im_row(
                &size,
                1,
                g,
                p,
                &(0..size.x.h),
                &mut back[n * size.x.len()..(n + 1) * size.x.len()],
            );
        }
        let (a, b) = (dot(&col, &g), dot(&x, &back));
        assert!((a - b).abs() < 1e-12 * a.abs() && a != 0.0, "{a} {b}");
        // A part that begins in the middle equals that part of the whole.
        let mut part = vec![f64::NAN; 5 * width];
        im2col(&size, &columns, &x, 3, &mut part);
        assert_eq!(part, col[3 * width..8 * width]);
    }
}
