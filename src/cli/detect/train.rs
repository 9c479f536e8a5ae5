//! `csae detect train`

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use csae::data::Wanted;
use csae::data::annotations::box_set::Set;
use csae::error::Result;
use csae::files;
use csae::model::{self, Decoder};
use csae::ops::CELL;
use csae::tasks::detect::{Changes, Found, Options, Trainer, judge};
use csae::tasks::inspect::ModelPaths;
use csae::train::supervised::{Epoch, Watch};
use serde_json::json;

use super::{Boxes, as_json, say, tell};
use crate::cli::learning::{Diary, FILES, Learning, asked, stopped};
use crate::cli::{Common, budget};

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
    /// Also turned to all sides, brightness and contrast changed a little: where images have no
    /// above and below
    All,
}

/// Layers of 3×3 between the maps and the last layer, by their dilations.
const CONTEXT: [usize; 4] = [1, 2, 4, 2];

/// Train a detector: a model's encoder, and a head that says of each cell of a grid whether an
/// object's middle is near, its box and its class.
///
/// A part of the images is held out, or others are named to validate on; the weights that do best
/// there (mAP@0.5) are kept. Writes model.safetensors (for `csae detect eval` and `predict`),
/// metrics.jsonl and detect.json.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae train images/ --preset pyramid --out runs/pyramid\n  csae detect train runs/pyramid VOC/ --split train --validation VOC/ --validation-split val -o runs/detector\n  csae detect train runs/pyramid images/ --coco instances.json -o runs/detector"
)]
pub struct TrainArgs {
    /// Model file, a run folder, or a bundled model, of convolutions: its encoder is taken
    model: PathBuf,
    /// Images: a folder (perhaps with Pascal VOC's `JPEGImages` and `Annotations` in it), a file, a
    /// list (@FILE, or -)
    data: String,
    #[command(flatten)]
    boxes: Boxes,
    /// Only the images of this list in DATA/ImageSets/Main, such as train
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Names of the classes, comma-separated; objects of others are left out [default: all that
    /// occur, in alphabetical order]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    classes: Vec<String>,
    /// Images with boxes to validate on [default: a part of DATA]
    #[arg(long, value_name = "DATA")]
    validation: Option<String>,
    /// The list of the images to validate on; without --validation, of DATA
    #[arg(long, value_name = "NAME")]
    validation_split: Option<String>,
    /// Images with boxes to judge by, once, at the end
    #[arg(long, value_name = "DATA")]
    test: Option<String>,
    /// The list of the images to judge by; without --test, of DATA
    #[arg(long, value_name = "NAME")]
    test_split: Option<String>,
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
    #[command(flatten)]
    learning: Learning,
    #[command(flatten)]
    pub(super) common: Common,
}

const NUMBERS: &str = "detect.json";

pub fn run(args: TrainArgs) -> anyhow::Result<()> {
    let (common, learning) = (&args.common, &args.learning);
    learning.check(NUMBERS)?;
    let loaded = model::load(&ModelPaths::of(&args.model).model)?;
    let budget = budget(learning.max_memory.as_deref())?;
    let wanted = Wanted {
        channels: Some(loaded.graph.nodes[0].dims.c),
        strict: learning.strict,
        memory: budget.all,
    };
    let open = |source: &str, split: Option<&str>, classes: &[String]| -> Result<Set> {
        let set = args.boxes.open(source, split, classes, &wanted, budget.data)?;
        say(common, &set);
        Ok(set)
    };
    let set = open(&args.data, args.split.as_deref(), &args.classes)?;
    let classes = &set.classes;
    // of its own source, or another list of DATA
    let other = |source: &Option<String>, split: &Option<String>| {
        let named = source.is_some() || split.is_some();
        named
            .then(|| open(source.as_ref().unwrap_or(&args.data), split.as_deref(), classes))
            .transpose()
    };
    let validation = other(&args.validation, &args.validation_split)?;
    let test = other(&args.test, &args.test_split)?;
    let [fit, held] = learning.split(set.len(), validation.is_none())?;
    // where nothing is held out, the images themselves are looked at, and called so
    let (held_set, held, what) = match &validation {
        Some(other) => (other, (0..other.len()).collect(), "validation"),
        None if held.is_empty() => (&set, fit.clone(), "the images that it learns from"),
        None => (&set, held, "held-out images"),
    };
    let grid = (Decoder::Deconv, args.stride.get(), CELL + classes.len());
    let graph = learning.headed(&loaded, ("--size", args.size.get()), grid, &CONTEXT, classes)?;
    common.say(&format!(
        "detector: {} parameters, {} images to learn from, {} {what}",
        graph.parameter_count(),
        fit.len(),
        held.len()
    ));
    let mut device = common.open()?;
    device.limit_memory(budget.all);
    let focal = args.objectness == Objectness::Focal;
    let sets = [Some(&set), validation.as_ref(), test.as_ref()].into_iter().flatten();
    let data = sets.map(|set| set.images.held_bytes() + set.images.reading_bytes()).sum();
    let mut trainer = Trainer::new(
        &mut device,
        &graph,
        (learning.batch.get(), data),
        learning.weight_decay,
        focal,
    )?;
    let changes = Changes {
        move_: args.augment != Augment::None,
        turn: args.augment == Augment::All,
        jitter: if args.augment == Augment::All { 0.1 } else { 0.0 },
    };
    let options = Options { plan: learning.plan(fit.len()), changes };
    files::make_folder(&learning.out)?;
    let mut diary = Diary::new(common, &learning.out, options.plan.epochs);
    let marks =
        |Found(map50): &Found| (json!({"map50": map50}), format!("{what}: mAP@0.5 {map50:.4}"));
    let mut tell_epoch = |epoch: Epoch<Found>| {
        diary.epoch(&epoch, marks);
        Ok(())
    };
    let pretrained = (!learning.from_scratch).then_some(&loaded);
    let mut watch = Watch { tell: &mut tell_epoch, stop: &asked };
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
        Some(test) if !trained.stopped => Some(
            judge(
                &mut device,
                trainer.detector(),
                test,
                &(0..test.len()).collect::<Vec<_>>(),
                |_| {},
            )?
            .precision(),
        ),
        _ => None,
    };
    let (epoch, found) =
        (trained.best.map(|best| best.epoch), trained.best.and_then(|best| best.judged));
    let line = json!({
        "kind": "detect", "model": args.model.display().to_string(), "pretrained": !learning.from_scratch, "images": fit.len(),
        "epoch": epoch, "map50": found.map(|found| found.0), "stopped": trained.stopped,
        "test": judged.as_ref().map(|judged| as_json(judged, classes)), "seconds": diary.seconds(),
    });
    diary.write(NUMBERS, &line)?;
    common.say_kernels(&mut device);
    if common.json {
        outln!("{line}");
    } else if let Some(judged) = &judged {
        outln!("test: {} images", test.as_ref().map_or(0, Set::len));
        tell(judged, classes);
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
