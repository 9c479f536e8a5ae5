//! `csae resume`

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::annotated;
use super::learning::Begin;
use super::ranks::RanksArgs;
use super::training::Job;
use super::{CommandArgs, Common, ranks};
use crate::error::Error;
use crate::model::Graph;
use crate::priors::file::path_of;
use crate::report::runs::{differences, settings};
use crate::shape::Dims;
use crate::spec::{Config, HeadKind};
use crate::train::checkpoint::{self, Checkpoint};
use crate::train::{RunFolder, Trainer};

/// Continue a run where it stopped.
///
/// Continues from the last checkpoint in the run's folder, or from the start if the run has none,
/// on the device that the run started on. The resulting model has the same bytes as without the
/// interruption; on another device, selected with --device, the bytes can differ. A finished run
/// does not change unless --epochs or --steps extend it. Then the learning rate follows the
/// schedule of the new length.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae resume runs/001
  csae resume runs/001 --epochs 40
  csae resume runs/001 --device cpu")]
pub struct ResumeArgs {
    /// The run's folder
    run: PathBuf,
    /// Total number of epochs [default: the run's]
    #[arg(long, value_name = "N")]
    epochs: Option<f64>,
    /// Total number of steps; replaces the number of epochs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Write the log and the pictures as event files for TensorBoard, to tensorboard/ in the run
    /// folder [default: if the run began with it]
    #[arg(long)]
    tensorboard: bool,
    #[command(flatten)]
    ranks: RanksArgs,
    #[command(flatten)]
    common: Common,
}

impl ResumeArgs {
    /// The configuration with the number of epochs or steps that the flags give.
    fn lengthen(&self, mut config: Config) -> crate::error::Result<Config> {
        if let Some(epochs) = self.epochs {
            (config.train.epochs, config.train.steps) = (epochs, 0);
        }
        if let Some(steps) = self.steps {
            config.train.steps = steps;
        }
        Config::parse(&config.to_toml(), "--epochs", &[])
    }
}

impl CommandArgs for ResumeArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn ranks(&self) -> Option<&RanksArgs> {
        Some(&self.ranks)
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(mut args: ResumeArgs) -> anyhow::Result<()> {
    let (folder, recorded, origin) = RunFolder::open(&args.run)?;
    let config = args.lengthen(recorded.clone())?;
    refuse_other_number_of_ranks(&config)?;
    // Rank 0 locks the folder, and sends the others its state.
    let lock = (!ranks::follows()).then(|| folder.lock()).transpose()?;
    let newest = if ranks::follows() { None } else { folder.newest()? };
    let from = newest.as_deref().map(checkpoint::load).transpose()?;
    if let Some(checkpoint) = &from {
        let place = newest.unwrap_or_default();
        if checkpoint.header.config != checkpoint::config_hash(&config) {
            return Err(Error::usage(format!(
                "{}: the checkpoint belongs to another configuration than {}; restore the \
                 configuration that the run started with, or start a new run",
                place.display(),
                folder.file("config.toml").display()
            ))
            .into());
        }
        if report_if_finished(&args, &folder, &config, checkpoint)? {
            return Ok(());
        }
    }
    let mut to_load = config.clone();
    let (mut started_by, mut budget, mut threads) = (None, None, None);
    if let Some(origin) = origin {
        to_load.data.source = origin.source;
        if !origin.more_sources.is_empty() {
            to_load.data.more_sources = origin.more_sources;
        }
        to_load.data.validation_source =
            origin.validation_source.or(to_load.data.validation_source);
        budget = origin.budget;
        if ranks::count() == 1 {
            args.common.device.get_or_insert(origin.device);
        }
        threads = origin.threads.and_then(std::num::NonZeroUsize::new);
        started_by = (origin.csae != env!("CARGO_PKG_VERSION")).then_some(origin.csae);
    }
    if args.common.threads.is_none() {
        super::threads::start(threads)?;
        args.common.threads = threads;
    }
    if let Some(kind) = config.head() {
        let budget = budget.unwrap_or_default();
        let rewrite = config != recorded;
        let tensorboard = args.tensorboard;
        let begin = Begin::Resume { folder, lock, from: from.as_ref(), rewrite, tensorboard };
        let step = from.as_ref().map_or(0, |checkpoint| checkpoint.header.step);
        args.common.status(&match step {
            0 => FROM_START.to_owned(),
            step => format!("continuing after step {step}"),
        });
        let resume = match kind {
            HeadKind::Classify => super::finetune::resume,
            HeadKind::Segment => annotated::resume::<super::segment::Segment>,
            HeadKind::Detect => annotated::resume::<super::detect::Detect>,
            HeadKind::Prior => super::generate::resume,
        };
        return resume(&args.common, &config, &to_load, budget, begin);
    }
    // The budget must be the same as before: it decides whether data are streamed, and so which
    // patches are validated on.
    let mut job = Job::new(to_load, budget.unwrap_or_default())?;
    job.tensorboard = args.tensorboard;
    job.config.data.source.clone_from(&config.data.source);
    job.config.data.more_sources.clone_from(&config.data.more_sources);
    job.config.data.validation_source.clone_from(&config.data.validation_source);
    let mut device = args
        .common
        .open_for(job.config.train.precision)
        .map_err(|error| error.at(format!("cannot continue {}", args.run.display())))?;
    if let Some(version) = started_by {
        args.common.status(&format!(
            "note: csae {version} started this run; the result can differ from an uninterrupted run"
        ));
    }
    let step = from.as_ref().map_or(0, |checkpoint| checkpoint.header.step);
    match &from {
        Some(checkpoint) if checkpoint.header.device != device.identity() => {
            args.common.status(&format!(
                "continuing after step {step} on {} instead of {}; the result can differ from a \
                 run on one device",
                device.identity(),
                checkpoint.header.device
            ));
        }
        Some(_) => args.common.status(&format!("continuing after step {step}")),
        None => args.common.status(FROM_START),
    }
    job.run(&args.common, &mut device, &folder, from.as_ref(), |_| {
        folder.cut_log(step, from.as_ref().map_or(0, |checkpoint| checkpoint.header.retried))?;
        if config != recorded {
            folder.write_config(&config)?;
        }
        Ok((folder.clone(), lock.expect("the process that leads has locked the folder")))
    })
}

/// Refuses a run whose batches do not split over the processes.
fn refuse_other_number_of_ranks(config: &Config) -> crate::error::Result<()> {
    let (parts, count) = (config.train.accumulate, ranks::count());
    if parts.is_multiple_of(count) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the run computes each batch in {} (train.accumulate), which {count} processes cannot \
         share; continue with a number of processes that divides it",
        super::counted(parts, "part", "parts")
    )))
}

