//! Checks backward passes by central differences on the CPU path in f64.

use super::case::{Case, Tensor, Values};
use super::compare::relative_error;
use crate::device::Device;
use crate::error::Result;
use crate::rng::Stream;

/// Number of elements tested in each input. Each costs two forward passes.
const SAMPLES: usize = 24;

/// Returns the relative error between each `grad_*` of a case and the central differences of ⟨y,
/// grad_y⟩ + penalty. The operation must be smooth within ±`step` of its inputs.
///
/// # Errors
/// If the case is invalid.
pub fn check(case: &Case, step: f64) -> Result<Vec<(String, f64)>> {
    let found = super::execute(&mut Device::oracle(), case)?;
    let weights = case.input("grad_y")?.reals();
    let loss = |case: &Case| -> Result<f64> {
        let found = super::execute(&mut Device::oracle(), case)?;
        let output = |name: &str| found.iter().find(|(output, _)| output == name);
        let (_, y) = output("y").expect("a layer has an output");
        let penalty = output("penalty").map_or(0.0, |(_, values)| values[0]);
        Ok(penalty + y.iter().zip(&weights).map(|(y, w)| y * w).sum::<f64>())
    };
    let mut errors = Vec::new();
    for (name, tensor) in &case.inputs {
        let Some((_, gradient)) =
            found.iter().find(|(output, _)| *output == format!("grad_{name}"))
        else {
            continue;
        };
        let mut pick = Stream::new(1, name);
        let indices: Vec<usize> =
            (0..SAMPLES.min(gradient.len())).map(|_| pick.below(gradient.len())).collect();
        let mut differences = Vec::new();
        for &i in &indices {
            let at = |delta: f64| {
                let mut values = tensor.reals();
                values[i] += delta;
                let mut moved = case.clone();
                moved.inputs.insert(
                    name.clone(),
                    Tensor { shape: tensor.shape.clone(), values: Values::Real(values) },
                );
                loss(&moved)
            };
            differences.push((at(step)? - at(-step)?) / (2.0 * step));
        }
        let analytic: Vec<f64> = indices.iter().map(|i| gradient[*i]).collect();
        errors.push((name.clone(), relative_error(&analytic, &differences)));
    }
    Ok(errors)
}
