//! `csae train`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::ranks::RanksArgs;
use super::reading::{ShowArgs, parse_nan};
use super::training::Job;
use super::{CommandArgs, Common, dry_run, ranks, resume};
use crate::data::{Layout, NanName, bundled};
use crate::error::Error;
use crate::files;
use crate::spec::{self, Config, CorruptionSpec, Task};
use crate::train::{Origin, RunFolder};

/// Train a model.
///
/// DATA is a folder of images, an IDX file (.gz too), CIFAR's binary files or their folder, an
/// array of numbers (.npy, .npz, HDF5, NetCDF, .mat, FITS, WAV, y4m, pages of a TIFF file), a .csv
/// file (one square gray image per line), a pattern of image files ('scans/*.png'), a list of them
/// (@FILE, or - for a list or a y4m film on standard input) or the name of a bundled set
/// (`csae guide file-formats`). Data that do not fit into memory are streamed. The run folder gets
/// config.toml, model.safetensors (the model after the last step), best.safetensors (the model with
/// the best validation), the log as metrics.jsonl and metrics.csv, its charts as train.png,
/// pictures, a page with everything (index.html), and checkpoints for `csae resume`. `csae watch`
/// follows a run in a browser. Ctrl-C writes a checkpoint and the page, and stops.
#[derive(Debug, Args)]
#[command(after_help = names_for_help())]
pub struct TrainArgs {
    /// Images to train on: a source as above, or several folders, image files and patterns
    /// [default: the preset's, bundled photographs]
    data: Vec<String>,
    /// Restoration task: remove noise, fill missing pixels, add detail to enlarged images, or
    /// remove JPEG artefacts.
    /// Training images are degraded accordingly, by default as in the preset of the same name
    #[arg(long, value_name = "denoise|inpaint|upscale|dejpeg")]
    task: Option<Task>,
    /// Configuration to start from; `csae presets` lists them [default: the task's preset, or
    /// photographs without --task]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    preset: Option<String>,
    /// Configuration file (TOML) instead of a preset
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a value of the configuration, such as optimizer.lr=0.01 or
    /// model.layers.code.units=64
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Model to start from: parameters with the same name and shape are copied
    #[arg(long, value_name = "MODEL")]
    from: Option<String>,
    /// Number of samples in a step
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Split each batch into this many equal parts and average their gradients: less memory, the
    /// same result within rounding
    #[arg(long, value_name = "N")]
    accumulate: Option<usize>,
    /// Number format of layer outputs and their gradients; f16 halves their memory on adapters that
    /// support it. Weights and sums stay f32
    #[arg(long, value_name = "f32|f16")]
    precision: Option<String>,
    /// Number of epochs [default: the configuration's]
    #[arg(long, value_name = "N")]
    epochs: Option<f64>,
    /// Number of steps; replaces the number of epochs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Seed of all random numbers [default: the configuration's]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64)
    )]
    seed: Option<u64>,
    /// Run folder [default: the next free runs/NNN]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Overwrite an existing run
    #[arg(long)]
    force: bool,
    /// Continue the run in the folder of --out if there is one, or start it: one command for jobs
    /// that are stopped and started again. A finished run stays as it is
    #[arg(long, requires = "out", conflicts_with_all = ["force", "print_config", "dry_run"])]
    resume_if_there: bool,
    /// Fail on files that do not decode, instead of skipping them
    #[arg(long)]
    strict: bool,
    /// Axes of an array, outermost first: N samples, C channels, H rows, W columns, L signals;
    /// such as NCHW or NCL [default: inferred]
    #[arg(long, value_name = "AXES")]
    layout: Option<Layout>,
    /// Values that are not finite: error; zero (0 after normalisation); or mask (missing: filled
    /// for the model, left out of loss and evaluation) [default: error]
    #[arg(long, value_name = "HOW", value_parser = parse_nan)]
    nan: Option<NanName>,
    #[command(flatten)]
    show: ShowArgs,
    /// Memory budget, such as 512MiB or 2GiB; data that need more than half of it are streamed, and
    /// a model or batch that does not fit into the rest is an error [default: the free memory]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    /// Print the complete configuration, with the preset, --set and all flags applied, and stop
    #[arg(long, conflicts_with = "dry_run")]
    print_config: bool,
    /// Print layers, memory, steps and the time that a few timed steps predict, and stop; nothing
    /// is written
    #[arg(long)]
    dry_run: bool,
    /// Write the log and the pictures as event files for TensorBoard, to tensorboard/ in the run
    /// folder
    #[arg(long)]
    tensorboard: bool,
    #[command(flatten)]
    ranks: RanksArgs,
    #[command(flatten)]
    common: Common,
}

impl TrainArgs {
    /// Whether the command continues a run that is there. It then starts the threads itself.
    pub const fn may_resume(&self) -> bool {
        self.resume_if_there
    }

    /// The keys that the user wrote: in a configuration file, not in a preset, and by --set.
    fn written_keys(&self) -> crate::error::Result<BTreeSet<String>> {
        let text = self.config.as_deref().map(files::read_text).transpose()?;
        Ok(spec::written_keys(text.as_deref(), &self.set))
    }

