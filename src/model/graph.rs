//! The graph of a model: layers with inferred shapes and named parameters. Every node computes one
//! tensor.

use super::layers;
use super::params::{InitialValues, Packing, Param, ParamRole};
use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::model::{LayerOp, ModelSpec};
use crate::ops::CELL;
use crate::shape::Dims;

/// A node of the graph: a layer with its size and parameters. Node 0 is the input.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name of the layer.
    pub name: String,
    /// Its operation; `None` for the input.
    pub op: Option<LayerOp>,
    /// The nodes that it reads.
    pub inputs: Vec<usize>,
    /// Size of one sample of its output.
    pub dims: Dims,
    /// Index into [`Graph::params`] of its weight, or of its thresholds.
    pub weight: Option<usize>,
    /// Index into [`Graph::params`] of its bias.
    pub bias: Option<usize>,
    /// Index into [`Graph::params`] of the slopes of its thresholds over the corruption level.
    pub slope: Option<usize>,
    /// Index into [`Graph::params`] of the factors that whitening multiplies channels by.
    pub scale: Option<usize>,
    /// Index into [`Graph::states`] of its state (a running threshold).
    pub state: Option<usize>,
    /// The max-pooling node whose switches it uses.
    pub switches: Option<usize>,
}

impl Node {
    /// Indices of its parameters into [`Graph::params`].
    pub fn params(&self) -> impl Iterator<Item = usize> + use<> {
        [self.weight, self.bias, self.slope, self.scale].into_iter().flatten()
    }
}

/// A model with inferred shapes.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The model configuration, with the input size and every channel count filled in.
    pub spec: ModelSpec,
    /// The input, then the layers in topological order.
    pub nodes: Vec<Node>,
    /// The parameters: learned, frozen or fixed.
    pub params: Vec<Param>,
    /// Tensors that training updates without gradients.
    pub states: Vec<Param>,
    /// The node whose value is the code.
    pub code: usize,
    /// The node whose value is the reconstruction.
    pub output: usize,
    /// The node whose value is the reconstruction target: 0, the input, by default.
    pub target: usize,
}

impl Graph {
    /// Infers every shape from `input`, the size of one sample.
    ///
    /// # Errors
    /// When the input or the list of layers is empty, a name is used twice or unknown, a layer
    /// does not fit its inputs, or the output does not fit the classes.
    pub fn new(spec: &ModelSpec, input: Dims) -> Result<Self> {
        if input.is_empty() {
            return Err(Error::usage(format!("model.input: {input} is empty; use sizes above 0")));
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
                scale: None,
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
                return Err(Error::usage(format!(
                    "layer {}: another layer has this name; choose a new one",
                    layer.name
                )));
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
        let (classes, output) = (spec.classes.len(), graph.nodes[graph.output].dims);
        // Class logits for an image or for each pixel; a detector has CELL box values besides.
        if classes > 0 && output.c != classes && output.c != classes + CELL {
            return Err(Error::usage(format!(
                "model.classes: {classes} classes, but the output is {output}: it must have one \
                 channel for each class"
            )));
        }
        Ok(graph)
    }

    /// Checks that this is an autoencoder: the output depends on the code and has the size of the
    /// target, and the target does not depend on learned layers.
    ///
    /// # Errors
    /// When it is not an autoencoder; the message says why.
    pub fn check_autoencoder(&self) -> Result<()> {
        if !self.spec.classes.is_empty() {
            return Err(Error::usage(
                "the model predicts classes instead of reconstructing images: use `csae classify`, \
                 `csae segment` or `csae detect`",
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
                "model.target = {:?}: it depends on layer {layer}, which is learned, so that the \
                 target would change during training; set frozen = true on that layer",
                self.nodes[self.target].name
            )));
        }
        if x == y {
            return Ok(());
        }
        if self.target > 0 {
            return Err(Error::usage(format!(
                "the output of the model is {y}, but its target, layer {}, is {x}; make them equal",
                self.nodes[self.target].name
            )));
        }
        let shapes: Vec<String> =
            self.nodes.iter().map(|node| format!("{} {}", node.name, node.dims)).collect();
        Err(Error::usage(format!(
            "the model turns {x} into {y}, but an autoencoder must keep the input size: change \
             strides or padding, or set model.input = [channels, height, width] ({})",
            shapes.join(" → ")
        )))
    }

    /// Checks that the reconstruction target is the input, so that reconstructions are images.
    ///
    /// # Errors
    /// When the target is the output of a layer; the message names it.
    pub fn check_reconstructs_images(&self) -> Result<()> {
        if self.target == 0 {
            return Ok(());
        }
        Err(Error::usage(format!(
            "the model reconstructs the output of layer {}, not images; {}",
            self.nodes[self.target].name,
            Advice::UseFeatures
        )))
    }

