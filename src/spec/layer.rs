//! The layers of a description: one struct an operation, with the keys that a user writes.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::values::{FilterCount, Init, Pad, Pair};
use crate::ops::Activation;

/// A layer: its name, what it reads, and what it does.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// Name, also of its parameters: `{name}.weight`.
    pub name: String,
    /// Names of the layers that it reads (`input` is the image); empty: the layer before.
    pub from: Vec<String>,
    /// Whether its parameters stay as they are.
    pub frozen: bool,
    /// What it does.
    pub op: LayerOp,
}

const fn one() -> Pair {
    Pair::both(1)
}

const fn none() -> Pair {
    Pair::both(0)
}

const fn unpadded() -> Pad {
    Pad::Fixed(Pair::both(0))
}

const fn yes() -> bool {
    true
}

const fn one_group() -> usize {
    1
}

/// Convolution, `op = "conv2d"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Conv2dSpec {
    pub filters: FilterCount,
    pub kernel: Pair,
    #[serde(default = "one")]
    pub stride: Pair,
    #[serde(default = "unpadded")]
    pub padding: Pad,
    #[serde(default = "one")]
    pub dilation: Pair,
    #[serde(default = "one_group")]
    pub groups: usize,
    #[serde(default = "yes")]
    pub bias: bool,
    #[serde(default)]
    pub activation: Activation,
    #[serde(default)]
    pub init: Init,
    /// Name of the weight, to share it with another layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
}

/// Transposed convolution, `op = "conv_transpose2d"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ConvTranspose2dSpec {
    pub filters: FilterCount,
    pub kernel: Pair,
    #[serde(default = "one")]
    pub stride: Pair,
    #[serde(default = "unpadded")]
    pub padding: Pad,
    #[serde(default = "none")]
    pub output_padding: Pair,
    #[serde(default = "one")]
    pub dilation: Pair,
    #[serde(default = "one_group")]
    pub groups: usize,
    #[serde(default = "yes")]
    pub bias: bool,
    #[serde(default)]
    pub activation: Activation,
    #[serde(default)]
    pub init: Init,
    /// Name of the weight, to share it with another layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
    /// Largest norm of the weights that lead out of one input channel (its atom); they are scaled
    /// back after each update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<f64>,
    /// Every atom has norm 1: it is scaled to that after each update, which leaves out the gradient
    /// along the atom.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unit_norm: bool,
}

/// Fully connected, `op = "linear"`; exactly one of `units`, `shape` and `like` says how large its
/// output is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct LinearSpec {
    /// A vector of so many units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<usize>,
    /// Maps of [channels, height, width].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<[usize; 3]>,
    /// Maps as large as the named layer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
    #[serde(default = "yes")]
    pub bias: bool,
    #[serde(default)]
    pub activation: Activation,
    #[serde(default)]
    pub init: Init,
    /// Name of the weight, to share it with another layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
    /// Largest norm of the weights that lead out of one input channel (its atom); they are scaled
    /// back after each update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<f64>,
    /// Every atom has norm 1: it is scaled to that after each update, which leaves out the gradient
    /// along the atom.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unit_norm: bool,
}

/// Max or L2 pooling, `op = "max_pool2d"` or `"l2_pool2d"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Pool2dSpec {
    pub kernel: Pair,
    /// The kernel unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<Pair>,
    #[serde(default = "none")]
    pub padding: Pair,
}

/// Average pooling, `op = "avg_pool2d"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct AvgPool2dSpec {
    pub kernel: Pair,
    /// The kernel unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<Pair>,
    #[serde(default = "none")]
    pub padding: Pair,
    /// Whether padding counts in the mean.
    #[serde(default = "yes")]
    pub count_include_pad: bool,
}

/// Max-unpooling, `op = "max_unpool2d"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct MaxUnpool2dSpec {
    /// Name of the max-pooling layer whose switches and sizes it takes.
    pub switches: String,
}

/// Nearest-neighbour upsampling, `op = "upsample_nearest2d"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct UpsampleSpec {
    pub scale: Pair,
}

/// An activation on its own, `op = "activation"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ActivationSpec {
    pub activation: Activation,
}

/// Dropout, `op = "dropout"`: nothing at inference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct DropoutSpec {
    pub p: f64,
}

