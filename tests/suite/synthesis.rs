//! Textures and styles as a user makes them.

use std::path::Path;

use csae::internals::data::image_file::ImageFile;
use csae::internals::report::picture;
use serde_json::Value;

use super::commands::{Place, csae, fail, succeed};
use super::gpu;

const PHOTOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/images/photos");

/// A picture of bricks in colours, H,W,C.
fn bricks(place: &Place, name: &str, [h, w]: [usize; 2]) -> String {
    let pixel = |at: usize| {
        let (y, x) = (at / w, at % w);
        let (row, column) = (y / 8, (x + y / 8 % 2 * 8) / 16);
        let mortar = y % 8 == 0 || (x + y / 8 % 2 * 8).is_multiple_of(16);
        let shade = 0.1 * ((row * 7 + column * 3) % 5) as f32;
        if mortar { [0.75, 0.72, 0.7] } else { [0.5 + shade, 0.25 + 0.5 * shade, 0.2] }
    };
    let pixels: Vec<f32> = (0..h * w).flat_map(pixel).collect();
    let path = place.path(name);
    picture::save_png(Path::new(&path), &pixels, h, w, 3).unwrap();
    path
}

fn pixels(path: &str) -> (Vec<u8>, usize, usize) {
    let image = ImageFile::read(Path::new(path)).unwrap();
    let bytes = image.pixels().iter().map(|v| (v * 255.0).round() as u8).collect();
    (bytes, image.h, image.w)
}

