//! A segmenter's training: crops of images with label images, by cross-entropy of pixels and Dice.

use std::borrow::Cow;

use rayon::prelude::*;

use super::judge::judge;
use super::labels::NONE;
use super::segmenter::Segmenter;
use super::set::Set;
use crate::data::Handles;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{Graph, Loaded, Store};
use crate::ops::{Dice, PixelCrossEntropy, SCALAR_PARTIALS};
use crate::rng::Stream;
use crate::shape::Dims;
use crate::tasks::supervised::{Ends, ROWS, Rates, Supervised, WIDTH};

/// What a class is spared by in Dice that has few pixels.
const SMOOTH: f64 = 1.0;
/// Crops of an image in an epoch at most, where it is larger than one.
const CROPS: usize = 16;

/// What is done to crops at random.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Changes {
    /// Left and right exchanged, every other time.
    pub flip: bool,
    /// Above and below exchanged, and rows and columns: all eight ways.
    pub turn: bool,
    /// Brightness moves by up to so much of the range, contrast by up to that share.
    pub jitter: f64,
}

/// What classes weigh.
#[derive(Clone, Debug, PartialEq)]
pub enum Balance {
    /// All the same.
    Even,
    /// The rarer, the more: the median of the classes' shares of pixels over its own (Eigen & Fergus 2015).
    Median,
    /// As given.
    Given(Vec<f64>),
}

/// How it is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Passes over the images at most.
    pub epochs: usize,
    /// How fast.
    pub lr: f64,
    /// The encoder's learning rate as a share of the decoder's.
    pub encoder_lr: f64,
    /// Epochs without a better validation after which it stops.
    pub patience: usize,
    /// What is done to crops.
    pub changes: Changes,
    /// What classes weigh in the cross-entropy.
    pub balance: Balance,
    /// Seed of weights, order, crops and changes.
    pub seed: u64,
}

/// An epoch's end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// Passes over the images.
    pub epoch: usize,
    /// Mean loss of its steps.
    pub loss: f64,
    /// Mean Dice of the images to validate on.
    pub dice: f64,
    /// Their mean intersection over union.
    pub iou: f64,
    /// Whether it is the best so far.
    pub best: bool,
}

/// A segmenter on a device, and a step of its training.
#[derive(Debug)]
pub struct Trainer<'a> {
    learner: Supervised<'a>,
    segmenter: Segmenter,
    input: Dims,
    classes: usize,
}

/// An image with the class of each of its pixels.
struct Read<'a> {
    size: (usize, usize),
    pixels: Cow<'a, [u8]>,
    classes: Cow<'a, [u8]>,
}

/// A crop, and the class of each of its pixels.
struct Crop {
    pixels: Vec<f32>,
    classes: Vec<u8>,
}

impl<'a> Trainer<'a> {
    /// Lays out steps of so many crops of the model's input; Dice counts `dice` times what cross-entropy does.
    ///
    /// # Errors
    /// When the device cannot hold it, or the model gives no class to each pixel.
    pub fn new(device: &mut Device, graph: &'a Graph, batch: usize, weight_decay: f64, dice: f64) -> Result<Self> {
        let input = graph.nodes[0].dims;
        let (pixels, classes) = (batch * input.area(), graph.spec.classes.len());
        let learner = Supervised::new(device, graph, batch, weight_decay, |b, Ends { y, dy, scalars }| {
            let (labels, weights) = (b.tape.words("labels", pixels), b.tape.real("weights of pixels", pixels));
            b.tape.keep(labels);
            b.tape.keep(weights);
            let q = b.tape.map("probabilities", pixels * classes);
            let partials = b.tape.real("sums of pixels", Dice::partials(pixels, classes).max(SCALAR_PARTIALS));
            b.tape.push(PixelCrossEntropy {
                pixels,
                classes,
                width: WIDTH,
                index: 0,
                y,
                labels,
                weights,
                scalars,
                q,
                dy,
                partials,
            });
            let (strength, smooth) = (dice, SMOOTH);
            if strength > 0.0 {
                b.tape.push(Dice {
                    pixels,
                    classes,
                    strength,
                    smooth,
                    width: WIDTH,
                    index: 1,
                    q,
                    labels,
                    weights,
                    dy,
                    scalars,
                    partials,
                });
            }
            vec![labels, weights]
        })?;
        let segmenter = Segmenter::new(graph, &learner.store)?;
        Ok(Self { learner, segmenter, input, classes })
    }

