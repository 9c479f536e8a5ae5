//! Training: data on the device, a step recorded once, its replay with schedule, log and validation.

pub mod data;
mod log;
pub mod prefetch;
mod schedule;
pub mod step;
mod trainer;

pub use log::{Log, Progress};
pub use schedule::Schedule;
pub use trainer::{Finished, MemoryPlan, Trainer};
