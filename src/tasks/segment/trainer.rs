//! A segmenter's training: crops of images with label images, by cross-entropy of pixels and Dice.

use std::borrow::Cow;

use rayon::prelude::*;

use super::judge::judge;
use super::segmenter::Segmenter;
use crate::data::Handles;
use crate::data::annotations::label_image::NONE;
use crate::data::annotations::label_set::Set;
use crate::device::Device;
use crate::error::Result;
use crate::infer::tiles::mirrored;
use crate::model::{Graph, LoadedModel, Store};
use crate::ops::{Dice, PixelCrossEntropy, SCALAR_PARTIALS};
use crate::rng::Stream;
use crate::shape::Dims;
use crate::train::supervised::{Ends, Lesson, Mark, Plan, Supervised, Trained, WIDTH, Watch};

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
    /// The rarer, the more: the median of the classes' shares of pixels over its own (Eigen &
    /// Fergus 2015).
    Median,
    /// As given.
    Given(Vec<f64>),
}

/// How it is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How the training goes.
    pub plan: Plan,
    /// What is done to crops.
    pub changes: Changes,
    /// What classes weigh in the cross-entropy.
    pub balance: Balance,
}

/// What is found on images to validate on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Mean over images of each one's Dice.
    pub dice: f64,
    /// Mean intersection over union of the classes, of all pixels: what the best weights are chosen
    /// by, since a class that an image hardly has says little there.
    pub iou: f64,
}

impl Mark for Found {
    fn mark(&self) -> f64 {
        self.iou
    }
}

/// A segmenter on a device, and a step of its training.
#[derive(Debug)]
pub struct Trainer<'a> {
    learner: Supervised<'a>,
    segmenter: Segmenter,
    input: Dims,
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
    /// Lays out steps of so many crops of the model's input, beside so many bytes of images; Dice
    /// counts `dice` times what cross-entropy does.
    ///
    /// # Errors
    /// When the device cannot hold it, or the model gives no class to each pixel.
    pub fn new(
        device: &mut Device,
        graph: &'a Graph,
        (batch, data): (usize, u64),
        weight_decay: f64,
        dice: f64,
    ) -> Result<Self> {
        let input = graph.nodes[0].dims;
        let (pixels, classes) = (batch * input.area(), graph.spec.classes.len());
        let learner = Supervised::new(
            device,
            graph,
            batch,
            weight_decay,
            data,
            |b, Ends { y, dy, scalars }| {
                let (labels, weights) =
                    (b.tape.words("labels", pixels), b.tape.real("weights of pixels", pixels));
                b.tape.keep(labels);
                b.tape.keep(weights);
                let q = b.tape.map("probabilities", pixels * classes);
                let partials = b
                    .tape
                    .real("sums of pixels", Dice::partials(pixels, classes).max(SCALAR_PARTIALS));
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
            },
        )?;
        let segmenter = Segmenter::new(graph, &learner.store)?;
        Ok(Self { learner, segmenter, input })
    }

    /// Its values.
    pub const fn store(&self) -> &Store {
        &self.learner.store
    }

    /// What it has learned so far.
    pub const fn segmenter(&self) -> &Segmenter {
        &self.segmenter
    }

    /// Crops of an image in an epoch: as many as cover it, at most 16.
    fn crops(&self, set: &Set, number: usize) -> usize {
        let (h, w) = set.size(number);
        (h * w).div_ceil(self.input.area()).clamp(1, CROPS)
    }

    /// Crops of some images in an epoch.
    pub fn samples(&self, set: &Set, fit: &[usize]) -> usize {
        fit.iter().map(|number| self.crops(set, *number)).sum()
    }

    /// Trains on some images of a set, and keeps the weights that do best on those of `held`.
    /// `pretrained` lends the encoder its values; without it they are drawn.
    ///
    /// # Errors
    /// When the device fails, a file cannot be read any more, or a loss is no number.
    pub fn train(
        &self,
        device: &mut Device,
        pretrained: Option<&LoadedModel>,
        (set, fit): (&Set, &[usize]),
        held: (&Set, &[usize]),
        options: &Options,
        watch: &mut Watch<'_, Found>,
    ) -> Result<Trained<Found>> {
        self.learner.begin(device, pretrained, options.plan.seed)?;
        let Self { learner, segmenter, input, .. } = self;
        let class_weights = class_weights(set, fit, &options.balance)?;
        let all: Vec<usize> = fit
            .iter()
            .flat_map(|number| std::iter::repeat_n(*number, self.crops(set, *number)))
            .collect();
        let (changes, seed) = (options.changes, options.plan.seed);
        let mut lesson = Crops {
            segmenter,
            input: *input,
            set,
            held,
            class_weights,
            changes,
            seed,
            handles: Handles::default(),
        };
        learner.train(device, &all, &options.plan, false, &mut lesson, watch)
    }
}

