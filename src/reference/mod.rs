//! The CPU path: every operation in plain code, generic over f32 and f64. It is the reference for
//! the kernels, and runs programs on machines without a GPU. Convolutions are matrix products.
//! rayon
//! distributes work over samples or blocks whose bounds depend only on the problem, so that results
//! do not depend on the number of threads.

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

/// The CPU implementation of an operation.
pub trait Reference {
    /// Runs the operation on its views in `memory`.
    fn run<T: Real>(&self, memory: &mut Memory<T>);
}
