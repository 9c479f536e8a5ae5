//! What a training takes, and whether it may.

use super::prefetch::Prefetch;
use super::step::{self, Planned};
use super::trainer;
use crate::data::Pixels;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{Graph, Purpose, Store};
use crate::spec::Config;
use crate::tasks::infer::Inference;

/// What a training takes on its device, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MemoryPlan {
    /// Parameters, gradients and optimiser state.
    pub parameters: u64,
    /// Activations and scratch, laid over one another where lifetimes allow.
    pub activations: u64,
    /// The same without reuse.
    pub unshared: u64,
    /// The training set, where it is resident.
    pub data: u64,
    /// Activations of the validation's forward pass.
    pub validation: u64,
}

impl std::fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{:.1} MiB: parameters, gradients and moments {:.1}, activations {:.1} ({:.1} without reuse), data {:.1}, validation {:.1}",
            mib(self.parameters + self.activations + self.data + self.validation),
            mib(self.parameters),
            mib(self.activations),
            mib(self.unshared),
            mib(self.data),
            mib(self.validation)
        )
    }
}

/// What is allowed.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    /// Bytes of one binding.
    one: u64,
    /// Bytes of everything that a step needs of its own, where that is known.
    own: Option<u64>,
}

impl Allowed {
    fn holds(self, planned: Planned) -> bool {
        planned.largest <= self.one && self.own.is_none_or(|own| planned.total <= own)
    }
}

/// Fails, with the figures and what would fit, if the training cannot. Nothing has been made yet.
pub(super) fn check(device: &Device, config: &Config, graph: &Graph, purpose: Purpose, pixels: &Pixels) -> Result<()> {
    let store = Store::layout(graph, purpose);
    let mib = |bytes: u64| bytes >> 20;
    let one = device.max_elements() * 4;
    let all = 4 * store.weights.len as u64;
    if all > device.max_bytes() {
        return Err(Error::usage(format!(
            "the model's {} parameters take {} MiB, {} allows {} MiB in one buffer: use fewer filters or units",
            graph.parameter_count(),
            mib(all),
            device.label(),
            mib(device.max_bytes())
        )));
    }
    if let Some(param) = graph.params.iter().find(|param| 4 * param.len() as u64 > one) {
        return Err(Error::usage(format!(
            "{} of {:?} takes {} MiB, {} binds no more than {} MiB: use fewer filters or units",
            param.name,
            param.shape,
            mib(4 * param.len() as u64),
            device.label(),
            mib(one)
        )));
    }
    let threads = rayon::current_num_threads();
    let streamed = if matches!(pixels, Pixels::Streamed(_)) { Prefetch::most_bytes(graph.nodes[0].dims, threads) } else { 0 };
    // Validation's pass, of as many samples as it may look at at once.
    let validation = Inference::new(graph, &store).planned_bytes(device, usize::MAX);
    let fixed = store.bytes() + pixels.resident_bytes() + streamed + validation;
    let budget = device.budget();
    if let Some(budget) = budget.filter(|budget| *budget <= fixed) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        return Err(Error::usage(format!(
            "parameters {:.1} MiB, data {:.1}, images read ahead {:.1}, validation {:.1}: that leaves nothing of {:.1} MiB for a step; \
             use a smaller model, fewer --threads or a larger --max-memory",
            mib(store.bytes()),
            mib(pixels.resident_bytes()),
            mib(streamed),
            mib(validation),
            mib(budget)
        )));
    }
    let allowed = Allowed { one, own: budget.map(|budget| budget.saturating_sub(fixed)) };
    let needs = |n: usize| {
        let spec = trainer::spec(device, config, graph, &store, None, store.weights)?;
        step::planned_bytes(&step::StepSpec { n, ..spec })
    };
    let (batch, parts) = (config.train.batch, config.train.accumulate);
    let planned = needs(batch / parts)?;
    if allowed.holds(planned) {
        return Ok(());
    }
    // By halves, which assumes that a larger batch never needs less.
    let (mut fitting, mut beyond) = (0, batch / parts);
    while beyond - fitting > 1 {
        let between = fitting.midpoint(beyond);
        if allowed.holds(needs(between)?) { fitting = between } else { beyond = between }
    }
    let advice = advice(batch, parts, fitting);
    Err(Error::usage(if planned.largest > one {
        format!(
            "train.batch = {batch}: one buffer would take {} MiB, {} allows {} MiB; {advice}",
            mib(planned.largest),
            device.label(),
            mib(one)
        )
    } else {
        format!(
            "train.batch = {batch}: parameters, data and validation take {:.1} MiB and the step {:.1} MiB, of {:.1} MiB that it may take; {advice}",
            fixed as f64 / f64::from(1 << 20),
            planned.total as f64 / f64::from(1 << 20),
            budget.unwrap_or(0) as f64 / f64::from(1 << 20)
        )
    }))
}

/// What would fit, where so many samples at once do.
fn advice(batch: usize, parts: usize, fitting: usize) -> String {
    if fitting == 0 {
        return "not even one sample would fit: use a smaller model".to_owned();
    }
    let more = (parts + 1..=batch).find(|parts| batch.is_multiple_of(*parts) && batch / parts <= fitting);
    let accumulate = more.map_or(String::new(), |parts| format!(", or this one by --accumulate {parts}"));
    format!("a batch of {} would fit{accumulate}", fitting * parts)
}
