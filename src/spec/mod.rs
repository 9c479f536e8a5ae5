//! The configuration of a run: the model, and how it is trained.
//!
//! A user writes it as TOML and overrides single keys by `--set key=value`. The run folder keeps
//! the complete configuration. The model file keeps the `[model]` part.

mod heads;
pub mod keys;
mod optimizer;
mod overrides;
mod presets;
mod rule;
mod spectrogram;
mod training;
mod unused;

use serde::{Deserialize, Serialize};

pub use crate::model::{
    ActivationSpec, AddSpec, AvgPool2dSpec, BatchTopKSpec, ConcatSpec, Conv2dSpec,
    ConvTranspose2dSpec, CorruptionSpec, DropoutSpec, FilterCount, Init, KnownSpec, L2Pool2dSpec,
    LayerOp, LayerSpec, LifetimeWtaSpec, LinearSpec, ListaSpec, MaxPool2dSpec, MaxUnpool2dSpec,
    ModelSpec, NO_CORRUPTION, Pad, Pair, Pool2dSpec, SoftThresholdSpec, SpatialWtaSpec, SubSpec,
    Task, TopKSpec, UpsampleSpec, WhitenSpec,
};
pub use heads::{
    ClassifySpec, DetectSpec, HeadKind, HeadStart, Objectness, PoseAugment, PriorSpec,
    SegmentAugment, SegmentCrops, SegmentSpec,
};
pub use optimizer::{OptimizerName, OptimizerSpec, Update};
pub use overrides::{apply as apply_override, from_toml};
pub use presets::{
    DEFAULT as DEFAULT_PRESET, Expectation, expectation as preset_expectation,
    names as preset_names, text as preset_text,
};
pub use rule::SparsityRule;
pub use spectrogram::SpectrogramName;
pub(crate) use spectrogram::{MAX_MELS, MAX_WINDOW};
pub(crate) use training::is_zero;
pub use training::{ScheduleName, ScheduleSpec, TrainSpec};
pub use unused::written_keys;

use crate::data::normalization::OutputRange;
use crate::data::{Layout, NanName, NormalizeName};
use crate::error::{Error, Result};
use crate::names::{UNKNOWN, names};
use crate::ops::{Activation, LossKind};
pub use crate::view::Precision;

/// The complete configuration of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Seed of every random number of the run.
    #[serde(default)]
    pub seed: u64,
    /// The data.
    #[serde(default)]
    pub data: DataSpec,
    /// The model.
    pub model: ModelSpec,
    /// Corruption of the model's input. The target stays clean.
    #[serde(default, skip_serializing_if = "CorruptionSpec::is_none")]
    pub corruption: CorruptionSpec,
    /// The reconstruction loss.
    #[serde(default)]
    pub loss: LossSpec,
    /// Sparsity penalty and resurrection of dead units.
    #[serde(default)]
    pub sparsity: SparsitySpec,
    /// The optimiser.
    #[serde(default)]
    pub optimizer: OptimizerSpec,
    /// The learning-rate schedule.
    #[serde(default)]
    pub schedule: ScheduleSpec,
    /// Length of the training, and intervals of logging, validation and checkpoints.
    #[serde(default)]
    pub train: TrainSpec,
    /// The run trains a classifier (`csae finetune`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classify: Option<ClassifySpec>,
    /// The run trains a segmenter (`csae segment train`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<SegmentSpec>,
    /// The run trains a detector (`csae detect train`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detect: Option<DetectSpec>,
    /// The run fits priors to the codes of an autoencoder (`csae generate --fit`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<PriorSpec>,
}

names! {
    /// How images are brought to the input size.
    pub enum FitName {
        /// Random crops.
        Crop = "crop",
        /// Resized to exactly the input size; the aspect ratio may change.
        Resize = "resize",
        /// Every patch of a grid without overlap.
        Patches = "patches",
    }
}

