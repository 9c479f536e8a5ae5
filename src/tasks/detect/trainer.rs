//! Training of a detector: its batches, its loss and its validation.

use rayon::prelude::*;
use serde_json::json;

use super::detector::Detector;
use super::targets::{AnnotatedImage, JITTER, Square, WORDS, augmented_square};
use crate::annotations::box_set::DetectionSet;
use crate::annotations::boxes::{Bounds, Detection};
use crate::data::{Handles, Subset};
use crate::device::Device;
use crate::error::Result;
use crate::hash::Hash;
use crate::metrics::precision::Tally;
use crate::model::{Graph, HEAD, Store};
use crate::ops::{GridDetection, SCALAR_PARTIALS};
use crate::record::Builder;
use crate::rng::Stream;
use crate::shape::Dims;
use crate::spec::{Config, Objectness, PoseAugment};
use crate::train::feed::{Batches, Inputs};
use crate::train::labelled::Epochs;
use crate::train::run::{Task, ValidationResult};
use crate::train::step::{LabelLoss, Output, WIDTH};
use crate::train::{Run, RunFolder, Trainer, checkpoint::Checkpoint};
use crate::view::{StepParams, View};

/// Focal loss: γ and α (weight of positive cells; negatives get 1 − α), as in Lin et al. 2017.
const FOCAL: [f64; 2] = [2.0, 0.25];
/// Weights of the box loss and of the class loss; objectness has weight 1.
const STRENGTHS: [f64; 2] = [2.0, 1.0];
/// Initial probability that a cell has an object, as in Lin et al. 2017. Most cells have no object,
/// and a higher probability makes the first steps unstable.
const INITIAL_PROBABILITY: f64 = 0.01;
/// Minimum score of the evaluated detections. Average precision also needs those with low scores.
const MIN_SCORE: f64 = 0.01;
/// Number of images in a batch of the evaluation.
const BATCH: usize = 16;

/// Result of a validation of a detector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectionResult {
    /// mAP at an IoU of 0.5. `None` if the images have no objects that must be found.
    pub map50: Option<f64>,
    /// Name of the images that it was validated on.
    pub on: &'static str,
}

impl std::fmt::Display for DetectionResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.map50 {
            Some(map50) => write!(f, "{}: mAP@0.5 {map50:.4}", self.on),
            None => write!(f, "{}: no objects to find", self.on),
        }
    }
}

impl ValidationResult for DetectionResult {
    fn score(&self) -> f64 {
        // All epochs are equal then, and the first one is the best.
        self.map50.unwrap_or(0.0)
    }

    fn numbers(&self) -> serde_json::Value {
        json!({"map50": self.map50})
    }
}

/// Validation of a detector during its training.
#[derive(Debug)]
pub struct Detecting<'a> {
    /// The model with its current values.
    pub detector: Detector<'a>,
    held: Subset<'a, DetectionSet>,
}

impl Task for Detecting<'_> {
    type Validation = DetectionResult;

    fn validate(&mut self, device: &mut Device) -> Result<DetectionResult> {
        let Subset { set, indices, name } = &self.held;
        let tally = evaluate(device, &mut self.detector, set, indices, |_| {})?;
        Ok(DetectionResult { map50: tally.precision().map50, on: name })
    }

    fn keeps_best(&self) -> bool {
        true
    }
}

/// Sets up the training of a detector on `fit`, validated on `held`. `data` is the size of all
/// images in host memory, in bytes.
///
/// # Errors
/// When it takes more memory than is allowed, or the model has no grid head.
pub fn begin_training<'a>(
    device: &mut Device,
    folder: &RunFolder,
    config: &'a Config,
    graph: &'a Graph,
    (fit, held): (&Subset<'a, DetectionSet>, Subset<'a, DetectionSet>),
    data: u64,
    from: Option<&Checkpoint>,
) -> Result<Run<'a, Detecting<'a>>> {
    Detector::check(graph)?;
    let spec = config.detect.clone().unwrap_or_default();
    let grid = graph.nodes[graph.output].dims;
    let loss = GridLoss {
        cells: grid.area(),
        classes: graph.spec.classes.len(),
        objectness: spec.objectness,
    };
    let squares = Squares {
        sides: [graph.nodes[0].dims.h, grid.w],
        set: fit.set,
        augment: spec.augment,
        seed: config.seed,
        batch: config.train.batch,
        parts: config.train.accumulate,
        epochs: Epochs::new(fit.indices.clone(), config.train.batch, config.seed),
        handles: Handles::default(),
        squares: Vec::new(),
        positives: 1,
        step: None,
    };
    let hash = data_hash(fit).with(&data_hash(&held).value().to_le_bytes()).value();
    let trainer =
        Trainer::labelled(device, config, graph, &loss, Box::new(squares), data, from.is_none())?;
    if from.is_none() {
        initialise_head(device, graph, &trainer.store, fit);
    }
    let task = Detecting { detector: Detector::new(graph, &trainer.store)?, held };
    Run::begin(device, folder, config, (trainer, task), hash, from)
}

