//! The auxiliary loss of a code by TopK or BatchTopK: what the model fails to draw is to be drawn
//! by units that are dead (Gao et al., "Scaling and evaluating sparse autoencoders", 2024). With e
//! = t − y held constant and ê what the decoder draws, without its biases, from the k largest
//! pre-activations of dead units, it is α·‖e − ê‖²/n. Where no unit is dead ê is 0, and nothing has
//! a gradient.

use crate::error::{Error, Result};
use crate::model::LayerOp;
use crate::ops::{Activation, Combine, IdleOnly, Loss, LossKind, MaskApply, TopKMask};
use crate::record::builder::{Builder, layers};
use crate::view::View;

/// Below every pre-activation that means anything, in half precision too.
const NEVER: f64 = -6e4;

/// How dead units are given something to draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Auxiliary {
    /// α.
    pub alpha: f64,
    /// Elements of each sample that draw; 0: as many as the code has.
    pub k: usize,
    /// Steps without firing after which a unit is dead.
    pub patience: usize,
    /// The ring of scalars, rows of `width`.
    pub scalars: View,
    /// Scalars of a step.
    pub width: usize,
    /// The place of ‖e − ê‖²/n, without α, among them.
    pub index: usize,
}

impl Builder<'_> {
    /// Records the loss and its gradients, between the forward and the backward pass; `target` is
    /// what the output is to be like.
    ///
    /// # Errors
    /// When the code is none by TopK, or the decoder is no function of it alone that ends without
    /// an activation.
    pub fn auxiliary(&mut self, auxiliary: Auxiliary, target: View) -> Result<()> {
        let Auxiliary { alpha, k, patience, scalars, width, index } = auxiliary;
        let (code, output, n) = (self.graph.code, self.graph.output, self.n);
        let refuse =
            |what: &str| Err(Error::usage(format!("sparsity.aux_alpha: {what}; set it to 0")));
        let selection = self.node(code).op.as_ref().and_then(LayerOp::selection);
        let Some(own) = selection.and_then(|selection| selection.k) else {
            return refuse("it is for codes by top_k and batch_top_k");
        };
        if layers::epilogue_of(self.node(output)).is_some() || output == code {
            return refuse(
                "the output has an activation, which cannot draw what is missing of an image",
            );
        }
        let lifts = |node: &usize| {
            matches!(
                layers::epilogue_of(self.node(*node)),
                Some(Activation::Sigmoid | Activation::Softplus)
            )
        };
        if let Some(node) = (code + 1..=output).find(lifts) {
            return refuse(&format!(
                "layer {} of the decoder draws something of nothing, by its activation",
                self.node(node).name
            ));
        }
        let dims = self.node(code).dims;
        let k = (if k == 0 { own } else { k }).min(dims.len());
        let idle = self.store.idle;
        let before = self.input_node(code, 0);
        let x = self.value(before);
        let mut map = |what: &str| self.tape.map(what.to_owned(), n * dims.len());
        let (candidates, largest, mask, z) = (
            map("pre-activations of dead units"),
            map("largest of them"),
            map("mask of dead units"),
            map("code of dead units"),
        );
        self.tape.push(IdleOnly { n, dims, patience, fill: NEVER, x, idle, y: candidates });
        self.tape.push(TopKMask { n, dims, k, x: candidates, mask: largest });
        self.tape.push(IdleOnly { n, dims, patience, fill: 0.0, x: largest, idle, y: mask });
        self.tape.push(MaskApply { scale: 1.0, x, mask, y: z });

        // The decoder a second time; what the first pass left is put back afterwards.
        let (values, saved, gated) = (self.values.clone(), self.saved.clone(), self.gated.clone());
        let grads = std::mem::replace(&mut self.grads, vec![None; values.len()]);
        self.saved.iter_mut().skip(code + 1).for_each(Vec::clear);
        self.gated.iter_mut().skip(code).for_each(|gated| *gated = false);
        self.unbiased = true;
        let Some(drawn) = self.decode(z) else {
            return refuse("the decoder reads more than the code");
        };
        let y = values[output].expect("the forward pass drew it");
        let error = self.tape.map("what is missing", y.len);
        self.tape.push(Combine { alpha: 1.0, beta: -1.0, a: target, b: Some(y), y: error });
        let dy = self.tape.map("gradient of what dead units draw", y.len);
        let partials = self.tape.real("partial losses", crate::ops::SCALAR_PARTIALS);
        let (kind, grad_scale, activation) =
            (LossKind::SumSquares, self.grad_scale * alpha, self.seed_gate(output));
        self.tape.push(Loss {
            kind,
            n,
            grad_scale,
            width,
            index,
            activation,
            y: drawn,
            target: error,
            scalars,
            dy,
            partials,
        });
        self.give(output, dy);
        self.find_needs();
        self.walk_back(code + 1);
        let dz = self.grads[code].take();
        self.unbiased = false;
        (self.values, self.saved, self.gated, self.grads) = (values, saved, gated, grads);
        if let Some(dz) = dz.filter(|_| self.needs[before]) {
            let dx = self.tape.map("gradient of dead units", dz.len);
            self.tape.push(MaskApply { scale: 1.0, x: dz, mask, y: dx });
            self.give(before, dx);
        }
        Ok(())
    }
}
