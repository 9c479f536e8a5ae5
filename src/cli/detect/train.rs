//! `csae detect train`

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{Boxes, as_json, print, report_set};
use crate::annotations::box_set::{Annotations, DetectionSet};
use crate::budget::Budget;
use crate::cli::annotated::{AnnotatedTask, RunImages, default_epochs, train};
use crate::cli::learning::{Begin, Encoding, Learning, absolute};
use crate::cli::ranks::RanksArgs;
use crate::cli::{CommandArgs, Common, budget};
use crate::data::{LoadOptions, Subset};
use crate::device::Device;
use crate::error::Result;
use crate::metrics::precision::AveragePrecision;
use crate::model::{Context, Decoder, Graph};
use crate::ops::CELL;
use crate::spec::{Config, DetectSpec, HeadKind, Objectness as Loss, PoseAugment};
use crate::tasks::detect::{Detecting, begin_training, evaluate};
use crate::train::checkpoint::Checkpoint;
use crate::train::{Run, RunFolder};

/// The loss of objectness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Objectness {
    /// Focal loss, γ 2, α 0.25
    Focal,
    /// Binary cross-entropy
    Bce,
}

/// Augmentation of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Augment {
    /// None
    None,
    /// Zoom, translation, left-right flips
    Move,
    /// Also all flips and rotations by 90 degrees, and small changes of brightness and contrast:
    /// for images without a preferred orientation
    All,
}

/// Dilations of the 3×3 layers between the maps and the last layer. Together they have a receptive
/// field of 19×19 cells.
const CONTEXT: [usize; 4] = [1, 2, 4, 2];

/// Train a detector: a model's encoder, and a head that predicts for each cell of a grid whether an
/// object's centre is near, its box and its class.
///
/// A part of the images is held out for validation, unless --validation gives others. The weights
/// with the best mAP@0.5 in validation become model.safetensors (for `csae detect eval` and
/// `predict`). The run folder also gets config.toml, metrics.jsonl, checkpoints for `csae resume`,
/// and detect.json with the results.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae train images/ --preset pyramid --out runs/pyramid
  csae detect train runs/pyramid VOC/ --split train --validation VOC/ --validation-split val -o runs/detector
  csae detect train runs/pyramid images/ --coco instances.json -o runs/detector")]
pub struct TrainArgs {
    /// Model file, run folder or bundled model with a convolutional encoder
    model: PathBuf,
    /// Images: a folder (optionally with Pascal VOC's `JPEGImages` and `Annotations`, or YOLO's
    /// `images` and `labels` in it), a file, a list (@FILE, or -) or a pattern ('images/*.png')
    data: String,
    #[command(flatten)]
    boxes: Boxes,
    /// Only the images listed in this file of DATA/ImageSets/Main, such as train
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Names of the classes, comma-separated; objects of other classes are skipped [default: all
    /// classes of the annotations, in alphabetical order]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    classes: Vec<String>,
    /// Images with boxes for validation [default: a part of DATA]
    #[arg(long, value_name = "DATA")]
    validation: Option<String>,
    /// List with the validation images, in ImageSets/Main of --validation, or of DATA without
    /// --validation
    #[arg(long, value_name = "NAME")]
    validation_split: Option<String>,
    /// Test images with boxes, evaluated once, at the end
    #[arg(long, value_name = "DATA")]
    test: Option<String>,
    /// List with the test images, in ImageSets/Main of --test, or of DATA without --test
    #[arg(long, value_name = "NAME")]
    test_split: Option<String>,
    /// Side of the square that images are scaled into, in pixels
    #[arg(long, value_name = "PIXELS", default_value = "320")]
    size: NonZeroUsize,
    /// Side of a cell of the grid, in pixels of the square
    #[arg(long, value_name = "PIXELS", default_value = "8")]
    stride: NonZeroUsize,
    /// Loss of objectness [default: focal]
    #[arg(long, value_enum)]
    objectness: Option<Objectness>,
    /// Augmentation of images [default: move]
    #[arg(long, value_enum)]
    augment: Option<Augment>,
    #[command(flatten)]
    encoding: Encoding,
    #[command(flatten)]
    learning: Learning,
    #[command(flatten)]
    common: Common,
}

/// The task of detection, for the code shared with segmentation.
pub struct Detect;

impl AnnotatedTask for Detect {
    type Set = DetectionSet;
    type Validation<'a> = Detecting<'a>;
    type Scores = AveragePrecision;

    const MODEL: &'static str = "detector";
    const KIND: &'static str = "detect";
    const RESULTS: &'static str = "detect.json";
    const REPORTED: &'static [(&'static str, &'static str)] = &[("map50", "mAP@0.5")];

