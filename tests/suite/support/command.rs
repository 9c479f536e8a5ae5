//! The program, called as a user calls it.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{self, Child, Stdio};

use serde_json::Value;

/// A command line of the program. The program does not see the user's cache.
#[derive(Clone, Debug)]
pub struct Command {
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    folder: Option<PathBuf>,
    limit: Option<String>,
    /// A script that starts the program.
    script: Option<String>,
    /// Arguments unless there is a preset, configuration or task.
    preset: &'static [&'static str],
}

impl Command {
    /// A command and its first arguments, separated by spaces: `bench --workload w1`.
    pub fn new(line: &str) -> Self {
        let environment = vec![("CSAE_CACHE".to_owned(), "off".to_owned())];
        let (arguments, preset) = (Vec::new(), &[][..]);
        Self { arguments, environment, folder: None, limit: None, script: None, preset }.flags(line)
    }

    /// `csae train DATA`. Without a preset, configuration or task it has the preset `article`: its
    /// patches are small and its steps quick. `Command::new("train")` has the program's default.
    pub fn train(data: impl AsRef<OsStr>) -> Self {
        Self { preset: &["--preset", "article"], ..Self::new("train").arg(data) }
    }

    /// `csae resume RUN`.
    pub fn resume(run: impl AsRef<OsStr>) -> Self {
        Self::new("resume").arg(run)
    }

    /// `csae eval MODEL DATA`.
    pub fn eval(model: impl AsRef<OsStr>, data: impl AsRef<OsStr>) -> Self {
        Self::new("eval").arg(model).arg(data)
    }

    /// `csae reconstruct MODEL DATA`.
    pub fn reconstruct(model: impl AsRef<OsStr>, data: impl AsRef<OsStr>) -> Self {
        Self::new("reconstruct").arg(model).arg(data)
    }

    /// `csae inspect MODEL`.
    pub fn inspect(model: impl AsRef<OsStr>) -> Self {
        Self::new("inspect").arg(model)
    }

    /// Adds one argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Adds arguments that are separated by spaces: `--lr 0 --dropout 1`. Paths may contain spaces:
    /// they need [`Command::arg`] or [`Command::option`].
    pub fn flags(self, line: &str) -> Self {
        self.args(line.split_whitespace())
    }

    /// Adds an option with its value.
    pub fn option(self, name: &str, value: impl ToString) -> Self {
        self.arg(name).arg(value.to_string())
    }

    /// `--set KEY=VALUE`.
    pub fn set(self, setting: impl ToString) -> Self {
        self.option("--set", setting)
    }

    /// `--device cpu`.
    pub fn on_cpu(self) -> Self {
        self.device("cpu")
    }

    /// `--device NAME`.
    pub fn device(self, name: &str) -> Self {
        self.option("--device", name)
    }

    /// `--quiet`.
    pub fn quiet(self) -> Self {
        self.arg("-q")
    }

    /// `--force`.
    pub fn force(self) -> Self {
        self.arg("--force")
    }

    /// `--out PATH`.
    pub fn out(self, path: impl AsRef<OsStr>) -> Self {
        self.arg("--out").arg(path)
    }

    /// `--steps COUNT`.
    pub fn steps(self, count: usize) -> Self {
        self.option("--steps", count)
    }

    /// `--epochs COUNT`.
    pub fn epochs(self, count: usize) -> Self {
        self.option("--epochs", count)
    }

    /// `--batch SIZE`.
    pub fn batch(self, size: usize) -> Self {
        self.option("--batch", size)
    }

