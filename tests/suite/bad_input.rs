//! Every kind of bad input that a user can come by: one line that says what, where and what to do,
//! exit status 1 or 2, no panic, and nothing left where the result would have been. Adapters that
//! are missing or fail are in `faults`, disks that are full or read-only in `disk`, checkpoints in
//! `resume`.

use std::path::Path;

use crate::commands::{Place, csae, one_line, program, succeed};

/// Files and folders to be refused, and a sound model.
struct Bad {
    place: Place,
}

impl Bad {
    fn new(name: &str) -> Self {
        let bad = Self { place: Place::new(name) };
        bad.train(
            "model",
            &["digits", "--steps=1", "--batch=8", "--set=model.layers.code.units=8"],
        );
        bad
    }

    fn train(&self, out: &str, arguments: &[&str]) {
        succeed(
            &[&["train"], arguments, &["--device", "cpu", "-q", "--out", &self.place.path(out)]]
                .concat(),
        );
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.place.path(name);
        std::fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn model(&self) -> Vec<u8> {
        std::fs::read(Path::new(&self.place.path("model")).join("model.safetensors")).unwrap()
    }

    /// Runs a command that writes to `out`, which must fail and leave nothing there.
    fn refused(&self, command: &[&str], status: i32, words: &[&str]) {
        let out = self.place.path("out");
        let output = csae(&[command, &["--out", &out]].concat());
        assert!(output.stdout.is_empty(), "{command:?}: {output:?}");
        one_line(&output, status, words);
        assert!(
            !Path::new(&out).exists() && !Path::new(&format!("{out}.partial")).exists(),
            "{command:?} left something"
        );
    }

    /// Data that neither a training nor a reconstruction nor an evaluation takes.
    fn data(&self, data: &str, words: &[&str]) {
        let model = self.place.path("model");
        self.refused(&["train", data, "--device", "cpu", "-q", "--steps=1"], 2, words);
        self.refused(&["reconstruct", &model, data, "--device", "cpu", "-q"], 2, words);
        one_line(&csae(&["eval", &model, data, "--device", "cpu", "-q"]), 2, words);
    }

    /// A model file that no command takes.
    fn model_file(&self, name: &str, bytes: &[u8], words: &[&str]) {
        let path = self.write(name, bytes);
        let words = [&[name], words].concat();
        let photo = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/images/textures/brick.png");
        self.refused(&["reconstruct", &path, photo, "--device", "cpu", "-q"], 2, &words);
        one_line(&csae(&["eval", &path, "digits", "--device", "cpu", "-q"]), 2, &words);
    }
}

fn idx(dims: &[u32], values: usize) -> Vec<u8> {
    let dims_be = dims.iter().flat_map(|dim| dim.to_be_bytes());
    [0, 0, 8, dims.len() as u8]
        .into_iter()
        .chain(dims_be)
        .chain(std::iter::repeat_n(7, values))
        .collect()
}

fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn png() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/images/textures/brick.png")).unwrap()
}

#[test]
fn missing_and_empty_folders() {
    let bad = Bad::new("bad-folders");
    std::fs::create_dir_all(bad.place.path("empty/below")).unwrap();
    bad.write("texts/a.txt", b"no picture");
    bad.data(&bad.place.path("nowhere"), &["nowhere", "does not exist"]);
    bad.data(&bad.place.path("empty"), &["empty", "no image found"]);
    bad.data(&bad.place.path("texts"), &["texts", "no image found"]);
    bad.data("phots", &["phots", "does not exist", "did you mean photos?"]);
    let (model, nowhere) = (bad.place.path("nowhere.safetensors"), bad.place.path("empty"));
    for (path, words) in
        [(&model, ["nowhere.safetensors"]), (&nowhere, ["empty/model.safetensors"])]
    {
        one_line(&csae(&["eval", path, "digits", "--device", "cpu"]), 2, &words);
        one_line(&csae(&["eval", path, "digits", "--device", "cpu"]), 2, &["No such file"]);
    }
    one_line(&csae(&["resume", &bad.place.path("nowhere")]), 2, &["nowhere", "no such folder"]);
    one_line(&csae(&["resume", &nowhere]), 2, &["empty", "not the folder of a run"]);
    one_line(&csae(&["verify", "--cases", &nowhere, "--device", "cpu"]), 2, &["empty"]);
}

