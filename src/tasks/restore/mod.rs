//! Image restoration beside the model: noise level estimation and the published protocols.

pub mod noise_level;
pub mod protocol;
pub mod published;
