//! `csae anomaly fit`: fits a detector to normal images.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::bail_usage;
use crate::budget::Budget;
use crate::data::normalization::{OutputRange, choose};
use crate::data::{self, LoadOptions, LogMel, Normalization, NormalizeName, Pixels};
use crate::files;
use crate::model;
use crate::tasks::anomaly::{
    Detector, DetectorOptions, FILE_NAME, Image, ViewExtractor, configure, split, tile_of, tiled,
    train, untrained,
};

use crate::cli::interrupt::{self, Interrupted};
use crate::cli::reading::ReadArgs;
use crate::cli::{CommandArgs, Common, features, refuse_existing};

/// Fit an anomaly detector to normal images, with thresholds at a chosen false-alarm rate.
///
/// Fixed filters describe the structure of the normal images, and their descriptors fill a bank. A
/// small network learns to find defects that are painted into crops of the normal images; its
/// features fill another bank. One image in five is held out from all this; these give the
/// statistics of normal pixels and the thresholds. Network and detector are written into a folder,
/// for `csae anomaly score` and `eval`. Memory use does not depend on the number of images.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae anomaly fit normal/ -o detector
  csae anomaly fit normal/ -o detector --steps 6000 --false-alarms 0.001
  csae anomaly fit machine/ -o detector --like runs/spectrograms")]
pub struct FitArgs {
    /// Normal images, of any size: a folder, a file, a pattern ('scans/*.png'), a list (@FILE, or
    /// -) or a bundled set
    data: String,
    /// Folder for the detector
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Number of training steps of the network; 0 does without it [default: 3000, or 0 if the
    /// images to learn from have fewer than 262,144 pixels]
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Number of descriptors of normal images to keep in each bank
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    bank: usize,
    /// Accepted share of normal images, and of normal pixels, above the thresholds
    #[arg(long, value_name = "RATE", default_value_t = 0.01)]
    false_alarms: f64,
    /// Read images as this model does: channels, normalization and spectrograms
    #[arg(long, value_name = "MODEL")]
    like: Option<PathBuf>,
    /// Seed of the network, the painted defects and the sample of descriptors
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Overwrite an existing detector
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    common: Common,
}

/// Training steps of the network by default. With 1500 the image AUROC of magnetic tiles was 0.02
/// lower, the pixel AUROC 0.03; 1000 steps take about two minutes of a CPU core
/// (`benches/results/2026-11-30-anomaly.md`).
const STEPS: u64 = 3000;
/// Minimum number of pixels to learn from. With less, the network learns the images by heart and
/// takes new normal ones for defects: pixel AUROC of textures with 8,192 pixels each was 0.67 to
/// 0.89 by the network, and 0.95 by fixed filters (`benches/results/2026-12-01-anomaly.md`).
const MIN_PIXELS: usize = 1 << 18;

impl FitArgs {
    fn options(&self) -> crate::error::Result<DetectorOptions> {
        if !(2..=1 << 20).contains(&self.bank) {
            bail_usage!("--bank {}: give a number from 2 to {}", self.bank, 1 << 20);
        }
        if !(self.false_alarms > 0.0 && self.false_alarms < 1.0) {
            bail_usage!(
                "--false-alarms {}: give a share between 0 and 1, such as 0.01",
                self.false_alarms
            );
        }
        Ok(DetectorOptions { bank: self.bank, rate: self.false_alarms, seed: self.seed })
    }
}

impl CommandArgs for FitArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

/// The normal images, and how they are read.
struct Normal {
    images: Pixels,
    normalization: Option<Normalization>,
    spectrogram: Option<LogMel>,
}

/// Opens the normal images, as the model of `--like` reads them, or as a training would.
fn open(args: &FitArgs, budget: &Budget) -> anyhow::Result<Normal> {
    let like = args.like.as_ref().map(|path| args.common.load_model(path)).transpose()?;
    let spec = like.as_ref().map(|loaded| &loaded.graph.spec);
    let wanted = LoadOptions {
        channels: like.as_ref().map(|loaded| loaded.graph.nodes[0].dims.c),
        ..args.read.options(budget, spec)
    };
    let found = data::open(&args.data, &wanted, budget.data)?;
    args.common.report_files(&found.report);
    let (mut images, mut description) = (found.pixels, found.description);
    let normalization = match spec {
        Some(spec) => spec.normalization.clone(),
        None => {
            let chosen = choose(&images, NormalizeName::Auto, None, OutputRange::Unbounded)?;
            if let Some(normalization) = &chosen.normalization {
                images.normalize(normalization)?;
                description = format!("{description}; {}", chosen.description);
            }
            chosen.normalization
        }
    };
    args.common.status(&format!("data: {description}"));
    let spectrogram = spec.and_then(|spec| spec.spectrogram.clone());
    Ok(Normal { images, normalization, spectrogram })
}

fn run(args: FitArgs) -> anyhow::Result<()> {
    crate::cli::outputs::check_folder(&args.out)?;
    let options = args.options()?;
    let written = ["model.safetensors", FILE_NAME].map(|name| args.out.join(name));
    for file in &written {
        refuse_existing(file, args.force)?;
    }
    let budget = args.read.budget()?;
    let Normal { images, normalization, spectrogram } = open(&args, &budget)?;
    let channels = images.channels();
    let [known, _] = split(images.len())?;
    let pixels: usize = known.iter().map(|image| images.size(*image).area()).sum();
    let steps = args.steps.unwrap_or(if pixels < MIN_PIXELS { 0 } else { STEPS });
    let (config, graph) = configure(channels, (normalization, spectrogram), steps, args.seed)?;
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    interrupt::watch();
    let held = images.held_bytes() + images.reading_bytes();
    let bytes = if steps == 0 {
        if args.steps.is_none() {
            args.common.status(&format!(
                "no network: the images to learn from have {pixels} pixels, too few of the \
                 {MIN_PIXELS} that it needs"
            ));
        }
        untrained(&mut device, &graph, args.seed)?
    } else {
        args.common.status(&format!("network: {steps} steps on {} images", known.len()));
        let bar = features::bar(&args.common, "network: steps", 0);
        let trained =
            train(&mut device, (&config, &graph), (&images, &known), held, |done, total| {
                bar.set_length(total);
                bar.set_position(done);
                !interrupt::requested()
            });
        bar.finish_and_clear();
        if trained.is_err() && interrupt::requested() {
            let stopped = format!("stopped; {} was not written", args.out.display());
            return Err(Interrupted(stopped).into());
        }
        model::to_bytes(&mut device, &graph, &trained?.store)?
    };
    let loaded = model::load_bytes(&bytes, "the trained network")?;
    let tile = tile_of(&graph, images.sizes())?;
    let tiled = tiled(&graph, tile)?;
    let largest = images.sizes().map(|size| Image::bytes(channels, size)).max().unwrap_or(0);
    let mut extractor = if steps == 0 {
        ViewExtractor::without_network(&device, held + largest)?
    } else {
        ViewExtractor::open(&mut device, &loaded, &tiled, held + largest)?
    };
    let bar = features::bar(&args.common, "detector: images", 0);
    let detector = Detector::fit(
        &mut device,
        &mut extractor,
        (&loaded.hash, tile),
        &images,
        &options,
        |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        },
    )?;
    bar.finish_and_clear();
    files::make_folder(&args.out)?;
    files::write_atomically(&written[0], &bytes)?;
    detector.save(&args.out)?;
    args.common.report_kernels(&mut device);
    report((&args, steps), &detector, &written.map(|file| file.display().to_string()));
    Ok(())
}