#[test]
fn pictures() {
    let bad = Bad::new("bad-pictures");
    let png = png();
    let cut = bad.write("cut.png", &png[..png.len() / 2]);
    bad.data(&cut, &["cut.png", "cannot be decoded", "save it again or remove it"]);
    bad.data(&bad.write("head.png", &png[..20]), &["head.png", "cannot be decoded"]);
    bad.data(&bad.write("nothing.png", b""), &["nothing.png", "empty"]);
    bad.data(&bad.write("text.png", b"this is no picture"), &["text.png", "not an image"]);
    let huge =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz_corpus/picture_huge_png"))
            .unwrap();
    assert_eq!(
        (&huge[16..20], &huge[20..24]),
        (&60_000_u32.to_be_bytes()[..], &60_000_u32.to_be_bytes()[..])
    );
    bad.data(&bad.write("huge.png", &huge), &["huge.png", "512 MiB", "shrink it"]);
    // A folder of nothing else, and one where it must not be passed over.
    bad.write("all/cut.png", &png[..png.len() / 2]);
    bad.data(&bad.place.path("all"), &["all", "cut.png"]);
    bad.write("some/cut.png", &png[..png.len() / 2]);
    let some = bad.write("some/good.png", &png);
    let some = Path::new(&some).parent().unwrap().display().to_string();
    bad.refused(
        &["train", &some, "--strict", "--device", "cpu", "-q", "--steps=1"],
        2,
        &["cut.png", "cannot be decoded"],
    );
}

#[test]
fn arrays() {
    let bad = Bad::new("bad-arrays");
    let max = u32::MAX;
    let cases: &[(&str, Vec<u8>, &[&str])] = &[
        ("more-idx3-ubyte", idx(&[60_000, 8, 8], 640), &["the shape 60000x8x8", "cut off"]),
        ("most-idx3-ubyte", idx(&[max, max, max], 640), &["the shape", "has fewer bytes"]),
        ("none-idx3-ubyte", idx(&[0, 8, 8], 0), &["the file is empty", "0x8x8"]),
        ("flat-idx3-ubyte", idx(&[10, 0, 8], 0), &["the file is empty", "10x0x8"]),
        ("labels-idx1-ubyte", idx(&[10], 10), &["labels"]),
        ("surplus-idx3-ubyte", idx(&[1, 8, 8], 65), &["has more bytes of values than"]),
        ("more.npy", npy("|u1", "60000, 8, 8", &[0; 64]), &["60000"]),
        ("none.npy", npy("|u1", "0, 8, 8", &[]), &["0"]),
        ("negative.npy", npy("|u1", "-1, 8, 8", &[0; 64]), &["a size is negative"]),
        ("nan.npy", npy("<f4", "1, 1, 2", &[0, 0, 0, 0, 0, 0, 0xc0, 0x7f]), &["[0, 0, 1] is NaN"]),
        (
            "infinite.npy",
            npy("<f4", "1, 1, 1", &f32::INFINITY.to_le_bytes()),
            &["[0, 0, 0] is inf"],
        ),
        ("objects.npy", npy("|O", "1, 1, 1", &[0; 8]), &["|O"]),
        ("cut.npy", b"\x93NUMPY\x01\0\x76\0{'descr'".to_vec(), &["header"]),
        ("odd.bin", vec![0; 5000], &["3073"]),
    ];
    for (name, bytes, words) in cases {
        bad.data(&bad.write(name, bytes), &[&[*name], *words].concat());
    }
}

