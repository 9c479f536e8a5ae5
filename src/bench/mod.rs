//! Benchmarks: training steps of three models, where their time goes, how it grows, and single
//! operations, held against what the device can do; and runs held against earlier ones.

pub mod compare;
pub mod grow;
mod kernels;
mod peak;
mod profile;
mod singles;
mod trace;
pub mod tune;
mod workloads;

pub use kernels::{Condition, KernelBench, KernelResult, kernels, run_kernels};
pub use peak::Peak;
pub use profile::{ProfileRow, StepProfile, profile_step};
pub use trace::Trace;
pub use workloads::{StepResult, WORKLOADS, Workload, train_step};

use crate::device::Device;
use crate::error::Result;
use crate::model::Graph;
use crate::spec::Precision;

/// Median, smallest and largest of timings.
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

/// High-water mark of the process's memory in MiB, where the system tells.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib / 1024)
}

/// Why a step does not fit a device, if it does not.
fn fits(device: &Device, graph: &Graph, batch: usize) -> Result<Option<String>> {
    let (plan, _) = workloads::planned(graph, batch, Precision::F32)?;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let parameters = 4 * graph.parameter_count() as u64;
    let parameter = graph.params.iter().map(|param| 4 * param.len() as u64).max().unwrap_or(0);
    let (bound, most) = (plan.largest.max(parameter), 4 * device.max_elements());
    if bound > most {
        return Ok(Some(format!(
            "{} MiB are needed in one binding, the device allows {} MiB",
            mib(bound),
            mib(most)
        )));
    }
    if parameters > device.max_bytes() {
        return Ok(Some(format!(
            "{} MiB of parameters do not fit a buffer of the device",
            mib(parameters)
        )));
    }
    let total = plan.total + 3 * parameters;
    // Some is left for the program itself and for others.
    let free = device.budget().map(|free| free / 10 * 8);
    Ok(free
        .filter(|free| total > *free)
        .map(|free| format!("{} MiB are needed, {} MiB are free", mib(total), mib(free))))
}
