//! A training: everything made before the first step, then steps.

use std::path::Path;
use std::time::{Duration, Instant};

use super::checkpoint::{self, Checkpoint};
use super::data::Prepared;
use super::feed::{self, Feed};
use super::log::{Log, Progress};
use super::memory::{self, Intended, MemoryPlan};
use super::schedule::Schedule;
use super::step::{self, Resident, Step, StepSpec, WIDTH};
use super::whiten;
use crate::device::{Device, Pending};
use crate::error::{Error, Kind, Result};
use crate::model::{self, Graph, ParamRole, Purpose, Store};
use crate::spec::{Config, LayerOp, Precision, TrainSpec};
use crate::view::View;

/// A training under way.
#[derive(Debug)]
pub struct Trainer<'a> {
    graph: &'a Graph,
    /// The model's values.
    pub store: Store,
    /// Parameters and states that another model lent, of how many.
    pub lent: Option<[usize; 2]>,
    /// What it takes.
    pub memory: MemoryPlan,
    /// Steps in all.
    pub total: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: usize,
    /// Steps done.
    pub done: u64,
    feed: Feed,
    /// The rates.
    pub schedule: Schedule,
    program: Step,
    x: View,
    scalars: View,
    slots: u64,
    log_every: u64,
    batch: usize,
    /// Parts that a batch is taken in.
    parts: usize,
    /// What gradients are multiplied by, where maps are in half precision.
    half: Option<f64>,
    pending: Option<(u64, u64, Pending)>,
    logged: u64,
    /// Steps done when this process took over.
    first: u64,
    /// Step of the last checkpoint.
    saved: Option<u64>,
    /// Whether a step was done by this process.
    begun: bool,
    started: Instant,
    interval: Instant,
    paused: Duration,
}

/// The step that a configuration means.
pub(super) fn spec<'s>(
    device: &Device,
    config: &'s Config,
    graph: &'s Graph,
    store: &'s Store,
    resident: Option<Resident>,
    scalars: View,
) -> Result<StepSpec<'s>> {
    let (n, loss) = (config.train.batch / config.train.accumulate, config.loss.resolve()?);
    let half = match config.train {
        TrainSpec { precision: Precision::F32, .. } => None,
        TrainSpec { loss_scale, .. } if loss_scale > 0.0 => Some(loss_scale),
        // The sum's gradient, not the mean's.
        _ => Some(loss.divisor(n, n * graph.nodes[graph.output].dims.len()) as f64),
    };
    Ok(StepSpec {
        graph,
        store,
        n,
        parts: config.train.accumulate,
        corruption: &config.corruption,
        loss,
        half,
        sparsity: &config.sparsity,
        optimizer: &config.optimizer,
        resident,
        scalars,
        count_code: true,
        binding: device.max_elements(),
    })
}

/// Steps whose losses are kept, where so many lie between lines of the log.
pub(super) fn slots(log_every: u64) -> u64 {
    (2 * log_every).next_power_of_two().max(64)
}

/// Fails if samples cannot be turned or shrunk by the scales, or if the batch is to be taken in
/// parts, and something looks at the whole of it.
fn check(config: &Config, graph: &Graph) -> Result<()> {
    let dims = graph.nodes[0].dims;
    if config.data.turn && dims.h != dims.w {
        return Err(Error::usage(format!(
            "data.turn: samples of {}x{} are no squares; turn it off, or fix model.input",
            dims.w, dims.h
        )));
    }
    if let Some(scale) =
        config.corruption.scales.iter().find(|scale| dims.h % *scale + dims.w % *scale > 0)
    {
        return Err(Error::usage(format!(
            "corruption.scales: samples of {}x{} cannot be shrunk by {scale}; set data.crop to a multiple of all scales",
            dims.w, dims.h
        )));
    }
    let (batch, parts) = (config.train.batch, config.train.accumulate);
    if u32::try_from(batch).is_err() {
        return Err(Error::usage(format!(
            "train.batch = {batch}: a step cannot number more than {} samples",
            u32::MAX
        )));
    }
    if !batch.is_multiple_of(parts) {
        return Err(Error::usage(format!(
            "train.accumulate = {parts}: a batch of {batch} cannot be taken in so many equal parts; {} would do for a batch",
            batch.next_multiple_of(parts)
        )));
    }
    if graph.params.iter().all(|param| param.role != ParamRole::Learned) {
        return Err(Error::usage(
            "model: every layer is frozen or has no parameters: there is nothing to learn",
        ));
    }
    if graph.target > 0 && !config.corruption.is_none() {
        return Err(Error::usage(
            "model.target: a model that undoes a corruption is to be like the clean input; leave one of the two out",
        ));
    }
    let whole = |op: &LayerOp| matches!(op, LayerOp::BatchTopK(_) | LayerOp::LifetimeWta(_));
    let layer = graph
        .nodes
        .iter()
        .find(|node| node.op.as_ref().is_some_and(whole))
        .map(|node| format!("layer {}", node.name));
    let penalty = (config.sparsity.penalty == "kl" && config.sparsity.beta > 0.0)
        .then(|| "the KL penalty".to_owned());
    match layer.or(penalty) {
        Some(what) if parts > 1 => Err(Error::usage(format!(
            "train.accumulate = {parts}: {what} looks at the whole batch, which then must be taken at once"
        ))),
        _ => Ok(()),
    }
}

