//! What a run trains other than an autoencoder: the tables `[classify]`, `[segment]`, `[detect]`
//! and `[prior]`.

use serde::{Deserialize, Serialize};

use super::{Config, DataSpec, Expectation, LossSpec, PenaltyName};
use crate::error::{Error, Result};

/// What a run trains other than an autoencoder. The layers that are added for it are the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// A class for each image.
    Classify,
    /// A class for each pixel.
    Segment,
    /// Boxes and classes of objects.
    Detect,
    /// A probability model of the codes of an autoencoder.
    Prior,
}

impl HeadKind {
    /// The default configuration of its runs, without model and data.
    pub const fn preset(self) -> &'static str {
        match self {
            Self::Classify => include_str!("../../assets/presets/heads/classify.toml"),
            Self::Segment => include_str!("../../assets/presets/heads/segment.toml"),
            Self::Detect => include_str!("../../assets/presets/heads/detect.toml"),
            Self::Prior => include_str!("../../assets/presets/heads/prior.toml"),
        }
    }

    /// What to expect of it, with the default configuration.
    pub const fn expectation(self) -> Expectation {
        match self {
            Self::Classify => {
                Expectation::new("labelled images", "minutes", "4.3 % errors, 300 labels (MNIST)")
            }
            Self::Segment => {
                Expectation::new("images and label images", "12 min", "Dice 0.89 (nuclei)")
            }
            Self::Detect => {
                Expectation::new("images and boxes", "26 min", "mAP 0.79 at IoU 0.5 (BCCD)")
            }
            Self::Prior => {
                Expectation::new("images of the model", "2 min", "Fréchet distance 22 (MNIST)")
            }
        }
    }

    /// Name of its table in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::Segment => "segment",
            Self::Detect => "detect",
            Self::Prior => "prior",
        }
    }
}

/// Initialisation of a classifier's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadStart {
    /// A linear classifier fitted to the encoder's features of the labelled images (Kumar et al.,
    /// "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", 2022).
    #[default]
    Probe,
    /// Random weights.
    Fresh,
}

/// Options of training a classifier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassifySpec {
    /// Number of labelled training images, sampled by the seed evenly over the classes; 0: all.
    pub labels: usize,
    /// Initialisation of the head.
    pub head: HeadStart,
    /// Augmentation: maximum random shift along each side, in pixels, filled with black.
    pub shift: usize,
    /// Whether to resize images to the model's input and convert them to its channels.
    pub resize: bool,
    /// Source of labelled test images, evaluated once at the end.
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
    /// Left-right flips, zoom by 0.7 to 1.4, and small changes of brightness, contrast and colour:
    /// for photographs.
    Photo,
}

/// How the positions of crops for segmentation are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentCrops {
    /// Anywhere, with the same probability.
    #[default]
    Random,
    /// Around a random pixel of a random class of the image, so that its rare classes are seen as
    /// often as its others.
    Balanced,
}

/// Options of training a segmenter. Crops have the size of the model's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SegmentSpec {
    /// Folder of label images. The default is `labels` or `masks` beside the images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Whether labels are instance numbers: 0 is background, every other number is foreground.
    pub instances: bool,
    /// Label of pixels to ignore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore: Option<u16>,
    /// Number of training images, sampled by the seed; 0: all.
    pub images: usize,
    /// Augmentation.
    pub augment: SegmentAugment,
    /// How the positions of crops are chosen.
    pub crops: SegmentCrops,
    /// Weights of classes in the cross-entropy: `even`, `median` (the median of the classes' pixel
    /// counts over each class's count: Eigen & Fergus 2015), or numbers, comma-separated.
    pub class_weights: String,
    /// Weight of the Dice loss, which is added to the cross-entropy.
    pub dice: f64,
    /// Source of test images with labels, evaluated once at the end.
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
            crops: SegmentCrops::Random,
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

/// Loss of the objectness of a detector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objectness {
    /// Focal loss with γ 2 and α 0.25 (Lin et al. 2017).
    #[default]
    Focal,
    /// Binary cross-entropy.
    Bce,
}

