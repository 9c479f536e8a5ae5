//! `csae detect`: discs and squares are found and distinguished, on both paths alike, and wrong
//! input is refused.

use std::path::Path;
use std::sync::OnceLock;

use csae::internals::annotations::box_files::read_voc;
use csae::internals::data::formats::decode::decode_file;
use csae::internals::shape::Dims;
use serde_json::Value;

use crate::support::images::{SHAPES, Shapes, shapes, voc_annotation};
use crate::support::json::{number, numbers};
use crate::support::models::pyramid;
use crate::support::{Command, TempFolder, gpu, is_file, text};

/// Trains a detector on images of shapes.
fn train(encoder: &str, data: &str, out: &str) -> Command {
    Command::new("detect train").arg(encoder).arg(data).out(out)
}

/// Options of a short training.
fn short(command: Command) -> Command {
    command.flags("--size 64 --split train").batch(4).set("train.log_every=2")
}

/// A model of convolutions that has hardly learned.
fn encoder(folder: &TempFolder, shapes: &Shapes) -> String {
    let run = folder.path("run");
    Command::train(&shapes.images)
        .flags("--preset pyramid")
        .out(&run)
        .steps(2)
        .batch(2)
        .set("data.crop=32")
        .set("data.turn=false")
        .on_cpu()
        .quiet()
        .succeed();
    run
}

/// A trained detector with its images and what its training wrote.
pub struct Trained {
    pub shapes: Shapes,
    pub run: String,
    lines: Vec<Value>,
}

/// Trained once for all tests, which only read it.
pub fn trained() -> &'static Trained {
    static TRAINED: OnceLock<Trained> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let folder = TempFolder::shared();
        let shapes = shapes(folder, "detect", 24);
        let (encoder, run) = (encoder(folder, &shapes), folder.path("detector"));
        let train = train(&encoder, &shapes.root, &run);
        let train = train.epochs(40).flags("--validate-every 40 --test-split test");
        let lines = short(train).on_cpu().quiet().json();
        Trained { shapes, run, lines }
    })
}

/// Evaluates the shared detector.
fn eval(data: &str) -> Command {
    Command::new("detect eval").arg(&trained().run).arg(data).on_cpu().quiet()
}

#[test]
fn a_detector_learns() {
    let losses = numbers(&trained().lines, "loss");
    assert!(losses.len() > 10 && losses[losses.len() - 1] < 0.5 * losses[0], "{losses:?}");
}

#[test]
fn shapes_are_found_in_test_images() {
    let Trained { shapes, lines, .. } = trained();
    let report = eval(&shapes.root).flags("--split test").json().remove(0);
    assert!(number(&report, "map50") > 0.7, "{report}");
    // The training has reported the same.
    assert_eq!(report["map50"], lines.last().unwrap()["test"]["map50"]);
}

#[test]
fn voc_and_coco_annotations_give_the_same_report() {
    let Shapes { root, images, coco } = &trained().shapes;
    let voc = eval(root).json().remove(0);
    let coco = eval(images).option("--coco", coco).json().remove(0);
    assert_eq!([&voc["map"], &voc["objects"]], [&coco["map"], &coco["objects"]]);
}

/// The control: boxes with the wrong class do not count.
#[test]
fn exchanged_classes_score_low() {
    let folder = TempFolder::new("detect-exchanged");
    let Shapes { images, coco, .. } = &trained().shapes;
    let exchanged = text(coco)
        .replace("\"disc\"", "\"x\"")
        .replace("\"square\"", "\"disc\"")
        .replace("\"x\"", "\"square\"");
    let coco = folder.write("exchanged.json", exchanged);
    let wrong = eval(images).option("--coco", coco).json().remove(0);
    assert!(number(&wrong, "map50") < 0.3, "{wrong}");
}

#[test]
fn predictions_are_drawn_and_written_as_annotations() {
    let folder = TempFolder::new("detect-predict");
    let Trained { shapes, run, .. } = trained();
    let found = folder.path("found");
    let predict = Command::new("detect predict").arg(run).arg(&shapes.images);
    predict.out(&found).on_cpu().quiet().succeed();
    let picture = decode_file(&Path::new(&found).join("03.png")).unwrap();
    // Enlarged by a whole factor, so that labels can be read.
    let scale = picture.dims.h / SHAPES[0];
    assert!(scale > 1);
    assert_eq!(picture.dims, Dims::new(3, scale * SHAPES[0], scale * SHAPES[1]));
    let all: Value = serde_json::from_str(&text(format!("{found}/detections.json"))).unwrap();
    let own = all.as_array().unwrap().iter().filter(|one| one["image"] == "03.png").count();
    let boxes = read_voc(&Path::new(&found).join("03.xml")).unwrap();
    assert!(own > 0 && boxes.objects.len() == own, "{all}");
}

