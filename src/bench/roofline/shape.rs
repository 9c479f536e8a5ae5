//! The work of a dispatch: the iterations of a product's tiles, or a chain of loads.

use crate::error::{Error, Result};
use crate::gpu::{Dispatch, Kernel};
use crate::ops::{SumRow, sums_of};

/// Terms that a tile adds in an iteration (`DEPTH` of `shaders/common/workgroup_tile.wgsl`), and
/// that a small tile adds (`DEPTH` of `shaders/common/small_workgroup_tile.wgsl`).
const DEPTH: u64 = 16;
const SMALL_DEPTH: u64 = 32;
/// Levels of the tree of a workgroup of 256.
const TREE: u32 = 8;
/// Vectors that an invocation loads in an iteration, four of rows and four of columns, and stores
/// to workgroup memory, and two barriers.
const ITERATION_ACCESSES: f64 = 18.0;
/// Loads that an iteration has in addition if four rows are 16 single loads instead of 4 vectors.
const SINGLE_LOADS: f64 = 12.0;
/// Vector instructions of an iteration that are neither multiply-adds nor their overhead, in tiles
/// with single loads. AMD's compiler makes 112 to 250 with 32 columns. Single loads compute the
/// most addresses, so they are assumed to have the most.
const SINGLE_OTHERS: f64 = 250.0;
/// Vector instructions of an iteration that add four terms to the bias gradient, as AMD's compiler
/// makes them: of dy, with a mask for each term, and of x, which is 0 outside.
const DY_SUMS: u32 = 44;
const X_SUMS: u32 = 16;
/// What a narrow tile adds to the other instructions of an iteration: AMD's compiler makes 112 for
/// a convolution with 32 columns, and 106 with 64.
const NARROW_OTHERS: f64 = 6.0;

/// A product with tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Input,
    Weight,
}

impl Direction {
    /// Instructions of an iteration with 64 columns and vector loads that are neither multiply-adds
    /// nor their overhead, as AMD's compiler makes them: addresses, bounds and loop.
    pub(super) const fn others(self) -> f64 {
        match self {
            Self::Forward => 106.0,
            Self::Input => 121.0,
            Self::Weight => 152.0,
        }
    }
}

/// The kernels with tiles.
pub(super) const PRODUCTS: [(Kernel, Direction); 7] = [
    (Kernel::Conv2dFwdTiled, Direction::Forward),
    (Kernel::Conv2dFwdTiledSplit, Direction::Forward),
    (Kernel::Conv2dMaxPoolFwdTiled, Direction::Forward),
    (Kernel::Conv2dBwdInputTiled, Direction::Input),
    (Kernel::Conv2dBwdInputTiledSplit, Direction::Input),
    (Kernel::Conv2dBwdWeightTiled, Direction::Weight),
    (Kernel::Conv2dBwdWeightTiledSmall, Direction::Weight),
];

/// The work of a workgroup of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) direction: Direction,
    /// Columns of the tile: 16, 32 or 64.
    pub(super) columns: u32,
    /// Elements of the tile that an invocation sums: 16, 32 or 64.
    pub(super) elements: u32,
    /// Groups of four terms that an invocation adds in an iteration.
    pub(super) groups: u32,
    /// Iterations of all invocations.
    pub(super) iterations: u64,
    /// Whether rows are loaded as vectors of four.
    pub(super) vectors: bool,
    /// Instructions of an iteration for the bias gradient, on average over the workgroups.
    pub(super) sums: u32,
}

/// Instructions of an iteration, for one invocation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Instructions {
    pub(super) arithmetic: f64,
    pub(super) accesses: f64,
}

impl Tile {
    /// Vector instructions of four terms, and loads from workgroup memory for one term. AMD's
    /// compiler makes 264 instructions for the 256 multiply-adds of 64 elements and 134 for the 128
    /// of 32. 70 for the 64 of 16 elements follow from those. The loads are in the shader: a vector
    /// for each four rows and columns of an invocation.
    pub(super) fn terms(self) -> (f64, f64) {
        match self.elements {
            64.. => (264.0, 4.0),
            32..64 => (134.0, 3.0),
            _ => (70.0, 2.0),
        }
    }

    pub(super) fn instructions(self) -> Instructions {
        let (four_terms, loads) = self.terms();
        let narrow = if self.elements < 64 { NARROW_OTHERS } else { 0.0 };
        let others = if self.vectors { self.direction.others() + narrow } else { SINGLE_OTHERS };
        let single = if self.vectors { 0.0 } else { SINGLE_LOADS };
        let groups = f64::from(self.groups);
        Instructions {
            arithmetic: groups * four_terms + others + f64::from(self.sums),
            accesses: 4.0 * groups * loads + ITERATION_ACCESSES + single,
        }
    }

    /// Registers of an invocation: assumptions. AMD's compiler needed 132 to 168 with 64 elements,
    /// 120 to 144 with 32, and 96 to 132 with 16.
    pub(super) fn registers(self) -> f64 {
        match self.elements {
            64.. => 168.0,
            32..64 => 132.0,
            _ => 96.0,
        }
    }
}

