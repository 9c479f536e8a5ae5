//! Training layer by layer: frozen layers stay, a later stage draws what they give; layers that
//! prepare the input are computed from it.

use std::path::Path;

use csae::internals::model;
use serde_json::Value;

use super::commands::{Place, csae, fail, succeed};
use super::gpu;

/// What both stages begin with.
macro_rules! front {
    ($target:literal, $frozen:literal) => {
        concat!(
            "[model]\ncode = \"code\"\ntarget = \"",
            $target,
            "\"\n",
            r#"
[[model.layers]]
name = "contrast"
op = "local_contrast"
window = 5
eps = 0.01
[[model.layers]]
name = "whiten"
op = "whiten"
kernel = 3
[[model.layers]]
name = "first"
op = "conv2d"
filters = 12
kernel = 3
padding = "same"
activation = "relu"
"#,
            $frozen
        )
    };
}

const STAGE_1: &str = concat!(
    front!("whiten", ""),
    r#"
[[model.layers]]
name = "code"
op = "spatial_wta"
[[model.layers]]
name = "draw"
op = "conv_transpose2d"
filters = "input"
kernel = 5
padding = 2
max_norm = 1.0
[optimizer]
kind = "adam"
lr = 3e-3
weight_decay = 0.1
clip_norm = 1000.0
[train]
batch = 32
steps = 40
log_every = 10
checkpoint_every = 20
"#
);

/// The second stage reads what the first one gives, pooled, and draws that.
const STAGE_2: &str = concat!(
    front!("pooled", "frozen = true\n"),
    r#"
[[model.layers]]
name = "pooled"
op = "max_pool2d"
kernel = 2
[[model.layers]]
name = "code"
op = "conv2d"
filters = 20
kernel = 3
padding = "same"
activation = "relu"
[[model.layers]]
name = "draw2"
op = "conv_transpose2d"
filters = 12
kernel = 3
padding = 1
[optimizer]
kind = "adam"
lr = 3e-3
weight_decay = 0.1
[train]
batch = 32
steps = 60
log_every = 10
"#
);

