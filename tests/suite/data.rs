//! Training on every kind of data: what is streamed gives the bytes of what is in memory, and bad
//! data one line.

use super::commands::{Place, csae, fail, program, succeed};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

fn picture(path: &str, i: u32) {
    let image = image::RgbImage::from_fn(130 + i % 9, 128 + i % 4, |x, y| {
        image::Rgb([(x * 11 + i * 3) as u8, (y * 13) as u8, (x * y + i) as u8])
    });
    std::fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
    image.save(path).unwrap();
}

pub fn pictures(place: &Place) -> String {
    (0..40).for_each(|i| picture(&place.path(&format!("photos/{i:02}.png")), i));
    place.path("photos")
}

const SHORT: [&str; 13] = [
    "--device",
    "cpu",
    "-q",
    "--steps",
    "13",
    "--batch",
    "8",
    "--set=model.layers.code.units=16",
    "--set=data.crop=16",
    "--set=train.log_every=3",
    "--set=data.flip_x=true",
    "--set=data.turn=true",
    "--set=train.validate_every=0.5",
];

pub fn model(place: &Place, data: &str, name: &str, more: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let out = place.path(name);
    succeed(&[&["train", data, "--out", &out], &SHORT[..], more].concat());
    let read = |file: &str| std::fs::read(Path::new(&out).join(file)).unwrap();
    (read("model.safetensors"), read("reconstructions.png"))
}

#[test]
fn a_streamed_set_trains_to_the_same_bytes() {
    let place = Place::new("stream");
    let photos = pictures(&place);
    for (i, fit) in ["crop", "resize", "patches"].into_iter().enumerate() {
        let fit = format!("--set=data.fit={fit}");
        let resident = model(&place, &photos, &format!("resident{i}"), &[&fit]);
        // the whole set has some 1.7 MB, of which three copies are counted against half of what is
        // allowed
        let streamed = model(
            &place,
            &photos,
            &format!("streamed{i}"),
            &[&fit, "--max-memory", "9.5MiB", "--set=data.validation_patches=2"],
        );
        let few =
            model(&place, &photos, &format!("few{i}"), &[&fit, "--set=data.validation_patches=2"]);
        assert!(streamed == few && streamed.0 == resident.0, "{fit}");
    }
    // In the middle of an epoch, and of a group of samples.
    let stream =
        ["--max-memory", "9.5MiB", "--set=schedule.kind=constant", "--set=schedule.warmup_steps=0"];
    let (whole, part) = (model(&place, &photos, "whole", &stream), place.path("part"));
    let short = SHORT.map(|word| if word == "13" { "5" } else { word });
    succeed(&[&["train", &photos, "--out", &part], &short[..], &stream].concat());
    succeed(&["resume", &part, "-q", "--steps", "13"]);
    assert!(
        std::fs::read(Path::new(&part).join("model.safetensors")).unwrap() == whole.0,
        "a resumed stream"
    );
    let told = csae(
        &[
            &["train", &photos, "--out", &place.path("told")],
            &SHORT[..2],
            &SHORT[3..],
            &["--max-memory", "9.5MiB"],
        ]
        .concat(),
    );
    assert!(String::from_utf8_lossy(&told.stderr).contains("streamed from its files"), "{told:?}");
}

/// An npy file of gray images.
fn array(place: &Place, name: &str, [n, side]: [usize; 2]) -> String {
    let header =
        format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({n}, {side}, {side}), }}");
    let head =
        [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
    let values = (0..n * side * side).map(|i| ((i % 97) * (i / side % 13) + i / 4096) as u8);
    std::fs::write(place.path(name), head.into_iter().chain(values).collect::<Vec<u8>>()).unwrap();
    place.path(name)
}

#[test]
fn many_threads_need_no_more_memory_than_there_is() {
    let place = Place::new("threads");
    let data = array(&place, "x.npy", [3000, 32]);
    let little = ["--max-memory", "9MiB", "--set=data.validation_patches=64"];
    let resident = model(&place, &data, "resident", &["--set=data.validation_patches=64"]);
    for threads in ["1", "16", "64"] {
        let streamed = model(
            &place,
            &data,
            &format!("streamed{threads}"),
            &[&little[..], &["--threads", threads]].concat(),
        );
        assert!(streamed.0 == resident.0, "{threads} threads");
    }
    // A batch of many groups of samples, in parts of eight.
    let large = |out: &str, more: &[&str]| {
        let short = SHORT.map(|word| if word == "8" { "400" } else { word });
        let set = ["--set=data.validation_patches=64", "--accumulate=50"];
        succeed(
            &[&["train", &data, "--out", &place.path(out)], &set[..], &short[..], more].concat(),
        );
        std::fs::read(Path::new(&place.path(out)).join("model.safetensors")).unwrap()
    };
    assert!(
        large("large", &[]) == large("large-streamed", &["--max-memory", "9MiB"]),
        "a large batch"
    );
}

