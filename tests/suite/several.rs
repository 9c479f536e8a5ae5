//! Several files of which one is broken, options without effect, and notes of a training.

use std::path::Path;
use std::sync::OnceLock;

use csae::internals::report::picture::save_png;
use csae::internals::shape::Dims;

use crate::support::files::exists;
use crate::support::images::BRICK;
use crate::support::{Command, TempFolder, bytes, is_file};

/// An image that can be used and one that is cut off.
fn good_and_broken(folder: &TempFolder) -> [String; 2] {
    let whole = bytes(BRICK);
    let broken = folder.write("broken.png", &whole[..whole.len() / 2]);
    [folder.write("good.png", whole), broken]
}

/// A model of photographs that no test changes.
fn model() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let run = TempFolder::shared().path("several");
        let train = Command::train("photos").out(&run).steps(2).set("data.crop=16");
        train.on_cpu().quiet().succeed();
        run
    })
}

/// A broken image is skipped and named beside good ones, and an error alone or with `--strict`.
fn assert_broken_files_are_skipped(command: &Command) {
    let folder = TempFolder::new("several");
    let [good, broken] = good_and_broken(&folder);
    let other = folder.write("other.png", bytes(BRICK));
    let run =
        |files: &[&String], out: &str| command.clone().args(files).out(folder.path(out)).on_cpu();
    let among = run(&[&good, &broken, &other], "out");
    among.warns(&["skipped 1 file", "broken.png: cannot be"]);
    let out = folder.path("out");
    assert!(is_file(&out, "good.png") && is_file(&out, "other.png"));
    assert!(!exists(format!("{out}/broken.png")));
    let strict = run(&[&good, &broken], "strict").flags("--strict --force");
    assert_eq!(strict.output().status, Some(2));
    assert_eq!(run(&[&broken], "alone").output().status, Some(2));
}

#[test]
fn denoise_skips_a_broken_file_among_others() {
    assert_broken_files_are_skipped(&Command::new("denoise"));
}

#[test]
fn reconstruct_skips_a_broken_file_among_others() {
    assert_broken_files_are_skipped(&Command::new("reconstruct").arg(model()));
}

#[test]
fn denoise_skips_an_image_that_is_too_small() {
    let folder = TempFolder::new("several-tiny");
    let [good, _] = good_and_broken(&folder);
    let tiny = folder.path("tiny.png");
    save_png(Path::new(&tiny), &[0.5; 3], Dims::new(3, 1, 1)).unwrap();
    let denoise = Command::new("denoise").args([tiny, good]).out(folder.path("out"));
    denoise.on_cpu().warns(&["tiny.png: an image of 1x1"]);
}

#[test]
fn classify_skips_a_broken_file() {
    let folder = TempFolder::new("several-classify");
    let classifier = folder.path("classifier");
    let finetune = Command::new("finetune").arg(model()).flags("digits --resize").epochs(1);
    finetune.out(&classifier).on_cpu().quiet().succeed();
    let classify = Command::new("classify").arg(&classifier).args(good_and_broken(&folder));
    classify.arg("--resize").on_cpu().warns(&["broken.png"]);
}

/// A model of the preset `sparse` that no test changes.
fn sparse() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let run = TempFolder::shared().path("several-sparse");
        let train = Command::train("digits").flags("--preset sparse").out(&run).steps(2);
        train.on_cpu().quiet().succeed();
        run
    })
}

#[test]
fn pooling_options_without_effect_are_refused() {
    let folder = TempFolder::new("idle-pooling");
    let out = folder.path("f.npy");
    let cases: &[(&str, &[&str])] = &[
        ("--layer encoder.0 --grid 2", &["--grid 2", "--pool"]),
        ("--grid 2 --pool max", &["--grid 2", "cannot be pooled"]),
        ("--pool max", &["--pool", "cannot be pooled"]),
    ];
    for (flags, words) in cases {
        let features = Command::new("features").arg(sparse()).arg("digits").out(&out);
        features.flags(flags).on_cpu().fails(2, words);
    }
    assert!(!exists(&out));
}

#[test]
fn options_of_other_modes_are_refused() {
    let folder = TempFolder::new("idle-options");
    let out = folder.path("out");
    let cases: &[(&str, &[&str])] = &[
        ("sweep digits --rules top_k --steps 1 --lambda 3", &["--lambda", "l1"]),
        ("bench --workload w1", &["--out", "--grow"]),
    ];
    for (line, words) in cases {
        Command::new(line).on_cpu().out(&out).fails(2, words);
    }
    let trace = folder.path("trace.json");
    let bench = Command::new("bench --workload w1").on_cpu().option("--trace", &trace);
    bench.fails(2, &["--trace", "--profile"]);
    assert!(!exists(&out) && !exists(&trace));
}

#[test]
fn a_folder_in_place_of_an_image_is_refused() {
    let folder = TempFolder::new("idle-folder");
    let texture = Command::new("texture").arg(sparse()).out(folder.path("out"));
    texture.fails(2, &["a folder", "*.png"]);
}

#[test]
fn numbers_out_of_range_are_refused_with_their_flag() {
    let folder = TempFolder::new("idle-numbers");
    let out = folder.path("out");
    let finetune = Command::new("finetune").arg(sparse()).arg("digits").out(&out);
    finetune.clone().flags("--lr -3").fails(2, &["--lr", "-3"]);
    finetune.flags("--labels 0").fails(2, &["--labels", "at least 1"]);
    let train = Command::train("digits").out(&out);
    train.clone().flags("--steps 0").fails(2, &["--steps", "at least 1"]);
    train.flags("--steps 1.5").fails(2, &["--steps", "whole number"]);
}

/// A training of a preset on the digits, with its notes.
fn stage(preset: &str, steps: usize, out: &str) -> Command {
    Command::train("digits").option("--preset", preset).steps(steps).out(out).on_cpu()
}

/// A first stage of winner-take-all and what its training wrote to standard error.
fn winners() -> &'static (String, String) {
    static RUN: OnceLock<(String, String)> = OnceLock::new();
    RUN.get_or_init(|| {
        let run = TempFolder::shared().path("several-winners");
        let train = stage("wta", 20, &run).set("train.validate_every=0.2");
        let messages = train.messages();
        (run, messages)
    })
}

#[test]
fn a_training_with_lifetime_winners_suggests_a_probe() {
    let (run, messages) = winners();
    assert!(messages.contains("lifetime winner-take-all"), "{messages}");
    assert!(messages.contains("csae probe"), "{messages}");
    // Its losses of validation rise, so the last model is also the best one.
    let bytes = |name: &str| bytes(format!("{run}/{name}"));
    assert_eq!(bytes("best.safetensors"), bytes("model.safetensors"));
}

#[test]
fn a_second_stage_without_a_first_warns_of_frozen_layers() {
    let folder = TempFolder::new("alone");
    stage("wta2", 1, &folder.path("run")).warns(&["frozen", "--from"]);
}

#[test]
fn a_second_stage_reports_the_parameters_that_it_takes() {
    let folder = TempFolder::new("second");
    let train = stage("wta2", 1, &folder.path("run")).option("--from", &winners().0);
    let messages = train.messages();
    assert!(messages.contains("parameters and states, by name and shape"), "{messages}");
    assert!(!messages.contains("frozen layers"), "{messages}");
}

#[test]
fn a_probe_on_its_training_images_warns() {
    let folder = TempFolder::new("probe-same");
    Command::new("probe --train digits --test digits --grid 1 --classifier svm")
        .arg(&winners().0)
        .out(folder.path("probe"))
        .on_cpu()
        .warns(&["do not measure generalization"]);
}