    fn open(
        common: &Common,
        config: &Config,
        (channels, classes): (usize, &[String]),
        budget: Budget,
    ) -> Result<RunImages<DetectionSet>> {
        let spec = config.detect.clone().unwrap_or_default();
        let wanted = LoadOptions {
            channels: Some(channels),
            eight_bits: true,
            ..LoadOptions::new(config.data.strict, &budget)
        };
        let annotations = match (&spec.annotations, &spec.coco) {
            (Some(folder), _) => Annotations::Folder(folder.into()),
            (None, Some(file)) => Annotations::Coco(file.into()),
            (None, None) => Annotations::Beside,
        };
        let open =
            |source: &str, split: Option<&str>, classes: &[String]| -> Result<DetectionSet> {
                let set =
                    DetectionSet::open(source, &annotations, split, classes, &wanted, budget.data)?;
                report_set(common, &set);
                Ok(set)
            };
        let source = &config.data.source;
        let set = open(source, spec.split.as_deref(), classes)?;
        if spec.test_split == spec.split {
            common.warn_same_data(source, spec.test.as_ref());
        }
        // Images of another source, or of another list of the same source.
        let other = |own: &Option<String>, split: &Option<String>| {
            let named = own.is_some() || split.is_some();
            named
                .then(|| open(own.as_ref().unwrap_or(source), split.as_deref(), &set.classes))
                .transpose()
        };
        let validation = other(&config.data.validation_source, &spec.validation_split)?;
        let test = other(&spec.test, &spec.test_split)?;
        Ok(RunImages { set, validation, test })
    }

    fn count(config: &Config) -> usize {
        config.detect.as_ref().map_or(0, |spec| spec.images)
    }

    fn begin<'a>(
        device: &mut Device,
        folder: &RunFolder,
        config: &'a Config,
        graph: &'a Graph,
        subsets: (&Subset<'a, DetectionSet>, Subset<'a, DetectionSet>),
        memory: u64,
        from: Option<&Checkpoint>,
    ) -> Result<Run<'a, Detecting<'a>>> {
        begin_training(device, folder, config, graph, subsets, memory, from)
    }

    fn evaluate(
        device: &mut Device,
        validation: &mut Detecting<'_>,
        test: &DetectionSet,
    ) -> Result<AveragePrecision> {
        let all: Vec<usize> = (0..test.len()).collect();
        Ok(evaluate(device, &mut validation.detector, test, &all, |_| {})?.precision())
    }

    fn as_json(scores: &AveragePrecision, classes: &[String]) -> Value {
        as_json(scores, classes)
    }

    fn print(scores: &AveragePrecision, classes: &[String]) {
        print(scores, classes);
    }
}

impl TrainArgs {
    /// Sets what the flags about the data and the loss give in the configuration.
    fn apply_data_flags(&self, config: &mut Config) {
        config.data.source.clone_from(&self.data);
        if self.validation.is_some() {
            config.data.validation_source.clone_from(&self.validation);
        }
        config.data.strict |= self.encoding.strict;
        config.data.validation = self.encoding.held_out.unwrap_or(config.data.validation);
        let path = |flag: &Option<PathBuf>, old: Option<String>| {
            let flag = flag.as_ref().map(|path| path.display().to_string());
            flag.or(old).map(|path| absolute(&path))
        };
        let old = config.detect.clone().unwrap_or_default();
        config.detect = Some(DetectSpec {
            annotations: path(&self.boxes.annotations, old.annotations),
            coco: path(&self.boxes.coco, old.coco),
            split: self.split.clone().or(old.split),
            validation_split: self.validation_split.clone().or(old.validation_split),
            images: self.encoding.images.map_or(old.images, NonZeroUsize::get),
            augment: self.augment.map_or(old.augment, |augment| match augment {
                Augment::None => PoseAugment::None,
                Augment::Move => PoseAugment::Move,
                Augment::All => PoseAugment::All,
            }),
            objectness: self.objectness.map_or(old.objectness, |loss| match loss {
                Objectness::Focal => Loss::Focal,
                Objectness::Bce => Loss::Bce,
            }),
            test: self.test.clone().or(old.test).map(|path| absolute(&path)),
            test_split: self.test_split.clone().or(old.test_split),
        });
    }
}

impl CommandArgs for TrainArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn ranks(&self) -> Option<&RanksArgs> {
        Some(&self.learning.ranks)
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: TrainArgs) -> anyhow::Result<()> {
    let (common, learning) = (&args.common, &args.learning);
    let folder = learning.folder()?;
    let loaded = args.common.load_model(&args.model)?;
    loaded.graph.check_takes_plain_images()?;
    let budget = budget(args.encoding.max_memory.as_deref())?;
    let channels = loaded.graph.nodes[0].dims.c;
    let kind = HeadKind::Detect;
    // The data are opened before the head is built, which depends on their classes.
    let data_config = learning
        .settings
        .data_config(kind, &loaded.graph.spec, |config| args.apply_data_flags(config))?;
    let images = Detect::open(common, &data_config, (channels, &args.classes), budget)?;
    let classes = &images.set.classes;
    let grid = (Decoder::Deconv, args.stride.get(), CELL + classes.len());
    let side = ("--size", args.size.get());
    let context = Context { maps: &CONTEXT, ..Context::default() };
    let graph = args.encoding.with_decoder(&loaded, side, grid, context, classes)?;
    let epochs = |config: &Config| {
        let count = images.subsets(Detect::count(config), config)?.0.indices.len();
        Ok(default_epochs(count, config.train.batch))
    };
    let config = learning.config(kind, &graph.spec, epochs, |config| {
        args.apply_data_flags(config);
        config.train.from = learning.from(&args.model);
    })?;
    learning.settings.report_unused_keys(common, &config)?;
    let begin = Begin::New { folder, force: learning.force, tensorboard: learning.tensorboard };
    train::<Detect>(common, (&config, &graph), &images, budget, begin)
}
