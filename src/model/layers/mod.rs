//! The layers. Each file has the options that a user writes (one struct for each operation, one
//! field for each TOML key) and the geometry: output size, parameters, and window (the part of the
//! input that an output depends on). `record/layers` has the forward and backward passes.

pub(crate) mod conv2d;
mod keys;
mod linear;
mod lista;
mod local_contrast;
mod merge;
mod pixel_shuffle;
pub(crate) mod pool2d;
pub(crate) mod prepare;
mod select;
mod unpool2d;

use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use conv2d::{Conv2dSpec, ConvTranspose2dSpec};
pub use linear::LinearSpec;
pub use lista::ListaSpec;
pub(super) use lista::mean_name as lista_mean;
pub use merge::{AddSpec, ConcatSpec, SubSpec};
pub use pool2d::{AvgPool2dSpec, L2Pool2dSpec, MaxPool2dSpec, Pool2dSpec};
pub use prepare::WhitenSpec;
pub(crate) use select::threshold_rate;
pub use select::{
    BatchTopKSpec, DropoutSpec, KnownSpec, LifetimeWtaSpec, SoftThresholdSpec, SpatialWtaSpec,
    TopKSpec,
};
pub use unpool2d::{MaxUnpool2dSpec, UpsampleSpec};

use super::description::LayerSpec;
use super::graph::{Graph, Node};
use super::params::{Param, ParamRole};
use super::values::{Pad, Pair};
use crate::error::{Error, Result};
use crate::model::keys::Unwritten::Required;
use crate::model::keys::{KeyEntry, Values, key};
use crate::ops::{Activation, ActivationBwd, ActivationFwd};
use crate::program::Call;
use crate::shape::{Dims, Window};
use crate::view::View;

/// The geometry and the kind of a layer. Except for the number of inputs nothing has a default, so
/// that a new layer does not compile until it answers every question.
pub(crate) trait Layer {
    /// Number of inputs; `None` for two or more.
    const INPUTS: Option<usize> = Some(1);

    /// Checks the options, sets the size of `node` and registers its parameters. `node` already
    /// has its name and inputs.
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()>;

    /// How an output depends on the inputs along one side (0: rows, 1: columns).
    fn window(&self, graph: &Graph, node: &Node, side: usize) -> Window;

    /// The kind of the layer.
    fn kind(&self) -> LayerKind<'_>;

    /// The cases that verify the layer on its own. A layer without cases is verified as part of a
    /// model in `verify/table.rs`.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // `verify` reads it
    const CASES: &[LayerCase];
}

/// A layer with one operation forward and one backward, and without parameters and states. Its
/// passes follow from the two operations.
pub(crate) trait OneOperation: Layer {
    /// The operation that writes y. `scratch(label, len)` makes a scratch buffer of real numbers.
    fn operation(&self, ends: &Ends, scratch: &mut dyn FnMut(&str, usize) -> View) -> Call;

    /// The operation that writes dx, the gradient of x, from dy, the gradient of y.
    fn gradient(&self, ends: &Ends, dy: View, dx: View) -> Call;
}

/// Input and output of a layer with one operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// Batch size.
    pub n: usize,
    /// Size of one sample of x.
    pub x_dims: Dims,
    /// Size of one sample of y.
    pub y_dims: Dims,
    /// The input.
    pub x: View,
    /// The output.
    pub y: View,
}

/// A verification case of a layer: its options, and the shapes of what it reads. The values are
/// random, seeded by the name of the case.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "cli"), allow(dead_code))] // `verify` reads it
pub(crate) struct LayerCase {
    /// Name: `primes` in `conv2d/primes`.
    pub name: &'static str,
    /// The options as JSON, without those that follow from the shapes of parameters.
    pub keys: &'static str,
    /// Shape of x.
    pub x: &'static [usize],
    /// Names and shapes of parameters and of other inputs.
    pub tensors: &'static [(&'static str, &'static [usize])],
}

/// The kind of a layer, for code that treats kinds differently.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LayerKind<'a> {
    /// Multiplies by a weight, then applies an activation.
    Product {
        /// The activation.
        activation: &'a Activation,
        /// Where the weight is applied.
        places: Places,
    },
    /// Preprocesses the input. Nothing before it is learned, and it has no gradient.
    Preparation {
        /// Where the weight is applied, if there is one.
        places: Option<Places>,
    },
    /// Only applies an activation.
    Activation(&'a Activation),
    /// Keeps some units and sets the others to 0.
    Selection(Selection),
    /// None of these.
    Other,
}

/// The positions at which a layer applies its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Places {
    /// Every pixel of the output.
    Output,
    /// Every pixel of the input.
    Input,
    /// Once for an image.
    Once,
}

