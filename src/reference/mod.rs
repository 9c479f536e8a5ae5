//! The CPU path: every operation, plain to read, generic over f32 and f64. It is the oracle of the
//! kernels and the way to work without a GPU. Convolutions are matrix products; rayon spreads work
//! over samples or blocks whose bounds depend on the problem alone, so that results do not depend
//! on the number of threads.

mod activation;
mod bicubic;
mod constraint;
mod conv2d;
mod corrupt;
mod data;
mod depthwise;
mod detection;
mod elementwise;
mod im2col;
mod local_contrast;
mod loss;
mod mask;
mod memory;
mod missing;
mod optimizer;
mod parallel;
mod pool2d;
mod reduce;
mod revive;
mod segmentation;
mod soft_threshold;
#[cfg(test)]
mod testing;
mod unpool2d;

use crate::linalg::real::Real;

pub use memory::{Memory, Taken};

/// How an operation computes on the CPU.
pub trait Reference {
    /// Reads and writes the operation's views in `memory`.
    fn run<T: Real>(&self, memory: &mut Memory<T>);
}
