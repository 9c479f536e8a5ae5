//! Anomaly maps: where an image differs from normal ones, told by a model that saw normal images
//! only.
//!
//! Three views of each pixel, each in standard deviations of normal pixels: how badly the model
//! draws it (root of the mean squared error), how little the structure of what it draws is alike (1
//! − SSIM), and how far the model's code there lies from codes of normal images (distance to
//! nearest neighbours in whitened coordinates, as in Roth et al., "Towards Total Recall in
//! Industrial Anomaly Detection", 2022, with a bank that is a uniform sample, relative to how far
//! those are apart). Their weighted mean is the heat map; its largest value is the image's score.
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
    Calibration, Detector, Eye, Frames, Image, Options, Usual, VIEWS, Views, largest,
};
pub use field::{Describer, Field};
pub use file::NAME;
pub use labelled::{Judged, Kind, Labelled, Report, judge, read_mask};
pub use paint::{Defect, LEAST_SIDE, Painted, paint};
pub use residual::{blur, squared_error, structure};
