//! Runs that are stopped and go on: killed at any moment, interrupted, extended, damaged.
//! `tests/kill25` does the same on a device of your choice.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use csae::internals::rng::Stream;

use crate::commands::{Place, csae, fail, one_line, program, succeed};

const TRAIN: [&str; 16] = [
    "train",
    "digits",
    "--device",
    "cpu",
    "-q",
    "--batch",
    "16",
    "--set",
    "model.layers.code.units=24",
    "--set",
    "train.log_every=7",
    "--set",
    "train.validate_every=0.5",
    "--set",
    "train.checkpoint_every=20",
    "--out",
];

fn train(out: &str, more: &[&str]) {
    succeed(&[&TRAIN[..], &[out], more].concat());
}

fn resume(run: &str, more: &[&str]) -> String {
    succeed(&[&["resume", run, "-q"], more].concat())
}

fn start(arguments: &[&str]) -> Child {
    let mut command = program();
    command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

fn bytes(run: &str, name: &str) -> Vec<u8> {
    std::fs::read(Path::new(run).join(name)).unwrap_or_else(|error| panic!("{run}/{name}: {error}"))
}

/// The log without what depends on the clock.
fn log(run: &str) -> Vec<serde_json::Value> {
    let text = String::from_utf8(bytes(run, "metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        value.as_object_mut().unwrap().remove("images_per_s");
        value
    };
    text.lines().map(line).collect()
}

fn assert_equal(run: &str, whole: &str) {
    for name in [
        "model.safetensors",
        "best.safetensors",
        "reconstructions.png",
        "filters.png",
        "atoms.png",
        "config.toml",
    ] {
        assert!(bytes(run, name) == bytes(whole, name), "{name} differs");
    }
    let (a, b) = (log(run), log(whole));
    assert!(a.len() > 10);
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(a, b);
    }
    assert_eq!(a.len(), b.len());
}

/// Names of the checkpoints, in order.
fn checkpoints(run: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(run) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("checkpoint-"));
    found.sort();
    found
}

