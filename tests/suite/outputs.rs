//! Results of images with the same name: every command that writes a file per image gives each a
//! file of its own, or refuses before any work begins.

use std::path::Path;

use serde_json::Value;

use crate::detect::trained;
use crate::support::files::list;
use crate::support::models::{digits, pyramid};
use crate::support::{Command, TempFolder, bytes, is_file, text};

/// Copies images of the shared detector to these paths.
fn images<const N: usize>(folder: &TempFolder, names: [&str; N]) -> [String; N] {
    let mut number = 0;
    names.map(|name| {
        let image = bytes(format!("{}/{number:02}.png", trained().shapes.images));
        number += 1;
        folder.create(Path::new(name).parent().unwrap().to_str().unwrap());
        folder.write(name, image)
    })
}

/// A command on the CPU with a model and images, that writes to the folder `out`.
fn command(folder: &TempFolder, name: &str, model: &str, images: &[String]) -> Command {
    Command::new(name).arg(model).args(images).out(folder.path("out")).on_cpu().quiet()
}

#[test]
fn detections_of_images_with_one_name_are_kept_apart() {
    let folder = TempFolder::new("outputs-detect");
    let images = images(&folder, ["1/x.png", "2/x.png", "3/y.png"]);
    let predict = command(&folder, "detect predict", &trained().run, &images);
    predict.flags("--score 0.05").succeed();
    let all: Value = serde_json::from_str(&text(folder.path("out/detections.json"))).unwrap();
    let mut names: Vec<&str> =
        all.as_array().unwrap().iter().map(|one| one["image"].as_str().unwrap()).collect();
    names.dedup();
    assert_eq!(names, ["1/x.png", "2/x.png", "y.png"]);
    for file in ["1/x.png", "1/x.xml", "2/x.png", "2/x.xml", "y.png", "y.xml"] {
        assert!(is_file(folder.path("out"), file), "{file}");
    }
    assert!(text(folder.path("out/2/x.xml")).contains("<filename>2/x.png</filename>"));
}

#[test]
fn folders_with_images_of_one_name_have_results_of_their_own() {
    let folder = TempFolder::new("outputs-folders");
    images(&folder, ["a/p/x.png", "b/p/x.png", "b/p/y.png"]);
    let folders = ["a", "b"].map(|name| folder.path(name));
    command(&folder, "reconstruct", pyramid(), &folders).succeed();
    for file in ["a/p/x.png", "b/p/x.png", "p/y.png"] {
        assert!(is_file(folder.path("out"), file), "{file}");
    }
}

