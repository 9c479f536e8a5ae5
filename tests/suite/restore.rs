//! `csae denoise`, `csae inpaint` and `csae upscale`, their training (`--task`) and their
//! evaluation (`csae eval --protocol`).

use std::path::Path;
use std::sync::OnceLock;

use csae::internals::raster::resample::imresize;
use csae::internals::rng::Stream;
use csae::internals::shape::Dims;
use csae::{Compression, Image, Model};
use image::{ColorType, DynamicImage, GrayImage, ImageBuffer, Luma, Rgb, RgbImage, Rgba};
use serde_json::Value;

use crate::support::files::metrics;
use crate::support::images::{BRICK, CAT};
use crate::support::json::number;
use crate::support::{Command, TempFolder, is_file, json, model_bytes};

/// Trains a restorer of gray images for a few steps on one picture.
fn train(task: &str, run: &str) -> Command {
    // The artefacts of JPEG are weaker than the other corruptions.
    let steps = if task == "dejpeg" { 250 } else { 30 };
    Command::train(BRICK)
        .option("--task", task)
        .out(run)
        .steps(steps)
        .set("model.input=[1,24,24]")
        .set("data.crop=24")
        .set("train.batch=8")
        .set("schedule.warmup_steps=5")
        .flags("--seed 3")
        .on_cpu()
        .quiet()
}

/// A restorer that no test changes.
fn restorer(task: &str) -> &'static str {
    static RUNS: [OnceLock<String>; 4] = [const { OnceLock::new() }; 4];
    let tasks = ["denoise", "inpaint", "upscale", "dejpeg"];
    let index = tasks.iter().position(|known| *known == task).unwrap();
    RUNS[index].get_or_init(|| {
        let run = TempFolder::shared().path(&format!("restore-{task}"));
        train(task, &run).succeed();
        run
    })
}

/// Restores an image with the small model of a command's own task.
fn restore(command: &str, image: &str, out: &str) -> Command {
    restore_with(command, image, out, restorer(command))
}

fn restore_with(command: &str, image: &str, out: &str, model: &str) -> Command {
    Command::new(command).arg(image).option("-m", model).out(out).on_cpu().quiet()
}

fn open(path: impl AsRef<Path>) -> DynamicImage {
    image::open(path).unwrap()
}

/// Height and width of the small images.
const SIZE: [usize; 2] = [61, 87];

/// A gray picture of an odd size.
fn clean(folder: &TempFolder) -> String {
    let [_, w] = SIZE;
    let wave = |x: usize, y: usize| 90.0 * (x as f64 / 9.0).sin() * (y as f64 / 7.0).cos();
    let pixel = |i: usize| (128.0 + wave(i % w, i / w)) as u8;
    save(folder, "clean.png", (0..SIZE[0] * w).map(pixel).collect())
}

/// The clean picture with noise of σ = 25.
fn noisy(folder: &TempFolder) -> String {
    let clean = open(clean(folder)).into_luma8();
    let mut stream = Stream::new(1, "noise");
    let mut noise = || 25.0 * f64::from(stream.normal());
    let pixels = clean.iter().map(|&v| (f64::from(v) + noise()).clamp(0.0, 255.0) as u8);
    save(folder, "noisy.png", pixels.collect())
}

fn save(folder: &TempFolder, name: &str, pixels: Vec<u8>) -> String {
    let path = folder.path(name);
    let [h, w] = SIZE.map(|size| size as u32);
    GrayImage::from_raw(w, h, pixels).unwrap().save(&path).unwrap();
    path
}

#[test]
fn noise_of_a_known_level_is_removed() {
    let folder = TempFolder::new("denoise");
    let (noisy, out) = (noisy(&folder), folder.path("out"));
    let denoise = restore("denoise", &noisy, &out).option("--compare", folder.path("clean.png"));
    let report = denoise.flags("--sigma 25 --side-by-side").report();
    let gain = number(&report, "psnr") - number(&report, "psnr_before");
    assert!(gain > 3.0, "{report}");
    let side = open(format!("{out}/noisy.side.png"));
    // The title has a line of 20 pixels and a margin of 8.
    assert_eq!((side.width(), side.height()), (2 * 87 + 8, 28 + 61));
    let given = open(folder.path("noisy.png")).into_luma8();
    let left = side.crop_imm(0, 28, 87, 61).into_luma8();
    assert_eq!(left.into_raw(), given.into_raw());
}

#[test]
fn the_level_of_noise_is_estimated() {
    let folder = TempFolder::new("denoise-level");
    let denoise = restore("denoise", &noisy(&folder), &folder.path("out"));
    let report = denoise.option("--compare", folder.path("clean.png")).report();
    assert!((number(&report, "sigma") - 25.0).abs() < 5.0, "{report}");
}

/// Without noise nothing is to be removed. A JPEG file stays as it is, since compressing it again
/// would change it.
#[test]
fn an_image_without_noise_is_unchanged() {
    let folder = TempFolder::new("denoise-clean");
    let (png, jpg, out) = (folder.path("a.png"), folder.path("b.jpg"), folder.path("out"));
    let part = photograph();
    part.save(&png).unwrap();
    part.save(&jpg).unwrap();
    for (name, path) in [("a.png", png), ("b.jpg", jpg.clone())] {
        let command = Command::new("denoise").arg(&path).out(&out).on_cpu();
        assert!(command.flags("--sigma 0.5").succeed().contains("unchanged"), "{name}");
    }
    assert_eq!(open(format!("{out}/a.png")).into_rgb8(), part);
    assert!(std::fs::read(format!("{out}/b.jpg")).unwrap() == std::fs::read(&jpg).unwrap());
}

