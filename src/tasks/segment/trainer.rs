//! Training of a segmenter on crops of images with label images, with cross-entropy of pixels and
//! the Dice loss.

use rayon::prelude::*;
use serde_json::json;

use super::crops::{Crop, LabelledPixels, Sampling};
use super::evaluate::evaluate;
use super::segmenter::Segmenter;
use crate::annotations::label_image::IGNORED;
use crate::annotations::label_set::SegmentationSet;
use crate::data::{Handles, Subset};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::model::Graph;
use crate::ops::{Dice, PixelCrossEntropy, SCALAR_PARTIALS};
use crate::record::Builder;
use crate::shape::{Dims, Size};
use crate::spec::{Config, SegmentSpec};
use crate::train::feed::{Batches, Inputs};
use crate::train::labelled::Epochs;
use crate::train::run::{Task, ValidationResult};
use crate::train::step::{LabelLoss, Output, WIDTH};
use crate::train::{Run, RunFolder, Trainer, checkpoint::Checkpoint};
use crate::view::{StepParams, View};

/// Added to both sides of Dice's fraction, so that a class with few pixels does not dominate.
const SMOOTH: f64 = 1.0;
/// Maximum number of crops of an image in an epoch, so that a large image does not dominate.
const MAX_CROPS: usize = 16;

/// Result of a validation of a segmenter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentationResult {
    /// Mean Dice over images.
    pub dice: f64,
    /// Mean intersection over union of the classes, over all pixels. It decides which weights are
    /// the best: unlike a mean over images, it varies little with classes that are rare in an
    /// image.
    pub iou: f64,
    /// Name of the images that it was validated on.
    pub on: &'static str,
}

impl std::fmt::Display for SegmentationResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: Dice {:.4}, IoU {:.4}", self.on, self.dice, self.iou)
    }
}

impl ValidationResult for SegmentationResult {
    fn score(&self) -> f64 {
        self.iou
    }

    fn numbers(&self) -> serde_json::Value {
        json!({"dice": self.dice, "mean_iou": self.iou})
    }
}

/// Validation of a segmenter during its training.
#[derive(Debug)]
pub struct Segmentation<'a> {
    /// The model with its current values.
    pub segmenter: Segmenter,
    held: Subset<'a, SegmentationSet>,
}

impl Task for Segmentation<'_> {
    type Validation = SegmentationResult;

    fn validate(&mut self, device: &mut Device) -> Result<SegmentationResult> {
        let Subset { set, indices, name } = &self.held;
        let scores = evaluate(device, &self.segmenter, set, indices, |_| {})?;
        let iou = scores.confusion.scores().mean_iou;
        Ok(SegmentationResult { dice: scores.image_dice, iou, on: name })
    }

    fn keeps_best(&self) -> bool {
        true
    }
}

/// Sets up the training of a segmenter on `fit`, validated on `held`. `data` is the size of all
/// images in host memory, in bytes.
///
/// # Errors
/// When it takes more memory than is allowed, or the model does not classify every pixel.
pub fn begin_training<'a>(
    device: &mut Device,
    folder: &RunFolder,
    config: &'a Config,
    graph: &'a Graph,
    (fit, held): (&Subset<'a, SegmentationSet>, Subset<'a, SegmentationSet>),
    data: u64,
    from: Option<&Checkpoint>,
) -> Result<Run<'a, Segmentation<'a>>> {
    Segmenter::check(graph)?;
    let spec = config.segment.clone().unwrap_or_default();
    let input = graph.nodes[0].dims;
    let loss = PixelLoss { area: input.area(), classes: graph.spec.classes.len(), dice: spec.dice };
    let samples: Vec<usize> = fit
        .indices
        .iter()
        .flat_map(|number| std::iter::repeat_n(*number, crops_of(fit.set, *number, input)))
        .collect();
    let crops = Crops {
        set: fit.set,
        sampling: Sampling {
            input,
            augment: spec.augment,
            crops: spec.crops,
            class_weights: class_weights(fit, &spec)?,
            seed: config.seed,
        },
        batch: config.train.batch,
        parts: config.train.accumulate,
        epochs: Epochs::new(samples, config.train.batch, config.seed),
        handles: Handles::default(),
        crops: Vec::new(),
        weights: Vec::new(),
        step: None,
    };
    let hash = data_hash(fit).with(&data_hash(&held).value().to_le_bytes()).value();
    let trainer =
        Trainer::labelled(device, config, graph, &loss, Box::new(crops), data, from.is_none())?;
    let task = Segmentation { segmenter: Segmenter::new(graph, &trainer.store)?, held };
    Run::begin(device, folder, config, (trainer, task), hash, from)
}

