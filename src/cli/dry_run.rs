//! `csae train --dry-run`: what a training would take, without a run.

use std::time::{Duration, Instant};

use indicatif::HumanDuration;
use serde_json::{Value, json};

use super::inspect::print_model_summary;
use super::training::Job;
use super::{Common, counted};
use crate::device::Device;
use crate::error::Result;
use crate::model::{ModelSummary, summary};
use crate::spec::Config;
use crate::train::{Log, RunFolder, Trainer};

/// Number of steps that are timed at most. The clock's error is then well below that of the load
/// of the machine.
const STEPS: u64 = 20;

/// Time for these steps, after which no other begins.
const LIMIT: Duration = Duration::from_secs(2);

/// The time of a step, and the number of steps that it is the mean of.
struct Measured {
    steps: u64,
    seconds: f64,
}

/// Prints layers, memory, batches and steps of a training, and an estimate of its time. Trains a
/// few steps and writes no file.
///
/// # Errors
/// If the training would fail before its first step, or in the steps that are timed.
pub fn run(common: &Common, device: &mut Device, job: &Job, folder: &RunFolder) -> Result<()> {
    let mut run = job.set_up(device, folder, None)?;
    job.report_data(common);
    let found = summary(&job.graph);
    let trainer = &mut run.trainer;
    let measured = measure(device, trainer)?;
    if common.json {
        outln!("{}", as_json(&job.config, &found, trainer, &measured));
        return Ok(());
    }
    print_model_summary(&found);
    outln!("memory: {}", trainer.memory);
    let train = &job.config.train;
    let parts = match train.accumulate {
        1 => String::new(),
        parts => format!(" in {parts} parts"),
    };
    outln!(
        "batches: {} a step{parts}; {} per epoch, {} in all, {}",
        counted(train.batch, "image", "images"),
        counted(trainer.steps_per_epoch, "step", "steps"),
        counted(trainer.total as usize, "step", "steps"),
        counted(validations(&job.config, trainer) as usize, "validation", "validations")
    );
    outln!(
        "time: about {} for the steps, at {:.1} ms each, the mean of {}; validations come on top",
        HumanDuration(Duration::from_secs_f64(all_steps(trainer, &measured))),
        1e3 * measured.seconds,
        counted(measured.steps as usize, "timed step", "timed steps")
    );
    common.status("nothing was written; omit --dry-run to train");
    Ok(())
}

/// Times steps. The first one does not count, unless the training has no other: it also waits for
/// uploads.
fn measure(device: &mut Device, trainer: &mut Trainer) -> Result<Measured> {
    let mut log = Log::new(None, trainer.total, true, false)?;
    let left = trainer.total - 1;
    let mut step = |device: &mut Device| {
        let start = Instant::now();
        trainer.step(device, &mut log)?;
        device.wait()?;
        Ok(start.elapsed())
    };
    let first = step(device)?;
    let (mut steps, mut spent) = (0, Duration::ZERO);
    while steps < STEPS.min(left) && spent < LIMIT {
        spent += step(device)?;
        steps += 1;
    }
    let (steps, spent) = if steps == 0 { (1, first) } else { (steps, spent) };
    Ok(Measured { steps, seconds: spent.as_secs_f64() / steps as f64 })
}

/// Seconds of all steps of a training.
fn all_steps(trainer: &Trainer, measured: &Measured) -> f64 {
    // A duration cannot hold more than u64 seconds; this is longer than any training.
    (trainer.total as f64 * measured.seconds).min(1e12)
}

/// Number of validations of a training, including the one at its end.
fn validations(config: &Config, trainer: &Trainer) -> u64 {
    let every = config.train.validate_every * trainer.steps_per_epoch as f64;
    match every.round() as u64 {
        0 => 1,
        every => trainer.total.div_ceil(every),
    }
}

fn as_json(config: &Config, found: &ModelSummary, trainer: &Trainer, measured: &Measured) -> Value {
    let memory = &trainer.memory;
    json!({
        "kind": "dry_run",
        "model": found,
        "layers": found.rows,
        "memory": {
            "parameters": memory.parameters,
            "activations": memory.activations,
            "data": memory.data,
            "validation": memory.validation
        },
        "batch": config.train.batch,
        "accumulate": config.train.accumulate,
        "steps_per_epoch": trainer.steps_per_epoch,
        "steps": trainer.total,
        "validations": validations(config, trainer),
        "timed_steps": measured.steps,
        "seconds_per_step": measured.seconds,
        "seconds": all_steps(trainer, measured)
    })
}