/// Options of training a detector. Images are scaled into the square input of the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectSpec {
    /// Folder of Pascal VOC XML files. The default is `Annotations` beside the images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<String>,
    /// COCO JSON file, instead of Pascal VOC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coco: Option<String>,
    /// Name of the list of training images in Pascal VOC's `ImageSets/Main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Name of the list of validation images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_split: Option<String>,
    /// Number of training images, sampled by the seed; 0: all.
    pub images: usize,
    /// Augmentation.
    pub augment: PoseAugment,
    /// Loss of the objectness.
    pub objectness: Objectness,
    /// Source of test images with boxes, evaluated once at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// Name of the list of test images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_split: Option<String>,
}

/// Options of fitting priors to the codes of an autoencoder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PriorSpec {
    /// File of the autoencoder.
    pub model: String,
    /// Total number of Gaussians of the mixture; 0: the number with the best Bayesian information
    /// criterion.
    pub components: usize,
    /// Whether to ignore the classes of images.
    pub ignore_labels: bool,
    /// Whether to resize images to the model's input and convert them to its channels. Otherwise
    /// priors are fitted to patches of larger images.
    pub resize: bool,
}

impl Config {
    /// What the run trains other than an autoencoder, if it does.
    pub const fn head(&self) -> Option<HeadKind> {
        match (&self.classify, &self.segment, &self.detect, &self.prior) {
            (Some(_), ..) => Some(HeadKind::Classify),
            (_, Some(_), ..) => Some(HeadKind::Segment),
            (.., Some(_), _) => Some(HeadKind::Detect),
            (.., Some(_)) => Some(HeadKind::Prior),
            _ => None,
        }
    }
}

/// Checks the tables of heads, and that other tables have no key that a run of a head ignores.
pub(super) fn check(config: &Config) -> Result<()> {
    let Config { classify, segment, detect, prior, .. } = config;
    let tables = [classify.is_some(), segment.is_some(), detect.is_some(), prior.is_some()];
    if tables.iter().filter(|there| **there).count() > 1 {
        return Err(Error::usage(
            "classify, segment, detect, prior: a run trains one of them; remove the other tables",
        ));
    }
    if let Some(segment) = segment
        && !(segment.dice.is_finite() && segment.dice >= 0.0)
    {
        return Err(Error::usage(format!(
            "segment.dice = {}: it must be a finite number, at least 0",
            segment.dice
        )));
    }
    let Some(kind) = config.head() else { return Ok(()) };
    let sparsity = &config.sparsity;
    let sets = sparsity.revive_strength > 0.0 || sparsity.aux_alpha > 0.0;
    if sparsity.penalty != PenaltyName::None || sets {
        return Err(Error::usage(format!(
            "sparsity: a run with [{}] has no sparsity penalty; remove the table",
            kind.name()
        )));
    }
    if !config.corruption.is_none() {
        return Err(Error::usage(format!(
            "corruption: a run with [{}] does not corrupt its images; remove the table",
            kind.name()
        )));
    }
    if config.loss != LossSpec::default() {
        return Err(Error::usage(format!(
            "loss: a run with [{}] has its own loss; remove the table",
            kind.name()
        )));
    }
    check_data(kind, &config.data)?;
    if kind == HeadKind::Prior && config.optimizer.encoder_lr != 1.0 {
        return Err(Error::usage(
            "optimizer.encoder_lr: the network of a prior has no encoder; remove this setting",
        ));
    }
    Ok(())
}

/// Checks that `[data]` has only the keys that a head reads.
fn check_data(kind: HeadKind, data: &DataSpec) -> Result<()> {
    let (mut read, mut names) = (
        DataSpec {
            source: data.source.clone(),
            strict: data.strict,
            validation: data.validation,
            ..DataSpec::default()
        },
        vec!["source", "strict", "validation"],
    );
    match kind {
        HeadKind::Classify => {
            read.flip_x = data.flip_x;
            names.push("flip_x");
        }
        HeadKind::Segment | HeadKind::Detect => {
            read.validation_source.clone_from(&data.validation_source);
            names.push("validation_source");
        }
        HeadKind::Prior => {}
    }
    if *data == read {
        return Ok(());
    }
    Err(Error::usage(format!(
        "data: a run with [{}] reads only the keys {}; remove the others",
        kind.name(),
        names.join(", ")
    )))
}
