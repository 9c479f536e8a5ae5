//! `csae detect`: object detection.

mod eval;
mod predict;
mod train;

pub use train::Detect;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::{CommandArgs, Common, commands, counted};
use crate::annotations::box_set::{Annotations, DetectionSet};
use crate::annotations::findings::Finding;
use crate::cli::ranks::RanksArgs;
use crate::data::LoadOptions;
use crate::error::Result;
use crate::metrics::precision::AveragePrecision;
use crate::model::LoadedModel;
use crate::tasks::detect::Detector;

/// Detect objects in images: boxes and classes, with an encoder that was trained without labels and
/// a grid head trained on boxes.
#[derive(Debug, Args)]
pub struct DetectArgs {
    #[command(subcommand)]
    command: DetectCommand,
}

commands! {
    enum DetectCommand {
        Train(Box<train::TrainArgs>),
        Eval(eval::EvalArgs),
        Predict(predict::PredictArgs),
    }
}

impl CommandArgs for DetectArgs {
    fn common(&self) -> Option<&Common> {
        self.command.common()
    }

    fn writes_files(&self) -> bool {
        self.command.writes_files()
    }

    fn ranks(&self) -> Option<&RanksArgs> {
        self.command.ranks()
    }

    fn run(self) -> anyhow::Result<()> {
        self.command.run()
    }
}

/// Flags for box annotations.
#[derive(Debug, Args)]
struct Boxes {
    /// Folder of annotations with the images' names: Pascal VOC XML or YOLO text files [default:
    /// `Annotations` beside `JPEGImages` in DATA, or `labels` beside `images`]
    #[arg(long, value_name = "DIR", conflicts_with = "coco")]
    annotations: Option<PathBuf>,
    /// COCO JSON file
    #[arg(long, value_name = "FILE")]
    coco: Option<PathBuf>,
}

impl Boxes {
    fn open(
        &self,
        source: &str,
        split: Option<&str>,
        classes: &[String],
        wanted: &LoadOptions,
        limit: u64,
    ) -> Result<DetectionSet> {
        let annotations = match (&self.annotations, &self.coco) {
            (Some(folder), _) => Annotations::Folder(folder.clone()),
            (None, Some(file)) => Annotations::Coco(file.clone()),
            (None, None) => Annotations::Beside,
        };
        DetectionSet::open(source, &annotations, split, classes, wanted, limit)
    }
}

/// Reports the set, skipped files and objects, and changes to boxes.
fn report_set(common: &Common, set: &DetectionSet) {
    common.status(&format!("data: {}, {} objects", set.description, set.objects()));
    common.report_files(&set.report);
    common.report_names(
        |n| format!("no annotations for {}; skipped", counted(n, "image", "images")),
        &set.unannotated,
    );
    for Finding { oddity, places } in set.findings.iter() {
        common.report_names(|n| oddity.describe(n), places);
    }
    if set.clipped > 0 {
        common.status(&format!("clipped {} to the image", counted(set.clipped, "box", "boxes")));
    }
    common.report_names(|n| format!("dropped {}", counted(n, "box", "boxes")), &set.dropped);
    if !set.other.is_empty() {
        let other: Vec<String> =
            set.other.iter().map(|(class, n)| format!("{class} {n}")).collect();
        common.status(&format!("skipped objects of other classes: {}", other.join(", ")));
    }
}

fn load(common: &Common, path: &Path) -> Result<LoadedModel> {
    let loaded = common.load_model(path)?;
    Detector::check(&loaded.graph)?;
    Ok(loaded)
}

fn as_json(precision: &AveragePrecision, classes: &[String]) -> Value {
    let each: Vec<Value> = classes
        .iter()
        .enumerate()
        .map(|(i, name)| json!({"class": name, "ap50": precision.ap50[i], "ap": precision.ap[i]}))
        .collect();
    json!({"classes": each, "map50": precision.map50, "map": precision.map})
}

fn print(precision: &AveragePrecision, classes: &[String]) {
    let cell = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    outln!("{:<24} {:>8} {:>12}", "", "AP@0.5", "AP@[.5:.95]");
    for (i, name) in classes.iter().enumerate() {
        outln!("{name:<24} {:>8} {:>12}", cell(precision.ap50[i]), cell(precision.ap[i]));
    }
    if precision.map50.is_none() {
        outln!("{:<24} no objects to find", "mean");
        return;
    }
    outln!("{:<24} {:>8} {:>12}", "mean", cell(precision.map50), cell(precision.map));
}
