//! Convolution and transposed convolution: each is the adjoint of the other, so that both use the
//! same three operations.

use serde::{Deserialize, Serialize};

use super::keys;
use super::{
    Graph, Layer, LayerCase, LayerKind, Node, Places, check_norm, input_dims, none, one, one_group,
    unpadded, yes,
};
use crate::error::Result;
use crate::model::keys::Unwritten::Is;
use crate::model::keys::{KeyEntry, Values, key};
use crate::model::params::{InitialValues, Packing};
use crate::model::values::{FilterCount, Init, Pad, Pair};
use crate::ops::Activation;
use crate::shape::{Conv2d, Dims, Taps, Window};

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

impl Conv2dSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[
        keys::FILTERS,
        keys::KERNEL,
        keys::STRIDE,
        keys::PADDING,
        keys::DILATION,
        keys::GROUPS,
        keys::BIAS,
        keys::ACTIVATION,
        keys::INIT,
        keys::WEIGHT,
    ];
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

impl ConvTranspose2dSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[
        keys::FILTERS,
        keys::KERNEL,
        keys::STRIDE,
        keys::PADDING,
        key(
            "output_padding",
            Values::Size(0),
            Is("0"),
            "Rows and columns added at the lower and right side of the output",
        ),
        keys::DILATION,
        keys::GROUPS,
        keys::BIAS,
        keys::ACTIVATION,
        keys::INIT,
        keys::WEIGHT,
        keys::MAX_NORM,
        keys::UNIT_NORM,
    ];
}

const fn count(filters: FilterCount) -> usize {
    match filters {
        FilterCount::Count(count) => count,
        FilterCount::Input => unreachable!(), // `resolve_input_channels` has replaced it
    }
}

fn taps(kernel: Pair, stride: Pair, padding: Pad, dilation: Pair) -> Taps {
    Taps {
        kernel: kernel.0,
        stride: stride.0,
        padding: padding.resolve(kernel.0, dilation.0),
        dilation: dilation.0,
    }
}

/// Whether an activation counts as a rectifier, which decides between He and Xavier initialisation.
pub(crate) const fn rectified(activation: Activation) -> bool {
    match activation {
        Activation::Relu
        | Activation::LeakyRelu { .. }
        | Activation::Elu { .. }
        | Activation::Softplus
        | Activation::Gelu
        | Activation::Silu => true,
        Activation::Identity | Activation::Sigmoid | Activation::Tanh => false,
    }
}

impl Conv2dSpec {
    /// The problem size of the convolution for a batch of `n` inputs of size `x`.
    pub(crate) fn size(&self, n: usize, x: Dims) -> Result<Conv2d> {
        Conv2d::forward(
            n,
            x,
            count(self.filters),
            taps(self.kernel, self.stride, self.padding, self.dilation),
            self.groups,
        )
    }
}