/// Waits until a run has a checkpoint.
fn wait_for_checkpoint(run: &str, child: &mut Child) {
    let start = Instant::now();
    while checkpoints(run)
        .iter()
        .all(|path| path.extension().is_none_or(|end| end != "safetensors"))
    {
        assert!(
            start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(),
            "no checkpoint came"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A run of 200 steps killed behind its first checkpoint.
fn killed(run: &str) {
    let mut child = start(&[&TRAIN[..], &[run, "--steps", "200"]].concat());
    wait_for_checkpoint(run, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_killed_at_random_moments_ends_with_the_same_bytes() {
    let place = Place::new("kill");
    let (whole, run) = (place.path("whole"), place.path("run"));
    let begin = Instant::now();
    train(&whole, &["--steps", "400"]);
    let took = begin.elapsed();
    let mut stream = Stream::new(u64::from(std::process::id()), "moments");
    let mut kills = 0;
    for _ in 0..60 {
        let mut child = if Path::new(&run).exists() {
            assert!(
                Path::new(&run).join("config.toml").exists(),
                "a folder that cannot be resumed"
            );
            start(&["resume", &run, "-q"])
        } else {
            start(&[&TRAIN[..], &[&run, "--steps", "400"]].concat())
        };
        if kills < 6 {
            std::thread::sleep(took.mul_f32(0.4 * stream.uniform()));
            child.kill().unwrap();
        }
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            break;
        }
        assert!(
            kills < 6 && output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        kills += 1;
    }
    assert!(kills > 0);
    assert_equal(&run, &whole);
    // What is finished stays as it is.
    assert!(resume(&run, &[]).contains("finished, all 400 steps"));
    assert!(resume(&run, &["--json"]).contains("\"kind\":\"finished\""));
    assert_equal(&run, &whole);
    // A model taken away is written again.
    std::fs::remove_file(Path::new(&run).join("model.safetensors")).unwrap();
    resume(&run, &[]);
    assert_equal(&run, &whole);
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on() {
    let place = Place::new("interrupt");
    let (whole, run) = (place.path("whole"), place.path("run"));
    // No checkpoint of its own accord, and steps that no line of the log ends with.
    let more = ["--steps", "300", "--set", "train.checkpoint_every=0"];
    train(&whole, &more);
    let mut child = start(&[&TRAIN[..], &[&run], &more[..]].concat());
    let begin = Instant::now();
    while bytes_if_there(&run, "metrics.jsonl") == 0 {
        assert!(
            begin.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(),
            "no line of the log came"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
    );
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("of 300") && said.contains(&format!("csae resume {run}")), "{said}");
    assert_eq!(checkpoints(&run).len(), 1);
    fail(&["train", "digits", "--out", &run], 2, &["csae resume", "--force"]);
    resume(&run, &[]);
    let config = |run: &str| String::from_utf8(bytes(run, "config.toml")).unwrap();
    assert_eq!(config(&run), config(&whole));
    assert_equal(&run, &whole);
}

/// A run whose steps take a second or two, at work; and what it says from then on.
#[cfg(unix)]
fn slow(run: &str) -> (Child, std::io::BufReader<std::process::ChildStderr>) {
    let large = |word| if word == "16" { "8192" } else { word };
    let arguments: Vec<&str> = TRAIN
        .into_iter()
        .map(large)
        .chain([run, "--steps=1000", "--set=train.checkpoint_every=1"])
        .collect();
    let mut child =
        start(&[&arguments[..], &["--set=model.layers.encoder.0.filters=256"]].concat());
    wait_for_checkpoint(run, &mut child);
    let said = std::io::BufReader::new(child.stderr.take().unwrap());
    (child, said)
}

#[cfg(unix)]
fn send(signal: &str, child: &Child) {
    assert!(
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success()
    );
}

#[cfg(unix)]
#[test]
fn a_second_ctrl_c_stops_at_once() {
    use std::io::BufRead as _;
    let place = Place::new("twice");
    let run = place.path("run");
    let (mut child, mut said) = slow(&run);
    send("-INT", &child);
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("Ctrl-C again to stop at once"), "{line}");
    let begin = Instant::now();
    send("-INT", &child);
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    assert!(begin.elapsed() < Duration::from_secs(5), "it took {:?}", begin.elapsed());
    // Nothing more was said, so the step was not finished; what is there is whole.
    line.clear();
    assert_eq!(said.read_line(&mut line).unwrap(), 0, "{line}");
    assert!(!Path::new(&run).join("model.safetensors").exists());
    for path in checkpoints(&run)
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "safetensors"))
    {
        csae::internals::train::checkpoint::load(path).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[cfg(unix)]
#[test]
fn features_that_are_interrupted_leave_no_file() {
    let place = Place::new("features-interrupt");
    let (run, many, out) = (place.path("run"), place.path("many.npy"), place.path("f.npy"));
    succeed(&[&TRAIN[..], &[&run, "--steps", "1"]].concat());
    let head = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1, 8, 8), }";
    let mut bytes =
        [b"\x93NUMPY\x01\0", &(head.len() as u16).to_le_bytes()[..], head.as_bytes()].concat();
    bytes.resize(bytes.len() + 64_000_000, 7);
    std::fs::write(&many, bytes).unwrap();
    let mut child = start(&["features", &run, &many, "--device", "cpu", "-o", &out]);
    let partial = format!("{out}.partial");
    while !Path::new(&partial).exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    send("-INT", &child);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(130) && said.contains("f.npy was not written"), "{said}");
    assert!(!Path::new(&out).exists() && !Path::new(&partial).exists());
}

#[cfg(unix)]
#[test]
fn a_closed_terminal_and_a_shutdown_leave_a_checkpoint_too() {
    for signal in ["-HUP", "-TERM"] {
        let place = Place::new(&format!("signal{signal}"));
        let run = place.path("run");
        let mut child = start(&[&TRAIN[..], &[&run, "--steps", "100000"]].concat());
        wait_for_checkpoint(&run, &mut child);
        send(signal, &child);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(130) && said.contains(&format!("csae resume {run}")),
            "{signal}: {said}"
        );
    }
}

#[cfg(unix)]
fn bytes_if_there(run: &str, name: &str) -> u64 {
    Path::new(run).join(name).metadata().map_or(0, |data| data.len())
}

#[test]
fn a_damaged_or_foreign_checkpoint_is_refused() {
    let place = Place::new("damaged");
    let run = place.path("run");
    killed(&run);
    let path = checkpoints(&run).pop().unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    for bad in [&flipped[..], &good[..good.len() - 4], &good[..7], b"", &[0xff; 64]] {
        std::fs::write(&path, bad).unwrap();
        fail(&["resume", &run, "-q"], 1, &[&name, "damaged", "delete it"]);
    }
    std::fs::write(&path, &good).unwrap();
    let config = Path::new(&run).join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains("seed = 0\n"));
    std::fs::write(&config, text.replace("seed = 0\n", "seed = 1\n")).unwrap();
    fail(&["resume", &run, "-q"], 2, &[&name, "config.toml", "another configuration"]);
    // How often checkpoints are written is no part of what a run is.
    std::fs::write(&config, text.replace("checkpoint_every = 20\n", "checkpoint_every = 50\n"))
        .unwrap();
    resume(&run, &[]);
    fail(&["resume", &run, "-q", "--steps", "10"], 2, &["200", "10"]);
    fail(&["resume", &place.path("none"), "-q"], 2, &["none", "no such folder"]);
    std::fs::remove_file(&config).unwrap();
    fail(&["resume", &run, "-q"], 2, &["config.toml"]);
}

