//! `csae segment train`

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use csae::bail_usage;
use csae::data::Wanted;
use csae::error::{Error, Result};
use csae::files;
use csae::model::{self, Graph};
use csae::rng::Stream;
use csae::shape::Dims;
use csae::tasks::inspect::Place;
use csae::tasks::segment::{Balance, Changes, Epoch, Options, Segmenter, Set, Trainer, judge};
use serde_json::json;

use super::{Labels, as_json, say, tell};
use crate::cli::{Common, budget, refuse_existing};

/// How maps are enlarged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// By transposed convolutions
    Deconv,
    /// By the switches of the encoder's max pools
    Unpool,
}

/// What is done to crops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Augment {
    /// Nothing
    None,
    /// Left and right exchanged
    Flip,
    /// All eight ways that a square can be laid, brightness and contrast changed a little: where images have no above and below
    All,
}

/// Train a segmenter: a model's encoder, and a decoder with skips from the encoder's maps, on images with label images.
///
/// A part of the images is held out, or others are named to validate on; the weights that do best there are kept. Writes model.safetensors (for `csae segment
/// eval` and `predict`), metrics.jsonl and segment.json.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae train images/ --preset pyramid --out runs/pyramid\n  csae segment train runs/pyramid cells/ --instances -o runs/cells\n  csae segment train runs/pyramid @train.txt --labels labels/ --validation @val.txt --test @test.txt -o runs/cells"
)]
pub struct TrainArgs {
    /// Model file, a run folder, or a bundled model, of convolutions: its encoder is taken
    model: PathBuf,
    /// Images: a folder (perhaps with `images` and `labels` in it), a file, a list (@FILE, or -)
    data: String,
    #[command(flatten)]
    labels: Labels,
    /// Names of the classes, comma-separated, from number 0 on [default: the numbers]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    classes: Vec<String>,
    /// Images with labels to validate on [default: a part of DATA]
    #[arg(long, value_name = "DATA")]
    validation: Option<String>,
    /// Share of DATA held out to validate on, where no images are named
    #[arg(long, value_name = "SHARE", default_value_t = 0.15, conflicts_with = "validation")]
    held_out: f64,
    /// Images with labels to judge by, once, at the end
    #[arg(long, value_name = "DATA")]
    test: Option<String>,
    /// Learn from so many images, drawn by the seed
    #[arg(long, value_name = "N")]
    images: Option<NonZeroUsize>,
    /// Folder for the results
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Begin with all weights drawn, not with the model's
    #[arg(long)]
    from_scratch: bool,
    /// Last layer of the encoder [default: the code, but before its winner-take-all selections]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// How the decoder enlarges maps
    #[arg(long, value_enum, default_value_t = Way::Deconv)]
    decoder: Way,
    /// Side of the crops that are learned from, in pixels
    #[arg(long, value_name = "PIXELS", default_value = "128")]
    crop: NonZeroUsize,
    /// What is done to crops at random
    #[arg(long, value_enum, default_value_t = Augment::Flip)]
    augment: Augment,
    /// What classes weigh: `even`, `median` (the rarer, the more) or numbers, comma-separated
    #[arg(long, value_name = "WEIGHTS", default_value = "even")]
    class_weights: String,
    /// What Dice counts beside the cross-entropy
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    dice: f64,
    /// Passes over the images at most [default: as many as make 1500 steps, 10 to 100]
    #[arg(long, value_name = "N")]
    epochs: Option<NonZeroUsize>,
    /// Crops of a step
    #[arg(long, value_name = "N", default_value = "8")]
    batch: NonZeroUsize,
    /// Peak learning rate of the decoder (Adam, falling to 0 along a cosine)
    #[arg(long, value_name = "RATE", default_value_t = 2e-3)]
    lr: f64,
    /// A pretrained encoder's learning rate as a share of the decoder's; 0: only the decoder learns
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    encoder_lr: f64,
    /// Decoupled weight decay
    #[arg(long, value_name = "W", default_value_t = 1e-4)]
    weight_decay: f64,
    /// Epochs that do no better on the images to validate on after which it stops
    #[arg(long, value_name = "N", default_value = "20")]
    patience: NonZeroUsize,
    /// Seed of the images drawn, the weights, the order and the crops
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write over existing files
    #[arg(long)]
    force: bool,
    /// A file that does not decode, and labels that do not fit, are an error, not skipped
    #[arg(long)]
    strict: bool,
    /// Memory that may be taken, such as 512MiB or 2GiB: images that need more than half of it stay in their files [default: what is free]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

const FILES: [&str; 3] = ["model.safetensors", "metrics.jsonl", "segment.json"];

impl TrainArgs {
    fn check(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.held_out) {
            bail_usage!("--held-out {}: a share from 0 to below 1", self.held_out);
        }
        let numbers = [("--lr", self.lr, self.lr > 0.0), ("--encoder-lr", self.encoder_lr, self.encoder_lr >= 0.0)];
        let more = [("--weight-decay", self.weight_decay, self.weight_decay >= 0.0), ("--dice", self.dice, self.dice >= 0.0)];
        if let Some((flag, value, _)) = numbers.into_iter().chain(more).find(|(_, value, fine)| !fine || !value.is_finite()) {
            bail_usage!("{flag} {value}: it must not be below 0, nor a learning rate 0");
        }
        Ok(())
    }

