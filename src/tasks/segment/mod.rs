//! Semantic segmentation: a class for every pixel, by an encoder that learned without labels and a
//! decoder that learns from label images.

mod judge;
mod segmenter;
mod trainer;

pub use judge::{Judged, judge};
pub use segmenter::{Laid, Pass, Segmenter, most_likely};
pub use trainer::{Found, Segmentation, begin_training, check_class_weights, samples};