/// A second call finds its own results among the images.
#[test]
fn results_below_the_images_are_left_out() {
    let folder = TempFolder::new("outputs-again");
    images(&folder, ["in/x.png", "in/y.png"]);
    let (source, out) = (folder.path("in"), folder.path("in/out"));
    for (name, model) in [("reconstruct", pyramid()), ("segment predict", crate::segment::model())]
    {
        let call = |source: &str| {
            Command::new(name).arg(model).arg(source).out(&out).on_cpu().flags("--force")
        };
        call(&source).succeed();
        let written = list(&out).len();
        call(&source).warns(&["files are left out"]);
        assert_eq!(list(&out).len(), written, "{name}");
        // A folder of results that is named is an image folder like any other.
        call(&out).fails(2, &["overwrite"]);
        std::fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn denoised_images_with_one_name_have_files_of_their_own() {
    let folder = TempFolder::new("outputs-denoise");
    let images = images(&folder, ["1/x.png", "2/x.png"]);
    let denoise = Command::new("denoise").args(&images).out(folder.path("out")).on_cpu().quiet();
    denoise.flags("--sigma 5").succeed();
    let [first, second] = ["1", "2"].map(|name| bytes(folder.path(&format!("out/{name}/x.png"))));
    assert!(first != second);
}

#[test]
fn classes_of_images_with_one_name_are_listed_by_path() {
    let folder = TempFolder::new("outputs-classify");
    let images = images(&folder, ["1/x.png", "2/x.png"]);
    let classify = Command::new("classify").arg(&crate::finetune::classifier().run);
    let lines = classify.args(&images).flags("--resize").on_cpu().quiet().json();
    let names: Vec<&str> = lines.iter().filter_map(|line| line["image"].as_str()).collect();
    assert_eq!(names, ["1/x.png", "2/x.png"]);
}

#[test]
fn an_image_with_the_name_of_another_result_has_files_of_its_own() {
    let folder = TempFolder::new("outputs-overlay");
    let model = crate::segment::model();
    for (out, order) in [("one", ["a.png", "a.overlay.png"]), ("two", ["a.overlay.png", "a.png"])] {
        let images = images(
            &folder,
            order.map(|name| ["in/", name].concat()).each_ref().map(|x| x.as_str()),
        );
        let predict = Command::new("segment predict").arg(model).args(&images);
        predict.out(folder.path(out)).on_cpu().quiet().succeed();
        let files = std::fs::read_dir(folder.path(out)).unwrap().count();
        assert_eq!(files, 4, "{order:?}");
    }
}

#[test]
fn a_result_in_place_of_another_image_is_refused() {
    let folder = TempFolder::new("outputs-replace");
    let images = images(&folder, ["in/x.png", "out/z.png"]);
    let before = bytes(&images[1]);
    for (name, model) in [("reconstruct", pyramid()), ("detect predict", &trained().run)] {
        let command = command(&folder, name, model, &images).force();
        command.fails(2, &["z.png", "would overwrite the image"]);
        assert!(bytes(&images[1]) == before && !is_file(folder.path("out"), "x.png"), "{name}");
    }
    let denoise = Command::new("denoise").args(&images).out(folder.path("out")).on_cpu().quiet();
    denoise.force().fails(2, &["z.png", "would overwrite the image"]);
}

/// A folder called `out.png` was made.
#[test]
fn the_file_of_a_single_result_can_be_named() {
    let folder = TempFolder::new("outputs-file");
    let image = &images(&folder, ["in/x.png"])[0];
    let segmenter = crate::segment::model();
    for (name, arguments, files) in [
        ("denoise", vec![image.as_str()], &["r.png"][..]),
        ("reconstruct", vec![pyramid(), image], &["r.png"]),
        ("segment predict", vec![segmenter, image], &["r.overlay.png", "r.png"]),
        ("detect predict", vec![&trained().run, image], &["r.json", "r.png", "r.xml"]),
        ("texture", vec![image], &["r.png"]),
        ("stylize", vec!["--content", image, "--style", image], &["r.png"]),
    ] {
        let out = folder.create(&name.replace(' ', "-"));
        let command = Command::new(name).args(&arguments).on_cpu().quiet();
        command.clone().out(format!("{out}/r.png")).succeed();
        let written = list(&out);
        let written: Vec<&str> =
            written.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(written, files, "{name}");
        assert!(Path::new(&out).join("r.png").is_file(), "{name}");
        command.clone().out(format!("{out}/r.png")).fails(2, &["r.png", "--force"]);
        for file in ["r.bmp", "r.wav", "r.h5", "r.json"] {
            command.clone().out(format!("{out}/{file}")).fails(2, &[file, ".png"]);
        }
    }
    let denoise = Command::new("denoise").arg(image).out("plain.jpg").on_cpu().quiet();
    denoise.current_dir(folder.root()).succeed();
    assert!(bytes(folder.path("plain.jpg")).starts_with(&[0xff, 0xd8]));
}

#[test]
fn a_file_for_several_results_is_refused() {
    let folder = TempFolder::new("outputs-several");
    let images = images(&folder, ["in/x.png", "in/y.png"]);
    let out = folder.path("out.png");
    for command in [
        Command::new("denoise").args(&images),
        Command::new("denoise").arg(folder.path("in")),
        Command::reconstruct(pyramid(), &images[0]).arg(&images[1]),
        Command::new("segment predict").arg(crate::segment::model()).args(&images),
        Command::new("texture").args(&images),
    ] {
        command.on_cpu().quiet().out(&out).fails(2, &["out.png", "2 results", "name a folder"]);
    }
    // These always write several files.
    for command in [
        Command::train("digits"),
        Command::inspect(pyramid()),
        Command::new("anomaly paint").arg(&images[0]),
        Command::new("sweep").arg("digits"),
        Command::new("grid").arg("digits").set("seed=1,2"),
        Command::new("probe").arg(pyramid()).flags("--train digits --test digits"),
    ] {
        command.on_cpu().quiet().out(&out).fails(2, &["out.png", "name a folder"]);
    }
    Command::new("man").out(&out).fails(2, &["out.png", "name a folder"]);
    assert!(!Path::new(&out).exists());
}

/// With `-q`, the files are the result.
#[test]
fn quiet_commands_print_nothing_about_written_files() {
    let folder = TempFolder::new("outputs-quiet");
    let image = &images(&folder, ["in/x.png"])[0];
    let mask = folder.path("mask.png");
    image::GrayImage::from_fn(64, 48, |x, _| image::Luma([if x == 9 { 255 } else { 0 }]))
        .save(&mask)
        .unwrap();
    let run = digits();
    let new = |line: &str, arguments: &[&str]| Command::new(line).args(arguments);
    // The second column is whether numbers are a result, too.
    for (number, (command, has_numbers)) in [
        (new("denoise", &[image]), false),
        (new("inpaint", &[image, "--mask", &mask]), false),
        (new("upscale", &[image]), false),
        (new("reconstruct", &[pyramid(), image]), false),
        (new("segment predict", &[crate::segment::model(), image]), false),
        (new("detect predict", &[&trained().run, image]), false),
        (new("texture", &[image]), false),
        (new("anomaly paint", &["textures"]), false),
        (new("inspect", &[run]), true),
        (new("probe", &[run, "--train", "digits", "--test", "digits"]), true),
    ]
    .into_iter()
    .enumerate()
    {
        let out = folder.path(&format!("out-{number}"));
        let output = command.clone().out(&out).on_cpu().quiet().output();
        assert!(output.succeeded() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(!output.stdout.is_empty(), has_numbers, "{output:?}");
        assert!(!output.stdout.contains(&out) && Path::new(&out).exists(), "{output:?}");
    }
    let compare = new("denoise", &[image, "--compare", image]).out(folder.path("compared"));
    assert!(compare.on_cpu().quiet().succeed().contains("PSNR"), "numbers were asked for");
}
