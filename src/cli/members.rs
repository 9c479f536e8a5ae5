//! The runs of `csae grid` and `csae sweep`: members of a folder that share seed and data. A second
//! call trains only what is missing.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::Common;
use super::interrupt::{self, Interrupted};
use crate::budget::Budget;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files;
use crate::model::Graph;
use crate::spec::{self, Config};
use crate::tasks::compare::Comparison;
use crate::train::checkpoint;
use crate::train::data::Prepared;
use crate::train::{Log, Origin, Outcome, Run, RunFolder};

/// A run of a set.
pub struct Member {
    /// The configuration, with all sizes of the model.
    pub config: Config,
    /// The folder.
    pub folder: RunFolder,
}

/// How the members of a set are trained.
pub struct Training<'a> {
    pub common: &'a Common,
    pub budget: Budget,
    /// Whether to overwrite runs of another configuration.
    pub force: bool,
}

/// Flags for each run of a set.
#[derive(Clone, Debug, Args)]
pub struct EachRun {
    /// Configuration file (TOML) instead of a preset
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Number of epochs of each model
    #[arg(long, value_name = "N")]
    epochs: Option<f64>,
    /// Number of steps of each model; overrides the epochs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Seed of all random numbers
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64)
    )]
    seed: Option<u64>,
    /// Memory budget of each training, such as 512MiB or 2GiB [default: the free memory]
    #[arg(long, value_name = "SIZE")]
    pub max_memory: Option<String>,
    /// Overwrite runs of another configuration in the folder
    #[arg(long)]
    pub force: bool,
}

impl EachRun {
    /// The configuration from which the members of a set differ: the preset or the file, changed by
    /// `set` and by the flags.
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown or a value is invalid.
    pub fn base(&self, data: &str, preset: &str, set: &[String]) -> Result<Config> {
        let (text, place) = match &self.config {
            Some(path) => (files::read_text(path)?, path.display().to_string()),
            None => (spec::preset_text(preset)?.to_owned(), format!("preset {preset}")),
        };
        let mut config = Config::parse(&text, &place, set)?;
        data.clone_into(&mut config.data.source);
        config.data.more_sources.clear();
        if let Some(epochs) = self.epochs {
            (config.train.epochs, config.train.steps) = (epochs, 0);
        }
        config.train.steps = self.steps.unwrap_or(config.train.steps);
        config.seed = self.seed.unwrap_or(config.seed);
        Config::parse(&config.to_toml(), &place, &[])
    }
}

impl Member {
    /// Whether its folder has this run, finished or not.
    fn is_begun(&self) -> Result<bool> {
        let folder = self.folder.path();
        Ok(RunFolder::is_run(folder) && RunFolder::open(folder)?.1 == self.config)
    }

    /// Whether it needs no training.
    ///
    /// # Errors
    /// When the folder's configuration cannot be read.
    pub fn is_finished(&self) -> Result<bool> {
        Ok(self.is_begun()? && self.folder.file("model.safetensors").is_file())
    }

    /// Checks that its folder is free or has this run.
    ///
    /// # Errors
    /// When the folder has another run and `force` is not set.
    pub fn check(&self, force: bool) -> Result<()> {
        let folder = self.folder.path();
        if RunFolder::is_run(folder) && !force && !self.is_begun()? {
            return Err(Error::usage(format!(
                "{} holds a run of another configuration; choose another --out, or overwrite it \
                 with --force",
                folder.display()
            )));
        }
        Ok(())
    }

    /// The last validation. Trains the run unless it is finished; continues it if it was
    /// interrupted.
    ///
    /// # Errors
    /// When the training fails, or Ctrl-C stops it.
    pub fn train(
        &self,
        training: &Training,
        device: &mut Device,
        prepared: &Prepared,
    ) -> anyhow::Result<Value> {
        let Self { config, folder } = self;
        if self.is_finished()? {
            return Ok(validated(folder.path())?);
        }
        let there = self.is_begun()?;
        let from = if there { folder.newest()? } else { None };
        let from = from.as_deref().map(checkpoint::load).transpose()?;
        let graph = Graph::new(&config.model, prepared.dims)?;
        let mut run = Run::new(device, folder, config, prepared, &graph, from.as_ref())?;
        let _lock = if there {
            let lock = folder.lock()?;
            let header = from.as_ref().map(|checkpoint| &checkpoint.header);
            folder.cut_log(
                header.map_or(0, |header| header.step),
                header.map_or(0, |header| header.retried),
            )?;
            lock
        } else {
            let common = training.common;
            let threads = common.threads.map(std::num::NonZeroUsize::get);
            let origin = Origin::new(config, device.again(common.device()), threads)?;
            let origin = Origin { budget: Some(training.budget), ..origin };
            folder.create(config, &origin, training.force)?
        };
        let total = run.trainer.total;
        let mut log = Log::new(Some(&folder.file("metrics.jsonl")), total, true, false)?;
        match run.train(device, &mut log, &interrupt::requested)? {
            Outcome::Finished(_) => Ok(validated(folder.path())?),
            Outcome::Stopped(step) => {
                let folder = folder.path().display();
                Err(Interrupted(format!(
                    "stopped after step {step} of {total} of {folder}; run the same command to \
                     continue"
                ))
                .into())
            }
        }
    }
}

/// Reads the runs of a set and writes their page, charts and table.
///
/// # Errors
/// When a log cannot be read or a file cannot be written.
pub fn compare(
    members: &[&Member],
    out: &Path,
    title: &str,
) -> Result<(Comparison, Vec<&'static str>)> {
    let folders: Vec<_> = members.iter().map(|member| member.folder.path().to_owned()).collect();
    let found = Comparison::read(&folders)?;
    let written = found.write(out, title)?;
    Ok((found, written))
}

/// Writes the page, charts and table of the runs of a set that have begun, when another one stops.
/// A failure does not hide why that one stopped.
pub fn compare_begun(members: &[&Member], out: &Path, title: &str) {
    let begun = members.iter().filter(|member| RunFolder::is_run(member.folder.path()));
    let begun: Vec<&Member> = begun.copied().collect();
    if !begun.is_empty() {
        let _ = compare(&begun, out, title);
    }
}

/// The last validation in a run's log.
fn validated(folder: &Path) -> Result<Value> {
    let log = folder.join("metrics.jsonl");
    let lines = files::read_text(&log)?;
    let last = lines
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["kind"] == "validation");
    last.ok_or_else(|| {
        Error::failed(format!(
            "{}: no validation was logged; remove the folder to train this model again",
            log.display()
        ))
    })
}
