//! Walks a graph in forward order and records its calls on a tape. [`backward`] has the reverse
//! order.

mod auxiliary;
mod backward;

pub use auxiliary::Auxiliary;
pub use backward::{Penalty, PenaltyKind};

use super::layers;
use crate::error::{Error, Result};
use crate::model::{Conv2dSpec, Graph, LayerKind, LayerOp, Node, ParamRole, Store};
use crate::ops::{MaxNorm, ProjectGrad};
use crate::record::tape::Tape;
use crate::shape::Dims;
use crate::view::View;

/// Whether a pass is for training or for inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Training: dropout and batch-wide selections are on.
    Train,
    /// Inference: no dropout, and no sample depends on the others in its batch.
    Infer,
}

/// Resurrection of dead units of the code by a constant gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resurrection {
    /// Steps without firing after which a unit is dead.
    pub patience: usize,
    /// Size of the gradient that raises its pre-activation.
    pub strength: f64,
}

/// Records the passes of a graph.
#[derive(Debug)]
pub struct Builder<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The values of its parameters and states.
    pub store: &'a Store,
    /// Number of samples: of the batch, or of a part of it.
    pub n: usize,
    /// Number of parts of the batch. Selections among all samples count those of all parts.
    pub parts: usize,
    /// Training or inference.
    pub mode: Mode,
    /// The calls recorded so far.
    pub tape: Tape,
    /// Whether the backward pass computes the gradient of the input.
    pub input_gradient: bool,
    /// Factor of all gradients. Penalties and resurrection multiply theirs by it; seeds must
    /// already have it.
    pub grad_scale: f64,
    /// Output of each node, once computed.
    values: Vec<Option<View>>,
    /// What each node keeps for its backward pass: switches, masks, pre-activations.
    saved: Vec<Vec<View>>,
    /// Gradient of each node, once a contribution is recorded.
    grads: Vec<Option<View>>,
    /// Whether the backward pass needs the gradient of each node.
    needs: Vec<bool>,
    /// Whether the gradient of each parameter has a contribution.
    written: Vec<bool>,
    /// Whether the gradient of each node is already multiplied by the slope of its activation.
    gated: Vec<bool>,
    /// Whether each max pooling is fused into the convolution before it, which then has no value.
    pooled: Vec<bool>,
    /// Corruption level of each sample, once a layer has asked for it.
    level: Option<View>,
    /// Mask of known pixels, once a layer has asked for it.
    known: Option<View>,
    /// Mean of each channel of the image that a sample is a part of, if the caller gives it.
    input_mean: Option<View>,
    penalty: Option<Penalty>,
    /// Whether the value of the penalty is recorded, so that its node's gate can add its gradient.
    penalty_has_value: bool,
    /// The node whose pre-activation resurrection raises, and its settings.
    resurrection: Option<(usize, Resurrection)>,
    /// Whether layers leave out their biases.
    without_biases: bool,
}

impl<'a> Builder<'a> {
    /// A builder with nothing recorded.
    pub fn new(graph: &'a Graph, store: &'a Store, n: usize, mode: Mode) -> Self {
        let count = graph.nodes.len();
        Self {
            graph,
            store,
            n,
            parts: 1,
            mode,
            tape: Tape::default(),
            input_gradient: false,
            grad_scale: 1.0,
            values: vec![None; count],
            saved: vec![Vec::new(); count],
            grads: vec![None; count],
            needs: vec![false; count],
            written: vec![false; graph.params.len()],
            gated: vec![false; count],
            pooled: vec![false; count],
            level: None,
            known: None,
            input_mean: None,
            penalty: None,
            penalty_has_value: false,
            resurrection: None,
            without_biases: false,
        }
    }

    /// Turns on resurrection of dead units. The gradient goes to the pre-activation of the last
    /// convolution or fully connected layer at or before the code.
    ///
    /// # Errors
    /// When there is no such layer, or it has another number of channels than the code.
    pub fn resurrect_dead_units(&mut self, resurrection: Resurrection) -> Result<()> {
        let Graph { nodes, code, .. } = self.graph;
        let has_weights = |op: &LayerOp| matches!(op.kind(), LayerKind::Product { .. });
        let mut node = *code;
        while !nodes[node].op.as_ref().is_some_and(has_weights) {
            node = *nodes[node].inputs.first().ok_or_else(|| {
                Error::usage(
                    "sparsity.revive_strength: no convolution or fully connected layer leads to \
                     the code; set it to 0",
                )
            })?;
        }
        if nodes[node].dims.c != nodes[*code].dims.c {
            return Err(Error::usage(format!(
                "sparsity.revive_strength: layer {} has {} channels but the code has {}, so that \
                 units do not correspond; set it to 0",
                nodes[node].name, nodes[node].dims.c, nodes[*code].dims.c
            )));
        }
        self.resurrection = Some((node, resurrection));
        Ok(())
    }

