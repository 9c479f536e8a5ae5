//! Outputs that cannot be written: each is one line with the path and exit status 1, and no file is
//! left half written. And folders that another process trains in.

use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use csae::internals::files::Lock;

use crate::support::files::{exists, list_all};
use crate::support::images::BRICK;
use crate::support::{Command, TempFolder, is_file};
#[cfg(unix)]
use crate::support::{bytes, files::copy_folder, model_bytes, skip};

fn train(out: &str, steps: usize) -> Command {
    Command::train("digits")
        .out(out)
        .steps(steps)
        .batch(16)
        .set("model.layers.code.units=24")
        .set("train.checkpoint_every=5")
        .on_cpu()
        .quiet()
}

/// A run of one step that no test changes.
fn model() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let run = TempFolder::shared().path("disk");
        train(&run, 1).succeed();
        run
    })
}

fn reconstruct(out: &str) -> Command {
    Command::reconstruct(model(), BRICK).out(out).on_cpu().quiet()
}

#[test]
fn a_folder_below_a_file_is_refused() {
    let folder = TempFolder::new("unwritable");
    folder.write("file", "");
    // Not even the superuser can create a folder there.
    let below = folder.path("file/run");
    for command in [train(&below, 1), reconstruct(&below), Command::new("man").out(&below)] {
        command.fails(1, &[&below, "could not be created"]);
    }
    assert_eq!(list_all(folder.root()).len(), 1);
}

/// The kernel's own folders take no files, not even the superuser's.
#[cfg(target_os = "linux")]
#[test]
fn folders_of_the_kernel_are_refused() {
    for folder in ["/proc", "/sys/kernel"] {
        let out = format!("{folder}/csae-run");
        train(&out, 1).fails(1, &[&out, "could not be created"]);
        reconstruct(folder).fails(1, &[folder, "brick.png", "could not be written"]);
    }
}

/// A folder without permission to write.
#[cfg(unix)]
struct ReadOnly(String);

#[cfg(unix)]
impl ReadOnly {
    /// Takes the permission away. Returns `None` if this has no effect on the user.
    fn new(path: String) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let locked = Self(path);
        locked.mode(0o555);
        let probe = format!("{}/probe", locked.0);
        if std::fs::write(&probe, "").is_ok() {
            std::fs::remove_file(probe).unwrap();
            skip("the superuser writes everywhere");
            return None;
        }
        Some(locked)
    }

    fn mode(&self, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&self.0, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[cfg(unix)]
impl Drop for ReadOnly {
    fn drop(&mut self) {
        // Otherwise the temporary folder cannot be removed.
        self.mode(0o755);
    }
}

#[cfg(unix)]
#[test]
fn a_read_only_folder_is_refused() {
    let folder = TempFolder::new("read-only");
    let Some(locked) = ReadOnly::new(folder.path("locked")) else { return };
    let run = format!("{}/run", locked.0);
    train(&run, 1).fails(1, &[&run, "could not be created"]);
    reconstruct(&locked.0).fails(1, &["brick.png", "could not be written"]);
    assert!(list_all(&locked.0).is_empty());
}

#[cfg(unix)]
#[test]
fn a_read_only_run_can_be_looked_at_and_not_extended() {
    let folder = TempFolder::new("read-only-run");
    let run = folder.path("run");
    copy_folder(model(), &run);
    let before = list_all(&run);
    let Some(_locked) = ReadOnly::new(run.clone()) else { return };
    assert!(Command::resume(&run).quiet().succeed().contains("all 1 steps"));
    Command::resume(&run).quiet().steps(9).fails(1, &[&run, "could not be written"]);
    assert!(list_all(&run) == before);
}

#[cfg(unix)]
#[test]
fn a_full_disk_refuses_a_new_run_and_leaves_no_folder() {
    let folder = TempFolder::new("full-new");
    let run = folder.path("run");
    train(&run, 20).full_disk(0).fails(1, &["config.toml", "could not be written"]);
    assert!(!exists(&run));
}

#[cfg(unix)]
#[test]
fn a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on_when_there_is_space() {
    let folder = TempFolder::new("full");
    let (run, calm) = (folder.path("run"), folder.path("calm"));
    train(&run, 20).set("train.keep=1").succeed();
    let last = format!("{run}/checkpoint-000020.safetensors");
    let before = bytes(&last);
    assert!(before.len() > 16 << 10, "{}", before.len());
    let words = ["checkpoint-000025.safetensors", "could not be written", "free space"];
    Command::resume(&run).quiet().steps(40).full_disk(8).fails(1, &words);
    assert!(bytes(&last) == before, "the last checkpoint has changed");
    let half = |path: &std::path::PathBuf| {
        path.to_string_lossy().ends_with(".partial")
            || path.ends_with("checkpoint-000025.safetensors")
    };
    assert!(!list_all(&run).iter().any(half), "{:?}", list_all(&run));
    // With space again it ends with the bytes of a run that always had it.
    Command::resume(&run).quiet().succeed();
    train(&calm, 20).set("train.keep=1").succeed();
    Command::resume(&calm).quiet().steps(40).succeed();
    assert!(model_bytes(&run) == model_bytes(&calm));
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_no_picture_or_page() {
    let folder = TempFolder::new("full-pictures");
    let out = folder.path("out");
    reconstruct(&out).full_disk(1).fails(1, &["brick.png", "could not be written"]);
    let man = Command::new("man").out(&out);
    man.full_disk(0).fails(1, &["csae.1", "could not be written"]);
    assert!(list_all(&out).is_empty(), "{:?}", list_all(&out));
}

const LOCKED: &str = "another csae is training in this folder";

#[test]
fn a_run_that_another_process_trains_is_refused() {
    let folder = TempFolder::new("lock");
    let run = folder.path("run");
    train(&run, 3).succeed();
    let before = list_all(&run);
    let lock = std::path::PathBuf::from(format!("{run}/run.lock"));
    let held = Lock::take(&lock).unwrap().expect("the folder is free");
    let words = [&run, LOCKED, "--out"];
    Command::resume(&run).quiet().steps(6).fails(1, &words);
    train(&run, 3).force().fails(1, &words);
    assert_eq!(list_all(&run), before);
    drop(held);
    Command::resume(&run).quiet().steps(6).succeed();
}

#[test]
fn a_killed_process_does_not_hold_its_folder() {
    let folder = TempFolder::new("lock-killed");
    let run = folder.path("run");
    train(&run, 3).succeed();
    let mut process = train(&run, 100_000).force().process();
    let mut child = process.stdout(Stdio::null()).spawn().unwrap();
    let refused = (0..3000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        Command::resume(&run).quiet().steps(1).output().stderr.contains("another csae is training")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(refused, "two trainings in one folder");
    train(&run, 2).force().succeed();
    assert!(is_file(&run, "model.safetensors"));
}
