//! `csae anomaly fit`

use std::path::PathBuf;

use clap::Args;
use csae::bail_usage;
use csae::data::{self, Wanted};
use csae::error::Error;
use csae::files;
use csae::model::{self, Purpose};
use csae::tasks::anomaly::{Detector, Eye, Frames, Image, NAME, Options, VIEWS};
use serde_json::json;

use crate::cli::{Common, budget, features, refuse_existing};

/// Learn what is normal from images that are, and set thresholds at a stated false-alarm rate.
///
/// Four images in five fill a bank of what the model's code says of normal places; the fifth tells
/// how far normal pixels stray, and where the thresholds lie. Writes the model and the detector
/// into a folder, for `csae anomaly score` and `eval`. Memory does not depend on the number of
/// images.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae train normal/ --out runs/normal\n  csae anomaly fit runs/normal normal/ -o detector\n  csae anomaly fit runs/normal normal/ -o detector --layer encoder.1 --false-alarms 0.001"
)]
pub struct FitArgs {
    /// Model file, a run folder, or a bundled model: an autoencoder, best one that was trained on
    /// the normal images
    model: PathBuf,
    /// Normal images, of any size: a folder, a file, a list (@FILE, or -) or a bundled set
    data: String,
    /// Folder for the detector
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Layer whose output describes places [default: the code, but before its winner-take-all
    /// selections]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// Descriptors of normal places that are kept
    #[arg(long, value_name = "N", default_value_t = 4096)]
    bank: usize,
    /// What reconstruction error, structure and code weigh in the heat map
    #[arg(long, value_name = "E,S,C", value_delimiter = ',', default_values_t = [1.0, 1.0, 2.0])]
    weights: Vec<f64>,
    /// Standard deviation of the heat map's smoothing, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 2.0)]
    smooth: f64,
    /// Share of normal images, and of normal pixels, that may lie above the thresholds
    #[arg(long, value_name = "RATE", default_value_t = 0.01)]
    false_alarms: f64,
    /// Seed of which descriptors are kept
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write over an existing detector
    #[arg(long)]
    force: bool,
    /// A file that does not decode is an error, not skipped
    #[arg(long)]
    strict: bool,
    /// Memory that may be taken, such as 512MiB or 2GiB: images that need more than half of it stay
    /// in their files [default: what is free]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

impl FitArgs {
    fn options(&self) -> csae::error::Result<Options> {
        if !(2..=1 << 20).contains(&self.bank) {
            bail_usage!("--bank {}: between 2 and {} descriptors are kept", self.bank, 1 << 20);
        }
        let weights = <[f64; 3]>::try_from(self.weights.clone());
        let weights = weights.map_err(|_| {
            Error::usage(format!("--weights: three numbers, for {}", VIEWS.join(", ")))
        })?;
        if weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0)
            || weights.iter().all(|weight| *weight == 0.0)
        {
            bail_usage!(
                "--weights {}: none may be negative, and one must be above 0",
                weights.map(|w| w.to_string()).join(",")
            );
        }
        if !(0.0..=100.0).contains(&self.smooth) {
            bail_usage!("--smooth {}: between 0 and 100 pixels", self.smooth);
        }
        if !(self.false_alarms > 0.0 && self.false_alarms < 1.0) {
            bail_usage!(
                "--false-alarms {}: a share between 0 and 1, such as 0.01",
                self.false_alarms
            );
        }
        Ok(Options {
            bank: self.bank,
            weights,
            smoothing: self.smooth,
            rate: self.false_alarms,
            seed: self.seed,
        })
    }
}

pub fn run(args: FitArgs) -> anyhow::Result<()> {
    let options = args.options()?;
    let loaded = model::load(&args.model)?;
    loaded.graph.check_autoencoder()?;
    loaded.graph.check_reconstructs_images()?;
    let dims = loaded.graph.nodes[0].dims;
    let spec = model::encoder(&loaded.graph, args.layer.as_deref(), None)?;
    let layer = spec.code.clone();
    let written = ["model.safetensors", NAME].map(|name| args.out.join(name));
    for file in &written {
        refuse_existing(file, args.force)?;
    }
    let budget = budget(args.max_memory.as_deref())?;
    let wanted = Wanted { channels: Some(dims.c), strict: args.strict, memory: budget.all };
    let found = data::open(&args.data, &wanted, budget.data)?;
    args.common.say(&format!("data: {}", found.description));
    args.common.say_skipped(&found.skipped);
    let images = found.pixels;
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let tile = Frames::tile(&loaded, images.sizes());
    let frames = Frames::new(&loaded, &spec, tile)?;
    let dims = frames.dims();
    let largest = images.sizes().map(|(h, w)| Image::bytes(dims, h, w)).max().unwrap_or(0);
    let taken = images.held_bytes() + images.reading_bytes() + largest;
    let mut eye = Eye::open(&mut device, &loaded, &frames, taken)?;
    let bar = features::bar(&args.common, "images", images.len());
    let detector = Detector::fit(
        &mut device,
        &mut eye,
        (&loaded.hash, &layer, tile),
        &images,
        &options,
        |done, of| {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        },
    )?;
    bar.finish_and_clear();
    files::make_folder(&args.out)?;
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer)?;
    model::save(&written[0], &mut device, &loaded.graph, &store)?;
    detector.save(&args.out)?;
    args.common.say_kernels(&mut device);
    let of = &detector.calibration;
    let kept = detector.bank.members.len() / detector.bank.mean.len();
    if args.common.json {
        outln!(
            "{}",
            json!({
                "kind": "fit", "layer": layer, "descriptors": kept, "values": detector.bank.mean.len(), "gathered": of.gathered,
                "held_out": of.held_out, "rate": of.rate, "stated_rate": of.stated_rate(), "image_threshold": of.image_threshold,
                "pixel_threshold": of.pixel_threshold, "files": written.map(|file| file.display().to_string()),
            })
        );
        return Ok(());
    }
    outln!(
        "{} images fill a bank of {kept} descriptors of layer {layer}, {} values each; {} held out",
        of.gathered,
        detector.bank.mean.len(),
        of.held_out
    );
    outln!(
        "anomalous above: image {:.3}, pixel {:.3}, at a false-alarm rate of {} %; {}",
        of.image_threshold,
        of.pixel_threshold,
        100.0 * of.rate,
        args.out.display()
    );
    if of.stated_rate() > of.rate {
        let least = (1.0 / of.rate).ceil() as usize - 1;
        args.common.say(&format!(
            "for images, {} held out state a rate of {:.1} % at best; {} % needs {least}, of {} normal images",
            of.held_out,
            100.0 * of.stated_rate(),
            100.0 * of.rate,
            5 * least
        ));
    }
    Ok(())
}
