//! `csae segment train`

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use csae::internals::budget::Budget;
use csae::internals::data::LoadOptions;
use csae::internals::data::annotations::label_set::{LabelOptions, SegmentationSet};
use csae::internals::error::{Error, Result};
use csae::internals::model::{self, Decoder, Graph};
use csae::internals::spec::{Config, LabelledKind, SegmentAugment, SegmentSpec};
use csae::internals::tasks::inspect::ModelPaths;
use csae::internals::tasks::segment::{Part, check_class_weights, judge, run as training, samples};
use serde_json::json;

use super::{Labels, as_json, say, tell};
use crate::cli::learning::{
    Begin, Encoding, Learning, absolute, best_validation, drive, split, write_results,
};
use crate::cli::{CommandArgs, Common, budget};

/// How maps are enlarged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DecoderKind {
    /// By transposed convolutions
    Deconv,
    /// By the switches of the encoder's max pools
    Unpool,
}

/// Augmentation of crops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Augment {
    /// None
    None,
    /// Left-right flips
    Flip,
    /// All flips and quarter turns, small changes of brightness and contrast: for images without a
    /// top and a bottom
    All,
}

/// Train a segmenter: a model's encoder, and a decoder with skips from the encoder's maps, on
/// images with label images.
///
/// A part of the images is held out for validation, or others are named. The weights with the best
/// mean IoU there become model.safetensors (for `csae segment eval` and `predict`). The run folder
/// also gets config.toml, metrics.jsonl, checkpoints for `csae resume`, and segment.json with the
/// results.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae train images/ --preset pyramid --out runs/pyramid
  csae segment train runs/pyramid cells/ --instances -o runs/cells
  csae segment train runs/pyramid @train.txt --labels labels/ --validation @val.txt --test @test.txt -o runs/cells")]
pub struct TrainArgs {
    /// Model file, run folder or bundled model with a convolutional encoder
    model: PathBuf,
    /// Images: a folder (perhaps with `images` and `labels` in it), a file, a list (@FILE, or -)
    data: String,
    #[command(flatten)]
    labels: Labels,
    /// Names of the classes, comma-separated, from number 0 on [default: the numbers]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    classes: Vec<String>,
    /// Images with labels for validation [default: a part of DATA]
    #[arg(long, value_name = "DATA")]
    validation: Option<String>,
    /// Images with labels to test on, once, at the end
    #[arg(long, value_name = "DATA")]
    test: Option<String>,
    /// How the decoder enlarges maps
    #[arg(long, value_enum, default_value_t = DecoderKind::Deconv)]
    decoder: DecoderKind,
    /// Side of the crops, in pixels
    #[arg(long, value_name = "PIXELS", default_value = "128")]
    crop: NonZeroUsize,
    /// Augmentation of crops [default: flip]
    #[arg(long, value_enum)]
    augment: Option<Augment>,
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

const RESULTS: &str = "segment.json";
/// More classes than this without names are probably numbers of objects: label sets of photographs
/// have 20 classes and more, but then with names.
const MANY: usize = 20;

/// The images of a run.
struct Data {
    set: SegmentationSet,
    validation: Option<SegmentationSet>,
    test: Option<SegmentationSet>,
}

impl Data {
    fn open(
        common: &Common,
        config: &Config,
        (channels, classes): (usize, &[String]),
        budget: Budget,
    ) -> Result<Self> {
        let spec = config.segment.clone().unwrap_or_default();
        let wanted = LoadOptions {
            channels: Some(channels),
            strict: config.data.strict,
            memory: budget.all,
        };
        let open = |source: &str, classes: &[String]| -> Result<SegmentationSet> {
            let meaning = LabelOptions {
                classes: classes.to_vec(),
                instances: spec.instances,
                ignore: spec.ignore,
            };
            let labels = spec.labels.as_deref().map(std::path::Path::new);
            let set = SegmentationSet::open(source, labels, &meaning, &wanted, budget.data)?;
            say(common, &set);
            Ok(set)
        };
        let set = open(&config.data.source, classes)?;
        if classes.is_empty() && set.labelling.classes.len() > MANY {
            common.say(&format!(
                "note: the label numbers are taken for {} classes; if they number objects, add \
                 --instances",
                set.labelling.classes.len()
            ));
        }
        common.say_same(&config.data.source, spec.test.as_ref());
        let classes = set.labelling.classes.clone();
        let other = |source: &Option<String>| {
            source.as_ref().map(|source| open(source, &classes)).transpose()
        };
        let (validation, test) = (other(&config.data.validation_source)?, other(&spec.test)?);
        Ok(Self { set, validation, test })
    }

