//! Results as pictures, charts and HTML pages, and the training history.

pub mod boxes;
pub mod chart;
mod colour_bar;
mod colour_map;
pub mod confusion;
pub mod events;
pub mod gallery;
pub mod history;
pub mod page;
pub mod picture;
pub mod rendering;
pub mod runs;
pub mod signals;
pub mod svg;
pub mod titled;
