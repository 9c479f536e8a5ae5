//! Padding an image so that a model without padding of its own sees every position, and the adjoint
//! of that padding for gradients. Halving an image, and the adjoint of halving.

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
    size: [usize; 2],
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
    pub fn unpadded(size: [usize; 2]) -> Self {
        Self { size, padding: 0, rows: (0..size[0]).collect(), columns: (0..size[1]).collect() }
    }

    /// Pads an image of `size` [height, width] by `padding` pixels on every side, and by more at
    /// the bottom and on the right until the image itself has a multiple of `align` pixels along
    /// each side.
    pub fn new(size: [usize; 2], border: Border, padding: usize, align: usize) -> Self {
        let along = |size: usize| {
            let end = size.next_multiple_of(align) + padding;
            (-(padding as isize)..end as isize).map(|at| source(at, size, border)).collect()
        };
        Self { size, padding, rows: along(size[0]), columns: along(size[1]) }
    }

    /// Height and width of the padded image.
    pub fn padded(&self) -> [usize; 2] {
        [self.rows.len(), self.columns.len()]
    }

    /// Height and width of the image.
    pub const fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Number of pixels above the image and to its left.
    pub const fn padding(&self) -> usize {
        self.padding
    }

    /// Pads an image (H,W,C).
    pub fn pad(&self, image: &[f32], c: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.rows.len() * self.columns.len() * c);
        for &row in &self.rows {
            let row = &image[row * self.size[1] * c..][..self.size[1] * c];
            self.columns.iter().for_each(|&column| out.extend_from_slice(&row[column * c..][..c]));
        }
        out
    }

    /// The adjoint of [`Frame::pad`]: turns the gradient with respect to the padded image into the
    /// gradient with respect to the image.
    pub fn pad_adjoint(&self, padded: &[f32], c: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.size[0] * self.size[1] * c];
        for (&row, values) in self.rows.iter().zip(padded.chunks_exact(self.columns.len() * c)) {
            let out = &mut out[row * self.size[1] * c..][..self.size[1] * c];
            for (&column, values) in self.columns.iter().zip(values.chunks_exact(c)) {
                out[column * c..][..c].iter_mut().zip(values).for_each(|(out, v)| *out += v);
            }
        }
        out
    }
}

/// Halves an image along each side, rounding up, by the mean of 2×2 pixels; at an odd edge the last
/// row or column counts twice. Also returns the new size.
pub fn halve(image: &[f32], [h, w]: [usize; 2], c: usize) -> (Vec<f32>, [usize; 2]) {
    let to = [h.div_ceil(2), w.div_ceil(2)];
    let mut out = vec![0.0; to[0] * to[1] * c];
    for y in 0..to[0] {
        for x in 0..to[1] {
            for (from_y, from_x) in source_pixels(y, x, [h, w]) {
                for k in 0..c {
                    out[(y * to[1] + x) * c + k] += 0.25 * image[(from_y * w + from_x) * c + k];
                }
            }
        }
    }
    (out, to)
}

/// The adjoint of [`halve`]: adds the contribution of the half-size image's gradient to
/// `gradient`.
pub fn halve_adjoint(gradient: &mut [f32], [h, w]: [usize; 2], c: usize, half_gradient: &[f32]) {
    let width = w.div_ceil(2);
    for y in 0..h.div_ceil(2) {
        for x in 0..width {
            for (to_y, to_x) in source_pixels(y, x, [h, w]) {
                for k in 0..c {
                    gradient[(to_y * w + to_x) * c + k] +=
                        0.25 * half_gradient[(y * width + x) * c + k];
                }
            }
        }
    }
}

/// The four pixels that are averaged into one. At an odd edge some appear twice.
fn source_pixels(y: usize, x: usize, [h, w]: [usize; 2]) -> [(usize, usize); 4] {
    let (top, bottom, left, right) = (2 * y, (2 * y + 1).min(h - 1), 2 * x, (2 * x + 1).min(w - 1));
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
        let of = |border| Frame::new([1, 3], border, 4, 1).pad(&image, 1)[..11].to_vec();
        assert_eq!(of(Border::Wrap), [3.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0]);
        assert_eq!(of(Border::Mirror), [1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0]);
        assert_eq!(Frame::new([5, 6], Border::Mirror, 2, 4).padded(), [12, 12]);
        assert_eq!(Frame::unpadded([2, 3]).pad(&[1.0; 12], 2), [1.0; 12]);
        // a single pixel has no neighbour to mirror
        assert_eq!(Frame::new([1, 1], Border::Mirror, 1, 1).pad(&[7.0], 1), [7.0; 9]);
    }

    #[test]
    fn adjoints_satisfy_the_inner_product_identity() {
        for (size, border) in [([5, 7], Border::Wrap), ([6, 3], Border::Mirror)] {
            let frame = Frame::new(size, border, 4, 4);
            let [h, w] = frame.padded();
            let (image, out) = (noise(size[0] * size[1] * 3, "a"), noise(h * w * 3, "b"));
            let (there, back) =
                (dot(&frame.pad(&image, 3), &out), dot(&image, &frame.pad_adjoint(&out, 3)));
            assert!((there - back).abs() < 1e-4 * there.abs().max(1.0), "{there} {back}");
            let (half, to) = halve(&image, size, 3);
            let out = noise(to[0] * to[1] * 3, "c");
            let mut gradient = vec![0.0; image.len()];
            halve_adjoint(&mut gradient, size, 3, &out);
            let (there, back) = (dot(&half, &out), dot(&image, &gradient));
            assert!((there - back).abs() < 1e-4 * there.abs().max(1.0), "{there} {back}");
        }
        assert_eq!(halve(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [2, 3], 1), (vec![2.0, 3.5], [1, 2]));
    }
}
