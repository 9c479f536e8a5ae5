//! `csae denoise`, `csae inpaint`, `csae upscale`, and what trains and judges them: `--task`, `csae
//! eval --protocol`.

use std::path::Path;

use serde_json::Value;

use crate::commands::{Place, fail, succeed};

const BRICK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/images/textures/brick.png");
/// A photograph that no bundled model has seen.
const CAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/images/photos/chelsea.png");

/// A restorer of gray images, trained for a few steps on one picture.
fn trained(place: &Place, task: &str) -> String {
    let run = place.path(task);
    let small =
        ["--set", "model.input=[1,24,24]", "--set", "data.crop=24", "--set", "train.batch=8"];
    let short = ["--steps", "30", "--set", "schedule.warmup_steps=5", "--seed", "3"];
    let train = ["train", BRICK, "--task", task, "--device", "cpu", "-q", "-o", &run];
    succeed(&[&train[..], &small, &short].concat());
    run
}

fn restorer(place: &Place) -> String {
    trained(place, "denoise")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A noisy picture of an odd size beside its clean original.
fn noisy(place: &Place) -> (String, String) {
    let (h, w) = (61, 87);
    let clean: Vec<u8> = (0..h * w)
        .map(|i| (128.0 + 90.0 * ((i % w) as f64 / 9.0).sin() * ((i / w) as f64 / 7.0).cos()) as u8)
        .collect();
    let mut stream = csae::internals::rng::Stream::new(1, "noise");
    let noisy = clean
        .iter()
        .map(|&v| (f64::from(v) + 25.0 * f64::from(stream.normal())).clamp(0.0, 255.0) as u8)
        .collect();
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
    let args = [
        "denoise",
        &noisy,
        "-m",
        &run,
        "-o",
        &out,
        "--device",
        "cpu",
        "--json",
        "-q",
        "--compare",
        &clean,
        "--side-by-side",
    ];
    let known = json(&succeed(&[&args[..], &["--sigma", "25"]].concat()));
    let gain = known["psnr"].as_f64().unwrap() - known["psnr_before"].as_f64().unwrap();
    assert!(gain > 3.0, "{known}");
    let estimated = json(&succeed(&[&args[..], &["--force"]].concat()));
    assert!((estimated["sigma"].as_f64().unwrap() - 25.0).abs() < 5.0, "{estimated}");
    let side = image::open(Path::new(&out).join("noisy.side.png")).unwrap();
    assert_eq!((side.width(), side.height()), (2 * 87 + 8, 61));
    // Colour with transparency, 16 bits: the same kind comes out, its alpha untouched.
    let deep = image::ImageBuffer::from_fn(40, 31, |x, y| {
        image::Rgba([x as u16 * 1500, y as u16 * 2000, 30000, (x * y) as u16 * 50])
    });
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
    let read = |place: &Place| {
        std::fs::read(Path::new(&restorer(place)).join("model.safetensors")).unwrap()
    };
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
    with(&noisy, &["--compare", &place.path("none.png")], 2, &["--compare", "does not exist"]);
    with(&noisy, &["--compare", BRICK, "--sigma", "5"], 2, &["--compare", "the clean image has"]);
    std::fs::write(place.path("broken.png"), b"no picture").unwrap();
    with(&place.path("broken.png"), &[], 2, &["broken.png"]);
    // A model of one size.
    let other = place.path("other");
    let train =
        ["train", "photos", "--steps", "2", "--batch", "4", "--device", "cpu", "-q", "-o", &other];
    succeed(&train);
    fail(
        &["denoise", &clean, "-m", &other, "-o", &out, "--device", "cpu", "-q"],
        2,
        &["not trained for restoration", "--task denoise"],
    );
    // The result would be the image itself.
    let own = Path::new(&noisy).parent().unwrap().to_str().unwrap();
    fail(
        &["denoise", &noisy, "-m", &run, "-o", own, "--device", "cpu", "-q", "--force"],
        2,
        &["would overwrite the image", "-o"],
    );
    with(&place.path("*.tiff"), &[], 2, &["no file matches"]);
    with(&noisy, &["-m", &place.path("none.safetensors")], 2, &["cannot be used multiple times"]);
    let protocol = ["eval", &run, "--protocol", "set12", "--device", "cpu", "-q"];
    fail(&protocol, 2, &["--data"]);
    fail(
        &[&protocol[..], &["--data", &out, "--max-memory", "1GiB"]].concat(),
        2,
        &["--max-memory"],
    );
    let missing = place.path("missing");
    fail(&[&protocol[..], &["--data", &missing]].concat(), 2, &["missing"]);
    let sigma = [
        "train",
        "photos",
        "--preset",
        "denoise",
        "--set",
        "corruption.sigma=[50,10]",
        "--device",
        "cpu",
        "-q",
        "-o",
        &out,
    ];
    fail(&sigma, 2, &["corruption.sigma"]);
    fail(
        &[&sigma[..5], &["model.input=[1,25,24]", "--device", "cpu", "-q", "-o", &out]].concat(),
        2,
        &["layer code", "divide", "1x25x24"],
    );
}

/// A mask of every third pixel of every second row, and how many that are.
fn mask(place: &Place, name: &str, h: u32, w: u32) -> (String, usize) {
    let path = place.path(name);
    let missing = |x: u32, y: u32| y.is_multiple_of(2) && x.is_multiple_of(3);
    image::GrayImage::from_fn(w, h, |x, y| image::Luma([if missing(x, y) { 255 } else { 0 }]))
        .save(&path)
        .unwrap();
    let count =
        (0..h).flat_map(|y| (0..w).map(move |x| (x, y))).filter(|(x, y)| missing(*x, *y)).count();
    (path, count)
}

#[test]
fn missing_pixels_are_filled_and_others_stay() {
    let place = Place::new("inpaint");
    let run = trained(&place, "inpaint");
    let (clean, _) = noisy(&place);
    let (mask, count) = mask(&place, "mask.png", 61, 87);
    // The picture with its holes black.
    let picture = image::open(&clean).unwrap().into_luma8();
    let marks = image::open(&mask).unwrap().into_luma8();
    let mut holes = picture.clone();
    holes
        .pixels_mut()
        .zip(marks.pixels())
        .filter(|(_, mark)| mark[0] > 0)
        .for_each(|(pixel, _)| pixel[0] = 0);
    let path = place.path("holes.png");
    holes.save(&path).unwrap();
    let out = place.path("out");
    let args = [
        "inpaint",
        &path,
        "-m",
        &run,
        "-o",
        &out,
        "--device",
        "cpu",
        "-q",
        "--json",
        "--compare",
        &clean,
    ];
    let found = json(&succeed(&[&args[..], &["--mask", &mask]].concat()));
    assert!(
        (found["missing"].as_f64().unwrap() - count as f64 / (61.0 * 87.0)).abs() < 1e-9,
        "{found}"
    );
    assert!(
        found["psnr"].as_f64().unwrap() > found["psnr_before"].as_f64().unwrap() + 15.0,
        "{found}"
    );
    let result = image::open(Path::new(&out).join("holes.png")).unwrap().into_luma8();
    let kept =
        result.pixels().zip(picture.pixels()).zip(marks.pixels()).filter(|(_, mark)| mark[0] == 0);
    assert!(kept.clone().count() > 0 && kept.into_iter().all(|((a, b), _)| a == b));
    // A colour that marks what is missing; masks from a folder, by the image's stem.
    let marked = image::RgbImage::from_fn(40, 30, |x, y| {
        image::Rgb(if (x + y) % 5 == 0 { [255, 0, 255] } else { [90, x as u8, y as u8] })
    });
    let colored = place.path("marked.png");
    marked.save(&colored).unwrap();
    let args = ["inpaint", &colored, "-m", &run, "-o", &out, "--device", "cpu", "-q", "--json"];
    let found = json(&succeed(&[&args[..], &["--mask-color", "magenta"]].concat()));
    assert!((found["missing"].as_f64().unwrap() - 0.2).abs() < 1e-9, "{found}");
    let result = image::open(Path::new(&out).join("marked.png")).unwrap().into_rgb8();
    assert!(result.pixels().all(|pixel| *pixel != image::Rgb([255, 0, 255])));
    let masks = place.path("masks");
    std::fs::create_dir(&masks).unwrap();
    std::fs::copy(self::mask(&place, "other.png", 30, 40).0, Path::new(&masks).join("marked.png"))
        .unwrap();
    succeed(&[&args[..], &["--mask", &masks, "--force"]].concat());
    // What makes no sense.
    let bad =
        |more: &[&str], parts: &[&str]| fail(&[&args[..], &["--force"], more].concat(), 2, parts);
    bad(&["--mask", &mask], &["87x61", "40x30", "of the image's size"]);
    bad(&["--mask", &place.path("none.png")], &["--mask", "none.png"]);
    bad(&["--mask-color", "reddish"], &["--mask-color", "#ff00ff"]);
    bad(&[], &["--mask FILE", "--mask-color C"]);
    // JPEG keeps no colour exactly.
    let lossy = place.path("marked.jpg");
    marked.save(&lossy).unwrap();
    let output = crate::commands::csae(&[
        "inpaint",
        &lossy,
        "-m",
        &run,
        "-o",
        &out,
        "--device",
        "cpu",
        "--mask-color",
        "magenta",
    ]);
    assert!(
        output.status.success()
            && String::from_utf8_lossy(&output.stderr).contains("JPEG changes colours"),
        "{output:?}"
    );
    let white = place.path("white.png");
    image::GrayImage::from_pixel(40, 30, image::Luma([255])).save(&white).unwrap();
    bad(&["--mask", &white], &["every pixel is missing"]);
    fail(
        &[
            "inpaint",
            &clean,
            "-m",
            &run,
            "-o",
            &out,
            "--device",
            "cpu",
            "-q",
            "--mask-color",
            "red",
        ],
        2,
        &["gray image"],
    );
    let empty = place.path("empty");
    std::fs::create_dir(&empty).unwrap();
    bad(&["--mask", &empty], &["neither", "marked.png", "exists"]);
    // A model for another task.
    fail(
        &["denoise", &clean, "-m", &run, "-o", &out, "--device", "cpu", "-q"],
        2,
        &["trained to inpaint, not to denoise"],
    );
    fail(
        &["upscale", &clean, "-m", &run, "-o", &out, "--device", "cpu", "-q"],
        2,
        &["trained to inpaint, not to upscale"],
    );
}

#[test]
fn images_are_enlarged_with_their_colours_and_transparency() {
    let place = Place::new("upscale");
    let run = trained(&place, "upscale");
    let out = place.path("out");
    let picture = image::RgbaImage::from_fn(31, 23, |x, y| {
        image::Rgba([x as u8 * 8, y as u8 * 11, 120, if x < 15 { 255 } else { 0 }])
    });
    let path = place.path("small.png");
    picture.save(&path).unwrap();
    let args = ["upscale", &path, "-m", &run, "-o", &out, "--device", "cpu", "-q", "--json"];
    let found = json(&succeed(&[&args[..], &["--scale", "3", "--side-by-side"]].concat()));
    assert_eq!(
        (&found["width"], &found["height"], &found["scale"]),
        (&93.into(), &69.into(), &3.into()),
        "{found}"
    );
    let result = image::open(Path::new(&out).join("small.png")).unwrap().into_rgba8();
    let (first, last) = (result.get_pixel(6, 34), result.get_pixel(80, 34));
    assert_eq!((first[3], last[3]), (255, 0));
    // About the colours that were there.
    let near = |a: u8, b: u8| a.abs_diff(b) < 12;
    assert!(near(first[0], 16) && near(first[1], 121) && near(first[2], 120), "{first:?}");
    let side = image::open(Path::new(&out).join("small.side.png")).unwrap();
    assert_eq!((side.width(), side.height()), (2 * 93 + 8, 69));
    // The default is 2. A gray image, deep.
    let deep = image::ImageBuffer::from_fn(9, 1, |x, _| image::Luma([x as u16 * 7000]));
    let path = place.path("deep.png");
    deep.save(&path).unwrap();
    succeed(&["upscale", &path, "-m", &run, "-o", &out, "--device", "cpu", "-q"]);
    let result = image::open(Path::new(&out).join("deep.png")).unwrap();
    assert_eq!((result.color(), result.width(), result.height()), (image::ColorType::L16, 18, 2));
    fail(
        &[&args[..], &["--scale", "5", "--force"]].concat(),
        2,
        &["--scale 5", "trained for 2, 3, 4"],
    );
    fail(&[&args[..], &["--scale", "1"]].concat(), 2, &["--scale"]);
}

#[test]
fn protocols_judge_every_task() {
    let place = Place::new("protocols");
    let run = trained(&place, "upscale");
    let folder = place.path("five");
    std::fs::create_dir(&folder).unwrap();
    for i in 0..5_u32 {
        let gray = image::GrayImage::from_fn(40 + i, 37, |x, y| {
            image::Luma([(x * x / 4 + y * (i + 9)) as u8])
        });
        gray.save(Path::new(&folder).join(format!("{i}.png"))).unwrap();
    }
    let args = ["eval", &run, "--protocol", "set5", "--data", &folder, "--device", "cpu", "-q"];
    let report = json(&succeed(&[&args[..], &["--json"]].concat()));
    let outcomes = report["outcomes"].as_array().unwrap();
    assert_eq!(outcomes.len(), 3);
    assert!(
        outcomes.iter().all(|o| o["psnr_before"].as_f64().unwrap() > 15.0
            && o["images"].as_array().unwrap().len() == 5)
    );
    let text = succeed(&args);
    assert!(
        text.contains("mean by bicubic") && text.contains("SRCNN") && text.contains("set5 x4"),
        "{text}"
    );
    fail(
        &["eval", &run, "--protocol", "bsd68", "--data", &folder, "--device", "cpu", "-q"],
        2,
        &["trained to upscale, not to denoise"],
    );
    fail(
        &["eval", &run, "--protocol", "set14", "--data", &folder, "--device", "cpu", "-q"],
        2,
        &["set14", "5 images", "instead of 14"],
    );
    let two = place.path("two");
    let train = [
        "train",
        BRICK,
        "--task",
        "upscale",
        "--device",
        "cpu",
        "-q",
        "--steps",
        "2",
        "--set",
        "model.input=[1,24,24]",
    ];
    succeed(&[&train[..], &["--set", "corruption.scales=[2]", "-o", &two]].concat());
    let only = json(&succeed(&[
        "eval",
        &two,
        "--protocol",
        "set5",
        "--data",
        &folder,
        "--device",
        "cpu",
        "-q",
        "--json",
    ]));
    assert_eq!(only["outcomes"].as_array().unwrap().len(), 1);
}

#[test]
fn a_task_that_makes_no_sense_is_refused() {
    let place = Place::new("tasks");
    let out = place.path("run");
    let with = |more: &[&str], parts: &[&str]| {
        fail(
            &[&["train", BRICK, "--device", "cpu", "-q", "--steps", "2", "-o", &out], more]
                .concat(),
            2,
            parts,
        );
    };
    with(&["--task", "sharpen"], &["sharpen", "denoise, inpaint, upscale"]);
    with(&["--task", "inpaint", "--preset", "denoise"], &["--task inpaint", "denoise"]);
    with(
        &["--task", "inpaint", "--set", "corruption.sigma=[0,5]"],
        &["one of sigma, missing and scales"],
    );
    with(
        &["--task", "inpaint", "--set", "corruption.masks=[]"],
        &["corruption", "missing and masks"],
    );
    with(
        &["--task", "inpaint", "--set", "corruption.masks=[\"dots\"]"],
        &["corruption.masks", "dots"],
    );
    with(
        &["--task", "inpaint", "--set", "corruption.missing=[0.5,1.0]"],
        &["corruption.missing", "below 1"],
    );
    with(
        &["--task", "upscale", "--set", "corruption.scales=[9]"],
        &["corruption.scales", "2 to 8"],
    );
    with(&["--task", "upscale", "--set", "data.crop=50"], &["50x50", "data.crop"]);
    with(&["--task", "denoise", "--set", "model.input=[1,24,28]"], &["data.turn", "28x24"]);
    // An autoencoder of one size learns to restore as well, judged on patches.
    let train = [
        "train", "photos", "--task", "denoise", "--preset", "article", "--steps", "3", "--batch",
        "4", "--device", "cpu", "-q",
    ];
    let ended =
        json(succeed(&[&train[..], &["--json", "-o", &out]].concat()).lines().last().unwrap());
    assert!(ended["whole"].is_null() && ended["psnr"].as_f64().is_some(), "{ended}");
    fail(&["denoise", CAT, "-m", &out, "--device", "cpu", "-q"], 2, &["fully connected"]);
}

/// A training may begin with another one's parameters.
#[test]
fn a_training_begins_with_a_model() {
    let place = Place::new("from");
    let first = trained(&place, "denoise");
    let small = [
        "--set",
        "model.input=[1,24,24]",
        "--set",
        "data.crop=24",
        "--set",
        "train.batch=8",
        "--steps",
        "1",
        "--device",
        "cpu",
    ];
    let loss = |out: &str, more: &[&str]| {
        let out = place.path(out);
        succeed(
            &[&["train", BRICK, "--task", "denoise", "-q", "-o", &out], &small[..], more].concat(),
        );
        let log = std::fs::read_to_string(Path::new(&out).join("metrics.jsonl")).unwrap();
        log.lines().map(json).find(|line| line["kind"] == "train").unwrap()["reconstruction"]
            .as_f64()
            .unwrap()
    };
    let (drawn, taken) = (loss("drawn", &[]), loss("taken", &["--from", &first]));
    assert!(taken < 0.7 * drawn, "{drawn} {taken}");
    // More iterations: those that are new are drawn.
    loss("longer", &["--from", &first, "--set", "model.layers.code.iterations=9"]);
    let with = |from: &str, parts: &[&str]| {
        let out = place.path("none");
        fail(
            &[&["train", BRICK, "--preset", "plain", "-q", "-o", &out, "--from", from], &small[..]]
                .concat(),
            2,
            parts,
        );
    };
    with(&first, &["train.from", "none of its parameters"]);
    with(&place.path("nothing"), &["train.from", "nothing"]);
}

/// Half the rate, again and again, until the numbers stay numbers.
#[test]
fn a_diverging_training_goes_back_if_it_may() {
    let place = Place::new("retries");
    let set = [
        "model.input=[1,24,24]",
        "optimizer.lr=1e4",
        "optimizer.clip_norm=0",
        "schedule.warmup_steps=1",
        "train.checkpoint_every=0",
    ];
    let set: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
    let args = [
        &[
            "train", BRICK, "--task", "denoise", "--device", "cpu", "-q", "--steps", "6",
            "--batch", "4",
        ],
        &set[..],
    ]
    .concat();
    let out = place.path("stops");
    fail(
        &[&args[..], &["--set", "train.retries=1", "-o", &out]].concat(),
        1,
        &["became", "halved 1 times"],
    );
    let out = place.path("goes-on");
    succeed(&[&args[..], &["--set", "train.retries=60", "-o", &out]].concat());
    let log = std::fs::read_to_string(Path::new(&out).join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = log.lines().map(json).collect();
    assert!(lines.iter().filter(|line| line["kind"] == "retry").count() > 1, "{log}");
    assert_eq!(
        lines.iter().filter(|line| line["kind"] == "train" && line["step"] == 6).count(),
        1,
        "{log}"
    );
}

/// What works on a fresh machine, without any training.
#[test]
fn bundled_models_restore_a_photograph_that_they_have_not_seen() {
    let place = Place::new("bundled");
    let (w, h) = (160, 120);
    let cat = image::open(CAT).unwrap().crop_imm(100, 60, w, h).into_rgb8();
    let clean = place.path("clean.png");
    cat.save(&clean).unwrap();
    let run = |command: &str, name: &str, picture: image::RgbImage, more: &[&str]| {
        let path = place.path(name);
        picture.save(&path).unwrap();
        let out = place.path("out");
        let args =
            [command, &path, "-o", &out, "--device", "cpu", "-q", "--json", "--compare", &clean];
        let found = json(&succeed(&[&args[..], more].concat()));
        let of = |key: &str| found[key].as_f64().unwrap();
        (of("psnr") - of("psnr_before"), of("psnr"))
    };
    let mut stream = csae::internals::rng::Stream::new(2, "noise");
    let mut noisy = cat.clone();
    noisy.iter_mut().for_each(|v| {
        *v = (f64::from(*v) + 25.0 * f64::from(stream.normal())).round().clamp(0.0, 255.0) as u8
    });
    let (gain, psnr) = run("denoise", "noisy.png", noisy, &[]);
    assert!(gain > 7.0 && psnr > 27.0, "denoise {gain} {psnr}");
    let mut holes = cat.clone();
    holes
        .pixels_mut()
        .filter(|_| stream.below(2) == 0)
        .for_each(|pixel| *pixel = image::Rgb([0, 255, 0]));
    let (_, psnr) = run("inpaint", "holes.png", holes, &["--mask-color", "green"]);
    assert!(psnr > 30.0, "inpaint {psnr}");
    let reals: Vec<f32> = cat.iter().map(|v| f32::from(*v) / 255.0).collect();
    let (small, sh, sw) =
        csae::internals::raster::resample::imresize(&reals, (h as usize, w as usize), 3, 0.5)
            .unwrap();
    let bytes = small.iter().map(|v| (v * 255.0).round().clamp(0.0, 255.0) as u8).collect();
    let (gain, psnr) = run(
        "upscale",
        "small.png",
        image::RgbImage::from_raw(sw as u32, sh as u32, bytes).unwrap(),
        &["--scale", "2"],
    );
    assert!(gain > 0.3, "upscale {gain} {psnr}");
    // By name, wherever a model is wanted.
    let said = succeed(&["inspect", "denoise", "--device", "cpu", "-o", &place.path("inspected")]);
    assert!(said.contains("code.7.analysis"), "the bundled model's layers: {said}");
}