#[test]
fn the_quality_of_jpeg_results_can_be_chosen() {
    let folder = TempFolder::new("denoise-quality");
    let (png, jpg) = (folder.path("in/a.png"), folder.path("in/b.jpg"));
    folder.create("in");
    for path in [&png, &jpg] {
        photograph().save(path).unwrap();
    }
    let length = |image: &str, flags: &str| {
        let out = folder.path("out");
        Command::new("denoise --sigma 0.5")
            .arg(image)
            .out(&out)
            .flags(flags)
            .force()
            .on_cpu()
            .succeed();
        std::fs::metadata(format!("{out}/b.jpg")).unwrap().len()
    };
    let [low, high] = [20, 99].map(|quality| length(&jpg, &format!("--quality {quality}")));
    assert!(2 * low < high, "{low} {high}");
    // An image without noise is only copied if no quality is asked for.
    assert_eq!(length(&jpg, ""), std::fs::metadata(&jpg).unwrap().len());
    let denoise = |image: &str, flags: &str| {
        Command::new("denoise").arg(image).out(folder.path("out")).flags(flags).force().on_cpu()
    };
    denoise(&png, "--quality 90").fails(2, &["--quality", "a.png is a PNG", "-o"]);
    denoise(&folder.path("in"), "--quality 90").warns(&["no effect on 1 result in PNG"]);
    denoise(&jpg, "--quality 0").fails(2, &["--quality"]);
    denoise(&jpg, "--quality 101").fails(2, &["--quality"]);
}

/// A dark disc on transparent pixels that hide another colour: none of it gets into the disc.
#[test]
fn the_colour_of_transparent_pixels_stays_hidden() {
    let folder = TempFolder::new("restore-alpha");
    let (sprite, mask) = (folder.path("sprite.png"), folder.path("mask.png"));
    let inside = |x: u32, y: u32| (x as i32 - 24).pow(2) + (y as i32 - 20).pow(2) <= 150;
    let (dark, hidden) = (Rgba([40_u8, 60, 50, 255]), Rgba([255, 0, 255, 0]));
    let pixel = |x, y| if inside(x, y) { dark } else { hidden };
    ImageBuffer::from_fn(48, 40, pixel).save(&sprite).unwrap();
    let edge = |x, y| Luma([if inside(x, y) && !inside(x + 4, y) { 255_u8 } else { 0 }]);
    ImageBuffer::from_fn(48, 40, edge).save(&mask).unwrap();
    for (command, flags) in [
        ("denoise", "--sigma 25".to_owned()),
        ("upscale", "--scale 2".to_owned()),
        ("inpaint", format!("--mask {mask}")),
    ] {
        let out = folder.path(command);
        Command::new(command).arg(&sprite).out(&out).on_cpu().flags(&flags).succeed();
        let result = open(format!("{out}/sprite.png")).into_rgba8();
        let visible = result.pixels().filter(|pixel| pixel[3] > 0);
        let far =
            |pixel: &&Rgba<u8>| (0..3).any(|channel| pixel[channel].abs_diff(dark[channel]) > 12);
        assert_eq!(visible.filter(far).count(), 0, "{command}");
    }
}

#[test]
fn results_are_not_restored_by_a_second_call() {
    let folder = TempFolder::new("restore-again");
    let (images, out) = (folder.path("images"), folder.path("images/denoised"));
    std::fs::create_dir(&images).unwrap();
    photograph().save(format!("{images}/a.png")).unwrap();
    let call = |source: &str| {
        let command = Command::new("denoise").arg(source).out(&out).on_cpu();
        command.flags("--sigma 25 --force")
    };
    call(&images).succeed();
    let first = std::fs::read(format!("{out}/a.png")).unwrap();
    call(&images).warns(&["1 of 2 files are left out"]);
    assert!(std::fs::read(format!("{out}/a.png")).unwrap() == first);
    assert!(!Path::new(&format!("{out}/denoised")).exists());
    // A folder of results that is named is an image folder like any other.
    call(&out).fails(2, &["overwrite"]);
}

/// A model alone errs by more than weak noise.
#[test]
fn weak_noise_is_not_replaced_by_the_error_of_the_model() {
    for sigma in [1.5, 2.0, 3.0] {
        let mut stream = Stream::new(4, "noise");
        let mut noisy = photograph();
        noisy.iter_mut().for_each(|v| {
            let value = f64::from(*v) + sigma * f64::from(stream.normal());
            *v = value.round().clamp(0.0, 255.0) as u8;
        });
        let (gain, _) = by_bundled("denoise", &noisy, &format!("--sigma {sigma}"));
        assert!(gain > -0.05, "sigma {sigma}: {gain}");
    }
}

#[test]
fn denoising_keeps_colour_depth_and_transparency() {
    let folder = TempFolder::new("denoise-deep");
    let (path, out) = (folder.path("deep.png"), folder.path("out"));
    let deep = ImageBuffer::from_fn(40, 31, |x, y| {
        Rgba([x as u16 * 1500, y as u16 * 2000, 30000, (x * y) as u16 * 50])
    });
    deep.save(&path).unwrap();
    restore("denoise", &path, &out).flags("--sigma 5").succeed();
    let result = open(format!("{out}/deep.png"));
    assert_eq!(result.color(), ColorType::Rgba16);
    assert!(result.into_rgba16().pixels().zip(deep.pixels()).all(|(a, b)| a[3] == b[3]));
}

