//! Tests of a run's validations, checkpoints and end, with scripted scores.

use std::cell::Cell;

use serde_json::{Value, json};

use super::super::toy::{config, graph, quiet, trainer, weights};
use super::super::{Origin, RunFolder};
use super::*;
use crate::testing::Folder;

/// A validation with a scripted score.
#[derive(Debug)]
struct Scripted(f64);

impl std::fmt::Display for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "score {}", self.0)
    }
}

impl ValidationResult for Scripted {
    fn score(&self) -> f64 {
        self.0
    }

    fn numbers(&self) -> Value {
        json!({"score": self.0})
    }
}

/// A task whose validations return these scores, one after the other.
struct Script {
    scores: Vec<f64>,
    next: usize,
    keeps_best: bool,
}

impl Task for Script {
    type Validation = Scripted;

    fn validate(&mut self, _: &mut Device) -> Result<Scripted> {
        self.next += 1;
        Ok(Scripted(self.scores[(self.next - 1).min(self.scores.len() - 1)]))
    }

    fn keeps_best(&self) -> bool {
        self.keeps_best
    }
}

/// The outcome of a run and the files that it left.
struct Ended {
    outcome: Result<Outcome<Scripted>>,
    steps: u64,
    /// Number of times that the learning rate was halved.
    halvings: u32,
    weights: [f32; 2],
    folder: Folder,
}

/// Runs the toy model, with a validation after every epoch of two steps. The run is asked to stop
/// after `stop_after` steps. From step `broken_from` on its batches are NaN.
fn run(
    name: &str,
    overrides: &[&str],
    script: (&[f64], bool),
    stop_after: usize,
    broken_from: u32,
) -> Ended {
    let place = Folder::new(name);
    let (mut device, config) = (Device::cpu(), config(overrides));
    let graph = graph(&config);
    let folder = RunFolder::at(&place.path.join("run"));
    let origin = Origin::new(&config, "cpu".to_owned(), None).unwrap();
    let _lock = folder.create(&config, &origin, false).unwrap();
    let trainer = trainer(&mut device, &config, &graph, [0.5, 1.5], broken_from);
    let task = Script { scores: script.0.to_vec(), next: 0, keeps_best: script.1 };
    let mut run = Run::begin(&mut device, &folder, &config, (trainer, task), 1, None).unwrap();
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() >= stop_after
    };
    let outcome = run.train(&mut device, &mut quiet(), &stop);
    let weights = weights(&mut device, &run.trainer);
    let halvings = run.trainer.schedule.retried;
    Ended { outcome, steps: run.trainer.done, halvings, weights, folder: place }
}

const NEVER: usize = usize::MAX;
const SOUND: u32 = u32::MAX;

fn finished(result: &Ended) -> &Summary<Scripted> {
    match &result.outcome {
        Ok(Outcome::Finished(summary)) => summary,
        other => panic!("not finished: {other:?}"),
    }
}

#[test]
fn a_run_ends_after_its_last_step_with_a_model_and_a_checkpoint() {
    let result = run("run-end", &[], (&[1.0, 2.0, 3.0, 4.0], false), NEVER, SOUND);
    assert_eq!((result.steps, finished(&result).best_step), (8, Some(8)));
    for file in ["model.safetensors", "best.safetensors", "checkpoint-000008.safetensors"] {
        assert!(result.folder.path.join("run").join(file).is_file(), "{file}");
    }
}

#[test]
fn a_run_ends_when_validations_stop_improving() {
    let scores = (&[1.0, 3.0, 2.0, 2.5, 2.0][..], false);
    let result = run("run-patience", &["train.steps=20", "train.patience=2"], scores, NEVER, SOUND);
    assert_eq!((result.steps, finished(&result).best_step), (8, Some(4)));
}

#[test]
fn the_model_of_the_best_validation_is_kept() {
    let scores = [1.0, 3.0, 2.0, 2.5];
    let last = run("run-last", &[], (&scores, false), NEVER, SOUND);
    let best = run("run-best", &[], (&scores, true), NEVER, SOUND);
    let early = run("run-early", &["train.steps=4"], (&scores[..2], false), NEVER, SOUND);
    assert_eq!(finished(&best).best_step, Some(4));
    assert_eq!(best.weights, early.weights);
    assert_ne!(best.weights, last.weights);
}

#[test]
fn a_run_that_is_asked_to_stop_leaves_a_checkpoint() {
    let result = run("run-stop", &[], (&[1.0], false), 3, SOUND);
    assert!(matches!(result.outcome, Ok(Outcome::Stopped(3))), "{:?}", result.outcome);
    assert!(result.folder.path.join("run/checkpoint-000003.safetensors").is_file());
    assert!(!result.folder.path.join("run/model.safetensors").exists());
}

#[test]
fn a_run_that_stops_or_fails_after_a_checkpoint_has_a_page() {
    let page = |ended: &Ended| std::fs::read_to_string(ended.folder.path.join("run/index.html"));
    let every_step = ["train.log_every=1", "train.checkpoint_every=1"];
    let stopped = run("run-page-stop", &[], (&[1.0], false), 3, SOUND);
    let failed = run("run-page-fail", &every_step, (&[1.0], false), NEVER, 3);
    assert!(failed.outcome.is_err() && stopped.outcome.is_ok());
    for ended in [stopped, failed] {
        assert!(page(&ended).unwrap().contains("\"state\":\"stopped\""));
    }
    // Without a checkpoint there is nothing to continue.
    let lost = run("run-page-lost", &every_step[..1], (&[1.0], false), NEVER, 3);
    assert!(lost.outcome.is_err() && page(&lost).is_err());
}

#[test]
fn a_run_that_diverges_fails_without_retries() {
    let result = run("run-nan", &["train.log_every=1"], (&[1.0], false), NEVER, 3);
    let error = result.outcome.unwrap_err();
    assert!(error.kind == Kind::Diverged && error.to_string().contains("step 3"), "{error}");
}

#[test]
fn a_run_that_diverges_goes_back_until_its_retries_are_used_up() {
    let overrides = ["train.log_every=1", "train.retries=2"];
    let result = run("run-retry", &overrides, (&[1.0, 2.0], false), NEVER, 3);
    assert_eq!(result.halvings, 2);
    let error = result.outcome.unwrap_err();
    assert!(error.to_string().contains("halved 2 times"), "{error}");
}
