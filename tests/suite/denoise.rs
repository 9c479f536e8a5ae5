//! `csae denoise` and what trains for it: `--preset denoise`, `csae eval --protocol`.

use std::path::Path;

use crate::commands::{Place, fail, succeed};

const CAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/images/textures/brick.png");

/// A restorer of gray images, trained for a few steps on one picture.
fn restorer(place: &Place) -> String {
    let run = place.path("run");
    let small = ["--set", "model.input=[1,24,24]", "--set", "data.crop=24", "--set", "train.batch=8"];
    let short = ["--steps", "30", "--set", "schedule.warmup_steps=5", "--seed", "3"];
    let train = ["train", CAT, "--preset", "denoise", "--device", "cpu", "-q", "-o", &run];
    succeed(&[&train[..], &small, &short].concat());
    run
}

/// A noisy picture of an odd size beside its clean original.
fn noisy(place: &Place) -> (String, String) {
    let (h, w) = (61, 87);
    let clean: Vec<u8> =
        (0..h * w).map(|i| (128.0 + 90.0 * ((i % w) as f64 / 9.0).sin() * ((i / w) as f64 / 7.0).cos()) as u8).collect();
    let mut stream = csae::rng::Stream::new(1, "noise");
    let noisy = clean.iter().map(|&v| (f64::from(v) + 25.0 * f64::from(stream.normal())).clamp(0.0, 255.0) as u8).collect();
    let paths = (place.path("clean.png"), place.path("noisy.png"));
    for (path, pixels) in [(&paths.0, clean), (&paths.1, noisy)] {
        image::GrayImage::from_raw(w as u32, h as u32, pixels).unwrap().save(path).unwrap();
    }
    paths
}

#[test]
fn noise_is_taken_out_of_images_of_any_size_and_kind() {
    let place = Place::new("denoise");
    let run = restorer(&place);
    let (clean, noisy) = noisy(&place);
    let out = place.path("out");
    let args =
        ["denoise", &noisy, "-m", &run, "-o", &out, "--device", "cpu", "--json", "-q", "--compare", &clean, "--side-by-side"];
    let known: serde_json::Value = serde_json::from_str(&succeed(&[&args[..], &["--sigma", "25"]].concat())).unwrap();
    let gain = known["psnr"].as_f64().unwrap() - known["psnr_before"].as_f64().unwrap();
    assert!(gain > 3.0, "{known}");
    let estimated: serde_json::Value = serde_json::from_str(&succeed(&[&args[..], &["--force"]].concat())).unwrap();
    assert!((estimated["sigma"].as_f64().unwrap() - 25.0).abs() < 5.0, "{estimated}");
    let side = image::open(Path::new(&out).join("noisy.side.png")).unwrap();
    assert_eq!((side.width(), side.height()), (2 * 87 + 8, 61));
    // Colour with transparency, 16 bits: the same kind comes out, its alpha untouched.
    let deep =
        image::ImageBuffer::from_fn(40, 31, |x, y| image::Rgba([x as u16 * 1500, y as u16 * 2000, 30000, (x * y) as u16 * 50]));
    let path = place.path("deep.png");
    deep.save(&path).unwrap();
    succeed(&["denoise", &path, "-m", &run, "-o", &out, "--device", "cpu", "-q", "--sigma", "5"]);
    let result = image::open(Path::new(&out).join("deep.png")).unwrap();
    assert_eq!(result.color(), image::ColorType::Rgba16);
    assert!(result.into_rgba16().pixels().zip(deep.pixels()).all(|(a, b)| a[3] == b[3]));
}

#[test]
fn the_same_seed_trains_the_same_restorer() {
    let (a, b) = (Place::new("denoise-a"), Place::new("denoise-b"));
    let read = |place: &Place| std::fs::read(Path::new(&restorer(place)).join("model.safetensors")).unwrap();
    assert!(read(&a) == read(&b));
}

#[test]
fn what_cannot_be_denoised_is_refused_in_a_line() {
    let place = Place::new("denoise-bad");
    let run = restorer(&place);
    let (clean, noisy) = noisy(&place);
    let out = place.path("out");
    let with = |images: &str, more: &[&str], status, parts: &[&str]| {
        let args = ["denoise", images, "-m", &run, "-o", &out, "--device", "cpu", "-q"];
        fail(&[&args[..], more].concat(), status, parts);
        assert!(!Path::new(&out).join("noisy.png").exists());
    };
    with(&noisy, &["--sigma", "-1"], 2, &["--sigma", "0 to 255"]);
    with(&noisy, &["--sigma", "much"], 2, &["--sigma", "auto"]);
    with(&place.path("none.png"), &[], 2, &["none.png", "no such file"]);
    with(&noisy, &["--compare", &place.path("none.png")], 2, &["--compare", "not there"]);
    with(&noisy, &["--compare", CAT, "--sigma", "5"], 2, &["--compare", "the clean image has"]);
    std::fs::write(place.path("broken.png"), b"no picture").unwrap();
    with(&place.path("broken.png"), &[], 2, &["broken.png"]);
    // A model of one size.
    let other = place.path("other");
    let train = ["train", "photos", "--steps", "2", "--batch", "4", "--device", "cpu", "-q", "-o", &other];
    succeed(&train);
    fail(&["denoise", &clean, "-m", &other, "-o", &out, "--device", "cpu", "-q"], 2, &["fully connected", "--preset denoise"]);
    let protocol = ["eval", &run, "--protocol", "set12", "--device", "cpu", "-q"];
    fail(&protocol, 2, &["--data"]);
    fail(&[&protocol[..], &["--data", &out, "--max-memory", "1GiB"]].concat(), 2, &["--max-memory"]);
    let missing = place.path("missing");
    fail(&[&protocol[..], &["--data", &missing]].concat(), 2, &["missing"]);
    let sigma =
        ["train", "photos", "--preset", "denoise", "--set", "corruption.sigma=[50,10]", "--device", "cpu", "-q", "-o", &out];
    fail(&sigma, 2, &["corruption.sigma"]);
    fail(&[&sigma[..5], &["model.input=[1,25,24]", "--device", "cpu", "-q", "-o", &out]].concat(), 2, &["multiple"]);
}
