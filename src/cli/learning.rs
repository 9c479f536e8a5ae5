//! Code shared by the commands that train on labels: flags, the split of the images, the model with
//! its head, and the run.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::Common;
use super::interrupt::{self, Interrupted};
use super::ranks::{self, RanksArgs};
use crate::bail_usage;
use crate::budget::Budget;
use crate::data::pattern;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files::{self, Lock};
use crate::model::{self, Decoder, Graph, LoadedModel};
use crate::rng::Stream;
use crate::shape::Dims;
use crate::spec::{Config, HeadKind, ModelSpec, written_keys};
use crate::tasks::inspect::ModelPaths;
use crate::tasks::segment::Segmenter;
use crate::train::checkpoint::Checkpoint;
use crate::train::run::Task;
use crate::train::{Log, Origin, Outcome, Run, RunFolder, Summary};

/// Flags that give the configuration of a run without its model.
#[derive(Debug, Args)]
pub struct Settings {
    /// Configuration file (TOML) without [model], instead of the built-in preset
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a value of the configuration, such as optimizer.clip_norm=1
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Settings {
    /// Whether a flag is given.
    pub const fn are_given(&self) -> bool {
        self.config.is_some() || !self.set.is_empty()
    }

    /// Checks that `--set` does not name a key that the command's arguments set.
    ///
    /// # Errors
    /// When it does.
    pub fn check(&self, own: &[&str]) -> Result<()> {
        for set in &self.set {
            let key = set.split('=').next().unwrap_or_default().trim();
            if own.contains(&key) {
                bail_usage!("--set {set}: an argument of this command sets {key}; remove --set");
            }
        }
        Ok(())
    }

    /// Names the keys of the configuration file and of --set that have no effect.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn report_unused_keys(&self, common: &Common, config: &Config) -> Result<()> {
        let text = self.config.as_deref().map(files::read_text).transpose()?;
        common.report_unused_keys(config, &written_keys(text.as_deref(), &self.set), None);
        Ok(())
    }

    /// The text of the configuration file or preset, and its name for messages.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn text(&self, kind: HeadKind) -> Result<(String, String)> {
        Ok(match &self.config {
            Some(path) => (files::read_text(path)?, path.display().to_string()),
            None => (kind.preset().to_owned(), format!("preset {}", kind.name())),
        })
    }

    /// The configuration with another model instead of the run's, from which the data can be
    /// opened. The run's model depends on the data.
    ///
    /// # Errors
    /// When a key is unknown or a value is invalid.
    pub fn data_config(
        &self,
        kind: HeadKind,
        other: &ModelSpec,
        data: impl Fn(&mut Config),
    ) -> Result<Config> {
        let set: Vec<String> = self
            .set
            .iter()
            .filter(|set| !set.trim_start().starts_with("model."))
            .cloned()
            .collect();
        let (text, place) = self.text(kind)?;
        let mut config = Config::with_model(&text, &place, other, &epochs_default(1), &set)?;
        data(&mut config);
        Ok(config)
    }
}

