//! Which kernel of a family is taken: the same product of matrices can be summed in several ways,
//! and what suits one adapter is slow on another.

use super::matrices::Matrices;
use super::tuned::Product;

/// Which kernel of a family is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// What suits the adapter and the shape.
    #[default]
    Auto,
    /// The plain one, which takes every shape.
    Plain,
    /// A block of sums in the registers of each invocation.
    Registers,
    /// Sums in registers, and values exchanged within a subgroup.
    Subgroup,
    /// Sums in registers, and values exchanged in workgroup memory.
    Tiled,
    /// Products of small matrices by whole subgroups: maps in half precision alone, and never taken
    /// unless named or measured.
    Matrix,
}

impl Choice {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Auto, Self::Plain, Self::Registers, Self::Subgroup, Self::Tiled, Self::Matrix];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Plain => "plain",
            Self::Registers => "registers",
            Self::Subgroup => "subgroup",
            Self::Tiled => "tiled",
            Self::Matrix => "matrix",
        }
    }
}

/// What an adapter offers, as far as kernels are chosen by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// It computes on the CPU, where arithmetic per load is what counts.
    pub software: bool,
    /// Invocations of a subgroup at least; 0 without the feature.
    pub subgroup: u32,
    /// Integers of 64 bits.
    pub int64: bool,
    /// What `_matrix` kernels multiply by.
    pub matrices: Matrices,
}

impl Traits {
    /// Invocations that `_subgroup` kernels need.
    pub const SUBGROUP: u32 = 8;

    /// Whether kernels of a kind run here.
    pub const fn takes(&self, choice: Choice) -> bool {
        match choice {
            Choice::Subgroup => self.subgroup >= Self::SUBGROUP,
            Choice::Matrix => !matches!(self.matrices, Matrices::None),
            _ => true,
        }
    }

    /// Whether kernels of a kind run here for a product.
    pub const fn takes_for(&self, choice: Choice, product: &Product) -> bool {
        self.takes(choice) && (product.half || !matches!(choice, Choice::Matrix))
    }

    /// Whether four reals are read and written as two words of 64 bits.
    pub const fn wide_words(&self) -> bool {
        self.software && self.int64
    }

    /// The kind that a product of matrices takes if one is asked for: it, or the next best where it
    /// does not run.
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
    use crate::gpu::Family;

    #[test]
    fn what_is_asked_for_is_taken_where_it_runs() {
        let gpu =
            Traits { software: false, subgroup: 32, int64: true, matrices: Matrices::Cooperative };
        let lavapipe =
            Traits { software: true, subgroup: 8, int64: true, matrices: Matrices::None };
        let swiftshader =
            Traits { software: true, subgroup: 4, int64: false, matrices: Matrices::None };
        let single =
            Product { family: Family::Conv2dFwd, half: false, rows: 9, columns: 9, steps: 9 };
        let half = Product { half: true, ..single };
        assert_eq!(gpu.forced(Choice::Subgroup, &single), Some(Choice::Subgroup));
        assert_eq!(swiftshader.forced(Choice::Subgroup, &single), Some(Choice::Registers));
        assert_eq!(gpu.forced(Choice::Matrix, &half), Some(Choice::Matrix));
        assert_eq!(
            gpu.forced(Choice::Matrix, &single),
            Some(Choice::Tiled),
            "there are halves alone"
        );
        assert_eq!(lavapipe.forced(Choice::Matrix, &half), Some(Choice::Tiled));
        assert!(lavapipe.wide_words() && !gpu.wide_words() && !swiftshader.wide_words());
        for choice in [Choice::Plain, Choice::Registers, Choice::Tiled] {
            assert_eq!(lavapipe.forced(choice, &single), Some(choice));
        }
        assert_eq!(gpu.forced(Choice::Auto, &half), None);
    }
}