/// How a training went.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// Wall time of the steps, validations left out.
    pub seconds: f64,
    /// Images a second over all steps.
    pub images_per_s: f64,
    /// The part of the wall time that was spent waiting for images that are read from files.
    pub waited: f64,
}

impl<'a> Trainer<'a> {
    /// Lays out data and model, draws the first weights, records the step.
    pub fn new(
        device: &mut Device,
        config: &Config,
        graph: &'a Graph,
        prepared: &Prepared,
    ) -> Result<Self> {
        let batch = config.train.batch;
        let parts = config.train.accumulate;
        check(config, graph)?;
        device.takes(config.train.precision).map_err(|error| error.at("train.precision"))?;
        let purpose = Purpose::Train {
            moments: if config.optimizer.kind == "sgd" { 1 } else { 2 },
            parts: parts > 1,
        };
        let dims = graph.nodes[0].dims;
        let samples = feed::samples(&prepared.train, dims, &config.data, batch)?;
        let intended = Intended { config, graph, purpose, prepared, samples: &samples };
        let ahead = memory::check(device, &intended)?;
        let data = memory::data_bytes(&intended, ahead);
        let feed = Feed::new(device, &prepared.train, samples, dims, config, ahead)?;
        let steps_per_epoch = feed.steps_per_epoch;
        let total = Self::total_steps(config, steps_per_epoch);
        if total > u64::from(u32::MAX) {
            return Err(Error::usage(format!(
                "train: {total} steps are more than a run can number"
            )));
        }
        let store = Store::new(device, graph, purpose)?;
        store.initialise(device, graph, config.seed);
        let lend = |from: &String| {
            let lent = model::load(Path::new(from))
                .and_then(|loaded| loaded.copy_matching(device, graph, &store));
            lent.map_err(|error| error.at("train.from"))
        };
        let lent = config.train.from.as_ref().map(lend).transpose()?;
        whiten::fit(device, graph, &store, &prepared.train, config)?;
        step::begin(device, graph, &store)?;
        let log_every = config.train.log_every.min(total);
        let slots = slots(log_every);
        let scalars = device.alloc_real("scalars of steps", slots as usize * parts * WIDTH)?;
        let spec = spec(device, config, graph, &store, feed.resident(), scalars)?;
        let half = spec.half;
        let recorded = step::record(device, &spec)?;
        let x = recorded.x;
        let memory = MemoryPlan {
            parameters: store.bytes(),
            activations: recorded.memory.bytes,
            unshared: recorded.memory.unshared_bytes,
            data,
            validation: 0,
        };
        let program = recorded.compile(device)?;
        let now = Instant::now();
        Ok(Self {
            graph,
            store,
            lent,
            memory,
            total,
            steps_per_epoch,
            done: 0,
            schedule: Schedule::new(config, steps_per_epoch, total)?,
            feed,
            program,
            x,
            scalars,
            slots,
            log_every,
            batch,
            parts,
            half,
            pending: None,
            logged: 0,
            first: 0,
            saved: None,
            begun: false,
            started: now,
            interval: now,
            paused: Duration::ZERO,
        })
    }

    /// Steps that a configuration asks for.
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

    /// Passes over the data so far.
    pub fn epoch(&self) -> f64 {
        self.done as f64 / self.steps_per_epoch as f64
    }

    /// Number of dispatches of a step, 0 on the CPU path.
    pub fn dispatches(&self) -> usize {
        self.program.dispatches(self.parts)
    }

    /// One step. Losses are looked at when they have arrived, every logging interval.
    pub fn step(&mut self, device: &mut Device, log: &mut Log) -> Result<()> {
        if !self.begun {
            self.begun = true;
            (self.started, self.interval) = (Instant::now(), Instant::now());
        }
        let mut params = self.schedule.params(self.done);
        for part in 0..self.parts {
            params.slot = ((self.done % self.slots) as usize * self.parts + part) as u32;
            params.first_sample = (part * self.batch / self.parts) as u32;
            self.feed.advance(device, &mut params, part, self.x)?;
            self.program.run(device, part, self.parts, &params)?;
        }
        self.done += 1;
        if self.done.is_multiple_of(self.log_every) || self.done == self.total {
            self.settle(device, log)?;
            self.pending = Some((self.logged, self.done, device.fetch(self.scalars)?));
            self.logged = self.done;
        }
        if self.pending.as_ref().is_some_and(|(.., pending)| device.arrived(pending))
            || self.done == self.total
        {
            self.settle(device, log)?;
        }
        Ok(())
    }

    /// Time spent on something else than training (validation) does not count.
    pub fn pause(&mut self, spent: Duration) {
        self.paused += spent;
        self.interval += spent;
    }

