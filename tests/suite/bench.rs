//! Profiles and `csae bench`: every dispatch is timed, times go forwards, what is written can be
//! read, what changed is flagged.

use csae::internals::device::Device;
use csae::internals::ops::AddAssign;
use csae::internals::profile::{Clock, Profile};
use csae::internals::program::Call;
use csae::internals::verify;
use csae::internals::view::StepParams;
use serde_json::{Value, json};

use crate::commands::{Place, csae, fail, one_line, succeed};
use crate::gpu::{open, turn};

fn sound(profile: &Profile, dispatches: usize, calls: usize) {
    assert_eq!((profile.timed.len(), profile.operations.len()), (dispatches, calls));
    let mut last = 0.0;
    for timed in &profile.timed {
        assert!(timed.start >= last && timed.end >= timed.start, "{timed:?} after {last}");
        assert!(timed.call < calls && !timed.kernel.is_empty(), "{timed:?}");
        last = timed.end;
    }
    assert!(last > 0.0, "no time has passed");
    // Every call has its work once, at one of its dispatches.
    let work: f64 = profile.costs().iter().map(|cost| cost.bytes).sum();
    assert_eq!(work, profile.operations.iter().map(|operation| operation.cost.bytes).sum::<f64>());
}

#[test]
fn every_dispatch_is_timed_by_every_clock() {
    let Some(_turn) = turn("every_dispatch_is_timed_by_every_clock") else { return };
    let mut device = open();
    for name in ["many_workgroups", "fused_epilogues", "long_ties"] {
        let case = verify::built_in().into_iter().find(|case| case.name == name).unwrap();
        let prepared = verify::prepare(&mut device, &case).unwrap();
        let found = prepared.execute(&mut device).unwrap();
        let program = device.compile(prepared.calls.clone()).unwrap();
        let plan = program.plan().expect("it is compiled for a GPU");
        let gpu = device.as_gpu().unwrap();
        let clocks = match gpu.clock() {
            Clock::Inside => vec![Clock::Inside, Clock::Passes, Clock::Submissions],
            Clock::Passes => vec![Clock::Passes, Clock::Submissions],
            _ => vec![Clock::Submissions],
        };
        for clock in clocks {
            let profile = gpu.profile_by(plan, &StepParams::default(), clock).unwrap();
            assert_eq!(profile.clock, clock);
            sound(&profile, plan.len(), prepared.calls.len());
            assert!(
                profile.timed.iter().map(|timed| timed.kernel.as_str()).eq(plan.kernels()),
                "{name}: other kernels"
            );
        }
        assert_eq!(
            found,
            prepared.execute(&mut device).unwrap(),
            "{name}: a profiled run leaves other values"
        );
    }
}

#[test]
fn a_plan_may_be_longer_than_a_query_set() {
    let Some(_turn) = turn("a_plan_may_be_longer_than_a_query_set") else { return };
    let mut device = open();
    let buffers = ["x", "y"].map(|label| device.alloc_real(label, 4).unwrap());
    let [x, y] = buffers.each_ref().map(|buffer| **buffer);
    device.write(x, &[1.0; 4]);
    let count = 5000;
    let program = device.compile(vec![Call::from(AddAssign { x, y }); count]).unwrap();
    let plan = program.plan().expect("it is compiled for a GPU");
    let gpu = device.as_gpu().unwrap();
    let clocks =
        if gpu.clock() == Clock::Submissions { vec![] } else { vec![gpu.clock(), Clock::Passes] };
    for clock in &clocks {
        sound(&gpu.profile_by(plan, &StepParams::default(), *clock).unwrap(), count, count);
    }
    assert_eq!(device.read(y).unwrap(), [(clocks.len() * count) as f32; 4]);
}

#[test]
fn every_call_of_the_cpu_path_is_timed() {
    for mut device in [Device::cpu(), Device::oracle()] {
        let case =
            verify::built_in().into_iter().find(|case| case.name == "fused_epilogues").unwrap();
        let prepared = verify::prepare(&mut device, &case).unwrap();
        let program = device.compile(prepared.calls.clone()).unwrap();
        let profile = device.profile(&program, &StepParams::default()).unwrap();
        sound(&profile, prepared.calls.len(), prepared.calls.len());
        assert_eq!(profile.clock, Clock::Calls);
    }
}