/// The default of `train.epochs` for [`Config::with_model`].
fn epochs_default(epochs: usize) -> [(&'static str, toml::Value); 1] {
    [("epochs", toml::Value::Float(epochs as f64))]
}

/// Flags of training on labels. The defaults are in the presets in `assets/presets/heads`.
#[derive(Debug, Args)]
pub struct Learning {
    /// Folder of the new run
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Start with random weights instead of the model's
    #[arg(long)]
    pub from_scratch: bool,
    #[command(flatten)]
    pub settings: Settings,
    /// Maximum number of epochs [default: 5 to 40 for a classifier, 10 to 100 for others, by the
    /// number of images]
    #[arg(long, value_name = "N")]
    epochs: Option<NonZeroUsize>,
    /// Number of samples in a step [default: 50 for a classifier, 8 for others]
    #[arg(long, value_name = "N")]
    batch: Option<NonZeroUsize>,
    /// Split each batch into this many equal parts and average their gradients: less memory, the
    /// same result within rounding
    #[arg(long, value_name = "N")]
    accumulate: Option<NonZeroUsize>,
    /// Number format of layer outputs and their gradients; f16 halves their memory on adapters that
    /// support it. Weights and sums stay f32
    #[arg(long, value_name = "f32|f16")]
    precision: Option<String>,
    /// Peak learning rate of the head [default: 0.001 for a classifier, 0.002 for others]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// Learning rate of a pretrained encoder as a share of the head's; 0 trains only the head
    /// [default: 0.3 for a classifier, 0.5 for others]
    #[arg(long, value_name = "SHARE")]
    encoder_lr: Option<f64>,
    /// Decoupled weight decay [default: 0.01 for a classifier, 0.0001 for others]
    #[arg(long, value_name = "W")]
    weight_decay: Option<f64>,
    /// Epochs between validations [default: 1]
    #[arg(long, value_name = "N")]
    validate_every: Option<NonZeroUsize>,
    /// Stop after this many validations without improvement [default: 8 for a classifier, 20 for
    /// others]
    #[arg(long, value_name = "N")]
    patience: Option<NonZeroUsize>,
    /// Seed of the split, the initial weights, the order and the augmentation of images
    /// [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Overwrite an existing run
    #[arg(long)]
    pub force: bool,
    /// Write the log and the pictures as event files for TensorBoard, to tensorboard/ in the run
    /// folder
    #[arg(long)]
    pub tensorboard: bool,
    #[command(flatten)]
    pub ranks: RanksArgs,
}

/// Flags that select the encoder and the training images.
#[derive(Debug, Args)]
pub struct Encoding {
    /// Last layer of the encoder [default: the code, before any winner-take-all selection]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// Share of DATA held out for validation [default: 0.15]
    #[arg(long, value_name = "SHARE")]
    pub held_out: Option<f64>,
    /// Number of images to use, chosen at random, including the held-out images [default: all]
    #[arg(long, value_name = "N")]
    pub images: Option<NonZeroUsize>,
    /// Fail on files and annotations that would be skipped or dropped
    #[arg(long)]
    pub strict: bool,
    /// Memory budget, such as 512MiB or 2GiB; images that need more than half of it are read from
    /// their files as needed [default: the free memory]
    #[arg(long, value_name = "SIZE")]
    pub max_memory: Option<String>,
}

impl Learning {
    /// Checks the values of flags, so that errors name the flag and not the key.
    fn check(&self) -> Result<()> {
        self.settings.check(&["data.source", "train.from"])?;
        if let Some(lr) = self.lr.filter(|lr| !(lr.is_finite() && *lr > 0.0)) {
            bail_usage!("--lr {lr}: must be above 0");
        }
        let rates = [("--encoder-lr", self.encoder_lr), ("--weight-decay", self.weight_decay)];
        for (flag, value) in rates {
            if let Some(value) = value.filter(|value| !(value.is_finite() && *value >= 0.0)) {
                bail_usage!("{flag} {value}: must be at least 0");
            }
        }
        Ok(())
    }

    /// The folder of the new run.
    ///
    /// # Errors
    /// When the folder exists and `--force` is not given.
    pub fn folder(&self) -> Result<RunFolder> {
        self.check()?;
        super::train::run_folder(Some(&self.out), self.force)
    }

    /// The configuration of a run: the preset or file, changed by `--set`, by flags, and then by
    /// `data`. `epochs` computes the number of epochs if none of them sets it.
    ///
    /// # Errors
    /// When a key is unknown or a value is invalid.
    pub fn config(
        &self,
        kind: HeadKind,
        model: &ModelSpec,
        epochs: impl FnOnce(&Config) -> Result<usize>,
        data: impl Fn(&mut Config),
    ) -> Result<Config> {
        let (text, place) = self.settings.text(kind)?;
        let mut flags: Vec<String> = Vec::new();
        let mut flag = |key: &str, value: Option<String>| {
            flags.extend(value.map(|value| format!("{key}={value}")));
        };
        let text_of = |value: Option<NonZeroUsize>| value.map(|value| value.to_string());
        flag("train.batch", text_of(self.batch));
        flag("train.accumulate", text_of(self.accumulate));
        flag("train.precision", self.precision.clone());
        flag("train.validate_every", text_of(self.validate_every));
        flag("train.patience", text_of(self.patience));
        flag("optimizer.lr", self.lr.map(|lr| format!("{lr:e}")));
        flag("optimizer.encoder_lr", self.encoder_lr.map(|lr| format!("{lr:e}")));
        flag("optimizer.weight_decay", self.weight_decay.map(|decay| format!("{decay:e}")));
        let set: Vec<String> = self.settings.set.iter().cloned().chain(flags).collect();
        // The default number of epochs depends on the batch size and on the split.
        let mut base = Config::with_model(&text, &place, model, &epochs_default(1), &set)?;
        base.seed = self.seed.unwrap_or(base.seed);
        data(&mut base);
        let epochs = epochs_default(epochs(&base)?);
        let mut config = Config::with_model(&text, &place, model, &epochs, &set)?;
        if let Some(epochs) = self.epochs {
            (config.train.epochs, config.train.steps) = (epochs.get() as f64, 0);
        }
        if self.from_scratch {
            config.optimizer.encoder_lr = 1.0;
        }
        config.seed = self.seed.unwrap_or(config.seed);
        config.train.accumulate = ranks::parts(config.train.accumulate);
        data(&mut config);
        Config::parse(&config.to_toml(), &place, &[])
    }

    /// The value of `train.from` for a model; `None` with `--from-scratch`.
    pub fn from(&self, model: &Path) -> Option<String> {
        let place = ModelPaths::of(model).model;
        (!self.from_scratch).then(|| absolute(&place.display().to_string()))
    }
}

/// Makes the path of an existing file, or a pattern, absolute. Other names, such as of bundled
/// sets, stay as they are.
pub fn absolute(path: &str) -> String {
    let is_pattern = pattern::is_pattern(path) && !path.starts_with('@');
    match (Path::new(path).exists() || is_pattern, std::path::absolute(path)) {
        (true, Ok(path)) => path.display().to_string(),
        _ => path.to_owned(),
    }
}

/// Indices of the training images and of the held-out images, out of `total` images. If `images` is
/// not 0, only that many are used. `share` is the share held out; `None` holds out no images.
///
/// # Errors
/// When there are fewer than `images` images, or no training image is left.
pub fn split(
    total: usize,
    images: usize,
    share: Option<f64>,
    seed: u64,
) -> Result<[Vec<usize>; 2]> {
    let n = if images == 0 { total } else { images };
    if n > total {
        bail_usage!("--images {n}: there are only {total} training images");
    }
    let permutation = |name: &str, n: usize| {
        let order = Stream::new(seed, name).permutation(n);
        order.into_iter().map(|i| i as usize).collect::<Vec<_>>()
    };
    let mut numbers = permutation("images", total);
    numbers.truncate(n);
    numbers.sort_unstable();
    let Some(share) = share else { return Ok([numbers, Vec::new()]) };
    let held = ((n as f64 * share).round() as usize).clamp(usize::from(share > 0.0), n);
    if held == n {
        let images = super::counted(n, "image", "images");
        bail_usage!(
            "holding out {held} of {images} leaves no training images; give other images with \
             --validation, or use --held-out 0"
        );
    }
    let order = permutation("split", n);
    let part = |places: &[usize]| {
        let mut part: Vec<usize> = places.iter().map(|place| numbers[*place]).collect();
        part.sort_unstable();
        part
    };
    Ok([part(&order[held..]), part(&order[..held])])
}

impl Encoding {
    /// A model's encoder followed by a decoder, for squares of `side` pixels. `flag` is the flag
    /// that sets the side.
    ///
    /// # Errors
    /// When the model has no such layer, its maps cannot be upsampled again, or the side is not a
    /// multiple of the strides.
    pub fn with_decoder(
        &self,
        loaded: &LoadedModel,
        (flag, side): (&str, usize),
        decoder: (Decoder, usize, usize),
        context: model::Context<'_>,
        classes: &[String],
    ) -> Result<Graph> {
        let (stride, input) = (decoder.1, Dims::new(loaded.graph.nodes[0].dims.c, side, side));
        let on_squares =
            |spec| Graph::new(spec, input).map_err(|error| error.at(format!("{flag} {side}")));
        let spec = model::encoder(&loaded.graph, self.layer.as_deref(), None)?;
        let align = Segmenter::align(&Graph::new(&spec, loaded.graph.nodes[0].dims)?)?;
        if !side.is_multiple_of(align) || !side.is_multiple_of(stride) {
            bail_usage!(
                "{flag} {side}: must be a multiple of {align} for the model's strides, and of \
                 {stride} for the size of a cell"
            );
        }
        let graph = on_squares(&model::decoder(
            &spec,
            &on_squares(&spec)?,
            decoder,
            context,
            classes.to_vec(),
        )?)?;
        check_unconditioned(&graph)?;
        Ok(graph)
    }
}

/// Checks that a model is not conditioned on noise levels or masks, which labelled images do not
/// have.
///
/// # Errors
/// When it is conditioned.
pub fn check_unconditioned(graph: &Graph) -> Result<()> {
    if graph.is_conditioned_on_level() || graph.is_conditioned_on_mask() {
        return Err(Error::usage(
            "the model is conditioned on noise levels or missing pixels, which these images do not \
             have; use another model, such as one trained with --preset pyramid",
        ));
    }
    Ok(())
}

/// Whether a run is new or resumed.
pub enum Begin<'a> {
    /// A new run.
    New {
        /// Folder of the run.
        folder: RunFolder,
        /// Whether to overwrite an existing run.
        force: bool,
        /// Whether to write event files for TensorBoard.
        tensorboard: bool,
    },
    /// A resumed run.
    Resume {
        /// Folder of the run.
        folder: RunFolder,
        /// Lock of the folder, held during training. A process that follows another one has none.
        lock: Option<Lock>,
        /// The checkpoint to continue from; `None` starts from the beginning.
        from: Option<&'a Checkpoint>,
        /// Whether the configuration has changed and must be written again.
        rewrite: bool,
        /// Whether to write event files for TensorBoard although the run has none.
        tensorboard: bool,
    },
}

