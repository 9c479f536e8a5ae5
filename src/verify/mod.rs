//! Verifies that a device computes correctly, forward and backward: compares the built-in case
//! table with the CPU path in f64, and stored cases with the answers of another program (PyTorch).

mod case;
mod compare;
mod direct_case;
mod gates;
mod gradient;
mod layer_case;
mod losses;
mod models;
mod prepare;
mod table;
mod train_case;
mod units;

pub use case::{Case, Tensor, Values, load as load_case, load_folder};
pub use compare::{Comparison, HALF_TOLERANCE, TOLERANCE, compare};
pub use gradient::check as check_gradient;
pub use prepare::{Prepared, prepare};
pub use table::cases as built_in;
pub use units::{check_units, check_units_once, is_product};

use crate::device::Device;
use crate::error::Result;
use crate::gpu::Choice;

/// The outcome of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `op/name`.
    pub id: String,
    /// The kernel variant, such as `auto` or `plain`; `-` on the CPU path.
    pub kernels: &'static str,
    /// The comparison of each output.
    pub comparisons: Vec<Comparison>,
    /// The error, if the case could not run.
    pub failure: Option<String>,
}

impl Outcome {
    /// Whether all outputs are within their tolerances.
    pub fn passed(&self) -> bool {
        self.failure.is_none()
            && !self.comparisons.is_empty()
            && self.comparisons.iter().all(|c| c.passed)
    }
}

/// Runs a case on a device and compares the results. The CPU path in f64 computes missing answers
/// first. On a GPU the case runs with every kernel variant that the adapter supports, and if it
/// supports half precision, once more with maps in half precision.
pub fn run(device: &mut Device, case: &Case) -> Vec<Outcome> {
    run_variants(device, case, |_| true)
}

/// As [`run`], with the variants that `wanted` accepts.
pub fn run_variants(
    device: &mut Device,
    case: &Case,
    wanted: impl Fn(Choice) -> bool,
) -> Vec<Outcome> {
    let answered = if case.has_answers() { Ok(case.clone()) } else { case.answered() };
    let mut outcomes = run_answered(device, case, answered, &wanted);
    if device.has_half() && prepare::has_maps(case) {
        outcomes.extend(run_answered(device, case, case.halved(), &wanted));
    }
    outcomes
}

fn run_answered(
    device: &mut Device,
    case: &Case,
    answered: Result<Case>,
    wanted: &dyn Fn(Choice) -> bool,
) -> Vec<Outcome> {
    let case = match answered {
        Ok(case) => case,
        Err(error) => {
            return vec![Outcome {
                id: case.id(),
                kernels: "-",
                comparisons: Vec::new(),
                failure: Some(error.to_string()),
            }];
        }
    };
    let one = |device: &mut Device, kernels| match execute(device, &case) {
        Ok(found) => {
            Outcome { id: case.id(), kernels, comparisons: compare(&case, &found), failure: None }
        }
        Err(error) => Outcome {
            id: case.id(),
            kernels,
            comparisons: Vec::new(),
            failure: Some(error.to_string()),
        },
    };
    let Some(traits) = device.as_gpu().map(|gpu| gpu.traits()) else {
        return vec![one(device, "-")];
    };
    let mut outcomes = Vec::new();
    for choice in prepare::choices(&case, traits).into_iter().filter(|choice| wanted(*choice)) {
        if let Some(gpu) = device.as_gpu() {
            gpu.choice = choice;
        }
        outcomes.push(one(device, choice.name()));
    }
    if let Some(gpu) = device.as_gpu() {
        gpu.choice = Choice::Auto;
    }
    outcomes
}

/// Runs a case and returns its outputs by name, in NCHW order. On a GPU every buffer has a guard
/// behind it.
///
/// # Errors
/// If the case is invalid, the device fails, or a kernel has written past the end of a buffer.
pub fn execute(device: &mut Device, case: &Case) -> Result<Vec<(String, Vec<f64>)>> {
    let guard = |device: &mut Device, guarded| {
        if let Some(gpu) = device.as_gpu() {
            gpu.guarded = guarded;
        }
    };
    guard(device, true);
    let prepared = prepare(device, case);
    guard(device, false);
    prepared?.execute(device)
}
