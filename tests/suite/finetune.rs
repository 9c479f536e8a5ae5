//! `csae finetune` and `csae classify`: classifiers that learn, on both paths alike, and what is
//! refused.

use std::path::Path;

use csae::internals::budget::Budget;
use csae::internals::data::{Sample, Subset};
use csae::internals::device::Device;
use csae::internals::model::{self, Graph};
use csae::internals::spec::{Config, LabelledKind};
use csae::internals::tasks::finetune::{Labelled, begin_training, draw, split};
use csae::internals::tasks::probe::match_labels;
use csae::internals::train::{Log, Origin, RunFolder};
use serde_json::Value;

use super::commands::{Place, csae, fail, succeed};
use super::gpu;

pub fn train(place: &Place) -> String {
    let run = place.path("run");
    let short =
        ["--device", "cpu", "-q", "--steps", "60", "--batch", "32", "--set=train.log_every=10"];
    // the preset's penalty is for 784 pixels, these images have 64
    let sparse = ["--preset", "sparse", "--set=sparsity.lambda=0.02"];
    succeed(&[&["train", "digits", "--out", &run], &short[..], &sparse].concat());
    run
}

const ENCODER: [&str; 4] = ["--layer", "encoder.1", "--grid", "2"];

fn finetune(arguments: &[&str]) -> Vec<Value> {
    let text = succeed(
        &[&["finetune"], arguments, &ENCODER, &["--device", "cpu", "-q", "--json"]].concat(),
    );
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

fn error(lines: &[Value]) -> f64 {
    lines.iter().find(|line| line["kind"] == "finetune").unwrap()["test"]["error"].as_f64().unwrap()
}

#[test]
fn classifiers_learn_and_classify() {
    let place = Place::new("finetune");
    let run = train(&place);
    let (out, again) = (place.path("out"), place.path("again"));
    let lines = finetune(&[
        &run,
        "digits",
        "--test",
        "digits",
        "--labels",
        "300",
        "--epochs",
        "6",
        "--set=train.log_every=5",
        "-o",
        &out,
    ]);
    // chance is 0.9
    assert!(error(&lines) < 0.1, "{lines:?}");
    let losses: Vec<f64> = lines.iter().filter_map(|line| line["loss"].as_f64()).collect();
    assert!(losses.len() > 3 && losses[losses.len() - 1] < losses[0], "{losses:?}");
    for name in ["model.safetensors", "metrics.jsonl", "finetune.json", "confusion.png"] {
        assert!(Path::new(&out).join(name).exists(), "{name}");
    }
    // the same seed, the same bytes
    finetune(&[
        &run,
        "digits",
        "--test",
        "digits",
        "--labels",
        "300",
        "--epochs",
        "6",
        "--set=train.log_every=5",
        "-o",
        &again,
    ]);
    let bytes = |folder: &str| std::fs::read(Path::new(folder).join("model.safetensors")).unwrap();
    assert!(bytes(&out) == bytes(&again) && bytes(&out) != bytes(&run));
    // a head drawn on an encoder that stays: the encoder's values are those of the model
    let frozen = place.path("frozen");
    finetune(&[
        &run,
        "digits",
        "--labels-per-class",
        "20",
        "--epochs",
        "2",
        "--encoder-lr",
        "0",
        "--head",
        "fresh",
        "--dropout",
        "0.1",
        "-o",
        &frozen,
    ]);
    let (before, after) =
        (model::load(Path::new(&run)).unwrap(), model::load(Path::new(&frozen)).unwrap());
    assert_eq!(before.tensor("encoder.1.weight"), after.tensor("encoder.1.weight"));
    let tuned = model::load(Path::new(&out)).unwrap();
    assert_ne!(before.tensor("encoder.1.weight"), tuned.tensor("encoder.1.weight"));
    // answers, in every format
    let classify = |more: &[&str]| {
        succeed(&[&["classify", &out, "digits", "--device", "cpu", "-q"], more].concat())
    };
    let table = classify(&[]);
    assert!(table.lines().count() == 1797 && table.lines().all(|line| line.ends_with('%')));
    let csv = classify(&["--format", "csv", "--top", "2"]);
    assert!(
        csv.starts_with("image,label1,probability1,label2,probability2\n")
            && csv.lines().count() == 1798
    );
    let picture = place.path("confusion.png");
    let json = classify(&["--json", "--confusion", &picture]);
    let last: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(last["test"]["error"].as_f64().unwrap(), error(&lines));
    assert!(Path::new(&picture).exists());
    // what draws images is none for a classifier
    for arguments in [
        vec!["eval", &out, "digits"],
        vec!["inspect", &out, "--data", "digits"],
        vec!["reconstruct", &out, "digits", "-o", &place.path("r")],
    ] {
        fail(&[&arguments[..], &["--device", "cpu", "-q"]].concat(), 2, &["csae classify"]);
    }
    succeed(&["inspect", &out, "--device", "cpu", "-q"]);
    fail(
        &["classify", &run, "digits", "--device", "cpu", "-q"],
        2,
        &["not a classifier", "csae finetune"],
    );
    fail(&["classify", &out, "textures", "--device", "cpu", "-q"], 2, &["--resize"]);
    fail(
        &["classify", &out, "digits", "--confusion", &picture, "--device", "cpu", "-q"],
        2,
        &["--force"],
    );
    fail(
        &[
            "classify",
            &out,
            "textures",
            "--resize",
            "--confusion",
            &place.path("c.png"),
            "--device",
            "cpu",
            "-q",
        ],
        2,
        &["no labels"],
    );
}

#[test]
fn a_curve_compares_both_beginnings() {
    let place = Place::new("curve");
    let (run, out) = (train(&place), place.path("out"));
    let lines = finetune(&[
        &run, "digits", "--test", "digits", "--curve", "20,200", "--seeds", "2", "--epochs", "3",
        "-o", &out,
    ]);
    let points: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "point").collect();
    assert_eq!(points.len(), 2);
    for point in &points {
        assert!(
            ["pretrained", "scratch"].iter().all(|arm| point[arm]["errors"]
                .as_array()
                .unwrap()
                .len()
                == 2)
                && point["p"].is_number()
        );
    }
    assert!(points[1]["pretrained"]["mean"].as_f64() < points[0]["pretrained"]["mean"].as_f64());
    for name in ["curve.png", "curve.tsv", "finetune.json", "20-0-pretrained/metrics.jsonl"] {
        assert!(Path::new(&out).join(name).exists(), "{name}");
    }
}

