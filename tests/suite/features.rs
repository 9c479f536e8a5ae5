//! `csae features` and `csae probe`: files with the same values in every format, controls beside
//! every score, and wrong input.

use std::path::Path;
use std::sync::OnceLock;

use csae::internals::data::{bundled, patches};
use csae::internals::device::Device;
use csae::internals::infer::batches::Inference;
use csae::internals::model::{self, Graph, Purpose};
use csae::internals::shape::{Dims, Size, to_nchw};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::support::arrays::{idx, npy};
use crate::support::files::exists;
use crate::support::images::plain;
use crate::support::{Command, TempFolder, bytes, is_file, json, text};

fn train(run: &str, flags: &str) -> Command {
    let train = Command::train("digits").flags(flags).out(run).steps(30).batch(32);
    train.set("train.log_every=10").on_cpu().quiet()
}

/// A run of the preset `article` that no test changes.
fn run() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let run = TempFolder::shared().path("features");
        train(&run, "").succeed();
        run
    })
}

/// A run of the preset `sparse` that no test changes.
fn sparse() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let run = TempFolder::shared().path("features-sparse");
        train(&run, "--preset sparse").succeed();
        run
    })
}

/// Writes the features of images to a file.
fn features(run: &str, images: &str, out: &str) -> Command {
    Command::new("features").arg(run).arg(images).out(out).on_cpu().quiet()
}

/// Shape and values of a NumPy file of floats or of 64-bit integers.
fn read_npy(path: &str, dtype: &str) -> (Vec<usize>, Vec<f64>) {
    let bytes = bytes(path);
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00"));
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let head = String::from_utf8(bytes[10..start].to_vec()).unwrap();
    assert!(head.contains(&format!("'{dtype}'")) && start.is_multiple_of(64), "{head}");
    let shape = head.split_once("'shape': (").unwrap().1.split_once(')').unwrap().0;
    let sizes = shape.split(',').filter(|size| !size.trim().is_empty());
    let shape = sizes.map(|size| size.trim().parse().unwrap()).collect();
    let data = &bytes[start..];
    let values = match dtype {
        "<f4" => {
            let float = |b: &[u8]| f64::from(f32::from_le_bytes(b.try_into().unwrap()));
            data.chunks_exact(4).map(float).collect()
        }
        _ => {
            let integer = |b: &[u8]| i64::from_le_bytes(b.try_into().unwrap()) as f64;
            data.chunks_exact(8).map(integer).collect()
        }
    };
    (shape, values)
}

/// The layer `encoder.0` of the digits, computed by the library layer by layer, in NCHW.
fn by_library() -> &'static (Dims, Vec<f32>) {
    static VALUES: OnceLock<(Dims, Vec<f32>)> = OnceLock::new();
    VALUES.get_or_init(|| {
        let loaded = model::load(Path::new(run())).unwrap();
        let spec = model::encoder(&loaded.graph, Some("encoder.0"), None).unwrap();
        let graph = Graph::new(&spec, loaded.graph.nodes[0].dims).unwrap();
        let mut device = Device::cpu();
        let store = loaded.place(&mut device, &graph, Purpose::Infer).unwrap();
        let digits = bundled::load("digits").unwrap();
        let size = Size::new(8, 8);
        let chosen = patches::grid(&digits, size, 0, 0);
        let z = Inference::new(&graph, &store)
            .run(&mut device, &patches::cut(&digits, &chosen, size))
            .unwrap()
            .z;
        let dims = graph.nodes[graph.code].dims;
        (dims, to_nchw(&z, dims))
    })
}

#[test]
fn features_are_the_layers_values_in_the_order_of_the_images() {
    let folder = TempFolder::new("features");
    let maps = folder.path("maps.npy");
    features(run(), "digits", &maps).flags("--layer encoder.0").succeed();
    let (shape, values) = read_npy(&maps, "<f4");
    let (dims, expected) = by_library();
    assert_eq!(shape, [1797, dims.c, dims.h, dims.w]);
    assert_eq!(values.len(), expected.len());
    assert!(values.iter().zip(expected).all(|(a, b)| *a == f64::from(*b)));
}

