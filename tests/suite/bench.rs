//! Profiles and `csae bench`: every dispatch is timed, in order; files that it writes can be read;
//! changes are flagged.

use std::sync::OnceLock;

use csae::internals::device::Device;
use csae::internals::ops::AddAssign;
use csae::internals::profile::{Clock, Profile};
use csae::internals::program::Call;
use csae::internals::verify;
use csae::internals::view::StepParams;
use serde_json::Value;

use crate::support::json::number;
use crate::support::{Command, TempFolder, gpu, text};

/// Asserts that a profile has these numbers of dispatches and operations, in order of time.
fn assert_sound(profile: &Profile, dispatches: usize, operations: usize) {
    assert_eq!((profile.timed.len(), profile.operations.len()), (dispatches, operations));
    let mut last = 0.0;
    for timed in &profile.timed {
        assert!(timed.start >= last && timed.end >= timed.start, "{timed:?} after {last}");
        assert!(timed.call < operations && !timed.kernel.is_empty(), "{timed:?}");
        last = timed.end;
    }
    assert!(last > 0.0, "no time has passed");
    // Every call has its work once, at one of its dispatches.
    let work: f64 = profile.costs().iter().map(|cost| cost.bytes).sum();
    assert_eq!(work, profile.operations.iter().map(|operation| operation.cost.bytes).sum::<f64>());
    for (timed, cost) in profile.timed.iter().zip(profile.costs()) {
        assert!(timed.kernel != "sum_partials" || cost.bytes == 0.0, "{timed:?}: {cost:?}");
    }
}