/// Writes a configuration and returns its path.
fn config(place: &Place, name: &str, text: &str) -> String {
    let path = place.path(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn train(config: &str, out: &str, device: &str, more: &[&str]) -> Vec<Value> {
    succeed(
        &[&["train", "digits", "--config", config, "--out", out, "--device", device, "-q"], more]
            .concat(),
    );
    let log = std::fs::read_to_string(Path::new(out).join("metrics.jsonl")).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn losses(log: &[Value]) -> Vec<f64> {
    log.iter().filter_map(|line| line["reconstruction"].as_f64()).collect()
}

fn explained(log: &[Value]) -> f64 {
    log.iter().rev().find_map(|line| line["explained_variance"].as_f64()).unwrap()
}

/// The values of parameters of a run.
fn values(run: &str, names: &[&str]) -> Vec<Vec<f32>> {
    let loaded = model::load(Path::new(run)).unwrap();
    names.iter().map(|name| loaded.tensor(name).unwrap().1.to_vec()).collect()
}

const FIXED: [&str; 5] =
    ["whiten.weight", "whiten.shift", "whiten.scale", "first.weight", "first.bias"];

#[test]
fn a_second_stage_draws_what_the_first_gives() {
    let place = Place::new("layerwise");
    let (a, b) = (config(&place, "1.toml", STAGE_1), config(&place, "2.toml", STAGE_2));
    let (one, two) = (place.path("one"), place.path("two"));
    let log = train(&a, &one, "cpu", &[]);
    assert!(
        explained(&log) > 0.1
            && log.iter().all(|line| line["kind"] != "validation" || line["psnr"].is_null()),
        "{log:?}"
    );
    assert!(values(&one, &FIXED)[0].iter().any(|w| *w != 0.0));
    let log = train(&b, &two, "cpu", &["--from", &one]);
    assert!(explained(&log) > 0.3, "{log:?}");
    // what is frozen or computed is what it was, though weights decay; the rest is learned
    assert_eq!(values(&one, &FIXED), values(&two, &FIXED));
    let drawn = place.path("drawn");
    train(&b, &drawn, "cpu", &["--from", &one, "--steps", "1"]);
    assert_ne!(values(&drawn, &["code.weight"]), values(&two, &["code.weight"]));
    // whitening is lent with the rest, not computed anew from other images
    let other = place.path("other");
    succeed(&[
        "train",
        "textures",
        "--config",
        &b,
        "--set",
        "model.input=[1,8,8]",
        "--from",
        &one,
        "--out",
        &other,
        "--device",
        "cpu",
        "-q",
        "--steps",
        "2",
    ]);
    assert_eq!(values(&one, &FIXED), values(&other, &FIXED));
    // pictures and commands that make no sense of it say so
    assert!(
        Path::new(&two).join("filters.png").exists()
            && !Path::new(&two).join("reconstructions.png").exists()
    );
    fail(
        &["reconstruct", &two, "digits", "-o", &place.path("r"), "--device", "cpu", "-q"],
        2,
        &["layer pooled", "csae eval"],
    );
    assert!(!succeed(&["eval", &two, "digits", "--device", "cpu", "-q"]).contains("PSNR"));
    succeed(&["inspect", &two, "--data", "digits", "--device", "cpu", "-q"]);
    succeed(&["features", &two, "digits", "-o", &place.path("f.npy"), "--device", "cpu", "-q"]);
}

#[test]
fn both_paths_train_stages_alike() {
    let Some(_turn) = gpu::turn("both_paths_train_stages_alike") else { return };
    let place = Place::new("layerwise-paths");
    let (a, b) = (config(&place, "1.toml", STAGE_1), config(&place, "2.toml", STAGE_2));
    let run = |config: &str, name: &str, device: &str, more: &[&str]| {
        losses(&train(config, &place.path(name), device, more))
    };
    let close =
        |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 2e-3 * a.abs());
    let (cpu, gpu) = (run(&a, "cpu", "cpu", &[]), run(&a, "gpu", &gpu::name(), &[]));
    assert!(cpu.len() == 4 && close(&cpu, &gpu), "{cpu:?} {gpu:?}");
    let from = place.path("cpu");
    let more = ["--from", from.as_str()];
    let (cpu, gpu) = (run(&b, "cpu2", "cpu", &more), run(&b, "gpu2", &gpu::name(), &more));
    assert!(cpu.len() == 6 && close(&cpu, &gpu), "{cpu:?} {gpu:?}");
    // a control: another seed
    assert!(!close(&cpu, &run(&b, "seed", "cpu", &["--from", &from, "--seed", "5"])));
}

/// A code by TopK whose atoms have norm 1, and whose dead units draw what is missing.
const TOP_K: &str = r#"
[model]
code = "code"
[[model.layers]]
name = "units"
op = "linear"
units = 128
[[model.layers]]
name = "code"
op = "top_k"
k = 4
[[model.layers]]
name = "draw"
op = "linear"
like = "input"
unit_norm = true
[sparsity]
revive_patience = 20
aux_alpha = 0.03125
aux_k = 16
[optimizer]
kind = "adam"
lr = 2e-3
[train]
batch = 64
steps = 800
log_every = 40
"#;

#[test]
fn atoms_keep_their_norm_and_dead_units_come_back() {
    let place = Place::new("auxiliary");
    let with = config(&place, "with.toml", TOP_K);
    let without =
        config(&place, "without.toml", &TOP_K.replace("aux_alpha = 0.03125", "aux_alpha = 0.0"));
    let run = place.path("with");
    let dead =
        |log: &[Value]| log.iter().rev().find_map(|line| line["dead_share"].as_f64()).unwrap();
    let (a, b) =
        (train(&with, &run, "cpu", &[]), train(&without, &place.path("without"), "cpu", &[]));
    assert!(dead(&a) < 0.75 * dead(&b) && dead(&b) > 0.1, "{} {}", dead(&a), dead(&b));
    assert!(explained(&a) > 0.5);
    // [64, 128]: a column is an atom
    let atoms = &values(&run, &["draw.weight"])[0];
    for unit in 0..128 {
        let norm: f64 = (0..64).map(|pixel| f64::from(atoms[pixel * 128 + unit]).powi(2)).sum();
        assert!((norm - 1.0).abs() < 1e-5, "unit {unit}: {norm}");
    }
    let Some(_turn) = gpu::turn("atoms_keep_their_norm_and_dead_units_come_back") else { return };
    let gpu = train(&with, &place.path("gpu"), &gpu::name(), &["--steps", "80"]);
    let (cpu, gpu) = (losses(&a), losses(&gpu));
    // a schedule without a fall: the first steps are the same
    assert!(
        gpu.len() == 2 && gpu.iter().zip(&cpu).all(|(a, b)| (a - b).abs() <= 5e-3 * b),
        "{gpu:?} {cpu:?}"
    );
    let refuse = |from: &str, to: &str, words: &[&str]| {
        assert!(TOP_K.contains(from), "{from}");
        let path = config(&place, "bad.toml", &TOP_K.replace(from, to));
        fail(
            &[
                "train",
                "digits",
                "--config",
                &path,
                "--out",
                &place.path("bad"),
                "--device",
                "cpu",
                "-q",
            ],
            2,
            words,
        );
    };
    refuse(
        "unit_norm = true",
        "unit_norm = true\nmax_norm = 1.0",
        &["draw", "max_norm and unit_norm"],
    );
    refuse(
        "op = \"top_k\"\nk = 4",
        "op = \"activation\"\nactivation = \"relu\"",
        &["sparsity.aux_alpha", "top_k"],
    );
    refuse("unit_norm = true", "activation = \"sigmoid\"", &["sparsity.aux_alpha", "activation"]);
    refuse("aux_alpha = 0.03125", "aux_alpha = -1.0", &["sparsity.aux_alpha", "-1"]);
}

#[test]
fn a_stopped_stage_goes_on_with_the_same_bytes() {
    let place = Place::new("layerwise-resume");
    let a = config(&place, "1.toml", STAGE_1);
    let (whole, parts) = (place.path("whole"), place.path("parts"));
    train(&a, &whole, "cpu", &[]);
    train(&a, &parts, "cpu", &[]);
    std::fs::remove_file(Path::new(&parts).join("checkpoint-000040.safetensors")).unwrap();
    std::fs::remove_file(Path::new(&parts).join("model.safetensors")).unwrap();
    succeed(&["resume", &parts, "-q"]);
    let bytes = |run: &str| std::fs::read(Path::new(run).join("model.safetensors")).unwrap();
    assert!(bytes(&whole) == bytes(&parts));
}

#[test]
fn stages_that_make_no_sense_are_refused() {
    let place = Place::new("layerwise-bad");
    let refuse = |from: &str, to: &str, words: &[&str]| {
        assert!(STAGE_2.contains(from), "{from}");
        let path = config(&place, "bad.toml", &STAGE_2.replacen(from, to, 1));
        fail(
            &[
                "train",
                "digits",
                "--config",
                &path,
                "--out",
                &place.path("run"),
                "--device",
                "cpu",
                "-q",
            ],
            2,
            words,
        );
    };
    refuse("frozen = true\n", "", &["model.target", "layer first", "frozen = true"]);
    refuse("target = \"pooled\"", "target = \"pool\"", &["model.target", "pool", "pooled"]);
    refuse(
        "filters = 12\nkernel = 3\npadding = 1",
        "filters = 11\nkernel = 3\npadding = 1",
        &["11x4x4", "12x4x4"],
    );
    refuse(
        "name = \"pooled\"\n",
        "name = \"pooled\"\nfrozen = true\n",
        &["pooled", "no parameters"],
    );
    refuse("frozen = true", "frozen = 1", &["first", "frozen = 1"]);
    refuse("window = 5", "window = 4", &["contrast", "window = 4"]);
    refuse(
        "kernel = 3\n[[model.layers]]\nname = \"first\"",
        "kernel = 4\n[[model.layers]]\nname = \"first\"",
        &["whiten", "odd"],
    );
    refuse(
        "name = \"pooled\"\nop = \"max_pool2d\"\nkernel = 2",
        "name = \"mid\"\nop = \"conv2d\"\nfilters = 3\nkernel = 1\n[[model.layers]]\nname = \"pooled\"\nop = \"local_contrast\"\nwindow = 3",
        &["pooled", "layer mid"],
    );
    let all = STAGE_2
        .replace("name = \"code\"", "frozen = true\nname = \"code\"")
        .replace("name = \"draw2\"", "frozen = true\nname = \"draw2\"");
    let path = config(&place, "all.toml", &all);
    fail(
        &[
            "train",
            "digits",
            "--config",
            &path,
            "--out",
            &place.path("run"),
            "--device",
            "cpu",
            "-q",
        ],
        2,
        &["every layer is frozen"],
    );
    let path = config(&place, "one.toml", STAGE_1);
    let black = place.path("black.png");
    image::GrayImage::new(40, 40).save(&black).unwrap();
    let output = csae(&[
        "train",
        &black,
        "--config",
        &path,
        "--set",
        "model.input=[1,8,8]",
        "--out",
        &place.path("run"),
        "--device",
        "cpu",
        "-q",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("the images are constant"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
