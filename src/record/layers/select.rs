//! Selection and threshold layers: the sparsity rules that are not penalties.

use super::{Builder, Passes, View};
use crate::model::{
    BatchTopKSpec, DropoutSpec, KnownSpec, LifetimeWtaSpec, SoftThresholdSpec, SpatialWtaSpec,
    TopKSpec,
};
use crate::ops::{
    BatchTopKMask, ChannelSum, Dropout, Gate, LifetimeWtaMask, MaskApply, SoftThresholdBwd,
    SoftThresholdFwd, SpatialWtaMask, ThresholdMask, TopKMask,
};
use crate::program::Call;
use crate::record::builder::Mode;

/// A buffer for a mask of `len` elements, which is kept for the backward pass.
fn mask_of(b: &mut Builder, node: usize, len: usize) -> View {
    let mask = b.tape.map(format!("mask of {}", b.node(node).name), len);
    b.save(node, mask);
    mask
}

/// Records a selection: a mask of 0 and 1 and its application y = mask·x.
fn select(
    b: &mut Builder,
    node: usize,
    mask: impl FnOnce(&mut Builder, View, View) -> Call,
) -> View {
    let (x, y) = (b.input_value(node, 0), b.output(node));
    let selected = mask_of(b, node, y.len);
    let call = mask(b, x, selected);
    b.tape.push(call);
    b.tape.push(MaskApply::plain(1.0, x, selected, y));
    y
}

/// The backward pass of a selection or of dropout, which applies the same mask.
fn select_backward(b: &mut Builder, node: usize, scale: f64, dy: View) {
    if b.needs_input(node, 0) {
        let dx = b.input_grad(node, 0);
        let (mask, Gate { activation, penalty, output: gate }) =
            (b.saved(node, 0), b.gate(node, 0));
        b.tape.push(MaskApply { scale, activation, penalty, x: dy, mask, gate, y: dx });
        b.add_gradient(b.input_node(node, 0), dx);
    }
}

/// The forward pass of a layer that is the identity in this mode: its output is its input, without
/// a copy.
fn identity(b: &mut Builder, node: usize) -> View {
    b.input_value(node, 0)
}

/// The backward pass of [`identity`]. It copies: a node's first contribution becomes its gradient
/// buffer, and later ones are added in place.
fn identity_backward(b: &mut Builder, node: usize, dy: View) {
    if b.needs_input(node, 0) {
        let dx = b.input_grad(node, 0);
        b.tape.push(crate::ops::Combine { alpha: 1.0, beta: 0.0, a: dy, b: None, y: dx });
        b.add_gradient(b.input_node(node, 0), dx);
    }
}

impl Passes for KnownSpec {
    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let (x, y, mask) = (b.input_value(node, 0), b.output(node), b.known());
        b.tape.push(MaskApply::plain(1.0, x, mask, y));
        y
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        if b.needs_input(node, 0) {
            let (dx, mask) = (b.input_grad(node, 0), b.known());
            b.tape.push(MaskApply::plain(1.0, dy, mask, dx));
            b.add_gradient(b.input_node(node, 0), dx);
        }
    }
}

impl Passes for DropoutSpec {
    fn gates_input(&self) -> bool {
        self.p > 0.0
    }

    fn forward(&self, b: &mut Builder, node: usize) -> View {
        if b.mode == Mode::Infer || self.p == 0.0 {
            return identity(b, node);
        }
        let (x, y) = (b.input_value(node, 0), b.output(node));
        let mask = mask_of(b, node, y.len);
        let (n, dims, p) = (b.n, b.node(node).dims, self.p);
        b.tape.push(Dropout { p, n, dims, layer: node as u32, x, mask, y });
        y
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        if b.mode == Mode::Infer || self.p == 0.0 {
            identity_backward(b, node, dy)
        } else {
            select_backward(b, node, Dropout::scale(self.p), dy)
        }
    }
}

impl Passes for TopKSpec {
    fn gates_input(&self) -> bool {
        true
    }

    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let (n, dims) = (b.n, b.node(node).dims);
        let k = self.kept().of(dims);
        select(b, node, |_, x, mask| TopKMask { n, dims, k, x, mask }.into())
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        select_backward(b, node, 1.0, dy);
    }
}

