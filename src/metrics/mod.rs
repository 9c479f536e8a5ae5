//! Metrics: image quality, anomaly ranking, object detection, segmentation, distances between sets
//! of images, and statistics of codes.

pub mod frechet;
pub mod precision;
pub mod quality;
pub mod ranks;
pub mod segmentation;
pub mod statistics;
