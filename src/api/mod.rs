//! The documented interface of the library: [`Model`] and the types of its arguments and results.
//! The crate re-exports them at its root.

mod array;
mod device;
mod image;
mod model;
mod names;
mod restore;
mod train;

pub use array::Array;
pub use device::{DeviceChoice, devices};
pub use image::{Depth, Image};
pub use model::{Layer, Model, ModelBuilder};
pub use names::{bundled_models, preset, presets};
pub use restore::{Compression, Noise};
pub use train::{Progress, TrainOptions, TrainReport};

pub use crate::error::{Error, ErrorKind, Result};
pub use crate::shape::Size;
