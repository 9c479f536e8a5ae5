//! The eight dihedral transforms of an image: quarter turns and flips.

/// A dihedral transform. Bit 0 transposes, then bit 1 flips top to bottom, then bit 2 flips left to
/// right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dihedral(pub(super) u8);

impl Dihedral {
    /// Whether height and width are exchanged.
    pub(crate) const fn swaps_sides(self) -> bool {
        self.0 & 1 == 1
    }

    /// Height and width of the result.
    pub(crate) const fn sides(self, (h, w): (usize, usize)) -> (usize, usize) {
        if self.swaps_sides() { (w, h) } else { (h, w) }
    }

    /// For each pixel of the result, the index of its source pixel.
    fn sources(self, (h, w): (usize, usize)) -> impl Iterator<Item = usize> {
        let (to_h, to_w) = self.sides((h, w));
        (0..h * w).map(move |at| {
            let (y, x) = (at / to_w, at % to_w);
            let y = if self.0 & 2 == 2 { to_h - 1 - y } else { y };
            let x = if self.0 & 4 == 4 { to_w - 1 - x } else { x };
            if self.swaps_sides() { x * w + y } else { y * w + x }
        })
    }

    /// Transforms an image (H,W,C).
    pub(crate) fn apply<T: Copy>(self, pixels: &[T], size: (usize, usize), c: usize) -> Vec<T> {
        self.sources(size).flat_map(|at| &pixels[at * c..(at + 1) * c]).copied().collect()
    }

    /// Undoes the transform; `size` is height and width of the result.
    pub(crate) fn invert(self, pixels: &[f32], size: (usize, usize), c: usize) -> Vec<f32> {
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
    fn the_eight_transforms_differ_and_are_inverted() {
        let (size, c) = ((2, 3), 2);
        let pixels: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let transformed: std::collections::BTreeSet<Vec<u8>> = (0..8)
            .map(|transform| {
                Dihedral(transform).apply(&pixels, size, c).iter().map(|v| *v as u8).collect()
            })
            .collect();
        assert_eq!(transformed.len(), 8);
        assert_eq!(Dihedral(1).apply(&pixels, size, c)[..4], [0.0, 1.0, 6.0, 7.0]);
        assert!((0..8).all(|transform| Dihedral(transform).invert(
            &Dihedral(transform).apply(&pixels, size, c),
            size,
            c
        ) == pixels));
    }
}
