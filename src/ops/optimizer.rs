//! Parameter updates over whole contiguous buffers, by the same formulas as PyTorch. The learning
//! rate and Adam's bias corrections come from the step.

use bytemuck::Zeroable;
use rayon::prelude::*;

use super::alone::{Alone, MAPS};
use super::sums::{sum_params, update};
use super::{Work, each, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};
use crate::linalg::real::Real;
use crate::reference::parallel::CHUNK;
use crate::reference::{Memory, Reference};

shaders! {
    ClipGrads "clip_grads",
    Sgd "sgd",
    Adam "adam",
    Lion "lion",
}

operation! {
    /// grads ·= min(1, max_norm/(norm + 10⁻⁶)), with norm = scalars[slot·width + index] from
    /// [`super::SumSquares`]. Gradients scaled by `grad_scale` stay scaled.
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
            // One parameter for each element of the maps of a batch.
            let len = n * MAPS.len();
            // The norm (0.7 at most) is below the limit, so that gradients do not shrink from run
            // to run.
            let (grads, scalars) = (m.real(len), m.real(1));
            Self { max_norm: 1.0, width: 1, index: 0, scalars, grads }
        });
        vec![one]
    }
}

operation! {
    /// Stochastic gradient descent, with d the direction of the update:
    /// - g ← grad/grad_scale + decay·w
    /// - m ← momentum·m + g, or m ← g at step 0
    /// - w ← w − lr·d, d = m, or g + momentum·m with `nesterov`
    ///
    /// Without momentum d = g, and `m` keeps its values.
    Sgd { grad_scale: f64, momentum: f64, nesterov: bool, weight_decay: f64 }
    reads { grads } updates { weights, m }
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
    /// Adam (Kingma & Ba 2015), or with `decoupled` AdamW (Loshchilov & Hutter 2019). c₁ and c₂ are
    /// the step's bias corrections.
    /// - Adam: g ← grad/grad_scale + decay·w
    /// - AdamW: w ← w·(1 − lr·decay), g ← grad/grad_scale
    /// - m ← β₁m + (1 − β₁)g
    /// - v ← β₂v + (1 − β₂)g²
    /// - w ← w − lr·(m/c₁)/(√(v/c₂) + ε)
    Adam { grad_scale: f64, beta1: f64, beta2: f64, eps: f64, weight_decay: f64, decoupled: bool }
    reads { grads } updates { weights, m, v }
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
            // One parameter for each element of the maps of a batch.
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

operation! {
    /// Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms"), with decoupled
    /// weight decay:
    /// - g ← grad/grad_scale
    /// - w ← w·(1 − lr·decay) − lr·sign(β₁m + (1 − β₁)g), with sign(0) = 0
    /// - m ← β₂m + (1 − β₂)g
    Lion { grad_scale: f64, beta1: f64, beta2: f64, weight_decay: f64 }
    reads { grads } updates { weights, m }
}

impl Work for Lion {
    fn flops(&self) -> f64 {
        each(self.weights.len, 9 + if self.weight_decay > 0.0 { 2 } else { 0 })
    }

    fn sizes(&self) -> String {
        self.weights.len.to_string()
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            // One parameter for each element of the maps of a batch.
            let len = n * MAPS.len();
            let ([grads, weights], moment) = (m.two(len), m.real(len));
            Self {
                grad_scale: 1.0,
                beta1: 0.9,
                beta2: 0.99,
                weight_decay: 0.0,
                grads,
                weights,
                m: moment,
            }
        });
        vec![one]
    }
}

params! {
    struct ClipGradsParams { vectors: u32, max_norm: f32, width: u32, index: u32 }
}

sum_params! {
    struct SgdParams {
        factor: f32, momentum: f32, nesterov: u32, weight_decay: f32, pad0: u32, pad1: u32,
        pad2: u32,
    }
}

sum_params! {
    struct AdamParams {
        factor: f32, beta1: f32, rest1: f32, beta2: f32, rest2: f32, eps: f32, weight_decay: f32,
        decoupled: u32, pad0: u32, pad1: u32, pad2: u32,
    }
}

sum_params! {
    struct LionParams {
        factor: f32, beta1: f32, rest1: f32, beta2: f32, rest2: f32, weight_decay: f32, pad0: u32,
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
        let params = SgdParams {
            factor: (1.0 / self.grad_scale) as f32,
            momentum: self.momentum as f32,
            nesterov: self.nesterov.into(),
            weight_decay: self.weight_decay as f32,
            ..Zeroable::zeroed()
        };
        update(r, Kernel::Sgd, params, self.grads, &[("weights", self.weights), ("m", self.m)]);
    }
}

impl Adam {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let params = AdamParams {
            factor: (1.0 / self.grad_scale) as f32,
            beta1: self.beta1 as f32,
            rest1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            rest2: (1.0 - self.beta2) as f32,
            eps: self.eps as f32,
            weight_decay: self.weight_decay as f32,
            decoupled: self.decoupled.into(),
            ..Zeroable::zeroed()
        };
        update(
            r,
            Kernel::Adam,
            params,
            self.grads,
            &[("weights", self.weights), ("m", self.m), ("v", self.v)],
        );
    }
}

