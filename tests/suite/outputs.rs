//! Results of images with the same name: every command that writes a file per image gives each a
//! file of its own, or refuses before any work begins.

use std::path::Path;

use serde_json::Value;

use crate::detect::trained;
use crate::support::models::pyramid;
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
