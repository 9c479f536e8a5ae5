//! `csae segment`: discs told from what is around them, on both paths alike, and what is refused.

use std::path::Path;

use csae::internals::data::annotations::label_image::{read_labels, write_labels};
use csae::internals::data::formats::decode::decode_file;
use csae::internals::report::picture::save_png;
use csae::internals::rng::Stream;
use serde_json::Value;

use super::commands::{Place, csae, fail, succeed};
use super::gpu;

const SIDE: usize = 48;

/// Images of bright discs on a dim, noisy ground, and labels that number the discs.
pub fn discs(place: &Place, name: &str, count: usize) -> String {
    let root = place.path(name);
    for part in ["images", "labels"] {
        std::fs::create_dir_all(Path::new(&root).join(part)).unwrap();
    }
    for image in 0..count {
        let mut stream = Stream::new(image as u64, name);
        let centres: Vec<[f32; 3]> = (0..3)
            .map(|_| {
                [48.0 * stream.uniform(), 48.0 * stream.uniform(), 4.0 + 5.0 * stream.uniform()]
            })
            .collect();
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for at in 0..SIDE * SIDE {
            let (y, x) = ((at / SIDE) as f32, (at % SIDE) as f32);
            let disc = centres.iter().position(|[cy, cx, r]| (y - cy).hypot(x - cx) < *r);
            pixels.push(
                (0.3 + 0.3 * f32::from(u8::from(disc.is_some())) + 0.08 * stream.normal())
                    .clamp(0.0, 1.0),
            );
            labels.push(disc.map_or(0, |disc| disc as u8 + 1));
        }
        save_png(&Path::new(&root).join(format!("images/{image}.png")), &pixels, SIDE, SIDE, 1)
            .unwrap();
        write_labels(&Path::new(&root).join(format!("labels/{image}.png")), &labels, SIDE, SIDE)
            .unwrap();
    }
    root
}

const CPU: [&str; 3] = ["--device", "cpu", "-q"];

/// A model of convolutions that has hardly learned.
pub fn model(place: &Place, root: &str) -> String {
    let run = place.path("run");
    let images = format!("{root}/images");
    succeed(
        &[
            &[
                "train",
                &images,
                "--preset",
                "pyramid",
                "--out",
                &run,
                "--steps",
                "2",
                "--batch",
                "2",
                "--set=data.crop=32",
            ],
            &CPU[..],
        ]
        .concat(),
    );
    run
}

const SHORT: [&str; 7] =
    ["--crop", "32", "--batch", "4", "--instances", "--json", "--set=train.log_every=4"];

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

fn dice(lines: &[Value]) -> f64 {
    lines.last().unwrap()["image_dice"].as_f64().unwrap_or_else(|| panic!("{lines:?}"))
}

