//! Memory that training needs, and the check against the memory that it may use.

use super::compressed;
use super::data::Prepared;
use super::feed;
use super::order::Samples;
use super::plan;
use super::prefetch::Ahead;
use super::step::{self, Planned};
use crate::advice::Advice;
use crate::data::{Patch, Pixels};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::Inference;
use crate::infer::whole_images;
use crate::model::{Graph, Purpose, Store};
use crate::spec::Config;

/// Memory that training takes on the device and the host, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MemoryPlan {
    /// Parameters, gradients and optimiser state.
    pub parameters: u64,
    /// Activations and scratch buffers, with buffers reused where lifetimes allow.
    pub activations: u64,
    /// As `activations`, without reuse.
    pub unshared: u64,
    /// The training set if it is in memory, the lists of images and samples, and images read ahead.
    pub data: u64,
    /// Validation images, and the activations of a forward pass.
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

/// Memory limits.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    /// Maximum number of bytes of one binding.
    one: u64,
    /// Maximum number of bytes of a step's own buffers, if a limit is known.
    own: Option<u64>,
}

impl Allowed {
    fn holds(self, planned: Planned) -> bool {
        planned.largest <= self.one && self.own.is_none_or(|own| planned.total <= own)
    }
}

/// A planned training run; nothing is allocated yet.
#[derive(Debug)]
pub(super) struct Intended<'a> {
    pub config: &'a Config,
    pub graph: &'a Graph,
    pub purpose: Purpose,
    pub prepared: &'a Prepared,
    pub samples: &'a Samples,
}

/// Bytes that do not depend on the batch size.
#[derive(Clone, Copy, Debug)]
struct Fixed {
    parameters: u64,
    /// Images, and lists that grow with their number.
    data: u64,
    /// Validation images, and the larger of a forward pass over a batch of them and of a
    /// checkpoint: neither is in memory during a step.
    validation: u64,
    /// Losses that are not logged yet.
    losses: u64,
}

impl Fixed {
    fn of(device: &Device, of: &Intended, store: &Store) -> Self {
        let Intended { config, graph, prepared, samples, .. } = *of;
        let on_the_device = match &prepared.train {
            Pixels::Resident(images) => {
                feed::gathered_bytes(images) + compressed::bytes(images, &config.corruption)
            }
            Pixels::Streamed(_) => 0,
        };
        let dims = graph.nodes[0].dims;
        let patches: usize =
            prepared.validation.sizes().map(|size| (size.h / dims.h) * (size.w / dims.w)).sum();
        let wanted = if config.data.validation_patches == 0 {
            patches
        } else {
            config.data.validation_patches
        };
        let chosen = (patches.min(wanted) * size_of::<Patch>()) as u64;
        // Plans for the largest batch that inference would use.
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
            validation: prepared.validation.held_bytes()
                + chosen
                + pass.max(checkpoint_bytes(store)),
            losses: (4 * step::WIDTH as u64 * plan::slots(config.train.log_every))
                .saturating_mul(config.train.accumulate as u64),
        }
    }

    const fn all(self) -> u64 {
        (self.parameters + self.data + self.validation).saturating_add(self.losses)
    }
}

/// Bytes of a checkpoint in the host's memory.
const fn checkpoint_bytes(store: &Store) -> u64 {
    let Store { weights, m, v, state, idle, .. } = store;
    4 * (weights.len + m.len + v.len + state.len + idle.len) as u64
}

