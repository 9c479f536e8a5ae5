//! Training by several processes: over sockets, and over every MPI whose launcher the variable
//! `CSAE_MPIRUN` names (paths of `mpirun`, separated by colons).

use std::time::{Duration, Instant};

use csae::internals::rng::Stream;

use crate::support::command::wait;
use crate::support::files::{config, metrics_without_speed};
use crate::support::images::patterns;
use crate::support::models::digits;
use crate::support::{Command, TempFolder, bytes, gpu, is_file, model_bytes, skip};

/// A short training. Its batch splits into two, three and four parts.
fn train(preset: &str, run: &str) -> Command {
    train_for(5, preset, run)
}

fn train_for(steps: usize, preset: &str, run: &str) -> Command {
    let data = if preset == "photographs" { "textures" } else { "digits" };
    let command = Command::new("train").arg(data).option("--preset", preset);
    let command = command.batch(12).steps(steps).set("data.crop=16").set("train.log_every=2");
    command.out(run).quiet()
}

fn devices(device: &str, count: usize) -> String {
    vec![device; count].join(",")
}

/// The files of a run that must not depend on the number of processes.
fn assert_equal(run: &str, whole: &str) {
    for name in ["model.safetensors", "best.safetensors", "config.toml"] {
        let read = |run: &str| bytes(format!("{run}/{name}"));
        assert!(read(run) == read(whole), "{name} differs");
    }
    assert_eq!(metrics_without_speed(run), metrics_without_speed(whole));
}

/// The launchers to test, as scripts that start `count` processes.
fn launchers(count: usize) -> Vec<String> {
    let Ok(paths) = std::env::var("CSAE_MPIRUN") else {
        skip("CSAE_MPIRUN names no mpirun");
        return Vec::new();
    };
    paths
        .split(':')
        .filter(|path| !path.is_empty())
        .map(|path| {
            // Open MPI refuses to run as root, and more processes than cores, unless asked.
            format!(
                "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
                 OMPI_MCA_rmaps_base_oversubscribe=1 \
                 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe; \
                 exec {path} -np {count} \"$0\" \"$@\""
            )
        })
        .collect()
}

/// A model with a penalty, one that selects in a batch, and one whose units compete for samples.
#[test]
fn processes_train_to_the_bytes_of_parts() {
    for (preset, count) in [("sparse", 2), ("photographs", 3), ("wta", 2), ("sparse", 4)] {
        let folder = TempFolder::new("ranks");
        let (parts, processes) = (folder.path("parts"), folder.path("processes"));
        let command = |run: &str| train(preset, run).set("sparsity.revive_strength=3");
        command(&parts).option("--accumulate", count).on_cpu().succeed();
        command(&processes).option("--devices", devices("cpu", count)).succeed();
        assert_equal(&processes, &parts);
        // Another number of parts sums in another order.
        let other = folder.path("other");
        command(&other).option("--accumulate", 12).on_cpu().succeed();
        assert!(model_bytes(&other) != model_bytes(&parts), "{preset}");
    }
}

/// Each process computes several parts.
#[test]
fn processes_share_the_parts_of_a_batch() {
    let folder = TempFolder::new("ranks-parts");
    for preset in ["sparse", "photographs"] {
        let (alone, together) = (folder.path("alone"), folder.path("together"));
        let command = |run: &str| train(preset, run).option("--accumulate", 4).force();
        command(&alone).on_cpu().succeed();
        command(&together).flags("--devices cpu,cpu").succeed();
        assert_equal(&together, &alone);
    }
}

#[test]
fn processes_on_a_gpu_train_to_the_bytes_of_parts() {
    let Some(_turn) = gpu::turn() else { return };
    let folder = TempFolder::new("ranks-gpu");
    let device = gpu::name();
    for preset in ["sparse", "photographs"] {
        let (parts, processes) = (folder.path("parts"), folder.path("processes"));
        let command = |run: &str| train(preset, run).force();
        command(&parts).option("--accumulate", 2).device(&device).succeed();
        command(&processes).option("--devices", devices(&device, 2)).succeed();
        assert_equal(&processes, &parts);
    }
}

