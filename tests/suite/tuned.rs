//! Tables of kernels: what is measured is kept, read back and taken; what is broken or another's is
//! passed over. And what drivers compile is kept.

use std::process::Output;
use std::rc::Rc;

use csae::internals::gpu::{Choice, Family, Kernel, Matrices, Recorder, Traits, Tuned};
use csae::internals::ops::{Activation, Conv2dBwdWeight, Conv2dFwd};
use csae::internals::program::Call;
use csae::internals::shape::Conv2d;
use serde_json::Value;

use crate::commands::{Place, fail, one_line, program};
use crate::gpu::{name, open, turn};

/// A fully connected layer's forward pass on no buffers.
fn call(n: usize) -> Call {
    let view =
        |len| csae::internals::view::View::whole(csae::internals::view::Buffer::planned(0), len);
    let size = Conv2d::linear(n, 32, 16);
    Conv2dFwd {
        size,
        activation: Activation::Identity,
        x: view(n * 32),
        w: view(32 * 16),
        b: None,
        gate: None,
        y: view(n * 16),
    }
    .into()
}

fn table(call: &Call, choice: Choice) -> Option<Rc<Tuned>> {
    Some(Rc::new(Tuned::new([(call.product().unwrap().class(), choice)])))
}

#[test]
fn a_tuned_choice_is_taken_by_its_shape() {
    let traits = Traits { software: true, subgroup: 8, int64: true, ..Traits::default() };
    let kernel = |call: &Call, choice, tuned: &Option<Rc<Tuned>>, traits| {
        let mut recorder = Recorder { choice, traits, tuned: tuned.clone(), ..Recorder::default() };
        call.record(&mut recorder);
        recorder.dispatches[0].kernel
    };
    let (small, large) = (call(8), call(8000));
    let tuned = table(&small, Choice::Registers);
    assert_eq!(kernel(&small, Choice::Auto, &tuned, traits), Kernel::Conv2dFwdRegs);
    assert_eq!(
        kernel(&large, Choice::Auto, &tuned, traits),
        Kernel::Conv2dFwdSubgroup,
        "no class is near"
    );
    assert_eq!(kernel(&small, Choice::Auto, &None, traits), Kernel::Conv2dFwdSubgroup);
    assert_eq!(
        kernel(&small, Choice::Tiled, &tuned, traits),
        Kernel::Conv2dFwdTiled,
        "what is asked for goes first"
    );
    let (none, tuned) = (Traits { subgroup: 4, ..traits }, table(&small, Choice::Subgroup));
    assert_eq!(
        kernel(&small, Choice::Auto, &tuned, none),
        Kernel::Conv2dFwdRegs,
        "what does not run here is not taken"
    );
    assert_eq!(kernel(&small, Choice::Auto, &None, Traits::default()), Kernel::Conv2dFwdTiled);
}

#[test]
fn matrices_are_for_halves_and_where_they_are() {
    let half = |call: Call| {
        let mut call = call;
        let w = 32 * 16;
        call.visit(&mut |view, _| view.half = view.len != w);
        call
    };
    let kernel = |call: &Call, choice, tuned: &Option<Rc<Tuned>>, matrices| {
        let traits = Traits { matrices, ..Traits::default() };
        let mut recorder = Recorder { choice, traits, tuned: tuned.clone(), ..Recorder::default() };
        call.record(&mut recorder);
        recorder.dispatches[0].kernel
    };
    let (single, half) = (call(8), half(call(8)));
    let (none, there) = (Matrices::None, Matrices::Cooperative);
    assert_eq!(kernel(&half, Choice::Matrix, &None, there), Kernel::Conv2dFwdMatrix);
    assert_eq!(kernel(&half, Choice::Matrix, &None, none), Kernel::Conv2dFwdTiled);
    assert_eq!(kernel(&single, Choice::Matrix, &None, there), Kernel::Conv2dFwdTiled);
    assert_eq!(
        kernel(&half, Choice::Auto, &None, there),
        Kernel::Conv2dFwdTiled,
        "never without a measurement"
    );
    let tuned = table(&half, Choice::Matrix);
    assert_eq!(kernel(&half, Choice::Auto, &tuned, there), Kernel::Conv2dFwdMatrix);
    assert_eq!(kernel(&half, Choice::Auto, &tuned, none), Kernel::Conv2dFwdTiled);
    assert_eq!(kernel(&single, Choice::Auto, &tuned, there), Kernel::Conv2dFwdTiled);
}

#[test]
fn products_are_rows_columns_and_steps() {
    let view = csae::internals::view::View::whole(csae::internals::view::Buffer::planned(0), 1);
    let product = call(7).product().unwrap();
    assert_eq!(
        (product.family, product.rows, product.columns, product.steps),
        (Family::Conv2dFwd, 7, 16, 32)
    );
    let weight = Call::from(Conv2dBwdWeight {
        size: Conv2d::linear(7, 32, 16),
        x: view,
        dy: view,
        dw: view,
        partials: view,
    });
    let product = weight.product().unwrap();
    assert_eq!(
        (product.family, product.rows, product.columns, product.steps),
        (Family::Conv2dBwdWeight, 32, 16, 7)
    );
}

