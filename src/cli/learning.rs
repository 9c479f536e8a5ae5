//! What the commands that train on labels share: flags, the split of the images, the model with its
//! head, and the run from its first step to its end.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use csae::bail_usage;
use csae::internals::budget::Budget;
use csae::internals::device::Device;
use csae::internals::error::{Error, Result};
use csae::internals::files::{self, Lock};
use csae::internals::model::{self, Decoder, Graph, LoadedModel};
use csae::internals::rng::Stream;
use csae::internals::shape::Dims;
use csae::internals::spec::{Config, LabelledKind, ModelSpec};
use csae::internals::tasks::inspect::ModelPaths;
use csae::internals::tasks::segment::Segmenter;
use csae::internals::train::checkpoint::Checkpoint;
use csae::internals::train::run::Task;
use csae::internals::train::{Log, Origin, Outcome, Run, RunFolder, Summary};
use serde_json::Value;

use super::Common;
use super::interrupt::{self, Interrupted};

/// How a model with a head is trained. The defaults are the presets in `assets/presets/labelled`.
#[derive(Debug, Args)]
pub struct Learning {
    /// Run folder to make
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Start with random weights instead of the model's
    #[arg(long)]
    pub from_scratch: bool,
    /// Configuration file (TOML) instead of the built-in one; it has no [model]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a value of the configuration, such as optimizer.clip_norm=1
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Maximum number of epochs [default: 5 to 40 for a classifier, 10 to 100 for others, by the
    /// number of images]
    #[arg(long, value_name = "N")]
    epochs: Option<NonZeroUsize>,
    /// Samples of a step [default: 50 for a classifier, 8 for others]
    #[arg(long, value_name = "N")]
    batch: Option<NonZeroUsize>,
    /// Split each batch into this many parts and average their gradients: less memory, the same
    /// result within rounding
    #[arg(long, value_name = "N")]
    accumulate: Option<NonZeroUsize>,
    /// Precision of maps and their gradients: f16 takes half the memory, where the adapter has it
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
    /// Seed of the split, the weights, the order and the augmentation
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Overwrite a run that is already in the folder
    #[arg(long)]
    pub force: bool,
}

/// The encoder behind which a decoder is put, and the images that it learns from.
#[derive(Debug, Args)]
pub struct Encoding {
    /// Last layer of the encoder [default: the code, but before its winner-take-all selections]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// Share of DATA held out for validation [default: 0.15]
    #[arg(long, value_name = "SHARE")]
    pub held_out: Option<f64>,
    /// Learn from this many images, drawn by the seed; held-out images are among them
    #[arg(long, value_name = "N")]
    pub images: Option<NonZeroUsize>,
    /// Treat what would be skipped or dropped as an error
    #[arg(long)]
    pub strict: bool,
    /// Memory limit, such as 512MiB or 2GiB; images that need more than half of it stay in their
    /// files [default: what is free]
    #[arg(long, value_name = "SIZE")]
    pub max_memory: Option<String>,
}

impl Learning {
    /// Checks the numbers that flags give, so that errors name the flag.
    fn check(&self) -> Result<()> {
        if let Some(lr) = self.lr.filter(|lr| !(lr.is_finite() && *lr > 0.0)) {
            bail_usage!("--lr {lr}: a learning rate must be above 0");
        }
        let rates = [("--encoder-lr", self.encoder_lr), ("--weight-decay", self.weight_decay)];
        for (flag, value) in rates {
            if let Some(value) = value.filter(|value| !(value.is_finite() && *value >= 0.0)) {
                bail_usage!("{flag} {value}: it must be at least 0");
            }
        }
        Ok(())
    }

    /// The run's folder, if it is free.
    ///
    /// # Errors
    /// When it holds a run or other files, and `--force` is not given.
    pub fn folder(&self) -> Result<RunFolder> {
        self.check()?;
        super::train::run_folder(Some(&self.out), self.force)
    }

