//! `csae anomaly eval`: evaluates a detector on a test set.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::Fitted;
use crate::cli::{CommandArgs, Common, budget, counted, features};
use crate::data::LoadOptions;
use crate::tasks::anomaly::{Evaluation, Image, LabelledSet, Report, VIEWS, evaluate};

/// Upper limit of the false-positive rate up to which per-region overlap is integrated, as
/// published (Bergmann et al., "MVTec AD", 2019).
const PRO_LIMIT: f64 = 0.3;

/// Evaluate a detector on normal and defective images: image and pixel AUROC, and per-region
/// overlap (PRO).
///
/// DATA holds normal images in `good` (or `normal`, `ok`), and each kind of defect in a folder of
/// its own. Masks are in `masks` or `ground_truth`, in DATA or beside it, as KIND/NAME.png or
/// KIND/NAME_mask.png.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae anomaly eval detector test/
  csae anomaly eval detector hazelnut/test --masks hazelnut/ground_truth --json")]
pub struct EvalArgs {
    /// Folder written by `csae anomaly fit`
    detector: PathBuf,
    /// Folder of test images: `good`, and one folder per kind of defect
    data: PathBuf,
    /// Name of the folder of normal images in DATA [default: good, normal or ok]
    #[arg(long, value_name = "NAME")]
    normal: Option<String>,
    /// Folder of masks
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// Fail on files that do not decode and on invalid masks, instead of skipping them
    #[arg(long)]
    strict: bool,
    /// Memory budget, such as 512MiB or 2GiB; images that need more than half of it are read from
    /// their files as needed [default: the free memory]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    #[command(flatten)]
    common: Common,
}

fn metrics(evaluation: &Evaluation) -> [Option<f64>; 3] {
    [evaluation.images.auroc(), evaluation.pixels.auroc(), evaluation.pixels.pro(PRO_LIMIT)]
}

fn as_json(evaluation: &Evaluation) -> Value {
    let [image, pixel, pro] = metrics(evaluation);
    json!({"image_auroc": image, "pixel_auroc": pixel, "pro": pro})
}

fn row(name: &str, images: &str, evaluation: &Evaluation) {
    let cells = metrics(evaluation)
        .map(|value| value.map_or("-".to_owned(), |value| format!("{value:.4}")));
    outln!("{name:<24} {images:>7} {:>12} {:>12} {:>8}", cells[0], cells[1], cells[2]);
}

fn print(report: &Report) {
    outln!("{:<24} {:>7} {:>12} {:>12} {:>8}", "", "images", "image AUROC", "pixel AUROC", "PRO");
    for (name, images, evaluation) in &report.kinds {
        row(name, &images.to_string(), evaluation);
    }
    let [normal, alarms] = report.false_alarms;
    let [defects, found] = report.found;
    row("all", &(normal + defects).to_string(), &report.all);
    let several = report.views.len() > 1;
    for (view, evaluation) in VIEWS.iter().zip(&report.views).filter(|_| several) {
        row(&format!("  by {view} alone"), "", evaluation);
    }
    outln!(
        "at the threshold: {found} of {defects} defective images found, {alarms} of {normal} \
         normal images called anomalous"
    );
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
    let fitted = Fitted::load(&args.detector)?;
    let channels = fitted.channels();
    let budget = budget(args.max_memory.as_deref())?;
    let wanted = LoadOptions {
        channels: Some(channels),
        normalization: fitted.loaded.graph.spec.normalization.as_ref(),
        spectrogram: fitted.loaded.graph.spec.spectrogram.as_ref(),
        ..LoadOptions::new(args.strict, &budget)
    };
    let (normal, masks) = (args.normal.as_deref(), args.masks.as_deref());
    let set = LabelledSet::open(&args.data, normal, masks, &wanted, budget.data)?;
    args.common.report_files(&set.report);
    let unmasked = set.unmasked();
    args.common.report_names(
        |n| format!("no mask for {}; skipped in pixel metrics", counted(n, "image", "images")),
        &unmasked,
    );
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let held = set.sets().map(crate::data::Pixels::held_bytes).sum::<u64>();
    let peak = set.sets().map(|set| {
        set.sizes().map(|size| Image::bytes(channels, size)).max().unwrap_or(0)
            + set.reading_bytes()
    });
    let reserved = held + peak.max().unwrap_or(0);
    let mut extractor = fitted.extractor(&mut device, reserved)?;
    let bar = features::bar(&args.common, "images", set.sets().map(crate::data::Pixels::len).sum());
    let report =
        evaluate(&mut device, &mut extractor, &fitted.detector, &set, args.strict, |done| {
            bar.set_position(done as u64)
        })?;
    bar.finish_and_clear();
    args.common.report_skipped(&report.skipped);
    args.common.report_kernels(&mut device);
    if args.common.json {
        let named = |evaluation: &Evaluation, more: Value| {
            let mut all = as_json(evaluation);
            all.as_object_mut()
                .expect("metrics serialize to an object")
                .extend(more.as_object().expect("`more` is an object").clone());
            all
        };
        let kinds: Vec<Value> = report
            .kinds
            .iter()
            .map(|(name, n, evaluation)| named(evaluation, json!({"name": name, "images": n})))
            .collect();
        let views: Vec<Value> = VIEWS
            .iter()
            .zip(&report.views)
            .map(|(name, evaluation)| named(evaluation, json!({"name": name})))
            .collect();
        let more = json!({
            "kind": "anomaly", "kinds": kinds, "views": views, "unmasked": unmasked,
            "normal": report.false_alarms[0], "false_alarms": report.false_alarms[1],
            "defects": report.found[0], "found": report.found[1],
        });
        outln!("{}", named(&report.all, more));
    } else {
        print(&report);
    }
    Ok(())
}
