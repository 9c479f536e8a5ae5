//! From a case to calls on a device.

use super::case::{Case, Tensor, Values};
use super::{direct_case, layer_case, train_case};
use crate::device::{Allocation, Device};
use crate::error::{Error, Result};
use crate::gpu::{Choice, Kernel, Recorder, Traits};
use crate::model::Store;
use crate::program::Call;
use crate::shape::{Dims, to_nchw};
use crate::view::{StepParams, View};

/// How an output in memory becomes natural.
#[derive(Clone, Debug)]
pub(super) enum Unpack {
    Plain,
    Maps(Dims),
    Param(crate::model::Param),
}

/// What to write before a step, the step's values.
#[derive(Clone, Debug, Default)]
pub(super) struct Step {
    pub(super) writes: Vec<(View, Values)>,
    pub(super) params: StepParams,
}

/// A case on a device, with the buffers of its calls.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Its calls.
    pub calls: Vec<Call>,
    pub(super) first: Vec<(View, Values)>,
    pub(super) steps: Vec<Step>,
    /// Read after every step, one after the other.
    pub(super) each: Vec<(String, View, Unpack)>,
    /// Read at the end.
    pub(super) last: Vec<(String, View, Unpack)>,
    pub(super) buffers: Vec<Allocation>,
    /// Its model's values, where it has a model.
    pub(super) _store: Option<Store>,
    /// What lies between the ranges of the gradients. Nothing may be written there.
    pub(super) gaps: Vec<View>,
}

impl Prepared {
    /// Runs the steps and reads the outputs in natural order. Outputs hold NaN beforehand.
    pub fn execute(&self, device: &mut Device) -> Result<Vec<(String, Vec<f64>)>> {
        let write = |device: &mut Device, writes: &[(View, Values)]| {
            for (view, values) in writes {
                match values {
                    Values::Real(values) => device.write_f64(*view, values),
                    Values::Int(values) => device
                        .write_words(*view, &values.iter().map(|x| *x as u32).collect::<Vec<_>>()),
                }
            }
        };
        for (_, view, _) in self.each.iter().chain(&self.last) {
            device.write_f64(*view, &vec![f64::NAN; view.len]);
        }
        write(device, &self.first);
        let program = device.compile(self.calls.clone())?;
        let mut each: Vec<Vec<f64>> = vec![Vec::new(); self.each.len()];
        for step in &self.steps {
            write(device, &step.writes);
            device.run(&program, &step.params)?;
            for (to, (_, view, unpack)) in each.iter_mut().zip(&self.each) {
                to.extend(natural(device.read_f64(*view)?, unpack));
            }
        }
        let mut found: Vec<(String, Vec<f64>)> =
            self.each.iter().map(|(name, ..)| name.clone()).zip(each).collect();
        for (name, view, unpack) in &self.last {
            found.push((name.clone(), natural(device.read_f64(*view)?, unpack)));
        }
        for gap in &self.gaps {
            if let Some(bad) = device.read(*gap)?.into_iter().find(|x| *x != 0.0) {
                return Err(Error::failed(format!("{bad} was written past the end of a gradient")));
            }
        }
        if let Some(gpu) = device.as_gpu() {
            gpu.check_guards()?;
        }
        Ok(found)
    }
}

fn natural(values: Vec<f64>, unpack: &Unpack) -> Vec<f64> {
    match unpack {
        Unpack::Plain => values,
        Unpack::Maps(dims) => to_nchw(&values, *dims),
        Unpack::Param(param) => param.unpack(&values),
    }
}

/// The choices that an adapter takes, without those by which the case would run the same kernels as
/// by an earlier one.
pub fn choices(case: &Case, traits: Traits) -> Vec<Choice> {
    let mut seen = Vec::new();
    let mut differs = |choice: &Choice| {
        let mut device = Device::cpu();
        let Ok(prepared) = prepare(&mut device, case) else { return *choice == Choice::Auto };
        let mut recorder = Recorder { choice: *choice, traits, ..Recorder::default() };
        prepared.calls.iter().for_each(|call| call.record(&mut recorder));
        let kernels: Vec<Kernel> =
            recorder.dispatches.iter().map(|dispatch| dispatch.kernel).collect();
        let fresh = !seen.contains(&kernels);
        seen.push(kernels);
        fresh
    };
    Choice::ALL
        .into_iter()
        .filter(|choice| traits.takes(*choice))
        .filter(|choice| differs(choice))
        .collect()
}

/// Whether a case is of maps: of nothing else is there a half precision.
pub fn has_maps(case: &Case) -> bool {
    let case = Case { half: true, ..case.clone() };
    let views =
        |prepared: Prepared| prepared.calls.iter().flat_map(Call::views).any(|(view, _)| view.half);
    prepare(&mut Device::cpu(), &case).is_ok_and(views)
}

/// Batch and size of a sample: [n, d] or [n, c, h, w].
pub(super) fn batch_of(case: &Case, tensor: &Tensor) -> Result<(usize, Dims)> {
    match tensor.shape[..] {
        [n, d] if n * d > 0 => Ok((n, Dims::flat(d))),
        [n, c, h, w] if n * c * h * w > 0 => Ok((n, Dims::new(c, h, w))),
        _ => Err(Error::usage(format!(
            "{}: shape {:?} is neither [n, d] nor [n, c, h, w]",
            case.id(),
            tensor.shape
        ))),
    }
}

/// Prepares a case on a device.
pub fn prepare(device: &mut Device, case: &Case) -> Result<Prepared> {
    match case.op.as_str() {
        "train" => train_case::prepare(device, case),
        "model" => layer_case::model(device, case),
        _ => direct_case::prepare(device, case).unwrap_or_else(|| layer_case::layer(device, case)),
    }
}

/// The step that a case's attributes fix.
pub(super) fn step_of(case: &Case) -> StepParams {
    let word = |key: &str| case.attrs[key].as_u64().unwrap_or(0);
    let seed = word("seed");
    StepParams {
        step: word("step") as u32,
        seed_lo: seed as u32,
        seed_hi: (seed >> 32) as u32,
        ..StepParams::default()
    }
}
