//! Commands in hostile environments. Each row is an environment, each column a command, and each
//! cell says what must happen: the command works, or it is refused with a message. No cell may end
//! by a signal, in a panic, or never.
#![cfg(unix)]

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::finetune::classifier;
use crate::support::models::digits;
use crate::support::{Command, TempFolder, images, skip, text};

/// A command that takes longer is taken to hang. The slowest one needs seconds.
const HANGS: Duration = Duration::from_secs(300);

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Help,
    Devices,
    Train,
    Denoise,
    Eval,
    Features,
    Inspect,
    Reconstruct,
    Classify,
}

/// All columns.
const TASKS: [Task; 9] = [
    Task::Help,
    Task::Devices,
    Task::Train,
    Task::Denoise,
    Task::Eval,
    Task::Features,
    Task::Inspect,
    Task::Reconstruct,
    Task::Classify,
];

impl Task {
    /// The command, which writes below `out` and reads `image`.
    fn command(self, image: &str, out: &Path) -> Command {
        let to = |name: &str| out.join(name);
        match self {
            Self::Help => Command::new("--help"),
            Self::Devices => Command::new("devices"),
            Self::Train => Command::train("digits")
                .out(to("run"))
                .steps(2)
                .batch(8)
                .set("model.layers.code.units=8")
                .on_cpu(),
            Self::Denoise => Command::new("denoise").arg(image).out(to("denoised")).on_cpu(),
            Self::Eval => Command::eval(digits(), "digits").flags("--images 20").on_cpu(),
            Self::Features => {
                let features = Command::new("features").arg(digits()).arg("digits");
                features.out(to("features.npy")).on_cpu()
            }
            Self::Inspect => Command::inspect(digits()).out(to("inspect")).on_cpu(),
            Self::Reconstruct => {
                Command::reconstruct(digits(), image).out(to("reconstructed")).on_cpu()
            }
            Self::Classify => {
                let classify = Command::new("classify").arg(&classifier().run).arg("digits");
                classify.arg("--confusion").arg(to("confusion.png")).on_cpu()
            }
        }
    }

    /// Whether it writes files.
    fn writes(self) -> bool {
        !matches!(self, Self::Help | Self::Devices | Self::Eval)
    }
}

/// What a cell must do.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// Exit status 0.
    Works,
    /// Exit status 0, or 1 with one of these words in the message: depends on the machine.
    WorksOrFails(&'static [&'static str]),
    /// This exit status, with these words in the message.
    Refused(i32, &'static [&'static str]),
}

use Expected::{Refused, Works, WorksOrFails};

/// A row of the table: a script that starts the program as `exec "$0" "$@"`, and the cells.
struct Environment {
    name: &'static str,
    script: &'static str,
    cell: fn(Task) -> Expected,
}

const fn works(_: Task) -> Expected {
    Works
}

/// What messages about too little memory have in common.
const MEMORY: &[&str] = &["not enough memory", "MiB", "cannot start a thread"];

/// Works, or too little memory is an error.
const fn works_or_lacks_memory(_: Task) -> Expected {
    WorksOrFails(MEMORY)
}

/// How a command ended.
struct Ended {
    status: ExitStatus,
    errors: String,
}