/// Continues the run in a folder up to the steps of `wanted`, for a command that would start a run
/// with this configuration.
///
/// # Errors
/// If the run has another configuration, or cannot be continued.
pub fn continue_run(
    run: PathBuf,
    wanted: Config,
    tensorboard: bool,
    (ranks, common): (RanksArgs, Common),
) -> anyhow::Result<()> {
    let (_, recorded, _) = RunFolder::open(&run)?;
    let (epochs, steps) = (wanted.train.epochs, wanted.train.steps);
    refuse_other_settings(&recorded, wanted).map_err(|error| error.at(run.display()))?;
    let steps = Some(steps).filter(|steps| *steps > 0);
    let epochs = Some(epochs).filter(|_| steps.is_none());
    self::run(ResumeArgs { run, epochs, steps, tensorboard, ranks, common })
}

/// Refuses a configuration that differs from that of a run in more than the number of steps.
fn refuse_other_settings(recorded: &Config, mut wanted: Config) -> crate::error::Result<()> {
    // A run records what its data decided.
    let model = &mut wanted.model;
    model.undoes = wanted.corruption.clone();
    model.normalization.clone_from(&recorded.model.normalization);
    model.spectrogram.clone_from(&recorded.model.spectrogram);
    let [c, h, w] = model.input.map_or_else(|| input(recorded).map(|d| [d.c, d.h, d.w]), Ok)?;
    // A model for other data does not fit the size of these samples. It stays incomplete, and so
    // differs.
    if let Ok(graph) = Graph::new(&wanted.model, Dims::new(c, h, w)) {
        wanted.model = graph.spec;
    }
    (wanted.train.epochs, wanted.train.steps) = (recorded.train.epochs, recorded.train.steps);
    let (own, other) = (settings(&recorded.to_toml()), settings(&wanted.to_toml()));
    let keys: Vec<String> = differences(&[&own, &other]).into_iter().map(|(key, _)| key).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let more = if keys.len() > 3 { " and others" } else { "" };
    Err(Error::usage(format!(
        "holds a run with other settings: {}{more}; choose another folder, or leave out what \
         differs",
        keys[..keys.len().min(3)].join(", ")
    )))
}

const FROM_START: &str = "no checkpoint yet; starting from the beginning";

/// The input size in a run's configuration.
pub fn input(config: &Config) -> crate::error::Result<Dims> {
    let [c, h, w] = config.model.input.ok_or_else(|| {
        Error::usage("model.input is missing; restore the config.toml that the run started with")
    })?;
    Ok(Dims::new(c, h, w))
}

/// Whether the run is finished. If so, prints that.
fn report_if_finished(
    args: &ResumeArgs,
    folder: &RunFolder,
    config: &Config,
    checkpoint: &Checkpoint,
) -> crate::error::Result<bool> {
    let header = &checkpoint.header;
    let total =
        Trainer::total_steps(config, usize::try_from(header.steps_per_epoch).unwrap_or(usize::MAX));
    if header.step > total {
        return Err(Error::usage(format!(
            "{}: the run already has {} steps, more than the requested {total}; request more with \
             --steps or --epochs",
            folder.path().display(),
            header.step
        )));
    }
    let ended = (header.step == total && header.total == total) || header.ended_early;
    // The priors are not in the run's folder, so they can be missing although the run ended.
    let fitted =
        config.prior.as_ref().is_none_or(|prior| path_of(Path::new(&prior.model)).is_file());
    let done = ended && folder.file("model.safetensors").is_file() && fitted;
    if done && args.common.json {
        outln!(
            "{}",
            json!({
                "kind": "finished", "folder": folder.path().display().to_string(), "step": total
            })
        );
    } else if done {
        outln!(
            "{}: finished, all {total} steps are done; extend it with --steps or --epochs",
            folder.path().display()
        );
    }
    Ok(done)
}
