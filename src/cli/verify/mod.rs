//! `csae verify`: checks kernels against reference results.

mod report;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::{CommandArgs, Common, Kernels, refuse_existing, with_flags};
use crate::error::Error;
use crate::files;
use crate::gpu::{Adapter, Choice, Matrices, Unit};
use crate::verify::{self, Outcome};

/// Check every kernel, forward and backward, on your device.
///
/// The expected results of the built-in cases come from the CPU path in f64. --cases adds stored
/// cases with results from another program. Every kernel variant that runs on the device is
/// checked; the variant `matrix` only if --kernels names it. Exits with status 1 if any case fails.
/// --report also times training steps and writes all about the device into one file. Reports of
/// GPUs are welcome as issues of the project.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae verify --device gpu
  csae verify --device gpu --report my-gpu.md
  csae verify --device lavapipe --cases tests/cases --filter conv2d")]
pub struct VerifyArgs {
    /// Folder of stored cases (OP__NAME.safetensors)
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
    /// Only cases whose op/name contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Write a report (Markdown): adapter, driver, limits, results, times of training steps
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Overwrite an existing report
    #[arg(long, requires = "report")]
    force: bool,
    #[command(flatten)]
    common: Common,
}

impl CommandArgs for VerifyArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        self.report.is_some()
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: VerifyArgs) -> anyhow::Result<()> {
    let mut cases = verify::built_in();
    if let Some(folder) = &args.cases {
        cases.extend(verify::load_folder(folder)?);
    }
    if let Some(filter) = &args.filter {
        cases.retain(|case| case.id().contains(filter));
        if cases.is_empty() {
            return Err(Error::usage(format!(
                "--filter {filter}: no case has this text in its op/name"
            ))
            .into());
        }
    }
    if let Some(path) = &args.report {
        refuse_existing(path, args.force)?;
        files::ensure_writable(path)?;
    }
    // Emulation allows checking the rest of a `matrix` kernel on an adapter without cooperative
    // matrices.
    let named = args.common.kernels == Kernels::Matrix;
    let mut device = args.common.open_untuned(|adapter| {
        if named { adapter.matrices_or_emulated() } else { Matrices::None }
    })?;
    if device.as_gpu().is_some_and(|gpu| matches!(gpu.traits().matrices, Matrices::Emulated(_))) {
        args.common.status(
            "note: the adapter has no cooperative matrices; the `matrix` kernels emulate them",
        );
    }
    let (start, mut outcomes) = (Instant::now(), Vec::new());
    for case in &cases {
        for outcome in verify::run(&mut device, case) {
            print(&args.common, &outcome);
            outcomes.push(outcome);
        }
    }
    let emulated = device.as_gpu().map(|gpu| gpu.traits().matrices);
    if let Some(Matrices::Emulated(first)) = emulated {
        for unit in Unit::ALL.into_iter().filter(|unit| *unit != first) {
            let emulated = |_: &Adapter| Matrices::Emulated(unit);
            let mut device = args.common.open_with(emulated)?;
            args.common.status(&format!("emulated matrices: {}", unit.name()));
            for case in cases.iter().filter(|case| verify::is_product(case)) {
                let matrix = |choice| choice == Choice::Matrix;
                for outcome in verify::run_variants(&mut device, case, matrix) {
                    print(&args.common, &outcome);
                    outcomes.push(outcome);
                }
            }
        }
    }
    let passed = outcomes.iter().filter(|outcome| outcome.passed()).count();
    let failed = outcomes.len() - passed;
    if let Some(path) = &args.report {
        let (seconds, filter) = (start.elapsed().as_secs_f64(), args.filter.as_deref());
        let cases = report::Cases { outcomes: &outcomes, seconds, filter };
        report::write(path, &args.common, &mut device, &cases)?;
        args.common.status(&format!("{} is the report", path.display()));
    }
    args.common.report_kernels(&mut device);
    if args.common.json {
        outln!(
            "{}",
            json!({
                "kind": "summary", "passed": passed, "failed": failed, "device": device.label()
            })
        );
    } else {
        outln!("{passed} passed, {failed} failed on {}", device.label());
    }
    if failed > 0 {
        return Err(Error::failed(format!("{failed} cases failed")).into());
    }
    Ok(())
}

fn print(common: &Common, outcome: &Outcome) {
    if common.json {
        let outputs: Vec<_> = outcome
            .comparisons
            .iter()
            .map(|c| {
                json!({
                    "output": c.output, "error": c.error, "tolerance": c.tolerance,
                    "passed": c.passed
                })
            })
            .collect();
        outln!(
            "{}",
            json!({
                "kind": "case", "id": outcome.id, "kernels": outcome.kernels,
                "passed": outcome.passed(), "outputs": outputs,
                "failure": outcome.failure.as_deref().map(with_flags)
            })
        );
        return;
    }
    let passed = outcome.passed();
    if common.quiet && passed {
        return;
    }
    let errors: Vec<String> = outcome
        .comparisons
        .iter()
        .map(|c| format!("{} {:.1e}{}", c.output, c.error, if c.passed { "" } else { " (!)" }))
        .collect();
    let tolerance =
        outcome.comparisons.first().map_or(String::new(), |c| format!("  ≤ {:.0e}", c.tolerance));
    let kernels =
        if outcome.kernels == "-" { String::new() } else { format!(" [{}]", outcome.kernels) };
    let verdict = if passed { "pass" } else { "FAIL" };
    let reason = outcome.failure.as_deref().map(with_flags).unwrap_or_default();
    outln!("{verdict} {}{kernels}  {}{tolerance}{reason}", outcome.id, errors.join("  "));
}
