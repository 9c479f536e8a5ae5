//! The training of a run folder from its first step or its last checkpoint to its end: steps,
//! validations, checkpoints, models, pictures.

use std::time::{Duration, Instant};

use super::checkpoint::{self, Checkpoint, Header};
use super::data::Prepared;
use super::folder::RunFolder;
use super::log::Log;
use super::trainer::{Finished, Trainer};
use crate::data::{Images, Patch, Pixels, patches};
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::hash::Hash;
use crate::infer::batches::Inference;
use crate::infer::evaluate::{EvaluationReport, evaluate};
use crate::infer::restore::Restorer;
use crate::infer::whole_images;
use crate::model::{self, Graph};
use crate::report::gallery;
use crate::spec::Config;

/// A run under way.
#[derive(Debug)]
pub struct Run<'a> {
    folder: RunFolder,
    config: &'a Config,
    prepared: &'a Prepared,
    graph: &'a Graph,
    /// Its training.
    pub trainer: Trainer<'a>,
    inference: Inference<'a>,
    /// The model on whole images, where it restores them.
    restorer: Option<Restorer>,
    /// What validation looks at.
    chosen: Vec<Patch>,
    best: Option<f64>,
    data: u64,
    validate_every: u64,
    validated: bool,
    saved_at: Instant,
}

/// What a finished run has to show.
#[derive(Debug)]
pub struct Summary {
    /// The last validation.
    pub report: EvaluationReport,
    /// How fast it went, in this process.
    pub finished: Finished,
    /// Pictures written.
    pub pictures: Vec<&'static str>,
}

/// Decibels by which whole images may become worse than they were at best before a restorer counts
/// as diverged.
const FALL: f64 = 2.0;

/// What follows a step.
enum Advance {
    /// The next one.
    On,
    /// The end: it was the last one, and this is its validation.
    Last(Box<EvaluationReport>),
    /// Nothing: all steps are done, and every value is a number.
    End,
    /// A stop that was asked for.
    Stop,
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// With its last step.
    Finished(Box<Summary>),
    /// It was asked to stop, and did after so many steps, with a checkpoint.
    Stopped(u64),
}

/// Hash of the images to train and to validate on; of a streamed set, of the images' sizes alone.
fn data_hash(prepared: &Prepared) -> u64 {
    let whole = |hash: Hash, images: &Images| {
        hash.with(bytemuck::cast_slice(&images.table_words())).with(&images.bytes)
    };
    let hash = match &prepared.train {
        Pixels::Resident(images) => whole(Hash::default(), images),
        streamed @ Pixels::Streamed(_) => {
            let sizes: Vec<u64> =
                streamed.sizes().flat_map(|(h, w)| [h as u64, w as u64]).collect();
            Hash::default().with(bytemuck::cast_slice(&sizes))
        }
    };
    whole(hash, &prepared.validation).value()
}

