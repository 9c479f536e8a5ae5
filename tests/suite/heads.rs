//! Runs of heads (classifiers, segmenters, detectors, priors) have what every run has: they are
//! resumed with the same bytes, take batches in parts, clip gradients, and read TOML.

use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Instant;

use csae::internals::rng::Stream;

use crate::generate;
use crate::support::files::{config, metrics_without_speed};
use crate::support::images::{bars, discs, shapes};
use crate::support::models::{pyramid, sparse_digits};
use crate::support::{Command, TempFolder, bytes, is_file, json, model_bytes};

/// Kills of each kind of run. CI makes few, to save time; before a release ten are made:
/// `CSAE_KILLS=10 cargo test --release --test suite heads`.
fn kills() -> usize {
    std::env::var("CSAE_KILLS").map_or(2, |kills| kills.parse().expect("a number of kills"))
}

/// A kind of run: its command without folder, and a short length.
struct Kind {
    name: &'static str,
    command: Command,
    length: &'static str,
    /// Folder of the run, below an empty folder. That of a prior depends on its model.
    folder: fn(&TempFolder) -> String,
}

/// Folder of a run that `--out` names.
fn out(folder: &TempFolder) -> String {
    folder.path("run")
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
    Kind {
        name: "finetune",
        command: command.batch(16).flags("--shift 1"),
        length: "--epochs 6",
        folder: out,
    }
}

/// Segmentation of discs.
fn segment() -> Kind {
    let command = Command::new("segment train").arg(pyramid()).arg(labelled_discs());
    let command = command.flags("--crop 32 --instances --augment all").batch(4);
    Kind { name: "segment", command, length: "--epochs 4", folder: out }
}

/// Detection of shapes.
fn detect() -> Kind {
    static SHAPES: OnceLock<String> = OnceLock::new();
    let data = SHAPES.get_or_init(|| shapes(TempFolder::shared(), "labelled/shapes", 8).root);
    let command = Command::new("detect train").arg(pyramid()).arg(data);
    let command = command.flags("--size 64 --split train --held-out 0.3").batch(4);
    Kind { name: "detect", command, length: "--epochs 12", folder: out }
}

/// Priors of the codes of bars.
fn prior() -> Kind {
    let command = Command::new("generate --force --n 1 --components 4");
    let command = command.option("--fit", generate::images());
    Kind {
        name: "prior",
        command,
        length: "--set train.steps=400",
        folder: |folder| {
            let model = folder.path("model.safetensors");
            std::fs::copy(generate::model(), model).unwrap();
            folder.path("prior")
        },
    }
}

impl Kind {
    /// A run of the short length in a folder that [`Kind::folder`] returned.
    fn run(&self, run: &str) -> Command {
        self.run_for(run, self.length).on_cpu()
    }

    fn run_for(&self, run: &str, length: &str) -> Command {
        let command = self.command.clone().flags(length);
        let command = if self.name == "prior" {
            let beside = run.strip_suffix("prior").unwrap();
            command.arg(format!("{beside}model.safetensors")).out(format!("{beside}samples"))
        } else {
            command.out(run)
        };
        command.set("train.checkpoint_every=3").quiet()
    }
}

fn assert_equal(a: &str, b: &str) {
    assert_eq!(config(a), config(b));
    for name in ["model.safetensors", "best.safetensors"] {
        assert!(bytes(format!("{a}/{name}")) == bytes(format!("{b}/{name}")), "{name} differs");
    }
    assert_eq!(metrics_without_speed(a), metrics_without_speed(b));
}