impl Begin<'_> {
    /// The run's folder.
    pub const fn folder(&self) -> &RunFolder {
        match self {
            Self::New { folder, .. } | Self::Resume { folder, .. } => folder,
        }
    }

    /// The checkpoint to continue from.
    pub const fn checkpoint(&self) -> Option<&Checkpoint> {
        match self {
            Self::New { .. } => None,
            Self::Resume { from, .. } => *from,
        }
    }

    /// Whether to write event files for TensorBoard.
    const fn tensorboard(&self) -> bool {
        match self {
            Self::New { tensorboard, .. } | Self::Resume { tensorboard, .. } => *tensorboard,
        }
    }

    /// Creates the folder, or prepares the existing one, and locks it.
    fn prepare(
        self,
        common: &Common,
        device: &Device,
        config: &Config,
        budget: Budget,
    ) -> Result<(RunFolder, Lock)> {
        match self {
            Self::New { folder, force, .. } => {
                let threads = common.threads.map(NonZeroUsize::get);
                let origin = Origin::new(config, device.again(common.device()), threads)?;
                let origin = Origin { budget: Some(budget), ..origin };
                let lock = folder.create(config, &origin, force)?;
                Ok((folder, lock))
            }
            Self::Resume { folder, lock, from, rewrite, .. } => {
                match from.map(|checkpoint| &checkpoint.header) {
                    Some(header) => folder.cut_log(header.step, header.retried)?,
                    // Without a checkpoint the run starts over, including the validation before the
                    // first step.
                    None => folder.clear_log()?,
                }
                if rewrite {
                    folder.write_config(config)?;
                }
                Ok((folder, lock.expect("the process that leads has locked the folder")))
            }
        }
    }
}

