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
