//! Training: sets up everything needed before the first step, then runs steps.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint::{self, Checkpoint};
use super::data::Prepared;
use super::feed::{self, Batches, Feed, Inputs};
use super::log::Log;
use super::memory::{self, Intended, MemoryPlan};
use super::plan;
use super::schedule::Schedule;
use super::step::{self, LabelLoss, Step, WIDTH};
use super::{together, whiten};

use crate::device::{Allocation, Device, Pending};
use crate::error::{Error, Result};
use crate::model::{Graph, Purpose, Store};
use crate::ranks::Group;
use crate::spec::Config;
use crate::view::StepParams;

/// A training run in progress.
#[derive(Debug)]
pub struct Trainer<'a> {
    pub(super) graph: &'a Graph,
    /// Parameters and optimiser state of the model.
    pub store: Store,
    /// Number of parameters and states copied from `train.from`, and their number in the model.
    pub copied: Option<[usize; 2]>,
    /// Memory that training takes.
    pub memory: MemoryPlan,
    /// Total number of steps.
    pub total: u64,
    /// Steps per epoch.
    pub steps_per_epoch: usize,
    /// Steps done.
    pub done: u64,
    pub(super) batches: Box<dyn Batches + 'a>,
    /// Learning rate schedule.
    pub schedule: Schedule,
    pub(super) program: Step,
    pub(super) inputs: Inputs,
    /// Logged terms of a step: name and index among its scalars.
    pub(super) terms: Vec<(&'static str, usize)>,
    /// Number of leading terms that belong to the loss and must be finite.
    pub(super) losses: usize,
    pub(super) encoder_lr: f64,
    pub(super) scalars: Allocation,
    pub(super) slots: u64,
    pub(super) log_every: u64,
    pub(super) batch: usize,
    /// Number of parts that a batch is split into.
    pub(super) parts: usize,
    /// The processes that share the training, if there are several.
    pub(super) ranks: Option<Arc<Group>>,
    /// The parts that this process computes.
    pub(super) own_parts: Range<usize>,
    /// Factor on gradients, with maps in half precision.
    pub(super) half: Option<f64>,
    pub(super) pending: Option<(u64, u64, Pending)>,
    pub(super) logged: u64,
    /// Number of steps done before this process started or resumed the run.
    pub(super) first: u64,
    /// Step of the last checkpoint.
    pub(super) saved: Option<u64>,
    /// Whether this process has run a step.
    begun: bool,
    /// Whether the progress of the first seconds was shown, or need not be.
    pub(super) shown: bool,
    pub(super) started: Instant,
    pub(super) interval: Instant,
    paused: Duration,
}

/// Parts that a [`Trainer`] is assembled from.
struct Layout {
    store: Store,
    copied: Option<[usize; 2]>,
    scalars: Allocation,
    half: Option<f64>,
    terms: Vec<(&'static str, usize)>,
    losses: usize,
    data: u64,
    total: u64,
    ranks: Option<Arc<Group>>,
    own_parts: Range<usize>,
}

fn purpose(config: &Config) -> Purpose {
    Purpose::Train { moments: config.optimizer.kind.moments(), parts: config.train.accumulate > 1 }
}

/// Initialises the parameters of a new run: at random, then with those of the model `from` that
/// match. Returns the number of matching parameters and the total.
fn begin(
    device: &mut Device,
    config: &Config,
    graph: &Graph,
    purpose: Purpose,
    from: Option<&str>,
) -> Result<(Store, Option<[usize; 2]>)> {
    let store = Store::new(device, graph, purpose)?;
    store.initialise(device, graph, config.seed);
    let copy = |from: &str| {
        let copied = super::load_model(Path::new(from))
            .and_then(|loaded| loaded.copy_matching(device, graph, &store));
        copied.map_err(|error| error.at("train.from"))
    };
    let copied = from.map(copy).transpose()?;
    Ok((store, copied))
}

/// Allocates the ring of scalars.
fn scalars(device: &mut Device, config: &Config, total: u64) -> Result<Allocation> {
    let slots = plan::slots(config.train.log_every.min(total)) as usize;
    device.alloc_real("scalars of steps", slots * config.train.accumulate * WIDTH)
}

/// Timing of a training run.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// Wall time of the steps without validations.
    pub seconds: f64,
    /// Images per second over all steps.
    pub images_per_s: f64,
    /// Seconds spent waiting for images that are read from files.
    pub waited: f64,
}

