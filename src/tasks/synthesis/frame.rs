//! Padding an image so that a model without padding of its own sees every position, and the adjoint
//! of that padding for gradients. Halving an image, and the adjoint of halving.

use crate::shape::{Dims, Size};

/// How an image continues beyond its edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Border {
    /// The image repeats; opposite sides meet.
    Wrap,
    /// The image is mirrored at its edge; edge pixels are not repeated.
    Mirror,
}

/// The source row and column of each row and column of a padded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    size: Size,
    padding: usize,
    rows: Vec<usize>,
    columns: Vec<usize>,
}

/// The index in `0..size` that position `at` of the continued image shows.
fn source(at: isize, size: usize, border: Border) -> usize {
    let size = size as isize;
    match border {
        Border::Wrap => at.rem_euclid(size) as usize,
        Border::Mirror => {
            let period = (2 * (size - 1)).max(1);
            let at = at.rem_euclid(period);
            at.min(period - at).min(size - 1) as usize
        }
    }
}

impl Frame {
    /// The image without padding.
    pub fn unpadded(size: Size) -> Self {
        Self { size, padding: 0, rows: (0..size.h).collect(), columns: (0..size.w).collect() }
    }

    /// Pads an image of `size` by `padding` pixels on every side, and by more at the bottom and on
    /// the right until the image itself has a multiple of `align` pixels along each side.
    pub fn new(size: Size, border: Border, padding: usize, align: usize) -> Self {
        let along = |size: usize| {
            let end = size.next_multiple_of(align) + padding;
            (-(padding as isize)..end as isize).map(|at| source(at, size, border)).collect()
        };
        Self { size, padding, rows: along(size.h), columns: along(size.w) }
    }

    /// Height and width of the padded image.
    pub const fn padded(&self) -> Size {
        Size { h: self.rows.len(), w: self.columns.len() }
    }

    /// Height and width of the image.
    pub const fn size(&self) -> Size {
        self.size
    }

    /// Number of pixels above the image and to its left.
    pub const fn padding(&self) -> usize {
        self.padding
    }

    /// Pads an image (H,W,C).
    pub fn pad(&self, image: &[f32], c: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.padded().area() * c);
        for &row in &self.rows {
            let row = &image[row * self.size.w * c..][..self.size.w * c];
            self.columns.iter().for_each(|&column| out.extend_from_slice(&row[column * c..][..c]));
        }
        out
    }

    /// The adjoint of [`Frame::pad`]: turns the gradient with respect to the padded image into the
    /// gradient with respect to the image.
    pub fn pad_adjoint(&self, padded: &[f32], c: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.size.area() * c];
        for (&row, values) in self.rows.iter().zip(padded.chunks_exact(self.columns.len() * c)) {
            let out = &mut out[row * self.size.w * c..][..self.size.w * c];
            for (&column, values) in self.columns.iter().zip(values.chunks_exact(c)) {
                out[column * c..][..c].iter_mut().zip(values).for_each(|(out, v)| *out += v);
            }
        }
        out
    }
}

/// Halves an image along each side, rounding up, by the mean of 2×2 pixels; at an odd edge the last
/// row or column counts twice. Also returns the new size.
pub fn halve(image: &[f32], from: Dims) -> (Vec<f32>, Size) {
    let to = Dims::of(half(from.size()), from.c);
    let mut out = vec![0.0; to.len()];
    for y in 0..to.h {
        for x in 0..to.w {
            for (from_y, from_x) in source_pixels(y, x, from.size()) {
                for k in 0..from.c {
                    out[to.offset(k, y, x)] += 0.25 * image[from.offset(k, from_y, from_x)];
                }
            }
        }
    }
    (out, to.size())
}

/// The size of an image after [`halve`].
pub fn half(size: Size) -> Size {
    size.map(|side| side.div_ceil(2))
}

/// The adjoint of [`halve`]: adds the contribution of the half-size image's gradient to
/// `gradient`.
pub fn halve_adjoint(gradient: &mut [f32], to: Dims, half_gradient: &[f32]) {
    let from = Dims::of(half(to.size()), to.c);
    for y in 0..from.h {
        for x in 0..from.w {
            for (to_y, to_x) in source_pixels(y, x, to.size()) {
                for k in 0..to.c {
                    gradient[to.offset(k, to_y, to_x)] +=
                        0.25 * half_gradient[from.offset(k, y, x)];
                }
            }
        }
    }
}

/// The four pixels of an image of `size` that are averaged into one. At an odd edge some appear
/// twice.
fn source_pixels(y: usize, x: usize, size: Size) -> [(usize, usize); 4] {
    let (top, bottom) = (2 * y, (2 * y + 1).min(size.h - 1));
    let (left, right) = (2 * x, (2 * x + 1).min(size.w - 1));
    [(top, left), (top, right), (bottom, left), (bottom, right)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn noise(n: usize, name: &str) -> Vec<f32> {
        let mut stream = Stream::new(3, name);
        (0..n).map(|_| stream.normal()).collect()
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    #[test]
    fn borders_wrap_and_mirror() {
        let image = [1.0, 2.0, 3.0];
        let of = |border| Frame::new(Size::new(1, 3), border, 4, 1).pad(&image, 1)[..11].to_vec();
        assert_eq!(of(Border::Wrap), [3.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0]);
        assert_eq!(of(Border::Mirror), [1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0]);
        let mirrored = |h: usize, w: usize, padding: usize, align: usize| {
            Frame::new(Size { h, w }, Border::Mirror, padding, align)
        };
        assert_eq!(mirrored(5, 6, 2, 4).padded(), Size::new(12, 12));
        assert_eq!(Frame::unpadded(Size::new(2, 3)).pad(&[1.0; 12], 2), [1.0; 12]);
        // a single pixel has no neighbour to mirror
        assert_eq!(mirrored(1, 1, 1, 1).pad(&[7.0], 1), [7.0; 9]);
    }

    #[test]
    fn adjoints_satisfy_the_inner_product_identity() {
        for (h, w, border) in [(5, 7, Border::Wrap), (6, 3, Border::Mirror)] {
            let dims = Dims::new(3, h, w);
            let frame = Frame::new(dims.size(), border, 4, 4);
            let (image, out) = (noise(dims.len(), "a"), noise(frame.padded().area() * 3, "b"));
            let (there, back) =
                (dot(&frame.pad(&image, 3), &out), dot(&image, &frame.pad_adjoint(&out, 3)));
            assert!((there - back).abs() < 1e-4 * there.abs().max(1.0), "{there} {back}");
            let (half, to) = halve(&image, dims);
            let out = noise(to.area() * 3, "c");
            let mut gradient = vec![0.0; image.len()];
            halve_adjoint(&mut gradient, dims, &out);
            let (there, back) = (dot(&half, &out), dot(&image, &gradient));
            assert!((there - back).abs() < 1e-4 * there.abs().max(1.0), "{there} {back}");
        }
        assert_eq!(
            halve(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], Dims::new(1, 2, 3)),
            (vec![2.0, 3.5], Size::new(1, 2))
        );
    }
}
