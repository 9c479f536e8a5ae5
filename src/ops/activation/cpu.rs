//! CPU twins of `ops/activation.rs`. The formulas are numerically stable: eˣ is evaluated only for
//! arguments ≤ 0, and differences near 0 use `exp_m1` and `ln_1p`.

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::{Activation, ActivationBwd, ActivationBwdOutput, ActivationFwd};
use crate::reference::parallel::CHUNK;
use crate::reference::{Memory, Reference};

#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    let e = (-x.abs()).exp();
    let top = if x >= T::ZERO { T::ONE } else { e };
    top / (T::ONE + e)
}

/// x ← f(x) for each element.
#[inline(always)]
fn map<T: Real>(x: &mut [T], f: impl Fn(T) -> T) {
    for x in x {
        *x = f(*x);
    }
}

/// x ← f(x). Comparisons are written so that NaN stays NaN and diverged training is visible.
pub fn apply<T: Real>(activation: Activation, x: &mut [T]) {
    let zero = T::ZERO;
    match activation {
        Activation::Identity => {}
        Activation::Relu => map(x, |x| if x <= zero { zero } else { x }),
        Activation::LeakyRelu { slope } => {
            let slope = T::of(slope);
            map(x, |x| if x > zero { x } else { slope * x });
        }
        Activation::Elu { alpha } => {
            let alpha = T::of(alpha);
            map(x, |x| {
                let below = alpha * (if x > zero { zero } else { x }).exp_m1();
                if x > zero { x } else { below }
            });
        }
        Activation::Softplus => {
            map(x, |x| (if x <= zero { zero } else { x }) + (-x.abs()).exp().ln_1p_unit())
        }
        Activation::Sigmoid => map(x, sigmoid),
        Activation::Tanh => map(x, T::tanh),
        Activation::Gelu => map(x, |x| x * x.normal_cdf()),
        Activation::Silu => map(x, |x| x * sigmoid(x)),
    }
}

/// dx ← dx·slope(x) for each element.
#[inline(always)]
fn scale<T: Real>(dx: &mut [T], x: &[T], slope: impl Fn(T) -> T) {
    for (dx, &x) in dx.iter_mut().zip(x) {
        *dx *= slope(x);
    }
}

/// dx ← dx·f′(x)
fn scale_by_slope<T: Real>(activation: Activation, x: &[T], dx: &mut [T]) {
    let (zero, one) = (T::ZERO, T::ONE);
    match activation {
        Activation::Elu { alpha } => {
            let alpha = T::of(alpha);
            scale(dx, x, |x| {
                let below = alpha * (if x > zero { zero } else { x }).exp();
                if x > zero { one } else { below }
            });
        }
        Activation::Softplus => scale(dx, x, sigmoid),
        // As in PyTorch, the slope is 0 where y rounds to 1.
        Activation::Sigmoid => scale(dx, x, |x| {
            let y = sigmoid(x);
            y * (one - y)
        }),
        Activation::Tanh => {
            let [two, four] = [2.0, 4.0].map(T::of);
            scale(dx, x, |x| {
                let e = (-two * x.abs()).exp();
                four * e / ((one + e) * (one + e))
            });
        }
        Activation::Gelu => {
            // 1/√(2π), the normal density at 0.
            let [half, density] = [0.5, 0.398_942_280_401_432_7].map(T::of);
            scale(dx, x, |x| x.normal_cdf() + x * density * (-half * x * x).exp());
        }
        Activation::Silu => scale(dx, x, |x| sigmoid(x) * (one + x * sigmoid(-x))),
        // Input and output have the same sign, which is all that these slopes depend on.
        Activation::Identity | Activation::Relu | Activation::LeakyRelu { .. } => {
            scale_by_slope_of_output(activation, x, dx)
        }
    }
}

/// dx ← dx·f′(f⁻¹(y))
pub fn scale_by_slope_of_output<T: Real>(activation: Activation, y: &[T], dx: &mut [T]) {
    let (zero, one) = (T::ZERO, T::ONE);
    match activation {
        Activation::Identity => {}
        Activation::Relu => scale(dx, y, |y| if y > zero { one } else { zero }),
        Activation::LeakyRelu { slope } => {
            let slope = T::of(slope);
            scale(dx, y, |y| if y > zero { one } else { slope });
        }
        Activation::Elu { alpha } => {
            let alpha = T::of(alpha);
            scale(dx, y, |y| if y > zero { one } else { y + alpha });
        }
        Activation::Softplus => scale(dx, y, |y| -(-y).exp_m1()),
        Activation::Sigmoid => scale(dx, y, |y| y * (one - y)),
        Activation::Tanh => scale(dx, y, |y| (one - y) * (one + y)),
        Activation::Gelu | Activation::Silu => {
            panic!("{activation:?} cannot be differentiated from its output")
        }
    }
}

impl Reference for ActivationFwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        (y.par_chunks_mut(CHUNK), memory.real(self.x).par_chunks(CHUNK)).into_par_iter().for_each(
            |(y, x)| {
                y.copy_from_slice(x);
                apply(self.activation, y);
            },
        );
        memory.put(y);
    }
}

