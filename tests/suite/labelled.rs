//! Runs that learn from labels have what every run has: they are resumed with the same bytes, take
//! batches in parts, clip gradients, and read TOML.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use csae::internals::rng::Stream;
use serde_json::Value;

use crate::commands::{Place, fail, program, succeed};
use crate::{detect, finetune, segment};

/// Kills of each kind of run. The issue that asked for it wants ten; CI makes fewer to save time:
/// `CSAE_KILLS=10 cargo test --release --test suite labelled`.
fn kills() -> usize {
    std::env::var("CSAE_KILLS").map_or(2, |kills| kills.parse().expect("a number of kills"))
}

const CPU: [&str; 4] = ["--device", "cpu", "-q", "--set=train.checkpoint_every=3"];

/// A kind of run: its name, its command without folder and length, and a short length.
struct Kind {
    name: &'static str,
    command: Vec<String>,
    epochs: &'static str,
}

/// Every kind of run that learns from labels.
fn kinds(place: &Place) -> [Kind; 3] {
    let digits = finetune::train(place);
    let discs = segment::discs(place, "discs", 6);
    let shapes = detect::shapes(place, 8);
    // Both encoders are trained into a folder called `run`.
    let encoders = Place::new("labelled-encoders");
    let encoder = place.path("encoder");
    copy(&segment::model(&encoders, &discs), &encoder);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    [
        Kind {
            name: "finetune",
            epochs: "6",
            command: words(&[
                "finetune",
                &digits,
                "digits",
                "--test",
                "digits",
                "--labels",
                "100",
                "--layer",
                "encoder.1",
                "--grid",
                "2",
                "--batch",
                "16",
                "--shift",
                "1",
            ]),
        },
        Kind {
            name: "segment",
            epochs: "4",
            command: words(&[
                "segment",
                "train",
                &encoder,
                &discs,
                "--crop",
                "32",
                "--batch",
                "4",
                "--instances",
                "--augment",
                "all",
            ]),
        },
        Kind {
            name: "detect",
            epochs: "12",
            command: words(&[
                "detect",
                "train",
                &encoder,
                &shapes,
                "--size",
                "64",
                "--batch",
                "4",
                "--split",
                "train",
                "--held-out",
                "0.3",
            ]),
        },
    ]
}

fn copy(from: &str, to: &str) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, Path::new(to).join(path.file_name().unwrap())).unwrap();
    }
}

