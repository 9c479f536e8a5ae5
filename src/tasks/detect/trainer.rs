//! A detector's training: images scaled into squares, objects assigned to cells, and the loss of a
//! grid of cells.

use std::borrow::Cow;

use rayon::prelude::*;
use serde_json::json;

use super::detector::Detector;
use super::frame::letterbox;
use crate::data::Handles;
use crate::data::annotations::box_files::Object;
use crate::data::annotations::box_set::DetectionSet;
use crate::data::annotations::boxes::{Bounds, Detection};
use crate::data::augment::{Flips, Jitter};
use crate::device::Device;
use crate::error::Result;
use crate::hash::Hash;
use crate::metrics::precision::Tally;
use crate::model::{Graph, HEAD, Store};
use crate::ops::{GridDetection, SCALAR_PARTIALS};
use crate::record::Builder;
use crate::rng::Stream;
use crate::spec::{Config, Objectness, PoseAugment};
use crate::train::feed::{Batches, Inputs};
use crate::train::labelled::Epochs;
use crate::train::run::{Task, ValidationResult};
use crate::train::step::{LabelLoss, Output, WIDTH};
use crate::train::{Run, RunFolder, Trainer, checkpoint::Checkpoint};
use crate::view::{StepParams, View};

/// An object is assigned to the cells inside it whose centres lie within this many cells of its own
/// (centre sampling: Tian et al., "FCOS", 2019).
const NEAR: f64 = 1.5;
/// Focal loss: γ and α (weight of positive cells; negatives get 1 − α), as in Lin et al. 2017.
const FOCAL: [f64; 2] = [2.0, 0.25];
/// Weights of the box loss and the class loss beside objectness.
const STRENGTHS: [f64; 2] = [2.0, 1.0];
/// Initial probability that a cell has an object, as in Lin et al. 2017: most have none, and a
/// higher one makes the first steps unstable.
const RARE: f64 = 0.01;
/// Range of random zoom.
const ZOOM: [f64; 2] = [0.75, 1.3];
/// Largest change of brightness and contrast, as a share of the range.
const JITTER: f64 = 0.1;
/// Smallest score of the detections that are evaluated: average precision needs the low ones too.
const JUDGED: f64 = 0.01;
/// Images that are evaluated at once.
const AT_ONCE: usize = 16;

/// A validation of a detector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// mAP at an IoU of 0.5.
    pub map50: f64,
    /// What it was validated on.
    pub on: &'static str,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: mAP@0.5 {:.4}", self.on, self.map50)
    }
}

impl ValidationResult for Found {
    fn score(&self) -> f64 {
        self.map50
    }

    fn numbers(&self) -> serde_json::Value {
        json!({"map50": self.map50})
    }
}

/// Images with boxes, and which of them are used.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// The images.
    pub set: &'a DetectionSet,
    /// Numbers of those that are used.
    pub numbers: Vec<usize>,
    /// What they are, for people.
    pub name: &'static str,
}

/// Validation of a detector that is being trained.
#[derive(Debug)]
pub struct Detecting<'a> {
    /// The model as it is.
    pub detector: Detector<'a>,
    held: Part<'a>,
}

impl Task for Detecting<'_> {
    type Validation = Found;

    fn validate(&mut self, device: &mut Device) -> Result<Found> {
        let Part { set, numbers, name } = &self.held;
        let tally = judge(device, &mut self.detector, set, numbers, |_| {})?;
        Ok(Found { map50: tally.precision().map50, on: name })
    }

    fn keeps_best(&self) -> bool {
        true
    }
}

/// Lays out the training of a detector on some images, validated on others. `data` is what all
/// images take in the host's memory, in bytes.
///
/// # Errors
/// When it takes more memory than is allowed, or the model has no grid head.
pub fn run<'a>(
    device: &mut Device,
    folder: &RunFolder,
    config: &'a Config,
    graph: &'a Graph,
    (fit, held): (&Part<'a>, Part<'a>),
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
        epochs: Epochs::new(fit.numbers.clone(), config.train.batch, config.seed),
        handles: Handles::default(),
        posed: Vec::new(),
        positives: 1,
    };
    let hash = data_hash(fit).with(&data_hash(&held).value().to_le_bytes()).value();
    let trainer =
        Trainer::labelled(device, config, graph, &loss, Box::new(squares), data, from.is_none())?;
    if from.is_none() {
        expect(device, graph, &trainer.store, fit);
    }
    let task = Detecting { detector: Detector::new(graph, &trainer.store)?, held };
    Run::begin(device, folder, config, (trainer, task), hash, from)
}

