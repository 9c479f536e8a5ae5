//! Times all kernel variants that an adapter supports for the matrix products of W1–W3, and makes a
//! table of the fastest.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::workloads::{Workload, planned};
use super::{fits, kernels, spread};
use crate::advice::Advice;
use crate::device::{Allocation, Device, Program};
use crate::error::{Error, Result};
use crate::gpu::{BuiltIn, Choice, Class, Gpu, Kernel, Tuned};
use crate::program::Call;
use crate::rng::Stream;
use crate::spec::Precision;
use crate::view::{Access, StepParams};

/// The variants, likely fast ones first.
const VARIANTS: [Choice; 5] =
    [Choice::Matrix, Choice::Subgroup, Choice::Tiled, Choice::Registers, Choice::Plain];
/// A variant that takes this many times as long as the fastest is timed only once.
const HOPELESS: f64 = 3.0;
/// A variant whose first run takes more than this many seconds is not run again, unless it is the
/// only one. A first run may include compilation, which is shorter.
const LONGEST: f64 = 1.0;
/// Seconds of products before the first measurement. An idle H200 runs at a fifth of its clock and
/// takes about 100 ms to reach it.
const WARM_UP: f64 = 0.3;
/// The variants are timed in turn this many times, so that a change of the clock affects all alike.
const ROUNDS: usize = 5;
/// A variant replaces the default only if it takes less than this share of its time. Smaller gains
/// are within the noise of measurements.
const GAIN: f64 = 0.97;

/// A matrix product and the times of its variants.
#[derive(Clone, Debug, Serialize)]
pub struct TuneResult {
    /// `tune`
    pub kind: &'static str,
    /// `operation/workload.sizes`
    pub name: String,
    /// Name of the device.
    pub device: String,
    /// Precision of its maps.
    pub precision: Precision,
    /// Rows of the product.
    pub rows: usize,
    /// Columns of the product.
    pub columns: usize,
    /// Terms of each sum.
    pub steps: usize,
    /// Median milliseconds by variant.
    pub ms: BTreeMap<&'static str, f64>,
    /// The variant selected.
    pub kernels: &'static str,
}

/// Times the matrix products of workloads at batch sizes, about `seconds` for each variant. Reports
/// each result, and as `Err` the reason why a workload was skipped.
///
/// # Errors
/// If the device is the CPU path or fails, or no workload fits it.
pub fn tune(
    device: &mut Device,
    jobs: &[(Workload, usize)],
    precision: Precision,
    seconds: f64,
    report: &mut dyn FnMut(Result<&TuneResult, String>),
) -> Result<Tuned> {
    let gpu = gpu(device)?;
    let (default, before) = (BuiltIn::of(&gpu.traits()).default, (gpu.choice, gpu.tuned.take()));
    let mut sums: BTreeMap<Class, BTreeMap<&'static str, f64>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (workload, batch) in jobs {
        let graph = workload.graph()?;
        if let Some(reason) = fits(device, &graph, *batch)? {
            report(Err(format!("{} at batch {batch}: {reason}", workload.name)));
            continue;
        }
        for call in planned(&graph, *batch, precision)?.1 {
            let Some(product) = call.product() else { continue };
            let name =
                format!("{}/{}.{}", call.label(), workload.name, call.sizes().replace(' ', "."));
            if !seen.insert((call.label(), call.sizes())) {
                continue;
            }
            let ms = times(device, &call, seconds)?;
            let sums = sums.entry(product.class()).or_default();
            ms.iter().for_each(|(variant, ms)| *sums.entry(variant).or_default() += ms);
            let round = |ms: f64| (ms * 1e4).round() / 1e4;
            report(Ok(&TuneResult {
                kind: "tune",
                name,
                device: device.label(),
                precision,
                rows: product.rows,
                columns: product.columns,
                steps: product.steps,
                kernels: fastest(&ms, default).name(),
                ms: ms.into_iter().map(|(variant, ms)| (variant, round(ms))).collect(),
            }));
        }
    }
    let gpu = self::gpu(device)?;
    (gpu.choice, gpu.tuned) = before;
    if sums.is_empty() {
        return Err(Error::failed("nothing was tuned: no workload fits the device"));
    }
    // The total time of all products of a class decides.
    Ok(Tuned::new(sums.into_iter().map(|(class, ms)| (class, fastest(&ms, default)))))
}

fn gpu(device: &mut Device) -> Result<&mut Gpu> {
    device.as_gpu().ok_or_else(|| {
        Error::usage(format!("tuning has no effect on the CPU path; {}", Advice::SelectGpu))
    })
}

/// The fastest variant, or the default one if no other is faster by more than noise.
fn fastest(ms: &BTreeMap<&'static str, f64>, default: Choice) -> Choice {
    let of = |choice: Choice| ms.get(choice.name()).copied().unwrap_or(f64::INFINITY);
    let best = VARIANTS.into_iter().min_by(|a, b| of(*a).total_cmp(&of(*b))).unwrap_or(default);
    if of(best) < GAIN * of(default) { best } else { default }
}

