//! Unpooling layers.

use super::{Builder, Graph, Layer, Node, View, input_dims, pool2d};
use crate::error::{Error, Result};
use crate::ops::{MaxUnpool2dBwd, MaxUnpool2dFwd, UpsampleNearest2dBwd, UpsampleNearest2dFwd};
use crate::shape::{Dims, Pool2d};
use crate::spec::{LayerOp, MaxUnpool2dSpec, UpsampleSpec};

impl Layer for MaxUnpool2dSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        let pool =
            graph.find(&self.switches).ok_or_else(|| graph.unknown("switches", &self.switches))?;
        if !matches!(graph.nodes[pool].op, Some(LayerOp::MaxPool2d(_))) {
            return Err(Error::usage(format!(
                "switches = {:?}: that layer is no max_pool2d",
                self.switches
            )));
        }
        let (here, there) = (input_dims(graph, node), graph.nodes[pool].dims);
        if here != there {
            return Err(Error::usage(format!(
                "unpools {here}, but {} made switches for {there}",
                self.switches
            )));
        }
        node.dims = graph.nodes[graph.nodes[pool].inputs[0]].dims;
        node.switches = Some(pool);
        Ok(())
    }

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
            b.give(b.input_node(node, 0), dx);
        }
    }
}

/// The pooling that a node undoes, and its switches.
fn pooling(b: &Builder, node: usize) -> (Pool2d, View) {
    let pool = b.node(node).switches.expect("inferred before");
    let Some(LayerOp::MaxPool2d(spec)) = &b.node(pool).op else { unreachable!("inferred before") };
    (pool2d::size_of(spec, b.n, b.input_dims(pool, 0)), b.saved(pool, 0))
}

impl Layer for UpsampleSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        let [h, w] = self.scale.0;
        if h == 0 || w == 0 {
            return Err(Error::usage("scale must be at least 1"));
        }
        let x = input_dims(graph, node);
        node.dims = Dims::new(x.c, x.h * h, x.w * w);
        Ok(())
    }

    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let (x, y, x_dims) = (b.input_value(node, 0), b.output(node), b.input_dims(node, 0));
        b.tape.push(UpsampleNearest2dFwd { n: b.n, x_dims, scale: self.scale.0, x, y });
        y
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        if b.needs_input(node, 0) {
            let (dx, x_dims) = (b.input_grad(node, 0), b.input_dims(node, 0));
            b.tape.push(UpsampleNearest2dBwd { n: b.n, x_dims, scale: self.scale.0, dy, dx });
            b.give(b.input_node(node, 0), dx);
        }
    }
}