impl<'a> Run<'a> {
    /// Lays out the training; `from` is the checkpoint to go on from.
    pub fn new(
        device: &mut Device,
        folder: &RunFolder,
        config: &'a Config,
        prepared: &'a Prepared,
        graph: &'a Graph,
        from: Option<&Checkpoint>,
    ) -> Result<Self> {
        let mut trainer = Trainer::new(device, config, graph, prepared)?;
        let validate_every =
            (config.train.validate_every * trainer.steps_per_epoch as f64).round() as u64;
        let data = data_hash(prepared);
        let (mut best, mut validated) = (None, false);
        if let Some(checkpoint) = from {
            let header = &checkpoint.header;
            if header.data != data {
                crate::bail_usage!(
                    "{}: the images are not those that the run began with; put them back, or begin another run",
                    config.data.source
                );
            }
            trainer.restore(device, checkpoint)?;
            best = header.best.map(f64::from_bits);
            // A checkpoint comes after the validation of its step.
            validated = header.step == header.total
                || (validate_every > 0 && header.step.is_multiple_of(validate_every));
        }
        let dims = prepared.dims;
        let chosen = patches::grid(
            &prepared.validation,
            dims.h,
            dims.w,
            config.data.validation_patches,
            config.seed,
        );
        let mut inference = Inference::new(graph, &trainer.store);
        inference.degradation =
            (!config.corruption.is_none()).then(|| (config.corruption.clone(), config.seed));
        // A model that works on images of one size alone is judged on patches.
        let restorer =
            whole_images::validation_restorer(config, graph, &trainer.store, &prepared.validation);
        trainer.memory.validation =
            prepared.validation.held_bytes() + inference.prepare(device, chosen.len())?;
        Ok(Self {
            folder: folder.clone(),
            config,
            prepared,
            graph,
            trainer,
            inference,
            restorer,
            chosen,
            best,
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
    ) -> Result<Outcome> {
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
    ) -> Result<Outcome> {
        let mut last = None;
        self.saved_at = Instant::now();
        if !self.folder.rollback().exists() {
            self.keep_rollback(device, log)?;
        }
        loop {
            let step = if self.trainer.done < self.trainer.total {
                self.advance(device, log, stop)
            } else {
                // What no checkpoint could hold is no result.
                self.capture(device, log).map(|_| Advance::End)
            };
            match step {
                Ok(Advance::On) => {}
                Ok(Advance::Last(report)) => last = Some(*report),
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
        let report = match last {
            Some(report) => report,
            None if self.validated => self.evaluate(device)?,
            None => self.validate(device, log)?,
        };
        // The last checkpoint comes last: where it is, the rest is whole.
        let checkpoint = self.capture(device, log)?;
        let Self { folder, prepared, inference, chosen, config, .. } = self;
        model::save(&folder.file("model.safetensors"), device, self.graph, &self.trainer.store)?;
        let mut pictures = gallery::write(
            folder.path(),
            device,
            inference,
            &prepared.validation,
            chosen,
            &report,
        )?;
        if let Some(restorer) = &self.restorer {
            let corruption = (&config.corruption, config.seed);
            let images = &prepared.validation;
            pictures
                .insert(0, gallery::restored(folder.path(), device, restorer, images, corruption)?);
            pictures.extend(gallery::codes(folder.path(), device, restorer, images, corruption)?);
        }
        self.save(checkpoint, log)?;
        Ok(Outcome::Finished(Box::new(Summary { report, finished, pictures })))
    }

    /// A step, and the validation and the checkpoint that are due after it.
    fn advance(
        &mut self,
        device: &mut Device,
        log: &mut Log,
        stop: &dyn Fn() -> bool,
    ) -> Result<Advance> {
        self.trainer.step(device, log)?;
        let (done, ended) = (self.trainer.done, self.trainer.done == self.trainer.total);
        self.validated =
            ended || (self.validate_every > 0 && done.is_multiple_of(self.validate_every));
        let mut found = None;
        if self.validated {
            let best = self.best;
            let report = self.untimed(device, |run, device| run.validate(device, log))?;
            self.check_fall(best, &report)?;
            // A state that is worse than others, or than none, would be a bad one to go on from.
            if self.best != best && report.whole.is_none_or(|whole| whole.psnr > whole.psnr_before)
            {
                self.untimed(device, |run, device| run.keep_rollback(device, log))?;
            }
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

    /// Fails if a restorer that may go back has become far worse than it was at best.
    fn check_fall(&self, best: Option<f64>, report: &EvaluationReport) -> Result<()> {
        let psnr = report.whole.map(|whole| whole.psnr).filter(|_| self.config.train.retries > 0);
        match psnr.zip(best) {
            Some((psnr, best)) if psnr < -best - FALL => {
                let what = format!(
                    "after step {}: whole images have {psnr:.2} dB, {:.2} at best",
                    self.trainer.done, -best
                );
                Err(Error::failed(what).of(Kind::Diverged))
            }
            _ => Ok(()),
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
    fn untimed<T>(
        &mut self,
        device: &mut Device,
        work: impl FnOnce(&mut Self, &mut Device) -> Result<T>,
    ) -> Result<T> {
        device.wait()?;
        let start = Instant::now();
        let made = work(self, device)?;
        self.trainer.pause(start.elapsed());
        Ok(made)
    }

    fn evaluate(&mut self, device: &mut Device) -> Result<EvaluationReport> {
        let mut report =
            evaluate(device, &mut self.inference, &self.prepared.validation, &self.chosen)?;
        if let Some(restorer) = &self.restorer {
            let corruption = (&self.config.corruption, self.config.seed);
            report.whole =
                Some(whole_images::score(device, restorer, &self.prepared.validation, corruption)?);
        }
        Ok(report)
    }

    /// Judges the model, logs it, and keeps it if it is the best so far.
    fn validate(&mut self, device: &mut Device, log: &mut Log) -> Result<EvaluationReport> {
        // First what was logged before, so that the order of the lines is always the same.
        self.trainer.settle(device, log)?;
        let report = self.evaluate(device)?;
        log.validation(self.trainer.done, self.trainer.epoch(), &report)?;
        // Of restorers the best is that of the highest PSNR.
        let loss = report.whole.map_or(report.sum_squares, |whole| -whole.psnr);
        // Where units compete in training alone, losses do not tell better from worse: the last is
        // kept.
        if loss.is_finite()
            && self.best.is_none_or(|best| loss < best || self.graph.competes_within_batch())
        {
            self.best = Some(loss);
            model::save(
                &self.folder.file("best.safetensors"),
                device,
                self.graph,
                &self.trainer.store,
            )?;
        }
        Ok(report)
    }

    fn capture(&mut self, device: &mut Device, log: &mut Log) -> Result<Checkpoint> {
        let mut checkpoint = self.trainer.capture(device, log)?;
        checkpoint.header = Header {
            config: checkpoint::config_hash(self.config),
            data: self.data,
            device: device.identity(),
            best: self.best.map(f64::to_bits),
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
