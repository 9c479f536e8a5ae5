//! `csae sweep`: every member is an ordinary run, a second call trains nothing again, and wrong
//! input is refused.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::files::{copy_folder, exists};
use crate::support::json::{number, of_kind};
use crate::support::{Command, TempFolder, bytes, is_file};

fn sweep(out: &str) -> Command {
    let sweep = Command::new("sweep digits").out(out).steps(30);
    sweep.set("model.layers.code.units=24").on_cpu().quiet()
}

/// Four rules at two strengths.
const RULES: &str =
    "--rules l1,top_k,batch_top_k,lifetime_wta --lambda 0.1,1 --k 2,8 --rate 0.1,0.5";

/// A sweep and its lines.
struct Swept {
    out: String,
    lines: Vec<Value>,
}

/// Trained once for all tests, which only read it.
fn swept() -> &'static Swept {
    static SWEPT: OnceLock<Swept> = OnceLock::new();
    SWEPT.get_or_init(|| {
        let out = TempFolder::shared().path("sweep");
        Swept { lines: sweep(&out).flags(RULES).json(), out }
    })
}

/// A copy of the sweep, which a test can change.
fn copied(folder: &TempFolder) -> String {
    let out = folder.path("out");
    copy_folder(&swept().out, &out);
    out
}

#[test]
fn stronger_rules_leave_fewer_active_units() {
    let members = of_kind(&swept().lines, "member");
    assert_eq!(members.len(), 8);
    let l0 = |rule: &str, strength: f64| {
        let of = |m: &&&Value| m["rule"] == rule && m["strength"].as_f64() == Some(strength);
        number(members.iter().find(of).unwrap(), "l0")
    };
    // A selection bounds the number of units.
    assert!(l0("top_k", 2.0) <= 2.0 && l0("top_k", 8.0) <= 8.0);
    assert!(l0("top_k", 2.0) < l0("top_k", 8.0));
    assert!(l0("l1", 1.0) < l0("l1", 0.1));
}

#[test]
fn a_sweep_writes_a_chart_tables_and_runs() {
    let out = &swept().out;
    for name in
        ["sweep.png", "sweep.tsv", "sweep.jsonl", "top_k-2/model.safetensors", "l1-0.1/config.toml"]
    {
        assert!(is_file(out, name), "{name}");
    }
    Command::eval(format!("{out}/batch_top_k-8"), "digits").on_cpu().quiet().succeed();
}

#[test]
fn a_second_sweep_trains_nothing_and_reports_the_same() {
    let folder = TempFolder::new("sweep-again");
    let out = copied(&folder);
    let model = Path::new(&out).join("top_k-8/model.safetensors");
    let modified = || std::fs::metadata(&model).unwrap().modified().unwrap();
    let before = modified();
    let again = sweep(&out).flags(RULES).json();
    let plain = |lines: &[Value]| -> Vec<[Value; 3]> {
        lines.iter().map(|line| ["rule", "l0", "psnr"].map(|key| line[key].clone())).collect()
    };
    assert_eq!(plain(&swept().lines), plain(&again));
    assert_eq!(before, modified());
}

#[test]
fn a_lost_model_is_trained_again_to_the_same_bytes() {
    let folder = TempFolder::new("sweep-lost");
    let out = copied(&folder);
    let model = format!("{out}/top_k-8/model.safetensors");
    let before = bytes(&model);
    std::fs::remove_file(&model).unwrap();
    sweep(&out).flags(RULES).succeed();
    assert!(before == bytes(&model));
}

#[test]
fn another_configuration_is_refused_in_the_same_folder() {
    let sweep = sweep(&swept().out).flags(RULES).flags("--seed 9");
    sweep.fails(2, &["another configuration", "--force"]);
}

#[test]
fn wrong_rules_are_refused() {
    let folder = TempFolder::new("sweep-bad");
    let out = folder.path("out");
    let cases: &[(&str, &[&str])] = &[
        ("--rules l2", &["--rules", "l2", "top_k"]),
        ("--rules spatial_wta", &["spatial_wta", "vector"]),
        ("--rules kl", &["kl", "sigmoid"]),
        ("--rules top_k --k 0.5", &["top_k", "0.5"]),
        ("--rules top_k --k 999", &["top_k", "999"]),
        ("--rules l1 --lambda=-1", &["l1", "-1"]),
        ("--rules lifetime_wta --rate 2", &["lifetime_wta", "rate"]),
        ("--preset nothing", &["nothing"]),
    ];
    for (flags, words) in cases {
        sweep(&out).flags(flags).fails(2, words);
        assert!(!exists(&out), "{flags} left a folder");
    }
}
