//! The three models that are timed: W1 28×28 gray, W2 32×32 colour, W3 64×64 colour. SGD with
//! momentum 0.9 and rate 10⁻⁵ on the article's loss with λ = 10⁻³; one fixed batch of uniform
//! random images that lies on the device.

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
use crate::spec::{Config, OptimizerSpec, Precision, SparsitySpec, preset_text};
use crate::train::step::{self, Step, StepSpec, WIDTH};
use crate::view::StepParams;

/// A model to time.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Name, of the preset too.
    pub name: &'static str,
    /// Its own batch.
    pub batch: usize,
}

/// The three.
pub const WORKLOADS: [Workload; 3] = [
    Workload { name: "w1", batch: 128 },
    Workload { name: "w2", batch: 128 },
    Workload { name: "w3", batch: 32 },
];

/// A timed training step.
#[derive(Clone, Debug, Serialize)]
pub struct StepResult {
    /// `train_step`
    pub kind: &'static str,
    /// The model.
    pub workload: String,
    /// Batch.
    pub batch: usize,
    /// Where.
    pub device: String,
    /// What maps are kept in.
    pub precision: Precision,
    /// Median over the windows.
    pub images_per_s: f64,
    /// Slowest window.
    pub min: f64,
    /// Fastest window.
    pub max: f64,
    /// Milliseconds a step, median.
    pub ms: f64,
    /// From the start of building the model to the end of the first step.
    pub first_step_s: f64,
    /// The second step.
    pub second_step_s: f64,
    /// Peak memory of the process.
    pub peak_mib: Option<u64>,
    /// Learned values.
    pub params: usize,
    /// Dispatches a step, 0 on the CPU path.
    pub dispatches: usize,
    /// Loss of the last step.
    pub loss: f64,
}

impl Workload {
    /// The one of this name.
    pub fn named(name: &str) -> Result<Self> {
        WORKLOADS.into_iter().find(|workload| workload.name == name).ok_or_else(|| {
            let known: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
            Error::usage(format!("--workload {name}: there are {}", known.join(", ")))
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

/// What every workload trains with.
fn rules() -> (SparsitySpec, OptimizerSpec) {
    let sparsity =
        SparsitySpec { penalty: "l1".to_owned(), lambda: 1e-3, ..SparsitySpec::default() };
    (sparsity, OptimizerSpec { lr: 1e-5, momentum: 0.9, ..OptimizerSpec::default() })
}

/// What a step with maps of a precision would take beside the model's values, and its calls on
/// buffers that do not exist.
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

/// By what a loss is scaled where maps are in half precision.
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
    /// Makes the model, its step and one batch.
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

    fn params(&mut self) -> StepParams {
        let params = StepParams { step: self.done, lr: 1e-5, ..StepParams::default() };
        self.done += 1;
        params
    }

    /// Seconds of so many steps.
    pub(super) fn run(&mut self, device: &mut Device, steps: u32) -> Result<f64> {
        let start = Instant::now();
        for _ in 0..steps {
            let params = self.params();
            self.step.run(device, 0, 1, &params)?;
        }
        device.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Runs a step and tells when each of its dispatches ran.
    pub(super) fn profile(&mut self, device: &mut Device) -> Result<Profile> {
        let params = self.params();
        self.step.profile(device, 0, 1, &params)
    }

    /// The loss of the last step.
    pub(super) fn loss(&self, device: &mut Device) -> Result<f64> {
        Ok(f64::from(device.read(*self.scalars)?[step::RECONSTRUCTION]))
    }

    /// Dispatches a step, 0 on the CPU path.
    pub(super) fn dispatches(&self) -> usize {
        self.step.dispatches(1)
    }
}

/// Times one model's training step in `windows` windows of `seconds`.
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
