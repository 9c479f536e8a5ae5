//! The loss of a hurdle model of sparse codes: whether each unit fires, and how strongly if it
//! does.

use rayon::prelude::*;

use super::alone::{Alone, CODE};
use super::reduce::cpu::put_scalar;
use super::reduce::{WORKGROUP, partial_groups};
use super::sums::SumScalar;
use super::{Work, each, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};
use crate::linalg::real::Real;
use crate::reference::{Memory, Reference};

shaders! {
    HurdleLoss "hurdle_loss",
}

/// Number of outputs that describe the distribution of a unit: the logit of firing, then mean and
/// logarithm of the standard deviation of its strength.
pub const HURDLE_OUTPUTS: usize = 3;
/// Number of values that describe a unit: above 0 if it fires, and its strength if it does.
pub const HURDLE_VALUES: usize = 2;

/// The distribution of a unit (Cragg, "Some Statistical Models for Limited Dependent Variables",
/// 1971): it fires with probability σ(logit); if it fires, its strength is normal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hurdle {
    /// (minimum, maximum) to which the logarithm of a standard deviation is clamped.
    pub log_std: (f64, f64),
    /// The likelihood is constant in a clamped output. A penalty `pull`/2·excess² brings the output
    /// back, where it has an effect again.
    pub pull: f64,
}

/// The loss of a unit and its gradient by the three outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnitLoss {
    /// Negative log-probability of firing or not firing, in nats.
    pub fires: f64,
    /// Negative log-density of the strength without its constant ½ ln 2π, in nats; 0 for a unit
    /// that does not fire.
    pub strength: f64,
    /// Penalty on an output beyond the limits of the standard deviation.
    pub penalty: f64,
    /// Gradient of the sum of the three.
    pub gradient: [f64; HURDLE_OUTPUTS],
}

impl Hurdle {
    /// The loss of one unit; `strength` is `None` if it does not fire.
    pub fn unit(self, [logit, mean, log_std]: [f64; 3], strength: Option<f64>) -> UnitLoss {
        let wrong = if strength.is_some() { -logit } else { logit };
        let fires = wrong.max(0.0) + (-wrong.abs()).exp().ln_1p();
        // 1 − the probability of what happened, which does not cancel when that is near 1.
        let missed = 1.0 / (1.0 + (-wrong).exp());
        let Some(strength) = strength else {
            return UnitLoss { fires, gradient: [missed, 0.0, 0.0], ..UnitLoss::default() };
        };
        let clamped = log_std.clamp(self.log_std.0, self.log_std.1);
        let excess = log_std - clamped;
        let inverse_std = (-clamped).exp();
        let error = (strength - mean) * inverse_std;
        let by_log_std = if excess == 0.0 { 1.0 - error * error } else { self.pull * excess };
        UnitLoss {
            fires,
            strength: clamped + 0.5 * error * error,
            penalty: 0.5 * self.pull * excess * excess,
            gradient: [-missed, -error * inverse_std, by_log_std],
        }
    }
}

operation! {
    /// Mean over the batch of the sum over units of −ln p(unit) + penalty, see [`Hurdle`]. y (n,
    /// 3·units) has the logits of all units, then the means, then the logarithms of the standard
    /// deviations. A row of `target` begins with `units` values above 0 for units that fire, then
    /// `units` strengths; more may follow.
    HurdleLoss { hurdle: Hurdle, n: usize, units: usize, width: usize, index: usize }
    reads { y, target } updates { scalars } writes { dy } scratch {
        /// [`super::SCALAR_PARTIALS`] elements.
        partials
    }
}

impl Work for HurdleLoss {
    fn flops(&self) -> f64 {
        // For each of the three outputs of a unit.
        each(self.y.len, 8)
    }

    fn sizes(&self) -> String {
        format!("{} n{}", self.units, self.n)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (hurdle, units) = (Hurdle { log_std: (-4.0, 2.0), pull: 0.1 }, CODE.len());
            let [y, dy] = m.two(HURDLE_OUTPUTS * n * units);
            let (target, [scalars, partials]) = (m.real(HURDLE_VALUES * n * units), m.sums());
            Self { hurdle, n, units, width: 1, index: 0, y, target, scalars, dy, partials }
        });
        vec![one]
    }
}

params! {
    struct HurdleLossParams {
        count: u32, units: u32, row: u32, stride: u32, scale: f32, min_log_std: f32,
        max_log_std: f32, pull: f32,
    }
}