#[test]
fn labels_and_names_stand_beside_the_features() {
    let folder = TempFolder::new("features-labels");
    features(run(), "digits", &folder.path("maps.npy")).flags("--layer encoder.0").succeed();
    let digits = bundled::load("digits").unwrap();
    let (shape, labels) = read_npy(&folder.path("maps.labels.npy"), "<i8");
    assert_eq!(shape, [1797]);
    assert!(labels.iter().zip(&digits.labels.unwrap().of).all(|(a, b)| *a == f64::from(*b)));
    let names = text(folder.path("maps.names.txt"));
    assert!(names.lines().eq(digits.names.iter().map(String::as_str)));
}

#[test]
fn features_can_be_summed_over_a_grid() {
    let folder = TempFolder::new("features-grid");
    let (maps, pooled) = (folder.path("maps.npy"), folder.path("sum.npy"));
    features(run(), "digits", &maps).flags("--layer encoder.0").succeed();
    let sum = "--layer encoder.0 --pool sum --grid 2";
    features(run(), "digits", &pooled).flags(sum).succeed();
    let values = read_npy(&maps, "<f4").1;
    let (shape, sums) = read_npy(&pooled, "<f4");
    let (dims, _) = by_library();
    assert_eq!(shape, [1797, dims.c, 2, 2]);
    let (h, w) = (dims.h / 2, dims.w / 2);
    for (map, sums) in values.chunks_exact(dims.area()).zip(sums.chunks_exact(4)).take(500) {
        for (cell, sum) in sums.iter().enumerate() {
            let at = |i| (cell / 2 * h + i / w) * dims.w + cell % 2 * w + i % w;
            let expected: f64 = (0..h * w).map(|i| map[at(i)]).sum();
            assert!((sum - expected).abs() <= 1e-4 * (1.0 + expected.abs()), "{sum} {expected}");
        }
    }
}

#[test]
fn features_of_several_layers_are_pooled_and_joined() {
    let folder = TempFolder::new("features-layers");
    for how in ["max", "average", "sum"] {
        let of = |layer: &str| {
            let file = folder.path("pooled.npy");
            let flags = format!("--layer {layer} --pool {how} --grid 2");
            features(sparse(), "digits", &file).flags(&flags).force().succeed();
            read_npy(&file, "<f4")
        };
        let (first, second) = (of("encoder.0"), of("encoder.1"));
        let (shape, both) = of("encoder.0,encoder.1");
        assert_eq!(shape, [1797, first.0[1] + second.0[1], 2, 2]);
        let (a, b) = (first.1.len() / 1797, second.1.len() / 1797);
        let joined = first.1.chunks_exact(a).zip(second.1.chunks_exact(b));
        let joined: Vec<f64> = joined.flat_map(|(a, b)| [a, b].concat()).collect();
        assert!(joined == both, "{how}");
    }
}

#[test]
fn a_safetensors_file_has_features_labels_names_and_classes() {
    let folder = TempFolder::new("features-whole");
    let whole = folder.path("all.safetensors");
    features(run(), "digits", &whole).flags("--layer encoder.0").succeed();
    let bytes = bytes(&whole);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("features").unwrap();
    let (_, expected) = by_library();
    assert!(tensor.data().chunks_exact(4).zip(expected).all(|(b, x)| b == x.to_le_bytes()));
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
    let folder = TempFolder::new("features-streamed");
    let digits = bundled::load("digits").unwrap();
    let file = [idx(&[1797, 8, 8], 0), digits.bytes].concat();
    let images = folder.write("some-images-idx3-ubyte", file);
    let (a, b) = (folder.path("a.npy"), folder.path("b.npy"));
    features(run(), &images, &a).succeed();
    features(run(), &images, &b).max_memory("3MiB").succeed();
    assert_eq!(bytes(a), bytes(b));
    assert!(!exists(folder.path("a.labels.npy")));
}

/// A probe of digits on digits.
fn probe(run: &str, out: &str) -> Command {
    let probe = Command::new("probe --train digits --test digits").arg(run).out(out);
    probe.on_cpu().quiet()
}

fn rows(probe: &Command) -> Vec<Value> {
    probe.json().into_iter().filter(|line| line["kind"] == "probe").collect()
}

const POOLED: &str = "--layer encoder.1 --grid 2";

/// The rows of a probe of the layer `encoder.1`, and the folder of its files.
fn probed() -> &'static (Vec<Value>, String) {
    static PROBED: OnceLock<(Vec<Value>, String)> = OnceLock::new();
    PROBED.get_or_init(|| {
        let out = TempFolder::shared().path("features-probe");
        (rows(&probe(sparse(), &out).flags(POOLED)), out)
    })
}