    /// The images to learn from and those to validate on.
    fn parts(&self, config: &Config) -> Result<(Part<'_>, Part<'_>)> {
        let images = config.segment.as_ref().map_or(0, |spec| spec.images);
        let share = self.validation.is_none().then_some(config.data.validation);
        let [fit, held] = split(self.set.len(), images, share, config.seed)?;
        let held = match &self.validation {
            Some(set) => Part { set, numbers: (0..set.len()).collect(), name: "validation" },
            // Nothing is held out: the images themselves are looked at, and called so.
            None if held.is_empty() => {
                Part { set: &self.set, numbers: fit.clone(), name: "the training images" }
            }
            None => Part { set: &self.set, numbers: held, name: "held-out images" },
        };
        Ok((Part { set: &self.set, numbers: fit, name: "training images" }, held))
    }
}

impl TrainArgs {
    /// What the configuration gets from the flags about data.
    fn note(&self, config: &mut Config) {
        config.data.source.clone_from(&self.data);
        if self.validation.is_some() {
            config.data.validation_source.clone_from(&self.validation);
        }
        config.data.strict |= self.encoding.strict;
        config.data.validation = self.encoding.held_out.unwrap_or(config.data.validation);
        let spec = config.segment.get_or_insert_default();
        let SegmentSpec { labels, instances, ignore, images, augment, class_weights, dice, test } =
            spec;
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

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: TrainArgs) -> anyhow::Result<()> {
    let (common, learning) = (&args.common, &args.learning);
    let folder = learning.folder()?;
    if let Some(dice) = args.dice.filter(|dice| !dice.is_finite() || *dice < 0.0) {
        return Err(Error::usage(format!("--dice {dice}: it must not be below 0")).into());
    }
    let loaded = model::load(&ModelPaths::of(&args.model).model)?;
    let budget = budget(args.encoding.max_memory.as_deref())?;
    let channels = loaded.graph.nodes[0].dims.c;
    let kind = LabelledKind::Segment;
    // Where the data is does not depend on the model with its head, which depends on the data.
    let place = learning.place(kind, &loaded.graph.spec, |config| args.note(config))?;
    let data = Data::open(common, &place, (channels, &args.classes), budget)?;
    let classes = &data.set.labelling.classes;
    if let Some(weights) = &args.class_weights {
        check_class_weights(weights, classes.len()).map_err(|error| error.at("--class-weights"))?;
    }
    let how = if args.decoder == DecoderKind::Deconv { Decoder::Deconv } else { Decoder::Unpool };
    let decoder = (how, 1, classes.len());
    let graph =
        args.encoding.headed(&loaded, ("--crop", args.crop.get()), decoder, &[], classes)?;
    // By default as many epochs as make about 2000 steps.
    let epochs = |config: &Config| {
        let count = samples(&data.parts(config)?.0, graph.nodes[0].dims);
        Ok((2000 / count.div_ceil(config.train.batch).max(1)).clamp(10, 100))
    };
    let config = learning.config(kind, &graph.spec, epochs, |config| {
        args.note(config);
        config.train.from = learning.from(&args.model);
    })?;
    let begin = Begin::New { folder, force: learning.force };
    train(common, (&config, &graph), &data, budget, begin)
}

/// Goes on with a run.
pub fn resume(
    common: &Common,
    config: &Config,
    place: &Config,
    budget: Budget,
    begin: Begin,
) -> anyhow::Result<()> {
    let dims = super::super::resume::input(config)?;
    let graph = Graph::new(&config.model, dims)?;
    let data = Data::open(common, place, (dims.c, &config.model.classes), budget)?;
    train(common, (config, &graph), &data, budget, begin)
}

fn train(
    common: &Common,
    (config, graph): (&Config, &Graph),
    data: &Data,
    budget: Budget,
    begin: Begin,
) -> anyhow::Result<()> {
    let start = std::time::Instant::now();
    let classes = &graph.spec.classes;
    let (fit, held) = data.parts(config)?;
    common.say(&format!(
        "segmenter: {} parameters, {} training images, {} {}",
        graph.parameter_count(),
        fit.numbers.len(),
        held.numbers.len(),
        held.name
    ));
    let mut device = common.open()?;
    device.limit_memory(budget.all);
    let sets = [Some(&data.set), data.validation.as_ref(), data.test.as_ref()];
    let bytes = sets.into_iter().flatten().map(SegmentationSet::held_bytes).sum();
    let images = fit.numbers.len();
    let folder = begin.folder().clone();
    let mut run =
        training(&mut device, &folder, config, graph, (&fit, held), bytes, begin.checkpoint())?;
    let (folder, _lock, summary) = drive(common, &mut device, &mut run, begin, (config, budget))?;
    let judged = match &data.test {
        Some(test) => {
            let all: Vec<usize> = (0..test.len()).collect();
            Some(judge(&mut device, &run.task.segmenter, test, &all, |_| {})?)
        }
        None => None,
    };
    let best = best_validation(&folder, summary.best_step)?.unwrap_or_default();
    let line = json!({
        "kind": "segment", "pretrained": config.train.from.is_some(), "images": images,
        "epoch": best["epoch"], "dice": best["dice"], "mean_iou": best["mean_iou"],
        "test": judged.as_ref().map(|judged| as_json(judged, classes)),
        "seconds": start.elapsed().as_secs_f64(),
    });
    write_results(&folder, RESULTS, &line)?;
    if common.json {
        outln!("{line}");
        return Ok(());
    }
    if let Some(judged) = &judged {
        outln!("test: {} images", data.test.as_ref().map_or(0, SegmentationSet::len));
        tell(judged, classes);
    }
    outln!(
        "{}: Dice {:.4}, IoU {:.4} after epoch {}, {:.0} s; {}: model.safetensors, metrics.jsonl, \
         {RESULTS}",
        summary.found.on,
        best["dice"].as_f64().unwrap_or(f64::NAN),
        best["mean_iou"].as_f64().unwrap_or(f64::NAN),
        best["epoch"].as_f64().unwrap_or(0.0),
        start.elapsed().as_secs_f64(),
        folder.path().display()
    );
    Ok(())
}
