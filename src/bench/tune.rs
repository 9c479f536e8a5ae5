//! Times all kernel variants that an adapter supports for the matrix products of W1–W3, with the
//! slices of their sums that a large GPU needs and with fewer, and makes a table of the fastest.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::workloads::{Workload, planned};
use super::{fits, kernels, spread};
use crate::advice::Advice;
use crate::device::{Allocation, Device, Program};
use crate::error::{Error, Result};
use crate::gpu::{BuiltIn, Choice, Class, Gpu, Kernel, Setting, Tuned};
use crate::program::Call;
use crate::rng::Stream;
use crate::spec::Precision;
use crate::view::{Access, StepParams};

/// The variants, likely fast ones first.
const VARIANTS: [Choice; 6] = [
    Choice::Matrix,
    Choice::Tiled,
    Choice::Tiled8x4,
    Choice::Subgroup,
    Choice::Registers,
    Choice::Plain,
];
/// The variants that are also timed with fewer slices of their sums.
const SLICED: [Choice; 3] = [Choice::Matrix, Choice::Tiled, Choice::Tiled8x4];
/// The numbers by which slices are divided.
const FEWER: [usize; 4] = [1, 2, 4, 8];
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
    /// Median milliseconds by variant; `tiled/4` has a quarter of the slices.
    pub ms: BTreeMap<String, f64>,
    /// The variant selected.
    pub kernels: String,
}

/// Median milliseconds of settings.
type Times = Vec<(Setting, f64)>;

/// The name of a setting in results.
fn label(setting: Setting) -> String {
    match (setting.kernels.name(), setting.fewer_slices) {
        (kernels, 1) => kernels.to_owned(),
        (kernels, fewer) => format!("{kernels}/{fewer}"),
    }
}

/// The settings to time, in the order of [`VARIANTS`].
fn settings() -> impl Iterator<Item = Setting> {
    VARIANTS.into_iter().flat_map(|kernels| {
        let fewer = if SLICED.contains(&kernels) { &FEWER[..] } else { &FEWER[..1] };
        fewer.iter().map(move |&fewer_slices| Setting { kernels, fewer_slices })
    })
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
    let default = Setting::of(BuiltIn::of(&gpu.traits()).default);
    let before =
        (Setting { kernels: gpu.choice, fewer_slices: gpu.fewer_slices }, gpu.tuned.take());
    let mut sums: BTreeMap<Class, Times> = BTreeMap::new();
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
            add(sums.entry(product.class()).or_default(), &ms);
            let round = |ms: f64| (ms * 1e4).round() / 1e4;
            report(Ok(&TuneResult {
                kind: "tune",
                name,
                device: device.label(),
                precision,
                rows: product.rows,
                columns: product.columns,
                steps: product.steps,
                kernels: label(fastest(&ms, default)),
                ms: ms.into_iter().map(|(setting, ms)| (label(setting), round(ms))).collect(),
            }));
        }
    }
    let gpu = self::gpu(device)?;
    force(gpu, before.0);
    gpu.tuned = before.1;
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

fn force(gpu: &mut Gpu, setting: Setting) {
    (gpu.choice, gpu.fewer_slices) = (setting.kernels, setting.fewer_slices);
}

/// Adds the times of a product to those of others. A number of slices that was not timed, because
/// the product has too few of them to divide, takes the time of the next larger one.
fn add(sums: &mut Times, ms: &Times) {
    let of = |wanted: Setting| {
        (1..=wanted.fewer_slices).rev().find_map(|fewer_slices| {
            let setting = Setting { fewer_slices, ..wanted };
            ms.iter().find(|(timed, _)| *timed == setting).map(|(_, ms)| *ms)
        })
    };
    for setting in settings() {
        let Some(ms) = of(setting) else { continue };
        match sums.iter_mut().find(|(timed, _)| *timed == setting) {
            Some((_, sum)) => *sum += ms,
            None => sums.push((setting, ms)),
        }
    }
}

/// The fastest setting, or the default one if no other is faster by more than noise.
fn fastest(ms: &Times, default: Setting) -> Setting {
    let of = |wanted: Setting| {
        let timed = ms.iter().find(|(setting, _)| *setting == wanted);
        timed.map_or(f64::INFINITY, |(_, ms)| *ms)
    };
    // Of settings that take the same time the first, which has the most slices.
    let best = settings().min_by(|a, b| of(*a).total_cmp(&of(*b))).unwrap_or(default);
    if of(best) < GAIN * of(default) { best } else { default }
}

