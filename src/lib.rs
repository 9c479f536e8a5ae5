//! placeholder
pub mod data;
pub mod device;
pub mod error;
pub mod files;
pub mod gpu;
pub mod model;
pub mod ops;
pub mod reference;
pub mod rng;
pub mod shape;
pub mod spec;
pub mod tasks;
pub mod train;
pub mod verify;