/// Hash of the images' numbers and sizes.
fn data_hash(part: &Subset<SegmentationSet>) -> Hash {
    let sizes: Vec<u64> = part
        .indices
        .iter()
        .flat_map(|number| {
            let Size { h, w } = part.set.size(*number);
            [*number as u64, h as u64, w as u64]
        })
        .collect();
    Hash::default().with(bytemuck::cast_slice(&sizes))
}

/// Number of crops of an image in an epoch: enough to cover its area, at most [`MAX_CROPS`].
fn crops_of(set: &SegmentationSet, number: usize, input: Dims) -> usize {
    set.size(number).area().div_ceil(input.area()).clamp(1, MAX_CROPS)
}

/// Number of samples of an epoch over some images, for a model's input.
pub fn samples(part: &Subset<SegmentationSet>, input: Dims) -> usize {
    part.indices.iter().map(|number| crops_of(part.set, *number, input)).sum()
}

/// Parses and checks `segment.class_weights`. `None` for `even` and `median`.
///
/// # Errors
/// When they are neither `even` nor `median` nor a number for each class.
pub fn check_class_weights(text: &str, classes: usize) -> Result<Option<Vec<f64>>> {
    if ["even", "median"].contains(&text) {
        return Ok(None);
    }
    let weights: Vec<f64> = text.split(',').map_while(|part| part.trim().parse().ok()).collect();
    let complete = weights.len() == classes && text.split(',').count() == classes;
    let valid = weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0);
    if !complete || !valid || weights.iter().sum::<f64>() == 0.0 {
        return Err(Error::usage(format!(
            "class weights {text}: give even, median, or {classes} numbers of at least 0, \
             comma-separated, one for each class"
        )));
    }
    Ok(Some(weights))
}

/// The weight of each class.
fn class_weights(part: &Subset<SegmentationSet>, spec: &SegmentSpec) -> Result<Vec<f64>> {
    let classes = part.set.labelling.classes.len();
    if let Some(weights) = check_class_weights(&spec.class_weights, classes)? {
        return Ok(weights);
    }
    if spec.class_weights == "even" {
        return Ok(vec![1.0; classes]);
    }
    let mut counts = vec![0_u64; classes];
    for number in &part.indices {
        part.set
            .classes(*number)?
            .iter()
            .filter(|class| **class != IGNORED)
            .for_each(|class| counts[usize::from(*class)] += 1);
    }
    Ok(median_weights(&counts))
}

/// The median of the counts that are not 0 over each count; 1 where it is 0.
fn median_weights(counts: &[u64]) -> Vec<f64> {
    let mut some: Vec<u64> = counts.iter().copied().filter(|count| *count > 0).collect();
    some.sort_unstable();
    let median = some.get(some.len() / 2).copied().unwrap_or(1) as f64;
    counts.iter().map(|count| if *count > 0 { median / *count as f64 } else { 1.0 }).collect()
}

/// Cross-entropy of pixels, and the Dice loss.
#[derive(Debug)]
pub struct PixelLoss {
    /// Number of pixels of a sample.
    pub area: usize,
    /// Number of classes.
    pub classes: usize,
    /// Weight of the Dice loss.
    pub dice: f64,
}

