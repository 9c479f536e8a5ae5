//! `csae detect train`

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use csae::bail_usage;
use csae::data::Wanted;
use csae::error::{Error, Result};
use csae::files;
use csae::model::{self, Graph};
use csae::ops::CELL;
use csae::rng::Stream;
use csae::shape::Dims;
use csae::tasks::detect::{Changes, Epoch, Options, Set, Trainer, judge};
use csae::tasks::inspect::Place;
use csae::tasks::segment::Segmenter;
use serde_json::json;

use super::{Boxes, as_json, say, tell};
use crate::cli::{Common, budget, refuse_existing};

/// The loss of objectness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Objectness {
    /// Focal loss, γ 2, α 0.25
    Focal,
    /// Binary cross-entropy
    Bce,
}

/// What is done to images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Augment {
    /// Nothing
    None,
    /// Zoomed, moved, left and right exchanged
    Move,
    /// Also turned to all sides, brightness and contrast changed a little: where images have no above and below
    All,
}

/// Layers of 3×3 between the maps and the last layer, by their dilations.
const CONTEXT: [usize; 4] = [1, 2, 4, 2];

/// Train a detector: a model's encoder, and a head that says of each cell of a grid whether an object's middle is near, its box and its class.
///
/// A part of the images is held out, or others are named to validate on; the weights that do best there (mAP@0.5) are kept. Writes model.safetensors (for `csae
/// detect eval` and `predict`), metrics.jsonl and detect.json.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae train images/ --preset pyramid --out runs/pyramid\n  csae detect train runs/pyramid VOC/ --split train --validation VOC/ --validation-split val -o runs/detector\n  csae detect train runs/pyramid images/ --coco instances.json -o runs/detector"
)]
pub struct TrainArgs {
    /// Model file, a run folder, or a bundled model, of convolutions: its encoder is taken
    model: PathBuf,
    /// Images: a folder (perhaps with Pascal VOC's `JPEGImages` and `Annotations` in it), a file, a list (@FILE, or -)
    data: String,
    #[command(flatten)]
    boxes: Boxes,
    /// Only the images of this list in DATA/ImageSets/Main, such as train
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Names of the classes, comma-separated [default: all that occur, in alphabetical order]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    classes: Vec<String>,
    /// Images with boxes to validate on [default: a part of DATA]
    #[arg(long, value_name = "DATA")]
    validation: Option<String>,
    /// The list of the images to validate on; without --validation, of DATA
    #[arg(long, value_name = "NAME")]
    validation_split: Option<String>,
    /// Share of DATA held out to validate on, where no images are named
    #[arg(long, value_name = "SHARE", default_value_t = 0.15)]
    held_out: f64,
    /// Images with boxes to judge by, once, at the end
    #[arg(long, value_name = "DATA")]
    test: Option<String>,
    /// The list of the images to judge by; without --test, of DATA
    #[arg(long, value_name = "NAME")]
    test_split: Option<String>,
    /// Folder for the results
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Begin with all weights drawn, not with the model's
    #[arg(long)]
    from_scratch: bool,
    /// Last layer of the encoder [default: the code, but before its winner-take-all selections]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// Side of the square that images are laid in, in pixels
    #[arg(long, value_name = "PIXELS", default_value = "320")]
    size: NonZeroUsize,
    /// Pixels of the square to a cell of the grid
    #[arg(long, value_name = "PIXELS", default_value = "8")]
    stride: NonZeroUsize,
    /// The loss of objectness
    #[arg(long, value_enum, default_value_t = Objectness::Focal)]
    objectness: Objectness,
    /// What is done to images at random
    #[arg(long, value_enum, default_value_t = Augment::Move)]
    augment: Augment,
    /// Passes over the images at most [default: as many as make 2000 steps, 10 to 100]
    #[arg(long, value_name = "N")]
    epochs: Option<NonZeroUsize>,
    /// Images of a step
    #[arg(long, value_name = "N", default_value = "8")]
    batch: NonZeroUsize,
    /// Peak learning rate of the head (Adam, falling to 0 along a cosine)
    #[arg(long, value_name = "RATE", default_value_t = 2e-3)]
    lr: f64,
    /// A pretrained encoder's learning rate as a share of the head's; 0: only the head learns
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    encoder_lr: f64,
    /// Decoupled weight decay
    #[arg(long, value_name = "W", default_value_t = 1e-4)]
    weight_decay: f64,
    /// Epochs from one validation to the next
    #[arg(long, value_name = "N", default_value = "2")]
    validate_every: NonZeroUsize,
    /// Validations that do no better after which it stops
    #[arg(long, value_name = "N", default_value = "10")]
    patience: NonZeroUsize,
    /// Seed of the weights, the order and the changes
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write over existing files
    #[arg(long)]
    force: bool,
    /// A file that does not decode, annotations that lack something, and boxes that are dropped are an error, not passed over
    #[arg(long)]
    strict: bool,
    /// Memory that may be taken, such as 512MiB or 2GiB: images that need more than half of it stay in their files [default: what is free]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

const FILES: [&str; 3] = ["model.safetensors", "metrics.jsonl", "detect.json"];

impl TrainArgs {
    fn check(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.held_out) {
            bail_usage!("--held-out {}: a share from 0 to below 1", self.held_out);
        }
        let numbers = [("--lr", self.lr, self.lr > 0.0), ("--encoder-lr", self.encoder_lr, self.encoder_lr >= 0.0)];
        let more = [("--weight-decay", self.weight_decay, self.weight_decay >= 0.0)];
        if let Some((flag, value, _)) = numbers.into_iter().chain(more).find(|(_, value, fine)| !fine || !value.is_finite()) {
            bail_usage!("{flag} {value}: it must not be below 0, nor a learning rate 0");
        }
        Ok(())
    }

