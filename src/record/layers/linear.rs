//! Fully connected layer, computed as a convolution with one pixel.

use super::conv2d::{
    epilogue, forward_partials, input_partials, separate_activation, weight_and_bias_grad, weights,
};
use super::{Builder, Graph, Node, Passes, View, input_dims, norm};
use crate::model::LinearSpec;
use crate::ops::{Conv2dBwdInput, Conv2dFwd, Gate, MaxNorm};
use crate::shape::Conv2d;

impl Passes for LinearSpec {
    fn constraint(&self, graph: &Graph, node: &Node, w: View) -> Option<MaxNorm> {
        // The weight is (in, out) in memory: an atom is a row.
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

    fn gates_input(&self) -> bool {
        true
    }

    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let size = size(b, node);
        let (w, bias) = weights(b, node);
        let (x, y) = (b.input_value(node, 0), b.output(node));
        let partials = forward_partials(b, &size);
        b.tape.push(Conv2dFwd {
            size,
            activation: epilogue(self.activation),
            penalty: 0.0,
            x,
            w,
            b: bias,
            gate: None,
            y,
            partials,
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
        weight_and_bias_grad(b, node, size, false, [x, dy]);
        if b.needs_input(node, 0) {
            let dx = b.input_grad(node, 0);
            let (w, _) = weights(b, node);
            let Gate { activation, penalty, output: gate } = b.gate(node, 0);
            let partials = input_partials(b, &size);
            b.tape.push(Conv2dBwdInput {
                size,
                activation,
                penalty,
                y: dy,
                w,
                b: None,
                gate,
                x: dx,
                partials,
            });
            b.add_gradient(b.input_node(node, 0), dx);
        }
    }
}

fn size(b: &Builder, node: usize) -> Conv2d {
    Conv2d::linear(b.n, b.input_dims(node, 0).len(), b.node(node).dims.len())
}
