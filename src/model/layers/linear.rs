//! Fully connected layer. Its input and output can be vectors or maps.

use super::conv2d::rectified;
use super::{Graph, Layer, Node, check_norm, input_dims};
use crate::error::{Error, Result};
use crate::model::params::{InitialValues, Packing};
use crate::shape::{Dims, Window};
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
            _ => return Err(Error::usage("linear: set exactly one of units, shape and like")),
        };
        // Far above any useful output; a bound keeps products of sizes from overflowing.
        if output.is_empty() || output.len() > 1 << 26 {
            return Err(Error::usage(format!(
                "linear: an output of {output} is not possible; use 1 to {} elements",
                1 << 26
            )));
        }
        check_norm(self.max_norm, self.unit_norm)?;
        if self.init == Init::Dictionary {
            return Err(Error::usage(
                "linear: init = \"dictionary\" is for convolutions; use another init",
            ));
        }
        let input = input_dims(graph, node);
        node.dims = output;
        let start = InitialValues::weight(
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
            let start = InitialValues::bias(self.init, input.len() as f64);
            node.bias = Some(graph.param(
                format!("{}.bias", node.name),
                vec![output.len()],
                Packing::Maps(output),
                start,
            )?);
        }
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::All
    }
}
