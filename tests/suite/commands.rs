//! The program as a user runs it: what it leaves behind, what it answers to wrong input, and its
//! exit status.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A folder of its own, removed at the end.
#[derive(Debug)]
pub struct Place(PathBuf);

impl Place {
    /// An empty folder. Two places never share one, even when they have the same name: tests run
    /// at the same time.
    pub fn new(name: &str) -> Self {
        static PLACES: AtomicUsize = AtomicUsize::new(0);
        let place = PLACES.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("csae-{name}-{}-{place}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    /// A path inside.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program, which sees nothing of the user's cache.
pub fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_csae"));
    program.env("CSAE_CACHE", "off");
    program
}

/// Runs the program.
pub fn csae(arguments: &[&str]) -> Output {
    program().args(arguments).output().expect("the program starts")
}

/// Its standard output, when it must succeed.
pub fn succeed(arguments: &[&str]) -> String {
    let output = csae(arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    text
}

/// One line on standard error that holds `words`, and this status.
pub fn fail(arguments: &[&str], status: i32, words: &[&str]) {
    one_line(&csae(arguments), status, words);
}

/// That a program that has ended said one line on standard error that holds `words`, and left with
/// this status.
pub fn one_line(output: &Output, status: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    // Mesa has a line of its own for each look at OpenGL's adapters.
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.starts_with("error: XDG_RUNTIME_DIR")).collect();
    assert!(lines.len() == 1 && lines[0].starts_with("csae: "), "not one line: {text}");
}

const SMALL: [&str; 10] = [
    "--device",
    "cpu",
    "-q",
    "--steps",
    "12",
    "--batch",
    "16",
    "--set",
    "model.layers.code.units=24",
    "--set=train.log_every=4",
];

fn train(out: &str, more: &[&str]) -> String {
    succeed(&[&["train", "digits", "--out", out], &SMALL[..], more].concat())
}

#[test]
fn a_run_leaves_what_it_promises_and_its_model_works() {
    let place = Place::new("run");
    let run = place.path("run");
    let last = train(&run, &[]);
    for word in ["PSNR", "SSIM", "L0", "dead", "images/s", "model.safetensors"] {
        assert!(last.contains(word), "{word}: {last}");
    }
    for file in [
        "config.toml",
        "model.safetensors",
        "metrics.jsonl",
        "reconstructions.png",
        "filters.png",
        "atoms.png",
    ] {
        assert!(Path::new(&run).join(file).metadata().is_ok_and(|data| data.len() > 0), "{file}");
    }
    for line in std::fs::read_to_string(Path::new(&run).join("metrics.jsonl")).unwrap().lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
    // The resolved configuration is a configuration.
    let again = place.path("again");
    let config = Path::new(&run).join("config.toml").display().to_string();
    succeed(&["train", "--config", &config, "--device", "cpu", "-q", "--out", &again]);
    let model = |run: &str| std::fs::read(Path::new(run).join("model.safetensors")).unwrap();
    assert_eq!(model(&run), model(&again));
    // The model file alone, on other data, by other commands.
    let file = Path::new(&run).join("model.safetensors").display().to_string();
    let report: serde_json::Value = serde_json::from_str(&succeed(&[
        "eval", &file, "digits", "--device", "cpu", "--json", "-q",
    ]))
    .unwrap();
    assert!(
        report["psnr"].as_f64().is_some_and(|psnr| psnr > 5.0) && report["images"] == 1797,
        "{report}"
    );
    let photo = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/images/textures/brick.png");
    let out = place.path("out");
    succeed(&["reconstruct", &file, photo, "-o", &out, "--device", "cpu", "-q"]);
    assert!(Path::new(&out).join("brick.png").exists());
    fail(
        &["reconstruct", &file, photo, "-o", &out, "--device", "cpu", "-q"],
        2,
        &["brick.png", "--force"],
    );
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let place = Place::new("seed");
    let model = |name: &str, more: &[&str]| {
        train(&place.path(name), more);
        std::fs::read(Path::new(&place.path(name)).join("model.safetensors")).unwrap()
    };
    let first = model("a", &["--threads", "1"]);
    assert_eq!(first, model("b", &["--threads", "2"]));
    assert_ne!(first, model("c", &["--seed", "1"]));
}

#[test]
fn wrong_input_is_answered_by_one_line() {
    let place = Place::new("wrong");
    let run = place.path("run");
    let at = |more: &[&'static str]| -> Vec<String> {
        ["train", "digits", "--device", "cpu", "-q", "--out"]
            .iter()
            .map(|s| (*s).to_owned())
            .chain([run.clone()])
            .chain(more.iter().map(|s| (*s).to_owned()))
            .collect()
    };
    let cases: &[(&[&str], &[&str])] = &[
        (&["--preset", "nothing"], &["nothing", "article"]),
        (&["--set", "optimizer.rate=1"], &["rate", "lr"]),
        (&["--set", "optimizer.lr=-1"], &["optimizer.lr", "at least 0"]),
        (&["--set", "optimizer.kind=sdg"], &["optimizer.kind", "sgd"]),
        (&["--set", "nonsense"], &["key=value"]),
        (&["--set", "model.layers.coed.units=3"], &["encoder.0"]),
        (&["--set", "model.layers.code.units=0"], &["code"]),
        (
            &[
                "--set",
                "model.layers.encoder.0.kernel=99",
                "--set",
                "model.layers.encoder.0.padding=0",
            ],
            &["encoder.0", "kernel 99"],
        ),
        (&["--set", "model.layers.encoder.0.stride=2"], &["the model turns", "8x8"]),
        (&["--set", "model.layers.encoder.0.activation=rleu"], &["encoder.0", "rleu", "relu"]),
        (&["--set", "loss.kind=l3"], &["loss.kind", "charbonnier"]),
        (&["--batch", "0"], &["train.batch"]),
        (&["--batch", "400000000"], &["train.batch", "would fit"]),
        (&["--set", "train.batch=abc"], &["train.batch", "abc"]),
        (&["--set", "model.code=input"], &["model.code"]),
        (&["--set", "model.layers.code.units=60000000"], &["MiB"]),
        (&["--config", "no-such-file.toml"], &["no-such-file.toml"]),
    ];
    for (more, words) in cases {
        let arguments = at(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        fail(&arguments, 2, words);
        assert!(!Path::new(&run).exists(), "{more:?} left a folder");
    }
    fail(
        &["train", "no/such/folder", "--device", "cpu", "--out", &run],
        2,
        &["no/such/folder", "photos"],
    );
    fail(
        &["train", "digits", "--device", "no-such-adapter", "--out", &run],
        2,
        &["no-such-adapter", "cpu"],
    );
    fail(&["train", "digits", "--device", "99", "--out", &run], 2, &["99", "csae devices"]);
    fail(&["train", "--unknown-flag"], 2, &["--unknown-flag"]);
    fail(
        &["eval", "no-model.safetensors", "digits", "--device", "cpu"],
        2,
        &["no-model.safetensors"],
    );
    fail(&["bench", "--workload", "w9", "--device", "cpu"], 2, &["w9", "w1"]);
    fail(&["bench", "--filter", "nothing-like-it", "--device", "cpu"], 2, &["nothing-like-it"]);
    fail(&["verify", "--filter", "nothing-like-it", "--device", "cpu"], 2, &["nothing-like-it"]);
    let text = place.path("text.safetensors");
    std::fs::write(&text, "this is no model").unwrap();
    fail(
        &["eval", &text, "digits", "--device", "cpu"],
        2,
        &["text.safetensors", "not a model file"],
    );
    std::fs::create_dir_all(&run).unwrap();
    fail(&["train", "digits", "--device", "cpu", "--out", &run], 2, &["--force"]);
}

#[test]
fn a_diverging_run_stops_and_says_where() {
    let place = Place::new("diverge");
    let run = place.path("run");
    let arguments = [
        &["train", "digits", "--out", &run],
        &SMALL[..],
        &["--set", "optimizer.lr=1e30", "--set", "optimizer.clip_norm=0"],
    ]
    .concat();
    fail(&arguments, 1, &["step", "loss", "optimizer.lr"]);
    // The last update ruins the weights when every loss seen was finite.
    let one = [
        "--force",
        "--steps=1",
        "--set",
        "optimizer.lr=1e30",
        "--set",
        "optimizer.clip_norm=0",
        "--device",
        "cpu",
        "-q",
    ];
    fail(
        &[&["train", "digits", "--out", &run], &one[..]].concat(),
        1,
        &["diverged", "optimizer.lr"],
    );
    assert!(!Path::new(&run).join("model.safetensors").exists());
}

#[test]
fn bench_lines_have_their_keys() {
    let text = succeed(&[
        "bench",
        "--device",
        "cpu",
        "--workload",
        "w1",
        "--batch",
        "2,3",
        "--seconds",
        "0.02",
        "--json",
        "-q",
    ]);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        for key in ["images_per_s", "min", "max", "ms", "first_step_s", "second_step_s", "params"] {
            assert!(line[key].is_number(), "{key}: {line}");
        }
        assert_eq!(
            (&line["kind"], &line["workload"], &line["precision"]),
            (&"train_step".into(), &"w1".into(), &"f32".into())
        );
    }
    let filter = "conv2d_max_pool_fwd/w1.1x28x28-16x28x28.k3x3.n32.relu";
    let text = succeed(&[
        "bench",
        "--device",
        "cpu",
        "--filter",
        filter,
        "--seconds",
        "0.02",
        "--json",
        "-q",
    ]);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() == 2 && lines[0]["kind"] == "peak" && lines[1]["name"] == filter, "{text}");
    for key in ["ms", "min", "max", "gflops", "gbps", "of_floor"] {
        assert!(lines[1]["kind"] == "kernel" && lines[1][key].is_number(), "{key}: {text}");
    }
}

#[test]
fn devices_and_verify_answer() {
    let text = succeed(&["devices", "--json"]);
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["kind"], "choice");
    let text = succeed(&["verify", "--device", "cpu", "--filter", "linear", "--json", "-q"]);
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(
        last["kind"] == "summary" && last["failed"] == 0 && last["passed"].as_u64() > Some(2),
        "{last}"
    );
}