#[test]
fn a_probe_has_raw_pixels_and_an_untrained_network_as_controls() {
    let names: Vec<&Value> = probed().0.iter().map(|row| &row["features"]).collect();
    let [features, pixels, untrained] = ["features", "raw pixels", "untrained network"];
    assert_eq!(names, [features, features, pixels, pixels, untrained, untrained]);
}

#[test]
fn the_error_of_a_probe_is_low_and_inside_its_interval() {
    for row in &probed().0 {
        let (error, interval) = (json::number(&row["test"], "error"), &row["test"]["interval"]);
        let [low, high] = [0, 1].map(|end| interval[end].as_f64().unwrap());
        assert!(low <= error && error <= high, "{row}");
        // Of ten classes: chance is 0.9.
        assert!(error < 0.2, "{row}");
    }
}

#[test]
fn a_probe_writes_its_confusions_into_the_run() {
    let folder = TempFolder::new("probe");
    let run = folder.path("run");
    train(&run, "--preset sparse").succeed();
    let probe = Command::new("probe --train digits --test digits").arg(&run).on_cpu().quiet();
    probe.clone().flags(POOLED).succeed();
    for name in ["probe/confusion.png", "probe/probe.json"] {
        assert!(is_file(&run, name), "{name}");
    }
    probe.fails(2, &["confusion.png", "--force"]);
}

#[test]
fn a_probe_of_features_from_a_file_has_the_same_rows() {
    let folder = TempFolder::new("probe-file");
    let file = folder.path("digits.safetensors");
    features(sparse(), "digits", &file).flags(POOLED).flags("--pool max").succeed();
    let probe = probe(sparse(), &folder.path("again")).flags(POOLED);
    let again = rows(&probe.args(["--features", &file, &file]));
    let plain = |row: &Value| (row["features"].clone(), row["test"].clone(), row["lambda"].clone());
    assert!(probed().0.iter().zip(&again).all(|(a, b)| plain(a) == plain(b)));
}

/// Images of two classes: a column of one brightness at the left or at the right (`a`), or in the
/// middle (`b`).
fn columns(folder: &TempFolder, name: &str, of_a: u32) -> String {
    for (class, column) in [("a", of_a), ("b", 3)] {
        folder.create(&format!("{name}/{class}"));
        for i in 0..12_u32 {
            let shade = |x: u32, y: u32| {
                let noise = (x * 7 + y * 13 + i * 31) % 23;
                image::Luma([if x == column { 200 + noise } else { noise } as u8])
            };
            let path = folder.path(&format!("{name}/{class}/{i}.png"));
            image::GrayImage::from_fn(8, 8, shade).save(path).unwrap();
        }
    }
    folder.path(name)
}

/// A probe of columns where class `a` has another column in the test images.
fn probe_of_columns(folder: &TempFolder, [train, test]: [u32; 2], flags: &str) -> Command {
    let (train, test) = (columns(folder, "train", train), columns(folder, "test", test));
    let command = Command::new("probe").arg(sparse()).out(folder.path("out")).on_cpu().quiet();
    let command = command.option("--train", &train).option("--test", &test).force();
    command.flags(flags).flags("--layer encoder.0 --classifier svm")
}

/// The test errors of features, raw pixels and an untrained network.
fn test_errors(probe: &Command) -> Vec<f64> {
    rows(probe).iter().map(|row| json::number(&row["test"], "error")).collect()
}

#[test]
fn a_probe_of_mirror_images_knows_objects_from_the_other_side() {
    let folder = TempFolder::new("probe-mirror");
    let errors = |flags| test_errors(&probe_of_columns(&folder, [1, 6], flags));
    assert!(errors("").iter().any(|error| *error > 0.3), "{:?}", errors(""));
    assert_eq!(errors("--flip-x"), [0.0; 3]);
}

#[test]
fn a_probe_of_moved_images_knows_objects_at_other_places() {
    let folder = TempFolder::new("probe-shift");
    let errors = |flags| test_errors(&probe_of_columns(&folder, [6, 5], flags));
    assert!(errors("").iter().any(|error| *error > 0.3), "{:?}", errors(""));
    assert_eq!(errors("--shift 1"), [0.0; 3]);
    let probe = |flags| probe_of_columns(&folder, [6, 5], flags);
    probe("--shift 8").fails(2, &["--shift 8", "8x8"]);
    probe("--shift 0").fails(2, &["--shift"]);
    probe("--shift 1 --labels-per-class 2").fails(2, &["--shift", "--labels-per-class"]);
}

