//! Convolution and transposed convolution: each is the adjoint of the other, so that both use the
//! same three operations.

use super::{Builder, Graph, Node, Passes, View, input_dims, norm};
use crate::model::{Conv2dSpec, ConvTranspose2dSpec};
use crate::ops::{
    Activation, ActivationFwd, Conv2dBwdInput, Conv2dBwdWeight, Conv2dFwd, Conv2dMaxPoolFwd, Gate,
    MaxNorm,
};
use crate::shape::{Conv2d, Dims};

/// Records an activation that cannot be fused, since its slope needs the pre-activation. It keeps
/// `before`, the pre-activation, for the backward pass.
pub(super) fn separate_activation(
    b: &mut Builder,
    node: usize,
    activation: Activation,
    before: View,
) -> View {
    let y = b.output(node);
    b.save(node, before);
    b.tape.push(ActivationFwd { activation, x: before, y });
    y
}

/// The activation to fuse: only one whose slope follows from its output, else identity.
pub(super) const fn epilogue(activation: Activation) -> Activation {
    if activation.from_output() { activation } else { Activation::Identity }
}

impl Passes for Conv2dSpec {
    fn gates_input(&self) -> bool {
        true
    }

    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let size = self.size(b.n, b.input_dims(node, 0)).expect("inference checked the size");
        let (w, bias) = weights(b, node);
        let (x, y) = (b.input_value(node, 0), b.output(node));
        let partials = forward_partials(b, &size);
        b.tape.push(Conv2dFwd {
            size,
            activation: epilogue(self.activation),
            penalty: 0.0,
            x,
            w,
            b: bias,
            gate: None,
            y,
            partials,
        });
        if self.activation.from_output() {
            y
        } else {
            separate_activation(b, node, self.activation, y)
        }
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        let size = self.size(b.n, b.input_dims(node, 0)).expect("inference checked the size");
        let dy = b.before_activation(node, self.activation, dy);
        let x = b.input_value(node, 0);
        weight_and_bias_grad(b, node, size, false, [x, dy]);
        if b.needs_input(node, 0) {
            let dx = b.input_grad(node, 0);
            let (w, _) = weights(b, node);
            let Gate { activation, penalty, output: gate } = b.gate(node, 0);
            let partials = input_partials(b, &size);
            b.tape.push(Conv2dBwdInput {
                size,
                activation,
                penalty,
                y: dy,
                w,
                b: None,
                gate,
                x: dx,
                partials,
            });
            b.add_gradient(b.input_node(node, 0), dx);
        }
    }
}

/// Records a convolution with the max pooling that follows it. Returns the pooled map and its
/// switches.
pub(super) fn max_pooled(
    b: &mut Builder,
    spec: &Conv2dSpec,
    node: usize,
    pool: usize,
) -> (View, View) {
    let size = spec.size(b.n, b.input_dims(node, 0)).expect("inference checked the size");
    let (w, bias) = weights(b, node);
    let (x, y) = (b.input_value(node, 0), b.output(pool));
    let switches = b.tape.words(format!("switches of {}", b.node(pool).name), y.len);
    b.tape.push(Conv2dMaxPoolFwd {
        size,
        activation: epilogue(spec.activation),
        x,
        w,
        b: bias,
        y,
        switches,
    });
    (y, switches)
}

/// Whether the fused kernel supports a 2×2 max pooling after this convolution.
pub(super) fn takes_max_pool(spec: &Conv2dSpec, x: Dims) -> bool {
    spec.size(1, x).is_ok_and(|size| Conv2dMaxPoolFwd::pool_of(&size).is_some())
}

impl Passes for ConvTranspose2dSpec {
    fn constraint(&self, graph: &Graph, node: &Node, w: View) -> Option<MaxNorm> {
        // The weight is (R, S, C/groups, K) in memory: an atom is a column.
        let atoms = input_dims(graph, node).c;
        norm(self.max_norm, self.unit_norm).map(|(max_norm, exact)| MaxNorm {
            outer: w.len / atoms,
            atoms,
            inner: 1,
            max_norm,
            exact,
            w,
        })
    }

    fn gates_input(&self) -> bool {
        true
    }

    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let size = self.size(b.n, b.input_dims(node, 0)).expect("inference checked the size");
        let (w, bias) = weights(b, node);
        let (x, y) = (b.input_value(node, 0), b.output(node));
        let partials = input_partials(b, &size);
        b.tape.push(Conv2dBwdInput {
            size,
            activation: epilogue(self.activation),
            penalty: 0.0,
            y: x,
            w,
            b: bias,
            gate: None,
            x: y,
            partials,
        });
        if self.activation.from_output() {
            y
        } else {
            separate_activation(b, node, self.activation, y)
        }
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        let size = self.size(b.n, b.input_dims(node, 0)).expect("inference checked the size");
        let dy = b.before_activation(node, self.activation, dy);
        let x = b.input_value(node, 0);
        // The roles of the transposed convolution: the gradient of this layer's output is the x of
        // the convolution, and this layer's input is its dy.
        weight_and_bias_grad(b, node, size, true, [dy, x]);
        if b.needs_input(node, 0) {
            let dx = b.input_grad(node, 0);
            let (w, _) = weights(b, node);
            let Gate { activation, penalty, output: gate } = b.gate(node, 0);
            let partials = forward_partials(b, &size);
            b.tape.push(Conv2dFwd {
                size,
                activation,
                penalty,
                x: dy,
                w,
                b: None,
                gate,
                y: dx,
                partials,
            });
            b.add_gradient(b.input_node(node, 0), dx);
        }
    }
}

/// Values of a node's weight and bias.
pub(super) fn weights(b: &Builder, node: usize) -> (View, Option<View>) {
    let bias = b.bias(node).map(|bias| b.store.weight(bias));
    (b.store.weight(b.node(node).weight.expect("a layer with a product has a weight")), bias)
}

/// A buffer for the partial sums of a convolution.
pub(super) fn forward_partials(b: &mut Builder, size: &Conv2d) -> View {
    b.tape.real("partial sums of products", Conv2dFwd::partials_len(size))
}

/// A buffer for the partial sums of a gradient by the input.
pub(super) fn input_partials(b: &mut Builder, size: &Conv2d) -> View {
    b.tape.real("partial sums of products", Conv2dBwdInput::partials_len(size))
}

/// Records the gradients of the weight and of the bias of a convolution whose output has the
/// gradient `dy`, or of a transposed one whose output has the gradient `x`.
pub(super) fn weight_and_bias_grad(
    b: &mut Builder,
    node: usize,
    size: Conv2d,
    transposed: bool,
    [x, dy]: [View; 2],
) {
    let weight = b.node(node).weight.expect("a layer with a product has a weight");
    let weight_grad = |b: &mut Builder, db: Option<View>| {
        b.param_grad(weight, |b, dw| {
            let len = Conv2dBwdWeight::partials_len(&size, transposed, db.is_some());
            let partials = b.tape.partials(len);
            b.tape.push(Conv2dBwdWeight { size, transposed, x, dy, dw, db, partials });
        });
    };
    match b.bias(node) {
        Some(bias) if b.learns(weight) && b.learns(bias) => {
            b.param_grad(bias, |b, db| weight_grad(b, Some(db)));
        }
        bias => {
            if let Some(bias) = bias {
                let (map, channels) = if transposed { (x, size.x.c) } else { (dy, size.y.c) };
                b.bias_grad(bias, map, channels);
            }
            weight_grad(b, None);
        }
    }
}
