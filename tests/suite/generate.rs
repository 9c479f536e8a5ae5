//! `csae generate`: new images as a user samples them.

use std::path::Path;
use std::sync::OnceLock;

use csae::internals::data::image_file::ImageFile;
use csae::internals::report::picture;
use csae::internals::shape::Dims;
use serde_json::{Value, json};

use crate::support::files::{copy_folder, exists};
use crate::support::images::bars;
use crate::support::json::{number, of_kind};
use crate::support::{Command, TempFolder, bytes, gpu, text};

/// A small model of bars, with a fixed number of active units.
const SMALL: &str = r#"
[model]
code = "code"
input = [1, 8, 8]
[[model.layers]]
name = "encoder"
op = "conv2d"
filters = 8
kernel = 3
padding = "same"
activation = "relu"
[[model.layers]]
name = "units"
op = "linear"
units = 24
activation = "relu"
[[model.layers]]
name = "code"
op = "top_k"
k = 8
[[model.layers]]
name = "decoder"
op = "linear"
like = "input"
activation = "sigmoid"
[optimizer]
kind = "adam"
lr = 5e-3
[train]
batch = 32
"#;

/// A model of bars with priors.
struct Fitted {
    images: String,
    config: String,
    run: String,
    /// What fitting the priors wrote.
    lines: Vec<Value>,
}

/// Fitted once for all tests, which only read it.
fn fitted() -> &'static Fitted {
    static FITTED: OnceLock<Fitted> = OnceLock::new();
    FITTED.get_or_init(|| {
        let folder = TempFolder::shared();
        let images = bars(folder, "generate/bars", 960);
        let config = folder.write("generate/small.toml", SMALL);
        let run = folder.path("generate/run");
        train(&images, &config, &run).steps(400).succeed();
        let fit = generate(&run, &folder.path("generate/first")).option("--fit", &images);
        let lines = fit.flags("--n 5").json();
        Fitted { images, config, run, lines }
    })
}

fn train(images: &str, config: &str, run: &str) -> Command {
    Command::train(images).option("--config", config).out(run).on_cpu().quiet()
}

/// The images that the shared model learned.
pub fn images() -> &'static str {
    &fitted().images
}

/// The file of the shared model.
pub fn model() -> String {
    format!("{}/model.safetensors", fitted().run)
}

/// Generates images with a model.
fn generate(run: &str, out: &str) -> Command {
    Command::new("generate").arg(run).out(out).on_cpu()
}

/// Generates images with the shared model, writes them over those there are and returns what the
/// command writes.
fn sample(out: &str, flags: &str) -> Value {
    generate(&fitted().run, out).flags(flags).force().json().remove(0)
}

/// An image of horizontal bars.
fn across() -> String {
    format!("{}/across/000.png", fitted().images)
}

/// An image of vertical bars.
fn down() -> String {
    format!("{}/down/001.png", fitted().images)
}

/// How much more rows differ from each other than columns do: above 0 for horizontal bars.
fn horizontal(path: &str) -> f64 {
    let image = ImageFile::read(Path::new(path)).unwrap();
    let (pixels, side) = (image.pixels(), image.dims.w);
    let apart = |step: usize| {
        let both = (0..pixels.len())
            .filter(|p| if step == 1 { p % side + 1 < side } else { p + step < pixels.len() });
        both.map(|p| f64::from(pixels[p] - pixels[p + step]).powi(2)).sum::<f64>()
    };
    apart(side) - apart(1)
}

#[test]
fn fitting_reports_the_classes_and_generates_at_once() {
    let lines = &fitted().lines;
    let fit = of_kind(lines, "fit")[0];
    assert_eq!(fit["classes"], json!(["across", "down"]));
    assert_eq!(of_kind(lines, "validation").len(), 16);
    assert_eq!(lines.last().unwrap()["images"], 5);
}

/// The same seed gives the same images, another seed others.
fn assert_seeded(prior: &str) {
    let folder = TempFolder::new("generate-seed");
    let out = folder.path("out");
    let first = || bytes(format!("{out}/00.png"));
    let line = sample(&out, &format!("--prior {prior} --n 12"));
    assert_eq!(line["images"], 12);
    assert_eq!(line["files"].as_array().unwrap().len(), 14);
    let before = first();
    sample(&out, &format!("--prior {prior} --n 3"));
    assert_eq!(first(), before);
    sample(&out, &format!("--prior {prior} --n 3 --seed 5"));
    assert_ne!(first(), before);
}

