//! The compiled part of the Python package `csae`: models, devices and the program.
//!
//! Arrays cross the border as bytes of 32-bit floats in native order, with their shape. The Python
//! part (`python/csae`) converts and checks what users pass.

mod errors;
mod model;
mod worker;

use std::ffi::OsString;

use csae::internals::cli;
use pyo3::prelude::*;

// Too little memory ends the process in any case. With this allocator it says so.
#[global_allocator]
static ALLOCATOR: cli::Allocator = cli::Allocator;

/// Runs the program with arguments, the first of which is its name. Returns the exit status.
#[pyfunction]
fn main(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| {
        cli::share_heap();
        cli::without_displays();
        cli::main(arguments)
    })
}

/// The names of the adapters, in the order of their numbers.
#[pyfunction]
fn devices(py: Python<'_>) -> Vec<String> {
    py.detach(csae::devices)
}

/// The names of the bundled models.
#[pyfunction]
fn bundled_models() -> Vec<&'static str> {
    csae::bundled_models().collect()
}

/// The names of the presets.
#[pyfunction]
fn presets() -> Vec<&'static str> {
    csae::presets().collect()
}

/// The description of a preset, in TOML.
#[pyfunction]
fn preset(name: &str) -> PyResult<&'static str> {
    csae::preset(name).map_err(|error| errors::convert(&error))
}

#[pymodule]
mod _csae {
    #[pymodule_export]
    use super::model::Core;
    #[pymodule_export]
    use super::{bundled_models, devices, main, preset, presets};
}