#[test]
fn the_same_seed_trains_the_same_restorer() {
    let folder = TempFolder::new("denoise-again");
    let again = folder.path("again");
    train("denoise", &again).succeed();
    assert!(model_bytes(restorer("denoise")) == model_bytes(&again));
}

/// Asserts that an image is not denoised.
#[track_caller]
fn denoise_refused(folder: &TempFolder, image: &str, more: &[&str], words: &[&str]) {
    let out = folder.path("out");
    restore("denoise", image, &out).args(more).fails(2, words);
    assert!(!is_file(&out, "noisy.png"));
}

#[test]
fn wrong_levels_of_noise_are_refused() {
    let folder = TempFolder::new("denoise-sigma");
    let noisy = noisy(&folder);
    denoise_refused(&folder, &noisy, &["--sigma", "-1"], &["--sigma", "0 to 255"]);
    denoise_refused(&folder, &noisy, &["--sigma", "much"], &["--sigma", "auto"]);
}

#[test]
fn missing_and_broken_images_are_refused() {
    let folder = TempFolder::new("denoise-missing");
    let missing = folder.path("none.png");
    denoise_refused(&folder, &missing, &[], &["none.png", "no such file"]);
    denoise_refused(&folder, &folder.path("*.tiff"), &[], &["no file matches"]);
    let broken = folder.write("broken.png", "no picture");
    denoise_refused(&folder, &broken, &[], &["broken.png"]);
}

#[test]
fn wrong_clean_images_are_refused() {
    let folder = TempFolder::new("denoise-clean");
    let noisy = noisy(&folder);
    let missing = ["--compare", &folder.path("none.png")];
    denoise_refused(&folder, &noisy, &missing, &["--compare", "does not exist"]);
    let other = ["--compare", BRICK, "--sigma", "5"];
    denoise_refused(&folder, &noisy, &other, &["--compare", "the clean image has"]);
}

#[test]
fn a_second_model_is_refused() {
    let folder = TempFolder::new("denoise-models");
    let second = ["-m", &folder.path("none.safetensors")];
    denoise_refused(&folder, &noisy(&folder), &second, &["cannot be used multiple times"]);
}

#[test]
fn a_model_that_was_not_trained_for_restoration_is_refused() {
    let folder = TempFolder::new("denoise-other");
    let (other, out) = (folder.path("other"), folder.path("out"));
    Command::train("photos").out(&other).steps(2).batch(4).on_cpu().quiet().succeed();
    let denoise = restore_with("denoise", &clean(&folder), &out, &other);
    denoise.fails(2, &["not trained for restoration", "--task denoise"]);
}

#[test]
fn the_image_itself_is_never_overwritten() {
    let folder = TempFolder::new("denoise-own");
    let denoise = restore("denoise", &noisy(&folder), folder.root().to_str().unwrap()).force();
    denoise.fails(2, &["would overwrite the image", "-o"]);
}

/// Evaluates a model by a protocol on the images of a folder.
fn protocol(model: &str, name: &str, data: &str) -> Command {
    let eval = Command::new("eval").arg(model).option("--protocol", name);
    eval.option("--data", data).on_cpu().quiet()
}

#[test]
fn a_protocol_needs_a_folder_of_images() {
    let folder = TempFolder::new("protocol-data");
    let run = restorer("denoise");
    let without = Command::new("eval").arg(run).flags("--protocol set12").on_cpu().quiet();
    without.fails(2, &["--data"]);
    protocol(run, "set12", &folder.path("missing")).fails(2, &["missing"]);
    let limited = protocol(run, "set12", &folder.path("out")).max_memory("1GiB");
    limited.fails(2, &["--max-memory"]);
}

#[test]
fn wrong_settings_of_a_denoiser_are_refused() {
    let folder = TempFolder::new("denoise-settings");
    let train = |setting: &str| {
        let train = Command::train("photos").flags("--preset denoise").set(setting);
        train.out(folder.path("out")).on_cpu().quiet()
    };
    train("corruption.sigma=[50,10]").fails(2, &["corruption.sigma"]);
    train("model.input=[1,25,24]").fails(2, &["layer code", "divide", "1x25x24"]);
}

/// A mask of every third pixel of every second row, and the number of these pixels.
fn mask(path: &str, h: u32, w: u32) -> usize {
    let missing = |x: u32, y: u32| y.is_multiple_of(2) && x.is_multiple_of(3);
    let value = |x, y| Luma([if missing(x, y) { 255 } else { 0 }]);
    let mask = GrayImage::from_fn(w, h, value);
    mask.save(path).unwrap();
    mask.pixels().filter(|pixel| pixel[0] > 0).count()
}