/// Number of elements that a selection keeps of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kept {
    /// The number itself.
    OfSample(usize),
    /// The number divided by the positions of the maps.
    OfPosition(f64),
}

impl Kept {
    /// The number for a sample of this size.
    pub fn of(self, dims: Dims) -> usize {
        match self {
            Self::OfSample(k) => k,
            Self::OfPosition(each) => {
                ((each * dims.area() as f64).round() as usize).clamp(1, dims.len())
            }
        }
    }
}

/// How a layer selects units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Selection {
    /// Elements kept of each sample, or kept on average over a batch. `None` for winner-take-all
    /// rules, which keep a share.
    pub kept: Option<Kept>,
    /// Whether the samples of a batch compete in training.
    pub over_batch: bool,
    /// Whether the selection is also applied at inference.
    pub at_inference: bool,
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

/// Initial threshold. A small value: at a large one every output starts at 0 and has no gradient.
const fn first_threshold() -> f64 {
    0.01
}

/// An activation as a layer of its own, `op = "activation"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationSpec {
    /// The activation.
    pub activation: Activation,
}

impl ActivationSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] =
        &[key("activation", Values::Activation, Required, "The activation")];
}

/// Selects the second expression for a composite layer, the first one for other layers.
macro_rules! arm {
    ([] $one:expr, $composite:expr) => {
        $one
    };
    ([composite] $one:expr, $composite:expr) => {
        $composite
    };
}
pub(crate) use arm;

/// Reads the options of a layer. Errors name the key whose value does not fit.
fn from_table<T: serde::de::DeserializeOwned>(keys: Value) -> Result<T, serde_json::Error> {
    serde_path_to_error::deserialize(keys).map_err(|error| {
        let key = error.path().to_string();
        let error = error.into_inner();
        // These errors name the key themselves.
        let named = ["unknown field", "missing field"];
        let named = named.iter().any(|start| error.to_string().starts_with(start));
        if named || key == "." {
            return error;
        }
        serde_json::Error::custom(format!("{key}: {error}"))
    })
}

