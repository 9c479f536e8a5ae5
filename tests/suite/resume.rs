//! Runs that are stopped and resumed: killed at any moment, interrupted, extended, damaged.
//! `tests/kill25` does the same on a device of your choice.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use csae::internals::rng::Stream;
use csae::internals::train::checkpoint;

#[cfg(unix)]
use crate::support::arrays::npy;
use crate::support::command::wait;
#[cfg(unix)]
use crate::support::command::{interrupt, send};
use crate::support::files::{
    checkpoints, config, copy_folder, exists, metrics_without_speed, newest_checkpoint,
};
use crate::support::images::texture;
use crate::support::{Command, TempFolder, bytes, is_file, model_bytes, skip};

fn train(run: &str) -> Command {
    train_by(run, 16, 20)
}

/// Trains with a size of batches and an interval of checkpoints.
fn train_by(run: &str, batch: usize, checkpoint_every: usize) -> Command {
    Command::train("digits")
        .out(run)
        .batch(batch)
        .set("model.layers.code.units=24")
        .set("train.log_every=7")
        .set("train.validate_every=0.5")
        .set(format!("train.checkpoint_every={checkpoint_every}"))
        .on_cpu()
        .quiet()
}

fn resume(run: &str) -> Command {
    Command::resume(run).quiet()
}

fn assert_equal(run: &str, whole: &str) {
    for name in [
        "model.safetensors",
        "best.safetensors",
        "reconstructions.png",
        "filters.png",
        "atoms.png",
        "config.toml",
        "metrics.csv",
        "train.png",
    ] {
        let read = |run: &str| bytes(format!("{run}/{name}"));
        assert!(read(run) == read(whole), "{name} differs");
    }
    let (a, b) = (metrics_without_speed(run), metrics_without_speed(whole));
    assert!(a.len() > 10);
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(a, b);
    }
    assert_eq!(a.len(), b.len());
}

/// Waits until `done`, while a child works.
#[track_caller]
fn wait_until(child: &mut Child, what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        let working = child.try_wait().unwrap().is_none();
        assert!(start.elapsed() < Duration::from_secs(60) && working, "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[track_caller]
fn wait_for_checkpoint(run: &str, child: &mut Child) {
    wait_until(child, "a checkpoint", || newest_checkpoint(run).is_some());
}

/// A run of 200 steps that was killed after its first checkpoint. No test changes it.
fn killed() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let run = TempFolder::shared().path("resume-killed");
        let mut child = train(&run).steps(200).spawn();
        wait_for_checkpoint(&run, &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        run
    })
}

