//! `csae features` and `csae probe`: files that say the same in every format, controls beside every
//! score, and what is refused.

use std::path::Path;

use csae::internals::data::{bundled, patches};
use csae::internals::device::Device;
use csae::internals::infer::batches::Inference;
use csae::internals::model::{self, Graph, Purpose};
use csae::internals::shape::to_nchw;
use safetensors::SafeTensors;
use serde_json::Value;

use super::commands::{Place, fail, succeed};

const SHORT: [&str; 8] =
    ["--device", "cpu", "-q", "--steps", "30", "--batch", "32", "--set=train.log_every=10"];

fn train(place: &Place, name: &str, more: &[&str]) -> String {
    let run = place.path(name);
    succeed(&[&["train", "digits", "--out", &run], &SHORT[..], more].concat());
    run
}

fn features(arguments: &[&str]) -> String {
    succeed(&[&["features"], arguments, &["--device", "cpu", "-q"]].concat())
}

/// Shape and values of an npy file of floats or of 64-bit integers.
fn npy(path: &str, dtype: &str) -> (Vec<usize>, Vec<f64>) {
    let bytes = std::fs::read(path).unwrap();
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00"));
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let head = String::from_utf8(bytes[10..start].to_vec()).unwrap();
    assert!(head.contains(&format!("'{dtype}'")) && start.is_multiple_of(64), "{head}");
    let shape = head.split_once("'shape': (").unwrap().1.split_once(')').unwrap().0;
    let shape = shape
        .split(',')
        .filter(|size| !size.trim().is_empty())
        .map(|size| size.trim().parse().unwrap())
        .collect();
    let values = match dtype {
        "<f4" => bytes[start..]
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
            .collect(),
        _ => bytes[start..]
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64)
            .collect(),
    };
    (shape, values)
}

#[test]
fn features_are_the_layers_values_in_the_images_order() {
    let place = Place::new("features");
    let run = train(&place, "run", &[]);
    let (maps, pooled, whole) =
        (place.path("maps.npy"), place.path("sum.npy"), place.path("all.safetensors"));
    features(&[&run, "digits", "--layer", "encoder.0", "-o", &maps]);
    let (shape, values) = npy(&maps, "<f4");
    // by the library, layer by layer
    let loaded = model::load(Path::new(&run)).unwrap();
    let spec = model::encoder(&loaded.graph, Some("encoder.0"), None).unwrap();
    let graph = Graph::new(&spec, loaded.graph.nodes[0].dims).unwrap();
    let mut device = Device::cpu();
    let store = loaded.place(&mut device, &graph, Purpose::Infer).unwrap();
    let digits = bundled::load("digits").unwrap();
    let chosen = patches::grid(&digits, 8, 8, 0, 0);
    let z = Inference::new(&graph, &store)
        .run(&mut device, &patches::cut(&digits, &chosen, 8, 8))
        .unwrap()
        .z;
    let dims = graph.nodes[graph.code].dims;
    let wanted = to_nchw(&z, dims);
    assert_eq!(shape, [1797, dims.c, dims.h, dims.w]);
    assert!(
        values.iter().zip(&wanted).all(|(a, b)| *a == f64::from(*b))
            && values.len() == wanted.len()
    );
    let labels = npy(&place.path("maps.labels.npy"), "<i8");
    let truth = digits.labels.unwrap();
    assert!(labels.0 == [1797] && labels.1.iter().zip(&truth.of).all(|(a, b)| *a == f64::from(*b)));
    let names = std::fs::read_to_string(place.path("maps.names.txt")).unwrap();
    assert!(names.lines().eq(digits.names.iter().map(String::as_str)));
    // sums over quarters
    features(&[
        &run,
        "digits",
        "--layer",
        "encoder.0",
        "--pool",
        "sum",
        "--grid",
        "2",
        "-o",
        &pooled,
    ]);
    let (shape, sums) = npy(&pooled, "<f4");
    assert_eq!(shape, [1797, dims.c, 2, 2]);
    let (h, w) = (dims.h / 2, dims.w / 2);
    for (map, sums) in values.chunks_exact(dims.area()).zip(sums.chunks_exact(4)).take(500) {
        for (cell, sum) in sums.iter().enumerate() {
            let wanted: f64 = (0..h * w)
                .map(|i| map[(cell / 2 * h + i / w) * dims.w + cell % 2 * w + i % w])
                .sum();
            assert!((sum - wanted).abs() <= 1e-4 * (1.0 + wanted.abs()), "{sum} {wanted}");
        }
    }
    // one file with everything, the same values; a source that is streamed gives the same bytes
    features(&[&run, "digits", "--layer", "encoder.0", "-o", &whole]);
    let bytes = std::fs::read(&whole).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("features").unwrap();
    assert!(tensor.data().chunks_exact(4).zip(&wanted).all(|(b, x)| b == x.to_le_bytes()));
    assert_eq!(file.tensor("labels").unwrap().shape(), [1797]);
    let (_, head) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = head.metadata().as_ref().unwrap();
    assert!(
        metadata["names"].contains("1796") && metadata["classes"].contains('9'),
        "{metadata:?}"
    );
}

