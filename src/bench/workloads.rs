//! The three benchmark models: W1 for 28×28 gray images, W2 for 32×32 and W3 for 64×64 colour
//! images. They train by SGD with momentum 0.9 and learning rate 10⁻⁵ on the sum of squares plus an
//! L1 penalty with λ = 10⁻³, on one fixed batch of uniform random images on the device.

use std::time::Instant;

use serde::Serialize;

use super::{peak_mib, spread};
use crate::device::{Allocation, Device};
use crate::error::{Error, Result};
use crate::model::{Graph, Purpose, Store};
use crate::profile::Profile;
use crate::program::Call;
use crate::rng::Stream;
use crate::shape::Dims;
use crate::spec::{Config, OptimizerSpec, PenaltyName, Precision, SparsitySpec, preset_text};
use crate::train::step::{self, Step, StepSpec, WIDTH};
use crate::view::StepParams;

/// A benchmark model.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Name of the model and its preset.
    pub name: &'static str,
    /// Default batch size.
    pub batch: usize,
}

/// All benchmark models.
pub const WORKLOADS: [Workload; 3] = [
    Workload { name: "w1", batch: 128 },
    Workload { name: "w2", batch: 128 },
    Workload { name: "w3", batch: 32 },
];

/// The times of a training step.
#[derive(Clone, Debug, Serialize)]
pub struct StepResult {
    /// `train_step`
    pub kind: &'static str,
    /// The model.
    pub workload: String,
    /// Batch.
    pub batch: usize,
    /// Name of the device.
    pub device: String,
    /// Precision of maps.
    pub precision: Precision,
    /// Images per second, median over the windows.
    pub images_per_s: f64,
    /// Images per second in the slowest window.
    pub min: f64,
    /// Images per second in the fastest window.
    pub max: f64,
    /// Median milliseconds per step.
    pub ms: f64,
    /// Seconds from the start of building the model to the end of the first step.
    pub first_step_s: f64,
    /// Seconds of the second step.
    pub second_step_s: f64,
    /// Peak memory of the process in MiB, if known.
    pub peak_mib: Option<u64>,
    /// Number of learned parameters.
    pub params: usize,
    /// Dispatches per step; 0 on the CPU path.
    pub dispatches: usize,
    /// Loss of the last step.
    pub loss: f64,
}

impl Workload {
    /// The workload of a name.
    ///
    /// # Errors
    /// If no workload has this name.
    pub fn named(name: &str) -> Result<Self> {
        WORKLOADS.into_iter().find(|workload| workload.name == name).ok_or_else(|| {
            let known: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
            Error::usage(format!("unknown workload {name}; use {}", known.join(", ")))
        })
    }

    pub(super) fn graph(self) -> Result<Graph> {
        graph(&Config::parse(preset_text(self.name)?, self.name, &[])?)
    }
}

pub(super) fn graph(config: &Config) -> Result<Graph> {
    let [c, h, w] = config.model.input.expect("a workload fixes its input");
    Graph::new(&config.model, Dims::new(c, h, w))
}

/// The sparsity penalty and optimiser of all workloads.
fn rules() -> (SparsitySpec, OptimizerSpec) {
    let sparsity =
        SparsitySpec { penalty: PenaltyName::L1, lambda: 1e-3, ..SparsitySpec::default() };
    (sparsity, OptimizerSpec { lr: 1e-5, momentum: 0.9, ..OptimizerSpec::default() })
}

/// Plans a training step without allocating it: its memory beside the parameters, and its calls.
pub(super) fn planned(
    graph: &Graph,
    batch: usize,
    precision: Precision,
) -> Result<(step::Planned, Vec<Call>)> {
    let (sparsity, optimizer) = rules();
    let store = Store::layout(graph, Purpose::train(1));
    let spec = StepSpec {
        half: scale(batch, precision),
        ..StepSpec::plain(graph, &store, batch, &sparsity, &optimizer, store.state)
    };
    Ok((step::planned_bytes(&spec)?, step::planned_calls(&spec)?))
}

/// The loss scale for maps in half precision: the batch size, since gradients are divided by it.
fn scale(batch: usize, precision: Precision) -> Option<f64> {
    (precision == Precision::F16).then_some(batch as f64)
}

