//! The backward pass, and where gradients are multiplied by the slopes of activations.
//!
//! A layer with a fused activation needs the gradient before that activation: the gradient of its
//! output times the slope. If one operation writes the whole gradient of the output, it multiplies
//! by the slope while it writes (a gate: [`Builder::gate`], [`Builder::seed_gate`]). A gate can
//! also add the gradient of an L1 penalty. A penalty that no gate adds has its own pass, which
//! multiplies by the slope, too. In all other cases the layer records a pass for it
//! ([`Builder::before_activation`]): when several gradients are summed, when the writing operation
//! has no gate, and when the caller asks for the gradient of the output.

use crate::model::ParamRole;
use crate::ops::{
    Activation, ActivationBwd, ActivationBwdOutput, AddAssign, ChannelSum, Gate, KlPenalty, L1Norm,
    L1Penalty, Revive, SCALAR_PARTIALS,
};
use crate::record::builder::{Builder, Resurrection, layers};
use crate::view::View;

/// A penalty on a node's values, added to the node's complete gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalty {
    /// The node.
    pub node: usize,
    /// Kind and weight of the penalty.
    pub kind: PenaltyKind,
    /// Ring buffer of scalars, with rows of `width`.
    pub scalars: View,
    /// Number of scalars of a step.
    pub width: usize,
    /// Index of the penalty's value in a row.
    pub index: usize,
}

/// Kind and weight of a penalty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PenaltyKind {
    /// L1: λ·Σ|z|/n.
    L1 {
        /// Weight λ.
        lambda: f64,
    },
    /// Kullback–Leibler divergence of mean activities from ρ, times β.
    Kl {
        /// Weight β.
        beta: f64,
        /// Target mean activity ρ.
        rho: f64,
    },
}

