//! Layers that enlarge maps.

use super::super::graph::Name;
use super::super::proto::Value;
use super::super::sizes;
use super::Layers;
use crate::error::Result;
use crate::model::{Node, UpsampleSpec};

impl Layers<'_> {
    pub(super) fn upsample_nearest2d(&mut self, node: &Node, spec: &UpsampleSpec) -> Result<Name> {
        let x = self.read(node, 0)?;
        let from = &self.graph.nodes[node.inputs[0]];
        // The mean of a map for `lista`, spread over a map of the same size.
        if self.graph.map_means().any(|mean| mean == node.inputs[0])
            && node.dims == self.graph.nodes[from.inputs[0]].dims
        {
            let like = self.read(from, 0)?;
            let shape = self.out.shape_of(&like);
            return Ok(self.out.add("Expand", &[&x, &shape], Vec::new()));
        }
        Ok(sizes::nearest(&mut self.out, &x, spec.scale.0))
    }

    /// Turns blocks of channels into pixels.
    pub(super) fn depth_to_space(&mut self, node: &Node, scale: usize) -> Result<Name> {
        let x = self.read(node, 0)?;
        // CRD is the order of channels of PyTorch: channel, row, column.
        let attributes =
            vec![("blocksize", Value::Int(scale as i64)), ("mode", Value::Text("CRD"))];
        Ok(self.out.add("DepthToSpace", &[&x], attributes))
    }
}
