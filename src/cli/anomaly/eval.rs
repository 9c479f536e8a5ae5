//! `csae anomaly eval`

use std::path::PathBuf;

use clap::Args;
use csae::data::Wanted;
use csae::tasks::anomaly::{Eye, Image, Judged, Labelled, Report, VIEWS, judge};
use serde_json::{Value, json};

use super::Fitted;
use crate::cli::{CommandArgs, Common, budget, counted, features};

/// Share of normal pixels up to which the overlap of regions is told, as published.
const OVERLAP: f64 = 0.3;

/// Judge a detector by images that are known to be normal or not: areas under the ROC curve of
/// images and pixels, overlap of regions.
///
/// DATA holds normal images in `good` and others in folders by what is wrong with them. Masks lie
/// in `masks` or `ground_truth`, in DATA or beside it, as KIND/NAME.png or KIND/NAME_mask.png.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae anomaly eval detector test/\n  csae anomaly eval detector hazelnut/test --masks hazelnut/ground_truth --json"
)]
pub struct EvalArgs {
    /// Folder that `csae anomaly fit` made
    detector: PathBuf,
    /// Folder of images: `good`, and others
    data: PathBuf,
    /// Folder of masks
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// A file that does not decode, and a mask that does not fit, is an error, not skipped
    #[arg(long)]
    strict: bool,
    /// Memory that may be taken, such as 512MiB or 2GiB: images that need more than half of it stay
    /// in their files [default: what is free]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    #[command(flatten)]
    common: Common,
}

fn marks(judged: &Judged) -> [Option<f64>; 3] {
    [judged.images.auroc(), judged.pixels.auroc(), judged.pixels.pro(OVERLAP)]
}

fn as_json(judged: &Judged) -> Value {
    let [image, pixel, pro] = marks(judged);
    json!({"image_auroc": image, "pixel_auroc": pixel, "pro": pro})
}

fn row(name: &str, images: &str, judged: &Judged) {
    let cells = marks(judged).map(|mark| mark.map_or("-".to_owned(), |mark| format!("{mark:.4}")));
    outln!("{name:<24} {images:>7} {:>12} {:>12} {:>8}", cells[0], cells[1], cells[2]);
}

fn tell(report: &Report) {
    outln!("{:<24} {:>7} {:>12} {:>12} {:>8}", "", "images", "image AUROC", "pixel AUROC", "PRO");
    for (name, images, judged) in &report.kinds {
        row(name, &images.to_string(), judged);
    }
    let [normal, alarms] = report.false_alarms;
    let [defects, found] = report.found;
    row("all", &(normal + defects).to_string(), &report.all);
    for (view, judged) in VIEWS.iter().zip(&report.views) {
        row(&format!("  by {view} alone"), "", judged);
    }
    outln!(
        "at the threshold: {found} of {defects} with defects found, {alarms} of {normal} normal ones called anomalous"
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
    let dims = fitted.loaded.graph.nodes[0].dims;
    let budget = budget(args.max_memory.as_deref())?;
    let wanted = Wanted { channels: Some(dims.c), strict: args.strict, memory: budget.all };
    let set = Labelled::open(&args.data, args.masks.as_deref(), &wanted, budget.data)?;
    args.common.say_skipped(&set.skipped);
    let unmasked = set.unmasked();
    args.common.say_names(
        |n| format!("no mask for {}, whose pixels are not judged", counted(n, "image", "images")),
        &unmasked,
    );
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let dims = fitted.frames.dims();
    let held = set.sets().map(csae::data::Pixels::held_bytes).sum::<u64>();
    let most = set.sets().map(|set| {
        set.sizes().map(|(h, w)| Image::bytes(dims, h, w)).max().unwrap_or(0) + set.reading_bytes()
    });
    let taken = held + most.max().unwrap_or(0);
    let mut eye = Eye::open(&mut device, &fitted.loaded, &fitted.frames, taken)?;
    let bar = features::bar(&args.common, "images", set.sets().map(csae::data::Pixels::len).sum());
    let report = judge(&mut device, &mut eye, &fitted.detector, &set, args.strict, |done| {
        bar.set_position(done as u64)
    })?;
    bar.finish_and_clear();
    args.common.say_skipped(&report.skipped);
    args.common.say_kernels(&mut device);
    if args.common.json {
        let named = |judged: &Judged, more: Value| {
            let mut all = as_json(judged);
            all.as_object_mut()
                .expect("marks are an object")
                .extend(more.as_object().expect("an object").clone());
            all
        };
        let kinds: Vec<Value> = report
            .kinds
            .iter()
            .map(|(name, n, judged)| named(judged, json!({"name": name, "images": n})))
            .collect();
        let views: Vec<Value> = VIEWS
            .iter()
            .zip(&report.views)
            .map(|(name, judged)| named(judged, json!({"name": name})))
            .collect();
        let more = json!({
            "kind": "anomaly", "kinds": kinds, "views": views, "unmasked": unmasked,
            "normal": report.false_alarms[0], "false_alarms": report.false_alarms[1], "defects": report.found[0], "found": report.found[1],
        });
        outln!("{}", named(&report.all, more));
    } else {
        tell(&report);
    }
    Ok(())
}
