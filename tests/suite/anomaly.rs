//! `csae anomaly`: synthetic defects are found, on both paths alike, and wrong input is refused.

use std::path::Path;
use std::sync::OnceLock;

use csae::internals::data::formats::decode::decode_file;
use csae::internals::report::picture::save_png;
use csae::internals::shape::{Dims, Size};
use serde_json::Value;

use crate::support::files::{copy_folder, exists, list};
use crate::support::json::number;
use crate::support::{Command, TempFolder, bytes, gpu};

/// Textures with synthetic defects, and a detector of the normal ones.
struct Fitted {
    normal: String,
    test: String,
    detector: String,
}

/// Fitted once for all tests, which only read it.
fn fitted() -> &'static Fitted {
    static FITTED: OnceLock<Fitted> = OnceLock::new();
    FITTED.get_or_init(|| {
        let folder = TempFolder::shared();
        let painted = folder.path("anomaly/painted");
        Command::new("anomaly paint textures").out(&painted).quiet().succeed();
        let fitted = Fitted {
            normal: format!("{painted}/normal"),
            test: format!("{painted}/test"),
            detector: folder.path("anomaly/detector"),
        };
        fit(&fitted.normal, &fitted.detector).flags(OPTIONS).succeed();
        fitted
    })
}

/// A detector for other suites, and a folder of images to score.
pub fn detector() -> [&'static str; 2] {
    [&fitted().detector, &fitted().test]
}

/// Enough steps to find most painted defects.
const OPTIONS: &str = "--steps 150 --bank 1000";

fn fit(normal: &str, out: &str) -> Command {
    Command::new("anomaly fit").arg(normal).out(out).on_cpu().quiet()
}

fn eval(detector: &str, test: &str) -> Command {
    Command::new("anomaly eval").arg(detector).arg(test)
}

/// Scores images, with pictures in a folder.
fn score(images: &str, out: &str) -> Vec<Value> {
    let score = Command::new("anomaly score").arg(&fitted().detector).arg(images);
    score.out(out).on_cpu().quiet().json()
}

/// The evaluation of the shared detector on the CPU path.
fn report() -> &'static Value {
    static REPORT: OnceLock<Value> = OnceLock::new();
    let Fitted { detector, test, .. } = fitted();
    REPORT.get_or_init(|| eval(detector, test).on_cpu().quiet().json().remove(0))
}

#[test]
fn synthetic_defects_are_found() {
    // Chance is 0.5.
    assert!(number(report(), "pixel_auroc") > 0.75, "{}", report());
    assert!(number(report(), "pro") > 0.3, "{}", report());
    assert_eq!(report()["kinds"].as_array().unwrap().len(), 5, "{}", report());
}

/// The control: masks of other images do not describe the defects.
#[test]
fn masks_of_other_images_score_lower() {
    let folder = TempFolder::new("anomaly-shuffled");
    let Fitted { detector, test, .. } = fitted();
    for kind in report()["kinds"].as_array().unwrap() {
        let name = kind["name"].as_str().unwrap();
        let files = list(format!("{test}/masks/{name}"));
        let shuffled = folder.create(&format!("masks/{name}"));
        for (i, file) in files.iter().enumerate() {
            let to = Path::new(&shuffled).join(file.file_name().unwrap());
            std::fs::copy(&files[(i + 1) % files.len()], to).unwrap();
        }
    }
    let eval = eval(detector, test).option("--masks", folder.path("masks"));
    let wrong = eval.on_cpu().quiet().json().remove(0);
    let apart = number(report(), "pixel_auroc") - number(&wrong, "pixel_auroc");
    assert!(apart > 0.1, "{wrong}");
}

#[test]
fn an_image_with_a_defect_scores_higher_than_without() {
    let folder = TempFolder::new("anomaly-scores");
    let kind = |kind: &str| score(&format!("{}/{kind}", fitted().test), &folder.path(kind));
    let (good, speckle) = (kind("good"), kind("speckle"));
    // Textures differ, so each is compared with itself.
    let higher = |(good, speckle)| number(speckle, "score") > number(good, "score");
    assert_eq!(good.len(), speckle.len());
    assert!(good.iter().zip(&speckle).all(higher), "{good:?} {speckle:?}");
}

