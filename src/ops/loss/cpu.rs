//! CPU twins of `ops/loss.rs`. Values are computed and summed in f64.

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::activation;
use crate::ops::gate;
use crate::ops::reduce::cpu::put_scalar;
use crate::ops::revive::cpu::{push, pushes};
use crate::ops::{Activation, CrossEntropy, KlPenalty, L1Norm, L1Penalty, Loss, LossKind};
use crate::reference::parallel::{CHUNK, sum_lanes, sum_map, units};
use crate::reference::{Memory, Reference};

/// Evaluates `f(y, t) = (value, gradient)` for each element. Writes dy = scale·gradient times the
/// slope of the activation whose output y is, and returns the sum of the values.
fn sum_and_gradient<T: Real>(
    activation: Activation,
    dy: &mut [T],
    y: &[T],
    t: &[T],
    scale: f64,
    f: impl Fn(f64, f64) -> (f64, f64) + Sync,
) -> f64 {
    let parts: Vec<f64> = (dy.par_chunks_mut(CHUNK), y.par_chunks(CHUNK), t.par_chunks(CHUNK))
        .into_par_iter()
        .map(|(dy, y, t)| {
            let len = dy.len();
            let (y, t) = (&y[..len], &t[..len]);
            let sum = sum_lanes(len, |i| {
                let (value, gradient) = f(y[i].f64(), t[i].f64());
                dy[i] = T::of(scale * gradient);
                value
            });
            activation::cpu::scale_by_slope_of_output(activation, y, dy);
            sum
        })
        .collect();
    parts.iter().sum()
}

/// The sign of x, 0 at 0.
fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        // 0, or NaN for NaN.
        x * 0.0
    }
}

impl Reference for Loss {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dy = memory.take(self.dy);
        let (y, t) = (memory.real(self.y), memory.real(self.target));
        let scale = 1.0 / self.kind.divisor(self.n, y.len()) as f64;
        let (f, slope) = (self.activation, scale * self.grad_scale);
        let sum = match self.kind {
            LossKind::SumSquares | LossKind::Mse => {
                sum_and_gradient(f, &mut dy, y, t, slope, |y, t| ((y - t) * (y - t), 2.0 * (y - t)))
            }
            LossKind::L1 => {
                sum_and_gradient(f, &mut dy, y, t, slope, |y, t| ((y - t).abs(), sign(y - t)))
            }
            LossKind::Bce => sum_and_gradient(f, &mut dy, y, t, slope, |y, t| {
                let logs = [y, 1.0 - y].map(|p| if p > 0.0 { p.ln().max(-100.0) } else { -100.0 });
                (-t * logs[0] - (1.0 - t) * logs[1], (y - t) / (y * (1.0 - y)).max(1e-12))
            }),
            LossKind::Charbonnier { eps } => sum_and_gradient(f, &mut dy, y, t, slope, |y, t| {
                let root = ((y - t) * (y - t) + eps * eps).sqrt();
                (root, if root > 0.0 { (y - t) / root } else { sign(y - t) })
            }),
        };
        memory.put(dy);
        put_scalar(memory, self.scalars, self.width, self.index, sum * scale);
    }
}

impl Reference for CrossEntropy {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dy = memory.take(self.dy);
        let scale = 1.0 / self.n as f64;
        let (y, labels) = (memory.real(self.y), memory.words(self.labels));
        let losses: Vec<f64> = (
            dy.par_chunks_exact_mut(self.classes),
            y.par_chunks_exact(self.classes),
            labels.par_iter(),
        )
            .into_par_iter()
            .map(|(dy, y, &label)| {
                let label = label as usize;
                let max = y.iter().fold(f64::NEG_INFINITY, |max, y| max.max(y.f64()));
                let total: f64 = y.iter().map(|y| (y.f64() - max).exp()).sum();
                for (class, (dy, y)) in dy.iter_mut().zip(y).enumerate() {
                    let p = (y.f64() - max).exp() / total;
                    *dy = T::of(scale * (p - if class == label { 1.0 } else { 0.0 }));
                }
                total.ln() + max - y[label].f64()
            })
            .collect();
        memory.put(dy);
        put_scalar(
            memory,
            self.scalars,
            self.width,
            self.index,
            scale * losses.iter().sum::<f64>(),
        );
    }
}

impl Reference for L1Penalty {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let scale = self.lambda * f64::from(memory.step.sparsity_scale) / self.n as f64;
        let mut dz = memory.take(self.dz);
        let (z, c) = (memory.real(self.z), self.channels);
        let slope = T::of(scale * self.grad_scale);
        let pushes = self.idle.map(|idle| {
            pushes(
                memory.real(idle),
                self.patience,
                self.strength * self.grad_scale * c as f64 / z.len() as f64,
            )
        });
        let block = units(c) * c;
        let sums: Vec<f64> = (dz.par_chunks_mut(block), z.par_chunks(block))
            .into_par_iter()
            .map(|(dz, z)| {
                gate::add_l1(slope, z, dz);
                activation::cpu::scale_by_slope_of_output(self.activation, z, dz);
                if let Some(pushes) = &pushes {
                    push(dz, pushes);
                }
                sum_lanes(z.len(), |i| z[i].f64().abs())
            })
            .collect();
        let sum: f64 = sums.iter().sum();
        memory.put(dz);
        put_scalar(memory, self.scalars, self.width, self.index, scale * sum);
    }
}