/// Hash of the images' numbers and sizes and of their objects' boxes.
fn data_hash(part: &Subset<DetectionSet>) -> Hash {
    part.indices.iter().fold(Hash::default(), |hash, number| {
        let Dims { h, w, .. } = part.set.dims(*number);
        let mut words = vec![*number as u64, h as u64, w as u64];
        for object in &part.set.annotated[*number].1 {
            let Bounds { left, top, right, bottom } = object.bounds;
            words.push(object.class as u64);
            words.extend([left, top, right, bottom].map(f64::to_bits));
        }
        hash.with(bytemuck::cast_slice(&words))
    })
}

/// Initialises the biases of the last layer: a small probability of objects, and boxes of the mean
/// size of those in the training images.
fn initialise_head(device: &mut Device, graph: &Graph, store: &Store, part: &Subset<DetectionSet>) {
    let grid = graph.nodes[graph.output].dims;
    let mut sizes = [0.0_f64; 2];
    let mut count = 0.0_f64;
    for number in &part.indices {
        let Dims { h, w, .. } = part.set.dims(*number);
        let cells = grid.w as f64 / h.max(w) as f64;
        for object in &part.set.annotated[*number].1 {
            let Bounds { left, top, right, bottom } = object.bounds;
            sizes[0] += ((right - left) * cells).ln();
            sizes[1] += ((bottom - top) * cells).ln();
            count += 1.0;
        }
    }
    let mut bias = vec![0.0_f32; grid.c];
    bias[0] = (INITIAL_PROBABILITY / (1.0 - INITIAL_PROBABILITY)).ln() as f32;
    (0..2).for_each(|k| bias[3 + k] = (sizes[k] / count.max(1.0)) as f32);
    let name = format!("{HEAD}.bias");
    let at = graph.params.iter().position(|param| param.name == name).expect("the head has a bias");
    device.write(store.weight(at), &graph.params[at].pack(&bias));
}

/// The loss of a grid of cells.
#[derive(Debug)]
struct GridLoss {
    /// Number of cells of a sample.
    cells: usize,
    classes: usize,
    objectness: Objectness,
}

impl LabelLoss for GridLoss {
    fn record(&self, b: &mut Builder, output: Output, n: usize) -> Vec<View> {
        let Output { y, dy, scalars } = output;
        let (cells, classes) = (n * self.cells, self.classes);
        let labels = b.tape.words("labels", cells);
        let boxes = b.tape.real("boxes", 4 * cells);
        let weights = b.tape.real("weights of cells", cells);
        let partials = b.tape.partials(SCALAR_PARTIALS);
        let [gamma, positive, negative] = match self.objectness {
            Objectness::Focal => [FOCAL[0], FOCAL[1], 1.0 - FOCAL[1]],
            Objectness::Bce => [0.0, 1.0, 1.0],
        };
        let [box_strength, class_strength] = STRENGTHS;
        b.tape.push(GridDetection {
            cells,
            classes,
            gamma,
            positive,
            negative,
            box_strength,
            class_strength,
            width: WIDTH,
            index: 0,
            y,
            labels,
            boxes,
            weights,
            scalars,
            dy,
            partials,
        });
        vec![labels, boxes, weights]
    }

    fn terms(&self) -> &'static [&'static str] {
        &["loss"]
    }

    /// The exact divisor is the number of cells that have an object: a few in each sample.
    fn divisor(&self, n: usize) -> f64 {
        n as f64
    }
}

