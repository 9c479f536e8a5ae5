//! Parameter updates over the whole contiguous buffers (PyTorch's rules). The learning rate and
//! Adam's corrections come from the step.

mod cpu;

use super::alone::{Alone, MAPS};
use super::{Work, each, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};

shaders! {
    ClipGrads "clip_grads",
    Sgd "sgd",
    Adam "adam",
}

operation! {
    /// grads ·= min(1, max_norm/(norm + 10⁻⁶)), norm = scalars[slot·width + index] as written by
    /// [`super::SumSquares`]; gradients that are a `grad_scale`-fold stay so.
    ClipGrads { max_norm: f64, width: usize, index: usize } reads { scalars } updates { grads }
}

impl Work for ClipGrads {
    fn flops(&self) -> f64 {
        each(self.grads.len, 1)
    }

    fn sizes(&self) -> String {
        self.grads.len.to_string()
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            // As many parameters as the maps of a batch have values.
            let len = n * MAPS.len();
            // The norm is below the largest allowed, so that gradients do not shrink from run to run.
            let (grads, scalars) = (m.real(len), m.real(1));
            Self { max_norm: 1.0, width: 1, index: 0, scalars, grads }
        });
        vec![one]
    }
}

operation! {
    /// g ← grad/grad_scale + decay·w; m ← momentum·m + g, or m ← g at step 0 (momentum > 0 only); w
    /// ← w − lr·(nesterov ? g + momentum·m : momentum > 0 ? m : g). `m` is always bound; it keeps
    /// its values if momentum is 0.
    Sgd { grad_scale: f64, momentum: f64, nesterov: bool, weight_decay: f64 } reads { grads } updates { weights, m }
}

impl Work for Sgd {
    fn flops(&self) -> f64 {
        let momentum = if self.momentum > 0.0 { 2 } else { 0 };
        let nesterov = if self.nesterov { 2 } else { 0 };
        let decay = if self.weight_decay > 0.0 { 2 } else { 0 };
        each(self.weights.len, 2 + momentum + nesterov + decay)
    }

    fn sizes(&self) -> String {
        self.weights.len.to_string()
    }
}

operation! {
    /// Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019, `decoupled`). Not decoupled: g
    /// ← grad/grad_scale + decay·w. Decoupled: w ← w·(1 − lr·decay) first. m ← β₁m + (1 − β₁)g; v ←
    /// β₂v + (1 − β₂)g²; w ← w − lr·(m/c₁)/(√(v/c₂) + ε), c₁ and c₂ the step's corrections.
    Adam { grad_scale: f64, beta1: f64, beta2: f64, eps: f64, weight_decay: f64, decoupled: bool } reads { grads } updates { weights, m, v }
}

impl Work for Adam {
    fn flops(&self) -> f64 {
        each(self.weights.len, 13 + if self.weight_decay > 0.0 { 2 } else { 0 })
    }

    fn sizes(&self) -> String {
        self.weights.len.to_string()
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            // As many parameters as the maps of a batch have values.
            let len = n * MAPS.len();
            let ([grads, weights], [first, v]) = (m.two(len), m.two(len));
            Self {
                grad_scale: 1.0,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.0,
                decoupled: false,
                grads,
                weights,
                m: first,
                v,
            }
        });
        vec![one]
    }
}

params! {
    struct ClipGradsParams { vectors: u32, max_norm: f32, width: u32, index: u32 }
}

params! {
    struct SgdParams { vectors: u32, factor: f32, momentum: f32, nesterov: u32, weight_decay: f32 }
}

params! {
    struct AdamParams {
        vectors: u32, factor: f32, beta1: f32, rest1: f32, beta2: f32, rest2: f32, eps: f32, weight_decay: f32, decoupled: u32,
    }
}

impl ClipGrads {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.grads.len.div_ceil(4);
        let params = ClipGradsParams {
            vectors: vectors as u32,
            max_norm: self.max_norm as f32,
            width: self.width as u32,
            index: self.index as u32,
        };
        r.kernel(Kernel::ClipGrads, &params)
            .bind("scalars", self.scalars)
            .bind("grads", self.grads)
            .threads(vectors);
    }
}

impl Sgd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.weights.len.div_ceil(4);
        let params = SgdParams {
            vectors: vectors as u32,
            factor: (1.0 / self.grad_scale) as f32,
            momentum: self.momentum as f32,
            nesterov: self.nesterov.into(),
            weight_decay: self.weight_decay as f32,
        };
        r.kernel(Kernel::Sgd, &params)
            .bind("grads", self.grads)
            .bind("weights", self.weights)
            .bind("m", self.m)
            .threads(vectors);
    }
}

impl Adam {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.weights.len.div_ceil(4);
        let params = AdamParams {
            vectors: vectors as u32,
            factor: (1.0 / self.grad_scale) as f32,
            beta1: self.beta1 as f32,
            rest1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            rest2: (1.0 - self.beta2) as f32,
            eps: self.eps as f32,
            weight_decay: self.weight_decay as f32,
            decoupled: self.decoupled.into(),
        };
        r.kernel(Kernel::Adam, &params)
            .bind("grads", self.grads)
            .bind("weights", self.weights)
            .bind("m", self.m)
            .bind("v", self.v)
            .threads(vectors);
    }
}
