//! `csae segment train`

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use csae::bail_usage;
use csae::data::Wanted;
use csae::data::annotations::label_set::Set;
use csae::error::{Error, Result};
use csae::files;
use csae::model::{self, Decoder};
use csae::tasks::inspect::ModelPaths;
use csae::tasks::segment::{Balance, Changes, Found, Options, Trainer, judge};
use csae::train::supervised::{Epoch, Watch};
use serde_json::json;

use super::{Labels, as_json, say, tell as tell_scores};
use crate::cli::learning::{Diary, FILES, Learning, asked, stopped};
use crate::cli::{Common, budget};

/// How maps are enlarged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DecoderKind {
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
    /// All eight ways that a square can be laid, brightness and contrast changed a little: where
    /// images have no above and below
    All,
}

/// Train a segmenter: a model's encoder, and a decoder with skips from the encoder's maps, on
/// images with label images.
///
/// A part of the images is held out, or others are named to validate on; the weights that do best
/// there (mean IoU) are kept. Writes model.safetensors (for `csae segment eval` and `predict`),
/// metrics.jsonl and segment.json.
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
    /// Images with labels to judge by, once, at the end
    #[arg(long, value_name = "DATA")]
    test: Option<String>,
    /// How the decoder enlarges maps
    #[arg(long, value_enum, default_value_t = DecoderKind::Deconv)]
    decoder: DecoderKind,
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
    #[command(flatten)]
    learning: Learning,
    #[command(flatten)]
    pub(super) common: Common,
}

const NUMBERS: &str = "segment.json";
/// Classes without names that make one doubt that they are classes.
const MANY: usize = 20;

impl TrainArgs {
    fn balance(&self, classes: usize) -> Result<Balance> {
        match self.class_weights.as_str() {
            "even" => Ok(Balance::Even),
            "median" => Ok(Balance::Median),
            text => {
                let weights: Vec<f64> =
                    text.split(',').map_while(|part| part.trim().parse().ok()).collect();
                let fine = weights.len() == classes && text.split(',').count() == classes;
                if !fine
                    || weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0)
                    || weights.iter().sum::<f64>() == 0.0
                {
                    bail_usage!(
                        "--class-weights {text}: even, median, or {classes} numbers from 0 on, one a class"
                    );
                }
                Ok(Balance::Given(weights))
            }
        }
    }
}

pub fn run(args: TrainArgs) -> anyhow::Result<()> {
    let (common, learning) = (&args.common, &args.learning);
    learning.check(NUMBERS)?;
    if !(args.dice.is_finite() && args.dice >= 0.0) {
        return Err(Error::usage(format!("--dice {}: it must not be below 0", args.dice)).into());
    }
    let loaded = model::load(&ModelPaths::of(&args.model).model)?;
    let budget = budget(learning.max_memory.as_deref())?;
    let wanted = Wanted {
        channels: Some(loaded.graph.nodes[0].dims.c),
        strict: learning.strict,
        memory: budget.all,
    };
    let open = |source: &str, classes: &[String]| -> Result<Set> {
        let set = args.labels.open(source, classes.to_vec(), &wanted, budget.data)?;
        say(common, &set);
        Ok(set)
    };
    let set = open(&args.data, &args.classes)?;
    let classes = &set.labelling.classes;
    if args.classes.is_empty() && classes.len() > MANY {
        common.say(&format!(
            "note: numbers of labels are taken for {} classes; if they number objects, add --instances",
            classes.len()
        ));
    }
    common.say_same(&args.data, args.test.as_ref());
    let balance = args.balance(classes.len())?;
    let validation = args.validation.as_ref().map(|source| open(source, classes)).transpose()?;
    let test = args.test.as_ref().map(|source| open(source, classes)).transpose()?;
    let [fit, held] = learning.split(set.len(), validation.is_none())?;
    // where nothing is held out, the images themselves are looked at, and called so
    let (held_set, held, what) = match &validation {
        Some(other) => (other, (0..other.len()).collect(), "validation"),
        None if held.is_empty() => (&set, fit.clone(), "the images that it learns from"),
        None => (&set, held, "held-out images"),
    };
    let how = if args.decoder == DecoderKind::Deconv { Decoder::Deconv } else { Decoder::Unpool };
    let graph = learning.headed(
        &loaded,
        ("--crop", args.crop.get()),
        (how, 1, classes.len()),
        &[],
        classes,
    )?;
    common.say(&format!(
        "segmenter: {} parameters, {} images to learn from, {} {what}",
        graph.parameter_count(),
        fit.len(),
        held.len()
    ));
    let mut device = common.open()?;
    device.limit_memory(budget.all);
    let data = [Some(&set), validation.as_ref(), test.as_ref()]
        .into_iter()
        .flatten()
        .map(Set::held_bytes)
        .sum();
    let trainer = Trainer::new(
        &mut device,
        &graph,
        (learning.batch.get(), data),
        learning.weight_decay,
        args.dice,
    )?;
    let changes = Changes {
        flip: args.augment != Augment::None,
        turn: args.augment == Augment::All,
        jitter: if args.augment == Augment::All { 0.1 } else { 0.0 },
    };
    let options = Options { plan: learning.plan(trainer.samples(&set, &fit)), changes, balance };
    files::make_folder(&learning.out)?;
    let mut diary = Diary::new(common, &learning.out, options.plan.epochs);
    let marks = |found: &Found| {
        let Found { dice, iou } = found;
        (json!({"dice": dice, "mean_iou": iou}), format!("{what}: Dice {dice:.4}, IoU {iou:.4}"))
    };
    let mut tell = |epoch: Epoch<Found>| {
        diary.epoch(&epoch, marks);
        Ok(())
    };
    let pretrained = (!learning.from_scratch).then_some(&loaded);
    let mut watch = Watch { tell: &mut tell, stop: &asked };
    let trained = trainer.train(
        &mut device,
        pretrained,
        (&set, &fit),
        (held_set, &held),
        &options,
        &mut watch,
    )?;
    model::save(&learning.out.join(FILES[0]), &mut device, &graph, trainer.store())?;
    let judged = match &test {
        Some(test) if !trained.stopped => Some(judge(
            &mut device,
            trainer.segmenter(),
            test,
            &(0..test.len()).collect::<Vec<_>>(),
            |_| {},
        )?),
        _ => None,
    };
    let (epoch, found) =
        (trained.best.map(|best| best.epoch), trained.best.and_then(|best| best.judged));
    let line = json!({
        "kind": "segment", "model": args.model.display().to_string(), "pretrained": !learning.from_scratch, "images": fit.len(),
        "epoch": epoch, "dice": found.map(|found| found.dice), "mean_iou": found.map(|found| found.iou), "stopped": trained.stopped,
        "test": judged.as_ref().map(|judged| as_json(judged, classes)), "seconds": diary.seconds(),
    });
    diary.write(NUMBERS, &line)?;
    common.say_kernels(&mut device);
    if common.json {
        outln!("{line}");
    } else if let Some(judged) = &judged {
        outln!("test: {} images", test.as_ref().map_or(0, Set::len));
        tell_scores(judged, classes);
    }
    stopped(&trained, &learning.out)?;
    if let (false, Some(epoch), Some(found)) = (common.json, epoch, found) {
        let (text, out) = (marks(&found).1, learning.out.display());
        outln!(
            "{text} after epoch {epoch}, {:.0} s; {out}: {}, {}, {NUMBERS}",
            diary.seconds(),
            FILES[0],
            FILES[1]
        );
    }
    Ok(())
}
