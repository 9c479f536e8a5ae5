//! `csae anomaly fit`: fits a detector to normal images.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::bail_usage;
use crate::data::{self, LoadOptions};
use crate::error::Error;
use crate::files;
use crate::model::{self, Purpose};
use crate::tasks::anomaly::{
    Detector, DetectorOptions, FILE_NAME, Image, TiledModel, VIEWS, ViewExtractor,
};

use crate::cli::reading::ReadArgs;
use crate::cli::{CommandArgs, Common, features, refuse_existing};

/// Fit an anomaly detector to normal images, with thresholds at a chosen false-alarm rate.
///
/// Four images in five fill a bank of the model's features of normal images. The fifth gives the
/// statistics of normal pixels and the thresholds. The model and the detector are written into a
/// folder, for `csae anomaly score` and `eval`. Memory use does not depend on the number of images.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae train normal/ --out runs/normal
  csae anomaly fit runs/normal normal/ -o detector
  csae anomaly fit runs/normal normal/ -o detector --layer encoder.1 --false-alarms 0.001")]
pub struct FitArgs {
    /// Autoencoder, best trained on the same normal images: a model file, a run folder or the name
    /// of a bundled model
    model: PathBuf,
    /// Normal images, of any size: a folder, a file, a pattern ('scans/*.png'), a list (@FILE, or
    /// -) or a bundled set
    data: String,
    /// Folder for the detector
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Layer whose output gives the descriptors [default: the code, before any winner-take-all
    /// selection]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// Number of descriptors of normal images to keep
    #[arg(long, value_name = "N", default_value_t = 4096)]
    bank: usize,
    /// Weights of reconstruction error, structure and code in the heat map, comma-separated
    // The code separates best, see benches/results/2026-11-28-anomaly.md.
    #[arg(long, value_name = "E,S,C", value_delimiter = ',', default_value = "1,1,2")]
    weights: Vec<f64>,
    /// Standard deviation of the heat map's smoothing, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 2.0)]
    smooth: f64,
    /// Accepted share of normal images, and of normal pixels, above the thresholds
    #[arg(long, value_name = "RATE", default_value_t = 0.01)]
    false_alarms: f64,
    /// Seed of the sample of descriptors
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

impl FitArgs {
    fn options(&self) -> crate::error::Result<DetectorOptions> {
        if !(2..=1 << 20).contains(&self.bank) {
            bail_usage!("--bank {}: give a number from 2 to {}", self.bank, 1 << 20);
        }
        let weights = <[f64; 3]>::try_from(self.weights.clone());
        let weights = weights.map_err(|_| {
            Error::usage(format!(
                "--weights: give three numbers with commas between them, for {}",
                VIEWS.join(", ")
            ))
        })?;
        if weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0)
            || weights.iter().all(|weight| *weight == 0.0)
        {
            bail_usage!(
                "--weights {}: no weight can be negative, and at least one must be above 0",
                weights.map(|w| w.to_string()).join(",")
            );
        }
        if !(0.0..=100.0).contains(&self.smooth) {
            bail_usage!("--smooth {}: give 0 to 100 pixels", self.smooth);
        }
        if !(self.false_alarms > 0.0 && self.false_alarms < 1.0) {
            bail_usage!(
                "--false-alarms {}: give a share between 0 and 1, such as 0.01",
                self.false_alarms
            );
        }
        Ok(DetectorOptions {
            bank: self.bank,
            weights,
            smoothing: self.smooth,
            rate: self.false_alarms,
            seed: self.seed,
        })
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

fn run(args: FitArgs) -> anyhow::Result<()> {
    crate::cli::outputs::check_folder(&args.out)?;
    let options = args.options()?;
    let loaded = args.common.load_model(&args.model)?;
    loaded.graph.check_autoencoder()?;
    loaded.graph.check_reconstructs_images()?;
    let dims = loaded.graph.nodes[0].dims;
    let spec = model::encoder(&loaded.graph, args.layer.as_deref(), None)?;
    let layer = spec.code.clone();
    let written = ["model.safetensors", FILE_NAME].map(|name| args.out.join(name));
    for file in &written {
        refuse_existing(file, args.force)?;
    }
    let budget = args.read.budget()?;
    let wanted = LoadOptions {
        channels: Some(dims.c),
        ..args.read.options(&budget, Some(&loaded.graph.spec))
    };
    let found = data::open(&args.data, &wanted, budget.data)?;
    args.common.status(&format!("data: {}", found.description));
    args.common.report_files(&found.report);
    let images = found.pixels;
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let tile = TiledModel::tile(&loaded, images.sizes());
    let tiled = TiledModel::new(&loaded, &spec, tile)?;
    let dims = tiled.dims();
    let largest = images.sizes().map(|size| Image::bytes(dims, size)).max().unwrap_or(0);
    let taken = images.held_bytes() + images.reading_bytes() + largest;
    let mut extractor = ViewExtractor::open(&mut device, &loaded, &tiled, taken)?;
    let bar = features::bar(&args.common, "images", images.len());
    let detector = Detector::fit(
        &mut device,
        &mut extractor,
        (&loaded.hash, &layer, tile),
        &images,
        &options,
        |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        },
    )?;
    bar.finish_and_clear();
    files::make_folder(&args.out)?;
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer)?;
    model::save(&written[0], &mut device, &loaded.graph, &store)?;
    detector.save(&args.out)?;
    args.common.report_kernels(&mut device);
    let calibration = &detector.calibration;
    let kept = detector.bank.members.len() / detector.bank.mean.len();
    if args.common.json {
        outln!(
            "{}",
            json!({
                "kind": "fit", "layer": layer, "descriptors": kept,
                "values": detector.bank.mean.len(), "gathered": calibration.gathered,
                "held_out": calibration.held_out, "rate": calibration.rate,
                "stated_rate": calibration.guaranteed_rate(),
                "image_threshold": calibration.image_threshold,
                "pixel_threshold": calibration.pixel_threshold,
                "files": written.map(|file| file.display().to_string()),
            })
        );
        return Ok(());
    }
    outln!(
        "bank: {kept} descriptors of layer {layer} with {} values each, from {} images; {} images \
         held out",
        detector.bank.mean.len(),
        calibration.gathered,
        calibration.held_out
    );
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
    Ok(())
}
