//! Dawn, the WebGPU of Chromium, with its compiler of WGSL, tint. It runs in Node.js as npm's
//! package `webgpu`, which `tests/browser` installs.

use std::env;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::json;

/// The environment variable with the folder that the package is installed in.
pub const FOLDER: &str = "CSAE_WEBGPU";

/// What Dawn refuses in a shader, or warns about.
#[derive(Debug, Deserialize)]
pub struct Fault {
    /// The line of the text, from 1, or 0 if it is unknown.
    pub line: usize,
    /// Dawn's messages.
    pub message: String,
}

/// Whether `tests/browser` or a user says where the package is.
pub fn is_installed() -> bool {
    env::var_os(FOLDER).is_some()
}

/// Compiles pipelines, each from a text and constants, and returns what is wrong with each.
pub fn compile(shaders: &[(String, Vec<(&str, f64)>)]) -> Vec<Option<Fault>> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/support/dawn.mjs");
    let mut node = Command::new("node")
        .arg(program)
        .arg(env::var_os(FOLDER).expect("the variable is set"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Node.js runs");
    let shaders: Vec<_> = shaders
        .iter()
        .map(|(text, constants)| {
            // naga accepts subgroup operations without this directive, and Dawn requires it. It
            // stands in the first line so that lines keep their numbers.
            let enabled =
                if text.contains("subgroupBroadcast") { "enable subgroups; " } else { "" };
            let constants: serde_json::Map<_, _> =
                constants.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            json!({ "text": format!("{enabled}{text}"), "constants": constants })
        })
        .collect();
    let mut input = node.stdin.take().expect("its input is a pipe");
    let shaders = serde_json::to_vec(&shaders).expect("shaders are JSON");
    input.write_all(&shaders).expect("Node.js reads the shaders");
    drop(input);
    let output = node.wait_with_output().expect("Node.js ends");
    assert!(output.status.success(), "Dawn did not run: {}", output.status);
    serde_json::from_slice(&output.stdout).expect("faults are JSON")
}