/// What each class weighs.
fn class_weights(set: &Set, fit: &[usize], balance: &Balance) -> Result<Vec<f64>> {
    let classes = set.labelling.classes.len();
    match balance {
        Balance::Even => Ok(vec![1.0; classes]),
        Balance::Given(weights) => Ok(weights.clone()),
        Balance::Median => {
            let mut counts = vec![0_u64; classes];
            for number in fit {
                set.classes(*number)?
                    .iter()
                    .filter(|class| **class != NONE)
                    .for_each(|class| counts[usize::from(*class)] += 1);
            }
            Ok(median_weights(&counts))
        }
    }
}

/// The median of the counts that are not 0 over each count; 1 where it is 0.
fn median_weights(counts: &[u64]) -> Vec<f64> {
    let mut some: Vec<u64> = counts.iter().copied().filter(|count| *count > 0).collect();
    some.sort_unstable();
    let median = some.get(some.len() / 2).copied().unwrap_or(1) as f64;
    counts.iter().map(|count| if *count > 0 { median / *count as f64 } else { 1.0 }).collect()
}

/// Crops of labelled images, and whole ones to validate on.
struct Crops<'t> {
    segmenter: &'t Segmenter,
    input: Dims,
    set: &'t Set,
    held: (&'t Set, &'t [usize]),
    class_weights: Vec<f64>,
    changes: Changes,
    seed: u64,
    handles: Handles,
}

impl Lesson for Crops<'_> {
    type Judged = Found;
    // without Dice its part stays 0
    const PARTS: usize = 2;

    /// What happens to a crop depends on the seed, the step and its place in the batch.
    fn feed(
        &mut self,
        device: &mut Device,
        learner: &Supervised<'_>,
        samples: &[usize],
        step: u64,
    ) -> Result<()> {
        let Self { input, set, changes, seed, .. } = *self;
        let mut read = Vec::with_capacity(samples.len());
        for number in samples {
            read.push(Read {
                size: set.size(*number),
                pixels: set.bytes(*number, &mut self.handles)?,
                classes: set.classes(*number)?,
            });
        }
        let first = step * samples.len() as u64;
        let cut = |(i, image): (usize, &Read<'_>)| {
            let mut stream = Stream::new(seed, "crops").skip((first + i as u64) * 8);
            crop(input, image, changes, &mut stream)
        };
        let crops: Vec<Crop> = read.par_iter().enumerate().map(cut).collect();
        let pixels: Vec<f32> = crops.iter().flat_map(|crop| crop.pixels.iter().copied()).collect();
        device.write(learner.x, &pixels);
        let classes = || crops.iter().flat_map(|crop| crop.classes.iter().copied());
        device.write_words(learner.answers[0], &classes().map(u32::from).collect::<Vec<u32>>());
        device.write(learner.answers[1], &pixel_weights(classes(), &self.class_weights));
        Ok(())
    }

    fn judge(&mut self, device: &mut Device) -> Result<Found> {
        let judged = judge(device, self.segmenter, self.held.0, self.held.1, |_| {})?;
        Ok(Found { dice: judged.image_dice, iou: judged.marks.scores().mean_iou })
    }
}