impl Passes for BatchTopKSpec {
    fn gates_input(&self) -> bool {
        true
    }

    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let (n, dims, rate) = (b.n, b.node(node).dims, self.rate);
        let k = self.kept().of(dims);
        let threshold = b.store.state(b.node(node).state.expect("inference added it"));
        select(b, node, |b, x, mask| match b.mode {
            Mode::Train => {
                let work = b.tape.words("scratch of a selection", BatchTopKMask::WORK);
                BatchTopKMask { n, dims, k, rate, x, threshold, mask, work }.into()
            }
            Mode::Infer => ThresholdMask { x, threshold, mask }.into(),
        })
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        select_backward(b, node, 1.0, dy);
    }
}

impl Passes for SpatialWtaSpec {
    fn gates_input(&self) -> bool {
        true
    }

    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let (n, dims) = (b.n, b.node(node).dims);
        select(b, node, |_, x, mask| SpatialWtaMask { n, dims, x, mask }.into())
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        select_backward(b, node, 1.0, dy);
    }
}

impl LifetimeWtaSpec {
    /// Maps that each channel keeps in a batch of `n`: max(1, ⌈rate·n − 10⁻⁹⌉). The 10⁻⁹ keeps
    /// rounding from adding one when rate·n is an integer.
    fn winners(&self, n: usize) -> usize {
        ((self.rate * n as f64 - 1e-9).ceil() as usize).clamp(1, n)
    }
}

impl Passes for LifetimeWtaSpec {
    fn gates_input(&self) -> bool {
        true
    }

    fn forward(&self, b: &mut Builder, node: usize) -> View {
        if b.mode == Mode::Infer {
            return identity(b, node);
        }
        let (n, dims, winners) = (b.n, b.node(node).dims, self.winners(b.n * b.parts));
        let sums = b.tape.real("sums of maps", n * dims.c);
        select(b, node, |_, x, mask| LifetimeWtaMask { n, dims, winners, x, mask, sums }.into())
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        if b.mode == Mode::Infer {
            identity_backward(b, node, dy)
        } else {
            select_backward(b, node, 1.0, dy)
        }
    }
}

impl Passes for SoftThresholdSpec {
    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let (n, dims) = (b.n, b.node(node).dims);
        let (threshold, slope, level) = thresholds(b, node);
        let (x, y) = (b.input_value(node, 0), b.output(node));
        b.tape.push(SoftThresholdFwd { n, dims, x, threshold, slope, level, y });
        y
    }

    fn backward(&self, b: &mut Builder, node: usize, dy: View) {
        let (n, dims) = (b.n, b.node(node).dims);
        let (threshold, slope, level) = thresholds(b, node);
        let (x, dx) = (b.input_value(node, 0), b.input_grad(node, 0));
        let dt = b.tape.map("threshold gradients", dy.len);
        b.tape.push(SoftThresholdBwd { n, dims, x, threshold, slope, level, dy, dx, dt });
        let (rows, channels) = (n * dims.area(), dims.c);
        let params = [(b.node(node).weight, None), (b.node(node).slope, level)];
        for (param, weight) in
            params.into_iter().filter_map(|(param, weight)| Some((param?, weight)))
        {
            b.param_grad(param, |b, y| {
                let partials = b.tape.partials(ChannelSum::partials_len(rows, channels));
                b.tape.push(ChannelSum { rows, channels, x: dt, weight, y, partials });
            });
        }
        if b.needs_input(node, 0) {
            b.add_gradient(b.input_node(node, 0), dx);
        }
    }
}

/// The thresholds of a node and, if they depend on the corruption level, their slopes and the
/// level.
fn thresholds(b: &mut Builder, node: usize) -> (View, Option<View>, Option<View>) {
    let threshold = b.store.weight(b.node(node).weight.expect("inference added it"));
    let slope = b.node(node).slope.map(|slope| b.store.weight(slope));
    let level = slope.map(|_| b.level());
    (threshold, slope, level)
}
