//! Every kind of kernel that an adapter takes for the products of matrices of W1–W3, timed, and the
//! table of the fastest.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::workloads::{Workload, planned};
use super::{fits, kernels, spread};
use crate::device::{Allocation, Device};
use crate::error::{Error, Result};
use crate::gpu::{BuiltIn, Choice, Class, Gpu, Kernel, Tuned};
use crate::program::Call;
use crate::rng::Stream;
use crate::spec::Precision;
use crate::view::{Access, StepParams};

/// The kinds, those first that are likely to be fast: a slow one is given up early.
const KINDS: [Choice; 5] =
    [Choice::Matrix, Choice::Subgroup, Choice::Tiled, Choice::Registers, Choice::Plain];
/// A kind that takes this much longer than another is timed once.
const HOPELESS: f64 = 3.0;
/// Seconds of a first run after which a hopeless kind is not run again.
const LONGEST: f64 = 1.0;
/// What another kind must gain over the one that suits the adapter, lest noise decide.
const GAIN: f64 = 0.97;

/// A product and the times of the kinds.
#[derive(Clone, Debug, Serialize)]
pub struct TuneResult {
    /// `tune`
    pub kind: &'static str,
    /// `operation/workload.sizes`
    pub name: String,
    /// Where.
    pub device: String,
    /// Of its maps.
    pub precision: Precision,
    /// Rows of the product.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Terms of each sum.
    pub steps: usize,
    /// Milliseconds, median, by kind.
    pub ms: BTreeMap<&'static str, f64>,
    /// The kind that is taken.
    pub kernels: &'static str,
}

/// Times the products of workloads at batches, with maps of a precision, about `seconds` a kind,
/// and tells of each as it is done.
pub fn tune(
    device: &mut Device,
    jobs: &[(Workload, usize)],
    precision: Precision,
    seconds: f64,
    tell: &mut dyn FnMut(Result<&TuneResult, String>),
) -> Result<Tuned> {
    let gpu = gpu(device)?;
    let (usual, before) = (BuiltIn::of(&gpu.traits()).default, (gpu.choice, gpu.tuned.take()));
    let mut sums: BTreeMap<Class, BTreeMap<&'static str, f64>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (workload, batch) in jobs {
        let graph = workload.graph()?;
        if let Some(reason) = fits(device, &graph, *batch)? {
            tell(Err(format!("{} at batch {batch}: {reason}", workload.name)));
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
            ms.iter().for_each(|(kind, ms)| *sums.entry(kind).or_default() += ms);
            let round = |ms: f64| (ms * 1e4).round() / 1e4;
            tell(Ok(&TuneResult {
                kind: "tune",
                name,
                device: device.label(),
                precision,
                rows: product.rows,
                columns: product.columns,
                steps: product.steps,
                kernels: fastest(&ms, usual).name(),
                ms: ms.into_iter().map(|(kind, ms)| (kind, round(ms))).collect(),
            }));
        }
    }
    let gpu = self::gpu(device)?;
    (gpu.choice, gpu.tuned) = before;
    if sums.is_empty() {
        return Err(Error::failed("there is nothing to tune: no workload fits the device"));
    }
    // Products of one class decide together.
    Ok(Tuned::new(sums.into_iter().map(|(class, ms)| (class, fastest(&ms, usual)))))
}

fn gpu(device: &mut Device) -> Result<&mut Gpu> {
    device.as_gpu().ok_or_else(|| {
        Error::usage("--tune: there is nothing to tune on the CPU path; name a GPU by --device")
    })
}

/// The fastest kind, or the usual one if no other gains by more than noise.
fn fastest(ms: &BTreeMap<&'static str, f64>, usual: Choice) -> Choice {
    let of = |choice: Choice| ms.get(choice.name()).copied().unwrap_or(f64::INFINITY);
    let best = KINDS.into_iter().min_by(|a, b| of(*a).total_cmp(&of(*b))).unwrap_or(usual);
    if of(best) < GAIN * of(usual) { best } else { usual }
}

