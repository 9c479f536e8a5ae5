//! Training layer by layer: frozen layers stay, a later stage reconstructs the output of an earlier
//! one; layers that prepare the input are computed from it.

use std::path::Path;
use std::sync::OnceLock;

use csae::internals::model;

use crate::support::files::metrics;
use crate::support::json::numbers;
use crate::support::{Command, TempFolder, gpu, is_file, model_bytes};

/// The layers that both stages begin with.
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

/// The second stage reads the first one's output, pooled, and reconstructs that.
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

/// Trains a model that a text describes on the digits.
fn train(folder: &TempFolder, description: &str, out: &str) -> Command {
    let config = folder.write("description.toml", description);
    Command::train("digits").option("--config", config).out(out).quiet()
}

/// The last explained variance of a run.
fn explained(run: &str) -> f64 {
    *numbers(&metrics(run), "explained_variance").last().unwrap()
}

/// The values of parameters of a run.
fn values(run: &str, names: &[&str]) -> Vec<Vec<f32>> {
    let loaded = model::load(Path::new(run)).unwrap();
    names.iter().map(|name| loaded.tensor(name).unwrap().1.to_vec()).collect()
}

/// Parameters that are frozen or computed from the images.
const FIXED: [&str; 5] =
    ["whiten.weight", "whiten.shift", "whiten.scale", "first.weight", "first.bias"];

/// Runs of both stages.
struct Stages {
    first: String,
    second: String,
}

/// Trained once for all tests, which only read them.
fn stages() -> &'static Stages {
    static STAGES: OnceLock<Stages> = OnceLock::new();
    STAGES.get_or_init(|| {
        let folder = TempFolder::shared();
        let [first, second] =
            ["first", "second"].map(|name| folder.path(&format!("stages/{name}")));
        let config = |name: &str, text| folder.write(&format!("stages/{name}.toml"), text);
        let (one, two) = (config("1", STAGE_1), config("2", STAGE_2));
        let train = |config| Command::train("digits").option("--config", config).on_cpu().quiet();
        train(one).out(&first).succeed();
        train(two).option("--from", &first).out(&second).succeed();
        Stages { first, second }
    })
}

#[test]
fn the_first_stage_learns_from_whitened_images() {
    let Stages { first, .. } = stages();
    assert!(explained(first) > 0.1, "{:?}", metrics(first));
    assert!(values(first, &FIXED)[0].iter().any(|w| *w != 0.0));
}

#[test]
fn a_stage_that_reconstructs_no_image_has_no_psnr() {
    let Stages { first, second } = stages();
    let log = metrics(first);
    let validations = log.iter().filter(|line| line["kind"] == "validation");
    assert!(validations.clone().all(|line| line["psnr"].is_null()), "{log:?}");
    let report = Command::eval(second, "digits").on_cpu().quiet().succeed();
    assert!(!report.contains("PSNR"), "{report}");
}

#[test]
fn the_second_stage_learns_and_leaves_the_first_as_it_is() {
    let Stages { first, second } = stages();
    assert!(explained(second) > 0.3, "{:?}", metrics(second));
    // Weights decay, but not those that are frozen or computed.
    assert_eq!(values(first, &FIXED), values(second, &FIXED));
}

#[test]
fn the_second_stage_learns_its_own_layers() {
    let folder = TempFolder::new("layerwise-short");
    let short = folder.path("short");
    let Stages { first, second } = stages();
    let train = train(&folder, STAGE_2, &short).option("--from", first);
    train.steps(1).on_cpu().succeed();
    assert_ne!(values(&short, &["code.weight"]), values(second, &["code.weight"]));
}

#[test]
fn whitening_is_taken_from_the_first_stage_and_not_from_other_images() {
    let folder = TempFolder::new("layerwise-other");
    let other = folder.path("other");
    let Stages { first, .. } = stages();
    Command::train("textures")
        .option("--config", folder.write("2.toml", STAGE_2))
        .set("model.input=[1,8,8]")
        .option("--from", first)
        .out(&other)
        .steps(2)
        .on_cpu()
        .quiet()
        .succeed();
    assert_eq!(values(first, &FIXED), values(&other, &FIXED));
}

