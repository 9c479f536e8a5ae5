//! `csae segment`: discs are distinguished from the ground, on both paths alike, and wrong input is
//! refused.

use std::path::Path;
use std::sync::OnceLock;

use csae::internals::annotations::label_image::{read_labels, write_labels};
use csae::internals::data::formats::decode::decode_file;
use csae::internals::report::picture::save_png;
use csae::internals::shape::{Dims, Size};
use serde_json::Value;

use crate::support::files::exists;
use crate::support::images::{DISCS, discs};
use crate::support::json::{number, numbers};
use crate::support::models::pyramid;
use crate::support::{Command, TempFolder, bytes, gpu, is_file, text};

/// Trains a decoder on labelled images.
fn train(data: &str, out: &str) -> Command {
    Command::new("segment train").arg(pyramid()).arg(data).out(out)
}

/// Options of a short training.
fn short(command: Command) -> Command {
    command.flags("--crop 32 --instances").batch(4).set("train.log_every=4")
}

/// A trained model with its test images and what its training wrote.
struct Trained {
    test: String,
    run: String,
    lines: Vec<Value>,
}

/// Trains a model with a kind of decoder.
fn trained(decoder: &str, epochs: usize) -> Trained {
    let folder = TempFolder::shared();
    let data = discs(folder, &format!("segment-{decoder}/train"), 12);
    let test = discs(folder, &format!("segment-{decoder}/test"), 4);
    let run = folder.path(&format!("segment-{decoder}/run"));
    let train = train(&data, &run).epochs(epochs).option("--decoder", decoder);
    let train = train.flags("--augment all").option("--test", &test);
    let lines = short(train).on_cpu().quiet().json();
    Trained { test, run, lines }
}

/// A model with transposed convolutions, trained once for all tests, which only read it.
fn deconv() -> &'static Trained {
    static TRAINED: OnceLock<Trained> = OnceLock::new();
    TRAINED.get_or_init(|| trained("deconv", 12))
}

/// A model with unpooling, trained once for all tests, which only read it.
fn unpool() -> &'static Trained {
    static TRAINED: OnceLock<Trained> = OnceLock::new();
    TRAINED.get_or_init(|| trained("unpool", 40))
}

/// A segmenter for other suites.
pub fn model() -> &'static str {
    &deconv().run
}

/// The Dice coefficient of a model on labelled images, whose labels are read as in training.
fn dice(run: &str, data: &str) -> f64 {
    let eval = Command::new("segment eval").arg(run).arg(data);
    number(eval.on_cpu().quiet().json().last().unwrap(), "image_dice")
}

fn assert_discs_are_found(Trained { test, run, lines }: &Trained) {
    let losses = numbers(lines, "loss");
    let last = losses.len() - 1;
    assert!(last > 4 && losses[last] < 0.6 * losses[0], "{losses:?}");
    let found = dice(run, test);
    assert!(found > 0.75, "{found}");
    // The training has reported the same.
    assert_eq!(number(&lines.last().unwrap()["test"], "image_dice"), found);
}

/// The control: labels of other images.
fn assert_other_labels_score_low(Trained { test, run, .. }: &Trained) {
    let folder = TempFolder::new("segment-other");
    let other = folder.create("other");
    folder.create("other/images");
    folder.create("other/labels");
    for image in 0..4 {
        let copy = |part: &str, from: usize| {
            let from = format!("{test}/{part}/{from}.png");
            std::fs::copy(from, format!("{other}/{part}/{image}.png")).unwrap();
        };
        copy("images", image);
        copy("labels", (image + 1) % 4);
    }
    let found = dice(run, &other);
    assert!(found < 0.6, "{found}");
}

#[test]
fn discs_are_found_with_transposed_convolutions() {
    assert_discs_are_found(deconv());
    assert_other_labels_score_low(deconv());
}

#[test]
fn discs_are_found_with_unpooling() {
    assert_discs_are_found(unpool());
    assert_other_labels_score_low(unpool());
}