impl Layer for Conv2dSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        let size = self.size(1, input_dims(graph, node))?;
        node.dims = size.y;
        let [r, s] = self.kernel.0;
        let (c, k) = (size.x.c / self.groups, size.y.c);
        let start = match self.init {
            Init::Dictionary => InitialValues::dictionary([k, c, r, s], self.stride.0),
            init => InitialValues::weight(
                init,
                rectified(self.activation),
                (c * r * s) as f64,
                (k / self.groups * r * s) as f64,
            ),
        };
        let name = self.weight.clone().unwrap_or_else(|| format!("{}.weight", node.name));
        node.weight = Some(graph.param(name, vec![k, c, r, s], Packing::Conv, start)?);
        if self.bias {
            let start = InitialValues::bias(self.init, (c * r * s) as f64);
            node.bias =
                Some(graph.param(format!("{}.bias", node.name), vec![k], Packing::Flat, start)?);
        }
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, side: usize) -> Window {
        let Taps { kernel, stride, padding, dilation } =
            taps(self.kernel, self.stride, self.padding, self.dilation);
        Window::Forward {
            kernel: kernel[side],
            stride: stride[side],
            padding: padding[side],
            dilation: dilation[side],
        }
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Product { activation: &self.activation, places: Places::Output }
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "one_element", keys: r#"{}"#, x: &[1, 1, 1, 1], tensors: &[("weight", &[1, 1, 1, 1]), ("bias", &[1])] },
        LayerCase { name: "primes", keys: r#"{"padding": [1, 2]}"#, x: &[3, 5, 11, 7], tensors: &[("weight", &[13, 5, 3, 5]), ("bias", &[13])] },
        LayerCase { name: "even_kernel", keys: r#"{"padding": [1, 0]}"#, x: &[2, 3, 6, 9], tensors: &[("weight", &[4, 3, 4, 2])] },
        LayerCase { name: "stride_dilation", keys: r#"{"stride": [2, 3], "dilation": [2, 1], "padding": [3, 1]}"#, x: &[2, 4, 13, 17], tensors: &[("weight", &[8, 4, 3, 2]), ("bias", &[8])] },
        LayerCase { name: "groups", keys: r#"{"groups": 3, "padding": [1, 1]}"#, x: &[2, 6, 5, 8], tensors: &[("weight", &[9, 2, 3, 3]), ("bias", &[9])] },
        LayerCase { name: "depthwise", keys: r#"{"groups": 7, "padding": [1, 1], "stride": [2, 2]}"#, x: &[2, 7, 9, 9], tensors: &[("weight", &[7, 1, 3, 3])] },
        LayerCase { name: "wide", keys: r#"{"padding": [1, 1]}"#, x: &[3, 32, 8, 8], tensors: &[("weight", &[64, 32, 3, 3]), ("bias", &[64])] },
        LayerCase { name: "gray_in", keys: r#"{"padding": [1, 1]}"#, x: &[4, 1, 28, 28], tensors: &[("weight", &[16, 1, 3, 3]), ("bias", &[16])] },
        LayerCase { name: "colour_in", keys: r#"{"padding": [1, 1]}"#, x: &[2, 3, 32, 32], tensors: &[("weight", &[32, 3, 3, 3]), ("bias", &[32])] },
        LayerCase { name: "many_workgroups", keys: r#"{"padding": [0, 0]}"#, x: &[5, 3, 640, 400], tensors: &[("weight", &[4, 3, 1, 1]), ("bias", &[4])] },
    ];
}

impl ConvTranspose2dSpec {
    /// The problem size of the convolution that this layer transposes, for a batch of `n` inputs
    /// of size `y`.
    pub(crate) fn size(&self, n: usize, y: Dims) -> Result<Conv2d> {
        let taps = taps(self.kernel, self.stride, self.padding, self.dilation);
        Conv2d::transposed(n, y, count(self.filters), taps, self.output_padding.0, self.groups)
    }
}

impl Layer for ConvTranspose2dSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        let size = self.size(1, input_dims(graph, node))?;
        check_norm(self.max_norm, self.unit_norm)?;
        node.dims = size.x;
        let [r, s] = self.kernel.0;
        let (c, k) = (size.x.c / self.groups, size.y.c);
        // Of the taps of each input channel, one in stride² reaches a given output pixel.
        let taps = (r * s) as f64 / (self.stride.0[0] * self.stride.0[1]) as f64;
        let fan_in = (k / self.groups) as f64 * taps.max(1.0);
        let start = match self.init {
            Init::Dictionary => InitialValues::dictionary([k, c, r, s], self.stride.0),
            init => InitialValues::weight(
                init,
                rectified(self.activation),
                fan_in,
                c as f64 * taps.max(1.0),
            ),
        };
        let name = self.weight.clone().unwrap_or_else(|| format!("{}.weight", node.name));
        node.weight = Some(graph.param(name, vec![k, c, r, s], Packing::Conv, start)?);
        if self.bias {
            let start = InitialValues::bias(self.init, fan_in);
            node.bias = Some(graph.param(
                format!("{}.bias", node.name),
                vec![size.x.c],
                Packing::Flat,
                start,
            )?);
        }
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, side: usize) -> Window {
        let Taps { kernel, stride, padding, dilation } =
            taps(self.kernel, self.stride, self.padding, self.dilation);
        Window::Adjoint {
            kernel: kernel[side],
            stride: stride[side],
            padding: padding[side],
            dilation: dilation[side],
        }
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Product { activation: &self.activation, places: Places::Input }
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "one_element", keys: r#"{}"#, x: &[1, 1, 1, 1], tensors: &[("weight", &[1, 1, 1, 1])] },
        LayerCase { name: "primes", keys: r#"{"stride": [2, 3], "padding": [1, 0], "output_padding": [1, 2]}"#, x: &[3, 5, 4, 3], tensors: &[("weight", &[5, 7, 3, 5]), ("bias", &[7])] },
        LayerCase { name: "even_kernel", keys: r#"{"stride": [2, 2], "padding": [1, 1]}"#, x: &[2, 16, 8, 8], tensors: &[("weight", &[16, 3, 4, 4]), ("bias", &[3])] },
        LayerCase { name: "groups_dilation", keys: r#"{"groups": 2, "dilation": [2, 3], "padding": [2, 1]}"#, x: &[2, 4, 6, 5], tensors: &[("weight", &[4, 3, 3, 2]), ("bias", &[6])] },
        LayerCase { name: "wide", keys: r#"{"stride": [2, 2], "padding": [1, 1]}"#, x: &[2, 64, 8, 8], tensors: &[("weight", &[64, 32, 4, 4]), ("bias", &[32])] },
        LayerCase { name: "slices", keys: r#"{"stride": [2, 2], "padding": [3, 3], "output_padding": [1, 1]}"#, x: &[1, 64, 8, 8], tensors: &[("weight", &[64, 1, 7, 7]), ("bias", &[1])] },
        LayerCase { name: "to_gray", keys: r#"{"stride": [2, 2]}"#, x: &[3, 16, 14, 14], tensors: &[("weight", &[16, 1, 2, 2]), ("bias", &[1])] },
    ];
}
