//! Training: a step is recorded once and replayed with schedule, log, validation and checkpoints.
//!
//! One engine trains every model. A [`Trainer`] runs steps; [`feed::Batches`] supplies their data;
//! [`step::Objective`] is what they minimise. A [`Run`] adds what a [`run::Task`] brings:
//! validation, the best model, and what a finished run shows. Autoencoders
//! ([`reconstruction`]), classifiers, segmenters and detectors are tasks.

mod bar;
pub mod checkpoint;
pub mod data;
pub mod feed;
#[cfg(feature = "cli")]
mod folder;
mod found;
pub mod labelled;
mod log;
mod memory;
pub mod order;
pub mod prefetch;
#[cfg(feature = "cli")]
pub mod reconstruction;
#[cfg(feature = "cli")]
pub mod run;
mod schedule;
pub mod step;
#[cfg(test)]
mod toy;
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
