//! `csae sweep`: every member an ordinary run, a second call trains nothing again, and what does
//! not fit is refused.

use std::path::Path;

use serde_json::Value;

use super::commands::{Place, fail, succeed};

const SHORT: [&str; 6] =
    ["--steps", "30", "--device", "cpu", "-q", "--set=model.layers.code.units=24"];

fn sweep(arguments: &[&str]) -> Vec<Value> {
    let text = succeed(&[&["sweep", "digits"], &SHORT[..], &["--json"], arguments].concat());
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

#[test]
fn rules_are_traced_and_kept() {
    let place = Place::new("sweep");
    let out = place.path("out");
    let some = [
        "--rules",
        "l1,top_k,batch_top_k,lifetime_wta",
        "--lambda",
        "0.1,1",
        "--k",
        "2,8",
        "--rate",
        "0.1,0.5",
        "-o",
        &out,
    ];
    let lines = sweep(&some);
    let members: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "member").collect();
    assert_eq!(members.len(), 8);
    let l0 = |rule: &str, strength: f64| {
        let of = |m: &&&Value| m["rule"] == rule && m["strength"].as_f64() == Some(strength);
        members.iter().find(of).unwrap()["l0"].as_f64().unwrap()
    };
    // a selection bounds what it selects; a stronger penalty leaves fewer
    assert!(
        l0("top_k", 2.0) <= 2.0 && l0("top_k", 2.0) < l0("top_k", 8.0) && l0("top_k", 8.0) <= 8.0
    );
    assert!(l0("l1", 1.0) < l0("l1", 0.1));
    for name in
        ["sweep.png", "sweep.tsv", "sweep.jsonl", "top_k-2/model.safetensors", "l1-0.1/config.toml"]
    {
        assert!(Path::new(&out).join(name).exists(), "{name}");
    }
    succeed(&["eval", &format!("{out}/batch_top_k-8"), "digits", "--device", "cpu", "-q"]);
    // again: the same numbers, and no run is touched
    let model = Path::new(&out).join("top_k-8/model.safetensors");
    let before = std::fs::metadata(&model).unwrap().modified().unwrap();
    let again = sweep(&some);
    let plain = |lines: &[Value]| {
        lines
            .iter()
            .map(|line| (line["rule"].clone(), line["l0"].clone(), line["psnr"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(plain(&lines), plain(&again));
    assert_eq!(before, std::fs::metadata(&model).unwrap().modified().unwrap());
    // what was lost is trained again, to the same bytes
    let bytes = std::fs::read(&model).unwrap();
    std::fs::remove_file(&model).unwrap();
    sweep(&some);
    assert!(bytes == std::fs::read(&model).unwrap());
    // another configuration needs another place
    let longer = [&["sweep", "digits"], &SHORT[..], &some[..], &["--seed", "9"]].concat();
    fail(&longer, 2, &["another configuration", "--force"]);
}

#[test]
fn sweeps_that_make_no_sense_are_refused() {
    let place = Place::new("sweep-bad");
    let out = place.path("out");
    let refuse = |more: &[&str], words: &[&str]| {
        fail(&[&["sweep", "digits", "-o", &out], &SHORT[..], more].concat(), 2, words);
        assert!(!Path::new(&out).exists());
    };
    refuse(&["--rules", "l2"], &["--rules", "l2", "top_k"]);
    refuse(&["--rules", "spatial_wta"], &["spatial_wta", "vector"]);
    refuse(&["--rules", "kl"], &["kl", "sigmoid"]);
    refuse(&["--rules", "top_k", "--k", "0.5"], &["top_k", "0.5"]);
    refuse(&["--rules", "top_k", "--k", "999"], &["top_k", "999"]);
    refuse(&["--rules", "l1", "--lambda=-1"], &["l1", "-1"]);
    refuse(&["--rules", "lifetime_wta", "--rate", "2"], &["lifetime_wta", "rate"]);
    refuse(&["--preset", "nothing"], &["nothing"]);
}
