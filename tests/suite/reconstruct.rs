//! `csae reconstruct`: memory, names of the files that it writes, a reader that leaves.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::files::{exists, list};
use crate::support::images::BRICK;
use crate::support::models::{Patterns, patterns};
use crate::support::{Command, TempFolder, bytes, is_file};

fn reconstruct(images: &str, out: &str) -> Command {
    Command::reconstruct(&patterns().run, images).out(out).on_cpu().quiet()
}

/// The reconstructions of the 40 patterns in a folder.
fn results(out: &str) -> Vec<Vec<u8>> {
    (0..40).map(|i| bytes(format!("{out}/{i:02}.png"))).collect()
}

#[test]
fn images_that_do_not_fit_in_memory_are_reconstructed_from_their_files() {
    let folder = TempFolder::new("reconstruct-memory");
    let (resident, streamed) = (folder.path("resident"), folder.path("streamed"));
    let Patterns { images, run } = patterns();
    reconstruct(images, &resident).succeed();
    // About 2 MB. Three copies of it are counted against half of the budget.
    reconstruct(images, &streamed).max_memory("9.5MiB").succeed();
    assert!(results(&resident) == results(&streamed));
    // The same as single files: each is a source of its own.
    let single = folder.path("single");
    let files = (0..40).map(|i| format!("{images}/{i:02}.png"));
    let command = Command::new("reconstruct").arg(run).args(files).out(&single);
    command.max_memory("9.5MiB").on_cpu().quiet().succeed();
    assert!(results(&single) == results(&resident));
}

#[test]
fn a_budget_below_one_image_and_its_model_is_refused() {
    let folder = TempFolder::new("reconstruct-little");
    let out = folder.path("out");
    let words = ["data 1.", "one sample in the model", "raise --max-memory"];
    reconstruct(&patterns().images, &out).max_memory("1MiB").fails(2, &words);
    assert!(!exists(&out));
}

#[test]
fn images_whose_names_differ_in_ending_or_case_have_files_of_their_own() {
    let folder = TempFolder::new("reconstruct-names");
    let image = bytes(format!("{}/00.png", patterns().images));
    // A folder inside with the name of its own folder, and three endings of one name.
    for name in ["Z/Z/one.png", "Z/one.png", "Z/a.png", "Z/a.gif", "Z/A.PNG"] {
        folder.write(name, &image);
    }
    let out = folder.path("out");
    reconstruct(&folder.path("Z"), &out).succeed();
    for name in ["Z/one.png", "one.png", "A.png", "a.png.png", "a.gif.png"] {
        assert!(is_file(&out, name) || is_file(&out, &name.to_lowercase()), "{name}");
    }
}

#[test]
fn the_same_image_given_twice_is_refused() {
    let folder = TempFolder::new("reconstruct-twins");
    let (twin, out) = (format!("{}/00.png", patterns().images), folder.path("twins"));
    let command = reconstruct(&twin, &out).args([&twin, &twin]);
    command.fails(2, &["00.png", "both", "different -o"]);
    assert!(!exists(&out));
}

#[test]
#[cfg(unix)]
fn all_images_are_written_although_the_reader_of_the_lines_leaves() {
    let folder = TempFolder::new("reconstruct-pipe");
    let out = folder.path("out");
    // With -q there are no lines.
    let loud = Command::reconstruct(&patterns().run, &patterns().images).out(&out).on_cpu();
    let mut process = loud.process();
    let mut child = process.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(child.wait().unwrap().success() && line.contains("00.png"));
    assert_eq!(list(&out).len(), 40);
}

#[test]
#[cfg(unix)]
fn pictures_of_inspect_are_written_although_the_reader_of_the_lines_leaves() {
    let folder = TempFolder::new("inspect-pipe");
    let look = folder.path("look");
    let mut process = Command::inspect(&patterns().run).out(&look).on_cpu().process();
    let mut child = process.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success() && is_file(&look, "atoms.png"));
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_standard_output_is_reported() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let eval = Command::eval(&patterns().run, BRICK).on_cpu().quiet();
    let output = crate::support::Output::from(eval.process().stdout(full).output().unwrap());
    output.assert_failed(1, &["standard output"]);
}