#[test]
fn streamed_images_have_the_same_features() {
    let place = Place::new("features-streamed");
    let run = train(&place, "run", &[]);
    let digits = bundled::load("digits").unwrap();
    let idx = place.path("some-images-idx3-ubyte");
    let head: Vec<u8> = [0x803_u32, 1797, 8, 8].iter().flat_map(|x| x.to_be_bytes()).collect();
    std::fs::write(&idx, [head, digits.bytes].concat()).unwrap();
    let (a, b) = (place.path("a.npy"), place.path("b.npy"));
    features(&[&run, &idx, "-o", &a]);
    features(&[&run, &idx, "-o", &b, "--max-memory", "3MiB"]);
    assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    assert!(!Path::new(&place.path("a.labels.npy")).exists());
}

fn probe(arguments: &[&str]) -> Vec<Value> {
    let text = succeed(
        &[
            &["probe"],
            arguments,
            &["--train", "digits", "--test", "digits", "--device", "cpu", "-q", "--json"],
        ]
        .concat(),
    );
    let lines =
        text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON object a line"));
    lines.filter(|line| line["kind"] == "probe").collect()
}

#[test]
fn a_probe_always_has_its_controls() {
    let place = Place::new("probe");
    let run = train(&place, "run", &["--preset", "sparse"]);
    let rows = probe(&[&run, "--layer", "encoder.1", "--grid", "2"]);
    let names: Vec<&str> = rows.iter().map(|row| row["features"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "features",
            "features",
            "raw pixels",
            "raw pixels",
            "untrained network",
            "untrained network"
        ]
    );
    for row in &rows {
        let (error, interval) = (row["test"]["error"].as_f64().unwrap(), &row["test"]["interval"]);
        assert!(
            interval[0].as_f64().unwrap() <= error && error <= interval[1].as_f64().unwrap(),
            "{row}"
        );
        // ten classes: chance is 0.9
        assert!(error < 0.2, "{row}");
    }
    for name in ["probe/confusion.png", "probe/probe.json"] {
        assert!(Path::new(&run).join(name).exists(), "{name}");
    }
    fail(
        &["probe", &run, "--train", "digits", "--test", "digits", "--device", "cpu", "-q"],
        2,
        &["confusion.png", "--force"],
    );
    // features that were written before give the same rows
    let file = place.path("digits.safetensors");
    features(&[
        &run,
        "digits",
        "--layer",
        "encoder.1",
        "--grid",
        "2",
        "--pool",
        "max",
        "-o",
        &file,
    ]);
    let reused = [
        "--layer",
        "encoder.1",
        "--grid",
        "2",
        "--features",
        &file,
        &file,
        "-o",
        &place.path("again"),
    ];
    let again = probe(&[&[run.as_str()], &reused[..]].concat());
    let plain = |row: &Value| (row["features"].clone(), row["test"].clone(), row["lambda"].clone());
    assert!(rows.iter().zip(&again).all(|(a, b)| plain(a) == plain(b)));
    // few labels
    let rows = probe(&[
        &run,
        "--layer",
        "encoder.1",
        "--labels-per-class",
        "2,20",
        "--draws",
        "3",
        "--classifier",
        "svm",
        "-o",
        &place.path("few"),
    ]);
    assert_eq!(rows.len(), 6);
    let mean = |row: &Value| row["draws"]["mean"].as_f64().unwrap();
    assert!(
        rows.chunks(2).all(|two| mean(&two[1]) < mean(&two[0])
            && two[0]["draws"]["errors"].as_array().unwrap().len() == 3),
        "{rows:?}"
    );
}