#[test]
fn a_gaussian_prior_is_sampled_by_its_seed() {
    assert_seeded("gaussian");
}

#[test]
fn a_mixture_prior_is_sampled_by_its_seed() {
    assert_seeded("mixture");
}

#[test]
fn a_sparse_prior_is_sampled_by_its_seed() {
    assert_seeded("sparse");
}

#[test]
fn images_of_a_class_look_like_it() {
    let folder = TempFolder::new("generate-class");
    let out = folder.path("out");
    for prior in ["mixture", "sparse"] {
        for (class, sign) in [("across", 1.0), ("down", -1.0)] {
            sample(&out, &format!("--prior {prior} --class {class} --n 20 --temperature 0.7"));
            let right = |i: &usize| sign * horizontal(&format!("{out}/{i:02}.png")) > 0.0;
            let right = (0..20).filter(right).count();
            assert!(right >= 17, "{prior}, {class}: {right} of 20");
        }
    }
}

/// Generates images like one of horizontal bars.
fn sample_like(out: &str) -> Command {
    generate(&fitted().run, out).option("--like", across()).flags("--n 2").force()
}

#[test]
fn images_like_another_are_equal_without_variation() {
    let folder = TempFolder::new("generate-like");
    let out = folder.path("out");
    sample_like(&out).flags("--vary 0").succeed();
    assert_eq!(bytes(format!("{out}/00.png")), bytes(format!("{out}/01.png")));
    sample_like(&out).flags("--vary 0.5 --prior sparse").succeed();
    assert_ne!(bytes(format!("{out}/00.png")), bytes(format!("{out}/01.png")));
}

#[test]
fn the_gallery_shows_the_nearest_training_images() {
    let folder = TempFolder::new("generate-nearest");
    let out = folder.path("out");
    sample_like(&out).flags("--vary 0").option("--train", &fitted().images).succeed();
    let page = text(format!("{out}/gallery.html"));
    assert_eq!(page.matches("class=\"sheet samples\"").count(), 5);
    // The training image nearest to an image is the image itself.
    let nearest = page.matches("00.png; nearest: training image 0\"").count();
    assert_eq!(nearest, 2, "{}", &page[page.len() - 600..]);
}

#[test]
fn an_interpolation_runs_from_one_image_to_the_other_without_a_prior() {
    let folder = TempFolder::new("generate-between");
    let (run, out) = (folder.path("run"), folder.path("out"));
    copy_folder(&fitted().run, &run);
    std::fs::remove_file(format!("{run}/prior.safetensors")).unwrap();
    let ends = [across(), down()];
    let frames = generate(&run, &out).arg("--interpolate").args(ends).flags("--frames 4");
    assert_eq!(frames.json()[0]["files"].as_array().unwrap().len(), 6);
    assert!(horizontal(&format!("{out}/frame-00.png")) > 0.0);
    assert!(horizontal(&format!("{out}/frame-03.png")) < 0.0);
    // Its ends are the reconstructions of the two images.
    let like = folder.path("like");
    sample_like(&like).flags("--vary 0").succeed();
    assert_eq!(bytes(format!("{out}/frame-00.png")), bytes(format!("{like}/00.png")));
}

/// There are few pixels and few images here, so that the push on dead units could dominate the
/// loss.
#[test]
fn the_preset_learns_the_bundled_digits() {
    let folder = TempFolder::new("generate-digits");
    let (run, out) = (folder.path("run"), folder.path("out"));
    for seed in [0, 1] {
        let train = Command::train("digits").flags("--preset generate").option("--seed", seed);
        train.out(&run).force().on_cpu().quiet().succeed();
        let line = Command::eval(&run, "digits").on_cpu().json().pop().unwrap();
        assert!(number(&line, "explained_variance") > 0.6, "{line}");
    }
    let fit = generate(&run, &out).flags("--fit digits --class 3 --n 5");
    assert_eq!(fit.json().pop().unwrap()["images"], 5);
}

