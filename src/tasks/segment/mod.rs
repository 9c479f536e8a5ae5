//! Semantic segmentation: a class for every pixel, by an encoder that learned without labels and a
//! decoder that learns from label images.

mod judge;
mod labels;
mod marks;
mod segmenter;
mod set;
mod trainer;

pub use judge::{Judged, judge};
pub use labels::{LabelImage, Labelling, NONE, colour, read_labels, write_labels};
pub use marks::{Marks, Scores};
pub use segmenter::{Laid, Pass, Segmenter, most_likely};
pub use set::{Answered, Meaning, Set};
pub use trainer::{Balance, Changes, Found, Options, Trainer};
