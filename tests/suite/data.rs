//! Training on every kind of data: streamed data gives the bytes that it gives from memory, and bad
//! data is answered by one line.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::support::arrays::npy;
use crate::support::files::exists;
use crate::support::images::{pattern, patterns};
use crate::support::models::train_patterns;
use crate::support::{Command, TempFolder, bytes, model_bytes};

/// Trains on `data` in a new run. Returns its model and its picture of reconstructions.
fn train(folder: &TempFolder, data: &str, name: &str, flags: &str) -> (Vec<u8>, Vec<u8>) {
    let run = folder.path(name);
    train_patterns(data).steps(13).batch(8).flags(flags).out(&run).succeed();
    (model_bytes(&run), bytes(format!("{run}/reconstructions.png")))
}

/// Trains from memory and streamed, with images fitted in one way.
fn assert_streams_alike(fit: &str) {
    let folder = TempFolder::new("stream");
    let photos = patterns(&folder);
    let fit = format!("--set=data.fit={fit}");
    let resident = train(&folder, &photos, "resident", &fit);
    let few = format!("{fit} --set=data.validation_patches=2");
    // The set has about 1.7 MB. Three copies of it are counted against half of the budget.
    let streamed = train(&folder, &photos, "streamed", &format!("{few} --max-memory 9.5MiB"));
    let few = train(&folder, &photos, "few", &few);
    assert!(streamed == few && streamed.0 == resident.0);
}

#[test]
fn a_streamed_set_of_crops_trains_to_the_same_bytes() {
    assert_streams_alike("crop");
}

#[test]
fn a_streamed_set_of_resized_images_trains_to_the_same_bytes() {
    assert_streams_alike("resize");
}

#[test]
fn a_streamed_set_of_patches_trains_to_the_same_bytes() {
    assert_streams_alike("patches");
}

#[test]
fn a_streamed_training_is_resumed_in_the_middle_of_an_epoch() {
    let folder = TempFolder::new("stream-resumed");
    let photos = patterns(&folder);
    let (whole, part) = (folder.path("whole"), folder.path("part"));
    // Step 5 of 13 is in the middle of an epoch, and of a group of samples.
    let train = |steps| {
        let train = train_patterns(&photos).steps(steps).batch(8).max_memory("9.5MiB");
        train.set("schedule.kind=constant").set("schedule.warmup_steps=0")
    };
    train(13).out(&whole).succeed();
    train(5).out(&part).succeed();
    Command::resume(&part).quiet().steps(13).succeed();
    assert!(model_bytes(&part) == model_bytes(&whole));
}

#[test]
fn streaming_is_reported() {
    let folder = TempFolder::new("stream-reported");
    let photos = patterns(&folder);
    let train = Command::train(&photos)
        .steps(13)
        .batch(8)
        .set("model.layers.code.units=16")
        .set("data.crop=16")
        .max_memory("9.5MiB")
        .on_cpu();
    train.out(folder.path("run")).warns(&["streamed from its files"]);
}

/// An array file of gray images.
fn array(folder: &TempFolder, name: &str, [n, side]: [usize; 2]) -> String {
    let value = |i: usize| ((i % 97) * (i / side % 13) + i / 4096) as u8;
    let values: Vec<u8> = (0..n * side * side).map(value).collect();
    folder.write(name, npy("|u1", &format!("{n}, {side}, {side}"), &values))
}

#[test]
fn streaming_on_many_threads_stays_within_the_budget() {
    let folder = TempFolder::new("threads");
    let data = array(&folder, "x.npy", [3000, 32]);
    let few = "--set=data.validation_patches=64";
    let resident = train(&folder, &data, "resident", few);
    for threads in ["1", "16", "64"] {
        let flags = format!("{few} --max-memory 9MiB --threads {threads}");
        let streamed = train(&folder, &data, &format!("streamed{threads}"), &flags);
        assert!(streamed.0 == resident.0, "{threads} threads");
    }
}

#[test]
fn a_batch_larger_than_a_group_of_samples_is_streamed_to_the_same_bytes() {
    let folder = TempFolder::new("large-batch");
    let data = array(&folder, "x.npy", [3000, 32]);
    let train = train_patterns(&data)
        .steps(13)
        .batch(400)
        .flags("--accumulate 50")
        .set("data.validation_patches=64");
    let (resident, streamed) = (folder.path("resident"), folder.path("streamed"));
    train.clone().out(&resident).succeed();
    train.max_memory("9MiB").out(&streamed).succeed();
    assert!(model_bytes(&resident) == model_bytes(&streamed));
}

#[cfg(target_os = "linux")]
#[test]
fn a_million_patches_stay_within_the_budget() {
    let folder = TempFolder::new("patches");
    let train = |data: &str| {
        Command::train(data)
            .out(folder.path("run"))
            .force()
            .steps(13)
            .batch(8)
            .set("data.fit=patches")
            .set("model.input=[1,4,4]")
            .set("data.validation_patches=64")
            .flags("--threads=2")
            .on_cpu()
            .quiet()
    };
    // The memory of the program itself, and of a training on a few images.
    let own = train(&array(&folder, "few.npy", [4, 128])).peak_memory();
    let data = array(&folder, "x.npy", [1100, 128]);
    let more = train(&data).max_memory("48MiB").peak_memory() - own;
    println!("{own:.1} MiB and {more:.1} MiB more");
    assert!(more <= 48.0, "{more:.1} MiB beside the program's own {own:.1}");
}

