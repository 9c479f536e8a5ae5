//! Anomaly detection: heat maps of where an image differs from normal images, learned from normal
//! images only.
//!
//! A small network ([`network`]) learns to find defects that are painted into crops of the normal
//! images ([`pretext`]). Each pixel of an image is then seen in three views:
//!
//! - the distance of its surroundings from those in normal images: descriptors from fixed filters
//!   ([`filters`]) are whitened, and compared with the nearest one of a bank. This follows Roth et
//!   al., "Towards Total Recall in Industrial Anomaly Detection", 2022, with a uniform sample as
//!   bank. It needs few normal images, and finds fine noise and thin lines;
//! - the network's log-odds of a defect;
//! - the distance of the network's features from those of normal images, by a bank of them. A mark
//!   that looks like a defect, but that normal images have, too, is near to the bank.
//!
//! With few normal images there is no network, and only the first view. All are measured in
//! standard deviations of normal pixels at the same distance from the same border of the image,
//! where objects end and light falls off. Their mean, smoothed, is the heat map. An image's score
//! is the mean of its highest pixels, above its median. Memory does not depend on the number of
//! images.

mod bank;
mod detector;
mod field;
mod file;
mod filters;
mod image;
mod labelled;
mod network;
mod paint;
mod pretext;
mod smooth;
mod statistics;
mod views;

pub use bank::{Bank, Banks};
pub use detector::{Calibration, Detector, DetectorOptions, split};
pub use field::{Describer, DescriptorGrid, Field};
pub use file::FILE_NAME;
pub use filters::depth as descriptor_length;
pub use image::Image;
pub use labelled::{DefectClass, Evaluation, LabelledSet, Report, evaluate, read_mask};
pub use network::{CROP, configure, train, untrained};
pub use paint::{Defect, MIN_SIDE, PaintedDefect, paint};
pub use smooth::blur;
pub use statistics::{BANDS, BandStatistics};
pub use views::{VIEWS, ViewExtractor, Views, score, tile_of, tiled};