    /// A kept buffer for the input of the batch.
    pub fn input(&mut self) -> View {
        let x = self.tape.map("input", self.n * self.graph.nodes[0].dims.len());
        self.tape.keep(x);
        x
    }

    /// A kept buffer for the corruption level of each sample, for a graph that is conditioned on it
    /// ([`Graph::is_conditioned_on_level`]): σ on the 0–1 scale, or
    /// [`crate::model::CorruptionSpec::level_of_scale`]. The caller writes it before each run.
    pub fn level(&mut self) -> View {
        if let Some(level) = self.level {
            return level;
        }
        let level = self.tape.real("levels", self.n);
        self.tape.keep(level);
        self.level = Some(level);
        level
    }

    /// A kept buffer for the mask of known pixels, for a graph that is conditioned on it
    /// ([`Graph::is_conditioned_on_mask`]): 1 where a pixel is known and 0 where it is missing, for
    /// every channel of the input. The caller writes it before each run.
    pub fn known(&mut self) -> View {
        if let Some(known) = self.known {
            return known;
        }
        let known = self.tape.map("known pixels", self.n * self.graph.nodes[0].dims.len());
        self.tape.keep(known);
        self.known = Some(known);
        known
    }

    /// A kept buffer for the mean of each channel (N,C) of the images that samples are tiles of.
    /// Layers that subtract the mean of the input ([`Graph::input_means`]) then read it instead of
    /// the mean of the tile. The caller writes it before each run.
    pub fn give_input_mean(&mut self) -> View {
        let mean = self.tape.map("means of images", self.n * self.graph.nodes[0].dims.c);
        self.tape.keep(mean);
        self.input_mean = Some(mean);
        mean
    }

    /// Records the forward pass that computes the `wanted` nodes. Afterwards they and all nodes
    /// that they depend on have a value, except convolutions with a fused max pooling.
    pub fn forward(&mut self, x: View, wanted: &[usize]) {
        self.values[0] = Some(x);
        let mut live = vec![false; self.graph.nodes.len()];
        wanted.iter().for_each(|node| live[*node] = true);
        for node in (1..live.len()).rev() {
            if live[node] {
                let node = &self.graph.nodes[node];
                node.inputs.iter().chain(&node.switches).for_each(|input| live[*input] = true);
            }
        }
        for pool in 1..live.len() {
            if let Some((below, _)) =
                layers::fusable_pool(self.graph, self.node(pool)).filter(|_| live[pool])
            {
                self.pooled[pool] = self.readers(below) == 1
                    && below != self.graph.code
                    && !wanted.contains(&below);
                live[below] &= !self.pooled[pool];
            }
        }
        if let Some(mean) = self.input_mean {
            self.graph.input_means().for_each(|node| {
                self.values[node] = Some(mean);
                live[node] = false;
            });
        }
        for node in (1..live.len()).filter(|node| live[*node]) {
            let value = layers::forward(self, node);
            self.values[node] = Some(value);
        }
    }

    /// Records only the decoder: from the code to the output. Returns `None` if the decoder reads a
    /// node before the code (a skip connection). It can read means of the input that the caller
    /// gives ([`Builder::give_input_mean`]).
    pub fn decode(&mut self, code: View) -> Option<View> {
        self.values[self.graph.code] = Some(code);
        self.forward_after(self.graph.code)?;
        self.values[self.graph.output]
    }