fn told(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn texture(exemplar: &str, out: &str, more: &[&str]) -> Value {
    let arguments =
        [&["texture", exemplar, "--device", "cpu", "--json", "-o", out, "--force"], more].concat();
    told(&succeed(&arguments)).remove(0)
}

#[test]
fn a_texture_has_the_exemplars_moments() {
    let place = Place::new("texture");
    let (exemplar, out) = (bricks(&place, "bricks.png", [48, 64]), place.path("out"));
    let result = format!("{out}/bricks.png");
    let optimised = texture(&exemplar, &out, &["--optimise", "--steps", "40", "--size", "80x56"]);
    let (first, h, w) = pixels(&result);
    assert_eq!((h, w), (56, 80));
    let share =
        |line: &Value| line["distance"].as_f64().unwrap() / line["shuffled"].as_f64().unwrap();
    assert!(share(&optimised) < 0.3, "{optimised}");
    // the same again, and another by another seed
    texture(&exemplar, &out, &["--optimise", "--steps", "40", "--size", "80x56"]);
    assert_eq!(pixels(&result).0, first);
    texture(&exemplar, &out, &["--optimise", "--steps", "40", "--size", "80x56", "--seed", "1"]);
    assert_ne!(pixels(&result).0, first);
    let quick = texture(&exemplar, &out, &[]);
    assert!(share(&quick) < 0.6 && quick["width"] == 128 && quick["height"] == 96, "{quick}");
    let page = std::fs::read_to_string(format!("{out}/gallery.html")).unwrap();
    assert!(page.contains("bricks") && page.matches("<img ").count() == 2);
}

#[test]
fn tiles_meet() {
    let place = Place::new("tiles");
    let (exemplar, out) = (bricks(&place, "bricks.png", [64, 64]), place.path("out"));
    // how different neighbouring columns and rows are, and those of opposite sides
    let seams = || {
        let (p, h, w) = pixels(&format!("{out}/bricks.png"));
        let apart = |a: usize, b: usize| {
            p[a * 3..a * 3 + 3]
                .iter()
                .zip(&p[b * 3..])
                .map(|(a, b)| f64::from(a.abs_diff(*b)))
                .sum::<f64>()
        };
        let column = |x: usize| {
            (0..h).map(|y| apart(y * w + x, y * w + (x + 1) % w)).sum::<f64>() / h as f64
        };
        let row = |y: usize| {
            (0..w).map(|x| apart(y * w + x, (y + 1) % h * w + x)).sum::<f64>() / w as f64
        };
        let most = |of: &dyn Fn(usize) -> f64, n: usize| (0..n - 1).map(of).fold(0.0, f64::max);
        (column(w - 1) / most(&column, w), row(h - 1) / most(&row, h))
    };
    for more in [&[][..], &["--optimise", "--steps", "15"]] {
        texture(&exemplar, &out, &[&["--tile", "--size", "72x88"], more].concat());
        let (across, down) = seams();
        assert!(across < 1.3 && down < 1.3, "{more:?}: {across} {down}");
    }
}

#[test]
fn a_style_goes_where_it_is_wanted() {
    let place = Place::new("style");
    let (content, style, out) =
        (format!("{PHOTOS}/chelsea.png"), format!("{PHOTOS}/astronaut.png"), place.path("out"));
    let result = format!("{out}/chelsea.in.astronaut.png");
    let make = |more: &[&str]| {
        let common = [
            "stylize",
            "--content",
            &content,
            "--size",
            "96",
            "--device",
            "cpu",
            "--json",
            "-o",
            &out,
            "--force",
            "--style",
            &style,
        ];
        let line = told(&succeed(&[&common, more].concat())).remove(0);
        let of = |key: &str| line[key].as_f64().unwrap();
        (of("distance") / of("before"), of("ssim"), pixels(&result).0)
    };
    let (quick, ssim, styled) = make(&[]);
    assert!(quick < 0.5, "{quick}");
    let (slow, ..) = make(&["--optimise", "--steps", "60"]);
    assert!(slow < quick, "{slow} {quick}");
    let (weak, alike, plain) = make(&["--strength", "0"]);
    assert!((weak - 1.0).abs() < 0.02 && alike > 0.99 && alike > ssim, "{weak} {alike}");
    // colours stay: the differences of channels are those of the content
    let (_, _, gray) = make(&["--keep-color"]);
    let colour =
        |p: &[u8]| p.chunks(3).map(|p| f64::from(p[0]) - f64::from(p[2])).collect::<Vec<_>>();
    let mean = |a: &[u8], b: &[u8]| {
        colour(a).iter().zip(colour(b)).map(|(a, b)| (a - b).abs()).sum::<f64>()
            / (a.len() / 3) as f64
    };
    assert!(
        mean(&gray, &plain) < 8.0 && mean(&styled, &plain) > 2.0 * mean(&gray, &plain),
        "{} {}",
        mean(&gray, &plain),
        mean(&styled, &plain)
    );
    // a mask's black half is the content, its white half the style
    let mask = place.path("mask.png");
    picture::save_png(Path::new(&mask), &[[0.0; 16], [1.0; 16]].concat().repeat(4), 4, 32, 1)
        .unwrap();
    let (_, _, half) = make(&["--mask", &mask]);
    let (h, w) = (64, 96);
    let same = |a: &[u8], b: &[u8], columns: std::ops::Range<usize>| {
        let pairs = (0..h).flat_map(|y| columns.clone().map(move |x| (y * w + x) * 3));
        let apart: f64 = pairs.map(|at| f64::from(a[at].abs_diff(b[at]))).sum();
        apart / (h * columns.len()) as f64
    };
    assert!(
        same(&half, &styled, 70..96) < 1.5 && same(&half, &styled, 0..26) > 5.0,
        "{} {}",
        same(&half, &styled, 70..96),
        same(&half, &styled, 0..26)
    );
    // mixed with itself it is itself
    let again = place.path("again.png");
    std::fs::copy(&style, &again).unwrap();
    let common = [
        "stylize",
        "--content",
        &content,
        "--size",
        "96",
        "--device",
        "cpu",
        "--json",
        "-o",
        &out,
        "--force",
        "--style",
        &style,
        &again,
    ];
    succeed(&[&common[..], &["--mix", "1,3"]].concat());
    let (mixed, ..) = pixels(&format!("{out}/chelsea.in.astronaut+again.png"));
    assert!(same(&mixed, &styled, 0..96) < 0.5);
    let page = std::fs::read_to_string(format!("{out}/gallery.html")).unwrap();
    assert!(page.contains("in the style of astronaut+again"));
}

#[test]
fn both_paths_paint_alike() {
    let Some(_turn) = gpu::turn("both_paths_paint_alike") else { return };
    let place = Place::new("paint-gpu");
    let (exemplar, out) = (bricks(&place, "bricks.png", [48, 48]), place.path("out"));
    let content = format!("{PHOTOS}/chelsea.png");
    let on = |device: &str| {
        succeed(&[
            "texture",
            &exemplar,
            "--device",
            device,
            "--optimise",
            "--steps",
            "4",
            "--size",
            "56",
            "-q",
            "-o",
            &out,
            "--force",
        ]);
        let texture = pixels(&format!("{out}/bricks.png")).0;
        succeed(&[
            "stylize",
            "--content",
            &content,
            "--style",
            &exemplar,
            "--size",
            "96",
            "--device",
            device,
            "-q",
            "-o",
            &out,
            "--force",
        ]);
        (texture, pixels(&format!("{out}/chelsea.in.bricks.png")).0)
    };
    let (cpu, other) = (on("cpu"), on(&gpu::name()));
    let apart = |a: &[u8], b: &[u8]| {
        a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
    };
    assert!(
        apart(&cpu.0, &other.0) < 1.0 && apart(&cpu.1, &other.1) < 0.2,
        "{} {}",
        apart(&cpu.0, &other.0),
        apart(&cpu.1, &other.1)
    );
    // the comparator tells images apart
    assert!(apart(&cpu.0, &cpu.0.iter().rev().copied().collect::<Vec<_>>()) > 1.0);
}

#[test]
fn what_cannot_be_painted_is_said() {
    let place = Place::new("paint-bad");
    let (large, small) =
        (bricks(&place, "large.png", [64, 64]), bricks(&place, "small.png", [24, 40]));
    let out = place.path("out");
    let cpu = ["-q", "--device", "cpu", "-o", &out];
    let refuse =
        |arguments: &[&str], words: &[&str]| fail(&[arguments, &cpu[..]].concat(), 2, words);
    refuse(&["texture", &small], &["small.png", "40x24", "32x32"]);
    // before the first one is made
    refuse(&["texture", &large, &small], &["small.png", "40x24", "32x32"]);
    refuse(&["texture", &large, "--size", "20"], &["20x20", "32x32"]);
    refuse(&["texture", &large, "--size", "3x9000"], &["--size 3x9000"]);
    refuse(&["texture", &large, "--steps", "5"], &["--optimise"]);
    refuse(&["texture", &large, "--optimise", "--steps", "0"], &["--steps 0"]);
    refuse(&["texture", &large, &large], &["large"]);
    refuse(
        &["texture", &large, "--size", "4000", "--max-memory", "300MiB"],
        &["4032x4032", "MiB", "--max-memory"],
    );
    // what each of its parts would fit in, all of them do not
    refuse(
        &["texture", &large, "--size", "500", "--optimise", "--max-memory", "200MiB"],
        &["532x532", "MiB", "--max-memory"],
    );
    refuse(&["texture", &large, "-m", "denoise"], &["denoise", "colour"]);
    refuse(&["texture", &place.path("none.png")], &["none.png"]);
    let style = |more: &[&str], words: &[&str]| {
        refuse(&[&["stylize", "--content", &large, "--style", &large], more].concat(), words)
    };
    style(&["--strength", "2"], &["--strength 2"]);
    style(&["--mix", "1,2"], &["--mix"]);
    style(&["--mask", &large, &large], &["--mask", "2 masks for 1"]);
    style(&["--style-scale", "0"], &["--style-scale 0"]);
    refuse(&["stylize", "--content", &small, "--style", &large], &["small.png", "40x24"]);
    assert!(!Path::new(&out).exists());
    // results are not written over
    succeed(&[&["texture", &large][..], &cpu[..]].concat());
    refuse(&["texture", &large], &["--force"]);
    // what is transparent stays so
    let clear = place.path("clear.png");
    let mut file = ImageFile::from_pixels(&[0.5; 64 * 64 * 3], 64, 64, 3, false);
    file.set_alpha(Some(&[0.25; 64 * 64]));
    file.save(Path::new(&clear)).unwrap();
    assert!(
        csae(
            &[&["stylize", "--content", &clear, "--style", &large, "--force"][..], &cpu[..]]
                .concat()
        )
        .status
        .success()
    );
    let styled = ImageFile::read(Path::new(&format!("{out}/clear.in.large.png"))).unwrap();
    assert!(styled.alpha().unwrap().iter().all(|a| (a - 0.25).abs() < 0.01));
}
