//! Benchmarks: training steps of three models, their profiles and scaling, and single operations,
//! compared with the device's peak rates and with earlier runs. Predictions for other GPUs.

pub mod compare;
mod gpus;
pub mod grow;
mod kernels;
mod peak;
mod profile;
pub mod ranks;

pub mod roofline;
mod singles;
mod trace;
pub mod tune;
mod workloads;

pub use gpus::KnownGpu;
pub use kernels::{KernelBench, KernelEvent, KernelResult, kernels, run_kernels};
pub use peak::Peak;
pub use profile::{ProfileRow, StepProfile, profile_step};
pub use trace::Trace;
pub use workloads::{StepResult, WORKLOADS, Workload, train_step};

use crate::device::Device;
use crate::error::Result;
use crate::model::Graph;
use crate::spec::Precision;

/// Median, minimum and maximum of timings.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    };
    (median, values[0], values[values.len() - 1])
}

/// Peak memory of the process in MiB. None unless the system has `/proc`.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib / 1024)
}

/// The reason why a training step does not fit a device. None if it fits.
fn fits(device: &Device, graph: &Graph, batch: usize) -> Result<Option<String>> {
    let (plan, _) = workloads::planned(graph, batch, Precision::F32)?;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let parameters = 4 * graph.parameter_count() as u64;
    let parameter = graph.params.iter().map(|param| 4 * param.len() as u64).max().unwrap_or(0);
    let (bound, limit) = (plan.largest.max(parameter), 4 * device.max_elements());
    if bound > limit {
        return Ok(Some(format!(
            "{} MiB are needed in one binding, the device allows {} MiB",
            mib(bound),
            mib(limit)
        )));
    }
    if parameters > device.max_bytes() {
        return Ok(Some(format!(
            "{} MiB of parameters do not fit in one buffer of the device",
            mib(parameters)
        )));
    }
    // Parameters, gradients and momentum.
    let total = plan.total + 3 * parameters;
    // A fifth of the memory is left for the program itself and for other programs.
    let free = device.budget().map(|free| free / 10 * 8);
    Ok(free
        .filter(|free| total > *free)
        .map(|free| format!("{} MiB are needed, {} MiB are free", mib(total), mib(free))))
}