impl<'a> Trainer<'a> {
    /// Uploads the data, initialises the parameters and records the step.
    pub fn new(
        device: &mut Device,
        config: &Config,
        graph: &'a Graph,
        prepared: &Prepared,
    ) -> Result<Self> {
        let batch = config.train.batch;
        plan::check(config, graph)?;
        let (ranks, own_parts) = together::share(device, &config.train)?;
        device.takes(config.train.precision).map_err(|error| error.at("train.precision"))?;
        let purpose = purpose(config);
        let dims = graph.nodes[0].dims;
        let samples = feed::samples(&prepared.train, dims, &config.data, batch)?;
        let intended = Intended { config, graph, purpose, prepared, samples: &samples };
        let ahead = memory::check(device, &intended)?;
        let data = memory::data_bytes(&intended, ahead);
        let own = own_parts.clone();
        let feed = Feed::new(device, &prepared.train, samples, dims, config, (ahead, own))?;
        let steps_per_epoch = feed.steps_per_epoch;
        let total = Self::total_steps(config, steps_per_epoch);
        if total > u64::from(u32::MAX) {
            return Err(Error::usage(format!(
                "train: {total} steps are too many; set a smaller train.epochs or train.steps"
            )));
        }
        let from = config.train.from.as_deref();
        let (store, copied) = begin(device, config, graph, purpose, from)?;
        whiten::fit(device, graph, &store, &prepared.train, config)?;
        step::begin(device, graph, &store)?;
        let scalars = scalars(device, config, total)?;
        let spec =
            plan::reconstruction_step(device, config, graph, &store, feed.gathered(), *scalars)?;
        let terms = vec![
            ("reconstruction", step::RECONSTRUCTION),
            ("sparsity", step::SPARSITY),
            ("l0", step::L0),
        ];
        let half = spec.half;
        let recorded = step::record(device, &spec)?;
        let layout = Layout {
            store,
            copied,
            scalars,
            half,
            terms,
            losses: 2,
            data,
            total,
            ranks,
            own_parts,
        };
        Self::assemble(device, config, graph, Box::new(feed), recorded, layout)
    }

    /// Creates a trainer for labelled images. `data` is the size of the images in host memory, in
    /// bytes. With `initialise`, parameters are initialised from `train.from`, which a resumed run
    /// does not need.
    ///
    /// # Errors
    /// If training takes more memory than allowed, or the model has no head.
    pub fn labelled(
        device: &mut Device,
        config: &Config,
        graph: &'a Graph,
        loss: &dyn LabelLoss,
        batches: Box<dyn Batches + 'a>,
        data: u64,
        initialise: bool,
    ) -> Result<Self> {
        plan::check_batch(config, graph)?;
        let (ranks, own_parts) = together::share(device, &config.train)?;

        device.takes(config.train.precision).map_err(|error| error.at("train.precision"))?;
        let purpose = purpose(config);
        let total = Self::total_steps(config, batches.steps_per_epoch());
        let planned = {
            let store = Store::layout(graph, purpose);
            let spec = plan::labelled_step(device, config, graph, &store, loss, store.weights)?;
            memory::check_labelled(device, config, store.bytes(), data, step::planned_bytes(&spec)?)
        };
        planned?;
        let from = config.train.from.as_deref().filter(|_| initialise);
        let (store, copied) = begin(device, config, graph, purpose, from)?;
        step::begin(device, graph, &store)?;
        let scalars = scalars(device, config, total)?;
        let spec = plan::labelled_step(device, config, graph, &store, loss, *scalars)?;
        let half = spec.half;
        let terms: Vec<_> = loss.terms().iter().enumerate().map(|(i, name)| (*name, i)).collect();
        let losses = terms.len();
        let recorded = step::record(device, &spec)?;
        let layout =
            Layout { store, copied, scalars, half, terms, losses, data, total, ranks, own_parts };
        Self::assemble(device, config, graph, batches, recorded, layout)
    }

