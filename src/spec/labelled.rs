//! What a run learns from labels: the tables `[classify]`, `[segment]` and `[detect]`.

use serde::{Deserialize, Serialize};

use super::Config;
use crate::error::{Error, Result};

/// Kinds of runs that learn from labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelledKind {
    /// A class for each image.
    Classify,
    /// A class for each pixel.
    Segment,
    /// Boxes and classes of objects.
    Detect,
}

impl LabelledKind {
    /// The preset that its runs begin with: everything but the model and the data.
    pub const fn preset(self) -> &'static str {
        match self {
            Self::Classify => include_str!("../../assets/presets/labelled/classify.toml"),
            Self::Segment => include_str!("../../assets/presets/labelled/segment.toml"),
            Self::Detect => include_str!("../../assets/presets/labelled/detect.toml"),
        }
    }

    /// Its table in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::Segment => "segment",
            Self::Detect => "detect",
        }
    }
}

/// How a classifier's head starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadStart {
    /// As the linear classifier of the encoder's features that fits the labelled images (Kumar et
    /// al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
    /// 2022).
    #[default]
    Probe,
    /// With random weights.
    Fresh,
}

/// A classifier's training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassifySpec {
    /// Labelled images to learn from, drawn by the seed evenly over the classes; 0: all.
    pub labels: usize,
    /// How the head starts.
    pub head: HeadStart,
    /// Largest random shift along each side, in pixels; black comes in.
    pub shift: usize,
    /// Resize images to the model's input, and convert them to its channels.
    pub resize: bool,
    /// Labelled images to test on, once, at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
}

/// Augmentation of crops for segmentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentAugment {
    /// None.
    None,
    /// Left-right flips.
    #[default]
    Flip,
    /// All eight dihedral transforms, and small changes of brightness and contrast: for images
    /// without a top and a bottom.
    All,
}

/// A segmenter's training. Crops have the size of the model's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SegmentSpec {
    /// Folder of label images; none: `labels` or `masks` beside the images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Labels number objects: 0 is the background, every other number the foreground.
    pub instances: bool,
    /// Label of pixels that do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore: Option<u16>,
    /// Images to learn from, drawn by the seed; 0: all.
    pub images: usize,
    /// Augmentation.
    pub augment: SegmentAugment,
    /// Weights of classes in the cross-entropy: `even`, `median` (the median of the classes' pixel
    /// counts over each class's count: Eigen & Fergus 2015), or numbers, comma-separated.
    pub class_weights: String,
    /// Weight of the Dice loss beside the cross-entropy.
    pub dice: f64,
    /// Images with labels to test on, once, at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
}

impl Default for SegmentSpec {
    fn default() -> Self {
        Self {
            labels: None,
            instances: false,
            ignore: None,
            images: 0,
            augment: SegmentAugment::Flip,
            class_weights: "even".to_owned(),
            dice: 1.0,
            test: None,
        }
    }
}

/// Augmentation of images for detection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoseAugment {
    /// None.
    None,
    /// Zoom, translation, left-right flips.
    #[default]
    Move,
    /// Also all dihedral transforms, and small changes of brightness and contrast: for images
    /// without a top and a bottom.
    All,
}

/// The loss of objectness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objectness {
    /// Focal loss with γ 2 and α 0.25 (Lin et al. 2017).
    #[default]
    Focal,
    /// Binary cross-entropy.
    Bce,
}

/// A detector's training. Images are scaled into the square that is the model's input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectSpec {
    /// Folder of Pascal VOC's XML files; none: `Annotations` beside the images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<String>,
    /// COCO's JSON file instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coco: Option<String>,
    /// Only the images of this list in `ImageSets/Main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The list of the images to validate on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_split: Option<String>,
    /// Images to learn from, drawn by the seed; 0: all.
    pub images: usize,
    /// Augmentation.
    pub augment: PoseAugment,
    /// The loss of objectness.
    pub objectness: Objectness,
    /// Images with boxes to test on, once, at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// The list of the images to test on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_split: Option<String>,
}

/// Fails unless the tables of labelled tasks make sense together.
pub(super) fn check(config: &Config) -> Result<()> {
    let tables = [config.classify.is_some(), config.segment.is_some(), config.detect.is_some()];
    if tables.iter().filter(|there| **there).count() > 1 {
        return Err(Error::usage(
            "classify, segment, detect: a run trains one of them; leave the other tables out",
        ));
    }
    if let Some(segment) = &config.segment
        && !(segment.dice.is_finite() && segment.dice >= 0.0)
    {
        return Err(Error::usage(format!(
            "segment.dice = {}: it must be a number of at least 0",
            segment.dice
        )));
    }
    if config.labelled().is_some() {
        if config.sparsity.penalty != "none" || config.sparsity.revive_strength > 0.0 {
            return Err(Error::usage(
                "sparsity: a labelled run has no sparsity penalty; leave the table out",
            ));
        }
        if !config.corruption.is_none() {
            return Err(Error::usage(
                "corruption: a labelled run does not corrupt its images; leave the table out",
            ));
        }
    }
    Ok(())
}