/// Makes from the table of layers the enum over them, their names, and the dispatch to each.
///
/// A layer marked `composite` never is in a graph: [`add`] expands it to other layers.
macro_rules! layers {
    ($d:tt $(
        $(#[$meta:meta])* $variant:ident $name:literal $spec:ty $(: $composite:ident)?
    ),* $(,)?) => {
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

            /// The kind of the layer. A composite layer is [`LayerKind::Other`]: only its parts
            /// have a kind.
            pub(crate) fn kind(&self) -> LayerKind<'_> {
                match self {
                    $(Self::$variant(_layer) => {
                        arm!([$($composite)?] _layer.kind(), LayerKind::Other)
                    })*
                }
            }

            pub(crate) fn keys(&self) -> Result<Value, serde_json::Error> {
                match self { $(Self::$variant(spec) => serde_json::to_value(spec),)* }
            }

            pub(crate) fn from_keys(name: &str, keys: Value) -> Result<Self, serde_json::Error> {
                match name {
                    $($name => from_table(keys).map(Self::$variant),)*
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

        /// The keys of all layers, with the name of the layer.
        pub(crate) const KEYS: &[(&str, &[KeyEntry])] = &[$(($name, <$spec>::KEYS)),*];

        /// The cases of all layers, with the name of the layer.
        #[cfg_attr(not(feature = "cli"), allow(dead_code))] // `verify` reads it
        pub(crate) fn cases() -> Vec<(&'static str, LayerCase)> {
            let mut all = Vec::new();
            $(all.extend(
                arm!([$($composite)?] <$spec>::CASES, &[]).iter().map(|case| ($name, *case)),
            );)*
            all
        }

        /// Evaluates `do` with `layer` bound to the layer of an operation: static dispatch over all
        /// operations.
        macro_rules! with_layer {
            ($d op:expr, $d layer:ident => $d do:expr) => {
                match $d op {
                    $($crate::model::LayerOp::$variant($d layer) => {
                        let _ = $d layer;
                        $crate::model::layers::arm!(
                            [$($composite)?] $d do,
                            unreachable!("a graph has no composite layers")
                        )
                    })*
                }
            };
        }
        pub(crate) use with_layer;
    };
}

layers! { $
    /// Convolution.
    Conv2d "conv2d" Conv2dSpec,
    /// Transposed convolution.
    ConvTranspose2d "conv_transpose2d" ConvTranspose2dSpec,
    /// Fully connected layer.
    Linear "linear" LinearSpec,
    /// Max pooling.
    MaxPool2d "max_pool2d" MaxPool2dSpec,
    /// Average pooling.
    AvgPool2d "avg_pool2d" AvgPool2dSpec,
    /// L2 pooling.
    L2Pool2d "l2_pool2d" L2Pool2dSpec,
    /// Max-unpooling by the switches of a max-pooling layer.
    MaxUnpool2d "max_unpool2d" MaxUnpool2dSpec,
    /// Nearest-neighbour upsampling.
    UpsampleNearest2d "upsample_nearest2d" UpsampleSpec,
    /// Sub-pixel rearrangement.
    PixelShuffle "pixel_shuffle" pixel_shuffle::PixelShuffleSpec,
    /// An activation as a layer of its own.
    Activation "activation" ActivationSpec,
    /// Dropout.
    Dropout "dropout" DropoutSpec,
    /// Soft thresholding.
    SoftThreshold "soft_threshold" SoftThresholdSpec,
    /// Sparse code by unrolled iterative soft thresholding.
    Lista "lista" ListaSpec: composite,
    /// TopK.
    TopK "top_k" TopKSpec,
    /// BatchTopK.
    BatchTopK "batch_top_k" BatchTopKSpec,
    /// Spatial winner-take-all.
    SpatialWta "spatial_wta" SpatialWtaSpec,
    /// Lifetime sparsity of winner-take-all.
    LifetimeWta "lifetime_wta" LifetimeWtaSpec,
    /// Local contrast normalisation.
    LocalContrast "local_contrast" local_contrast::LocalContrastSpec,
    /// Whitening.
    Whiten "whiten" WhitenSpec,
    /// The input where a pixel is known, 0 where it is missing.
    Known "known" KnownSpec,
    /// Sum of two layers.
    Add "add" AddSpec,
    /// The first layer minus the second.
    Sub "sub" SubSpec,
    /// Concatenation of several layers along the channels.
    Concat "concat" ConcatSpec,
}

impl LayerOp {
    /// How the layer selects units, if it is a selection.
    pub fn selection(&self) -> Option<Selection> {
        match self.kind() {
            LayerKind::Selection(selection) => Some(selection),
            LayerKind::Product { .. }
            | LayerKind::Preparation { .. }
            | LayerKind::Activation(_)
            | LayerKind::Other => None,
        }
    }

    /// The activation of the layer, if it has one.
    pub(crate) fn activation(&self) -> Option<&Activation> {
        match self.kind() {
            LayerKind::Product { activation, .. } | LayerKind::Activation(activation) => {
                Some(activation)
            }
            LayerKind::Preparation { .. } | LayerKind::Selection(_) | LayerKind::Other => None,
        }
    }

    /// A copy with another value for one key.
    ///
    /// # Errors
    /// When the operation has no such key, or the key does not accept the value.
    pub(crate) fn with(&self, key: &str, value: impl Serialize) -> Result<Self> {
        let set = || -> Result<Self, serde_json::Error> {
            let mut keys = self.keys()?;
            keys[key] = serde_json::to_value(value)?;
            Self::from_keys(self.name(), keys)
        };
        set().map_err(|error| Error::usage(format!("{}: {key}: {error}", self.name())))
    }
}

/// Adds a layer to a graph. `lista` becomes several nodes, every other layer one.
pub(super) fn add(graph: &mut Graph, layer: &LayerSpec) -> Result<()> {
    let LayerOp::Lista(spec) = &layer.op else { return add_node(graph, layer) };
    let inputs = graph.resolve(&layer.from)?;
    let [input] = inputs[..] else {
        return Err(Error::usage(format!(
            "lista reads 1 layer, but `from` names {}",
            inputs.len()
        )));
    };
    let input = &graph.nodes[input];
    for mut part in lista::layers(spec, &layer.name, &input.name.clone(), input.dims)? {
        part.frozen = layer.frozen
            && matches!(
                part.op,
                LayerOp::Conv2d(_) | LayerOp::ConvTranspose2d(_) | LayerOp::SoftThreshold(_)
            );
        add_node(graph, &part).map_err(|error| error.at(&part.name))?;
    }
    Ok(())
}

/// Adds a layer that is one node.
fn add_node(graph: &mut Graph, layer: &LayerSpec) -> Result<()> {
    let inputs = graph.resolve(&layer.from)?;
    let wanted = with_layer!(&layer.op, l => inputs_of(l));
    if wanted.map_or(inputs.len() < 2, |wanted| wanted != inputs.len()) {
        let wanted = wanted.map_or("two or more layers".to_owned(), |count| match count {
            1 => "1 layer".to_owned(),
            _ => format!("{count} layers"),
        });
        return Err(Error::usage(format!(
            "{} reads {wanted}, but `from` names {}",
            layer.op.name(),
            inputs.len()
        )));
    }
    let op = resolve_input_channels(graph, &layer.op)?;
    let mut node = Node {
        name: layer.name.clone(),
        op: Some(op.clone()),
        inputs,
        dims: Dims::flat(0),
        weight: None,
        bias: None,
        slope: None,
        scale: None,
        state: None,
        switches: None,
    };
    with_layer!(&op, l => l.infer(graph, &mut node))?;
    if layer.frozen {
        freeze(graph, &node)?;
    }
    graph.nodes.push(node);
    Ok(())
}

/// Freezes the parameters of a node. A shared parameter is frozen if any of its layers is.
fn freeze(graph: &mut Graph, node: &Node) -> Result<()> {
    let params: Vec<usize> = node.params().collect();
    if params.is_empty() {
        return Err(Error::usage("frozen = true: the layer has no parameters; remove this key"));
    }
    for param in params {
        let role = &mut graph.params[param].role;
        *role = if *role == ParamRole::Fixed { ParamRole::Fixed } else { ParamRole::Frozen };
    }
    Ok(())
}

const fn inputs_of<L: Layer>(_: &L) -> Option<usize> {
    L::INPUTS
}

/// Replaces `filters = "input"` by the number of input channels.
fn resolve_input_channels(graph: &Graph, op: &LayerOp) -> Result<LayerOp> {
    let is_input = |keys: Value| keys["filters"] == "input";
    if op.keys().is_ok_and(is_input) {
        op.with("filters", graph.nodes[0].dims.c)
    } else {
        Ok(op.clone())
    }
}

/// Checks the norm constraint of a layer's atoms.
pub(crate) fn check_norm(max_norm: Option<f64>, unit_norm: bool) -> Result<()> {
    match max_norm {
        Some(_) if unit_norm => {
            Err(Error::usage("max_norm and unit_norm exclude each other; remove one of them"))
        }
        Some(norm) if !(norm > 0.0 && norm.is_finite()) => {
            Err(Error::usage(format!("max_norm = {norm} must be above 0")))
        }
        _ => Ok(()),
    }
}

/// Size of a node's first input.
pub(crate) fn input_dims(graph: &Graph, node: &Node) -> Dims {
    graph.nodes[node.inputs[0]].dims
}

/// Registers a state and returns its index.
fn add_state(graph: &mut Graph, state: Param) -> usize {
    graph.states.push(state);
    graph.states.len() - 1
}

impl OneOperation for ActivationSpec {
    fn operation(&self, ends: &Ends, _: &mut dyn FnMut(&str, usize) -> View) -> Call {
        ActivationFwd { activation: self.activation, x: ends.x, y: ends.y }.into()
    }

    fn gradient(&self, ends: &Ends, dy: View, dx: View) -> Call {
        // The slope from the input is exact for every activation.
        ActivationBwd { activation: self.activation, x: ends.x, dy, dx }.into()
    }
}

impl Layer for ActivationSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        node.dims = input_dims(graph, node);
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Activation(&self.activation)
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "relu", keys: r#"{"kind": "relu"}"#, x: &[2, 5, 6, 7], tensors: &[] },
        LayerCase { name: "leaky_relu", keys: r#"{"kind": "leaky_relu", "slope": 0.2}"#, x: &[2, 5, 6, 7], tensors: &[] },
        LayerCase { name: "elu", keys: r#"{"kind": "elu", "alpha": 1.5}"#, x: &[2, 5, 6, 7], tensors: &[] },
        LayerCase { name: "softplus", keys: r#"{"kind": "softplus"}"#, x: &[2, 5, 6, 7], tensors: &[] },
        LayerCase { name: "sigmoid", keys: r#"{"kind": "sigmoid"}"#, x: &[2, 5, 6, 7], tensors: &[] },
        LayerCase { name: "tanh", keys: r#"{"kind": "tanh"}"#, x: &[2, 5, 6, 7], tensors: &[] },
        LayerCase { name: "gelu", keys: r#"{"kind": "gelu"}"#, x: &[2, 5, 6, 7], tensors: &[] },
        LayerCase { name: "silu", keys: r#"{"kind": "silu"}"#, x: &[2, 5, 6, 7], tensors: &[] },
        LayerCase { name: "identity", keys: r#"{"kind": "identity"}"#, x: &[2, 5, 6, 7], tensors: &[] },
    ];
}

/// The window of a node along one side (0: rows, 1: columns).
pub(super) fn window(graph: &Graph, node: &Node, side: usize) -> Window {
    let Some(op) = &node.op else { return Window::Same };
    with_layer!(op, layer => layer.window(graph, node, side))
}
