//! `csae detect`

mod eval;
mod predict;
mod train;

pub use train::resume;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use csae::data::Wanted;
use csae::data::annotations::box_set::{Annotations, Set};
use csae::error::Result;
use csae::metrics::precision::Precision;
use csae::model::{self, LoadedModel};
use csae::tasks::detect::Detector;
use serde_json::{Value, json};

use super::{Common, counted};

/// Find objects in images: boxes and classes, by an encoder that learned without labels and a grid
/// head that learns from boxes.
#[derive(Debug, Args)]
pub struct DetectArgs {
    #[command(subcommand)]
    command: DetectCommand,
}

#[derive(Debug, Subcommand)]
enum DetectCommand {
    Train(Box<train::TrainArgs>),
    Eval(eval::EvalArgs),
    Predict(predict::PredictArgs),
}

impl DetectArgs {
    pub(super) const fn common(&self) -> Option<&Common> {
        match &self.command {
            DetectCommand::Train(args) => Some(&args.common),
            DetectCommand::Eval(args) => Some(&args.common),
            DetectCommand::Predict(args) => Some(&args.common),
        }
    }

    pub(super) const fn writes_files(&self) -> bool {
        !matches!(self.command, DetectCommand::Eval(_))
    }
}

pub fn run(args: DetectArgs) -> anyhow::Result<()> {
    match args.command {
        DetectCommand::Train(args) => train::run(*args),
        DetectCommand::Eval(args) => eval::run(args),
        DetectCommand::Predict(args) => predict::run(args),
    }
}

/// Where boxes are.
#[derive(Debug, Args)]
struct Boxes {
    /// Folder of Pascal VOC's XML files, called as the images [default: `Annotations` beside
    /// `JPEGImages` in DATA]
    #[arg(long, value_name = "DIR", conflicts_with = "coco")]
    annotations: Option<PathBuf>,
    /// COCO's JSON file
    #[arg(long, value_name = "FILE")]
    coco: Option<PathBuf>,
}

impl Boxes {
    fn open(
        &self,
        source: &str,
        split: Option<&str>,
        classes: &[String],
        wanted: &Wanted,
        limit: u64,
    ) -> Result<Set> {
        let annotations = match (&self.annotations, &self.coco) {
            (Some(folder), _) => Annotations::Voc(folder.clone()),
            (None, Some(file)) => Annotations::Coco(file.clone()),
            (None, None) => Annotations::Beside,
        };
        Set::open(source, &annotations, split, classes, wanted, limit)
    }
}

/// Says what was opened, what was passed over, and what was done to boxes.
fn say(common: &Common, set: &Set) {
    common.say(&format!("data: {}, {} objects", set.description, set.objects()));
    common.say_skipped(&set.skipped);
    common.say_names(
        |n| format!("no annotations for {}, not used", counted(n, "image", "images")),
        &set.unmarked,
    );
    if set.clipped > 0 {
        common.say(&format!(
            "clipped {} that reached beyond the image",
            counted(set.clipped, "box", "boxes")
        ));
    }
    common.say_names(|n| format!("dropped {}", counted(n, "box", "boxes")), &set.dropped);
    if !set.other.is_empty() {
        let other: Vec<String> =
            set.other.iter().map(|(class, n)| format!("{class} {n}")).collect();
        common.say(&format!("objects of other classes, left out: {}", other.join(", ")));
    }
}

fn load(path: &Path) -> Result<LoadedModel> {
    let loaded = model::load(path)?;
    Detector::check(&loaded.graph)?;
    Ok(loaded)
}

fn as_json(precision: &Precision, classes: &[String]) -> Value {
    let each: Vec<Value> = classes
        .iter()
        .enumerate()
        .map(|(i, name)| json!({"class": name, "ap50": precision.ap50[i], "ap": precision.ap[i]}))
        .collect();
    json!({"classes": each, "map50": precision.map50, "map": precision.map})
}

fn tell(precision: &Precision, classes: &[String]) {
    let cell = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    outln!("{:<24} {:>8} {:>12}", "", "AP@0.5", "AP@[.5:.95]");
    for (i, name) in classes.iter().enumerate() {
        outln!("{name:<24} {:>8} {:>12}", cell(precision.ap50[i]), cell(precision.ap[i]));
    }
    outln!("{:<24} {:>8.4} {:>12.4}", "mean", precision.map50, precision.map);
}