#[test]
fn configurations() {
    let bad = Bad::new("bad-configurations");
    let cases: &[(&[&str], &[&str])] = &[
        // Unknown names, with the nearest known one.
        (&["--set=optimizer.lrr=1"], &["optimizer.lrr", "did you mean lr?"]),
        (&["--set=trian.batch=1"], &["trian", "did you mean train?"]),
        (&["--set=train.bacth=1"], &["train.bacth", "did you mean batch?"]),
        (&["--set=model.layers.encoder.0.kernl=3"], &["encoder.0", "did you mean kernel?"]),
        (&["--set=model.layers.encoder.O.kernel=3"], &["encoder.O", "did you mean encoder.0?"]),
        (&["--set=model.layers.encoder.0.op=conv2"], &["encoder.0", "did you mean conv2d?"]),
        (&["--set=model.layers.encoder.0.activation=rleu"], &["encoder.0", "relu"]),
        (&["--set=optimizer.kind=adm"], &["optimizer.kind", "did you mean adam?"]),
        (&["--set=data.fit=crops"], &["data.fit", "did you mean crop?"]),
        (&["--set=nonsense"], &["nonsense", "key=value"]),
        // Zero and negative sizes.
        (&["--batch=0"], &["train.batch", "at least 1"]),
        (&["--batch=-1"], &["--batch", "-1"]),
        (&["--batch", "-1"], &["--batch", "-1", "invalid"]),
        (&["--max-memory", "-5"], &["--max-memory", "-5"]),
        (&["--threads=4000"], &["--threads 4000", "cores"]),
        (&["--set=train.keep=0"], &["train.keep = 0"]),
        (&["--precision=f16"], &["train.precision", "no half precision"]),
        (&["--precision=f8"], &["train.precision", "f8", "f16"]),
        (&["--set=train.loss_scale=-1"], &["train.loss_scale = -1"]),
        (&["--threads=0"], &["--threads", "0"]),
        (&["--epochs=-1"], &["train.epochs = -1"]),
        (&["--epochs=0"], &["train.epochs = 0"]),
        (&["--epochs=nan"], &["train.epochs: NaN and infinity are not allowed"]),
        (&["--max-memory=-1GiB"], &["--max-memory", "-1GiB"]),
        (&["--set=data.crop=0"], &["data.crop", "at least 1"]),
        (
            &[
                "--set=data.crop=4",
                "--set=data.crops_per_image=4000000000",
                "--set=model.input=[1,4,4]",
            ],
            &["data.crops_per_image"],
        ),
        (&["--set=train.batch=-3"], &["train.batch", "-3"]),
        (&["--set=model.layers.encoder.0.kernel=0"], &["encoder.0", "kernel [0, 0]", "at least 1"]),
        (&["--set=model.layers.encoder.0.kernel=-3"], &["encoder.0", "-3"]),
        (&["--set=model.layers.encoder.0.stride=0"], &["encoder.0", "stride [0, 0]", "at least 1"]),
        (&["--set=model.layers.encoder.0.filters=0"], &["encoder.0", "filters"]),
        (&["--set=model.layers.encoder.0.filters=-3"], &["encoder.0", "-3"]),
        (&["--set=model.layers.code.units=0"], &["layer code", "output of 0"]),
        (&["--set=model.input=[1,0,8]"], &["input", "0"]),
        (&["--set=model.input=[1,-8,8]"], &["model.input", "-8"]),
        // A kernel that does not fit.
        (
            &["--set=model.layers.encoder.0.kernel=99", "--set=model.layers.encoder.0.padding=1"],
            &["encoder.0", "kernel 99", "10"],
        ),
        (
            &[
                "--set=model.layers.encoder.0.kernel=4000000000",
                "--set=model.layers.encoder.0.padding=0",
            ],
            &["encoder.0"],
        ),
        // More than any memory holds.
        (&["--set=model.layers.code.units=4000000000000"], &["code"]),
        (&["--batch=4000000000"], &["train.batch"]),
        (&["--batch=9000000000000000000"], &["train.batch"]),
        (&["--batch=4000000000", "--accumulate=4000000000"], &["losses to be logged"]),
        // Names.
        (&["--preset=artikel"], &["artikel", "did you mean article?"]),
        (&["--device=no-such-adapter"], &["no-such-adapter", "cpu"]),
        (&["--kernels=none"], &["none", "auto, plain"]),
        (&["--bacth=1"], &["--bacth", "--batch"]),
    ];
    for (more, words) in cases {
        let device = if more[0].starts_with("--device") { "-q" } else { "--device=cpu" };
        let length = if more[0].starts_with("--epochs") { "--seed=1" } else { "--steps=1" };
        let quiet = if device == "-q" { "--kernels=auto" } else { "-q" };
        bad.refused(&[&["train", "digits", device, length, quiet], *more].concat(), 2, words);
    }
    let toml = |name: &str, text: &str, words: &[&str]| {
        let path = bad.write(name, text.as_bytes());
        bad.refused(
            &["train", "digits", "--config", &path, "--device", "cpu", "-q"],
            2,
            &[&[name], words].concat(),
        );
    };
    let sound =
        std::fs::read_to_string(Path::new(&bad.place.path("model")).join("config.toml")).unwrap();
    toml(
        "key.toml",
        &sound.replace("batch =", "bacth ="),
        &["train", "bacth", "did you mean batch?"],
    );
    toml(
        "table.toml",
        &sound.replace("[optimizer]", "[optimiser]"),
        &["optimiser", "did you mean optimizer?"],
    );
    toml("syntax.toml", &sound.replace("[train]", "[train"), &["line "]);
    toml("empty.toml", "", &["model"]);
    toml("latin.toml", "\u{0}", &["line 1"]);
    let path = bad.write("bytes.toml", &[0xff, 0xfe, 0]);
    bad.refused(
        &["train", "--config", &path, "--device", "cpu"],
        2,
        &["bytes.toml", "not a text file"],
    );
}

