//! Benchmarks of single operations at several batch sizes: every call of the training steps of
//! W1–W3, timed within the step, and all other operations on their own buffers
//! ([`super::singles`]).

use std::collections::BTreeSet;
use std::time::Instant;

use serde::Serialize;

use super::singles::{BATCHES, Single, singles};
use super::workloads::{Running, WORKLOADS, Workload, planned};
use super::{Peak, fits, profile, spread};
use crate::device::{Device, Program};
use crate::error::Result;
use crate::profile::Cost;
use crate::profile::{Clock, Operation, Profile};
use crate::program::Call;
use crate::spec::Precision;
use crate::view::StepParams;

/// Maximum expected seconds of a step. Larger batches are skipped, to bound the total time.
const LONGEST: f64 = 4.0;
/// Maximum number of calls in one program of a single operation: enough to hide the cost of a
/// submission.
const CALLS: usize = 64;
/// Target duration of such a program in seconds, for slow operations.
const PROGRAM: f64 = 0.05;

/// An operation to time.
#[derive(Clone, Debug)]
pub struct KernelBench {
    /// `operation/workload.sizes`, or `operation/sizes` on its own buffers.
    pub name: String,
    /// Sizes, for reports.
    pub shape: String,
    /// The operation's name among [`Call::NAMES`].
    pub operation: &'static str,
    cost: Cost,
    place: Place,
}

/// Where an operation is timed.
#[derive(Clone, Debug)]
enum Place {
    /// Within a workload's step, at a batch size.
    Step(Workload, usize),
    /// On its own buffers.
    Alone(Box<Single>),
}

/// A timed operation.
#[derive(Clone, Debug, Serialize)]
pub struct KernelResult {
    /// `kernel`
    pub kind: &'static str,
    /// `operation/workload.sizes`
    pub name: String,
    /// Sizes.
    pub shape: String,
    /// Name of the device.
    pub device: String,
    /// Median time in milliseconds.
    pub ms: f64,
    /// Minimum time in milliseconds.
    pub min: f64,
    /// Maximum time in milliseconds.
    pub max: f64,
    /// 10⁹ floating-point operations per second.
    pub gflops: f64,
    /// 10⁹ bytes per second, counting the minimum number of bytes to move.
    pub gbps: f64,
    /// Roofline efficiency: the minimum time at the device's peak rates over the median time.
    pub of_floor: f64,
    /// The clock that measured it.
    pub clock: &'static str,
}

/// The batch sizes of a workload: its own first, then the others.
fn batches(workload: Workload) -> impl Iterator<Item = usize> {
    [workload.batch]
        .into_iter()
        .chain(BATCHES.into_iter().filter(move |batch| *batch != workload.batch))
}

/// All benchmarks. Benchmarks of the same step are adjacent.
///
/// # Errors
/// If a workload is invalid.
pub fn kernels() -> Result<Vec<KernelBench>> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    let mut push = |call: &Call, place: Place, whose: &str| {
        let shape = call.sizes();
        let name = format!("{}/{whose}{}", call.label(), shape.replace(' ', "."));
        // Layers of the same size share a benchmark.
        if seen.insert(name.clone()) {
            all.push(KernelBench { name, shape, operation: call.name(), cost: call.cost(), place });
        }
    };
    for workload in WORKLOADS {
        let graph = workload.graph()?;
        for batch in batches(workload) {
            for call in &planned(&graph, batch, Precision::F32)?.1 {
                push(call, Place::Step(workload, batch), &format!("{}.", workload.name));
            }
        }
    }
    for single in BATCHES.into_iter().flat_map(singles) {
        push(&single.call.clone(), Place::Alone(Box::new(single)), "");
    }
    Ok(all)
}

/// Progress of [`run_kernels`].
#[derive(Debug)]
pub enum KernelEvent<'a> {
    /// A benchmark has finished.
    Result(&'a KernelResult),
    /// Benchmarks were skipped, for this reason.
    Skipped(String),
}

/// Times operations for about `seconds` each and reports each result.
///
/// # Errors
/// If the device or `report` fails.
pub fn run_kernels(
    device: &mut Device,
    benches: &[KernelBench],
    seconds: f64,
    peak: &Peak,
    report: &mut dyn FnMut(KernelEvent) -> Result<()>,
) -> Result<()> {
    let same = |a: &KernelBench, b: &KernelBench| match (&a.place, &b.place) {
        (Place::Step(a, n), Place::Step(b, m)) => a.name == b.name && n == m,
        _ => false,
    };
    // Name of the last workload, and its seconds per image.
    let mut last: Option<(&str, f64)> = None;
    for group in benches.chunk_by(same) {
        match &group[0].place {
            Place::Alone(single) => {
                let (times, clock) = alone(device, single, seconds)?;
                report(KernelEvent::Result(&result(device, &group[0], times, clock, peak)))?;
            }
            Place::Step(workload, batch) => {
                let graph = workload.graph()?;
                let expected = last
                    .filter(|(name, _)| *name == workload.name)
                    .map(|(_, each)| each * *batch as f64);
                let reason = match expected.filter(|expected| *expected > LONGEST) {
                    Some(expected) => Some(format!("a step would take about {expected:.0} s")),
                    None => fits(device, &graph, *batch)?,
                };
                if let Some(reason) = reason {
                    report(KernelEvent::Skipped(format!(
                        "{} at batch {batch}: {reason}",
                        workload.name
                    )))?;
                    continue;
                }
                let mut running = Running::new(device, &graph, *batch, Precision::F32)?;
                // All calls of the step are timed together, so their times add up, within limits.
                let seconds = seconds * group.len().min(8) as f64;
                let profiles = profile::repeat(device, &mut running, seconds)?;
                let clock = profiles[0].clock;
                last = Some((workload.name, profiles[0].total() / 1e9 / *batch as f64));
                let times: Vec<Vec<f64>> = profiles.iter().map(by_call).collect();
                for bench in group {
                    // With small bindings the parameters are updated in windows, so the calls can
                    // differ from the planned ones.
                    let Some(call) =
                        profiles[0].operations.iter().position(|operation| bench.is(operation))
                    else {
                        report(KernelEvent::Skipped(format!(
                            "{}: the step has no such call on this device",
                            bench.name
                        )))?;
                        continue;
                    };
                    let times = times.iter().map(|times| times[call]).collect();
                    report(KernelEvent::Result(&result(device, bench, times, clock, peak)))?;
                }
            }
        }
    }
    Ok(())
}

