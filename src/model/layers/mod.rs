//! The geometry of each layer: its output size, its parameters, and its window (the part of the
//! input that an output depends on). `record/layers` has its forward and backward passes.

pub(crate) mod conv2d;
mod linear;
mod lista;
pub(crate) mod merge;
pub(crate) mod pool2d;
pub(crate) mod prepare;
pub(crate) mod select;
mod unpool2d;

use super::graph::{Graph, Node};
use super::params::{Param, ParamRole};
use crate::error::{Error, Result};
use crate::shape::{Dims, Window};
use crate::spec::{ActivationSpec, LayerOp, LayerSpec};

/// The geometry of a layer.
pub(crate) trait Layer {
    /// Number of inputs; `None` for two or more.
    const INPUTS: Option<usize> = Some(1);

    /// Checks the options, sets the size of `node` and registers its parameters. `node` already
    /// has its name and inputs.
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()>;

    /// How an output depends on the inputs along one side (0: rows, 1: columns).
    fn window(&self, graph: &Graph, node: &Node, side: usize) -> Window;
}

/// Evaluates `$do` with `$layer` bound to the layer of an operation: static dispatch over all
/// operations.
macro_rules! with_layer {
    ($op:expr, $layer:ident => $do:expr) => {
        match $op {
            $crate::spec::LayerOp::Conv2d($layer) => $do,
            $crate::spec::LayerOp::ConvTranspose2d($layer) => $do,
            $crate::spec::LayerOp::Linear($layer) => $do,
            $crate::spec::LayerOp::MaxPool2d(spec) => {
                let $layer = &$crate::model::layers::pool2d::MaxPool(*spec);
                $do
            }
            $crate::spec::LayerOp::AvgPool2d($layer) => $do,
            $crate::spec::LayerOp::L2Pool2d(spec) => {
                let $layer = &$crate::model::layers::pool2d::L2Pool(*spec);
                $do
            }
            $crate::spec::LayerOp::MaxUnpool2d($layer) => $do,
            $crate::spec::LayerOp::UpsampleNearest2d($layer) => $do,
            $crate::spec::LayerOp::Activation($layer) => $do,
            $crate::spec::LayerOp::Dropout($layer) => $do,
            $crate::spec::LayerOp::SoftThreshold($layer) => $do,
            $crate::spec::LayerOp::Lista(_) => {
                unreachable!("`add` replaces lista by the layers it consists of")
            }
            $crate::spec::LayerOp::TopK($layer) => $do,
            $crate::spec::LayerOp::BatchTopK($layer) => $do,
            $crate::spec::LayerOp::SpatialWta(_) => {
                let $layer = &$crate::model::layers::select::SpatialWta;
                $do
            }
            $crate::spec::LayerOp::LifetimeWta($layer) => $do,
            $crate::spec::LayerOp::LocalContrast($layer) => $do,
            $crate::spec::LayerOp::Whiten($layer) => $do,
            $crate::spec::LayerOp::Known(_) => {
                let $layer = &$crate::model::layers::select::Known;
                $do
            }
            $crate::spec::LayerOp::Add(_) => {
                let $layer = &$crate::model::layers::merge::Sum { second: 1.0 };
                $do
            }
            $crate::spec::LayerOp::Sub(_) => {
                let $layer = &$crate::model::layers::merge::Sum { second: -1.0 };
                $do
            }
            $crate::spec::LayerOp::Concat(_) => {
                let $layer = &$crate::model::layers::merge::Concat;
                $do
            }
        }
    };
}
pub(crate) use with_layer;

/// Whether an operation is a winner-take-all selection.
pub(super) const fn is_winners(op: &LayerOp) -> bool {
    matches!(op, LayerOp::SpatialWta(_) | LayerOp::LifetimeWta(_))
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
    let op = resolve_input_channels(graph, &layer.op);
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

/// Freezes the parameters of a node. A shared parameter is frozen if any of its layers is.
fn freeze(graph: &mut Graph, node: &Node) -> Result<()> {
    let params: Vec<usize> = [node.weight, node.bias, node.slope].into_iter().flatten().collect();
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
fn resolve_input_channels(graph: &Graph, op: &LayerOp) -> LayerOp {
    use crate::spec::FilterCount;
    let channels = FilterCount::Count(graph.nodes[0].dims.c);
    let mut op = op.clone();
    match &mut op {
        LayerOp::Conv2d(spec) if spec.filters == FilterCount::Input => spec.filters = channels,
        LayerOp::ConvTranspose2d(spec) if spec.filters == FilterCount::Input => {
            spec.filters = channels
        }
        _ => {}
    }
    op
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

impl Layer for ActivationSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        node.dims = input_dims(graph, node);
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }
}

/// The window of a node along one side (0: rows, 1: columns).
pub(super) fn window(graph: &Graph, node: &Node, side: usize) -> Window {
    let Some(op) = &node.op else { return Window::Same };
    with_layer!(op, layer => layer.window(graph, node, side))
}