#[test]
fn missing_pixels_are_filled_and_others_stay() {
    let folder = TempFolder::new("inpaint");
    let (clean, out) = (clean(&folder), folder.path("out"));
    let (mask, holes) = (folder.path("mask.png"), folder.path("holes.png"));
    let count = self::mask(&mask, 61, 87);
    // The picture with its missing pixels in black.
    let picture = open(&clean).into_luma8();
    let marks = open(&mask).into_luma8();
    let mut black = picture.clone();
    let missing = black.pixels_mut().zip(marks.pixels()).filter(|(_, mark)| mark[0] > 0);
    missing.for_each(|(pixel, _)| pixel[0] = 0);
    black.save(&holes).unwrap();
    let inpaint = restore("inpaint", &holes, &out).option("--mask", &mask);
    let report = inpaint.option("--compare", &clean).report();
    let share = count as f64 / (61.0 * 87.0);
    assert!((number(&report, "missing") - share).abs() < 1e-9, "{report}");
    assert!(number(&report, "psnr") > number(&report, "psnr_before") + 15.0, "{report}");
    let result = open(format!("{out}/holes.png")).into_luma8();
    let kept =
        result.pixels().zip(picture.pixels()).zip(marks.pixels()).filter(|(_, mark)| mark[0] == 0);
    assert!(kept.clone().count() > 0 && kept.into_iter().all(|((a, b), _)| a == b));
}

/// An image whose missing pixels are magenta, a fifth of all.
fn marked() -> RgbImage {
    RgbImage::from_fn(40, 30, |x, y| {
        Rgb(if (x + y) % 5 == 0 { [255, 0, 255] } else { [90, x as u8, y as u8] })
    })
}

/// Inpaints the marked image.
fn inpaint_marked(folder: &TempFolder) -> Command {
    let path = folder.path("marked.png");
    marked().save(&path).unwrap();
    restore("inpaint", &path, &folder.path("out"))
}

#[test]
fn a_colour_can_mark_missing_pixels() {
    let folder = TempFolder::new("inpaint-colour");
    let report = inpaint_marked(&folder).flags("--mask-color magenta").report();
    assert!((number(&report, "missing") - 0.2).abs() < 1e-9, "{report}");
    let result = open(folder.path("out/marked.png")).into_rgb8();
    assert!(result.pixels().all(|pixel| *pixel != Rgb([255, 0, 255])));
}

#[test]
fn masks_are_found_in_a_folder_by_the_name_of_the_image() {
    let folder = TempFolder::new("inpaint-masks");
    let masks = folder.create("masks");
    mask(&format!("{masks}/marked.png"), 30, 40);
    inpaint_marked(&folder).option("--mask", &masks).succeed();
}

#[test]
fn wrong_masks_are_refused() {
    let folder = TempFolder::new("inpaint-bad");
    let inpaint = inpaint_marked(&folder);
    let refused = |mask: &str, words: &[&str]| {
        inpaint.clone().option("--mask", mask).fails(2, words);
    };
    let (other, white) = (folder.path("mask.png"), folder.path("white.png"));
    mask(&other, 61, 87);
    refused(&other, &["87x61", "40x30", "of the image's size"]);
    refused(&folder.path("none.png"), &["--mask", "none.png"]);
    GrayImage::from_pixel(40, 30, Luma([255])).save(&white).unwrap();
    refused(&white, &["every pixel is missing"]);
    refused(&folder.create("empty"), &["neither", "marked.png", "exists"]);
    inpaint.fails(2, &["--mask FILE", "--mask-color C"]);
}

#[test]
fn wrong_colours_of_missing_pixels_are_refused() {
    let folder = TempFolder::new("inpaint-bad-colour");
    let reddish = inpaint_marked(&folder).flags("--mask-color reddish");
    reddish.fails(2, &["--mask-color", "#ff00ff"]);
    let gray = restore("inpaint", &clean(&folder), &folder.path("out"));
    gray.flags("--mask-color red").fails(2, &["gray image"]);
}

#[test]
fn a_colour_in_a_jpeg_is_warned_of() {
    let folder = TempFolder::new("inpaint-jpeg");
    let lossy = folder.path("marked.jpg");
    marked().save(&lossy).unwrap();
    Command::new("inpaint")
        .arg(&lossy)
        .option("-m", restorer("inpaint"))
        .out(folder.path("out"))
        .flags("--mask-color magenta")
        .on_cpu()
        .warns(&["JPEG changes colours"]);
}

#[test]
fn a_model_trained_for_another_task_is_refused() {
    let folder = TempFolder::new("restore-task");
    let (clean, out, inpainter) = (clean(&folder), folder.path("out"), restorer("inpaint"));
    let denoise = restore_with("denoise", &clean, &out, inpainter);
    denoise.fails(2, &["trained to inpaint, not to denoise"]);
    let upscale = restore_with("upscale", &clean, &out, inpainter);
    upscale.fails(2, &["trained to inpaint, not to upscale"]);
}

/// A small image in colour whose right half is transparent.
fn half_transparent(folder: &TempFolder) -> String {
    let path = folder.path("small.png");
    let picture = image::RgbaImage::from_fn(31, 23, |x, y| {
        Rgba([x as u8 * 8, y as u8 * 11, 120, if x < 15 { 255 } else { 0 }])
    });
    picture.save(&path).unwrap();
    path
}

