//! What a training takes, and whether it may.

use super::data::Prepared;
use super::feed;
use super::order::Samples;
use super::prefetch::Ahead;
use super::step::{self, Planned};
use super::trainer;
use crate::data::{Patch, Pixels};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::Inference;
use crate::infer::whole_images;
use crate::model::{Graph, Purpose, Store};
use crate::spec::Config;

/// What a training takes, on its device and in the host's memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MemoryPlan {
    /// Parameters, gradients and optimiser state.
    pub parameters: u64,
    /// Activations and scratch, laid over one another where lifetimes allow.
    pub activations: u64,
    /// The same without reuse.
    pub unshared: u64,
    /// The training set where it is in memory, lists of its images and samples, and what is read
    /// ahead.
    pub data: u64,
    /// Images to validate on, and the activations of a forward pass.
    pub validation: u64,
}

impl std::fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{:.1} MiB: parameters, gradients and moments {:.1}, activations {:.1} ({:.1} without \
             reuse), data {:.1}, validation {:.1}",
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

/// A training before anything of it has been made.
#[derive(Debug)]
pub(super) struct Intended<'a> {
    pub config: &'a Config,
    pub graph: &'a Graph,
    pub purpose: Purpose,
    pub prepared: &'a Prepared,
    pub samples: &'a Samples,
}

/// Bytes that do not depend on the batch.
#[derive(Clone, Copy, Debug)]
struct Fixed {
    parameters: u64,
    /// Images, and lists that grow with their number.
    data: u64,
    /// Images to validate on, and the pass over a batch of them.
    validation: u64,
    /// The losses that are not logged yet.
    losses: u64,
}

impl Fixed {
    fn of(device: &Device, of: &Intended, store: &Store) -> Self {
        let Intended { config, graph, prepared, samples, .. } = *of;
        let on_the_device = match &prepared.train {
            Pixels::Resident(images) => feed::gathered_bytes(images),
            Pixels::Streamed(_) => 0,
        };
        let dims = graph.nodes[0].dims;
        let patches: usize =
            prepared.validation.table.iter().map(|e| (e.h / dims.h) * (e.w / dims.w)).sum();
        let wanted = if config.data.validation_patches == 0 {
            patches
        } else {
            config.data.validation_patches
        };
        let chosen = (patches.min(wanted) * size_of::<Patch>()) as u64;
        // A pass over as many samples as it may look at at once.
        let mut pass = Inference::new(graph, store).planned_bytes(device, usize::MAX);
        if let Some(restorer) =
            whole_images::validation_restorer(config, graph, store, &prepared.validation)
        {
            pass +=
                whole_images::planned_bytes(device, &restorer, &prepared.validation).unwrap_or(0);
        }
        Self {
            parameters: store.bytes(),
            data: prepared.train.held_bytes() + on_the_device + samples.bytes(),
            validation: prepared.validation.held_bytes() + chosen + pass,
            losses: (4 * step::WIDTH as u64 * trainer::slots(config.train.log_every))
                .saturating_mul(config.train.accumulate as u64),
        }
    }

    const fn all(self) -> u64 {
        (self.parameters + self.data + self.validation).saturating_add(self.losses)
    }
}

