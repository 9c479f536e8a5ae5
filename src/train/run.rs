//! A run in its folder, started or resumed: training steps, validations, checkpoints, models,
//! pictures.

use std::time::{Duration, Instant};

use super::checkpoint::{self, Checkpoint, Header};
use super::folder::RunFolder;
use super::log::Log;
use super::trainer::{Finished, Trainer};
pub use super::validation_result::ValidationResult;
use crate::device::Device;
use crate::error::{Error, ErrorKind as Kind, Result};
use crate::files::Partial;
use crate::model::{self, Graph};
use crate::report::events::Events;
use crate::report::runs::{self, RunFiles, State};
use crate::spec::{Config, LossName};

#[path = "run_errors.rs"]
mod errors;
#[path = "run_pages.rs"]
mod pages;

use pages::Pictures;

/// File name of the model with the best validation.
pub const BEST: &str = "best.safetensors";

/// Task-specific part of a run.
pub trait Task {
    /// The result of a validation.
    type Validation: ValidationResult;

    /// What the data come from, for the message about a resumed run whose data differ.
    const DATA: &'static str = "images";

    /// Validates the current model.
    ///
    /// # Errors
    /// If an image can no longer be read, or the device fails.
    fn validate(&mut self, device: &mut Device) -> Result<Self::Validation>;

    /// Writes pictures of the current model and returns their names. `last` is a recent validation.
    ///
    /// # Errors
    /// If the device fails, or a file cannot be written.
    fn pictures(
        &mut self,
        _device: &mut Device,
        _folder: &RunFolder,
        _last: &Self::Validation,
    ) -> Result<Vec<&'static str>> {
        Ok(Vec::new())
    }

    /// Writes the task's result files at the end of a run and returns their names.
    ///
    /// # Errors
    /// If the device fails, or a file cannot be written.
    fn conclude(
        &mut self,
        device: &mut Device,
        folder: &RunFolder,
        last: &Self::Validation,
    ) -> Result<Vec<&'static str>> {
        self.pictures(device, folder, last)
    }

    /// Whether the final model is the one with the best validation instead of the last one. Among
    /// equal scores the later model is kept, because its learning rate is lower.
    fn keeps_best(&self) -> bool {
        false
    }

    /// Whether to validate the model before the first step, too.
    fn validates_start(&self) -> bool {
        false
    }

    /// Whether scores of different validations are not comparable. The last validation then counts
    /// as the best.
    fn last_is_best(&self) -> bool {
        false
    }
}

/// A run in progress.
#[derive(Debug)]
pub struct Run<'a, T: Task> {
    folder: RunFolder,
    config: &'a Config,
    graph: &'a Graph,
    /// Runs the training steps.
    pub trainer: Trainer<'a>,
    /// Validates the model and writes the results.
    pub task: T,
    /// Score and step of the best validation.
    best: Option<(f64, u64)>,
    /// Number of validations since the best one.
    stale: u32,
    /// Whether the run stopped before its last step because validations stopped improving.
    ended_early: bool,
    data: u64,
    validate_every: u64,
    validated: bool,
    saved_at: Instant,
    /// The table and charts of the log, created when the folder is certain.
    files: Option<RunFiles>,
    /// Pictures during the training.
    pictures: Pictures,
    /// The last validation in this process, until it is used.
    latest: Option<T::Validation>,
    /// Whether to write event files for TensorBoard.
    writes_events: bool,
    /// The event file, created when the folder is certain.
    events: Option<Events>,
}

/// A checkpoint in its temporary file.
struct Staged {
    step: u64,
    file: Partial,
}

/// Results of a finished run.
#[derive(Debug)]
pub struct Summary<F> {
    /// Result of the last validation.
    pub found: F,
    /// Step of the best validation.
    pub best_step: Option<u64>,
    /// Timing of the steps in this process.
    pub finished: Finished,
    /// Names of files written beside the model.
    pub files: Vec<&'static str>,
}

/// Result of [`Run::advance`].
enum Advance<F> {
    /// Continue with the next step.
    Continue,
    /// That was the last step; holds its validation.
    Finished(Box<F>),
    /// All steps are done already, and every value is finite.
    AlreadyFinished,
    /// Stop, because the caller asked for it.
    Stopped,
}

