//! `csae train`

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use csae::data::{budget, patches};
use csae::device::Device;
use csae::error::Error;
use csae::files;
use csae::model::{self, Graph};
use csae::spec::{self, Config};
use csae::tasks::evaluate::{Report, evaluate};
use csae::tasks::gallery;
use csae::tasks::infer::Inference;
use csae::train::{Finished, Log, Trainer, data};

use super::Common;

/// Train a model.
///
/// DATA is a folder of images, an IDX file (.gz too), CIFAR's binary files or their folder, an .npy file (floats are rounded to 8 bits), a list of image
/// files (@FILE, or - for standard input) or the name of a bundled set. What does not fit into memory is streamed. The run folder gets config.toml, model.safetensors,
/// metrics.jsonl and pictures.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae train\n  csae train my-photos/ --set data.crop=48 --epochs 5\n  csae train train-images-idx3-ubyte.gz --preset w1 --device cpu"
)]
pub struct TrainArgs {
    /// Images to train on [default: the preset's, bundled photographs]
    data: Option<String>,
    /// Configuration to start from [default: article]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    preset: Option<String>,
    /// Configuration file (TOML) instead of a preset
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a value of the configuration, such as optimizer.lr=0.01 or model.layers.code.units=64
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Images of a step
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Passes over the data
    #[arg(long, value_name = "N")]
    epochs: Option<f64>,
    /// Steps, whatever the epochs
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Seed of everything that draws
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64))]
    seed: Option<u64>,
    /// Run folder [default: the next free runs/NNN]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write over an existing run folder
    #[arg(long)]
    force: bool,
    /// A file that does not decode is an error, not skipped
    #[arg(long)]
    strict: bool,
    /// Memory that the data may take, such as 512MiB or 2GiB; what is larger is streamed [default: 3/4 of what is free]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

impl TrainArgs {
    /// The configuration that preset, file, --set and the other flags make.
    fn config(&self) -> csae::error::Result<Config> {
        let (text, place) = match (&self.config, &self.preset) {
            (Some(path), _) => (files::read_text(path)?, path.display().to_string()),
            (None, preset) => {
                let name = preset.as_deref().unwrap_or(spec::DEFAULT_PRESET);
                (spec::preset_text(name)?.to_owned(), format!("preset {name}"))
            }
        };
        let mut config = Config::parse(&text, &place, &self.set)?;
        if let Some(data) = &self.data {
            config.data.source.clone_from(data);
        }
        if let Some(batch) = self.batch {
            config.train.batch = batch;
        }
        if let Some(epochs) = self.epochs {
            (config.train.epochs, config.train.steps) = (epochs, 0);
        }
        if let Some(steps) = self.steps {
            config.train.steps = steps;
        }
        config.data.strict |= self.strict;
        if let Some(seed) = self.seed {
            config.seed = seed;
        }
        // Once more, with the flags in.
        Config::parse(&config.to_toml(), &place, &[])
    }
}