/// How far ahead images may be read, where they are streamed, so that the training fits. Fails,
/// with the figures and what would fit, if it cannot. Nothing has been made yet.
pub(super) fn check(device: &Device, of: &Intended) -> Result<Ahead> {
    let Intended { config, graph, purpose, prepared, samples } = *of;
    let store = Store::layout(graph, purpose);
    let mib = |bytes: u64| bytes >> 20;
    let one = device.max_elements() * 4;
    let all = 4 * store.weights.len as u64;
    if all > device.max_bytes() {
        return Err(Error::usage(format!(
            "the model's {} parameters take {} MiB, {} allows {} MiB in one buffer: use fewer \
             filters or units",
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
    let (dims, threads) = (graph.nodes[0].dims, rayon::current_num_threads());
    let streamed =
        if let Pixels::Streamed(catalogue) = &prepared.train { Some(catalogue) } else { None };
    let least = streamed.map_or(0, |catalogue| Ahead::LEAST.bytes(samples, catalogue, dims));
    let fixed = Fixed::of(device, of, &store);
    // The images that are in memory are no longer free.
    let budget = device.budget_with(prepared.train.held_bytes() + prepared.validation.held_bytes());
    if let Some(budget) = budget.filter(|budget| *budget <= fixed.all().saturating_add(least)) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        return Err(Error::usage(format!(
            "parameters {:.1} MiB, data {:.1}, images read ahead {:.1}, validation {:.1}, losses to be logged {:.1}: that leaves nothing of {:.1} MiB for a step; \
             use a smaller model, a lower data.validation_patches or a larger --max-memory",
            mib(fixed.parameters),
            mib(fixed.data),
            mib(least),
            mib(fixed.validation),
            mib(fixed.losses),
            mib(budget)
        )));
    }
    let allowed = Allowed { one, own: budget.map(|budget| budget - fixed.all() - least) };
    let (batch, parts) = (config.train.batch, config.train.accumulate);
    let needs = |n: usize| {
        let spec = trainer::spec(device, config, graph, &store, None, store.weights)?;
        let mut planned = step::planned_bytes(&step::StepSpec { n, ..spec })?;
        let host =
            streamed.map_or(0, |_| feed::batch_bytes(dims, [n.saturating_mul(parts), parts]));
        planned.total = planned
            .total
            .saturating_add(host)
            .saturating_add(samples.order_bytes(n.saturating_mul(parts)));
        Ok::<Planned, Error>(planned)
    };
    let planned = needs(batch / parts)?;
    if allowed.holds(planned) {
        let room = budget.map_or(u64::MAX, |budget| budget - fixed.all() - planned.total);
        return Ok(streamed.map_or(Ahead::LEAST, |catalogue| {
            Ahead::within(room, threads, samples, catalogue, dims)
        }));
    }
    // By halves, which assumes that a larger batch never needs less.
    let most = |allowed: &Allowed| -> Result<usize> {
        let (mut fitting, mut beyond) = (0, batch / parts);
        while beyond - fitting > 1 {
            let between = fitting.midpoint(beyond);
            if allowed.holds(needs(between)?) { fitting = between } else { beyond = between }
        }
        Ok(fitting)
    };
    let fitting = most(&allowed)?;
    // In parts the gradients' sum is kept as well.
    let summed = match purpose {
        Purpose::Train { moments, parts: false } => {
            Store::layout(graph, Purpose::Train { moments, parts: true })
                .bytes()
                .saturating_sub(store.bytes())
        }
        _ => 0,
    };
    let in_parts = most(&Allowed { one, own: allowed.own.map(|own| own.saturating_sub(summed)) })?;
    let advice = advice(batch, parts, fitting, in_parts);
    Err(Error::usage(if planned.largest > one {
        format!(
            "train.batch = {batch}: one buffer would take {} MiB, {} allows {} MiB; {advice}",
            mib(planned.largest),
            device.label(),
            mib(one)
        )
    } else {
        format!(
            "train.batch = {batch}: parameters, data and validation take {:.1} MiB and the step \
             {:.1} MiB, of {:.1} MiB that it may take; {advice}",
            (fixed.all() + least) as f64 / f64::from(1 << 20),
            planned.total as f64 / f64::from(1 << 20),
            budget.unwrap_or(0) as f64 / f64::from(1 << 20)
        )
    }))
}

/// What a training takes beside its parameters and activations: images and lists, what is read
/// ahead, and a batch on its way.
pub(super) fn data_bytes(of: &Intended, ahead: Ahead) -> u64 {
    let Intended { config, graph, prepared, samples, .. } = *of;
    let (dims, batch) = (graph.nodes[0].dims, [config.train.batch, config.train.accumulate]);
    let lists = prepared.train.held_bytes() + samples.bytes() + samples.order_bytes(batch[0]);
    lists
        + match &prepared.train {
            Pixels::Resident(images) => feed::gathered_bytes(images),
            Pixels::Streamed(catalogue) => {
                ahead.bytes(samples, catalogue, dims) + feed::batch_bytes(dims, batch)
            }
        }
}

/// What would fit, where so many samples at once do.
fn advice(batch: usize, parts: usize, fitting: usize, in_parts: usize) -> String {
    if fitting == 0 {
        return "not even one sample would fit: use a smaller model".to_owned();
    }
    // The least number of equal parts that fit; a batch that no memory holds is not searched to its
    // end.
    let least = batch.div_ceil(in_parts.max(1)).max(parts + 1);
    let more = (least..=batch)
        .take(if in_parts == 0 { 0 } else { 1 << 20 })
        .find(|parts| batch.is_multiple_of(*parts));
    let accumulate =
        more.map_or(String::new(), |parts| format!(", or this one by --accumulate {parts}"));
    format!("a batch of {} would fit{accumulate}", fitting * parts)
}

/// Fails, with the numbers, if a training on labels takes more than is allowed: `parameters` and
/// their gradients and moments, `data` of images, and a step.
pub(super) fn check_labelled(
    device: &Device,
    config: &Config,
    parameters: u64,
    data: u64,
    step: Planned,
) -> Result<()> {
    let needed = parameters + data + step.total;
    let Some(budget) = device.budget_with(parameters + data).filter(|budget| needed > *budget)
    else {
        return Ok(());
    };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Err(Error::usage(format!(
        "train.batch = {}: parameters {:.2} MiB, data {:.2} and a step {:.2} are more than the \
         {:.2} MiB that may be used; use a smaller batch or smaller images, or raise --max-memory",
        config.train.batch,
        mib(parameters),
        mib(data),
        mib(step.total),
        mib(budget)
    )))
}