#[test]
fn a_stage_that_reconstructs_no_image_has_no_pictures_of_it() {
    let folder = TempFolder::new("layerwise-pictures");
    let Stages { second, .. } = stages();
    assert!(is_file(second, "filters.png") && !is_file(second, "reconstructions.png"));
    let reconstruct = Command::reconstruct(second, "digits").out(folder.path("r"));
    reconstruct.on_cpu().quiet().fails(2, &["layer pooled", "csae eval"]);
}

#[test]
fn a_second_stage_is_inspected_and_gives_features() {
    let folder = TempFolder::new("layerwise-features");
    let Stages { second, .. } = stages();
    let inspect = Command::inspect(second).flags("--data digits").out(folder.path("look"));
    inspect.on_cpu().quiet().succeed();
    let features = Command::new("features").arg(second).arg("digits");
    features.out(folder.path("f.npy")).on_cpu().quiet().succeed();
}

#[test]
fn both_paths_train_stages_alike() {
    let Some(_turn) = gpu::turn() else { return };
    let folder = TempFolder::new("layerwise-paths");
    let losses = |description: &str, device: &str, more: &[&str]| {
        let out = folder.path(device);
        train(&folder, description, &out).args(more).device(device).force().succeed();
        numbers(&metrics(&out), "reconstruction")
    };
    let close =
        |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 2e-3 * a.abs());
    let gpu = losses(STAGE_1, &gpu::name(), &[]);
    let cpu = numbers(&metrics(&stages().first), "reconstruction");
    assert!(cpu.len() == 4 && close(&cpu, &gpu), "{cpu:?} {gpu:?}");
    let from = ["--from", &stages().first];
    let gpu = losses(STAGE_2, &gpu::name(), &from);
    let cpu = numbers(&metrics(&stages().second), "reconstruction");
    assert!(cpu.len() == 6 && close(&cpu, &gpu), "{cpu:?} {gpu:?}");
    // The control: another seed.
    let other = losses(STAGE_2, "cpu", &[&from[..], &["--seed", "5"]].concat());
    assert!(!close(&cpu, &other));
}

/// A code by TopK whose atoms have norm 1, and whose dead units reconstruct the residual.
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

/// A run of [`TOP_K`], trained once for all tests, which only read it.
fn top_k() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = TempFolder::shared();
        let run = folder.path("stages/top-k");
        let config = folder.write("stages/top-k.toml", TOP_K);
        let train = Command::train("digits").option("--config", config).out(&run);
        train.on_cpu().quiet().succeed();
        run
    })
}

#[test]
fn the_auxiliary_loss_leaves_fewer_dead_units() {
    let folder = TempFolder::new("auxiliary");
    let without = folder.path("without");
    let description = TOP_K.replace("aux_alpha = 0.03125", "aux_alpha = 0.0");
    train(&folder, &description, &without).on_cpu().succeed();
    let dead = |run: &str| *numbers(&metrics(run), "dead_share").last().unwrap();
    let (a, b) = (dead(top_k()), dead(&without));
    assert!(a < 0.75 * b && b > 0.1, "{a} {b}");
    assert!(explained(top_k()) > 0.5);
}

#[test]
fn atoms_keep_their_norm() {
    // [64, 128]: a column is an atom.
    let atoms = &values(top_k(), &["draw.weight"])[0];
    for unit in 0..128 {
        let norm: f64 = (0..64).map(|pixel| f64::from(atoms[pixel * 128 + unit]).powi(2)).sum();
        assert!((norm - 1.0).abs() < 1e-5, "unit {unit}: {norm}");
    }
}

#[test]
fn the_auxiliary_loss_is_the_same_on_a_gpu() {
    let Some(_turn) = gpu::turn() else { return };
    let folder = TempFolder::new("auxiliary-gpu");
    let run = folder.path("gpu");
    train(&folder, TOP_K, &run).steps(80).device(&gpu::name()).succeed();
    let losses = |run: &str| numbers(&metrics(run), "reconstruction");
    // The schedule has no decay, so a shorter run begins like a longer one.
    let (gpu, cpu) = (losses(&run), losses(top_k()));
    assert!(
        gpu.len() == 2 && gpu.iter().zip(&cpu).all(|(a, b)| (a - b).abs() <= 5e-3 * b),
        "{gpu:?} {cpu:?}"
    );
}

/// Asserts that a description with a change is refused.
#[track_caller]
fn refused(description: &str, from: &str, to: &str, words: &[&str]) {
    assert!(description.contains(from), "{from}");
    let folder = TempFolder::new("layerwise-bad");
    let changed = description.replacen(from, to, 1);
    train(&folder, &changed, &folder.path("run")).on_cpu().fails(2, words);
}