/// Milliseconds of a call with each variant that the adapter supports.
fn times(device: &mut Device, call: &Call, seconds: f64) -> Result<BTreeMap<&'static str, f64>> {
    let (call, _buffers) = place(device, call)?;
    let mut variants = Vec::new();
    let mut ran: Vec<Vec<Kernel>> = Vec::new();
    for variant in VARIANTS {
        let gpu = gpu(device)?;
        if !call.product().is_some_and(|product| gpu.traits().takes_for(variant, &product)) {
            continue;
        }
        gpu.choice = variant;
        let mut recorder = gpu.recorder();
        call.record(&mut recorder);
        recorder.finish();
        let kernels = recorder.dispatches.iter().map(|dispatch| dispatch.kernel).collect();
        if ran.contains(&kernels) {
            continue;
        }
        ran.push(kernels);
        let program = device.compile(vec![call.clone()])?;
        // Some drivers compile a kernel when it first runs, but not for longer than LONGEST.
        let cold = device.profile(&program, &StepParams::default())?.total() / 1e9;
        variants.push((variant, program, cold));
    }
    warm_up(device, &variants)?;
    let mut found = BTreeMap::new();
    let mut firsts = Vec::new();
    for (variant, program, cold) in &variants {
        if *cold > LONGEST && variants.len() > 1 {
            found.insert(variant.name(), cold * 1e3);
            continue;
        }
        let first = device.profile(program, &StepParams::default())?;
        found.insert(variant.name(), first.total() / 1e6);
        firsts.push((*variant, first));
    }
    let best = found.values().copied().fold(f64::INFINITY, f64::min);
    firsts.retain(|(variant, _)| found[variant.name()] <= HOPELESS * best);
    let mut rounds: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for (variant, first) in &firsts {
            gpu(device)?.choice = *variant;
            let median = spread(kernels::again(device, &call, first, seconds / ROUNDS as f64)?).0;
            rounds.entry(variant.name()).or_default().push(median / 1e6);
        }
    }
    found.extend(rounds.into_iter().map(|(variant, ms)| (variant, spread(ms).0)));
    Ok(found)
}

/// Runs the fastest of the variants for [`WARM_UP`] seconds of its own time.
fn warm_up(device: &mut Device, variants: &[(Choice, Program, f64)]) -> Result<()> {
    let fastest = variants.iter().min_by(|a, b| a.2.total_cmp(&b.2));
    let Some((_, program, _)) = fastest else { return Ok(()) };
    let mut spent = 0.0;
    while spent < WARM_UP {
        // A device without a usable clock can report 0.
        spent += (device.profile(program, &StepParams::default())?.total() / 1e9).max(1e-5);
    }
    Ok(())
}

/// Copies a call to its own buffers, with random inputs.
fn place(device: &mut Device, call: &Call) -> Result<(Call, Vec<Allocation>)> {
    /// Random numbers, which are repeated in larger inputs: generating all would take longer than
    /// the measurement.
    const RANDOM: usize = 1 << 16;
    let mut stream = Stream::new(1, "tune");
    let random: Vec<f32> = (0..RANDOM).map(|_| stream.uniform() - 0.3).collect();
    let mut call = call.clone();
    let mut buffers = Vec::new();
    for (view, access) in call.views() {
        let made = if view.half {
            device.alloc_half("tune", view.len)?
        } else {
            device.alloc_real("tune", view.len)?
        };
        if access == Access::Read {
            let values: Vec<f32> = random.iter().copied().cycle().take(view.len).collect();
            device.write(*made, &values);
        }
        buffers.push(made);
    }
    let mut next = buffers.iter();
    call.visit(&mut |view, _| *view = **next.next().expect("every view has a buffer"));
    Ok((call, buffers))
}

/// The variants for maps of a precision.
fn variants(precision: Precision) -> impl Iterator<Item = Choice> {
    VARIANTS
        .into_iter()
        .filter(move |variant| *variant != Choice::Matrix || precision == Precision::F16)
}

/// The heading for the lines of results. Names are padded to `width`.
pub fn heading(width: usize, precision: Precision) -> String {
    let variants: Vec<String> =
        variants(precision).map(|variant| format!("{:>10}", variant.name())).collect();
    format!("{:<width$}  {}  selected (ms)", "product", variants.join(""))
}

/// Length of the longest name of a product of the workloads.
///
/// # Errors
/// If a workload is invalid.
pub fn width(jobs: &[(Workload, usize)]) -> Result<usize> {
    let mut width = 0;
    for (workload, batch) in jobs {
        let calls = planned(&workload.graph()?, *batch, Precision::F32)?.1;
        let products = calls.iter().filter(|call| call.product().is_some());
        let lengths = products.map(|call| {
            call.label().len() + workload.name.len() + call.sizes().chars().count() + 2
        });
        width = lengths.fold(width, usize::max);
    }
    Ok(width)
}

impl TuneResult {
    /// The result as a line of text. Names are padded to `width`.
    pub fn line(&self, width: usize) -> String {
        let ms = |variant: Choice| {
            self.ms.get(variant.name()).map_or("-".to_owned(), |ms| format!("{ms:.3}"))
        };
        let times: Vec<String> =
            variants(self.precision).map(|variant| format!("{:>10}", ms(variant))).collect();
        format!("{:<width$}  {}  {}", self.name, times.join(""), self.kernels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_gains_do_not_replace_the_default() {
        let ms = |subgroup: f64, registers: f64| {
            BTreeMap::from([("subgroup", subgroup), ("registers", registers)])
        };
        assert_eq!(fastest(&ms(1.0, 0.98), Choice::Subgroup), Choice::Subgroup);
        assert_eq!(fastest(&ms(1.0, 0.9), Choice::Subgroup), Choice::Registers);
        assert_eq!(fastest(&ms(1.0, 0.9), Choice::Tiled), Choice::Registers);
    }
}
