//! CPU twins of `ops/optimizer.rs`.

use rayon::prelude::*;

use super::parallel::CHUNK;
use super::{Memory, Reference};
use crate::linalg::real::Real;
use crate::ops::{Adam, ClipGrads, Sgd};

impl Reference for ClipGrads {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut grads = memory.take(self.grads);
        let norm = memory.real(self.scalars)[memory.scalar_index(self.width, self.index)].f64();
        // The 1e-6 is that of PyTorch's clip_grad_norm_.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::testing::{Setup, assert_close};
    use crate::testing::normals;

    #[test]
    fn clipping_scales_only_gradients_above_the_norm() {
        let mut s = Setup::<f64>::new();
        let (scalars, grads) = (s.real(&[0.0, 5.0]), s.real(&[3.0, 4.0]));
        let clip = |max_norm| ClipGrads { max_norm, width: 2, index: 1, scalars, grads };
        assert_eq!(s.run(&clip(6.0), grads), [3.0, 4.0]);
        assert_close(&s.run(&clip(1.0), grads), &[0.6, 0.8], 1e-6);
    }

    #[test]
    fn sgd_matches_its_formula() {
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
    fn adam_matches_the_paper() {
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
