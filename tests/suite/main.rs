//! The integration tests, one binary. `cargo test --test suite NAME` runs a part of it. Tests of
//! the GPU path obey `CSAE_GPU` (`require`, `auto` or `off`) and `CSAE_DEVICE` (an adapter's name).
//!
//! A test has one scenario and its name states it. Tests run at the same time, so each writes to a
//! [`support::TempFolder`] of its own. Models that many tests read are trained once, see
//! [`support::models`].

mod accumulate;
mod annotations;
mod anomaly;
mod bad_input;
mod bench;
mod commands;
mod compare;
mod conformance;
mod containers;
mod contributing;
mod data;
mod depth;
mod detect;
mod determinism;
mod discover;
mod disk;
mod dispatches;
mod english;
mod export;
mod export_tasks;
mod faults;
mod features;
mod finetune;
mod follow;
mod formats;
mod fuzz;
mod generate;
mod gpu;
mod gradients;
mod guide;
#[cfg(unix)]
mod guide_commands;
mod heads;
mod hostile;
mod image_files;
mod inspect;

mod layerwise;
mod library;
mod limits;
mod manners;
mod many;
mod masks;
mod memory;
mod missing;
mod numbers;
mod outputs;
mod packaging;
#[cfg(unix)]
mod pages;
mod pictures;
mod presets;
mod random_products;
mod ranks;
mod reconstruct;
mod refused_data;
mod restore;
mod results;
mod resume;
mod roofline;
mod rooms;
mod samples;
mod segment;
mod several;
mod shaders;
mod shards;
mod support;
mod sweep;
mod synthesis;
mod tuned;
mod unfinished;
#[cfg(unix)]
mod web;
