//! Priors: probability models of codes, from which new codes are sampled. There are Gaussians,
//! mixtures of Gaussians, and a sparse autoregressive prior.

pub mod codes;
pub mod file;
mod hurdle_head;
pub mod masked;
pub mod mixture;
pub mod prior;
pub mod sparse;
pub mod training;
