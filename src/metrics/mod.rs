//! Metrics: image quality, anomaly ranking, object detection, segmentation, distances between sets
//! of images, and statistics of codes.

#[cfg(feature = "cli")]
pub mod frechet;
#[cfg(feature = "cli")]
pub mod precision;
pub mod quality;
#[cfg(feature = "cli")]
pub mod ranks;
#[cfg(feature = "cli")]
pub mod segmentation;
pub mod statistics;
