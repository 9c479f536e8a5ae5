//! Schedules of the learning rate and of the sparsity factor.

use crate::error::Result;
use crate::spec::{Config, OptimizerSpec, ScheduleName, ScheduleSpec};
use crate::view::StepParams;

/// Computes the parameters that vary from step to step.
#[derive(Clone, Debug)]
pub struct Schedule {
    schedule: ScheduleSpec,
    optimizer: OptimizerSpec,
    seed: u64,
    steps_per_epoch: f64,
    total: u64,
    sparsity_warmup: f64,
    /// Number of times that the rate was halved because training diverged.
    pub retried: u32,
}

impl Schedule {
    /// Creates the schedule of a run of `total` steps.
    pub fn new(config: &Config, steps_per_epoch: usize, total: u64) -> Result<Self> {
        Ok(Self {
            schedule: config.schedule.clone(),
            optimizer: config.optimizer.clone(),
            seed: config.seed,
            steps_per_epoch: steps_per_epoch as f64,
            total,
            sparsity_warmup: in_steps(
                config.sparsity.warmup_steps,
                config.sparsity.warmup_epochs,
                steps_per_epoch as f64,
            ),
            retried: 0,
        })
    }

    /// Factor on the peak learning rate at a step, counted from 0.
    pub fn factor(&self, step: u64) -> f64 {
        let s = &self.schedule;
        let warmup = in_steps(s.warmup_steps, s.warmup_epochs, self.steps_per_epoch);
        let at = step as f64;
        let rising = if at < warmup { (at + 1.0) / warmup.max(1.0) } else { 1.0 };
        let progress = (at / (self.total.max(2) - 1) as f64).min(1.0);
        let cosine = |from: f64, to: f64, x: f64| {
            to + (from - to) * 0.5 * (1.0 + (std::f64::consts::PI * x).cos())
        };
        let shape = match s.kind {
            ScheduleName::Constant => 1.0,
            ScheduleName::Step => {
                s.gamma.powf((at / (s.every_epochs * self.steps_per_epoch)).floor())
            }
            ScheduleName::Cosine => {
                let span = (self.total as f64 - 1.0 - warmup).max(1.0);
                cosine(1.0, s.floor, ((at - warmup).max(0.0) / span).min(1.0))
            }
            ScheduleName::HalfCosine => cosine(1.0, s.floor, at / self.total.max(1) as f64),
            // Smith, "A disciplined approach to neural network hyper-parameters", 2018: from 1/25
            // of the peak up to the peak, then down to the floor.
            ScheduleName::OneCycle if progress < s.rise => cosine(0.04, 1.0, progress / s.rise),
            ScheduleName::OneCycle => cosine(1.0, s.floor, (progress - s.rise) / (1.0 - s.rise)),
        };
        rising.min(1.0) * shape * 0.5_f64.powi(self.retried as i32)
    }

    /// The learning rate at a step, counted from 0.
    pub fn lr(&self, step: u64) -> f64 {
        self.optimizer.lr * self.factor(step)
    }

    /// The step's uniforms, without its position in the data.
    pub fn params(&self, step: u64) -> StepParams {
        let [beta1, beta2] = self.optimizer.betas;
        let t = (step + 1).min(1 << 24) as i32;
        let sparsity_scale = if self.sparsity_warmup > 0.0 {
            ((step + 1) as f64 / self.sparsity_warmup).min(1.0)
        } else {
            1.0
        };
        StepParams {
            step: step as u32,
            seed_lo: self.seed as u32,
            seed_hi: (self.seed >> 32) as u32,
            lr: self.lr(step) as f32,
            correction1: (1.0 - beta1.powi(t)) as f32,
            correction2: (1.0 - beta2.powi(t)) as f32,
            sparsity_scale: sparsity_scale as f32,
            ..StepParams::default()
        }
    }
}

/// Length of a span given in steps or, if `steps` is 0, in epochs.
fn in_steps(steps: u64, epochs: f64, steps_per_epoch: f64) -> f64 {
    if steps > 0 { steps as f64 } else { epochs * steps_per_epoch }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(set: &[&str]) -> Schedule {
        let sets: Vec<String> =
            ["schedule.warmup_epochs=0"].iter().chain(set).map(|s| (*s).to_owned()).collect();
        let config =
            Config::parse(crate::spec::preset_text("sparse").unwrap(), "w1", &sets).unwrap();
        Schedule::new(&config, 10, 100).unwrap()
    }

    #[test]
    fn rates_follow_their_shapes() {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        let s = schedule(&["schedule.kind=constant", "schedule.warmup_epochs=1"]);
        assert!(near(s.factor(0), 0.1) && near(s.factor(9), 1.0) && near(s.factor(99), 1.0));
        let s = schedule(&["schedule.kind=step", "schedule.every_epochs=3", "schedule.gamma=0.5"]);
        assert!(near(s.factor(29), 1.0) && near(s.factor(30), 0.5) && near(s.factor(99), 0.125));
        let s = schedule(&["schedule.kind=cosine", "schedule.floor=0.1"]);
        assert!(near(s.factor(0), 1.0) && near(s.factor(99), 0.1) && s.factor(50) < 0.6);
        let s = schedule(&["schedule.kind=half_cosine", "schedule.warmup_steps=10"]);
        assert!(near(s.factor(0), 0.1) && near(s.factor(50), 0.5) && s.factor(99) < 1e-3);
        let s = schedule(&["schedule.kind=one_cycle"]);
        assert!(near(s.factor(0), 0.04) && s.factor(30) > 0.99 && s.factor(99) < 1e-6);
        let s = schedule(&["sparsity.warmup_epochs=2"]);
        let halved = Schedule { retried: 2, ..s.clone() };
        assert!(near(halved.factor(50), 0.25 * s.factor(50)));
        assert!(
            (s.params(0).sparsity_scale - 0.05).abs() < 1e-6
                && (s.params(19).sparsity_scale - 1.0).abs() < 1e-6
        );
    }
}
