//! The program as a user runs it: what it writes, what it answers to wrong input, and its exit
//! status.

use crate::support::files::{exists, metrics, text};
use crate::support::images::BRICK;
use crate::support::json::number;
use crate::support::models::{digits, train_digits};
use crate::support::{Command, TempFolder, bytes, is_file, model_bytes};

#[test]
fn a_training_reports_its_quality_and_speed_on_its_last_line() {
    let folder = TempFolder::new("last-line");
    let last = train_digits(&folder.path("run")).succeed();
    for word in ["PSNR", "SSIM", "L0", "dead", "images/s", "model.safetensors"] {
        assert!(last.contains(word), "{word}: {last}");
    }
}

#[test]
fn a_training_writes_its_configuration_model_log_and_pictures() {
    for file in [
        "config.toml",
        "model.safetensors",
        "metrics.jsonl",
        "reconstructions.png",
        "filters.png",
        "atoms.png",
    ] {
        assert!(!bytes(format!("{}/{file}", digits())).is_empty(), "{file}");
    }
    // Every line of the log is JSON.
    assert!(!metrics(digits()).is_empty());
}

#[test]
fn the_configuration_of_a_run_trains_the_same_model() {
    let folder = TempFolder::new("again");
    let again = folder.path("again");
    Command::new("train")
        .option("--config", format!("{}/config.toml", digits()))
        .out(&again)
        .on_cpu()
        .quiet()
        .succeed();
    assert_eq!(model_bytes(digits()), model_bytes(&again));
}

#[test]
fn a_model_file_alone_can_be_evaluated() {
    let folder = TempFolder::new("alone");
    let model = folder.write("model.safetensors", model_bytes(digits()));
    let report = Command::eval(&model, "digits").on_cpu().quiet().report();
    assert!(number(&report, "psnr") > 5.0 && report["images"] == 1797, "{report}");
}

#[test]
fn a_model_reconstructs_a_larger_image() {
    let folder = TempFolder::new("larger");
    let model = folder.write("model.safetensors", model_bytes(digits()));
    let out = folder.path("out");
    Command::reconstruct(&model, BRICK).flags("-o").arg(&out).on_cpu().quiet().succeed();
    assert!(is_file(&out, "brick.png"));
}

#[test]
fn a_reconstruction_is_not_overwritten_without_force() {
    let folder = TempFolder::new("overwrite");
    let out = folder.path("out");
    let reconstruct = Command::reconstruct(digits(), BRICK).out(&out).on_cpu().quiet();
    reconstruct.succeed();
    reconstruct.fails(2, &["brick.png", "--force"]);
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let folder = TempFolder::new("seed");
    let model = |name: &str, flags: &str| {
        let run = folder.path(name);
        train_digits(&run).flags(flags).succeed();
        model_bytes(&run)
    };
    let first = model("a", "--threads 1");
    assert_eq!(first, model("b", "--threads 2"));
    assert_ne!(first, model("c", "--seed 1"));
}

#[test]
fn wrong_settings_are_refused_before_anything_is_written() {
    let folder = TempFolder::new("wrong");
    let run = folder.path("run");
    let cases: &[(&str, &[&str])] = &[
        ("--preset nothing", &["nothing", "article"]),
        ("--set optimizer.rate=1", &["rate", "lr"]),
        ("--set optimizer.lr=-1", &["optimizer.lr", "at least 0"]),
        ("--set optimizer.kind=sdg", &["optimizer.kind", "sgd"]),
        ("--set nonsense", &["key=value"]),
        ("--set model.layers.coed.units=3", &["encoder.0"]),
        ("--set model.layers.code.units=0", &["code"]),
        (
            "--set model.layers.encoder.0.kernel=99 --set model.layers.encoder.0.padding=0",
            &["encoder.0", "kernel 99"],
        ),
        ("--set model.layers.encoder.0.stride=2", &["the model turns", "8x8"]),
        ("--set model.layers.encoder.0.activation=rleu", &["encoder.0", "rleu", "relu"]),
        ("--set loss.kind=l3", &["loss.kind", "charbonnier"]),
        ("--batch 0", &["train.batch"]),
        ("--batch 400000000", &["train.batch", "would fit"]),
        ("--set train.batch=abc", &["train.batch", "abc"]),
        ("--set model.code=input", &["model.code"]),
        ("--set model.layers.code.units=60000000", &["MiB"]),
        ("--config no-such-file.toml", &["no-such-file.toml"]),
    ];
    for (flags, words) in cases {
        Command::train("digits").on_cpu().quiet().out(&run).flags(flags).fails(2, words);
        assert!(!exists(&run), "{flags} left a folder");
    }
}

#[test]
fn an_unknown_flag_is_refused_by_name() {
    Command::new("train --unknown-flag").fails(2, &["--unknown-flag"]);
}

#[test]
fn missing_data_and_models_are_refused_by_name() {
    let folder = TempFolder::new("missing");
    let run = folder.path("run");
    let train = Command::train("no/such/folder").on_cpu().out(&run);
    train.fails(2, &["no/such/folder", "photos"]);
    let eval = Command::eval("no-model.safetensors", "digits").on_cpu();
    eval.fails(2, &["no-model.safetensors"]);
}

#[test]
fn a_file_that_is_not_a_model_is_refused() {
    let folder = TempFolder::new("text");
    let text = folder.write("text.safetensors", "this is no model");
    let eval = Command::eval(text, "digits").on_cpu();
    eval.fails(2, &["text.safetensors", "not a model file"]);
}