const fn first_threshold() -> f64 {
    0.01
}

/// Soft threshold with learned thresholds, `op = "soft_threshold"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct SoftThresholdSpec {
    /// First value of every threshold.
    #[serde(default = "first_threshold")]
    pub value: f64,
    /// First value of every slope, by which a threshold grows with the level of the sample's
    /// corruption (σ on the 0–1 scale, or a tenth of how much larger an image was made, less one);
    /// left out: the level is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slope: Option<f64>,
    /// Name of the thresholds, to share them with another layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<String>,
}

/// A convolutional sparse code by unrolled iterative soft thresholding, `op = "lista"`: z ← soft(z
/// − A_i(B_i z − y), τ_i), with A_i, B_i and τ_i learned for each iteration (Gregor & LeCun,
/// "Learning Fast Approximations of Sparse Coding", 2010; Simon & Elad, "Rethinking the CSC Model
/// for Natural Images", 2019; Janjušević et al., "CDLNet", 2022). y is what it reads less its mean;
/// `{name}.mean` is that mean as a map, for a later `add`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ListaSpec {
    pub filters: usize,
    /// Odd.
    pub kernel: Pair,
    /// What it reads must be a multiple of it.
    #[serde(default = "one")]
    pub stride: Pair,
    pub iterations: usize,
    /// First value of every threshold.
    #[serde(default = "first_threshold")]
    pub value: f64,
    /// First value of every slope, as in `soft_threshold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slope: Option<f64>,
    /// Whether what it reads may have missing pixels, with a guess in their place, which is what z
    /// begins with: z ← soft(z − A_i(M·(B_i z − y)), τ_i), M being 1 where a pixel is known and 0
    /// elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
}

/// TopK, `op = "top_k"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct TopKSpec {
    pub k: usize,
}

pub(super) const fn threshold_rate() -> f64 {
    0.01
}

/// BatchTopK, `op = "batch_top_k"`: at inference a stored threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct BatchTopKSpec {
    pub k: usize,
    /// Weight of each batch in the running threshold.
    #[serde(default = "threshold_rate")]
    pub rate: f64,
}

/// Lifetime winner-take-all, `op = "lifetime_wta"`: nothing at inference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct LifetimeWtaSpec {
    /// Share of the batch that each unit keeps.
    pub rate: f64,
}

const fn contrast_window() -> usize {
    9
}

const fn contrast_eps() -> f64 {
    1e-3
}

/// Local contrast normalisation, `op = "local_contrast"`: each pixel less the mean around it, by
/// the deviation there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalContrastSpec {
    /// Side of the window, odd.
    #[serde(default = "contrast_window")]
    pub window: usize,
    /// What is added to the variance, on the scale of what it reads (squared).
    #[serde(default = "contrast_eps")]
    pub eps: f64,
}

const fn whitening_eps() -> f64 {
    0.1
}

/// Whitening, `op = "whiten"`: ZCA by a convolution whose filters are computed from the images
/// before training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhitenSpec {
    /// The filters' sides, odd.
    pub kernel: Pair,
    /// What is added to the variances, those of the pixels being 1 on average.
    #[serde(default = "whitening_eps")]
    pub eps: f64,
}

/// An operation without keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoKeys {}

