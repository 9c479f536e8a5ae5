//! What each layer of a description is: its output's size, its parameters, its calls forward and
//! backward.

mod conv2d;
mod linear;
mod lista;
mod merge;
mod pool2d;
mod prepare;
mod select;
mod unpool2d;

use super::builder::Builder;
use super::graph::{Graph, Node};
use super::params::{Param, Role};
use crate::error::{Error, Result};
use crate::ops::{Activation, MaxNorm, View};
use crate::shape::Dims;
use crate::spec::{ActivationSpec, Conv2dSpec, LayerOp, LayerSpec, Pair};

/// A layer's part in a graph.
pub(super) trait Layer {
    /// How many layers it reads; none: any number from two.
    const INPUTS: Option<usize> = Some(1);

    /// Infers the output's size and registers parameters. `node` has its name and inputs.
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()>;

    /// The constraint on its weight, if it has one, to be applied after each update.
    fn constraint(&self, _graph: &Graph, _node: &Node, _w: View) -> Option<MaxNorm> {
        None
    }

    /// Records the forward pass and returns the output.
    fn forward(&self, b: &mut Builder, node: usize) -> View;

    /// Records the backward pass: parameter gradients, and input gradients where needed.
    fn backward(&self, b: &mut Builder, node: usize, dy: View);
}

/// Applies `$do` to the layer in an operation, whichever it is.
macro_rules! with_layer {
    ($op:expr, $layer:ident => $do:expr) => {
        match $op {
            LayerOp::Conv2d($layer) => $do,
            LayerOp::ConvTranspose2d($layer) => $do,
            LayerOp::Linear($layer) => $do,
            LayerOp::MaxPool2d(spec) => {
                let $layer = &pool2d::MaxPool(*spec);
                $do
            }
            LayerOp::AvgPool2d($layer) => $do,
            LayerOp::L2Pool2d(spec) => {
                let $layer = &pool2d::L2Pool(*spec);
                $do
            }
            LayerOp::MaxUnpool2d($layer) => $do,
            LayerOp::UpsampleNearest2d($layer) => $do,
            LayerOp::Activation($layer) => $do,
            LayerOp::Dropout($layer) => $do,
            LayerOp::SoftThreshold($layer) => $do,
            LayerOp::Lista(_) => unreachable!("a graph holds the layers that it is of"),
            LayerOp::TopK($layer) => $do,
            LayerOp::BatchTopK($layer) => $do,
            LayerOp::SpatialWta(_) => {
                let $layer = &select::SpatialWta;
                $do
            }
            LayerOp::LifetimeWta($layer) => $do,
            LayerOp::LocalContrast($layer) => $do,
            LayerOp::Whiten($layer) => $do,
            LayerOp::Known(_) => {
                let $layer = &select::Known;
                $do
            }
            LayerOp::Add(_) => {
                let $layer = &merge::Sum { second: 1.0 };
                $do
            }
            LayerOp::Sub(_) => {
                let $layer = &merge::Sum { second: -1.0 };
                $do
            }
            LayerOp::Concat(_) => {
                let $layer = &merge::Concat;
                $do
            }
        }
    };
}

/// Whether an operation is a winner-take-all selection.
pub(super) const fn is_winners(op: &LayerOp) -> bool {
    matches!(op, LayerOp::SpatialWta(_) | LayerOp::LifetimeWta(_))
}

/// Adds a layer to a graph, or the layers that it is of.
pub(super) fn add(graph: &mut Graph, layer: &LayerSpec) -> Result<()> {
    let LayerOp::Lista(spec) = &layer.op else { return add_one(graph, layer) };
    let inputs = graph.resolve(&layer.from)?;
    let [input] = inputs[..] else {
        return Err(Error::usage(format!("lista reads 1, `from` names {}", inputs.len())));
    };
    let input = &graph.nodes[input];
    for mut part in lista::layers(spec, &layer.name, &input.name.clone(), input.dims)? {
        part.frozen = layer.frozen
            && matches!(
                part.op,
                LayerOp::Conv2d(_) | LayerOp::ConvTranspose2d(_) | LayerOp::SoftThreshold(_)
            );
        let layer = part;
        add_one(graph, &layer).map_err(|error| error.at(&layer.name))?;
    }
    Ok(())
}