    fn balance(&self, classes: usize) -> Result<Balance> {
        match self.class_weights.as_str() {
            "even" => Ok(Balance::Even),
            "median" => Ok(Balance::Median),
            text => {
                let weights: Vec<f64> = text.split(',').map_while(|part| part.trim().parse().ok()).collect();
                let fine = weights.len() == classes && text.split(',').count() == classes;
                if !fine
                    || weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0)
                    || weights.iter().sum::<f64>() == 0.0
                {
                    bail_usage!("--class-weights {text}: even, median, or {classes} numbers from 0 on, one a class");
                }
                Ok(Balance::Given(weights))
            }
        }
    }

    /// Numbers of the images to learn from and to validate on, where the set serves for both.
    fn split(&self, set: &Set) -> Result<[Vec<usize>; 2]> {
        let mut numbers: Vec<usize> = (0..set.len()).collect();
        if let Some(wanted) = self.images {
            if wanted.get() > set.len() {
                bail_usage!("--images {wanted}: only {} have labels", set.len());
            }
            let drawn = Stream::new(self.seed, "images").permutation(set.len());
            numbers = drawn[..wanted.get()].iter().map(|number| *number as usize).collect();
            numbers.sort_unstable();
        }
        if self.validation.is_some() {
            return Ok([numbers, Vec::new()]);
        }
        let order = Stream::new(self.seed, "split").permutation(numbers.len());
        let held =
            ((numbers.len() as f64 * self.held_out).round() as usize).clamp(usize::from(self.held_out > 0.0), numbers.len());
        let part = |from: &[u32]| {
            let mut part: Vec<usize> = from.iter().map(|i| numbers[*i as usize]).collect();
            part.sort_unstable();
            part
        };
        let (held, fit) = order.split_at(held);
        if fit.is_empty() {
            bail_usage!(
                "{}: {} image{} with labels leave none to learn from beside those held out; name others by --validation",
                self.data,
                numbers.len(),
                if numbers.len() == 1 { "" } else { "s" }
            );
        }
        Ok([part(fit), part(held)])
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
    let set = args.labels.open(&args.data, args.classes.clone(), &wanted, budget.data)?;
    say(&args.common, &set);
    let others = [&args.validation, &args.test].map(|source| {
        source.as_ref().map(|source| args.labels.open(source, set.labelling.classes.clone(), &wanted, budget.data)).transpose()
    });
    let [validation, test] = others;
    let (validation, test) = (validation?, test?);
    validation.iter().chain(&test).for_each(|other| say(&args.common, other));
    let classes = set.labelling.classes.clone();
    let balance = args.balance(classes.len())?;
    let [fit, held] = args.split(&set)?;
    // where nothing is held out, the images themselves are looked at, and called so
    let (held_set, held, what) = match &validation {
        Some(other) => (other, (0..other.len()).collect(), "validation"),
        None if held.is_empty() => (&set, fit.clone(), "the images that it learns from"),
        None => (&set, held, "held-out images"),
    };
    let graph = graph(&args, &loaded, channels, &classes)?;
    args.common.say(&format!(
        "segmenter: {} parameters, {} images to learn from, {} {what}",
        graph.parameter_count(),
        fit.len(),
        held.len()
    ));
    files::make_folder(&args.out)?;
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let mut trainer = Trainer::new(&mut device, &graph, args.batch.get(), args.weight_decay, args.dice)?;
    let steps = fit.len().div_ceil(args.batch.get()).max(1);
    let options = Options {
        epochs: args.epochs.map_or_else(|| (1500 / steps).clamp(10, 100), NonZeroUsize::get),
        lr: args.lr,
        encoder_lr: if args.from_scratch { 1.0 } else { args.encoder_lr },
        patience: args.patience.get(),
        changes: Changes {
            flip: args.augment != Augment::None,
            turn: args.augment == Augment::All,
            jitter: if args.augment == Augment::All { 0.1 } else { 0.0 },
        },
        balance,
        seed: args.seed,
    };
    let (start, mut log) = (Instant::now(), String::new());
    let pretrained = (!args.from_scratch).then_some(&loaded);
    let best = trainer.train(&mut device, pretrained, (&set, &fit), (held_set, &held), &options, |epoch| {
        let Epoch { epoch, loss, dice, iou, best } = epoch;
        let line = json!({"kind": "epoch", "epoch": epoch, "loss": loss, "dice": dice, "mean_iou": iou, "best": best});
        if args.common.json {
            outln!("{line}");
        } else {
            let seconds = start.elapsed().as_secs();
            args.common.say(&format!(
                "epoch {epoch}/{}  loss {loss:.4}  {what}: Dice {dice:.4}, IoU {iou:.4}  {seconds} s",
                options.epochs
            ));
        }
        log.push_str(&(line.to_string() + "\n"));
        Ok(())
    })?;
    model::save(&args.out.join(FILES[0]), &mut device, &graph, trainer.store())?;
    files::write_atomically(&args.out.join(FILES[1]), log.as_bytes())?;
    let judged = match &test {
        Some(test) => Some(judge(&mut device, trainer.segmenter(), test, &(0..test.len()).collect::<Vec<_>>(), |_| {})?),
        None => None,
    };
    let line = json!({
        "kind": "segment", "model": args.model.display().to_string(), "pretrained": !args.from_scratch, "images": fit.len(),
        "epoch": best.epoch, "dice": best.dice, "mean_iou": best.iou, "test": judged.as_ref().map(|judged| as_json(judged, &classes)),
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
    let seconds = start.elapsed().as_secs_f64();
    outln!(
        "{what}: Dice {:.4} after epoch {}, {seconds:.0} s; {}: {}",
        best.dice,
        best.epoch,
        args.out.display(),
        FILES.join(", ")
    );
    Ok(())
}

/// The segmenter, on crops.
fn graph(args: &TrainArgs, loaded: &csae::model::Loaded, channels: usize, classes: &[String]) -> Result<Graph> {
    let input = Dims::new(channels, args.crop.get(), args.crop.get());
    let on_crops = |spec| Graph::new(spec, input).map_err(|error| error.at(format!("--crop {}", args.crop)));
    let spec = model::encoder(&loaded.graph, args.layer.as_deref(), None)?;
    let align = Segmenter::align(&spec)?;
    if !args.crop.get().is_multiple_of(align) {
        bail_usage!("--crop {}: the model's strides need a multiple of {align}", args.crop);
    }
    let encoder = on_crops(&spec)?;
    let how = if args.decoder == Way::Deconv { model::Decoder::Deconv } else { model::Decoder::Unpool };
    let whole = model::decoder(&spec, &encoder, (how, 1, classes.len()), &[], classes.to_vec())?;
    let graph = on_crops(&whole)?;
    if graph.knows_level() || graph.knows_missing() {
        return Err(Error::usage(
            "the model is told noise levels or missing pixels, which images with labels do not have; take another, such as --preset pyramid",
        ));
    }
    Ok(graph)
}
