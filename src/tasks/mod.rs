//! What users do with a model: run it, judge it, restore images, look at what it learned, tell
//! images, pixels and objects apart by it, find what is not normal, draw new images, make textures
//! and styles.

pub mod anomaly;
pub mod chart;
pub mod confusion;
pub mod degrade;
pub mod detect;
mod distances;
pub mod evaluate;
pub mod exciters;
pub mod features;
pub mod finetune;
pub mod gallery;
pub mod generate;
pub mod history;
pub mod image_file;
pub mod infer;
pub mod inspect;
mod inspect_page;
pub mod lbfgs;
pub mod noise_level;
pub mod page;
pub mod paint;
pub mod picture;
pub mod probe;
pub mod protocol;
pub mod published;
pub mod quality;
pub mod reconstruct;
pub mod restore;
pub mod segment;
pub mod statistics;
pub mod supervised;
pub mod sweep;
pub mod tiles;
mod ways;
pub mod whole;
