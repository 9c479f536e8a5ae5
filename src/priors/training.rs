//! Training of the network of the sparse prior: its configuration, batches of codes, validation on
//! held-out codes, and the priors that it leaves at the end.

use std::path::PathBuf;

use rayon::prelude::*;
use serde_json::json;

use crate::device::{Allocation, Device};
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::infer::batches::Inference;
use crate::model::{Graph, ModelSpec, Purpose, Store};
use crate::priors::codes::Codes;
use crate::priors::hurdle_head::{HurdleHead, Mask};
use crate::priors::masked::{Masked, Sizes, connectivity, graph};
use crate::priors::mixture::MixtureScore;
use crate::priors::prior::Prior;
use crate::priors::sparse::{HURDLE, HeldOutLoss, UNIT, Untrained, unit_values};
use crate::spec::{Config, HeadKind};
use crate::train::checkpoint::Checkpoint;
use crate::train::feed::{Batches, Inputs};
use crate::train::labelled::Epochs;
use crate::train::run::{Task, ValidationResult};
use crate::train::step::{self, Objective, StepSpec};
use crate::train::{Run, RunFolder, Trainer};
use crate::view::StepParams;

/// (minimum, maximum) default batch size. It is a sixteenth of the codes within these limits.
const BATCH: (usize, usize) = (64, 512);
/// Default number of validations during the training.
const VALIDATIONS: u64 = 16;
/// Maximum number of held-out codes: more do not make their mean loss notably more exact.
const MAX_HELD_OUT: usize = 4096;

/// Default batch size for this number of codes to fit.
fn batch_size(codes: usize, fit: usize) -> usize {
    (codes / 16).clamp(BATCH.0, BATCH.1).min(fit)
}

/// Number of codes that are held out, of `codes`.
pub fn held_out_count(codes: usize, share: f64) -> usize {
    ((codes as f64 * share) as usize).min(MAX_HELD_OUT)
}

/// The configuration of a run, from the text of the preset or of a file that `place` names. `set`
/// overrides single keys, then `change` sets others.
///
/// # Errors
/// When a key is unknown or a value is invalid, or a batch is larger than the number of codes.
pub fn config(
    (text, place): (&str, &str),
    codes: usize,
    network: &ModelSpec,
    set: &[String],
    change: impl Fn(&mut Config),
) -> Result<Config> {
    let read = |validate_every: f64| {
        let mut defaults = vec![("validate_every", toml::Value::from(validate_every))];
        let base = Config::with_model(text, place, network, &defaults, set)?;
        let fit = codes - held_out_count(codes, base.data.validation);
        defaults.push(("batch", (batch_size(codes, fit) as i64).into()));
        let mut config = Config::with_model(text, place, network, &defaults, set)?;
        change(&mut config);
        if config.train.batch > fit {
            return Err(Error::usage(format!(
                "train.batch = {}: only {fit} codes are fitted to; set it to at \
                 most {fit}",
                config.train.batch
            )));
        }
        Ok((fit / config.train.batch, config))
    };
    let (steps_per_epoch, config) = read(1.0)?;
    let steps = Trainer::total_steps(&config, steps_per_epoch);
    let (_, config) = read((steps / VALIDATIONS).max(1) as f64 / steps_per_epoch as f64)?;
    Config::parse(&config.to_toml(), place, &[])
}

/// Makes inputs of the network from codes.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The codes.
    pub codes: &'a Codes,
    /// The units in the order in which they are predicted.
    pub order: &'a [u32],
    /// Statistics of each unit in this order.
    pub units: &'a [[f32; UNIT]],
    /// Cluster of each code.
    pub clusters: &'a [u32],
    /// Sizes of the network.
    pub sizes: Sizes,
}

impl Rows<'_> {
    /// The inputs for the codes with these numbers.
    fn inputs(&self, numbers: &[usize]) -> Vec<f32> {
        let (units, width) = (self.sizes.units, self.sizes.input());
        let mut x = vec![0.0; numbers.len() * width];
        for (x, number) in x.chunks_exact_mut(width).zip(numbers) {
            let code = &self.codes.values[number * units..(number + 1) * units];
            for (i, (unit, statistics)) in self.order.iter().zip(self.units).enumerate() {
                [x[i], x[units + i]] = unit_values(code[*unit as usize], *statistics);
            }
            x[2 * units + self.clusters[*number] as usize] = 1.0;
        }
        x
    }
}

/// Batches of codes in random order.
#[derive(Debug)]
struct CodeBatches<'a> {
    rows: Rows<'a>,
    epochs: Epochs,
    /// Number of parts that a batch is split into.
    parts: usize,
    /// The codes of the current batch.
    numbers: Vec<usize>,
    /// The step that was prepared last.
    step: Option<u32>,
}