#[test]
fn images_are_enlarged_with_their_colours_and_transparency() {
    let folder = TempFolder::new("upscale");
    let out = folder.path("out");
    let upscale = restore("upscale", &half_transparent(&folder), &out);
    let report = upscale.flags("--scale 3 --side-by-side").report();
    for (key, value) in [("width", 93), ("height", 69), ("scale", 3)] {
        assert_eq!(report[key], value, "{report}");
    }
    let result = open(format!("{out}/small.png")).into_rgba8();
    let (first, last) = (result.get_pixel(6, 34), result.get_pixel(80, 34));
    assert_eq!((first[3], last[3]), (255, 0));
    // The colours are about those of the small image.
    let near = |a: u8, b: u8| a.abs_diff(b) < 12;
    assert!(near(first[0], 16) && near(first[1], 121) && near(first[2], 120), "{first:?}");
    let side = open(format!("{out}/small.side.png"));
    assert_eq!((side.width(), side.height()), (2 * 93 + 8, 28 + 69));
}

#[test]
fn the_default_scale_is_2_and_the_depth_is_kept() {
    let folder = TempFolder::new("upscale-deep");
    let (path, out) = (folder.path("deep.png"), folder.path("out"));
    ImageBuffer::from_fn(9, 1, |x, _| Luma([x as u16 * 7000])).save(&path).unwrap();
    restore("upscale", &path, &out).succeed();
    let result = open(format!("{out}/deep.png"));
    assert_eq!((result.color(), result.width(), result.height()), (ColorType::L16, 18, 2));
}

#[test]
fn scales_that_the_model_was_not_trained_for_are_refused() {
    let folder = TempFolder::new("upscale-bad");
    let upscale = restore("upscale", &half_transparent(&folder), &folder.path("out"));
    upscale.clone().flags("--scale 5").fails(2, &["--scale 5", "trained for 2, 3, 4"]);
    upscale.flags("--scale 1").fails(2, &["--scale"]);
}

/// A folder of five images.
fn five(folder: &TempFolder) -> String {
    let five = folder.create("five");
    for i in 0..5_u32 {
        let pixel = |x, y| Luma([(x * x / 4 + y * (i + 9)) as u8]);
        GrayImage::from_fn(40 + i, 37, pixel).save(format!("{five}/{i}.png")).unwrap();
    }
    five
}

