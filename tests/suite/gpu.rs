//! The GPU path against the CPU path, on the adapter that `CSAE_DEVICE` names (`llvmpipe` unless set). `CSAE_GPU` is `require` (no adapter is a
//! failure), `auto` (it is a skipped test that says so) or `off`.

use std::sync::{Mutex, MutexGuard};

use csae::device::{Device, Selected, select};
use csae::gpu::Counters;
use csae::verify::{self, Case};

use crate::conformance::failures;
use crate::recorded::stored_cases;
use crate::training::{Training, small};

/// One test at a time has the adapter: a software one takes every core.
static ADAPTER: Mutex<()> = Mutex::new(());

/// The adapter's turn, or none where the tests are to be skipped.
fn turn(test: &str) -> Option<MutexGuard<'static, ()>> {
    let wanted = std::env::var("CSAE_GPU").unwrap_or_else(|_| "auto".to_owned());
    if wanted == "off" {
        eprintln!("skipped {test}: CSAE_GPU=off");
        return None;
    }
    assert!(["auto", "require"].contains(&wanted.as_str()), "CSAE_GPU={wanted}: there are require, auto and off");
    let turn = ADAPTER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match select(&name()) {
        Ok(Selected::Adapter(_)) => Some(turn),
        Ok(Selected::Cpu) => panic!("CSAE_DEVICE={}: that is no GPU", name()),
        Err(error) if wanted == "require" => panic!("CSAE_GPU=require: {error}"),
        Err(error) => {
            eprintln!("skipped {test}: {error}");
            None
        }
    }
}

fn name() -> String {
    std::env::var("CSAE_DEVICE").unwrap_or_else(|_| "llvmpipe".to_owned())
}

fn open() -> Device {
    Device::open(&name()).unwrap_or_else(|error| panic!("{error}"))
}

fn pass_everywhere(cases: &[Case]) {
    let mut device = open();
    let mut failed = Vec::new();
    for case in cases {
        let outcomes = verify::run(&mut device, case);
        assert!(!outcomes.is_empty(), "{}: nothing ran", case.id());
        failed.extend(failures(&outcomes));
    }
    assert!(failed.is_empty(), "{}: {} outputs differ\n{}", device.label(), failed.len(), failed.join("\n"));
}

#[test]
fn every_built_in_case_passes() {
    if let Some(_turn) = turn("every_built_in_case_passes") {
        pass_everywhere(&verify::built_in());
    }
}

#[test]
fn every_stored_case_passes() {
    if let Some(_turn) = turn("every_stored_case_passes") {
        pass_everywhere(&verify::load_folder(&stored_cases()).unwrap());
    }
}

#[test]
fn a_wrong_answer_fails() {
    let Some(_turn) = turn("a_wrong_answer_fails") else { return };
    let mut case = verify::built_in().remove(1).answered().unwrap();
    // The answers of another weight.
    let weight = case.inputs.get_mut("weight").expect("the case is a convolution's");
    let mut values = weight.reals();
    values[0] += 0.1;
    *weight = verify::Tensor::real(&weight.shape.clone(), values);
    for outcome in verify::run(&mut open(), &case) {
        assert!(!outcome.passed(), "{} ({}) passes with another weight", outcome.id, outcome.kernels);
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let Some(_turn) = turn("the_same_seed_gives_the_same_bytes") else { return };
    let weights = |seed: u64| {
        let config = csae::spec::Config { seed, ..small() };
        let mut training = Training::new(open(), &config, 6).unwrap();
        training.run(12);
        training.weights().into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let first = weights(5);
    assert!(first == weights(5), "two runs with one seed differ");
    assert!(first != weights(6), "another seed makes no difference");
}

#[test]
fn a_trajectory_follows_the_cpu() {
    let Some(_turn) = turn("a_trajectory_follows_the_cpu") else { return };
    let mut gpu = Training::new(open(), &small(), 6).unwrap();
    let mut cpu = Training::new(Device::cpu(), &small(), 6).unwrap();
    let start = cpu.weights();
    assert_eq!(start, gpu.weights(), "both begin alike");
    for step in 0..20 {
        gpu.run(1);
        cpu.run(1);
        for (index, (a, b)) in gpu.scalars().into_iter().zip(cpu.scalars()).enumerate() {
            let close = (a - b).abs() <= 1e-3 * b.abs().max(1e-3);
            assert!(close, "step {step}: scalar {index} is {a} on the GPU, {b} on the CPU");
        }
    }
    let (a, b) = (gpu.weights(), cpu.weights());
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    let (apart, moved) = (distance(&a, &b), distance(&b, &start));
    assert!(moved > 0.1, "the training went nowhere: {moved}");
    assert!(apart <= 1e-3 * moved, "weights are {apart:.2e} apart after a way of {moved:.2e}");
}

#[test]
fn nothing_is_made_inside_the_loop() {
    let Some(_turn) = turn("nothing_is_made_inside_the_loop") else { return };
    let mut training = Training::new(open(), &small(), 6).unwrap();
    let counters = |training: &mut Training| -> Counters { training.device.as_gpu().expect("it runs on a GPU").counters() };
    let before = counters(&mut training);
    training.compile();
    let compiled = counters(&mut training);
    assert!(compiled.pipelines > before.pipelines && compiled.bind_groups > before.bind_groups, "{before:?} then {compiled:?}");
    training.run(1);
    let first = training.scalars();
    let warm = counters(&mut training);
    assert_eq!((compiled.bind_groups, compiled.pipelines), (warm.bind_groups, warm.pipelines), "a step makes neither");
    for _ in 0..10 {
        training.run(5);
        let scalars = training.scalars();
        assert!(scalars.iter().all(|x| x.is_finite()) && scalars != first);
    }
    assert_eq!(counters(&mut training), warm, "50 steps and their scalars");
}
