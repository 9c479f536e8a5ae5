//! A detector's training: images laid in squares, objects given to cells, and the loss of a grid of
//! cells.

use std::borrow::Cow;

use rayon::prelude::*;

use super::detector::Detector;
use super::frame::letterbox;
use crate::data::Handles;
use crate::data::annotations::box_files::Object;
use crate::data::annotations::box_set::Set;
use crate::data::annotations::boxes::{Bounds, Detection};
use crate::device::Device;
use crate::error::Result;
use crate::metrics::precision::Tally;
use crate::model::{Graph, HEAD, LoadedModel, Store};
use crate::ops::{GridDetection, SCALAR_PARTIALS};
use crate::rng::Stream;
use crate::train::supervised::{Ends, Lesson, Mark, Plan, Supervised, Trained, WIDTH, Watch};

/// Cells whose middles lie as near to that of an object, in cells, and inside of it, are to find it
/// (centre sampling: Tian et al., "FCOS", 2019).
const NEAR: f64 = 1.5;
/// Focal loss: γ, and the weight of cells where something is; those where nothing is have the rest.
const FOCAL: [f64; 2] = [2.0, 0.25];
/// What boxes and classes count beside objectness.
const STRENGTHS: [f64; 2] = [2.0, 1.0];
/// How likely it is at first that something is in a cell.
const RARE: f64 = 0.01;
/// Zoom at random: from, to.
const ZOOM: [f64; 2] = [0.75, 1.3];
/// Detections with at least this score are judged.
const JUDGED: f64 = 0.01;
/// Images that are judged at a time.
const AT_ONCE: usize = 16;

/// What is done to images at random.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Changes {
    /// Zoomed from 0.75 to 1.3 times, and moved; left and right exchanged every other time.
    pub move_: bool,
    /// Above and below exchanged, and rows and columns: all eight ways.
    pub turn: bool,
    /// Brightness moves by up to so much of the range, contrast by up to that share.
    pub jitter: f64,
}

/// How it is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// How the training goes.
    pub plan: Plan,
    /// What is done to images.
    pub changes: Changes,
}

/// mAP@0.5 of images to validate on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found(pub f64);

impl Mark for Found {
    fn mark(&self) -> f64 {
        self.0
    }
}

/// A detector on a device, and a step of its training.
#[derive(Debug)]
pub struct Trainer<'a> {
    learner: Supervised<'a>,
    detector: Detector<'a>,
}

/// An image as it is read.
struct Given<'a> {
    pixels: Cow<'a, [u8]>,
    size: [usize; 3],
    objects: &'a [Object],
}

/// An image in its square, with what each cell is to say.
struct Posed {
    pixels: Vec<f32>,
    labels: Vec<u32>,
    boxes: Vec<f32>,
    weights: Vec<f32>,
}

impl<'a> Trainer<'a> {
    /// Lays out steps of so many images, beside so many bytes of all. `focal`: focal loss of
    /// objectness, else binary cross-entropy.
    ///
    /// # Errors
    /// When the device cannot hold it, or the model has no grid head.
    pub fn new(
        device: &mut Device,
        graph: &'a Graph,
        (batch, data): (usize, u64),
        weight_decay: f64,
        focal: bool,
    ) -> Result<Self> {
        Detector::check(graph)?;
        let classes = graph.spec.classes.len();
        let cells = batch * graph.nodes[graph.output].dims.area();
        let learner = Supervised::new(
            device,
            graph,
            batch,
            weight_decay,
            data,
            |b, Ends { y, dy, scalars }| {
                let labels = b.tape.words("labels", cells);
                let (boxes, weights) =
                    (b.tape.real("boxes", 4 * cells), b.tape.real("weights of cells", cells));
                [labels, boxes, weights].into_iter().for_each(|view| b.tape.keep(view));
                let partials = b.tape.real("sums of cells", SCALAR_PARTIALS);
                let [gamma, positive, negative] =
                    if focal { [FOCAL[0], FOCAL[1], 1.0 - FOCAL[1]] } else { [0.0, 1.0, 1.0] };
                let [box_strength, class_strength] = STRENGTHS;
                let (width, index) = (WIDTH, 0);
                b.tape.push(GridDetection {
                    cells,
                    classes,
                    gamma,
                    positive,
                    negative,
                    box_strength,
                    class_strength,
                    width,
                    index,
                    y,
                    labels,
                    boxes,
                    weights,
                    scalars,
                    dy,
                    partials,
                });
                vec![labels, boxes, weights]
            },
        )?;
        let detector = Detector::new(graph, &learner.store)?;
        Ok(Self { learner, detector })
    }

