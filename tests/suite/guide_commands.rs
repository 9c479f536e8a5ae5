//! Every command line of the guide and the README runs.

use std::path::Path;
use std::process;

use csae::guide::PAGES;

use crate::support::markdown::{all_commands, command_name};
use crate::support::{Output, TempFolder, examples, text};

/// Command lines that are not run, and why.
const NOT_RUN: [(&str, &str); 16] = [
    ("cargo install --path . --locked", "builds the program"),
    ("source <(csae completions bash)", "needs bash"),
    ("csae verify --device gpu", "needs a GPU"),
    ("csae verify --device gpu --report my-gpu.md", "needs a GPU"),
    ("csae verify --kernels matrix --device gpu", "needs a GPU"),
    ("csae bench --tune --device gpu", "needs a GPU"),
    ("csae bench --tune --precision f16 --device gpu", "needs a GPU"),
    ("csae bench --workload w2 --precision f16 --device gpu", "needs a GPU"),
    ("csae train my-photos/ --precision f16 --device gpu", "needs a GPU"),
    ("csae bench --grow -o growth/", "measures large models for minutes"),
    ("cargo run --release -- train", "builds the program"),
    ("csae watch runs/mine", "runs until Ctrl-C"),
    ("csae watch runs/mine runs/other", "runs until Ctrl-C"),
    ("csae watch runs --port 0", "runs until Ctrl-C"),
    ("ssh -L 8427:localhost:8427 machine csae watch runs/mine", "needs another machine"),
    ("tests/run", "runs this test"),
];
/// Lines of the README that are not run either: they start with this.
const NOT_RUN_PREFIXES: [&str; 3] = ["CSAE_DEVICE=cpu cargo bench", "git clone", "cd csae"];

/// Flags that make commands short. They are added unless the line has them.
const SHORTER: [(&str, &[&str]); 13] = [
    ("train", &["--steps 2", "--batch 4", "--set data.validation_patches=16"]),
    ("grid", &["--steps 1", "--set train.batch=4", "--set data.validation_patches=16"]),
    ("resume", &["--steps 3"]),
    ("sweep", &["--steps 1", "--set train.batch=4", "--set data.validation_patches=16"]),
    ("finetune", &["--epochs 1", "--seeds 1"]),
    ("probe", &["--grid 1"]),
    ("anomaly fit", &["--steps 2", "--bank 64"]),
    ("segment train", &["--epochs 1", "--crop 32"]),
    ("detect train", &["--epochs 1", "--size 64"]),
    ("bench", &["--seconds 0.01"]),
    ("verify", &["--filter pool"]),
    ("texture", &["--size 64"]),
    ("stylize", &["--size 48"]),
];
/// More of them, for lines that contain a text.
const SHORTER_WITH: [(&str, &str); 5] = [
    ("--optimise", "--steps 2"),
    ("--fit", "--set train.steps=2"),
    ("--profile", "--batch 4"),
    ("--json > then.json", "--workload w1"),
    ("--compare then.json", "--workload w1"),
];
/// Smaller values of flags.
const SMALLER: [(&str, &str); 6] = [
    ("--steps", "2"),
    ("--epochs", "1"),
    ("--labels", "40"),
    ("--curve", "20,40"),
    ("--n", "4"),
    ("--size", "64"),
];
/// Commands without `--device`, and flags that exclude it.
const WITHOUT_DEVICE: [&str; 10] = [
    "keys",
    "compare",
    "--print-config",
    "presets",
    "guide",
    "completions",
    "man",
    "devices",
    "--roofline",
    "--version",
];
/// Folders that commands write to by default. Examples of the README are alternatives: each finds
/// them empty.
const DEFAULT_FOLDERS: [&str; 7] =
    ["denoised", "inpainted", "upscaled", "deblocked", "textures", "styled", "samples"];

/// Whether a command is not run.
fn is_listed(command: &str) -> bool {
    NOT_RUN.iter().any(|(line, _)| *line == command)
        || NOT_RUN_PREFIXES.iter().any(|start| command.starts_with(start))
}

/// A command that does less than the given one, on the CPU path.
fn shortened(line: &str) -> String {
    let Some((name, end)) = command_name(line) else { return line.to_owned() };
    let has = |line: &str, flag: &str| line.split(' ').any(|word| word == flag);
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    for at in 1..words.len() {
        let smaller = SMALLER.iter().find(|(flag, _)| *flag == words[at - 1]);
        if let Some((_, value)) = smaller.filter(|_| words[at].starts_with(char::is_numeric)) {
            words[at] = (*value).to_owned();
        }
    }
    let mut added = Vec::new();
    if !WITHOUT_DEVICE.iter().any(|word| has(line, word))
        && !has(line, "--device")
        && !has(line, "--devices")
    {
        added.push("--device cpu");
    }
    for (_, flags) in SHORTER.iter().filter(|(command, _)| *command == name) {
        added.extend(flags.iter().filter(|flag| {
            let flag = flag.split(' ').next().expect("not empty");
            let allowed = match flag {
                "--seeds" => has(line, "--curve"),
                "--seconds" => !has(line, "--roofline"),
                _ => true,
            };
            flag == "--set" || allowed && !has(line, flag)
        }));
    }
    let more = SHORTER_WITH.iter().filter(|(text, _)| line.contains(text));
    added.extend(more.map(|(_, flags)| *flags).filter(|flags| !line.contains(flags)));
    // The words before the end of the command's name did not change.
    let count = line[..end].split(' ').count();
    words.splice(count..count, added.iter().map(|flags| (*flags).to_owned()));
    words.join(" ")
}

