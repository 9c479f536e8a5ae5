//! Models as files for other programs.

pub mod onnx;
pub mod web;
