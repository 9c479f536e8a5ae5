//! Pooling layers.

use super::conv2d::max_pooled;
use super::{Builder, Passes, View};
use crate::model::layers::pool2d::{L2Pool, MaxPool, size, size_of};
use crate::ops::{
    AvgPool2dBwd, AvgPool2dFwd, L2Pool2dBwd, L2Pool2dFwd, MaxPool2dBwd, MaxPool2dFwd,
};
use crate::spec::AvgPool2dSpec;

impl Passes for MaxPool {
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

impl Passes for AvgPool2dSpec {
    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let size = size(b.n, b.input_dims(node, 0), self.kernel, self.stride, self.padding)
            .expect("inference checked the size");
        let (x, y) = (b.input_value(node, 0), b.output(node));
        b.tape.push(AvgPool2dFwd { size, count_include_pad: self.count_include_pad, x, y });
        y
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        if b.needs_input(node, 0) {
            let size = size(b.n, b.input_dims(node, 0), self.kernel, self.stride, self.padding)
                .expect("inference checked the size");
            let dx = b.input_grad(node, 0);
            b.tape.push(AvgPool2dBwd { size, count_include_pad: self.count_include_pad, dy, dx });
            b.add_gradient(b.input_node(node, 0), dx);
        }
    }
}

impl Passes for L2Pool {
    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let size = size_of(&self.0, b.n, b.input_dims(node, 0));
        let (x, y) = (b.input_value(node, 0), b.output(node));
        b.tape.push(L2Pool2dFwd { size, x, y });
        y
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        if b.needs_input(node, 0) {
            let size = size_of(&self.0, b.n, b.input_dims(node, 0));
            let (x, y, dx) = (b.input_value(node, 0), b.value(node), b.input_grad(node, 0));
            b.tape.push(L2Pool2dBwd { size, x, y, dy, dx });
            b.add_gradient(b.input_node(node, 0), dx);
        }
    }
}
