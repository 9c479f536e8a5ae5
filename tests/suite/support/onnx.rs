//! onnxruntime, which runs ONNX files.
//!
//! `CSAE_ONNXRUNTIME` is the path of a Python that has the packages onnx, onnxruntime and numpy, or
//! `require` for the `python3` on the path of programs: a Python without them fails the test.
//! Without the variable, or with `off`, the test is skipped with a message.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::arrays::npy;
use super::{TempFolder, skip};

/// The largest relative error of an exported model.
pub const LIMIT: f64 = 1e-5;
/// Samples in a batch. Each case also runs the first sample alone.
pub const BATCH: usize = 7;

/// A comparison of a file with the values that it must compute.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, for messages.
    pub name: String,
    json: Value,
}

impl Case {
    /// The file `model` must turn `inputs` into the array in the file `want`. An input is the path
    /// of an array, or a list of numbers.
    pub fn new(name: &str, model: &str, inputs: &[(&str, Value)], want: &str) -> Self {
        let inputs: serde_json::Map<String, Value> =
            inputs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let json = json!({"model": model, "inputs": inputs, "want": [want]});
        Self { name: name.to_owned(), json }
    }

    /// The next output of the file must be the array in the file `want`.
    pub fn and(mut self, want: &str) -> Self {
        self.json["want"].as_array_mut().expect("a list").push(json!(want));
        self
    }
}

/// The Python that has onnxruntime. `None` if the test is to be skipped.
pub fn python() -> Option<String> {
    match std::env::var("CSAE_ONNXRUNTIME").ok().filter(|value| !value.is_empty()) {
        None => {
            skip("CSAE_ONNXRUNTIME does not name a Python with onnxruntime");
            None
        }
        Some(value) if value == "off" => {
            skip("CSAE_ONNXRUNTIME=off");
            None
        }
        Some(value) if value == "require" => Some("python3".to_owned()),
        Some(value) => Some(value),
    }
}

/// Runs the cases, and returns the answer to each: `error`, `alone` and `scale`, or `fault`.
#[track_caller]
pub fn answers(python: &str, cases: &[Case]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx/check.py");
    let mut process = Command::new(python);
    let process = process.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = process.spawn().unwrap_or_else(|error| panic!("{python}: {error}"));
    let lines: String = cases.iter().map(|case| format!("{}\n", case.json)).collect();
    let mut input = process.stdin.take().expect("a pipe");
    // The script writes while it reads, so that both pipes could fill up.
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = process.wait_with_output().expect("the process can be waited for");
    writer.join().expect("the writer ends").expect("the script reads all cases");
    let text = String::from_utf8_lossy(&output.stdout);
    let answers: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), cases.len(), "{python}: it lacks onnx, onnxruntime or numpy");
    answers
}

/// The largest relative error of an answer. Infinite if the file is faulty.
pub fn error(answer: &Value) -> f64 {
    let part = |name: &str| answer[name].as_f64().unwrap_or(f64::INFINITY);
    part("error").max(part("alone"))
}

/// Asserts that every file is valid, and that every relative error is at most [`LIMIT`]. Returns
/// the answers.
#[track_caller]
pub fn assert_equal(python: &str, cases: &[Case]) -> Vec<Value> {
    let answers = answers(python, cases);
    let all = cases.iter().zip(&answers);
    let wrong: Vec<String> = all
        .clone()
        .filter(|(_, answer)| error(answer) > LIMIT)
        .map(|(case, answer)| format!("{}: {answer}", case.name))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    if let Some((case, answer)) = all.max_by(|a, b| error(a.1).total_cmp(&error(b.1))) {
        let (count, name) = (cases.len(), &case.name);
        eprintln!("{count} cases, largest relative error {:.1e} ({name})", error(answer));
    }
    answers
}

/// Writes an array of floats to a file, and returns its path.
pub fn write(folder: &TempFolder, name: &str, shape: &[usize], values: &[f32]) -> String {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    folder.write(name, npy("<f4", &sizes.join(", "), &data))
}
