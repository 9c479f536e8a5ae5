//! The CPU path's memory and threads. The operations are computed on it beside their dispatches, in
//! `ops`, generic over f32 and f64: the oracle of the kernels, and the way to work without a GPU.
//! Rayon spreads work over samples or blocks whose bounds depend on the problem alone, so that
//! results do not depend on the number of threads.

mod memory;
pub(crate) mod parallel;
#[cfg(test)]
pub(crate) mod testing;

use crate::linalg::real::Real;

pub use memory::{Memory, Taken};

/// How an operation computes on the CPU.
pub trait Reference {
    /// Reads and writes the operation's views in `memory`.
    fn run<T: Real>(&self, memory: &mut Memory<T>);
}