/// Where images come from, and how samples are cut from them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSpec {
    /// The name of a bundled data set, a folder, a file, or a list of image files (`@FILE`, or
    /// `-` for standard input).
    pub source: String,
    /// More sources that are read together with `source`: folders, image files and patterns of
    /// image files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more_sources: Vec<String>,
    /// A separate source of validation images. Without it a share of the images is held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_source: Option<String>,
    /// Whether a file that does not decode is an error. Otherwise it is reported and skipped.
    pub strict: bool,
    /// How images are brought to the input size: `crop` (random crops), `resize` (to exactly the
    /// input size, the aspect ratio may change) or `patches` (every patch of a grid without
    /// overlap). `crop` and `patches` enlarge images that are smaller than the input.
    pub fit: FitName,
    /// Side in pixels of square crops, for a model without a fixed input size. Smaller images are
    /// not cropped. For signals it is the length of crops, by default 1024.
    pub crop: usize,
    /// Crops of each image in an epoch; 0: enough to cover the image once. Images of exactly the
    /// input size give one.
    pub crops_per_image: usize,
    /// Variants of each training image that are added to the images in memory before training: of
    /// 0.5 to 1 times its size, and of images of three channels with other saturation and colour
    /// balance. An epoch has as many times more samples, at most.
    pub variants: usize,
    /// Augmentation: flip samples left to right at random.
    pub flip_x: bool,
    /// Augmentation: flip samples top to bottom at random.
    pub flip_y: bool,
    /// Augmentation: transpose square samples at random. With both flips this gives all eight
    /// dihedral transforms.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub turn: bool,
    /// Share of the images held out for validation, in [0, 1). A bundled data set may have
    /// validation images of its own.
    pub validation: f64,
    /// Maximum number of patches in a validation. For a restoration model, validation also
    /// restores up to two megapixels of whole images.
    pub validation_patches: usize,
    /// What the axes of an array stand for, such as `NCHW` or `NCL`. The default is inferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// What happens to values that are not finite: `error`; `zero`: they become 0 after
    /// normalisation; or `mask`: they are missing.
    #[serde(skip_serializing_if = "is_error")]
    pub nan: NanName,
    /// How the channels are normalised: `auto`, `none`, `range` (smallest value 0, largest 1),
    /// `standard` (mean 0, standard deviation 1) or `robust` (median 0, interquartile range 1.349).
    #[serde(skip_serializing_if = "is_auto")]
    pub normalize: NormalizeName,
    /// A fixed range instead: these two values of the samples become 0 and 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<[f32; 2]>,
    /// Type of the training samples in memory: `same` as in the files, or `f16` for floats of 32
    /// bits: half the memory, values rounded to 11 bits after normalisation.
    #[serde(skip_serializing_if = "is_same")]
    pub storage: StorageName,
    /// Channels that pictures show, numbered from 0. The default depends on their number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub show_channels: Vec<usize>,
    /// Whether recordings (WAV files) become images: `none`, or `log-mel` spectrograms.
    #[serde(skip_serializing_if = "spectrogram::is_none")]
    pub spectrogram: SpectrogramName,
    /// Length of a window of a spectrogram in samples.
    #[serde(skip_serializing_if = "spectrogram::is_window")]
    pub spectrogram_window: usize,
    /// Samples from one window to the next.
    #[serde(skip_serializing_if = "spectrogram::is_hop")]
    pub spectrogram_hop: usize,
    /// Number of mel bands.
    #[serde(skip_serializing_if = "spectrogram::is_mels")]
    pub spectrogram_mels: usize,
    /// Lowest and highest frequency in Hz. The default is 0 to half of the sample rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spectrogram_range: Option<[f32; 2]>,
    /// Frames of a piece of a recording. 0: recordings are not cut if all have the same length,
    /// otherwise pieces have `crop` frames.
    #[serde(skip_serializing_if = "spectrogram::is_whole")]
    pub spectrogram_frames: usize,
}

fn is_error(name: &NanName) -> bool {
    *name == NanName::Error
}

fn is_auto(name: &NormalizeName) -> bool {
    *name == NormalizeName::Auto
}

fn is_same(name: &StorageName) -> bool {
    *name == StorageName::Same
}

impl Default for DataSpec {
    fn default() -> Self {
        Self {
            source: "photos".to_owned(),
            more_sources: Vec::new(),
            validation_source: None,
            strict: false,
            fit: FitName::Crop,
            crop: 32,
            crops_per_image: 0,
            variants: 0,
            flip_x: false,
            flip_y: false,
            turn: false,
            validation: 0.1,
            validation_patches: 2048,
            layout: None,
            nan: NanName::Error,
            normalize: NormalizeName::Auto,
            range: None,
            storage: StorageName::Same,
            show_channels: Vec::new(),
            spectrogram: SpectrogramName::None,
            spectrogram_window: spectrogram::WINDOW,
            spectrogram_hop: spectrogram::HOP,
            spectrogram_mels: spectrogram::MELS,
            spectrogram_range: None,
            spectrogram_frames: 0,
        }
    }
}