    /// Its values.
    pub const fn store(&self) -> &Store {
        &self.learner.store
    }

    /// What it has learned so far.
    pub const fn segmenter(&self) -> &Segmenter {
        &self.segmenter
    }

    /// Trains on some images of a set, and keeps the weights that do best on those of `held`. `pretrained` lends the encoder its values; without it they are
    /// drawn. Returns the best epoch.
    ///
    /// # Errors
    /// When the device fails, a file cannot be read any more, or a loss is no number.
    pub fn train(
        &mut self,
        device: &mut Device,
        pretrained: Option<&Loaded>,
        (set, fit): (&Set, &[usize]),
        (held_set, held): (&Set, &[usize]),
        options: &Options,
        mut tell: impl FnMut(Epoch) -> Result<()>,
    ) -> Result<Epoch> {
        self.learner.begin(device, pretrained, options.seed)?;
        let class_weights = self.class_weights(set, fit, &options.balance)?;
        let area = self.input.area();
        let crops = |number: &usize| {
            let (h, w) = set.size(*number);
            (h * w).div_ceil(area).clamp(1, CROPS)
        };
        let all: Vec<usize> = fit.iter().flat_map(|number| std::iter::repeat_n(*number, crops(number))).collect();
        let batch = self.learner.batch;
        let steps = all.len().div_ceil(batch);
        let rates = Rates { lr: options.lr, encoder_lr: options.encoder_lr, total: (steps * options.epochs) as u64 };
        let (mut best, mut kept, mut since, mut step) = (None::<Epoch>, self.learner.values(device)?, 0, 0);
        let mut handles = Handles::default();
        for epoch in 1..=options.epochs {
            let order = Stream::new(options.seed, "order").skip((epoch * all.len()) as u64).permutation(all.len());
            // the last batch is filled up from the front
            let order: Vec<u32> = order.iter().cycle().take(steps * batch).copied().collect();
            let mut loss = 0.0;
            for rows in order.chunks(ROWS * batch) {
                for (row, chosen) in rows.chunks_exact(batch).enumerate() {
                    let numbers: Vec<usize> = chosen.iter().map(|i| all[*i as usize]).collect();
                    let crops = self.crops(set, &numbers, &mut handles, options, step)?;
                    self.write(device, &crops, &class_weights);
                    self.learner.step(device, step, row, options.seed, rates)?;
                    step += 1;
                }
                // without Dice its part stays 0
                loss += self.learner.losses(device, rows.len() / batch, 2, step, options.lr)?;
            }
            let judged = judge(device, &self.segmenter, held_set, held, |_| {})?;
            let scores = judged.marks.scores();
            // later is better where it is as good: the rate has fallen
            let better = best.is_none_or(|best| judged.image_dice >= best.dice);
            let end = Epoch { epoch, loss: loss / steps as f64, dice: judged.image_dice, iou: scores.mean_iou, best: better };
            if better {
                (best, kept) = (Some(end), self.learner.values(device)?);
            }
            since = if better { 0 } else { since + 1 };
            tell(end)?;
            if since >= options.patience {
                break;
            }
        }
        self.learner.restore(device, &kept);
        best.ok_or_else(|| Error::usage("--epochs 0: nothing is learned"))
    }

    /// What each class weighs.
    fn class_weights(&self, set: &Set, fit: &[usize], balance: &Balance) -> Result<Vec<f64>> {
        match balance {
            Balance::Even => Ok(vec![1.0; self.classes]),
            Balance::Given(weights) => Ok(weights.clone()),
            Balance::Median => {
                let mut counts = vec![0.0_f64; self.classes];
                for number in fit {
                    set.classes(*number)?
                        .iter()
                        .filter(|class| **class != NONE)
                        .for_each(|class| counts[usize::from(*class)] += 1.0);
                }
                let mut some: Vec<f64> = counts.iter().copied().filter(|count| *count > 0.0).collect();
                some.sort_by(f64::total_cmp);
                let median = some.get(some.len() / 2).copied().unwrap_or(1.0);
                Ok(counts.iter().map(|count| if *count > 0.0 { median / count } else { 1.0 }).collect())
            }
        }
    }

