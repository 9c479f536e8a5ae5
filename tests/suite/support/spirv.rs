//! Khronos's validator of SPIR-V: `spirv-val`, in Debian's package spirv-tools.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// The Vulkan version whose rules apply. wgpu writes SPIR-V 1.6 for drivers of Vulkan 1.3.
const TARGET: &str = "vulkan1.3";

/// Whether the validator is installed.
pub fn is_installed() -> bool {
    let version = Command::new("spirv-val").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Validates a module.
pub fn validate(words: &[u32]) -> Result<(), String> {
    let mut validator = Command::new("spirv-val")
        .args(["--target-env", TARGET])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spirv-val is installed");
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut input = validator.stdin.take().expect("its input is a pipe");
    // It stops reading when it finds a fault.
    let _ = input.write_all(&bytes);
    drop(input);
    let output = validator.wait_with_output().expect("spirv-val ends");
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(format!("spirv-val: {}", String::from_utf8_lossy(&text).trim()))
}