#[test]
fn unknown_devices_are_refused_with_those_there_are() {
    let folder = TempFolder::new("device");
    let train = Command::train("digits").out(folder.path("run"));
    train.clone().device("no-such-adapter").fails(2, &["no-such-adapter", "cpu"]);
    train.device("99").fails(2, &["99", "csae devices"]);
}

#[test]
fn filters_and_workloads_without_a_match_are_refused() {
    Command::new("bench --workload w9").on_cpu().fails(2, &["w9", "w1"]);
    for command in ["bench", "verify"] {
        let filter = Command::new(command).flags("--filter nothing-like-it").on_cpu();
        filter.fails(2, &["nothing-like-it"]);
    }
}

#[test]
fn a_folder_in_use_is_not_overwritten_without_force() {
    let folder = TempFolder::new("in-use");
    Command::train("digits").on_cpu().out(folder.create("run")).fails(2, &["--force"]);
}

#[test]
fn a_diverging_run_stops_and_names_step_and_rate() {
    let folder = TempFolder::new("diverge");
    let train = train_digits(&folder.path("run"));
    let train = train.set("optimizer.lr=1e30").set("optimizer.clip_norm=0");
    train.fails(1, &["step", "loss", "optimizer.lr"]);
}

#[test]
fn a_last_update_that_ruins_the_weights_is_noticed_after_finite_losses() {
    let folder = TempFolder::new("diverge-last");
    let run = folder.path("run");
    Command::train("digits")
        .out(&run)
        .steps(1)
        .set("optimizer.lr=1e30")
        .set("optimizer.clip_norm=0")
        .on_cpu()
        .quiet()
        .fails(1, &["diverged", "optimizer.lr"]);
    assert!(!is_file(&run, "model.safetensors"));
}

#[test]
fn a_benchmark_of_a_training_step_has_its_keys() {
    let lines =
        Command::new("bench --workload w1 --batch 2,3 --seconds 0.02").on_cpu().quiet().json();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        for key in ["images_per_s", "min", "max", "ms", "first_step_s", "second_step_s", "params"] {
            assert!(line[key].is_number(), "{key}: {line}");
        }
        assert_eq!(
            (&line["kind"], &line["workload"], &line["precision"]),
            (&"train_step".into(), &"w1".into(), &"f32".into())
        );
    }
}

#[test]
fn a_benchmark_of_a_kernel_has_its_keys() {
    let filter = "conv2d_max_pool_fwd/w1.1x28x28-16x28x28.k3x3.n32.relu";
    let bench = Command::new("bench --seconds 0.02").option("--filter", filter).on_cpu().quiet();
    let [peak, kernel] = &bench.json()[..] else { panic!("two lines") };
    assert!(peak["kind"] == "peak" && kernel["name"] == filter, "{peak} {kernel}");
    assert_eq!(kernel["kind"], "kernel");
    for key in ["ms", "min", "max", "gflops", "gbps", "of_floor"] {
        assert!(kernel[key].is_number(), "{key}: {kernel}");
    }
}

#[test]
fn devices_end_with_the_default_choice() {
    assert_eq!(Command::new("devices").json().last().unwrap()["kind"], "choice");
}

#[test]
fn verify_ends_with_a_summary() {
    let lines = Command::new("verify --filter linear").on_cpu().quiet().json();
    let last = lines.last().unwrap();
    assert!(
        last["kind"] == "summary" && last["failed"] == 0 && last["passed"].as_u64() > Some(2),
        "{last}"
    );
}

#[test]
fn a_report_of_a_device_has_its_cases_and_training_steps() {
    let folder = TempFolder::new("commands-report");
    let path = folder.path("report.md");
    let verify = Command::new("verify --filter pixel_shuffle").option("--report", &path).on_cpu();
    verify.quiet().succeed();
    let report = text(&path);
    for words in [
        "# csae verify on cpu",
        "passed, 0 failed",
        "| w1 | 128 |",
        "| w3 | 32 |",
        "pixel_shuffle/",
    ] {
        assert!(report.contains(words), "{words}: {report}");
    }
    // Nothing about the user or the machine's files.
    assert!(!report.contains("/home") && !report.contains(&folder.path("")), "{report}");
    Command::new("verify --filter pixel_shuffle")
        .option("--report", &path)
        .on_cpu()
        .fails(2, &["--force"]);
    Command::new("verify --filter pixel_shuffle --force").on_cpu().fails(2, &["--report"]);
}

#[test]
fn keys_without_effect_are_named() {
    let folder = TempFolder::new("commands-keys");
    let train = Command::train("digits").out(folder.path("run")).steps(1).batch(8).on_cpu();
    train
        .set("model.layers.code.units=8")
        .set("sparsity.penalty=none")
        .set("sparsity.lambda=0.5")
        .set("data.crop=20")
        .set("optimizer.kind=adam")
        .set("optimizer.momentum=0.5")
        .warns(&[
            "note: sparsity.lambda has no effect with sparsity.penalty = none",
            "note: data.crop has no effect on images of one size up to 64x64; samples have 1x8x8",
            "note: optimizer.momentum has no effect with optimizer.kind = adam",
        ]);
    let heads = Command::new("finetune").arg(folder.path("run")).arg("digits").epochs(1);
    let heads = heads.out(folder.path("head")).flags("--labels-per-class 2").on_cpu();
    heads.set("sparsity.rho=0.2").warns(&["note: sparsity.rho has no effect"]);
}