#[test]
fn scores_come_with_a_mask_and_a_picture_beside_the_image() {
    let folder = TempFolder::new("anomaly-pictures");
    for kind in ["good", "speckle"] {
        for line in score(&format!("{}/{kind}", fitted().test), &folder.path(kind)) {
            let picture = Path::new(line["picture"].as_str().unwrap());
            let mask = decode_file(&picture.with_extension("mask.png")).unwrap().dims;
            let both = decode_file(picture).unwrap();
            let Size { h, w } = both.dims.size();
            assert_eq!((w, both.dims.c), (2 * mask.w + 4, 3));
            // A title of two lines, and below it the image itself.
            let name = picture.file_name().unwrap().to_str().unwrap();
            let image = decode_file(Path::new(&format!("{}/{kind}/{name}", fitted().test)));
            let (image, top) = (image.unwrap(), h - mask.h);
            assert_eq!(top, 48);
            for (at, pixel) in image.pixels.chunks_exact(image.dims.c).enumerate() {
                let left = (top + at / mask.w) * w + at % mask.w;
                assert_eq!(both.pixels[3 * left], pixel[0], "{name}: pixel {at}");
            }
        }
    }
}

#[test]
fn heat_maps_are_written_as_values_and_as_16_bit_pictures() {
    let folder = TempFolder::new("anomaly-heat");
    let speckle = format!("{}/speckle", fitted().test);
    let name = |file: &Path| file.file_stem().unwrap().to_str().unwrap().to_owned();
    let name = name(&list(&speckle)[0]);
    let image = format!("{speckle}/{name}.png");
    for format in ["npy", "png"] {
        let score = Command::new("anomaly score").arg(&fitted().detector).arg(&image);
        let score = score.out(folder.path("out")).option("--heat", format).on_cpu().arg("--force");
        score.quiet().succeed();
    }
    let size = decode_file(Path::new(&image)).unwrap().dims.size();
    let array = bytes(folder.path(&format!("out/{name}.heat.npy")));
    let header = 10 + usize::from(u16::from_le_bytes([array[8], array[9]]));
    let text = String::from_utf8_lossy(&array[..header]).into_owned();
    assert!(text.contains(&format!("({},{},)", size.h, size.w)), "{text}");
    let values: Vec<f32> = array[header..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let picture = image::open(folder.path(&format!("out/{name}.heat.png"))).unwrap();
    let picture = picture.as_luma16().expect("16 bits, gray").as_raw().clone();
    assert_eq!([values.len(), picture.len()], [size.area(); 2]);
    // The mask is where the values exceed the threshold, an eighth of white.
    let mask = decode_file(Path::new(&folder.path(&format!("out/{name}.mask.png")))).unwrap();
    let above = |at: usize| mask.pixels[at * mask.dims.c] > 0;
    let [lowest, highest] = [
        (0..size.area()).filter(|at| above(*at)).map(|at| values[at]).fold(f32::MAX, f32::min),
        (0..size.area()).filter(|at| !above(*at)).map(|at| values[at]).fold(f32::MIN, f32::max),
    ];
    assert!(lowest > highest && lowest < f32::MAX, "{lowest} {highest}");
    let threshold = f64::from(lowest + highest) / 2.0;
    for (value, step) in values.iter().zip(picture) {
        let wanted = (f64::from(*value) / (8.0 * threshold) * 65_535.0).clamp(0.0, 65_535.0);
        assert!((wanted - f64::from(step)).abs() < 0.05 * wanted + 2.0, "{value}: {step}");
    }
}

#[test]
fn heat_maps_need_a_folder() {
    let Fitted { detector, test, .. } = fitted();
    let score = Command::new("anomaly score").arg(detector).arg(test).flags("--heat npy").on_cpu();
    score.fails(2, &["--out"]);
}

#[test]
fn a_score_does_not_depend_on_the_other_images() {
    let folder = TempFolder::new("anomaly-alone");
    let speckle = format!("{}/speckle", fitted().test);
    let all = score(&speckle, &folder.path("all"));
    let name = all[0]["image"].as_str().unwrap();
    let alone = score(&format!("{speckle}/{name}"), &folder.path("alone"));
    assert_eq!(alone[0]["score"], all[0]["score"]);
}

#[test]
fn the_same_fit_gives_the_same_bytes() {
    let folder = TempFolder::new("anomaly-again");
    let Fitted { normal, detector, .. } = fitted();
    let again = folder.path("again");
    fit(normal, &again).flags(OPTIONS).succeed();
    let bytes = |folder: &str| bytes(format!("{folder}/detector.safetensors"));
    assert!(bytes(detector) == bytes(&again));
}

#[test]
fn both_paths_find_alike() {
    let Some(_turn) = gpu::turn() else { return };
    let Fitted { detector, test, .. } = fitted();
    let other = eval(detector, test).device(&gpu::name()).quiet().json().remove(0);
    for name in ["pixel_auroc", "image_auroc", "pro"] {
        let apart = (number(report(), name) - number(&other, name)).abs();
        assert!(apart < 2e-3, "{name}: {} and {other}", report());
    }
}

#[test]
fn each_image_can_have_a_set_of_its_own() {
    let folder = TempFolder::new("anomaly-each");
    let out = folder.path("each");
    let paint = Command::new("anomaly paint textures");
    let line = paint.out(&out).arg("--each").json().remove(0);
    let sets = list(&out);
    assert_eq!(line["good"].as_u64().unwrap() as usize, sets.len());
    for set in &sets {
        assert_eq!(list(set.join("normal")).len(), 3, "{}", set.display());
        assert_eq!(list(set.join("test/good")).len(), 1, "{}", set.display());
    }
    assert_eq!(list(&fitted().normal).len(), 3 * sets.len());
}

#[test]
fn wrong_options_of_a_fit_are_refused() {
    let folder = TempFolder::new("anomaly-bad");
    let new = folder.path("new");
    let cases: &[(&str, &[&str])] = &[
        ("--bank 0", &["--bank"]),
        ("--false-alarms 1", &["--false-alarms"]),
        ("--like nothing", &["nothing"]),
    ];
    for (flags, words) in cases {
        fit(&fitted().normal, &new).flags(flags).fails(2, words);
        assert!(!exists(&new), "{flags} left something");
    }
}

/// A network cannot learn from a few small images: it is left out, and filters find the defects.
#[test]
fn few_pixels_are_learned_without_a_network() {
    let folder = TempFolder::new("anomaly-few");
    let painted = folder.path("painted");
    Command::new("anomaly paint textures").out(&painted).arg("--each").quiet().succeed();
    let set = list(&painted)[0].display().to_string();
    let [normal, test] = ["normal", "test"].map(|part| format!("{set}/{part}"));
    let fit = |out: &str| Command::new("anomaly fit").arg(&normal).out(out).on_cpu();
    let [default, chosen] = ["default", "chosen"].map(|name| folder.path(name));
    fit(&default).warns(&["no network", "262144"]);
    fit(&chosen).flags("--steps 0").quiet().succeed();
    let file = |folder: &str| bytes(format!("{folder}/detector.safetensors"));
    assert!(file(&default) == file(&chosen));
    let report = eval(&default, &test).on_cpu().quiet().json().remove(0);
    assert!(number(&report, "pixel_auroc") > 0.9, "{report}");
    assert_eq!(report["views"].as_array().unwrap().len(), 1, "{report}");
    let score = Command::new("anomaly score").arg(&default).arg(&test).on_cpu();
    score.max_memory("1MiB").quiet().fails(2, &["MiB allowed", "--max-memory"]);
    // The control: a detector with a network has all three views.
    assert_eq!(self::report()["views"].as_array().unwrap().len(), 3);
}

#[test]
fn one_normal_image_is_too_few() {
    let folder = TempFolder::new("anomaly-single");
    let single = folder.create("single");
    let first = &list(&fitted().normal)[0];
    std::fs::copy(first, format!("{single}/a.png")).unwrap();
    fit(&single, &folder.path("new")).fails(2, &["one normal image"]);
}

#[test]
fn a_detector_is_not_overwritten_without_force() {
    let Fitted { normal, detector, .. } = fitted();
    fit(normal, detector).fails(2, &["--force"]);
}

#[test]
fn a_model_without_a_detector_is_refused_with_the_command_that_fits_one() {
    let score = Command::new("anomaly score").arg("denoise").arg(&fitted().normal).on_cpu();
    score.fails(2, &["csae anomaly fit"]);
}

/// The files of the first detectors had a bank of another model's codes, and weights of views.
#[test]
fn a_detector_of_an_earlier_version_is_refused() {
    let folder = TempFolder::new("anomaly-earlier");
    let Fitted { normal, detector, .. } = fitted();
    let old = folder.path("old");
    copy_folder(detector, &old);
    let header = r#"{"__metadata__":{"csae_detector":"{\"weights\":[1,1,2]}"}}"#;
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    std::fs::write(format!("{old}/detector.safetensors"), file).unwrap();
    let score = Command::new("anomaly score").arg(&old).arg(normal).on_cpu();
    score.fails(2, &["earlier version", "csae anomaly fit"]);
}

#[test]
fn images_too_small_for_defects_are_refused() {
    let folder = TempFolder::new("anomaly-small");
    let paint = Command::new("anomaly paint digits").out(folder.path("new"));
    paint.fails(2, &["too small", "48"]);
}

#[test]
fn a_set_of_defects_is_not_overwritten() {
    let folder = TempFolder::new("anomaly-painted");
    let paint = Command::new("anomaly paint textures").out(folder.path("painted"));
    paint.clone().quiet().succeed();
    paint.fails(2, &["already"]);
}

#[test]
fn a_detector_beside_another_model_is_refused() {
    let folder = TempFolder::new("anomaly-other");
    let Fitted { normal, detector, .. } = fitted();
    let other = folder.path("other");
    fit(normal, &other).flags("--steps 1 --bank 10").succeed();
    let beside = format!("{other}/detector.safetensors");
    std::fs::copy(format!("{detector}/detector.safetensors"), &beside).unwrap();
    let score = Command::new("anomaly score").arg(&other).arg(normal).on_cpu();
    score.fails(2, &["another model", "csae anomaly fit"]);
    std::fs::write(&beside, b"nothing").unwrap();
    score.fails(2, &["not a detector"]);
}

#[test]
fn a_test_set_without_good_images_is_refused() {
    let Fitted { normal, detector, .. } = fitted();
    eval(detector, normal).on_cpu().quiet().fails(2, &["good"]);
}

#[test]
fn a_missing_folder_of_masks_is_refused() {
    let Fitted { test, detector, .. } = fitted();
    let eval = eval(detector, test).flags("--masks nowhere").on_cpu().quiet();
    eval.fails(2, &["masks nowhere: no such folder"]);
}

/// A copy of the test set in `folder`, and the mask of one of its images.
fn copied_test(folder: &TempFolder) -> (String, String) {
    let test = folder.path("test");
    copy_folder(&fitted().test, &test);
    let mask = list(format!("{test}/masks/blot"))[0].display().to_string();
    (test, mask)
}

#[test]
fn an_empty_mask_is_reported_and_an_error_with_strict() {
    let folder = TempFolder::new("anomaly-empty-mask");
    let (test, mask) = copied_test(&folder);
    let dims = Dims { c: 1, ..decode_file(Path::new(&mask)).unwrap().dims };
    save_png(Path::new(&mask), &vec![0.0; dims.len()], dims).unwrap();
    let eval = eval(&fitted().detector, &test).on_cpu().arg("-v");
    eval.warns(&["marks nothing"]);
    assert!(!eval.arg("--strict").output().succeeded());
}

#[test]
fn a_mask_of_another_size_is_reported() {
    let folder = TempFolder::new("anomaly-mask-size");
    let (test, mask) = copied_test(&folder);
    save_png(Path::new(&mask), &[1.0; 12], Dims::new(1, 4, 3)).unwrap();
    let eval = eval(&fitted().detector, &test).on_cpu().arg("-v");
    eval.warns(&["the mask has 3x4 pixels"]);
}

#[test]
fn a_missing_mask_is_reported() {
    let folder = TempFolder::new("anomaly-no-mask");
    let (test, mask) = copied_test(&folder);
    std::fs::remove_file(mask).unwrap();
    let eval = eval(&fitted().detector, &test).on_cpu().arg("-v");
    eval.warns(&["no mask for 1 image"]);
}

#[test]
fn a_test_set_whose_good_images_are_gone_is_refused() {
    let folder = TempFolder::new("anomaly-no-good");
    let (test, _) = copied_test(&folder);
    std::fs::remove_dir_all(format!("{test}/good")).unwrap();
    let output = eval(&fitted().detector, &test).on_cpu().arg("-v").output();
    assert!(output.status == Some(2) && output.stderr.contains("`good`"), "{output:?}");
}

#[test]
fn the_folder_of_normal_images_can_have_another_name() {
    let folder = TempFolder::new("anomaly-normal");
    let (test, _) = copied_test(&folder);
    let eval = |test: &str| eval(&fitted().detector, test).on_cpu().quiet();
    let expected = eval(&test).report();
    let rename = |from: &str, to: &str| {
        std::fs::rename(format!("{test}/{from}"), format!("{test}/{to}")).unwrap();
    };
    rename("good", "ok");
    assert_eq!(eval(&test).report(), expected);
    rename("ok", "Gutteile");
    eval(&test).fails(2, &["its folders: Gutteile", "name it with --normal"]);
    assert_eq!(eval(&test).option("--normal", "Gutteile").report(), expected);
    eval(&test).option("--normal", "nowhere").fails(2, &["no folder `nowhere`"]);
}