impl Reference for L1Norm {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let scale = self.lambda * f64::from(memory.step.sparsity_scale) / self.n as f64;
        let sum = sum_map(memory.real(self.z), |z| z.f64().abs());
        put_scalar(memory, self.scalars, self.width, self.index, scale * sum);
    }
}

impl Reference for KlPenalty {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        /// The mean is kept this far from 0 and 1, where the term and its slope diverge.
        const MARGIN: f64 = 1e-6;
        let scale = self.beta * f64::from(memory.step.sparsity_scale);
        let mut dz = memory.take(self.dz);
        let (z, units, rho) = (memory.real(self.z), self.units, self.rho);
        assert_eq!(z.len(), self.n * units, "{self:?}");
        let mut means = vec![0.0; units];
        means.par_chunks_mut(1024).enumerate().for_each(|(i, means)| {
            for z in z.chunks_exact(units) {
                for (mean, z) in means.iter_mut().zip(&z[i * 1024..]) {
                    *mean += z.f64();
                }
            }
            means.iter_mut().for_each(|mean| *mean /= self.n as f64);
        });
        let slopes: Vec<T> = means
            .par_iter()
            .map(|&mean| {
                let slope = (1.0 - rho) / (1.0 - mean) - rho / mean;
                T::of(if (MARGIN..=1.0 - MARGIN).contains(&mean) {
                    scale * self.grad_scale * slope / self.n as f64
                } else {
                    0.0
                })
            })
            .collect();
        let term =
            |share: f64, mean: f64| if share > 0.0 { share * (share / mean).ln() } else { 0.0 };
        let sum = sum_map(&means, |mean| {
            let mean = mean.clamp(MARGIN, 1.0 - MARGIN);
            term(rho, mean) + term(1.0 - rho, 1.0 - mean)
        });
        dz.par_chunks_exact_mut(units).for_each(|dz| {
            for (dz, &slope) in dz.iter_mut().zip(&slopes) {
                *dz += slope;
            }
        });
        memory.put(dz);
        put_scalar(memory, self.scalars, self.width, self.index, scale * sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::testing::{Setup, assert_close, assert_threads_agree, numeric_gradient};
    use crate::testing::normals;

    const KINDS: [LossKind; 5] = [
        LossKind::SumSquares,
        LossKind::Mse,
        LossKind::L1,
        LossKind::Bce,
        LossKind::Charbonnier { eps: 0.1 },
    ];

    fn loss<T: Real>(kind: LossKind, n: usize, y: &[f64], t: &[f64]) -> (f64, Vec<f64>) {
        let mut s = Setup::<T>::new();
        let (yv, target, scalars) = (s.real(y), s.real(t), s.real(&[-1.0; 4]));
        let (dy, partials) = (s.out(y.len()), s.out(1));
        s.memory.step.slot = 1;
        s.run(
            &Loss {
                kind,
                n,
                grad_scale: 1.0,
                width: 2,
                index: 1,
                activation: Activation::Identity,
                y: yv,
                target,
                scalars,
                dy,
                partials,
            },
            dy,
        );
        let scalars = s.get(scalars);
        assert_eq!(scalars[..3], [-1.0; 3]);
        (scalars[3], s.get(dy))
    }

    fn probabilities(seed: u64, len: usize) -> Vec<f64> {
        normals(seed, len).iter().map(|v| f64::from((1.0 / (1.0 + (-v).exp())) as f32)).collect()
    }

    #[test]
    fn losses_and_gradients_match_their_definitions() {
        let (y, t) = (probabilities(1, 30), probabilities(2, 30));
        let sum =
            |f: &dyn Fn(f64, f64) -> f64| y.iter().zip(&t).map(|(&y, &t)| f(y, t)).sum::<f64>();
        let expected = [
            sum(&|y, t| (y - t).powi(2)) / 3.0,
            sum(&|y, t| (y - t).powi(2)) / 30.0,
            sum(&|y, t| (y - t).abs()) / 30.0,
            sum(&|y, t| -t * y.ln() - (1.0 - t) * (1.0 - y).ln()) / 30.0,
            sum(&|y, t| ((y - t).powi(2) + 0.01).sqrt()) / 30.0,
        ];
        for (kind, expected) in KINDS.into_iter().zip(expected) {
            let (value, gradient) = loss::<f64>(kind, 3, &y, &t);
            assert_close(&[value], &[expected], 1e-14);
            assert_close(
                &gradient,
                &numeric_gradient(&y, 1e-6, |y| loss::<f64>(kind, 3, y, &t).0),
                1e-7,
            );
            let (single, gradient_single) = loss::<f32>(kind, 3, &y, &t);
            assert_close(&[single], &[value], 1e-7);
            assert_close(&gradient_single, &gradient, 1e-7);
        }
    }

    #[test]
    fn losses_are_finite_at_0_and_1() {
        for kind in KINDS {
            let (value, gradient) =
                loss::<f32>(kind, 1, &[0.0, 1.0, 0.0, 1.0], &[0.0, 1.0, 1.0, 0.0]);
            assert!(
                value.is_finite() && gradient.iter().all(|g| g.is_finite()),
                "{kind:?} {value} {gradient:?}"
            );
            assert_eq!(gradient[..2], [0.0, 0.0]);
        }
        assert_eq!(loss::<f64>(LossKind::Bce, 1, &[0.0], &[1.0]).0, 100.0);
        assert_eq!(loss::<f64>(LossKind::Charbonnier { eps: 0.0 }, 1, &[2.0], &[2.0]).1, [0.0]);
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let (y, t) = (normals(1, 100_003), normals(2, 100_003));
        assert_threads_agree(|| vec![loss::<f32>(LossKind::Mse, 1, &y, &t).0]);
    }

    #[test]
    fn cross_entropy_matches_its_definition_and_is_finite_for_large_logits() {
        let (n, classes) = (4, 5);
        let logits = normals(3, n * classes);
        let labels = [0, 4, 2, 2];
        let run = |values: &[f64]| {
            let mut s = Setup::<f64>::new();
            let (y, labels, scalars) = (s.real(values), s.words(&labels), s.real(&[0.0]));
            let (dy, partials) = (s.out(n * classes), s.out(n));
            s.run(
                &CrossEntropy { n, classes, width: 1, index: 0, y, labels, scalars, dy, partials },
                dy,
            );
            (s.get(scalars)[0], s.get(dy))
        };
        let expected: f64 = logits
            .chunks(classes)
            .zip(labels)
            .map(|(y, label)| y.iter().map(|y| y.exp()).sum::<f64>().ln() - y[label as usize])
            .sum::<f64>()
            / n as f64;
        let (value, gradient) = run(&logits);
        assert_close(&[value], &[expected], 1e-14);
        assert_close(&gradient, &numeric_gradient(&logits, 1e-6, |y| run(y).0), 1e-8);
        let far: Vec<f64> = logits.iter().map(|v| v * 1000.0).collect();
        assert!(run(&far).0.is_finite() && run(&far).1.iter().all(|v| v.is_finite()));
    }

    #[test]
    fn penalties_add_their_gradients() {
        let (n, units) = (3, 4);
        let z = probabilities(5, n * units);
        let old = normals(6, n * units);
        let run = |l1: bool, z: &[f64]| {
            let mut s = Setup::<f64>::new();
            let (zv, dz, scalars, partials) =
                (s.real(z), s.real(&old), s.real(&[0.0]), s.out(2 * units));
            s.memory.step.sparsity_scale = 0.5;
            if l1 {
                let l1 = L1Penalty {
                    grad_scale: 1.0,
                    lambda: 0.3,
                    n,
                    width: 1,
                    index: 0,
                    activation: Activation::Identity,
                    channels: units,
                    patience: 0,
                    strength: 0.0,
                    z: zv,
                    idle: None,
                    dz,
                    scalars,
                    partials,
                };
                s.run(&l1, dz);
            } else {
                s.run(
                    &KlPenalty {
                        beta: 0.7,
                        rho: 0.05,
                        n,
                        grad_scale: 1.0,
                        units,
                        width: 1,
                        index: 0,
                        z: zv,
                        dz,
                        scalars,
                        partials,
                    },
                    dz,
                );
            }
            let added: Vec<f64> = s.get(dz).iter().zip(&old).map(|(new, old)| new - old).collect();
            (s.get(scalars)[0], added)
        };
        let signed: Vec<f64> = normals(7, n * units);
        let (value, gradient) = run(true, &signed);
        assert_close(
            &[value],
            &[0.5 * 0.3 * signed.iter().map(|z| z.abs()).sum::<f64>() / 3.0],
            1e-14,
        );
        assert_close(&gradient, &numeric_gradient(&signed, 1e-6, |z| run(true, z).0), 1e-8);
        let kl = |mean: f64| 0.05 * (0.05 / mean).ln() + 0.95 * (0.95 / (1.0 - mean)).ln();
        let expected: f64 =
            (0..units).map(|u| kl(z.iter().skip(u).step_by(units).sum::<f64>() / 3.0)).sum();
        let (value, gradient) = run(false, &z);
        assert_close(&[value], &[0.5 * 0.7 * expected], 1e-13);
        assert_close(&gradient, &numeric_gradient(&z, 1e-6, |z| run(false, z).0), 1e-7);
        // Where the clamp is active, the term is finite and has no gradient.
        let (value, gradient) = run(false, &[0.0; 12]);
        assert!(value.is_finite() && gradient == [0.0; 12], "{value} {gradient:?}");
    }
}