#[test]
fn wrong_settings_of_the_auxiliary_loss_are_refused() {
    let both = "unit_norm = true\nmax_norm = 1.0";
    refused(TOP_K, "unit_norm = true", both, &["draw", "max_norm and unit_norm"]);
    let relu = "op = \"activation\"\nactivation = \"relu\"";
    refused(TOP_K, "op = \"top_k\"\nk = 4", relu, &["sparsity.aux_alpha", "top_k"]);
    let sigmoid = "activation = \"sigmoid\"";
    refused(TOP_K, "unit_norm = true", sigmoid, &["sparsity.aux_alpha", "activation"]);
    let negative = "aux_alpha = -1.0";
    refused(TOP_K, "aux_alpha = 0.03125", negative, &["sparsity.aux_alpha", "-1"]);
}

#[test]
fn a_stopped_stage_goes_on_with_the_same_bytes() {
    let folder = TempFolder::new("layerwise-resume");
    let parts = folder.path("parts");
    train(&folder, STAGE_1, &parts).on_cpu().succeed();
    for name in ["checkpoint-000040.safetensors", "model.safetensors"] {
        std::fs::remove_file(format!("{parts}/{name}")).unwrap();
    }
    Command::resume(&parts).quiet().succeed();
    assert!(model_bytes(&stages().first) == model_bytes(&parts));
}

#[test]
fn a_target_behind_layers_that_learn_is_refused() {
    let words = ["model.target", "layer first", "frozen = true"];
    refused(STAGE_2, "frozen = true\n", "", &words);
    let unknown = "target = \"pool\"";
    refused(STAGE_2, "target = \"pooled\"", unknown, &["model.target", "pool", "pooled"]);
}

#[test]
fn an_output_of_another_shape_than_the_target_is_refused() {
    let kernel = "kernel = 3\npadding = 1";
    let (from, to) = (format!("filters = 12\n{kernel}"), format!("filters = 11\n{kernel}"));
    refused(STAGE_2, &from, &to, &["11x4x4", "12x4x4"]);
}

#[test]
fn layers_that_cannot_be_frozen_are_refused() {
    let pooled = "name = \"pooled\"\n";
    let frozen = format!("{pooled}frozen = true\n");
    refused(STAGE_2, pooled, &frozen, &["pooled", "no parameters"]);
    refused(STAGE_2, "frozen = true", "frozen = 1", &["first", "frozen = 1"]);
}

#[test]
fn a_model_whose_layers_are_all_frozen_is_refused() {
    let all = STAGE_2.replace("name = \"code\"", "frozen = true\nname = \"code\"");
    let draw = "name = \"draw2\"";
    refused(&all, draw, &format!("frozen = true\n{draw}"), &["every layer is frozen"]);
}

#[test]
fn windows_and_kernels_of_even_size_are_refused() {
    refused(STAGE_2, "window = 5", "window = 4", &["contrast", "window = 4"]);
    let first = "[[model.layers]]\nname = \"first\"";
    let (from, to) = (format!("kernel = 3\n{first}"), format!("kernel = 4\n{first}"));
    refused(STAGE_2, &from, &to, &["whiten", "odd"]);
}

#[test]
fn a_normalization_behind_a_layer_that_learns_is_refused() {
    let from = "name = \"pooled\"\nop = \"max_pool2d\"\nkernel = 2";
    let to = "name = \"mid\"\nop = \"conv2d\"\nfilters = 3\nkernel = 1\n\
              [[model.layers]]\nname = \"pooled\"\nop = \"local_contrast\"\nwindow = 3";
    refused(STAGE_2, from, to, &["pooled", "layer mid"]);
}

#[test]
fn images_that_do_not_vary_cannot_be_whitened() {
    let folder = TempFolder::new("layerwise-black");
    let black = folder.path("black.png");
    image::GrayImage::new(40, 40).save(&black).unwrap();
    let output = Command::train(&black)
        .option("--config", folder.write("1.toml", STAGE_1))
        .set("model.input=[1,8,8]")
        .out(folder.path("run"))
        .on_cpu()
        .quiet()
        .output();
    assert_eq!(output.status, Some(2), "{output:?}");
    assert!(output.stderr.contains("the images are constant"), "{output:?}");
}