#[test]
fn every_dispatch_is_timed_by_every_clock() {
    let Some(_turn) = gpu::turn() else { return };
    let mut device = gpu::open();
    for name in ["many_workgroups", "fused_epilogues", "long_ties"] {
        let case = verify::built_in().into_iter().find(|case| case.name == name).unwrap();
        let prepared = verify::prepare(&mut device, &case).unwrap();
        let found = prepared.execute(&mut device).unwrap();
        let program = device.compile(prepared.calls.clone()).unwrap();
        let plan = program.plan().expect("it is compiled for a GPU");
        let adapter = device.as_gpu().unwrap();
        let clocks = match adapter.clock() {
            Clock::Inside => vec![Clock::Inside, Clock::Passes, Clock::Submissions],
            Clock::Passes => vec![Clock::Passes, Clock::Submissions],
            _ => vec![Clock::Submissions],
        };
        for clock in clocks {
            let profile = adapter.profile_by(plan, &StepParams::default(), clock).unwrap();
            assert_eq!(profile.clock, clock);
            // On a GPU the sums that calls share are an operation, too.
            assert_sound(&profile, plan.len(), prepared.calls.len() + 1);
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
    let Some(_turn) = gpu::turn() else { return };
    let mut device = gpu::open();
    let buffers = ["x", "y"].map(|label| device.alloc_real(label, 4).unwrap());
    let [x, y] = buffers.each_ref().map(|buffer| **buffer);
    device.write(x, &[1.0; 4]);
    let count = 5000;
    let program = device.compile(vec![Call::from(AddAssign { x, y }); count]).unwrap();
    let plan = program.plan().expect("it is compiled for a GPU");
    let adapter = device.as_gpu().unwrap();
    let clocks = match adapter.clock() {
        Clock::Submissions => vec![],
        clock => vec![clock, Clock::Passes],
    };
    for clock in &clocks {
        assert_sound(
            &adapter.profile_by(plan, &StepParams::default(), *clock).unwrap(),
            count,
            count + 1,
        );
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
        assert_sound(&profile, prepared.calls.len(), prepared.calls.len());
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

/// A short profile of a training step.
fn profile() -> Command {
    Command::new("bench --profile --workload w1 --batch 4 --seconds 0.05").on_cpu().quiet()
}

/// The lines of a profile and the complete events of its timeline.
fn profiled() -> &'static (Vec<Value>, Vec<Value>) {
    static PROFILED: OnceLock<(Vec<Value>, Vec<Value>)> = OnceLock::new();
    PROFILED.get_or_init(|| {
        let folder = TempFolder::new("profile");
        let trace = folder.path("trace.json");
        let lines = profile().option("--trace", &trace).json();
        let events: Vec<Value> = serde_json::from_str(&text(&trace)).unwrap();
        (lines, events.into_iter().filter(|event| event["ph"] == "X").collect())
    })
}

#[test]
fn a_profile_begins_with_the_peak() {
    let peak = &profiled().0[0];
    assert_eq!(peak["kind"], "peak");
    assert!(number(peak, "gbps") > 0.0 && number(peak, "gflops") > 0.0, "{peak}");
}

#[test]
fn the_rows_of_a_profile_add_up_to_its_last_line() {
    let lines = &profiled().0;
    let (sum, rows) = lines[1..].split_last().unwrap();
    assert!(sum["name"] == "w1.n4/step" && number(sum, "wall_ms") > 0.0, "{sum}");
    let total = |key: &str| rows.iter().map(|row| number(row, key)).sum::<f64>();
    assert!((total("share") - 1.0).abs() < 0.01, "{lines:?}");
    assert_eq!(total("calls"), number(sum, "calls"), "{lines:?}");
}

#[test]
fn the_timeline_of_a_profile_has_every_call() {
    let (lines, events) = profiled();
    assert_eq!(events.len() as u64, lines.last().unwrap()["calls"].as_u64().unwrap());
    for event in events {
        assert!(number(event, "ts") >= 0.0 && number(event, "dur") >= 0.0, "{event}");
        let arguments = &event["args"];
        assert!(arguments["shape"].is_string() && arguments["bytes"].is_number(), "{event}");
    }
}

#[test]
fn a_timeline_is_not_overwritten_without_force() {
    let folder = TempFolder::new("profile-force");
    let profile = profile().option("--trace", folder.write("trace.json", "[]"));
    profile.fails(2, &["trace.json", "--force"]);
    let table = profile.force().arg("-v").succeed();
    for words in ["kernel", "of floor", "sum", "wall time", "conv2d_fwd"] {
        assert!(table.contains(words), "{words}: {table}");
    }
}

#[test]
fn a_timeline_that_cannot_be_written_is_refused_before_the_measurement() {
    let folder = TempFolder::new("profile-nowhere");
    let bench = Command::new("bench --profile --workload w1 --seconds 0.01").on_cpu();
    let early = bench.option("--trace", folder.path("none/trace.json")).output();
    early.assert_failed(1, &["trace.json", "could not be written"]);
    assert!(early.stdout.is_empty());
}

/// A short benchmark of one training step.
fn step() -> Command {
    Command::new("bench --workload w1 --batch 2 --seconds 0.02").on_cpu()
}

/// Writes an earlier measurement that took `factor` times as long as the step takes now, on
/// another machine. Returns its path.
fn earlier(folder: &TempFolder, factor: f64) -> String {
    let mut lines = step().quiet().json();
    lines[0]["ms"] = (number(&lines[0], "ms") * factor).into();
    lines[0]["device"] = "another machine".into();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    folder.write("then.json", text)
}

#[test]
fn a_step_that_became_faster_is_flagged() {
    let folder = TempFolder::new("compare-faster");
    let table = step().quiet().option("--compare", earlier(&folder, 100.0)).succeed();
    assert!(table.contains("train_step/w1.n2") && table.contains("faster"), "{table}");
}

#[test]
fn a_step_that_became_slower_is_flagged() {
    let folder = TempFolder::new("compare-slower");
    let lines = step().quiet().option("--compare", earlier(&folder, 0.01)).json();
    let change = lines.last().unwrap();
    assert!(change["kind"] == "compare" && change["change"] == "slower", "{change}");
}

#[test]
fn a_comparison_names_another_machine() {
    let folder = TempFolder::new("compare-machine");
    let output = step().option("--compare", earlier(&folder, 100.0)).output();
    assert!(output.stderr.contains("another machine"), "{output:?}");
}

#[test]
fn a_comparison_without_a_common_benchmark_is_refused() {
    let folder = TempFolder::new("compare-none");
    let bench = Command::new("bench --workload w2").on_cpu().quiet();
    let bench = bench.option("--compare", earlier(&folder, 1.0));
    bench.fails(2, &["none of these", "train_step/w1.n2"]);
}

#[test]
fn files_that_cannot_be_compared_with_are_refused() {
    let folder = TempFolder::new("compare-wrong");
    let refused = |path: String, words: &[&str]| {
        let bench = Command::new("bench --workload w1").on_cpu().quiet();
        bench.option("--compare", path).fails(2, words);
    };
    refused(folder.path("missing.json"), &["missing.json", "--json"]);
    let text = folder.write("text.json", "train_step/w1 batch 128\n");
    refused(text, &["text.json:1", "--json"]);
    let other = "{\"kind\":\"kernel\",\"name\":\"sgd/w9\",\"ms\":1.0}\n";
    refused(folder.write("other.json", other), &["other.json", "none of these", "sgd/w9"]);
    let peak = folder.write("peak.json", "{\"kind\":\"peak\"}\n");
    refused(peak, &["peak.json", "contains no benchmarks"]);
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    for (flags, word) in [
        ("--trace t.json", "--profile"),
        ("--out d", "--grow"),
        ("--grow --profile", "--profile"),
        ("--grow --workload w1", "--workload"),
    ] {
        Command::new("bench").on_cpu().quiet().flags(flags).fails(2, &[word]);
    }
}

#[test]
fn a_chart_of_growth_is_not_overwritten_without_force() {
    let folder = TempFolder::new("grown");
    folder.write("grown/growth.png", "");
    let bench = Command::new("bench --grow").out(folder.path("grown")).on_cpu().quiet();
    bench.fails(2, &["growth.png", "--force"]);
}
