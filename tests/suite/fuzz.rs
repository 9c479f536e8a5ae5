//! Mutated files for every reader of foreign bytes: IDX, CIFAR, npy, pictures, label images,
//! annotations, model files, checkpoints, priors, detectors, feature files, TOML, the files of run
//! folders. A reader must not panic, take a second, or allocate a gigabyte at once.
//!
//! Each run makes `CSAE_FUZZ` inputs (default 4,000) from `CSAE_FUZZ_SEED` (default 1). A long run,
//! with memory bounded to 1.3 GB for the whole process, so that no allocation can be larger than 1
//! GB:
//!
//! ```text
//! export CSAE_GPU=off CSAE_FUZZ=10000000 CSAE_FUZZ_SEED=2
//! (ulimit -v 1300000; cargo test --release --test suite fuzz -- --nocapture)
//! ```
//!
//! Inputs that fail are written to `tests/fuzz_corpus/`. Its files are seeds of every run, so a
//! case that was found once stays a test. Their names begin with the reader's name.

use std::collections::HashMap;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use csae::internals::annotations::box_files::voc_from;
use csae::internals::annotations::coco::coco_from;
use csae::internals::annotations::label_image::labels_from;
use csae::internals::annotations::yolo::yolo_from;
use csae::internals::data::formats::decode::decode;
use csae::internals::data::formats::{arrays, cifar, idx};
use csae::internals::data::numbers;
use csae::internals::priors::prior::Prior;
use csae::internals::report::runs::{self, CONFIG, ORIGIN, State};
use csae::internals::rng::Stream;
use csae::internals::shape::{Dims, Size};
use csae::internals::spec::{Config, preset_names, preset_text};
use csae::internals::tasks::anomaly::{
    BANDS, BandStatistics, Bank, Banks, Calibration, Detector, FILE_NAME,
};
use csae::internals::tasks::features::{self, FeatureSource};
use csae::internals::train::RunFolder;
use csae::internals::train::checkpoint::{self, Checkpoint};

use image::{DynamicImage, GrayImage, ImageFormat};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::support::mutate::mutate;
use crate::support::{TempFolder, bytes};

type Reader = fn(&[u8]) -> Result<(), String>;

/// Readers by name.
const READERS: [(&str, Reader); 18] = [
    ("checkpoint", |bytes| {
        checkpoint::load_bytes(bytes, "fuzz").map(drop).map_err(|e| e.to_string())
    }),
    ("cifar", |bytes| {
        let mut file = Cursor::new(bytes);
        let array = cifar::array(&mut file, bytes.len() as u64).map_err(|e| e.to_string())?.0;
        array.read_all(&mut file).map(drop).map_err(|e| e.to_string())
    }),
    ("coco", |bytes| coco_from(bytes).map(drop).map_err(|e| e.to_string())),
    ("detector", |bytes| {
        let folder = written(FILE_NAME, bytes);
        Detector::load(folder, FINGERPRINT).map(drop).map_err(|e| e.to_string())
    }),
    ("features", |bytes| {
        let path = written("x.safetensors", bytes).join("x.safetensors");
        features::read(&path, &source_of_features()).map(drop).map_err(|e| e.to_string())
    }),
    ("idx", |bytes| idx::images_from(bytes).map(drop).map_err(|e| e.to_string())),
    ("label_image", |bytes| labels_from(bytes).map(drop).map_err(|e| e.to_string())),
    ("labels", |bytes| {
        let idx = idx::labels_from(bytes).map(drop).map_err(|e| e.to_string());
        let file = Box::new(Cursor::new(bytes.to_vec()));
        numbers::open_input(file, Path::new("labels.npy"), None, 1 << 30)
            .and_then(|mut file| arrays::labels(&mut file))
            .map(drop)
            .map_err(|e| e.to_string())
            .or(idx)
    }),
    ("model", |bytes| {
        csae::internals::model::load_bytes(bytes, "fuzz").map(drop).map_err(|e| e.to_string())
    }),
    ("npy", |bytes| {
        let file = Box::new(Cursor::new(bytes.to_vec()));
        let read = |mut file: numbers::NumberFile| {
            let count = file.len().min(1 << 20) as usize;
            file.read(0, count, &mut Vec::new())
        };
        numbers::open_input(file, Path::new("x.npy"), None, 1 << 28)
            .and_then(read)
            .map_err(|e| e.to_string())
    }),
    ("picture", |bytes| decode(bytes).map(drop).map_err(|e| e.to_string())),
    ("prior", |bytes| {
        let path = written("prior.safetensors", bytes).join("prior.safetensors");
        Prior::load(&path, FINGERPRINT).map(drop).map_err(|e| e.to_string())
    }),
    // The files of a run folder: `csae resume` opens it, and its page shows it.
    ("run_config", |bytes| run_with(CONFIG, bytes)),
    ("run_log", |bytes| run_with("metrics.jsonl", bytes)),
    ("run_origin", |bytes| run_with(ORIGIN, bytes)),
    ("toml", |bytes| {
        let text = String::from_utf8_lossy(bytes);
        // Its first lines as overrides.
        let overrides: Vec<String> = text.lines().take(2).map(str::to_owned).collect();
        if let Ok(preset) = preset_text("w1") {
            let _ = Config::parse(preset, "fuzz", &overrides);
        }
        Config::parse(&text, "fuzz", &[]).map(drop).map_err(|e| e.to_string())
    }),
    ("voc", |bytes| voc_from(bytes).map(drop).map_err(|e| e.to_string())),
    ("yolo", |bytes| {
        yolo_from(bytes, Size { h: 120, w: 160 }, None).map(drop).map_err(|e| e.to_string())
    }),
];