    /// The configuration of a run: the preset or file, `--set`, flags, then what `data` sets. It
    /// trains for `epochs` unless it has a length of its own.
    ///
    /// # Errors
    /// When a key or a value is not known or not valid.
    pub fn config(
        &self,
        kind: LabelledKind,
        model: &ModelSpec,
        epochs: impl FnOnce(&Config) -> Result<usize>,
        data: impl Fn(&mut Config),
    ) -> Result<Config> {
        let (text, place) = self.text(kind)?;
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
        let set: Vec<String> = self.set.iter().cloned().chain(flags).collect();
        // The default number of epochs depends on the batch and on the split.
        let mut base = Config::with_model(&text, &place, model, 1, &set)?;
        base.seed = self.seed;
        data(&mut base);
        let mut config = Config::with_model(&text, &place, model, epochs(&base)?, &set)?;
        if let Some(epochs) = self.epochs {
            (config.train.epochs, config.train.steps) = (epochs.get() as f64, 0);
        }
        if self.from_scratch {
            config.optimizer.encoder_lr = 1.0;
        }
        config.seed = self.seed;
        data(&mut config);
        Config::parse(&config.to_toml(), &place, &[])
    }

    /// The configuration's part about data, before the model with its head is known.
    ///
    /// # Errors
    /// As [`Learning::config`].
    pub fn place(
        &self,
        kind: LabelledKind,
        encoder: &ModelSpec,
        data: impl Fn(&mut Config),
    ) -> Result<Config> {
        let set: Vec<String> = self
            .set
            .iter()
            .filter(|set| !set.trim_start().starts_with("model."))
            .cloned()
            .collect();
        let (text, place) = self.text(kind)?;
        let mut config = Config::with_model(&text, &place, encoder, 1, &set)?;
        data(&mut config);
        Ok(config)
    }

    fn text(&self, kind: LabelledKind) -> Result<(String, String)> {
        Ok(match &self.config {
            Some(path) => (files::read_text(path)?, path.display().to_string()),
            None => (kind.preset().to_owned(), format!("preset {}", kind.name())),
        })
    }