#[test]
fn other_commands_refuse_a_detector() {
    let Trained { shapes, run, .. } = trained();
    let eval = Command::eval(run, &shapes.images).on_cpu();
    eval.fails(2, &["instead of reconstructing images"]);
    let segment = Command::new("segment eval").arg(run).arg(&shapes.images).on_cpu();
    segment.fails(2, &["csae segment train"]);
}

#[test]
fn both_paths_detect_alike() {
    let Some(_turn) = gpu::turn() else { return };
    let folder = TempFolder::new("detect-paths");
    let shapes = shapes(&folder, "voc", 8);
    let encoder = encoder(&folder, &shapes);
    let losses = ["cpu", &gpu::name()].map(|device| {
        let out = folder.path(&device.replace(' ', "-"));
        let train = train(&encoder, &shapes.root, &out).epochs(2).flags("--objectness bce");
        numbers(&short(train).device(device).quiet().json(), "loss")
    });
    assert!(losses[0].len() > 1 && losses[0].len() == losses[1].len(), "{losses:?}");
    for (cpu, gpu) in losses[0].iter().zip(&losses[1]) {
        assert!((cpu - gpu).abs() < 5e-3 * cpu, "{losses:?}");
    }
    assert!(
        (losses[0][0] - losses[1][losses[1].len() - 1]).abs() > 5e-3 * losses[0][0],
        "the comparison does not distinguish epochs: {losses:?}"
    );
}

#[test]
fn wrong_options_of_a_training_are_refused() {
    let folder = TempFolder::new("detect-bad");
    let shapes = shapes(&folder, "voc", 8);
    let (encoder, out) = (encoder(&folder, &shapes), folder.path("out"));
    folder.write("voc/ImageSets/Main/none.txt", "");
    let cases: &[(&str, &[&str])] = &[
        ("--split nothing", &["split nothing", "nothing.txt"]),
        ("--classes cat,dog", &["cat, dog", "the annotations have disc, square"]),
        ("--classes disc --strict", &["square"]),
        ("--size 60", &["--size 60"]),
        ("--stride 16 --size 64", &["16 times smaller"]),
        ("--lr 0", &["--lr 0"]),
        ("--max-memory 1MiB", &["the limit of 1.00 MiB", "train.batch"]),
        ("--annotations nowhere", &["nowhere"]),
        ("--coco nowhere.json", &["nowhere.json"]),
        ("--split none", &["empty"]),
    ];
    for (flags, words) in cases {
        train(&encoder, &shapes.root, &out).flags(flags).on_cpu().quiet().fails(2, words);
        assert!(!is_file(&out, "model.safetensors"), "{flags}");
    }
    let train = train(&encoder, &shapes.images, &out).on_cpu().quiet();
    train.fails(2, &["--annotations", "--coco"]);
}

#[test]
fn evaluation_refuses_a_model_without_a_detector() {
    let Shapes { root, .. } = &trained().shapes;
    let eval = Command::new("detect eval").arg(pyramid()).arg(root).on_cpu().quiet();
    eval.fails(2, &["csae detect train"]);
}

#[test]
fn a_threshold_of_scores_above_1_is_refused() {
    let folder = TempFolder::new("detect-score");
    let Trained { shapes, run, .. } = trained();
    let predict = Command::new("detect predict").arg(run).arg(&shapes.root);
    predict.out(folder.path("out")).flags("--score 2").on_cpu().quiet().fails(2, &["--score 2"]);
}

#[test]
fn bad_annotations_are_reported_and_an_error_with_strict() {
    let folder = TempFolder::new("detect-annotations");
    let shapes = shapes(&folder, "voc", 8);
    let (encoder, out) = (encoder(&folder, &shapes), folder.path("out"));
    // Boxes outside of the image, without area, and beyond an edge.
    let boxes = [("disc", [70, 1, 90, 9]), ("disc", [9, 9, 9, 12]), ("square", [50, 30, 90, 40])];
    let annotation = voc_annotation(&boxes).replace("<xmin>9</xmin>", "<xmin>10</xmin>");
    folder.write("voc/Annotations/00.xml", annotation);
    let incomplete = "<annotation><object><name>disc</name></object></annotation>";
    folder.write("voc/Annotations/01.xml", incomplete);
    std::fs::remove_file(folder.path("voc/Annotations/02.xml")).unwrap();
    let train = train(&encoder, &shapes.root, &out).flags("--size 64").batch(4).epochs(1);
    train.on_cpu().arg("-v").warns(&[
        "<bndbox> is missing",
        "no annotations for 1 image; skipped: 02.png",
        "clipped 1 box",
        "dropped 2 boxes",
        "has no area",
        "is outside of the 64x48 pixels",
    ]);
    let eval = Command::new("detect eval").arg(&out).arg(&shapes.root).arg("--strict");
    eval.on_cpu().quiet().fails(2, &["01.xml", "<bndbox>"]);
}
