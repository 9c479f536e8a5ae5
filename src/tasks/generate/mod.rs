//! Image generation from priors on codes: the page that shows sampled images.

pub mod gallery;
