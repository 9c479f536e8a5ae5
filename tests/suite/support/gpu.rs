//! The adapter of the tests of the GPU path, named by `CSAE_DEVICE` (`llvmpipe` unless set).
//! `CSAE_GPU` is `require` (a missing adapter fails the test), `auto` (it skips the test with a
//! message) or `off`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use csae::internals::device::{Device, Selected, select};
use csae::internals::gpu::Adapter;

use super::skip;

/// One test at a time uses the adapter: a software one takes every core.
static ADAPTER: Mutex<()> = Mutex::new(());

/// Waits for the adapter. Returns `None` if the test is to be skipped.
pub fn turn() -> Option<MutexGuard<'static, ()>> {
    let wanted = std::env::var("CSAE_GPU").unwrap_or_else(|_| "auto".to_owned());
    if wanted == "off" {
        skip("CSAE_GPU=off");
        return None;
    }
    assert!(
        ["auto", "require"].contains(&wanted.as_str()),
        "CSAE_GPU={wanted}: must be require, auto or off"
    );
    let turn = ADAPTER.lock().unwrap_or_else(PoisonError::into_inner);
    match select(&name()) {
        Ok(Selected::Adapter(_)) => Some(turn),
        Ok(Selected::Cpu) => panic!("CSAE_DEVICE={}: this is not a GPU", name()),
        Err(error) if wanted == "require" => panic!("CSAE_GPU=require: {error}"),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

/// The adapter's name.
pub fn name() -> String {
    std::env::var("CSAE_DEVICE").unwrap_or_else(|_| "llvmpipe".to_owned())
}

/// Opens the adapter.
pub fn open() -> Device {
    Device::open(&name()).unwrap_or_else(|error| panic!("{error}"))
}

/// Opens the adapter with its cooperative matrices or emulated ones.
pub fn open_with_matrices() -> Device {
    Device::open_with(&name(), Adapter::matrices_or_emulated)
        .unwrap_or_else(|error| panic!("{error}"))
}
