//! `csae detect`: discs and squares found and told apart, on both paths alike, and what is refused.

use std::fmt::Write as _;
use std::path::Path;

use csae::internals::data::formats::decode::decode_file;
use csae::internals::report::picture::save_png;
use csae::internals::rng::Stream;
use serde_json::{Value, json};

use super::commands::{Place, csae, fail, succeed};
use super::gpu;

const H: usize = 48;
const W: usize = 64;

fn annotation(objects: &[(&str, [usize; 4])]) -> String {
    let mut text = "<annotation>".to_owned();
    for (name, [left, top, right, bottom]) in objects {
        let _ = write!(
            text,
            "<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        );
    }
    text + "</annotation>"
}

/// Images with a bright disc and a dark square, in Pascal VOC's layout, with the lists `train` and
/// `test`, and the same for COCO.
pub fn shapes(place: &Place, count: usize) -> String {
    let root = place.path("voc");
    for part in ["JPEGImages", "Annotations", "ImageSets/Main"] {
        std::fs::create_dir_all(Path::new(&root).join(part)).unwrap();
    }
    let (mut images, mut boxes, mut lists) =
        (Vec::new(), Vec::new(), [String::new(), String::new()]);
    for image in 0..count {
        let mut stream = Stream::new(image as u64, "shapes");
        // the disc in the left half, the square in the right one, or the other way round
        let swapped = stream.below(2);
        let mut place = |half: usize| {
            [32 * half + 4 + stream.below(10), 4 + stream.below(22), 12 + stream.below(5)]
        };
        let [disc, square] = [place(swapped), place(1 - swapped)];
        let mut pixels = Vec::new();
        for at in 0..H * W {
            let (y, x) = (at / W, at % W);
            let [left, top, side] = disc;
            let r = side as f32 / 2.0;
            let round =
                (y as f32 + 0.5 - top as f32 - r).hypot(x as f32 + 0.5 - left as f32 - r) < r;
            let [left, top, side] = square;
            let inside = (left..left + side).contains(&x) && (top..top + side).contains(&y);
            let value = if round {
                0.9
            } else if inside {
                0.1
            } else {
                0.5
            };
            pixels.push((value + 0.04 * stream.normal()).clamp(0.0, 1.0));
        }
        save_png(&Path::new(&root).join(format!("JPEGImages/{image:02}.png")), &pixels, H, W, 1)
            .unwrap();
        let corners = |[left, top, side]: [usize; 3]| [left + 1, top + 1, left + side, top + side];
        let text = annotation(&[("disc", corners(disc)), ("square", corners(square))]);
        std::fs::write(Path::new(&root).join(format!("Annotations/{image:02}.xml")), text).unwrap();
        images.push(json!({"id": image + 7, "file_name": format!("{image:02}.png")}));
        for (category, [left, top, side]) in [(3, disc), (5, square)] {
            boxes.push(json!({"image_id": image + 7, "category_id": category, "bbox": [left, top, side, side], "iscrowd": 0}));
        }
        let _ = writeln!(lists[usize::from(image % 4 == 3)], "{image:02}");
    }
    for (name, list) in ["train", "test"].into_iter().zip(lists) {
        std::fs::write(Path::new(&root).join(format!("ImageSets/Main/{name}.txt")), list).unwrap();
    }
    let all = json!({"images": images, "annotations": boxes, "categories": [{"id": 3, "name": "disc"}, {"id": 5, "name": "square"}]});
    std::fs::write(place.path("coco.json"), all.to_string()).unwrap();
    root
}

const CPU: [&str; 3] = ["--device", "cpu", "-q"];
const SHORT: [&str; 8] =
    ["--size", "64", "--batch", "4", "--split", "train", "--json", "--set=train.log_every=2"];

/// A model of convolutions that has hardly learned.
pub fn model(place: &Place, root: &str) -> String {
    let run = place.path("run");
    let images = format!("{root}/JPEGImages");
    let short = ["--steps", "2", "--batch", "2", "--set=data.crop=32", "--set=data.turn=false"];
    succeed(
        &[&["train", &images, "--preset", "pyramid", "--out", &run], &short[..], &CPU].concat(),
    );
    run
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

#[test]
fn shapes_are_found() {
    let place = Place::new("detect");
    let root = shapes(&place, 24);
    let (run, out) = (model(&place, &root), place.path("out"));
    let train = [
        "detect",
        "train",
        &run,
        &root,
        "-o",
        &out,
        "--epochs",
        "40",
        "--validate-every",
        "40",
        "--test-split",
        "test",
    ];
    let told = lines(&succeed(&[&train[..], &SHORT, &CPU].concat()));
    let losses: Vec<f64> = told.iter().filter_map(|line| line["loss"].as_f64()).collect();
    assert!(losses.len() > 10 && losses[losses.len() - 1] < 0.5 * losses[0], "{losses:?}");
    let coco = place.path("coco.json");
    let eval = |more: &[&str]| {
        lines(&succeed(&[&["detect", "eval", &out, "--json"], more, &CPU[..]].concat())).remove(0)
    };
    let report = eval(&[&root, "--split", "test"]);
    assert!(report["map50"].as_f64().unwrap() > 0.7, "{report}");
    assert_eq!(report["map50"], told.last().unwrap()["test"]["map50"]);
    // both kinds of annotations say the same
    let images = format!("{root}/JPEGImages");
    let [by_voc, by_coco] = [eval(&[&root]), eval(&[&images, "--coco", &coco])];
    assert_eq!([&by_voc["map"], &by_voc["objects"]], [&by_coco["map"], &by_coco["objects"]]);
    // a control: names exchanged
    let text = std::fs::read_to_string(&coco)
        .unwrap()
        .replace("\"disc\"", "\"x\"")
        .replace("\"square\"", "\"disc\"")
        .replace("\"x\"", "\"square\"");
    let exchanged = place.path("exchanged.json");
    std::fs::write(&exchanged, text).unwrap();
    let wrong = eval(&[&images, "--coco", &exchanged]);
    assert!(wrong["map50"].as_f64().unwrap() < 0.3, "{wrong}");
    // drawn boxes, and files that are read as annotations again
    let folder = place.path("found");
    succeed(&[&["detect", "predict", &out, &images, "-o", &folder], &CPU[..]].concat());
    let picture = decode_file(&Path::new(&folder).join("03.png")).unwrap();
    assert_eq!([picture.h, picture.w, picture.channels], [H, W, 3]);
    let all: Value = serde_json::from_str(
        &std::fs::read_to_string(Path::new(&folder).join("detections.json")).unwrap(),
    )
    .unwrap();
    let of = all.as_array().unwrap().iter().filter(|one| one["image"] == "03.png").count();
    let marked =
        csae::internals::data::annotations::box_files::read_voc(&Path::new(&folder).join("03.xml"))
            .unwrap();
    assert!(of > 0 && marked.len() == of, "{all}");
    fail(&["eval", &out, &images, "--device", "cpu"], 2, &["instead of reconstructing images"]);
    fail(&["segment", "eval", &out, &images, "--device", "cpu"], 2, &["csae segment train"]);
}

#[test]
fn both_paths_detect_alike() {
    let Some(_turn) = gpu::turn("both_paths_detect_alike") else { return };
    let place = Place::new("detect-paths");
    let root = shapes(&place, 8);
    let run = model(&place, &root);
    let name = gpu::name();
    let losses = ["cpu", &name].map(|device| {
        let out = place.path(&device.replace(' ', "-"));
        let train = [
            "detect",
            "train",
            &run,
            &root,
            "-o",
            &out,
            "--epochs",
            "2",
            "--device",
            device,
            "-q",
            "--objectness",
            "bce",
        ];
        let told = lines(&succeed(&[&train[..], &SHORT].concat()));
        told.iter().filter_map(|line| line["loss"].as_f64()).collect::<Vec<f64>>()
    });
    assert!(losses[0].len() > 1 && losses[0].len() == losses[1].len(), "{losses:?}");
    for (cpu, gpu) in losses[0].iter().zip(&losses[1]) {
        assert!((cpu - gpu).abs() < 5e-3 * cpu, "{losses:?}");
    }
    assert!(
        (losses[0][0] - losses[1][losses[1].len() - 1]).abs() > 5e-3 * losses[0][0],
        "the comparison tells epochs apart: {losses:?}"
    );
}

#[test]
fn what_cannot_be_detected_is_refused_or_told() {
    let place = Place::new("detect-bad");
    let root = shapes(&place, 8);
    let (run, out) = (model(&place, &root), place.path("out"));
    let bad = |more: &[&str], words: &[&str]| {
        fail(&[&["detect", "train", &run, &root, "-o", &out], more, &CPU[..]].concat(), 2, words);
        assert!(!Path::new(&out).join("model.safetensors").exists(), "{more:?}");
    };
    bad(&["--split", "nothing"], &["split nothing", "nothing.txt"]);
    bad(&["--classes", "cat,dog"], &["cat, dog", "the annotations have disc, square"]);
    bad(&["--classes", "disc", "--strict"], &["square"]);
    bad(&["--size", "60"], &["--size 60"]);
    bad(&["--stride", "16", "--size", "64"], &["16 times smaller"]);
    bad(&["--lr", "0"], &["--lr 0"]);
    bad(&["--max-memory", "1MiB"], &["the limit of 1.00 MiB", "train.batch"]);
    bad(&["--annotations", "nowhere"], &["nowhere"]);
    bad(&["--coco", "nowhere.json"], &["nowhere.json"]);
    fail(
        &[&["detect", "train", &run, &format!("{root}/JPEGImages"), "-o", &out], &CPU[..]].concat(),
        2,
        &["--annotations", "--coco"],
    );
    fail(&[&["detect", "eval", &run, &root], &CPU[..]].concat(), 2, &["csae detect train"]);
    fail(
        &[&["detect", "predict", &run, &root, "-o", &out, "--score", "2"], &CPU[..]].concat(),
        2,
        &["--score 2"],
    );
    std::fs::write(Path::new(&root).join("ImageSets/Main/none.txt"), "").unwrap();
    bad(&["--split", "none"], &["empty"]);
    // boxes outside, of no area, and beyond an edge; a file that lacks something; an image without
    // one
    let file = |image: usize| Path::new(&root).join(format!("Annotations/{image:02}.xml"));
    std::fs::write(
        file(0),
        annotation(&[
            ("disc", [70, 1, 90, 9]),
            ("disc", [9, 9, 5, 12]),
            ("square", [50, 30, 90, 40]),
        ]),
    )
    .unwrap();
    std::fs::write(file(1), "<annotation><object><name>disc</name></object></annotation>").unwrap();
    std::fs::remove_file(file(2)).unwrap();
    let short = ["--size", "64", "--batch", "4", "--epochs", "1", "--device", "cpu", "-v"];
    let output = csae(&[&["detect", "train", &run, &root, "-o", &out], &short[..]].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    let expected = [
        "<bndbox> is missing",
        "no annotations for 1 image; skipped: 02.png",
        "clipped 1 box",
        "dropped 2 boxes",
        "has no area",
        "is outside of the 64x48 pixels",
    ];
    for words in expected {
        assert!(told.contains(words), "{words:?} is not in {told}");
    }
    fail(
        &[&["detect", "eval", &out, &root, "--strict"], &CPU[..]].concat(),
        2,
        &["01.xml", "<bndbox>"],
    );
}