impl Lion {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let params = LionParams {
            factor: (1.0 / self.grad_scale) as f32,
            beta1: self.beta1 as f32,
            rest1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            rest2: (1.0 - self.beta2) as f32,
            weight_decay: self.weight_decay as f32,
            ..Zeroable::zeroed()
        };
        update(r, Kernel::Lion, params, self.grads, &[("weights", self.weights), ("m", self.m)]);
    }
}

impl Reference for ClipGrads {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut grads = memory.take(self.grads);
        let norm = memory.real(self.scalars)[memory.scalar_index(self.width, self.index)].f64();
        let factor = self.max_norm / (norm + 1e-6);
        if factor < 1.0 || factor.is_nan() {
            let factor = T::of(factor);
            grads
                .par_chunks_mut(CHUNK)
                .for_each(|grads| grads.iter_mut().for_each(|g| *g *= factor));
        }
        memory.put(grads);
    }
}

impl Reference for Sgd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let (mut weights, mut m) = (memory.take(self.weights), memory.take(self.m));
        let grads = memory.real(self.grads);
        let [factor, momentum] = [1.0 / self.grad_scale, self.momentum].map(T::of);
        let [decay, lr] = [self.weight_decay, f64::from(memory.step.lr)].map(T::of);
        let first = memory.step.step == 0;
        (weights.par_chunks_mut(CHUNK), m.par_chunks_mut(CHUNK), grads.par_chunks(CHUNK))
            .into_par_iter()
            .for_each(|(weights, m, grads)| {
                for ((w, m), &g) in weights.iter_mut().zip(m).zip(grads) {
                    let g = factor * g + decay * *w;
                    if momentum > T::ZERO {
                        *m = if first { g } else { momentum * *m + g };
                        *w -= lr * if self.nesterov { g + momentum * *m } else { *m };
                    } else {
                        *w -= lr * g;
                    }
                }
            });
        memory.put(weights);
        memory.put(m);
    }
}

impl Reference for Adam {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let (mut weights, mut m, mut v) =
            (memory.take(self.weights), memory.take(self.m), memory.take(self.v));
        let grads = memory.real(self.grads);
        let (lr, factor) = (f64::from(memory.step.lr), T::of(1.0 / self.grad_scale));
        let [beta1, beta2, rest1, rest2] =
            [self.beta1, self.beta2, 1.0 - self.beta1, 1.0 - self.beta2].map(T::of);
        let [eps, decay] =
            [self.eps, if self.decoupled { 0.0 } else { self.weight_decay }].map(T::of);
        let [lr, keep] =
            [lr, if self.decoupled { 1.0 - lr * self.weight_decay } else { 1.0 }].map(T::of);
        let [c1, c2] =
            [memory.step.correction1, memory.step.correction2].map(|c| T::of(f64::from(c)));
        (
            weights.par_chunks_mut(CHUNK),
            m.par_chunks_mut(CHUNK),
            v.par_chunks_mut(CHUNK),
            grads.par_chunks(CHUNK),
        )
            .into_par_iter()
            .for_each(|(weights, m, v, grads)| {
                for (((w, m), v), &g) in weights.iter_mut().zip(m).zip(v).zip(grads) {
                    let g = factor * g + decay * *w;
                    *m = beta1 * *m + rest1 * g;
                    *v = beta2 * *v + rest2 * g * g;
                    *w = *w * keep - lr * (*m / c1) / ((*v / c2).sqrt() + eps);
                }
            });
        memory.put(weights);
        memory.put(m);
        memory.put(v);
    }
}

impl Reference for Lion {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let (mut weights, mut m) = (memory.take(self.weights), memory.take(self.m));
        let grads = memory.real(self.grads);
        let lr = f64::from(memory.step.lr);
        let [factor, beta1, rest1, beta2, rest2] =
            [1.0 / self.grad_scale, self.beta1, 1.0 - self.beta1, self.beta2, 1.0 - self.beta2]
                .map(T::of);
        let [keep, up, down] = [1.0 - lr * self.weight_decay, lr, -lr].map(T::of);
        (weights.par_chunks_mut(CHUNK), m.par_chunks_mut(CHUNK), grads.par_chunks(CHUNK))
            .into_par_iter()
            .for_each(|(weights, m, grads)| {
                for ((w, m), &g) in weights.iter_mut().zip(m).zip(grads) {
                    let g = factor * g;
                    let direction = beta1 * *m + rest1 * g;
                    *w *= keep;
                    if direction > T::ZERO {
                        *w += down;
                    } else if direction < T::ZERO {
                        *w += up;
                    }
                    *m = beta2 * *m + rest2 * g;
                }
            });
        memory.put(weights);
        memory.put(m);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::testing::{Setup, assert_close};
    use crate::testing::normals;

    #[test]
    fn clipping_scales_to_the_norm_or_not_at_all() {
        let mut s = Setup::<f64>::new();
        let (scalars, grads) = (s.real(&[0.0, 5.0]), s.real(&[3.0, 4.0]));
        let clip = |max_norm| ClipGrads { max_norm, width: 2, index: 1, scalars, grads };
        assert_eq!(s.run(&clip(6.0), grads), [3.0, 4.0]);
        assert_close(&s.run(&clip(1.0), grads), &[0.6, 0.8], 1e-6);
    }