/// Images that are streamed are read in parts, too.
#[test]
fn processes_stream_their_own_samples() {
    let folder = TempFolder::new("ranks-streamed");
    let photos = patterns(&folder);
    let command = |run: &str| {
        let command = Command::train(&photos).batch(12).steps(12).out(run);
        let command = command.set("model.layers.code.units=16").set("data.crop=16");
        command.max_memory("9.5MiB")
    };
    let (parts, processes) = (folder.path("parts"), folder.path("processes"));
    command(&parts).option("--accumulate", 3).on_cpu().succeed();
    let command = command(&processes).option("--devices", devices("cpu", 3));
    command.warns(&["streamed from its files"]);
    assert_equal(&processes, &parts);
}

/// The batch and its parts stay the same, and so do the bytes.
#[test]
fn a_run_goes_on_with_another_number_of_processes() {
    let folder = TempFolder::new("ranks-resumed");
    let (whole, run) = (folder.path("whole"), folder.path("run"));
    let command = |steps: usize, run: &str| {
        let command = train_for(steps, "sparse", run).option("--accumulate", 4);
        command.set("schedule.kind=constant").set("schedule.warmup_steps=0")
    };
    command(5, &whole).on_cpu().succeed();
    command(2, &run).option("--devices", devices("cpu", 4)).succeed();
    let resume = |steps: usize| Command::resume(&run).quiet().steps(steps);
    resume(3).option("--devices", devices("cpu", 2)).succeed();
    resume(4).on_cpu().succeed();
    resume(5).option("--devices", devices("cpu", 4)).succeed();
    assert_eq!(model_bytes(&run), model_bytes(&whole));
    // A finished run stays as it is.
    let line = Command::resume(&run).option("--devices", devices("cpu", 2)).succeed();
    assert!(line.contains("finished") && line.lines().count() == 1, "{line}");
    let three = Command::resume(&run).steps(6).option("--devices", devices("cpu", 3));
    three.fails(2, &["4 parts", "3 processes"]);
}