/// Hash of the images' numbers and sizes and of their objects' boxes.
fn data_hash(part: &Part) -> Hash {
    part.numbers.iter().fold(Hash::default(), |hash, number| {
        let [h, w, _] = part.set.size(*number);
        let mut words = vec![*number as u64, h as u64, w as u64];
        for object in &part.set.annotated[*number].1 {
            let Bounds { left, top, right, bottom } = object.bounds;
            words.push(object.class as u64);
            words.extend([left, top, right, bottom].map(f64::to_bits));
        }
        hash.with(bytemuck::cast_slice(&words))
    })
}

/// Initialises the biases of the last layer: objects are rare, and boxes have the mean size of
/// those to learn from.
fn expect(device: &mut Device, graph: &Graph, store: &Store, part: &Part) {
    let grid = graph.nodes[graph.output].dims;
    let mut sizes = [0.0_f64; 2];
    let mut count = 0.0_f64;
    for number in &part.numbers {
        let [h, w, _] = part.set.size(*number);
        let cells = grid.w as f64 / h.max(w) as f64;
        for object in &part.set.annotated[*number].1 {
            let Bounds { left, top, right, bottom } = object.bounds;
            sizes[0] += ((right - left) * cells).ln();
            sizes[1] += ((bottom - top) * cells).ln();
            count += 1.0;
        }
    }
    let mut bias = vec![0.0_f32; grid.c];
    bias[0] = (RARE / (1.0 - RARE)).ln() as f32;
    (0..2).for_each(|k| bias[3 + k] = (sizes[k] / count.max(1.0)) as f32);
    let name = format!("{HEAD}.bias");
    let at = graph.params.iter().position(|param| param.name == name).expect("the head has a bias");
    device.write(store.weight(at), &graph.params[at].pack(&bias));
}

/// The loss of a grid of cells.
#[derive(Debug)]
struct GridLoss {
    /// Cells of a sample.
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
        let partials = b.tape.real("sums of cells", SCALAR_PARTIALS);
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

    /// The loss is divided by the number of positive cells, of which a sample has a few.
    fn divisor(&self, n: usize) -> f64 {
        n as f64
    }
}

/// An image as it is read.
struct Given<'a> {
    pixels: Cow<'a, [u8]>,
    size: [usize; 3],
    objects: &'a [Object],
}

/// An image in its square, with the target of each cell.
#[derive(Debug)]
struct Posed {
    pixels: Vec<f32>,
    labels: Vec<u32>,
    boxes: Vec<f32>,
    weights: Vec<f32>,
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
    /// The images of the step under way, and the number of their positive cells, at least 1.
    posed: Vec<Posed>,
    positives: usize,
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
        if part == 0 {
            self.pose_all(u64::from(params.step))?;
        }
        let n = self.batch / self.parts;
        let posed = &self.posed[part * n..][..n];
        let all = |of: fn(&Posed) -> &[f32]| {
            posed.iter().flat_map(|posed| of(posed).iter().copied()).collect::<Vec<f32>>()
        };
        device.write(inputs.x, &all(|posed| &posed.pixels));
        let labels: Vec<u32> =
            posed.iter().flat_map(|posed| posed.labels.iter().copied()).collect();
        device.write_words(inputs.labels[0], &labels);
        device.write(inputs.labels[1], &all(|posed| &posed.boxes));
        let mut weights = all(|posed| &posed.weights);
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
    /// Reads the images of a step and lays them into their squares.
    fn pose_all(&mut self, step: u64) -> Result<()> {
        let Self { sides, set, augment, seed, .. } = *self;
        let samples = self.epochs.batch(step);
        let mut read = Vec::with_capacity(samples.len());
        for number in &samples {
            read.push(Given {
                pixels: set.bytes(*number, &mut self.handles)?,
                size: set.size(*number),
                objects: &set.annotated[*number].1,
            });
        }
        let first = step * samples.len() as u64;
        let lay = |(i, given): (usize, &Given<'_>)| {
            // An image draws eight words at most.
            let mut stream = Stream::new(seed, "poses").skip((first + i as u64) * 8);
            pose(given, sides, augment, JITTER, &mut stream)
        };
        self.posed = read.par_iter().enumerate().map(lay).collect();
        let labels = self.posed.iter().flat_map(|posed| &posed.labels);
        self.positives = labels.filter(|label| **label != u32::MAX).count().max(1);
        Ok(())
    }
}

