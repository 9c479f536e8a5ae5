//! Layers that prepare the input, which nothing learns: local contrast normalisation and whitening.

use super::{Builder, Graph, Layer, Node, Role, View, input_dims};
use crate::error::{Error, Result};
use crate::model::params::{Packing, Start};
use crate::ops::{Activation, Conv2dFwd, LocalContrast};
use crate::shape::{Conv2d, Dims, Taps};
use crate::spec::{LocalContrastSpec, WhitenSpec};

/// Fails if a gradient would have to pass.
fn check_fixed(graph: &Graph, node: &Node) -> Result<()> {
    match graph.learned_before(node.inputs[0]) {
        Some(layer) => Err(Error::usage(format!(
            "it prepares what is learned from, but layer {layer} before it is learned: freeze that, or put it first"
        ))),
        None => Ok(()),
    }
}

impl Layer for LocalContrastSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        check_fixed(graph, node)?;
        if self.window < 3 || self.window.is_multiple_of(2) || self.window > 255 {
            return Err(Error::usage(format!(
                "window = {}: it must be odd, from 3 to 255",
                self.window
            )));
        }
        if self.eps <= 0.0 || !self.eps.is_finite() {
            return Err(Error::usage(format!("eps = {} must be above 0", self.eps)));
        }
        node.dims = input_dims(graph, node);
        Ok(())
    }

    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let (n, dims) = (b.n, b.node(node).dims);
        let (x, y) = (b.input_value(node, 0), b.output(node));
        let sums = b.tape.real("sums of windows", LocalContrast::work(n, dims));
        b.tape.push(LocalContrast { n, dims, window: self.window, eps: self.eps, x, y, sums });
        y
    }

    fn backward(&self, _: &mut Builder, _: usize, _: View) {
        unreachable!("nothing before it is learned")
    }
}

/// The sizes of whitening's two convolutions: the channels' scale, and the filters.
fn sizes(spec: &WhitenSpec, n: usize, dims: Dims) -> Result<[Conv2d; 2]> {
    let [r, s] = spec.kernel.0;
    let taps = |kernel: [usize; 2]| Taps {
        kernel,
        stride: [1, 1],
        padding: kernel.map(|side| side / 2),
        dilation: [1, 1],
    };
    Ok([
        Conv2d::forward(n, dims, dims.c, taps([1, 1]), dims.c)?,
        Conv2d::forward(n, dims, dims.c, taps([r, s]), 1)?,
    ])
}

/// Part of the name of the parameter that scales the channels.
const SCALE: &str = "scale";

impl Layer for WhitenSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        check_fixed(graph, node)?;
        let [r, s] = self.kernel.0;
        if r % 2 == 0 || s % 2 == 0 || r > 31 || s > 31 {
            return Err(Error::usage(format!(
                "kernel = [{r}, {s}]: its sides must be odd, 31 at most"
            )));
        }
        if self.eps <= 0.0 || !self.eps.is_finite() {
            return Err(Error::usage(format!("eps = {} must be above 0", self.eps)));
        }
        node.dims = input_dims(graph, node);
        let c = node.dims.c;
        let mut fixed = |part: &str, shape: Vec<usize>, packing| -> Result<usize> {
            let param = graph.param(
                format!("{}.{part}", node.name),
                shape,
                packing,
                Start::Constant(0.0),
            )?;
            graph.params[param].role = Role::Fixed;
            Ok(param)
        };
        node.weight = Some(fixed("weight", vec![c, c, r, s], Packing::Conv)?);
        node.bias = Some(fixed("shift", vec![c], Packing::Flat)?);
        fixed(SCALE, vec![c, 1, 1, 1], Packing::Conv)?;
        Ok(())
    }

    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let [scaling, filtering] = sizes(self, b.n, b.node(node).dims).expect("inferred before");
        let (x, y) = (b.input_value(node, 0), b.output(node));
        let Node { weight, bias, .. } = *b.node(node);
        let scale = b
            .graph
            .params
            .iter()
            .position(|param| param.name == format!("{}.{SCALE}", b.node(node).name));
        let [w, shift, scale] =
            [weight, bias, scale].map(|param| b.store.weight(param.expect("inferred before")));
        // Mean 0 first, so that what lies outside, which counts as 0, is the mean.
        let scaled = b.tape.map(format!("scaled input of {}", b.node(node).name), x.len);
        let activation = Activation::Identity;
        b.tape.push(Conv2dFwd {
            size: scaling,
            activation,
            x,
            w: scale,
            b: Some(shift),
            gate: None,
            y: scaled,
        });
        b.tape.push(Conv2dFwd {
            size: filtering,
            activation,
            x: scaled,
            w,
            b: None,
            gate: None,
            y,
        });
        y
    }

    fn backward(&self, _: &mut Builder, _: usize, _: View) {
        unreachable!("nothing before it is learned")
    }
}
