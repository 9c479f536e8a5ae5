//! `csae segment train`

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{Labels, as_json, print, report_set};
use crate::annotations::label_set::{LabelOptions, SegmentationSet};
use crate::budget::Budget;
use crate::cli::annotated::{AnnotatedTask, RunImages, default_epochs, train};
use crate::cli::learning::{Begin, Encoding, Learning, absolute};
use crate::cli::ranks::RanksArgs;
use crate::cli::{CommandArgs, Common, budget};
use crate::data::{LoadOptions, Subset};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{Context, Decoder, Graph, LabelReading};
use crate::spec::{Config, HeadKind, SegmentAugment, SegmentCrops, SegmentSpec};
use crate::tasks::segment::{
    Segmentation, SegmentationScores, begin_training, check_class_weights, evaluate, samples,
};
use crate::train::checkpoint::Checkpoint;
use crate::train::{Run, RunFolder};

/// How the decoder upsamples maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DecoderKind {
    /// With transposed convolutions
    Deconv,
    /// By unpooling to the positions of the maxima in the encoder's max pooling
    Unpool,
}

/// Augmentation of crops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Augment {
    /// None
    None,
    /// Left-right flips
    Flip,
    /// All flips and rotations by 90 degrees, and small changes of brightness and contrast: for
    /// images without a preferred orientation
    All,
    /// Left-right flips, zoom by 0.7 to 1.4, and small changes of brightness, contrast and colour:
    /// for photographs
    Photo,
}

/// How the positions of crops are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Crops {
    /// Anywhere
    Random,
    /// Around a random pixel of a random class of the image: for rare classes
    Balanced,
}

/// Train a segmenter on images with label images: a model's encoder, and a decoder with skip
/// connections from the encoder.
///
/// A part of the images is held out for validation, unless --validation gives others. The weights
/// with the best mean IoU in validation become model.safetensors (for `csae segment eval` and
/// `predict`). The run folder also gets config.toml, metrics.jsonl, checkpoints for `csae resume`,
/// and segment.json with the results.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae train images/ --preset pyramid --out runs/pyramid
  csae segment train runs/pyramid cells/ --instances -o runs/cells
  csae segment train runs/pyramid @train.txt --labels labels/ --validation @val.txt --test @test.txt -o runs/cells")]
pub struct TrainArgs {
    /// Model file, run folder or bundled model with a convolutional encoder
    model: PathBuf,
    /// Images: a folder (optionally with `images` and `labels` in it), a file, a pattern
    /// ('scans/*.png') or a list (@FILE, or -)
    data: String,
    #[command(flatten)]
    labels: Labels,
    /// Names of the classes, comma-separated, from number 0 on [default: the numbers]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    classes: Vec<String>,
    /// Images with labels for validation [default: a part of DATA]
    #[arg(long, value_name = "DATA")]
    validation: Option<String>,
    /// Test images with labels, evaluated once, at the end
    #[arg(long, value_name = "DATA")]
    test: Option<String>,
    /// How the decoder upsamples maps
    #[arg(long, value_enum, default_value_t = DecoderKind::Deconv)]
    decoder: DecoderKind,
    /// Side of the crops, in pixels
    #[arg(long, value_name = "PIXELS", default_value = "128")]
    crop: NonZeroUsize,
    /// Augmentation of crops [default: flip]
    #[arg(long, value_enum)]
    augment: Option<Augment>,
    /// How the positions of crops are chosen [default: random]
    #[arg(long, value_enum)]
    crops: Option<Crops>,
    /// Number of 3x3 convolutions on the code with dilations 2, 4 and 8, for a larger receptive
    /// field; use larger crops with it
    #[arg(long, value_name = "N", default_value = "0")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=3))]
    context: u8,
    /// Weights of classes: `even`, `median` (more for rare classes) or numbers, comma-separated
    /// [default: even]
    #[arg(long, value_name = "WEIGHTS")]
    class_weights: Option<String>,
    /// Weight of the Dice loss beside the cross-entropy [default: 1]
    #[arg(long, value_name = "FACTOR")]
    dice: Option<f64>,
    #[command(flatten)]
    encoding: Encoding,
    #[command(flatten)]
    learning: Learning,
    #[command(flatten)]
    common: Common,
}

/// More classes without names than this are probably numbers of objects. Label sets with 20 classes
/// and more, such as of photographs, have names.
const MAX_UNNAMED_CLASSES: usize = 20;

/// The task of segmentation, for the code shared with detection.
pub struct Segment;

impl AnnotatedTask for Segment {
    type Set = SegmentationSet;
    type Validation<'a> = Segmentation<'a>;
    type Scores = SegmentationScores;

    const MODEL: &'static str = "segmenter";
    const KIND: &'static str = "segment";
    const RESULTS: &'static str = "segment.json";
    const REPORTED: &'static [(&'static str, &'static str)] =
        &[("dice", "Dice"), ("mean_iou", "IoU")];

