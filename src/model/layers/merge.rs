//! Layers with several inputs: sum, difference and concatenation.

use super::{Graph, Layer, Node};
use crate::error::{Error, Result};
use crate::shape::{Dims, Window};

/// Sum of the first input and the scaled second one.
pub(crate) struct Sum {
    /// Factor of the second input: 1 for `add`, −1 for `sub`.
    pub second: f64,
}

/// Concatenation along the channels.
pub(crate) struct Concat;

impl Layer for Sum {
    const INPUTS: Option<usize> = Some(2);

    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        let (a, b) = (graph.nodes[node.inputs[0]].dims, graph.nodes[node.inputs[1]].dims);
        if a != b {
            return Err(Error::usage(format!(
                "it adds {a} and {b}; both inputs must have the same size"
            )));
        }
        node.dims = a;
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }
}

impl Layer for Concat {
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
}
