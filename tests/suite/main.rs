//! The integration tests, one binary. `cargo test --test suite NAME` runs a part of it. Tests of
//! the GPU path obey `CSAE_GPU` (`require`, `auto` or `off`) and `CSAE_DEVICE` (an adapter's name).

mod accumulate;
mod anomaly;
mod bad_input;
mod bench;
mod commands;
mod conformance;
mod data;
mod detect;
mod determinism;
mod disk;
mod dispatches;
mod faults;
mod features;
mod finetune;
mod fuzz;
mod generate;
mod gpu;
mod gradients;
mod inspect;
mod labelled;
mod layerwise;
mod manners;
mod many;
mod reconstruct;
mod recorded;
mod restore;
mod resume;
mod rooms;
mod segment;
mod several;
mod shaders;
mod sweep;
mod synthesis;
mod training;
mod tuned;
