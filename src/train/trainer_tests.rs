//! Tests of training steps of a model with two weights, against formulas.

use super::super::toy::{SAMPLES, config, graph, quiet, trainer, weights};
use super::*;
use crate::error::ErrorKind as Kind;

const NEVER: u32 = u32::MAX;
const START: [f32; 2] = [0.5, 1.5];

/// The gradient of the mean squared error with respect to u and v, in f64.
fn gradient([u, v]: [f32; 2]) -> [f64; 2] {
    let (u, v) = (f64::from(u), f64::from(v));
    let mut sums = [0.0; 2];
    for (x, t) in SAMPLES.map(|(x, t)| (f64::from(x), f64::from(t))) {
        let error = 2.0 * (v * u * x - t) / SAMPLES.len() as f64;
        sums[0] += error * v * x;
        sums[1] += error * u * x;
    }
    sums
}

/// The weights after some steps.
fn after(steps: usize, overrides: &[&str]) -> [f32; 2] {
    let (mut device, config) = (Device::cpu(), config(overrides));
    let graph = graph(&config);
    let mut trainer = trainer(&mut device, &config, &graph, START, NEVER);
    for _ in 0..steps {
        trainer.step(&mut device, &mut quiet()).unwrap();
    }
    weights(&mut device, &trainer)
}

fn assert_close(found: [f32; 2], expected: [f64; 2]) {
    for (found, expected) in found.into_iter().zip(expected) {
        assert!((f64::from(found) - expected).abs() < 1e-6, "{found} is not {expected}");
    }
}

/// START − rate · factor · gradient.
fn moved(rate: [f64; 2]) -> [f64; 2] {
    let gradient = gradient(START);
    std::array::from_fn(|i| f64::from(START[i]) - rate[i] * gradient[i])
}

#[test]
fn a_step_of_gradient_descent_is_the_formula() {
    assert_close(after(1, &[]), moved([0.125; 2]));
}

#[test]
fn the_formula_of_another_rate_is_refused() {
    let found = after(1, &[]);
    let wrong = moved([0.126; 2]);
    assert!((f64::from(found[0]) - wrong[0]).abs() > 1e-4);
}

#[test]
fn parts_of_a_batch_give_the_step_of_the_whole_batch() {
    let whole = after(3, &[]).map(f64::from);
    assert_close(after(3, &["train.accumulate=2"]), whole);
    assert_close(after(3, &["train.accumulate=4"]), whole);
}

#[test]
fn clipping_scales_the_gradient_to_the_norm() {
    let norm = gradient(START).iter().map(|g| g * g).sum::<f64>().sqrt();
    assert!(norm > 0.5);
    assert_close(after(1, &["optimizer.clip_norm=0.5"]), moved([0.125 * 0.5 / norm; 2]));
    assert_close(after(1, &["optimizer.clip_norm=1000"]), moved([0.125; 2]));
}

#[test]
fn the_encoder_has_its_share_of_the_rate() {
    assert_close(after(1, &["optimizer.encoder_lr=0.5"]), moved([0.0625, 0.125]));
    assert_close(after(1, &["optimizer.encoder_lr=0"]), moved([0.0, 0.125]));
}

#[test]
fn a_restored_training_ends_with_the_same_bytes() {
    let (mut device, config) = (Device::cpu(), config(&["optimizer.kind=adam"]));
    let graph = graph(&config);
    let mut whole = trainer(&mut device, &config, &graph, START, NEVER);
    let mut kept = None;
    for step in 0..8 {
        if step == 3 {
            kept = Some(whole.capture(&mut device, &mut quiet()).unwrap());
        }
        whole.step(&mut device, &mut quiet()).unwrap();
    }
    let mut resumed = trainer(&mut device, &config, &graph, [9.0; 2], NEVER);
    resumed.restore(&mut device, &kept.unwrap()).unwrap();
    assert_eq!(resumed.done, 3);
    for _ in 3..8 {
        resumed.step(&mut device, &mut quiet()).unwrap();
    }
    assert_eq!(weights(&mut device, &whole), weights(&mut device, &resumed));
    assert_ne!(weights(&mut device, &whole), START);
}