#[test]
fn every_operation_costs_something() {
    for case in verify::built_in() {
        let prepared = verify::prepare(&mut Device::cpu(), &case).unwrap();
        for call in &prepared.calls {
            let cost = call.cost();
            assert!(
                cost.bytes > 0.0 && cost.flops >= 0.0,
                "{}: {} {cost:?}",
                case.id(),
                call.name()
            );
            assert!(!call.sizes().is_empty(), "{}: {}", case.id(), call.name());
        }
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

#[test]
fn a_profile_is_told_and_its_timeline_is_json() {
    let place = Place::new("profile");
    let trace = place.path("trace.json");
    let arguments = [
        "bench",
        "--profile",
        "--workload",
        "w1",
        "--batch",
        "4",
        "--device",
        "cpu",
        "--seconds",
        "0.05",
        "--trace",
        &trace,
        "-q",
    ];
    let told = lines(&succeed(&[&arguments[..], &["--json"]].concat()));
    assert_eq!(told[0]["kind"], "peak");
    assert!(
        told[0]["gbps"].as_f64() > Some(0.0) && told[0]["gflops"].as_f64() > Some(0.0),
        "{}",
        told[0]
    );
    let (sum, rows) = told[1..].split_last().unwrap();
    assert!(sum["name"] == "w1.n4/step" && sum["wall_ms"].as_f64() > Some(0.0), "{sum}");
    let of = |key: &str| rows.iter().map(|row| row[key].as_f64().unwrap()).sum::<f64>();
    assert!(
        (of("share") - 1.0).abs() < 0.01 && of("calls") == sum["calls"].as_f64().unwrap(),
        "{told:?}"
    );
    let events: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(&trace).unwrap()).unwrap();
    let complete: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
    assert_eq!(complete.len() as u64, sum["calls"].as_u64().unwrap());
    for event in complete {
        assert!(event["ts"].as_f64() >= Some(0.0) && event["dur"].as_f64() >= Some(0.0), "{event}");
        assert!(
            event["args"]["shape"].is_string() && event["args"]["bytes"].is_number(),
            "{event}"
        );
    }
    fail(&arguments, 2, &["trace.json", "--force"]);
    // A place that nothing can be written to is told before anything is measured.
    let nowhere = place.path("none/trace.json");
    let early = csae(&[
        "bench",
        "--profile",
        "--workload",
        "w1",
        "--device",
        "cpu",
        "--seconds",
        "0.01",
        "--trace",
        &nowhere,
    ]);
    one_line(&early, 1, &["trace.json", "could not be written"]);
    assert!(early.stdout.is_empty());
    let table = succeed(&[&arguments[..], &["--force", "-v"]].concat());
    for words in ["kernel", "of floor", "sum", "wall time", "conv2d_fwd"] {
        assert!(table.contains(words), "{words}: {table}");
    }
}

#[test]
fn a_change_since_then_is_flagged() {
    let place = Place::new("compare");
    let then = place.path("then.json");
    let arguments =
        ["bench", "--workload", "w1", "--batch", "2", "--device", "cpu", "--seconds", "0.02", "-q"];
    let mut lines = lines(&succeed(&[&arguments[..], &["--json"]].concat()));
    let write = |lines: &[Value]| {
        let text: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&then, text.concat()).unwrap();
    };
    let ms = lines[0]["ms"].as_f64().unwrap();
    lines[0]["ms"] = json!(ms * 100.0);
    lines[0]["device"] = json!("another machine");
    write(&lines);
    let comparing = [&arguments[..], &["--compare", &then]].concat();
    let table = succeed(&comparing);
    assert!(table.contains("train_step/w1.n2") && table.contains("faster"), "{table}");
    let output = csae(&[&arguments[..arguments.len() - 1], &["--compare", &then]].concat());
    assert!(String::from_utf8_lossy(&output.stderr).contains("another machine"), "{output:?}");
    lines[0]["ms"] = json!(ms / 100.0);
    write(&lines);
    let told = self::lines(&succeed(&[&comparing[..], &["--json"]].concat()));
    let change = told.last().unwrap();
    assert!(change["kind"] == "compare" && change["change"] == "slower", "{change}");
    fail(
        &["bench", "--workload", "w2", "--device", "cpu", "-q", "--compare", &then],
        2,
        &["none of these", "train_step/w1.n2"],
    );
}

#[test]
fn wrong_benchmarks_are_refused_in_a_line() {
    let place = Place::new("bench-wrong");
    let (missing, text, other) =
        (place.path("missing.json"), place.path("text.json"), place.path("other.json"));
    std::fs::write(&text, "train_step/w1 batch 128\n").unwrap();
    std::fs::write(&other, "{\"kind\":\"kernel\",\"name\":\"sgd/w9\",\"ms\":1.0}\n").unwrap();
    let bench = |more: &[&str], words: &[&str]| {
        fail(&[&["bench", "--device", "cpu", "-q"], more].concat(), 2, words)
    };
    bench(&["--workload", "w1", "--compare", &missing], &["missing.json", "--json"]);
    bench(&["--workload", "w1", "--compare", &text], &["text.json:1", "--json"]);
    bench(&["--workload", "w1", "--compare", &other], &["other.json", "none of these", "sgd/w9"]);
    std::fs::write(&text, "{\"kind\":\"peak\"}\n").unwrap();
    bench(&["--workload", "w1", "--compare", &text], &["text.json", "contains no benchmarks"]);
    bench(&["--trace", "t.json"], &["--profile"]);
    bench(&["--out", "d"], &["--grow"]);
    bench(&["--grow", "--profile"], &["--profile"]);
    bench(&["--grow", "--workload", "w1"], &["--workload"]);
    std::fs::create_dir_all(place.path("grown")).unwrap();
    std::fs::write(place.path("grown/growth.png"), "").unwrap();
    bench(&["--grow", "--out", &place.path("grown")], &["growth.png", "--force"]);
}
