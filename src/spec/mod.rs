//! What a run is: the model, and how it is trained. Written in TOML, overridden by `--set
//! key=value`, kept whole in the run folder, and the model part in the model file.

mod corruption;
mod layer;
mod overrides;
mod presets;
mod rule;
mod values;

use serde::{Deserialize, Serialize};

pub use corruption::{CorruptionSpec, NO_CORRUPTION, Task};
pub use layer::{
    ActivationSpec, AvgPool2dSpec, BatchTopKSpec, Conv2dSpec, ConvTranspose2dSpec, DropoutSpec,
    LayerOp, LayerSpec, LifetimeWtaSpec, LinearSpec, ListaSpec, LocalContrastSpec, MaxUnpool2dSpec,
    NoKeys, Pool2dSpec, SoftThresholdSpec, TopKSpec, UpsampleSpec, WhitenSpec,
};
pub use overrides::{apply as apply_override, from_toml};
pub use presets::{DEFAULT as DEFAULT_PRESET, names as preset_names, text as preset_text};
pub use rule::SparsityRule;
pub use values::{FilterCount, Init, Pad, Pair};

use crate::error::{Error, Result, did_you_mean};
use crate::ops::{Activation, LossKind};
pub use crate::view::Precision;

/// A model: a graph of layers from an image to its reconstruction, through a code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Channels, height and width of the input. Left out, the data decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<[usize; 3]>,
    /// Name of the layer whose output is the code.
    pub code: String,
    /// Name of the layer whose output is the reconstruction: the last one unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Name of the layer whose output the reconstruction is to be like: the input unless named.
    /// Nothing that it depends on may be learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The layers, each after those that it reads.
    pub layers: Vec<LayerSpec>,
    /// Of a classifier, the classes' names: the output are their logits, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// What it was trained to undo; a training notes it.
    #[serde(default, skip_serializing_if = "CorruptionSpec::is_none")]
    pub undoes: CorruptionSpec,
}

/// A run's whole configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Seed of everything that draws.
    #[serde(default)]
    pub seed: u64,
    /// The data.
    #[serde(default)]
    pub data: DataSpec,
    /// The model.
    pub model: ModelSpec,
    /// What is done to a batch before the model sees it.
    #[serde(default, skip_serializing_if = "CorruptionSpec::is_none")]
    pub corruption: CorruptionSpec,
    /// The reconstruction loss.
    #[serde(default)]
    pub loss: LossSpec,
    /// Sparsity penalty and revival of dead units.
    #[serde(default)]
    pub sparsity: SparsitySpec,
    /// The optimiser.
    #[serde(default)]
    pub optimizer: OptimizerSpec,
    /// The learning rate over time.
    #[serde(default)]
    pub schedule: ScheduleSpec,
    /// Length and rhythm of the training.
    #[serde(default)]
    pub train: TrainSpec,
}

/// Where images come from and how a batch is cut from them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSpec {
    /// A bundled set's name, a folder, a file, or a list of image files: `@FILE`, or `-` for
    /// standard input.
    pub source: String,
    /// A source of the same kinds to validate on, instead of a share of the images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_source: Option<String>,
    /// A file that does not decode is an error; else it is skipped, named and counted.
    pub strict: bool,
    /// How images meet the input's size: `crop` (random crops), `resize` (every image to just that
    /// size, aspect not kept) or `patches` (all of a grid side by side). Smaller images are
    /// enlarged by the first and the last.
    pub fit: String,
    /// Side of the square crops taken from images larger than that, when the model does not fix its
    /// input.
    pub crop: usize,
    /// Crops taken from each image an epoch; 1 where images are as large as the input. 0: as many
    /// as cover the image once.
    pub crops_per_image: usize,
    /// Flip left to right at random.
    pub flip_x: bool,
    /// Flip top to bottom at random.
    pub flip_y: bool,
    /// Exchange rows and columns at random, where samples are square; with both flips, turns by
    /// quarters.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub turn: bool,
    /// Share of the images held out for validation. A bundled set may bring its own.
    pub validation: f64,
    /// Largest number of patches that validation looks at; of a restorer, whole images are restored
    /// besides, two megapixels of them.
    pub validation_patches: usize,
}

impl Default for DataSpec {
    fn default() -> Self {
        Self {
            source: "photos".to_owned(),
            validation_source: None,
            strict: false,
            fit: "crop".to_owned(),
            crop: 32,
            crops_per_image: 0,
            flip_x: false,
            flip_y: false,
            turn: false,
            validation: 0.1,
            validation_patches: 2048,
        }
    }
}

/// The reconstruction loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossSpec {
    /// `sum_squares`, `mse`, `l1`, `bce` or `charbonnier`.
    pub kind: String,
    /// ε of `charbonnier`.
    pub eps: f64,
}

impl Default for LossSpec {
    fn default() -> Self {
        Self { kind: "sum_squares".to_owned(), eps: 1e-3 }
    }
}