#[test]
fn a_protocol_evaluates_every_scale() {
    let folder = TempFolder::new("protocol");
    let eval = protocol(restorer("upscale"), "set5", &five(&folder));
    let report = eval.report();
    let outcomes = report["outcomes"].as_array().unwrap();
    assert_eq!(outcomes.len(), 3);
    for outcome in outcomes {
        assert!(number(outcome, "psnr_before") > 15.0, "{outcome}");
        assert_eq!(outcome["images"].as_array().unwrap().len(), 5, "{outcome}");
    }
    let text = eval.succeed();
    for words in ["mean by bicubic", "SRCNN", "set5 x4"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_protocol_evaluates_only_the_scales_of_the_model() {
    let folder = TempFolder::new("protocol-scales");
    let two = folder.path("two");
    Command::train(BRICK)
        .flags("--task upscale")
        .out(&two)
        .steps(2)
        .set("model.input=[1,24,24]")
        .set("corruption.scales=[2]")
        .on_cpu()
        .quiet()
        .succeed();
    let only = protocol(&two, "set5", &five(&folder)).report();
    assert_eq!(only["outcomes"].as_array().unwrap().len(), 1);
}

#[test]
fn protocols_of_another_task_or_number_of_images_are_refused() {
    let folder = TempFolder::new("protocol-bad");
    let five = five(&folder);
    let bsd68 = protocol(restorer("upscale"), "bsd68", &five);
    bsd68.fails(2, &["trained to upscale, not to denoise"]);
    let set14 = protocol(restorer("upscale"), "set14", &five);
    set14.fails(2, &["set14", "5 images", "instead of 14"]);
}

#[test]
fn wrong_settings_of_a_task_are_refused() {
    let folder = TempFolder::new("tasks");
    let cases: &[(&str, &[&str])] = &[
        ("--task sharpen", &["sharpen", "denoise, inpaint, upscale"]),
        ("--task inpaint --preset denoise", &["--task inpaint", "denoise"]),
        ("--task inpaint --set corruption.sigma=[0,5]", &["one of sigma, missing, scales"]),
        ("--task inpaint --set corruption.masks=[]", &["corruption", "missing and masks"]),
        ("--task inpaint --set corruption.masks=[\"dots\"]", &["corruption.masks", "dots"]),
        ("--task inpaint --set corruption.missing=[0.5,1.0]", &["corruption.missing", "below 1"]),
        ("--task upscale --set corruption.scales=[9]", &["corruption.scales", "2 to 8"]),
        ("--task upscale --set data.crop=50", &["50x50", "data.crop"]),
        ("--task denoise --set model.input=[1,24,28]", &["data.turn", "28x24"]),
    ];
    for (flags, words) in cases {
        let train = Command::train(BRICK).out(folder.path("run")).steps(2).on_cpu().quiet();
        train.flags(flags).fails(2, words);
    }
}

#[test]
fn an_autoencoder_of_one_size_learns_to_restore_and_is_evaluated_on_patches() {
    let folder = TempFolder::new("task-autoencoder");
    let (run, out) = (folder.path("run"), folder.path("out"));
    let train = Command::train("photos").flags("--task denoise --preset article").out(&run);
    let ended = train.steps(3).batch(4).on_cpu().quiet().json().pop().unwrap();
    assert!(ended["whole"].is_null() && ended["psnr"].as_f64().is_some(), "{ended}");
    restore_with("denoise", CAT, &out, &run).fails(2, &["fully connected"]);
}

/// Trains a model for one step.
fn one_step(folder: &TempFolder, kind: &str) -> Command {
    Command::train(BRICK)
        .flags(kind)
        .out(folder.path("run"))
        .steps(1)
        .set("model.input=[1,24,24]")
        .set("data.crop=24")
        .set("train.batch=8")
        .on_cpu()
        .quiet()
}

#[test]
fn a_training_begins_with_the_parameters_of_a_model() {
    let loss = |from: Option<&str>| {
        let folder = TempFolder::new("from");
        let train = one_step(&folder, "--task denoise");
        from.into_iter().fold(train, |train, from| train.option("--from", from)).succeed();
        let log = metrics(&folder.path("run"));
        number(json::of_kind(&log, "train")[0], "reconstruction")
    };
    let (random, taken) = (loss(None), loss(Some(restorer("denoise"))));
    assert!(taken < 0.7 * random, "{random} {taken}");
}

#[test]
fn parameters_that_the_other_model_lacks_are_initialized() {
    let folder = TempFolder::new("from-longer");
    let train = one_step(&folder, "--task denoise").option("--from", restorer("denoise"));
    train.set("model.layers.code.iterations=9").succeed();
}

#[test]
fn models_without_a_common_parameter_are_refused() {
    let folder = TempFolder::new("from-none");
    let train = |from: &str| one_step(&folder, "--preset plain").option("--from", from);
    train(restorer("denoise")).fails(2, &["train.from", "none of its parameters"]);
    train(&folder.path("nothing")).fails(2, &["train.from", "nothing"]);
}

/// Trains with a learning rate that is far too high.
fn diverging(run: &str, retries: usize) -> Command {
    Command::train(BRICK)
        .flags("--task denoise")
        .out(run)
        .steps(6)
        .batch(4)
        .set("model.input=[1,24,24]")
        .set("optimizer.lr=1e4")
        .set("optimizer.clip_norm=0")
        .set("schedule.warmup_steps=1")
        .set("train.checkpoint_every=0")
        .set(format!("train.retries={retries}"))
        .on_cpu()
        .quiet()
}

#[test]
fn a_diverging_training_stops_after_its_retries() {
    let folder = TempFolder::new("retries-stop");
    diverging(&folder.path("run"), 1).fails(1, &["became", "halved 1 times"]);
}

#[test]
fn a_diverging_training_halves_its_rate_until_it_learns() {
    let folder = TempFolder::new("retries");
    let run = folder.path("run");
    diverging(&run, 60).succeed();
    let log = metrics(&run);
    assert!(json::of_kind(&log, "retry").len() > 1, "{log:?}");
    let last = |line: &&&Value| line["step"] == 6;
    assert_eq!(json::of_kind(&log, "train").iter().filter(last).count(), 1, "{log:?}");
}

/// Height and width of the part of a photograph that bundled models restore.
const PART: [u32; 2] = [120, 160];

/// A part of a photograph that no bundled model was trained on.
fn photograph() -> RgbImage {
    open(CAT).crop_imm(100, 60, PART[1], PART[0]).into_rgb8()
}

/// Restores an image with the bundled model. Returns the gain in PSNR and the PSNR.
fn by_bundled(command: &str, image: &RgbImage, flags: &str) -> (f64, f64) {
    let folder = TempFolder::new("bundled");
    let (path, clean) = (folder.path("image.png"), folder.path("clean.png"));
    image.save(&path).unwrap();
    photograph().save(&clean).unwrap();
    let restore = Command::new(command).arg(&path).out(folder.path("out")).flags(flags);
    let report = restore.option("--compare", &clean).on_cpu().quiet().report();
    let psnr = number(&report, "psnr");
    (psnr - number(&report, "psnr_before"), psnr)
}

#[test]
fn the_bundled_model_denoises_a_photograph() {
    let mut stream = Stream::new(2, "noise");
    let mut noisy = photograph();
    noisy.iter_mut().for_each(|v| {
        *v = (f64::from(*v) + 25.0 * f64::from(stream.normal())).round().clamp(0.0, 255.0) as u8
    });
    let (gain, psnr) = by_bundled("denoise", &noisy, "");
    assert!(gain > 7.0 && psnr > 27.0, "{gain} {psnr}");
}

#[test]
fn the_bundled_model_fills_half_of_a_photograph() {
    let mut stream = Stream::new(2, "holes");
    let mut holes = photograph();
    let missing = holes.pixels_mut().filter(|_| stream.below(2) == 0);
    missing.for_each(|pixel| *pixel = Rgb([0, 255, 0]));
    let (_, psnr) = by_bundled("inpaint", &holes, "--mask-color green");
    assert!(psnr > 30.0, "{psnr}");
}

#[test]
fn the_bundled_model_enlarges_a_photograph() {
    let dims = Dims::new(3, PART[0] as usize, PART[1] as usize);
    let reals: Vec<f32> = photograph().iter().map(|v| f32::from(*v) / 255.0).collect();
    let (small, size) = imresize(&reals, dims, 0.5).unwrap();
    let bytes = small.iter().map(|v| (v * 255.0).round().clamp(0.0, 255.0) as u8).collect();
    let small = RgbImage::from_raw(size.w as u32, size.h as u32, bytes).unwrap();
    let (gain, psnr) = by_bundled("upscale", &small, "--scale 2");
    assert!(gain > 0.3, "{gain} {psnr}");
}

#[test]
fn bundled_models_are_known_by_name() {
    let folder = TempFolder::new("bundled-inspect");
    let inspect = Command::inspect("denoise").out(folder.path("inspected")).on_cpu().succeed();
    assert!(inspect.contains("code.7.analysis"), "{inspect}");
}

/// The photograph with noise of σ = 25: another one in each channel, or the same in all.
fn noisy_photograph(alike: bool) -> RgbImage {
    let mut stream = Stream::new(2, "noise");
    let mut noisy = photograph();
    for pixel in noisy.pixels_mut() {
        let mut noise = [0; 3].map(|_| 25.0 * f64::from(stream.normal()));
        if alike {
            noise = [noise[0]; 3];
        }
        let add = |(v, noise): (&mut u8, f64)| {
            *v = (f64::from(*v) + noise).round().clamp(0.0, 255.0) as u8;
        };
        pixel.0.iter_mut().zip(noise).for_each(add);
    }
    noisy
}

/// Luma and chroma planes hide less noise than red, green and blue.
#[test]
fn noise_of_colour_images_is_removed_from_luma_and_chroma() {
    let noisy = noisy_photograph(false);
    let (_, psnr) = by_bundled("denoise", &noisy, "--sigma 25");
    // Each channel as an image of its own.
    let folder = TempFolder::new("denoise-channels");
    folder.create("in");
    for channel in 0..3 {
        let pixel = |x, y| Luma([noisy.get_pixel(x, y)[channel]]);
        let plane = GrayImage::from_fn(noisy.width(), noisy.height(), pixel);
        plane.save(folder.path(&format!("in/{channel}.png"))).unwrap();
    }
    let out = folder.path("out");
    let denoise = Command::new("denoise").arg(folder.path("in")).out(&out).flags("--sigma 25");
    denoise.on_cpu().quiet().succeed();
    let squares = (0..3).map(|channel| {
        let plane = open(format!("{out}/{channel}.png")).into_luma8();
        let error =
            |(clean, v): (&Rgb<u8>, &u8)| (f64::from(clean[channel]) - f64::from(*v)).powi(2);
        photograph().pixels().zip(plane.iter()).map(error).sum::<f64>() / plane.len() as f64
    });
    let alone = 10.0 * (255.0_f64.powi(2) * 3.0 / squares.sum::<f64>()).log10();
    assert!(psnr > alone + 0.5, "{psnr} {alone}");
}

/// Equal channels have the same noise, so that one of them is restored.
#[test]
fn a_gray_image_with_three_channels_is_restored_as_a_gray_one() {
    let folder = TempFolder::new("denoise-equal");
    let [gray, equal] = ["gray.png", "equal.png"].map(|name| folder.path(name));
    let noisy = DynamicImage::from(noisy_photograph(true)).into_luma8();
    noisy.save(&gray).unwrap();
    DynamicImage::from(noisy).into_rgb8().save(&equal).unwrap();
    let out = folder.path("out");
    for flags in ["--sigma 25", "--force"] {
        let denoise = Command::new("denoise").arg(&gray).arg(&equal).out(&out).flags(flags);
        denoise.on_cpu().quiet().succeed();
        let [gray, equal] =
            ["gray", "equal"].map(|name| open(format!("{out}/{name}.png")).into_rgb8());
        assert!(gray == equal, "{flags}");
    }
}

/// Luma and chroma have levels of their own.
#[test]
fn gray_noise_leaves_the_chroma() {
    let folder = TempFolder::new("denoise-gray-noise");
    let path = folder.path("noisy.png");
    noisy_photograph(true).save(&path).unwrap();
    let denoise = Command::new("denoise").arg(&path).out(folder.path("out"));
    let report = denoise.on_cpu().quiet().report();
    assert!(number(&report, "sigma") > 25.0, "{report}");
    assert!(number(&report, "chroma") < 6.0, "{report}");
    noisy_photograph(false).save(&path).unwrap();
    let denoise = Command::new("denoise").arg(&path).out(folder.path("out")).force();
    let report = denoise.on_cpu().quiet().report();
    assert!((number(&report, "chroma") - 25.0).abs() < 4.0, "{report}");
}

#[test]
fn folders_are_compared_by_their_mean() {
    let folder = TempFolder::new("denoise-mean");
    for name in ["in", "clean"] {
        folder.create(name);
    }
    for (name, seed) in [("a.png", 1), ("b.png", 2)] {
        let mut stream = Stream::new(seed, "noise");
        let mut noisy = photograph();
        noisy.iter_mut().for_each(|v| {
            let value = f64::from(*v) + 10.0 * seed as f64 * f64::from(stream.normal());
            *v = value.round().clamp(0.0, 255.0) as u8;
        });
        noisy.save(folder.path(&format!("in/{name}"))).unwrap();
        photograph().save(folder.path(&format!("clean/{name}"))).unwrap();
    }
    let denoise = |flags: &str| {
        let denoise = Command::new("denoise").arg(folder.path("in")).out(folder.path("out"));
        denoise.option("--compare", folder.path("clean")).flags(flags).force().on_cpu().succeed()
    };
    let lines: Vec<Value> =
        denoise("--json").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [first, second, mean] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&mean["kind"], &mean["images"]), (&"mean".into(), &2.into()));
    for key in ["psnr_before", "ssim_before", "psnr", "ssim"] {
        let [a, b, mean] = [first, second, mean].map(|line| number(line, key));
        assert!((mean - (a + b) / 2.0).abs() < 1e-9 && a != b, "{key} {a} {b} {mean}");
    }
    let text = denoise("");
    assert!(text.lines().last().unwrap().starts_with("mean of 2 images  PSNR"), "{text}");
}

