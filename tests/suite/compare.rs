//! `csae compare` and `csae grid`: tables, pages and charts of several runs.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

#[cfg(unix)]
use crate::support::command::{interrupt, wait};
use crate::support::files::{copy_folder, exists, text};
use crate::support::json::{number, of_kind};
use crate::support::models::{digits, sparse_digits};
use crate::support::{Command, TempFolder, bytes, is_file, model_bytes};

fn grid(out: &str, set: &str) -> Command {
    let grid = Command::new("grid digits --preset article")
        .out(out)
        .steps(12)
        .set("model.layers.code.units=24,8");
    grid.set("train.batch=16").set(set).on_cpu().quiet()
}

const RATES: &str = "optimizer.lr=0.001,0.002";

/// A grid and its lines, which tests only read.
fn gridded() -> &'static (String, Vec<Value>) {
    static GRID: OnceLock<(String, Vec<Value>)> = OnceLock::new();
    GRID.get_or_init(|| {
        let out = TempFolder::shared().path("grid");
        let lines = grid(&out, RATES).json();
        (out, lines)
    })
}

#[test]
fn a_grid_trains_every_combination_and_compares_them() {
    let (out, lines) = gridded();
    assert_eq!(of_kind(lines, "member").len(), 4);
    let runs = of_kind(lines, "run");
    let names: Vec<&str> = runs.iter().map(|run| run["name"].as_str().unwrap()).collect();
    let wanted = ["units-24_lr-0.001", "units-24_lr-0.002", "units-8_lr-0.001", "units-8_lr-0.002"];
    assert_eq!(names, wanted);
    let settings: Vec<&String> = runs[1]["settings"].as_object().unwrap().keys().collect();
    assert_eq!(settings, ["model.layers.code.units", "optimizer.lr"]);
    assert!(number(&runs[0]["best"], "psnr") > 0.0);
    for name in ["index.html", "compare.png", "compare.tsv", "units-8_lr-0.002/model.safetensors"] {
        assert!(is_file(out, name), "{name}");
    }
    let table = text(format!("{out}/compare.tsv"));
    assert_eq!(table.lines().count(), 5);
}

#[test]
fn a_grid_is_continued_and_extended() {
    let folder = TempFolder::new("grid-again");
    let out = folder.path("grid");
    copy_folder(&gridded().0, &out);
    let kept = format!("{out}/units-24_lr-0.001/model.safetensors");
    let lost = format!("{out}/units-8_lr-0.001");
    let (modified, before) =
        (|path: &str| Path::new(path).metadata().unwrap().modified().unwrap(), model_bytes(&lost));
    std::fs::remove_file(format!("{lost}/model.safetensors")).unwrap();
    let first = modified(&kept);
    let lines = grid(&out, "optimizer.lr=0.001,0.002,0.004").json();
    assert_eq!(of_kind(&lines, "member").len(), 6);
    assert_eq!(modified(&kept), first, "a finished run is not trained again");
    assert!(model_bytes(&lost) == before);
    assert!(is_file(&out, "units-8_lr-0.004/model.safetensors"));
    grid(&out, RATES).flags("--seed 5").fails(2, &["another configuration", "--force"]);
}

#[test]
fn wrong_values_are_refused_before_a_run_begins() {
    let folder = TempFolder::new("grid-bad");
    let out = folder.path("grid");
    let cases: &[(&str, &[&str])] = &[
        ("optimizer.lr=0.1,", &["empty"]),
        ("optimizer.lr=0.1,x", &["lr-x", "optimizer.lr"]),
        ("optimizer.rate=1,2", &["rate", "lr"]),
        ("optimizer.lr", &["key=value"]),
        ("optimizer.lr=1,1", &["twice"]),
    ];
    for (set, words) in cases {
        grid(&out, set).fails(2, words);
        assert!(!exists(&out), "{set} left a folder");
    }
    Command::new("grid digits").out(&out).fails(2, &["--set"]);
}

#[test]
fn runs_are_compared_in_a_table_a_page_and_charts() {
    let folder = TempFolder::new("compare");
    let out = folder.path("out");
    let compare = Command::new("compare").arg(digits()).arg(sparse_digits());
    let table = compare.succeed();
    for words in ["PSNR", "settings that differ", "train.batch", "finished", "sparse-digits"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    let lines = compare.clone().out(&out).json();
    assert_eq!(of_kind(&lines, "run")[0]["settings"]["train.batch"], "16");
    assert!(bytes(format!("{out}/compare.png")).starts_with(b"\x89PNG"));
    assert!(text(format!("{out}/index.html")).contains("\"differences\""));
    // A control: a run does not differ from itself.
    let alone = Command::new("compare").arg(digits()).arg(digits()).succeed();
    assert!(alone.contains("all settings are equal"), "{alone}");
}

#[test]
fn pages_of_others_are_not_overwritten() {
    let folder = TempFolder::new("compare-over");
    let compare = Command::new("compare").arg(digits());
    compare.clone().out(digits()).fails(2, &["a run"]);
    folder.write("site/index.html", "mine");
    compare.clone().out(folder.path("site")).fails(2, &["index.html", "--force"]);
    compare.clone().out(folder.path("site")).force().succeed();
    compare.out(folder.path("site")).succeed();
    Command::new("compare").arg(folder.path("none")).fails(2, &["no such folder"]);
}

#[test]
#[cfg(unix)]
fn a_grid_that_is_stopped_has_the_page_of_the_runs_so_far() {
    let folder = TempFolder::new("compare-stopped");
    let out = folder.path("grid");
    let grid = Command::new("grid digits --preset w1 --steps 1000000").out(&out).on_cpu().quiet();
    let mut child = grid.set("optimizer.lr=0.001,0.01").set("train.log_every=1").spawn();
    let begin = std::time::Instant::now();
    while metrics_of(&format!("{out}/lr-0.001")).is_empty() {
        assert!(begin.elapsed().as_secs() < 120 && child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let status = interrupt(&child);
    assert_eq!(wait(child).status, Some(status));
    let page = text(format!("{out}/index.html"));
    assert_eq!(page.matches("\"state\":\"stopped\"").count(), 1, "one run had begun");
}

/// The log of a run, if it has one.
#[cfg(unix)]
fn metrics_of(run: &str) -> String {
    std::fs::read_to_string(format!("{run}/metrics.jsonl")).unwrap_or_default()
}
