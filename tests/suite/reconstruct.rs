//! `csae reconstruct`: memory, names of what it writes, a reader that leaves.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::commands::{Place, csae, fail, one_line, program, succeed};
use crate::data::{model, pictures};

const BRICK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/images/textures/brick.png");

#[test]
fn images_that_do_not_fit_are_reconstructed_from_their_files() {
    let place = Place::new("reconstruct-memory");
    let photos = pictures(&place);
    model(&place, &photos, "run", &[]);
    let reconstruct = |name: &str, more: &[&str]| {
        let out = place.path(name);
        succeed(
            &[
                &["reconstruct", &place.path("run"), &photos, "--device", "cpu", "-q", "-o", &out],
                more,
            ]
            .concat(),
        );
        (0..40).map(|i| std::fs::read(format!("{out}/{i:02}.png")).unwrap()).collect::<Vec<_>>()
    };
    // Some 2 MB, of which three copies are counted against half of what is allowed.
    let (run, resident) = (place.path("run"), reconstruct("resident", &[]));
    assert!(resident == reconstruct("streamed", &["--max-memory", "9.5MiB"]));
    // The same as single files, which are as many sources.
    let files: Vec<String> = (0..40).map(|i| format!("{photos}/{i:02}.png")).collect();
    let out = place.path("single");
    let mut args =
        vec!["reconstruct", &run, "--device", "cpu", "-q", "--max-memory", "9.5MiB", "-o", &out];
    args.extend(files.iter().map(String::as_str));
    succeed(&args);
    let single: Vec<_> =
        (0..40).map(|i| std::fs::read(format!("{out}/{i:02}.png")).unwrap()).collect();
    assert!(single == resident);
    let little = place.path("little");
    let args = [
        "reconstruct",
        &place.path("run"),
        &photos,
        "--device",
        "cpu",
        "-q",
        "--max-memory",
        "1MiB",
        "-o",
        &little,
    ];
    fail(&args, 2, &["data 1.", "one sample in the model", "raise --max-memory"]);
    assert!(!Path::new(&little).exists());
}

#[test]
fn every_image_has_a_place_of_its_own() {
    let place = Place::new("reconstruct-names");
    let photos = pictures(&place);
    model(&place, &photos, "run", &[]);
    let run = place.path("run");
    // A folder of its own name inside, and three images that differ in their endings or in case.
    for name in ["Z/Z/one.png", "Z/one.png", "Z/a.png", "Z/a.gif", "Z/A.PNG"] {
        let path = place.path(name);
        std::fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        std::fs::copy(format!("{photos}/00.png"), path).unwrap();
    }
    let out = place.path("out");
    succeed(&["reconstruct", &run, &place.path("Z"), "--device", "cpu", "-q", "-o", &out]);
    for name in ["Z/one.png", "one.png", "A.png", "a.png.png", "a.gif.png"] {
        let lower = Path::new(&out).join(name.to_lowercase());
        assert!(Path::new(&out).join(name).is_file() || lower.is_file(), "{name}");
    }
    let twin = format!("{photos}/00.png");
    let args = [
        "reconstruct",
        &run,
        &twin,
        &twin,
        &twin,
        "--device",
        "cpu",
        "-q",
        "-o",
        &place.path("twins"),
    ];
    fail(&args, 2, &["00.png", "both", "different -o"]);
    assert!(!Path::new(&place.path("twins")).exists());
}

#[test]
#[cfg(unix)]
fn files_are_written_though_nobody_reads_the_lines_and_a_full_disk_is_told() {
    let place = Place::new("reconstruct-pipe");
    let photos = pictures(&place);
    model(&place, &photos, "run", &[]);
    let (run, out) = (place.path("run"), place.path("out"));
    let mut child = program()
        .args(["reconstruct", &run, &photos, "--device", "cpu", "-q", "-o", &out])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(child.wait().unwrap().success() && line.contains("00.png"));
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 40);
    // Nor does a reader that leaves keep inspect from its pictures.
    let look = place.path("look");
    let mut child = program()
        .args(["inspect", &run, "--device", "cpu", "-o", &look])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success() && Path::new(&look).join("atoms.png").is_file());
    if Path::new("/dev/full").exists() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = program()
            .args(["eval", &run, BRICK, "--device", "cpu", "-q"])
            .stdout(full)
            .output()
            .unwrap();
        one_line(&output, 1, &["standard output"]);
    }
    assert!(csae(&["devices"]).status.success());
}
