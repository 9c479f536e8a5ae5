//! The eight dihedral transforms of an image: quarter turns and flips.

use crate::shape::{Dims, Size};

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
    pub(crate) const fn size(self, size: Size) -> Size {
        if self.swaps_sides() { Size::new(size.w, size.h) } else { size }
    }

    /// For each pixel of the result, the index of its source pixel.
    fn sources(self, size: Size) -> impl Iterator<Item = usize> {
        let to = self.size(size);
        (0..size.area()).map(move |at| {
            let (y, x) = (at / to.w, at % to.w);
            let y = if self.0 & 2 == 2 { to.h - 1 - y } else { y };
            let x = if self.0 & 4 == 4 { to.w - 1 - x } else { x };
            if self.swaps_sides() { x * size.w + y } else { y * size.w + x }
        })
    }

    /// Transforms an image (H,W,C).
    pub(crate) fn apply<T: Copy>(self, pixels: &[T], dims: Dims) -> Vec<T> {
        let c = dims.c;
        self.sources(dims.size()).flat_map(|at| &pixels[at * c..(at + 1) * c]).copied().collect()
    }

    /// Undoes the transform; `dims` is the size of the result.
    pub(crate) fn invert(self, pixels: &[f32], dims: Dims) -> Vec<f32> {
        let c = dims.c;
        let mut out = vec![0.0; pixels.len()];
        for (from, to) in self.sources(dims.size()).enumerate() {
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
        let dims = Dims::new(2, 2, 3);
        let pixels: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let transformed: std::collections::BTreeSet<Vec<u8>> = (0..8)
            .map(|transform| {
                Dihedral(transform).apply(&pixels, dims).iter().map(|v| *v as u8).collect()
            })
            .collect();
        assert_eq!(transformed.len(), 8);
        assert_eq!(Dihedral(1).apply(&pixels, dims)[..4], [0.0, 1.0, 6.0, 7.0]);
        assert!((0..8).all(|transform| {
            let turned = Dihedral(transform).apply(&pixels, dims);
            Dihedral(transform).invert(&turned, dims) == pixels
        }));
    }
}