impl LossSpec {
    /// The loss meant.
    pub fn resolve(&self) -> Result<LossKind> {
        Ok(match self.kind.as_str() {
            "sum_squares" => LossKind::SumSquares,
            "mse" => LossKind::Mse,
            "l1" => LossKind::L1,
            "bce" => LossKind::Bce,
            "charbonnier" => LossKind::Charbonnier { eps: self.eps },
            other => {
                return Err(Error::usage(format!(
                    "loss.kind = {other:?}: known are sum_squares, mse, l1, bce, charbonnier"
                )));
            }
        })
    }
}

/// Sparsity of the code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SparsitySpec {
    /// `l1`, `kl` or `none` (selections such as TopK are layers).
    pub penalty: String,
    /// λ of the L1 penalty λ‖z‖₁.
    pub lambda: f64,
    /// β of the KL penalty.
    pub beta: f64,
    /// Target rate ρ of the KL penalty.
    pub rho: f64,
    /// Epochs over which the penalty grows from 0 to its full weight.
    pub warmup_epochs: f64,
    /// The same in steps, where it is above 0.
    pub warmup_steps: u64,
    /// Gradient that pushes a dead unit's pre-activation up; 0 turns revival off.
    pub revive_strength: f64,
    /// Steps without firing after which a unit counts as dead.
    pub revive_patience: usize,
    /// α of the auxiliary loss by which dead units of a code by `top_k` or `batch_top_k` draw what
    /// is missing; 0 turns it off. Near 1 suits `sum_squares`; 1/32 is usual where errors are
    /// divided by their variance.
    #[serde(skip_serializing_if = "is_off")]
    pub aux_alpha: f64,
    /// Elements of each sample that draw it; 0: as many as the code has.
    #[serde(skip_serializing_if = "is_none")]
    pub aux_k: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_off(weight: &f64) -> bool {
    *weight == 0.0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
const fn is_none(count: &usize) -> bool {
    *count == 0
}

impl Default for SparsitySpec {
    fn default() -> Self {
        Self {
            penalty: "none".to_owned(),
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

/// The optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSpec {
    /// `sgd`, `adam` or `adamw`.
    pub kind: String,
    /// Peak learning rate.
    pub lr: f64,
    /// SGD's momentum.
    pub momentum: f64,
    /// Nesterov's momentum.
    pub nesterov: bool,
    /// Adam's decay rates of the moments.
    pub betas: [f64; 2],
    /// Adam's ε.
    pub eps: f64,
    /// Weight decay (decoupled in `adamw`).
    pub weight_decay: f64,
    /// Largest global norm of the gradient; 0: no clipping.
    pub clip_norm: f64,
}

impl Default for OptimizerSpec {
    fn default() -> Self {
        Self {
            kind: "sgd".to_owned(),
            lr: 1e-3,
            momentum: 0.9,
            nesterov: false,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            clip_norm: 0.0,
        }
    }
}

/// The learning rate over time, as a factor on `optimizer.lr`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSpec {
    /// `constant`, `step`, `cosine` or `one_cycle`.
    pub kind: String,
    /// Epochs of linear growth from 0 at the start.
    pub warmup_epochs: f64,
    /// The same in steps, where it is above 0.
    pub warmup_steps: u64,
    /// `step`: epochs between drops.
    pub every_epochs: f64,
    /// `step`: factor of each drop.
    pub gamma: f64,
    /// `cosine` and `one_cycle`: factor at the end.
    pub floor: f64,
    /// `one_cycle`: share of the training spent rising.
    pub rise: f64,
}

impl Default for ScheduleSpec {
    fn default() -> Self {
        Self {
            kind: "constant".to_owned(),
            warmup_epochs: 0.0,
            warmup_steps: 0,
            every_epochs: 10.0,
            gamma: 0.1,
            floor: 0.0,
            rise: 0.3,
        }
    }
}

/// Length and rhythm of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSpec {
    /// Images (or crops) of a step.
    pub batch: usize,
    /// Equal parts that a batch is taken in, their gradients averaged before the update: less
    /// memory, the same result within rounding.
    pub accumulate: usize,
    /// What maps (what layers give each other, and the gradients by it) are kept in: `f32`, or
    /// `f16`, which takes half the memory and traffic where the adapter has it. Sums, weights and
    /// the optimiser are f32 all the same.
    pub precision: Precision,
    /// Factor of the gradients on their way through f16; 0: what takes the loss's gradient by a
    /// pixel to the scale of the pixels.
    pub loss_scale: f64,
    /// Passes over the data.
    pub epochs: f64,
    /// Steps; 0: as many as the epochs make.
    pub steps: u64,
    /// Steps between lines of the log.
    pub log_every: u64,
    /// Epochs between validations (there is always one at the end).
    pub validate_every: f64,
    /// Steps between checkpoints; 0: by time alone (there is always one at the end).
    pub checkpoint_every: u64,
    /// Minutes between checkpoints; 0: by steps alone.
    pub checkpoint_minutes: f64,
    /// Checkpoints kept.
    pub keep: usize,
    /// A model to begin with (a file, a run folder, or a bundled one's name): every parameter that
    /// it has by name and shape is taken from it, others are drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How often a training that diverges goes back to its best validation, or its start, and on
    /// with half the learning rate. It diverges when a loss is no number, or, of a restorer, when
    /// whole images are 2 dB worse than they were at best. 0: it stops.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
pub(crate) const fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Default for TrainSpec {
    fn default() -> Self {
        Self {
            batch: 128,
            accumulate: 1,
            precision: Precision::F32,
            loss_scale: 0.0,
            epochs: 10.0,
            steps: 0,
            log_every: 50,
            validate_every: 1.0,
            checkpoint_every: 0,
            checkpoint_minutes: 5.0,
            keep: 1,
            from: None,
            retries: 0,
        }
    }
}

impl Config {
    /// Reads a configuration and its overrides; errors name the key.
    pub fn parse(text: &str, place: &str, overrides: &[String]) -> Result<Self> {
        let mut value = overrides::from_toml(text).map_err(|error| error.at(place))?;
        for one in overrides {
            overrides::apply(&mut value, one)?;
        }
        let config: Self = serde_path_to_error::deserialize(value).map_err(|error| {
            let key = error.path().to_string();
            // What the tree of values cannot hold has become null there.
            let message = error
                .into_inner()
                .to_string()
                .replace("invalid type: null", "NaN or infinity is no value here");
            let beside = if key == "data.validation" {
                "; images to validate on are data.validation_source"
            } else {
                ""
            };
            Error::usage(format!("{place}: {key}: {message}{}{beside}", overrides::hint(&message)))
        })?;
        config.check()?;
        Ok(config)
    }

    /// As TOML, with every value spelled out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration is a TOML table")
    }

    fn check(&self) -> Result<()> {
        self.loss.resolve()?;
        let one_of = |key: &str, value: &str, known: &[&str]| -> Result<()> {
            if known.contains(&value) {
                Ok(())
            } else {
                let hint = did_you_mean(value, known.iter().copied());
                Err(Error::usage(format!(
                    "{key} = {value:?}: known are {}{hint}",
                    known.join(", ")
                )))
            }
        };
        one_of("data.fit", &self.data.fit, &["crop", "resize", "patches"])?;
        one_of("sparsity.penalty", &self.sparsity.penalty, &["none", "l1", "kl"])?;
        one_of("optimizer.kind", &self.optimizer.kind, &["sgd", "adam", "adamw"])?;
        one_of("schedule.kind", &self.schedule.kind, &["constant", "step", "cosine", "one_cycle"])?;
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
            ("train.epochs", t.epochs),
            ("train.loss_scale", t.loss_scale),
            ("train.validate_every", t.validate_every),
            ("train.checkpoint_minutes", t.checkpoint_minutes),
        ];
        for (key, value) in not_negative {
            if !value.is_finite() || *value < 0.0 {
                return Err(Error::usage(format!(
                    "{key} = {value}: it must be a number of at least 0"
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
                return Err(Error::usage(format!("{key} = {value}: it must lie in 0 ≤ x < 1")));
            }
        }
        if !(s.rho > 0.0 && s.rho < 1.0) {
            return Err(Error::usage(format!(
                "sparsity.rho = {}: a rate lies between 0 and 1",
                s.rho
            )));
        }
        if !(self.schedule.rise > 0.0 && self.schedule.rise < 1.0) {
            return Err(Error::usage(format!(
                "schedule.rise = {}: a share lies between 0 and 1",
                self.schedule.rise
            )));
        }
        if self.schedule.kind == "step" && self.schedule.every_epochs <= 0.0 {
            return Err(Error::usage("schedule.every_epochs: it must be above 0"));
        }
        if t.log_every > 10_000 {
            return Err(Error::usage(format!(
                "train.log_every = {}: at most 10000, the losses between are kept",
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
            return Err(Error::usage(
                "train.epochs = 0: it must be above 0, unless train.steps says how many steps",
            ));
        }
        if o.nesterov && o.momentum == 0.0 {
            return Err(Error::usage("optimizer.nesterov needs a momentum above 0"));
        }
        Ok(())
    }
}

/// Names of the activations in descriptions.
pub(crate) fn activation_named(kind: &str, slope: f64, alpha: f64) -> Result<Activation> {
    Ok(match kind {
        "identity" | "linear" => Activation::Identity,
        "relu" => Activation::Relu,
        "leaky_relu" if slope >= 0.0 => Activation::LeakyRelu { slope },
        "leaky_relu" => {
            return Err(Error::usage(format!("leaky_relu: slope {slope} must be at least 0")));
        }
        "elu" if alpha > 0.0 => Activation::Elu { alpha },
        "elu" => return Err(Error::usage(format!("elu: alpha {alpha} must be above 0"))),
        "softplus" => Activation::Softplus,
        "sigmoid" => Activation::Sigmoid,
        "tanh" => Activation::Tanh,
        "gelu" => Activation::Gelu,
        "silu" => Activation::Silu,
        other => {
            let known = "identity, relu, leaky_relu, elu, softplus, sigmoid, tanh, gelu, silu";
            let hint = did_you_mean(other, known.split(", "));
            return Err(Error::usage(format!(
                "activation {other:?} is unknown: there are {known}{hint}"
            )));
        }
    })
}
