//! Runs without a final model: after Ctrl-C or a crash, commands use the best model so far or the
//! newest checkpoint, and say so.

use std::path::Path;

use csae::internals::files::Lock;

use crate::support::files::{copy_folder, newest_checkpoint};
use crate::support::images::BRICK;
use crate::support::models::digits;
use crate::support::{Command, TempFolder, is_file};

/// A copy of the shared run on digits without some of its files.
fn without(folder: &TempFolder, files: &[&str]) -> String {
    let run = folder.path("run");
    copy_folder(digits(), &run);
    for file in files {
        std::fs::remove_file(format!("{run}/{file}")).unwrap();
    }
    run
}

const MODELS: [&str; 2] = ["model.safetensors", "best.safetensors"];

#[test]
fn the_newest_checkpoint_stands_for_a_model() {
    let folder = TempFolder::new("unfinished-checkpoint");
    let run = without(&folder, &MODELS);
    let eval = |run: &str| Command::eval(run, "digits").on_cpu();
    eval(&run).warns(&["note: ", "has not finished", "checkpoint-000012.safetensors"]);
    // The last checkpoint of a finished run has the values of its model.
    assert_eq!(eval(&run).quiet().report(), eval(digits()).quiet().report());
    let file = newest_checkpoint(&run).unwrap();
    assert_eq!(eval(file.to_str().unwrap()).quiet().report(), eval(digits()).quiet().report());
}

#[test]
fn the_best_model_comes_before_a_checkpoint() {
    let folder = TempFolder::new("unfinished-best");
    let run = without(&folder, &["model.safetensors"]);
    Command::eval(&run, "digits").on_cpu().warns(&["has not finished", "its best model so far"]);
}

#[test]
fn every_command_takes_the_folder_of_an_unfinished_run() {
    let folder = TempFolder::new("unfinished-commands");
    let run = without(&folder, &MODELS);
    let out = |name: &str| folder.path(name);
    let reads = |name: &str| Command::new(name).arg(&run);
    for command in [
        reads("reconstruct").arg(BRICK).out(out("reconstruct")),
        reads("inspect").out(out("inspect")),
        reads("features").arg("digits").out(out("features.npy")),
        reads("probe").flags("--train digits --test digits").out(out("probe")),
        reads("finetune").arg("digits").flags("--labels-per-class 2").epochs(1).out(out("tuned")),
        Command::new("anomaly fit")
            .arg("digits")
            .option("--like", &run)
            .flags("--bank 64 --steps 1")
            .out(out("detector")),
        Command::train("digits").option("--from", &run).steps(1).batch(8).out(out("next")),
    ] {
        let output = command.on_cpu().output();
        assert!(output.succeeded(), "{output:?}");
    }
    assert!(is_file(out("next"), "model.safetensors"));
}

#[test]
fn a_run_without_a_checkpoint_is_refused_with_advice() {
    let folder = TempFolder::new("unfinished-none");
    let run = without(&folder, &MODELS);
    std::fs::remove_file(newest_checkpoint(&run).unwrap()).unwrap();
    let eval = Command::eval(&run, "digits").on_cpu().quiet();
    eval.fails(2, &["before its first checkpoint", "csae resume"]);
}

#[test]
fn a_running_run_without_a_checkpoint_says_when_there_is_one() {
    let folder = TempFolder::new("unfinished-running");
    let run = without(&folder, &MODELS);
    std::fs::remove_file(newest_checkpoint(&run).unwrap()).unwrap();
    let lock = Lock::take(Path::new(&format!("{run}/run.lock"))).unwrap().unwrap();
    let inspect = Command::inspect(&run).on_cpu().quiet();
    let message = inspect.fails(2, &["after its first validation", "5 minutes"]);
    assert!(!message.contains("csae resume"), "it is running: {message}");
    drop(lock);
    inspect.fails(2, &["csae resume"]);
}

#[test]
fn a_folder_without_a_model_is_refused_by_name() {
    let folder = TempFolder::new("unfinished-folder");
    let eval = Command::eval(folder.create("empty"), "digits").on_cpu().quiet();
    eval.fails(2, &["empty/model.safetensors", "name the folder of a run"]);
}

#[test]
fn a_checkpoint_that_does_not_fit_its_configuration_is_refused() {
    let folder = TempFolder::new("unfinished-other");
    let run = without(&folder, &MODELS);
    let config = crate::support::files::config(&run).replace("units = 24", "units = 25");
    folder.write("run/config.toml", config);
    let eval = Command::eval(&run, "digits").on_cpu().quiet();
    eval.fails(2, &["checkpoint-000012", "parameters", "restore the files"]);
}