impl LabelLoss for PixelLoss {
    fn record(&self, b: &mut Builder, output: Output, n: usize) -> Vec<View> {
        let Output { y, dy, scalars } = output;
        let (pixels, classes, width) = (n * self.area, self.classes, WIDTH);
        let labels = b.tape.words("labels", pixels);
        let weights = b.tape.real("weights of pixels", pixels);
        let q = b.tape.map("probabilities", pixels * classes);
        let partials = Dice::partials(pixels, classes).max(SCALAR_PARTIALS);
        let partials = b.tape.partials(partials);
        b.tape.push(PixelCrossEntropy {
            pixels,
            classes,
            width,
            index: 0,
            y,
            labels,
            weights,
            scalars,
            q,
            dy,
            partials,
        });
        if self.dice > 0.0 {
            b.tape.push(Dice {
                pixels,
                classes,
                strength: self.dice,
                smooth: SMOOTH,
                width,
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
    }

    /// Without Dice the second term stays 0.
    fn terms(&self) -> &'static [&'static str] {
        &["cross_entropy", "dice_loss"]
    }

    fn divisor(&self, n: usize) -> f64 {
        (n * self.area) as f64
    }
}

/// Random crops of images with label images.
#[derive(Debug)]
struct Crops<'a> {
    sampling: Sampling,
    set: &'a SegmentationSet,
    batch: usize,
    parts: usize,
    epochs: Epochs,
    handles: Handles,
    /// The crops of the current step, and the weights of their pixels.
    crops: Vec<Crop>,
    weights: Vec<f32>,
    /// The step that was prepared last.
    step: Option<u32>,
}

impl Batches for Crops<'_> {
    fn steps_per_epoch(&self) -> usize {
        self.epochs.steps()
    }

    /// A crop's augmentation depends on the seed, the step and its place in the batch.
    fn advance(
        &mut self,
        device: &mut Device,
        params: &mut StepParams,
        part: usize,
        inputs: &Inputs,
    ) -> Result<()> {
        if self.step.replace(params.step) != Some(params.step) {
            self.cut(u64::from(params.step))?;
        }
        let n = self.batch / self.parts;
        let crops = &self.crops[part * n..][..n];
        let pixels: Vec<f32> = crops.iter().flat_map(|crop| crop.pixels.iter().copied()).collect();
        let labels: Vec<u32> = crops
            .iter()
            .flat_map(|crop| crop.classes.iter().map(|class| (*class).into()))
            .collect();
        device.write(inputs.x, &pixels);
        device.write_words(inputs.labels[0], &labels);
        device.write(inputs.labels[1], &self.weights[part * labels.len()..][..labels.len()]);
        Ok(())
    }
}

impl Crops<'_> {
    /// Reads the images of a step and cuts its crops.
    fn cut(&mut self, step: u64) -> Result<()> {
        let (set, sampling) = (self.set, &self.sampling);
        let samples = self.epochs.batch(step);
        let mut read = Vec::with_capacity(samples.len());
        for number in &samples {
            read.push(LabelledPixels {
                size: set.size(*number),
                pixels: set.bytes(*number, &mut self.handles)?,
                classes: set.classes(*number)?,
            });
        }
        let first = step * samples.len() as u64;
        let cut = |(i, image): (usize, &LabelledPixels<'_>)| sampling.crop(image, first + i as u64);
        self.crops = read.par_iter().enumerate().map(cut).collect();
        let classes = self.crops.iter().flat_map(|crop| crop.classes.iter().copied());
        self.weights = pixel_weights(classes, &sampling.class_weights);
        if self.parts > 1 {
            // The gradients of the parts are averaged, but the weights must add up to 1 over all
            // parts.
            self.weights.iter_mut().for_each(|weight| *weight *= self.parts as f32);
        }
        Ok(())
    }
}

/// The weight of each pixel: the weight of its class, divided by the sum over all pixels. Ignored
/// pixels have weight 0.
fn pixel_weights(classes: impl Iterator<Item = u8>, class_weights: &[f64]) -> Vec<f32> {
    let weight = |class: u8| if class == IGNORED { 0.0 } else { class_weights[usize::from(class)] };
    let weights: Vec<f64> = classes.map(weight).collect();
    let all = weights.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    weights.into_iter().map(|weight| (weight / all) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_classes_weigh_more() {
        assert_eq!(median_weights(&[80, 20, 0, 5]), [0.25, 1.0, 1.0, 4.0]);
        let weights = pixel_weights([0, 1, IGNORED, 1].into_iter(), &[2.0, 1.0]);
        assert_eq!(weights, [0.5, 0.25, 0.0, 0.25]);
    }
}