impl Reference for ActivationBwd {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dx = memory.take(self.dx);
        let (x, dy) = (memory.real(self.x), memory.real(self.dy));
        (dx.par_chunks_mut(CHUNK), x.par_chunks(CHUNK), dy.par_chunks(CHUNK))
            .into_par_iter()
            .for_each(|(dx, x, dy)| {
                dx.copy_from_slice(dy);
                scale_by_slope(self.activation, x, dx);
            });
        memory.put(dx);
    }
}

impl Reference for ActivationBwdOutput {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dx = memory.take(self.dx);
        let (y, dy) = (memory.real(self.y), memory.real(self.dy));
        (dx.par_chunks_mut(CHUNK), y.par_chunks(CHUNK), dy.par_chunks(CHUNK))
            .into_par_iter()
            .for_each(|(dx, y, dy)| {
                dx.copy_from_slice(dy);
                scale_by_slope_of_output(self.activation, y, dx);
            });
        memory.put(dx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::testing::{Setup, assert_close, assert_threads_agree};
    use crate::testing::normals;

    const ALL: [Activation; 9] = [
        Activation::Identity,
        Activation::Relu,
        Activation::LeakyRelu { slope: 0.1 },
        Activation::Elu { alpha: 1.5 },
        Activation::Softplus,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Gelu,
        Activation::Silu,
    ];

    fn forward<T: Real>(activation: Activation, x: &[f64]) -> Vec<f64> {
        let mut s = Setup::<T>::new();
        let (x, y) = (s.real(x), s.out(x.len()));
        s.run(&ActivationFwd { activation, x, y }, y)
    }

    fn backward<T: Real>(activation: Activation, x: &[f64], dy: &[f64]) -> Vec<f64> {
        let mut s = Setup::<T>::new();
        let (x, dy, dx) = (s.real(x), s.real(dy), s.out(x.len()));
        s.run(&ActivationBwd { activation, x, dy, dx }, dx)
    }

    fn backward_output<T: Real>(activation: Activation, y: &[f64], dy: &[f64]) -> Vec<f64> {
        let mut s = Setup::<T>::new();
        let (y, dy, dx) = (s.real(y), s.real(dy), s.out(y.len()));
        s.run(&ActivationBwdOutput { activation, y, dy, dx }, dx)
    }

    #[test]
    fn values() {
        let at = |activation, x| forward::<f64>(activation, &[x])[0];
        for (activation, x, expected) in [
            (Activation::Relu, -2.0, 0.0),
            (Activation::LeakyRelu { slope: 0.1 }, -2.0, -0.2),
            (Activation::Elu { alpha: 1.5 }, -1.0, 1.5 * ((-1.0_f64).exp() - 1.0)),
            (Activation::Softplus, 0.0, std::f64::consts::LN_2),
            (Activation::Softplus, -40.0, 4.248_354_255_291_589e-18),
            (Activation::Sigmoid, 1.0, 1.0 / (1.0 + (-1.0_f64).exp())),
            (Activation::Gelu, 1.0, 0.841_344_746_068_543),
            (Activation::Silu, -1.0, -1.0 / (1.0 + 1.0_f64.exp())),
        ] {
            assert!(
                (at(activation, x) - expected).abs() <= 1e-14 * expected.abs(),
                "{activation:?} {x}: {}",
                at(activation, x)
            );
        }
    }

    #[test]
    fn slopes_are_derivatives() {
        let x: Vec<f64> = normals(1, 200).iter().map(|v| 3.0 * v).collect();
        let dy = normals(2, 200);
        for activation in ALL {
            let step = 1e-6;
            let shifted =
                |d: f64| forward::<f64>(activation, &x.iter().map(|x| x + d).collect::<Vec<_>>());
            let numeric: Vec<f64> = shifted(step)
                .iter()
                .zip(shifted(-step))
                .zip(&dy)
                .map(|((a, b), dy)| dy * (a - b) / (2.0 * step))
                .collect();
            let dx = backward::<f64>(activation, &x, &dy);
            assert_close(&dx, &numeric, 1e-8);
            assert_close(&backward::<f32>(activation, &x, &dy), &dx, 1e-6);
            assert_close(&forward::<f32>(activation, &x), &forward::<f64>(activation, &x), 1e-6);
            if activation.from_output() {
                let y = forward::<f64>(activation, &x);
                assert_close(&backward_output::<f64>(activation, &y, &dy), &dx, 1e-9);
            }
        }
    }

    #[test]
    fn large_inputs_give_finite_values_and_nan_stays_nan() {
        let x = [40.0, -40.0, 88.0, -88.0, 1000.0, -1000.0];
        for activation in ALL {
            for y in [forward::<f32>(activation, &x), backward::<f32>(activation, &x, &[1.0; 6])] {
                assert!(y.iter().all(|v| v.is_finite()), "{activation:?}: {y:?}");
            }
            assert!(forward::<f32>(activation, &[f64::NAN])[0].is_nan(), "{activation:?}");
            assert!(forward::<f64>(activation, &[f64::NAN])[0].is_nan(), "{activation:?}");
        }
        let softplus = forward::<f32>(Activation::Softplus, &[-40.0])[0];
        assert!((softplus / 4.248_354_255e-18 - 1.0).abs() < 1e-5, "{softplus}");
        assert_eq!(backward::<f32>(Activation::Relu, &[0.0], &[1.0]), [0.0]);
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        assert_threads_agree(|| forward::<f32>(Activation::Gelu, &normals(3, 3 * CHUNK + 7)));
    }
}
