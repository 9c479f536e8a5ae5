//! Layers that multiply by a weight.

use super::super::graph::Name;
use super::super::proto::{Attribute, Value};
use super::Layers;
use crate::error::{Error, Result};
use crate::model::{Conv2dSpec, ConvTranspose2dSpec, LinearSpec, Node};

/// A size of two sides as an attribute.
pub(super) fn pair(name: &'static str, [h, w]: [usize; 2]) -> Attribute {
    (name, Value::Ints(vec![h as i64, w as i64]))
}

/// The same padding at both ends of each side.
pub(super) fn pads([h, w]: [usize; 2]) -> Attribute {
    let (h, w) = (h as i64, w as i64);
    ("pads", Value::Ints(vec![h, w, h, w]))
}

impl Layers<'_> {
    /// What a product multiplies: its input, its weight, and its bias if it has one.
    fn factors(&mut self, node: &Node) -> Result<Vec<Name>> {
        let missing = || Error::usage("it has no weight");
        let mut all = vec![self.read(node, 0)?, self.parameter(node.weight.ok_or_else(missing)?)?];
        if let Some(bias) = node.bias {
            all.push(self.parameter(bias)?);
        }
        Ok(all)
    }

    pub(super) fn conv2d(&mut self, node: &Node, spec: &Conv2dSpec) -> Result<Name> {
        let all = self.factors(node)?;
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let attributes = vec![
            pair("kernel_shape", spec.kernel.0),
            pair("strides", spec.stride.0),
            pads(spec.padding.resolve(spec.kernel.0, spec.dilation.0)),
            pair("dilations", spec.dilation.0),
            ("group", Value::Int(spec.groups as i64)),
        ];
        let y = self.out.add("Conv", &all, attributes);
        Ok(self.activate(spec.activation, y))
    }

    pub(super) fn conv_transpose2d(
        &mut self,
        node: &Node,
        spec: &ConvTranspose2dSpec,
    ) -> Result<Name> {
        let all = self.factors(node)?;
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let attributes = vec![
            pair("kernel_shape", spec.kernel.0),
            pair("strides", spec.stride.0),
            pads(spec.padding.resolve(spec.kernel.0, spec.dilation.0)),
            pair("output_padding", spec.output_padding.0),
            pair("dilations", spec.dilation.0),
            ("group", Value::Int(spec.groups as i64)),
        ];
        let y = self.out.add("ConvTranspose", &all, attributes);
        Ok(self.activate(spec.activation, y))
    }

    pub(super) fn linear(&mut self, node: &Node, spec: &LinearSpec) -> Result<Name> {
        let mut all = self.factors(node)?;
        all[0] = self.out.add("Flatten", &[&all[0]], Vec::new());
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        // The weight is (outputs, inputs).
        let y = self.out.add("Gemm", &all, vec![("transB", Value::Int(1))]);
        let dims = node.dims;
        let shape = self.out.integers(&[-1, dims.c as i64, dims.h as i64, dims.w as i64]);
        let y = self.out.add("Reshape", &[&y, &shape], Vec::new());
        Ok(self.activate(spec.activation, y))
    }
}