#[test]
fn more_labels_give_a_lower_error() {
    let folder = TempFolder::new("probe-few");
    let probe = probe(sparse(), &folder.path("few")).flags("--layer encoder.1 --classifier svm");
    let rows = rows(&probe.flags("--labels-per-class 2,20 --draws 3"));
    assert_eq!(rows.len(), 6);
    for two in rows.chunks(2) {
        let mean = |row: &Value| json::number(&row["draws"], "mean");
        assert!(mean(&two[1]) < mean(&two[0]), "{rows:?}");
        assert_eq!(two[0]["draws"]["errors"].as_array().unwrap().len(), 3, "{rows:?}");
    }
}

#[test]
fn wrong_options_of_features_are_refused() {
    let folder = TempFolder::new("features-bad");
    let out = folder.path("x.npy");
    let csv = features(run(), "digits", &folder.path("x.csv"));
    csv.fails(2, &["x.csv", ".npy or .safetensors"]);
    let features = features(run(), "digits", &out);
    features.clone().flags("--layer encoder.7").fails(2, &["encoder.7", "encoder.0"]);
    let grid = features.flags("--layer encoder.0 --pool max --grid 99");
    grid.fails(2, &["--grid", "99x99"]);
    let several = |flags: &str, words: &[&str]| {
        self::features(sparse(), "digits", &out).flags(flags).fails(2, words);
    };
    several("--layer encoder.0,encoder.1", &["several layers", "--pool max"]);
    several("--layer encoder.0,encoder.0 --pool max", &["encoder.0", "twice"]);
    several("--layer encoder.0,encoder.7 --pool max", &["encoder.7", "encoder.1"]);
    several("--layer encoder.0,encoder.1 --pool max --grid 99", &["--grid", "encoder.0", "99x99"]);
}

#[test]
fn images_of_another_size_are_refused_without_resize() {
    let folder = TempFolder::new("features-size");
    let out = folder.path("x.npy");
    features(run(), "photos", &out).fails(2, &["photos", "--resize"]);
    let textures = features(run(), "textures", &out);
    textures.fails(2, &["textures", "the model takes 8x8", "--resize"]);
    textures.arg("--resize").succeed();
}

#[test]
fn features_are_not_overwritten_without_force() {
    let folder = TempFolder::new("features-force");
    let features = features(run(), "digits", &folder.path("x.npy"));
    features.succeed();
    features.fails(2, &["x.npy", "--force"]);
}

/// A probe that must be refused.
#[track_caller]
fn refused(train: &str, test: &str, more: &[&str], words: &[&str]) {
    let folder = TempFolder::new("probe-bad");
    Command::new("probe --resize")
        .arg(run())
        .option("--train", train)
        .option("--test", test)
        .out(folder.path("p"))
        .args(more)
        .on_cpu()
        .quiet()
        .fails(2, words);
}

#[test]
fn probes_without_labels_are_refused() {
    refused("photos", "digits", &[], &["training images have no labels"]);
    refused("digits", "photos", &[], &["test images have no labels"]);
}

#[test]
fn more_labels_than_there_are_are_refused() {
    let words = ["--labels-per-class", "5000 labels per class", "has 1"];
    refused("digits", "digits", &["--labels-per-class", "5000"], &words);
}

#[test]
fn features_that_do_not_fit_in_memory_are_refused() {
    let more = ["--max-memory", "1MiB", "--layer", "encoder.0", "--pool", "none"];
    refused("digits", "digits", &more, &["--grid", "--max-memory"]);
}

/// A folder of one image for each class.
fn classes(folder: &TempFolder, name: &str, classes: &[&str]) -> String {
    classes.iter().for_each(|class| plain(&folder.path(&format!("{name}/{class}/1.png")), 8, 9));
    folder.path(name)
}

#[test]
fn a_test_class_without_training_images_is_refused() {
    let folder = TempFolder::new("probe-classes");
    let (two, three) =
        (classes(&folder, "two", &["a", "b"]), classes(&folder, "three", &["a", "b", "c"]));
    refused(&two, &three, &[], &["\"c\"", "no training image"]);
}

/// Three black images in an array file, all of class 1.
fn one_class(folder: &TempFolder) -> String {
    folder.write("one.labels.npy", npy("|u1", "3,", &[1; 3]));
    folder.write("one.npy", npy("|u1", "3, 8, 8", &[0; 192]))
}