#[test]
fn a_list_of_files_trains_alike_from_a_file_and_from_standard_input() {
    let folder = TempFolder::new("lists");
    let photos = patterns(&folder);
    pattern(&folder.path("beside/a.png"), 50);
    let validation = format!("data.validation_source={}", folder.path("beside"));
    let list = |photos: &str| (0..12).map(|i| format!("{photos}/{i:02}.png\n")).collect::<String>();
    // Paths in a file are relative to it.
    let file = folder.write("list.txt", list("photos"));
    let (by_file, by_input) = (folder.path("file"), folder.path("input"));
    let train = |data: &str| train_patterns(data).steps(13).batch(8).set(&validation);
    train(&format!("@{file}")).out(&by_file).succeed();
    let mut process = train("-").out(&by_input).process();
    let mut child = process.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(list(&photos).as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(model_bytes(&by_input), model_bytes(&by_file));
}

/// Asserts that data is refused and that no folder is left.
#[track_caller]
fn refused(folder: &TempFolder, data: &str, flags: &str, words: &[&str]) {
    let run = folder.path("run");
    train_patterns(data).steps(13).batch(8).out(&run).flags(flags).fails(2, words);
    assert!(!exists(&run), "{data} left a folder");
}

/// Patterns of which the first one is cut off.
fn broken(folder: &TempFolder) -> String {
    let photos = patterns(folder);
    let first = Path::new(&photos).join("00.png");
    let whole = bytes(&first);
    std::fs::write(&first, &whole[..whole.len() / 2]).unwrap();
    photos
}

#[test]
fn variants_are_reported_and_need_memory() {
    let folder = TempFolder::new("variants");
    let photos = patterns(&folder);
    let train = Command::train(&photos).steps(2).batch(8).set("data.variants=2");
    let train = train.set("model.layers.code.units=16").set("data.crop=16").on_cpu();
    let messages = train.out(folder.path("varied")).messages();
    assert!(messages.contains("; 108 to train (2 variants of each included), "), "{messages}");
    let streamed = "--set=data.variants=2 --max-memory=9.5MiB";
    refused(&folder, &photos, streamed, &["data.variants", "--max-memory"]);
    refused(&folder, "digits", "--set=data.variants=1", &["data.variants", "8x8"]);
}

#[test]
fn a_broken_image_is_an_error_with_strict() {
    let folder = TempFolder::new("strict");
    refused(&folder, &broken(&folder), "--strict", &["00.png", "cannot be decoded"]);
}

#[test]
fn a_broken_image_is_skipped_counted_and_named_without_strict() {
    let folder = TempFolder::new("lenient");
    Command::train(broken(&folder))
        .out(folder.path("run"))
        .steps(13)
        .batch(8)
        .set("model.layers.code.units=16")
        .set("data.crop=16")
        .set("train.log_every=3")
        .set("data.flip_x=true")
        .set("data.turn=true")
        .set("train.validate_every=0.5")
        .on_cpu()
        .warns(&["skipped 1 file", "00.png"]);
}

#[test]
fn files_and_folders_without_usable_images_are_refused() {
    let folder = TempFolder::new("bad-data");
    let short = [0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 9, 1];
    let nan = npy("<f4", "1, 8, 8", &f32::NAN.to_le_bytes().repeat(64));
    let cases: [(String, &[&str]); 7] = [
        (folder.path("nowhere"), &["nowhere", "does not exist"]),
        (folder.create("empty"), &["empty", "no image found"]),
        (folder.write("odd.bin", [0; 5000]), &["odd.bin", "not a multiple of 3073"]),
        (folder.write("short-idx3", short), &["short-idx3", "the shape 9x9x9"]),
        (folder.write("cut.npy", b"\x93NUMPY\x01\0\x76\0{'descr'"), &["cut.npy", "header"]),
        (folder.write("nan.npy", nan), &["nan.npy", "row 0, column 0, channel 0 is NaN"]),
        ("@nowhere.txt".to_owned(), &["nowhere.txt"]),
    ];
    for (data, words) in cases {
        refused(&folder, &data, "", words);
    }
}

#[test]
fn wrong_options_of_data_are_refused() {
    let folder = TempFolder::new("bad-options");
    let photos = broken(&folder);
    let cases: &[(&str, &[&str])] = &[
        ("--set data.fit=stretch", &["data.fit", "patches"]),
        ("--max-memory lots", &["--max-memory", "512MiB"]),
        ("--max-memory 150KiB", &["00.png", "decoding takes", "raise --max-memory"]),
        ("--set=data.validation_source=nowhere", &["data.validation_source", "nowhere"]),
    ];
    for (flags, words) in cases {
        refused(&folder, &photos, flags, words);
    }
}