/// A copy of the killed run, and its newest checkpoint.
fn copied(folder: &TempFolder) -> (String, PathBuf) {
    let run = folder.path("run");
    copy_folder(killed(), &run);
    let newest = newest_checkpoint(&run).unwrap();
    (run, newest)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn one_command_starts_or_continues_a_run() {
    let folder = TempFolder::new("resume-if-there");
    // A run that was killed, and one that is not there.
    let (whole, (part, _)) = (folder.path("whole"), copied(&folder));
    let train = |run: &str, steps: usize| train(run).steps(steps).flags("--resume-if-there");
    train(&whole, 200).succeed();
    train(&part, 200).succeed();
    assert_equal(&part, &whole);
    assert!(train(&part, 200).succeed().contains("finished, all 200 steps"));
    train(&part, 150).fails(2, &["already has 200 steps"]);
    let changed = train(&part, 210).set("optimizer.lr=0.5").set("sparsity.lambda=0.25");
    changed.fails(2, &[&part, "other settings: optimizer.lr, sparsity.lambda;"]);
    train(&part, 210).set("data.crop=9").fails(2, &["other settings: data.crop;"]);
    let other = Command::train("photos").flags("--resume-if-there --preset signals");
    other.out(&part).on_cpu().fails(2, &["holds a run with other settings"]);
    assert_equal(&part, &whole);
    train(&part, 210).succeed();

    let without = Command::train("digits").flags("--resume-if-there");
    without.fails(2, &["--out"]);
}

#[test]
fn a_run_killed_at_random_moments_ends_with_the_same_bytes() {
    let folder = TempFolder::new("kill");
    let (whole, run) = (folder.path("whole"), folder.path("run"));
    let begin = Instant::now();
    train(&whole).steps(400).succeed();
    let took = begin.elapsed();
    let mut stream = Stream::new(u64::from(std::process::id()), "moments");
    let mut kills = 0;
    for _ in 0..60 {
        let mut child = if exists(&run) {
            assert!(is_file(&run, "config.toml"), "a folder that cannot be resumed");
            resume(&run).spawn()
        } else {
            train(&run).steps(400).spawn()
        };
        if kills < 6 {
            std::thread::sleep(took.mul_f32(0.4 * stream.uniform()));
            child.kill().unwrap();
        }
        let output = wait(child);
        if output.succeeded() {
            break;
        }
        assert!(kills < 6 && output.stderr.is_empty(), "{output:?}");
        kills += 1;
    }
    assert!(kills > 0);
    assert_equal(&run, &whole);
    // A finished run stays as it is.
    assert!(resume(&run).succeed().contains("finished, all 400 steps"));
    assert!(resume(&run).arg("--json").succeed().contains("\"kind\":\"finished\""));
    assert_equal(&run, &whole);
    // A model that was removed is written again.
    std::fs::remove_file(format!("{run}/model.safetensors")).unwrap();
    resume(&run).succeed();
    assert_equal(&run, &whole);
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_checkpoint_and_the_command_that_resumes() {
    let folder = TempFolder::new("interrupt");
    let (whole, run) = (folder.path("whole"), folder.path("run"));
    // No checkpoints otherwise, and a number of steps at which no line of the log ends.
    train_by(&whole, 16, 0).steps(300).succeed();
    let mut child = train_by(&run, 16, 0).steps(300).spawn();
    let log = format!("{run}/metrics.jsonl");
    let logged = || Path::new(&log).metadata().is_ok_and(|data| data.len() > 0);
    wait_until(&mut child, "a line of the log", logged);
    let status = interrupt(&child);
    let output = wait(child);
    assert_eq!(output.status, Some(status), "{output:?}");
    assert!(output.stderr.contains("of 300"), "{output:?}");
    assert!(output.stderr.contains(&format!("csae resume {run}")), "{output:?}");
    assert_eq!(checkpoints(&run).len(), 1);
    Command::train("digits").out(&run).fails(2, &["csae resume", "--force"]);
    resume(&run).succeed();
    assert_eq!(config(&run), config(&whole));
    assert_equal(&run, &whole);
}

#[cfg(unix)]
#[test]
fn a_second_ctrl_c_stops_at_once() {
    use std::io::{BufRead as _, BufReader};
    let folder = TempFolder::new("twice");
    let run = folder.path("run");
    // Steps of several seconds.
    let slow = train_by(&run, 16384, 1).steps(1000).set("model.layers.encoder.0.filters=512");
    let mut child = slow.spawn();
    wait_for_checkpoint(&run, &mut child);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let status = interrupt(&child);
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("Ctrl-C again after a second to stop at once"), "{line}");
    std::thread::sleep(Duration::from_millis(1100));
    let begin = Instant::now();
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(status));
    assert!(begin.elapsed() < Duration::from_secs(5), "it took {:?}", begin.elapsed());
    // There are no further messages, so the step was not finished.
    line.clear();
    assert_eq!(stderr.read_line(&mut line).unwrap(), 0, "{line}");
    assert!(!is_file(&run, "model.safetensors"));
    // Every checkpoint is complete.
    let complete = |path: &&PathBuf| path.extension().is_some_and(|end| end == "safetensors");
    for path in checkpoints(&run).iter().filter(complete) {
        checkpoint::load(path).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[cfg(unix)]
#[test]
fn features_that_are_interrupted_leave_no_file() {
    let folder = TempFolder::new("features-interrupt");
    let (run, out) = (folder.path("run"), folder.path("f.npy"));
    train(&run).steps(1).succeed();
    let many = folder.write("many.npy", npy("|u1", "1000000, 1, 8, 8", &vec![7; 64_000_000]));
    let mut child = Command::new("features").arg(&run).arg(many).out(&out).on_cpu().spawn();
    let partial = format!("{out}.partial");
    while !exists(&partial) && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let status = interrupt(&child);
    let output = wait(child);
    assert_eq!(output.status, Some(status), "{output:?}");
    assert!(output.stderr.contains("f.npy was not written"), "{output:?}");
    assert!(!exists(&out) && !exists(&partial));
}

#[cfg(unix)]
fn assert_signal_leaves_a_checkpoint(signal: &str, status: i32) {
    let folder = TempFolder::new("signal");
    let run = folder.path("run");
    let mut child = train(&run).steps(100_000).spawn();
    wait_for_checkpoint(&run, &mut child);
    send(signal, &child);
    let output = wait(child);
    assert_eq!(output.status, Some(status), "{output:?}");
    assert!(output.stderr.contains(&format!("csae resume {run}")), "{output:?}");
}

#[cfg(unix)]
#[test]
fn a_closed_terminal_leaves_a_checkpoint() {
    if hangups_are_ignored() {
        return skip("the tests run under nohup, which csae obeys");
    }
    assert_signal_leaves_a_checkpoint("-HUP", 129);
}

/// Whether this process, and so its children, ignore SIGHUP. Known on Linux only.
#[cfg(unix)]
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // SIGHUP is signal 1, the lowest bit.
    ignored.is_some_and(|mask| mask.trim().ends_with(['1', '3', '5', '7', '9', 'b', 'd', 'f']))
}

#[cfg(unix)]
#[test]
fn a_shutdown_leaves_a_checkpoint() {
    assert_signal_leaves_a_checkpoint("-TERM", 143);
}

#[test]
fn damaged_checkpoints_are_refused() {
    let folder = TempFolder::new("damaged");
    let (run, newest) = copied(&folder);
    let good = bytes(&newest);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    for bad in [&flipped[..], &good[..good.len() - 4], &good[..7], b"", &[0xff; 64]] {
        std::fs::write(&newest, bad).unwrap();
        resume(&run).fails(1, &[&file_name(&newest), "damaged", "delete it"]);
    }
}

#[test]
fn a_checkpoint_of_another_configuration_is_refused() {
    let folder = TempFolder::new("foreign");
    let (run, newest) = copied(&folder);
    let text = config(&run);
    assert!(text.contains("seed = 0\n"));
    folder.write("run/config.toml", text.replace("seed = 0\n", "seed = 1\n"));
    let words = [&file_name(&newest)[..], "config.toml", "another configuration"];
    resume(&run).fails(2, &words);
}

#[test]
fn the_interval_of_checkpoints_can_change() {
    let folder = TempFolder::new("interval");
    let (run, _) = copied(&folder);
    let text = config(&run).replace("checkpoint_every = 20\n", "checkpoint_every = 50\n");
    folder.write("run/config.toml", text);
    resume(&run).succeed();
    // A finished run cannot become shorter.
    resume(&run).steps(10).fails(2, &["200", "10"]);
}

#[test]
fn a_folder_without_a_run_is_refused() {
    let folder = TempFolder::new("no-run");
    resume(&folder.path("none")).fails(2, &["none", "no such folder"]);
    let (run, _) = copied(&folder);
    std::fs::remove_file(format!("{run}/config.toml")).unwrap();
    resume(&run).fails(2, &["config.toml"]);
}

/// Copies a bundled texture.
fn copy_texture(name: &str, to: &str) {
    std::fs::copy(texture(name), to).unwrap();
}

/// Trains on the folder `images`, by its name as it is seen from the folder around it.
fn train_on_images(folder: &TempFolder, name: &str) -> Command {
    folder.create("images");
    copy_texture("brick.png", &folder.path("images/a.png"));
    copy_texture("grass.png", &folder.path("images/b.png"));
    let train = Command::train("images").out(name).steps(2).batch(4);
    train.set("model.layers.code.units=8").on_cpu().quiet().current_dir(folder.root())
}

#[test]
fn relative_folders_of_images_are_found_again() {
    let folder = TempFolder::new("relative");
    train_on_images(&folder, "run").succeed();
    resume(&folder.path("run")).steps(4).succeed();
}

#[test]
fn relative_folders_of_validation_images_are_found_again_and_stay_as_written() {
    let folder = TempFolder::new("relative-validation");
    let train = train_on_images(&folder, "run").set("data.validation_source=images");
    train.succeed();
    let run = folder.path("run");
    resume(&run).steps(4).succeed();
    let config = config(&run);
    assert!(config.contains("validation_source = \"images\""), "{config}");
    assert!(config.contains("steps = 4"), "{config}");
}

#[test]
fn a_run_whose_images_changed_is_refused() {
    let folder = TempFolder::new("other-data");
    train_on_images(&folder, "run").succeed();
    let run = folder.path("run");
    resume(&run).steps(4).succeed();
    copy_texture("gravel.png", &folder.path("images/a.png"));
    resume(&run).steps(6).fails(2, &["images", "the images differ"]);
    // The refusal changed nothing.
    assert!(resume(&run).succeed().contains("all 4 steps"));
}

/// A folder of small images that do not fit in a budget of 4 MiB.
struct Vanishing {
    folder: TempFolder,
    paths: Vec<PathBuf>,
    bytes: Vec<Vec<u8>>,
}

impl Vanishing {
    fn new() -> Self {
        let folder = TempFolder::new("vanished");
        let images = folder.create("images");
        let paths: Vec<PathBuf> =
            (0..1500).map(|i| PathBuf::from(format!("{images}/{i:04}.png"))).collect();
        for (i, path) in (0..).zip(&paths) {
            let pixel = |x, y| image::Luma([(x * 7 + y * (i % 11) + i) as u8]);
            image::GrayImage::from_fn(24, 24, pixel).save(path).unwrap();
        }
        let bytes = paths.iter().map(bytes).collect();
        Self { folder, paths, bytes }
    }

    /// Streams 1350 images: three copies of them are more than half of the budget.
    fn train(&self, run: &str) -> Command {
        Command::train(self.folder.path("images"))
            .out(run)
            .steps(500)
            .batch(16)
            .max_memory("4MiB")
            .set("model.layers.code.units=16")
            .set("model.layers.encoder.0.filters=4")
            .set("train.checkpoint_every=10")
            .set("train.log_every=7")
            .set("data.validation_patches=8")
            .on_cpu()
            .quiet()
    }

    fn restore(&self) {
        let files = self.paths.iter().zip(&self.bytes);
        files.for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    }
}

#[test]
fn a_run_whose_files_vanish_keeps_its_steps_and_goes_on_when_they_are_back() {
    let images = Vanishing::new();
    let (run, whole) = (images.folder.path("run"), images.folder.path("whole"));
    images.train(&whole).succeed();
    for removed in [true, false] {
        let before = newest_checkpoint(&run);
        let command = if before.is_none() { images.train(&run) } else { resume(&run) };
        let mut child = command.spawn();
        wait_until(&mut child, "a checkpoint", || newest_checkpoint(&run) != before);
        // First the files are removed. The second time they are overwritten.
        for path in &images.paths {
            if removed {
                std::fs::remove_file(path).unwrap()
            } else {
                std::fs::write(path, "no picture").unwrap()
            }
        }
        let output = wait(child);
        let kept = newest_checkpoint(&run).unwrap();
        let step = checkpoint::load(&kept).unwrap().header.step;
        let after = format!("after step {step} of 500");
        let how = format!("csae resume {run}");
        let kept = kept.display().to_string();
        output.assert_failed(1, &[&after, ".png", "restore the file", &how, &kept]);
        // Without the images it cannot be resumed.
        resume(&run).fails(2, &[&images.folder.path("images")]);
        images.restore();
    }
    resume(&run).succeed();
    for name in ["model.safetensors", "best.safetensors", "reconstructions.png"] {
        let read = |run: &str| bytes(format!("{run}/{name}"));
        assert!(read(&run) == read(&whole), "{name} differs");
    }
    assert_eq!(metrics_without_speed(&run), metrics_without_speed(&whole));
}

#[test]
fn a_finished_run_is_extended() {
    let folder = TempFolder::new("extend");
    let (run, whole) = (folder.path("run"), folder.path("whole"));
    // The rate is constant, so that a longer run begins like a shorter one.
    let train = |run: &str| {
        let train = train(run).set("schedule.kind=constant").set("schedule.warmup_epochs=0");
        train.set("train.keep=3")
    };
    train(&whole).steps(90).succeed();
    train(&run).steps(50).succeed();
    let short = model_bytes(&run);
    resume(&run).steps(90).succeed();
    assert!(model_bytes(&run) == model_bytes(&whole) && model_bytes(&run) != short);
    assert_eq!(config(&run), config(&whole));
    let names = |run: &str| -> Vec<String> {
        checkpoints(run).iter().map(|path| file_name(path)).collect()
    };
    let expected = [60, 80, 90].map(|step| format!("checkpoint-{step:06}.safetensors"));
    assert_eq!((names(&run), names(&whole)), (expected.to_vec(), expected.to_vec()));
    let log = metrics_without_speed(&run);
    let steps: Vec<u64> = log.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert!(steps.is_sorted() && steps.last() == Some(&90), "{steps:?}");
    assert!(resume(&run).succeed().contains("all 90 steps"));
}

#[test]
fn a_diverging_run_keeps_its_last_good_checkpoint() {
    let folder = TempFolder::new("nan");
    let run = folder.path("run");
    // The rate doubles every step until the training diverges.
    let output = train_by(&run, 16, 1)
        .steps(400)
        .set("optimizer.clip_norm=0")
        .set("schedule.kind=step")
        .set("schedule.every_epochs=0.01")
        .set("schedule.gamma=2")
        .output();
    let words = ["step", "optimizer.lr", "is kept"];
    assert_eq!(output.status, Some(1), "{output:?}");
    assert!(words.iter().all(|word| output.stderr.contains(word)), "{output:?}");
    assert_eq!(checkpoints(&run).len(), 1, "{output:?}");
    assert!(!is_file(&run, "model.safetensors"));
    // The checkpoint is good: a run that is resumed from there fails at the same step as before.
    resume(&run).fails(1, &words);
}

/// Cluster schedulers send these before they end a job.
#[cfg(target_os = "linux")]
#[test]
fn warnings_of_schedulers_leave_a_checkpoint() {
    assert_signal_leaves_a_checkpoint("-USR1", 138);
    assert_signal_leaves_a_checkpoint("-USR2", 140);
    assert_signal_leaves_a_checkpoint("-XCPU", 152);
}

/// `timeout` sends its signal to the program and to its group.
#[cfg(unix)]
#[test]
fn two_signals_at_the_same_time_are_one_request() {
    let folder = TempFolder::new("two-signals");
    let run = folder.path("run");
    let mut child = train_by(&run, 256, 0).steps(100_000).spawn();
    wait_until(&mut child, "a line of the log", || {
        Path::new(&format!("{run}/metrics.jsonl")).metadata().is_ok_and(|data| data.len() > 0)
    });
    let id = child.id();
    let twice = format!("kill -TERM {id}; kill -INT {id}; kill -TERM {id}");
    assert!(std::process::Command::new("sh").args(["-c", &twice]).status().unwrap().success());
    let output = wait(child);
    assert!([Some(143), Some(130)].contains(&output.status), "{output:?}");
    assert!(output.stderr.contains(&format!("csae resume {run}")), "{output:?}");
    assert_eq!(checkpoints(&run).len(), 1);
}

#[cfg(unix)]
#[test]
fn an_ignored_signal_stays_ignored() {
    let folder = TempFolder::new("nohup");
    let run = folder.path("run");
    let mut child = train(&run).steps(300).through("trap '' HUP; exec \"$0\" \"$@\"").spawn();
    wait_for_checkpoint(&run, &mut child);
    send("-HUP", &child);
    let output = wait(child);
    assert!(output.succeeded(), "{output:?}");
    assert!(is_file(&run, "model.safetensors"));
}

#[cfg(unix)]
#[test]
fn training_goes_on_without_a_reader_of_its_messages() {
    let scripts = [
        // Closed, a full disk, and a reader that leaves after the first line.
        "exec \"$0\" \"$@\" 2>&-",
        "exec \"$0\" \"$@\" 2>/dev/full",
        "exec \"$0\" \"$@\" >/dev/full 2>/dev/full",
        "{ \"$0\" \"$@\"; echo $? >status; } 2>&1 | head -n 1; exit $(cat status)",
    ];
    for script in scripts {
        let folder = TempFolder::new("no-reader");
        let run = folder.path("run");
        let command = Command::train("digits").out(&run).batch(16).steps(60).on_cpu();
        let command = command.arg("--json").set("train.log_every=5").current_dir(folder.path(""));
        let output = command.through(script).output();
        assert!(output.succeeded(), "{script}: {output:?}");
        assert!(is_file(&run, "model.safetensors"), "{script}");
        assert!(metrics_without_speed(&run).len() > 10, "{script}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_limit_of_threads_is_said_and_kept() {
    // The limit does not hold for root, so another user runs the program.
    let script = "exec setpriv --reuid 65534 --clear-groups prlimit --nproc=9 \"$0\" \"$@\"";
    let folder = TempFolder::new("threads");
    let open = std::process::Command::new("chmod").args(["777", &folder.path("")]).status();
    assert!(open.unwrap().success());
    let version = Command::new("--version").through(script).output();
    if !version.succeeded() {
        return skip(&format!("no program of another user can run here: {version:?}"));
    }
    let command = Command::train("digits").out(folder.path("run")).batch(16).steps(5).on_cpu();
    let output = command.arg("--threads").arg("32").through(script).output();
    assert!(output.succeeded(), "{output:?}");
    assert!(output.stderr.contains("the system allows"), "{output:?}");
}
