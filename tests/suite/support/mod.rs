//! Helpers of the tests: the program, folders, images, trained models, the GPU.
//!
//! A test file imports from here and from no other test file.

pub mod arrays;
pub mod cases;
#[cfg(unix)]
pub mod chromium;
pub mod command;
pub mod dawn;
#[cfg(unix)]
pub mod examples;
pub mod files;
pub mod folder;
pub mod fxc;
pub mod gpu;
pub mod images;
pub mod json;
pub mod markdown;
pub mod models;
pub mod mutate;
pub mod onnx;
pub mod random_models;
pub mod recorded;
pub mod spirv;
pub mod training;
pub mod watching;
#[cfg(unix)]
pub mod web;

pub use command::{Command, Output};
pub use files::{bytes, is_file, model_bytes, text};
pub use folder::TempFolder;

/// Reports that the test that is running is skipped.
pub fn skip(reason: &str) {
    // The test runner names each thread after its test.
    let thread = std::thread::current();
    eprintln!("skipped {}: {reason}", thread.name().unwrap_or("a test"));
}