impl Batches for CodeBatches<'_> {
    fn steps_per_epoch(&self) -> usize {
        self.epochs.steps()
    }

    fn advance(
        &mut self,
        device: &mut Device,
        params: &mut StepParams,
        part: usize,
        inputs: &Inputs,
    ) -> Result<()> {
        if self.step.replace(params.step) != Some(params.step) {
            self.numbers = self.epochs.batch(u64::from(params.step));
        }
        let n = self.numbers.len() / self.parts;
        device.write(inputs.x, &self.rows.inputs(&self.numbers[part * n..][..n]));
        Ok(())
    }
}

/// Memory in bytes for training a network on this number of codes, besides the codes.
pub fn bytes(sizes: Sizes, codes: usize) -> u64 {
    let graph = graph(sizes);
    let preset = (HeadKind::Prior.preset(), "preset prior");
    let config = config(preset, codes, &graph.spec, &[], |_| ()).expect("the preset is valid");
    let store = Store::layout(&graph, Purpose::train(config.optimizer.kind.moments()));
    let head = HurdleHead { sizes, mask: Mask { factors: store.grads } };
    let step = StepSpec {
        graph: &graph,
        store: &store,
        n: config.train.batch,
        parts: 1,
        objective: Objective::Labels(&head),
        optimizer: &config.optimizer,
        encoder: 0,
        scalars: store.weights,
        half: None,
        pieces: 1,
        binding: u64::MAX,
    };
    let step = step::planned_bytes(&step).expect("the loss fits the graph").total;
    // The network before training, the mask on the host and on the device, and the best parameters.
    let parameters = 4 * 4 * store.weights.len as u64;
    // A batch to evaluate is at most as large as one to train on.
    store.bytes() + parameters + 2 * step
}

/// What priors are fitted to.
#[derive(Debug)]
pub struct PriorData {
    /// The codes.
    pub codes: Codes,
    /// Hash of the model that they come from.
    pub model: String,
    /// File that the priors are written to.
    pub file: PathBuf,
}

/// Called with each mixture that is fitted, and its class if it is of one class.
pub type OnMixture<'a> = Box<dyn FnMut(Option<u32>, MixtureScore) + 'a>;

/// Validates the network. At the end of the run it fits the other priors and writes all of them.
pub struct PriorTraining<'a> {
    inference: Inference<'a>,
    config: &'a Config,
    data: &'a PriorData,
    untrained: &'a Untrained,
    /// The mask of closed weights, which the recorded step reads.
    _mask: Allocation,
    on_mixture: OnMixture<'a>,
    /// The priors, when the run is finished.
    pub prior: Option<Prior>,
}

/// Sets up the training of the network; `from` is the checkpoint to resume from.
///
/// # Errors
/// When the device fails or has no memory for the training, or a checkpoint belongs to other codes.
pub fn begin<'a>(
    device: &mut Device,
    folder: &RunFolder,
    config: &'a Config,
    graph: &'a Graph,
    (data, untrained): (&'a PriorData, &'a Untrained),
    on_mixture: OnMixture<'a>,
    from: Option<&Checkpoint>,
) -> Result<Run<'a, PriorTraining<'a>>> {
    let (rows, sizes) = (untrained.rows(&data.codes), untrained.network.sizes);
    let purpose = Purpose::train(config.optimizer.kind.moments());
    let factors = connectivity(sizes, &Store::layout(graph, purpose));
    let mask = device.alloc_real("mask of closed weights", factors.len())?;
    device.write(*mask, &factors);
    let head = HurdleHead { sizes, mask: Mask { factors: *mask } };
    let [fit, _] = untrained.split(config.data.validation);
    // Repeated codes would be fitted more closely than others: with filled-up batches, the loss on
    // held-out codes was 1.5 nats higher (1797 codes, mean of 10 seeds).
    let epochs = Epochs::of_whole_batches(fit.to_vec(), config.train.batch, config.seed);
    let batches = CodeBatches {
        rows,
        epochs,
        parts: config.train.accumulate,
        numbers: Vec::new(),
        step: None,
    };
    // Bytes of the codes and of the mask.
    let host = 4 * (data.codes.values.len() + factors.len()) as u64;
    let (batches, starts) = (Box::new(batches), from.is_none());
    let trainer = Trainer::labelled(device, config, graph, &head, batches, host, starts)?;
    if starts && config.train.from.is_none() {
        untrained.network.write(device, graph, &trainer.store);
    }
    let labels = data.codes.labels.as_ref().map_or(&[][..], |labels| &labels.of);
    let hash = Hash::default()
        .with(bytemuck::cast_slice(&data.codes.values))
        .with(bytemuck::cast_slice(labels));
    let inference = Inference::new(graph, &trainer.store);
    let task =
        PriorTraining { inference, config, data, untrained, _mask: mask, on_mixture, prior: None };
    Run::begin(device, folder, config, (trainer, task), hash.value(), from)
}

