//! Pooling and unpooling.

use super::super::graph::Name;
use super::super::proto::{Attribute, Value};
use super::Layers;
use super::product::{pads, pair};
use crate::error::{Error, Result};
use crate::model::{AvgPool2dSpec, L2Pool2dSpec, MaxPool2dSpec, Node, Pair};

fn window(kernel: Pair, stride: Option<Pair>, padding: Pair) -> Vec<Attribute> {
    let stride = stride.unwrap_or(kernel);
    vec![pair("kernel_shape", kernel.0), pair("strides", stride.0), pads(padding.0)]
}

impl Layers<'_> {
    pub(super) fn max_pool2d(
        &mut self,
        at: usize,
        node: &Node,
        spec: &MaxPool2dSpec,
    ) -> Result<Name> {
        let x = self.read(node, 0)?;
        let attributes = window(spec.0.kernel, spec.0.stride, spec.0.padding);
        if !self.graph.nodes.iter().any(|other| other.switches == Some(at)) {
            return Ok(self.out.add("MaxPool", &[&x], attributes));
        }
        let [y, positions] = self.out.add_two("MaxPool", &[&x], attributes);
        let shape = self.out.shape_of(&x);
        self.switches[at] = Some([positions, shape]);
        Ok(y)
    }

    pub(super) fn max_unpool2d(&mut self, node: &Node) -> Result<Name> {
        let x = self.read(node, 0)?;
        let pool = node.switches.ok_or_else(|| Error::usage("it has no switches"))?;
        let Some([positions, shape]) = self.switches[pool].clone() else {
            let pool = &self.graph.nodes[pool].name;
            return Err(Error::usage(format!("it needs the switches of layer {pool}")));
        };
        let Some(crate::model::LayerOp::MaxPool2d(spec)) = &self.graph.nodes[pool].op else {
            return Err(Error::usage("its switches are not those of max_pool2d"));
        };
        let attributes = window(spec.0.kernel, spec.0.stride, spec.0.padding);
        Ok(self.out.add("MaxUnpool", &[&x, &positions, &shape], attributes))
    }

    pub(super) fn avg_pool2d(
        &mut self,
        at: usize,
        node: &Node,
        spec: &AvgPool2dSpec,
    ) -> Result<Name> {
        let x = self.read(node, 0)?;
        if self.graph.map_means().any(|mean| mean == at) {
            return Ok(self.out.add("GlobalAveragePool", &[&x], Vec::new()));
        }
        let mut attributes = window(spec.kernel, spec.stride, spec.padding);
        attributes.push(("count_include_pad", Value::Int(i64::from(spec.count_include_pad))));
        Ok(self.out.add("AveragePool", &[&x], attributes))
    }

    pub(super) fn l2_pool2d(&mut self, node: &Node, spec: &L2Pool2dSpec) -> Result<Name> {
        let x = self.read(node, 0)?;
        let attributes = window(spec.0.kernel, spec.0.stride, spec.0.padding);
        Ok(self.out.add("LpPool", &[&x], attributes))
    }
}
