//! `csae texture` and `csae stylize`: textures and styles as a user makes them.

use std::path::Path;
use std::sync::OnceLock;

use csae::internals::data::image_file::{Depth, ImageFile};
use csae::internals::report::picture;
use csae::internals::shape::Dims;
use serde_json::Value;

use crate::support::files::exists;
use crate::support::images::{CAT, PHOTOS};
use crate::support::json::number;
use crate::support::{Command, TempFolder, gpu, text};

/// A picture of bricks in colours, H,W,C.
fn bricks(folder: &TempFolder, name: &str, [h, w]: [usize; 2]) -> String {
    let pixel = |at: usize| {
        let (y, x) = (at / w, at % w);
        let (row, column) = (y / 8, (x + y / 8 % 2 * 8) / 16);
        let mortar = y % 8 == 0 || (x + y / 8 % 2 * 8).is_multiple_of(16);
        let shade = 0.1 * ((row * 7 + column * 3) % 5) as f32;
        if mortar { [0.75, 0.72, 0.7] } else { [0.5 + shade, 0.25 + 0.5 * shade, 0.2] }
    };
    let pixels: Vec<f32> = (0..h * w).flat_map(pixel).collect();
    let path = folder.path(name);
    picture::save_png(Path::new(&path), &pixels, Dims::new(3, h, w)).unwrap();
    path
}

/// Values, height and width of a picture.
fn pixels(path: &str) -> (Vec<u8>, usize, usize) {
    let image = ImageFile::read(Path::new(path)).unwrap();
    let bytes = image.pixels().iter().map(|v| (v * 255.0).round() as u8).collect();
    (bytes, image.dims.h, image.dims.w)
}

/// Synthesizes a texture, over the one there is.
fn texture(exemplar: &str, out: &str) -> Command {
    Command::new("texture").arg(exemplar).out(out).force().on_cpu()
}

/// The distance of a texture's statistics from the exemplar's, relative to that of shuffled pixels.
fn share(line: &Value) -> f64 {
    number(line, "distance") / number(line, "shuffled")
}

#[test]
fn a_texture_has_the_exemplars_statistics_and_the_size_asked_for() {
    let folder = TempFolder::new("texture");
    let (exemplar, out) = (bricks(&folder, "bricks.png", [48, 64]), folder.path("out"));
    let result = || pixels(&format!("{out}/bricks.png"));
    let texture = texture(&exemplar, &out).flags("--size 80x56");
    let line = texture.json().remove(0);
    assert!(share(&line) < 0.6, "{line}");
    let (first, h, w) = result();
    assert_eq!((h, w), (56, 80));
    // The same seed gives the same texture, another seed another.
    texture.succeed();
    assert_eq!(result().0, first);
    texture.flags("--seed 1").succeed();
    assert_ne!(result().0, first);
}

#[test]
fn a_texture_is_twice_as_large_as_its_exemplar() {
    let folder = TempFolder::new("texture-quick");
    let (exemplar, out) = (bricks(&folder, "bricks.png", [48, 64]), folder.path("out"));
    let quick = texture(&exemplar, &out).json().remove(0);
    assert!(share(&quick) < 0.6, "{quick}");
    assert!(quick["width"] == 128 && quick["height"] == 96, "{quick}");
    let page = text(format!("{out}/gallery.html"));
    assert!(page.contains("bricks") && page.matches("<img ").count() == 2);
}

/// How different columns and rows of opposite sides are, relative to the most different neighbours.
fn seams(path: &str) -> (f64, f64) {
    let (p, h, w) = pixels(path);
    let apart = |a: usize, b: usize| {
        let pairs = p[a * 3..a * 3 + 3].iter().zip(&p[b * 3..]);
        pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>()
    };
    let column =
        |x: usize| (0..h).map(|y| apart(y * w + x, y * w + (x + 1) % w)).sum::<f64>() / h as f64;
    let row =
        |y: usize| (0..w).map(|x| apart(y * w + x, (y + 1) % h * w + x)).sum::<f64>() / w as f64;
    let max = |of: &dyn Fn(usize) -> f64, n: usize| (0..n - 1).map(of).fold(0.0, f64::max);
    (column(w - 1) / max(&column, w), row(h - 1) / max(&row, h))
}

#[test]
fn tiles_meet() {
    let folder = TempFolder::new("tiles");
    let (exemplar, out) = (bricks(&folder, "bricks.png", [64, 64]), folder.path("out"));
    texture(&exemplar, &out).flags("--tile --size 72x88").succeed();
    let (across, down) = seams(&format!("{out}/bricks.png"));
    assert!(across < 1.3 && down < 1.3, "{across} {down}");
}