fn pose(
    given: &Given<'_>,
    [side, cells]: [usize; 2],
    augment: PoseAugment,
    jitter: f64,
    stream: &mut Stream,
) -> Posed {
    let Given { pixels, size, objects } = given;
    let size = *size;
    let (moves, all) = (augment != PoseAugment::None, augment == PoseAugment::All);
    let range = if all { jitter } else { 0.0 };
    let mut real = |from: f64, to: f64| from + (to - from) * f64::from(stream.uniform());
    let (zoom, at) = if moves {
        ((real(ZOOM[0].ln(), ZOOM[1].ln())).exp(), [real(0.0, 1.0), real(0.0, 1.0)])
    } else {
        (1.0, [0.5, 0.5])
    };
    let brightness = real(-range, range) as f32;
    let jitter = Jitter { brightness, contrast: 1.0 + real(-range, range) as f32 };
    let flips = Flips::draw(Flips { flip_x: moves, flip_y: all, transpose: all }, stream);
    let (square, frame) = letterbox(pixels, size, side, zoom, at);
    let c = size[2];
    let mut laid = Vec::with_capacity(square.len());
    for y in 0..side {
        for x in 0..side {
            let (y, x) = flips.source(y, x, side, side);
            let from = (y * side + x) * c;
            laid.extend(square[from..from + c].iter().map(|value| jitter.apply(*value)));
        }
    }
    let turned = |object: &Object| {
        let bounds = flips.bounds(frame.laid(&object.bounds), side as f64);
        Object { bounds, ..*object }
    };
    let objects: Vec<Object> = objects.iter().map(turned).collect();
    let Posed { labels, boxes, weights, .. } = assigned(&objects, side, cells);
    Posed { pixels: laid, labels, boxes, weights }
}

/// The targets of each cell. A cell that two objects claim belongs to the smaller one. An object
/// with less than a quarter of its area inside the square is left out. The cells that it covers do
/// not count, and neither do those covered by difficult or crowd objects.
fn assigned(objects: &[Object], side: usize, cells: usize) -> Posed {
    let stride = side as f64 / cells as f64;
    let n = cells * cells;
    let mut posed = Posed {
        pixels: Vec::new(),
        labels: vec![u32::MAX; n],
        boxes: vec![0.0; 4 * n],
        weights: vec![1.0; n],
    };
    let mut owner = vec![f64::INFINITY; n];
    for object in objects {
        let inside = object.bounds.clipped(side, side);
        let whole = object.bounds.area();
        if inside.area() <= 0.0 {
            continue;
        }
        let found = !object.ignored() && inside.area() >= 0.25 * whole;
        let Bounds { left, top, right, bottom } = inside;
        let middle = [(left + right) / 2.0 / stride, (top + bottom) / 2.0 / stride];
        let own = [middle[0] as usize, middle[1] as usize].map(|at| at.min(cells - 1));
        for row in (top / stride) as usize..((bottom / stride).ceil() as usize).min(cells) {
            for column in (left / stride) as usize..((right / stride).ceil() as usize).min(cells) {
                let at = row * cells + column;
                let from = [column as f64 + 0.5, row as f64 + 0.5];
                let covered = (left..right).contains(&(from[0] * stride))
                    && (top..bottom).contains(&(from[1] * stride));
                if !found {
                    if covered && owner[at].is_infinite() {
                        posed.weights[at] = 0.0;
                    }
                    continue;
                }
                let near = (0..2).all(|k| (middle[k] - from[k]).abs() <= NEAR);
                if [column, row] != own && !(near && covered) || inside.area() >= owner[at] {
                    continue;
                }
                owner[at] = inside.area();
                posed.weights[at] = 1.0;
                posed.labels[at] = object.class as u32;
                let values = [
                    middle[0] - from[0],
                    middle[1] - from[1],
                    (right - left) / stride,
                    (bottom - top) / stride,
                ];
                posed.boxes[4 * at..4 * at + 4]
                    .iter_mut()
                    .zip(values)
                    .for_each(|(to, value)| *to = value as f32);
            }
        }
    }
    posed
}