    /// Crops of some images, changed at random: what happens to one depends on the seed, the step and its place in the batch.
    fn crops(&self, set: &Set, numbers: &[usize], handles: &mut Handles, options: &Options, step: u64) -> Result<Vec<Crop>> {
        let mut read = Vec::with_capacity(numbers.len());
        for number in numbers {
            read.push(Read { size: set.size(*number), pixels: set.bytes(*number, handles)?, classes: set.classes(*number)? });
        }
        let first = step * numbers.len() as u64;
        let (input, changes, seed) = (self.input, options.changes, options.seed);
        let crop = |(i, image): (usize, &Read<'_>)| {
            let mut stream = Stream::new(seed, "crops").skip((first + i as u64) * 8);
            crop(input, image, changes, &mut stream)
        };
        Ok(read.par_iter().enumerate().map(crop).collect())
    }

    fn write(&self, device: &mut Device, crops: &[Crop], class_weights: &[f64]) {
        let pixels: Vec<f32> = crops.iter().flat_map(|crop| crop.pixels.iter().copied()).collect();
        device.write(self.learner.x, &pixels);
        let classes = || crops.iter().flat_map(|crop| crop.classes.iter().copied());
        let weight = |class: u8| if class == NONE { 0.0 } else { class_weights[usize::from(class)] };
        let all: f64 = classes().map(weight).sum::<f64>().max(f64::MIN_POSITIVE);
        let labels: Vec<u32> = classes().map(u32::from).collect();
        let weights: Vec<f32> = classes().map(|class| (weight(class) / all) as f32).collect();
        device.write_words(self.learner.answers[0], &labels);
        device.write(self.learner.answers[1], &weights);
    }
}

/// A crop of the model's input, changed at random.
fn crop(input: Dims, image: &Read<'_>, changes: Changes, stream: &mut Stream) -> Crop {
    let Dims { c, h: side_h, w: side_w } = input;
    let Read { size: (h, w), pixels, classes } = image;
    let (h, w) = (*h, *w);
    let mut part = |length: usize, side: usize| if length > side { stream.below(length - side + 1) } else { 0 };
    let (top, left) = (part(h, side_h), part(w, side_w));
    let mut coin = |wanted: bool| wanted && stream.below(2) == 1;
    let (right, below, across) = (coin(changes.flip || changes.turn), coin(changes.turn), coin(changes.turn && side_h == side_w));
    let mut by = |range: f64| (range * f64::from(2.0 * stream.uniform() - 1.0)) as f32;
    let (brightness, contrast) = (by(changes.jitter), 1.0 + by(changes.jitter));
    let mut out = Crop { pixels: Vec::with_capacity(input.len()), classes: Vec::with_capacity(input.area()) };
    for y in 0..side_h {
        for x in 0..side_w {
            let (y, x) = if across { (x, y) } else { (y, x) };
            let y = top + if below { side_h - 1 - y } else { y };
            let x = left + if right { side_w - 1 - x } else { x };
            // beyond the image: its mirror, which does not count
            let at = folded(y, h) * w + folded(x, w);
            out.classes.push(if y < h && x < w { classes[at] } else { NONE });
            let value = |byte: &u8| ((f32::from(*byte) / 255.0 - 0.5) * contrast + 0.5 + brightness).clamp(0.0, 1.0);
            out.pixels.extend(pixels[at * c..(at + 1) * c].iter().map(value));
        }
    }
    out
}

/// Where a place lies in a side that is mirrored at its end.
fn folded(at: usize, side: usize) -> usize {
    let at = at % (2 * side);
    if at < side { at } else { 2 * side - 1 - at }
}