/// The most memory that a command took, in MiB.
#[cfg(target_os = "linux")]
fn most_memory(arguments: &[&str]) -> f64 {
    let mut child = program().args(arguments).stdout(Stdio::null()).spawn().unwrap();
    let mut most = 0.0_f64;
    while child.try_wait().unwrap().is_none() {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        if let Some(kib) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
            most = most.max(kib.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(child.wait().unwrap().success(), "{arguments:?}");
    most
}

#[cfg(target_os = "linux")]
#[test]
fn a_million_patches_stay_within_what_may_be_taken() {
    let place = Place::new("patches");
    let data = array(&place, "x.npy", [1100, 128]);
    let train = |data: &str, more: &[&str]| {
        let out = place.path("run");
        let set = [
            "--set=data.fit=patches",
            "--set=model.input=[1,4,4]",
            "--set=data.validation_patches=64",
            "--force",
        ];
        most_memory(
            &[&["train", data, "--out", &out, "--threads=2"], &SHORT[..7], &set, more].concat(),
        )
    };
    // What the program takes for itself, and for a training of a few images.
    let own = train(&array(&place, "few.npy", [4, 128]), &[]);
    let most = train(&data, &["--max-memory", "48MiB"]);
    println!("{own:.1} MiB and {:.1} MiB more", most - own);
    assert!(
        most - own <= 48.0,
        "{:.1} MiB were taken beside the program's own {own:.1}",
        most - own
    );
}

#[test]
fn lists_and_validation_sources_train() {
    let place = Place::new("lists");
    let photos = pictures(&place);
    picture(&place.path("beside/a.png"), 50);
    let list = (0..12).map(|i| format!("{photos}/{i:02}.png\n")).collect::<String>();
    std::fs::write(
        place.path("list.txt"),
        (0..12).map(|i| format!("photos/{i:02}.png\n")).collect::<String>(),
    )
    .unwrap();
    let validation = format!("--set=data.validation_source={}", place.path("beside"));
    let by_file = model(&place, &format!("@{}", place.path("list.txt")), "file", &[&validation]);
    let mut child = program()
        .args([&["train", "-", "--out", &place.path("input")], &SHORT[..], &[&validation]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(
        std::fs::read(Path::new(&place.path("input")).join("model.safetensors")).unwrap(),
        by_file.0
    );
}

#[test]
fn bad_data_is_answered_by_one_line() {
    let place = Place::new("bad-data");
    let photos = pictures(&place);
    let whole = std::fs::read(Path::new(&photos).join("00.png")).unwrap();
    std::fs::write(Path::new(&photos).join("00.png"), &whole[..whole.len() / 2]).unwrap();
    std::fs::create_dir_all(place.path("empty")).unwrap();
    std::fs::write(place.path("odd.bin"), [0; 5000]).unwrap();
    std::fs::write(place.path("short-idx3"), [0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 9, 1])
        .unwrap();
    std::fs::write(place.path("cut.npy"), b"\x93NUMPY\x01\0\x76\0{'descr'").unwrap();
    let nan = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1), }";
    let nan = [
        b"\x93NUMPY\x01\0",
        &(nan.len() as u16).to_le_bytes()[..],
        nan.as_bytes(),
        &f32::NAN.to_le_bytes(),
    ]
    .concat();
    std::fs::write(place.path("nan.npy"), nan).unwrap();
    let run = place.path("run");
    let bad = |data: &str, more: &[&str], words: &[&str]| {
        fail(&[&["train", data, "--out", &run], &SHORT[..], more].concat(), 2, words);
        assert!(!Path::new(&run).exists(), "{data} left a folder");
    };
    bad(&photos, &["--strict"], &["00.png", "cannot be decoded"]);
    bad(&place.path("nowhere"), &[], &["nowhere", "does not exist"]);
    bad(&place.path("empty"), &[], &["empty", "no image found"]);
    bad(&place.path("odd.bin"), &[], &["odd.bin", "not a multiple of 3073"]);
    bad(&place.path("short-idx3"), &[], &["short-idx3", "the shape 9x9x9"]);
    bad(&place.path("cut.npy"), &[], &["cut.npy", "header"]);
    bad(&place.path("nan.npy"), &[], &["nan.npy", "[0, 0, 0] is NaN"]);
    bad("@nowhere.txt", &[], &["nowhere.txt"]);
    bad(&photos, &["--set", "data.fit=stretch"], &["data.fit", "patches"]);
    bad(&photos, &["--max-memory", "lots"], &["--max-memory", "512MiB"]);
    bad(&photos, &["--max-memory", "150KiB"], &["00.png", "decoding takes", "raise --max-memory"]);
    bad(&photos, &["--set=data.validation_source=nowhere"], &["data.validation_source", "nowhere"]);
    // without --strict the broken one is counted and named
    let run = place.path("lenient");
    let arguments: Vec<&str> = SHORT.iter().copied().filter(|flag| *flag != "-q").collect();
    let output = csae(&[&["train", &photos, "--out", &run], &arguments[..]].concat());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && text.contains("skipped 1 file") && text.contains("00.png"),
        "{text}"
    );
}
