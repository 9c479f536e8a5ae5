//! The losses of steps: read back, checked and logged.

use std::time::{Duration, Instant};

use super::log::{Log, Progress};
use super::step::WIDTH;
use super::trainer::Trainer;
use crate::device::Device;
use crate::error::{Error, ErrorKind as Kind, Result};

impl Trainer<'_> {
    /// The error of a training that diverged in a step.
    pub(super) fn diverged(&self, step: u64, what: &str) -> Error {
        let kept = self
            .saved
            .map_or(String::new(), |step| format!("; the checkpoint after {step} steps is kept"));
        let lr = self.schedule.params(step).lr;
        let scale = self.half.map_or(String::new(), |scale| {
            format!(", or a smaller train.loss_scale (now {scale})")
        });
        let error = Error::failed(format!(
            "step {step}: the {what}; lower optimizer.lr (now {lr:e}) or set \
             optimizer.clip_norm{scale}{kept}"
        ));
        error.of(Kind::Diverged)
    }

    /// Returns a step's rows in the ring, one for each part.
    pub(super) fn rows<'r>(&self, step: u64, ring: &'r [f32]) -> &'r [f32] {
        let width = self.parts * WIDTH;
        &ring[(step % self.slots) as usize * width..][..width]
    }

    /// Returns a step's losses averaged over the parts of its batch. Fails if a loss is not finite.
    pub(super) fn check(&self, step: u64, ring: &[f32]) -> Result<[f64; WIDTH]> {
        let mut values = [0.0; WIDTH];
        for row in self.rows(step, ring).chunks_exact(WIDTH) {
            values
                .iter_mut()
                .zip(row)
                .for_each(|(mean, value)| *mean += f64::from(*value) / self.parts as f64);
        }
        for (name, index) in &self.terms[..self.losses] {
            let what = match *name {
                "reconstruction" => "reconstruction loss",
                "sparsity" => "sparsity penalty",
                other => other,
            };
            let index = *index;
            if !values[index].is_finite() {
                return Err(self.diverged(step, &format!("{what} became {}", values[index])));
            }
        }
        Ok(values)
    }

    /// Waits for the losses of the last interval and logs them. Fails if a loss is not finite.
    /// Afterwards the log holds all complete intervals.
    pub fn flush_losses(&mut self, device: &mut Device, log: &mut Log) -> Result<()> {
        let Some((from, to, pending)) = self.pending.take() else { return Ok(()) };
        let scalars = device.collect(pending)?;
        self.shown = true;
        let progress = self.progress(from, to, &scalars)?;
        self.interval = Instant::now();
        log.progress(&progress)
    }

    /// Shows the progress once before the first interval is complete, if that takes long. It is not
    /// logged.
    pub(super) fn show_early(&mut self, device: &mut Device, log: &Log) -> Result<()> {
        /// What people wait for without doubt.
        const SOON: Duration = Duration::from_secs(3);
        if self.shown || self.interval.elapsed() < SOON || self.logged == self.done {
            return Ok(());
        }
        self.shown = true;
        if log.shows_progress() {
            let scalars = device.read(*self.scalars)?;
            log.show(&self.progress(self.logged, self.done, &scalars)?);
        }
        Ok(())
    }

    /// The progress of steps that have just been done.
    fn progress(&self, from: u64, to: u64, scalars: &[f32]) -> Result<Progress> {
        let mut means = [0.0_f64; WIDTH];
        for step in from..to {
            let values = self.check(step, scalars)?;
            means
                .iter_mut()
                .zip(values)
                .for_each(|(mean, value)| *mean += value / (to - from) as f64);
        }
        let mut terms: Vec<(&'static str, f64)> =
            self.terms.iter().map(|(name, index)| (*name, means[*index])).collect();
        if !self.inputs.labels.is_empty() && self.losses > 1 {
            terms.insert(0, ("loss", means[..self.losses].iter().sum()));
        }
        let seconds = self.interval.elapsed().as_secs_f64().max(1e-9);
        // Steps of an earlier process did not take time in this interval.
        let rate = ((to - from.max(self.first)) * self.batch as u64) as f64 / seconds;
        Ok(Progress {
            step: to,
            total: self.total,
            epoch: to as f64 / self.steps_per_epoch as f64,
            terms,
            lr: f64::from(self.schedule.params(to - 1).lr),
            rate,
            eta: Duration::from_secs_f64((self.total - to) as f64 * self.batch as f64 / rate),
        })
    }
}