    /// Its values.
    pub const fn store(&self) -> &Store {
        &self.learner.store
    }

    /// What it has learned so far.
    pub const fn detector(&mut self) -> &mut Detector<'a> {
        &mut self.detector
    }

    /// Trains on some images of a set, and keeps the weights that do best on those of `held`.
    /// `pretrained` lends the encoder its values; without it they are drawn.
    ///
    /// # Errors
    /// When the device fails, a file cannot be read any more, or a loss is no number.
    pub fn train(
        &mut self,
        device: &mut Device,
        pretrained: Option<&LoadedModel>,
        (set, fit): (&Set, &[usize]),
        held: (&Set, &[usize]),
        options: &Options,
        watch: &mut Watch<'_, Found>,
    ) -> Result<Trained<Found>> {
        self.learner.begin(device, pretrained, options.plan.seed)?;
        self.expect(device, set, fit);
        let Self { learner, detector } = self;
        let graph = learner.graph;
        let sides = [graph.nodes[0].dims.h, graph.nodes[graph.output].dims.w];
        let (changes, seed) = (options.changes, options.plan.seed);
        let mut lesson =
            Squares { detector, sides, set, held, changes, seed, handles: Handles::default() };
        learner.train(device, fit, &options.plan, false, &mut lesson, watch)
    }

    /// Lets the last layer begin with what is usual: rarely something in a cell, and boxes of the
    /// mean size.
    fn expect(&self, device: &mut Device, set: &Set, fit: &[usize]) {
        let graph = self.learner.graph;
        let grid = graph.nodes[graph.output].dims;
        let mut sizes = [0.0_f64; 2];
        let mut count = 0.0_f64;
        for number in fit {
            let [h, w, _] = set.size(*number);
            let cells = grid.w as f64 / h.max(w) as f64;
            for object in &set.answered[*number].1 {
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
        let at =
            graph.params.iter().position(|param| param.name == name).expect("the head has a bias");
        device.write(self.learner.store.weight(at), &graph.params[at].pack(&bias));
    }
}

/// Images with boxes, laid in squares, and others to validate on.
struct Squares<'t, 'a> {
    detector: &'t mut Detector<'a>,
    /// Of the square, in pixels, and of the grid, in cells.
    sides: [usize; 2],
    set: &'t Set,
    held: (&'t Set, &'t [usize]),
    changes: Changes,
    seed: u64,
    handles: Handles,
}

impl Lesson for Squares<'_, '_> {
    type Judged = Found;
    const PARTS: usize = 1;

    /// What happens to an image depends on the seed, the step and its place in the batch.
    fn feed(
        &mut self,
        device: &mut Device,
        learner: &Supervised<'_>,
        samples: &[usize],
        step: u64,
    ) -> Result<()> {
        let Self { sides, set, changes, seed, .. } = *self;
        let mut read = Vec::with_capacity(samples.len());
        for number in samples {
            read.push(Given {
                pixels: set.bytes(*number, &mut self.handles)?,
                size: set.size(*number),
                objects: &set.answered[*number].1,
            });
        }
        let first = step * samples.len() as u64;
        let lay = |(i, given): (usize, &Given<'_>)| {
            let mut stream = Stream::new(seed, "poses").skip((first + i as u64) * 8);
            pose(given, sides, changes, &mut stream)
        };
        let posed: Vec<Posed> = read.par_iter().enumerate().map(lay).collect();
        let all = |of: fn(&Posed) -> &[f32]| {
            posed.iter().flat_map(|posed| of(posed).iter().copied()).collect::<Vec<f32>>()
        };
        device.write(learner.x, &all(|posed| &posed.pixels));
        let labels: Vec<u32> =
            posed.iter().flat_map(|posed| posed.labels.iter().copied()).collect();
        let here = labels.iter().filter(|label| **label != u32::MAX).count().max(1);
        device.write_words(learner.answers[0], &labels);
        device.write(learner.answers[1], &all(|posed| &posed.boxes));
        let weights: Vec<f32> =
            all(|posed| &posed.weights).into_iter().map(|weight| weight / here as f32).collect();
        device.write(learner.answers[2], &weights);
        Ok(())
    }

    fn judge(&mut self, device: &mut Device) -> Result<Found> {
        Ok(Found(judge(device, self.detector, self.held.0, self.held.1, |_| {})?.precision().map50))
    }
}

fn pose(
    given: &Given<'_>,
    [side, cells]: [usize; 2],
    changes: Changes,
    stream: &mut Stream,
) -> Posed {
    let Given { pixels, size, objects } = given;
    let size = *size;
    let mut real = |from: f64, to: f64| from + (to - from) * f64::from(stream.uniform());
    let (zoom, at) = if changes.move_ {
        ((real(ZOOM[0].ln(), ZOOM[1].ln())).exp(), [real(0.0, 1.0), real(0.0, 1.0)])
    } else {
        (1.0, [0.5, 0.5])
    };
    let brightness = real(-changes.jitter, changes.jitter) as f32;
    let contrast = 1.0 + real(-changes.jitter, changes.jitter) as f32;
    let mut coin = |wanted: bool| wanted && stream.below(2) == 1;
    let (right, below, across) =
        (coin(changes.move_ || changes.turn), coin(changes.turn), coin(changes.turn));
    let (square, frame) = letterbox(pixels, size, side, zoom, at);
    let c = size[2];
    let mut laid = Vec::with_capacity(square.len());
    for y in 0..side {
        for x in 0..side {
            let (y, x) = if across { (x, y) } else { (y, x) };
            let from = (if below { side - 1 - y } else { y } * side
                + if right { side - 1 - x } else { x })
                * c;
            laid.extend(
                square[from..from + c]
                    .iter()
                    .map(|value| ((value - 0.5) * contrast + 0.5 + brightness).clamp(0.0, 1.0)),
            );
        }
    }
    let whole = side as f64;
    let turned = |bounds: Bounds| {
        let Bounds { mut left, mut top, right: mut right_edge, mut bottom } = bounds;
        if right {
            (left, right_edge) = (whole - right_edge, whole - left);
        }
        if below {
            (top, bottom) = (whole - bottom, whole - top);
        }
        if across {
            Bounds { left: top, top: left, right: bottom, bottom: right_edge }
        } else {
            Bounds { left, top, right: right_edge, bottom }
        }
    };
    let objects: Vec<Object> = objects
        .iter()
        .map(|object| Object { bounds: turned(frame.laid(&object.bounds)), ..*object })
        .collect();
    let Posed { labels, boxes, weights, .. } = assigned(&objects, side, cells);
    Posed { pixels: laid, labels, boxes, weights }
}

/// What each cell is to say. Of objects that want the same cell, the smaller one has it. An object
/// of which less than a quarter is inside is left out, and cells that it covers do not count, nor
/// do those covered by what need not be found.
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

/// Judges a detector by some images of a set, told apart by their numbers. `look` is called after
/// each part with how many are done.
///
/// # Errors
/// When a file cannot be read any more, or the device fails.
pub fn judge(
    device: &mut Device,
    detector: &mut Detector<'_>,
    set: &Set,
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
            .for_each(|(number, found)| tally.add(found, &set.answered[*number].1));
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
        let changes = Changes { move_: true, turn: true, jitter: 0.0 };
        for seed in 0..24 {
            let given =
                Given { pixels: Cow::Borrowed(&pixels), size: [24, 32, 1], objects: &objects };
            let posed = pose(&given, [32, 32], changes, &mut Stream::new(seed, "test"));
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
