//! Results as pictures, charts and HTML pages, and the training history.

pub mod chart;
pub mod confusion;
pub mod events;
pub mod gallery;
pub mod history;
pub mod page;
pub mod picture;
pub mod runs;
pub mod signals;
pub mod svg;
pub mod titled;