#[test]
fn a_device_takes_the_users_table() {
    let Some(_turn) = turn("a_device_takes_the_users_table") else { return };
    let mut device = open();
    let identity = device.identity();
    let size = Conv2d::linear(8, 32, 16);
    let buffers = [8 * 32, 32 * 16, 8 * 16].map(|len| device.alloc_real("v", len).unwrap());
    let [x, w, y] = buffers.each_ref().map(|buffer| **buffer);
    let call = Call::from(Conv2dFwd {
        size,
        activation: Activation::Identity,
        x,
        w,
        b: None,
        gate: None,
        y,
    });
    let mut kernels = |tuned: Option<Rc<Tuned>>| {
        device.as_gpu().unwrap().tuned = tuned;
        let program = device.compile(vec![call.clone()]).unwrap();
        let plan = program.plan().expect("it is compiled for a GPU");
        (plan.kernels().collect::<Vec<_>>(), device.identity())
    };
    assert_eq!(kernels(table(&call, Choice::Plain)).0, ["conv2d_fwd"]);
    let (found, tuned) = kernels(table(&call, Choice::Tiled));
    assert_eq!(found, ["conv2d_fwd_tiled"]);
    assert!(
        tuned.starts_with(&identity) && tuned.contains("tuned"),
        "other kernels, other bytes: {tuned}"
    );
    assert_eq!(kernels(None).1, identity);
}

/// Runs the program with a cache folder.
fn cached(cache: &str, arguments: &[&str]) -> Output {
    program().env("CSAE_CACHE", cache).args(arguments).output().expect("the program starts")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_is_tuned_is_kept_and_what_is_broken_passed_over() {
    let Some(_turn) = turn("what_is_tuned_is_kept_and_what_is_broken_passed_over") else { return };
    let (place, device) = (Place::new("tuned"), name());
    let cache = place.path("cache");
    let tune = [
        "bench",
        "--tune",
        "--workload",
        "w1",
        "--batch",
        "1",
        "--seconds",
        "0.01",
        "--device",
        &device,
    ];
    let output = cached(&cache, &[&tune[..], &["--json"]].concat());
    let text = said(&output);
    let path = std::fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().unwrap() == "toml");
    let path = path.expect("a table");
    assert!(
        text.contains(&path.display().to_string()) && text.contains("delete the file"),
        "{text}"
    );
    let told: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(told.len() > 10, "{told:?}");
    for product in &told {
        let ms = product["ms"].as_object().unwrap();
        assert!(
            product["kind"] == "tune"
                && ms.len() >= 3
                && ms.contains_key(product["kernels"].as_str().unwrap()),
            "{product}"
        );
        assert!(ms.values().all(|ms| ms.as_f64() > Some(0.0)), "{product}");
    }
    let content = std::fs::read_to_string(&path).unwrap();
    assert!(content.contains("conv2d_bwd_weight") && content.contains("kernels = "), "{content}");
    let time = |words: &[&str]| {
        let text = said(&cached(
            &cache,
            &[
                "bench",
                "--workload",
                "w1",
                "--batch",
                "1",
                "--seconds",
                "0.01",
                "--device",
                &device,
                "-v",
            ],
        ));
        words.iter().for_each(|word| assert!(text.contains(word), "{word}: {text}"));
        text
    };
    let shown = path.display().to_string();
    assert!(!time(&[&shown]).contains("ignored"));
    for (broken, why) in [
        (content[..content.len() / 2].to_owned(), "not a valid table"),
        (content.replace("adapter = \"", "adapter = \"another "), "another adapter"),
    ] {
        std::fs::write(&path, broken).unwrap();
        time(&["ignored", &shown, why, "built-in table"]);
    }
    for entry in std::fs::read_dir(&cache).unwrap() {
        std::fs::write(entry.unwrap().path(), [0xff; 100]).unwrap();
    }
    time(&["ignored", "not a text file", "built-in table"]);
    // `csae verify` runs every kind whatever the table says.
    let output =
        cached(&cache, &["verify", "--filter", "fused_epilogues", "--device", &device, "-v", "-q"]);
    assert!(!said(&output).contains("ignored"));
    assert_eq!(cached(&cache, &tune).status.code(), Some(0));
    assert!(!time(&[&shown]).contains("ignored"));
    let single = std::fs::read_to_string(&path).unwrap();
    assert!(single.contains("adapter = ") && !single.contains("half"), "written over");
    if open().has_half() {
        assert_eq!(
            cached(&cache, &[&tune[..], &["--precision", "f16"]].concat()).status.code(),
            Some(0)
        );
        let both = std::fs::read_to_string(&path).unwrap();
        let kept = single.lines().all(|line| both.contains(line));
        assert!(
            kept && both.lines().count() > single.lines().count() && both.contains("half = true"),
            "{single}{both}"
        );
    }
    one_line(&cached("off", &[&tune[..], &["-q"]].concat()), 2, &["--tune", "CSAE_CACHE"]);
}

#[test]
fn wrong_tunings_are_refused_in_a_line() {
    fail(&["bench", "--tune", "--device", "cpu", "-q"], 2, &["--tune", "--device"]);
    for other in ["--profile", "--grow", "--filter=w1", "--compare=then.json"] {
        fail(
            &["bench", "--tune", other, "--device", "cpu", "-q"],
            2,
            &["--tune", other.split('=').next().unwrap()],
        );
    }
}