/// The processes that `parent` has started.
#[cfg(target_os = "linux")]
fn children(parent: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    list.unwrap_or_default().split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// A long run that writes a checkpoint for each step.
#[cfg(target_os = "linux")]
fn long(run: &str) -> Command {
    let command = train_for(400, "sparse", run).set("train.checkpoint_every=1");
    command.set("schedule.kind=constant").option("--devices", devices("cpu", 3))
}

#[cfg(target_os = "linux")]
fn await_checkpoint(run: &str) {
    let begun = Instant::now();
    while crate::support::files::checkpoints(run).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills of processes. CI makes few, to save time; `CSAE_KILLS` sets their number.
#[cfg(target_os = "linux")]
fn kills() -> usize {
    std::env::var("CSAE_KILLS").map_or(3, |kills| kills.parse().expect("a number of kills"))
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_is_killed_ends_all_and_loses_nothing() {
    let folder = TempFolder::new("ranks-killed");
    let (whole, run) = (folder.path("whole"), folder.path("run"));
    long(&whole).succeed();
    let resume = || Command::resume(&run).quiet().option("--devices", devices("cpu", 3));
    let mut stream = Stream::new(7, "kills");
    let (mut of_first, mut survived) = (0, 0);
    for number in 0..kills() {
        let child = if number == 0 { long(&run).spawn() } else { resume().spawn() };
        await_checkpoint(&run);
        std::thread::sleep(Duration::from_millis(stream.below(300) as u64));
        let others = children(child.id());
        // Both kinds come in every three.
        let (victim, leads) = match others.get(number % 3) {
            Some(other) => (*other, false),
            None => (child.id(), true),
        };
        let name = victim.to_string();
        let sent = std::process::Command::new("kill").args(["-9", &name]).status().unwrap();
        let killed = Instant::now();
        let output = wait(child);
        if output.succeeded() {
            // It finished before.
            survived += 1;
        } else if leads {
            assert!(sent.success());
            of_first += 1;
        } else {
            output.assert_failed(1, &["rank", "of 3 has ended"]);
        }
        while others.iter().any(|id| std::path::Path::new(&format!("/proc/{id}/stat")).exists()) {
            assert!(killed.elapsed() < Duration::from_secs(10), "a process goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(of_first > 0 && survived < kills(), "{of_first} {survived}");
    resume().succeed();
    assert_equal(&run, &whole);
}

/// A signal to any of them stops all, with one line and the status of the signal.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_to_one_process_stops_all() {
    let folder = TempFolder::new("ranks-stopped");
    for to_follower in [false, true] {
        let run = folder.path(if to_follower { "follower" } else { "first" });
        let child = long(&run).spawn();
        await_checkpoint(&run);
        let id = if to_follower { children(child.id())[1] } else { child.id() };
        std::process::Command::new("kill").args(["-TERM", &id.to_string()]).status().unwrap();
        let output = wait(child);
        output.assert_failed_with(143, &["stopped after step", "csae resume"]);
        let of_signal = usize::from(!to_follower);
        assert_eq!(output.stderr.lines().count(), 1 + of_signal, "{}", output.stderr);
    }
}

#[test]
fn wrong_processes_are_refused_in_one_line() {
    let folder = TempFolder::new("ranks-refused");
    let run = folder.path("run");
    let command = || train("sparse", &run);
    command().flags("--devices cpu,nothing").fails(1, &["rank 1 of 2", "nothing", "auto, cpu"]);
    let odd = Command::train("digits").batch(13).steps(1).out(&run).quiet();
    odd.flags("--devices cpu,cpu").fails(2, &["13", "use 14"]);
    command().flags("--devices cpu,cpu --accumulate 3").fails(2, &["split over 2 processes"]);
    command().flags("--devices cpu,cpu --device cpu").fails(2, &["--device"]);
    let missing = Command::train("no-such-file").out(&run).quiet();
    missing.flags("--devices cpu,cpu").fails(2, &["no-such-file"]);
    let launched = |command: Command, rank: &str| {
        command.env("OMPI_COMM_WORLD_RANK", rank).env("OMPI_COMM_WORLD_SIZE", "2")
    };
    launched(command().flags("--devices cpu,cpu"), "0").fails(2, &["mpirun", "leave the flag"]);
    let none = launched(command(), "0").env("CSAE_MPI", "/nothing/libmpi.so");
    none.fails(2, &["CSAE_MPI", "not an MPI library"]);
    let no_library = folder.write("libmpi.so", "text");
    launched(command(), "0").env("CSAE_MPI", &no_library).fails(2, &["not an MPI library"]);
    // The beginning of a library for 32-bit ARM.
    let mut arm = vec![0x7f, b'E', b'L', b'F', 1, 1, 1];
    arm.resize(512, 0);
    (arm[16], arm[18], arm[20]) = (3, 40, 1);
    std::fs::write(&no_library, arm).unwrap();
    launched(command(), "0").env("CSAE_MPI", &no_library).fails(2, &["not an MPI library"]);
    let other = launched(command(), "0").env("CSAE_MPI", "libc.so.6");
    other.fails(2, &["not an MPI library"]);
    let srun = command().env("SLURM_PROCID", "0").env("SLURM_STEP_NUM_TASKS", "4");
    srun.fails(2, &["4 processes", "--mpi=pmix"]);
    launched(command(), "2").fails(2, &["OMPI_COMM_WORLD_RANK is 2"]);
    // A mistyped flag is answered once.
    let mistyped = |rank: &str| launched(command().flags("--epoch 3"), rank);
    mistyped("0").fails(2, &["--epoch", "--epochs"]);
    let follower = mistyped("1").output();
    follower.assert_failed_with(2, &[]);
    assert_eq!(follower.stderr, "");

    assert!(!is_file(&run, "config.toml"));
}

#[test]
fn copies_of_a_command_that_divides_nothing_are_noted() {
    let folder = TempFolder::new("ranks-copies");
    let stderr = |rank: &str, flags: &str| {
        let command = Command::new("features").arg(digits()).arg("digits").force();
        let out = folder.path("features.npy");
        let launched = command.out(&out).flags(flags).env("OMPI_COMM_WORLD_RANK", rank);
        launched.env("OMPI_COMM_WORLD_SIZE", "2").output().stderr
    };
    let note = "each of 2 processes does the whole work";
    assert!(stderr("0", "").contains(note));
    assert!(!stderr("1", "").contains(note) && !stderr("0", "--shard auto").contains(note));
}

#[test]
fn the_launcher_and_the_libraries_are_listed() {
    let text = Command::new("devices --ranks").succeed();
    assert!(text.starts_with("1 process, started by no launcher"), "{text}");
    let report = Command::new("devices --ranks").report();
    assert_eq!(report["processes"], 1);
    for script in launchers(2) {
        let text = Command::new("devices --ranks").through(&script).succeed();
        assert!(text.starts_with("2 processes, started by mpirun"), "{text}");
        assert!(text.lines().count() > 1, "{text}");
    }
}

#[test]
fn mpi_trains_to_the_bytes_of_parts() {
    for (preset, count) in [("sparse", 2), ("photographs", 3), ("wta", 4)] {
        let folder = TempFolder::new("ranks-mpi");
        let parts = folder.path("parts");
        let scripts = launchers(count);
        if scripts.is_empty() {
            return;
        }
        train(preset, &parts).option("--accumulate", count).on_cpu().succeed();
        for (number, script) in scripts.iter().enumerate() {
            let run = folder.path(&format!("mpi-{number}"));
            train(preset, &run).on_cpu().through(script).succeed();
            assert_equal(&run, &parts);
        }
    }
}

#[test]
fn mpi_processes_with_other_data_are_refused() {
    let folder = TempFolder::new("ranks-data");
    for script in launchers(2) {
        // The second process trains on other images.
        let script = script.replace("exec ", "").replace(
            "-np 2 \"$0\" \"$@\"",
            "-np 1 \"$0\" \"$@\" : -np 1 \"$0\" train textures --preset sparse --batch 12 \
             --steps 5 --set data.crop=16 --set train.log_every=2 --quiet --device cpu \
             --out elsewhere",
        );
        let run = folder.path("run");
        let output = train("sparse", &run).on_cpu().through(&script).output();
        assert!(!output.succeeded(), "{}", output.stderr);
        let lines: Vec<&str> =
            output.stderr.lines().filter(|line| line.starts_with("csae: ")).collect();
        assert!(lines.len() == 1, "{}", output.stderr);
        assert!(lines[0].contains("rank 1 of 2 has another"), "{}", lines[0]);
        assert!(!is_file(&run, "config.toml"));
    }
}

/// One process under a launcher is a run without one.
#[test]
fn one_process_needs_no_mpi() {
    let folder = TempFolder::new("ranks-one");
    let (alone, one) = (folder.path("alone"), folder.path("one"));
    train("sparse", &alone).on_cpu().succeed();
    let command = train("sparse", &one).on_cpu().env("CSAE_MPI", "/nothing/libmpi.so");
    command.env("OMPI_COMM_WORLD_RANK", "0").env("OMPI_COMM_WORLD_SIZE", "1").succeed();
    assert_eq!(config(&one), config(&alone));
    assert_eq!(model_bytes(&one), model_bytes(&alone));
    let devices = folder.path("devices");
    train("sparse", &devices).flags("--devices cpu").succeed();
    assert_eq!(model_bytes(&devices), model_bytes(&alone));
}
