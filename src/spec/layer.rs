//! Layers as a user writes them: one struct for each operation, one field for each TOML key.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::values::{FilterCount, Init, Pad, Pair};
use crate::ops::Activation;

/// A layer of a model: `[[model.layers]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// Unique name. Parameters are named after it: `{name}.weight`.
    pub name: String,
    /// Names of the layers that it reads; `input` is the image. Empty: the layer before.
    pub from: Vec<String>,
    /// Whether training leaves its parameters unchanged.
    pub frozen: bool,
    /// The operation and its options.
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
pub struct Conv2dSpec {
    /// Number of output channels.
    pub filters: FilterCount,
    /// Kernel size.
    pub kernel: Pair,
    /// Stride.
    #[serde(default = "one")]
    pub stride: Pair,
    /// Zero padding on each side.
    #[serde(default = "unpadded")]
    pub padding: Pad,
    /// Dilation of the kernel.
    #[serde(default = "one")]
    pub dilation: Pair,
    /// Number of channel groups. It must divide the input and output channels.
    #[serde(default = "one_group")]
    pub groups: usize,
    /// Whether each output channel has a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Activation after the bias.
    #[serde(default)]
    pub activation: Activation,
    /// Initial weights.
    #[serde(default)]
    pub init: Init,
    /// Name of the weight tensor. Two layers with the same name share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
}

/// Transposed convolution, `op = "conv_transpose2d"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvTranspose2dSpec {
    /// Number of output channels.
    pub filters: FilterCount,
    /// Kernel size.
    pub kernel: Pair,
    /// Stride: the factor by which the output is larger than the input.
    #[serde(default = "one")]
    pub stride: Pair,
    /// Padding of the convolution that this layer transposes: it makes the output smaller.
    #[serde(default = "unpadded")]
    pub padding: Pad,
    /// Rows and columns added at the lower and right side of the output.
    #[serde(default = "none")]
    pub output_padding: Pair,
    /// Dilation of the kernel.
    #[serde(default = "one")]
    pub dilation: Pair,
    /// Number of channel groups. It must divide the input and output channels.
    #[serde(default = "one_group")]
    pub groups: usize,
    /// Whether each output channel has a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Activation after the bias.
    #[serde(default)]
    pub activation: Activation,
    /// Initial weights.
    #[serde(default)]
    pub init: Init,
    /// Name of the weight tensor. Two layers with the same name share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
    /// Maximum norm of each atom: the weights that lead out of one input channel. Longer atoms are
    /// rescaled after each update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<f64>,
    /// Whether every atom has norm 1. Atoms are rescaled after each update, and the component of
    /// the gradient along the atom is removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unit_norm: bool,
}

/// Fully connected layer, `op = "linear"`. Exactly one of `units`, `shape` and `like` gives its
/// output size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearSpec {
    /// Number of output units: the output is a vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<usize>,
    /// Output size [channels, height, width]: the output is maps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<[usize; 3]>,
    /// Name of a layer before this one, whose size the output has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
    /// Whether each output element has a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Activation after the bias.
    #[serde(default)]
    pub activation: Activation,
    /// Initial weights.
    #[serde(default)]
    pub init: Init,
    /// Name of the weight tensor. Two layers with the same name share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
    /// Maximum norm of each atom: the weights that lead out of one input channel. Longer atoms are
    /// rescaled after each update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<f64>,
    /// Whether every atom has norm 1. Atoms are rescaled after each update, and the component of
    /// the gradient along the atom is removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unit_norm: bool,
}

/// Max or L2 pooling, `op = "max_pool2d"` or `"l2_pool2d"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool2dSpec {
    /// Window size.
    pub kernel: Pair,
    /// Stride. The default is the kernel size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<Pair>,
    /// Padding on each side.
    #[serde(default = "none")]
    pub padding: Pair,
}

/// Average pooling, `op = "avg_pool2d"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AvgPool2dSpec {
    /// Window size.
    pub kernel: Pair,
    /// Stride. The default is the kernel size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<Pair>,
    /// Zero padding on each side.
    #[serde(default = "none")]
    pub padding: Pair,
    /// Whether padding counts in the divisor of the mean.
    #[serde(default = "yes")]
    pub count_include_pad: bool,
}

