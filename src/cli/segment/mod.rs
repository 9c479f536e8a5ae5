//! `csae segment`

mod eval;
mod predict;
mod train;

pub use train::resume;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use csae::budget::Budget;
use csae::data::Wanted;
use csae::data::annotations::label_set::{Meaning, Set};
use csae::device::Device;
use csae::error::Result;
use csae::model::{self, LoadedModel, Purpose};
use csae::tasks::segment::{Judged, Segmenter};
use serde_json::{Value, json};

use super::{Common, counted};

/// Tell what every pixel of an image is of, by an encoder that learned without labels and a decoder
/// that learns from label images.
#[derive(Debug, Args)]
pub struct SegmentArgs {
    #[command(subcommand)]
    command: SegmentCommand,
}

#[derive(Debug, Subcommand)]
enum SegmentCommand {
    Train(Box<train::TrainArgs>),
    Eval(eval::EvalArgs),
    Predict(predict::PredictArgs),
}

impl SegmentArgs {
    pub(super) const fn common(&self) -> Option<&Common> {
        match &self.command {
            SegmentCommand::Train(args) => Some(&args.common),
            SegmentCommand::Eval(args) => Some(&args.common),
            SegmentCommand::Predict(args) => Some(&args.common),
        }
    }

    pub(super) const fn writes_files(&self) -> bool {
        !matches!(self.command, SegmentCommand::Eval(_))
    }
}

pub fn run(args: SegmentArgs) -> anyhow::Result<()> {
    match args.command {
        SegmentCommand::Train(args) => train::run(*args),
        SegmentCommand::Eval(args) => eval::run(args),
        SegmentCommand::Predict(args) => predict::run(args),
    }
}

/// What the numbers in label images mean.
#[derive(Debug, Args)]
struct Labels {
    /// Folder of label images: PNG files, called as the images, with a class number a pixel (gray,
    /// or a palette's) [default: `labels` or `masks` beside `images` in DATA]
    #[arg(long, value_name = "DIR")]
    labels: Option<PathBuf>,
    /// Labels number objects: 0 is the background, every other number the foreground
    #[arg(long)]
    instances: bool,
    /// Number of pixels that do not count
    #[arg(long, value_name = "N")]
    ignore: Option<u16>,
}

impl Labels {
    fn open(&self, source: &str, classes: Vec<String>, wanted: &Wanted, limit: u64) -> Result<Set> {
        let meaning = Meaning { classes, instances: self.instances, ignore: self.ignore };
        Set::open(source, self.labels.as_deref(), &meaning, wanted, limit)
    }
}

/// Says what was opened, and what was passed over.
fn say(common: &Common, set: &Set) {
    common.say(&format!("data: {}", set.description));
    common.say_skipped(&set.skipped);
    common.say_names(
        |n| format!("no labels for {}, not used", counted(n, "image", "images")),
        &set.unlabelled,
    );
}

/// A segmenter from a file or a folder, and its values on a device.
fn placed(device: &mut Device, loaded: &LoadedModel) -> Result<Segmenter> {
    let store = loaded.place(device, &loaded.graph, Purpose::Infer)?;
    Segmenter::new(&loaded.graph, &store)
}

fn load(path: &Path) -> Result<LoadedModel> {
    let loaded = model::load(path)?;
    // says so before anything is opened
    Segmenter::check(&loaded.graph)?;
    Ok(loaded)
}

/// Refuses images too large for what may be taken.
fn check_memory(
    device: &Device,
    segmenter: &Segmenter,
    sizes: impl Iterator<Item = (usize, usize)>,
    held: u64,
    budget: &Budget,
) -> Result<()> {
    let Some((h, w)) = sizes.max_by_key(|(h, w)| h * w) else { return Ok(()) };
    let needed = held + segmenter.planned_bytes(device, h, w)?;
    match budget.all {
        Some(all) if needed > all => Err(csae::error::Error::usage(format!(
            "an image of {w}x{h} takes {} MiB in all, more than the {} MiB that may be taken; raise --max-memory",
            needed.div_ceil(1 << 20),
            all >> 20
        ))),
        _ => Ok(()),
    }
}

fn as_json(judged: &Judged, classes: &[String]) -> Value {
    let scores = judged.marks.scores();
    let each: Vec<Value> = classes
        .iter()
        .enumerate()
        .map(|(i, name)| json!({"class": name, "iou": scores.iou[i], "dice": scores.dice[i]}))
        .collect();
    json!({
        "classes": each, "mean_iou": scores.mean_iou, "mean_dice": scores.mean_dice, "image_dice": judged.image_dice,
        "pixel_accuracy": scores.pixel_accuracy,
    })
}

fn tell(judged: &Judged, classes: &[String]) {
    let scores = judged.marks.scores();
    outln!("{:<24} {:>8} {:>8}", "", "IoU", "Dice");
    let cell = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    for (i, name) in classes.iter().enumerate() {
        outln!("{name:<24} {:>8} {:>8}", cell(scores.iou[i]), cell(scores.dice[i]));
    }
    let of = if classes.len() > 1 { "mean (Dice of classes 1…)" } else { "mean" };
    outln!("{of:<24} {:>8.4} {:>8.4}", scores.mean_iou, scores.mean_dice);
    outln!(
        "Dice, mean over images {:.4}; pixels right {:.2} %",
        judged.image_dice,
        100.0 * scores.pixel_accuracy
    );
}