    /// Another set: of its own source, or another list of DATA; none where neither is named.
    fn other(
        &self,
        source: Option<&String>,
        split: Option<&String>,
        classes: &[String],
        wanted: &Wanted,
        limit: u64,
    ) -> Result<Option<Set>> {
        if source.is_none() && split.is_none() {
            return Ok(None);
        }
        let set = self.boxes.open(source.unwrap_or(&self.data), split.map(String::as_str), classes, wanted, limit)?;
        say(&self.common, &set);
        Ok(Some(set))
    }

    /// Numbers of the images to learn from and to validate on, where the set serves for both.
    fn split(&self, images: usize, shared: bool) -> Result<[Vec<usize>; 2]> {
        if !shared {
            return Ok([(0..images).collect(), Vec::new()]);
        }
        let order: Vec<usize> = Stream::new(self.seed, "split").permutation(images).into_iter().map(|i| i as usize).collect();
        let held = ((images as f64 * self.held_out).round() as usize).clamp(usize::from(self.held_out > 0.0), images);
        let [mut held, mut fit] = [order[..held].to_vec(), order[held..].to_vec()];
        if fit.is_empty() {
            bail_usage!(
                "{}: {images} image with boxes leaves none to learn from beside the one held out; name others by --validation",
                self.data
            );
        }
        held.sort_unstable();
        fit.sort_unstable();
        Ok([fit, held])
    }
}