    /// Records the nodes between `start` and the output, and those that only depend on given means.
    fn forward_after(&mut self, start: usize) -> Option<()> {
        let given = self.given();
        // The values of the code and of given means are there.
        let has_value = |b: &Self, node: usize| {
            node == start || b.input_mean.is_some() && b.graph.input_means().any(|at| at == node)
        };
        let mut live = vec![false; self.graph.nodes.len()];
        live[self.graph.output] = true;
        for node in (1..live.len()).rev() {
            if live[node] && !has_value(self, node) {
                let node = &self.graph.nodes[node];
                for input in node.inputs.iter().chain(&node.switches) {
                    if *input < start && !given[*input] {
                        return None;
                    }
                    live[*input] = true;
                }
            }
        }
        for node in (1..live.len()).filter(|node| live[*node]) {
            if !has_value(self, node) {
                let value = layers::forward(self, node);
                self.values[node] = Some(value);
            }
        }
        Some(())
    }

    /// Whether each node depends on nothing but means of the input that the caller gives. Sets the
    /// values of the nodes that are such means.
    fn given(&mut self) -> Vec<bool> {
        let mut given = vec![false; self.graph.nodes.len()];
        let Some(mean) = self.input_mean else { return given };
        for node in self.graph.input_means() {
            self.values[node] = Some(mean);
            given[node] = true;
        }
        for (at, node) in self.graph.nodes.iter().enumerate() {
            let depends = node.switches.is_some() || node.inputs.is_empty();
            given[at] |= !depends && node.inputs.iter().all(|input| given[*input]);
        }
        given
    }

    /// Records, before the optimiser, the projection of gradients of unit-norm atoms: it removes
    /// their component along the atom.
    pub fn project(&mut self) {
        for node in &self.graph.nodes {
            let Some(weight) =
                node.weight.filter(|weight| self.graph.params[*weight].role == ParamRole::Learned)
            else {
                continue;
            };
            let w = self.store.weight(weight);
            if let Some(MaxNorm { outer, atoms, inner, exact: true, .. }) =
                layers::constraint(self.graph, node, w)
            {
                self.tape.push(ProjectGrad { outer, atoms, inner, w, dw: self.store.grad(weight) });
            }
        }
    }

    /// Output of a node.
    pub fn value(&self, node: usize) -> View {
        self.values[node].expect("the forward pass computes a value before it is read")
    }

    /// Records, after the optimiser, the norm constraints on weights. Each layer with a shared
    /// weight applies its own constraint.
    pub fn constrain(&mut self) {
        for node in &self.graph.nodes {
            let learned =
                node.weight.filter(|weight| self.graph.params[*weight].role == ParamRole::Learned);
            let weight = learned.map(|weight| self.store.weight(weight));
            if let Some(call) = weight.and_then(|w| layers::constraint(self.graph, node, w)) {
                self.tape.push(call);
            }
        }
    }

    // Used by `record/layers`.

    /// Index of a node's bias parameter; `None` while biases are left out.
    pub(super) fn bias(&self, node: usize) -> Option<usize> {
        self.graph.nodes[node].bias.filter(|_| !self.without_biases)
    }

    pub(super) fn node(&self, node: usize) -> &'a Node {
        &self.graph.nodes[node]
    }

    /// Number of inputs of other nodes that read a node.
    fn readers(&self, node: usize) -> usize {
        self.graph
            .nodes
            .iter()
            .flat_map(|other| &other.inputs)
            .filter(|input| **input == node)
            .count()
    }

    /// The convolution that a max pooling is fused into, if it is.
    pub(super) fn pooled_by(&self, pool: usize) -> Option<(usize, &'a Conv2dSpec)> {
        layers::fusable_pool(self.graph, self.node(pool)).filter(|_| self.pooled[pool])
    }

    /// Index of input `i` of a node.
    pub(super) fn input_node(&self, node: usize, i: usize) -> usize {
        self.graph.nodes[node].inputs[i]
    }

    pub(super) fn input_dims(&self, node: usize, i: usize) -> Dims {
        self.graph.nodes[self.input_node(node, i)].dims
    }

    pub(super) fn input_value(&self, node: usize, i: usize) -> View {
        self.value(self.input_node(node, i))
    }

    /// A new buffer for the output of a node.
    pub(super) fn output(&mut self, node: usize) -> View {
        let node = self.node(node);
        self.tape.map(node.name.clone(), self.n * node.dims.len())
    }

    /// Keeps a view for the backward pass of a node.
    pub(super) fn save(&mut self, node: usize, view: View) {
        self.saved[node].push(view);
    }

    /// The `i`-th view that a node has kept.
    pub(super) fn saved(&self, node: usize, i: usize) -> View {
        self.saved[node][i]
    }
}