/// Compresses the photograph as a JPEG file.
fn compressed(folder: &TempFolder, name: &str, quality: u8, gray: bool) -> String {
    let path = folder.path(name);
    let image = DynamicImage::from(photograph());
    let image = if gray { DynamicImage::from(image.into_luma8()) } else { image };
    let mut file = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, quality);
    image.write_with_encoder(encoder).unwrap();
    std::fs::write(&path, file).unwrap();
    path
}

#[test]
fn artefacts_of_jpeg_are_removed_from_the_luma() {
    let folder = TempFolder::new("deblock");
    let clean = folder.path("clean.png");
    photograph().save(&clean).unwrap();
    let file = compressed(&folder, "photo.jpg", 12, false);
    let model = restorer("dejpeg");
    let result = folder.path("result.png");
    let deblock = restore_with("deblock", &file, &result, model).option("--compare", &clean);
    let report = deblock.report();
    assert!(number(&report, "psnr") > number(&report, "psnr_before") + 0.1, "{report}");
    let bundled = Command::new("deblock").arg(&file).out(folder.path("bundled.png")).on_cpu();
    let better = bundled.option("--compare", &clean).report();
    assert!(number(&better, "psnr") > number(&report, "psnr") + 0.3, "{better} {report}");
    // Tables of quality 12 have larger steps than those of quality 50.
    assert!(number(&report, "rounding_error") > 30.0, "{report}");
    // Chroma is that of the file, up to the rounding of pixels.
    let chroma = |image: &RgbImage| -> Vec<f64> {
        let red = |pixel: &Rgb<u8>| f64::from(pixel[0]) - f64::from(pixel[2]);
        image.pixels().map(red).collect()
    };
    let [before, after] = [&file, &result].map(|path| chroma(&open(path).into_rgb8()));
    let far = before.iter().zip(&after).filter(|(a, b)| (*a - *b).abs() > 1.01).count();
    assert!(100 * far < before.len(), "{far}");
}

