//! Turns a case into calls on a device.

use super::case::{Case, Tensor, Values};
use super::{direct_case, layer_case, train_case};
use crate::device::{Allocation, Device};
use crate::error::{Error, Result};
use crate::gpu::{Choice, Kernel, Recorder, Traits};
use crate::model::Store;
use crate::program::Call;
use crate::shape::{Dims, to_nchw};
use crate::view::{StepParams, View};

/// Conversion of an output from its layout in memory to NCHW order.
#[derive(Clone, Debug)]
pub(super) enum Unpack {
    Plain,
    Maps(Dims),
    Param(crate::model::Param),
}

/// One step of a case: the values to write before it, and its parameters.
#[derive(Clone, Debug, Default)]
pub(super) struct Step {
    pub(super) writes: Vec<(View, Values)>,
    pub(super) params: StepParams,
}

/// A case prepared on a device, with the buffers of its calls.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Its calls.
    pub calls: Vec<Call>,
    /// Values to write before the first step.
    pub(super) first: Vec<(View, Values)>,
    pub(super) steps: Vec<Step>,
    /// Outputs to read after every step; the values are concatenated.
    pub(super) each: Vec<(String, View, Unpack)>,
    /// Outputs to read at the end.
    pub(super) last: Vec<(String, View, Unpack)>,
    pub(super) buffers: Vec<Allocation>,
    /// The parameters of its model, if it has one. They are kept only to stay allocated.
    pub(super) _store: Option<Store>,
    /// The gaps between the ranges of the gradients. No kernel must write there.
    pub(super) gaps: Vec<View>,
}

impl Prepared {
    /// Runs the steps and reads the outputs in NCHW order. Outputs are filled with NaN first, so
    /// that unwritten elements are detected.
    ///
    /// # Errors
    /// If the device fails, or a kernel has written outside of its outputs.
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
                to.extend(unpack_values(device.read_f64(*view)?, unpack));
            }
        }
        let mut found: Vec<(String, Vec<f64>)> =
            self.each.iter().map(|(name, ..)| name.clone()).zip(each).collect();
        for (name, view, unpack) in &self.last {
            found.push((name.clone(), unpack_values(device.read_f64(*view)?, unpack)));
        }
        for gap in &self.gaps {
            if let Some(bad) = device.read(*gap)?.into_iter().find(|x| *x != 0.0) {
                return Err(Error::failed(format!(
                    "a kernel wrote {bad} past the end of a gradient"
                )));
            }
        }
        if let Some(gpu) = device.as_gpu() {
            gpu.check_guards()?;
        }
        Ok(found)
    }
}

/// Converts the values of an output to NCHW order.
fn unpack_values(values: Vec<f64>, unpack: &Unpack) -> Vec<f64> {
    match unpack {
        Unpack::Plain => values,
        Unpack::Maps(dims) => to_nchw(&values, *dims),
        Unpack::Param(param) => param.unpack(&values),
    }
}

/// The kernel variants that an adapter supports, without those that run the same kernels for this
/// case as an earlier one.
pub fn choices(case: &Case, traits: Traits) -> Vec<Choice> {
    let mut seen = Vec::new();
    let mut differs = |choice: &Choice| {
        let mut device = Device::cpu();
        let Ok(prepared) = prepare(&mut device, case) else { return *choice == Choice::Auto };
        let mut recorder = Recorder { choice: *choice, traits, ..Recorder::default() };
        prepared.calls.iter().for_each(|call| call.record(&mut recorder));
        recorder.finish();
        let kernels: Vec<(Kernel, bool)> = recorder
            .dispatches
            .iter()
            .map(|dispatch| (dispatch.kernel, dispatch.tiles_8x4))
            .collect();
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

/// Whether a case has maps that can be in half precision. Only maps can. The mark of a missing
/// value does not exist in it.
pub fn has_maps(case: &Case) -> bool {
    if case.attrs["missing"] == true {
        return false;
    }
    let case = Case { half: true, ..case.clone() };
    let views =
        |prepared: Prepared| prepared.calls.iter().flat_map(Call::views).any(|(view, _)| view.half);
    prepare(&mut Device::cpu(), &case).is_ok_and(views)
}

/// Batch size and sample size of a tensor of shape [n, d] or [n, c, h, w].
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
///
/// # Errors
/// If the case is invalid, or the device is out of memory.
pub fn prepare(device: &mut Device, case: &Case) -> Result<Prepared> {
    match case.op.as_str() {
        "train" => train_case::prepare(device, case),
        "model" => layer_case::model(device, case),
        _ => direct_case::prepare(device, case).unwrap_or_else(|| layer_case::layer(device, case)),
    }
}

/// The step parameters given by the attributes `step` and `seed`.
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