/// The fingerprint of the model that the seeds belong to.
const FINGERPRINT: &str = "abc";

/// Writes a file into the folder of this test, and returns the folder.
fn written(name: &str, bytes: &[u8]) -> &'static Path {
    static FOLDER: OnceLock<TempFolder> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| TempFolder::new("fuzz-files"));
    folder.write(name, bytes);
    folder.root()
}

/// Opens a run folder in which one file has these bytes, and writes its page.
fn run_with(name: &str, bytes: &[u8]) -> Result<(), String> {
    static FOLDER: OnceLock<TempFolder> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| TempFolder::new("fuzz-run"));
    for (file, sound) in [
        (CONFIG, preset_text("w1").expect("a preset").to_owned()),
        (ORIGIN, RUN_ORIGIN.to_owned()),
        ("metrics.jsonl", RUN_LOG.to_owned()),
    ] {
        folder.write(file, if file == name { bytes } else { sound.as_bytes() });
    }
    let page = runs::write_page(folder.root(), State::Stopped);
    let opened = RunFolder::open(folder.root()).map(drop);
    page.and(opened).map_err(|error| error.to_string())
}

const RUN_ORIGIN: &str = r#"{"csae": "0.1.0", "device": "cpu", "source": "digits", "threads": 2,
    "budget": {"all": 1000000, "data": 500000}}"#;

const RUN_LOG: &str = r#"{"kind":"train","step":5,"epoch":0.5,"loss":7.0,"lr":0.1}
{"kind":"validation","step":9,"epoch":0.9,"sum_squares":2.5,"psnr":20.1,"l0":3.0,"best":true}
"#;

fn source_of_features() -> FeatureSource {
    FeatureSource {
        model: FINGERPRINT.to_owned(),
        layer: "code".to_owned(),
        pooling: String::new(),
        dims: Dims { c: 3, h: 1, w: 1 },
        images: 2,
    }
}

/// A safetensors file with a text in its metadata and tensors of these shapes.
fn tensor_file(key: &str, json: &str, shapes: &[(&str, &[usize])]) -> Vec<u8> {
    let values: Vec<u8> = (0..4096).flat_map(|i| (i as f32 / 4096.0).to_le_bytes()).collect();
    let view = |shape: &[usize]| {
        let len = 4 * shape.iter().product::<usize>();
        TensorView::new(Dtype::F32, shape.to_vec(), &values[..len]).expect("the length fits")
    };
    let views: Vec<_> = shapes.iter().map(|(name, shape)| (*name, view(shape))).collect();
    let metadata = HashMap::from([(key.to_owned(), json.to_owned())]);
    safetensors::serialize(views, Some(metadata)).expect("it is written to memory")
}