macro_rules! layer_ops {
    ($($(#[$meta:meta])* $variant:ident $name:literal $spec:ty),* $(,)?) => {
        /// What a layer does.
        #[derive(Clone, Debug, PartialEq)]
        pub enum LayerOp { $($(#[$meta])* $variant($spec),)* }

        impl LayerOp {
            /// Every operation's name.
            pub const NAMES: &[&str] = &[$($name),*];

            /// Its name in descriptions.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            fn keys(&self) -> Result<Value, serde_json::Error> {
                match self { $(Self::$variant(spec) => serde_json::to_value(spec),)* }
            }

            fn from_keys(name: &str, keys: Value) -> Result<Self, serde_json::Error> {
                match name {
                    $($name => serde_json::from_value(keys).map(Self::$variant),)*
                    other => {
                        let hint = crate::error::did_you_mean(other, Self::NAMES.iter().copied());
                        Err(serde_json::Error::custom(format!("op {other:?} is unknown: there are {}{hint}", Self::NAMES.join(", "))))
                    }
                }
            }
        }
    };
}

layer_ops! {
    /// Convolution.
    Conv2d "conv2d" Conv2dSpec,
    /// Transposed convolution.
    ConvTranspose2d "conv_transpose2d" ConvTranspose2dSpec,
    /// Fully connected.
    Linear "linear" LinearSpec,
    /// Max pooling.
    MaxPool2d "max_pool2d" Pool2dSpec,
    /// Average pooling.
    AvgPool2d "avg_pool2d" AvgPool2dSpec,
    /// L2 pooling.
    L2Pool2d "l2_pool2d" Pool2dSpec,
    /// Max-unpooling by switches.
    MaxUnpool2d "max_unpool2d" MaxUnpool2dSpec,
    /// Nearest upsampling.
    UpsampleNearest2d "upsample_nearest2d" UpsampleSpec,
    /// An activation.
    Activation "activation" ActivationSpec,
    /// Dropout.
    Dropout "dropout" DropoutSpec,
    /// Soft threshold.
    SoftThreshold "soft_threshold" SoftThresholdSpec,
    /// A sparse code by unrolled iterations.
    Lista "lista" ListaSpec,
    /// TopK.
    TopK "top_k" TopKSpec,
    /// BatchTopK.
    BatchTopK "batch_top_k" BatchTopKSpec,
    /// Spatial winner-take-all.
    SpatialWta "spatial_wta" NoKeys,
    /// Lifetime winner-take-all.
    LifetimeWta "lifetime_wta" LifetimeWtaSpec,
    /// Local contrast normalisation.
    LocalContrast "local_contrast" LocalContrastSpec,
    /// Whitening.
    Whiten "whiten" WhitenSpec,
    /// What it reads where a pixel is known, 0 where one is missing.
    Known "known" NoKeys,
    /// Sum of two layers.
    Add "add" NoKeys,
    /// The first layer less the second.
    Sub "sub" NoKeys,
    /// Channels of several layers side by side.
    Concat "concat" NoKeys,
}

impl LayerSpec {
    /// A layer of this name that reads those; none: the layer before.
    pub fn new(name: &str, from: Vec<String>, op: LayerOp) -> Self {
        Self { name: name.to_owned(), from, frozen: false, op }
    }

    /// Whether a layer of a graph is this one, or of those that this one is written out as.
    pub fn defines(&self, name: &str) -> bool {
        let part = || name.strip_prefix(&self.name).is_some_and(|rest| rest.starts_with('.'));
        name == self.name || matches!(self.op, LayerOp::Lista(_)) && part()
    }
}

impl Serialize for LayerSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut table = Map::new();
        table.insert("name".to_owned(), Value::from(self.name.clone()));
        table.insert("op".to_owned(), Value::from(self.op.name()));
        if !self.from.is_empty() {
            table.insert("from".to_owned(), Value::from(self.from.clone()));
        }
        if self.frozen {
            table.insert("frozen".to_owned(), Value::Bool(true));
        }
        if let Value::Object(keys) = self.op.keys().map_err(serde::ser::Error::custom)? {
            table.extend(keys);
        }
        table.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LayerSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = Map::deserialize(deserializer)?;
        let mut text = |key: &str| match table.remove(key) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            Some(other) => Err(D::Error::custom(format!("layer: {key} = {other} is not a name"))),
            None => Err(D::Error::custom(format!(
                "a layer has no {key}: every [[model.layers]] needs name and op"
            ))),
        };
        let (name, op) = (text("name")?, text("op")?);
        let from = match table.remove("from") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(list) => serde_json::from_value(list)
                .map_err(|error| D::Error::custom(format!("layer {name}: from: {error}")))?,
        };
        let frozen = match table.remove("frozen") {
            None => false,
            Some(Value::Bool(frozen)) => frozen,
            Some(other) => {
                return Err(D::Error::custom(format!(
                    "layer {name}: frozen = {other} is neither true nor false"
                )));
            }
        };
        let op = LayerOp::from_keys(&op, Value::Object(table))
            .map_err(|error| D::Error::custom(format!("layer {name}: {error}")))?;
        Ok(Self { name, from, frozen, op })
    }
}
