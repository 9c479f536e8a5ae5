//! Which kernel of a family is taken: the same product of matrices can be summed in several ways, and what suits one adapter is slow on another.

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
}

impl Choice {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Plain, Self::Registers, Self::Subgroup, Self::Tiled];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Plain => "plain",
            Self::Registers => "registers",
            Self::Subgroup => "subgroup",
            Self::Tiled => "tiled",
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
}

impl Traits {
    /// Invocations that `_subgroup` kernels need.
    pub const SUBGROUP: u32 = 8;

    /// Whether kernels of a kind run here.
    pub const fn takes(&self, choice: Choice) -> bool {
        !matches!(choice, Choice::Subgroup) || self.subgroup >= Self::SUBGROUP
    }

    /// Whether four reals are read and written as two words of 64 bits.
    pub const fn wide_words(&self) -> bool {
        self.software && self.int64
    }

    /// The kind that products of matrices take if one is asked for: it, or the next best where it does not run.
    pub const fn forced(&self, choice: Choice) -> Option<Choice> {
        match choice {
            Choice::Auto => None,
            Choice::Subgroup if !self.takes(choice) => Some(Choice::Registers),
            other => Some(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_taken_where_it_runs() {
        let gpu = Traits { software: false, subgroup: 32, int64: true };
        let lavapipe = Traits { software: true, subgroup: 8, int64: true };
        let swiftshader = Traits { software: true, subgroup: 4, int64: false };
        assert_eq!(gpu.forced(Choice::Subgroup), Some(Choice::Subgroup));
        assert_eq!(swiftshader.forced(Choice::Subgroup), Some(Choice::Registers));
        assert!(lavapipe.wide_words() && !gpu.wide_words() && !swiftshader.wide_words());
        for choice in [Choice::Plain, Choice::Registers, Choice::Tiled] {
            assert_eq!(lavapipe.forced(choice), Some(choice));
        }
        assert_eq!(gpu.forced(Choice::Auto), None);
    }
}
