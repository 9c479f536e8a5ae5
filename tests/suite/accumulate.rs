//! Batches split into parts (`--accumulate`): the same training within rounding, from memory and
//! from a stream, on both paths.

use std::path::Path;

use csae::internals::device::Device;
use csae::internals::model::Graph;
use csae::internals::spec::{Config, preset_text};
use csae::internals::train::{Log, Trainer};
use serde_json::Value;

use crate::support::files::exists;
use crate::support::{Command, TempFolder, bytes, gpu, json, text};

/// A training with dropout, L1 with warm-up, resurrected units, clipping, Adam, crops and flips.
fn config(parts: usize, more: &[&str]) -> Config {
    let set = [
        "data.source=textures",
        "data.crop=12",
        "data.flip_x=true",
        "train.batch=24",
        "train.steps=30",
        "train.log_every=4",
        "model.layers.code.units=40",
        "model.layers.dropout.p=0.3",
        "sparsity.revive_strength=3",
        "sparsity.revive_patience=1",
        "sparsity.lambda=3",
        "sparsity.warmup_epochs=0",
        "optimizer.lr=1e-3",
        "optimizer.clip_norm=5",
    ];
    let set: Vec<String> = set
        .iter()
        .chain(more)
        .map(|set| (*set).to_owned())
        .chain([format!("train.accumulate={parts}")])
        .collect();
    Config::parse(preset_text("sparse").unwrap(), "sparse", &set).unwrap()
}

/// What a training leaves.
struct Trained {
    first: Vec<f32>,
    last: Vec<f32>,
    logged: Value,
}

/// Runs a training and returns its first and last weights and the last line of its log.
fn trained(mut device: Device, config: &Config) -> Trained {
    let folder = TempFolder::new("parts");
    let prepared = csae::internals::train::data::prepare(config).unwrap();
    let graph = Graph::new(&config.model, prepared.dims).unwrap();
    let mut trainer = Trainer::new(&mut device, config, &graph, &prepared).unwrap();
    let path = folder.path("log");
    let mut log = Log::new(Some(Path::new(&path)), trainer.total, true, false).unwrap();
    let first = device.read(trainer.store.weights).unwrap();
    while trainer.done < trainer.total {
        trainer.step(&mut device, &mut log).unwrap();
    }
    let last = device.read(trainer.store.weights).unwrap();
    Trained { first, last, logged: json::lines(&text(&path)).pop().unwrap() }
}

/// How far two trainings are apart: of their weights relative to the distance that the training
/// covered, and of what they logged.
fn apart(a: &Trained, b: &Trained) -> f64 {
    let distance = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    let relative = |key| {
        let (a, b) = (json::number(&a.logged, key), json::number(&b.logged, key));
        if a == b { 0.0 } else { (a / b - 1.0).abs() }
    };
    let logged = ["reconstruction", "sparsity", "l0"].map(relative).into_iter().fold(0.0, f64::max);
    (distance(&a.last, &b.last) / distance(&b.first, &b.last)).max(logged)
}

/// Adam hides a wrong scale of the gradients, plain descent does not.
const SGD: [&str; 3] = ["optimizer.kind=sgd", "optimizer.lr=2e-3", "optimizer.clip_norm=0"];

fn assert_parts_train_as_the_whole(optimizer: &[&str]) {
    let whole = trained(Device::cpu(), &config(1, optimizer));
    for parts in [2, 3, 8, 24] {
        let found = apart(&trained(Device::cpu(), &config(parts, optimizer)), &whole);
        assert!(found < 1e-5, "{parts} parts: {found:.1e} apart");
    }
    // Each of these makes a difference here, so that parts cannot get it wrong unnoticed.
    for other in [
        "model.layers.dropout.p=0.2",
        "sparsity.revive_strength=0",
        "data.flip_x=false",
        "optimizer.lr=1.9e-3",
    ] {
        let config = config(3, &[optimizer, &[other]].concat());
        let found = apart(&trained(Device::cpu(), &config), &whole);
        assert!(found > 1e-3, "{other}: {found:.1e} apart");
    }
}

#[test]
fn a_batch_in_parts_trains_as_a_whole_one_with_adam() {
    assert_parts_train_as_the_whole(&[]);
}

#[test]
fn a_batch_in_parts_trains_as_a_whole_one_with_sgd() {
    assert_parts_train_as_the_whole(&SGD);
}

#[test]
fn a_batch_in_parts_trains_as_a_whole_one_on_a_gpu() {
    let Some(_turn) = gpu::turn() else { return };
    let whole = trained(gpu::open(), &config(1, &[]));
    for parts in [2, 4] {
        let found = apart(&trained(gpu::open(), &config(parts, &[])), &whole);
        assert!(found < 1e-4, "{parts} parts: {found:.1e} apart");
    }
}