#[test]
fn a_single_class_is_refused() {
    let folder = TempFolder::new("probe-class");
    refused(&one_class(&folder), "digits", &[], &["one class"]);
}

#[test]
fn features_of_another_model_are_refused() {
    let folder = TempFolder::new("probe-model");
    let (other, file) = (folder.path("other"), folder.path("other.safetensors"));
    train(&other, "--seed 7").succeed();
    features(&other, "digits", &file).succeed();
    let words = ["another model", "csae features"];
    refused("digits", "digits", &["--features", &file, &file], &words);
}

#[test]
fn features_of_other_images_are_refused() {
    let folder = TempFolder::new("probe-images");
    let file = folder.path("short.safetensors");
    features(run(), &one_class(&folder), &file).succeed();
    refused("digits", "digits", &["--features", &file, &file], &["other images"]);
}

#[test]
fn a_file_that_has_no_features_is_refused() {
    let folder = TempFolder::new("probe-nothing");
    let file = folder.write("other.safetensors", "nothing");
    refused("digits", "digits", &["--features", &file, &file], &["not a safetensors file"]);
}

/// A convolutional model of gray images that no test changes.
fn convolutional() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let run = TempFolder::shared().path("features-convolutional");
        let small = "--set model.layers.unrolled.filters=8 --set model.layers.unrolled.kernel=5 \
                     --set model.layers.dictionary.kernel=5";
        let train = Command::new("train textures").flags(small).set("data.crop=16");
        let train = train.set("model.layers.dictionary.padding=2");
        train.out(&run).steps(20).batch(8).on_cpu().quiet().succeed();
        run
    })
}

/// A folder of gray images of these widths and heights.
fn images_of(folder: &TempFolder, name: &str, sizes: &[(u32, u32)]) -> String {
    folder.create(name);
    for (i, (width, height)) in sizes.iter().enumerate() {
        let shade = |x: u32, y: u32| image::Luma([(x * 5 + y * 3 + i as u32 * 40) as u8]);
        let path = folder.path(&format!("{name}/{i}.png"));
        image::GrayImage::from_fn(*width, *height, shade).save(path).unwrap();
    }
    folder.path(name)
}

#[test]
fn a_convolutional_encoder_takes_images_of_any_size() {
    let folder = TempFolder::new("any-size");
    let shape_of = |images: &str, flags: &str| {
        let out = folder.path("features.npy");
        let command = Command::new("features").arg(convolutional()).arg(images).out(&out).on_cpu();
        let messages = command.flags(flags).force().messages();
        (read_npy(&out, "<f4").0, messages)
    };
    let same = images_of(&folder, "same", &[(40, 28), (40, 28)]);
    let (shape, messages) = shape_of(&same, "");
    assert_eq!(shape, [2, 8, 7, 10], "4x4 pixels for a position");
    assert!(!messages.contains("resized"), "{messages}");
    let odd = images_of(&folder, "odd", &[(41, 30), (41, 30)]);
    let (shape, messages) = shape_of(&odd, "");
    assert_eq!(shape, [2, 8, 7, 10]);
    assert!(messages.contains("resized to 40x28, the nearest size"), "{messages}");
    assert_eq!(shape_of(&same, "--pool max --grid 2").0, [2, 8, 2, 2]);
    assert_eq!(shape_of(&same, "--size 24x16").0, [2, 8, 4, 6]);
    let mixed = images_of(&folder, "mixed", &[(40, 30), (60, 50), (70, 90)]);
    let (shape, messages) = shape_of(&mixed, "");
    assert_eq!(shape, [3, 8, 12, 15]);
    assert!(messages.contains("resized to 60x48, their median size"), "{messages}");
    let large = images_of(&folder, "large", &[(600, 300)]);
    let (shape, messages) = shape_of(&large, "--pool max --grid 2");
    assert_eq!(shape, [1, 8, 2, 2]);
    assert!(messages.contains("resized to 256x128, the default for large images"), "{messages}");
}

#[test]
fn sizes_for_a_model_of_one_size_are_refused() {
    let folder = TempFolder::new("sizes-refused");
    let images = images_of(&folder, "images", &[(20, 20)]);
    let command = features(sparse(), &images, &folder.path("x.npy"));
    command.flags("--size 20").fails(2, &["--size 20x20", "takes 8x8 only", "--resize"]);
    for size in ["0", "20x", "x", "20x20x3", "99999", "-4"] {
        let command = features(convolutional(), &images, &folder.path("x.npy"));
        command.arg(format!("--size={size}")).fails(2, &["--size", "N or WxH"]);
    }
}