/// Height and width of the styled images.
const SIZE: [usize; 2] = [64, 96];

/// A stylized photograph.
struct Styled {
    /// Distance from the style's statistics, relative to that of the content.
    distance: f64,
    /// Similarity to the content.
    ssim: f64,
    pixels: Vec<u8>,
}

fn style() -> String {
    format!("{PHOTOS}/astronaut.webp")
}

fn stylize(flags: &[&str]) -> Styled {
    let folder = TempFolder::new("style");
    let out = folder.path("out");
    let stylize = Command::new("stylize --size 96").option("--content", CAT).out(&out);
    let line = stylize.option("--style", style()).args(flags).on_cpu().json().remove(0);
    let [h, w] = SIZE;
    let (pixels, height, width) = pixels(&format!("{out}/chelsea.in.astronaut.png"));
    assert_eq!((height, width), (h, w));
    Styled {
        distance: number(&line, "distance") / number(&line, "before"),
        ssim: number(&line, "ssim"),
        pixels,
    }
}

/// Stylized with the default options.
fn styled() -> &'static Styled {
    static STYLED: OnceLock<Styled> = OnceLock::new();
    STYLED.get_or_init(|| stylize(&[]))
}

/// Stylized with strength 0.
fn plain() -> &'static Styled {
    static PLAIN: OnceLock<Styled> = OnceLock::new();
    PLAIN.get_or_init(|| stylize(&["--strength", "0"]))
}

/// The mean difference of the red channels of two images in some columns.
fn difference(a: &[u8], b: &[u8], columns: std::ops::Range<usize>) -> f64 {
    let [h, w] = SIZE;
    let at = (0..h).flat_map(|y| columns.clone().map(move |x| (y * w + x) * 3));
    let apart: f64 = at.map(|at| f64::from(a[at].abs_diff(b[at]))).sum();
    apart / (h * columns.len()) as f64
}

#[test]
fn a_style_is_transferred_and_better_so_when_optimised() {
    assert!(styled().distance < 0.5, "{}", styled().distance);
    let slow = stylize(&["--optimise", "--steps", "60"]);
    assert!(slow.distance < styled().distance, "{} {}", slow.distance, styled().distance);
}

#[test]
fn strength_0_gives_the_content() {
    let Styled { distance, ssim, .. } = plain();
    assert!((distance - 1.0).abs() < 0.02, "{distance}");
    assert!(*ssim > 0.99 && *ssim > styled().ssim, "{ssim}");
}

#[test]
fn colours_of_the_content_can_be_kept() {
    let kept = stylize(&["--keep-color"]);
    // The difference of red and blue is that of the content.
    let colour =
        |p: &[u8]| p.chunks(3).map(|p| f64::from(p[0]) - f64::from(p[2])).collect::<Vec<_>>();
    let mean = |a: &[u8], b: &[u8]| {
        let pairs = colour(a).into_iter().zip(colour(b));
        pairs.map(|(a, b)| (a - b).abs()).sum::<f64>() / (a.len() / 3) as f64
    };
    let (own, other) =
        (mean(&kept.pixels, &plain().pixels), mean(&styled().pixels, &plain().pixels));
    assert!(own < 8.0 && other > 2.0 * own, "{own} {other}");
}

#[test]
fn a_mask_limits_the_style_to_its_white_half() {
    let folder = TempFolder::new("style-mask");
    let mask = folder.path("mask.png");
    let rows = [[0.0; 16], [1.0; 16]].concat().repeat(4);
    picture::save_png(Path::new(&mask), &rows, Dims::new(1, 4, 32)).unwrap();
    let half = stylize(&["--mask", &mask]).pixels;
    let (white, black) =
        (difference(&half, &styled().pixels, 70..96), difference(&half, &styled().pixels, 0..26));
    assert!(white < 1.5 && black > 5.0, "{white} {black}");
}

#[test]
fn a_style_mixed_with_itself_stays_as_it_is() {
    let folder = TempFolder::new("style-mix");
    let (again, out) = (folder.path("again.png"), folder.path("out"));
    std::fs::copy(style(), &again).unwrap();
    Command::new("stylize --size 96 --mix 1,3")
        .option("--content", CAT)
        .out(&out)
        .args(["--style", &style(), &again])
        .on_cpu()
        .succeed();
    let (mixed, ..) = pixels(&format!("{out}/chelsea.in.astronaut+again.png"));
    assert!(difference(&mixed, &styled().pixels, 0..96) < 0.5);
    let page = text(format!("{out}/gallery.html"));
    assert!(page.contains("in the style of astronaut+again"));
}

