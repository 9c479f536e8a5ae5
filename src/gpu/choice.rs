//! Kernel variants: a matrix product can be computed by several kernels, and the fastest depends on
//! the adapter and the shape.

use super::matrices::Matrices;
use super::tuned::Product;

/// A kernel variant for matrix products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Selects a variant by adapter and shape.
    #[default]
    Auto,
    /// The plain kernel, which supports every shape.
    Plain,
    /// Each invocation sums a block of outputs in registers.
    Registers,
    /// Sums in registers, operands shared by subgroup broadcasts.
    Subgroup,
    /// Sums in registers, operands shared in workgroup memory.
    Tiled,
    /// As [`Choice::Tiled`] with half of the sums for each invocation: for GPUs with few registers.
    Tiled8x4,
    /// Cooperative matrices that a subgroup multiplies together (tensor cores). For maps in half
    /// precision, on Metal for all. Used if named, if measured to be fastest, or, if they were
    /// verified on the adapter, for maps in half precision in products that suit them
    /// ([`Product::suits_units`]).
    Matrix,
}

impl Choice {
    /// All variants.
    pub const ALL: [Self; 7] = [
        Self::Auto,
        Self::Plain,
        Self::Registers,
        Self::Subgroup,
        Self::Tiled,
        Self::Tiled8x4,
        Self::Matrix,
    ];

    /// Name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Plain => "plain",
            Self::Registers => "registers",
            Self::Subgroup => "subgroup",
            Self::Tiled => "tiled",
            Self::Tiled8x4 => "tiled-8x4",
            Self::Matrix => "matrix",
        }
    }
}

/// Properties of an adapter that determine which kernels it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// The adapter runs on the CPU, where the arithmetic per load determines the speed.
    pub software: bool,
    /// An invocation has few registers, as on Intel's GPUs.
    pub few_registers: bool,
    /// Minimum number of invocations in a subgroup; 0 without the feature.
    pub subgroup: u32,
    /// Support for 64-bit integers.
    pub int64: bool,
    /// How `_matrix` kernels multiply.
    pub matrices: Matrices,
    /// Whether the `_matrix` kernels were verified on the adapter, so that they are the default for
    /// maps in half precision.
    pub verified: bool,
}

impl Traits {
    /// Minimum subgroup size for `_subgroup` kernels: 8 invocations exchange the columns of a tile
    /// (`shaders/common/subgroup_tile.wgsl`).
    pub const SUBGROUP: u32 = 8;

    /// Whether the adapter runs a variant.
    pub const fn takes(&self, choice: Choice) -> bool {
        match choice {
            Choice::Subgroup => self.subgroup >= Self::SUBGROUP,
            Choice::Matrix => !matches!(self.matrices, Matrices::None),
            _ => true,
        }
    }

    /// Whether the adapter runs a variant for `product`. Some `_matrix` kernels need maps in half
    /// precision.
    pub const fn takes_for(&self, choice: Choice, product: &Product) -> bool {
        match (choice, self.matrices.unit()) {
            (Choice::Matrix, Some(unit)) => unit.takes(product.half),
            _ => self.takes(choice),
        }
    }

    /// Whether kernels access four f32 as two 64-bit words. Software adapters load and store word
    /// by word, so this halves the number of accesses.
    pub const fn wide_words(&self) -> bool {
        self.software && self.int64
    }

    /// The variant for `product` if the user asked for `choice`: it, or the next best one if the
    /// adapter does not run it. None for [`Choice::Auto`].
    pub const fn forced(&self, choice: Choice, product: &Product) -> Option<Choice> {
        match choice {
            Choice::Auto => None,
            Choice::Subgroup if !self.takes(choice) => Some(Choice::Registers),
            Choice::Matrix if !self.takes_for(choice, product) => Some(Choice::Tiled),
            other => Some(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Family, Unit};

    #[test]
    fn a_forced_variant_falls_back_where_it_does_not_run() {
        let gpu = Traits {
            software: false,
            subgroup: 32,
            int64: true,
            matrices: Matrices::Cooperative(Unit::Half),
            ..Traits::default()
        };
        let lavapipe = Traits { software: true, subgroup: 8, int64: true, ..Traits::default() };
        let swiftshader = Traits { software: true, subgroup: 4, int64: false, ..Traits::default() };
        let single =
            Product { family: Family::Conv2dFwd, half: false, rows: 9, columns: 9, steps: 9 };
        let half = Product { half: true, ..single };
        assert_eq!(gpu.forced(Choice::Subgroup, &single), Some(Choice::Subgroup));
        assert_eq!(swiftshader.forced(Choice::Subgroup, &single), Some(Choice::Registers));
        assert_eq!(gpu.forced(Choice::Matrix, &half), Some(Choice::Matrix));
        assert_eq!(
            gpu.forced(Choice::Matrix, &single),
            Some(Choice::Tiled),
            "matrix kernels need half precision"
        );
        assert_eq!(lavapipe.forced(Choice::Matrix, &half), Some(Choice::Tiled));
        assert!(lavapipe.wide_words() && !gpu.wide_words() && !swiftshader.wide_words());
        for choice in [Choice::Plain, Choice::Registers, Choice::Tiled, Choice::Tiled8x4] {
            assert_eq!(lavapipe.forced(choice, &single), Some(choice));
        }
        assert_eq!(gpu.forced(Choice::Auto, &half), None);
    }
}