/// Max-unpooling, `op = "max_unpool2d"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaxUnpool2dSpec {
    /// Name of the `max_pool2d` layer that it undoes. It places each value at that layer's switch,
    /// the position of the maximum.
    pub switches: String,
}

/// Nearest-neighbour upsampling, `op = "upsample_nearest2d"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpsampleSpec {
    /// Integer factor along each side.
    pub scale: Pair,
}

/// An activation as a layer of its own, `op = "activation"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationSpec {
    /// The activation.
    pub activation: Activation,
}

/// Dropout, `op = "dropout"`: the identity at inference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropoutSpec {
    /// Probability that an element is set to 0, in [0, 1).
    pub p: f64,
}

/// Initial threshold. A small value: at a large one every output starts at 0 and has no gradient.
const fn first_threshold() -> f64 {
    0.01
}

/// Soft thresholding with one learned threshold for each channel, `op = "soft_threshold"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftThresholdSpec {
    /// Initial threshold.
    #[serde(default = "first_threshold")]
    pub value: f64,
    /// Initial slope of the thresholds: each one is threshold + slope·level, with the corruption
    /// level of the sample ([`crate::infer::conditions::Condition::level`]). Without it the layer
    /// is not conditioned on the level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slope: Option<f64>,
    /// Name of the threshold tensor. Two layers with the same name share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<String>,
}

/// A convolutional sparse code by unrolled iterative soft thresholding, `op = "lista"`.
///
/// It computes z ← soft(z − A_i(B_i z − y), τ_i), with A_i, B_i and τ_i learned for each iteration
/// (Gregor & LeCun, "Learning Fast Approximations of Sparse Coding", 2010; Simon & Elad,
/// "Rethinking the CSC Model for Natural Images", 2019; Janjušević et al., "CDLNet", 2022). y is
/// the input minus its mean in each channel. `{name}.mean` is that mean as a map, for a later
/// `add`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListaSpec {
    /// Number of dictionary atoms: channels of the code.
    pub filters: usize,
    /// Kernel size of A and B; both sides must be odd.
    pub kernel: Pair,
    /// Stride of A and B. It must divide the input size.
    #[serde(default = "one")]
    pub stride: Pair,
    /// Number of unrolled iterations.
    pub iterations: usize,
    /// Initial threshold.
    #[serde(default = "first_threshold")]
    pub value: f64,
    /// Initial slope of the thresholds, as in `soft_threshold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slope: Option<f64>,
    /// Whether the layer is conditioned on a mask of missing pixels: it then computes
    /// z ← soft(z − A_i(M·(B_i z − y)), τ_i), where M is 1 at known pixels and 0 elsewhere. The
    /// first iteration uses all pixels, so missing ones must hold a guess.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
}

/// TopK, `op = "top_k"`: keeps the k largest elements of each sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopKSpec {
    /// Elements kept of each sample.
    pub k: usize,
}

/// Weight of a batch in the running threshold: it averages over about 100 steps.
pub(super) const fn threshold_rate() -> f64 {
    0.01
}

/// BatchTopK, `op = "batch_top_k"`: keeps the k·n largest elements of a batch of n. At inference
/// it keeps the elements above a running threshold stored in the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchTopKSpec {
    /// Mean number of elements kept of a sample: the batch keeps k·n.
    pub k: usize,
    /// Weight of each batch in the running threshold, in (0, 1].
    #[serde(default = "threshold_rate")]
    pub rate: f64,
}

/// Lifetime sparsity of winner-take-all, `op = "lifetime_wta"`: each channel keeps its largest maps
/// in the batch. The identity at inference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifetimeWtaSpec {
    /// Share of the batch that each channel keeps, in (0, 1].
    pub rate: f64,
}

/// Default window: large enough for a stable mean, small enough to stay local in a 32×32 image.
const fn contrast_window() -> usize {
    9
}

/// Default ε: a standard deviation of 0.03 on the 0–1 scale, below which areas count as flat and
/// are not amplified.
const fn contrast_eps() -> f64 {
    1e-3
}

/// Local contrast normalisation, `op = "local_contrast"`: subtracts the local mean and divides by
/// the local standard deviation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalContrastSpec {
    /// Side of the window in pixels: odd, from 3 to 255.
    #[serde(default = "contrast_window")]
    pub window: usize,
    /// ε added to the local variance, above 0, in the squared unit of the input.
    #[serde(default = "contrast_eps")]
    pub eps: f64,
}

