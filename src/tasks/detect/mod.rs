//! Detection: boxes of objects and their classes, by an encoder that learned without labels and a
//! grid head without anchors.

mod boxes;
mod detector;
mod files;
mod frame;
mod precision;
mod set;
mod trainer;

pub use boxes::{Bounds, Detection, suppressed};
pub use detector::Detector;
pub use files::{Marked, Object, coco, read_voc, voc};
pub use frame::{Frame, letterbox};
pub use precision::{Precision, THRESHOLDS, Tally};
pub use set::{Annotations, Set};
pub use trainer::{Changes, Found, Options, Trainer, judge};
