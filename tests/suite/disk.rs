//! Outputs that cannot be written: each is one line with the path and exit status 1, and nothing is
//! left half written under its name. And folders that another process trains in.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use csae::internals::files::Lock;

use crate::commands::{Place, csae, fail, one_line, program, succeed};

const SMALL: [&str; 9] = [
    "--device",
    "cpu",
    "-q",
    "--batch=16",
    "--set",
    "model.layers.code.units=24",
    "--set",
    "train.checkpoint_every=5",
    "--out",
];

fn train(out: &str, more: &[&str]) -> Vec<String> {
    [&["train", "digits"], &SMALL[..], &[out], more]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

fn photo() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/assets/images/textures/brick.png")
}

/// The program where no file may grow beyond so many blocks (of 512 or 1024 bytes, as the shell has
/// it): writes fail as on a full disk.
#[cfg(unix)]
fn csae_on_a_full_disk(blocks: u32, arguments: &[&str]) -> Output {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    Command::new("sh")
        .env("CSAE_CACHE", "off")
        .args(["-c", &script, env!("CARGO_BIN_EXE_csae")])
        .args(arguments)
        .output()
        .expect("a shell")
}

/// Everything below a folder.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(path.to_str().unwrap()));
        }
        found.push(path);
    }
    found.sort();
    found
}

fn strings(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn a_folder_that_cannot_be_written_to_is_refused_with_its_name() {
    let place = Place::new("unwritable");
    let model = place.path("model");
    succeed(&strings(&train(&model, &["--steps=1"])));
    std::fs::write(place.path("file"), "").unwrap();
    // Below a file no folder can be, whoever asks.
    let below = place.path("file/run");
    fail(&strings(&train(&below, &["--steps=1"])), 1, &[&below, "could not be created"]);
    fail(
        &["reconstruct", &model, photo(), "--device", "cpu", "-q", "-o", &below],
        1,
        &[&below, "could not be created"],
    );
    fail(&["man", "-o", &below], 1, &[&below, "could not be created"]);
    // The kernel's own folders take no files, not even the superuser's.
    if cfg!(target_os = "linux") {
        for folder in ["/proc", "/sys/kernel"] {
            let out = format!("{folder}/csae-run");
            fail(&strings(&train(&out, &["--steps=1"])), 1, &[&out, "could not be created"]);
            fail(
                &["reconstruct", &model, photo(), "--device", "cpu", "-q", "-o", folder],
                1,
                &[folder, "brick.png", "could not be written"],
            );
        }
    }
    assert_eq!(
        files(&place.path("")).iter().filter(|path| path.starts_with(place.path("file"))).count(),
        1
    );
}

#[cfg(unix)]
#[test]
fn a_read_only_folder_is_refused_with_its_name() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new("read-only");
    let (model, locked) = (place.path("model"), place.path("locked"));
    succeed(&strings(&train(&model, &["--steps=1"])));
    let last = files(&model);
    let mode = |path: &str, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
    };
    std::fs::create_dir(&locked).unwrap();
    mode(&locked, 0o555);
    if std::fs::write(place.path("locked/probe"), "").is_ok() {
        eprintln!(
            "skipped a_read_only_folder_is_refused_with_its_name: the superuser writes everywhere"
        );
        return;
    }
    let run = place.path("locked/run");
    fail(&strings(&train(&run, &["--steps=1"])), 1, &[&run, "could not be created"]);
    fail(
        &["reconstruct", &model, photo(), "--device", "cpu", "-q", "-o", &locked],
        1,
        &["brick.png", "could not be written"],
    );
    // A run whose folder became read-only can be looked at, and not gone on with.
    mode(&model, 0o555);
    assert!(succeed(&["resume", &model, "-q"]).contains("all 1 steps"));
    fail(&["resume", &model, "-q", "--steps=9"], 1, &[&model, "could not be written"]);
    assert!(files(&locked).is_empty() && files(&model) == last);
    mode(&model, 0o755);
    mode(&locked, 0o755);
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let place = Place::new("full");
    let run = place.path("run");
    let whole = |path: &Path| std::fs::read(path).unwrap();
    // Not even the configuration fits.
    let output = csae_on_a_full_disk(0, &strings(&train(&run, &["--steps=20"])));
    one_line(&output, 1, &["config.toml", "could not be written"]);
    assert!(!Path::new(&run).exists());
    // A run that has come some way goes on until there is no more space for a checkpoint.
    succeed(&strings(&train(&run, &["--steps=20", "--set=train.keep=1"])));
    let last = Path::new(&run).join("checkpoint-000020.safetensors");
    let before = whole(&last);
    assert!(before.len() > 16 << 10, "{}", before.len());
    let output = csae_on_a_full_disk(8, &["resume", &run, "-q", "--steps=40"]);
    one_line(&output, 1, &["checkpoint-000025.safetensors", "could not be written", "free space"]);
    assert!(whole(&last) == before, "the last checkpoint is not what it was");
    let half = |path: &PathBuf| {
        path.to_string_lossy().ends_with(".partial")
            || path.ends_with("checkpoint-000025.safetensors")
    };
    assert!(!files(&run).iter().any(half), "{:?}", files(&run));
    // With space again it ends with the bytes of a run that always had it.
    succeed(&["resume", &run, "-q"]);
    let calm = place.path("calm");
    succeed(&strings(&train(&calm, &["--steps=20", "--set=train.keep=1"])));
    succeed(&["resume", &calm, "-q", "--steps=40"]);
    let model = |run: &str| whole(&Path::new(run).join("model.safetensors"));
    assert!(model(&run) == model(&calm));
    // Pictures and pages.
    let out = place.path("out");
    let output = csae_on_a_full_disk(
        1,
        &["reconstruct", &run, photo(), "--device", "cpu", "-q", "-o", &out],
    );
    one_line(&output, 1, &["brick.png", "could not be written"]);
    one_line(&csae_on_a_full_disk(0, &["man", "-o", &out]), 1, &["csae.1", "could not be written"]);
    assert!(files(&out).is_empty(), "{:?}", files(&out));
}

#[test]
fn a_folder_belongs_to_one_process_at_a_time() {
    let place = Place::new("lock");
    let run = place.path("run");
    succeed(&strings(&train(&run, &["--steps=3"])));
    let before = files(&run);
    let held = Lock::take(&Path::new(&run).join("run.lock")).unwrap().expect("nobody trains there");
    let told = [&run, "another csae is training in this folder", "--out"];
    fail(&["resume", &run, "-q", "--steps=6"], 1, &told);
    fail(&strings(&train(&run, &["--steps=3", "--force"])), 1, &told);
    assert_eq!(files(&run), before);
    drop(held);
    succeed(&["resume", &run, "-q", "--steps=6"]);
    // A process that was killed holds nothing.
    let long = train(&run, &["--steps=100000", "--force"]);
    let mut child = program().args(&long).stdout(Stdio::null()).spawn().unwrap();
    let refused = (0..3000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        let text = String::from_utf8(csae(&["resume", &run, "-q", "--steps=1"]).stderr).unwrap();
        text.contains("another csae is training")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(refused, "two trainings in one folder");
    succeed(&strings(&train(&run, &["--steps=2", "--force"])));
}
