//! `csae detect eval`: evaluates a detector.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Boxes, as_json, load, print, report_set};
use crate::cli::{CommandArgs, Common, budget, features, require_most};
use crate::data::LoadOptions;
use crate::model::Purpose;
use crate::tasks::detect::{Detector, evaluate};

/// Evaluate a detector on images with boxes: average precision of each class, mAP@0.5 and
/// mAP@[.5:.95], as defined by COCO.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae detect eval runs/detector VOC/ --split test
  csae detect eval runs/detector images/ --coco instances.json --json")]
pub struct EvalArgs {
    /// Detector: a file or folder written by `csae detect train`
    model: PathBuf,
    /// Images: a folder (optionally with Pascal VOC's `JPEGImages` and `Annotations`, or YOLO's
    /// `images` and `labels` in it), a file, a list (@FILE, or -) or a pattern ('images/*.png')
    data: String,
    #[command(flatten)]
    boxes: Boxes,
    /// Only the images listed in this file of DATA/ImageSets/Main, such as test
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Evaluate also if more than a tenth of the images are skipped
    #[arg(long)]
    partial: bool,
    /// Fail on files that do not decode, incomplete annotations and dropped boxes, instead of
    /// skipping them
    #[arg(long)]
    strict: bool,
    /// Memory budget, such as 512MiB or 2GiB; images that need more than half of it are read from
    /// their files as needed [default: the free memory]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl CommandArgs for EvalArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        false
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: EvalArgs) -> anyhow::Result<()> {
    let loaded = load(&args.common, &args.model)?;
    let budget = budget(args.max_memory.as_deref())?;
    let wanted = LoadOptions {
        channels: Some(loaded.graph.nodes[0].dims.c),
        eight_bits: true,
        ..LoadOptions::new(args.strict, &budget)
    };
    let classes = loaded.graph.spec.classes.clone();
    let set = args.boxes.open(&args.data, args.split.as_deref(), &classes, &wanted, budget.data)?;
    report_set(&args.common, &set);
    let all = set.len() + set.unannotated.len() + set.report.left_out() + set.images_left_out();
    require_most(set.len(), all, args.partial)?;
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer)?;
    let mut detector = Detector::new(&loaded.graph, &store)?;
    detector.fit(
        &device,
        2 * store.bytes(),
        set.images.held_bytes() + set.images.reading_bytes(),
    )?;
    let bar = features::bar(&args.common, "images", set.len());
    let numbers: Vec<usize> = (0..set.len()).collect();
    let precision =
        evaluate(&mut device, &mut detector, &set, &numbers, |done| bar.set_position(done as u64))?
            .precision();
    bar.finish_and_clear();
    args.common.report_kernels(&mut device);
    if args.common.json {
        let mut line = as_json(&precision, &classes);
        line["kind"] = json!("detection");
        line["images"] = json!(set.len());
        line["objects"] = json!(set.objects());
        outln!("{line}");
    } else {
        print(&precision, &classes);
    }
    Ok(())
}
