//! Losses and penalties. Each writes a gradient, or adds to it, and writes one scalar of the step,
//! `scalars[slot·width + index]`. `partials` has [`super::reduce::SCALAR_PARTIALS`] elements.

mod cpu;

use super::alone::{Alone, CODE};
use super::gate::gated;
use super::reduce::{WORKGROUP, partial_groups, partials};
use super::sums::SumScalar;
use super::{Activation, Work, each, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};

shaders! {
    Loss "loss",
    CrossEntropy "cross_entropy",
    L1Penalty "l1_penalty",
    L1Norm "l1_norm",
    KlPenaltyMeans "kl_penalty_means",
    KlPenalty "kl_penalty",
}

/// An element-wise reconstruction loss between y and its target t.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LossKind {
    /// Σ(y − t)²/n: a sum over the image and a mean over the batch.
    SumSquares,
    /// Mean of (y − t)² over all elements.
    Mse,
    /// Mean of |y − t|; gradient 0 at 0.
    L1,
    /// Mean binary cross-entropy −t·ln y − (1 − t)·ln(1 − y) of probabilities. As in PyTorch,
    /// logarithms are clamped at −100, and the gradient is (y − t)/max(y(1 − y), 10⁻¹²).
    Bce,
    /// Mean of √((y − t)² + ε²).
    Charbonnier {
        /// ε
        eps: f64,
    },
}

impl LossKind {
    /// Code of the loss in `loss.wgsl`.
    pub const fn code(self) -> u32 {
        match self {
            Self::SumSquares => 0,
            Self::Mse => 1,
            Self::L1 => 2,
            Self::Bce => 3,
            Self::Charbonnier { .. } => 4,
        }
    }

    /// ε, or 0 if the loss has none.
    pub const fn parameter(self) -> f64 {
        if let Self::Charbonnier { eps } = self { eps } else { 0.0 }
    }

    /// Floating-point operations for the value and the gradient of one element.
    const fn flops(self) -> usize {
        match self {
            Self::SumSquares | Self::Mse | Self::L1 => 4,
            Self::Bce => 10,
            Self::Charbonnier { .. } => 7,
        }
    }

    /// The divisor of the sum over elements: the batch size `n`, or the number of elements.
    pub const fn divisor(self, n: usize, elements: usize) -> usize {
        match self {
            Self::SumSquares => n,
            Self::Mse | Self::L1 | Self::Bce | Self::Charbonnier { .. } => elements,
        }
    }
}

operation! {
    /// The loss, and `grad_scale` times its gradient by y, or by x if y = f(x).
    Loss {
        kind: LossKind,
        n: usize,
        /// Factor of the gradient (loss scaling): 1 for maps in single precision.
        grad_scale: f64,
        width: usize,
        index: usize,
        /// f, which requires [`Activation::from_output`]: dy is multiplied by its slope. With the
        /// identity dy is the gradient by y.
        activation: Activation,
    }
    reads { y, target } updates { scalars } writes { dy } scratch { partials }
}

impl Work for Loss {
    fn flops(&self) -> f64 {
        each(self.y.len, self.kind.flops() + self.activation.slope_flops())
    }

    fn sizes(&self) -> String {
        format!("{} n{}{}", self.y.len / self.n, self.n, gated(self.activation, 0.0, Some(self.y)))
    }
}

operation! {
    /// Mean over the batch of −ln softmax(y)[label], for logits y (n, classes) and n class indices
    /// `labels` (u32).
    CrossEntropy { n: usize, classes: usize, width: usize, index: usize }
    reads { y, labels } updates { scalars } writes { dy } scratch {
        /// The loss of each sample: n elements.
        partials
    }
}

impl Work for CrossEntropy {
    fn flops(&self) -> f64 {
        each(self.y.len, 5)
    }

    fn sizes(&self) -> String {
        format!("{} n{}", self.classes, self.n)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (width, index, classes) = (1, 0, 10);
            let ([y, dy], labels) = (m.two(n * classes), m.words(n, |i| i as u32 % 10));
            let (scalars, partials) = (m.real(1), m.real(n));
            Self { n, classes, width, index, y, labels, scalars, dy, partials }
        });
        vec![one]
    }
}

