//! Every kind of bad input that a user can come by: one line that says what, where and what to do,
//! exit status 1 or 2, no panic, and nothing left where the result would have been. Adapters that
//! are missing or fail are in `faults`, disks that are full or read-only in `disk`, checkpoints in
//! `resume`.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::support::arrays::{idx, npy};
use crate::support::files::{config, exists, list};
use crate::support::images::BRICK;
use crate::support::{Command, TempFolder, bytes, model_bytes};

/// A training that makes a sound run, of a code with `units` units.
fn train(out: &str, units: usize) -> Command {
    let train = Command::train("digits").out(out).steps(1).batch(8);
    train.set(format!("model.layers.code.units={units}")).on_cpu().quiet()
}

/// A sound run that no test changes.
fn sound() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let run = TempFolder::shared().path("bad-input-sound");
        train(&run, 8).succeed();
        run
    })
}

/// Runs a command that writes to `out`. It must fail and leave nothing there.
#[track_caller]
fn refused(folder: &TempFolder, command: Command, status: i32, words: &[&str]) {
    let out = folder.path("out");
    let command = command.out(&out);
    let output = command.output();
    assert!(output.stdout.is_empty(), "{command:?}: {output:?}");
    output.assert_failed(status, words);
    assert!(!exists(&out) && !exists(format!("{out}.partial")), "{command:?} left something");
}

/// Data that neither a training nor a reconstruction nor an evaluation takes.
#[track_caller]
fn data_refused(folder: &TempFolder, data: &str, words: &[&str]) {
    refused(folder, Command::train(data).steps(1).on_cpu().quiet(), 2, words);
    refused(folder, Command::reconstruct(sound(), data).on_cpu().quiet(), 2, words);
    Command::eval(sound(), data).on_cpu().quiet().fails(2, words);
}

/// A model file that no command takes.
#[track_caller]
fn model_refused(name: &str, bytes: &[u8], words: &[&str]) {
    let folder = TempFolder::new("bad-model");
    let path = folder.write(name, bytes);
    let words = [&[name], words].concat();
    refused(&folder, Command::reconstruct(&path, BRICK).on_cpu().quiet(), 2, &words);
    Command::eval(&path, "digits").on_cpu().quiet().fails(2, &words);
}

#[test]
fn missing_data() {
    let folder = TempFolder::new("bad-missing");
    data_refused(&folder, &folder.path("nowhere"), &["nowhere", "does not exist"]);
    data_refused(&folder, "phots", &["phots", "does not exist", "did you mean photos?"]);
}

#[test]
fn folders_without_an_image() {
    let folder = TempFolder::new("bad-folders");
    folder.create("empty/below");
    folder.write("texts/a.txt", "no picture");
    data_refused(&folder, &folder.path("empty"), &["empty", "no image found"]);
    data_refused(&folder, &folder.path("texts"), &["texts", "no image found"]);
}

#[test]
fn missing_models() {
    let folder = TempFolder::new("bad-no-model");
    let (file, empty) = (folder.path("nowhere.safetensors"), folder.create("empty"));
    for (path, name) in [(file, "nowhere.safetensors"), (empty, "empty/model.safetensors")] {
        Command::eval(path, "digits").on_cpu().fails(2, &[name, "No such file"]);
    }
}

#[test]
fn folders_that_are_not_runs() {
    let folder = TempFolder::new("bad-no-run");
    let empty = folder.create("empty");
    Command::resume(folder.path("nowhere")).fails(2, &["nowhere", "no such folder"]);
    Command::resume(&empty).fails(2, &["empty", "not the folder of a run"]);
    Command::new("verify").option("--cases", &empty).on_cpu().fails(2, &["empty"]);
}

#[test]
fn broken_pictures() {
    let folder = TempFolder::new("bad-pictures");
    let png = bytes(BRICK);
    let cases: [(&str, &[u8], &[&str]); 4] = [
        ("cut.png", &png[..png.len() / 2], &["cannot be decoded", "save it again or remove it"]),
        ("head.png", &png[..20], &["cannot be decoded"]),
        ("nothing.png", b"", &["empty"]),
        ("text.png", b"this is no picture", &["not an image"]),
    ];
    for (name, bytes, words) in cases {
        data_refused(&folder, &folder.write(name, bytes), &[&[name], words].concat());
    }
}