/// Default ε, a tenth of the mean variance: it keeps directions that are mostly noise from being
/// amplified.
const fn whitening_eps() -> f64 {
    0.1
}

/// Whitening, `op = "whiten"`: ZCA as a convolution, with filters computed from the images before
/// training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhitenSpec {
    /// Kernel size; both sides must be odd and at most 31.
    pub kernel: Pair,
    /// ε added to the variances, after scaling pixels to a mean variance of 1.
    #[serde(default = "whitening_eps")]
    pub eps: f64,
}

/// The options of an operation that has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoKeys {}

macro_rules! layer_ops {
    ($($(#[$meta:meta])* $variant:ident $name:literal $spec:ty),* $(,)?) => {
        /// The operation of a layer, with its options.
        #[derive(Clone, Debug, PartialEq)]
        pub enum LayerOp { $($(#[$meta])* $variant($spec),)* }

        impl LayerOp {
            /// Name of every operation.
            pub const NAMES: &[&str] = &[$($name),*];

            /// Name of the operation in TOML.
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
                        Err(serde_json::Error::custom(format!(
                            "op {other:?} is unknown: use one of {}{hint}",
                            Self::NAMES.join(", ")
                        )))
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
    /// Fully connected layer.
    Linear "linear" LinearSpec,
    /// Max pooling.
    MaxPool2d "max_pool2d" Pool2dSpec,
    /// Average pooling.
    AvgPool2d "avg_pool2d" AvgPool2dSpec,
    /// L2 pooling.
    L2Pool2d "l2_pool2d" Pool2dSpec,
    /// Max-unpooling by the switches of a max-pooling layer.
    MaxUnpool2d "max_unpool2d" MaxUnpool2dSpec,
    /// Nearest-neighbour upsampling.
    UpsampleNearest2d "upsample_nearest2d" UpsampleSpec,
    /// An activation as a layer of its own.
    Activation "activation" ActivationSpec,
    /// Dropout.
    Dropout "dropout" DropoutSpec,
    /// Soft thresholding.
    SoftThreshold "soft_threshold" SoftThresholdSpec,
    /// Sparse code by unrolled iterative soft thresholding.
    Lista "lista" ListaSpec,
    /// TopK.
    TopK "top_k" TopKSpec,
    /// BatchTopK.
    BatchTopK "batch_top_k" BatchTopKSpec,
    /// Spatial winner-take-all.
    SpatialWta "spatial_wta" NoKeys,
    /// Lifetime sparsity of winner-take-all.
    LifetimeWta "lifetime_wta" LifetimeWtaSpec,
    /// Local contrast normalisation.
    LocalContrast "local_contrast" LocalContrastSpec,
    /// Whitening.
    Whiten "whiten" WhitenSpec,
    /// The input where a pixel is known, 0 where it is missing.
    Known "known" NoKeys,
    /// Sum of two layers.
    Add "add" NoKeys,
    /// The first layer minus the second.
    Sub "sub" NoKeys,
    /// Concatenation of several layers along the channels.
    Concat "concat" NoKeys,
}

impl LayerSpec {
    /// A layer that is not frozen. An empty `from` reads the layer before.
    pub fn new(name: &str, from: Vec<String>, op: LayerOp) -> Self {
        Self { name: name.to_owned(), from, frozen: false, op }
    }

    /// Whether the graph node called `name` comes from this layer. `lista` expands to several
    /// nodes called `{layer}.…`; every other layer is one node.
    pub fn defines(&self, name: &str) -> bool {
        let is_part = || name.strip_prefix(&self.name).is_some_and(|rest| rest.starts_with('.'));
        name == self.name || matches!(self.op, LayerOp::Lista(_)) && is_part()
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
                "a layer has no {key}: every [[model.layers]] needs a name and an op"
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
                    "layer {name}: frozen = {other}: use true or false"
                )));
            }
        };
        let op = LayerOp::from_keys(&op, Value::Object(table))
            .map_err(|error| D::Error::custom(format!("layer {name}: {error}")))?;
        Ok(Self { name, from, frozen, op })
    }
}
