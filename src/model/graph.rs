//! The graph: layers with their shapes inferred and their parameters named. A node's value is one
//! tensor.

use super::layers;
use super::params::{InitialValues, Packing, Param, ParamRole};
use crate::error::{Error, Result};
use crate::ops::CELL;
use crate::shape::Dims;
use crate::spec::{LayerOp, ModelSpec};

/// A layer in place. Node 0 is the input.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it does; none for the input.
    pub op: Option<LayerOp>,
    /// The nodes that it reads.
    pub inputs: Vec<usize>,
    /// Size of one sample of its output.
    pub dims: Dims,
    /// Its weight, or thresholds.
    pub weight: Option<usize>,
    /// Its bias.
    pub bias: Option<usize>,
    /// By what its thresholds grow with the level of corruption.
    pub slope: Option<usize>,
    /// Its state (a running threshold).
    pub state: Option<usize>,
    /// The max-pooling whose switches it takes.
    pub switches: Option<usize>,
}

/// A model with its shapes known.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The description, with the input's size and every channel count filled in.
    pub spec: ModelSpec,
    /// The input, then the layers in order.
    pub nodes: Vec<Node>,
    /// Learned parameters.
    pub params: Vec<Param>,
    /// States that are kept but not learned.
    pub states: Vec<Param>,
    /// The node whose value is the code.
    pub code: usize,
    /// The node whose value is the reconstruction.
    pub output: usize,
    /// The node whose value the reconstruction is to be like: 0, the input, for most.
    pub target: usize,
}

impl Graph {
    /// Infers every shape. `input` is the size of one sample.
    pub fn new(spec: &ModelSpec, input: Dims) -> Result<Self> {
        if input.is_empty() {
            return Err(Error::usage(format!("model.input: {input} has no element")));
        }
        let mut graph = Self {
            spec: ModelSpec { input: Some([input.c, input.h, input.w]), ..spec.clone() },
            nodes: vec![Node {
                name: "input".to_owned(),
                op: None,
                inputs: Vec::new(),
                dims: input,
                weight: None,
                bias: None,
                slope: None,
                state: None,
                switches: None,
            }],
            params: Vec::new(),
            states: Vec::new(),
            code: 0,
            output: 0,
            target: 0,
        };
        if spec.layers.is_empty() {
            return Err(Error::usage("model.layers: a model needs at least one layer"));
        }
        for (i, layer) in spec.layers.iter().enumerate() {
            if graph.find(&layer.name).is_some() {
                return Err(Error::usage(format!("layer {}: the name is taken", layer.name)));
            }
            layers::add(&mut graph, layer)
                .map_err(|error| error.at(format!("layer {}", layer.name)))?;
            match (&layer.op, &graph.nodes[graph.nodes.len() - 1].op) {
                (LayerOp::Lista(_), _) | (_, None) => {}
                (_, Some(op)) => graph.spec.layers[i].op = op.clone(),
            }
        }
        graph.code =
            graph.find(&spec.code).ok_or_else(|| graph.unknown("model.code", &spec.code))?;
        graph.output = match &spec.output {
            Some(name) => graph.find(name).ok_or_else(|| graph.unknown("model.output", name))?,
            None => graph.nodes.len() - 1,
        };
        if let Some(name) = &spec.target {
            graph.target = graph.find(name).ok_or_else(|| graph.unknown("model.target", name))?;
        }
        let (classes, units) = (spec.classes.len(), graph.nodes[graph.output].dims);
        // of an image, of each pixel, or of each cell of a grid beside its box
        if classes > 0 && units.c != classes && units.c != classes + CELL {
            return Err(Error::usage(format!(
                "model.classes: {classes} classes, but the output is {units}: it must be a logit for each"
            )));
        }
        Ok(graph)
    }