/// A prior of two units, one component and one cluster.
fn prior() -> Vec<u8> {
    let json = r#"{"model": "abc", "fitted_to": 9, "classes": ["a"], "order": [1, 0], "hidden": 3,
        "mixture": {"weights": [1.0], "classes": [0]},
        "sparse": {"weights": [1.0], "classes": null}}"#;
    // The network reads two values of each unit and the cluster, and returns three of each unit.
    let (input, output) = (5, 6);
    let shapes: [(&str, &[usize]); 12] = [
        ("gaussian.factor", &[2, 2]),
        ("gaussian.mean", &[2]),
        ("mixture.factor", &[1, 2, 2]),
        ("mixture.mean", &[1, 2]),
        ("sparse.centres", &[1, 2]),
        ("sparse.network.bias", &[output]),
        ("sparse.network.direct", &[output, input]),
        ("sparse.network.hidden", &[3]),
        ("sparse.network.into", &[input, 3]),
        ("sparse.network.out", &[output, 3]),
        ("sparse.units", &[2, 5]),
        ("units", &[2, 2]),
    ];
    tensor_file("csae_prior", json, &shapes)
}

/// A detector without a network, with three descriptors of two values.
fn detector() -> Vec<u8> {
    let statistics = BandStatistics { mean: 0.5, std: 1.0 };
    let calibration = Calibration {
        model: FINGERPRINT.to_owned(),
        tile: [16, 16],
        statistics: vec![[statistics; BANDS]],
        rate: 0.01,
        image_threshold: 3.0,
        pixel_threshold: 4.0,
        gathered: 8,
        held_out: 2,
    };
    let bank = Bank {
        mean: vec![0.5; 2],
        whitening: vec![1.0, 0.0, 0.5, 1.0],
        members: vec![0.25; 6],
        spacing: vec![1.0; 3],
    };
    let banks = Banks { filters: bank, features: None };

    let folder = TempFolder::new("fuzz-detector");
    Detector { banks, calibration }.save(folder.root()).expect("a detector can be written");
    bytes(folder.path(FILE_NAME))
}

const COCO: &str = r#"{"images": [{"id": 1, "file_name": "a/x.jpg", "width": 160, "height": 120}],
    "annotations": [{"image_id": 1, "category_id": 7, "bbox": [10.5, 20, 30, 4e1], "iscrowd": 0}],
    "categories": [{"id": 7, "name": "cat"}]}"#;

const VOC: &str = r#"<?xml version="1.0" encoding="ISO-8859-1"?>
    <annotation><filename>x.jpg</filename>
    <size><width>160</width><height>120</height><depth>3</depth></size>
    <object><name>cat</name><difficult>0</difficult><bndbox><xmin>11</xmin><ymin>21</ymin>
    <xmax>40</xmax><ymax>60</ymax></bndbox></object></annotation>"#;

const YOLO: &str = "0 0.5 0.25 0.125 0.4\n3 0.1 0.1 0.2 0.1 0.2 0.3\n";

fn corpus() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz_corpus"))
}