/// Outcome of [`Run::train`].
#[derive(Debug)]
pub enum Outcome<F> {
    /// The run is finished.
    Finished(Box<Summary<F>>),
    /// The run was stopped after this number of steps, and a checkpoint was written.
    Stopped(u64),
}

impl<'a, T: Task> Run<'a, T> {
    /// Starts a run, or resumes it from a checkpoint. `data` is the hash of its images.
    ///
    /// # Errors
    /// If the checkpoint belongs to other images or another model.
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
                    "{}: the {} differ from those the run started with; restore them, or start a \
                     new run",
                    config.data.source,
                    T::DATA
                );
            }
            trainer.restore(device, checkpoint)?;
            let score = header.best.map(|loss| -f64::from_bits(loss));
            best = score.map(|score| (score, header.best_step));
            (stale, ended_early) = (header.stale, header.ended_early);
            // A checkpoint is written after the validation of its step.
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
            files: None,
            pictures: Pictures::new(),
            latest: None,
            writes_events: false,
            events: None,
        })
    }

    /// Meets the other processes of the training, if there are any, before the first step. Returns
    /// whether this process leads. If not, [`Run::follow`] comes next instead of [`Run::train`].
    ///
    /// # Errors
    /// If another process failed, or trains something else.
    pub fn join(&mut self, device: &mut Device) -> Result<bool> {
        let Some(group) = device.ranks() else { return Ok(true) };
        let facts = [
            ("version of csae", env!("CARGO_PKG_VERSION").to_owned()),
            ("configuration", format!("{:x}", checkpoint::config_hash(self.config))),
            ("number of steps", self.trainer.total.to_string()),
            ("set of training data", format!("{:x}", self.data)),
        ];
        self.trainer.join(device, &facts)?;
        Ok(group.leads())
    }

    /// Follows the process that leads, to its end. Returns the exit status that it asks for.
    ///
    /// # Errors
    /// If a process fails.
    pub fn follow(&mut self, device: &mut Device) -> Result<u8> {
        self.trainer.follow(device)
    }

    /// Changes the folder, if another run took the chosen one before this run created it.
    pub fn set_folder(&mut self, folder: &RunFolder) {
        self.folder = folder.clone();
    }

    /// Writes pictures at the end only, not while the run trains or when it stops.
    pub const fn only_final_pictures(&mut self) {
        self.pictures.turn_off();
    }

    /// Writes event files for TensorBoard. A run that has such files writes them anyway.
    pub const fn write_events(&mut self) {
        self.writes_events = true;
    }

    /// Trains to the end, or until `stop` returns true; `stop` is called after each step.
    pub fn train(
        &mut self,
        device: &mut Device,
        log: &mut Log,
        stop: &dyn Fn() -> bool,
    ) -> Result<Outcome<T::Validation>> {
        let outcome = self.work(device, log, stop).map_err(|error| match error.kind {
            Kind::Adapter => self.after_adapter_error(error),
            Kind::Data => self.after_read_error(error, device, log),
            Kind::Rank => self.after_rank_error(error, device, log),

            _ => error,
        });
        if !matches!(outcome, Ok(Outcome::Finished(_))) {
            self.write_stopped_page(log);
        }
        outcome
    }

    fn work(
        &mut self,
        device: &mut Device,
        log: &mut Log,
        stop: &dyn Fn() -> bool,
    ) -> Result<Outcome<T::Validation>> {
        let mut last = None;
        self.saved_at = Instant::now();
        if self.writes_events || Events::exist(self.folder.path()) {
            self.events = Some(Events::begin(self.folder.path())?);
        }
        self.write_resumed_page(log);
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
                // Training on non-finite values must not finish: `capture` fails on them.
                self.capture(device, log).map(|_| Advance::AlreadyFinished)
            };
            match step {
                Ok(Advance::Continue) => {}
                Ok(Advance::Finished(found)) => last = Some(*found),
                Ok(Advance::AlreadyFinished) => break,
                Ok(Advance::Stopped) => {
                    log.finish();
                    return Ok(Outcome::Stopped(self.trainer.done));
                }
                Err(error) => self.roll_back(device, log, error)?,
            }
        }
        let finished = self.trainer.finish(device)?;
        log.finish();
        let found = match last {
            Some(found) => found,
            None if self.validated => self.task.validate(device)?,
            None => self.validate(device, log)?,
        };
        // This checkpoint holds the last state and gets its name last. If it exists, the run's
        // other files are complete. It is written now, so that it is not in memory beside the
        // model and the pictures.
        let checkpoint = self.stage(device, log)?;
        if self.task.keeps_best() && self.best.is_some() {
            let best = model::load(&self.folder.file(BEST))?;
            best.copy_matching(device, self.graph, &self.trainer.store)?;
        }
        let model = self.folder.file("model.safetensors");
        model::save(&model, device, self.graph, &self.trainer.store)?;
        let files = self.task.conclude(device, &self.folder, &found)?;
        self.files().write()?;
        self.write_new_events()?;
        if let Some(events) = &mut self.events {
            events.pictures(self.trainer.done, &files)?;
        }
        runs::write_page(self.folder.path(), State::Finished)?;
        self.publish(checkpoint, log)?;
        let best_step = self.best.map(|(_, step)| step);
        Ok(Outcome::Finished(Box::new(Summary { found, best_step, finished, files })))
    }

    /// Runs a step, then the validation and the checkpoint that are due after it.
    fn advance(
        &mut self,
        device: &mut Device,
        log: &mut Log,
        stop: &dyn Fn() -> bool,
    ) -> Result<Advance<T::Validation>> {
        self.trainer.step(device, log)?;
        if log.take_progress().is_some() {
            self.write_new_events()?;
        }
        let (done, mut ended) = (self.trainer.done, self.trainer.done == self.trainer.total);
        self.validated =
            ended || (self.validate_every > 0 && done.is_multiple_of(self.validate_every));
        let mut found = None;
        if self.validated {
            let best = self.best;
            let report = self.untimed(device, |run, device| run.validate(device, log))?;
            self.check_regression(best.map(|(score, _)| score), &report)?;
            // Do not roll back to a state that is worse than an earlier one or than no model at
            // all.
            if self.best != best && report.is_sound() {
                self.untimed(device, |run, device| run.keep_rollback(device, log))?;
            }
            let patience = self.config.train.patience;
            self.ended_early = !ended && patience > 0 && self.stale as usize >= patience;
            ended |= self.ended_early;
            if !ended {
                self.untimed(device, |run, device| {
                    run.draw(device, log, &report);
                    Ok(())
                })?;
            }
            found = Some(report);
        }
        let stopping = stop() || self.trainer.another_stops();
        if !ended && (stopping || self.due()) {
            self.untimed(device, |run, device| {
                let checkpoint = run.stage(device, log)?;
                run.publish(checkpoint, log)?;
                Ok(())
            })?;
        }
        if found.is_some() && !ended {
            self.latest = found.take();
        }
        if stopping && !ended {
            self.show_stopped(device, log)?;
        }
        Ok(match found {
            Some(report) if ended => Advance::Finished(Box::new(report)),
            _ if stopping && !ended => Advance::Stopped,
            _ => Advance::Continue,
        })
    }

    /// Fails if the validation is far worse than the best one, and rollbacks are enabled.
    fn check_regression(&self, best: Option<f64>, found: &T::Validation) -> Result<()> {
        let best = best.filter(|_| self.config.train.retries > 0);
        match best.and_then(|best| found.regression(best)) {
            Some(what) => {
                let what = format!("after step {}: {what}", self.trainer.done);
                Err(Error::failed(what).of(Kind::Diverged))
            }
            None => Ok(()),
        }
    }

    /// Saves the state for a rollback, at the start and after each validation that is the best so
    /// far. Checkpoints cannot serve for that: they can be written after training has begun to
    /// diverge.
    fn keep_rollback(&mut self, device: &mut Device, log: &mut Log) -> Result<()> {
        if self.config.train.retries == 0 {
            return Ok(());
        }
        let state = self.capture(device, log)?;
        checkpoint::save(&self.folder.rollback(), &state)
    }

    /// Rolls back to the best validation, or to the start, if training diverged and retries are
    /// left.
    fn roll_back(&mut self, device: &mut Device, log: &mut Log, error: Error) -> Result<()> {
        let retries = self.config.train.retries;
        if error.kind != Kind::Diverged || retries == 0 {
            return Err(error);
        }
        if self.trainer.schedule.retried >= retries {
            return Err(error.and(format!("the learning rate was halved {retries} times")));
        }
        let from = self.trainer.done;
        let state = checkpoint::load(&self.folder.rollback())?;
        self.trainer.roll_back(device, &state)?;
        log.sync()?;
        let (done, retried) = (self.trainer.done, self.trainer.schedule.retried);
        self.folder.cut_log(done, retried)?;
        log.rolled_back(from, done, retried, &error)?;
        // Later checkpoints belong to the discarded steps.
        self.folder.remove_after(done)?;
        let checkpoint = self.stage(device, log)?;
        self.publish(checkpoint, log)
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

    /// Runs work other than training and excludes its time from the timing.
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
    fn validate(&mut self, device: &mut Device, log: &mut Log) -> Result<T::Validation> {
        // First log the pending losses, so that the order of the lines is deterministic.
        self.trainer.flush_losses(device, log)?;
        let found = self.task.validate(device)?;
        let score = found.score();
        let better = |best: f64| {
            score > best || (score == best && self.task.keeps_best()) || self.task.last_is_best()
        };
        let best = score.is_finite() && self.best.is_none_or(|(best, _)| better(best));
        let (done, epoch) = (self.trainer.done, self.trainer.epoch());
        log.validation(done, epoch, &found, (best, device.allocated()))?;
        self.stale = if best { 0 } else { self.stale + 1 };
        if best {
            self.best = Some((score, self.trainer.done));
            model::save(&self.folder.file(BEST), device, self.graph, &self.trainer.store)?;
        }
        // Training goes on without charts.
        if let Err(error) = self.files().update() {
            log.say(&format!("note: {error}"));
        }
        Ok(found)
    }

    /// Writes what was logged since into the event file.
    fn write_new_events(&mut self) -> Result<()> {
        self.events.as_mut().map_or(Ok(()), Events::update)
    }

    /// The table and charts of the log.
    fn files(&mut self) -> &mut RunFiles {
        let squares = self.config.loss.kind == LossName::SumSquares;
        self.files.get_or_insert_with(|| RunFiles::new(self.folder.path(), squares))
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

    /// Writes a checkpoint of the steps done to a temporary file. Checks before that all processes
    /// have the same parameters.
    fn stage(&mut self, device: &mut Device, log: &mut Log) -> Result<Staged> {
        if let Some(other) = self.trainer.align(device)? {
            log.say(&format!(
                "note: {other} rounds differently, so it took the parameters of rank 0; use \
                 devices of one kind for results that can be repeated"
            ));
        }
        let checkpoint = self.capture(device, log)?;
        Self::staged(&self.folder, &checkpoint)
    }

    fn staged(folder: &RunFolder, checkpoint: &Checkpoint) -> Result<Staged> {
        let step = checkpoint.header.step;
        Ok(Staged { step, file: checkpoint::stage(&folder.checkpoint(step), checkpoint)? })
    }

    /// Writes a checkpoint.
    fn keep(&mut self, checkpoint: Checkpoint, log: &mut Log) -> Result<()> {
        let staged = Self::staged(&self.folder, &checkpoint)?;
        drop(checkpoint);
        self.publish(staged, log)
    }

    /// Writes the log of the steps done, gives the checkpoint its name, and removes old ones.
    fn publish(&mut self, checkpoint: Staged, log: &mut Log) -> Result<()> {
        log.sync()?;
        // Entries up to a checkpoint are not written again after a resume.
        self.write_new_events()?;
        let Staged { step, file } = checkpoint;
        file.finish()?;
        self.trainer.saved(step);
        self.folder.prune(self.config.train.keep)?;
        self.saved_at = Instant::now();
        Ok(())
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
