//! CPU twin of `ops/corrupt.rs`.

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::GaussianNoise;
use crate::reference::parallel::units;
use crate::reference::{Memory, Reference};

/// Coefficients of erfinv's polynomial in the centre, highest power first (Giles, "Approximating
/// the erfinv function", GPU Computing Gems 2011, single precision).
const CENTRE: [f64; 9] = [
    2.81022636e-8,
    3.43273939e-7,
    -3.5233877e-6,
    -4.39150654e-6,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
];
/// Coefficients of erfinv's polynomial in the tails, highest power first.
const TAIL: [f64; 9] = [
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
];

/// A standard normal number from a uniform random word: the quantile at (word + ½)/2³².
fn normal(word: u32) -> f64 {
    let x = (f64::from((word ^ 0x8000_0000).cast_signed()) + 0.5) / 2_147_483_648.0;
    let w = -((1.0 - x) * (1.0 + x)).ln();
    let (at, coefficients) = if w < 5.0 { (w - 2.5, CENTRE) } else { (w.sqrt() - 3.0, TAIL) };
    std::f64::consts::SQRT_2 * x * coefficients.into_iter().fold(0.0, |sum, c| sum * at + c)
}

impl Reference for GaussianNoise {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let (mut y, mut level) = (memory.take(self.y), memory.take(self.level));
        let (step, seed, dims, first) =
            (memory.step.step, memory.seed(), self.dims, memory.step.first_sample);
        for (n, level) in level.iter_mut().enumerate() {
            *level = T::of(self.level_of(first + n as u32, step, seed));
        }
        let (x, levels) = (memory.real(self.x), &*level);
        let block = units(dims.c) * dims.c;
        y.par_chunks_mut(block).zip(x.par_chunks(block)).enumerate().for_each(|(i, (y, x))| {
            for (j, (y, &x)) in y.iter_mut().zip(x).enumerate() {
                let (pixel, c) = ((i * block + j) / dims.c, (i * block + j) % dims.c);
                let (n, at) = (pixel / dims.area(), pixel % dims.area());
                let index = ((first as usize + n) * dims.c + c) * dims.area() + at;
                *y = x + levels[n] * T::of(normal(Self::word_of(index as u32, step, seed)));
            }
        });
        memory.put(y);
        memory.put(level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::testing::Setup;
    use crate::shape::Dims;
    use crate::view::StepParams;

    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        // (u, Φ⁻¹(u))
        for (u, expected) in [
            (1e-6, -4.753_424),
            (0.001, -3.090_232_3),
            (0.025, -1.959_964),
            (0.25, -0.674_489_8),
            (0.5, 0.0),
        ] {
            let found = normal((u * 4_294_967_296.0) as u32);
            assert!((found - expected).abs() < 2e-4 * f64::abs(expected).max(1e-3), "{u}: {found}");
        }
        assert!(normal(0) < -6.0 && normal(u32::MAX) > 6.0);
        assert_eq!(normal(12345), -normal(!12345));
    }

    #[test]
    fn noise_has_the_standard_deviation_that_it_reports() {
        let (n, dims) = (16, Dims::new(3, 40, 40));
        let mut s = Setup::<f64>::new();
        let x = s.real(&vec![0.5; n * dims.len()]);
        let (y, level) = (s.out(n * dims.len()), s.out(n));
        s.memory.step = StepParams { step: 3, ..StepParams::default() };
        let noisy = s.run(&GaussianNoise { n, dims, low: 0.1, high: 0.3, x, y, level }, y);
        let levels = s.get(level);
        assert!(
            levels.iter().all(|level| (0.1..0.3).contains(level)) && levels[0] != levels[1],
            "{levels:?}"
        );
        for (y, level) in noisy.chunks(dims.len()).zip(levels) {
            let mean = y.iter().map(|y| y - 0.5).sum::<f64>() / dims.len() as f64;
            let std = (y.iter().map(|y| (y - 0.5).powi(2)).sum::<f64>() / dims.len() as f64).sqrt();
            assert!(mean.abs() < 4.0 * level / (dims.len() as f64).sqrt(), "{mean}");
            assert!((std / level - 1.0).abs() < 0.05, "{std} {level}");
        }
    }
}