operation! {
    /// λ·Σ|z|/n, times the step's `sparsity_scale`. Adds `grad_scale` times its gradient
    /// λ·sign(z)/n (0 at 0) to dz. If z = f(x), dz becomes the gradient by x: the sum is multiplied
    /// by the slope of f. With `idle`, dead units are pushed as by [`super::Revive`].
    L1Penalty {
        lambda: f64,
        n: usize,
        /// Factor of all gradients.
        grad_scale: f64,
        width: usize,
        index: usize,
        /// f, which requires [`Activation::from_output`]. With the identity dz stays the gradient
        /// by z, apart from the push.
        activation: Activation,
        /// Number of units: the channels of z.
        channels: usize,
        /// Number of steps without firing after which a unit is dead.
        patience: usize,
        /// Sum of the pushes on a unit over the batch.
        strength: f64,
    }
    reads { z }
    maybe {
        /// Number of steps since each unit last fired. Without it no unit is pushed.
        idle
    }
    updates { dz, scalars } scratch { partials }
}

impl Work for L1Penalty {
    fn flops(&self) -> f64 {
        let idle = if self.idle.is_some() { 1 } else { 0 };
        each(self.z.len, 3 + self.activation.slope_flops() + idle)
    }

    fn sizes(&self) -> String {
        format!("{} n{}{}", self.z.len / self.n, self.n, gated(self.activation, 0.0, Some(self.z)))
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let ([z, dz], [scalars, partials]) = (m.two(n * CODE.len()), m.sums());
            Self {
                lambda: 1.0,
                n,
                grad_scale: 1.0,
                width: 1,
                index: 0,
                activation: Activation::Relu,
                channels: CODE.c,
                patience: 0,
                strength: 0.0,
                z,
                idle: None,
                dz,
                scalars,
                partials,
            }
        });
        vec![one]
    }
}

operation! {
    /// λ·Σ|z|/n, times the step's `sparsity_scale`: the value of [`L1Penalty`], for a gradient that
    /// another operation adds ([`super::Gate::penalty`]).
    L1Norm { lambda: f64, n: usize, width: usize, index: usize }
    reads { z } updates { scalars } scratch { partials }
}

impl Work for L1Norm {
    fn flops(&self) -> f64 {
        each(self.z.len, 2)
    }

    fn sizes(&self) -> String {
        format!("{} n{}", self.z.len / self.n, self.n)
    }
}

operation! {
    /// β·Σ_units [ρ ln(ρ/ρ̂) + (1 − ρ) ln((1 − ρ)/(1 − ρ̂))], ρ̂ the mean over the batch clamped to
    /// [10⁻⁶, 1 − 10⁻⁶], times the step's `sparsity_scale`. Adds `grad_scale` times its gradient to
    /// dz (0 where the clamp is active). A unit is one of the `units` elements of a sample.
    KlPenalty {
        beta: f64, rho: f64, n: usize, grad_scale: f64, units: usize, width: usize, index: usize,
    }
    reads { z } updates { dz, scalars } scratch {
        /// 2·units elements: the slope of each unit's term at its mean, then the terms.
        partials
    }
}

impl Work for KlPenalty {
    fn flops(&self) -> f64 {
        each(self.z.len, 2) + each(self.units, 8)
    }

    fn sizes(&self) -> String {
        format!("{} n{}", self.units, self.n)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let ([z, dz], units) = (m.two(n * CODE.len()), CODE.len());
            let (scalars, partials) = (m.real(1), m.real(2 * units));
            let (beta, rho, grad_scale, width, index) = (1.0, 0.05, 1.0, 1, 0);
            Self { beta, rho, n, grad_scale, units, width, index, z, dz, scalars, partials }
        });
        vec![one]
    }
}

params! {
    struct LossParams {
        len: u32, vectors: u32, stride: u32, scale: f32, eps_squared: f32, parameter: f32,
    }
}

params! {
    struct CrossEntropyParams { n: u32, classes: u32, scale: f32 }
}

params! {
    struct L1PenaltyParams {
        len: u32, vectors: u32, stride: u32, scale: f32, parameter: f32, channels: u32,
        patience: f32, push: f32,
    }
}

params! {
    struct KlPenaltyMeansParams { n: u32, units: u32, inverse_n: f32, rho: f32, rest: f32 }
}

params! {
    struct KlPenaltyParams { vectors: u32, units: u32, scale: f32 }
}

/// The code of an activation whose slope follows from its output.
fn slope(activation: Activation) -> u32 {
    assert!(activation.from_output(), "{activation:?} has no derivative by its output");
    activation.code()
}