#[test]
fn names_of_folders() {
    let bad = Bad::new("bad-names");
    // Nothing is left where the program runs either.
    let here = bad.place.path("here");
    std::fs::create_dir_all(&here).unwrap();
    for (out, words) in [("--out=", "--out"), ("--out=new/..", "is not a folder name")] {
        let mut command = program();
        command.current_dir(&here).args([
            "train",
            "digits",
            "--steps=1",
            "--device",
            "cpu",
            "-q",
            out,
        ]);
        one_line(&command.output().unwrap(), 2, &[words]);
        assert_eq!(std::fs::read_dir(&here).unwrap().count(), 0, "{out:?}");
    }
}

#[test]
fn commands_and_workloads() {
    one_line(&csae(&["trian"]), 2, &["trian", "train", "--help"]);
    one_line(&csae(&["eval", "one"]), 2, &["<DATA>", "usage: csae eval"]);
    one_line(&csae(&["bench", "--workload", "w9", "--device", "cpu"]), 2, &["w9", "w1, w2, w3"]);
    one_line(&csae(&["bench", "--workload", "w1", "--batch", "0"]), 2, &["--batch", "0"]);
    one_line(&csae(&["bench", "--seconds", "nan", "--device", "cpu"]), 2, &["--seconds"]);
    one_line(&csae(&["bench", "--device", "9999"]), 2, &["9999", "csae devices"]);
    one_line(&csae(&["verify", "--device", "no-such-adapter"]), 2, &["no-such-adapter", "cpu"]);
    one_line(&csae(&["completions", "tcl"]), 2, &["tcl", "bash"]);
}

