//! Pooling layers.

use super::{Graph, Layer, Node, input_dims};
use crate::error::Result;
use crate::shape::{Dims, Pool2d, Window};
use crate::spec::{AvgPool2dSpec, Pair, Pool2dSpec};

/// Max pooling.
pub(crate) struct MaxPool(pub(crate) Pool2dSpec);
/// L2 pooling.
pub(crate) struct L2Pool(pub(crate) Pool2dSpec);

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

impl Layer for MaxPool {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        node.dims =
            size(1, input_dims(graph, node), self.0.kernel, self.0.stride, self.0.padding)?.y;
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, side: usize) -> Window {
        window(self.0.kernel, self.0.stride, self.0.padding, side)
    }
}

impl Layer for AvgPool2dSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        node.dims = size(1, input_dims(graph, node), self.kernel, self.stride, self.padding)?.y;
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, side: usize) -> Window {
        window(self.kernel, self.stride, self.padding, side)
    }
}

impl Layer for L2Pool {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        MaxPool(self.0).infer(graph, node)
    }

    fn window(&self, _: &Graph, _: &Node, side: usize) -> Window {
        window(self.0.kernel, self.0.stride, self.0.padding, side)
    }
}
