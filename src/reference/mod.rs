//! The memory and threads of the CPU path. The code of each operation is in `ops`, next to its
//! dispatches, generic over f32 and f64. It is the reference for the kernels, and runs programs on
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