fn add_one(graph: &mut Graph, layer: &LayerSpec) -> Result<()> {
    let inputs = graph.resolve(&layer.from)?;
    let wanted = with_layer!(&layer.op, l => inputs_of(l));
    if wanted.map_or(inputs.len() < 2, |wanted| wanted != inputs.len()) {
        let wanted = wanted.map_or("two or more layers".to_owned(), |count| format!("{count}"));
        return Err(Error::usage(format!(
            "{} reads {wanted}, `from` names {}",
            layer.op.name(),
            inputs.len()
        )));
    }
    let op = settle(graph, &layer.op);
    let mut node = Node {
        name: layer.name.clone(),
        op: Some(op.clone()),
        inputs,
        dims: Dims::flat(0),
        weight: None,
        bias: None,
        slope: None,
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

/// Lets the parameters of a node be as they are; a shared one is frozen by any of its layers.
fn freeze(graph: &mut Graph, node: &Node) -> Result<()> {
    let params: Vec<usize> = [node.weight, node.bias, node.slope].into_iter().flatten().collect();
    if params.is_empty() {
        return Err(Error::usage("frozen = true: the layer has no parameters"));
    }
    for param in params {
        let role = &mut graph.params[param].role;
        *role = if *role == Role::Fixed { Role::Fixed } else { Role::Frozen };
    }
    Ok(())
}

const fn inputs_of<L: Layer>(_: &L) -> Option<usize> {
    L::INPUTS
}

/// Replaces `filters = "input"` by the number.
fn settle(graph: &Graph, op: &LayerOp) -> LayerOp {
    use crate::spec::Filters;
    let channels = Filters::Count(graph.nodes[0].dims.c);
    let mut op = op.clone();
    match &mut op {
        LayerOp::Conv2d(spec) if spec.filters == Filters::Input => spec.filters = channels,
        LayerOp::ConvTranspose2d(spec) if spec.filters == Filters::Input => spec.filters = channels,
        _ => {}
    }
    op
}

/// Records a node's forward pass.
pub(super) fn forward(b: &mut Builder, node: usize) -> View {
    let op = b.node(node).op.as_ref().expect("only the input has no operation");
    with_layer!(op, l => l.forward(b, node))
}

/// Records a node's backward pass.
pub(super) fn backward(b: &mut Builder, node: usize, dy: View) {
    let op = b.node(node).op.as_ref().expect("only the input has no operation");
    with_layer!(op, l => l.backward(b, node, dy));
}

/// The activation in a node's epilogue, but for identity.
pub(super) fn epilogue_of(node: &Node) -> Option<Activation> {
    let activation = match node.op.as_ref()? {
        LayerOp::Conv2d(spec) => spec.activation,
        LayerOp::ConvTranspose2d(spec) => spec.activation,
        LayerOp::Linear(spec) => spec.activation,
        _ => return None,
    };
    Some(conv2d::epilogue(activation)).filter(|activation| *activation != Activation::Identity)
}

/// The convolution whose epilogue a max pooling can be: windows of 2×2 side by side, behind an
/// activation whose slope follows from its output, so that the pooled map and the switches are all
/// that the way back needs.
pub(super) fn poolable<'a>(graph: &'a Graph, pool: &Node) -> Option<(usize, &'a Conv2dSpec)> {
    let two = Pair([2, 2]);
    match pool.op.as_ref()? {
        LayerOp::MaxPool2d(spec)
            if spec.kernel == two
                && spec.stride.is_none_or(|stride| stride == two)
                && spec.padding == Pair([0, 0]) => {}
        _ => return None,
    }
    let below = &graph.nodes[pool.inputs[0]];
    match below.op.as_ref()? {
        LayerOp::Conv2d(spec)
            if epilogue_of(below).is_some()
                && conv2d::takes_max_pool(spec, input_dims(graph, below)) =>
        {
            Some((pool.inputs[0], spec))
        }
        _ => None,
    }
}

/// The constraint on a node's weight.
pub(super) fn constraint(graph: &Graph, node: &Node, w: View) -> Option<MaxNorm> {
    with_layer!(node.op.as_ref()?, l => l.constraint(graph, node, w))
}

/// Fails unless a norm can bound anything.
fn check_norm(max_norm: Option<f64>, unit_norm: bool) -> Result<()> {
    match max_norm {
        Some(_) if unit_norm => Err(Error::usage(
            "max_norm and unit_norm: atoms are bound by one of them; leave the other out",
        )),
        Some(norm) if !(norm > 0.0 && norm.is_finite()) => {
            Err(Error::usage(format!("max_norm = {norm} must be above 0")))
        }
        _ => Ok(()),
    }
}

/// The norm that atoms are bound by, and whether each has just that.
fn norm(max_norm: Option<f64>, unit_norm: bool) -> Option<(f64, bool)> {
    if unit_norm { Some((1.0, true)) } else { max_norm.map(|norm| (norm, false)) }
}

/// Input size of a node being inferred.
fn input_dims(graph: &Graph, node: &Node) -> Dims {
    graph.nodes[node.inputs[0]].dims
}

/// A state of a node.
fn add_state(graph: &mut Graph, state: Param) -> usize {
    graph.states.push(state);
    graph.states.len() - 1
}

impl Layer for ActivationSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        node.dims = input_dims(graph, node);
        Ok(())
    }

    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let y = b.output(node);
        let x = b.input_value(node, 0);
        b.save(node, x);
        b.tape.push(crate::ops::ActivationFwd { activation: self.activation, x, y });
        y
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        if b.needs_input(node, 0) {
            // From the input, which is at hand: exact for every activation.
            let dx = b.input_grad(node, 0);
            b.tape.push(crate::ops::ActivationBwd {
                activation: self.activation,
                x: b.saved(node, 0),
                dy,
                dx,
            });
            b.give(b.input_node(node, 0), dx);
        }
    }
}
