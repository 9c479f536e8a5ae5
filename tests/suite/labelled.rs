//! Runs that learn from labels have what every run has: they are resumed with the same bytes, take
//! batches in parts, clip gradients, and read TOML.

use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Instant;

use csae::internals::rng::Stream;

use crate::support::files::{config, metrics_without_speed};
use crate::support::images::{discs, shapes};
use crate::support::models::{pyramid, sparse_digits};
use crate::support::{Command, TempFolder, bytes, is_file, json, model_bytes};

/// Kills of each kind of run. CI makes few, to save time; before a release ten are made:
/// `CSAE_KILLS=10 cargo test --release --test suite labelled`.
fn kills() -> usize {
    std::env::var("CSAE_KILLS").map_or(2, |kills| kills.parse().expect("a number of kills"))
}

/// A kind of run: its command without folder and length, and a short length.
struct Kind {
    name: &'static str,
    command: Command,
    epochs: usize,
}

/// Images of discs with labels.
fn labelled_discs() -> &'static str {
    static DISCS: OnceLock<String> = OnceLock::new();
    DISCS.get_or_init(|| discs(TempFolder::shared(), "labelled/discs", 6))
}

/// Classification of digits.
fn finetune() -> Kind {
    let command = Command::new("finetune").arg(sparse_digits());
    let command = command.flags("digits --test digits --labels 100 --layer encoder.1 --grid 2");
    Kind { name: "finetune", command: command.batch(16).flags("--shift 1"), epochs: 6 }
}

/// Segmentation of discs.
fn segment() -> Kind {
    let command = Command::new("segment train").arg(pyramid()).arg(labelled_discs());
    let command = command.flags("--crop 32 --instances --augment all").batch(4);
    Kind { name: "segment", command, epochs: 4 }
}

/// Detection of shapes.
fn detect() -> Kind {
    static SHAPES: OnceLock<String> = OnceLock::new();
    let data = SHAPES.get_or_init(|| shapes(TempFolder::shared(), "labelled/shapes", 8).root);
    let command = Command::new("detect train").arg(pyramid()).arg(data);
    let command = command.flags("--size 64 --split train --held-out 0.3").batch(4);
    Kind { name: "detect", command, epochs: 12 }
}

impl Kind {
    /// A run of the short length.
    fn run(&self, out: &str) -> Command {
        self.run_for(out, self.epochs)
    }

    fn run_for(&self, out: &str, epochs: usize) -> Command {
        let command = self.command.clone().out(out).epochs(epochs);
        command.set("train.checkpoint_every=3").on_cpu().quiet()
    }
}

fn assert_equal(a: &str, b: &str) {
    for name in ["config.toml", "model.safetensors", "best.safetensors"] {
        assert!(bytes(format!("{a}/{name}")) == bytes(format!("{b}/{name}")), "{name} differs");
    }
    assert_eq!(metrics_without_speed(a), metrics_without_speed(b));
}

/// Kills a run at random moments. It must end with the bytes of a run that was never killed.
fn assert_survives_kills(kind: &Kind) {
    let folder = TempFolder::new("labelled-killed");
    let (whole, killed) = (folder.path("whole"), folder.path("killed"));
    let began = Instant::now();
    kind.run(&whole).succeed();
    let took = began.elapsed();
    let mut stream = Stream::new(5, kind.name);
    let next = || {
        if is_file(&killed, "config.toml") {
            Command::resume(&killed).quiet()
        } else {
            kind.run(&killed)
        }
    };
    for _ in 0..kills() {
        if is_file(&killed, "model.safetensors") {
            // The run ended before it was killed. It begins again.
            std::fs::remove_dir_all(&killed).unwrap();
        }
        let mut process = next().process();
        let mut child = process.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(took.mul_f64(f64::from(0.1 + 0.8 * stream.uniform())));
        let _ = child.kill();
        child.wait().unwrap();
    }
    next().succeed();
    assert_equal(&whole, &killed);
    // A finished run has nothing left to do.
    assert!(Command::resume(&killed).succeed().contains("finished"));
}

#[test]
fn a_killed_classification_goes_on_with_the_same_bytes() {
    assert_survives_kills(&finetune());
}

#[test]
fn a_killed_segmentation_goes_on_with_the_same_bytes() {
    assert_survives_kills(&segment());
}

#[test]
fn a_killed_detection_goes_on_with_the_same_bytes() {
    assert_survives_kills(&detect());
}