/// Prints the result.
fn report((args, steps): (&FitArgs, u64), detector: &Detector, files: &[String]) {
    let calibration = &detector.calibration;
    let banks = [Some(&detector.banks.filters), detector.banks.features.as_ref()];
    let banks: Vec<(&str, usize, usize)> = ["filters", "network"]
        .into_iter()
        .zip(banks)
        .filter_map(|(name, bank)| bank.map(|bank| (name, bank.spacing.len(), bank.mean.len())))
        .collect();

    if args.common.json {
        let banks: Vec<serde_json::Value> = banks
            .iter()
            .map(
                |(name, kept, values)| json!({"name": name, "descriptors": kept, "values": values}),
            )
            .collect();
        outln!(
            "{}",
            json!({
                "kind": "fit", "steps": steps, "banks": banks,
                "gathered": calibration.gathered, "held_out": calibration.held_out,
                "rate": calibration.rate, "stated_rate": calibration.guaranteed_rate(),
                "image_threshold": calibration.image_threshold,
                "pixel_threshold": calibration.pixel_threshold, "files": files,
            })
        );
        return;
    }
    for (name, kept, values) in &banks {
        outln!("bank of the {name}: {kept} descriptors with {values} values each");
    }
    outln!("{} images learned from, {} held out", calibration.gathered, calibration.held_out);
    outln!(
        "thresholds: image {:.3}, pixel {:.3}, at a false-alarm rate of {} %; written to {}",
        calibration.image_threshold,
        calibration.pixel_threshold,
        100.0 * calibration.rate,
        args.out.display()
    );
    if calibration.guaranteed_rate() > calibration.rate {
        let min_held_out = (1.0 / calibration.rate).ceil() as usize - 1;
        args.common.status(&format!(
            "note: {} held-out images can only guarantee a false-alarm rate of {:.1} % for images; \
             {} % needs {min_held_out} held-out images, {} normal images in all",
            calibration.held_out,
            100.0 * calibration.guaranteed_rate(),
            100.0 * calibration.rate,
            5 * min_held_out
        ));
    }
}
