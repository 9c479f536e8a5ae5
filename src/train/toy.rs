//! A model that is small enough to compute its training by hand, for unit tests.

use super::feed::{Batches, Inputs};
use super::step::{LabelLoss, Output, WIDTH};
use super::{Log, Trainer};
use crate::device::Device;
use crate::error::Result;
use crate::model::Graph;
use crate::ops::{Activation, Loss, LossKind, SCALAR_PARTIALS};
use crate::record::Builder;
use crate::shape::Dims;
use crate::spec::Config;
use crate::view::{StepParams, View};

/// y = v·(u·x), without biases: `u` is the encoder, `v` the head.
const MODEL: &str = r#"
[model]
code = "u"
[[model.layers]]
name = "u"
op = "linear"
units = 1
bias = false
[[model.layers]]
name = "head"
op = "linear"
units = 1
bias = false
[optimizer]
kind = "sgd"
momentum = 0.0
lr = 0.125
[schedule]
kind = "constant"
"#;

/// The configuration, with overrides such as `train.batch=4`.
pub fn config(overrides: &[&str]) -> Config {
    let all: Vec<String> = ["train.batch=4", "train.steps=8"]
        .iter()
        .chain(overrides)
        .map(|text| (*text).to_owned())
        .collect();
    Config::parse(MODEL, "toy", &all).unwrap()
}

/// The model.
pub fn graph(config: &Config) -> Graph {
    Graph::new(&config.model, Dims::flat(1)).unwrap()
}

/// Squared error: the sum over outputs of (y − t)², averaged over samples.
#[derive(Debug)]
pub struct SquaredError;

impl LabelLoss for SquaredError {
    fn record(&self, b: &mut Builder, output: Output, n: usize) -> Vec<View> {
        let Output { y, dy, scalars } = output;
        let target = b.tape.real("targets", y.len);
        let partials = b.tape.partials(SCALAR_PARTIALS);
        b.tape.push(Loss {
            kind: LossKind::SumSquares,
            n,
            grad_scale: 1.0,
            width: WIDTH,
            index: 0,
            activation: Activation::Identity,
            y,
            target,
            scalars,
            dy,
            partials,
        });
        vec![target]
    }

    fn terms(&self) -> &'static [&'static str] {
        &["loss"]
    }

    fn divisor(&self, n: usize) -> f64 {
        n as f64
    }
}

/// Batches with the same samples, pairs (x, target), in every step.
#[derive(Debug)]
pub struct Same {
    /// The samples of a batch.
    pub samples: Vec<(f32, f32)>,
    /// Number of parts of a batch.
    pub parts: usize,
    /// From this step on, every sample is NaN.
    pub broken_from: u32,
}

impl Batches for Same {
    /// Returns 2, the number of batches of an epoch.
    fn steps_per_epoch(&self) -> usize {
        2
    }

    fn advance(
        &mut self,
        device: &mut Device,
        params: &mut StepParams,
        part: usize,
        inputs: &Inputs,
    ) -> Result<()> {
        let n = self.samples.len() / self.parts;
        let samples = &self.samples[part * n..][..n];
        let broken = params.step >= self.broken_from;
        let x = |sample: &(f32, f32)| if broken { f32::NAN } else { sample.0 };
        device.write(inputs.x, &samples.iter().map(x).collect::<Vec<f32>>());
        device.write(inputs.labels[0], &samples.iter().map(|s| s.1).collect::<Vec<f32>>());
        Ok(())
    }
}

/// Samples of the function t = 2·x.
pub const SAMPLES: [(f32, f32); 4] = [(1.0, 2.0), (-1.0, -2.0), (0.5, 1.0), (2.0, 4.0)];

/// A trainer of the model on [`SAMPLES`], with weights u and v.
pub fn trainer<'a>(
    device: &mut Device,
    config: &Config,
    graph: &'a Graph,
    [u, v]: [f32; 2],
    broken_from: u32,
) -> Trainer<'a> {
    let batches = Same { samples: SAMPLES.to_vec(), parts: config.train.accumulate, broken_from };
    let trainer =
        Trainer::labelled(device, config, graph, &SquaredError, Box::new(batches), 0, true)
            .unwrap();
    for (param, weight) in [u, v].into_iter().enumerate() {
        let view = trainer.store.weight(param);
        device.write(view, &graph.params[param].pack(&[weight]));
    }
    trainer
}

/// The weights u and v.
pub fn weights(device: &mut Device, trainer: &Trainer) -> [f32; 2] {
    [0, 1].map(|param| trainer.store.read_param(device, trainer.graph(), param).unwrap()[0])
}

/// A log without a file and without output.
pub fn quiet() -> Log {
    Log::new(None, 8, true, false).unwrap()
}