/// Time of each call in nanoseconds.
fn by_call(profile: &Profile) -> Vec<f64> {
    let mut times = vec![0.0; profile.operations.len()];
    profile.timed.iter().for_each(|timed| times[timed.call] += timed.duration());
    times
}

/// Times an operation on its own buffers, in nanoseconds.
fn alone(device: &mut Device, single: &Single, seconds: f64) -> Result<(Vec<f64>, Clock)> {
    let (call, _buffers) = single.place(device)?;
    let one = device.compile(vec![call.clone()])?;
    device.profile(&one, &StepParams::default())?;
    let first = device.profile(&one, &StepParams::default())?;
    Ok((again(device, &call, &first, seconds)?, first.clock))
}

/// Times a call repeatedly for `seconds`, in nanoseconds. `first` is the profile of a first run.
pub(super) fn again(
    device: &mut Device,
    call: &Call,
    first: &Profile,
    seconds: f64,
) -> Result<Vec<f64>> {
    let each = (PROGRAM / (first.total() / 1e9)).clamp(1.0, CALLS as f64) as usize;
    let many = device.compile(vec![call.clone(); each])?;
    let began = Instant::now();
    let mut times = Vec::new();
    while times.is_empty() || began.elapsed().as_secs_f64() < seconds {
        if first.clock == Clock::Submissions {
            times.push(by_the_wall(device, &many, each)?);
        } else {
            times.extend(by_call(&device.profile(&many, &StepParams::default())?));
        }
    }
    Ok(times)
}

/// Nanoseconds per call by the host's clock, for adapters without timestamps. Many calls share a
/// submission, so that its cost is small.
fn by_the_wall(device: &mut Device, many: &Program, each: usize) -> Result<f64> {
    let start = Instant::now();
    device.run(many, &StepParams::default())?;
    device.wait()?;
    Ok(start.elapsed().as_secs_f64() * 1e9 / each as f64)
}

fn result(
    device: &Device,
    bench: &KernelBench,
    times: Vec<f64>,
    clock: Clock,
    peak: &Peak,
) -> KernelResult {
    let (median, min, max) = spread(times);
    let round = |x: f64| (x * 1e4).round() / 1e4;
    KernelResult {
        kind: "kernel",
        name: bench.name.clone(),
        shape: bench.shape.clone(),
        device: device.label(),
        ms: round(median / 1e6),
        min: round(min / 1e6),
        max: round(max / 1e6),
        gflops: round(bench.cost.flops / median),
        gbps: round(bench.cost.bytes / median),
        of_floor: round(peak.floor(bench.cost) * 1e9 / median),
        clock: clock.describe(),
    }
}

impl KernelBench {
    /// Whether this is the benchmark of an operation.
    fn is(&self, operation: &Operation) -> bool {
        operation.sizes == self.shape && self.name.split('/').next() == Some(&operation.label)
    }
}

impl KernelResult {
    /// The heading for the lines. Names are padded to `width`.
    pub fn heading(width: usize) -> String {
        let span = "fastest–slowest";
        format!(
            "{:<width$}  {:>9}  {span:>19}  {:>8}  {:>7}  {:>8}",
            "kernel", "ms", "GFLOP/s", "GB/s", "of floor"
        )
    }

    /// The result as a line of text. Names are padded to `width`.
    pub fn line(&self, width: usize) -> String {
        let Self { name, ms, min, max, gflops, gbps, of_floor, .. } = self;
        let percent = 100.0 * of_floor;
        format!(
            "{name:<width$}  {ms:>9.3}  {min:>9.3}–{max:<9.3}  {gflops:>8.2}  {gbps:>7.2}  \
             {percent:>6.1} %"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_bench() {
        let benches = kernels().unwrap();
        let timed: BTreeSet<&str> = benches.iter().map(|bench| bench.operation).collect();
        let without: Vec<&&str> =
            Call::NAMES.iter().filter(|name| !timed.contains(*name)).collect();
        assert!(
            without.is_empty(),
            "operations without a bench; add `alone` to their `impl Work`: {without:?}"
        );
        for bench in &benches {
            assert!(
                bench.cost.bytes > 0.0 && bench.cost.flops >= 0.0,
                "{}: {:?}",
                bench.name,
                bench.cost
            );
            assert!(
                bench.name.split_whitespace().count() == 1,
                "{:?} contains a space",
                bench.name
            );
        }
    }
}