    /// The configuration: the preset or file, changed by --set, then by the other flags.
    fn config(&self) -> crate::error::Result<Config> {
        let (text, place) = match (&self.config, &self.preset) {
            (Some(path), _) => (files::read_text(path)?, path.display().to_string()),
            (None, preset) => {
                let name =
                    preset.as_deref().or(self.task.map(Task::name)).unwrap_or(spec::DEFAULT_PRESET);
                (spec::preset_text(name)?.to_owned(), format!("preset {name}"))
            }
        };
        let precision =
            self.precision.iter().map(|precision| format!("train.precision={precision}"));
        let set: Vec<String> = self.set.iter().cloned().chain(precision).collect();
        let mut config = Config::parse(&text, &place, &set)?;
        if let [first, more @ ..] = &self.data[..] {
            config.data.source.clone_from(first);
            config.data.more_sources = more.to_vec();
        }
        if let Some(batch) = self.batch {
            config.train.batch = batch;
        }
        if let Some(parts) = self.accumulate {
            config.train.accumulate = parts;
        }
        if let Some(epochs) = self.epochs {
            (config.train.epochs, config.train.steps) = (epochs, 0);
        }
        if let Some(steps) = self.steps {
            config.train.steps = steps;
        }
        if let Some(task) = self.task {
            match config.corruption.task() {
                None => config.corruption = CorruptionSpec::for_task(task),
                Some(other) if other != task => {
                    return Err(Error::usage(format!(
                        "--task {task}: the configuration degrades images for {other}; omit \
                         --task, or use a configuration for {task}"
                    )));
                }
                Some(_) => {}
            }
        }
        config.train.from = self.from.clone().or(config.train.from);
        config.data.strict |= self.strict;
        config.data.nan = self.nan.unwrap_or(config.data.nan);
        if let Some(layout) = &self.layout {
            config.data.layout = Some(layout.clone());
        }
        if !self.show.show_channels.is_empty() {
            config.data.show_channels.clone_from(&self.show.show_channels);
        }
        if let Some(seed) = self.seed {
            config.seed = seed;
        }
        config.train.accumulate = ranks::parts(config.train.accumulate);
        // Checks the configuration again, now with the values of the flags.
        Config::parse(&config.to_toml(), &place, &[])
    }
}

impl CommandArgs for TrainArgs {
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

fn run(args: TrainArgs) -> anyhow::Result<()> {
    let config = args.config()?;
    if args.print_config {
        return print_config(&args, &config);
    }
    if let Some(run) = args.out.as_ref().filter(|_| args.resume_if_there)
        && RunFolder::is_run(run)
    {
        let (ranks, common) = (args.ranks, args.common);
        return resume::continue_run(run.clone(), config, args.tensorboard, (ranks, common));
    }
    if args.may_resume() && args.common.threads.is_none() {
        super::threads::start(None)?;
    }

    let folder = run_folder(args.out.as_deref(), args.force)?;
    let mut job = Job::new(config, super::budget(args.max_memory.as_deref())?)?;
    job.tensorboard = args.tensorboard;
    let written = args.written_keys()?;
    let crop = job.without_crop().filter(|_| written.contains("data.crop"));
    args.common.report_unused_keys(&job.config, &written, crop);
    let mut device = args.common.open_for(job.config.train.precision)?;
    if args.dry_run {
        return Ok(dry_run::run(&args.common, &mut device, &job, &folder)?);
    }
    job.run(&args.common, &mut device, &folder, None, |device| {
        let threads = args.common.threads.map(std::num::NonZeroUsize::get);
        let origin = Origin::new(&job.config, device.again(args.common.device()), threads)?;
        let origin = Origin { budget: Some(job.budget), ..origin };
        match &args.out {
            Some(_) => Ok((folder.clone(), folder.create(&job.config, &origin, args.force)?)),
            None => folder.create_next(&job.config, &origin),
        }
    })
}

/// Prints a configuration as TOML, or with --json as JSON.
fn print_config(args: &TrainArgs, config: &Config) -> anyhow::Result<()> {
    args.common.report_unused_keys(config, &args.written_keys()?, None);
    if args.common.json {
        outln!("{}", json!({"kind": "config", "config": config}));
    } else {
        super::out_raw(config.to_toml().as_bytes());
    }
    Ok(())
}

/// The presets and bundled sets, for the help.
fn names_for_help() -> String {
    let presets: Vec<&str> = spec::preset_names().collect();
    format!(
        "Examples:
  csae train
  csae train my-photos/ --set data.crop=48 --epochs 5
  csae train holidays/ garden/ 'scans/*.png' cat.jpg
  csae train train-images-idx3-ubyte.gz --preset w1 --device cpu
  csae train my-photos/ --preset plain --dry-run

Presets: {}
Bundled sets: {}",
        presets.join(", "),
        bundled::names().join(", ")
    )
}

/// The folder of a new run: `wanted`, or by default the next free `runs/NNN`.
///
/// # Errors
/// If `wanted` exists and `force` is not set.
pub fn run_folder(wanted: Option<&Path>, force: bool) -> crate::error::Result<RunFolder> {
    if let Some(wanted) = wanted {
        super::outputs::check_folder(wanted)?;
        if !force && RunFolder::is_run(wanted) {
            let folder = wanted.display();
            return Err(Error::usage(format!(
                "{folder} already holds a run; continue it with `csae resume {folder}`, choose \
                 another folder, or overwrite it with --force"
            )));
        }
        super::refuse_existing(wanted, force)?;
        return Ok(RunFolder::at(wanted));
    }
    RunFolder::next(Path::new("runs"))
}