    fn assemble(
        device: &mut Device,
        config: &Config,
        graph: &'a Graph,
        batches: Box<dyn Batches + 'a>,
        recorded: step::Recorded,
        layout: Layout,
    ) -> Result<Self> {
        let Layout { store, copied, scalars, half, terms, losses, data, total, ranks, own_parts } =
            layout;
        let inputs = Inputs { x: recorded.x, labels: recorded.labels.clone() };
        let memory = MemoryPlan {
            parameters: store.bytes(),
            activations: recorded.memory.bytes,
            unshared: recorded.memory.unshared_bytes,
            data,
            validation: 0,
        };
        let program = recorded.compile(device)?;
        let now = Instant::now();
        let steps_per_epoch = batches.steps_per_epoch();
        let log_every = config.train.log_every.min(total);
        Ok(Self {
            graph,
            store,
            copied,
            memory,
            total,
            steps_per_epoch,
            done: 0,
            schedule: Schedule::new(config, steps_per_epoch, total)?,
            batches,
            program,
            inputs,
            terms,
            losses,
            encoder_lr: config.optimizer.encoder_lr,
            scalars,
            slots: plan::slots(log_every),
            log_every,
            batch: config.train.batch,
            parts: config.train.accumulate,
            ranks,
            own_parts,
            half,
            pending: None,
            logged: 0,
            first: 0,
            saved: None,
            begun: false,
            shown: false,
            started: now,
            interval: now,
            paused: Duration::ZERO,
        })
    }

    /// Returns the number of steps that a configuration asks for.
    pub fn total_steps(config: &Config, steps_per_epoch: usize) -> u64 {
        match config.train.steps {
            0 => (config.train.epochs * steps_per_epoch as f64).round().max(1.0) as u64,
            steps => steps,
        }
    }

