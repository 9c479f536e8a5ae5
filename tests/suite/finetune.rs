//! `csae finetune` and `csae classify`: classifiers learn, on both paths alike, and wrong input is
//! refused.

use std::path::Path;
use std::sync::OnceLock;

use csae::internals::budget::Budget;
use csae::internals::data::{LoadOptions, Sample, Subset, WholeSize};
use csae::internals::device::Device;
use csae::internals::model::{self, Graph};
use csae::internals::spec::{Config, HeadKind};
use csae::internals::tasks::finetune::{Labelled, begin_training, draw, split};
use csae::internals::tasks::probe::match_labels;
use csae::internals::train::{Log, Origin, RunFolder};
use serde_json::Value;

use crate::support::files::exists;
use crate::support::images::plain;
use crate::support::models::sparse_digits;
use crate::support::{Command, TempFolder, bytes, gpu, is_file, json, model_bytes, text};

/// Finetunes the shared encoder on data.
fn finetune(data: &str, out: &str) -> Command {
    let finetune = Command::new("finetune --layer encoder.1 --grid 2");
    finetune.arg(sparse_digits()).arg(data).out(out).on_cpu().quiet()
}

/// Finetunes the shared encoder on 300 digits.
fn learn(out: &str) -> Command {
    let finetune = finetune("digits", out).flags("--test digits --labels 300");
    finetune.epochs(6).set("train.log_every=5")
}

/// A classifier and what its training wrote.
pub struct Classifier {
    pub run: String,
    lines: Vec<Value>,
}

/// Trained once for all tests, which only read it.
pub fn classifier() -> &'static Classifier {
    static CLASSIFIER: OnceLock<Classifier> = OnceLock::new();
    CLASSIFIER.get_or_init(|| {
        let run = TempFolder::shared().path("classifier");
        Classifier { lines: learn(&run).json(), run }
    })
}

/// The error that the training reports on the test images.
fn error() -> f64 {
    let line = &json::of_kind(&classifier().lines, "finetune")[0]["test"];
    json::number(line, "error")
}

#[test]
fn a_classifier_learns_the_digits() {
    let Classifier { run, lines } = classifier();
    // Chance is 0.9.
    assert!(error() < 0.1, "{lines:?}");
    let losses = json::numbers(lines, "loss");
    assert!(losses.len() > 3 && losses[losses.len() - 1] < losses[0], "{losses:?}");
    for name in ["model.safetensors", "metrics.jsonl", "finetune.json", "confusion.png"] {
        assert!(is_file(run, name), "{name}");
    }
}

#[test]
fn the_same_seed_gives_the_same_classifier() {
    let folder = TempFolder::new("finetune-again");
    let again = folder.path("again");
    learn(&again).succeed();
    let trained = model_bytes(&classifier().run);
    assert!(trained == model_bytes(&again) && trained != model_bytes(sparse_digits()));
}

/// The weights of a layer of a run.
fn weights(run: &str) -> Vec<f32> {
    let model = model::load(Path::new(run)).unwrap();
    model.tensor("encoder.1.weight").unwrap().1.to_vec()
}

#[test]
fn an_encoder_with_learning_rate_0_stays() {
    let folder = TempFolder::new("finetune-frozen");
    let frozen = folder.path("frozen");
    let flags = "--labels-per-class 20 --encoder-lr 0 --head fresh --dropout 0.1";
    finetune("digits", &frozen).epochs(2).flags(flags).json();
    assert_eq!(weights(sparse_digits()), weights(&frozen));
    // The control: otherwise the encoder learns.
    assert_ne!(weights(sparse_digits()), weights(&classifier().run));
}

/// Classifies images with the shared classifier.
fn classify(data: &str) -> Command {
    Command::new("classify").arg(&classifier().run).arg(data).on_cpu().quiet()
}

#[test]
fn classes_are_listed_with_their_probability() {
    let table = classify("digits").succeed();
    assert!(table.lines().count() == 1797 && table.lines().all(|line| line.ends_with('%')));
}

#[test]
fn classes_are_written_as_csv() {
    let csv = classify("digits").flags("--format csv --top 2").succeed();
    assert!(csv.starts_with("image,label1,probability1,label2,probability2\n"));
    assert_eq!(csv.lines().count(), 1798);
}

