//! `csae segment eval`: evaluates a segmenter.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Labels, as_json, check_memory, load, placed, print, report_set};
use crate::cli::{CommandArgs, Common, budget, features, require_most};
use crate::data::LoadOptions;
use crate::tasks::segment::evaluate;

/// Evaluate a segmenter on images with label images: intersection over union and Dice of each
/// class, pixel accuracy.
///
/// Label images are read as in training: --instances and --ignore are needed only to change that.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae segment eval runs/cells cells/
  csae segment eval runs/streets @test.txt --labels labels/ --json")]
pub struct EvalArgs {
    /// Segmenter: a file or folder written by `csae segment train`
    model: PathBuf,
    /// Images: a folder (optionally with `images` and `labels` in it), a file, a pattern
    /// ('scans/*.png') or a list (@FILE, or -)
    data: String,
    #[command(flatten)]
    labels: Labels,
    /// Evaluate also if more than a tenth of the images are skipped
    #[arg(long)]
    partial: bool,
    /// Fail on files that do not decode and on invalid labels, instead of skipping them
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
    let labels = args.labels.as_trained(&args.common, &loaded);
    let set = labels.open(&args.data, classes.clone(), &wanted, budget.data)?;
    report_set(&args.common, &set);
    let all = set.len() + set.unlabelled.len() + set.report.left_out();
    require_most(set.len(), all, args.partial)?;
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let segmenter = placed(&mut device, &loaded)?;
    check_memory(
        &device,
        &segmenter,
        (0..set.len()).map(|number| set.size(number)),
        set.held_bytes(),
        &budget,
    )?;
    let bar = features::bar(&args.common, "images", set.len());
    let numbers: Vec<usize> = (0..set.len()).collect();
    let scores =
        evaluate(&mut device, &segmenter, &set, &numbers, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    args.common.report_kernels(&mut device);
    if args.common.json {
        let mut line = as_json(&scores, &classes);
        line["kind"] = json!("segmentation");
        line["images"] = json!(set.len());
        line["unlabelled"] = json!(set.unlabelled);
        outln!("{line}");
    } else {
        print(&scores, &classes);
    }
    Ok(())
}
