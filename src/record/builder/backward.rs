//! Backward order, and who multiplies by the slope of an activation.
//!
//! A layer whose activation is an epilogue needs the gradient before that activation. Where one
//! operation writes all of the gradient behind it, that operation multiplies by the slope as it
//! writes (a gate: [`Builder::gate`], [`Builder::seed_gate`]), and the penalty on a code does so in
//! its own pass; else the layer takes a pass for it ([`Builder::before_activation`]): where several
//! gradients are summed, where the writer has no gate, and where the gradient behind the activation
//! is asked for.

use crate::model::ParamRole;
use crate::ops::{
    Activation, ActivationBwd, ActivationBwdOutput, AddAssign, ChannelSum, KlPenalty, L1Penalty,
    Revive, SCALAR_PARTIALS,
};
use crate::record::builder::{Builder, Resurrection, layers};
use crate::view::View;

/// A penalty on a node's values, added to the node's complete gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalty {
    /// The node.
    pub node: usize,
    /// Which penalty.
    pub kind: PenaltyKind,
    /// The ring of scalars, rows of `width`.
    pub scalars: View,
    /// Scalars of a step.
    pub width: usize,
    /// The penalty's place among them.
    pub index: usize,
}

/// Which penalty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PenaltyKind {
    /// λ·Σ|z|/n.
    L1 {
        /// λ
        lambda: f64,
    },
    /// The divergence of mean activities from ρ.
    Kl {
        /// β
        beta: f64,
        /// ρ
        rho: f64,
    },
}