/// What each pixel weighs: as its class, all together 1; 0 where it does not count.
fn pixel_weights(classes: impl Iterator<Item = u8>, class_weights: &[f64]) -> Vec<f32> {
    let weight = |class: u8| if class == NONE { 0.0 } else { class_weights[usize::from(class)] };
    let weights: Vec<f64> = classes.map(weight).collect();
    let all = weights.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    weights.into_iter().map(|weight| (weight / all) as f32).collect()
}

/// A crop of the model's input, changed at random.
fn crop(input: Dims, image: &Read<'_>, changes: Changes, stream: &mut Stream) -> Crop {
    let Dims { c, h: side_h, w: side_w } = input;
    let Read { size: (h, w), pixels, classes } = image;
    let (h, w) = (*h, *w);
    let mut part = |length: usize, side: usize| {
        if length > side { stream.below(length - side + 1) } else { 0 }
    };
    let (top, left) = (part(h, side_h), part(w, side_w));
    let mut coin = |wanted: bool| wanted && stream.below(2) == 1;
    let (right, below, across) = (
        coin(changes.flip || changes.turn),
        coin(changes.turn),
        coin(changes.turn && side_h == side_w),
    );
    let mut by = |range: f64| (range * f64::from(2.0 * stream.uniform() - 1.0)) as f32;
    let (brightness, contrast) = (by(changes.jitter), 1.0 + by(changes.jitter));
    let mut out =
        Crop { pixels: Vec::with_capacity(input.len()), classes: Vec::with_capacity(input.area()) };
    for y in 0..side_h {
        for x in 0..side_w {
            let (y, x) = if across { (x, y) } else { (y, x) };
            let y = top + if below { side_h - 1 - y } else { y };
            let x = left + if right { side_w - 1 - x } else { x };
            // beyond the image: its mirror, which does not count
            let at = mirrored(y, h) * w + mirrored(x, w);
            out.classes.push(if y < h && x < w { classes[at] } else { NONE });
            let value = |byte: &u8| {
                ((f32::from(*byte) / 255.0 - 0.5) * contrast + 0.5 + brightness).clamp(0.0, 1.0)
            };
            out.pixels.extend(pixels[at * c..(at + 1) * c].iter().map(value));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_classes_weigh_more() {
        assert_eq!(median_weights(&[80, 20, 0, 5]), [0.25, 1.0, 1.0, 4.0]);
        let weights = pixel_weights([0, 1, NONE, 1].into_iter(), &[2.0, 1.0]);
        assert_eq!(weights, [0.5, 0.25, 0.0, 0.25]);
    }

    #[test]
    fn labels_turn_with_their_pixels() {
        // each pixel's class is its value; 5×7, smaller than the crop along one side
        let pixels: Vec<u8> = (0..35).collect();
        let image =
            Read { size: (5, 7), pixels: Cow::Borrowed(&pixels), classes: Cow::Borrowed(&pixels) };
        let changes = Changes { flip: true, turn: true, jitter: 0.0 };
        let mut corners = std::collections::HashSet::new();
        for seed in 0..40 {
            let crop = crop(Dims::new(1, 6, 6), &image, changes, &mut Stream::new(seed, "test"));
            let values: Vec<u8> =
                crop.pixels.iter().map(|value| (value * 255.0).round() as u8).collect();
            assert_eq!(crop.classes.iter().filter(|class| **class == NONE).count(), 6);
            assert!(
                crop.classes
                    .iter()
                    .zip(&values)
                    .all(|(class, value)| *class == NONE || class == value),
                "{seed}"
            );
            corners.insert(values[0]);
        }
        assert!(corners.len() >= 8, "{corners:?}");
    }
}