#[cfg(unix)]
#[test]
fn ctrl_c_writes_a_checkpoint_and_the_best_weights_can_be_used() {
    use crate::support::command::{send, wait};
    use std::time::Duration;
    let folder = TempFolder::new("labelled-interrupt");
    let out = folder.path("out");
    let child = segment().run_for(&out, 4000).spawn();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_file(&out, "best.safetensors") {
        assert!(Instant::now() < deadline, "no validation in two minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
    send("-INT", &child);
    let output = wait(child);
    assert_eq!(output.status, Some(130), "{output:?}");
    assert!(output.stderr.contains("csae resume"), "{output:?}");
    let eval = Command::new("segment eval").arg(format!("{out}/best.safetensors"));
    eval.arg(labelled_discs()).arg("--instances").on_cpu().quiet().succeed();
}

/// Trains in whole batches and in parts.
fn assert_parts_learn_the_same(kind: &Kind, flags: &str) {
    let folder = TempFolder::new("labelled-parts");
    let losses = |name: &str, parts: usize| {
        let run = kind.run(&folder.path(name)).flags(flags).set("train.log_every=1");
        run.option("--accumulate", parts).succeed();
        json::numbers(&metrics_without_speed(&folder.path(name)), "loss")
    };
    let (a, b) = (losses("whole", 1), losses("parts", 2));
    assert!(a.len() > 5 && a.len() == b.len(), "{} {}", a.len(), b.len());
    // The first steps agree within rounding; later ones amplify it.
    for (a, b) in a.iter().zip(&b).take(3) {
        assert!((a - b).abs() <= 1e-3 * a.abs(), "{a} {b}");
    }
    assert!((a[0] - a[2]).abs() > 1e-3 * a[0].abs(), "the steps differ too little");
}

#[test]
fn a_batch_in_parts_learns_the_same_classification() {
    assert_parts_learn_the_same(&finetune(), "");
}

#[test]
fn a_batch_in_parts_learns_the_same_segmentation() {
    // The Dice loss needs the whole batch.
    assert_parts_learn_the_same(&segment(), "--dice 0");
}

#[test]
fn a_batch_in_parts_learns_the_same_detection() {
    assert_parts_learn_the_same(&detect(), "");
}

#[track_caller]
fn refused(kind: &Kind, cases: &[(&str, &[&str])]) {
    let folder = TempFolder::new("labelled-options");
    for (flags, words) in cases {
        kind.run(&folder.path("out")).flags(flags).fails(2, words);
    }
}

#[test]
fn wrong_options_of_a_segmentation_are_refused() {
    refused(
        &segment(),
        &[
            ("--accumulate 2", &["train.accumulate = 2", "Dice"]),
            ("--accumulate 3", &["must be a multiple of train.accumulate (3)"]),
            ("--precision f16", &["train.precision", "half precision"]),
            ("--set segment.dyce=1", &["dyce"]),
        ],
    );
}

#[test]
fn settings_that_a_classification_does_not_have_are_refused() {
    refused(
        &finetune(),
        &[
            ("--set sparsity.penalty=l1", &["sparsity"]),
            ("--set optimizer.kind=adagrad", &["optimizer.kind", "adamw"]),
        ],
    );
}

#[test]
fn clipping_and_the_optimizer_change_the_model() {
    let folder = TempFolder::new("labelled-optimizer");
    let model = |name: &str, flags: &str| {
        let run = folder.path(name);
        finetune().run(&run).flags(flags).succeed();
        model_bytes(&run)
    };
    let plain = model("plain", "");
    assert!(plain != model("clipped", "--set optimizer.clip_norm=0.001"));
    assert!(plain != model("sgd", "--set optimizer.kind=sgd"));
}

#[test]
fn a_configuration_file_is_read() {
    let folder = TempFolder::new("labelled-config");
    let out = folder.path("out");
    let file = folder.write("mine.toml", "[optimizer]\nkind = \"adam\"\nlr = 0.002\n");
    finetune().run(&out).option("--config", file).succeed();
    let config = config(&out);
    assert!(config.contains("kind = \"adam\"") && config.contains("[classify]"), "{config}");
}

#[test]
fn a_configuration_file_cannot_replace_the_model() {
    let folder = TempFolder::new("labelled-model");
    let file = folder.write("mine.toml", "[model]\ncode = \"x\"\nlayers = []\n");
    let run = finetune().run_for(&folder.path("out"), 1).option("--config", file);
    run.fails(2, &["mine.toml", "[model]"]);
}

#[test]
fn inspecting_a_labelled_run_shows_its_loss_and_its_validations() {
    let folder = TempFolder::new("labelled-inspect");
    let run = folder.path("run");
    finetune().run(&run).succeed();
    let lines = Command::inspect(&run).on_cpu().quiet().json();
    let history = json::of_kind(&lines, "history")[0];
    assert!(json::number(history, "steps") > 0.0, "{history}");
    assert!(json::number(&history["best"], "error") <= json::number(&history["last"], "error"));
    assert_eq!(json::of_kind(&lines, "model")[0]["task"], "classification");
    assert!(is_file(&run, "inspect/history.png"));
    let text = Command::inspect(&run).on_cpu().quiet().succeed();
    for words in ["task: classification", "best", "error 0."] {
        assert!(text.contains(words), "{words}: {text}");
    }
}