    /// Checks that the model takes images at their full range, 0 to 1. Some work reads or writes
    /// only those.
    ///
    /// # Errors
    /// When the model was trained on normalised samples or on spectrograms.
    pub fn check_takes_plain_images(&self) -> Result<()> {
        if self.spec.spectrogram.is_some() {
            return Err(Error::usage(
                "the model was trained on log-mel spectrograms, but this takes a model of images",
            ));
        }
        match &self.spec.normalization {
            None => Ok(()),
            Some(normalization) => Err(Error::usage(format!(
                "the model was trained on normalised {} samples, but this takes a model of images \
                 at their full range; train one with data.normalize = \"none\"",
                normalization.samples
            ))),
        }
    }

    /// Whether units compete within a batch during training (lifetime winner-take-all). At
    /// inference they do not, so that its reconstructions are much worse than in training.
    pub fn competes_within_batch(&self) -> bool {
        let mut selections = self.nodes.iter().filter_map(|node| node.op.as_ref()?.selection());
        selections.any(|selection| selection.over_batch && !selection.at_inference)
    }

    /// Whether training changes any parameter of a node.
    pub fn learns(&self, node: usize) -> bool {
        self.nodes[node].params().any(|param| self.params[param].role == ParamRole::Learned)
    }

    /// Name of a learned layer that a node depends on, the node itself included. `None` if it
    /// depends on none.
    pub fn learned_before(&self, node: usize) -> Option<&str> {
        let mut reached = vec![false; node + 1];
        reached[node] = true;
        for node in (1..=node).rev() {
            if reached[node] {
                if self.learns(node) {
                    return Some(&self.nodes[node].name);
                }
                self.nodes[node]
                    .inputs
                    .iter()
                    .chain(&self.nodes[node].switches)
                    .for_each(|input| reached[*input] = true);
            }
        }
        None
    }

    /// Whether the output depends on the code.
    pub fn code_reaches_output(&self) -> bool {
        let mut reached = vec![false; self.nodes.len()];
        reached[self.output] = true;
        for node in (0..reached.len()).rev().filter(|node| *node > self.code) {
            if reached[node] {
                self.nodes[node].inputs.iter().for_each(|input| reached[*input] = true);
            }
        }
        reached[self.code]
    }

    /// The node called `name`, if there is one.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// Whether the model is conditioned on the corruption level of each sample.
    pub fn is_conditioned_on_level(&self) -> bool {
        self.nodes.iter().any(|node| node.slope.is_some())
    }

    /// Whether the model is conditioned on a mask of known pixels.
    pub fn is_conditioned_on_mask(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.op, Some(LayerOp::Known(_))))
    }

    /// The nodes that average a whole map for a `lista` layer.
    pub(crate) fn map_means(&self) -> impl Iterator<Item = usize> + '_ {
        let is_lista = |layer: &&super::LayerSpec| matches!(layer.op, LayerOp::Lista(_));
        let layers = self.spec.layers.iter().filter(is_lista);
        layers.filter_map(|layer| self.find(&layers::lista_mean(&layer.name)))
    }

    /// Whether a node has the means of whole maps: as they are, or at every position.
    #[cfg(feature = "cli")]
    pub(crate) fn is_of_means(&self, node: usize) -> bool {
        self.map_means().any(|mean| node == mean || self.nodes[node].inputs == [mean])
    }

    /// The nodes that average every channel of the whole input. A tile of an image has another
    /// mean than the image, so that a caller that tiles images gives the image's.
    pub fn input_means(&self) -> impl Iterator<Item = usize> + '_ {
        self.map_means().filter(|node| self.nodes[*node].inputs == [0])
    }

    /// Total number of parameter values: learned, frozen and fixed.
    pub fn parameter_count(&self) -> usize {
        self.params.iter().map(Param::len).sum()
    }

    /// The nodes named by a layer's `from`; the last node so far if it is empty.
    pub(super) fn resolve(&self, from: &[String]) -> Result<Vec<usize>> {
        if from.is_empty() {
            return Ok(vec![self.nodes.len() - 1]);
        }
        from.iter().map(|name| self.find(name).ok_or_else(|| self.unknown("from", name))).collect()
    }

    /// The error for a key that names an unknown layer.
    pub(super) fn unknown(&self, key: &str, name: &str) -> Error {
        let known: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        Error::usage(format!(
            "{key} = {name:?}: no layer before it has this name; use one of {}",
            known.join(", ")
        ))
    }

    /// Index of the parameter called `name`, which is registered if it is new. A shared parameter
    /// must have the same shape and packing in every layer.
    pub(super) fn param(
        &mut self,
        name: String,
        shape: Vec<usize>,
        packing: Packing,
        initial: InitialValues,
    ) -> Result<usize> {
        let new = Param { name, shape, packing, initial, role: ParamRole::Learned };
        if let Some(index) = self.params.iter().position(|param| param.name == new.name) {
            let old = &self.params[index];
            if old.shape != new.shape || old.packing != new.packing {
                return Err(Error::usage(format!(
                    "it shares {}, whose shape is {:?}, but needs {:?} in the same memory order",
                    old.name, old.shape, new.shape
                )));
            }
            return Ok(index);
        }
        self.params.push(new);
        Ok(self.params.len() - 1)
    }
}