    /// The model.
    pub fn graph(&self) -> &'a Graph {
        self.graph
    }

    /// Number of epochs done.
    pub fn epoch(&self) -> f64 {
        self.done as f64 / self.steps_per_epoch as f64
    }

    /// Number of dispatches of a step, 0 on the CPU path.
    pub fn dispatches(&self) -> usize {
        self.program.dispatches(self.parts)
    }

    /// Runs one step. Losses are checked once per logging interval, when they have arrived.
    pub fn step(&mut self, device: &mut Device, log: &mut Log) -> Result<()> {
        if !self.begun {
            self.begun = true;
            (self.started, self.interval) = (Instant::now(), Instant::now());
        }
        match self.ranks.clone() {
            Some(group) => self.step_together(device, &group)?,
            None => self.step_alone(device)?,
        }
        self.done += 1;
        if self.done.is_multiple_of(self.log_every) || self.done == self.total {
            self.flush_losses(device, log)?;
            self.pending = Some((self.logged, self.done, device.fetch(*self.scalars)?));
            self.logged = self.done;
        }
        if self.pending.as_ref().is_some_and(|(.., pending)| device.arrived(pending))
            || self.done == self.total
        {
            self.flush_losses(device, log)?;
        }
        self.show_early(device, log)
    }

    fn step_alone(&mut self, device: &mut Device) -> Result<()> {
        let mut params = self.schedule.params(self.done);
        if self.program.wholes.is_empty() {
            for part in 0..self.parts {
                params = self.params_of(part);
                self.batches.advance(device, &mut params, part, &self.inputs)?;
                self.program.run(device, part, self.parts, &params)?;
            }
        } else {
            let shares = self.shares(device, None)?.expect("there is no other process");
            for part in 0..self.parts {
                params = self.run_part(device, part, &shares)?;
                self.program.gather(device, part, &params)?;
            }
            self.program.run_update(device, &params)?;
        }
        params.lr = (self.schedule.lr(self.done) * self.encoder_lr) as f32;
        self.program.update_encoder(device, &params)
    }

    /// The parameters of a part of the next step.
    pub(super) fn params_of(&self, part: usize) -> StepParams {
        StepParams {
            slot: self.slot(part),
            first_sample: (part * self.batch / self.parts) as u32,
            ..self.schedule.params(self.done)
        }
    }

    /// The row of a part of the next step in the ring of scalars.
    pub(super) fn slot(&self, part: usize) -> u32 {
        ((self.done % self.slots) as usize * self.parts + part) as u32
    }

    /// Excludes time spent on other work, such as validation, from the timing.
    pub fn pause(&mut self, spent: Duration) {
        self.paused += spent;
        self.interval += spent;
    }

    /// Waits for the device and returns the timing.
    pub fn finish(&self, device: &mut Device) -> Result<Finished> {
        device.wait()?;
        let images = (self.done - self.first) * self.batch as u64;
        if images == 0 {
            return Ok(Finished { seconds: 0.0, images_per_s: 0.0, waited: 0.0 });
        }
        let seconds = self.started.elapsed().saturating_sub(self.paused).as_secs_f64().max(1e-9);
        Ok(Finished {
            seconds,
            images_per_s: images as f64 / seconds,
            waited: self.batches.waited().as_secs_f64(),
        })
    }

    /// Returns a checkpoint of the current state; the caller completes its header. Fails if a value
    /// is not finite, so that such a state is never written.
    pub fn capture(&mut self, device: &mut Device, log: &mut Log) -> Result<Checkpoint> {
        self.flush_losses(device, log)?;
        let ring = if self.logged < self.done { device.read(*self.scalars)? } else { Vec::new() };
        let mut losses = Vec::new();
        for step in self.logged..self.done {
            self.check(step, &ring)?;
            losses.extend_from_slice(self.rows(step, &ring));
        }
        let Store { weights, m, v, state, idle, .. } = self.store;
        let mut checkpoint = Checkpoint::default();
        for (i, view) in [weights, m, v, state, idle].into_iter().enumerate() {
            let values = device.read(view)?;
            if let Some(bad) = values.iter().position(|x| !x.is_finite()) {
                let name =
                    if i < 3 { self.store.owner(self.graph, bad) } else { "of the whole model" };
                let what = format!("{} {name} became {}", checkpoint::TENSORS[i], values[bad]);
                return Err(self.diverged(self.done.saturating_sub(1), &what));
            }
            checkpoint.tensors[i] = values;
        }
        checkpoint.tensors[checkpoint::LOSSES] = losses;
        let header = &mut checkpoint.header;
        (header.step, header.total, header.logged) = (self.done, self.total, self.logged);
        header.steps_per_epoch = self.steps_per_epoch as u64;
        Ok(checkpoint)
    }

    /// Resumes from a checkpoint of this run.
    pub fn restore(&mut self, device: &mut Device, checkpoint: &Checkpoint) -> Result<()> {
        let header = &checkpoint.header;
        let Store { weights, m, v, state, idle, .. } = self.store;
        let views = [weights, m, v, state, idle];
        let losses = &checkpoint.tensors[checkpoint::LOSSES];
        let unlogged = header.step.checked_sub(header.logged).filter(|steps| *steps <= self.slots);
        if views.iter().zip(&checkpoint.tensors).any(|(view, values)| view.len != values.len())
            || unlogged.is_none_or(|steps| steps as usize * self.parts * WIDTH != losses.len())
            || header.step > self.total
        {
            return Err(Error::usage("the checkpoint belongs to another model"));
        }
        for (view, values) in views.into_iter().zip(&checkpoint.tensors) {
            device.write(view, values);
        }
        let mut ring = vec![0.0; self.scalars.len];
        let width = self.parts * WIDTH;
        for (step, rows) in (header.logged..header.step).zip(losses.chunks_exact(width)) {
            ring[(step % self.slots) as usize * width..][..width].copy_from_slice(rows);
        }
        device.write(*self.scalars, &ring);
        (self.done, self.first, self.logged, self.saved) =
            (header.step, header.step, header.logged, Some(header.step));
        self.schedule.retried = header.retried;
        Ok(())
    }

    /// Rolls back to a checkpoint of this run and halves the learning rate that was in effect.
    ///
    /// # Errors
    /// As [`Trainer::restore`].
    pub fn roll_back(&mut self, device: &mut Device, checkpoint: &Checkpoint) -> Result<()> {
        let (first, retried, saved) =
            (self.first.min(checkpoint.header.step), self.schedule.retried, self.saved);
        // The pending losses belong to steps that will be run again.
        if let Some((.., pending)) = self.pending.take() {
            device.collect(pending)?;
        }
        self.restore(device, checkpoint)?;
        (self.first, self.schedule.retried, self.saved) = (first, retried + 1, saved);
        if self.leads_others() { self.send_state(device) } else { Ok(()) }
    }

    /// Records that a checkpoint holds the state after `step` steps.
    pub const fn saved(&mut self, step: u64) {
        self.saved = Some(step);
    }
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