/// Milliseconds of a call with each setting that the adapter supports and that differs from the
/// others.
fn times(device: &mut Device, call: &Call, seconds: f64) -> Result<Times> {
    let (call, _buffers) = place(device, call)?;
    let mut variants = Vec::new();
    let mut ran = Vec::new();
    for setting in settings() {
        let gpu = gpu(device)?;
        if !call.product().is_some_and(|product| gpu.traits().takes_for(setting.kernels, &product))
        {
            continue;
        }
        force(gpu, setting);
        let mut recorder = gpu.recorder();
        call.record(&mut recorder);
        recorder.finish();
        let dispatches: Vec<(Kernel, u64, u32)> = recorder
            .dispatches
            .iter()
            .map(|dispatch| (dispatch.kernel, dispatch.workgroups, dispatch.workgroup_size))
            .collect();
        if ran.contains(&dispatches) {
            continue;
        }
        ran.push(dispatches);
        let program = device.compile(vec![call.clone()])?;
        // Some drivers compile a kernel when it first runs, but not for longer than LONGEST.
        let cold = device.profile(&program, &StepParams::default())?.total() / 1e9;
        variants.push((setting, program, cold));
    }
    warm_up(device, &variants)?;
    let mut found = Vec::new();
    let mut firsts = Vec::new();
    for (setting, program, cold) in &variants {
        if *cold > LONGEST && variants.len() > 1 {
            found.push((*setting, cold * 1e3));
            continue;
        }
        let first = device.profile(program, &StepParams::default())?;
        let ms = first.total() / 1e6;
        found.push((*setting, ms));
        firsts.push((*setting, first, ms));
    }
    let best = found.iter().map(|(_, ms)| *ms).fold(f64::INFINITY, f64::min);
    firsts.retain(|(_, _, ms)| *ms <= HOPELESS * best);
    let mut rounds = vec![Vec::new(); firsts.len()];
    for _ in 0..ROUNDS {
        for ((setting, first, _), times) in firsts.iter().zip(&mut rounds) {
            force(gpu(device)?, *setting);
            let median = spread(kernels::again(device, &call, first, seconds / ROUNDS as f64)?).0;
            times.push(median / 1e6);
        }
    }
    for ((timed, ..), times) in firsts.iter().zip(rounds) {
        let known = found.iter_mut().find(|(setting, _)| setting == timed);
        known.expect("it ran before").1 = spread(times).0;
    }
    Ok(found)
}

/// Runs the fastest of the variants for [`WARM_UP`] seconds of its own time.
fn warm_up(device: &mut Device, variants: &[(Setting, Program, f64)]) -> Result<()> {
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

/// The heading for the lines of results. Names are padded to `width`.
pub fn heading(width: usize) -> String {
    let variants: Vec<String> =
        VARIANTS.iter().map(|variant| format!("{:>10}", variant.name())).collect();
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
            VARIANTS.iter().map(|variant| format!("{:>10}", ms(*variant))).collect();
        format!("{:<width$}  {}  {}", self.name, times.join(""), self.kernels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILED: Setting = Setting::of(Choice::Tiled);
    const HALVED: Setting = Setting { fewer_slices: 2, ..TILED };
    const SUBGROUP: Setting = Setting::of(Choice::Subgroup);

    #[test]
    fn small_gains_do_not_replace_the_default() {
        let ms = |subgroup: f64, halved: f64| vec![(SUBGROUP, subgroup), (HALVED, halved)];
        assert_eq!(fastest(&ms(1.0, 0.98), SUBGROUP), SUBGROUP);
        assert_eq!(fastest(&ms(1.0, 0.9), SUBGROUP), HALVED);
        assert_eq!(fastest(&ms(1.0, 0.9), TILED), HALVED);
    }

    #[test]
    fn a_product_without_fewer_slices_counts_for_all_numbers_of_slices() {
        let mut sums = Times::new();
        add(&mut sums, &vec![(TILED, 3.0), (HALVED, 2.0)]);
        add(&mut sums, &vec![(TILED, 1.0)]);
        let of = |fewer_slices: usize| {
            let setting = Setting { fewer_slices, ..TILED };
            sums.iter().find(|(timed, _)| *timed == setting).unwrap().1
        };
        assert_eq!([of(1), of(2), of(4)], [4.0, 3.0, 3.0]);
        assert_eq!(fastest(&sums, TILED), HALVED, "of equal times the most slices");
        assert_eq!(label(HALVED), "tiled/2");
    }
}
