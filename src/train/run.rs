//! The training of a run folder from its first step or its last checkpoint to its end: steps,
//! validations, checkpoints, models, pictures.

use std::time::{Duration, Instant};

use super::checkpoint::{self, Checkpoint, Header};
use super::folder::RunFolder;
pub use super::found::Found;
use super::log::Log;
use super::trainer::{Finished, Trainer};
use crate::device::Device;
use crate::error::{Error, ErrorKind as Kind, Result};
use crate::model::{self, Graph};
use crate::spec::Config;

/// The model of the best validation.
pub const BEST: &str = "best.safetensors";

/// What a run does beside its steps.
pub trait Task {
    /// The result of a validation.
    type Found: Found;

    /// Validates the model as it is.
    ///
    /// # Errors
    /// When an image cannot be read any more, or the device fails.
    fn validate(&mut self, device: &mut Device) -> Result<Self::Found>;

    /// Writes what the finished run has to show beside its model; returns the files' names.
    ///
    /// # Errors
    /// When the device fails, or a file cannot be written.
    fn conclude(
        &mut self,
        _device: &mut Device,
        _folder: &RunFolder,
        _last: &Self::Found,
    ) -> Result<Vec<&'static str>> {
        Ok(Vec::new())
    }

    /// Whether the finished model is the one of the best validation, not the last one. Of equal
    /// ones the later is better then, since the learning rate has fallen.
    fn keeps_best(&self) -> bool {
        false
    }

    /// Whether the model is also validated before the first step.
    fn validates_start(&self) -> bool {
        false
    }

    /// Whether scores do not tell better from worse, so that the last validation counts as the
    /// best.
    fn last_is_best(&self) -> bool {
        false
    }
}

/// A run under way.
#[derive(Debug)]
pub struct Run<'a, T> {
    folder: RunFolder,
    config: &'a Config,
    graph: &'a Graph,
    /// Its training.
    pub trainer: Trainer<'a>,
    /// Its validation.
    pub task: T,
    /// The score of the best validation, and its step.
    best: Option<(f64, u64)>,
    /// Validations since the best one.
    stale: u32,
    /// Whether it ended before its last step, because validations stopped improving.
    ended_early: bool,
    data: u64,
    validate_every: u64,
    validated: bool,
    saved_at: Instant,
}

/// What a finished run has to show.
#[derive(Debug)]
pub struct Summary<F> {
    /// The last validation.
    pub found: F,
    /// Step of the best validation.
    pub best_step: Option<u64>,
    /// How fast it went, in this process.
    pub finished: Finished,
    /// Files written beside the model.
    pub files: Vec<&'static str>,
}

