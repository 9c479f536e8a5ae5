//! Training of a classifier: encoder and head on labelled images, with cross-entropy.

use serde_json::json;

use super::data::{Augment, Labelled};
use crate::data::Subset;
use crate::device::Device;
use crate::error::Result;
use crate::hash::Hash;
use crate::infer::batches::Inference;
use crate::model::{Graph, HEAD, Purpose, Store};
use crate::ops::CrossEntropy;
use crate::record::Builder;
use crate::spec::{Config, HeadStart};
use crate::tasks::probe::{ClassifierKind, Design, fit_choosing_penalty};
use crate::train::feed::{Batches, Inputs};
use crate::train::labelled::Epochs;
use crate::train::run::{Task, ValidationResult};
use crate::train::step::{LabelLoss, Output, WIDTH};
use crate::train::{Run, RunFolder, Trainer, checkpoint::Checkpoint};
use crate::view::{StepParams, View};

/// Result of a validation of a classifier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassificationResult {
    /// Error rate.
    pub share: f64,
    /// Name of the images that it was validated on.
    pub on: &'static str,
}

impl std::fmt::Display for ClassificationResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "error on {} {:.2} %", self.on, 100.0 * self.share)
    }
}

impl ValidationResult for ClassificationResult {
    fn score(&self) -> f64 {
        -self.share
    }

    fn numbers(&self) -> serde_json::Value {
        json!({"error": self.share})
    }
}

/// Validation of a classifier during its training.
#[derive(Debug)]
pub struct Classification<'a> {
    inference: Inference<'a>,
    held: Subset<'a, Labelled>,
}

impl Classification<'_> {
    /// The predicted classes of the images with these indices.
    ///
    /// # Errors
    /// When the device fails.
    pub fn classify(
        &mut self,
        device: &mut Device,
        data: &Labelled,
        images: &[usize],
    ) -> Result<Vec<u32>> {
        classify(&mut self.inference, device, data, images)
    }
}

impl Task for Classification<'_> {
    type Validation = ClassificationResult;

    fn validate(&mut self, device: &mut Device) -> Result<ClassificationResult> {
        let Subset { set, indices, name } = &self.held;
        let found = classify(&mut self.inference, device, set, indices)?;
        let wrong =
            found.iter().zip(indices).filter(|(found, image)| **found != set.of[**image]).count();
        Ok(ClassificationResult { share: wrong as f64 / indices.len().max(1) as f64, on: name })
    }

    fn keeps_best(&self) -> bool {
        true
    }

    /// A head that is initialised by a linear probe can already be the best.
    fn validates_start(&self) -> bool {
        true
    }
}

/// Sets up the training of a classifier on `fit`, validated on `held`. `data` is the size of all
/// images in host memory, in bytes.
///
/// # Errors
/// When it takes more memory than is allowed, or the device fails.
pub fn begin_training<'a>(
    device: &mut Device,
    folder: &RunFolder,
    config: &'a Config,
    graph: &'a Graph,
    (fit, held): (&Subset<'a, Labelled>, Subset<'a, Labelled>),
    data: u64,
    from: Option<&Checkpoint>,
) -> Result<Run<'a, Classification<'a>>> {
    let spec = config.classify.clone().unwrap_or_default();
    let loss = ClassLoss { classes: graph.nodes[graph.output].dims.len() };
    let images = Classes {
        data: fit.set,
        augment: Augment { shift: spec.shift, flip_x: config.data.flip_x },
        seed: config.seed,
        batch: config.train.batch,
        parts: config.train.accumulate,
        epochs: Epochs::new(fit.indices.clone(), config.train.batch, config.seed),
        samples: Vec::new(),
        pixels: Vec::new(),
        step: None,
    };
    let hash = [fit, &held].iter().fold(Hash::default(), |hash, part| {
        let words: Vec<u64> = part
            .indices
            .iter()
            .flat_map(|number| [*number as u64, u64::from(part.set.of[*number])])
            .collect();
        hash.with(bytemuck::cast_slice(&words)).with(part.set.bytes())
    });
    let trainer =
        Trainer::labelled(device, config, graph, &loss, Box::new(images), data, from.is_none())?;
    if from.is_none() && spec.head == HeadStart::Probe {
        fit_head(device, config, (graph, &trainer.store), fit)?;
    }
    let task = Classification { inference: Inference::new(graph, &trainer.store), held };
    Run::begin(device, folder, config, (trainer, task), hash.value(), from)
}

