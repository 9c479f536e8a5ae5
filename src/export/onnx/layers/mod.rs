//! The layers as operators: one file for each group.

mod activation;
mod merge;
mod pool;
mod prepare;
mod product;
mod resize;
mod select;

use super::graph::{Builder, Name};
use crate::error::{Error, Result};
use crate::model::{Graph, LayerOp, LoadedModel, Node};

/// The corruption level that thresholds depend on.
#[derive(Clone, Debug)]
pub enum Level {
    /// The same for all samples.
    Fixed(f64),
    /// That of each sample or pixel, a value that fits maps (N,1,…).
    Value(Name),
}

/// The layers of a model on their way into a graph.
#[derive(Debug)]
pub struct Layers<'a> {
    /// The layers.
    pub graph: &'a Graph,
    /// The graph that is being built.
    pub out: Builder,
    /// The corruption level.
    pub level: Level,
    /// 1 at known pixels and 0 at missing ones (N,1,H,W), for a model that takes a mask.
    pub known: Option<Name>,
    /// Whether maps have the sizes of the graph. Otherwise the sizes are known at run time.
    pub fixed: bool,
    loaded: &'a LoadedModel,
    values: Vec<Option<Name>>,
    /// For each max pooling the positions of the maxima, and the shape of what it reads.
    switches: Vec<Option<[Name; 2]>>,
}

impl<'a> Layers<'a> {
    /// No layers yet.
    pub fn new(loaded: &'a LoadedModel, graph: &'a Graph, out: Builder, fixed: bool) -> Self {
        let count = graph.nodes.len();
        let (values, switches) = (vec![None; count], vec![None; count]);
        let level = Level::Fixed(0.0);
        Self { graph, out, level, known: None, fixed, loaded, values, switches }
    }

    /// Sets the output of a layer, or the input.
    pub fn set(&mut self, node: usize, value: Name) {
        self.values[node] = Some(value);
    }

    /// Adds the layers that `end` depends on, and returns its value. Layers that are set are not
    /// added.
    ///
    /// # Errors
    /// When a layer cannot be exported, or a tensor is missing.
    pub fn add(&mut self, end: usize) -> Result<Name> {
        for node in needed(self.graph, end, |node| self.values[node].is_some()) {
            let graph = self.graph;
            let one = &graph.nodes[node];
            self.out.enter(&one.name);
            let value =
                self.layer(node, one).map_err(|error| error.at(format!("layer {}", one.name)))?;
            self.values[node] = Some(value);
        }
        self.values[end].clone().ok_or_else(|| Error::usage("the input is not known"))
    }

    /// The value that a layer reads.
    fn read(&self, node: &Node, input: usize) -> Result<Name> {
        let at = node.inputs[input];
        let name = || Error::usage(format!("it reads {}", self.graph.nodes[at].name));
        self.values[at].clone().ok_or_else(name)
    }

    /// The values of a tensor of the model.
    fn values_of(&self, param: usize) -> Result<&'a [f32]> {
        self.tensor(&self.graph.params[param].name, &self.graph.params[param].shape)
    }

    fn tensor(&self, name: &str, wanted: &[usize]) -> Result<&'a [f32]> {
        let Some((shape, values)) = self.loaded.tensor(name) else {
            return Err(Error::usage(format!(
                "the model file has no tensor {name}; it does not fit its own architecture"
            )));
        };
        if shape != wanted {
            return Err(Error::usage(format!(
                "tensor {name} has shape {shape:?}, but the model needs {wanted:?}"
            )));
        }
        if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
            return Err(Error::usage(format!(
                "tensor {name} holds {bad}: the file is damaged, or its training diverged"
            )));
        }
        Ok(values)
    }

    /// A tensor of the model.
    fn parameter(&mut self, param: usize) -> Result<Name> {
        let (values, param) = (self.values_of(param)?, &self.graph.params[param]);
        Ok(self.out.parameter(&param.name, &param.shape, values))
    }

    /// Adds a layer, and returns its value.
    fn layer(&mut self, at: usize, node: &Node) -> Result<Name> {
        let Some(op) = &node.op else {
            return Err(Error::usage("the input is not known"));
        };
        match op {
            LayerOp::Conv2d(spec) => self.conv2d(node, spec),
            LayerOp::ConvTranspose2d(spec) => self.conv_transpose2d(node, spec),
            LayerOp::Linear(spec) => self.linear(node, spec),
            LayerOp::MaxPool2d(spec) => self.max_pool2d(at, node, spec),
            LayerOp::AvgPool2d(spec) => self.avg_pool2d(at, node, spec),
            LayerOp::L2Pool2d(spec) => self.l2_pool2d(node, spec),
            LayerOp::MaxUnpool2d(_) => self.max_unpool2d(node),
            LayerOp::UpsampleNearest2d(spec) => self.upsample_nearest2d(node, spec),
            LayerOp::PixelShuffle(spec) => self.depth_to_space(node, spec.scale),
            LayerOp::Activation(spec) => {
                let x = self.read(node, 0)?;
                Ok(self.activate(spec.activation, x))
            }
            LayerOp::SoftThreshold(_) => self.soft_threshold(node),
            LayerOp::TopK(spec) => self.top_k(node, spec),
            LayerOp::BatchTopK(_) => self.batch_top_k(node),
            LayerOp::SpatialWta(_) => self.spatial_wta(node),
            LayerOp::LocalContrast(spec) => self.local_contrast(node, spec.window, spec.eps),
            LayerOp::Whiten(spec) => self.whiten(node, spec),
            LayerOp::Known(_) => self.known(node),
            LayerOp::Add(_) => self.both("Add", node),
            LayerOp::Sub(_) => self.both("Sub", node),
            LayerOp::Concat(_) => self.concat(node),
            // They act in training only.
            LayerOp::Dropout(_) | LayerOp::LifetimeWta(_) => self.read(node, 0),
            LayerOp::Lista(_) => unreachable!("a graph has no composite layers"),
        }
    }
}

/// The nodes that a node reads, switches included.
pub fn sources(graph: &Graph, node: usize) -> impl Iterator<Item = usize> + '_ {
    let node = &graph.nodes[node];
    node.inputs.iter().chain(&node.switches).copied()
}

/// The nodes that `end` depends on, itself included, in order. Those that are `given` and what
/// only they depend on are left out.
pub fn needed(graph: &Graph, end: usize, given: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut wanted = vec![false; end + 1];
    wanted[end] = !given(end);
    for node in (0..=end).rev() {
        if wanted[node] {
            sources(graph, node).for_each(|input| wanted[input] = !given(input));
        }
    }
    (0..=end).filter(|node| wanted[*node]).collect()
}
