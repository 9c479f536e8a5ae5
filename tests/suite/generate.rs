//! New images as a user draws them.

use std::path::Path;

use csae::internals::data::image_file::ImageFile;
use csae::internals::report::picture;
use serde_json::Value;

use super::commands::{Place, csae, fail, succeed};
use super::gpu;

/// Small gray images of two classes in a folder: horizontal and vertical bars, anywhere, of any
/// brightness.
fn bars(place: &Place, name: &str, count: usize) -> String {
    let folder = place.path(name);
    let side = 8;
    for i in 0..count {
        let class = ["across", "down"][i % 2];
        let (at, light) = (1 + i * 7 % 6, 0.4 + 0.06 * (i * 3 % 10) as f32);
        let pixel = |p: usize| {
            if [p / side, p % side][i % 2].abs_diff(at) < 1 + i % 3 / 2 { light } else { 0.0 }
        };
        let pixels: Vec<f32> = (0..side * side).map(pixel).collect();
        std::fs::create_dir_all(format!("{folder}/{class}")).unwrap();
        picture::save_png(
            Path::new(&format!("{folder}/{class}/{i:03}.png")),
            &pixels,
            side,
            side,
            1,
        )
        .unwrap();
    }
    folder
}

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

/// A trained model with its priors, and its images.
fn fitted(place: &Place) -> (String, String) {
    let (images, config, run) =
        (bars(place, "bars", 960), place.path("small.toml"), place.path("run"));
    std::fs::write(&config, SMALL).unwrap();
    succeed(&[
        "train", &images, "--config", &config, "--steps", "400", "--device", "cpu", "-q", "--out",
        &run,
    ]);
    let fit = [
        "generate",
        &run,
        "--fit",
        &images,
        "--device",
        "cpu",
        "--json",
        "-o",
        &place.path("first"),
        "--n",
        "5",
    ];
    let lines = told(&succeed(&fit));
    assert_eq!(lines[0]["kind"], "fit");
    assert_eq!(lines[0]["classes"], serde_json::json!(["across", "down"]));
    assert_eq!(lines[1]["images"], 5);
    (run, images)
}

