//! The CPU path's memory and threads. Every operation's plain code stands beside its dispatches in
//! `ops`, generic over f32 and f64: the reference for the kernels, and the way to run programs on
//! machines without a GPU. rayon distributes work over samples or blocks whose bounds depend only
//! on the problem, so that results do not depend on the number of threads.

mod memory;
pub(crate) mod parallel;
#[cfg(test)]
pub(crate) mod testing;

use crate::linalg::real::Real;

pub use memory::{Memory, Taken};

/// The CPU implementation of an operation.
pub trait Reference {
    /// Runs the operation on its views in `memory`.
    fn run<T: Real>(&self, memory: &mut Memory<T>);
}
