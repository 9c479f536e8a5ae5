//! Layers with several inputs: sum, difference and concatenation.

use super::{Builder, Passes, View};
use crate::model::{AddSpec, ConcatSpec, SubSpec};
use crate::ops::{Combine, CopyChannels};

impl Passes for AddSpec {
    fn forward(&self, b: &mut Builder, node: usize) -> View {
        sum(b, node, 1.0)
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        sum_backward(b, node, 1.0, dy);
    }
}

impl Passes for SubSpec {
    fn forward(&self, b: &mut Builder, node: usize) -> View {
        sum(b, node, -1.0)
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        sum_backward(b, node, -1.0, dy);
    }
}

/// First + `second` · the second.
fn sum(b: &mut Builder, node: usize, second: f64) -> View {
    let y = b.output(node);
    let (first, other) = (b.input_value(node, 0), b.input_value(node, 1));
    b.tape.push(Combine { alpha: 1.0, beta: second, a: first, b: Some(other), y });
    y
}

fn sum_backward(b: &mut Builder, node: usize, second: f64, dy: View) {
    for (i, factor) in [1.0, second].into_iter().enumerate() {
        if b.needs_input(node, i) {
            let dx = b.input_grad(node, i);
            b.tape.push(Combine { alpha: factor, beta: 0.0, a: dy, b: None, y: dx });
            b.add_gradient(b.input_node(node, i), dx);
        }
    }
}

impl Passes for ConcatSpec {
    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let y = b.output(node);
        let dims = b.node(node).dims;
        let mut to = 0;
        for i in 0..b.node(node).inputs.len() {
            let count = b.input_dims(node, i).c;
            let (rows, x) = (b.n * dims.area(), b.input_value(node, i));
            b.tape.push(CopyChannels {
                rows,
                x_channels: count,
                from: 0,
                y_channels: dims.c,
                to,
                count,
                x,
                y,
            });
            to += count;
        }
        y
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        let dims = b.node(node).dims;
        let mut from = 0;
        for i in 0..b.node(node).inputs.len() {
            let count = b.input_dims(node, i).c;
            if b.needs_input(node, i) {
                let (rows, dx) = (b.n * dims.area(), b.input_grad(node, i));
                b.tape.push(CopyChannels {
                    rows,
                    x_channels: dims.c,
                    from,
                    y_channels: count,
                    to: 0,
                    count,
                    x: dy,
                    y: dx,
                });
                b.add_gradient(b.input_node(node, i), dx);
            }
            from += count;
        }
    }
}
