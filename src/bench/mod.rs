//! Benchmarks: training steps of three models, where their time goes, and single operations, held against what the device can do.

mod kernels;
mod peak;
mod profile;
mod trace;
mod workloads;

pub use kernels::{KernelBench, KernelResult, kernels};
pub use peak::Peak;
pub use profile::{ProfileRow, StepProfile, profile_step};
pub use trace::Trace;
pub use workloads::{StepResult, WORKLOADS, Workload, train_step};

/// Median, smallest and largest of timings.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    (median, values[0], values[values.len() - 1])
}

/// High-water mark of the process's memory in MiB, where the system tells.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib / 1024)
}
