//! `csae segment`: semantic segmentation.

mod eval;
mod predict;
mod train;

pub use train::Segment;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::{CommandArgs, Common, commands, counted};
use crate::annotations::label_set::{LabelOptions, SegmentationSet};
use crate::budget::Budget;
use crate::cli::ranks::RanksArgs;
use crate::data::LoadOptions;
use crate::device::Device;
use crate::error::Result;
use crate::model::{LabelReading, LoadedModel, Purpose};
use crate::shape::Size;
use crate::tasks::segment::{SegmentationScores, Segmenter};

/// Segment images: classify every pixel, with an encoder that was trained without labels and a
/// decoder trained on label images.
#[derive(Debug, Args)]
pub struct SegmentArgs {
    #[command(subcommand)]
    command: SegmentCommand,
}

commands! {
    enum SegmentCommand {
        Train(Box<train::TrainArgs>),
        Eval(eval::EvalArgs),
        Predict(predict::PredictArgs),
    }
}

impl CommandArgs for SegmentArgs {
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

/// Flags for label images.
#[derive(Clone, Debug, Args)]
struct Labels {
    /// Folder of label images: PNG files with the images' names and one class number per pixel
    /// (gray or palette) [default: `labels` or `masks` beside `images` in DATA]
    #[arg(long, value_name = "DIR")]
    labels: Option<PathBuf>,
    /// The labels are numbers of objects: 0 is the background, all other numbers the foreground
    #[arg(long)]
    instances: bool,
    /// Label of pixels to ignore
    #[arg(long, value_name = "N")]
    ignore: Option<u16>,
}

impl Labels {
    /// These flags, with those of the training of a model where they are not given.
    fn as_trained(&self, common: &Common, loaded: &LoadedModel) -> Self {
        let LabelReading { instances, ignore } = loaded.graph.spec.labels;
        if let Some(label) = ignore.filter(|_| self.ignore.is_none()) {
            common.status(&format!("pixels with label {label} are ignored, as in training"));
        }
        let ignore = self.ignore.or(ignore);
        Self { instances: self.instances || instances, ignore, ..self.clone() }
    }

    fn open(
        &self,
        source: &str,
        classes: Vec<String>,
        wanted: &LoadOptions,
        limit: u64,
    ) -> Result<SegmentationSet> {
        let meaning = LabelOptions { classes, instances: self.instances, ignore: self.ignore };
        SegmentationSet::open(source, self.labels.as_deref(), &meaning, wanted, limit)
    }
}

/// Reports the set and skipped files.
fn report_set(common: &Common, set: &SegmentationSet) {
    common.status(&format!("data: {}", set.description));
    common.report_files(&set.report);
    common.report_names(
        |n| format!("no labels for {}; skipped", counted(n, "image", "images")),
        &set.unlabelled,
    );
}

/// Loads a segmenter onto a device.
fn placed(device: &mut Device, loaded: &LoadedModel) -> Result<Segmenter> {
    let store = loaded.place(device, &loaded.graph, Purpose::Infer)?;
    Segmenter::new(&loaded.graph, &store)
}

/// Reads a segmenter's model.
fn load(common: &Common, path: &Path) -> Result<LoadedModel> {
    let loaded = common.load_model(path)?;
    // Fails before the images and the device are opened.
    Segmenter::check(&loaded.graph)?;
    Ok(loaded)
}

/// Bytes for each pixel of the results: the overlay in f32 and in 8 bits, the classes, the encoded
/// files.
const PICTURE_BYTES: usize = 3 * 4 + 3 + 1 + 4;

/// Fails if the largest image does not fit into the memory budget.
fn check_memory(
    device: &Device,
    segmenter: &Segmenter,
    sizes: impl Iterator<Item = Size>,
    held: u64,
    budget: &Budget,
) -> Result<()> {
    let Some(size) = sizes.max_by_key(|size| size.area()) else { return Ok(()) };
    let pictures = (size.area() * PICTURE_BYTES) as u64;
    let needed = held + segmenter.planned_bytes(device, size)? + pictures;
    match budget.all {
        Some(all) if needed > all => Err(crate::error::Error::usage(format!(
            "segmenting an image of {size} needs {} MiB, more than the memory budget of {} MiB; \
             raise --max-memory",
            needed.div_ceil(1 << 20),
            all >> 20
        ))),
        _ => Ok(()),
    }
}

fn as_json(scores: &SegmentationScores, classes: &[String]) -> Value {
    let by_class = scores.confusion.scores();
    let each: Vec<Value> = classes
        .iter()
        .enumerate()
        .map(|(i, name)| json!({"class": name, "iou": by_class.iou[i], "dice": by_class.dice[i]}))
        .collect();
    json!({
        "classes": each, "mean_iou": by_class.mean_iou, "mean_dice": by_class.mean_dice,
        "image_dice": scores.image_dice, "pixel_accuracy": by_class.pixel_accuracy,
    })
}

fn print(scores: &SegmentationScores, classes: &[String]) {
    let by_class = scores.confusion.scores();
    outln!("{:<24} {:>8} {:>8}", "", "IoU", "Dice");
    let cell = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    for (i, name) in classes.iter().enumerate() {
        outln!("{name:<24} {:>8} {:>8}", cell(by_class.iou[i]), cell(by_class.dice[i]));
    }
    let name = if classes.len() > 1 { "mean (Dice of classes 1…)" } else { "mean" };
    outln!("{name:<24} {:>8.4} {:>8.4}", by_class.mean_iou, by_class.mean_dice);
    outln!(
        "mean Dice over images {:.4}; pixel accuracy {:.2} %",
        scores.image_dice,
        100.0 * by_class.pixel_accuracy
    );
}