pub fn run(args: TrainArgs) -> anyhow::Result<()> {
    let mut config = args.config()?;
    let folder = run_folder(args.out.as_deref(), args.force)?;
    let max_memory = match &args.max_memory {
        Some(text) => budget::parse_bytes(text).map_err(|error| error.at("--max-memory"))?,
        None => budget::default_max_memory(),
    };
    let prepared = data::prepare_within(&config, max_memory)?;
    let graph = Graph::new(&config.model, prepared.dims)?;
    graph.check_autoencoder()?;
    config.model = graph.spec.clone();
    let mut device = args.common.open()?;
    args.common.say(&format!("data: {}", prepared.description));
    args.common.say_skipped(&prepared.skipped);
    let mut trainer = Trainer::new(&mut device, &config, &graph, &prepared.train)?;
    args.common.say(&format!(
        "model: {} parameters, code of {}; {} steps of {} images, {} an epoch",
        graph.parameter_count(),
        graph.nodes[graph.code].dims,
        trainer.total,
        config.train.batch,
        trainer.steps_per_epoch
    ));
    args.common.say(&format!("memory: {}", trainer.memory));
    if args.common.verbose {
        tell_kernels(&mut device, &trainer);
    }
    files::make_folder(&folder)?;
    for stale in ["config.toml", "metrics.jsonl", "model.safetensors"].iter().chain(&gallery::NAMES) {
        let _ = std::fs::remove_file(folder.join(stale));
    }
    files::write_atomically(&folder.join("config.toml"), config.to_toml().as_bytes())?;
    let mut log = Log::new(Some(&folder.join("metrics.jsonl")), trainer.total, args.common.quiet, args.common.json)?;
    let dims = prepared.dims;
    let chosen = patches::grid(&prepared.validation, dims.h, dims.w, config.data.validation_patches, config.seed);
    let store = trainer.store.clone();
    let mut inference = Inference::new(&graph, &store);
    let every = (config.train.validate_every * trainer.steps_per_epoch as f64).round() as u64;
    let mut report = None;
    while trainer.done < trainer.total {
        trainer.step(&mut device, &mut log)?;
        let last = trainer.done == trainer.total;
        if last || (every > 0 && trainer.done.is_multiple_of(every)) {
            let start = Instant::now();
            trainer.flush(&mut device, &mut log)?;
            device.wait()?;
            let waited = start.elapsed();
            let found = evaluate(&mut device, &mut inference, &prepared.validation, &chosen)?;
            log.validation(trainer.done, trainer.epoch(), &found)?;
            report = Some(found);
            trainer.pause(start.elapsed() - waited);
        }
    }
    let finished = trainer.finish(&mut device)?;
    log.finish();
    let report = report.ok_or_else(|| Error::failed("the run had no step"))?;
    model::save(&folder.join("model.safetensors"), &mut device, &graph, &store)?;
    let pictures = gallery::write(&folder, &mut device, &mut inference, &prepared.validation, &chosen, &report)?;
    conclude(&args, &folder, &report, &finished, &pictures);
    Ok(())
}

fn conclude(args: &TrainArgs, folder: &Path, report: &Report, finished: &Finished, pictures: &[&str]) {
    let where_ = folder.display();
    if args.common.json {
        let mut line = serde_json::to_value(report).unwrap_or_default();
        line["kind"] = "run".into();
        line["images_per_s"] = finished.images_per_s.round().into();
        line["seconds"] = finished.seconds.into();
        line["folder"] = where_.to_string().into();
        outln!("{line}");
    } else {
        outln!(
            "PSNR {:.2} dB, SSIM {:.4}, L0 {:.1} of {}, dead {:.1} %, {:.0} images/s in {:.0} s; {where_}: model.safetensors, {}",
            report.psnr,
            report.ssim,
            report.l0,
            report.code,
            100.0 * report.dead_share,
            finished.images_per_s,
            finished.seconds,
            pictures.join(", ")
        );
    }
}

fn tell_kernels(device: &mut Device, trainer: &Trainer) {
    if let Some(gpu) = device.as_gpu() {
        eprintln!("step: {} dispatches", trainer.dispatches());
        for (kernel, time) in &gpu.compile_log {
            eprintln!("pipeline {kernel}: {:.1} ms", time.as_secs_f64() * 1e3);
        }
    }
}

/// The folder asked for, if it is free; else the next free `runs/NNN`.
fn run_folder(wanted: Option<&Path>, force: bool) -> csae::error::Result<PathBuf> {
    if let Some(wanted) = wanted {
        super::refuse_existing(wanted, force)?;
        return Ok(wanted.to_owned());
    }
    let free = (1..10_000).map(|i| PathBuf::from(format!("runs/{i:03}"))).find(|path| !path.exists());
    free.ok_or_else(|| Error::usage("runs/ is full: name a folder with --out"))
}
