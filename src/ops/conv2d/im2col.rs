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
    let ([_, s_taps], [_, dilation]) = (size.taps.kernel, size.taps.dilation);
    let (channels, all) = (size.x.c / size.groups, size.x.c);
    let offset = columns.group * channels;
    let contiguous = dilation == 1 && size.groups == 1;
    let (q_count, p_count) = (size.y.w, size.y.h);
    let (mut q, mut p, mut n) =
        (first % q_count, first / q_count % p_count, first / q_count / p_count);
    for row in col.chunks_exact_mut(columns.len(size)) {
        let map = &x[n * size.x.len()..(n + 1) * size.x.len()];
        let w = (q * size.taps.stride[1]) as isize - size.taps.padding[1] as isize;
        let taps = inside(w, s_taps, dilation, size.x.w);
        for (r, row) in columns.r.clone().zip(row.chunks_exact_mut(s_taps * channels)) {
            let h = (p * size.taps.stride[0] + r * size.taps.dilation[0])
                .wrapping_sub(size.taps.padding[0]);
            if h >= size.x.h || taps.is_empty() {
                row.fill(T::ZERO);
                continue;
            }
            let from = (h * size.x.w) as isize + w;
            if contiguous {
                let start = (from + taps.start as isize) as usize * channels;
                row[..taps.start * channels].fill(T::ZERO);
                row[taps.start * channels..taps.end * channels]
                    .copy_from_slice(&map[start..start + taps.len() * channels]);
                row[taps.end * channels..].fill(T::ZERO);
            } else {
                for (s, to) in row.chunks_exact_mut(channels).enumerate() {
                    if taps.contains(&s) {
                        let start = (from + (s * dilation) as isize) as usize * all + offset;
                        to.copy_from_slice(&map[start..start + channels]);
                    } else {
                        to.fill(T::ZERO);
                    }
                }
            }
        }
        q += 1;
        if q == q_count {
            (q, p) = (0, p + 1);
            if p == p_count {
                (p, n) = (0, n + 1);
            }
        }
    }
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