/// Returns how far ahead images are read if they are streamed, so that training fits into memory.
/// Nothing is allocated yet.
///
/// # Errors
/// If training cannot fit; the message has the numbers and a batch that would fit.
pub(super) fn check(device: &Device, of: &Intended) -> Result<Ahead> {
    let Intended { config, graph, purpose, prepared, samples } = *of;
    let store = Store::layout(graph, purpose);
    let mib = |bytes: u64| bytes >> 20;
    let one = device.max_elements() * 4;
    let all = 4 * store.weights.len as u64;
    if all > device.max_bytes() {
        return Err(Error::usage(format!(
            "the model's {} parameters take {} MiB, but one buffer on {} is limited to {} MiB; \
             use fewer filters or units",
            graph.parameter_count(),
            mib(all),
            device.label(),
            mib(device.max_bytes())
        )));
    }
    if let Some(param) = graph.params.iter().find(|param| 4 * param.len() as u64 > one) {
        return Err(Error::usage(format!(
            "{} of {:?} takes {} MiB, but one binding on {} is limited to {} MiB; use fewer \
             filters or units",
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
    let min_ahead = streamed.map_or(0, |catalogue| Ahead::MIN.bytes(samples, catalogue, dims));
    let fixed = Fixed::of(device, of, &store);
    // The budget must not count images that are already in memory.
    let budget = device.budget_with(prepared.train.held_bytes() + prepared.validation.held_bytes());
    if let Some(budget) = budget.filter(|budget| *budget <= fixed.all().saturating_add(min_ahead)) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        return Err(Error::usage(format!(
            "parameters {:.1} MiB, data {:.1}, images read ahead {:.1}, validation {:.1}, \
             losses to be logged {:.1}: nothing of {:.1} MiB is left for a step; use a smaller \
             model or a lower data.validation_patches, or {}",
            mib(fixed.parameters),
            mib(fixed.data),
            mib(min_ahead),
            mib(fixed.validation),
            mib(fixed.losses),
            mib(budget),
            device.memory_advice()
        )));
    }
    let allowed = Allowed { one, own: budget.map(|budget| budget - fixed.all() - min_ahead) };
    let (batch, parts) = (config.train.batch, config.train.accumulate);
    let needs = |n: usize| {
        let spec =
            plan::reconstruction_step(device, config, graph, &store, (None, None), store.weights)?;
        let mut planned = step::planned_bytes(&step::StepSpec { n, ..spec })?;
        let host = streamed.map_or(0, |catalogue| {
            let batch = [n.saturating_mul(parts), parts];
            feed::batch_bytes(dims, catalogue.encoding.sample, batch)
        });
        planned.total = planned
            .total
            .saturating_add(host)
            .saturating_add(samples.order_bytes(n.saturating_mul(parts)));
        Ok::<Planned, Error>(planned)
    };
    let planned = needs(batch / parts)?;
    if allowed.holds(planned) {
        let room = budget.map_or(u64::MAX, |budget| budget - fixed.all() - planned.total);
        return Ok(streamed.map_or(Ahead::MIN, |catalogue| {
            Ahead::within(room, threads, samples, catalogue, dims)
        }));
    }
    // Binary search; a larger batch never needs less memory.
    let max_samples = |allowed: &Allowed| -> Result<usize> {
        let (mut fitting, mut beyond) = (0, batch / parts);
        while beyond - fitting > 1 {
            let between = fitting.midpoint(beyond);
            if allowed.holds(needs(between)?) { fitting = between } else { beyond = between }
        }
        Ok(fitting)
    };
    let fitting = max_samples(&allowed)?;
    // With accumulation, the sum of the gradients is stored too.
    let summed = match purpose {
        Purpose::Train { moments, parts: false } => {
            Store::layout(graph, Purpose::Train { moments, parts: true })
                .bytes()
                .saturating_sub(store.bytes())
        }
        _ => 0,
    };
    let in_parts = if plan::has_whole_batch(config, graph) {
        0
    } else {
        max_samples(&Allowed { one, own: allowed.own.map(|own| own.saturating_sub(summed)) })?
    };
    let advice = advice(batch, parts, fitting, in_parts);
    Err(Error::usage(if planned.largest > one {
        format!(
            "train.batch = {batch}: one buffer would take {} MiB, but {} allows {} MiB; {advice}",
            mib(planned.largest),
            device.label(),
            mib(one)
        )
    } else {
        format!(
            "train.batch = {batch}: parameters, data and validation take {:.1} MiB and a step \
             {:.1} MiB, but the limit is {:.1} MiB; {advice}",
            (fixed.all() + min_ahead) as f64 / f64::from(1 << 20),
            planned.total as f64 / f64::from(1 << 20),
            budget.unwrap_or(0) as f64 / f64::from(1 << 20)
        )
    }))
}

/// Bytes of the data: images and lists, images read ahead, and the batch being transferred.
pub(super) fn data_bytes(of: &Intended, ahead: Ahead) -> u64 {
    let Intended { config, graph, prepared, samples, .. } = *of;
    let (dims, batch) = (graph.nodes[0].dims, [config.train.batch, config.train.accumulate]);
    let lists = prepared.train.held_bytes() + samples.bytes() + samples.order_bytes(batch[0]);
    lists
        + match &prepared.train {
            Pixels::Resident(images) => feed::gathered_bytes(images),
            Pixels::Streamed(catalogue) => {
                let sample = catalogue.encoding.sample;
                ahead.bytes(samples, catalogue, dims) + feed::batch_bytes(dims, sample, batch)
            }
        }
}

/// Suggests a batch size or number of parts: `fitting` samples fit at once, `in_parts` with
/// accumulation.
fn advice(batch: usize, parts: usize, fitting: usize, in_parts: usize) -> String {
    if fitting == 0 {
        return "not even one sample would fit: use a smaller model".to_owned();
    }
    // The smallest number of equal parts that fit. The search is bounded, because `batch` can be
    // absurdly large.
    let min_parts = batch.div_ceil(in_parts.max(1)).max(parts + 1);
    let more = (min_parts..=batch)
        .take(if in_parts == 0 { 0 } else { 1 << 20 })
        .find(|parts| batch.is_multiple_of(*parts));
    let accumulate =
        more.map_or(String::new(), |parts| format!(", or {} {parts}", Advice::Accumulate));
    format!("a batch of {} would fit{accumulate}", fitting * parts)
}

/// Fails if training on labels takes more memory than allowed: parameters with gradients and
/// moments, `data` bytes of images, and a step.
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
        "train.batch = {}: parameters {:.2} MiB, data {:.2} and a step {:.2} exceed the limit \
         of {:.2} MiB; {} or smaller images, or {}",
        config.train.batch,
        mib(parameters),
        mib(data),
        mib(step.total),
        mib(budget),
        Advice::SmallerBatch,
        device.memory_advice()
    )))
}