#[test]
fn priors_are_compared_by_a_classifier() {
    let folder = TempFolder::new("generate-compared");
    let Fitted { images, run, .. } = fitted();
    let (test, judge, out) = (bars(&folder, "test", 100), folder.path("judge"), folder.path("out"));
    let finetune = Command::new("finetune --from-scratch").arg(run).arg(images).epochs(4);
    finetune.out(&judge).on_cpu().quiet().succeed();
    let compare = generate(run, &out)
        .option("--judge", &judge)
        .option("--test", &test)
        .option("--train", images);
    let table = compare.succeed();
    assert!(table.contains("one Gaussian") && table.contains("noise (ceiling)"), "{table}");
    let line = compare.force().json().remove(0);
    assert_eq!(line["images"], 100);
    let distance = |name: &str| {
        let rows = line["rows"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"].as_str().unwrap().starts_with(name)).unwrap();
        number(&row["likeness"], "distance")
    };
    assert!(distance("training") < distance("mixture"), "{line}");
    assert!(distance("mixture") < distance("noise"), "{line}");
    assert!(distance("sparse") < distance("noise"), "{line}");
    let page = text(format!("{out}/gallery.html"));
    assert!(page.contains("Priors compared"));
    assert_eq!(page.matches("class=\"sheet samples\"").count(), 360);
}

#[test]
fn a_unit_is_shown_unless_it_never_fired() {
    let folder = TempFolder::new("generate-unit");
    let output = generate(&fitted().run, &folder.path("out")).flags("--unit 0").output();
    assert!(output.succeeded() || output.stderr.contains("fired on none"), "{output:?}");
}

#[test]
fn both_paths_generate_alike() {
    let Some(_turn) = gpu::turn() else { return };
    let folder = TempFolder::new("generate-gpu");
    let pixels = |device: &str| {
        let out = folder.path(if device == "cpu" { "cpu" } else { "gpu" });
        let generate = Command::new("generate --n 30").arg(&fitted().run).out(&out);
        generate.device(device).quiet().succeed();
        let pixels = |i| ImageFile::read(Path::new(&format!("{out}/{i:02}.png"))).unwrap().pixels();
        (0..30).flat_map(pixels).collect::<Vec<f32>>()
    };
    let (cpu, gpu) = (pixels("cpu"), pixels(&gpu::name()));
    let apart = cpu.iter().zip(&gpu).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart <= 1.01 / 255.0, "{apart}");
    assert!(cpu.iter().any(|v| *v > 0.3));
}

/// Asserts that the shared model refuses a command and leaves no folder.
#[track_caller]
fn refused(arguments: &[&str], words: &[&str]) {
    let folder = TempFolder::new("generate-bad");
    let out = folder.path("out");
    generate(&fitted().run, &out).args(arguments).fails(2, words);
    assert!(!exists(&out), "{arguments:?}");
}

#[test]
fn wrong_numbers_of_images_are_refused() {
    refused(&["--n", "0"], &["--n 0"]);
    refused(&["--n", "100000000"], &["MiB", "fewer"]);
    refused(&["--n", "3000", "--max-memory", "1MiB"], &["MiB", "--max-memory"]);
}

#[test]
fn wrong_options_of_priors_are_refused() {
    refused(&["--temperature", "-1"], &["temperature"]);
    refused(&["--class", "acros"], &["did you mean", "across"]);
    refused(&["--class", "across", "--prior", "gaussian"], &["--prior mixture"]);
}

#[test]
fn wrong_units_and_options_without_effect_on_a_unit_are_refused() {
    refused(&["--unit", "24"], &["0 to 23"]);
    refused(&["--unit", "0", "--seed", "1"], &["--seed"]);
    refused(&["--unit", "0", "--prior", "sparse"], &["--prior"]);
    refused(&["--unit", "0", "--temperature", "0.5"], &["--temperature"]);
}

#[test]
fn wrong_images_to_vary_are_refused() {
    refused(&["--like", "nowhere.png"], &["nowhere.png", "no such file"]);
    refused(&["--like", &fitted().images], &["name an image"]);
    refused(&["--vary", "0.5"], &["--like"]);
    refused(&["--like", &across(), "--vary", "2"], &["between 0 and 1"]);
    refused(&["--interpolate", &across()], &["--interpolate"]);
}

