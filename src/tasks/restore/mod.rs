//! Image restoration beside the model: noise level estimation and the published protocols.

pub mod image;
pub mod noise_level;
#[cfg(feature = "cli")]
pub mod protocol;
#[cfg(feature = "cli")]
pub mod published;
