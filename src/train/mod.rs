//! Training: data on the device, a step recorded once, its replay with schedule, log, validation
//! and checkpoints.

mod bar;
pub mod checkpoint;
pub mod data;
mod feed;
#[cfg(feature = "cli")]
mod folder;
mod log;
mod memory;
pub mod order;
pub mod prefetch;
#[cfg(feature = "cli")]
mod run;
mod schedule;
pub mod step;
pub mod supervised;
mod trainer;
mod whiten;

#[cfg(feature = "cli")]
pub use folder::{Origin, RunFolder};
pub use log::{Log, Progress, draws};
pub use memory::MemoryPlan;
#[cfg(feature = "cli")]
pub use run::{Outcome, Run, Summary};
pub use schedule::Schedule;
pub use trainer::{Finished, Trainer};