#[test]
fn model_files() {
    let bad = Bad::new("bad-models");
    let good = bad.model();
    let length = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let (header, data) =
        (String::from_utf8(good[8..8 + length].to_vec()).unwrap(), &good[8 + length..]);
    let with = |header: &str, data: &[u8]| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    };
    assert_eq!(with(&header, data), good);
    // A bit that flipped.
    let flipped = [&data[..40], &[data[40] ^ 1], &data[41..]].concat();
    bad.model_file("flipped.safetensors", &with(&header, &flipped), &["damaged"]);
    // What follows is by a program that writes no hash.
    let hash = header.find(r#"\"hash\":"#).map(|at| &header[at..at + 29]).unwrap();
    let header = header.replace(hash, r#"\"hash\":null"#);
    assert!(
        csae(&[
            "eval",
            &bad.write("sound.safetensors", &with(&header, data)),
            "digits",
            "--device",
            "cpu"
        ])
        .status
        .success()
    );
    let changed = |from: &str, to: &str| {
        let other = header.replace(from, to);
        assert_ne!(other, header, "{from} is not in the header");
        with(&other, data)
    };
    // Cut off, and not such a file at all.
    for end in [0, 7, 8, 8 + length / 2, 8 + length, good.len() - 1] {
        bad.model_file(&format!("cut{end}.safetensors"), &good[..end], &["not a model file"]);
    }
    bad.model_file("png.safetensors", &png(), &["not a model file"]);
    for (i, lie) in [1 << 63, u64::MAX, 1 << 40, length as u64 - 1, 0].into_iter().enumerate() {
        let bytes = [&u64::to_le_bytes(lie)[..], &good[8..]].concat();
        bad.model_file(&format!("length{i}.safetensors"), &bytes, &["not a model file"]);
    }
    // Tensors that lie over one another, behind the end, or with gaps.
    let mut tensors: serde_json::Value = serde_json::from_str(&header).unwrap();
    let names: Vec<String> = tensors
        .as_object()
        .unwrap()
        .keys()
        .filter(|name| !name.starts_with("__"))
        .cloned()
        .collect();
    let first = names.iter().find(|name| tensors[*name]["data_offsets"][0] == 0).unwrap().clone();
    let second = names
        .iter()
        .find(|name| tensors[*name]["data_offsets"][0] == tensors[&first]["data_offsets"][1])
        .unwrap();
    let place = tensors[&first]["data_offsets"].clone();
    let second_place = std::mem::replace(&mut tensors[second]["data_offsets"], place.clone());
    bad.model_file(
        "overlapping.safetensors",
        &with(&tensors.to_string(), data),
        &["not a model file"],
    );
    tensors[second]["data_offsets"] = second_place;
    tensors[&first]["data_offsets"] = serde_json::json!([u64::MAX - 8, u64::MAX]);
    bad.model_file("behind.safetensors", &with(&tensors.to_string(), data), &["not a model file"]);
    tensors[&first]["data_offsets"] = place;
    tensors[&first]["shape"] = serde_json::json!([1_u64 << 62, 1_u64 << 62]);
    bad.model_file("shape.safetensors", &with(&tensors.to_string(), data), &["not a model file"]);
    // Values that no training leaves.
    for (name, value) in [("nan", f32::NAN), ("infinity", f32::INFINITY)] {
        let values = [&value.to_le_bytes()[..], &data[4..]].concat();
        bad.model_file(
            &format!("{name}.safetensors"),
            &with(&header, &values),
            &[&first, "damaged"],
        );
    }
    // An architecture that the tensors are not of, or that is none.
    bad.model_file(
        "other.safetensors",
        &changed(r#"\"units\":8"#, r#"\"units\":9"#),
        &["code.weight", "shape"],
    );
    bad.model_file(
        "vast.safetensors",
        &changed(r#"\"units\":8"#, r#"\"units\":4000000000000"#),
        &["code"],
    );
    bad.model_file(
        "lacking.safetensors",
        &changed(r#""code.weight""#, r#""edoc.weight""#),
        &["no tensor code.weight"],
    );
    bad.model_file(
        "future.safetensors",
        &changed(r#"\"format\":1"#, r#"\"format\":99"#),
        &["format 99", "reads 1"],
    );
    bad.model_file(
        "strange.safetensors",
        &changed(r#"\"op\":\"conv2d\""#, r#"\"op\":\"conv9d\""#),
        &["conv9d"],
    );
    // A checkpoint is no model, and a model no checkpoint.
    let run = bad.place.path("model");
    let checkpoint = std::fs::read(Path::new(&run).join("checkpoint-000001.safetensors")).unwrap();
    bad.model_file("checkpoint.safetensors", &checkpoint, &["without the architecture", "csae"]);
    let other = bad.place.path("other");
    bad.train("other", &["digits", "--steps=1", "--batch=8", "--set=model.layers.code.units=16"]);
    std::fs::write(Path::new(&other).join("checkpoint-000001.safetensors"), checkpoint).unwrap();
    one_line(
        &csae(&["resume", &other, "--steps=2", "-q"]),
        2,
        &["checkpoint-000001", "another configuration"],
    );
    std::fs::write(Path::new(&other).join("checkpoint-000001.safetensors"), good).unwrap();
    one_line(&csae(&["resume", &other, "--steps=2", "-q"]), 1, &["checkpoint-000001", "damaged"]);
}