#[test]
fn a_run_on_other_data_is_refused() {
    let place = Place::new("data");
    let (run, images) = (place.path("run"), place.path("images"));
    std::fs::create_dir_all(&images).unwrap();
    let copy = |name: &str, to: &str| {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/images/textures").join(name);
        std::fs::copy(from, Path::new(&images).join(to)).unwrap();
    };
    copy("brick.png", "a.png");
    copy("grass.png", "b.png");
    // The folder is named as it is seen from where the run begins.
    let more = [
        "--device",
        "cpu",
        "-q",
        "--steps",
        "2",
        "--batch",
        "4",
        "--set",
        "model.layers.code.units=8",
        "--out",
    ];
    let begin = |name: &str, set: &[&str]| {
        let mut command = program();
        command
            .current_dir(place.path(""))
            .args(["train", "images"])
            .args(more)
            .arg(name)
            .args(set);
        assert!(command.output().unwrap().status.success());
    };
    begin("run", &[]);
    resume(&run, &["--steps", "4"]);
    // Images to validate on are found again too, and their path stays what the user wrote in the
    // configuration.
    let beside = place.path("beside");
    begin("beside", &["--set", "data.validation_source=images"]);
    resume(&beside, &["--steps", "4"]);
    let config = String::from_utf8(bytes(&beside, "config.toml")).unwrap();
    assert!(
        config.contains("validation_source = \"images\"") && config.contains("steps = 4"),
        "{config}"
    );
    copy("gravel.png", "a.png");
    fail(&["resume", &run, "-q", "--steps", "6"], 2, &["images", "the images differ"]);
    // The refusal changed nothing.
    assert!(resume(&run, &[]).contains("all 4 steps"));
}