impl Builder<'_> {
    /// Sets the penalty on a node.
    ///
    /// # Panics
    /// When a gradient is already recorded: the penalty decides about gates.
    pub fn penalise(&mut self, penalty: Penalty) {
        assert!(self.grads.iter().all(Option::is_none), "penalise must come before gradients");
        self.penalty = Some(penalty);
        let Penalty { node, kind, scalars, width, index } = penalty;
        if let PenaltyKind::L1 { lambda } = kind
            && self.gate_can_penalise(node)
        {
            let partials = self.tape.partials(SCALAR_PARTIALS);
            let (n, z) = (self.n, self.value(node));
            self.tape.push(L1Norm { lambda, n, width, index, z, scalars, partials });
            self.penalty_has_value = true;
        }
    }

    /// Whether an L1 penalty on a node needs no pass of its own: the gradient of its output comes
    /// from one operation with a gate. Resurrection needs the pass of the penalty.
    fn gate_can_penalise(&self, node: usize) -> bool {
        let reads = |i: &usize| self.node(*i).inputs.contains(&node);
        let reader = (1..self.graph.nodes.len()).find(reads);
        reader.is_some_and(|reader| layers::gates_input(self.node(reader)))
            && self.readers(node) == 1
            && layers::epilogue_of(self.node(node)).is_some()
            && self.resurrection.is_none_or(|(at, _)| at != node)
    }

    /// Adds a gradient to a node, before [`Builder::backward`].
    pub fn seed(&mut self, node: usize, dy: View) {
        self.add_gradient(node, dy);
    }

    /// The activation by whose slope the caller must multiply the seed of a node, for a seed that
    /// is the node's whole gradient. Identity: the seed is the plain gradient of the node's output.
    pub fn seed_gate(&mut self, node: usize) -> Activation {
        self.gated_by(node, 0, false).map_or(Activation::Identity, |(activation, _)| activation)
    }

    /// Records the backward pass from the seeds.
    pub fn backward(&mut self) {
        self.find_needs();
        self.walk_back(1);
    }

    /// Marks the nodes whose gradient is needed: those with learned parameters, and those that
    /// read such a node.
    pub(super) fn find_needs(&mut self) {
        self.needs[0] = self.input_gradient;
        for (i, node) in self.graph.nodes.iter().enumerate().skip(1) {
            self.needs[i] =
                self.graph.learns(i) || node.inputs.iter().any(|input| self.needs[*input]);
        }
    }

    /// Records the backward pass of the nodes from the last one to `first`.
    pub(super) fn walk_back(&mut self, first: usize) {
        for node in (first..self.graph.nodes.len()).rev() {
            if let Some(dy) = self.grads[node]
                && self.needs[node]
            {
                if let Some(penalty) = self.penalty.filter(|penalty| penalty.node == node) {
                    self.add_penalty(penalty, dy);
                }
                layers::backward(self, node, dy);
            }
        }
    }

    /// The gradient of a node after [`Builder::backward`], for the input or a node without a fused
    /// activation. `None` if nothing contributed to it.
    pub fn gradient(&self, node: usize) -> Option<View> {
        self.grads[node]
    }

    /// Records the penalty on its node's gradient. The L1 kernel also applies the slope of the
    /// activation and resurrection, which saves two passes.
    fn add_penalty(&mut self, penalty: Penalty, dz: View) {
        let Penalty { node, kind, scalars, width, index } = penalty;
        let (n, z, dims) = (self.n, self.value(node), self.node(node).dims);
        match kind {
            // The gate has added the gradient, and the value is recorded.
            PenaltyKind::L1 { .. } if self.gated[node] && self.penalty_has_value => {}
            PenaltyKind::L1 { lambda } => {
                let partials = self.tape.partials(SCALAR_PARTIALS);
                let activation = layers::epilogue_of(self.node(node)).filter(|_| !self.gated[node]);
                self.gated[node] |= activation.is_some();
                let activation = activation.unwrap_or_default();
                // Resurrection applies to the gradient before the activation.
                let resurrection = self
                    .resurrection
                    .take_if(|(at, _)| *at == node && self.gated[node])
                    .map(|(_, resurrection)| resurrection);
                let Resurrection { patience, strength } =
                    resurrection.unwrap_or(Resurrection { patience: 0, strength: 0.0 });
                let idle = resurrection.map(|_| self.store.idle);
                let channels = dims.c;
                self.tape.push(L1Penalty {
                    lambda,
                    n,
                    grad_scale: self.grad_scale,
                    width,
                    index,
                    activation,
                    channels,
                    patience,
                    strength,
                    z,
                    idle,
                    dz,
                    scalars,
                    partials,
                });
            }
            PenaltyKind::Kl { beta, rho } => {
                let units = dims.len();
                let partials = self.tape.real("mean activities", 2 * units);
                self.tape.push(KlPenalty {
                    beta,
                    rho,
                    n,
                    grad_scale: self.grad_scale,
                    units,
                    width,
                    index,
                    z,
                    dz,
                    scalars,
                    partials,
                });
            }
        }
    }

    /// The activation of a node, if the operation that writes its gradient must multiply by the
    /// slope, and the weight of the L1 penalty that it must add. That is so if the node has a fused
    /// activation and exactly `readers` readers, has no gradient yet, and has no penalty, unless
    /// the operation `adds_l1`.
    fn gated_by(
        &mut self,
        node: usize,
        readers: usize,
        adds_l1: bool,
    ) -> Option<(Activation, f64)> {
        let activation = layers::epilogue_of(self.node(node))?;
        let weight = match self.penalty.filter(|penalty| penalty.node == node).map(|of| of.kind) {
            None => 0.0,
            Some(PenaltyKind::L1 { lambda }) if adds_l1 && self.penalty_has_value => {
                lambda / self.n as f64 * self.grad_scale
            }
            // These need the gradient of the output.
            Some(PenaltyKind::L1 { .. } | PenaltyKind::Kl { .. }) => return None,
        };
        if self.readers(node) != readers || self.grads[node].is_some() {
            return None;
        }
        self.gated[node] = true;
        Some((activation, weight))
    }

    // Used by `record/layers`.

    /// Whether the gradient of input `i` is needed.
    pub(in crate::record) fn needs_input(&self, node: usize, i: usize) -> bool {
        self.needs[self.input_node(node, i)]
    }

    /// A new buffer for the gradient of input `i`.
    pub(in crate::record) fn input_grad(&mut self, node: usize, i: usize) -> View {
        let input = self.node(self.input_node(node, i));
        self.tape.map(format!("gradient of {}", input.name), self.n * input.dims.len())
    }

    /// The gate for an operation that writes the gradient of input `i`.
    pub(in crate::record) fn gate(&mut self, node: usize, i: usize) -> Gate {
        let input = self.input_node(node, i);
        self.gated_by(input, 1, true).map_or(Gate::NONE, |(activation, penalty)| Gate {
            activation,
            penalty,
            output: Some(self.value(input)),
        })
    }

    /// The gate for a max pooling. Its output equals the activation's output at the switches, so
    /// that it replaces it: it is smaller, and it exists even if the pooling is fused.
    pub(in crate::record) fn pool_gate(&mut self, pool: usize) -> (Activation, Option<View>) {
        self.gated_by(self.input_node(pool, 0), 1, false)
            .map_or((Activation::Identity, None), |(activation, _)| {
                (activation, Some(self.value(pool)))
            })
    }

    /// Adds a contribution to a node's gradient. The first contribution becomes the gradient
    /// buffer, so that each view must be passed only once.
    ///
    /// # Panics
    /// When a second contribution comes to a gated gradient.
    pub(in crate::record) fn add_gradient(&mut self, node: usize, dy: View) {
        match self.grads[node] {
            None => self.grads[node] = Some(dy),
            Some(sum) => {
                assert!(
                    !self.gated[node],
                    "{}: a gated gradient has one contribution",
                    self.node(node).name
                );
                self.tape.push(AddAssign { x: dy, y: sum });
            }
        }
    }

    /// Whether a parameter is learned.
    pub(in crate::record) fn learns(&self, param: usize) -> bool {
        self.graph.params[param].role == ParamRole::Learned
    }

    /// Adds a contribution to a parameter's gradient: `compute` records the calls that write it
    /// into the given view. Parameters that are not learned get none.
    pub(in crate::record) fn param_grad(
        &mut self,
        param: usize,
        compute: impl FnOnce(&mut Self, View),
    ) {
        if !self.learns(param) {
            return;
        }
        let grad = self.store.grad(param);
        if std::mem::replace(&mut self.written[param], true) {
            let contribution =
                self.tape.real(format!("gradient of {}", self.graph.params[param].name), grad.len);
            compute(self, contribution);
            self.tape.push(AddAssign { x: contribution, y: grad });
        } else {
            compute(self, grad);
        }
    }

    /// The gradient before a layer's activation, from the gradient of its output, with the
    /// resurrection of dead units.
    pub(in crate::record) fn before_activation(
        &mut self,
        node: usize,
        activation: Activation,
        dy: View,
    ) -> View {
        let dims = self.node(node).dims;
        let resurrection = self.resurrection.filter(|(at, _)| *at == node);
        let has_slope = activation != Activation::Identity;
        let dx = if self.gated[node] || !has_slope && resurrection.is_none() {
            dy
        } else {
            let dx = self.tape.map(format!("gradient before {}", self.node(node).name), dy.len);
            if activation.from_output() {
                self.tape.push(ActivationBwdOutput { activation, y: self.value(node), dy, dx });
            } else {
                self.tape.push(ActivationBwd { activation, x: self.saved(node, 0), dy, dx });
            }
            dx
        };
        if let Some((_, Resurrection { patience, strength })) = resurrection {
            let strength = strength * self.grad_scale;
            self.tape.push(Revive {
                n: self.n,
                dims,
                patience,
                strength,
                idle: self.store.idle,
                dx,
            });
        }
        dx
    }

    /// Records the bias gradient: the sum of `dy` over its rows of `channels` values.
    pub(in crate::record) fn bias_grad(&mut self, bias: usize, dy: View, channels: usize) {
        let rows = dy.len / channels;
        self.param_grad(bias, |b, y| {
            let partials = b.tape.partials(ChannelSum::partials_len(rows, channels));
            b.tape.push(ChannelSum { rows, channels, x: dy, weight: None, y, partials });
        });
    }
}

#[cfg(test)]
#[path = "backward_tests.rs"]
mod tests;