/// What follows a step.
enum Advance<F> {
    /// The next one.
    On,
    /// The end: it was the last one, and this is its validation.
    Last(Box<F>),
    /// Nothing: all steps are done, and every value is a number.
    End,
    /// A stop that was asked for.
    Stop,
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome<F> {
    /// With its last step.
    Finished(Box<Summary<F>>),
    /// It was asked to stop, and did after so many steps, with a checkpoint.
    Stopped(u64),
}

impl<'a, T: Task> Run<'a, T> {
    /// Begins a run, or goes on from a checkpoint of it. `data` is the hash of its images.
    ///
    /// # Errors
    /// When the checkpoint is of other images or of another model.
    pub fn begin(
        device: &mut Device,
        folder: &RunFolder,
        config: &'a Config,
        (mut trainer, task): (Trainer<'a>, T),
        data: u64,
        from: Option<&Checkpoint>,
    ) -> Result<Self> {
        let validate_every =
            (config.train.validate_every * trainer.steps_per_epoch as f64).round() as u64;
        let (mut best, mut validated, mut stale, mut ended_early) = (None, false, 0, false);
        if let Some(checkpoint) = from {
            let header = &checkpoint.header;
            if header.data != data {
                crate::bail_usage!(
                    "{}: the images are not those that the run began with; put them back, or begin \
                     another run",
                    config.data.source
                );
            }
            trainer.restore(device, checkpoint)?;
            let score = header.best.map(|loss| -f64::from_bits(loss));
            best = score.map(|score| (score, header.best_step));
            (stale, ended_early) = (header.stale, header.ended_early);
            // A checkpoint comes after the validation of its step.
            validated = header.step == header.total
                || (validate_every > 0 && header.step.is_multiple_of(validate_every));
        }
        Ok(Self {
            folder: folder.clone(),
            config,
            graph: trainer.graph(),
            trainer,
            task,
            best,
            stale,
            ended_early,
            data,
            validate_every,
            validated,
            saved_at: Instant::now(),
        })
    }

    /// The folder that was made after all, where another run has taken the one that was meant.
    pub fn settle_in(&mut self, folder: &RunFolder) {
        self.folder = folder.clone();
    }

    /// Trains to the end, or until `stop` says so, which is asked after each step.
    pub fn train(
        &mut self,
        device: &mut Device,
        log: &mut Log,
        stop: &dyn Fn() -> bool,
    ) -> Result<Outcome<T::Found>> {
        self.work(device, log, stop).map_err(|error| match error.kind {
            Kind::Adapter => self.after_fault(error),
            Kind::Data => self.after_loss(error, device, log),
            _ => error,
        })
    }

    /// Keeps the steps done when an image could not be read any more, and says how to go on.
    fn after_loss(&mut self, error: Error, device: &mut Device, log: &mut Log) -> Error {
        log.finish();
        let Trainer { done, total, .. } = self.trainer;
        let error = error.at(format!("after step {done} of {total}"));
        let kept = if done == 0 {
            Ok(())
        } else {
            self.capture(device, log).and_then(|checkpoint| self.save(checkpoint, log))
        };
        if let Err(other) = kept {
            return error.and(format!("nor could the steps be kept: {other}"));
        }
        let kept = if done == 0 {
            String::new()
        } else {
            format!("{} holds the steps done; ", self.folder.checkpoint(done).display())
        };
        error.and(format!(
            "{kept}put the file back, then go on with: csae resume {}",
            self.folder.path().display()
        ))
    }

    /// At which step an adapter failed, and what is left.
    fn after_fault(&self, error: Error) -> Error {
        let Trainer { done, total, .. } = self.trainer;
        let error = error.at(format!("after step {done} of {total}"));
        match self.folder.newest() {
            Ok(Some(last)) => error.and(format!(
                "{} is kept, go on with: csae resume {}",
                last.display(),
                self.folder.path().display()
            )),
            _ => error.and("there was no checkpoint yet"),
        }
    }

    fn work(
        &mut self,
        device: &mut Device,
        log: &mut Log,
        stop: &dyn Fn() -> bool,
    ) -> Result<Outcome<T::Found>> {
        let mut last = None;
        self.saved_at = Instant::now();
        if !self.folder.rollback().exists() {
            self.keep_rollback(device, log)?;
        }
        if self.trainer.done == 0 && self.task.validates_start() {
            self.validate(device, log)?;
        }
        loop {
            let step = if self.trainer.done < self.trainer.total && !self.ended_early {
                self.advance(device, log, stop)
            } else {
                // What no checkpoint could hold is no result.
                self.capture(device, log).map(|_| Advance::End)
            };
            match step {
                Ok(Advance::On) => {}
                Ok(Advance::Last(found)) => last = Some(*found),
                Ok(Advance::End) => break,
                Ok(Advance::Stop) => {
                    log.finish();
                    return Ok(Outcome::Stopped(self.trainer.done));
                }
                Err(error) => self.go_back(device, log, error)?,
            }
        }
        let finished = self.trainer.finish(device)?;
        log.finish();
        let found = match last {
            Some(found) => found,
            None if self.validated => self.task.validate(device)?,
            None => self.validate(device, log)?,
        };
        // It holds the last state, and is written last: where it is, the rest is complete.
        let checkpoint = self.capture(device, log)?;
        if self.task.keeps_best() && self.best.is_some() {
            let best = model::load(&self.folder.file(BEST))?;
            best.copy_matching(device, self.graph, &self.trainer.store)?;
        }
        let model = self.folder.file("model.safetensors");
        model::save(&model, device, self.graph, &self.trainer.store)?;
        let files = self.task.conclude(device, &self.folder, &found)?;
        self.save(checkpoint, log)?;
        let best_step = self.best.map(|(_, step)| step);
        Ok(Outcome::Finished(Box::new(Summary { found, best_step, finished, files })))
    }

    /// A step, and the validation and the checkpoint that are due after it.
    fn advance(
        &mut self,
        device: &mut Device,
        log: &mut Log,
        stop: &dyn Fn() -> bool,
    ) -> Result<Advance<T::Found>> {
        self.trainer.step(device, log)?;
        let (done, mut ended) = (self.trainer.done, self.trainer.done == self.trainer.total);
        self.validated =
            ended || (self.validate_every > 0 && done.is_multiple_of(self.validate_every));
        let mut found = None;
        if self.validated {
            let best = self.best;
            let report = self.untimed(device, |run, device| run.validate(device, log))?;
            self.check_fall(best.map(|(score, _)| score), &report)?;
            // A state that is worse than others, or than none, would be a bad one to go on from.
            if self.best != best && report.is_sound() {
                self.untimed(device, |run, device| run.keep_rollback(device, log))?;
            }
            let patience = self.config.train.patience;
            self.ended_early = !ended && patience > 0 && self.stale as usize >= patience;
            ended |= self.ended_early;
            found = Some(report);
        }
        let stopping = stop();
        if !ended && (stopping || self.due()) {
            self.untimed(device, |run, device| {
                let checkpoint = run.capture(device, log)?;
                run.save(checkpoint, log)
            })?;
        }
        Ok(match found {
            Some(report) if ended => Advance::Last(Box::new(report)),
            _ if stopping && !ended => Advance::Stop,
            _ => Advance::On,
        })
    }

    /// Fails if a model that may go back has become far worse than it was at best.
    fn check_fall(&self, best: Option<f64>, found: &T::Found) -> Result<()> {
        let best = best.filter(|_| self.config.train.retries > 0);
        match best.and_then(|best| found.fallen(best)) {
            Some(what) => {
                let what = format!("after step {}: {what}", self.trainer.done);
                Err(Error::failed(what).of(Kind::Diverged))
            }
            None => Ok(()),
        }
    }

    /// Keeps the state of a training that may go back: at its start, and after each validation that
    /// is the best so far. A checkpoint would not do, which may come at any moment, also after the
    /// numbers have begun to run away.
    fn keep_rollback(&mut self, device: &mut Device, log: &mut Log) -> Result<()> {
        if self.config.train.retries == 0 {
            return Ok(());
        }
        let state = self.capture(device, log)?;
        checkpoint::save(&self.folder.rollback(), &state)
    }

    /// Goes back to the best validation, or the start, where the training diverged and may.
    fn go_back(&mut self, device: &mut Device, log: &mut Log, error: Error) -> Result<()> {
        let retries = self.config.train.retries;
        if error.kind != Kind::Diverged || retries == 0 {
            return Err(error);
        }
        if self.trainer.schedule.retried >= retries {
            return Err(error.and(format!("the learning rate was halved {retries} times")));
        }
        let from = self.trainer.done;
        let state = checkpoint::load(&self.folder.rollback())?;
        self.trainer.go_back(device, &state)?;
        log.sync()?;
        let (done, retried) = (self.trainer.done, self.trainer.schedule.retried);
        self.folder.cut_log(done, retried)?;
        log.went_back(from, done, retried, &error)?;
        // Checkpoints of the way that led nowhere.
        self.folder.remove_after(done)?;
        let checkpoint = self.capture(device, log)?;
        self.save(checkpoint, log)
    }

    /// Whether a checkpoint is due by steps or by the clock.
    fn due(&self) -> bool {
        let train = &self.config.train;
        let by_steps =
            train.checkpoint_every > 0 && self.trainer.done.is_multiple_of(train.checkpoint_every);
        let minutes = train.checkpoint_minutes;
        by_steps
            || (minutes > 0.0
                && self.saved_at.elapsed() >= Duration::from_secs_f64((minutes * 60.0).min(1e9)))
    }

    /// Does something that is not training, off the clock.
    fn untimed<R>(
        &mut self,
        device: &mut Device,
        work: impl FnOnce(&mut Self, &mut Device) -> Result<R>,
    ) -> Result<R> {
        device.wait()?;
        let start = Instant::now();
        let made = work(self, device)?;
        self.trainer.pause(start.elapsed());
        Ok(made)
    }

    /// Validates the model, logs the result, and keeps the model if it is the best so far.
    fn validate(&mut self, device: &mut Device, log: &mut Log) -> Result<T::Found> {
        // First what was logged before, so that the order of the lines is always the same.
        self.trainer.settle(device, log)?;
        let found = self.task.validate(device)?;
        let score = found.score();
        let better = |best: f64| {
            score > best || (score == best && self.task.keeps_best()) || self.task.last_is_best()
        };
        let best = score.is_finite() && self.best.is_none_or(|(best, _)| better(best));
        log.validation(self.trainer.done, self.trainer.epoch(), &found)?;
        self.stale = if best { 0 } else { self.stale + 1 };
        if best {
            self.best = Some((score, self.trainer.done));
            model::save(&self.folder.file(BEST), device, self.graph, &self.trainer.store)?;
        }
        Ok(found)
    }

    fn capture(&mut self, device: &mut Device, log: &mut Log) -> Result<Checkpoint> {
        let mut checkpoint = self.trainer.capture(device, log)?;
        checkpoint.header = Header {
            config: checkpoint::config_hash(self.config),
            data: self.data,
            device: device.identity(),
            best: self.best.map(|(score, _)| (-score).to_bits()),
            best_step: self.best.map_or(0, |(_, step)| step),
            stale: self.stale,
            ended_early: self.ended_early,
            retried: self.trainer.schedule.retried,
            ..checkpoint.header
        };
        Ok(checkpoint)
    }

    /// Writes a checkpoint, after the log of its steps, and removes those too many.
    fn save(&mut self, checkpoint: Checkpoint, log: &mut Log) -> Result<()> {
        log.sync()?;
        let step = checkpoint.header.step;
        checkpoint::save(&self.folder.checkpoint(step), &checkpoint)?;
        self.trainer.saved(step);
        self.folder.prune(self.config.train.keep)?;
        self.saved_at = Instant::now();
        Ok(())
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