/// Runs a command through a script. Its output goes to files: a pipe could fill.
fn run(command: &Command, script: &str, folder: &TempFolder) -> Ended {
    let errors = folder.path("errors.txt");
    let mut process = command.clone().through(script).process();
    process.env_remove("CSAE_CACHE").stdin(Stdio::null());
    process.stdout(File::create(folder.path("output.txt")).unwrap());
    process.stderr(File::create(&errors).unwrap());
    let mut child = process.spawn().expect("a shell starts");
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > HANGS {
            child.kill().unwrap();
            panic!("{command:?} through {script:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let errors = std::fs::read(errors).unwrap();
    Ended { status, errors: String::from_utf8_lossy(&errors).into_owned() }
}

/// Asserts what one cell must do. `place` names it.
#[track_caller]
fn assert_cell(place: &str, expected: Expected, ended: &Ended) {
    let Ended { status, errors } = ended;
    assert_eq!(status.signal(), None, "{place}: {errors}");
    assert!(!errors.contains("panicked") && !errors.contains("memory allocation of"), "{errors}");
    let code = status.code().unwrap();
    let named = |words: &[&str]| words.iter().any(|word| errors.contains(word));
    let is_expected = match expected {
        Works => code == 0,
        WorksOrFails(words) => code == 0 || ([1, 2].contains(&code) && named(words)),
        Refused(wanted, words) => code == wanted && words.iter().all(|word| errors.contains(word)),
    };
    assert!(is_expected, "{place}: status {code}, wanted {expected:?}: {errors}");
}

/// A small noisy image.
fn image(folder: &TempFolder) -> String {
    let path = folder.path("image.png");
    images::pattern(&path, 40);
    path
}

/// Runs a row of the table.
#[track_caller]
fn assert_row(row: &Environment) {
    let folder = TempFolder::new("hostile");
    let image = image(&folder);
    for (number, task) in TASKS.into_iter().enumerate() {
        let out = folder.create(&number.to_string());
        let ended = run(&task.command(&image, Path::new(&out)), row.script, &folder);
        assert_cell(&format!("{}, {task:?}", row.name), (row.cell)(task), &ended);
    }
}

/// Each row is a test of its own, so that they run at the same time.
macro_rules! rows {
    ($($name:ident: $script:expr => $cell:expr;)*) => {$(
        #[test]
        fn $name() {
            assert_row(&Environment { name: stringify!($name), script: $script, cell: $cell });
        }
    )*};
}

rows! {
    without_a_home: "unset HOME XDG_CACHE_HOME; exec \"$0\" \"$@\"" => works;
    // Not even the superuser can write to /proc.
    with_a_home_that_cannot_be_written:
        "HOME=/proc XDG_CACHE_HOME=/proc/cache exec \"$0\" \"$@\"" => works;
    with_a_cache_that_is_a_file: "CSAE_CACHE=/dev/null exec \"$0\" \"$@\"" => works;
    with_an_empty_environment: "exec env -i \"$0\" \"$@\"" => works;
    without_a_folder_for_temporary_files:
        "TMPDIR=/nonexistent TMP=/nonexistent exec \"$0\" \"$@\"" => works;
    with_a_folder_for_temporary_files_that_cannot_be_written:
        "TMPDIR=/proc exec \"$0\" \"$@\"" => works;
    without_standard_input: "exec \"$0\" \"$@\" <&-" => works;
    without_standard_output: "exec \"$0\" \"$@\" >&-" => works;
    without_standard_error: "exec \"$0\" \"$@\" 2>&-" => works;
    without_standard_streams: "exec \"$0\" \"$@\" <&- >&- 2>&-" => works;
    with_64_open_files: "ulimit -n 64; exec \"$0\" \"$@\"" => works;
    with_16_open_files: "ulimit -n 16; exec \"$0\" \"$@\"" => works;
    with_ignored_signals:
        "trap '' HUP INT QUIT PIPE TERM CHLD USR1 USR2 ALRM; exec \"$0\" \"$@\"" => works;
    in_turkish: "LC_ALL=tr_TR.UTF-8 LANG=tr_TR.UTF-8 exec \"$0\" \"$@\"" => works;
    in_the_plain_locale: "LC_ALL=C exec \"$0\" \"$@\"" => works;
    in_an_invalid_locale: "LC_ALL=xx_YY.nonsense LANG=' ' exec \"$0\" \"$@\"" => works;
    without_a_path: "PATH= exec \"$0\" \"$@\"" => works;
    with_variables_that_are_no_text:
        "X=$(printf '\\377') HOME=$(printf '/tmp/\\377') exec \"$0\" \"$@\"" => works;
    with_a_terminal_of_no_width: "COLUMNS=0 TERM= exec \"$0\" \"$@\"" => works;
    with_a_stack_of_one_mebibyte: "ulimit -s 1024; exec \"$0\" \"$@\"" => works;
    // Not even the superuser can write here.
    in_a_folder_that_cannot_be_written: "cd /proc && exec \"$0\" \"$@\"" => works;
    in_a_folder_that_was_removed:
        "gone=$(mktemp -d) && cd \"$gone\" && rmdir \"$gone\" && exec \"$0\" \"$@\"" => works;
    // The limits are in KiB.
    with_4_gib_of_addresses: "ulimit -v 4194304; exec \"$0\" \"$@\"" => works_or_lacks_memory;
    with_1_gib_of_addresses: "ulimit -v 1048576; exec \"$0\" \"$@\"" => works_or_lacks_memory;
    with_512_mib_of_addresses: "ulimit -v 524288; exec \"$0\" \"$@\"" => works_or_lacks_memory;
    with_256_mib_of_addresses: "ulimit -v 262144; exec \"$0\" \"$@\"" => works_or_lacks_memory;
    with_128_mib_of_addresses: "ulimit -v 131072; exec \"$0\" \"$@\"" => works_or_lacks_memory;
    with_64_mib_of_addresses: "ulimit -v 65536; exec \"$0\" \"$@\"" => works_or_lacks_memory;
    with_64_mib_of_data: "ulimit -d 65536; exec \"$0\" \"$@\"" => works_or_lacks_memory;
}

/// Mounts an empty folder over `/proc`, if the system allows it.
#[test]
fn without_proc() {
    const UNSHARED: &str = "exec unshare --mount --map-root-user sh -c \
                            'mount -t tmpfs none /proc && exec \"$0\" \"$@\"' \"$0\" \"$@\"";
    let folder = TempFolder::new("hostile-proc");
    let help = run(&Command::new("--help"), UNSHARED, &folder);
    if help.status.code() != Some(0) {
        skip("the system does not allow another /proc");
        return;
    }
    assert_row(&Environment { name: "without /proc", script: UNSHARED, cell: works });
}

/// A control group with a limit below the own one, removed at the end.
#[cfg(target_os = "linux")]
struct Group(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl Group {
    /// Makes a group with a limit in MiB. `None` if the system does not allow it.
    fn new(mib: u64) -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = |name: &str| {
            let line = own.lines().find_map(|line| line.split_once(name))?;
            Some(line.1.trim_start_matches('/').to_owned())
        };
        let places = [
            (path(":memory:"), "/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            (path("0::"), "/sys/fs/cgroup", "memory.max"),
        ];
        places.into_iter().find_map(|(own, root, limit)| {
            let name = format!("csae-test-{}", std::process::id());
            let group = Path::new(root).join(own?).join(name);
            std::fs::create_dir(&group).ok()?;
            let group = Self(group);
            std::fs::write(group.0.join(limit), (mib << 20).to_string()).ok()?;
            Some(group)
        })
    }

    /// A script that starts the program in the group.
    fn script(&self) -> String {
        let tasks = self.0.join("cgroup.procs");
        format!("echo $$ > '{}' && exec \"$0\" \"$@\"", tasks.display())
    }
}

#[cfg(target_os = "linux")]
impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A training that would take 390 MiB in a group of 160 MiB: the kernel ended it.
#[cfg(target_os = "linux")]
#[test]
fn in_a_control_group_of_160_mib() {
    let Some(group) = Group::new(160) else {
        skip("the system allows no control group");
        return;
    };
    let folder = TempFolder::new("hostile-group");
    let image = image(&folder);
    let script = group.script();
    for task in [Task::Help, Task::Denoise, Task::Eval] {
        let ended = run(&task.command(&image, folder.root()), &script, &folder);
        assert_cell(&format!("{task:?}"), Works, &ended);
    }
    let large = Command::train("digits")
        .out(folder.path("run"))
        .steps(1)
        .batch(512)
        .set("data.fit=resize")
        .set("model.input=[1,64,64]")
        .on_cpu();
    let ended = run(&large, &script, &folder);
    assert_cell("a large batch", Refused(2, &["train.batch", "MiB", "would fit"]), &ended);
}

/// Relative results in a folder that cannot be written are refused, and nothing else happens.
#[test]
fn relative_results_in_a_folder_that_cannot_be_written_are_refused() {
    let folder = TempFolder::new("hostile-relative");
    let image = image(&folder);
    for task in TASKS.into_iter().filter(|task| task.writes()) {
        let ended = run(
            &task.command(&image, Path::new("csae-results")),
            "cd /proc && exec \"$0\" \"$@\"",
            &folder,
        );
        let expected = Refused(1, &["csae-results", "could not be"]);
        assert_cell(&format!("{task:?}"), expected, &ended);
    }
}

#[test]
fn names_that_are_no_text_work_or_are_refused() {
    let folder = TempFolder::new("hostile-names");
    let odd = folder.root().join(OsStr::from_bytes(b"odd-\xff"));
    std::fs::create_dir(&odd).unwrap();
    let image = odd.join(OsStr::from_bytes(b"\xfe.png"));
    std::fs::copy(self::image(&folder), &image).unwrap();
    let script = "exec \"$0\" \"$@\"";
    for (command, expected) in [
        (Command::new("denoise").arg(&image).out(odd.join("out")), Works),
        (Command::new("denoise").arg(&odd).out(folder.path("out")), Works),
        (Command::train("digits").out(odd.join("run")).steps(1).batch(4), Works),
        (
            Command::train(&image).out(folder.path("run")).steps(1).batch(4),
            Refused(2, &["invalid UTF-8"]),
        ),
        (
            Command::new("denoise").arg(OsStr::from_bytes(b"\xff.png")),
            Refused(2, &["no such file"]),
        ),
    ] {
        let ended = run(&command.clone().on_cpu(), script, &folder);
        assert_cell(&format!("{command:?}"), expected, &ended);
    }
}

#[test]
fn very_long_names_and_lists_are_refused() {
    let folder = TempFolder::new("hostile-long");
    let image = image(&folder);
    let (name, path) = ("x".repeat(300), format!("{}y", "d/".repeat(3000)));
    let script = "exec \"$0\" \"$@\"";
    for long in [&name, &path] {
        let below = folder.path(long);
        for command in [
            Command::new("denoise").arg(&image).out(&below),
            Command::train("digits").out(&below).steps(1).batch(4),
            Command::new("denoise").arg(&below),
            Command::train(&below),
            Command::eval(&below, "digits"),
        ] {
            let ended = run(&command.clone().on_cpu(), script, &folder);
            // Too long is an I/O error (1) or no such file (2), depending on the system.
            let status = if ended.status.code() == Some(2) { 2 } else { 1 };
            assert_cell(&format!("{command:?}"), Refused(status, &["csae: "]), &ended);
        }
    }
    let many = Command::new("denoise").args((0..50_000).map(|i| format!("none-{i}.png")));
    let ended = run(&many.on_cpu(), script, &folder);
    assert_cell("50,000 names", Refused(2, &["none-0.png", "no such file"]), &ended);
}

/// Results do not depend on the clock: no source reads it, and files of the future are files.
#[test]
fn the_clock_has_no_effect() {
    // Pages show dates, and nothing depends on them.
    const DATES: [&str; 2] = ["report/page/date.rs", "report/runs/view.rs"];
    fn sources(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if !DATES.iter().any(|name| path.ends_with(name))
                && text(&path).contains("SystemTime")
            {
                found.push(path.display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert_eq!(found, [""; 0], "these sources read the clock, which can go back");
    let folder = TempFolder::new("hostile-clock");
    let script = "touch -d '2099-01-01' \"$2\" && exec \"$0\" \"$@\"";
    for date in ["1970-01-02", "2099-01-01"] {
        let image = image(&folder);
        let command = Command::new("denoise").arg(&image).out(folder.path(date)).on_cpu();
        let ended = run(&command, &script.replace("2099-01-01", date), &folder);
        assert_cell(date, Works, &ended);
    }
}

/// Larger work under limits of the address space: it works or says how much memory is missing.
#[test]
fn large_work_within_few_addresses_ends_with_a_message() {
    let folder = TempFolder::new("hostile-large");
    let large = folder.path("large.png");
    image::GrayImage::from_fn(1500, 1100, |x, y| image::Luma([((x * y) % 251) as u8]))
        .save(&large)
        .unwrap();
    let train = |batch: usize| {
        let train = Command::train("digits").out(folder.path("run")).force().steps(1).batch(batch);
        train.set("data.fit=resize").set("model.input=[1,64,64]").on_cpu()
    };
    for kib in [150_000, 250_000, 400_000, 600_000] {
        let script = format!("ulimit -v {kib}; exec \"$0\" \"$@\"");
        for command in [
            train(64),
            train(512),
            Command::new("denoise").arg(&large).out(folder.path("out")).force().on_cpu(),
            Command::new("upscale").arg(&large).out(folder.path("out")).force().on_cpu(),
            Command::eval(digits(), "photos").on_cpu(),
        ] {
            let ended = run(&command, &script, &folder);
            assert_cell(&format!("{kib} KiB, {command:?}"), WorksOrFails(MEMORY), &ended);
        }
    }
}

/// An image that is larger than all addresses is an error of its decoder, which names the image. It
/// was the end of the process, also of a Python program that used the library.
#[test]
fn an_image_that_does_not_fit_into_memory_is_named() {
    let folder = TempFolder::new("hostile-image");
    let large = folder.path("large.png");
    image::GrayImage::new(16_000, 16_000).save(&large).unwrap();
    let denoise = Command::new("denoise").arg(&large).out(folder.path("out")).on_cpu();
    let ended = run(&denoise, "ulimit -v 250000; exec \"$0\" \"$@\"", &folder);
    let expected = Refused(1, &["large.png: not enough memory: 245 MiB for an image", "smaller"]);
    assert_cell("an image of 245 MiB", expected, &ended);
}
