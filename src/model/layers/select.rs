//! Selection and threshold layers: the sparsity rules that are not penalties.

use super::{Graph, Layer, Node, add_state, input_dims};
use crate::error::{Error, Result};
use crate::model::params::{InitialValues, Packing, Param, ParamRole};
use crate::shape::Window;
use crate::spec::{BatchTopKSpec, DropoutSpec, LifetimeWtaSpec, SoftThresholdSpec, TopKSpec};

/// Spatial winner-take-all.
pub(crate) struct SpatialWta;

/// The input where a pixel is known, 0 where it is missing.
pub(crate) struct Known;

fn keep_size(graph: &Graph, node: &mut Node) {
    node.dims = input_dims(graph, node);
}

impl Layer for Known {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        keep_size(graph, node);
        let input = graph.nodes[0].dims;
        if node.dims != input {
            return Err(Error::usage(format!(
                "it reads {}, but the mask has the size of the model's input, {input}; use it on \
                 maps of that size",
                node.dims
            )));
        }
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }
}

impl Layer for DropoutSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        if !(0.0..1.0).contains(&self.p) {
            return Err(Error::usage(format!(
                "dropout: p = {} must be at least 0 and below 1",
                self.p
            )));
        }
        keep_size(graph, node);
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }
}

fn check_k(k: usize, units: usize) -> Result<()> {
    if k == 0 || k > units {
        Err(Error::usage(format!("k = {k} must be from 1 to {units}, the size of a sample")))
    } else {
        Ok(())
    }
}

impl Layer for TopKSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        keep_size(graph, node);
        check_k(self.k, node.dims.len())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }
}

impl Layer for BatchTopKSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        keep_size(graph, node);
        if !(self.rate > 0.0 && self.rate <= 1.0) {
            return Err(Error::usage(format!(
                "rate = {} must be above 0 and at most 1",
                self.rate
            )));
        }
        let name = format!("{}.threshold", node.name);
        let state = Param {
            name,
            shape: vec![1],
            packing: Packing::Flat,
            initial: InitialValues::Constant(0.0),
            role: ParamRole::Learned,
        };
        node.state = Some(add_state(graph, state));
        check_k(self.k, node.dims.len())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }
}

impl Layer for SpatialWta {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        keep_size(graph, node);
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }
}

impl Layer for LifetimeWtaSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        keep_size(graph, node);
        if !(self.rate > 0.0 && self.rate <= 1.0) {
            return Err(Error::usage(format!(
                "rate = {} must be above 0 and at most 1",
                self.rate
            )));
        }
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }
}

impl Layer for SoftThresholdSpec {
    fn infer(&self, graph: &mut Graph, node: &mut Node) -> Result<()> {
        keep_size(graph, node);
        for (key, value) in [("value", Some(self.value)), ("slope", self.slope)] {
            if let Some(value) = value.filter(|value| !value.is_finite() || *value < 0.0) {
                return Err(Error::usage(format!("{key} = {value} must be at least 0")));
            }
        }
        let name = self.threshold.clone().unwrap_or_else(|| format!("{}.threshold", node.name));
        let slopes = format!("{}.slope", name.strip_suffix(".threshold").unwrap_or(&name));
        node.weight = Some(graph.param(
            name,
            vec![node.dims.c],
            Packing::Flat,
            InitialValues::Constant(self.value),
        )?);
        if let Some(slope) = self.slope {
            node.slope = Some(graph.param(
                slopes,
                vec![node.dims.c],
                Packing::Flat,
                InitialValues::Constant(slope),
            )?);
        }
        Ok(())
    }

    fn window(&self, _: &Graph, _: &Node, _: usize) -> Window {
        Window::Same
    }
}
