//! The auxiliary loss of a TopK or BatchTopK code: dead units reconstruct the residual of the model
//! (Gao et al., "Scaling and evaluating sparse autoencoders", 2024).
//!
//! The residual e = t − y is held constant. ê is the output of the decoder, without biases, for the
//! k largest pre-activations of dead units. The loss is α·‖e − ê‖²/n. Without dead units ê is 0 and
//! the loss has no gradient.

use crate::error::{Error, Result};
use crate::model::LayerOp;
use crate::ops::{Activation, Combine, IdleOnly, Loss, LossKind, MaskApply, TopKMask};
use crate::record::builder::{Builder, layers};
use crate::view::View;

/// Value that excludes a living unit from TopK: below any real pre-activation, and still finite in
/// half precision, whose range ends at 65504.
const EXCLUDED: f64 = -6e4;

/// Settings of the auxiliary loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Auxiliary {
    /// Weight α of the loss.
    pub alpha: f64,
    /// Active elements of each sample, all positions together; 0: the number that the code keeps.
    pub k: usize,
    /// Steps without firing after which a unit is dead.
    pub patience: usize,
    /// Ring buffer of scalars, with rows of `width`.
    pub scalars: View,
    /// Number of scalars of a step.
    pub width: usize,
    /// Index in a row of the scalar ‖e − ê‖²/n, without α.
    pub index: usize,
}

impl Builder<'_> {
    /// Records the loss and its gradients, between the forward and the backward pass. `target` is
    /// the reconstruction target.
    ///
    /// # Errors
    /// When the code is not from TopK or BatchTopK, the decoder reads nodes before the code, the
    /// output has an activation, or a decoder layer has one that is not 0 at 0.
    pub fn auxiliary(&mut self, auxiliary: Auxiliary, target: View) -> Result<()> {
        let Auxiliary { alpha, k, patience, scalars, width, index } = auxiliary;
        let (code, output, n) = (self.graph.code, self.graph.output, self.n);
        let refuse =
            |what: &str| Err(Error::usage(format!("sparsity.aux_alpha: {what}; set it to 0")));
        let selection = self.node(code).op.as_ref().and_then(LayerOp::selection);
        let Some(own) = selection.and_then(|selection| selection.kept) else {
            return refuse("the code must be from top_k or batch_top_k");
        };
        if layers::epilogue_of(self.node(output)).is_some() || output == code {
            return refuse(
                "the output has an activation, so that it cannot represent a signed residual",
            );
        }
        let is_positive_at_zero = |node: &usize| {
            matches!(
                layers::epilogue_of(self.node(*node)),
                Some(Activation::Sigmoid | Activation::Softplus)
            )
        };
        if let Some(node) = (code + 1..=output).find(is_positive_at_zero) {
            return refuse(&format!(
                "the activation of decoder layer {} is not 0 at 0, so that an empty code has an \
                 output",
                self.node(node).name
            ));
        }
        let dims = self.node(code).dims;
        let k = (if k == 0 { own.of(dims) } else { k }).min(dims.len());
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
        self.tape.push(IdleOnly { n, dims, patience, fill: EXCLUDED, x, idle, y: candidates });
        self.tape.push(TopKMask { n, dims, k, x: candidates, mask: largest });
        // With fewer than k dead elements, TopK selects living ones too: mask those out.
        self.tape.push(IdleOnly { n, dims, patience, fill: 0.0, x: largest, idle, y: mask });
        self.tape.push(MaskApply::plain(1.0, x, mask, z));

        // Records the decoder a second time. The state of the first pass is restored afterwards.
        let (values, saved, gated) = (self.values.clone(), self.saved.clone(), self.gated.clone());
        let grads = std::mem::replace(&mut self.grads, vec![None; values.len()]);
        self.saved.iter_mut().skip(code + 1).for_each(Vec::clear);
        self.gated.iter_mut().skip(code).for_each(|gated| *gated = false);
        self.without_biases = true;
        let Some(reconstruction) = self.decode(z) else {
            return refuse("the decoder reads layers before the code");
        };
        let y = values[output].expect("the forward pass computed it");
        let residual = self.tape.map("residual", y.len);
        self.tape.push(Combine { alpha: 1.0, beta: -1.0, a: target, b: Some(y), y: residual });
        let dy = self.tape.map("gradient of the dead units' reconstruction", y.len);
        let partials = self.tape.partials(crate::ops::SCALAR_PARTIALS);
        let (kind, grad_scale, activation) =
            (LossKind::SumSquares, self.grad_scale * alpha, self.seed_gate(output));
        self.tape.push(Loss {
            kind,
            n,
            grad_scale,
            width,
            index,
            activation,
            y: reconstruction,
            target: residual,
            scalars,
            dy,
            partials,
        });
        self.add_gradient(output, dy);
        self.find_needs();
        self.walk_back(code + 1);
        let dz = self.grads[code].take();
        self.without_biases = false;
        (self.values, self.saved, self.gated, self.grads) = (values, saved, gated, grads);
        if let Some(dz) = dz.filter(|_| self.needs[before]) {
            let dx = self.tape.map("gradient of dead units", dz.len);
            self.tape.push(MaskApply::plain(1.0, dz, mask, dx));
            self.add_gradient(before, dx);
        }
        Ok(())
    }
}
