//! `csae presets`: the list, and a preset as a configuration to start from.

use crate::support::json::of_kind;
use crate::support::{Command, TempFolder};

#[test]
fn every_preset_is_listed_with_a_sentence() {
    let text = Command::new("presets").succeed();
    let lines = Command::new("presets").json();
    let presets = of_kind(&lines, "preset");
    assert_eq!(text.lines().count(), presets.len());
    assert!(presets.len() > 15, "{}", presets.len());
    for preset in presets {
        let (name, summary) = (preset["name"].as_str().unwrap(), preset["summary"].as_str());
        assert!(summary.is_some_and(|summary| summary.len() > 10), "{preset}");
        assert!(text.lines().any(|line| line.split(' ').next() == Some(name)), "{name}: {text}");
    }
}

/// The data, the time and the result of every preset are in its line, which fits a terminal.
#[test]
fn every_line_says_for_which_data_how_long_and_what_to_expect() {
    let text = Command::new("presets").succeed();
    let presets = Command::new("presets").json();
    for (line, preset) in text.lines().zip(&presets) {
        assert!(line.chars().count() <= 100, "{line}");
        for (field, least) in [("data", 5), ("time", 3), ("result", 10)] {
            let value = preset[field].as_str().unwrap();
            assert!(value.len() >= least && line.contains(value), "{field}: {line}");
        }
        let command = preset["command"].as_str().unwrap();
        let used_by = command.trim_start_matches("csae ").split(" --preset").next().unwrap();
        assert!(line.contains(used_by), "{used_by}: {line}");
    }
    Command::new("presets").warns(&["used by", "time", "two CPU cores"]);
    assert_eq!(Command::new("presets").quiet().messages(), "");
}

/// Nobody forgets a preset: every file has a row.
#[test]
fn every_file_of_a_preset_is_listed() {
    let names: Vec<String> = Command::new("presets")
        .json()
        .iter()
        .map(|preset| preset["name"].as_str().unwrap().to_owned())
        .collect();
    let mut files = 0;
    for folder in ["assets/presets", "assets/presets/heads"] {
        let folder = format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"));
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                files += 1;
                let name = path.file_stem().unwrap().to_str().unwrap();
                assert!(names.iter().any(|other| other == name), "{name}");
            }
        }
    }
    assert_eq!(files, names.len());
}

#[test]
fn a_printed_preset_trains_the_model_that_the_preset_trains() {
    let folder = TempFolder::new("presets");
    let file = folder.write("my.toml", Command::new("presets sparse").succeed());
    let train = |how: &str, value: &str, out: &str| {
        let run = folder.path(out);
        let command = Command::train("digits").option(how, value).out(&run);
        command.steps(3).batch(8).on_cpu().quiet().succeed();
        crate::support::model_bytes(&run)
    };
    assert!(train("--config", &file, "a") == train("--preset", "sparse", "b"));
}

#[test]
fn presets_of_heads_have_their_tables() {
    let tables = [
        ("classify", "[data]"),
        ("segment", "[optimizer]"),
        ("detect", "[train]"),
        ("prior", "[prior]"),
    ];
    for (name, table) in tables {
        let text = Command::new("presets").arg(name).succeed();
        assert!(text.contains(table), "{name}: {text}");
        assert!(!text.contains("[model]"), "{name}");
    }
}

#[test]
fn an_unknown_preset_is_refused_with_the_names() {
    Command::new("presets sparce").fails(2, &["sparce", "sparse", "did you mean"]);
}
