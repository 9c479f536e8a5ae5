//! Numerical methods on plain slices: matrix products, elementary functions, distances between
//! points, eigenvalues, minimisation.

pub mod distances;
pub mod eigenvalues;
mod erf;
pub mod gemm;
pub mod lbfgs;
pub mod real;