/// Runs a line in a folder by the shell, in which `csae` is the program under test.
fn run(line: &str, folder: &TempFolder) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_csae")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = process::Command::new("sh");
    shell.args(["-c", line]).current_dir(folder.root());
    shell.env("PATH", path).env("HOME", folder.root()).env("CSAE_CACHE", "off");
    shell.output().expect("there is a shell").into()
}

/// Runs a command in its short form.
fn fault(line: &str, folder: &TempFolder) -> Option<String> {
    let short = shortened(line);
    let output = run(&short, folder);
    (!output.succeeded()).then(|| format!("{line}\n  ({short})\n  {}", output.stderr.trim()))
}

/// Runs all commands of a page in order.
fn runs(page: &str) {
    let folder = TempFolder::new("guide");
    examples::write(&folder);
    let page = PAGES.iter().find(|known| known.name == page).expect("a page");
    let lines = all_commands(page.text);
    let run = lines.iter().filter(|line| !is_listed(line));
    let faults: Vec<String> = run.filter_map(|line| fault(line, &folder)).collect();
    assert!(
        faults.is_empty(),
        "{}: {} lines fail:\n{}",
        page.name,
        faults.len(),
        faults.join("\n")
    );
}

/// One test for each page, so that pages run at the same time.
macro_rules! pages {
    ($($test:ident $page:literal,)*) => {
        $(#[test]
        fn $test() {
            runs($page);
        })*

        /// The pages whose commands run.
        const RUN: &[&str] = &[$($page),*];
    };
}

pages! {
    getting_started_runs "getting-started",
    photographs_runs "photographs",
    sparsity_runs "sparsity",
    features_runs "features",
    restoration_runs "restoration",
    segmentation_and_detection_runs "segmentation-and-detection",
    anomalies_runs "anomalies",
    generation_runs "generation",
    configuration_runs "configuration",
    runs_runs "runs",
    gpus_and_speed_runs "gpus-and-speed",
    clusters_runs "clusters",
    export_runs "export",
    faq_runs "faq",
}

#[test]
fn every_page_with_commands_runs() {
    let with_commands = PAGES.iter().filter(|page| !all_commands(page.text).is_empty());
    assert_eq!(with_commands.map(|page| page.name).collect::<Vec<_>>(), RUN);
}

fn readme() -> String {
    text(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"))
}

/// What a command writes: the value of `--out` or `-o`, and `RUN/prior` for a prior.
fn output(line: &str) -> Option<&str> {
    let mut words = line.split(' ').skip_while(|word| *word != "--out" && *word != "-o");
    words.nth(1).map(|path| path.trim_end_matches('/'))
}

/// The commands of the guide that make what `line` reads and the folder lacks, in order.
fn preparation<'a>(line: &str, guide: &'a [String], folder: &TempFolder) -> Vec<&'a String> {
    let words = line.split(' ').map(|word| word.trim_end_matches('/'));
    let missing =
        words.filter(|word| Some(*word) != output(line) && !folder.root().join(word).exists());
    missing
        .filter_map(|path| guide.iter().find(|command| output(command) == Some(path)))
        .flat_map(|command| {
            let mut all = preparation(command, guide, folder);
            all.push(command);
            all
        })
        .collect()
}

/// Commands that the guide has too run there.
#[test]
fn readme_runs() {
    let folder = TempFolder::new("readme");
    examples::write(&folder);
    let guide: Vec<String> = PAGES.iter().flat_map(|page| all_commands(page.text)).collect();
    let mut faults = Vec::new();
    for line in all_commands(&readme()) {
        if is_listed(&line) || guide.contains(&line) {
            continue;
        }
        for name in DEFAULT_FOLDERS {
            let _ = std::fs::remove_dir_all(folder.path(name));
        }
        let before = preparation(&line, &guide, &folder);
        faults.extend(before.into_iter().filter_map(|line| fault(line, &folder)));
        faults.extend(fault(&line, &folder));
    }
    assert!(faults.is_empty(), "{} lines fail:\n{}", faults.len(), faults.join("\n"));
}

/// The check can fail: an unknown flag, a missing file, and a failure behind a pipe are found.
#[test]
fn a_line_that_fails_is_found() {
    let folder = TempFolder::new("guide-faults");
    let found = |line: &str| fault(line, &folder).unwrap_or_default();
    assert!(found("csae denoise noisy.png --sigmma 25").contains("--sigmma"));
    assert!(found("csae denoise noisy.png").contains("noisy.png"));
    assert!(found("echo x.png | csae train -").contains("x.png"));
    assert_eq!(found("csae --version"), "");
}

#[test]
fn commands_are_shortened() {
    let short = |line| shortened(line);
    assert_eq!(short("csae presets"), "csae presets");
    assert_eq!(
        short("find a | csae train - --steps 900"),
        "find a | csae train --device cpu --batch 4 --set data.validation_patches=16 - --steps 2"
    );
    assert_eq!(
        short("csae segment train m d --device gpu"),
        "csae segment train --epochs 1 --crop 32 m d --device gpu"
    );
}

/// Lines that are not run are lines of the guide or the README.
#[test]
fn every_exception_is_needed() {
    let readme = readme();
    let texts = PAGES.iter().map(|page| page.text).chain([readme.as_str()]);
    let lines: Vec<String> = texts.flat_map(all_commands).collect();
    for (line, reason) in NOT_RUN {
        assert!(lines.iter().any(|known| known == line), "{line} ({reason}) is nowhere");
    }
}