impl HurdleLoss {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let count = self.n * self.units;
        let groups = partial_groups(4 * count);
        let scale = 1.0 / self.n as f64;
        let params = HurdleLossParams {
            count: count as u32,
            units: self.units as u32,
            row: (self.target.len / self.n) as u32,
            stride: groups as u32 * WORKGROUP,
            scale: scale as f32,
            min_log_std: self.hurdle.log_std.0 as f32,
            max_log_std: self.hurdle.log_std.1 as f32,
            pull: self.hurdle.pull as f32,
        };
        r.kernel(Kernel::HurdleLoss, &params)
            .bind("y", self.y)
            .bind("t", self.target)
            .bind("dy", self.dy)
            .bind("partials", self.partials)
            .groups(groups as u64, WORKGROUP);
        SumScalar::plain(self.partials, groups, self.scalars, [self.width, self.index], scale)
            .record(r);
    }
}

impl Reference for HurdleLoss {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dy = memory.take(self.dy);
        let (y, target) = (memory.real(self.y), memory.real(self.target));
        let (units, scale) = (self.units, 1.0 / self.n as f64);
        let rows = (
            dy.par_chunks_exact_mut(HURDLE_OUTPUTS * units),
            y.par_chunks_exact(HURDLE_OUTPUTS * units),
            target.par_chunks_exact(self.target.len / self.n),
        );
        let losses: Vec<f64> = rows
            .into_par_iter()
            .map(|(dy, y, target)| {
                let mut sum = 0.0;
                for unit in 0..units {
                    let strength = (target[unit].f64() > 0.0).then(|| target[units + unit].f64());
                    let outputs = [0, 1, 2].map(|k| y[k * units + unit].f64());
                    let loss = self.hurdle.unit(outputs, strength);
                    for (k, gradient) in loss.gradient.into_iter().enumerate() {
                        dy[k * units + unit] = T::of(scale * gradient);
                    }
                    sum += loss.fires + loss.strength + loss.penalty;
                }
                sum
            })
            .collect();
        memory.put(dy);
        let mean = scale * losses.iter().sum::<f64>();
        put_scalar(memory, self.scalars, self.width, self.index, mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::testing::{assert_close, numeric_gradient};

    const HURDLE: Hurdle = Hurdle { log_std: (-4.0, 2.0), pull: 0.1 };

    #[test]
    fn the_loss_matches_values_computed_by_hand() {
        // Even odds; an error of one standard deviation of 1.
        let loss = HURDLE.unit([0.0, 1.0, 0.0], Some(2.0));
        assert!((loss.fires - 2.0_f64.ln()).abs() < 1e-15 && (loss.strength - 0.5).abs() < 1e-15);
        assert_eq!((loss.penalty, loss.gradient), (0.0, [-0.5, -1.0, 0.0]));
        // Without firing, only the logit matters.
        let silent = HURDLE.unit([3.0_f64.ln(), 7.0, -9.0], None);
        assert!((silent.fires - 4.0_f64.ln()).abs() < 1e-15 && silent.strength == 0.0);
        assert_close(&silent.gradient, &[0.75, 0.0, 0.0], 1e-15);
        // Beyond a limit the density is that at the limit.
        let (beyond, at) =
            (HURDLE.unit([0.0, 0.0, 3.0], Some(1.0)), HURDLE.unit([0.0, 0.0, 2.0], Some(1.0)));
        assert!(beyond.strength == at.strength && (beyond.penalty - 0.05).abs() < 1e-15);
        assert!((beyond.gradient[2] - 0.1).abs() < 1e-15);
        // Confident and right or wrong: finite, without cancellation.
        let sure = HURDLE.unit([90.0, 0.0, 0.0], None);
        assert!((sure.fires - 90.0).abs() < 1e-12 && sure.gradient[0] == 1.0);
        let sure = HURDLE.unit([-90.0, 0.0, 0.0], None);
        assert!(sure.fires > 0.0 && sure.fires < 1e-38 && sure.gradient[0] < 1e-38);
    }

    #[test]
    fn gradients_match_central_differences() {
        for outputs in [
            [0.3, -1.2, 0.4],
            [-2.0, 0.1, -0.6],
            [0.1, 0.2, 2.7],
            [0.4, 0.9, -4.5],
            [5.0, 0.0, 0.0],
        ] {
            for strength in [None, Some(0.7), Some(-1.1)] {
                let sum = |outputs: &[f64]| {
                    let loss = HURDLE.unit([outputs[0], outputs[1], outputs[2]], strength);
                    loss.fires + loss.strength + loss.penalty
                };
                let expected = numeric_gradient(&outputs, 1e-5, sum);
                assert_close(&HURDLE.unit(outputs, strength).gradient, &expected, 1e-6);
            }
        }
    }
}