#[test]
fn the_strength_of_compression_is_read_or_given() {
    let folder = TempFolder::new("deblock-quality");
    let file = compressed(&folder, "photo.jpg", 30, true);
    let png = folder.path("saved-again.png");
    open(&file).save(&png).unwrap();
    let model = restorer("dejpeg");
    let out = |name: &str| folder.path(name);
    restore_with("deblock", &file, &out("a.png"), model).succeed();
    let given = restore_with("dejpeg", &png, &out("b.png"), model);
    given.flags("--jpeg-quality 30").succeed();
    let other = restore_with("deblock", &png, &out("c.png"), model);
    other.flags("--jpeg-quality 60").succeed();
    let [a, b, c] = ["a.png", "b.png", "c.png"].map(|name| open(out(name)).into_luma8());
    assert!(a == b && a != c);
    let mut library = Model::builder().device("cpu").load(model).unwrap();
    let mut by_library = |path: &str, compression: Compression| -> csae::Result<_> {
        let restored = library.deblock(&Image::open(path).unwrap(), compression)?;
        restored.save(out("library.png"))?;
        Ok(open(out("library.png")).into_luma8())
    };
    assert!(by_library(&file, Compression::OfFile).unwrap() == a);
    assert!(by_library(&png, Compression::Quality(60)).unwrap() == c);
    for (compression, words) in
        [(Compression::OfFile, "Compression::Quality"), (Compression::Quality(0), "1 to 100")]
    {
        let error = by_library(&png, compression).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let none = restore_with("deblock", &png, &out("d.png"), model);
    none.fails(2, &["saved-again.png", "--jpeg-quality"]);
    restore_with("denoise", &file, &out("f.png"), model).fails(2, &["trained to dejpeg"]);
}

#[test]
fn compressed_training_images_must_be_gray_and_in_memory() {
    let folder = TempFolder::new("dejpeg-refused");
    let train = |setting: &str| {
        let train = Command::train("photos").option("--task", "dejpeg").set(setting);
        train.out(folder.path("out")).on_cpu().quiet()
    };
    train("model.input=[3,24,24]").fails(2, &["corruption.quality", "3 channels", "[1, 24, 24]"]);
    train("corruption.quality=[0,50]").fails(2, &["corruption.quality"]);
    train("corruption.sigma=[0,50]").fails(2, &["only one of"]);
}

#[test]
fn the_protocol_of_jpeg_artefacts_compares_with_published_results() {
    let folder = TempFolder::new("protocol-classic5");
    let eval = protocol(restorer("dejpeg"), "classic5", &five(&folder));
    let report = eval.report();
    let outcomes = report["outcomes"].as_array().unwrap();
    assert_eq!(outcomes.len(), 4, "{report}");
    let before: Vec<f64> = outcomes.iter().map(|outcome| number(outcome, "psnr_before")).collect();
    assert!(before.is_sorted_by(|a, b| a < b), "{before:?}");
    assert_eq!(outcomes[0]["published"][1]["method"], "DnCNN-3");
}