/// A training step on a device, ready to run. Its program keeps the model and the batch.
#[derive(Debug)]
pub(super) struct Running {
    step: Step,
    scalars: Allocation,
    done: u32,
}

impl Running {
    /// Allocates the model, its step and a random batch.
    pub(super) fn new(
        device: &mut Device,
        graph: &Graph,
        batch: usize,
        precision: Precision,
    ) -> Result<Self> {
        let store = Store::new(device, graph, Purpose::train(1))?;
        store.initialise(device, graph, 0);
        let scalars = device.alloc_real("scalars", WIDTH)?;
        let (sparsity, optimizer) = rules();
        let binding = device.max_elements();
        let half = scale(batch, precision);
        let spec = StepSpec {
            binding,
            half,
            ..StepSpec::plain(graph, &store, batch, &sparsity, &optimizer, *scalars)
        };
        let recorded = step::record(device, &spec)?;
        let mut stream = Stream::new(0, "bench");
        let images: Vec<f32> = (0..recorded.x.len).map(|_| stream.uniform()).collect();
        device.write(recorded.x, &images);
        Ok(Self { step: recorded.compile(device)?, scalars, done: 0 })
    }

    /// Parameters of the next step.
    fn params(&mut self) -> StepParams {
        let params = StepParams { step: self.done, lr: 1e-5, ..StepParams::default() };
        self.done += 1;
        params
    }

    /// Runs `steps` steps and returns their time in seconds.
    pub(super) fn run(&mut self, device: &mut Device, steps: u32) -> Result<f64> {
        let start = Instant::now();
        for _ in 0..steps {
            let params = self.params();
            self.step.run(device, 0, 1, &params)?;
        }
        device.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Profiles a step.
    pub(super) fn profile(&mut self, device: &mut Device) -> Result<Profile> {
        let params = self.params();
        self.step.profile(device, 0, 1, &params)
    }

    /// The loss of the last step.
    pub(super) fn loss(&self, device: &mut Device) -> Result<f64> {
        Ok(f64::from(device.read(*self.scalars)?[step::RECONSTRUCTION]))
    }

    /// Number of dispatches in a step; 0 on the CPU path.
    pub(super) fn dispatches(&self) -> usize {
        self.step.dispatches(1)
    }
}

/// Times the training step of a workload in `windows` windows of `seconds`.
///
/// # Errors
/// If the workload does not fit the device, or the device fails.
pub fn train_step(
    device: &mut Device,
    workload: Workload,
    batch: usize,
    precision: Precision,
    seconds: f64,
    windows: usize,
) -> Result<StepResult> {
    let began = Instant::now();
    let graph = workload.graph()?;
    let mut running = Running::new(device, &graph, batch, precision)?;
    running.run(device, 1)?;
    let first_step_s = began.elapsed().as_secs_f64();
    let second_step_s = running.run(device, 1)?;
    let warm = Instant::now();
    let mut estimate = running.run(device, 1)?;
    while warm.elapsed().as_secs_f64() < seconds.min(1.0) {
        estimate = estimate.min(running.run(device, 3)? / 3.0);
    }
    let steps = (seconds / estimate).round().clamp(1.0, 1e6) as u32;
    let rates = (0..windows)
        .map(|_| Ok(f64::from(steps) * batch as f64 / running.run(device, steps)?))
        .collect::<Result<Vec<_>>>()?;
    let (median, min, max) = spread(rates);
    let (loss, dispatches) = (running.loss(device)?, running.dispatches());
    let tenth = |x: f64| (x * 10.0).round() / 10.0;
    Ok(StepResult {
        kind: "train_step",
        workload: workload.name.to_owned(),
        batch,
        device: device.label(),
        precision,
        images_per_s: tenth(median),
        min: tenth(min),
        max: tenth(max),
        ms: (batch as f64 / median * 1e6).round() / 1e3,
        first_step_s: (first_step_s * 1e3).round() / 1e3,
        second_step_s: (second_step_s * 1e3).round() / 1e3,
        peak_mib: peak_mib(),
        params: graph.parameter_count(),
        dispatches,
        loss,
    })
}
