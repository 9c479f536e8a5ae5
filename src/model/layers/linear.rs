//! Fully connected: every input element to every output element, between vectors and maps alike.

use super::conv2d::{epilogue, rectified, separate_activation, weight_grad, weights};
use super::{Builder, Graph, Layer, Node, View, check_norm, input_dims, norm};
use crate::error::{Error, Result};
use crate::model::params::{Packing, Start};
use crate::ops::{Conv2dBwdInput, Conv2dFwd, MaxNorm};
use crate::shape::{Conv2d, Dims};
use crate::spec::{Init, LinearSpec};

impl Layer for LinearSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        let output = match (self.units, self.shape, &self.like) {
            (Some(units), None, None) => Dims::flat(units),
            (None, Some([c, h, w]), None) => Dims::new(c, h, w),
            (None, None, Some(name)) => {
                let like = graph.find(name).ok_or_else(|| graph.unknown("like", name))?;
                graph.nodes[like].dims
            }
            _ => return Err(Error::usage("linear: give exactly one of units, shape and like")),
        };
        if output.is_empty() || output.len() > 1 << 26 {
            return Err(Error::usage(format!("linear: an output of {output} is not possible")));
        }
        check_norm(self.max_norm, self.unit_norm)?;
        if self.init == Init::Dictionary {
            return Err(Error::usage("linear: init = \"dictionary\" is for convolutions"));
        }
        let input = input_dims(graph, node);
        node.dims = output;
        let start = Start::weight(
            self.init,
            rectified(self.activation),
            input.len() as f64,
            output.len() as f64,
        );
        let name = self.weight.clone().unwrap_or_else(|| format!("{}.weight", node.name));
        node.weight = Some(graph.param(
            name,
            vec![output.len(), input.len()],
            Packing::Linear { input, output },
            start,
        )?);
        if self.bias {
            let start = Start::bias(self.init, input.len() as f64);
            node.bias = Some(graph.param(
                format!("{}.bias", node.name),
                vec![output.len()],
                Packing::Maps(output),
                start,
            )?);
        }
        Ok(())
    }

    fn constraint(&self, graph: &Graph, node: &Node, w: View) -> Option<MaxNorm> {
        // (in, out): an atom is a row.
        let (atoms, inner) = (input_dims(graph, node).len(), node.dims.len());
        norm(self.max_norm, self.unit_norm).map(|(max_norm, exact)| MaxNorm {
            outer: 1,
            atoms,
            inner,
            max_norm,
            exact,
            w,
        })
    }

    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let size = size(b, node);
        let (w, bias) = weights(b, node);
        let (x, y) = (b.input_value(node, 0), b.output(node));
        b.tape.push(Conv2dFwd {
            size,
            activation: epilogue(self.activation),
            x,
            w,
            b: bias,
            gate: None,
            y,
        });
        if self.activation.from_output() {
            y
        } else {
            separate_activation(b, node, self.activation, y)
        }
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        let size = size(b, node);
        let dy = b.before_activation(node, self.activation, dy);
        let x = b.input_value(node, 0);
        if let Some(bias) = b.bias(node) {
            b.bias_grad(bias, dy, size.y.c);
        }
        weight_grad(b, node, size, x, dy);
        if b.needs_input(node, 0) {
            let dx = b.input_grad(node, 0);
            let (w, _) = weights(b, node);
            let (activation, gate) = b.gate(node, 0);
            b.tape.push(Conv2dBwdInput { size, activation, y: dy, w, b: None, gate, x: dx });
            b.give(b.input_node(node, 0), dx);
        }
    }
}

fn size(b: &Builder, node: usize) -> Conv2d {
    Conv2d::linear(b.n, b.input_dims(node, 0).len(), b.node(node).dims.len())
}