    /// Ends the timing.
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
            waited: self.feed.waited.as_secs_f64(),
        })
    }

    /// Everything that goes into a checkpoint but its header's constants. What is not finite is an
    /// error: such a state is never written.
    pub fn capture(&mut self, device: &mut Device, log: &mut Log) -> Result<Checkpoint> {
        self.settle(device, log)?;
        let ring = if self.logged < self.done { device.read(self.scalars)? } else { Vec::new() };
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

    /// Goes on from a checkpoint of this run.
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
            return Err(Error::usage("the checkpoint is of another model"));
        }
        for (view, values) in views.into_iter().zip(&checkpoint.tensors) {
            device.write(view, values);
        }
        let mut ring = vec![0.0; self.scalars.len];
        let width = self.parts * WIDTH;
        for (step, rows) in (header.logged..header.step).zip(losses.chunks_exact(width)) {
            ring[(step % self.slots) as usize * width..][..width].copy_from_slice(rows);
        }
        device.write(self.scalars, &ring);
        (self.done, self.first, self.logged, self.saved) =
            (header.step, header.step, header.logged, Some(header.step));
        self.schedule.retried = header.retried;
        Ok(())
    }

    /// Goes back to a checkpoint of this process or an earlier one, and from there on with half the
    /// rate that there was.
    ///
    /// # Errors
    /// As [`Trainer::restore`].
    pub fn go_back(&mut self, device: &mut Device, checkpoint: &Checkpoint) -> Result<()> {
        let (first, retried, saved) =
            (self.first.min(checkpoint.header.step), self.schedule.retried, self.saved);
        // Losses that were on their way are those of steps that are done again.
        if let Some((.., pending)) = self.pending.take() {
            device.collect(pending)?;
        }
        self.restore(device, checkpoint)?;
        (self.first, self.schedule.retried, self.saved) = (first, retried + 1, saved);
        Ok(())
    }

    /// Notes that the state after so many steps lies in a checkpoint.
    pub const fn saved(&mut self, step: u64) {
        self.saved = Some(step);
    }

    fn diverged(&self, step: u64, what: &str) -> Error {
        let kept = self
            .saved
            .map_or(String::new(), |step| format!("; the checkpoint after {step} steps is kept"));
        let lr = self.schedule.params(step).lr;
        let scale = self.half.map_or(String::new(), |scale| {
            format!(", or a smaller train.loss_scale (now {scale})")
        });
        let error = Error::failed(format!(
            "step {step}: the {what}; lower optimizer.lr (now {lr:e}) or set optimizer.clip_norm{scale}{kept}"
        ));
        error.of(Kind::Diverged)
    }

    /// A step's rows in the ring, one for each part.
    fn rows<'r>(&self, step: u64, ring: &'r [f32]) -> &'r [f32] {
        let width = self.parts * WIDTH;
        &ring[(step % self.slots) as usize * width..][..width]
    }

    /// A step's losses, the means over the parts of its batch, if they are numbers.
    fn check(&self, step: u64, ring: &[f32]) -> Result<[f64; WIDTH]> {
        let mut values = [0.0; WIDTH];
        for row in self.rows(step, ring).chunks_exact(WIDTH) {
            values
                .iter_mut()
                .zip(row)
                .for_each(|(mean, value)| *mean += f64::from(*value) / self.parts as f64);
        }
        for (what, index) in
            [("reconstruction loss", step::RECONSTRUCTION), ("sparsity penalty", step::SPARSITY)]
        {
            if !values[index].is_finite() {
                return Err(self.diverged(step, &format!("{what} became {}", values[index])));
            }
        }
        Ok(values)
    }

    /// Takes the losses of the last interval, logs them, and stops at NaN or infinity. After it the
    /// log holds all whole intervals.
    pub fn settle(&mut self, device: &mut Device, log: &mut Log) -> Result<()> {
        let Some((from, to, pending)) = self.pending.take() else { return Ok(()) };
        let scalars = device.collect(pending)?;
        let mut means = [0.0_f64; WIDTH];
        for step in from..to {
            let values = self.check(step, &scalars)?;
            means
                .iter_mut()
                .zip(values)
                .for_each(|(mean, value)| *mean += value / (to - from) as f64);
        }
        let seconds = self.interval.elapsed().as_secs_f64().max(1e-9);
        self.interval = Instant::now();
        // Only what this process did took its time.
        let rate = ((to - from.max(self.first)) * self.batch as u64) as f64 / seconds;
        log.progress(&Progress {
            step: to,
            total: self.total,
            epoch: to as f64 / self.steps_per_epoch as f64,
            reconstruction: means[step::RECONSTRUCTION],
            sparsity: means[step::SPARSITY],
            l0: means[step::L0],
            lr: f64::from(self.schedule.params(to - 1).lr),
            rate,
            eta: Duration::from_secs_f64((self.total - to) as f64 * self.batch as f64 / rate),
        })
    }
}