    /// Where `train.from` points to: nothing for a run from scratch.
    pub fn from(&self, model: &Path) -> Option<String> {
        let place = ModelPaths::of(model).model;
        (!self.from_scratch).then(|| absolute(&place.display().to_string()))
    }
}

/// A path that holds from any folder; a name that is not a path stays.
pub fn absolute(path: &str) -> String {
    match (Path::new(path).exists(), std::path::absolute(path)) {
        (true, Ok(path)) => path.display().to_string(),
        _ => path.to_owned(),
    }
}

/// Numbers of the images to learn from and of those held out, of `of` images. `images` limits them
/// (0: all). None are held out unless `share` is given.
///
/// # Errors
/// When there are fewer than `images`, or none is left to learn from.
pub fn split(of: usize, images: usize, share: Option<f64>, seed: u64) -> Result<[Vec<usize>; 2]> {
    let n = if images == 0 { of } else { images };
    if n > of {
        bail_usage!("--images {n}: there are only {of} images to learn from");
    }
    let drawn = |name: &str, of: usize| {
        let order = Stream::new(seed, name).permutation(of);
        order.into_iter().map(|i| i as usize).collect::<Vec<_>>()
    };
    let mut numbers = drawn("images", of);
    numbers.truncate(n);
    numbers.sort_unstable();
    let Some(share) = share else { return Ok([numbers, Vec::new()]) };
    let held = ((n as f64 * share).round() as usize).clamp(usize::from(share > 0.0), n);
    if held == n {
        let images = if n == 1 { "1 image leaves".to_owned() } else { format!("{n} images leave") };
        bail_usage!(
            "{images} none to learn from beside those held out; name others by --validation, or \
             take --held-out 0"
        );
    }
    let order = drawn("split", n);
    let part = |places: &[usize]| {
        let mut part: Vec<usize> = places.iter().map(|place| numbers[*place]).collect();
        part.sort_unstable();
        part
    };
    Ok([part(&order[held..]), part(&order[..held])])
}

impl Encoding {
    /// A model's encoder with a decoder behind it, for squares of `side` pixels, which `flag` sets.
    ///
    /// # Errors
    /// When the model has no such layer, its maps cannot be enlarged again, or the side does not
    /// suit its strides.
    pub fn headed(
        &self,
        loaded: &LoadedModel,
        (flag, side): (&str, usize),
        decoder: (Decoder, usize, usize),
        context: &[usize],
        classes: &[String],
    ) -> Result<Graph> {
        let (stride, input) = (decoder.1, Dims::new(loaded.graph.nodes[0].dims.c, side, side));
        let on_squares =
            |spec| Graph::new(spec, input).map_err(|error| error.at(format!("{flag} {side}")));
        let spec = model::encoder(&loaded.graph, self.layer.as_deref(), None)?;
        let align = Segmenter::align(&Graph::new(&spec, loaded.graph.nodes[0].dims)?)?;
        if !side.is_multiple_of(align) || !side.is_multiple_of(stride) {
            bail_usage!(
                "{flag} {side}: the model's strides need a multiple of {align}, cells of {stride} \
                 pixels one of that"
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

/// Fails if a model is conditioned on noise levels or masks, which labelled images do not have.
///
/// # Errors
/// When it is.
pub fn check_unconditioned(graph: &Graph) -> Result<()> {
    if graph.is_conditioned_on_level() || graph.is_conditioned_on_mask() {
        return Err(Error::usage(
            "the model is conditioned on noise levels or missing pixels, which these images do not \
             have; use another, such as one by --preset pyramid",
        ));
    }
    Ok(())
}

/// Where a run comes from: a new folder, or one to go on in.
pub enum Begin<'a> {
    /// A new run.
    New {
        /// Its folder.
        folder: RunFolder,
        /// Overwrites the run that is there.
        force: bool,
    },
    /// A run that goes on from a checkpoint, or from its start.
    Resume {
        /// Its folder.
        folder: RunFolder,
        /// Held while it trains.
        lock: Lock,
        /// Where it goes on.
        from: Option<&'a Checkpoint>,
        /// Whether its length has changed.
        rewrite: bool,
    },
}

impl Begin<'_> {
    /// The run's folder.
    pub const fn folder(&self) -> &RunFolder {
        match self {
            Self::New { folder, .. } | Self::Resume { folder, .. } => folder,
        }
    }

    /// The checkpoint that it goes on from.
    pub const fn checkpoint(&self) -> Option<&Checkpoint> {
        match self {
            Self::New { .. } => None,
            Self::Resume { from, .. } => *from,
        }
    }

    /// Makes the folder, or makes it ready to go on in, and locks it.
    fn prepare(
        self,
        common: &Common,
        device: &Device,
        config: &Config,
        budget: Budget,
    ) -> Result<(RunFolder, Lock)> {
        match self {
            Self::New { folder, force } => {
                let threads = common.threads.map(NonZeroUsize::get);
                let origin = Origin::new(config, device.again(common.device()), threads)?;
                let origin = Origin { budget: Some(budget), ..origin };
                let lock = folder.create(config, &origin, force)?;
                Ok((folder, lock))
            }
            Self::Resume { folder, lock, from, rewrite } => {
                match from.map(|checkpoint| &checkpoint.header) {
                    Some(header) => folder.cut_log(header.step, header.retried)?,
                    // From the start: a validation before the first step is logged again.
                    None => folder.clear_log()?,
                }
                if rewrite {
                    folder.write_config(config)?;
                }
                Ok((folder, lock))
            }
        }
    }
}

/// Trains a run to its end. Returns its folder, still locked, and what it found.
///
/// # Errors
/// When the training fails, or Ctrl-C stops it: the run can go on then.
pub fn drive<T: Task>(
    common: &Common,
    device: &mut Device,
    run: &mut Run<'_, T>,
    begin: Begin,
    (config, budget): (&Config, Budget),
) -> anyhow::Result<(RunFolder, Lock, Summary<T::Validation>)> {
    common.say(&format!("memory: {}", run.trainer.memory));
    if common.verbose && device.as_gpu().is_some() {
        eprintln!("step: {} dispatches", run.trainer.dispatches());
    }
    common.say_kernels(device);
    let (folder, lock) = begin.prepare(common, device, config, budget)?;
    let metrics = folder.file("metrics.jsonl");
    let mut log = Log::new(Some(&metrics), run.trainer.total, common.quiet, common.json)?;
    interrupt::watch();
    match run.train(device, &mut log, &interrupt::asked)? {
        Outcome::Finished(summary) => Ok((folder, lock, *summary)),
        Outcome::Stopped(step) => {
            let (total, folder) = (run.trainer.total, folder.path().display());
            Err(Interrupted(format!(
                "stopped after step {step} of {total}; go on with: csae resume {folder}"
            ))
            .into())
        }
    }
}

/// The epoch and the numbers of the best validation, from a run's log.
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
