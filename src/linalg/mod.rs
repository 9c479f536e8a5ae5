//! Numerical methods on plain slices: matrix products, elementary functions, distances between
//! points, minimisation.

pub mod distances;
mod erf;
pub mod gemm;
pub mod lbfgs;
pub mod real;
