//! Layers with several inputs: sum, difference and concatenation.

use serde::{Deserialize, Serialize};

use super::{Graph, Layer, LayerCase, LayerKind, Node};
use crate::error::{Error, Result};
use crate::model::keys::KeyEntry;
use crate::shape::{Dims, Window};

/// Sum of two layers, `op = "add"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddSpec {}

impl AddSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[];
}

/// The first layer minus the second, `op = "sub"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubSpec {}

impl SubSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[];
}

/// Concatenation of several layers along the channels, `op = "concat"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConcatSpec {}

impl ConcatSpec {
    /// The keys of the layer.
    pub(crate) const KEYS: &[KeyEntry] = &[];
}

/// Infers the size of a sum or a difference.
fn infer(graph: &Graph, node: &mut Node) -> Result<()> {
    let (a, b) = (graph.nodes[node.inputs[0]].dims, graph.nodes[node.inputs[1]].dims);
    if a != b {
        return Err(Error::usage(format!(
            "it adds {a} and {b}; both inputs must have the same size"
        )));
    }
    node.dims = a;
    Ok(())
}

impl Layer for AddSpec {
    const INPUTS: Option<usize> = Some(2);

    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        infer(graph, node)
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Other
    }

    const CASES: &[LayerCase] = &[];
}

impl Layer for SubSpec {
    const INPUTS: Option<usize> = Some(2);

    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        infer(graph, node)
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Other
    }

    const CASES: &[LayerCase] = &[];
}

impl Layer for ConcatSpec {
    const INPUTS: Option<usize> = None;

    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        let all: Vec<Dims> = node.inputs.iter().map(|input| graph.nodes[*input].dims).collect();
        if let Some(other) = all.iter().find(|dims| (dims.h, dims.w) != (all[0].h, all[0].w)) {
            return Err(Error::usage(format!(
                "it concatenates {} and {other}; all inputs must have the same height and width",
                all[0]
            )));
        }
        node.dims = Dims::new(all.iter().map(|dims| dims.c).sum(), all[0].h, all[0].w);
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }

    fn kind(&self) -> LayerKind<'_> {
        LayerKind::Other
    }

    const CASES: &[LayerCase] = &[];
}
