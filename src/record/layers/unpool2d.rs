//! Max-unpooling.

use super::{Builder, Passes, View};
use crate::model::layers::pool2d;
use crate::model::{LayerOp, MaxUnpool2dSpec};
use crate::ops::{MaxUnpool2dBwd, MaxUnpool2dFwd};
use crate::shape::Pool2d;

impl Passes for MaxUnpool2dSpec {
    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let (size, switches) = pooling(b, node);
        let (x, y) = (b.input_value(node, 0), b.output(node));
        b.tape.push(MaxUnpool2dFwd { size, x, switches, y });
        y
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        if b.needs_input(node, 0) {
            let (size, switches) = pooling(b, node);
            let dx = b.input_grad(node, 0);
            b.tape.push(MaxUnpool2dBwd { size, dy, switches, dx });
            b.add_gradient(b.input_node(node, 0), dx);
        }
    }
}

/// The problem size and the switches of the pooling that a node undoes.
fn pooling(b: &Builder, node: usize) -> (Pool2d, View) {
    let pool = b.node(node).switches.expect("inferred before");
    let Some(LayerOp::MaxPool2d(spec)) = &b.node(pool).op else { unreachable!("inferred before") };
    (pool2d::size_of(&spec.0, b.n, b.input_dims(pool, 0)), b.saved(pool, 0))
}
