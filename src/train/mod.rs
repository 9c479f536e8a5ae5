//! Training: a step is recorded once, then replayed with schedule, log, validation and checkpoints.
//!
//! One engine trains every model. A [`Trainer`] runs steps, [`feed::Batches`] supplies their data,
//! and [`step::Objective`] is the function that they minimise. A [`Run`] adds validation, the best
//! model and the results of a [`run::Task`]. Tasks exist for autoencoders ([`reconstruction`]),
//! classifiers, segmenters, detectors, and the network of the sparse prior (`priors/`).

mod bar;
pub mod checkpoint;
mod compressed;
pub mod data;
pub mod feed;
#[cfg(feature = "cli")]
mod folder;
pub mod labelled;
mod log;
mod losses;
mod memory;
pub mod order;
mod parts;
mod plan;
pub mod prefetch;
#[cfg(feature = "cli")]
pub mod reconstruction;
mod rows;
#[cfg(feature = "cli")]
pub mod run;
mod schedule;
pub mod step;
mod together;
#[cfg(test)]
mod toy;
mod trainer;
#[cfg(feature = "cli")]
mod unfinished;
mod validation_result;
mod variants;
mod whiten;
pub mod whole_batch;

#[cfg(feature = "cli")]
pub use folder::{Origin, RunFolder};
pub use log::{Log, Progress, shows_bar};
pub use memory::MemoryPlan;
#[cfg(feature = "cli")]
pub use run::{Outcome, Run, Summary};
pub use schedule::Schedule;
pub use together::end;
pub use trainer::{Finished, Trainer};
#[cfg(feature = "cli")]
pub use unfinished::load_model;

#[cfg(not(feature = "cli"))]
use crate::model::load as load_model;