#[test]
fn classes_are_written_as_json_with_the_error_of_the_training() {
    let folder = TempFolder::new("classify-json");
    let picture = folder.path("confusion.png");
    let lines = classify("digits").option("--confusion", &picture).json();
    assert_eq!(json::number(&lines.last().unwrap()["test"], "error"), error());
    assert!(exists(&picture));
}

#[test]
fn commands_that_decode_refuse_a_classifier() {
    let folder = TempFolder::new("classifier-decode");
    let run = &classifier().run;
    for command in [
        Command::eval(run, "digits"),
        Command::inspect(run).flags("--data digits"),
        Command::reconstruct(run, "digits").out(folder.path("r")),
    ] {
        command.on_cpu().quiet().fails(2, &["csae classify"]);
    }
}

#[test]
fn a_classifier_can_be_inspected() {
    let folder = TempFolder::new("classifier-inspect");
    Command::inspect(&classifier().run).out(folder.path("look")).on_cpu().quiet().succeed();
}

#[test]
fn images_of_another_size_are_resized_and_this_is_said() {
    let folder = TempFolder::new("classify-sizes");
    let large = image::imageops::resize(
        &image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x * y * 5) as u8])),
        40,
        24,
        image::imageops::FilterType::Nearest,
    );
    large.save(folder.path("large.png")).unwrap();
    let large = folder.path("large.png");
    let classify =
        |image: &str| Command::new("classify").arg(&classifier().run).arg(image).on_cpu();
    let note = "resized to 8x8, the input of the model";
    classify(&large).warns(&[note]);
    classify(&large).flags("--resize").warns(&[note]);
    assert!(!classify("digits").messages().contains(note));
    // Images of several sizes in one folder.
    folder.write("mixed/large.png", bytes(&large));
    image::GrayImage::new(8, 8).save(folder.path("mixed/own.png")).unwrap();
    for flags in ["", "--resize"] {
        classify(&folder.path("mixed")).flags(flags).warns(&[&format!("; 1 {note}")]);
    }
    // The result is that of an image of the model's size.
    assert_eq!(classify(&large).succeed(), classify(&large).flags("--resize").succeed());
}

#[test]
fn wrong_input_of_classify_is_refused() {
    let folder = TempFolder::new("classify-bad");
    let encoder = Command::new("classify").arg(sparse_digits()).arg("digits").on_cpu().quiet();
    encoder.fails(2, &["not a classifier", "csae finetune"]);
    classify("photos").fails(2, &["channels", "--resize"]);
    let there = folder.write("confusion.png", "");
    classify("digits").option("--confusion", there).fails(2, &["--force"]);
    let unlabelled = classify("textures").arg("--resize");
    unlabelled.option("--confusion", folder.path("c.png")).fails(2, &["no labels"]);
}

#[test]
fn a_curve_compares_pretrained_with_untrained_encoders() {
    let folder = TempFolder::new("curve");
    let out = folder.path("out");
    let flags = "--test digits --curve 20,200 --seeds 2";
    let lines = finetune("digits", &out).epochs(3).flags(flags).json();
    let points = json::of_kind(&lines, "point");
    assert_eq!(points.len(), 2);
    for point in &points {
        for arm in ["pretrained", "scratch"] {
            assert_eq!(point[arm]["errors"].as_array().unwrap().len(), 2, "{point}");
        }
        assert!(point["p"].is_number(), "{point}");
    }
    let mean = |point: &Value| json::number(&point["pretrained"], "mean");
    assert!(mean(points[1]) < mean(points[0]));
    for name in ["curve.png", "curve.tsv", "finetune.json", "20-0-pretrained/metrics.jsonl"] {
        assert!(is_file(&out, name), "{name}");
    }
}

#[test]
fn wrong_options_of_finetune_are_refused() {
    let folder = TempFolder::new("finetune-bad");
    let cases: &[(&str, &str, &[&str])] = &[
        ("photos", "--resize", &["no labels"]),
        ("digits", "--labels 5", &["5 labels for 10 classes"]),
        ("digits", "--labels 1790", &["of class", "which has"]),
        ("digits", "--labels-per-class 400", &["of class"]),
        ("digits", "--test digits --curve 20,5000", &["5000 labels"]),
        ("digits", "--test digits --curve 4,50", &["4 labels for 10 classes"]),
        ("digits", "--curve 20", &["--test"]),
        ("digits", "--lr 0", &["--lr 0"]),
        ("digits", "--dropout 1", &["--dropout 1"]),
        ("digits", "--max-memory 100KiB", &["--max-memory"]),
        ("digits", "--test textures", &["no labels"]),
    ];
    for (data, flags, words) in cases {
        finetune(data, &folder.path("out")).flags(flags).fails(2, words);
    }
}

