//! Whitening.

use super::conv2d::forward_partials;
use super::{Builder, Node, Passes, View};
use crate::error::Result;
use crate::model::WhitenSpec;
use crate::ops::{Activation, Conv2dFwd};
use crate::shape::{Conv2d, Dims, Taps};

/// Problem sizes of the two convolutions of whitening: scaling each channel, then filtering.
fn sizes(spec: &WhitenSpec, n: usize, dims: Dims) -> Result<[Conv2d; 2]> {
    let [r, s] = spec.kernel.0;
    let taps = |kernel: [usize; 2]| Taps {
        kernel,
        stride: [1, 1],
        padding: kernel.map(|side| side / 2),
        dilation: [1, 1],
    };
    Ok([
        Conv2d::forward(n, dims, dims.c, taps([1, 1]), dims.c)?,
        Conv2d::forward(n, dims, dims.c, taps([r, s]), 1)?,
    ])
}

impl Passes for WhitenSpec {
    fn forward(&self, b: &mut Builder, node: usize) -> View {
        let [scaling, filtering] =
            sizes(self, b.n, b.node(node).dims).expect("inference checked the size");
        let (x, y) = (b.input_value(node, 0), b.output(node));
        let Node { weight, bias, scale, .. } = *b.node(node);
        let [w, shift, scale] =
            [weight, bias, scale].map(|param| b.store.weight(param.expect("inference added it")));
        // The mean is subtracted before filtering, so that the zero padding equals the mean.
        let scaled = b.tape.map(format!("scaled input of {}", b.node(node).name), x.len);
        let activation = Activation::Identity;
        let partials = forward_partials(b, &scaling);
        b.tape.push(Conv2dFwd {
            size: scaling,
            activation,
            penalty: 0.0,
            x,
            w: scale,
            b: Some(shift),
            gate: None,
            y: scaled,
            partials,
        });
        let partials = forward_partials(b, &filtering);
        b.tape.push(Conv2dFwd {
            size: filtering,
            activation,
            penalty: 0.0,
            x: scaled,
            w,
            b: None,
            gate: None,
            y,
            partials,
        });
        y
    }

    fn backward(&self, _: &mut Builder, _: usize, _: View) {
        unreachable!("inference refuses learned layers before it")
    }
}
