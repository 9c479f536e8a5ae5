//! Max pooling.

use super::conv2d::max_pooled;
use super::{Builder, Passes, View};
use crate::model::MaxPool2dSpec;
use crate::model::layers::pool2d::size_of;
use crate::ops::{MaxPool2dBwd, MaxPool2dFwd};

impl Passes for MaxPool2dSpec {
    fn forward(&self, b: &mut Builder, node: usize) -> View {
        if let Some((below, spec)) = b.pooled_by(node) {
            let (y, switches) = max_pooled(b, spec, below, node);
            b.save(node, switches);
            return y;
        }
        let size = size_of(&self.0, b.n, b.input_dims(node, 0));
        let (x, y) = (b.input_value(node, 0), b.output(node));
        let switches = b.tape.words(format!("switches of {}", b.node(node).name), y.len);
        b.save(node, switches);
        b.tape.push(MaxPool2dFwd { size, x, y, switches });
        y
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        if b.needs_input(node, 0) {
            let size = size_of(&self.0, b.n, b.input_dims(node, 0));
            let dx = b.input_grad(node, 0);
            let (activation, gate) = b.pool_gate(node);
            b.tape.push(MaxPool2dBwd {
                size,
                activation,
                dy,
                switches: b.saved(node, 0),
                gate,
                dx,
            });
            b.add_gradient(b.input_node(node, 0), dx);
        }
    }
}
