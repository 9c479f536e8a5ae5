//! Layers with several inputs.

use super::super::graph::Name;
use super::super::proto::Value;
use super::Layers;
use crate::error::Result;
use crate::model::Node;

impl Layers<'_> {
    /// A sum or a difference.
    pub(super) fn both(&mut self, op: &'static str, node: &Node) -> Result<Name> {
        let (a, b) = (self.read(node, 0)?, self.read(node, 1)?);
        Ok(self.out.add(op, &[&a, &b], Vec::new()))
    }

    pub(super) fn concat(&mut self, node: &Node) -> Result<Name> {
        let all = (0..node.inputs.len()).map(|input| self.read(node, input));
        let all = all.collect::<Result<Vec<Name>>>()?;
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        Ok(self.out.add("Concat", &all, vec![("axis", Value::Int(1))]))
    }
}