    fn open(
        common: &Common,
        config: &Config,
        (channels, classes): (usize, &[String]),
        budget: Budget,
    ) -> Result<RunImages<SegmentationSet>> {
        let spec = config.segment.clone().unwrap_or_default();
        let wanted = LoadOptions {
            channels: Some(channels),
            eight_bits: true,
            ..LoadOptions::new(config.data.strict, &budget)
        };
        let open = |source: &str, classes: &[String]| -> Result<SegmentationSet> {
            let meaning = LabelOptions {
                classes: classes.to_vec(),
                instances: spec.instances,
                ignore: spec.ignore,
            };
            let labels = spec.labels.as_deref().map(std::path::Path::new);
            let set = SegmentationSet::open(source, labels, &meaning, &wanted, budget.data)?;
            report_set(common, &set);
            Ok(set)
        };
        let set = open(&config.data.source, classes)?;
        if classes.is_empty() && set.labelling.classes.len() > MAX_UNNAMED_CLASSES {
            common.status(&format!(
                "note: the label images have {} classes; if their labels are numbers of objects, \
                 add --instances",
                set.labelling.classes.len()
            ));
        }
        set.check_for_training()?;
        common.warn_same_data(&config.data.source, spec.test.as_ref());
        let classes = set.labelling.classes.clone();
        let other = |source: &Option<String>| {
            source.as_ref().map(|source| open(source, &classes)).transpose()
        };
        let (validation, test) = (other(&config.data.validation_source)?, other(&spec.test)?);
        Ok(RunImages { set, validation, test })
    }

    fn count(config: &Config) -> usize {
        config.segment.as_ref().map_or(0, |spec| spec.images)
    }

    fn begin<'a>(
        device: &mut Device,
        folder: &RunFolder,
        config: &'a Config,
        graph: &'a Graph,
        subsets: (&Subset<'a, SegmentationSet>, Subset<'a, SegmentationSet>),
        memory: u64,
        from: Option<&Checkpoint>,
    ) -> Result<Run<'a, Segmentation<'a>>> {
        begin_training(device, folder, config, graph, subsets, memory, from)
    }

    fn evaluate(
        device: &mut Device,
        validation: &mut Segmentation<'_>,
        test: &SegmentationSet,
    ) -> Result<SegmentationScores> {
        let all: Vec<usize> = (0..test.len()).collect();
        evaluate(device, &validation.segmenter, test, &all, |_| {})
    }

    fn as_json(scores: &SegmentationScores, classes: &[String]) -> Value {
        as_json(scores, classes)
    }

    fn print(scores: &SegmentationScores, classes: &[String]) {
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
        let spec = config.segment.get_or_insert_default();
        let SegmentSpec {
            labels,
            instances,
            ignore,
            images,
            augment,
            crops,
            class_weights,
            dice,
            test,
        } = spec;
        let folder = self.labels.labels.as_ref().map(|path| path.display().to_string());
        *labels = folder.or(labels.take()).map(|path| absolute(&path));
        *instances |= self.labels.instances;
        *ignore = self.labels.ignore.or(*ignore);
        *images = self.encoding.images.map_or(*images, NonZeroUsize::get);
        *test = self.test.clone().or(test.take()).map(|path| absolute(&path));
        if let Some(wanted) = self.augment {
            *augment = match wanted {
                Augment::None => SegmentAugment::None,
                Augment::Flip => SegmentAugment::Flip,
                Augment::All => SegmentAugment::All,
                Augment::Photo => SegmentAugment::Photo,
            };
        }
        if let Some(wanted) = self.crops {
            *crops = match wanted {
                Crops::Random => SegmentCrops::Random,
                Crops::Balanced => SegmentCrops::Balanced,
            };
        }
        if let Some(weights) = &self.class_weights {
            class_weights.clone_from(weights);
        }
        *dice = self.dice.unwrap_or(*dice);
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
    if let Some(dice) = args.dice.filter(|dice| !dice.is_finite() || *dice < 0.0) {
        return Err(Error::usage(format!("--dice {dice}: must be at least 0")).into());
    }
    let loaded = args.common.load_model(&args.model)?;
    loaded.graph.check_takes_plain_images()?;
    let budget = budget(args.encoding.max_memory.as_deref())?;
    let channels = loaded.graph.nodes[0].dims.c;
    let kind = HeadKind::Segment;
    // The data are opened before the head is built, which depends on their classes.
    let data_config = learning
        .settings
        .data_config(kind, &loaded.graph.spec, |config| args.apply_data_flags(config))?;
    let images = Segment::open(common, &data_config, (channels, &args.classes), budget)?;
    let classes = &images.set.labelling.classes;
    if let Some(weights) = &args.class_weights {
        check_class_weights(weights, classes.len()).map_err(|error| error.at("--class-weights"))?;
    }
    let how = if args.decoder == DecoderKind::Deconv { Decoder::Deconv } else { Decoder::Unpool };
    let decoder = (how, 1, classes.len());
    let dilations: Vec<usize> = (1..=args.context).map(|power| 1 << power).collect();
    let context = Context { code: &dilations, ..Context::default() };
    let side = ("--crop", args.crop.get());
    let mut graph = args.encoding.with_decoder(&loaded, side, decoder, context, classes)?;
    let spec = data_config.segment.clone().unwrap_or_default();
    graph.spec.labels = LabelReading { instances: spec.instances, ignore: spec.ignore };
    let epochs = |config: &Config| {
        let count =
            samples(&images.subsets(Segment::count(config), config)?.0, graph.nodes[0].dims);
        Ok(default_epochs(count, config.train.batch))
    };
    let config = learning.config(kind, &graph.spec, epochs, |config| {
        args.apply_data_flags(config);
        config.train.from = learning.from(&args.model);
    })?;
    learning.settings.report_unused_keys(common, &config)?;
    let begin = Begin::New { folder, force: learning.force, tensorboard: learning.tensorboard };
    train::<Segment>(common, (&config, &graph), &images, budget, begin)
}