#[test]
fn probes_and_classifiers_take_images_of_any_size() {
    let folder = TempFolder::new("any-size-classes");
    for (set, count) in [("train", 10), ("test", 4)] {
        for (class, step) in [("fine", 1), ("coarse", 6)] {
            folder.create(&format!("{set}/{class}"));
            for i in 0..count {
                let stripes = |x: u32, y: u32| {
                    image::Luma([if ((x + y + i) / step).is_multiple_of(2) { 40 } else { 200 }])
                };
                let path = folder.path(&format!("{set}/{class}/{i}.png"));
                image::GrayImage::from_fn(36 + i, 30, stripes).save(path).unwrap();
            }
        }
    }
    let (train, test) = (folder.path("train"), folder.path("test"));
    let probe = Command::new("probe").arg(convolutional()).option("--train", &train);
    let probe = probe.option("--test", &test).out(folder.path("probe")).on_cpu();
    let rows = probe.flags("--grid 1 --classifier logistic").json();
    let error = |name: &str| {
        let row = rows.iter().find(|row| row["features"] == name).unwrap();
        row["test"]["error"].as_f64().unwrap()
    };
    assert!(error("features") < 0.2, "{}", error("features"));
    let classifier = folder.path("classifier");
    let finetune = Command::new("finetune").arg(convolutional()).arg(&train);
    let finetune = finetune.option("--test", &test).out(&classifier).on_cpu().epochs(2);
    let messages = finetune.flags("--grid 1").messages();
    assert!(messages.contains("resized to 40x28, their median size"), "{messages}");
    let model = model::load(Path::new(&classifier)).unwrap();
    assert_eq!(model.graph.nodes[0].dims, Dims::new(1, 28, 40));
    Command::resume(&classifier).flags("--epochs 3").on_cpu().succeed();
}

/// Sides that are not multiples of the stride: a resumed training has the same images, and a
/// classifier sees an image as its training did.
#[test]
fn a_classifier_of_images_of_an_odd_size_is_resumed_with_the_same_images() {
    let folder = TempFolder::new("odd-size-classes");
    for (class, shade) in [("dark", 40), ("light", 200)] {
        folder.create(&format!("train/{class}"));
        for i in 0..10 {
            let stripes = |x: u32, y: u32| image::Luma([shade + ((x * y + i) % 9) as u8]);
            let path = folder.path(&format!("train/{class}/{i}.png"));
            image::GrayImage::from_fn(41, 30, stripes).save(path).unwrap();
        }
    }
    let classifier = folder.path("classifier");
    let finetune = Command::new("finetune").arg(convolutional()).arg(folder.path("train"));
    finetune.out(&classifier).on_cpu().quiet().epochs(1).flags("--grid 1").succeed();
    // Other images than those of the checkpoint are refused.
    Command::resume(&classifier).flags("--epochs 2").on_cpu().quiet().succeed();
    let classify = Command::new("classify").arg(&classifier).arg(folder.path("train"));
    let messages = classify.flags("--resize").on_cpu().messages();
    assert!(messages.contains("0 of 20 wrong"), "{messages}");
}

/// The means of whole maps have any size: images are not resized to one that the model was trained
/// on.
#[test]
fn the_mean_of_an_image_takes_images_of_any_size() {
    let folder = TempFolder::new("features-mean");
    let (image, out) = (folder.path("in/x.png"), folder.path("x.npy"));
    folder.create("in");
    image::GrayImage::from_fn(70, 52, |x, y| image::Luma([(2 * x + y) as u8]))
        .save(&image)
        .unwrap();
    for (layer, shape) in [("code.mean", vec![1, 1, 52, 70]), ("code.pooled", vec![1, 1])] {
        let features = Command::new("features denoise").arg(&image).out(&out).on_cpu().force();
        let messages = features.option("--layer", layer).messages();
        assert!(!messages.contains("resized"), "{messages}");
        let (found, values) = read_npy(&out, "<f4");
        assert_eq!(found, shape, "{layer}");
        let mean = (2.0 * 34.5 + 25.5) / 255.0;
        assert!(values.iter().all(|value| (value - mean).abs() < 1e-5), "{layer}: {values:?}");
    }
}