#[test]
fn a_run_whose_files_vanish_keeps_its_steps_and_goes_on_when_they_are_back() {
    let place = Place::new("vanished");
    let (images, run, whole) = (place.path("images"), place.path("run"), place.path("whole"));
    std::fs::create_dir_all(&images).unwrap();
    let pictures: Vec<PathBuf> =
        (0..1500).map(|i| Path::new(&images).join(format!("{i:04}.png"))).collect();
    for (i, path) in pictures.iter().enumerate() {
        let picture = image::GrayImage::from_fn(24, 24, |x, y| {
            image::Luma([(x * 7 + y * (i as u32 % 11) + i as u32) as u8])
        });
        picture.save(path).unwrap();
    }
    // 1350 images to train on, in three copies more than half of what may be taken: they are
    // streamed.
    let train = |out: &str| -> Vec<String> {
        let set = [
            "model.layers.code.units=16",
            "model.layers.encoder.0.filters=4",
            "train.checkpoint_every=10",
            "train.log_every=7",
            "data.validation_patches=8",
        ];
        let words = [
            "train",
            &images,
            "--device=cpu",
            "-q",
            "--batch=16",
            "--steps=500",
            "--max-memory=4MiB",
            "--out",
            out,
        ];
        words.map(str::to_owned).into_iter().chain(set.map(|set| format!("--set={set}"))).collect()
    };
    let (to_whole, to_run) = (train(&whole), train(&run));
    succeed(&to_whole.iter().map(String::as_str).collect::<Vec<_>>());
    let bytes_of: Vec<Vec<u8>> = pictures.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let newest = || {
        checkpoints(&run)
            .into_iter()
            .rfind(|path| path.extension().is_some_and(|end| end == "safetensors"))
    };
    for away in [true, false] {
        let begin: Vec<&str> = to_run.iter().map(String::as_str).collect();
        let before = newest();
        let again = ["resume", &run, "-q"];
        let mut child = start(if before.is_none() { &begin } else { &again });
        let began = Instant::now();
        while newest() == before {
            assert!(
                began.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(),
                "no checkpoint came"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        // Some day the files are gone, and some day they are no pictures any more.
        for path in &pictures {
            if away {
                std::fs::remove_file(path).unwrap()
            } else {
                std::fs::write(path, "no picture").unwrap()
            }
        }
        let output = child.wait_with_output().unwrap();
        let kept = newest().unwrap();
        let step = csae::internals::train::checkpoint::load(&kept).unwrap().header.step;
        let (after, how, kept) = (
            format!("after step {step} of 500"),
            format!("csae resume {run}"),
            kept.display().to_string(),
        );
        one_line(&output, 1, &[&after, ".png", "restore the file", &how, &kept]);
        // Without them it does not go on.
        fail(&["resume", &run, "-q"], 2, &[&images]);
        pictures
            .iter()
            .zip(&bytes_of)
            .for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    }
    resume(&run, &[]);
    for name in ["model.safetensors", "best.safetensors", "reconstructions.png"] {
        assert!(bytes(&run, name) == bytes(&whole, name), "{name} differs");
    }
    assert_eq!(log(&run), log(&whole));
}

#[test]
fn a_finished_run_is_extended() {
    let place = Place::new("extend");
    let (run, whole) = (place.path("run"), place.path("whole"));
    // The rate is constant here, so that a longer run begins like a shorter one.
    let constant = [
        "--set",
        "schedule.kind=constant",
        "--set",
        "schedule.warmup_epochs=0",
        "--set",
        "train.keep=3",
    ];
    train(&whole, &[&["--steps", "90"], &constant[..]].concat());
    train(&run, &[&["--steps", "50"], &constant[..]].concat());
    let short = bytes(&run, "model.safetensors");
    resume(&run, &["--steps", "90"]);
    assert!(bytes(&run, "model.safetensors") == bytes(&whole, "model.safetensors"));
    assert!(bytes(&run, "model.safetensors") != short);
    assert!(bytes(&run, "config.toml") == bytes(&whole, "config.toml"));
    let names = |run: &str| {
        checkpoints(run).iter().map(|path| path.file_name().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        names(&run),
        [
            "checkpoint-000060.safetensors",
            "checkpoint-000080.safetensors",
            "checkpoint-000090.safetensors"
        ]
    );
    assert_eq!(names(&run), names(&whole));
    let steps: Vec<u64> = log(&run).iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert!(steps.is_sorted() && steps.last() == Some(&90), "{steps:?}");
    assert!(resume(&run, &[]).contains("all 90 steps"));
}

#[test]
fn a_diverging_run_keeps_its_last_good_checkpoint() {
    let place = Place::new("nan");
    let run = place.path("run");
    // The rate doubles every step until no training survives it.
    let rate = [
        "optimizer.clip_norm=0",
        "schedule.kind=step",
        "schedule.every_epochs=0.01",
        "schedule.gamma=2",
        "train.checkpoint_every=1",
    ];
    let rate: Vec<String> = rate.iter().map(|set| format!("--set={set}")).collect();
    let rate: Vec<&str> = rate.iter().map(String::as_str).collect();
    let output = csae(&[&TRAIN[..], &[&run, "--steps", "400"], &rate].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("step") && said.contains("optimizer.lr") && said.contains("is kept"),
        "{said}"
    );
    assert_eq!(checkpoints(&run).len(), 1, "{said}");
    assert!(!Path::new(&run).join("model.safetensors").exists());
    // It is a sound one: going on from there fails as before, not earlier.
    fail(&["resume", &run, "-q"], 1, &["step", "optimizer.lr", "is kept"]);
}
