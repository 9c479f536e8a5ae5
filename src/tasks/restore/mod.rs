//! Image restoration apart from the model itself: noise level estimation, and the published test
//! protocols with their results.

pub mod image;
pub mod noise_level;
#[cfg(feature = "cli")]
pub mod protocol;
pub mod quantization;