    #[test]
    fn sgd_by_hand() {
        let (w0, g0, g1) = (1.0, 0.5, -0.25);
        let (momentum, decay, lr) = (0.9, 0.1, 0.125);
        for nesterov in [false, true] {
            let mut s = Setup::<f64>::new();
            let (weights, grads, m) = (s.real(&[w0]), s.real(&[g0]), s.out(1));
            let op =
                Sgd { grad_scale: 1.0, momentum, nesterov, weight_decay: decay, grads, weights, m };
            s.memory.step.lr = lr as f32;
            let first = s.run(&op, weights)[0];
            let a = g0 + decay * w0;
            let expected = w0 - lr * if nesterov { a + momentum * a } else { a };
            assert_close(&[first], &[expected], 1e-15);
            s.memory.step.step = 1;
            let mut taken = s.memory.take(grads);
            taken[0] = g1;
            s.memory.put(taken);
            let b = g1 + decay * first;
            let m1 = momentum * a + b;
            assert_close(
                &s.run(&op, weights),
                &[first - lr * if nesterov { b + momentum * m1 } else { m1 }],
                1e-15,
            );
        }
        let mut s = Setup::<f64>::new();
        let (weights, grads, m) = (s.real(&[w0]), s.real(&[g0]), s.real(&[7.0]));
        s.memory.step.lr = lr as f32;
        let plain = Sgd {
            grad_scale: 1.0,
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            grads,
            weights,
            m,
        };
        assert_eq!(s.run(&plain, weights), [w0 - lr * g0]);
        assert_eq!(s.get(m), [7.0]);
    }

    #[test]
    fn adam_by_the_paper() {
        let (b1, b2, eps, decay, lr) = (0.9, 0.99, 1e-8, 0.1, 0.125);
        for decoupled in [false, true] {
            let mut s = Setup::<f64>::new();
            let (weights, grads) = (s.real(&[1.0, -2.0]), s.real(&[0.5, 0.25]));
            let (m, v) = (s.real(&[0.0; 2]), s.real(&[0.0; 2]));
            s.memory.step.lr = lr as f32;
            let op = Adam {
                grad_scale: 1.0,
                beta1: b1,
                beta2: b2,
                eps,
                weight_decay: decay,
                decoupled,
                grads,
                weights,
                m,
                v,
            };
            let mut expected = [(1.0, 0.5, 0.0, 0.0), (-2.0, 0.25, 0.0, 0.0)];
            for t in 1..=3 {
                let correct = |b: f64| (1.0 - b.powi(t)) as f32;
                (s.memory.step.correction1, s.memory.step.correction2) = (correct(b1), correct(b2));
                for (w, g, m, v) in &mut expected {
                    let mut g = *g;
                    if decoupled {
                        *w *= 1.0 - lr * decay;
                    } else {
                        g += decay * *w;
                    }
                    *m = b1 * *m + (1.0 - b1) * g;
                    *v = b2 * *v + (1.0 - b2) * g * g;
                    *w -= lr * (*m / f64::from(correct(b1)))
                        / ((*v / f64::from(correct(b2))).sqrt() + eps);
                }
                assert_close(&s.run(&op, weights), &expected.map(|e| e.0), 1e-14);
            }
        }
    }

    #[test]
    fn lion_by_hand() {
        let mut s = Setup::<f64>::new();
        // A positive and a negative gradient, and one that the moment outweighs; a parameter
        // without gradient and moment only decays.
        let (weights, grads) = (s.real(&[1.0, 1.0, 1.0, 1.0]), s.real(&[2.0, -2.0, 4.0, 0.0]));
        let m = s.real(&[0.0, 0.0, -1.0, 0.0]);
        s.memory.step.lr = 0.125;
        let op =
            Lion { grad_scale: 2.0, beta1: 0.75, beta2: 0.5, weight_decay: 0.5, grads, weights, m };
        let kept = 1.0 - 0.125 * 0.5;
        let expected = [kept - 0.125, kept + 0.125, kept + 0.125, kept];
        assert_close(&s.run(&op, weights), &expected, 1e-15);
        assert_close(s.memory.real(m), &[0.5, -0.5, 0.5, 0.0], 1e-15);
    }

    #[test]
    fn single_precision_follows_double() {
        fn run<T: Real>() -> Vec<f64> {
            let mut s = Setup::<T>::new();
            let (weights, grads) = (s.real(&normals(1, 100)), s.real(&normals(2, 100)));
            let (m, v) = (s.real(&[0.0; 100]), s.real(&[0.0; 100]));
            s.memory.step.lr = 0.01;
            let op = Adam {
                grad_scale: 1.0,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.0,
                decoupled: false,
                grads,
                weights,
                m,
                v,
            };
            s.run(&op, weights)
        }
        assert_close(&run::<f32>(), &run::<f64>(), 1e-6);
    }
}