#[test]
fn a_picture_of_more_pixels_than_fit_in_memory() {
    let folder = TempFolder::new("bad-huge");
    let huge = bytes(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz_corpus/picture_huge_png"));
    let side = 60_000_u32.to_be_bytes();
    assert_eq!((&huge[16..20], &huge[20..24]), (&side[..], &side[..]));
    let path = folder.write("huge.png", huge);
    data_refused(&folder, &path, &["huge.png", "512 MiB", "shrink it"]);
}

#[test]
fn a_folder_of_broken_pictures_alone() {
    let folder = TempFolder::new("bad-all");
    let png = bytes(BRICK);
    folder.write("all/cut.png", &png[..png.len() / 2]);
    data_refused(&folder, &folder.path("all"), &["all", "cut.png"]);
}

#[test]
fn a_broken_picture_among_others_with_strict() {
    let folder = TempFolder::new("bad-some");
    let png = bytes(BRICK);
    folder.write("some/cut.png", &png[..png.len() / 2]);
    folder.write("some/good.png", &png);
    let train = Command::train(folder.path("some")).arg("--strict").steps(1).on_cpu().quiet();
    refused(&folder, train, 2, &["cut.png", "cannot be decoded"]);
}

#[test]
fn broken_idx_files() {
    let folder = TempFolder::new("bad-idx");
    let max = u32::MAX;
    let cases: &[(&str, Vec<u8>, &[&str])] = &[
        ("more-idx3-ubyte", idx(&[60_000, 8, 8], 640), &["the shape 60000x8x8", "cut off"]),
        ("most-idx3-ubyte", idx(&[max, max, max], 640), &["the shape", "has fewer bytes"]),
        ("none-idx3-ubyte", idx(&[0, 8, 8], 0), &["the file is empty", "0x8x8"]),
        ("flat-idx3-ubyte", idx(&[10, 0, 8], 0), &["the file is empty", "10x0x8"]),
        ("labels-idx1-ubyte", idx(&[10], 10), &["labels"]),
        ("surplus-idx3-ubyte", idx(&[1, 8, 8], 65), &["has more bytes of values than"]),
    ];
    for (name, bytes, words) in cases {
        data_refused(&folder, &folder.write(name, bytes), &[&[*name], *words].concat());
    }
}

#[test]
fn broken_npy_and_cifar_files() {
    let folder = TempFolder::new("bad-npy");
    // Images of 8×8 pixels; the value at row 1, column 2 is odd.
    let odd = |value: f32| -> Vec<u8> {
        (0..64).flat_map(|i| if i == 10 { value } else { 0.5 }.to_le_bytes()).collect()
    };
    let (nan, infinity) = (odd(f32::NAN), odd(f32::INFINITY));
    let cases: &[(&str, Vec<u8>, &[&str])] = &[
        ("more.npy", npy("|u1", "60000, 8, 8", &[0; 64]), &["60000"]),
        ("none.npy", npy("|u1", "0, 8, 8", &[]), &["is empty"]),
        ("negative.npy", npy("|u1", "-1, 8, 8", &[0; 64]), &["negative"]),
        (
            "nan.npy",
            npy("<f4", "1, 8, 8", &nan),
            &["row 1, column 2, channel 0 is NaN", "--nan zero"],
        ),
        ("infinite.npy", npy("<f4", "1, 8, 8", &infinity), &["is inf"]),
        ("objects.npy", npy("|O", "1, 1, 1", &[0; 8]), &["objects"]),
        ("cut.npy", b"\x93NUMPY\x01\0\x76\0{'descr'".to_vec(), &["header"]),
        ("odd.bin", vec![0; 5000], &["3073"]),
    ];
    for (name, bytes, words) in cases {
        data_refused(&folder, &folder.write(name, bytes), &[&[*name], *words].concat());
    }
}

/// Flags that a training refuses, with the words of its message.
#[track_caller]
fn flags_refused(name: &str, cases: &[(&str, &[&str])]) {
    let folder = TempFolder::new(name);
    for (flags, words) in cases {
        // A flag can be given only once.
        let mut train = Command::train("digits").flags(flags).quiet();
        if !flags.contains("--device") {
            train = train.on_cpu();
        }
        if !flags.contains("--epochs") {
            train = train.steps(1);
        }
        refused(&folder, train, 2, words);
    }
}

#[test]
fn unknown_keys_are_answered_with_the_nearest_known_one() {
    flags_refused(
        "bad-keys",
        &[
            ("--set=optimizer.lrr=1", &["optimizer.lrr", "did you mean lr?"]),
            ("--set=trian.batch=1", &["trian", "did you mean train?"]),
            ("--set=train.bacth=1", &["train.bacth", "did you mean batch?"]),
            ("--set=model.layers.encoder.0.kernl=3", &["encoder.0", "did you mean kernel?"]),
            ("--set=model.layers.encoder.O.kernel=3", &["encoder.O", "did you mean encoder.0?"]),
            ("--set=nonsense", &["nonsense", "key=value"]),
        ],
    );
}

#[test]
fn unknown_values_are_answered_with_the_nearest_known_one() {
    flags_refused(
        "bad-values",
        &[
            ("--set=model.layers.encoder.0.op=conv2", &["encoder.0", "did you mean conv2d?"]),
            ("--set=model.layers.encoder.0.activation=rleu", &["encoder.0", "relu"]),
            ("--set=optimizer.kind=adm", &["optimizer.kind", "did you mean adam?"]),
            ("--set=data.fit=crops", &["data.fit", "did you mean crop?"]),
            ("--preset=artikel", &["artikel", "did you mean article?"]),
            ("--device=no-such-adapter", &["no-such-adapter", "cpu"]),
            ("--kernels=none", &["none", "auto, plain"]),
            ("--bacth=1", &["--bacth", "--batch"]),
        ],
    );
}

#[test]
fn zero_and_negative_settings_of_a_training() {
    flags_refused(
        "bad-numbers",
        &[
            ("--batch=0", &["train.batch", "at least 1"]),
            ("--batch=-1", &["--batch", "-1"]),
            ("--batch -1", &["--batch", "-1", "invalid"]),
            ("--max-memory -5", &["--max-memory", "-5"]),
            ("--threads=4000", &["--threads 4000", "cores"]),
            ("--set=train.keep=0", &["train.keep = 0"]),
            ("--set=train.loss_scale=-1", &["train.loss_scale = -1"]),
            ("--threads=0", &["--threads", "0"]),
            ("--epochs=-1", &["train.epochs = -1"]),
            ("--epochs=0", &["train.epochs = 0"]),
            ("--epochs=nan", &["train.epochs: NaN and infinity are not allowed"]),
            ("--max-memory=-1GiB", &["--max-memory", "-1GiB"]),
            ("--set=data.crop=0", &["data.crop", "at least 1"]),
            ("--set=train.batch=-3", &["train.batch", "-3"]),
        ],
    );
}

#[test]
fn precisions_that_are_not_available() {
    flags_refused(
        "bad-precisions",
        &[
            ("--precision=f16", &["train.precision", "no half precision"]),
            ("--precision=f8", &["train.precision", "f8", "f16"]),
        ],
    );
}

#[test]
fn zero_and_negative_sizes_of_a_model() {
    flags_refused(
        "bad-sizes",
        &[
            (
                "--set=model.layers.encoder.0.kernel=0",
                &["encoder.0", "kernel [0, 0]", "at least 1"],
            ),
            ("--set=model.layers.encoder.0.kernel=-3", &["encoder.0", "-3"]),
            (
                "--set=model.layers.encoder.0.stride=0",
                &["encoder.0", "stride [0, 0]", "at least 1"],
            ),
            ("--set=model.layers.encoder.0.filters=0", &["encoder.0", "filters"]),
            ("--set=model.layers.encoder.0.filters=-3", &["encoder.0", "-3"]),
            ("--set=model.layers.code.units=0", &["layer code", "output of 0"]),
            ("--set=model.input=[1,0,8]", &["input", "0"]),
            ("--set=model.input=[1,-8,8]", &["model.input", "-8"]),
        ],
    );
}

#[test]
fn kernels_that_do_not_fit_their_input() {
    flags_refused(
        "bad-kernels",
        &[
            (
                "--set=model.layers.encoder.0.kernel=99 --set=model.layers.encoder.0.padding=1",
                &["encoder.0", "kernel 99", "10"],
            ),
            (
                "--set=model.layers.encoder.0.kernel=4000000000 \
                 --set=model.layers.encoder.0.padding=0",
                &["encoder.0"],
            ),
        ],
    );
}

#[test]
fn sizes_that_no_memory_holds() {
    flags_refused(
        "bad-vast",
        &[
            (
                "--set=data.crop=4 --set=data.crops_per_image=4000000000 --set=model.input=[1,4,4]",
                &["data.crops_per_image"],
            ),
            ("--set=model.layers.code.units=4000000000000", &["code"]),
            ("--batch=4000000000", &["train.batch"]),
            ("--batch=9000000000000000000", &["train.batch"]),
            ("--batch=4000000000 --accumulate=4000000000", &["losses to be logged"]),
        ],
    );
}

#[test]
fn configuration_files() {
    let folder = TempFolder::new("bad-configurations");
    let sound = config(sound());
    let cases: &[(&str, String, &[&str])] = &[
        (
            "key.toml",
            sound.replace("batch =", "bacth ="),
            &["train", "bacth", "did you mean batch?"],
        ),
        (
            "table.toml",
            sound.replace("[optimizer]", "[optimiser]"),
            &["optimiser", "did you mean optimizer?"],
        ),
        ("syntax.toml", sound.replace("[train]", "[train"), &["line "]),
        ("empty.toml", String::new(), &["model"]),
        ("latin.toml", "\u{0}".to_owned(), &["line 1"]),
    ];
    for (name, text, words) in cases {
        let train = Command::train("digits").option("--config", folder.write(name, text));
        refused(&folder, train.on_cpu().quiet(), 2, &[&[*name], *words].concat());
    }
}

#[test]
fn a_configuration_file_that_is_not_text() {
    let folder = TempFolder::new("bad-bytes");
    let path = folder.write("bytes.toml", [0xff, 0xfe, 0]);
    let train = Command::new("train").option("--config", path).on_cpu();
    refused(&folder, train, 2, &["bytes.toml", "not a text file"]);
}

#[test]
fn names_of_folders() {
    // Nothing is left where the program runs either.
    let here = TempFolder::new("bad-names");
    for (out, words) in [("--out=", "--out"), ("--out=new/..", "is not a folder name")] {
        let train = Command::train("digits").steps(1).on_cpu().quiet().arg(out);
        train.current_dir(here.root()).fails(2, &[words]);
        assert!(list(here.root()).is_empty(), "{out:?}");
    }
}

#[test]
fn commands_and_workloads() {
    let cases: &[(&str, &[&str])] = &[
        ("trian", &["trian", "train", "--help"]),
        ("eval one", &["<DATA>", "usage: csae eval"]),
        ("bench --workload w9 --device cpu", &["w9", "w1, w2, w3"]),
        ("bench --workload w1 --batch 0", &["--batch", "0"]),
        ("bench --seconds nan --device cpu", &["--seconds"]),
        ("bench --device 9999", &["9999", "csae devices"]),
        ("verify --device no-such-adapter", &["no-such-adapter", "cpu"]),
        ("verify --device=", &["the device has no name", "csae devices"]),
        ("completions tcl", &["tcl", "bash"]),
    ];
    for (line, words) in cases {
        Command::new(line).fails(2, words);
    }
}

/// A model file's header and data.
struct ModelFile {
    header: String,
    data: Vec<u8>,
}

impl ModelFile {
    /// The sound model, as a program writes it that adds no hash of the values.
    fn without_hash() -> Self {
        let mut file = Self::sound();
        let hash = file.header.find(r#"\"hash\":"#).map(|at| &file.header[at..at + 29]).unwrap();
        file.header = file.header.replace(hash, r#"\"hash\":null"#);
        file
    }

    fn sound() -> Self {
        let bytes = model_bytes(sound());
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
        let file = Self { header, data: bytes[8 + length..].to_vec() };
        assert_eq!(file.bytes(), bytes);
        file
    }

    fn bytes(&self) -> Vec<u8> {
        let length = (self.header.len() as u64).to_le_bytes();
        [&length[..], self.header.as_bytes(), &self.data].concat()
    }

    /// The file with another text in its header.
    fn with(&self, from: &str, to: &str) -> Vec<u8> {
        let header = self.header.replace(from, to);
        assert_ne!(header, self.header, "{from} is not in the header");
        Self { header, data: self.data.clone() }.bytes()
    }

    /// The file with a changed table of tensors.
    fn with_tensors(&self, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut tensors = serde_json::from_str(&self.header).unwrap();
        change(&mut tensors);
        Self { header: tensors.to_string(), data: self.data.clone() }.bytes()
    }

    /// Names of the first and the second tensor in the data.
    fn first_two(&self) -> [String; 2] {
        let tensors: Value = serde_json::from_str(&self.header).unwrap();
        let at = |start: &Value| {
            let all = tensors.as_object().unwrap().iter();
            let mut own = all.filter(|(name, _)| !name.starts_with("__"));
            own.find(|(_, tensor)| tensor["data_offsets"][0] == *start).unwrap().0.clone()
        };
        let first = at(&json!(0));
        let second = at(&tensors[&first]["data_offsets"][1]);
        [first, second]
    }
}

#[test]
fn a_model_whose_values_were_changed() {
    let mut file = ModelFile::sound();
    file.data[40] ^= 1;
    model_refused("flipped.safetensors", &file.bytes(), &["damaged"]);
}

/// The control for the models below, which are changed further.
#[test]
fn a_model_without_a_hash_is_accepted() {
    let folder = TempFolder::new("bad-no-hash");
    let path = folder.write("sound.safetensors", ModelFile::without_hash().bytes());
    Command::eval(path, "digits").on_cpu().succeed();
}

#[test]
fn models_that_are_cut_off() {
    let good = model_bytes(sound());
    let length = ModelFile::sound().header.len();
    for end in [0, 7, 8, 8 + length / 2, 8 + length, good.len() - 1] {
        model_refused(&format!("cut{end}.safetensors"), &good[..end], &["not a model file"]);
    }
}

#[test]
fn a_picture_named_as_a_model() {
    model_refused("png.safetensors", &bytes(BRICK), &["not a model file"]);
}

#[test]
fn models_with_a_wrong_length_of_their_header() {
    let good = model_bytes(sound());
    let length = ModelFile::sound().header.len() as u64;
    for (i, lie) in [1 << 63, u64::MAX, 1 << 40, length - 1, 0].into_iter().enumerate() {
        let bytes = [&u64::to_le_bytes(lie)[..], &good[8..]].concat();
        model_refused(&format!("length{i}.safetensors"), &bytes, &["not a model file"]);
    }
}

#[test]
fn models_whose_tensors_overlap_or_lie_outside_of_the_file() {
    let file = ModelFile::without_hash();
    let [first, second] = file.first_two();
    let overlapping = file.with_tensors(|tensors| {
        tensors[&second]["data_offsets"] = tensors[&first]["data_offsets"].clone();
    });
    let behind = file.with_tensors(|tensors| {
        tensors[&first]["data_offsets"] = json!([u64::MAX - 8, u64::MAX]);
    });
    let shape = file.with_tensors(|tensors| {
        tensors[&first]["shape"] = json!([1_u64 << 62, 1_u64 << 62]);
    });
    model_refused("overlapping.safetensors", &overlapping, &["not a model file"]);
    model_refused("behind.safetensors", &behind, &["not a model file"]);
    model_refused("shape.safetensors", &shape, &["not a model file"]);
}

#[test]
fn models_with_values_that_are_not_finite() {
    let mut file = ModelFile::without_hash();
    let [first, _] = file.first_two();
    for (name, value) in [("nan", f32::NAN), ("infinity", f32::INFINITY)] {
        file.data[..4].copy_from_slice(&value.to_le_bytes());
        model_refused(&format!("{name}.safetensors"), &file.bytes(), &[&first, "damaged"]);
    }
}

#[test]
fn models_whose_architecture_does_not_fit_their_tensors() {
    let file = ModelFile::without_hash();
    let units = r#"\"units\":8"#;
    let other = file.with(units, r#"\"units\":9"#);
    model_refused("other.safetensors", &other, &["code.weight", "shape"]);
    let vast = file.with(units, r#"\"units\":4000000000000"#);
    model_refused("vast.safetensors", &vast, &["code"]);
    let lacking = file.with(r#""code.weight""#, r#""edoc.weight""#);
    model_refused("lacking.safetensors", &lacking, &["no tensor code.weight"]);
}

#[test]
fn models_of_a_later_format_or_with_an_unknown_layer() {
    let file = ModelFile::without_hash();
    let future = file.with(r#"\"format\":1"#, r#"\"format\":99"#);
    model_refused("future.safetensors", &future, &["format 99", "reads 1"]);
    let strange = file.with(r#"\"op\":\"conv2d\""#, r#"\"op\":\"conv9d\""#);
    model_refused("strange.safetensors", &strange, &["conv9d"]);
}

const CHECKPOINT: &str = "checkpoint-000001.safetensors";

#[test]
fn a_checkpoint_is_not_a_model() {
    let checkpoint = bytes(Path::new(sound()).join(CHECKPOINT));
    let words = ["without the architecture", "csae"];
    model_refused("checkpoint.safetensors", &checkpoint, &words);
}

#[test]
fn checkpoints_of_another_run_and_models_as_checkpoints() {
    let folder = TempFolder::new("bad-checkpoints");
    let other = folder.path("other");
    train(&other, 16).succeed();
    let resume = Command::resume(&other).steps(2).quiet();
    let own = Path::new(&other).join(CHECKPOINT);
    std::fs::copy(Path::new(sound()).join(CHECKPOINT), &own).unwrap();
    resume.fails(2, &["checkpoint-000001", "another configuration"]);
    std::fs::write(&own, model_bytes(sound())).unwrap();
    resume.fails(1, &["checkpoint-000001", "damaged"]);
}