/// Kills a run at random moments. It must end with the bytes of a run that was never killed.
fn assert_survives_kills(kind: &Kind) {
    let folder = TempFolder::new("heads-killed");
    let (whole, killed) = (folder.path("whole"), (kind.folder)(&folder));
    let began = Instant::now();
    kind.run(&killed).succeed();
    let took = began.elapsed();
    // Both run in the same place, since a configuration has the absolute path of its model.
    std::fs::rename(&killed, &whole).unwrap();
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

#[test]
fn a_killed_fit_of_priors_goes_on_with_the_same_bytes() {
    assert_survives_kills(&prior());
}

#[test]
fn a_prior_of_a_resumed_run_can_be_sampled() {
    let folder = TempFolder::new("heads-prior");
    let run = (prior().folder)(&folder);
    prior().run(&run).set("train.steps=20").succeed();
    // Its checkpoint says that the run ended after 20 steps.
    let resumed = Command::resume(&run).steps(40).quiet().succeed();
    assert!(resumed.contains("fitted priors to 960 codes of 2 classes"), "{resumed}");
    // A finished run writes its priors again if they were removed.
    let priors = folder.path("prior.safetensors");
    let before = bytes(&priors);
    std::fs::remove_file(&priors).unwrap();
    Command::resume(&run).quiet().succeed();
    assert!(bytes(&priors) == before);
    let generate = Command::new("generate --n 3").arg(folder.path("model.safetensors"));
    generate.out(folder.path("new")).on_cpu().succeed();
}

#[test]
fn inspecting_a_prior_shows_its_history_and_no_atoms() {
    let folder = TempFolder::new("heads-prior-inspect");
    let run = (prior().folder)(&folder);
    prior().run(&run).set("train.steps=20").succeed();
    let text = Command::inspect(&run).on_cpu().quiet().succeed();
    assert!(text.contains("strength") && text.contains("fires"), "{text}");
    assert!(is_file(&run, "inspect/history.png"));
    // Its output describes units. It is not an image.
    assert!(!is_file(&run, "inspect/atoms.png"), "{text}");
}

#[test]
fn a_fit_of_priors_does_not_go_on_with_other_images() {
    let folder = TempFolder::new("heads-images");
    let run = (prior().folder)(&folder);
    let images = bars(&folder, "bars", 64);
    let command = Command::new("generate --n 1").arg(folder.path("model.safetensors"));
    let command = command.option("--fit", &images).out(folder.path("samples"));
    command.set("train.steps=5").on_cpu().quiet().succeed();
    std::fs::remove_file(format!("{images}/across/000.png")).unwrap();
    Command::resume(&run).steps(9).quiet().fails(2, &["images or the model differ", "restore"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_writes_a_checkpoint_and_the_best_weights_can_be_used() {
    use crate::support::command::{interrupt, wait};
    use std::time::Duration;
    let folder = TempFolder::new("heads-interrupt");
    let out = folder.path("out");
    let child = segment().run_for(&out, "--epochs 4000").spawn();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_file(&out, "best.safetensors") {
        assert!(Instant::now() < deadline, "no validation in two minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = interrupt(&child);
    let output = wait(child);
    assert_eq!(output.status, Some(status), "{output:?}");
    assert!(output.stderr.contains("csae resume"), "{output:?}");
    let eval = Command::new("segment eval").arg(format!("{out}/best.safetensors"));
    eval.arg(labelled_discs()).arg("--instances").on_cpu().quiet().succeed();
}

/// Trains in whole batches and in parts.
fn assert_parts_learn_the_same(kind: &Kind, flags: &str) {
    let losses = |parts: usize| {
        let folder = TempFolder::new("heads-parts");
        let run = (kind.folder)(&folder);
        let command = kind.run(&run).flags(flags).set("train.log_every=1");
        command.set(format!("train.accumulate={parts}")).succeed();
        json::numbers(&metrics_without_speed(&run), "loss")
    };
    let (a, b) = (losses(1), losses(2));
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
    assert_parts_learn_the_same(&segment(), "");
}

#[test]
fn a_batch_in_parts_learns_the_same_detection() {
    assert_parts_learn_the_same(&detect(), "");
}

#[test]
fn a_batch_in_parts_learns_the_same_prior() {
    assert_parts_learn_the_same(&prior(), "");
}

/// Several processes train to the bytes of parts of a batch.
#[test]
fn processes_learn_every_head_to_the_bytes_of_parts() {
    for kind in [finetune(), segment(), detect(), prior()] {
        let folder = TempFolder::new("heads-ranks");
        let (parts, processes) = (folder.path("parts"), (kind.folder)(&folder));
        kind.run(&processes).set("train.accumulate=2").succeed();
        std::fs::rename(&processes, &parts).unwrap();
        let again = kind.run_for(&processes, kind.length).flags("--devices cpu,cpu");
        again.succeed();
        assert_equal(&processes, &parts);
    }
}

#[track_caller]
fn refused(kind: &Kind, cases: &[(&str, &[&str])]) {
    let folder = TempFolder::new("heads-options");
    let run = (kind.folder)(&folder);
    for (flags, words) in cases {
        kind.run(&run).flags(flags).fails(2, words);
        assert!(!is_file(&run, "config.toml"), "{flags}");
    }
}

#[test]
fn settings_that_a_prior_does_not_have_are_refused() {
    refused(
        &prior(),
        &[
            ("--set sparsity.penalty=l1", &["sparsity", "[prior]"]),
            ("--set loss.kind=l1", &["loss", "[prior]"]),
            ("--set data.flip_x=true", &["data", "source, strict, validation"]),
            ("--set optimizer.encoder_lr=0.5", &["optimizer.encoder_lr"]),
            ("--set train.batch=5000", &["train.batch = 5000", "900 codes"]),
            ("--set train.precision=f16", &["train.precision", "half precision"]),
            ("--set prior.compnents=3", &["did you mean components"]),
            ("--set data.source=digits", &["data.source", "remove --set"]),
            ("--set prior.model=other", &["prior.model", "remove --set"]),
        ],
    );
}

#[test]
fn wrong_options_of_a_segmentation_are_refused() {
    refused(
        &segment(),
        &[
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
            ("--set loss.kind=l1", &["loss", "[classify]"]),
            ("--set data.crop=64", &["data", "source, strict, validation, flip_x"]),
            ("--set train.from=other", &["train.from", "remove --set"]),
        ],
    );
}

#[test]
fn the_seed_of_a_configuration_counts_unless_a_flag_gives_another() {
    let folder = TempFolder::new("heads-seed");
    for (flags, seed) in [("--set seed=5", "seed = 5"), ("--set seed=5 --seed 7", "seed = 7")] {
        for kind in [finetune(), prior()] {
            let below = TempFolder::new("heads-seed-run");
            let run = if kind.name == "prior" { (kind.folder)(&below) } else { folder.path(seed) };
            kind.run(&run).flags(flags).succeed();
            let config = config(&run);
            assert!(config.starts_with(seed), "{flags}: {config}");
        }
    }
}

#[test]
fn clipping_and_the_optimizer_change_the_model() {
    let folder = TempFolder::new("heads-optimizer");
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
    let folder = TempFolder::new("heads-config");
    let out = folder.path("out");
    let file = folder.write("mine.toml", "[optimizer]\nkind = \"adam\"\nlr = 0.002\n");
    finetune().run(&out).option("--config", file).succeed();
    let config = config(&out);
    assert!(config.contains("kind = \"adam\"") && config.contains("[classify]"), "{config}");
}

#[test]
fn a_configuration_file_cannot_replace_the_model() {
    let folder = TempFolder::new("heads-model");
    let file = folder.write("mine.toml", "[model]\ncode = \"x\"\nlayers = []\n");
    let run = finetune().run_for(&folder.path("out"), "--epochs 1").option("--config", file);
    run.fails(2, &["mine.toml", "[model]"]);
}

#[test]
fn inspecting_a_classification_shows_its_loss_and_its_validations() {
    let folder = TempFolder::new("heads-inspect");
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
