//! Anomaly detection: heat maps of where an image differs from normal images, from a model that was
//! trained on normal images only.
//!
//! Each pixel is seen in three views, each in standard deviations of normal pixels:
//!
//! - the reconstruction error (root of the mean squared error),
//! - the loss of structure (1 − SSIM of image and reconstruction),
//! - the distance of the model's code from codes of normal images: the mean distance to the nearest
//!   neighbours in whitened coordinates, relative to the neighbours' own distances. This follows
//!   Roth et al., "Towards Total Recall in Industrial Anomaly Detection", 2022, with a uniform
//!   sample as bank.
//!
//! The weighted mean of the views is the heat map. The heat map's maximum is the image's score.
//! Memory does not depend on the number of images.

mod bank;
mod detector;
mod field;
mod file;
mod labelled;
mod paint;
mod residual;

pub use bank::Bank;
pub use detector::{
    Calibration, Detector, DetectorOptions, Image, TiledModel, VIEWS, ViewExtractor,
    ViewStatistics, Views, max_value,
};
pub use field::{Describer, DescriptorGrid};
pub use file::FILE_NAME;
pub use labelled::{DefectClass, Evaluation, LabelledSet, Report, evaluate, read_mask};
pub use paint::{Defect, MIN_SIDE, PaintedDefect, paint};
pub use residual::{blur, squared_error, structure};
