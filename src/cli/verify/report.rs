//! `csae verify --report`: one Markdown file about an adapter, to attach to an issue.

use std::fmt::Write;
use std::path::Path;

use clap::ValueEnum;
use serde_json::Value;

use crate::bench::{self, WORKLOADS};
use crate::device::Device;
use crate::error::Result;
use crate::files;
use crate::verify::Outcome;
use crate::view::Precision;

use crate::cli::{Common, devices, with_flags};

/// Number of cases with the largest errors that the report lists.
const LARGEST: usize = 10;
/// Windows of each training benchmark, and seconds of a window.
const TIMING: (usize, f64) = (3, 1.0);

/// The cases of a run of `csae verify`.
pub struct Cases<'a> {
    /// Results of all cases.
    pub outcomes: &'a [Outcome],
    /// Wall time in seconds.
    pub seconds: f64,
    /// The flag `--filter`, if not all cases ran.
    pub filter: Option<&'a str>,
}

/// Measures training steps and writes the report. It has no names of users, machines or files.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, common: &Common, device: &mut Device, cases: &Cases<'_>) -> Result<()> {
    let mut text = format!(
        "# csae verify on {}\n\ncsae {} on {} ({}), kernels {}\n",
        device.label(),
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        common.kernels.to_possible_value().map_or(String::new(), |value| value.get_name().into()),
    );
    text.push_str(&adapter(device));
    text.push_str(&verified(cases));
    text.push_str(&trained(common, device));
    files::write_atomically(path, text.as_bytes())
}

/// What the driver says about the adapter.
fn adapter(device: &mut Device) -> String {
    let threads = rayon::current_num_threads();
    let Some(gpu) = device.as_gpu() else {
        return format!("\n## Device\n\nThe CPU path with {threads} threads.\n");
    };
    let traits = gpu.traits();
    let mut text = "\n## Adapter\n\n| property | value |\n|---|---|\n".to_owned();
    if let Value::Object(properties) = devices::describe(gpu.adapter(), false, true) {
        for (name, value) in properties.iter().filter(|(name, _)| !SKIPPED.contains(&&***name)) {
            let value = match value {
                Value::String(text) => text.replace('|', "/"),
                Value::Array(all) => {
                    let names: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
                    names.join(", ")
                }
                other => other.to_string(),
            };
            let _ = writeln!(text, "| {name} | {value} |");
        }
    }
    let _ = writeln!(
        text,
        "| minimum subgroup | {} |\n| 64-bit integers | {} |\n| matrices | {:?} |",
        traits.subgroup, traits.int64, traits.matrices
    );
    text
}

/// Properties of an adapter that the report leaves out: they depend on the other adapters.
const SKIPPED: [&str; 3] = ["kind", "index", "auto"];

/// The results of the cases.
fn verified(cases: &Cases<'_>) -> String {
    let Cases { outcomes, seconds, filter } = *cases;
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.passed()).collect();
    let of = filter.map_or(String::new(), |filter| format!(" of the cases with {filter:?}"));
    let mut text = format!(
        "\n## Kernels\n\n{} passed, {} failed{of}, in {seconds:.0} s.\n",
        outcomes.len() - failed.len(),
        failed.len()
    );
    if !failed.is_empty() {
        text.push_str("\n| failed | kernels | why |\n|---|---|---|\n");
        for outcome in failed {
            let wrong = outcome.comparisons.iter().filter(|found| !found.passed);
            let mut why: Vec<String> = wrong
                .map(|found| {
                    let (name, error, tolerance) = (&found.output, found.error, found.tolerance);
                    format!("{name}: error {error:.1e}, tolerance {tolerance:.0e}")
                })
                .collect();
            why.extend(outcome.failure.as_deref().map(with_flags));
            let why = why.join("; ").replace('|', "/").replace('\n', " ");
            let _ = writeln!(text, "| {} | {} | {why} |", outcome.id, outcome.kernels);
        }
    }
    let all = outcomes.iter().flat_map(|outcome| {
        outcome.comparisons.iter().map(move |found| (found.error / found.tolerance, outcome, found))
    });
    let mut all: Vec<_> = all.collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    text.push_str(
        "\n| largest errors | kernels | output | error | tolerance |\n|---|---|---|---|---|\n",
    );
    for (_, outcome, found) in all.into_iter().take(LARGEST) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.1e} | {:.0e} |",
            outcome.id, outcome.kernels, found.output, found.error, found.tolerance
        );
    }
    text
}

/// The times of training steps.
fn trained(common: &Common, device: &mut Device) -> String {
    let mut text = "\n## Training steps in single precision\n\n| model | batch | images/s | ms | \
                    first step | dispatches |\n|---|---|---|---|---|---|\n"
        .to_owned();
    for workload in WORKLOADS {
        common.status(&format!("timing {}", workload.name));
        let (windows, seconds) = TIMING;
        let step =
            bench::train_step(device, workload, workload.batch, Precision::F32, seconds, windows);
        let row = match step {
            Ok(step) => format!(
                "{:.0} ({:.0}–{:.0}) | {:.3} | {:.2} s | {}",
                step.images_per_s, step.min, step.max, step.ms, step.first_step_s, step.dispatches
            ),
            Err(error) => with_flags(&error.to_string()).replace(['|', '\n'], " ") + " | | |",
        };
        let _ = writeln!(text, "| {} | {} | {row} |", workload.name, workload.batch);
    }
    text
}