#[test]
fn what_cannot_be_probed_is_answered_by_one_line() {
    let place = Place::new("probe-bad");
    let (run, other) = (train(&place, "run", &[]), train(&place, "other", &["--seed", "7"]));
    let out = place.path("x.npy");
    let refuse = |arguments: &[&str], words: &[&str]| {
        fail(&[arguments, &["--device", "cpu", "-q"]].concat(), 2, words)
    };
    refuse(
        &["features", &run, "digits", "-o", &place.path("x.csv")],
        &["x.csv", ".npy or .safetensors"],
    );
    refuse(
        &["features", &run, "digits", "-o", &out, "--layer", "encoder.7"],
        &["encoder.7", "encoder.0"],
    );
    refuse(
        &[
            "features",
            &run,
            "digits",
            "-o",
            &out,
            "--layer",
            "encoder.0",
            "--pool",
            "max",
            "--grid",
            "99",
        ],
        &["--grid", "99x99"],
    );
    refuse(&["features", &run, "photos", "-o", &out], &["photos", "--resize"]);
    refuse(
        &["features", &run, "textures", "-o", &out],
        &["textures", "the model takes 8x8", "--resize"],
    );
    features(&[&run, "textures", "-o", &out, "--resize"]);
    refuse(&["features", &run, "textures", "-o", &out, "--resize"], &["x.npy", "--force"]);
    let bad = |train: &str, test: &str, more: &[&str], words: &[&str]| {
        refuse(
            &[
                &[
                    "probe",
                    &run,
                    "--train",
                    train,
                    "--test",
                    test,
                    "--resize",
                    "-o",
                    &place.path("p"),
                ],
                more,
            ]
            .concat(),
            words,
        );
    };
    bad("photos", "digits", &[], &["training images have no labels"]);
    bad("digits", "photos", &[], &["test images have no labels"]);
    bad(
        "digits",
        "digits",
        &["--labels-per-class", "5000"],
        &["--labels-per-class", "5000 labels per class", "has 1"],
    );
    bad(
        "digits",
        "digits",
        &["--max-memory", "1MiB", "--layer", "encoder.0", "--pool", "none"],
        &["--grid", "--max-memory"],
    );
    // classes as folders
    let picture = |path: String| {
        std::fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        image::GrayImage::from_pixel(8, 8, image::Luma([9])).save(path).unwrap();
    };
    for class in ["a", "b"] {
        picture(place.path(&format!("two/{class}/1.png")));
    }
    for class in ["a", "b", "c"] {
        picture(place.path(&format!("three/{class}/1.png")));
    }
    bad(&place.path("two"), &place.path("three"), &[], &["\"c\"", "no training image"]);
    let labels = place.path("one.labels.npy");
    features(&[&run, "digits", "-o", &place.path("one.npy"), "--layer", "encoder.0"]);
    std::fs::copy(place.path("two/a/1.png"), place.path("one.png")).unwrap();
    std::fs::remove_file(place.path("one.npy")).unwrap();
    one_class(&place.path("one.npy"), &labels);
    bad(&place.path("one.npy"), "digits", &[], &["one class"]);
    // features of another model, and of other images
    let file = place.path("other.safetensors");
    features(&[&other, "digits", "-o", &file]);
    bad("digits", "digits", &["--features", &file, &file], &["another model", "csae features"]);
    let short = place.path("short.safetensors");
    features(&[&run, &place.path("one.npy"), "-o", &short]);
    bad("digits", "digits", &["--features", &short, &short], &["other images"]);
    std::fs::write(&file, b"nothing").unwrap();
    bad("digits", "digits", &["--features", &file, &file], &["not a safetensors file"]);
}

/// Three black images, all of class 1.
fn one_class(images: &str, labels: &str) {
    let head = |dtype: &str, shape: &str| {
        let mut text =
            format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape}), }}");
        text.extend(std::iter::repeat_n(' ', 117 - text.len()));
        [b"\x93NUMPY\x01\x00\x76\x00", text.as_bytes(), b"\n"].concat()
    };
    std::fs::write(images, [head("|u1", "3, 8, 8"), vec![0; 192]].concat()).unwrap();
    std::fs::write(labels, [head("|u1", "3,"), vec![1; 3]].concat()).unwrap();
}