fn told(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn bytes(path: &str) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// How much more rows differ from each other than columns do: above 0 for bars across.
fn across(path: &str) -> f64 {
    let image = ImageFile::read(Path::new(path)).unwrap();
    let (pixels, side) = (image.pixels(), image.w);
    let apart = |step: usize| {
        let both = (0..pixels.len())
            .filter(|p| if step == 1 { p % side + 1 < side } else { p + step < pixels.len() });
        both.map(|p| f64::from(pixels[p] - pixels[p + step]).powi(2)).sum::<f64>()
    };
    apart(side) - apart(1)
}

#[test]
fn images_are_drawn_as_they_are_asked_for() {
    let place = Place::new("generate");
    let (run, images) = fitted(&place);
    let out = place.path("out");
    let draw = |more: &[&str]| {
        let arguments =
            [&["generate", &run[..], "--device", "cpu", "--json", "--force", "-o", &out], more]
                .concat();
        told(&succeed(&arguments)).remove(0)
    };
    // the same by the same seed, another by another
    for prior in ["gaussian", "mixture", "sparse"] {
        let line = draw(&["--prior", prior, "--n", "12"]);
        assert_eq!(
            (line["images"].as_u64(), line["files"].as_array().unwrap().len()),
            (Some(12), 14)
        );
        let first = bytes(&format!("{out}/00.png"));
        draw(&["--prior", prior, "--n", "3"]);
        assert_eq!(bytes(&format!("{out}/00.png")), first, "{prior}");
        draw(&["--prior", prior, "--n", "3", "--seed", "5"]);
        assert_ne!(bytes(&format!("{out}/00.png")), first, "{prior}");
    }
    // of a class
    for prior in ["mixture", "sparse"] {
        for (class, sign) in [("across", 1.0), ("down", -1.0)] {
            draw(&["--prior", prior, "--class", class, "--n", "20", "--temperature", "0.7"]);
            let right =
                (0..20).filter(|i| sign * across(&format!("{out}/{i:02}.png")) > 0.0).count();
            assert!(right >= 17, "{prior}, {class}: {right} of 20");
        }
    }
    // like an image: all of it where nothing varies; the training image nearest to it is itself
    let image = format!("{images}/across/000.png");
    draw(&["--like", &image, "--vary", "0", "--n", "2", "--train", &images]);
    assert_eq!(bytes(&format!("{out}/00.png")), bytes(&format!("{out}/01.png")));
    let page = std::fs::read_to_string(format!("{out}/gallery.html")).unwrap();
    assert_eq!(page.matches("class=\"sheet samples\"").count(), 5);
    assert_eq!(
        page.matches("00.png; nearest: training image 0\"").count(),
        2,
        "{}",
        &page[page.len() - 600..]
    );
    let same = bytes(&format!("{out}/00.png"));
    draw(&["--like", &image, "--vary", "0.5", "--n", "2", "--prior", "sparse"]);
    assert_ne!(bytes(&format!("{out}/00.png")), bytes(&format!("{out}/01.png")));
    // between two: the ends are what the model makes of them; no prior is needed
    std::fs::remove_file(format!("{run}/prior.safetensors")).unwrap();
    let line = draw(&["--interpolate", &image, &format!("{images}/down/001.png"), "--frames", "4"]);
    assert_eq!(line["files"].as_array().unwrap().len(), 6);
    assert_eq!(bytes(&format!("{out}/frame-00.png")), same);
    assert!(
        across(&format!("{out}/frame-00.png")) > 0.0
            && across(&format!("{out}/frame-03.png")) < 0.0
    );
}

/// Of few pixels and few images, where the push on dead units could win over the loss.
#[test]
fn the_preset_learns_the_bundled_digits() {
    let place = Place::new("generate-digits");
    let (run, out) = (place.path("run"), place.path("out"));
    for seed in ["0", "1"] {
        let train = [
            "train", "digits", "--preset", "generate", "--device", "cpu", "-q", "--force",
            "--seed", seed, "--out", &run,
        ];
        succeed(&train);
        let line =
            told(&succeed(&["eval", &run, "digits", "--device", "cpu", "--json"])).pop().unwrap();
        assert!(line["explained_variance"].as_f64().unwrap() > 0.6, "{line}");
    }
    let fit = [
        "generate", &run, "--fit", "digits", "--class", "3", "--n", "5", "--device", "cpu",
        "--json", "-o", &out,
    ];
    assert_eq!(told(&succeed(&fit)).pop().unwrap()["images"], 5);
}

#[test]
fn priors_are_compared() {
    let place = Place::new("judged");
    let (run, images) = fitted(&place);
    let (test, judge, out) = (bars(&place, "test", 100), place.path("judge"), place.path("out"));
    succeed(&[
        "finetune",
        &run,
        &images,
        "--from-scratch",
        "--epochs",
        "4",
        "--device",
        "cpu",
        "-q",
        "-o",
        &judge,
    ]);
    let arguments = [
        "generate", &run, "--judge", &judge, "--test", &test, "--train", &images, "--device",
        "cpu", "-o", &out,
    ];
    let table = succeed(&arguments);
    assert!(table.contains("one Gaussian") && table.contains("noise (ceiling)"), "{table}");
    let line = told(&succeed(&[&arguments[..], &["--force", "--json"]].concat())).remove(0);
    assert_eq!(line["images"], 100);
    let distance = |name: &str| {
        let rows = line["rows"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"].as_str().unwrap().starts_with(name)).unwrap();
        row["likeness"]["distance"].as_f64().unwrap()
    };
    assert!(
        distance("training") < distance("mixture") && distance("mixture") < distance("noise"),
        "{line}"
    );
    assert!(distance("sparse") < distance("noise"), "{line}");
    let page = std::fs::read_to_string(format!("{out}/gallery.html")).unwrap();
    assert!(
        page.contains("Priors compared") && page.matches("class=\"sheet samples\"").count() == 360
    );
    // a device that is not the CPU path draws the same codes
    let unit = ["generate", &run, "--unit", "0", "--device", "cpu", "-o", &out, "--force"];
    let output = csae(&unit);
    let alive = output.status.success()
        || String::from_utf8_lossy(&output.stderr).contains("fired on none");
    assert!(alive, "{output:?}");
}

#[test]
fn both_paths_draw_alike() {
    let Some(_turn) = gpu::turn("both_paths_draw_alike") else { return };
    let place = Place::new("generate-gpu");
    let (run, _) = fitted(&place);
    let pixels = |device: &str| {
        let out = place.path(if device == "cpu" { "cpu" } else { "gpu" });
        succeed(&["generate", &run, "--n", "30", "--device", device, "-q", "-o", &out]);
        (0..30)
            .flat_map(|i| {
                ImageFile::read(Path::new(&format!("{out}/{i:02}.png"))).unwrap().pixels()
            })
            .collect::<Vec<f32>>()
    };
    let (cpu, gpu) = (pixels("cpu"), pixels(&gpu::name()));
    let apart = cpu.iter().zip(&gpu).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart <= 1.01 / 255.0, "{apart}");
    assert!(cpu.iter().any(|v| *v > 0.3));
}

#[test]
fn what_cannot_be_drawn_is_said() {
    let place = Place::new("generate-bad");
    let (run, images) = fitted(&place);
    let out = place.path("out");
    let refused = |more: &[&str], words: &[&str]| {
        fail(&[&["generate", &run[..], "--device", "cpu", "-o", &out], more].concat(), 2, words);
        assert!(!Path::new(&out).exists(), "{more:?}");
    };
    refused(&["--n", "0"], &["--n 0"]);
    refused(&["--n", "100000000"], &["MiB", "fewer"]);
    refused(&["--n", "3000", "--max-memory", "1MiB"], &["MiB", "--max-memory"]);
    refused(&["--temperature", "-1"], &["temperature"]);
    refused(&["--class", "acros"], &["did you mean", "across"]);
    refused(&["--class", "across", "--prior", "gaussian"], &["--prior mixture"]);
    refused(&["--unit", "24"], &["0 to 23"]);
    refused(&["--like", "nowhere.png"], &["nowhere.png", "no such file"]);
    refused(&["--like", &images], &["name an image"]);
    refused(&["--vary", "0.5"], &["--like"]);
    refused(&["--unit", "0", "--seed", "1"], &["--seed"]);
    refused(&["--unit", "0", "--prior", "sparse"], &["--prior"]);
    refused(&["--unit", "0", "--temperature", "0.5"], &["--temperature"]);
    refused(&["--like", &format!("{images}/across/000.png"), "--vary", "2"], &["between 0 and 1"]);
    refused(&["--interpolate", &format!("{images}/across/000.png")], &["--interpolate"]);
    refused(&["--fit", &images], &["prior.safetensors", "--force"]);
    refused(&["--fit", &place.path("none"), "--force"], &["does not exist"]);
    refused(&["--judge", &run, "--test", &images], &["not an image classifier", "csae finetune"]);
    refused(&["--judge", &run], &["--test"]);
    let large = place.path("large.png");
    picture::save_png(Path::new(&large), &[0.5; 20 * 20 * 3], 20, 20, 3).unwrap();
    refused(&["--like", &large], &["--resize"]);
    // images that are there already are written over on request alone, and those that stay are
    // named
    let own = place.path("own");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(format!("{own}/04.png"), "not drawn").unwrap();
    fail(&["generate", &run, "--device", "cpu", "-o", &own, "--n", "5"], 2, &["04.png", "--force"]);
    let output = csae(&["generate", &run, "--device", "cpu", "-o", &own, "--n", "4"]);
    assert!(
        output.status.success()
            && String::from_utf8_lossy(&output.stderr)
                .contains("own also holds 1 numbered image of an earlier run"),
        "{output:?}"
    );
    let output = csae(&["generate", &run, "--device", "cpu", "-o", &own, "--n", "5", "--force"]);
    assert!(
        output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("earlier run"),
        "{output:?}"
    );
    succeed(&[
        "generate", &run, "--device", "cpu", "-o", &out, "--like", &large, "--resize", "--n", "1",
    ]);
    fail(&["generate", &run, "--device", "cpu", "-o", &out], 2, &["--force"]);
    // no prior, another model's, and a broken one
    let prior = format!("{run}/prior.safetensors");
    let whole = bytes(&prior);
    std::fs::write(&prior, &whole[..whole.len() / 2]).unwrap();
    fail(&["generate", &run, "--force", "-o", &out], 2, &["prior.safetensors", "--fit"]);
    std::fs::write(&prior, &whole).unwrap();
    let config = place.path("small.toml");
    succeed(&[
        "train", &images, "--config", &config, "--steps", "2", "--device", "cpu", "-q", "--force",
        "--out", &run,
    ]);
    std::fs::write(&prior, &whole).unwrap();
    fail(&["generate", &run, "--force", "-o", &out], 2, &["another model", "--fit"]);
    std::fs::remove_file(&prior).unwrap();
    fail(&["generate", &run, "--force", "-o", &out], 2, &["no fitted prior", "--fit DATA"]);
    // models that draw nothing
    fail(&["generate", "denoise", "-o", &out], 2, &["denoise", "restores"]);
    fail(&["generate", "paint-1", "-o", &out], 2, &["paint-1", "1024"]);
}