    /// `--max-memory SIZE`.
    pub fn max_memory(self, size: &str) -> Self {
        self.option("--max-memory", size)
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs in a folder.
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Runs under a limit of the shell's `ulimit`, such as `-v 600000`.
    pub fn limit(mut self, limit: impl ToString) -> Self {
        self.limit = Some(limit.to_string());
        self
    }

    /// Writes fail beyond `blocks` blocks a file (512 or 1024 bytes, depending on the shell), as on
    /// a full disk.
    pub fn full_disk(self, blocks: u32) -> Self {
        self.limit(format!("-f {blocks}"))
    }

    /// A script for `sh` that starts the program as `exec "$0" "$@"`.
    pub fn through(mut self, script: &str) -> Self {
        self.script = Some(script.to_owned());
        self
    }

    /// The process that is to be started.
    pub fn process(&self) -> process::Command {
        let program = env!("CARGO_BIN_EXE_csae");
        // A write beyond `-f` must fail instead of ending the process.
        let limited = |limit| format!("trap '' XFSZ; ulimit {limit}; exec \"$0\" \"$@\"");
        let script = self.script.clone().or_else(|| self.limit.as_ref().map(limited));
        let mut process = match script {
            None => process::Command::new(program),
            Some(script) => {
                let mut shell = process::Command::new("sh");
                shell.args(["-c", &script, program]);
                shell
            }
        };
        process.args(&self.arguments).envs(self.environment.iter().cloned());
        let chosen = |word: &OsString| {
            let word = word.to_string_lossy();
            ["--preset", "--config", "--task"].iter().any(|flag| word.starts_with(flag))
        };
        if !self.arguments.iter().any(chosen) {
            process.args(self.preset);
        }
        if let Some(folder) = &self.folder {
            process.current_dir(folder);
        }
        process
    }

    /// Runs the program, which must succeed, and returns the largest amount of memory that it used,
    /// in MiB.
    #[cfg(target_os = "linux")]
    #[track_caller]
    pub fn peak_memory(&self) -> f64 {
        let mut child = self.spawn();
        let mut peak = 0.0_f64;
        while child.try_wait().unwrap().is_none() {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
            let status = status.unwrap_or_default();
            if let Some(kib) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
                let kib: f64 = kib.trim().trim_end_matches(" kB").parse().unwrap();
                peak = peak.max(kib / 1024.0);
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let output = wait(child);
        assert!(output.succeeded(), "{:?}: {}", self.arguments, output.stderr);
        peak
    }

    /// Starts the program without its standard output.
    pub fn spawn(&self) -> Child {
        let mut process = self.process();
        process.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts")
    }

    /// Runs the program.
    pub fn output(&self) -> Output {
        self.process().output().expect("the program starts").into()
    }

    /// Runs the program, which must succeed, and returns its standard output.
    #[track_caller]
    pub fn succeed(&self) -> String {
        self.success().stdout
    }

    /// Runs the program, which must succeed, and returns its standard error.
    #[track_caller]
    pub fn messages(&self) -> String {
        self.success().stderr
    }

    #[track_caller]
    fn success(&self) -> Output {
        let output = self.output();
        assert!(output.succeeded(), "{:?}: {}", self.arguments, output.stderr);
        output
    }

    /// Runs the program, which must succeed and write all `words` to standard error.
    #[track_caller]
    pub fn warns(&self, words: &[&str]) {
        let text = self.messages();
        words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in {text}"));
    }

    /// Runs the program, which must fail with a status and one line on standard error that contains
    /// all `words`. Returns that line.
    #[track_caller]
    pub fn fails(&self, status: i32, words: &[&str]) -> String {
        let output = self.output();
        output.assert_failed(status, words);
        output.stderr
    }

    /// Runs the program with `--json` and returns the objects that it writes, one a line.
    #[track_caller]
    pub fn json(&self) -> Vec<Value> {
        super::json::lines(&self.clone().arg("--json").succeed())
    }

    /// Runs the program with `--json` and returns the one object that it writes.
    #[track_caller]
    pub fn report(&self) -> Value {
        let mut lines = self.json();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }
}

/// What a program that has ended leaves.
#[derive(Debug)]
pub struct Output {
    /// Its exit status, if it was not ended by a signal.
    pub status: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl From<process::Output> for Output {
    fn from(output: process::Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            status: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

impl Output {
    /// Whether the exit status is 0.
    pub fn succeeded(&self) -> bool {
        self.status == Some(0)
    }

    /// Asserts an exit status, and that standard error contains all `words` and no panic.
    #[track_caller]
    pub fn assert_failed_with(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, Some(status), "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }

    /// Asserts an exit status and one line on standard error that contains all `words`.
    #[track_caller]
    pub fn assert_failed(&self, status: i32, words: &[&str]) {
        let text = &self.stderr;
        assert_eq!(self.status, Some(status), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 1 && lines[0].starts_with("csae: "), "not one line: {text}");
    }
}

/// Waits for a child to end.
pub fn wait(child: Child) -> Output {
    child.wait_with_output().expect("the program can be waited for").into()
}

/// Interrupts a child and returns the exit status that it should have. Where SIGINT is ignored, as
/// in a shell's jobs in the background, children ignore it, too, and get SIGTERM.
#[cfg(unix)]
pub fn interrupt(child: &Child) -> i32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap());
    if mask & 0b10 == 0 {
        send("-INT", child);
        return 130;
    }
    send("-TERM", child);
    143
}

/// Sends a signal, such as `-INT`, to a child.
#[cfg(unix)]
pub fn send(signal: &str, child: &Child) {
    let sent = process::Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

/// An output with an exit status of 2.
fn failure(stderr: &str) -> Output {
    Output { status: Some(2), stdout: String::new(), stderr: stderr.to_owned() }
}

#[test]
fn a_failure_with_one_line_is_accepted() {
    failure("csae: no such file\n").assert_failed(2, &["no such", "file"]);
}

#[test]
#[should_panic(expected = "not one line")]
fn a_second_line_on_standard_error_is_found() {
    failure("csae: no such file\nand more\n").assert_failed(2, &["file"]);
}

#[test]
#[should_panic(expected = "\"folder\" is not in")]
fn a_missing_word_is_found() {
    failure("csae: no such file\n").assert_failed(2, &["folder"]);
}

#[test]
#[should_panic(expected = "no such file")]
fn another_exit_status_is_found() {
    failure("csae: no such file\n").assert_failed(1, &["file"]);
}
