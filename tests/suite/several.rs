//! Several files at once, of which one is broken, and options that would say nothing.

use std::path::Path;

use super::commands::{Place, csae as program, fail, succeed};

/// Two images that can be used and one that cannot, by name.
fn three(place: &Place) -> [String; 3] {
    let names = ["good.png", "broken.png", "other.png"].map(|name| place.path(name));
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/images/textures/brick.png");
    for name in [&names[0], &names[2]] {
        std::fs::copy(&image, name).unwrap();
    }
    let whole = std::fs::read(&image).unwrap();
    std::fs::write(&names[1], &whole[..whole.len() / 2]).unwrap();
    names
}

#[test]
fn a_broken_file_among_others_is_skipped_and_named() {
    let place = Place::new("several");
    let [good, broken, other] = three(&place);
    let out = |name: &str| place.path(name);
    let given = |command: &[&str], files: &[&str], out: &str, more: &[&str]| {
        program(&[command, files, &["--device", "cpu", "-o", out], more].concat())
    };
    let classifier = place.path("classifier");
    let run = place.path("run");
    succeed(&[
        "train",
        "photos",
        "--set",
        "data.crop=16",
        "--steps",
        "2",
        "--device",
        "cpu",
        "-q",
        "-o",
        &run,
    ]);
    for (name, command) in
        [("denoised", &["denoise"][..]), ("reconstructed", &["reconstruct", &run])]
    {
        let skipped = given(command, &[&good, &broken, &other], &out(name), &[]);
        let said = String::from_utf8_lossy(&skipped.stderr);
        assert!(
            skipped.status.success()
                && said.contains("skipped 1 file")
                && said.contains("broken.png: cannot be"),
            "{said}"
        );
        assert!(
            ["good.png", "other.png"].iter().all(|file| Path::new(&out(name)).join(file).is_file()),
            "{name}"
        );
        assert!(!Path::new(&out(name)).join("broken.png").exists());
        let strict = given(command, &[&good, &broken], &out("strict"), &["--strict", "--force"]);
        assert_eq!(strict.status.code(), Some(2), "{name}");
        let alone = given(command, &[&broken], &out("alone"), &[]);
        assert_eq!(alone.status.code(), Some(2), "{name}");
    }
    // one that is too small for what is asked
    let tiny = place.path("tiny.png");
    csae::internals::report::picture::save_png(Path::new(&tiny), &[0.5; 3], 1, 1, 3).unwrap();
    let told = given(&["denoise"], &[&tiny, &good], &out("tiny"), &[]);
    assert!(
        told.status.success()
            && String::from_utf8_lossy(&told.stderr).contains("tiny.png: an image of 1x1"),
        "{told:?}"
    );
    succeed(&[
        "finetune",
        &run,
        "digits",
        "--resize",
        "--epochs",
        "1",
        "--device",
        "cpu",
        "-q",
        "-o",
        &classifier,
    ]);
    let told = program(&["classify", &classifier, &good, &broken, "--resize", "--device", "cpu"]);
    assert!(
        told.status.success() && String::from_utf8_lossy(&told.stderr).contains("broken.png"),
        "{told:?}"
    );
}

#[test]
fn options_that_would_say_nothing_are_refused() {
    let place = Place::new("idle-options");
    let (run, out) = (place.path("run"), place.path("out"));
    succeed(&[
        "train", "digits", "--preset", "sparse", "--steps", "2", "--device", "cpu", "-q", "-o",
        &run,
    ]);
    let array = place.path("f.npy");
    let features = |more: &[&str], words: &[&str]| {
        fail(
            &[&["features", &run, "digits", "--device", "cpu", "-o", &array], more].concat(),
            2,
            words,
        );
    };
    features(&["--layer", "encoder.0", "--grid", "2"], &["--grid 2", "--pool"]);
    features(&["--grid", "2", "--pool", "max"], &["--grid 2", "cannot be pooled"]);
    features(&["--pool", "max"], &["--pool", "cannot be pooled"]);
    let sweep =
        ["sweep", "digits", "--rules", "top_k", "--steps", "1", "--device", "cpu", "-o", &out];
    fail(&[&sweep[..], &["--lambda", "3"]].concat(), 2, &["--lambda", "l1"]);
    fail(&["bench", "--workload", "w1", "--device", "cpu", "-o", &out], 2, &["--out", "--grow"]);
    fail(
        &["bench", "--workload", "w1", "--device", "cpu", "--trace", &array],
        2,
        &["--trace", "--profile"],
    );
    assert!(!Path::new(&out).exists() && !Path::new(&array).exists());
    fail(&["texture", &run, "-o", &out], 2, &["a folder", "*.png"]);
    // numbers that are none that could be meant are told as what they are
    fail(&["finetune", &run, "digits", "--lr", "-3", "-o", &out], 2, &["--lr", "-3"]);
    fail(
        &["finetune", &run, "digits", "--labels", "0", "-o", &out],
        2,
        &["--labels", "at least 1"],
    );
    fail(&["train", "digits", "--steps", "0", "-o", &out], 2, &["--steps", "at least 1"]);
    fail(&["train", "digits", "--steps", "1.5", "-o", &out], 2, &["--steps", "whole number"]);
}

#[test]
fn what_a_training_begins_with_and_ends_with_is_said() {
    let place = Place::new("begins");
    let (first, run) = (place.path("first"), place.path("run"));
    let said = |arguments: &[&str]| {
        let output = program(&[&["train", "digits", "--device", "cpu"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let every = ["--set", "train.validate_every=0.2"];
    let winners = said(&[&["--preset", "wta", "--steps", "20", "-o", &first], &every[..]].concat());
    assert!(
        winners.contains("lifetime winner-take-all") && winners.contains("csae probe"),
        "{winners}"
    );
    // losses of validation rise, and the last is kept
    let bytes = |name: &str| std::fs::read(Path::new(&first).join(name)).unwrap();
    assert_eq!(bytes("best.safetensors"), bytes("model.safetensors"));
    let alone = said(&["--preset", "wta2", "--steps", "1", "-o", &place.path("alone")]);
    assert!(alone.contains("frozen") && alone.contains("--from"), "{alone}");
    let second = said(&["--preset", "wta2", "--steps", "1", "--from", &first, "-o", &run]);
    assert!(
        second.contains("parameters and states, which fit") && !second.contains("frozen layers"),
        "{second}"
    );
    let probe = [
        "probe",
        &first,
        "--train",
        "digits",
        "--test",
        "digits",
        "--grid",
        "1",
        "--classifier",
        "svm",
        "--device",
        "cpu",
    ];
    let told = program(&probe);
    assert!(
        told.status.success()
            && String::from_utf8_lossy(&told.stderr).contains("do not measure generalization"),
        "{told:?}"
    );
}