/// Sound and once-found files, each for the reader that its name begins with.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds: Vec<(String, Vec<u8>)> = std::fs::read_dir(corpus())
        .expect("tests/fuzz_corpus is there")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            (
                path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                std::fs::read(path).expect("a seed"),
            )
        })
        .collect();
    seeds.sort();
    let presets =
        preset_names().map(|name| preset_text(name).expect("a preset").as_bytes().to_vec());
    seeds.extend(presets.map(|text| ("toml".to_owned(), text)));
    let record: Vec<u8> = (0..3073u32).map(|i| (i % 10) as u8).collect();
    let folder = TempFolder::new("fuzz");
    let path = PathBuf::from(folder.path("checkpoint.safetensors"));
    let tensors = std::array::from_fn(|i| vec![0.5; 3 * i]);
    checkpoint::save(&path, &Checkpoint { tensors, ..Checkpoint::default() })
        .expect("a checkpoint can be written");
    seeds.push(("checkpoint".to_owned(), bytes(&path)));
    seeds.push(("cifar".to_owned(), [record.clone(), record].concat()));
    let described = r#"{"model": "abc", "layer": "code", "pooling": ""}"#;
    seeds.push((
        "features".to_owned(),
        tensor_file("csae_features", described, &[("features", &[2, 3])]),
    ));
    seeds.push(("prior".to_owned(), prior()));
    seeds.push(("detector".to_owned(), detector()));
    seeds.push(("run_config".to_owned(), preset_text("w1").expect("a preset").as_bytes().to_vec()));
    let run = [("run_log", RUN_LOG), ("run_origin", RUN_ORIGIN)];
    seeds.extend(run.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())));
    let annotations = [("coco", COCO), ("voc", VOC), ("yolo", YOLO)];
    seeds.extend(annotations.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())));
    let labels = GrayImage::from_fn(9, 7, |x, y| image::Luma([(x * y % 5) as u8]));
    for labels in [labels.clone().into(), DynamicImage::from(labels).into_rgb8().into()] {
        let labels: DynamicImage = labels;
        let mut file = Cursor::new(Vec::new());
        labels.write_to(&mut file, ImageFormat::Png).expect("it is written to memory");
        seeds.push(("label_image".to_owned(), file.into_inner()));
        for format in [ImageFormat::Tga, ImageFormat::Ico] {
            let mut file = Cursor::new(Vec::new());
            labels.write_to(&mut file, format).expect("it is written to memory");
            seeds.push(("picture".to_owned(), file.into_inner()));
        }
    }
    seeds
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn no_reader_panics_or_hangs_on_mutated_files() {
    let (inputs, seed) = (number("CSAE_FUZZ", 4000), number("CSAE_FUZZ_SEED", 1));
    let seeds = seeds();
    let mut draw = Stream::new(seed, "fuzz");
    let mut bad = Vec::new();
    let mut accepted = [0u64; READERS.len()];
    let look = |name: &str, reader: Reader, bytes: &[u8]| -> (bool, Option<String>) {
        let start = Instant::now();
        let answer = catch_unwind(AssertUnwindSafe(|| reader(bytes)));
        let seconds = start.elapsed();
        match answer {
            Err(_) => (false, Some(format!("{name} panicked"))),
            _ if seconds > Duration::from_secs(1) => {
                (false, Some(format!("{name} took {seconds:?}")))
            }
            Ok(Err(message)) if message.trim().contains('\n') => {
                (false, Some(format!("{name}: several lines: {message}")))
            }
            Ok(answer) => (answer.is_ok(), None),
        }
    };
    let own = |reader: &str| -> Vec<&(String, Vec<u8>)> {
        seeds.iter().filter(|(name, _)| name.starts_with(reader)).collect()
    };
    let seeds_of: Vec<Vec<&(String, Vec<u8>)>> =
        READERS.iter().map(|(name, _)| own(name)).collect();
    for ((name, reader), seeds) in READERS.iter().zip(&seeds_of) {
        assert!(!seeds.is_empty(), "{name} has no seed");
        for (file, bytes) in seeds {
            bad.extend(
                look(name, *reader, bytes).1.map(|what| format!("{what} on the seed {file}")),
            );
        }
    }
    for i in 0..inputs {
        let which = (i % READERS.len() as u64) as usize;
        let (name, reader) = READERS[which];
        let mut bytes = seeds_of[which][draw.below(seeds_of[which].len())].1.clone();
        mutate(&mut bytes, &mut draw);
        let (sound, what) = look(name, reader, &bytes);
        accepted[which] += u64::from(sound);
        if let Some(what) = what {
            let file = corpus().join(format!("{name}_found_{seed}_{i}"));
            std::fs::write(&file, &bytes).expect("the corpus can be written");
            bad.push(format!("{what} on {}", file.display()));
            if bad.len() > 9 {
                break;
            }
        }
        if i > 0 && i.is_multiple_of(1_000_000) {
            println!("{i} inputs");
        }
    }
    println!(
        "{inputs} inputs; accepted: {:?}",
        READERS.iter().map(|(name, _)| name).zip(accepted).collect::<Vec<_>>()
    );
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    // A mutation that breaks every file at once would test only the first check of a reader.
    if inputs >= 4000 {
        // A checkpoint's hash refuses nearly every change.
        assert!(accepted[1..].iter().all(|count| *count > 0), "{accepted:?}");
    }
}
