//! The tiles of the `_subgroup`, `_tiled` and `_matrix` kernels.

use crate::gpu::{Building, Choice, Traits};
use crate::shape::Conv2d;

/// A tile of the `_subgroup`, `_tiled` and `_matrix` kernels.
pub(super) struct Tile {
    /// Invocations of a workgroup.
    pub(super) size: u32,
    /// Rows of a tile.
    pub(super) rows: usize,
    /// Vec4s of columns.
    pub(super) columns: usize,
    /// The constant `BLOCKS` of matrix kernels.
    blocks: Option<u32>,
    /// Whether invocations sum 8 by 4 elements.
    is_8x4: bool,
}

impl Tile {
    /// The tile of a kernel variant for products with `columns` columns. None for variants without
    /// tiles.
    pub(super) fn of(traits: &Traits, choice: Choice, columns: usize) -> Option<Self> {
        let tiled = Self::tiled(columns);
        match choice {
            Choice::Subgroup => {
                let vectors = columns.div_ceil(4).next_power_of_two().clamp(2, 8);
                Some(Self { size: 8, rows: 32, columns: vectors, ..tiled })
            }
            Choice::Tiled => Some(tiled),
            Choice::Tiled8x4 => Some(Self { size: 128, is_8x4: true, ..tiled }),
            Choice::Matrix => {
                let unit = traits.matrices.unit()?;
                Some(Self { size: unit.workgroup(), blocks: unit.blocks(), ..tiled })
            }
            _ => None,
        }
    }

    /// The tile of the `_tiled` kernels.
    pub(super) fn tiled(columns: usize) -> Self {
        let columns = columns.div_ceil(4).next_power_of_two().clamp(4, 16);
        Self { size: 64, rows: 64, columns, blocks: None, is_8x4: false }
    }

    /// The tile of the `_tiled_small` kernel, for products with few rows and columns. It has half
    /// of the rows and takes twice the terms in an iteration. None for larger products.
    pub(super) fn small(rows: usize, columns: usize) -> Option<Self> {
        let vectors = columns.div_ceil(4).next_power_of_two().max(4);
        let small = Self { rows: 32, columns: vectors, ..Self::tiled(columns) };
        (rows <= 32 && vectors <= 8).then_some(small)
    }

    /// Completes a dispatch of this tile with `groups` workgroups.
    pub(super) fn dispatch(&self, dispatch: Building, groups: u64) {
        let mut dispatch = dispatch.constant("COLUMNS", self.columns as u32);
        if let Some(blocks) = self.blocks {
            dispatch = dispatch.constant("BLOCKS", blocks);
        }
        dispatch.tiles_8x4(self.is_8x4).groups(groups, self.size);
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