pub fn run(args: TrainArgs) -> anyhow::Result<()> {
    args.check()?;
    let loaded = model::load(&Place::of(&args.model).model)?;
    for name in FILES {
        refuse_existing(&args.out.join(name), args.force)?;
    }
    let budget = budget(args.max_memory.as_deref())?;
    let channels = loaded.graph.nodes[0].dims.c;
    let wanted = Wanted { channels: Some(channels), strict: args.strict, memory: budget.all };
    let set = args.boxes.open(&args.data, args.split.as_deref(), &args.classes, &wanted, budget.data)?;
    say(&args.common, &set);
    let classes = set.classes.clone();
    let validation = args.other(args.validation.as_ref(), args.validation_split.as_ref(), &classes, &wanted, budget.data)?;
    let test = args.other(args.test.as_ref(), args.test_split.as_ref(), &classes, &wanted, budget.data)?;
    let [fit, held] = args.split(set.len(), validation.is_none())?;
    // where nothing is held out, the images themselves are looked at, and called so
    let (held_set, held, what) = match &validation {
        Some(other) => (other, (0..other.len()).collect(), "validation"),
        None if held.is_empty() => (&set, fit.clone(), "the images that it learns from"),
        None => (&set, held, "held-out images"),
    };
    let graph = graph(&args, &loaded, channels, &classes)?;
    args.common.say(&format!(
        "detector: {} parameters, {} images to learn from, {} {what}",
        graph.parameter_count(),
        fit.len(),
        held.len()
    ));
    files::make_folder(&args.out)?;
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let focal = args.objectness == Objectness::Focal;
    let mut trainer = Trainer::new(&mut device, &graph, args.batch.get(), args.weight_decay, focal)?;
    let steps = fit.len().div_ceil(args.batch.get()).max(1);
    let options = Options {
        epochs: args.epochs.map_or_else(|| (2000 / steps).clamp(10, 100), NonZeroUsize::get),
        lr: args.lr,
        encoder_lr: if args.from_scratch { 1.0 } else { args.encoder_lr },
        patience: args.patience.get(),
        every: args.validate_every.get(),
        changes: Changes {
            move_: args.augment != Augment::None,
            turn: args.augment == Augment::All,
            jitter: if args.augment == Augment::All { 0.1 } else { 0.0 },
        },
        seed: args.seed,
    };
    let (start, mut log) = (Instant::now(), String::new());
    let pretrained = (!args.from_scratch).then_some(&loaded);
    let best = trainer.train(&mut device, pretrained, (&set, &fit), (held_set, &held), &options, |epoch| {
        let Epoch { epoch, loss, map50, best } = epoch;
        let line = json!({"kind": "epoch", "epoch": epoch, "loss": loss, "map50": map50, "best": best});
        if args.common.json {
            outln!("{line}");
        } else {
            let seconds = start.elapsed().as_secs();
            let judged = map50.map_or(String::new(), |map50| format!("  {what}: mAP@0.5 {map50:.4}"));
            args.common.say(&format!("epoch {epoch}/{}  loss {loss:.4}{judged}  {seconds} s", options.epochs));
        }
        log.push_str(&(line.to_string() + "\n"));
        Ok(())
    })?;
    model::save(&args.out.join(FILES[0]), &mut device, &graph, trainer.store())?;
    files::write_atomically(&args.out.join(FILES[1]), log.as_bytes())?;
    let judged = match &test {
        Some(test) => {
            Some(judge(&mut device, trainer.detector(), test, &(0..test.len()).collect::<Vec<_>>(), |_| {})?.precision())
        }
        None => None,
    };
    let line = json!({
        "kind": "detect", "model": args.model.display().to_string(), "pretrained": !args.from_scratch, "images": fit.len(),
        "epoch": best.epoch, "map50": best.map50, "test": judged.as_ref().map(|judged| as_json(judged, &classes)),
        "seconds": start.elapsed().as_secs_f64(),
    });
    let text = serde_json::to_string_pretty(&line)? + "\n";
    files::write_atomically(&args.out.join(FILES[2]), text.as_bytes())?;
    args.common.say_kernels(&mut device);
    if args.common.json {
        outln!("{line}");
        return Ok(());
    }
    if let Some(judged) = &judged {
        outln!("test: {} images", test.as_ref().map_or(0, Set::len));
        tell(judged, &classes);
    }
    let (map50, seconds) = (best.map50.unwrap_or(0.0), start.elapsed().as_secs_f64());
    outln!("{what}: mAP@0.5 {map50:.4} after epoch {}, {seconds:.0} s; {}: {}", best.epoch, args.out.display(), FILES.join(", "));
    Ok(())
}

/// The detector, on squares.
fn graph(args: &TrainArgs, loaded: &csae::model::Loaded, channels: usize, classes: &[String]) -> Result<Graph> {
    let (side, stride) = (args.size.get(), args.stride.get());
    let input = Dims::new(channels, side, side);
    let on_squares = |spec| Graph::new(spec, input).map_err(|error| error.at(format!("--size {side}")));
    let spec = model::encoder(&loaded.graph, args.layer.as_deref(), None)?;
    let align = Segmenter::align(&spec)?;
    if !side.is_multiple_of(align) || !side.is_multiple_of(stride) {
        bail_usage!("--size {side}: a multiple of {align}, by the model's strides, and of --stride {stride}");
    }
    let encoder = on_squares(&spec)?;
    let how = (model::Decoder::Deconv, stride, CELL + classes.len());
    let graph = on_squares(&model::decoder(&spec, &encoder, how, &CONTEXT, classes.to_vec())?)?;
    if graph.knows_level() || graph.knows_missing() {
        return Err(Error::usage(
            "the model is told noise levels or missing pixels, which images with boxes do not have; take another, such as --preset pyramid",
        ));
    }
    Ok(graph)
}