/// Images with boxes in squares, at random zooms and positions.
#[derive(Debug)]
struct Squares<'a> {
    /// Side of the square in pixels, and of the grid in cells.
    sides: [usize; 2],
    set: &'a DetectionSet,
    augment: PoseAugment,
    seed: u64,
    batch: usize,
    parts: usize,
    epochs: Epochs,
    handles: Handles,
    /// The samples of the current step.
    squares: Vec<Square>,
    /// Number of cells of the current step that have an object; at least 1.
    positives: usize,
    /// The step that was prepared last.
    step: Option<u32>,
}

impl Batches for Squares<'_> {
    fn steps_per_epoch(&self) -> usize {
        self.epochs.steps()
    }

    /// An image's augmentation depends on the seed, the step and its place in the batch.
    fn advance(
        &mut self,
        device: &mut Device,
        params: &mut StepParams,
        part: usize,
        inputs: &Inputs,
    ) -> Result<()> {
        if self.step.replace(params.step) != Some(params.step) {
            self.read_squares(u64::from(params.step))?;
        }
        let n = self.batch / self.parts;
        let squares = &self.squares[part * n..][..n];
        let all = |of: fn(&Square) -> &[f32]| {
            squares.iter().flat_map(|square| of(square).iter().copied()).collect::<Vec<f32>>()
        };
        device.write(inputs.x, &all(|square| &square.pixels));
        let labels: Vec<u32> =
            squares.iter().flat_map(|square| square.targets.labels.iter().copied()).collect();
        device.write_words(inputs.labels[0], &labels);
        device.write(inputs.labels[1], &all(|square| &square.targets.boxes));
        let mut weights = all(|square| &square.targets.weights);
        weights.iter_mut().for_each(|weight| *weight /= self.positives as f32);
        if self.parts > 1 {
            // The gradients of the parts are averaged.
            weights.iter_mut().for_each(|weight| *weight *= self.parts as f32);
        }
        device.write(inputs.labels[2], &weights);
        Ok(())
    }
}

impl Squares<'_> {
    /// Reads the images of a step and puts them into squares.
    fn read_squares(&mut self, step: u64) -> Result<()> {
        let Self { sides, set, augment, seed, .. } = *self;
        let samples = self.epochs.batch(step);
        let mut read = Vec::with_capacity(samples.len());
        for number in &samples {
            read.push(AnnotatedImage {
                pixels: set.bytes(*number, &mut self.handles)?,
                dims: set.dims(*number),
                objects: &set.annotated[*number].1,
            });
        }
        let first = step * samples.len() as u64;
        let augmented = |(i, image): (usize, &AnnotatedImage<'_>)| {
            let mut stream = Stream::new(seed, "poses").skip((first + i as u64) * WORDS);
            augmented_square(image, sides, augment, JITTER, &mut stream)
        };
        self.squares = read.par_iter().enumerate().map(augmented).collect();
        let labels = self.squares.iter().flat_map(|square| &square.targets.labels);
        self.positives = labels.filter(|label| **label != u32::MAX).count().max(1);
        Ok(())
    }
}

/// Evaluates a detector on the images of a set with these indices. `progress` is called with the
/// number of images done.
///
/// # Errors
/// When a file cannot be read, or the device fails.
pub fn evaluate(
    device: &mut Device,
    detector: &mut Detector<'_>,
    set: &DetectionSet,
    indices: &[usize],
    mut progress: impl FnMut(usize),
) -> Result<Tally> {
    let mut tally = Tally::new(detector.classes().len());
    let (mut handles, mut done) = (Handles::default(), 0);
    for part in indices.chunks(BATCH) {
        let mut images = Vec::with_capacity(part.len());
        for index in part {
            images.push((set.bytes(*index, &mut handles)?, set.dims(*index)));
        }
        let images: Vec<(&[u8], Dims)> =
            images.iter().map(|(bytes, dims)| (bytes.as_ref(), *dims)).collect();
        let found: Vec<Vec<Detection>> = detector.find(device, &images, MIN_SCORE)?;
        part.iter()
            .zip(&found)
            .for_each(|(index, found)| tally.add(found, &set.annotated[*index].1));
        done += part.len();
        progress(done);
    }
    Ok(tally)
}