names! {
    /// The type of training samples in memory.
    pub enum StorageName {
        /// That of the files.
        Same = "same",
        /// Floats of 16 bits, for floats of 32 bits.
        F16 = "f16",
    }
}

names! {
    /// A reconstruction loss.
    pub enum LossName {
        /// The sum over an image of squared errors.
        SumSquares = "sum_squares",
        /// The mean squared error.
        Mse = "mse",
        /// The mean absolute error.
        L1 = "l1",
        /// The mean binary cross-entropy.
        Bce = "bce",
        /// The mean of √(error² + ε²).
        Charbonnier = "charbonnier",
    }
}

/// The reconstruction loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossSpec {
    /// `sum_squares`, `mse`, `l1`, `bce` or `charbonnier`.
    pub kind: LossName,
    /// ε of the Charbonnier loss √(d² + ε²).
    pub eps: f64,
}

impl Default for LossSpec {
    fn default() -> Self {
        Self { kind: LossName::SumSquares, eps: 1e-3 }
    }
}

impl LossSpec {
    /// Converts to the loss that the kernels compute.
    pub const fn resolve(&self) -> LossKind {
        match self.kind {
            LossName::SumSquares => LossKind::SumSquares,
            LossName::Mse => LossKind::Mse,
            LossName::L1 => LossKind::L1,
            LossName::Bce => LossKind::Bce,
            LossName::Charbonnier => LossKind::Charbonnier { eps: self.eps },
        }
    }
}

names! {
    /// Sparsity penalty on the code.
    pub enum PenaltyName {
        /// No penalty.
        None = "none",
        /// L1 penalty λ‖z‖₁.
        L1 = "l1",
        /// Kullback–Leibler divergence of mean activities from ρ, times β.
        Kl = "kl",
    }
}