#[test]
fn discs_are_found() {
    let place = Place::new("segment");
    let (root, test) = (discs(&place, "train", 12), discs(&place, "test", 4));
    let run = model(&place, &root);
    for (decoder, epochs) in [("deconv", 12_usize), ("unpool", 40)] {
        let out = place.path(decoder);
        let train = [
            "segment",
            "train",
            &run,
            &root,
            "-o",
            &out,
            "--epochs",
            &epochs.to_string(),
            "--decoder",
            decoder,
            "--augment",
            "all",
            "--test",
            &test,
        ];
        let told = lines(&succeed(&[&train[..], &SHORT, &CPU].concat()));
        let losses: Vec<f64> = told.iter().filter_map(|line| line["loss"].as_f64()).collect();
        let last = losses.len() - 1;
        assert!(last > 4 && losses[last] < 0.6 * losses[0], "{losses:?}");
        let eval = |root: &str| {
            lines(&succeed(
                &[&["segment", "eval", &out, root, "--instances", "--json"], &CPU[..]].concat(),
            ))
        };
        assert!(dice(&eval(&test)) > 0.75, "{decoder}: {:?}", eval(&test));
        assert_eq!(told.last().unwrap()["test"]["image_dice"], eval(&test)[0]["image_dice"]);
        // a control: labels of other images
        let other = place.path(&format!("{decoder}-other"));
        std::fs::create_dir_all(Path::new(&other).join("labels")).unwrap();
        std::fs::create_dir_all(Path::new(&other).join("images")).unwrap();
        for image in 0..4 {
            let file = |root: &str, part: &str, image: usize| {
                Path::new(root).join(format!("{part}/{image}.png"))
            };
            std::fs::copy(file(&test, "images", image), file(&other, "images", image)).unwrap();
            std::fs::copy(file(&test, "labels", (image + 1) % 4), file(&other, "labels", image))
                .unwrap();
        }
        assert!(dice(&eval(&other)) < 0.6, "{:?}", eval(&other));
    }
    // pictures, and probabilities that agree with the labels
    let (out, folder) = (place.path("deconv"), place.path("pictures"));
    succeed(
        &[
            &[
                "segment",
                "predict",
                &out,
                &format!("{test}/images"),
                "-o",
                &folder,
                "--probabilities",
            ],
            &CPU[..],
        ]
        .concat(),
    );
    let file = |name: &str| Path::new(&folder).join(name);
    let labels = read_labels(&file("0.png")).unwrap();
    assert_eq!([labels.h, labels.w], [SIDE, SIDE]);
    assert!(labels.values.contains(&1) && labels.values.iter().all(|value| *value < 2));
    assert_eq!(decode_file(&file("0.overlay.png")).unwrap().channels, 3);
    let bytes = std::fs::read(file("0.npy")).unwrap();
    let values: Vec<f32> = bytes[bytes.len() - 8 * SIDE * SIDE..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    for (pair, label) in values.chunks_exact(2).zip(&labels.values) {
        assert!(
            (pair[0] + pair[1] - 1.0).abs() < 1e-5 && u16::from(pair[1] > pair[0]) == *label,
            "{pair:?}"
        );
    }
    // other commands say what it is
    fail(
        &["classify", &out, &format!("{test}/images"), "--device", "cpu"],
        2,
        &["csae segment predict"],
    );
    fail(&["eval", &out, &format!("{test}/images"), "--device", "cpu"], 2, &["csae segment"]);
}

#[test]
fn both_paths_segment_alike() {
    let Some(_turn) = gpu::turn("both_paths_segment_alike") else { return };
    let place = Place::new("segment-paths");
    let root = discs(&place, "train", 6);
    let run = model(&place, &root);
    let name = gpu::name();
    let losses = ["cpu", &name].map(|device| {
        let out = place.path(&device.replace(' ', "-"));
        let train = [
            "segment", "train", &run, &root, "-o", &out, "--epochs", "2", "--device", device, "-q",
            "--ignore", "3",
        ];
        let told = lines(&succeed(&[&train[..], &SHORT].concat()));
        told.iter().filter_map(|line| line["loss"].as_f64()).collect::<Vec<f64>>()
    });
    assert!(losses[0].len() > 1 && losses[0].len() == losses[1].len(), "{losses:?}");
    for (cpu, gpu) in losses[0].iter().zip(&losses[1]) {
        assert!((cpu - gpu).abs() < 2e-3 * cpu, "{losses:?}");
    }
    assert!(
        (losses[0][0] - losses[1][losses[1].len() - 1]).abs() > 2e-3 * losses[0][0],
        "the comparison tells epochs apart: {losses:?}"
    );
}

#[test]
fn what_cannot_be_segmented_is_refused() {
    let place = Place::new("segment-bad");
    let root = discs(&place, "train", 4);
    let run = model(&place, &root);
    let out = place.path("out");
    let bad = |more: &[&str], words: &[&str]| {
        fail(&[&["segment", "train", &run, &root, "-o", &out], more, &CPU[..]].concat(), 2, words);
        assert!(!Path::new(&out).join("model.safetensors").exists(), "{more:?}");
    };
    bad(&["--labels", "nowhere"], &["--labels nowhere"]);
    bad(&["--classes", "a,b"], &["label 3", "--instances"]);
    bad(&["--instances", "--classes", "a,b,c"], &["two names"]);
    bad(&["--instances", "--class-weights", "1,2,3"], &["--class-weights", "2 numbers"]);
    bad(&["--instances", "--images", "5"], &["--images 5", "only 4"]);
    bad(&["--instances", "--images", "1"], &["none to learn from"]);
    bad(&["--instances", "--crop", "30"], &["--crop 30"]);
    bad(&["--instances", "--dice=-1"], &["--dice"]);
    bad(&["--instances", "--layer", "nothing"], &["nothing", "encoder.1"]);
    bad(&["--instances", "--validation", "nowhere"], &["nowhere"]);
    bad(
        &["--instances", "--max-memory", "1MiB", "--crop", "128"],
        &["the limit of 1.00 MiB", "train.batch"],
    );
    assert!(!Path::new(&out).exists());
    fail(
        &[&["segment", "train", &run, &format!("{root}/images"), "-o", &out], &CPU[..]].concat(),
        2,
        &["--labels"],
    );
    fail(&[&["segment", "eval", &run, &root], &CPU[..]].concat(), 2, &["csae segment train"]);
    fail(
        &[&["segment", "predict", &run, &root, "-o", &out], &CPU[..]].concat(),
        2,
        &["csae segment train"],
    );
    // labels of another size, in colour, or none at all: told, and not used
    let label = |image: usize| Path::new(&root).join(format!("labels/{image}.png"));
    write_labels(&label(0), &[1; 12], 3, 4).unwrap();
    save_png(&label(1), &[0.2, 0.4, 0.6].repeat(SIDE * SIDE), SIDE, SIDE, 3).unwrap();
    std::fs::remove_file(label(2)).unwrap();
    let only = [
        "segment",
        "train",
        &run,
        &root,
        "-o",
        &out,
        "--crop",
        "32",
        "--batch",
        "2",
        "--epochs",
        "1",
        "--held-out",
        "0",
        "--instances",
        "-v",
        "--device",
        "cpu",
    ];
    let output = csae(&only);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    for words in [
        "the label image has 4x3 pixels, but its image has 48x48",
        "in colour",
        "no labels for 1 image; skipped: 2.png",
        "1 with labels",
    ] {
        assert!(told.contains(words), "{words:?} is not in {told}");
    }
    fail(
        &[
            &[
                "segment",
                "train",
                &run,
                &root,
                "-o",
                &out,
                "--force",
                "--strict",
                "--instances",
                "--crop",
                "32",
            ],
            &CPU[..],
        ]
        .concat(),
        2,
        &["0.png", "4x3"],
    );
    // none left
    write_labels(&label(3), &[1; 12], 3, 4).unwrap();
    fail(
        &[
            &[
                "segment",
                "train",
                &run,
                &root,
                "-o",
                &out,
                "--force",
                "--instances",
                "--crop",
                "32",
            ],
            &CPU[..],
        ]
        .concat(),
        2,
        &["none of the 4 images"],
    );
}