#[test]
fn wrong_data_to_fit_is_refused() {
    let folder = TempFolder::new("generate-none");
    refused(&["--fit", &fitted().images], &["prior.safetensors", "--force"]);
    refused(&["--fit", &folder.path("none"), "--force"], &["does not exist"]);
    refused(&["--set", "train.steps=9"], &["--set", "add --fit DATA"]);
}

#[test]
fn wrong_judges_are_refused() {
    let Fitted { images, run, .. } = fitted();
    let words = ["not an image classifier", "csae finetune"];
    refused(&["--judge", run, "--test", images], &words);
    refused(&["--judge", run], &["--test"]);
}

#[test]
fn an_image_of_another_size_is_refused_without_resize() {
    let folder = TempFolder::new("generate-large");
    let (large, out) = (folder.path("large.png"), folder.path("out"));
    picture::save_png(Path::new(&large), &[0.5; 20 * 20 * 3], Dims::new(3, 20, 20)).unwrap();
    refused(&["--like", &large], &["--resize"]);
    let resized = generate(&fitted().run, &out).option("--like", &large);
    resized.flags("--resize --n 1").succeed();
}

#[test]
fn images_are_not_overwritten_without_force_and_those_that_stay_are_reported() {
    let folder = TempFolder::new("generate-own");
    let own = folder.create("own");
    folder.write("own/04.png", "not generated");
    let generate = generate(&fitted().run, &own);
    generate.clone().flags("--n 5").fails(2, &["04.png", "--force"]);
    let stays = "own also holds 1 numbered image of an earlier run";
    generate.clone().flags("--n 4").warns(&[stays]);
    let messages = generate.clone().flags("--n 5").force().messages();
    assert!(!messages.contains("earlier run"), "{messages}");
    // Without a number, other files are in the way.
    generate.fails(2, &["--force"]);
}

/// A copy of the shared run, which a test may change, and the path of its priors.
pub fn copied_run(folder: &TempFolder) -> (String, String) {
    let run = folder.path("run");
    copy_folder(&fitted().run, &run);
    let prior = format!("{run}/prior.safetensors");
    (run, prior)
}

#[test]
fn a_broken_prior_is_refused() {
    let folder = TempFolder::new("generate-broken");
    let (run, prior) = copied_run(&folder);
    let whole = bytes(&prior);
    std::fs::write(&prior, &whole[..whole.len() / 2]).unwrap();
    generate(&run, &folder.path("out")).fails(2, &["prior.safetensors", "--fit"]);
}

#[test]
fn the_prior_of_another_model_is_refused() {
    let folder = TempFolder::new("generate-other");
    let (run, prior) = copied_run(&folder);
    let Fitted { images, config, run: own, .. } = fitted();
    train(images, config, &run).steps(2).force().succeed();
    std::fs::copy(format!("{own}/prior.safetensors"), &prior).unwrap();
    generate(&run, &folder.path("out")).fails(2, &["another model", "--fit"]);
}

#[test]
fn a_model_without_a_prior_is_refused() {
    let folder = TempFolder::new("generate-no-prior");
    let (run, prior) = copied_run(&folder);
    std::fs::remove_file(&prior).unwrap();
    generate(&run, &folder.path("out")).fails(2, &["no fitted prior", "--fit DATA"]);
}

#[test]
fn a_run_that_fits_priors_is_not_overwritten_without_force() {
    let folder = TempFolder::new("generate-run");
    let (run, prior) = copied_run(&folder);
    std::fs::remove_file(&prior).unwrap();
    let fit = generate(&run, &folder.path("out")).option("--fit", images());
    fit.fails(2, &["run/prior", "csae resume", "--force"]);
}

#[test]
fn models_that_cannot_decode_a_sampled_code_are_refused() {
    let folder = TempFolder::new("generate-restorer");
    let out = folder.path("out");
    Command::new("generate denoise").out(&out).fails(2, &["denoise", "restores"]);
    Command::new("generate paint-1").out(&out).fails(2, &["paint-1", "1024"]);
}
