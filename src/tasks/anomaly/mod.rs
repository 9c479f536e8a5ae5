//! Anomaly detection: heat maps of where an image differs from normal images, learned from normal
//! images only.
//!
//! A small network ([`network`]) learns to find defects that are painted into crops of the normal
//! images ([`pretext`]). Each pixel of an image is then seen in two views:
//!
//! - the network's log-odds of a defect,
//! - the distance of the network's features from those of normal images: the distance of whitened
//!   descriptors to the nearest one of a bank. This follows Roth et al., "Towards Total Recall in
//!   Industrial Anomaly Detection", 2022, with a uniform sample as bank. A mark that looks like a
//!   defect, but that normal images have, too, is near to the bank.
//!
//! Both are measured in standard deviations of normal pixels at the same distance from the image's
//! border, where objects end and light falls off. Their mean, and the same smoothed, is the heat
//! map. An image's score is the mean of its highest pixels, above its median. Memory does not
//! depend on the number of images.

mod bank;
mod detector;
mod field;
mod file;
mod image;
mod labelled;
mod network;
mod paint;
mod pretext;
mod smooth;
mod statistics;
mod views;

pub use bank::Bank;
pub use detector::{Calibration, Detector, DetectorOptions, split};
pub use field::{Describer, DescriptorGrid, Field};
pub use file::FILE_NAME;
pub use image::Image;
pub use labelled::{DefectClass, Evaluation, LabelledSet, Report, evaluate, read_mask};
pub use network::{CROP, configure, train};
pub use paint::{Defect, MIN_SIDE, PaintedDefect, paint};
pub use smooth::blur;
pub use statistics::{BANDS, BandStatistics};
pub use views::{VIEWS, ViewExtractor, Views, score, tile_of, tiled};
