//! Detection: boxes of objects and their classes, by an encoder that was trained without labels
//! and a grid head without anchors.

mod detector;
mod frame;
mod targets;
mod trainer;

pub use detector::Detector;
pub use frame::{Frame, letterbox};
pub use trainer::{Detecting, DetectionResult, begin_training, evaluate};
