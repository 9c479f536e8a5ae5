//! What a newcomer looks up: the complete configuration, a dry run, presets, keys, and what a wrong
//! word or argument should have been.

use serde_json::Value;

use crate::support::{Command, TempFolder, text};

/// The files in a folder.
fn entries(folder: &TempFolder) -> usize {
    std::fs::read_dir(folder.path("")).unwrap().count()
}

/// A short training on bundled photographs, in a folder.
fn small(folder: &TempFolder, flags: &str) -> Command {
    Command::train("photos")
        .flags("--preset w1 --batch 8 --steps 7 --set optimizer.lr=0.25 --seed 3")
        .flags(flags)
        .on_cpu()
        .current_dir(folder.path(""))
}

#[test]
fn the_printed_configuration_is_complete_and_trains_the_same() {
    let folder = TempFolder::new("print-config");
    let printed = small(&folder, "--print-config").output();
    assert!(printed.succeeded() && printed.stderr.is_empty(), "{printed:?}");
    assert_eq!(entries(&folder), 0);
    for line in ["lr = 0.25", "batch = 8", "steps = 7", "seed = 3", "keep = 1"] {
        assert!(printed.stdout.lines().any(|other| other == line), "{line}: {}", printed.stdout);
    }
    std::fs::write(folder.path("own.toml"), &printed.stdout).unwrap();
    let config = || Command::new("train --config own.toml").current_dir(folder.path(""));
    assert_eq!(config().arg("--print-config").succeed(), printed.stdout);
    assert_ne!(config().flags("--seed 4 --print-config").succeed(), printed.stdout);
    // A run keeps the same configuration, but for the sizes that its model gets from the data.
    small(&folder, "-q -o run").succeed();
    let kept: toml::Table = text(&folder.path("run/config.toml")).parse().unwrap();
    let mut table: toml::Table = printed.stdout.parse().unwrap();
    table.insert("model".to_owned(), kept["model"].clone());
    assert_eq!(table, kept);
    let report = config().arg("--print-config").report();
    assert_eq!(
        (&report["kind"], &report["config"]["train"]["batch"]),
        (&"config".into(), &8.into())
    );
}

#[test]
fn an_invalid_configuration_is_not_printed() {
    let folder = TempFolder::new("print-config-invalid");
    small(&folder, "--print-config --set train.keep=0").fails(2, &["train.keep"]);
    small(&folder, "--print-config --dry-run").fails(2, &["--print-config", "--dry-run"]);
}

#[test]
fn a_dry_run_reports_what_a_run_then_takes_and_writes_nothing() {
    let folder = TempFolder::new("dry-run");
    let flags = "--set train.validate_every=0.05";
    let report = small(&folder, flags).arg("--dry-run").report();
    assert_eq!(entries(&folder), 0);
    assert_eq!((&report["kind"], &report["steps"]), (&"dry_run".into(), &7.into()));
    assert!(report["seconds_per_step"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["timed_steps"].as_u64().unwrap() > 1, "{report}");
    small(&folder, flags).flags("-q -o run").succeed();
    let inspected = Command::inspect(folder.path("run")).json();
    let of_kind = |kind: &str| -> Vec<Value> {
        let lines = inspected.iter().filter(|line| line["kind"] == kind);
        lines.cloned().collect()
    };
    assert_eq!(report["model"]["parameters"], of_kind("model")[0]["parameters"]);
    let layers = report["layers"].as_array().unwrap();
    assert_eq!(layers.len(), of_kind("layer").len());
    for (dry, real) in layers.iter().zip(of_kind("layer")) {
        assert_eq!((&dry["name"], &dry["shape"]), (&real["name"], &real["shape"]));
    }
    let log = text(&folder.path("run/metrics.jsonl"));
    let validations = log.lines().filter(|line| line.contains("\"kind\":\"validation\"")).count();
    assert!(validations > 1, "{log}");
    assert_eq!(report["validations"], validations);
}

#[test]
fn a_dry_run_is_readable_and_fails_as_the_run_would() {
    let folder = TempFolder::new("dry-run-text");
    let printed = small(&folder, "--dry-run").succeed();
    for words in
        ["layer ", "parameters", "memory: ", "7 steps in all", "time: about ", "timed step"]
    {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    small(&folder, "--dry-run --set train.from=none.safetensors").fails(2, &["none.safetensors"]);
    small(&folder, "--dry-run --max-memory 1KiB").fails(2, &["memory"]);
    assert_eq!(entries(&folder), 0);
}

#[test]
fn the_help_of_train_names_presets_and_bundled_sets() {
    let help = Command::new("train --help").succeed();
    for word in ["Presets: article, ", "top-k", "Bundled sets: photos, textures, digits"] {
        assert!(help.contains(word), "{word}: {help}");
    }
}
