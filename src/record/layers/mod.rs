//! The forward and backward pass of each layer.

mod conv2d;
mod linear;
mod merge;
mod pool2d;
mod prepare;
mod select;
mod unpool2d;

use super::builder::Builder;
use crate::model::layers::{Ends, OneOperation, input_dims, with_layer};

use crate::model::{Conv2dSpec, Graph, LayerKind, LayerOp, MaxPool2dSpec, Node, Pair};
use crate::ops::{Activation, MaxNorm};
use crate::view::View;

/// The passes of a layer.
pub(super) trait Passes {
    /// The norm constraint on its weight, if it has one, to be applied after each update.
    fn constraint(&self, _graph: &Graph, _node: &Node, _w: View) -> Option<MaxNorm> {
        None
    }

    /// Whether the backward pass writes the gradient of input 0 with [`Builder::gate`].
    fn gates_input(&self) -> bool {
        false
    }

    /// Records the forward pass and returns the output.
    fn forward(&self, b: &mut Builder, node: usize) -> View;

    /// Records the backward pass: the gradients of parameters, and of inputs if they are needed.
    /// `dy` is the gradient of the output.
    fn backward(&self, b: &mut Builder, node: usize, dy: View);
}

/// Records the forward pass of a node.
pub(super) fn forward(b: &mut Builder, node: usize) -> View {
    let op = b.node(node).op.as_ref().expect("only the input has no operation");
    with_layer!(op, l => l.forward(b, node))
}

/// Whether a node's backward pass writes the gradient of its input with [`Builder::gate`].
pub(super) fn gates_input(node: &Node) -> bool {
    node.op.as_ref().is_some_and(|op| with_layer!(op, l => l.gates_input()))
}

/// Records the backward pass of a node.
pub(super) fn backward(b: &mut Builder, node: usize, dy: View) {
    let op = b.node(node).op.as_ref().expect("only the input has no operation");
    with_layer!(op, l => l.backward(b, node, dy));
}

/// The activation fused into the epilogue of a node's product; `None` for identity.
pub(super) fn epilogue_of(node: &Node) -> Option<Activation> {
    let activation = match node.op.as_ref()?.kind() {
        LayerKind::Product { activation, .. } => *activation,
        LayerKind::Preparation { .. }
        | LayerKind::Activation(_)
        | LayerKind::Selection(_)
        | LayerKind::Other => return None,
    };
    Some(conv2d::epilogue(activation)).filter(|activation| *activation != Activation::Identity)
}

/// The convolution that a max pooling can be fused into, if there is one. The pooling must have
/// 2×2 windows without overlap, and the convolution an activation whose slope follows from its
/// output: the backward pass then needs only the pooled map and the switches.
pub(super) fn fusable_pool<'a>(graph: &'a Graph, pool: &Node) -> Option<(usize, &'a Conv2dSpec)> {
    let two = Pair([2, 2]);
    let LayerOp::MaxPool2d(MaxPool2dSpec(window)) = pool.op.as_ref()? else { return None };
    let fits = window.kernel == two
        && window.stride.is_none_or(|stride| stride == two)
        && window.padding == Pair([0, 0]);
    let below = &graph.nodes[pool.inputs[0]];
    let LayerOp::Conv2d(spec) = below.op.as_ref()? else { return None };
    let takes =
        || epilogue_of(below).is_some() && conv2d::takes_max_pool(spec, input_dims(graph, below));
    (fits && takes()).then_some((pool.inputs[0], spec))
}

/// The norm constraint on a node's weight `w`.
pub(super) fn constraint(graph: &Graph, node: &Node, w: View) -> Option<MaxNorm> {
    with_layer!(node.op.as_ref()?, l => l.constraint(graph, node, w))
}

/// The norm of atoms, and whether it is exact instead of a maximum; `None` without a constraint.
fn norm(max_norm: Option<f64>, unit_norm: bool) -> Option<(f64, bool)> {
    if unit_norm { Some((1.0, true)) } else { max_norm.map(|norm| (norm, false)) }
}

/// The passes of a layer that is one operation forward and one backward.
impl<L: OneOperation> Passes for L {
    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let (x, y) = (b.input_value(node, 0), b.output(node));
        let ends = Ends { n: b.n, x_dims: b.input_dims(node, 0), y_dims: b.node(node).dims, x, y };
        let call = self.operation(&ends, &mut |name, len| b.tape.real(name, len));
        b.tape.push(call);
        y
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        if b.needs_input(node, 0) {
            let (x, y, dx) = (b.input_value(node, 0), b.value(node), b.input_grad(node, 0));
            let ends =
                Ends { n: b.n, x_dims: b.input_dims(node, 0), y_dims: b.node(node).dims, x, y };
            b.tape.push(self.gradient(&ends, dy, dx));
            b.add_gradient(b.input_node(node, 0), dx);
        }
    }
}