/// A folder of three images for each class.
fn classes(folder: &TempFolder, name: &str, classes: &[&str]) -> String {
    for class in classes {
        for i in 0..3 {
            plain(&folder.path(&format!("{name}/{class}/{i}.png")), 8, 9 * i);
        }
    }
    folder.path(name)
}

#[test]
fn a_test_class_without_training_images_is_refused() {
    let folder = TempFolder::new("finetune-classes");
    let (ab, abc) =
        (classes(&folder, "ab", &["a", "b"]), classes(&folder, "abc", &["a", "b", "c"]));
    let out = folder.path("out");
    finetune(&ab, &out).option("--test", &abc).fails(2, &["\"c\""]);
    // A training class without test images is not an error.
    finetune(&abc, &out).option("--test", &ab).epochs(1).succeed();
    // A run is not overwritten.
    finetune(&abc, &out).fails(2, &["already holds a run", "--force"]);
}

#[test]
fn a_diverging_classifier_is_reported_with_its_rate() {
    let folder = TempFolder::new("finetune-diverges");
    let output = finetune("digits", &folder.path("out")).flags("--lr 1e30").output();
    assert_eq!(output.status, Some(1), "{output:?}");
    assert!(output.stderr.contains("optimizer.lr"), "{output:?}");
}

#[test]
fn both_paths_learn_alike() {
    let Some(_turn) = gpu::turn() else { return };
    let mut gpu = gpu::open();
    let folder = TempFolder::new("finetune-paths");
    let run = sparse_digits();
    let loaded = model::load(Path::new(run)).unwrap();
    let spec = model::encoder(&loaded.graph, Some("encoder.1"), None).unwrap();
    let dims = loaded.graph.nodes[0].dims;
    let sample = Sample::open_whole(
        "digits",
        WholeSize::Exactly(dims),
        &LoadOptions::default(),
        Budget::new(None),
    )
    .unwrap();
    let (labels, _) = match_labels(sample.labels(), sample.labels()).unwrap();
    let data = Labelled::read(&sample, dims, labels, None).unwrap();
    let graph =
        Graph::new(&model::classifier(&spec, data.classes.clone(), 0.0).unwrap(), dims).unwrap();
    let (fit, held) = split(&data, &draw(&data, 200, 1).unwrap(), 0.2, 1);
    let config = |encoder_lr: f64| {
        let set = [
            "train.batch=32".to_owned(),
            "train.log_every=5".to_owned(),
            format!("optimizer.encoder_lr={encoder_lr}"),
            "classify.head=fresh".to_owned(),
            "classify.shift=1".to_owned(),
        ];
        let text = HeadKind::Classify.preset();
        let epochs = [("epochs", 3.0.into())];
        let mut config = Config::with_model(text, "test", &graph.spec, &epochs, &set).unwrap();
        config.train.from = Some(run.to_owned());
        config
    };
    let losses = |device: &mut Device, name: &str, config: &Config| {
        let out = RunFolder::at(Path::new(&folder.path(name)));
        let origin = Origin::new(config, "cpu".to_owned(), None).unwrap();
        let _lock = out.create(config, &origin, false).unwrap();
        let part = |numbers: &[usize], name| Subset { set: &data, indices: numbers.to_vec(), name };
        let parts = (&part(&fit, "training images"), part(&held, "held-out images"));
        let mut training = begin_training(device, &out, config, &graph, parts, 0, None).unwrap();
        let metrics = out.file("metrics.jsonl");
        let mut log = Log::new(Some(&metrics), training.trainer.total, true, false).unwrap();
        training.train(device, &mut log, &|| false).unwrap();
        json::numbers(&json::lines(&text(metrics)), "loss")
    };
    let half = config(0.5);
    let (a, b) = (losses(&mut Device::cpu(), "cpu", &half), losses(&mut gpu, "gpu", &half));
    let close =
        |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-3 * a.abs());
    assert!(a.len() == 3 && close(&a, &b), "{a:?} {b:?}");
    // A control: another learning rate gives another trajectory.
    assert!(!close(&a, &losses(&mut Device::cpu(), "control", &config(1.0))));
}