#[test]
fn what_cannot_be_learned_is_answered_by_one_line() {
    let place = Place::new("finetune-bad");
    let run = train(&place);
    let out = place.path("out");
    let refuse = |data: &str, more: &[&str], words: &[&str]| {
        fail(
            &[&["finetune", &run, data, "-o", &out, "--device", "cpu", "-q"], &ENCODER[..], more]
                .concat(),
            2,
            words,
        );
    };
    refuse("photos", &["--resize"], &["no labels"]);
    refuse("digits", &["--labels", "5"], &["5 labels for 10 classes"]);
    refuse("digits", &["--labels", "1790"], &["of class", "which has"]);
    refuse("digits", &["--labels-per-class", "400"], &["of class"]);
    refuse("digits", &["--test", "digits", "--curve", "20,5000"], &["5000 labels"]);
    refuse("digits", &["--test", "digits", "--curve", "4,50"], &["4 labels for 10 classes"]);
    refuse("digits", &["--curve", "20"], &["--test"]);
    refuse("digits", &["--lr", "0"], &["--lr 0"]);
    refuse("digits", &["--dropout", "1"], &["--dropout 1"]);
    refuse("digits", &["--max-memory", "100KiB"], &["--max-memory"]);
    refuse("digits", &["--test", "textures"], &["--resize"]);
    let two = |name: &str, classes: &[&str]| {
        for class in classes {
            let folder = Path::new(&place.path(name)).join(class);
            std::fs::create_dir_all(&folder).unwrap();
            for i in 0..3 {
                image::GrayImage::from_pixel(8, 8, image::Luma([9 * i]))
                    .save(folder.join(format!("{i}.png")))
                    .unwrap();
            }
        }
        place.path(name)
    };
    let (ab, abc) = (two("ab", &["a", "b"]), two("abc", &["a", "b", "c"]));
    refuse(&ab, &["--test", &abc], &["\"c\""]);
    let output = csae(
        &[
            &["finetune", &run, "digits", "-o", &out, "--device", "cpu", "-q", "--lr", "1e30"],
            &ENCODER[..],
        ]
        .concat(),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("optimizer.lr"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    succeed(
        &[
            &[
                "finetune", &run, &abc, "--test", &ab, "-o", &out, "--device", "cpu", "-q",
                "--epochs", "1", "--force",
            ],
            &ENCODER[..],
        ]
        .concat(),
    );
    refuse(&abc, &[], &["holds a run already", "--force"]);
}

#[test]
fn both_paths_learn_alike() {
    let Some(_turn) = gpu::turn("both_paths_learn_alike") else { return };
    let mut gpu = gpu::open();
    let place = Place::new("finetune-paths");
    let run = train(&place);
    let loaded = model::load(Path::new(&run)).unwrap();
    let spec = model::encoder(&loaded.graph, Some("encoder.1"), None).unwrap();
    let dims = loaded.graph.nodes[0].dims;
    let sample = Sample::open_whole("digits", dims, false, false, Budget::new(None)).unwrap();
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
        let text = LabelledKind::Classify.preset();
        let mut config = Config::with_model(text, "test", &graph.spec, 3, &set).unwrap();
        config.train.from = Some(run.clone());
        config
    };
    let losses = |device: &mut Device, name: &str, config: &Config| {
        let folder = RunFolder::at(Path::new(&place.path(name)));
        let origin = Origin::new(config, "cpu".to_owned(), None).unwrap();
        let _lock = folder.create(config, &origin, false).unwrap();
        let part = |numbers: &[usize], name| Subset { set: &data, indices: numbers.to_vec(), name };
        let parts = (&part(&fit, "training images"), part(&held, "held-out images"));
        let mut training = begin_training(device, &folder, config, &graph, parts, 0, None).unwrap();
        let metrics = folder.file("metrics.jsonl");
        let mut log = Log::new(Some(&metrics), training.trainer.total, true, false).unwrap();
        training.train(device, &mut log, &|| false).unwrap();
        std::fs::read_to_string(metrics)
            .unwrap()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64())
            .collect::<Vec<f64>>()
    };
    let half = config(0.5);
    let (a, b) = (losses(&mut Device::cpu(), "cpu", &half), losses(&mut gpu, "gpu", &half));
    let close =
        |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-3 * a.abs());
    assert!(a.len() == 3 && close(&a, &b), "{a:?} {b:?}");
    // A control: another learning rate gives another trajectory.
    assert!(!close(&a, &losses(&mut Device::cpu(), "control", &config(1.0))));
}