#[test]
fn a_checkpoint_of_another_model_is_refused() {
    let (mut device, config) = (Device::cpu(), config(&[]));
    let graph = graph(&config);
    let mut trainer = trainer(&mut device, &config, &graph, START, NEVER);
    let mut checkpoint = trainer.capture(&mut device, &mut quiet()).unwrap();
    checkpoint.tensors[0].push(0.0);
    let error = trainer.restore(&mut device, &checkpoint).unwrap_err();
    assert!(error.to_string().contains("another model"), "{error}");
}

#[test]
fn going_back_halves_the_rate() {
    let (mut device, config) = (Device::cpu(), config(&[]));
    let graph = graph(&config);
    let mut trainer = trainer(&mut device, &config, &graph, START, NEVER);
    let start = trainer.capture(&mut device, &mut quiet()).unwrap();
    trainer.step(&mut device, &mut quiet()).unwrap();
    trainer.roll_back(&mut device, &start).unwrap();
    assert_eq!(weights(&mut device, &trainer), START);
    trainer.step(&mut device, &mut quiet()).unwrap();
    assert_close(weights(&mut device, &trainer), moved([0.0625; 2]));
}

#[test]
fn a_loss_that_is_not_finite_is_named_with_its_step() {
    let (mut device, config) = (Device::cpu(), config(&["train.log_every=1"]));
    let graph = graph(&config);
    let mut trainer = trainer(&mut device, &config, &graph, START, 2);
    let error = (0..8)
        .find_map(|_| trainer.step(&mut device, &mut quiet()).err())
        .expect("the third batch is NaN");
    assert!(error.kind == Kind::Diverged, "{error}");
    for words in ["step 2", "loss became NaN", "optimizer.lr"] {
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
}

#[test]
fn a_state_that_is_not_finite_is_no_checkpoint() {
    let (mut device, config) = (Device::cpu(), config(&[]));
    let graph = graph(&config);
    let mut trainer = trainer(&mut device, &config, &graph, [f32::INFINITY, 1.0], NEVER);
    let error = trainer.capture(&mut device, &mut quiet()).unwrap_err();
    assert!(error.to_string().contains("u.weight became inf"), "{error}");
}

#[test]
fn the_number_of_steps_follows_from_epochs_unless_it_is_given() {
    assert_eq!(Trainer::total_steps(&config(&["train.steps=7"]), 10), 7);
    let epochs = config(&["train.steps=0", "train.epochs=2.5"]);
    assert_eq!(Trainer::total_steps(&epochs, 10), 25);
    let short = config(&["train.steps=0", "train.epochs=0.001"]);
    assert_eq!(Trainer::total_steps(&short, 10), 1);
}

#[test]
fn a_batch_that_does_not_split_is_refused_with_one_that_does() {
    let (mut device, config) = (Device::cpu(), config(&["train.batch=5", "train.accumulate=2"]));
    let graph = graph(&config);
    let batches = super::super::toy::Same { samples: vec![], parts: 2, broken_from: NEVER };
    let error = Trainer::labelled(
        &mut device,
        &config,
        &graph,
        &super::super::toy::SquaredError,
        Box::new(batches),
        0,
        true,
    )
    .unwrap_err();
    assert!(error.to_string().contains("train.accumulate"), "{error}");
    assert!(error.to_string().contains('6'), "{error}");
}

#[test]
fn the_first_progress_does_not_wait_for_an_interval() {
    let (mut device, config) = (Device::cpu(), config(&["train.log_every=1000"]));
    let graph = graph(&config);
    let mut trainer = trainer(&mut device, &config, &graph, START, NEVER);
    let mut log = Log::new(None, 10, false, false).unwrap();
    trainer.step(&mut device, &mut log).unwrap();
    assert!(!trainer.shown);
    trainer.interval = trainer.interval.checked_sub(Duration::from_secs(4)).unwrap();
    trainer.step(&mut device, &mut log).unwrap();
    assert!(trainer.shown);
}
