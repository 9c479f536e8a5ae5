//! `csae anomaly`: painted defects are found, on both paths alike, and what is refused.

use std::path::Path;

use serde_json::Value;

use super::commands::{Place, csae, fail, succeed};
use super::gpu;

const QUICK: [&str; 3] = ["--device", "cpu", "-q"];

/// Textures with painted defects, a model of the normal ones, and a detector by its first layer.
fn fitted(place: &Place) -> [String; 3] {
    let [painted, run, detector] = ["painted", "run", "detector"].map(|name| place.path(name));
    succeed(&["anomaly", "paint", "textures", "-o", &painted, "-q"]);
    let normal = format!("{painted}/normal");
    let short = ["--preset", "plain", "--steps", "40", "--batch", "8"];
    succeed(&[&["train", &normal, "--out", &run], &short[..], &QUICK].concat());
    succeed(
        &[
            &[
                "anomaly", "fit", &run, &normal, "-o", &detector, "--layer", "conv", "--bank",
                "1000",
            ],
            &QUICK[..],
        ]
        .concat(),
    );
    [painted, run, detector]
}

fn json(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

#[test]
fn painted_defects_are_found() {
    let place = Place::new("anomaly");
    let [painted, run, detector] = fitted(&place);
    let test = format!("{painted}/test");
    let eval = |device: &str| {
        json(&succeed(&["anomaly", "eval", &detector, &test, "--json", "-q", "--device", device]))
            .remove(0)
    };
    let report = eval("cpu");
    let value =
        |of: &Value, name: &str| of[name].as_f64().unwrap_or_else(|| panic!("{name} in {of}"));
    // chance is 0.5
    assert!(value(&report, "pixel_auroc") > 0.75 && value(&report, "pro") > 0.3, "{report}");
    let kinds = report["kinds"].as_array().unwrap();
    assert_eq!(kinds.len(), 5, "{report}");
    // a control: masks that belong to other images tell nothing
    let shuffled = place.path("shuffled");
    for kind in kinds {
        let name = kind["name"].as_str().unwrap();
        let from = |folder: &str| Path::new(&test).join(folder).join(name);
        let to = Path::new(&shuffled).join(name);
        std::fs::create_dir_all(&to).unwrap();
        let mut files: Vec<_> = std::fs::read_dir(from("masks"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        files.sort();
        for (i, file) in files.iter().enumerate() {
            std::fs::copy(from("masks").join(&files[(i + 1) % files.len()]), to.join(file))
                .unwrap();
        }
    }
    let wrong = json(&succeed(
        &[&["anomaly", "eval", &detector, &test, "--masks", &shuffled, "--json"], &QUICK[..]]
            .concat(),
    ));
    assert!(value(&wrong[0], "pixel_auroc") < value(&report, "pixel_auroc") - 0.1, "{}", wrong[0]);

    // scores, and pictures of the sizes that are promised
    let score = |images: &str, out: &str| {
        let out = place.path(out);
        json(&succeed(
            &[&["anomaly", "score", &detector, images, "-o", &out, "--json"], &QUICK[..]].concat(),
        ))
    };
    let [good, speckle] = ["good", "speckle"].map(|kind| score(&format!("{test}/{kind}"), kind));
    // textures differ, so that each is compared with itself
    let higher = good
        .iter()
        .zip(&speckle)
        .filter(|(good, speckle)| value(speckle, "score") > value(good, "score"))
        .count();
    assert!(good.len() == speckle.len() && higher == good.len(), "{higher} of {}", good.len());
    for line in good.iter().chain(&speckle) {
        let picture = Path::new(line["picture"].as_str().unwrap());
        let mask = csae::internals::data::formats::decode::decode_file(
            &picture.with_extension("mask.png"),
        )
        .unwrap();
        let both = csae::internals::data::formats::decode::decode_file(picture).unwrap();
        assert_eq!([both.h, both.w], [mask.h, 2 * mask.w + 4]);
    }
    // an image's score does not depend on what others there are
    let name = speckle[0]["image"].as_str().unwrap();
    assert_eq!(score(&format!("{test}/speckle/{name}"), "alone")[0]["score"], speckle[0]["score"]);
    // the same detector twice, byte by byte
    let again = place.path("again");
    let normal = format!("{painted}/normal");
    succeed(
        &[
            &["anomaly", "fit", &run, &normal, "-o", &again, "--layer", "conv", "--bank", "1000"],
            &QUICK[..],
        ]
        .concat(),
    );
    let bytes =
        |folder: &str| std::fs::read(Path::new(folder).join("detector.safetensors")).unwrap();
    assert!(bytes(&detector) == bytes(&again));

    let Some(_turn) = gpu::turn("painted_defects_are_found") else { return };
    let other = eval(&gpu::name());
    for name in ["pixel_auroc", "image_auroc", "pro"] {
        assert!(
            (value(&report, name) - value(&other, name)).abs() < 2e-3,
            "{name}: {report} and {other}"
        );
    }
}

#[test]
fn a_set_for_every_image() {
    let place = Place::new("anomaly-each");
    let [out, one] = ["each", "one"].map(|name| place.path(name));
    let told =
        json(&succeed(&["anomaly", "paint", "textures", "-o", &out, "--each", "--json"])).remove(0);
    succeed(&["anomaly", "paint", "textures", "-o", &one, "-q"]);
    let sets: Vec<_> =
        std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(told["good"].as_u64().unwrap() as usize, sets.len());
    let count = |folder: &Path| std::fs::read_dir(folder).map_or(0, Iterator::count);
    assert!(
        sets.iter()
            .all(|set| count(&set.join("normal")) == 3 && count(&set.join("test/good")) == 1),
        "{sets:?}"
    );
    assert_eq!(count(&Path::new(&one).join("normal")), 3 * sets.len());
}

#[test]
fn what_makes_no_detector_is_refused() {
    let place = Place::new("anomaly-bad");
    let [painted, run, detector] = fitted(&place);
    let normal = format!("{painted}/normal");
    let new = place.path("new");
    let bad = |more: &[&str], words: &[&str]| {
        fail(
            &[&["anomaly", "fit", &run, &normal, "-o", &new], more, &QUICK[..]].concat(),
            2,
            words,
        );
        assert!(!Path::new(&new).exists(), "{more:?} left something behind");
    };
    bad(&["--weights", "1,2"], &["--weights", "three", "structure"]);
    bad(&["--weights", "0,0,0"], &["--weights", "above 0"]);
    bad(&["--weights=-1,1,1"], &["--weights", "negative"]);
    bad(&["--bank", "0"], &["--bank"]);
    bad(&["--smooth", "1000"], &["--smooth"]);
    bad(&["--false-alarms", "1"], &["--false-alarms"]);
    bad(&["--layer", "nothing"], &["nothing", "conv"]);
    let single = place.path("single");
    std::fs::create_dir(&single).unwrap();
    let first = std::fs::read_dir(&normal).unwrap().next().unwrap().unwrap().path();
    std::fs::copy(first, Path::new(&single).join("a.png")).unwrap();
    fail(
        &[&["anomaly", "fit", &run, &single, "-o", &new], &QUICK[..]].concat(),
        2,
        &["one normal image"],
    );
    fail(
        &[&["anomaly", "fit", &run, &normal, "-o", &detector], &QUICK[..]].concat(),
        2,
        &["--force"],
    );
    fail(&["anomaly", "score", &run, &normal, "--device", "cpu"], 2, &["csae anomaly fit"]);
    fail(&["anomaly", "paint", "digits", "-o", &new], 2, &["too small", "48"]);
    fail(&["anomaly", "paint", "textures", "-o", &painted], 2, &["already"]);
    // a detector beside another model
    let other = place.path("other");
    succeed(
        &[
            &[
                "train", &normal, "--out", &other, "--preset", "plain", "--steps", "1", "--batch",
                "2",
            ],
            &QUICK[..],
        ]
        .concat(),
    );
    std::fs::copy(
        Path::new(&detector).join("detector.safetensors"),
        Path::new(&other).join("detector.safetensors"),
    )
    .unwrap();
    fail(
        &["anomaly", "score", &other, &normal, "--device", "cpu"],
        2,
        &["another model", "csae anomaly fit"],
    );
    std::fs::write(Path::new(&other).join("detector.safetensors"), b"nothing").unwrap();
    fail(&["anomaly", "score", &other, &normal, "--device", "cpu"], 2, &["not a detector"]);
}

#[test]
fn what_judges_nothing_is_refused_or_told() {
    let place = Place::new("anomaly-masks");
    let [painted, _, detector] = fitted(&place);
    let test = format!("{painted}/test");
    let eval = |data: &str, more: &[&str]| {
        csae(&[&["anomaly", "eval", &detector, data, "--device", "cpu", "-v"], more].concat())
    };
    let told = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    fail(
        &[&["anomaly", "eval", &detector, &format!("{painted}/normal")], &QUICK[..]].concat(),
        2,
        &["good"],
    );
    fail(
        &[&["anomaly", "eval", &detector, &test, "--masks", "nowhere"], &QUICK[..]].concat(),
        2,
        &["masks nowhere: no such folder"],
    );
    // masks that are missing, of another size, or empty
    let masks = Path::new(&test).join("masks/blot");
    let mut files: Vec<_> =
        std::fs::read_dir(&masks).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let good = csae::internals::data::formats::decode::decode_file(&files[0]).unwrap();
    csae::internals::report::picture::save_png(
        &files[0],
        &vec![0.0; good.h * good.w],
        good.h,
        good.w,
        1,
    )
    .unwrap();
    let output = eval(&test, &[]);
    assert!(
        output.status.success() && told(&output).contains("marks nothing"),
        "{}",
        told(&output)
    );
    assert!(!eval(&test, &["--strict"]).status.success());
    csae::internals::report::picture::save_png(&files[0], &[1.0; 12], 4, 3, 1).unwrap();
    let output = eval(&test, &[]);
    assert!(
        output.status.success() && told(&output).contains("the mask has 3x4 pixels"),
        "{}",
        told(&output)
    );
    std::fs::remove_file(&files[0]).unwrap();
    let output = eval(&test, &[]);
    assert!(
        output.status.success() && told(&output).contains("no mask for 1 image"),
        "{}",
        told(&output)
    );
    std::fs::remove_dir_all(Path::new(&test).join("good")).unwrap();
    let output = eval(&test, &[]);
    assert!(
        output.status.code() == Some(2) && told(&output).contains("`good`"),
        "{}",
        told(&output)
    );
}
