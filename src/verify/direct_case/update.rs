//! Cases of the optimisers and of clipping.

use super::Direct;
use crate::error::{Error, Result};
use crate::ops::{ChannelSum, ClipGrads, L1Norm, SCALAR_PARTIALS, SumSquares, WINDOW};
use crate::spec::{OptimizerName, OptimizerSpec, Update};
use crate::verify::case::{Case, Values};
use crate::verify::prepare::{Prepared, Step, Unpack};
use crate::view::{StepParams, View};

/// Clipping of gradients by their norm.
pub(super) fn clip(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.check_attributes(&["max_norm"])?;
    let given = case.input("grads")?.reals();
    let windows = given.len().div_ceil(WINDOW);
    let grads = d.output("clipped", given.len(), Unpack::Plain)?;
    d.prepared.first.push((grads, Values::Real(given)));
    let scalars = d.output("norm", 1, Unpack::Plain)?;
    let partials = d.real(windows * SCALAR_PARTIALS)?;
    d.push(SumSquares {
        scale: 1.0,
        width: 1,
        index: 0,
        window: WINDOW,
        x: grads,
        scalars,
        partials,
    });
    d.push(ClipGrads { max_norm: case.number("max_norm")?, width: 1, index: 0, scalars, grads });
    Ok(d.prepared)
}

/// Gradients that are sums over rows: (first element, number) of each.
const SUMS: [(usize, usize); 3] = [(64, 68), (192, 4), (256, 45)];
/// Rows of each sum. A GPU adds them in slices.
pub const SUM_ROWS: usize = 4200;

/// Records sums over rows as parts of `grads`, and a norm, so that a GPU can compute them together
/// with the update. The tensor `rows` has the rows of each step.
fn sums(
    d: &mut Direct,
    case: &Case,
    grads: View,
    writes: &mut [Vec<(View, Values)>],
) -> Result<()> {
    let values = case.input("rows")?.reals();
    let per_step = values.len() / writes.len();
    let mut at = 0;
    for (start, channels) in SUMS {
        let rows = SUM_ROWS;
        let x = d.real(rows * channels)?;
        for (step, writes) in writes.iter_mut().enumerate() {
            let from = step * per_step + at;
            writes.push((x, Values::Real(values[from..from + x.len].to_vec())));
        }
        at += x.len;
        let partials = d.real(ChannelSum::partials_len(rows, channels))?;
        let y = grads.part(start, channels);
        d.push(ChannelSum { rows, channels, x, weight: None, y, partials });
    }
    let norm = d.output("norm", 1, Unpack::Plain)?;
    let z = d.input(case.input("weight")?.reals())?;
    let partials = d.real(SCALAR_PARTIALS)?;
    d.push(L1Norm { lambda: 0.5, n: 2, width: 1, index: 0, z, scalars: norm, partials });
    Ok(())
}

/// Several steps of an optimiser.
pub(super) fn optimizer(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.check_attributes(&[
        "kind",
        "lr",
        "momentum",
        "nesterov",
        "betas",
        "eps",
        "weight_decay",
        "grad_scale",
        "sums",
    ])?;
    let start = case.input("weight")?.reals();
    let len = start.len();
    let all = case.input("grads")?.reals();
    if len == 0 || all.is_empty() || !all.len().is_multiple_of(len) {
        return Err(Error::usage(format!(
            "{}: {} gradients are not a multiple of {len} weights",
            case.id(),
            all.len()
        )));
    }
    let number = |key: &str, default: f64| case.attrs[key].as_f64().unwrap_or(default);
    let weights = d.input(start)?;
    let (m, v, grads) = (d.input(vec![0.0; len])?, d.input(vec![0.0; len])?, d.real(len)?);
    let kind = case.text("kind")?;
    // Stored cases have variants of SGD in the name.
    let name = if kind.starts_with("sgd") { "sgd" } else { kind };
    let kind = OptimizerName::named(name)
        .ok_or_else(|| Error::usage(format!("{}: optimiser {name:?} is unknown", case.id())))?;
    let beta = |i: usize| case.attrs["betas"][i].as_f64().unwrap_or([0.9, 0.999][i]);
    let optimizer = OptimizerSpec {
        kind,
        momentum: number("momentum", 0.0),
        nesterov: case.attrs["nesterov"].as_bool().unwrap_or(false),
        betas: [beta(0), beta(1)],
        eps: number("eps", 1e-8),
        weight_decay: number("weight_decay", 0.0),
        ..OptimizerSpec::default()
    };
    let grad_scale = number("grad_scale", 1.0);
    let mut first: Vec<Vec<(View, Values)>> = vec![Vec::new(); all.len() / len];
    if case.attrs["sums"] == true {
        sums(&mut d, case, grads, &mut first)?;
    }
    d.push(optimizer.update(Update { grad_scale, grads, weights, m, v }));
    d.prepared.steps = all
        .chunks_exact(len)
        .zip(first)
        .enumerate()
        .map(|(i, (grad, sums))| Step {
            writes: [vec![(grads, Values::Real(grad.to_vec()))], sums].concat(),
            params: StepParams {
                step: i as u32,
                lr: number("lr", 1e-3) as f32,
                correction1: (1.0 - beta(0).powi(i as i32 + 1)) as f32,
                correction2: (1.0 - beta(1).powi(i as i32 + 1)) as f32,
                ..StepParams::default()
            },
        })
        .collect();
    d.prepared.each.push(("trajectory".to_owned(), weights, Unpack::Plain));
    // Outputs are filled with NaN first; the initial weights are written after that.
    Ok(d.prepared)
}