impl Loss {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let groups = partial_groups(self.y.len);
        let scale = 1.0 / self.kind.divisor(self.n, self.y.len) as f64;
        let params = LossParams {
            len: self.y.len as u32,
            vectors: self.y.len.div_ceil(4) as u32,
            stride: groups as u32 * WORKGROUP,
            scale: (scale * self.grad_scale) as f32,
            eps_squared: self.kind.parameter().powi(2) as f32,
            parameter: self.activation.parameter() as f32,
        };
        r.kernel(Kernel::Loss, &params)
            .constant("KIND", self.kind.code())
            .constant("ACTIVATION", slope(self.activation))
            .bind("y", self.y)
            .bind("t", self.target)
            .bind("dy", self.dy)
            .bind("partials", self.partials)
            .groups(groups as u64, WORKGROUP);
        SumScalar::plain(self.partials, groups, self.scalars, [self.width, self.index], scale)
            .record(r);
    }
}

impl CrossEntropy {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let scale = 1.0 / self.n as f64;
        r.kernel(
            Kernel::CrossEntropy,
            &CrossEntropyParams {
                n: self.n as u32,
                classes: self.classes as u32,
                scale: scale as f32,
            },
        )
        .bind("y", self.y)
        .bind("labels", self.labels)
        .bind("dy", self.dy)
        .bind("partials", self.partials)
        .groups(self.n as u64, 64);
        SumScalar::plain(self.partials, self.n, self.scalars, [self.width, self.index], scale)
            .record(r);
    }
}

impl L1Penalty {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let groups = partial_groups(self.z.len);
        let scale = self.lambda / self.n as f64;
        let params = L1PenaltyParams {
            len: self.z.len as u32,
            vectors: self.z.len.div_ceil(4) as u32,
            stride: groups as u32 * WORKGROUP,
            scale: (scale * self.grad_scale) as f32,
            parameter: self.activation.parameter() as f32,
            channels: self.channels as u32,
            patience: self.patience as f32,
            push: (self.strength * self.grad_scale * self.channels as f64 / self.z.len as f64)
                as f32,
        };
        r.kernel(Kernel::L1Penalty, &params)
            .constant("ACTIVATION", slope(self.activation))
            .constant("REVIVE", self.idle.is_some())
            .bind("z", self.z)
            .bind_or("idle", self.idle, self.scalars)
            .bind("dz", self.dz)
            .bind("partials", self.partials)
            .groups(groups as u64, WORKGROUP);
        SumScalar {
            partials: self.partials,
            offset: 0,
            count: groups,
            scalars: self.scalars,
            width: self.width,
            index: self.index,
            scale,
            root: false,
            sparsity: true,
        }
        .record(r);
    }
}

impl L1Norm {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let count = partials(r, Kernel::L1Norm, ("z", self.z), self.partials);
        SumScalar {
            sparsity: true,
            ..SumScalar::plain(
                self.partials,
                count,
                self.scalars,
                [self.width, self.index],
                self.lambda / self.n as f64,
            )
        }
        .record(r);
    }
}

impl KlPenalty {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let inverse_n = 1.0 / self.n as f64;
        let means = KlPenaltyMeansParams {
            n: self.n as u32,
            units: self.units as u32,
            inverse_n: inverse_n as f32,
            rho: self.rho as f32,
            rest: (1.0 - self.rho) as f32,
        };
        let columns = if self.units.is_multiple_of(4) { self.units / 4 } else { self.units };
        r.kernel(Kernel::KlPenaltyMeans, &means)
            .bind("z", self.z)
            .bind("partials", self.partials)
            .groups(columns.div_ceil(64) as u64, WORKGROUP);
        let vectors = self.dz.len.div_ceil(4);
        let params = KlPenaltyParams {
            vectors: vectors as u32,
            units: self.units as u32,
            scale: (self.beta * self.grad_scale * inverse_n) as f32,
        };
        r.kernel(Kernel::KlPenalty, &params)
            .bind("partials", self.partials)
            .bind("dz", self.dz)
            .threads(vectors);
        SumScalar {
            partials: self.partials,
            offset: self.units,
            count: self.units,
            scalars: self.scalars,
            width: self.width,
            index: self.index,
            scale: self.beta,
            root: false,
            sparsity: true,
        }
        .record(r);
    }
}