    /// Fails unless the output is as large as the input, as an autoencoder's is.
    pub fn check_autoencoder(&self) -> Result<()> {
        if !self.spec.classes.is_empty() {
            return Err(Error::usage(
                "the model tells classes and draws no images: use `csae classify`, or `csae segment` for one of pixels",
            ));
        }
        if !self.code_reaches_output() || self.code == 0 {
            return Err(Error::usage(format!(
                "model.code = {:?}: the output does not depend on it",
                self.nodes[self.code].name
            )));
        }
        let (x, y) = (self.nodes[self.target].dims, self.nodes[self.output].dims);
        if let Some(layer) = self.learned_before(self.target) {
            return Err(Error::usage(format!(
                "model.target = {:?}: it depends on layer {layer}, which is learned, so that it would change with what is to be like it; set frozen = true there",
                self.nodes[self.target].name
            )));
        }
        if x == y {
            return Ok(());
        }
        if self.target > 0 {
            return Err(Error::usage(format!(
                "the model draws {y}, but its target, layer {}, is {x}",
                self.nodes[self.target].name
            )));
        }
        let shapes: Vec<String> =
            self.nodes.iter().map(|node| format!("{} {}", node.name, node.dims)).collect();
        Err(Error::usage(format!(
            "the model turns {x} into {y}; an autoencoder gives back the input's size: change strides or padding, or fix the input by --set model.input=[channels,height,width] ({})",
            shapes.join(" → ")
        )))
    }

    /// Fails if what is drawn is like a layer's output, not like an image.
    ///
    /// # Errors
    /// Which layer it is.
    pub fn check_reconstructs_images(&self) -> Result<()> {
        if self.target == 0 {
            return Ok(());
        }
        Err(Error::usage(format!(
            "the model draws what layer {} gives, no images; `csae eval` judges it, `csae features` uses it",
            self.nodes[self.target].name
        )))
    }

    /// Whether units of its code compete within a batch, as they do in training alone: what the
    /// model then draws of an image by itself says little of it.
    pub fn competes_within_batch(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.op, Some(LayerOp::LifetimeWta(_))))
    }

    /// Whether training changes any parameter of a node.
    pub fn learns(&self, node: usize) -> bool {
        let Node { weight, bias, slope, .. } = self.nodes[node];
        [weight, bias, slope]
            .into_iter()
            .flatten()
            .any(|param| self.params[param].role == ParamRole::Learned)
    }

    /// The name of a layer that is learned and that a node depends on, itself included.
    pub fn learned_before(&self, node: usize) -> Option<&str> {
        let mut live = vec![false; node + 1];
        live[node] = true;
        for node in (1..=node).rev() {
            if live[node] {
                if self.learns(node) {
                    return Some(&self.nodes[node].name);
                }
                self.nodes[node]
                    .inputs
                    .iter()
                    .chain(&self.nodes[node].switches)
                    .for_each(|input| live[*input] = true);
            }
        }
        None
    }

    /// Whether the output depends on the code.
    pub fn code_reaches_output(&self) -> bool {
        let mut live = vec![false; self.nodes.len()];
        live[self.output] = true;
        for node in (0..live.len()).rev().filter(|node| *node > self.code) {
            if live[node] {
                self.nodes[node].inputs.iter().for_each(|input| live[*input] = true);
            }
        }
        live[self.code]
    }

    /// The node called `name`.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// Whether it is told how strong the corruption of each sample is.
    pub fn is_conditioned_on_level(&self) -> bool {
        self.nodes.iter().any(|node| node.slope.is_some())
    }

    /// Whether it is told which pixels are known.
    pub fn is_conditioned_on_mask(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.op, Some(LayerOp::Known(_))))
    }

    /// Learned values in all.
    pub fn parameter_count(&self) -> usize {
        self.params.iter().map(Param::len).sum()
    }

    /// The nodes that layer `from` reads.
    pub(super) fn resolve(&self, from: &[String]) -> Result<Vec<usize>> {
        if from.is_empty() {
            return Ok(vec![self.nodes.len() - 1]);
        }
        from.iter().map(|name| self.find(name).ok_or_else(|| self.unknown("from", name))).collect()
    }

    pub(super) fn unknown(&self, key: &str, name: &str) -> Error {
        let known: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        Error::usage(format!(
            "{key} = {name:?}: no such layer before it; there are {}",
            known.join(", ")
        ))
    }

    /// The parameter called `name`, made if it is new; a shared one must have the same shape.
    pub(super) fn param(
        &mut self,
        name: String,
        shape: Vec<usize>,
        packing: Packing,
        start: InitialValues,
    ) -> Result<usize> {
        let new = Param { name, shape, packing, start, role: ParamRole::Learned };
        if let Some(index) = self.params.iter().position(|param| param.name == new.name) {
            let old = &self.params[index];
            if old.shape != new.shape || old.packing != new.packing {
                return Err(Error::usage(format!(
                    "shares {} of shape {:?}, but needs {:?} in the same order",
                    old.name, old.shape, new.shape
                )));
            }
            return Ok(index);
        }
        self.params.push(new);
        Ok(self.params.len() - 1)
    }
}