/// Sparsity penalty on the code, and resurrection of its dead units.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SparsitySpec {
    /// `l1`, `kl` or `none`. Selections such as TopK are layers, not penalties.
    pub penalty: PenaltyName,
    /// Weight λ of the L1 penalty λ‖z‖₁.
    pub lambda: f64,
    /// Weight β of the KL penalty.
    pub beta: f64,
    /// Target mean activity ρ of the KL penalty, in (0, 1).
    pub rho: f64,
    /// Epochs over which the penalty grows linearly from 0 to its full weight.
    pub warmup_epochs: f64,
    /// Warm-up in steps. A value above 0 replaces `warmup_epochs`.
    pub warmup_steps: u64,
    /// Constant gradient that raises the pre-activation of dead units; 0 turns it off.
    pub revive_strength: f64,
    /// Steps without firing after which a unit counts as dead.
    pub revive_patience: usize,
    /// Weight α of the auxiliary loss, by which dead units of a `top_k` or `batch_top_k` code
    /// reconstruct the residual (Gao et al., "Scaling and evaluating sparse autoencoders", 2024);
    /// 0 turns it off. That paper uses 1/32 with an error normalised by its variance. Together
    /// with `revive_strength` it leaves fewer units dead than alone.
    #[serde(skip_serializing_if = "is_zero_f64")]
    pub aux_alpha: f64,
    /// Active elements of each sample in the auxiliary loss, counted over all channels and
    /// positions; 0: the number that the code keeps.
    #[serde(skip_serializing_if = "is_zero_usize")]
    pub aux_k: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero_f64(weight: &f64) -> bool {
    *weight == 0.0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
const fn is_zero_usize(count: &usize) -> bool {
    *count == 0
}

impl Default for SparsitySpec {
    fn default() -> Self {
        Self {
            penalty: PenaltyName::None,
            lambda: 1e-3,
            beta: 0.1,
            rho: 0.05,
            warmup_epochs: 0.0,
            warmup_steps: 0,
            revive_strength: 0.0,
            revive_patience: 100,
            aux_alpha: 0.0,
            aux_k: 0,
        }
    }
}

/// A message of serde, with words for the names of Rust's and JSON's types.
fn in_plain_words(message: &str) -> String {
    const WORDS: [(&str, &str); 16] = [
        ("expected string or map", "expected a name"),
        ("integer `", "the number `"),
        ("floating point `", "the number `"),
        ("boolean `", "`"),
        ("string \"", "the text \""),
        ("invalid type: sequence", "invalid type: a list"),
        ("invalid type: map", "invalid type: a table"),
        ("expected usize", "expected a whole number, at least 0"),
        ("expected u64", "expected a whole number, at least 0"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected u16", "expected a whole number from 0 to 65535"),
        ("expected f64", "expected a number"),
        ("expected a boolean", "expected true or false"),
        ("expected a string", "expected text"),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected a table"),
    ];
    let message = WORDS
        .iter()
        .fold(message.to_owned(), |message, (type_name, words)| message.replace(type_name, words));
    let Some((before, after)) = message.split_once("expected struct ") else {
        return message.replace("expected an array of length", "expected a list of length");
    };
    let rest = after.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(after.len());
    format!("{before}expected a table{}", &after[rest..])
}

impl Config {
    /// Parses TOML, applies `--set` overrides, and checks the result. `place` names the file or
    /// preset in errors.
    ///
    /// # Errors
    /// When the text is not TOML, a key is unknown, or a value has the wrong type or is out of
    /// range. The message names the key.
    pub fn parse(text: &str, place: &str, overrides: &[String]) -> Result<Self> {
        let mut value = overrides::from_toml(text).map_err(|error| error.at(place))?;
        for one in overrides {
            overrides::apply(&mut value, one)?;
        }
        let config: Self = serde_path_to_error::deserialize(value).map_err(|error| {
            let key = error.path().to_string();
            // JSON has neither NaN nor infinity: serde_json stores both as null.
            let message = error
                .into_inner()
                .to_string()
                .replace("invalid type: null", "NaN and infinity are not allowed");
            let message = in_plain_words(&message);
            if message.starts_with(UNKNOWN) {
                return Error::usage(format!("{key} {message}"));
            }
            let advice = if key == "data.validation" {
                "; use data.validation_source for validation images"
            } else {
                ""
            };
            let hint = overrides::hint(&message);
            Error::usage(format!("{place}: {key}: {message}{hint}{advice}"))
        })?;
        config.check()?;
        Ok(config)
    }

    /// Parses a configuration without a model (a preset of a head) and inserts `model`. `defaults`
    /// are values of `[train]` for keys that the text does not set; a number of epochs is not
    /// inserted beside a number of steps.
    ///
    /// # Errors
    /// When the text has a `[model]`, or as [`Config::parse`].
    pub fn with_model(
        text: &str,
        place: &str,
        model: &ModelSpec,
        defaults: &[(&str, toml::Value)],
        overrides: &[String],
    ) -> Result<Self> {
        let mut table: toml::Table = toml::from_str(text)
            .map_err(|error| Error::usage(format!("{place}: {}", error.message())))?;
        if table.contains_key("model") {
            return Err(Error::usage(format!(
                "{place}: remove [model]; the command builds the model"
            )));
        }
        let model = toml::Table::try_from(model).expect("a model is a TOML table");
        table.insert("model".to_owned(), toml::Value::Table(model));
        let train = table.entry("train").or_insert_with(|| toml::Table::new().into());
        if let toml::Value::Table(train) = train {
            for (key, value) in defaults {
                if !(*key == "epochs" && train.contains_key("steps")) {
                    train.entry(*key).or_insert_with(|| value.clone());
                }
            }
        }
        Self::parse(&table.to_string(), place, overrides)
    }

    /// What values the model works with: that depends on its output's activation, on the loss, and
    /// on the corruption that it undoes, whose units are those of images.
    pub fn output_range(&self) -> OutputRange {
        let layers = &self.model.layers;
        let output = match &self.model.output {
            Some(name) => layers.iter().find(|layer| layer.name == *name),
            None => layers.last(),
        };
        let bounded = match output.and_then(|layer| layer.op.activation()) {
            Some(
                Activation::Sigmoid | Activation::Tanh | Activation::Relu | Activation::Softplus,
            ) => true,
            Some(
                Activation::Identity
                | Activation::LeakyRelu { .. }
                | Activation::Elu { .. }
                | Activation::Gelu
                | Activation::Silu,
            )
            | None => false,
        };
        if !self.corruption.is_none() {
            OutputRange::Image
        } else if bounded || self.loss.kind == LossName::Bce {
            OutputRange::Unit
        } else {
            OutputRange::Unbounded
        }
    }

    /// Formats the configuration as TOML, with every value spelled out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration is a TOML table")
    }

    fn check(&self) -> Result<()> {
        let (o, s, t) = (&self.optimizer, &self.sparsity, &self.train);
        let not_negative: &[(&str, f64)] = &[
            ("optimizer.lr", o.lr),
            ("optimizer.weight_decay", o.weight_decay),
            ("optimizer.clip_norm", o.clip_norm),
            ("sparsity.lambda", s.lambda),
            ("sparsity.beta", s.beta),
            ("sparsity.warmup_epochs", s.warmup_epochs),
            ("sparsity.revive_strength", s.revive_strength),
            ("sparsity.aux_alpha", s.aux_alpha),
            ("schedule.warmup_epochs", self.schedule.warmup_epochs),
            ("schedule.gamma", self.schedule.gamma),
            ("schedule.floor", self.schedule.floor),
            ("loss.eps", self.loss.eps),
            ("optimizer.eps", o.eps),
            ("optimizer.encoder_lr", o.encoder_lr),
            ("train.epochs", t.epochs),
            ("train.loss_scale", t.loss_scale),
            ("train.validate_every", t.validate_every),
            ("train.checkpoint_minutes", t.checkpoint_minutes),
        ];
        if let Some([low, high]) = self.data.range
            && !(low < high && (high - low).is_finite())
        {
            return Err(Error::usage(format!(
                "data.range = [{low}, {high}]: it must be two numbers, the second one larger"
            )));
        }
        self.data.check_spectrogram()?;
        for (key, value) in not_negative {
            if !value.is_finite() || *value < 0.0 {
                return Err(Error::usage(format!(
                    "{key} = {value}: it must be a finite number, at least 0"
                )));
            }
        }
        self.corruption.check()?;
        let shares: &[(&str, f64)] = &[
            ("optimizer.momentum", o.momentum),
            ("optimizer.betas[0]", o.betas[0]),
            ("optimizer.betas[1]", o.betas[1]),
            ("data.validation", self.data.validation),
        ];
        for (key, value) in shares {
            if !(0.0..1.0).contains(value) {
                return Err(Error::usage(format!(
                    "{key} = {value}: it must be at least 0 and below 1"
                )));
            }
        }
        if !(s.rho > 0.0 && s.rho < 1.0) {
            return Err(Error::usage(format!(
                "sparsity.rho = {}: it must be above 0 and below 1",
                s.rho
            )));
        }
        if !(self.schedule.rise > 0.0 && self.schedule.rise < 1.0) {
            return Err(Error::usage(format!(
                "schedule.rise = {}: it must be above 0 and below 1",
                self.schedule.rise
            )));
        }
        if self.schedule.kind == ScheduleName::Step && self.schedule.every_epochs <= 0.0 {
            return Err(Error::usage("schedule.every_epochs must be above 0"));
        }
        // The device keeps the losses of all steps between two log lines.
        if t.log_every > 10_000 {
            return Err(Error::usage(format!(
                "train.log_every = {}: it must be at most 10000, since the losses between two log \
                 lines are kept in memory",
                t.log_every
            )));
        }
        let counts = [
            ("train.batch", t.batch),
            ("train.accumulate", t.accumulate),
            ("train.log_every", t.log_every as usize),
            ("train.keep", t.keep),
            ("data.crop", self.data.crop),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Error::usage(format!("{key} = 0: it must be at least 1")));
        }
        if t.steps == 0 && t.epochs == 0.0 {
            return Err(Error::usage("train.epochs = 0: it must be above 0, or set train.steps"));
        }
        heads::check(self)?;
        if o.nesterov && o.momentum == 0.0 {
            return Err(Error::usage(
                "optimizer.nesterov: it needs momentum; set optimizer.momentum above 0",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