impl Builder<'_> {
    /// Puts a penalty on a node, before any gradient is given.
    pub fn penalise(&mut self, penalty: Penalty) {
        assert!(self.grads.iter().all(Option::is_none), "a penalty comes before gradients");
        self.penalty = Some(penalty);
    }

    /// Adds a gradient to a node's, before [`Builder::backward`].
    pub fn seed(&mut self, node: usize, dy: View) {
        self.give(node, dy);
    }

    /// Asks for the activation whose slope the seed of a node is to be multiplied by, for a seed
    /// that is all of the node's gradient. Identity: the seed is the gradient by the node's value.
    pub fn seed_gate(&mut self, node: usize) -> Activation {
        self.gated_by(node, 0).unwrap_or_default()
    }

    /// Records the backward pass from the seeds.
    pub fn backward(&mut self) {
        self.find_needs();
        self.walk_back(1);
    }

    /// Finds out which nodes something learned depends on.
    pub(super) fn find_needs(&mut self) {
        self.needs[0] = self.input_gradient;
        for (i, node) in self.graph.nodes.iter().enumerate().skip(1) {
            self.needs[i] =
                self.graph.learns(i) || node.inputs.iter().any(|input| self.needs[*input]);
        }
    }

    /// Walks from the last node to the first that is wanted.
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

    /// A node's gradient, after [`Builder::backward`]: of the input, or of a node without an
    /// activation.
    pub fn gradient(&self, node: usize) -> Option<View> {
        self.grads[node]
    }

    /// Adds a penalty to its node's gradient. L1 takes the activation's slope and the revival with
    /// it.
    fn add_penalty(&mut self, penalty: Penalty, dz: View) {
        let Penalty { node, kind, scalars, width, index } = penalty;
        let (n, z, dims) = (self.n, self.value(node), self.node(node).dims);
        match kind {
            PenaltyKind::L1 { lambda } => {
                let partials = self.tape.real("partial penalties", SCALAR_PARTIALS);
                let activation = layers::epilogue_of(self.node(node)).filter(|_| !self.gated[node]);
                self.gated[node] |= activation.is_some();
                let activation = activation.unwrap_or_default();
                // A push goes to the gradient before the activation.
                let revival = self
                    .revival
                    .take_if(|(at, _)| *at == node && self.gated[node])
                    .map(|(_, revival)| revival);
                let Resurrection { patience, strength } =
                    revival.unwrap_or(Resurrection { patience: 0, strength: 0.0 });
                let idle = revival.map(|_| self.store.idle);
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

    /// The activation of a node, if whoever writes its gradient is to multiply by that activation's
    /// slope: it has an epilogue, `readers` layers read it, and neither is a gradient there already
    /// nor does a penalty want the one by its value.
    fn gated_by(&mut self, node: usize, readers: usize) -> Option<Activation> {
        let activation = layers::epilogue_of(self.node(node))?;
        let penalised = self.penalty.is_some_and(|penalty| penalty.node == node);
        if self.readers(node) != readers || self.grads[node].is_some() || penalised {
            return None;
        }
        self.gated[node] = true;
        Some(activation)
    }

    // What layers use.

    pub(in crate::record) fn needs_input(&self, node: usize, i: usize) -> bool {
        self.needs[self.input_node(node, i)]
    }

    /// A buffer for the gradient by input `i`.
    pub(in crate::record) fn input_grad(&mut self, node: usize, i: usize) -> View {
        let input = self.node(self.input_node(node, i));
        self.tape.map(format!("gradient of {}", input.name), self.n * input.dims.len())
    }

    /// Asks for the activation of input `i` and its output there, for an operation that writes the
    /// gradient by that input and multiplies by that activation's slope as it does. Identity and
    /// none: the gradient is by the input's value.
    pub(in crate::record) fn gate(&mut self, node: usize, i: usize) -> (Activation, Option<View>) {
        let input = self.input_node(node, i);
        self.gated_by(input, 1).map_or((Activation::Identity, None), |activation| {
            (activation, Some(self.value(input)))
        })
    }

    /// As [`Builder::gate`], for a max pooling: what it pools is the activation's output where its
    /// switches point, so its own output serves, which is smaller, and there if the pooled map is
    /// not.
    pub(in crate::record) fn pool_gate(&mut self, pool: usize) -> (Activation, Option<View>) {
        self.gated_by(self.input_node(pool, 0), 1)
            .map_or((Activation::Identity, None), |activation| (activation, Some(self.value(pool))))
    }

    /// Contributes to a node's gradient. The first contribution becomes it, so a view is given once
    /// only.
    pub(in crate::record) fn give(&mut self, node: usize, dy: View) {
        match self.grads[node] {
            None => self.grads[node] = Some(dy),
            Some(sum) => {
                assert!(
                    !self.gated[node],
                    "{}: a gate is for all of a gradient",
                    self.node(node).name
                );
                self.tape.push(AddAssign { x: dy, y: sum });
            }
        }
    }

    /// Contributes to a parameter's gradient what `compute` writes into the view that it is given.
    pub(in crate::record) fn param_grad(
        &mut self,
        param: usize,
        compute: impl FnOnce(&mut Self, View),
    ) {
        if self.graph.params[param].role != ParamRole::Learned {
            return;
        }
        let grad = self.store.grad(param);
        if std::mem::replace(&mut self.written[param], true) {
            let more =
                self.tape.real(format!("gradient of {}", self.graph.params[param].name), grad.len);
            compute(self, more);
            self.tape.push(AddAssign { x: more, y: grad });
        } else {
            compute(self, grad);
        }
    }

    /// The gradient before a layer's activation, from the one behind it; pushes dead units up where
    /// that is wanted.
    pub(in crate::record) fn before_activation(
        &mut self,
        node: usize,
        activation: Activation,
        dy: View,
    ) -> View {
        let dims = self.node(node).dims;
        let reviving = self.revival.filter(|(at, _)| *at == node);
        let dx = if self.gated[node] || activation == Activation::Identity && reviving.is_none() {
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
        if let Some((_, revival)) = reviving {
            let Resurrection { patience, strength } = revival;
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

    /// The bias gradient: sums of `dy` over all rows of `channels`.
    pub(in crate::record) fn bias_grad(&mut self, bias: usize, dy: View, channels: usize) {
        let rows = dy.len / channels;
        self.param_grad(bias, |b, y| {
            let partials = b.tape.real("partial sums", ChannelSum::partials_len(rows, channels));
            b.tape.push(ChannelSum { rows, channels, x: dy, weight: None, y, partials });
        });
    }
}
