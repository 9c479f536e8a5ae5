//! Profiles a training step: the time of each kernel, compared with its minimum time at the
//! device's peak rates.

use std::time::Instant;

use serde::Serialize;

use super::compare::suffix;
use super::workloads::{Running, Workload};
use super::{Peak, spread};
use crate::device::Device;
use crate::error::Result;
use crate::profile::Cost;
use crate::profile::{Profile, Timed};
use crate::spec::Precision;

/// Minimum and maximum number of profiled steps.
const STEPS: std::ops::RangeInclusive<usize> = 3..=200;

/// A kernel's part of a step, or the whole step.
#[derive(Clone, Debug, Serialize)]
pub struct ProfileRow {
    /// `profile`
    pub kind: &'static str,
    /// The model.
    pub workload: String,
    /// Batch.
    pub batch: usize,
    /// Name of the device.
    pub device: String,
    /// `WORKLOAD.nBATCH/kernel`. The kernel is `step` in the row with the sum of all kernels.
    pub name: String,
    /// Dispatches per step; calls on the CPU path.
    pub calls: usize,
    /// Milliseconds per step.
    pub ms: f64,
    /// Share of the step's time.
    pub share: f64,
    /// 10⁹ floating-point operations per second.
    pub gflops: f64,
    /// 10⁹ bytes per second, counting the minimum number of bytes to move.
    pub gbps: f64,
    /// Roofline efficiency: the minimum time at the device's peak rates over the measured time.
    pub of_floor: f64,
    /// Minimum number of MiB to move.
    pub mib: f64,
    /// Wall time of a step without profiling, in milliseconds. Only for the whole step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<f64>,
}

/// A profiled training step.
#[derive(Clone, Debug)]
pub struct StepProfile {
    /// The kernels, longest time first.
    pub rows: Vec<ProfileRow>,
    /// Their sum.
    pub sum: ProfileRow,
    /// Number of profiled steps.
    pub steps: usize,
    /// A step with the median time of each dispatch.
    pub median: Profile,
    /// The last profiled step.
    pub last: Profile,
}

/// A profile with the median duration of each dispatch, without gaps between them.
pub(super) fn median(profiles: &[Profile]) -> Profile {
    let first = &profiles[0];
    let mut end = 0.0;
    let timed = (0..first.timed.len()).map(|i| {
        let (duration, ..) =
            spread(profiles.iter().map(|profile| profile.timed[i].duration()).collect());
        let start = end;
        end += duration;
        Timed { start, end, ..first.timed[i].clone() }
    });
    Profile { timed: timed.collect(), ..first.clone() }
}

/// Profiles a step repeatedly for `seconds`.
pub(super) fn repeat(
    device: &mut Device,
    running: &mut Running,
    seconds: f64,
) -> Result<Vec<Profile>> {
    running.run(device, 1)?;
    running.profile(device)?;
    let began = Instant::now();
    let mut profiles = Vec::new();
    while profiles.len() < *STEPS.start()
        || (began.elapsed().as_secs_f64() < seconds && profiles.len() < *STEPS.end())
    {
        profiles.push(running.profile(device)?);
    }
    Ok(profiles)
}