impl Task for PriorTraining<'_> {
    type Validation = HeldOutLoss;

    const DATA: &'static str = "images or the model";

    fn validate(&mut self, device: &mut Device) -> Result<HeldOutLoss> {
        let [_, held_out] = self.untrained.split(self.config.data.validation);
        evaluate(device, &mut self.inference, &self.untrained.rows(&self.data.codes), held_out)
    }

    fn conclude(
        &mut self,
        device: &mut Device,
        _: &RunFolder,
        _: &HeldOutLoss,
    ) -> Result<Vec<&'static str>> {
        let Self { inference, untrained, data, config, .. } = self;
        let network =
            Masked::read(device, untrained.network.sizes, inference.graph, &inference.store)?;
        let sparse = untrained.with_network(network);
        let components = config.prior.as_ref().map_or(0, |spec| spec.components);
        let components = (components > 0).then_some(components);
        let PriorData { codes, model, .. } = data;
        let prior =
            Prior::fit(codes, model, components, config.seed, sparse, &mut self.on_mixture)?;
        prior.save(&data.file)?;
        self.prior = Some(prior);
        Ok(Vec::new())
    }

    fn keeps_best(&self) -> bool {
        true
    }
}

impl std::fmt::Debug for PriorTraining<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PriorTraining").field("untrained", &self.untrained).finish_non_exhaustive()
    }
}

impl std::fmt::Display for HeldOutLoss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { fires, strength } = self;
        write!(
            f,
            "held-out codes: {fires:.2} nats for which units fire, {strength:.2} for how strongly"
        )
    }
}

impl ValidationResult for HeldOutLoss {
    fn score(&self) -> f64 {
        -(self.fires + self.strength)
    }

    fn numbers(&self) -> serde_json::Value {
        json!({"fires": self.fires, "strength": self.strength})
    }
}

/// Mean loss of the codes with these numbers.
fn evaluate(
    device: &mut Device,
    inference: &mut Inference<'_>,
    rows: &Rows<'_>,
    numbers: &[usize],
) -> Result<HeldOutLoss> {
    let Sizes { units, .. } = rows.sizes;
    let mut sum = HeldOutLoss { fires: 0.0, strength: 0.0 };
    for numbers in numbers.chunks(inference.batch(device)) {
        let x = rows.inputs(numbers);
        let y = inference.run_output(device, &x, &[])?;
        let each = x.par_chunks(rows.sizes.input()).zip(y.par_chunks(rows.sizes.output()));
        let each: Vec<HeldOutLoss> = each
            .map(|(x, y)| {
                let mut sum = HeldOutLoss { fires: 0.0, strength: 0.0 };
                for unit in 0..units {
                    let strength = (x[unit] > 0.0).then(|| f64::from(x[units + unit]));
                    let outputs = [0, 1, 2].map(|k| f64::from(y[k * units + unit]));
                    let loss = HURDLE.unit(outputs, strength);
                    sum.fires += loss.fires;
                    sum.strength += loss.strength;
                }
                sum
            })
            .collect();
        for row in each {
            sum.fires += row.fires;
            sum.strength += row.strength;
        }
    }
    let n = numbers.len() as f64;
    Ok(HeldOutLoss { fires: sum.fires / n, strength: sum.strength / n })
}

/// A configuration of a training on `codes` codes.
#[cfg(test)]
pub fn test_config(graph: &Graph, codes: usize) -> Config {
    let preset = (HeadKind::Prior.preset(), "preset prior");
    config(preset, codes, &graph.spec, &[], |_| ()).unwrap()
}

/// Priors fitted on the CPU path, and the number of validations.
///
/// # Errors
/// As [`Untrained::fit`] and [`begin`].
#[cfg(test)]
pub fn fit_for_test(codes: &Codes, model: &str) -> Result<(Prior, usize)> {
    use crate::train::{Log, Origin, Outcome};
    let folder = crate::testing::Folder::new("prior-run");
    let device = &mut Device::cpu();
    let data = PriorData {
        codes: codes.clone(),
        model: model.to_owned(),
        file: folder.path.join("prior.safetensors"),
    };
    let untrained = Untrained::fit(codes, 0)?;
    let graph = graph(untrained.network.sizes);
    let mut config = test_config(&graph, codes.len());
    config.prior = Some(crate::spec::PriorSpec::default());
    let run_folder = RunFolder::at(&folder.path.join("run"));
    let lock = run_folder.create(&config, &Origin::new(&config, "cpu".to_owned(), None)?, false)?;
    let parts = (&data, &untrained);
    let mut run = begin(device, &run_folder, &config, &graph, parts, Box::new(|_, _| ()), None)?;
    let path = run_folder.file("metrics.jsonl");
    let mut log = Log::new(Some(&path), run.trainer.total, true, false)?;
    let outcome = run.train(device, &mut log, &|| false)?;
    assert!(matches!(outcome, Outcome::Finished(_)), "{outcome:?}");
    let log = std::fs::read_to_string(path).unwrap();
    drop(lock);
    Ok((run.task.prior.take().unwrap(), log.matches("\"validation\"").count()))
}