#[test]
fn a_run_in_parts_is_resumed_with_the_same_bytes() {
    let folder = TempFolder::new("parts-resumed");
    let (whole, run) = (folder.path("whole"), folder.path("run"));
    let train = Command::train("digits")
        .batch(24)
        .flags("--accumulate 3")
        .set("train.log_every=7")
        .set("train.checkpoint_every=25")
        .set("schedule.kind=constant")
        .set("schedule.warmup_steps=0")
        .on_cpu()
        .quiet();
    train.clone().out(&whole).steps(60).succeed();
    // No line of the log ends with step 25: its losses are in the checkpoint.
    train.out(&run).steps(25).succeed();
    Command::resume(&run).quiet().steps(60).succeed();
    for name in ["model.safetensors", "config.toml"] {
        let read = |run: &str| bytes(format!("{run}/{name}"));
        assert!(read(&run) == read(&whole), "{name} differs");
    }
}

/// A training that may use 6 MiB.
fn train_in_little(out: &str, batch: &str) -> Command {
    Command::train("digits")
        .out(out)
        .steps(2)
        .option("--batch", batch)
        .max_memory("6MiB")
        .on_cpu()
        .quiet()
}

/// The advice for a batch that does not fit: the largest batch that does, and the parts to use.
fn advice(out: &str) -> (String, String) {
    let words = ["train.batch = 512", "MiB", "would fit", "--accumulate"];
    let message = train_in_little(out, "512").fails(2, &words);
    let after = |words: &str| {
        let rest = message.split(words).nth(1).unwrap_or_else(|| panic!("no {words} in {message}"));
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().to_owned()
    };
    (after("a batch of "), after("--accumulate "))
}

#[test]
fn a_batch_that_does_not_fit_is_refused_with_advice_that_works() {
    let folder = TempFolder::new("advice");
    let out = folder.path("run");
    let (batch, parts) = advice(&out);
    assert!(!exists(&out));
    train_in_little(&out, "512").option("--accumulate", parts).succeed();
    train_in_little(&out, &batch).force().succeed();
}

#[test]
fn half_the_advised_parts_do_not_fit() {
    let folder = TempFolder::new("too-few-parts");
    let out = folder.path("run");
    let parts = advice(&out).1.parse::<usize>().unwrap() / 2;
    train_in_little(&out, "512").option("--accumulate", parts).fails(2, &["would fit"]);
}

#[test]
fn a_model_that_does_not_fit_with_one_sample_is_refused() {
    let folder = TempFolder::new("too-large");
    let train = Command::train("digits").out(folder.path("run")).on_cpu().quiet();
    train.max_memory("200KiB").fails(2, &["smaller model"]);
}

#[test]
fn a_number_of_parts_must_divide_the_batch() {
    let folder = TempFolder::new("odd-parts");
    let out = folder.path("run");
    let train = Command::train("digits").out(&out).quiet();
    train.clone().flags("--batch 10 --accumulate 4").fails(2, &["accumulate", "10", "12"]);
    train.flags("--accumulate 0").fails(2, &["accumulate"]);
    assert!(!exists(&out));
}

/// Operations that compute with all samples of a batch: the KL penalty, a selection of the largest
/// values, and units that compete for samples. Each has a setting that makes a difference.
#[test]
fn operations_on_the_whole_batch_see_it_in_parts() {
    let base = ["data.source=textures", "data.crop=16", "train.batch=24", "train.steps=12"];
    let kl = ["sparsity.penalty=kl", "sparsity.beta=2", "model.layers.code.activation=sigmoid"];
    let cases: [(&str, &[&str], &str); 3] = [
        ("article", &kl, "sparsity.beta=2.1"),
        ("photographs", &[], "model.layers.code.per_position=3.4"),
        ("wta", &[], "model.layers.code.rate=0.1"),
    ];
    for (preset, more, other) in cases {
        let run = |parts: usize, change: &[&str], device: Device| {
            let set = [&base, more, change].concat();
            let parts = format!("train.accumulate={parts}");
            let set: Vec<String> = set.iter().map(|set| (*set).to_owned()).chain([parts]).collect();
            let config = Config::parse(preset_text(preset).unwrap(), preset, &set).unwrap();
            trained(device, &config)
        };
        let whole = run(1, &["train.log_every=4"], Device::cpu());
        for parts in [2, 3, 24] {
            let found = apart(&run(parts, &["train.log_every=4"], Device::cpu()), &whole);
            assert!(found < 1e-4, "{preset}, {parts} parts: {found:.1e} apart");
        }
        let changed = apart(&run(3, &["train.log_every=4", other], Device::cpu()), &whole);
        assert!(changed > 1e-3, "{preset}, {other}: {changed:.1e} apart");
        let Some(_turn) = gpu::turn() else { continue };
        let found = apart(&run(3, &["train.log_every=4"], gpu::open()), &whole);
        assert!(found < 1e-3, "{preset}, on a GPU: {found:.1e} apart");
    }
}

/// A selection among all samples needs memory for all of them: only a smaller batch helps.
#[test]
fn a_batch_that_cannot_be_divided_is_refused_with_a_smaller_one() {
    let folder = TempFolder::new("undivided");
    let train = Command::new("train photos --max-memory 140MiB --batch 64").out(folder.path("run"));
    let message = train.on_cpu().quiet().fails(2, &["train.batch = 64", "a batch of", "would fit"]);
    assert!(!message.contains("--accumulate"), "{message}");
    let batch = message.split_once("a batch of ").unwrap().1.split(' ').next().unwrap();
    let train = Command::new("train photos --max-memory 140MiB --steps 1").out(folder.path("run"));
    train.option("--batch", batch).on_cpu().succeed();
}