/// Trains a run to its end. Returns its folder, still locked, and the results.
///
/// # Errors
/// When the training fails, or Ctrl-C stops it. A stopped run can be resumed.
pub fn run_to_end<T: Task>(
    common: &Common,
    device: &mut Device,
    run: &mut Run<'_, T>,
    begin: Begin,
    (config, budget): (&Config, Budget),
) -> anyhow::Result<(RunFolder, Lock, Summary<T::Validation>)> {
    if !run.join(device)? {
        return Err(ranks::follow(run, device));
    }
    common.status(&format!("memory: {}", run.trainer.memory));
    if common.verbose && device.as_gpu().is_some() {
        errln!("step: {} dispatches", run.trainer.dispatches());
    }
    common.report_kernels(device);
    if begin.tensorboard() {
        run.write_events();
    }
    let (folder, lock) = begin.prepare(common, device, config, budget)?;
    let metrics = folder.file("metrics.jsonl");
    let mut log = Log::new(Some(&metrics), run.trainer.total, common.quiet, common.json)?;
    interrupt::watch();
    match run.train(device, &mut log, &interrupt::requested)? {
        Outcome::Finished(summary) => Ok((folder, lock, *summary)),
        Outcome::Stopped(step) => {
            let (total, folder) = (run.trainer.total, folder.path().display());
            Err(Interrupted(format!(
                "stopped after step {step} of {total}; continue with: csae resume {folder}"
            ))
            .into())
        }
    }
}

/// The line of the best validation in a run's log, if there is one.
///
/// # Errors
/// When the log cannot be read.
pub fn best_validation(folder: &RunFolder, best_step: Option<u64>) -> Result<Option<Value>> {
    let Some(step) = best_step else { return Ok(None) };
    let text = files::read_text(&folder.file("metrics.jsonl"))?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(lines.filter(|line| line["kind"] == "validation").find(|line| line["step"] == step))
}

/// Writes a run's results as JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn write_results(folder: &RunFolder, name: &str, results: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(results).expect("results are JSON") + "\n";
    files::write_atomically(&folder.file(name), text.as_bytes())
}