/// Runs a command on both paths, which must give nearly the same picture.
fn assert_paths_agree(command: &Command, name: &str, tolerance: f64) -> Vec<u8> {
    let folder = TempFolder::new("synthesis-gpu");
    let [cpu, other] = ["cpu", &gpu::name()].map(|device| {
        let out = folder.path(if device == "cpu" { "cpu" } else { "gpu" });
        command.clone().device(device).out(&out).quiet().succeed();
        pixels(&format!("{out}/{name}")).0
    });
    let found = mean_difference(&cpu, &other);
    assert!(found < tolerance, "{found}");
    cpu
}

fn mean_difference(a: &[u8], b: &[u8]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

#[test]
fn both_paths_synthesize_alike() {
    let Some(_turn) = gpu::turn() else { return };
    let folder = TempFolder::new("texture-gpu");
    let exemplar = bricks(&folder, "bricks.png", [48, 48]);
    let texture = Command::new("texture --size 56").arg(&exemplar);
    let found = assert_paths_agree(&texture, "bricks.png", 1.0);
    // The comparison distinguishes images.
    let reversed: Vec<u8> = found.iter().rev().copied().collect();
    assert!(mean_difference(&found, &reversed) > 1.0);
}

#[test]
fn both_paths_stylize_alike() {
    let Some(_turn) = gpu::turn() else { return };
    let folder = TempFolder::new("style-gpu");
    let exemplar = bricks(&folder, "bricks.png", [48, 48]);
    let stylize = Command::new("stylize --size 96").option("--content", CAT);
    let stylize = stylize.option("--style", &exemplar);
    assert_paths_agree(&stylize, "chelsea.in.bricks.png", 0.2);
}

/// Asserts that a command is refused and leaves no folder.
#[track_caller]
fn refused(command: Command, words: &[&str]) {
    let folder = TempFolder::new("synthesis-bad");
    let out = folder.path("out");
    command.out(&out).on_cpu().quiet().fails(2, words);
    assert!(!exists(&out));
}

#[test]
fn exemplars_that_are_too_small_are_refused_before_any_texture_is_made() {
    let folder = TempFolder::new("texture-small");
    let (large, small) =
        (bricks(&folder, "large.png", [64, 64]), bricks(&folder, "small.png", [24, 40]));
    let words = ["small.png", "40x24", "32x32"];
    refused(Command::new("texture").arg(&small), &words);
    refused(Command::new("texture").args([&large, &small]), &words);
    let stylize = Command::new("stylize").option("--content", &small).option("--style", &large);
    refused(stylize, &["small.png", "40x24"]);
}

#[test]
fn wrong_options_of_textures_are_refused() {
    let folder = TempFolder::new("texture-options");
    let large = bricks(&folder, "large.png", [64, 64]);
    let cases: &[(&str, &[&str])] = &[
        ("--size 20", &["20x20", "32x32"]),
        ("--size 3x9000", &["--size 3x9000"]),
        ("-m denoise", &["denoise", "colour"]),
    ];
    for (flags, words) in cases {
        refused(Command::new("texture").arg(&large).flags(flags), words);
    }
    refused(Command::new("texture").args([&large, &large]), &["large"]);
    refused(Command::new("texture").arg(folder.path("none.png")), &["none.png"]);
}

#[test]
fn textures_that_do_not_fit_in_memory_are_refused() {
    let folder = TempFolder::new("texture-memory");
    let texture = || Command::new("texture").arg(bricks(&folder, "large.png", [64, 64]));
    let large = texture().flags("--size 4000 --max-memory 300MiB");
    refused(large, &["4032x4032", "MiB", "--max-memory"]);
}

#[test]
fn wrong_options_of_styles_are_refused() {
    let folder = TempFolder::new("style-options");
    let large = bricks(&folder, "large.png", [64, 64]);
    let style = || Command::new("stylize").option("--content", &large).option("--style", &large);
    refused(style().flags("--strength 2"), &["--strength 2"]);
    refused(style().flags("--mix 1,2"), &["--mix"]);
    refused(style().args(["--mask", &large, &large]), &["--mask", "2 masks for 1"]);
    refused(style().flags("--style-scale 0"), &["--style-scale 0"]);
    refused(style().flags("--steps 5"), &["--optimise"]);
    refused(style().flags("--optimise --steps 0"), &["--steps 0"]);
}

#[test]
fn results_are_not_overwritten_without_force() {
    let folder = TempFolder::new("texture-force");
    let large = bricks(&folder, "large.png", [64, 64]);
    let texture = Command::new("texture").arg(&large).out(folder.path("out")).on_cpu().quiet();
    texture.succeed();
    texture.fails(2, &["--force"]);
}

#[test]
fn transparency_of_the_content_is_kept() {
    let folder = TempFolder::new("style-clear");
    let (large, clear) = (bricks(&folder, "large.png", [64, 64]), folder.path("clear.png"));
    let mut file = ImageFile::from_pixels(&[0.5; 64 * 64 * 3], Dims::new(3, 64, 64), Depth::Eight);
    file.set_alpha(Some(&[0.25; 64 * 64]));
    file.save(Path::new(&clear)).unwrap();
    let stylize = Command::new("stylize").option("--content", &clear).option("--style", &large);
    stylize.out(folder.path("out")).on_cpu().quiet().succeed();
    let styled = folder.path("out/clear.in.large.png");
    let styled = ImageFile::read(Path::new(&styled)).unwrap();
    assert!(styled.alpha().unwrap().iter().all(|a| (a - 0.25).abs() < 0.01));
}

/// Any colour can be hidden under full transparency.
#[test]
fn colours_that_are_hidden_do_not_reach_the_style() {
    let folder = TempFolder::new("style-hidden");
    let style = bricks(&folder, "large.png", [64, 64]);
    let is_seen = |i: usize| i % 64 < 32;
    let alpha: Vec<f32> = (0..64 * 64).map(|i| if is_seen(i) { 1.0 } else { 0.0 }).collect();
    let styled = [0.0, 1.0].map(|hidden| {
        let content = folder.path(&format!("{hidden}.png"));
        let color = |i: usize| if is_seen(i) { 0.3 + (i % 7) as f32 / 20.0 } else { hidden };
        let pixels: Vec<f32> = (0..64 * 64).flat_map(|i| [color(i); 3]).collect();
        let mut file = ImageFile::from_pixels(&pixels, Dims::new(3, 64, 64), Depth::Eight);
        file.set_alpha(Some(&alpha));
        file.save(Path::new(&content)).unwrap();
        let stylize = Command::new("stylize").option("--content", &content);
        let stylize = stylize.option("--style", &style).out(folder.path("out"));
        stylize.force().on_cpu().quiet().succeed();
        let result = folder.path(&format!("out/{hidden}.in.large.png"));
        ImageFile::read(Path::new(&result)).unwrap().pixels()
    });
    assert!(styled[0] == styled[1]);
}

/// The second content does not fit: the first one is not made either.
#[test]
fn memory_for_styles_is_counted_before_work_begins() {
    let folder = TempFolder::new("style-memory");
    let (small, large) =
        (bricks(&folder, "small.png", [64, 64]), bricks(&folder, "large.png", [700, 900]));
    let out = folder.path("out");
    let stylize = Command::new("stylize").args(["--content", &small, &large, "--style", &small]);
    let stylize = stylize.out(&out).max_memory("200MiB").on_cpu().quiet();
    stylize.fails(2, &["large.png", "900x700", "MiB", "--max-memory"]);
    assert!(!exists(&out));
}

/// A command that begins stays within its limit, which includes the program itself.
#[cfg(target_os = "linux")]
#[test]
fn styles_and_textures_stay_within_the_limit() {
    let folder = TempFolder::new("style-peak");
    let (large, small) =
        (bricks(&folder, "large.png", [600, 800]), bricks(&folder, "small.png", [120, 160]));
    for (name, arguments) in [
        ("stylize", vec!["--content", &large, "--style", &large]),
        ("stylize", vec!["--content", &small, "--style", &small, "--optimise", "--steps", "1"]),
        ("texture", vec![&small]),
    ] {
        let command = |mib: u64| {
            let command = Command::new(name).args(&arguments).out(folder.path("out")).force();
            command.max_memory(&format!("{mib}MiB")).on_cpu().quiet()
        };
        let least = (100..800).step_by(20).find(|mib| command(*mib).output().succeeded());
        let least = least.expect("some limit is enough");
        let peak = command(least).peak_memory();
        assert!(peak <= least as f64, "{name}: {peak:.0} MiB within a limit of {least} MiB");
        println!("{name}: {peak:.0} of {least} MiB");
    }
}