#[test]
fn discs_are_found_in_balanced_crops_of_photographs() {
    let folder = TempFolder::new("segment-photo");
    let data = discs(&folder, "train", 12);
    let test = discs(&folder, "test", 4);
    let run = folder.path("run");
    let train = train(&data, &run).epochs(30).option("--test", &test);
    let train = train.flags("--augment photo --crops balanced --context 1");
    let lines = short(train).on_cpu().quiet().json();
    assert_discs_are_found(&Trained { test, run: run.clone(), lines });
    let config = text(format!("{run}/config.toml"));
    for words in ["augment = \"photo\"", "crops = \"balanced\"", "head.context.code.1"] {
        assert!(config.contains(words), "{config}");
    }
}

#[test]
fn predictions_have_labels_overlays_and_probabilities_that_agree() {
    let folder = TempFolder::new("segment-predict");
    let out = folder.path("pictures");
    let Trained { test, run, .. } = deconv();
    let predict = Command::new("segment predict").arg(run).arg(format!("{test}/images"));
    predict.out(&out).arg("--probabilities").on_cpu().quiet().succeed();
    let labels = read_labels(&Path::new(&out).join("0.png")).unwrap();
    assert_eq!(labels.size, Size::new(DISCS, DISCS));
    assert!(labels.values.contains(&1) && labels.values.iter().all(|value| *value < 2));
    assert_eq!(decode_file(&Path::new(&out).join("0.overlay.png")).unwrap().dims.c, 3);
    let bytes = bytes(format!("{out}/0.npy"));
    let values: Vec<f32> = bytes[bytes.len() - 8 * DISCS * DISCS..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    for (pair, label) in values.chunks_exact(2).zip(&labels.values) {
        assert!((pair[0] + pair[1] - 1.0).abs() < 1e-5, "{pair:?}");
        assert_eq!(u16::from(pair[1] > pair[0]), *label, "{pair:?}");
    }
}

#[test]
fn other_commands_refuse_a_segmentation_model() {
    let Trained { test, run, .. } = deconv();
    let images = format!("{test}/images");
    let classify = Command::new("classify").arg(run).arg(&images).on_cpu();
    classify.fails(2, &["csae segment predict"]);
    Command::eval(run, &images).on_cpu().fails(2, &["csae segment"]);
}

#[test]
fn both_paths_segment_alike() {
    let Some(_turn) = gpu::turn() else { return };
    let folder = TempFolder::new("segment-paths");
    let data = discs(&folder, "train", 6);
    let losses = ["cpu", &gpu::name()].map(|device| {
        let out = folder.path(&device.replace(' ', "-"));
        let train = train(&data, &out).epochs(2).flags("--ignore 3");
        numbers(&short(train).device(device).quiet().json(), "loss")
    });
    assert!(losses[0].len() > 1 && losses[0].len() == losses[1].len(), "{losses:?}");
    for (cpu, gpu) in losses[0].iter().zip(&losses[1]) {
        assert!((cpu - gpu).abs() < 2e-3 * cpu, "{losses:?}");
    }
    assert!(
        (losses[0][0] - losses[1][losses[1].len() - 1]).abs() > 2e-3 * losses[0][0],
        "the comparison does not distinguish epochs: {losses:?}"
    );
}

#[test]
fn wrong_options_of_a_training_are_refused() {
    let folder = TempFolder::new("segment-bad");
    let (data, out) = (discs(&folder, "train", 4), folder.path("out"));
    let cases: &[(&str, &[&str])] = &[
        ("--labels nowhere", &["nowhere", "does not exist", "--labels"]),
        ("--classes a,b", &["label 3", "--instances"]),
        ("--instances --classes a,b,c", &["two names"]),
        ("--instances --class-weights 1,2,3", &["--class-weights", "2 numbers"]),
        ("--instances --images 5", &["--images 5", "only 4"]),
        ("--instances --images 1", &["leaves no training images"]),
        ("--instances --crop 30", &["--crop 30"]),
        ("--instances --dice=-1", &["--dice"]),
        ("--instances --crops both", &["both", "balanced"]),
        ("--instances --context 4", &["--context", "4"]),
        ("--instances --context 2 --crop 32", &["dilation 4", "larger --crop"]),
        ("--instances --layer nothing", &["nothing", "encoder.1"]),
        ("--instances --validation nowhere", &["nowhere"]),
        ("--instances --max-memory 1MiB --crop 128", &["the limit of 1.00 MiB", "train.batch"]),
    ];
    for (flags, words) in cases {
        train(&data, &out).flags(flags).on_cpu().quiet().fails(2, words);
        assert!(!exists(&out), "{flags}");
    }
    let unlabelled = train(&format!("{data}/images"), &out).on_cpu().quiet();
    unlabelled.fails(2, &["--labels"]);
}

#[test]
fn evaluation_and_prediction_refuse_a_model_without_a_decoder() {
    let folder = TempFolder::new("segment-encoder");
    let data = discs(&folder, "train", 4);
    let eval = Command::new("segment eval").arg(pyramid()).arg(&data).on_cpu().quiet();
    eval.fails(2, &["csae segment train"]);
    let predict = Command::new("segment predict").arg(pyramid()).arg(&data);
    predict.out(folder.path("out")).on_cpu().quiet().fails(2, &["csae segment train"]);
}

/// Labels of which one has another size, one is in colour and one is missing.
fn bad_labels(folder: &TempFolder) -> String {
    let data = discs(folder, "train", 4);
    let label = |image: usize| format!("{data}/labels/{image}.png");
    write_labels(Path::new(&label(0)), &[1; 12], Size::new(3, 4)).unwrap();
    let colour = [0.2, 0.4, 0.6].repeat(DISCS * DISCS);
    save_png(Path::new(&label(1)), &colour, Dims::new(3, DISCS, DISCS)).unwrap();
    std::fs::remove_file(label(2)).unwrap();
    data
}

#[test]
fn bad_labels_are_reported_and_not_used() {
    let folder = TempFolder::new("segment-labels");
    let out = folder.path("out");
    let train = train(&bad_labels(&folder), &out).flags("--crop 32 --held-out 0 --instances");
    train.batch(2).epochs(1).arg("-v").on_cpu().warns(&[
        "the label image has 4x3 pixels, but its image has 48x48",
        "in colour",
        "no labels for 1 image; skipped: 2.png",
        "1 with labels",
    ]);
    assert!(is_file(&out, "model.safetensors"));
}

#[test]
fn bad_labels_are_an_error_with_strict() {
    let folder = TempFolder::new("segment-strict");
    let train = train(&bad_labels(&folder), &folder.path("out"));
    let train = train.flags("--force --strict --instances --crop 32").on_cpu().quiet();
    train.fails(2, &["0.png", "4x3"]);
}

#[test]
fn a_folder_without_good_labels_is_refused() {
    let folder = TempFolder::new("segment-none");
    let data = bad_labels(&folder);
    write_labels(Path::new(&format!("{data}/labels/3.png")), &[1; 12], Size::new(3, 4)).unwrap();
    let train = train(&data, &folder.path("out"));
    let train = train.flags("--force --instances --crop 32").on_cpu().quiet();
    train.fails(2, &["none of the 4 images"]);
}

/// The set of discs with other numbers in its label images.
fn renumbered(folder: &TempFolder, name: &str, number: impl Fn(u8) -> u8) -> String {
    let data = discs(folder, name, 4);
    for image in 0..4 {
        let file = format!("{data}/labels/{image}.png");
        let labels = read_labels(Path::new(&file)).unwrap();
        let values: Vec<u8> = labels.values.iter().map(|value| number(*value as u8)).collect();
        write_labels(Path::new(&file), &values, labels.size).unwrap();
    }
    data
}

#[test]
fn masks_are_refused_with_advice_that_works() {
    let folder = TempFolder::new("segment-masks");
    for foreground in [255, 7] {
        let name = format!("masks-{foreground}");
        let data = renumbered(&folder, &name, |value| if value > 0 { foreground } else { 0 });
        let out = folder.path(&format!("out-{foreground}"));
        let command = || train(&data, &out).flags("--crop 32 --held-out 0").on_cpu().quiet();
        command().fails(2, &["only the numbers 0 and", &foreground.to_string(), "--instances"]);
        // The foreground must not be ignored: the background alone would be left.
        let ignoring = command().option("--ignore", foreground.to_string());
        ignoring.fails(2, &["all pixels", "of one class", "ignored"]);
        assert!(!exists(&out));
        command().arg("--instances").batch(2).epochs(1).succeed();
    }
}

#[test]
fn classes_without_pixels_are_said() {
    let folder = TempFolder::new("segment-absent");
    let data = renumbered(&folder, "gaps", |value| if value == 2 { 5 } else { value });
    let out = folder.path("out");
    let command = train(&data, &out).flags("--crop 32 --held-out 0").batch(2).epochs(1).on_cpu();
    command.warns(&["no pixel is of the classes 2, 4"]);
}

#[test]
fn an_image_is_never_its_own_label() {
    let folder = TempFolder::new("segment-own");
    let data = discs(&folder, "train", 4);
    let both = folder.path("both");
    folder.create("both");
    for image in 0..4 {
        std::fs::copy(format!("{data}/images/{image}.png"), format!("{both}/{image}.png")).unwrap();
        let mask = format!("{both}/{image}_mask.png");
        std::fs::copy(format!("{data}/labels/{image}.png"), mask).unwrap();
    }
    let out = folder.path("out");
    let command = train(&both, &out).option("--labels", &both).flags("--crop 32 --instances");
    let command = command.flags("--held-out 0").batch(2).epochs(1).on_cpu();
    command.warns(&["4 with labels", "no labels for 4 images; skipped: 0_mask.png"]);
}

/// What training ignored is ignored in an evaluation, without a flag.
#[test]
fn ignored_labels_are_remembered() {
    let folder = TempFolder::new("segment-ignored");
    let data = renumbered(&folder, "ignored", |value| if value == 3 { 255 } else { value });
    let run = folder.path("run");
    let train = train(&data, &run).flags("--crop 32 --held-out 0 --ignore 255").batch(2).epochs(1);
    train.on_cpu().quiet().succeed();
    let eval = Command::new("segment eval").arg(&run).arg(&data).on_cpu();
    eval.warns(&["label 255 are ignored, as in training"]);
    let report = eval.clone().quiet().report();
    assert_eq!(report, eval.clone().quiet().flags("--ignore 255").report());
    // A model that ignores nothing has the same bytes in its header as before.
    let header = String::from_utf8_lossy(&bytes(format!("{}/model.safetensors", deconv().run)))
        .contains("\"ignore\"");
    assert!(!header);
}

#[test]
fn results_over_a_part_of_the_images_need_consent() {
    let folder = TempFolder::new("segment-part");
    let data = discs(&folder, "train", 4);
    std::fs::remove_file(format!("{data}/labels/2.png")).unwrap();
    let eval = Command::new("segment eval").arg(&deconv().run).arg(&data).on_cpu().quiet();
    eval.fails(2, &["only 3 of 4 images", "--partial"]);
    eval.arg("--partial").succeed();
}

/// `a/1.png` and `b/1.png` would both use `labels/1.png`.
#[test]
fn label_images_of_two_images_are_not_used() {
    let folder = TempFolder::new("segment-shared");
    let data = discs(&folder, "train", 4);
    for part in ["a", "b"] {
        folder.create(&format!("train/images/{part}"));
        let to = format!("{data}/images/{part}/1.png");
        std::fs::copy(format!("{data}/images/1.png"), to).unwrap();
    }
    std::fs::remove_file(format!("{data}/images/1.png")).unwrap();
    let eval = Command::new("segment eval").arg(&deconv().run).arg(&data).on_cpu();
    eval.clone().arg("--partial").warns(&["skipped 2 files", "a/1.png", "or that of b/1.png"]);
    eval.arg("--strict").quiet().fails(2, &["a/1.png", "labels/1.png"]);
}
