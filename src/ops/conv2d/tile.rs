//! The tiles of the `_subgroup`, `_tiled` and `_matrix` kernels.

use crate::gpu::Choice;
use crate::shape::Conv2d;

/// A tile of the `_subgroup`, `_tiled` and `_matrix` kernels.
pub(super) struct Tile {
    /// Invocations of a workgroup.
    pub(super) size: u32,
    /// Rows of a tile.
    pub(super) rows: usize,
    /// Vec4s of columns.
    pub(super) columns: usize,
}

impl Tile {
    /// The tile of a kernel variant for products with `columns` columns. None for variants without
    /// tiles.
    pub(super) fn of(choice: Choice, columns: usize) -> Option<Self> {
        let vectors = columns.div_ceil(4).next_power_of_two();
        match choice {
            Choice::Subgroup => Some(Self { size: 8, rows: 32, columns: vectors.clamp(2, 8) }),
            Choice::Tiled => Some(Self { size: 64, rows: 64, columns: vectors.clamp(4, 16) }),
            Choice::Matrix => Some(Self { size: 128, rows: 64, columns: vectors.clamp(4, 16) }),
            _ => None,
        }
    }

    /// The tile of the `_tiled_small` kernel, for products with few rows and columns. It has half
    /// of the rows and takes twice the terms in an iteration. None for larger products.
    pub(super) fn small(rows: usize, columns: usize) -> Option<Self> {
        let vectors = columns.div_ceil(4).next_power_of_two().max(4);
        (rows <= 32 && vectors <= 8).then_some(Self { size: 64, rows: 32, columns: vectors })
    }

    /// Number of workgroups for a product of `rows` by `columns`.
    pub(super) const fn groups(&self, rows: usize, columns: usize) -> u64 {
        (rows.div_ceil(self.rows) * columns.div_ceil(4 * self.columns)) as u64
    }
}

/// Number of workgroups of the gradient by the input with this tile: those of every phase.
pub(super) fn phase_tiles(tile: &Tile, g: &Conv2d) -> u64 {
    let [stride_h, stride_w] = g.taps.stride;
    let pixels = g.n * g.x.h.div_ceil(stride_h) * g.x.w.div_ceil(stride_w);
    (stride_h * stride_w) as u64 * tile.groups(pixels, g.x.c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_tiles_are_for_few_rows_and_columns() {
        let columns = |rows, columns| Tile::small(rows, columns).map(|tile| tile.columns);
        assert_eq!((columns(27, 32), columns(9, 16), columns(4, 3)), (Some(8), Some(4), Some(4)));
        assert_eq!((columns(33, 32), columns(27, 33)), (None, None));
    }
}