/// Profiles the training step of a workload for `seconds`.
///
/// # Errors
/// If the workload does not fit the device, or the device fails.
pub fn profile_step(
    device: &mut Device,
    workload: Workload,
    batch: usize,
    precision: Precision,
    seconds: f64,
    peak: &Peak,
) -> Result<StepProfile> {
    let mut running = Running::new(device, &workload.graph()?, batch, precision)?;
    let profiles = repeat(device, &mut running, seconds)?;
    let mut walls = Vec::new();
    let began = Instant::now();
    while walls.len() < *STEPS.start()
        || (began.elapsed().as_secs_f64() < seconds && walls.len() < *STEPS.end())
    {
        walls.push(running.run(device, 1)?);
    }
    let (wall, ..) = spread(walls);
    let median = median(&profiles);
    let total = median.total();
    let row = |kernel: &str, calls: usize, ns: f64, cost: Cost| ProfileRow {
        kind: "profile",
        workload: workload.name.to_owned(),
        batch,
        device: device.label(),
        name: format!("{}.n{batch}{}/{kernel}", workload.name, suffix(precision)),
        calls,
        ms: round(ns / 1e6),
        share: round(ns / total),
        gflops: round(cost.flops / ns),
        gbps: round(cost.bytes / ns),
        of_floor: round(peak.floor(cost) * 1e9 / ns),
        mib: round(cost.bytes / f64::from(1 << 20)),
        wall_ms: None,
    };
    let mut kernels: Vec<(&str, usize, f64, Cost)> = Vec::new();
    let (mut all, mut floor) = (Cost::default(), 0.0);
    for (timed, cost) in median.timed.iter().zip(median.costs()) {
        all += cost;
        floor += peak.floor(cost);
        let known = kernels.iter().position(|(kernel, ..)| *kernel == timed.kernel);
        let at = known.unwrap_or_else(|| {
            kernels.push((&timed.kernel, 0, 0.0, Cost::default()));
            kernels.len() - 1
        });
        kernels[at].1 += 1;
        kernels[at].2 += timed.duration();
        kernels[at].3 += cost;
    }
    kernels.sort_by(|a, b| b.2.total_cmp(&a.2));
    let rows =
        kernels.into_iter().map(|(kernel, calls, ns, cost)| row(kernel, calls, ns, cost)).collect();
    // Kernels run one after the other, so the minimum time of the step is the sum of theirs.
    let (of_floor, wall_ms) = (round(floor * 1e9 / total), Some(round(wall * 1e3)));
    let sum = ProfileRow { of_floor, wall_ms, ..row("step", median.timed.len(), total, all) };
    let last = profiles[profiles.len() - 1].clone();
    Ok(StepProfile { rows, sum, steps: profiles.len(), median, last })
}

fn round(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

impl StepProfile {
    /// The profile as the lines of a table.
    pub fn table(&self) -> Vec<String> {
        let width = self.rows.iter().map(|row| kernel(row).len()).max().unwrap_or(0).max(12);
        let mut lines = vec![format!(
            "{:<width$}  {:>5}  {:>9}  {:>6}  {:>9}  {:>8}  {:>8}  {:>8}",
            "kernel", "calls", "ms/step", "share", "GFLOP/s", "GB/s", "of floor", "MiB"
        )];
        for row in self.rows.iter().chain([&self.sum]) {
            // Second stages of a reduction have no cost of their own.
            let no_cost = row.gbps == 0.0;
            let number = |text: String| if no_cost { "-".to_owned() } else { text };
            let name = if kernel(row) == "step" { "sum" } else { kernel(row) };
            lines.push(format!(
                "{name:<width$}  {:>5}  {:>9.3}  {:>4.1} %  {:>9}  {:>8}  {:>8}  {:>8}",
                row.calls,
                row.ms,
                100.0 * row.share,
                number(format!("{:.2}", row.gflops)),
                number(format!("{:.2}", row.gbps)),
                number(format!("{:.1} %", 100.0 * row.of_floor)),
                number(format!("{:.2}", row.mib)),
            ));
        }
        let wall = self.sum.wall_ms.unwrap_or_default();
        lines.push(format!("wall time of a step without profiling: {wall:.3} ms"));
        lines
    }

    /// All dispatches in order, as lines of text.
    pub fn timeline(&self, peak: &Peak) -> Vec<String> {
        let timed = &self.median.timed;
        let width = timed.iter().map(|timed| timed.kernel.len()).max().unwrap_or(0);
        let lines = timed.iter().zip(self.median.costs()).map(|(timed, cost)| {
            let operation = &self.median.operations[timed.call];
            let ns = timed.duration();
            format!(
                "{:>10.3}  {:>9.3}  {:<width$}  {:>5.1} %  {} {}",
                timed.start / 1e6,
                ns / 1e6,
                timed.kernel,
                100.0 * peak.floor(cost) * 1e9 / ns,
                operation.label,
                operation.sizes
            )
        });
        [format!(
            "{:>10}  {:>9}  {:<width$}  {:>7}  operation",
            "start ms", "ms", "kernel", "floor"
        )]
        .into_iter()
        .chain(lines)
        .collect()
    }
}

/// Name of the kernel of a row.
fn kernel(row: &ProfileRow) -> &str {
    row.name.rsplit('/').next().unwrap_or(&row.name)
}
