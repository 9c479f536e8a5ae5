//! The eight ways to lay a picture: turned by quarters and flipped.

/// One of the eight ways to lay a picture, by its bits: sides exchanged, then flipped top to
/// bottom, then left to right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way(pub(super) u8);

impl Way {
    pub(crate) const fn turned(self) -> bool {
        self.0 & 1 == 1
    }

    /// The sides afterwards.
    pub(crate) const fn sides(self, (h, w): (usize, usize)) -> (usize, usize) {
        if self.turned() { (w, h) } else { (h, w) }
    }

    /// For each pixel of the picture as it is laid, where it comes from.
    fn sources(self, (h, w): (usize, usize)) -> impl Iterator<Item = usize> {
        let (to_h, to_w) = self.sides((h, w));
        (0..h * w).map(move |at| {
            let (y, x) = (at / to_w, at % to_w);
            let y = if self.0 & 2 == 2 { to_h - 1 - y } else { y };
            let x = if self.0 & 4 == 4 { to_w - 1 - x } else { x };
            if self.turned() { x * w + y } else { y * w + x }
        })
    }

    /// A picture (H,W,C) laid this way.
    pub(crate) fn lay<T: Copy>(self, pixels: &[T], size: (usize, usize), c: usize) -> Vec<T> {
        self.sources(size).flat_map(|at| &pixels[at * c..(at + 1) * c]).copied().collect()
    }

    /// One that was laid this way as it was; `size` is that of the result.
    pub(crate) fn lay_back(self, pixels: &[f32], size: (usize, usize), c: usize) -> Vec<f32> {
        let mut out = vec![0.0; pixels.len()];
        for (from, to) in self.sources(size).enumerate() {
            out[to * c..(to + 1) * c].copy_from_slice(&pixels[from * c..(from + 1) * c]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_another_and_is_undone() {
        let (size, c) = ((2, 3), 2);
        let pixels: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let laid: std::collections::BTreeSet<Vec<u8>> = (0..8)
            .map(|way| Way(way).lay(&pixels, size, c).iter().map(|v| *v as u8).collect())
            .collect();
        assert_eq!(laid.len(), 8);
        assert_eq!(Way(1).lay(&pixels, size, c)[..4], [0.0, 1.0, 6.0, 7.0]);
        assert!(
            (0..8).all(|way| Way(way).lay_back(&Way(way).lay(&pixels, size, c), size, c) == pixels)
        );
    }
}
