//! What users do with a model: run it, judge it, restore images, look at what it learned.

pub mod evaluate;
pub mod gallery;
pub mod infer;
pub mod picture;
pub mod quality;
pub mod reconstruct;
