//! Forward order: walks a graph and records its calls on a tape; [`backward`] walks back.

mod auxiliary;
mod backward;

pub use auxiliary::Auxiliary;
pub use backward::{Penalty, PenaltyKind};

use super::layers;
use crate::error::{Error, Result};
use crate::model::ParamRole;
use crate::model::Store;
use crate::model::{Graph, Node};
use crate::ops::{MaxNorm, ProjectGrad};
use crate::record::tape::Tape;
use crate::shape::Dims;
use crate::spec::{Conv2dSpec, LayerOp};
use crate::view::View;

/// What the pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dropout and batch-wide selections are on.
    Train,
    /// Neither dropout nor anything that depends on a neighbour in the batch.
    Infer,
}

/// Resurrection of dead units of the code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resurrection {
    /// Steps without firing.
    pub patience: usize,
    /// Gradient on the pre-activation.
    pub strength: f64,
}

/// Records a graph's passes.
#[derive(Debug)]
pub struct Builder<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// Its values.
    pub store: &'a Store,
    /// Batch.
    pub n: usize,
    /// Training or inference.
    pub mode: Mode,
    /// The calls.
    pub tape: Tape,
    /// Whether the gradient by the input is wanted.
    pub input_gradient: bool,
    /// What all gradients are a multiple by: penalties and pushes on units are multiplied by it.
    pub grad_scale: f64,
    values: Vec<Option<View>>,
    saved: Vec<Vec<View>>,
    grads: Vec<Option<View>>,
    needs: Vec<bool>,
    written: Vec<bool>,
    /// Nodes whose gradient is written as that before their activation.
    gated: Vec<bool>,
    /// Max poolings that are the epilogue of the convolution before them, which has no value then.
    pooled: Vec<bool>,
    /// Levels of corruption, one a sample, once somebody has asked for them.
    level: Option<View>,
    /// Which pixels are known, once somebody has asked.
    known: Option<View>,
    penalty: Option<Penalty>,
    revival: Option<(usize, Resurrection)>,
    /// Whether biases are left out.
    unbiased: bool,
}

impl<'a> Builder<'a> {
    /// Nothing recorded yet.
    pub fn new(graph: &'a Graph, store: &'a Store, n: usize, mode: Mode) -> Self {
        let count = graph.nodes.len();
        Self {
            graph,
            store,
            n,
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
            penalty: None,
            revival: None,
            unbiased: false,
        }
    }

    /// Turns revival on: the push goes to the pre-activation of the last convolution or fully
    /// connected layer at or before the code.
    pub fn resurrect_dead_units(&mut self, revival: Resurrection) -> Result<()> {
        let Graph { nodes, code, .. } = self.graph;
        let pushes = |op: &LayerOp| {
            matches!(op, LayerOp::Conv2d(_) | LayerOp::ConvTranspose2d(_) | LayerOp::Linear(_))
        };
        let mut node = *code;
        while !nodes[node].op.as_ref().is_some_and(pushes) {
            node = *nodes[node].inputs.first().ok_or_else(|| {
                Error::usage("sparsity.revive_strength: no convolution or fully connected layer leads to the code; set it to 0")
            })?;
        }
        if nodes[node].dims.c != nodes[*code].dims.c {
            return Err(Error::usage(format!(
                "sparsity.revive_strength: layer {} has {} channels, the code {}: units do not correspond; set it to 0",
                nodes[node].name, nodes[node].dims.c, nodes[*code].dims.c
            )));
        }
        self.revival = Some((node, revival));
        Ok(())
    }

    /// A buffer for the batch's input, kept.
    pub fn input(&mut self) -> View {
        let x = self.tape.map("input", self.n * self.graph.nodes[0].dims.len());
        self.tape.keep(x);
        x
    }

    /// How strong the corruption of each sample is, for a graph that [`Graph::is_conditioned_on_level`] (σ on
    /// the 0–1 scale, or what [`crate::spec::CorruptionSpec::level_of_scale`] gives): kept, and
    /// written by whoever records the pass.
    pub fn level(&mut self) -> View {
        if let Some(level) = self.level {
            return level;
        }
        let level = self.tape.real("levels", self.n);
        self.tape.keep(level);
        self.level = Some(level);
        level
    }

