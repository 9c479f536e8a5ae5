//! `csae bench`

use std::path::PathBuf;

use clap::Args;
use csae::bench::{self, Peak, Trace, WORKLOADS, Workload};
use csae::error::{Error, Result};
use csae::files;
use serde::Serialize;

use super::{Common, refuse_existing};

/// Time training steps and kernels on your device.
///
/// Training steps are those of three models: W1 (28x28 gray), W2 (32x32 colour), W3 (64x64 colour). Each figure is the median of the windows after a
/// warm-up.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae bench --device cpu --workload w1,w2\n  csae bench --device gpu --batch 128,1024 --json\n  csae bench --filter conv2d_fwd"
)]
pub struct BenchArgs {
    /// Training steps to time, and no kernels: w1, w2, w3, comma-separated
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    workload: Vec<String>,
    /// Batches of the training steps, and no kernels; each workload's own unless given
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    batch: Vec<std::num::NonZeroUsize>,
    /// Only benchmarks whose name contains this (train_step/w1, conv2d_fwd/w2.conv1, …)
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Seconds of one timed window
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    seconds: f64,
    /// Profile training steps: time by kernel beside the floor of its work; with -v every dispatch in order
    #[arg(long)]
    profile: bool,
    /// Where to write a timeline of the profiled steps, for ui.perfetto.dev or chrome://tracing
    #[arg(long, value_name = "FILE", requires = "profile")]
    trace: Option<PathBuf>,
    /// Write over an existing --trace
    #[arg(long)]
    force: bool,
    /// Timed windows, at least 3
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(3..))]
    windows: u16,
    #[command(flatten)]
    pub(super) common: Common,
}

impl BenchArgs {
    fn workloads(&self) -> Result<Vec<(Workload, usize)>> {
        let chosen: Vec<Workload> = if self.workload.is_empty() {
            WORKLOADS.to_vec()
        } else {
            self.workload.iter().map(|name| Workload::named(name)).collect::<Result<_>>()?
        };
        let batches = |workload: &Workload| {
            if self.batch.is_empty() { vec![workload.batch] } else { self.batch.iter().map(|batch| batch.get()).collect() }
        };
        let mut jobs: Vec<(Workload, usize)> =
            chosen.iter().flat_map(|workload| batches(workload).into_iter().map(|batch| (*workload, batch))).collect();
        jobs.retain(|(workload, _)| self.wants(&format!("train_step/{}", workload.name)));
        Ok(jobs)
    }

    fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter))
    }

    fn tell(&self, result: &impl Serialize, line: &str) -> anyhow::Result<()> {
        if self.common.json {
            outln!("{}", serde_json::to_string(result)?);
        } else {
            outln!("{line}");
        }
        Ok(())
    }
}

pub fn run(args: BenchArgs) -> anyhow::Result<()> {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(Error::usage(format!("--seconds {}: a window lasts between 0 and 3600 seconds", args.seconds)).into());
    }
    let jobs = args.workloads()?;
    if args.profile {
        return profile(&args, &jobs);
    }
    let steps_only = !args.workload.is_empty() || !args.batch.is_empty();
    let mut kernels = if steps_only { Vec::new() } else { bench::kernels() };
    kernels.retain(|kernel| args.wants(&kernel.name));
    if jobs.is_empty() && kernels.is_empty() {
        let filter = args.filter.as_deref().unwrap_or_default();
        return Err(Error::usage(format!(
            "--filter {filter}: no benchmark's name contains it (try train_step, conv2d_fwd, sgd)"
        ))
        .into());
    }
    let mut device = args.common.open()?;
    let windows = usize::from(args.windows);
    for (workload, batch) in jobs {
        let r = bench::train_step(&mut device, workload, batch, args.seconds, windows)?;
        let line = format!(
            "train_step/{:<4} batch {:<5} {:>9.1} images/s ({:.1}–{:.1})  {:>9.3} ms  first step {:.2} s  peak {} MiB",
            r.workload,
            r.batch,
            r.images_per_s,
            r.min,
            r.max,
            r.ms,
            r.first_step_s,
            r.peak_mib.map_or("?".to_owned(), |mib| mib.to_string())
        );
        args.tell(&r, &line)?;
    }
    for kernel in kernels {
        let r = kernel.run(&mut device, args.seconds / 4.0, windows)?;
        let line = format!("{:<40} {:<26} {:>9.3} ms {:>9.2} GFLOP/s {:>8.2} GB/s", r.name, r.shape, r.ms, r.gflops, r.gbps);
        args.tell(&r, &line)?;
    }
    args.common.say_kernels(&mut device);
    Ok(())
}

fn profile(args: &BenchArgs, jobs: &[(Workload, usize)]) -> anyhow::Result<()> {
    if let Some(path) = &args.trace {
        refuse_existing(path, args.force)?;
    }
    let mut device = args.common.open()?;
    let peak = Peak::measure(&mut device)?;
    args.tell(&peak, &peak.lines().join("\n"))?;
    let mut trace = Trace::default();
    for (workload, batch) in jobs {
        let found = bench::profile_step(&mut device, *workload, *batch, args.seconds, &peak)?;
        let name = format!("{} batch {batch}", workload.name);
        trace.add(&name, &device.label(), &found.last);
        if args.common.json {
            for row in found.rows.iter().chain([&found.sum]) {
                outln!("{}", serde_json::to_string(row)?);
            }
        } else {
            let what = if device.as_gpu().is_some() { "dispatches" } else { "operations" };
            let (clock, calls, steps) = (found.median.clock.describe(), found.sum.calls, found.steps);
            outln!("\n{name}: {calls} {what} a step; {clock}; median of {steps} steps");
            found.table().iter().for_each(|line| outln!("{line}"));
            if args.common.verbose {
                outln!("");
                found.timeline(&peak).iter().for_each(|line| outln!("{line}"));
            }
        }
    }
    if let Some(path) = &args.trace {
        files::write_atomically(path, trace.text().as_bytes())?;
        args.common.say(&format!("timeline in {}: open it at ui.perfetto.dev or chrome://tracing", path.display()));
    }
    args.common.say_kernels(&mut device);
    Ok(())
}