/// Milliseconds of a call by each kind that runs here.
fn times(device: &mut Device, call: &Call, seconds: f64) -> Result<BTreeMap<&'static str, f64>> {
    let (call, _buffers) = place(device, call)?;
    let mut found = BTreeMap::new();
    let mut ran: Vec<Vec<Kernel>> = Vec::new();
    for kind in KINDS {
        let gpu = gpu(device)?;
        if !call.product().is_some_and(|product| gpu.traits().takes_for(kind, &product)) {
            continue;
        }
        gpu.choice = kind;
        let mut recorder = gpu.recorder();
        call.record(&mut recorder);
        let kernels = recorder.dispatches.iter().map(|dispatch| dispatch.kernel).collect();
        if ran.contains(&kernels) {
            continue;
        }
        ran.push(kernels);
        let best = found.values().copied().fold(f64::INFINITY, f64::min);
        found.insert(kind.name(), time(device, &call, seconds, best)?);
    }
    Ok(found)
}

fn time(device: &mut Device, call: &Call, seconds: f64, best: f64) -> Result<f64> {
    let one = device.compile(vec![call.clone()])?;
    // A driver may compile when a kernel runs first, but not for as long as that.
    let cold = device.profile(&one, &StepParams::default())?.total();
    if cold / 1e9 > LONGEST && cold / 1e6 > HOPELESS * best {
        return Ok(cold / 1e6);
    }
    let first = device.profile(&one, &StepParams::default())?;
    if first.total() / 1e6 > HOPELESS * best {
        return Ok(first.total() / 1e6);
    }
    Ok(spread(kernels::again(device, call, &first, seconds)?).0 / 1e6)
}

/// The call on buffers of its own, inputs filled.
fn place(device: &mut Device, call: &Call) -> Result<(Call, Vec<Allocation>)> {
    const DRAWN: usize = 1 << 16;
    let mut stream = Stream::new(1, "tune");
    let drawn: Vec<f32> = (0..DRAWN).map(|_| stream.uniform() - 0.3).collect();
    let mut call = call.clone();
    let mut buffers = Vec::new();
    for (view, access) in call.views() {
        let made = if view.half {
            device.alloc_half("tune", view.len)?
        } else {
            device.alloc_real("tune", view.len)?
        };
        if access == Access::Read {
            let values: Vec<f32> = drawn.iter().copied().cycle().take(view.len).collect();
            device.write(*made, &values);
        }
        buffers.push(made);
    }
    let mut next = buffers.iter();
    call.visit(&mut |view, _| *view = **next.next().expect("as many views as before"));
    Ok((call, buffers))
}

/// The kinds that there are for maps of a precision.
fn kinds(precision: Precision) -> impl Iterator<Item = Choice> {
    KINDS.into_iter().filter(move |kind| *kind != Choice::Matrix || precision == Precision::F16)
}

/// The heading of the lines; names are padded to `width`.
pub fn heading(width: usize, precision: Precision) -> String {
    let kinds: Vec<String> = kinds(precision).map(|kind| format!("{:>10}", kind.name())).collect();
    format!("{:<width$}  {}  taken (ms)", "product", kinds.join(""))
}

/// The longest name of the products of workloads.
pub fn width(jobs: &[(Workload, usize)]) -> Result<usize> {
    let mut width = 0;
    for (workload, batch) in jobs {
        let calls = planned(&workload.graph()?, *batch, Precision::F32)?.1;
        let products = calls.iter().filter(|call| call.product().is_some());
        let extractor = products.map(|call| {
            call.label().len() + workload.name.len() + call.sizes().chars().count() + 2
        });
        width = extractor.fold(width, usize::max);
    }
    Ok(width)
}

impl TuneResult {
    /// A line for people; names are padded to `width`.
    pub fn line(&self, width: usize) -> String {
        let ms =
            |kind: Choice| self.ms.get(kind.name()).map_or("-".to_owned(), |ms| format!("{ms:.3}"));
        let kinds: Vec<String> =
            kinds(self.precision).map(|kind| format!("{:>10}", ms(kind))).collect();
        format!("{:<width$}  {}  {}", self.name, kinds.join(""), self.kernels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_does_not_decide() {
        let ms = |subgroup: f64, registers: f64| {
            BTreeMap::from([("subgroup", subgroup), ("registers", registers)])
        };
        assert_eq!(fastest(&ms(1.0, 0.98), Choice::Subgroup), Choice::Subgroup);
        assert_eq!(fastest(&ms(1.0, 0.9), Choice::Subgroup), Choice::Registers);
        assert_eq!(fastest(&ms(1.0, 0.9), Choice::Tiled), Choice::Registers);
    }
}