/// Initialises the head by a linear classifier that is fitted to the features of the labelled
/// images.
fn fit_head(
    device: &mut Device,
    config: &Config,
    (graph, store): (&Graph, &Store),
    part: &Subset<Labelled>,
) -> Result<()> {
    let (data, fit) = (part.set, &part.indices);
    // The layer before the dropout of the head.
    let mut node = graph.nodes[graph.output].inputs[0];
    if graph.nodes[node].name.starts_with("head.") {
        node = graph.nodes[node].inputs[0];
    }
    let spec = crate::model::encoder(graph, Some(&graph.nodes[node].name), None)?;
    let encoder = Graph::new(&spec, graph.nodes[0].dims)?;
    let values = Store::new(device, &encoder, Purpose::Infer)?;
    store.copy_matching(device, graph, &values, &encoder)?;
    let mut inference = Inference::new(&encoder, &values);
    let dims = encoder.nodes[encoder.output].dims;
    let mut design = Design::new(dims.len(), fit.iter().map(|image| data.of[*image]).collect());
    let batch = inference.batch(device);
    for (part, images) in fit.chunks(batch).enumerate() {
        let z = crate::shape::to_nchw(&inference.run_code(device, &data.batch(images), &[])?, dims);
        z.chunks_exact(dims.len())
            .enumerate()
            .for_each(|(i, z)| design.row_mut(part * batch + i).copy_from_slice(z));
    }
    let scaling = design.scaling();
    design.scale(&scaling);
    let (weights, biases) =
        fit_choosing_penalty(ClassifierKind::Logistic, &design, data.classes.len(), config.seed)
            .unscaled(&scaling);
    for (name, all) in [("weight", weights), ("bias", biases)] {
        let name = format!("{HEAD}.{name}");
        let at = graph
            .params
            .iter()
            .position(|param| param.name == name)
            .expect("the head has a weight and a bias");
        device.write(store.weight(at), &graph.params[at].pack(&all));
    }
    Ok(())
}

/// Cross-entropy of the classes.
#[derive(Debug)]
struct ClassLoss {
    classes: usize,
}

impl LabelLoss for ClassLoss {
    fn record(&self, b: &mut Builder, output: Output, n: usize) -> Vec<View> {
        let Output { y, dy, scalars } = output;
        let labels = b.tape.words("labels", n);
        let partials = b.tape.real("losses of samples", n);
        b.tape.push(CrossEntropy {
            n,
            classes: self.classes,
            width: WIDTH,
            index: 0,
            y,
            labels,
            scalars,
            dy,
            partials,
        });
        vec![labels]
    }

    fn terms(&self) -> &'static [&'static str] {
        &["loss"]
    }

    fn divisor(&self, n: usize) -> f64 {
        n as f64
    }
}

/// Augmented batches of labelled images.
#[derive(Debug)]
struct Classes<'a> {
    data: &'a Labelled,
    augment: Augment,
    seed: u64,
    batch: usize,
    parts: usize,
    epochs: Epochs,
    /// The images of the current step, and their pixels.
    samples: Vec<usize>,
    pixels: Vec<f32>,
    /// The step that was prepared last.
    step: Option<u32>,
}

impl Batches for Classes<'_> {
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
            let step = u64::from(params.step);
            self.samples = self.epochs.batch(step);
            self.pixels = self.data.augmented(&self.samples, self.augment, self.seed, step);
        }
        let (n, size) = (self.batch / self.parts, self.data.dims.len());
        let samples = &self.samples[part * n..][..n];
        let labels: Vec<u32> = samples.iter().map(|image| self.data.of[*image]).collect();
        device.write(inputs.x, &self.pixels[part * n * size..][..n * size]);
        device.write_words(inputs.labels[0], &labels);
        Ok(())
    }
}

fn classify(
    inference: &mut Inference<'_>,
    device: &mut Device,
    data: &Labelled,
    images: &[usize],
) -> Result<Vec<u32>> {
    let classes = inference.graph.nodes[inference.graph.output].dims.len();
    let mut found = Vec::with_capacity(images.len());
    for images in images.chunks(inference.batch(device)) {
        let logits = inference.run_output(device, &data.batch(images), &[])?;
        found.extend(logits.chunks_exact(classes).map(best));
    }
    Ok(found)
}

/// Index of the largest logit; of equal logits, the first one.
pub fn best(logits: &[f32]) -> u32 {
    (1..logits.len()).fold(0, |best, class| if logits[class] > logits[best] { class } else { best })
        as u32
}
