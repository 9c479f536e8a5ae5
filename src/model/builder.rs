//! Forward and backward order: walks a graph and records its calls on a tape.

use super::graph::{Graph, Node};
use super::layers;
use super::store::Store;
use super::tape::Tape;
use crate::error::{Error, Result};
use crate::ops::{Activation, ActivationBwd, ActivationBwdOutput, AddAssign, ChannelSum, Revive, View};
use crate::shape::Dims;
use crate::spec::LayerOp;

/// What the pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dropout and batch-wide selections are on.
    Train,
    /// Neither dropout nor anything that depends on a neighbour in the batch.
    Infer,
}

/// Revival of dead units of the code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Revival {
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
    values: Vec<Option<View>>,
    saved: Vec<Vec<View>>,
    grads: Vec<Option<View>>,
    needs: Vec<bool>,
    written: Vec<bool>,
    revival: Option<(usize, Revival)>,
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
            values: vec![None; count],
            saved: vec![Vec::new(); count],
            grads: vec![None; count],
            needs: vec![false; count],
            written: vec![false; graph.params.len()],
            revival: None,
        }
    }

    /// Turns revival on: the push goes to the pre-activation of the last convolution or fully connected layer at or before the code.
    pub fn revive(&mut self, revival: Revival) -> Result<()> {
        let Graph { nodes, code, .. } = self.graph;
        let pushes = |op: &LayerOp| matches!(op, LayerOp::Conv2d(_) | LayerOp::ConvTranspose2d(_) | LayerOp::Linear(_));
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
        let x = self.tape.real("input", self.n * self.graph.nodes[0].dims.len());
        self.tape.keep(x);
        x
    }

    /// Records the forward pass up to the nodes wanted (all of them if empty).
    pub fn forward(&mut self, x: View, wanted: &[usize]) {
        self.values[0] = Some(x);
        let mut live = vec![wanted.is_empty(); self.graph.nodes.len()];
        wanted.iter().for_each(|node| live[*node] = true);
        for node in (1..live.len()).rev() {
            if live[node] {
                let node = &self.graph.nodes[node];
                node.inputs.iter().chain(&node.switches).for_each(|input| live[*input] = true);
            }
        }
        for (node, _) in live.iter().enumerate().skip(1).filter(|(_, live)| **live) {
            let value = layers::forward(self, node);
            self.values[node] = Some(value);
        }
    }

    /// Records the decoder alone: from the code to the output. None if something between reads what lies before the code.
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

    /// A node's value.
    pub fn value(&self, node: usize) -> View {
        self.values[node].expect("the forward pass computes a value before it is read")
    }

    /// Adds a gradient to a node's, before [`Builder::backward`].
    pub fn seed(&mut self, node: usize, dy: View) {
        self.give(node, dy);
    }

    /// Records the backward pass from the seeds. `at` is called when a node's gradient is complete, before its own backward.
    pub fn backward(&mut self, mut at: impl FnMut(&mut Self, usize, View)) {
        self.needs[0] = self.input_gradient;
        for (i, node) in self.graph.nodes.iter().enumerate().skip(1) {
            self.needs[i] = node.weight.is_some() || node.bias.is_some() || node.inputs.iter().any(|input| self.needs[*input]);
        }
        for node in (1..self.graph.nodes.len()).rev() {
            if let Some(dy) = self.grads[node]
                && self.needs[node]
            {
                at(self, node, dy);
                layers::backward(self, node, dy);
            }
        }
    }

    /// Records the constraints on weights, after the optimiser; a shared weight may be bound by each of its layers.
    pub fn constrain(&mut self) {
        for node in &self.graph.nodes {
            let weight = node.weight.map(|weight| self.store.weight(weight));
            if let Some(call) = weight.and_then(|w| layers::constraint(self.graph, node, w)) {
                self.tape.push(call);
            }
        }
    }

    /// The gradient by the input, after [`Builder::backward`].
    pub fn gradient(&self, node: usize) -> Option<View> {
        self.grads[node]
    }

    // What layers use.

    pub(super) fn node(&self, node: usize) -> &'a Node {
        &self.graph.nodes[node]
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
        self.tape.real(node.name.clone(), self.n * node.dims.len())
    }

    pub(super) fn save(&mut self, node: usize, view: View) {
        self.saved[node].push(view);
    }

    pub(super) fn saved(&self, node: usize, i: usize) -> View {
        self.saved[node][i]
    }

    pub(super) fn needs_input(&self, node: usize, i: usize) -> bool {
        self.needs[self.input_node(node, i)]
    }

    /// A buffer for the gradient by input `i`.
    pub(super) fn input_grad(&mut self, node: usize, i: usize) -> View {
        let input = self.node(self.input_node(node, i));
        self.tape.real(format!("gradient of {}", input.name), self.n * input.dims.len())
    }

    /// Contributes to a node's gradient. The first contribution becomes it, so a view is given once only.
    pub(super) fn give(&mut self, node: usize, dy: View) {
        match self.grads[node] {
            None => self.grads[node] = Some(dy),
            Some(sum) => self.tape.push(AddAssign { x: dy, y: sum }),
        }
    }

    /// Contributes to a parameter's gradient what `compute` writes into the view that it is given.
    pub(super) fn param_grad(&mut self, param: usize, compute: impl FnOnce(&mut Self, View)) {
        let grad = self.store.grad(param);
        if std::mem::replace(&mut self.written[param], true) {
            let more = self.tape.real(format!("gradient of {}", self.graph.params[param].name), grad.len);
            compute(self, more);
            self.tape.push(AddAssign { x: more, y: grad });
        } else {
            compute(self, grad);
        }
    }

    /// The gradient before a layer's activation, from the one behind it; pushes dead units up where that is wanted.
    pub(super) fn before_activation(&mut self, node: usize, activation: Activation, dy: View) -> View {
        let dims = self.node(node).dims;
        let reviving = self.revival.filter(|(at, _)| *at == node);
        let dx = if activation == Activation::Identity && reviving.is_none() {
            dy
        } else {
            let dx = self.tape.real(format!("gradient before {}", self.node(node).name), dy.len);
            if activation.from_output() {
                self.tape.push(ActivationBwdOutput { activation, y: self.value(node), dy, dx });
            } else {
                self.tape.push(ActivationBwd { activation, x: self.saved(node, 0), dy, dx });
            }
            dx
        };
        if let Some((_, revival)) = reviving {
            let Revival { patience, strength } = revival;
            self.tape.push(Revive { n: self.n, dims, patience, strength, idle: self.store.idle, dx });
        }
        dx
    }

    /// The bias gradient: sums of `dy` over all rows of `channels`.
    pub(super) fn bias_grad(&mut self, bias: usize, dy: View, channels: usize) {
        let rows = dy.len / channels;
        self.param_grad(bias, |b, y| {
            let partials = b.tape.real("partial sums", ChannelSum::partials_len(rows, channels));
            b.tape.push(ChannelSum { rows, channels, x: dy, y, partials });
        });
    }
}