impl Kind {
    /// The command's words with a folder and `more`.
    fn words<'w>(&'w self, out: &'w str, epochs: &'w str, more: &[&'w str]) -> Vec<&'w str> {
        let command: Vec<&str> = self.command.iter().map(String::as_str).collect();
        [&command[..], &["-o", out, "--epochs", epochs], &CPU, more].concat()
    }

    fn run(&self, out: &str, more: &[&str]) {
        succeed(&self.words(out, self.epochs, more));
    }
}

fn bytes(run: &str, name: &str) -> Vec<u8> {
    std::fs::read(Path::new(run).join(name)).unwrap_or_else(|error| panic!("{run}/{name}: {error}"))
}

/// The log without what depends on the clock.
fn log(run: &str) -> Vec<Value> {
    let text = String::from_utf8(bytes(run, "metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        value.as_object_mut().unwrap().remove("images_per_s");
        value
    };
    text.lines().map(line).collect()
}

fn same(a: &str, b: &str, what: &str) {
    for name in ["config.toml", "model.safetensors", "best.safetensors"] {
        assert!(bytes(a, name) == bytes(b, name), "{what}: {name} differs");
    }
    assert_eq!(log(a), log(b), "{what}");
}

fn start(arguments: &[&str]) -> Child {
    let mut command = program();
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the program starts")
}

#[test]
fn a_killed_run_goes_on_with_the_same_bytes() {
    let place = Place::new("labelled-killed");
    for kind in kinds(&place) {
        let name = kind.name;
        let (whole, killed) = (place.path(&format!("{name}-whole")), place.path(name));
        let began = Instant::now();
        kind.run(&whole, &[]);
        let took = began.elapsed();
        let mut stream = Stream::new(5, name);
        let is = |file: &str| Path::new(&killed).join(file).is_file();
        for _ in 0..kills() {
            if is("model.safetensors") {
                // It had ended before it was killed: once more from the start.
                std::fs::remove_dir_all(&killed).unwrap();
            }
            let begin = kind.words(&killed, kind.epochs, &[]);
            let go_on = ["resume", &killed, "-q"];
            let mut child = start(if is("config.toml") { &go_on } else { &begin });
            std::thread::sleep(took.mul_f64(f64::from(0.1 + 0.8 * stream.uniform())));
            let _ = child.kill();
            child.wait().unwrap();
        }
        if is("config.toml") {
            succeed(&["resume", &killed, "-q"]);
        } else {
            kind.run(&killed, &[]);
        }
        same(&whole, &killed, name);
        // A finished run has nothing left to do.
        assert!(succeed(&["resume", &killed]).contains("finished"), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_writes_a_checkpoint() {
    let place = Place::new("labelled-interrupt");
    let [_, segment, _] = kinds(&place);
    let out = place.path("out");
    let mut command = program();
    command.args(segment.words(&out, "4000", &[])).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !Path::new(&out).join("best.safetensors").is_file() {
        assert!(Instant::now() < deadline, "no validation in two minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("csae resume"), "{text}");
    // The best weights so far can be used at once.
    let best = Path::new(&out).join("best.safetensors").display().to_string();
    let images = place.path("discs");
    succeed(&["segment", "eval", &best, &images, "--instances", "--device", "cpu", "-q"]);
}

#[test]
fn a_batch_in_parts_learns_the_same() {
    let place = Place::new("labelled-parts");
    for kind in kinds(&place) {
        let name = kind.name;
        let every = "--set=train.log_every=1";
        let no_dice: &[&str] = if name == "segment" { &["--dice", "0"] } else { &[] };
        let (whole, parts) = (place.path(&format!("{name}-whole")), place.path(name));
        kind.run(&whole, &[no_dice, &[every]].concat());
        kind.run(&parts, &[no_dice, &[every, "--accumulate", "2"]].concat());
        let losses = |run: &str| -> Vec<f64> {
            log(run).iter().filter_map(|line| line["loss"].as_f64()).collect()
        };
        let (a, b) = (losses(&whole), losses(&parts));
        assert!(a.len() > 5 && a.len() == b.len(), "{name}: {} {}", a.len(), b.len());
        // The first steps agree within rounding; later ones amplify it.
        for (a, b) in a.iter().zip(&b).take(3) {
            assert!((a - b).abs() <= 1e-3 * a.abs(), "{name}: {a} {b}");
        }
        assert!((a[0] - a[2]).abs() > 1e-3 * a[0].abs(), "{name}: the steps differ too little");
    }
}

#[test]
fn options_of_every_run_are_taken_or_refused() {
    let place = Place::new("labelled-options");
    let [finetune, segment, _] = kinds(&place);
    let out = place.path("out");
    let refuse = |kind: &Kind, more: &[&str], words: &[&str]| {
        fail(&kind.words(&out, kind.epochs, more), 2, words);
    };
    refuse(&segment, &["--accumulate", "2"], &["train.accumulate = 2", "Dice"]);
    refuse(&segment, &["--accumulate", "3"], &["must be a multiple of train.accumulate (3)"]);
    refuse(&segment, &["--precision", "f16"], &["train.precision", "half precision"]);
    refuse(&segment, &["--set", "segment.dyce=1"], &["dyce"]);
    refuse(&finetune, &["--set", "sparsity.penalty=l1"], &["sparsity"]);
    refuse(&finetune, &["--set", "optimizer.kind=adagrad"], &["optimizer.kind", "adamw"]);
    // Clipping bounds the norm, and another optimiser trains another model.
    let (plain, clipped, sgd) = (place.path("plain"), place.path("clipped"), place.path("sgd"));
    finetune.run(&plain, &[]);
    finetune.run(&clipped, &["--set", "optimizer.clip_norm=0.001"]);
    finetune.run(&sgd, &["--set", "optimizer.kind=sgd"]);
    let model = |run: &str| bytes(run, "model.safetensors");
    assert!(model(&plain) != model(&clipped) && model(&plain) != model(&sgd));
}

#[test]
fn a_configuration_file_is_read() {
    let place = Place::new("labelled-config");
    let [finetune, ..] = kinds(&place);
    let (file, out) = (place.path("mine.toml"), place.path("mine"));
    std::fs::write(&file, "[optimizer]\nkind = \"adam\"\nlr = 0.002\n").unwrap();
    finetune.run(&out, &["--config", &file]);
    let config = String::from_utf8(bytes(&out, "config.toml")).unwrap();
    assert!(config.contains("kind = \"adam\"") && config.contains("[classify]"), "{config}");
    std::fs::write(&file, "[model]\ncode = \"x\"\nlayers = []\n").unwrap();
    let other = place.path("other");
    let words = finetune.words(&other, "1", &["--config", &file]);
    fail(&words, 2, &["mine.toml", "[model]"]);
}