    /// 1 where a pixel of the input is known and 0 where it is missing, in every channel, for a
    /// graph that [`Graph::is_conditioned_on_mask`]: kept, and written by whoever records the pass.
    pub fn known(&mut self) -> View {
        if let Some(known) = self.known {
            return known;
        }
        let known = self.tape.map("known pixels", self.n * self.graph.nodes[0].dims.len());
        self.tape.keep(known);
        self.known = Some(known);
        known
    }

    /// Records the forward pass up to the nodes wanted. They have a value afterwards, and so has
    /// what is between, but for what is pooled as it is computed.
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
                layers::poolable(self.graph, self.node(pool)).filter(|_| live[pool])
            {
                self.pooled[pool] = self.readers(below) == 1
                    && below != self.graph.code
                    && !wanted.contains(&below);
                live[below] &= !self.pooled[pool];
            }
        }
        for node in (1..live.len()).filter(|node| live[*node]) {
            let value = layers::forward(self, node);
            self.values[node] = Some(value);
        }
    }

    /// Records the decoder alone: from the code to the output. None if something between reads what
    /// lies before the code.
    pub fn decode(&mut self, code: View) -> Option<View> {
        self.values[self.graph.code] = Some(code);
        self.forward_after(self.graph.code)?;
        self.values[self.graph.output]
    }

    fn forward_after(&mut self, start: usize) -> Option<()> {
        let mut live = vec![false; self.graph.nodes.len()];
        live[self.graph.output] = true;
        for node in (start + 1..live.len()).rev() {
            if live[node] {
                let node = &self.graph.nodes[node];
                for input in node.inputs.iter().chain(&node.switches) {
                    if *input < start {
                        return None;
                    }
                    live[*input] = true;
                }
            }
        }
        for node in (start + 1..live.len()).filter(|node| live[*node]) {
            let value = layers::forward(self, node);
            self.values[node] = Some(value);
        }
        Some(())
    }

    /// Records what leaves the gradients of atoms of unit norm without their part along the atom,
    /// before the optimiser.
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

    /// A node's value.
    pub fn value(&self, node: usize) -> View {
        self.values[node].expect("the forward pass computes a value before it is read")
    }

    /// Records the constraints on weights, after the optimiser; a shared weight may be bound by
    /// each of its layers.
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

    // What layers use.

    /// The bias of a node, unless biases are left out.
    pub(super) fn bias(&self, node: usize) -> Option<usize> {
        self.graph.nodes[node].bias.filter(|_| !self.unbiased)
    }

    pub(super) fn node(&self, node: usize) -> &'a Node {
        &self.graph.nodes[node]
    }

    /// How many layers read a node.
    fn readers(&self, node: usize) -> usize {
        self.graph
            .nodes
            .iter()
            .flat_map(|other| &other.inputs)
            .filter(|input| **input == node)
            .count()
    }

    /// The convolution that a max pooling is the epilogue of, if it is one.
    pub(super) fn pooled_by(&self, pool: usize) -> Option<(usize, &'a Conv2dSpec)> {
        layers::poolable(self.graph, self.node(pool)).filter(|_| self.pooled[pool])
    }

    pub(super) fn input_node(&self, node: usize, i: usize) -> usize {
        self.graph.nodes[node].inputs[i]
    }

    pub(super) fn input_dims(&self, node: usize, i: usize) -> Dims {
        self.graph.nodes[self.input_node(node, i)].dims
    }

    pub(super) fn input_value(&self, node: usize, i: usize) -> View {
        self.value(self.input_node(node, i))
    }

    pub(super) fn output(&mut self, node: usize) -> View {
        let node = self.node(node);
        self.tape.map(node.name.clone(), self.n * node.dims.len())
    }

    pub(super) fn save(&mut self, node: usize, view: View) {
        self.saved[node].push(view);
    }

    pub(super) fn saved(&self, node: usize, i: usize) -> View {
        self.saved[node][i]
    }
}