/// Evaluates a detector on the images of a set with these numbers. `look` is called with the number
/// of images done so far.
///
/// # Errors
/// When a file cannot be read any more, or the device fails.
pub fn judge(
    device: &mut Device,
    detector: &mut Detector<'_>,
    set: &DetectionSet,
    numbers: &[usize],
    mut look: impl FnMut(usize),
) -> Result<Tally> {
    let mut tally = Tally::new(detector.classes().len());
    let (mut handles, mut done) = (Handles::default(), 0);
    for part in numbers.chunks(AT_ONCE) {
        let mut images = Vec::with_capacity(part.len());
        for number in part {
            images.push((set.bytes(*number, &mut handles)?, set.size(*number)));
        }
        let images: Vec<(&[u8], [usize; 3])> =
            images.iter().map(|(bytes, size)| (bytes.as_ref(), *size)).collect();
        let found: Vec<Vec<Detection>> = detector.find(device, &images, JUDGED)?;
        part.iter()
            .zip(&found)
            .for_each(|(number, found)| tally.add(found, &set.annotated[*number].1));
        done += part.len();
        look(done);
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(class: usize, [left, top, right, bottom]: [f64; 4]) -> Object {
        Object {
            class,
            bounds: Bounds { left, top, right, bottom },
            difficult: false,
            crowd: false,
        }
    }

    #[test]
    fn cells_are_given_to_objects() {
        // 4×4 cells of 8 pixels: one over all, a small one in the second cell, one that is only
        // just inside
        let objects = [
            object(0, [0.0, 0.0, 32.0, 32.0]),
            object(1, [9.0, 1.0, 13.0, 3.0]),
            object(2, [-30.0, 24.0, 2.0, 32.0]),
        ];
        let posed = assigned(&objects, 32, 4);
        let at = |row: usize, column: usize| posed.labels[4 * row + column];
        assert_eq!([at(1, 1), at(2, 2), at(0, 1), at(3, 0)], [0, 0, 1, 0]);
        assert!(!posed.labels.contains(&2));
        // the small one's middle lies half a cell left and a quarter above that of its cell
        let expected = [11.0 / 8.0 - 1.5, 2.0 / 8.0 - 0.5, 0.5, 0.25];
        assert!(
            posed.boxes[4..8].iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6),
            "{:?}",
            &posed.boxes[4..8]
        );
        let crowd = Object { crowd: true, ..object(0, [0.0, 0.0, 16.0, 8.0]) };
        let none = assigned(&[crowd], 32, 4);
        assert_eq!(none.weights[..4], [0.0, 0.0, 1.0, 1.0]);
        assert!(none.labels.iter().all(|label| *label == u32::MAX));
    }

    #[test]
    fn the_smaller_object_has_the_cell_that_two_want() {
        let (large, small) =
            (object(0, [8.0, 8.0, 24.0, 24.0]), object(1, [17.0, 17.0, 21.0, 21.0]));
        for objects in [[large, small], [small, large]] {
            let posed = assigned(&objects, 32, 4);
            assert_eq!([posed.labels[4 + 1], posed.labels[4 * 2 + 2]], [0, 1], "{objects:?}");
            assert_eq!(posed.boxes[4 * (4 * 2 + 2) + 2], 0.5, "{objects:?}");
        }
    }

    #[test]
    fn boxes_turn_with_their_pixels() {
        // one bright block: after any change its box still holds it
        let mut pixels = vec![0_u8; 24 * 32];
        (4..10).for_each(|y| pixels[y * 32 + 6..y * 32 + 22].fill(255));
        let objects = [object(0, [6.0, 4.0, 22.0, 10.0])];
        for seed in 0..24 {
            let given =
                Given { pixels: Cow::Borrowed(&pixels), size: [24, 32, 1], objects: &objects };
            let posed =
                pose(&given, [32, 32], PoseAugment::All, 0.0, &mut Stream::new(seed, "test"));
            let here: Vec<usize> = (0..1024).filter(|at| posed.labels[*at] == 0).collect();
            assert!(!here.is_empty(), "{seed}");
            for at in here {
                let of = &posed.boxes[4 * at..4 * at + 4];
                let middle = [(at % 32) as f32 + 0.5 + of[0], (at / 32) as f32 + 0.5 + of[1]];
                let value = |dx: f32, dy: f32| {
                    let [x, y] = [middle[0] + dx * of[2], middle[1] + dy * of[3]]
                        .map(|v| (v as usize).min(31));
                    posed.pixels[y * 32 + x]
                };
                assert!(
                    value(0.0, 0.0) > 0.8 && value(0.3, 0.25) > 0.5 && value(-0.3, -0.25) > 0.5,
                    "{seed}: {of:?}"
                );
                assert!(of[2] * of[3] > 30.0, "{seed}: {of:?}");
            }
        }
    }
}
