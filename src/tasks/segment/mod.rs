//! Semantic segmentation: a class for every pixel, by an encoder that was trained without labels
//! and a decoder trained on label images.

mod crops;
mod evaluate;
mod segmenter;
mod trainer;

pub use evaluate::{SegmentationScores, evaluate};
pub use segmenter::{Pass, SegmentationPlan, Segmenter, most_likely};
pub use trainer::{
    PixelLoss, Segmentation, SegmentationResult, begin_training, check_class_weights, samples,
};