/// The loads of an invocation of any other kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// Loads that wait for each other.
    pub(super) loads: u64,
    /// Whether they read partial sums, which the dispatch before has left in the L2 cache.
    pub(super) near: bool,
    /// Levels of the tree of sums that follows.
    pub(super) levels: u32,
}

impl Chain {
    /// The chain of `count` loads in a loop that has `flight` of them in flight at once. The rest
    /// of the division is loaded one by one.
    pub(super) const fn new(count: u64, flight: u64, near: bool, levels: u32) -> Self {
        Self { loads: count / flight + count % flight, near, levels }
    }

    /// The longest chain of a dispatch that computes several sums.
    fn of_sums(sums: &[SumRow], workgroup_size: u32) -> Self {
        let chains =
            sums.iter().map(|[[_, lanes, _, count], [.., is_scalar], _]| match is_scalar {
                0 if *count == 0 => Self::flat(),
                0 => {
                    let each = u64::from(count.div_ceil(*lanes));
                    Self::new(each, 8, true, lanes.trailing_zeros())
                }
                _ => Self::new(u64::from(count.div_ceil(workgroup_size)), 1, true, TREE),
            });
        chains.max_by_key(|chain| (chain.loads, chain.levels)).expect("there are sums")
    }

    /// The chain of a kernel whose invocations load each element once.
    pub(super) const fn flat() -> Self {
        Self { loads: 1, near: false, levels: 0 }
    }
}

/// The work of one dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Product(Tile),
    Reduction(Chain),
    Flat,
}

/// The value of a field of a dispatch's parameter block.
pub(super) fn field(dispatch: &Dispatch, name: &str) -> u64 {
    // All fields have four bytes.
    let at = dispatch.fields.iter().position(|(known, _)| *known == name);
    let at = at.unwrap_or_else(|| panic!("{:?} has no parameter {name}", dispatch.kernel)) * 4;
    let bytes = dispatch.params[at..at + 4].try_into().expect("four bytes");
    u64::from(u32::from_le_bytes(bytes))
}

/// The value of an `override` constant of a dispatch. None if the kernel has none of this name.
pub(super) fn constant(dispatch: &Dispatch, name: &str) -> Option<f64> {
    dispatch.constants.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

impl Tile {
    pub(super) fn of(dispatch: &Dispatch, direction: Direction) -> Self {
        let p = |name| field(dispatch, name);
        let on = |name| constant(dispatch, name) == Some(1.0);
        let (steps, vectors) = match direction {
            Direction::Forward => (p("r") * p("s") * p("c"), on("VEC_C")),
            // The phase with the most taps takes longest.
            Direction::Input => {
                let taps = p("r").div_ceil(p("stride_h")) * p("s").div_ceil(p("stride_w"));
                (taps * p("k"), on("VEC_K"))
            }
            Direction::Weight => (p("n") * p("p") * p("q"), on("VEC_C")),
        };
        let vectors_across = constant(dispatch, "COLUMNS").expect("a tile has columns") as u32;
        let columns = 4 * vectors_across;
        let small = dispatch.kernel == Kernel::Conv2dBwdWeightTiledSmall;
        let (elements, groups, depth, rows) =
            if small { (16, vectors_across, SMALL_DEPTH, 32) } else { (columns, 4, DEPTH, 64) };
        let iterations = steps.min(p("slice_terms")).div_ceil(depth);
        // Only the workgroups of the first rows or columns compute the bias gradient.
        let sums = match constant(dispatch, "SUMS") {
            Some(1.0) => DY_SUMS / (p("r") * p("s") * p("c")).div_ceil(rows) as u32,
            Some(2.0) => X_SUMS / p("k").div_ceil(columns.into()) as u32,
            _ => 0,
        };
        Self { direction, columns, elements, groups, iterations, vectors, sums }
    }
}

impl Shape {
    /// The work of a dispatch.
    ///
    /// # Errors
    /// If the dispatch is a product without tiles, which the model does not describe.
    pub(super) fn of(dispatch: &Dispatch) -> Result<Self> {
        let kernel = dispatch.kernel;
        let p = |name| field(dispatch, name);
        if let Some((_, direction)) = PRODUCTS.iter().find(|(known, _)| *known == kernel) {
            return Ok(Self::Product(Tile::of(dispatch, *direction)));
        }
        Ok(Self::Reduction(if kernel == Kernel::Conv2dEpilogue {
            Chain::new(p("slices"), 4, true, 0)
        } else if let Some(sums) = sums_of(dispatch) {
            Chain::of_sums(&sums, dispatch.workgroup_size)
        } else if kernel == Kernel::ChannelSum {
            let (threads, lanes) = (u64::from(dispatch.workgroup_size), p("lanes"));
            let rows = p("rows_per_slice").div_ceil(threads / lanes);
            Chain::new(rows, 4, false, TREE - lanes.trailing_zeros())
        } else if [Kernel::Loss, Kernel::L1Penalty, Kernel::CountNonzero, Kernel::SumSquares]
            .contains(&kernel)
        {
            Chain::new(p("vectors").div_ceil(p("stride")), 1, false, TREE)
        } else if kernel.name().starts_with("conv2d") {
            let name = kernel.name();
            return Err(Error::failed(format!("the model of a GPU does not describe {name}")));
        } else {
            return Ok(Self::Flat);
        }))
    }
}
