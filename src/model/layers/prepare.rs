//! Preprocessing layers without learned parameters: local contrast normalisation and whitening.

use super::{Graph, Layer, Node, ParamRole, input_dims};
use crate::error::{Error, Result};
use crate::model::params::{InitialValues, Packing};
use crate::shape::Window;
use crate::spec::{LocalContrastSpec, WhitenSpec};

/// Checks that nothing before the node is learned: these layers have no backward pass.
fn check_fixed(graph: &Graph, node: &Node) -> Result<()> {
    match graph.learned_before(node.inputs[0]) {
        Some(layer) => Err(Error::usage(format!(
            "it is a preprocessing layer without a gradient, but layer {layer} before it is \
             learned; move it before that layer, or set frozen = true there"
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

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Forward { kernel: self.window, stride: 1, padding: self.window / 2, dilation: 1 }
    }
}

/// Suffix of the name of the parameter that scales the channels.
pub(crate) const SCALE: &str = "scale";

impl Layer for WhitenSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        check_fixed(graph, node)?;
        let [r, s] = self.kernel.0;
        // The filters come from the eigenvectors of a C·R·S × C·R·S covariance, whose cost grows
        // with the sixth power of the side.
        if r % 2 == 0 || s % 2 == 0 || r > 31 || s > 31 {
            return Err(Error::usage(format!(
                "kernel = [{r}, {s}]: both sides must be odd and at most 31"
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
                InitialValues::Constant(0.0),
            )?;
            graph.params[param].role = ParamRole::Fixed;
            Ok(param)
        };
        node.weight = Some(fixed("weight", vec![c, c, r, s], Packing::Conv)?);
        node.bias = Some(fixed("shift", vec![c], Packing::Flat)?);
        fixed(SCALE, vec![c, 1, 1, 1], Packing::Conv)?;
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, side: usize) -> Window {
        let kernel = self.kernel.0[side];
        Window::Forward { kernel, stride: 1, padding: kernel / 2, dilation: 1 }
    }
}
