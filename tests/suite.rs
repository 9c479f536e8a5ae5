//! The integration tests, one binary. `cargo test --test suite NAME` runs a part of it. Tests of
//! the GPU path obey `CSAE_GPU` (`require`, `auto` or `off`) and `CSAE_DEVICE` (an adapter's name).

#[path = "suite/accumulate.rs"]
mod accumulate;
#[path = "suite/anomaly.rs"]
mod anomaly;
#[path = "suite/bad_input.rs"]
mod bad_input;
#[path = "suite/bench.rs"]
mod bench;
#[path = "suite/commands.rs"]
mod commands;
#[path = "suite/conformance.rs"]
mod conformance;
#[path = "suite/data.rs"]
mod data;
#[path = "suite/detect.rs"]
mod detect;
#[path = "suite/determinism.rs"]
mod determinism;
#[path = "suite/disk.rs"]
mod disk;
#[path = "suite/dispatches.rs"]
mod dispatches;
#[path = "suite/faults.rs"]
mod faults;
#[path = "suite/features.rs"]
mod features;
#[path = "suite/finetune.rs"]
mod finetune;
#[path = "suite/fuzz.rs"]
mod fuzz;
#[path = "suite/generate.rs"]
mod generate;
#[path = "suite/gpu.rs"]
mod gpu;
#[path = "suite/gradients.rs"]
mod gradients;
#[path = "suite/inspect.rs"]
mod inspect;
#[path = "suite/layerwise.rs"]
mod layerwise;
#[path = "suite/manners.rs"]
mod manners;
#[path = "suite/many.rs"]
mod many;
#[path = "suite/paint.rs"]
mod paint;
#[path = "suite/reconstruct.rs"]
mod reconstruct;
#[path = "suite/recorded.rs"]
mod recorded;
#[path = "suite/restore.rs"]
mod restore;
#[path = "suite/resume.rs"]
mod resume;
#[path = "suite/rooms.rs"]
mod rooms;
#[path = "suite/segment.rs"]
mod segment;
#[path = "suite/several.rs"]
mod several;
#[path = "suite/shaders.rs"]
mod shaders;
#[path = "suite/sweep.rs"]
mod sweep;
#[path = "suite/training.rs"]
mod training;
#[path = "suite/tuned.rs"]
mod tuned;
