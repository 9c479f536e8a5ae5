//! Batches taken in parts: the same training within rounding, from the memory and from a stream, on
//! both paths.

use std::path::Path;

use csae::internals::device::Device;
use csae::internals::model::Graph;
use csae::internals::spec::{Config, preset_text};
use csae::internals::train::{Log, Trainer};

use crate::commands::{Place, csae, fail, succeed};
use crate::gpu;

/// Dropout, L1 with warm-up, revival at work, clipping, Adam, crops and flips.
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

/// First and last weights, and the last line of the log, of a training.
fn trained(mut device: Device, config: &Config) -> (Vec<f32>, Vec<f32>, serde_json::Value) {
    let place = Place::new(&format!("parts-{}-{:p}", config.train.accumulate, config));
    let prepared = csae::internals::train::data::prepare(config).unwrap();
    let graph = Graph::new(&config.model, prepared.dims).unwrap();
    let mut trainer = Trainer::new(&mut device, config, &graph, &prepared).unwrap();
    let path = place.path("log");
    std::fs::create_dir_all(place.path("")).unwrap();
    let mut log = Log::new(Some(Path::new(&path)), trainer.total, true, false).unwrap();
    let first = device.read(trainer.store.weights).unwrap();
    while trainer.done < trainer.total {
        trainer.step(&mut device, &mut log).unwrap();
    }
    let last = device.read(trainer.store.weights).unwrap();
    let lines = std::fs::read_to_string(&path).unwrap();
    (first, last, serde_json::from_str(lines.lines().last().unwrap()).unwrap())
}

/// How far two results are apart, in parts of the way that the training went.
fn apart(
    a: &(Vec<f32>, Vec<f32>, serde_json::Value),
    b: &(Vec<f32>, Vec<f32>, serde_json::Value),
) -> f64 {
    let distance = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    let relative =
        |key: &str| (a.2[key].as_f64().unwrap() / b.2[key].as_f64().unwrap() - 1.0).abs();
    let logged = ["reconstruction", "sparsity", "l0"].map(relative).into_iter().fold(0.0, f64::max);
    (distance(&a.1, &b.1) / distance(&b.0, &b.1)).max(logged)
}

#[test]
fn a_batch_in_parts_trains_as_a_whole_one() {
    // Adam hides a wrong scale of the gradients, plain descent does not.
    let sgd = ["optimizer.kind=sgd", "optimizer.lr=2e-3", "optimizer.clip_norm=0"];
    for optimizer in [&[][..], &sgd[..]] {
        let whole = trained(Device::cpu(), &config(1, optimizer));
        for parts in [2, 3, 8, 24] {
            let found = apart(&trained(Device::cpu(), &config(parts, optimizer)), &whole);
            assert!(found < 1e-5, "{parts} parts, {optimizer:?}: {found:.1e} apart");
        }
        // What the parts must get right makes a difference here.
        for other in [
            "model.layers.dropout.p=0.2",
            "sparsity.revive_strength=0",
            "data.flip_x=false",
            "optimizer.lr=1.9e-3",
        ] {
            let found =
                apart(&trained(Device::cpu(), &config(3, &[optimizer, &[other]].concat())), &whole);
            assert!(found > 1e-3, "{other}, {optimizer:?}: {found:.1e} apart");
        }
    }
}

#[test]
fn a_gpu_takes_parts_too() {
    let Some(_turn) = gpu::turn("a_gpu_takes_parts_too") else { return };
    let whole = trained(gpu::open(), &config(1, &[]));
    for parts in [2, 4] {
        let found = apart(&trained(gpu::open(), &config(parts, &[])), &whole);
        assert!(found < 1e-4, "{parts} parts: {found:.1e} apart");
    }
}

const SHORT: [&str; 12] = [
    "train",
    "digits",
    "--device",
    "cpu",
    "-q",
    "--batch",
    "24",
    "--set=train.log_every=7",
    "--set=train.checkpoint_every=25",
    "--accumulate",
    "3",
    "--out",
];

#[test]
fn a_run_by_parts_goes_on_where_it_was() {
    let place = Place::new("parts");
    let (whole, run) = (place.path("whole"), place.path("run"));
    let constant = "--set=schedule.kind=constant";
    succeed(
        &[&SHORT[..], &[&whole, "--steps", "60", constant, "--set=schedule.warmup_steps=0"]]
            .concat(),
    );
    // 25 is no end of a line of the log: its losses are in the checkpoint.
    succeed(
        &[&SHORT[..], &[&run, "--steps", "25", constant, "--set=schedule.warmup_steps=0"]].concat(),
    );
    succeed(&["resume", &run, "-q", "--steps", "60"]);
    for name in ["model.safetensors", "config.toml"] {
        let read = |run: &str| std::fs::read(Path::new(run).join(name)).unwrap();
        assert!(read(&run) == read(&whole), "{name} differs");
    }
}

#[test]
fn what_is_refused_for_memory_fits_as_advised() {
    let place = Place::new("memory");
    let out = place.path("run");
    let train_by = |batch: &str, more: &[&str]| -> Vec<String> {
        let always = [
            "train",
            "digits",
            "--device",
            "cpu",
            "-q",
            "--steps",
            "2",
            "--max-memory",
            "6MiB",
            "--out",
            &out,
            "--batch",
            batch,
        ];
        always.iter().chain(more).map(|word| (*word).to_owned()).collect()
    };
    fn words(line: &[String]) -> Vec<&str> {
        line.iter().map(String::as_str).collect()
    }
    let train = train_by("512", &[]);
    let train = words(&train);
    fail(&train, 2, &["train.batch = 512", "MiB", "would fit", "--accumulate"]);
    let said = String::from_utf8(csae(&train).stderr).unwrap();
    let after = |words: &str| {
        let rest = said.split(words).nth(1).unwrap_or_else(|| panic!("{words} is missing: {said}"));
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().to_owned()
    };
    let (batch, parts) = (after("a batch of "), after("--accumulate "));
    assert!(!Path::new(&out).exists());
    succeed(&words(&train_by("512", &["--accumulate", &parts])));
    succeed(&words(&train_by(&batch, &["--force"])));
    let fewer = (parts.parse::<usize>().unwrap() / 2).to_string();
    fail(&words(&train_by("512", &["--force", "--accumulate", &fewer])), 2, &["would fit"]);
    fail(
        &[
            "train",
            "digits",
            "--device",
            "cpu",
            "-q",
            "--max-memory",
            "200KiB",
            "--out",
            &out,
            "--force",
        ],
        2,
        &["smaller model"],
    );
}

#[test]
fn what_needs_the_whole_batch_says_so() {
    let place = Place::new("whole-batch");
    let out = place.path("run");
    fail(
        &["train", "digits", "-q", "--out", &out, "--batch", "10", "--accumulate", "4"],
        2,
        &["accumulate", "10", "12"],
    );
    fail(&["train", "digits", "-q", "--out", &out, "--accumulate", "0"], 2, &["accumulate"]);
    let kl = [
        "--set=sparsity.penalty=kl",
        "--set=sparsity.beta=1",
        "--set=model.layers.code.activation=sigmoid",
    ];
    fail(
        &[&["train", "digits", "-q", "--out", &out, "--batch", "8", "--accumulate", "2"], &kl[..]]
            .concat(),
        2,
        &["KL penalty"],
    );
    assert!(!Path::new(&out).exists());
}
