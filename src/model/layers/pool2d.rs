//! Pooling layers.

use serde::{Deserialize, Serialize};

use super::keys;
use super::{Ends, Graph, Layer, LayerCase, LayerKind, Node, OneOperation, input_dims, none, yes};
use crate::error::Result;
use crate::model::keys::Unwritten::Is;
use crate::model::keys::{KeyEntry, Values, key};
use crate::model::values::Pair;
use crate::ops::{AvgPool2dBwd, AvgPool2dFwd, L2Pool2dBwd, L2Pool2dFwd};
use crate::program::Call;
use crate::shape::{Dims, Pool2d, Window};
use crate::view::View;

/// Max pooling, `op = "max_pool2d"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MaxPool2dSpec(pub Pool2dSpec);

impl MaxPool2dSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[keys::KERNEL, keys::POOL_STRIDE, keys::POOL_PADDING];
}

/// L2 pooling, `op = "l2_pool2d"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct L2Pool2dSpec(pub Pool2dSpec);

impl L2Pool2dSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[keys::KERNEL, keys::POOL_STRIDE, keys::POOL_PADDING];
}

/// The options of max and L2 pooling.
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

impl AvgPool2dSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[
        keys::KERNEL,
        keys::POOL_STRIDE,
        keys::POOL_PADDING,
        key(
            "count_include_pad",
            Values::Flag,
            Is("true"),
            "Padding counts in the divisor of the mean",
        ),
    ];
}

/// The problem size of a pooling layer for a batch of `n`.
pub(crate) fn size(
    n: usize,
    x: Dims,
    kernel: Pair,
    stride: Option<Pair>,
    padding: Pair,
) -> Result<Pool2d> {
    Pool2d::new(n, x, kernel.0, stride.unwrap_or(kernel).0, padding.0)
}

/// The window of a pooling layer along one side.
fn window(kernel: Pair, stride: Option<Pair>, padding: Pair, side: usize) -> Window {
    Window::Forward {
        kernel: kernel.0[side],
        stride: stride.unwrap_or(kernel).0[side],
        padding: padding.0[side],
        dilation: 1,
    }
}

/// The problem size of a pooling node whose size inference has succeeded.
pub(crate) fn size_of(spec: &Pool2dSpec, n: usize, x: Dims) -> Pool2d {
    size(n, x, spec.kernel, spec.stride, spec.padding).expect("inference has checked the size")
}

impl Layer for MaxPool2dSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        node.dims =
            size(1, input_dims(graph, node), self.0.kernel, self.0.stride, self.0.padding)?.y;
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, side: usize) -> Window {
        window(self.0.kernel, self.0.stride, self.0.padding, side)
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Other
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "overlap_padded", keys: r#"{"kernel": [3, 2], "stride": [2, 1], "padding": [1, 1]}"#, x: &[2, 5, 9, 7], tensors: &[] },
        LayerCase { name: "vectors", keys: r#"{"kernel": [2, 2]}"#, x: &[3, 16, 8, 8], tensors: &[] },
        LayerCase { name: "vectors_odd_edge", keys: r#"{"kernel": [2, 3], "stride": [3, 3]}"#, x: &[2, 8, 11, 10], tensors: &[] },
        LayerCase { name: "vectors_overlap", keys: r#"{"kernel": [3, 3], "stride": [2, 2], "padding": [1, 1]}"#, x: &[2, 8, 9, 7], tensors: &[] },
    ];
}

impl Layer for AvgPool2dSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        node.dims = size(1, input_dims(graph, node), self.kernel, self.stride, self.padding)?.y;
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, side: usize) -> Window {
        window(self.kernel, self.stride, self.padding, side)
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Other
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "overlap_padded", keys: r#"{"kernel": [3, 2], "stride": [2, 1], "padding": [1, 1]}"#, x: &[2, 5, 9, 7], tensors: &[] },
        LayerCase { name: "without_pad", keys: r#"{"kernel": [3, 3], "stride": [2, 2], "padding": [1, 1], "count_include_pad": false}"#, x: &[2, 8, 9, 7], tensors: &[] },
    ];
}

impl Layer for L2Pool2dSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        MaxPool2dSpec(self.0).infer(graph, node)
    }

    fn window(&self, _: &Graph, _: &Node, side: usize) -> Window {
        window(self.0.kernel, self.0.stride, self.0.padding, side)
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Other
    }

    #[rustfmt::skip] // a table
    const CASES: &[LayerCase] = &[
        LayerCase { name: "overlap_padded", keys: r#"{"kernel": [3, 2], "stride": [2, 1], "padding": [1, 1]}"#, x: &[2, 5, 9, 7], tensors: &[] },
        LayerCase { name: "vectors", keys: r#"{"kernel": [2, 2]}"#, x: &[3, 16, 8, 8], tensors: &[] },
        LayerCase { name: "vectors_overlap", keys: r#"{"kernel": [3, 3], "stride": [2, 2], "padding": [1, 1]}"#, x: &[2, 8, 9, 7], tensors: &[] },
    ];
}

impl OneOperation for AvgPool2dSpec {
    fn operation(&self, ends: &Ends, _: &mut dyn FnMut(&str, usize) -> View) -> Call {
        let Ends { x, y, .. } = *ends;
        let count_include_pad = self.count_include_pad;
        AvgPool2dFwd { size: self.size(ends), count_include_pad, x, y }.into()
    }

    fn gradient(&self, ends: &Ends, dy: View, dx: View) -> Call {
        let count_include_pad = self.count_include_pad;
        AvgPool2dBwd { size: self.size(ends), count_include_pad, dy, dx }.into()
    }
}

impl AvgPool2dSpec {
    fn size(&self, ends: &Ends) -> Pool2d {
        size(ends.n, ends.x_dims, self.kernel, self.stride, self.padding).expect("inferred before")
    }
}

impl OneOperation for L2Pool2dSpec {
    fn operation(&self, ends: &Ends, _: &mut dyn FnMut(&str, usize) -> View) -> Call {
        let Ends { n, x_dims, x, y, .. } = *ends;
        L2Pool2dFwd { size: size_of(&self.0, n, x_dims), x, y }.into()
    }

    fn gradient(&self, ends: &Ends, dy: View, dx: View) -> Call {
        let Ends { n, x_dims, x, y, .. } = *ends;
        L2Pool2dBwd { size: size_of(&self.0, n, x_dims), x, y, dy, dx }.into()
    }
}
