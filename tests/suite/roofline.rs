//! `csae bench --roofline`: the recorded plans of W1–W3 fill a large GPU, and their predicted times
//! stay near their floors. No test needs a GPU.

use std::sync::OnceLock;

use csae::internals::bench::roofline::{Calibration, Roofline, RooflineRow, Why, roofline};
use csae::internals::bench::{KnownGpu, WORKLOADS, Workload};

use crate::support::Command;
use crate::support::json::{number, of_kind};

/// A small batch, which leaves parts of large GPUs idle, and a large one.
const BATCHES: [usize; 2] = [128, 1024];

/// Two workgroups for each of the 132 multiprocessors of an H200. A smaller grid leaves
/// multiprocessors idle.
const FILLED: u64 = 264;

/// Iterations of a workgroup, about 1.1 µs each on an H200. A sum of at most this length costs less
/// than the second stage that would split it.
const ITERATIONS: u64 = 16;

/// Loads that wait for each other, about 0.3 µs each. This number takes less than 6 µs, about
/// the overhead of a dispatch.
const LOADS: u64 = 16;

/// Dispatches that break a rule, by the start of `KERNEL SIZES`, each with the reason.
const EXCEPTIONS: [(&str, &str); 0] = [];

/// Bounds of the predicted time over the floor: workload, batch, bound. They are 10 % above the
/// present predictions, which are within 20 % of the times measured on an H200
/// (`benches/results/2026-11-29-h200.md`). Half of the step of W1 at batch 128 is the overhead of
/// its 26 dispatches.
const BOUNDS: [(&str, usize, f64); 6] = [
    ("w1", 128, 15.2),
    ("w1", 1024, 5.4),
    ("w2", 128, 4.7),
    ("w2", 1024, 3.2),
    ("w3", 128, 3.1),
    ("w3", 1024, 2.8),
];

/// Maximum barriers of a step, in the order of [`BOUNDS`]. Each pass begins with one. With one for
/// each dispatch there would be 24 to 35.
const BARRIERS: [usize; 6] = [20, 20, 21, 18, 26, 23];

/// The predictions for an H200.
fn predictions() -> &'static [Roofline] {
    static ALL: OnceLock<Vec<Roofline>> = OnceLock::new();
    ALL.get_or_init(|| {
        let jobs = WORKLOADS.iter().flat_map(|workload| BATCHES.map(|batch| (*workload, batch)));
        jobs.map(|(workload, batch)| {
            roofline(KnownGpu::H200, None, workload, batch).unwrap_or_else(|e| panic!("{e}"))
        })
        .collect()
    })
}

/// The rule that a dispatch breaks. None if it fills a large GPU.
fn fault(row: &RooflineRow) -> Option<String> {
    let place = format!("{} ({})", row.name, row.sizes);
    if let Some(iterations) = row.iterations {
        return (row.workgroups < FILLED && iterations > ITERATIONS)
            .then(|| format!("{place}: {} workgroups, {iterations} iterations", row.workgroups));
    }
    // A long loop whose loads together use the rate of the memory waits for the memory, not for
    // single loads.
    let loads = row.chain.filter(|loads| *loads > LOADS && row.why != Why::Memory)?;
    Some(format!("{place}: {loads} loads wait for each other"))
}

/// Whether an exception covers a dispatch.
fn covers(exception: &str, row: &RooflineRow) -> bool {
    format!("{} {}", row.kernel, row.sizes).starts_with(exception)
}

fn rows() -> impl Iterator<Item = &'static RooflineRow> {
    predictions().iter().flat_map(|found| &found.rows)
}

#[test]
fn every_dispatch_fills_a_large_gpu() {
    let excepted = |row: &RooflineRow| EXCEPTIONS.iter().any(|(start, _)| covers(start, row));
    let faults: Vec<String> = rows().filter(|row| !excepted(row)).filter_map(fault).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_exception_is_needed() {
    for (start, reason) in EXCEPTIONS {
        let needed = rows().any(|row| covers(start, row) && fault(row).is_some());
        assert!(needed, "remove the exception {start:?} ({reason}): the rules hold without it");
    }
}

#[test]
fn a_dispatch_that_leaves_multiprocessors_idle_is_found() {
    let product = rows().find(|row| row.iterations.is_some()).unwrap();
    let of = |workgroups, iterations| {
        fault(&RooflineRow { workgroups, iterations: Some(iterations), ..product.clone() })
    };
    assert!(of(263, 17).unwrap().contains("263 workgroups, 17 iterations"));
    assert!(of(264, 17).is_none() && of(4, 16).is_none());
    let sum = rows().find(|row| row.kernel == "sum_partials").unwrap();
    let of = |loads, why| fault(&RooflineRow { chain: Some(loads), why, ..sum.clone() });
    assert!(of(17, Why::Chain).unwrap().contains("17 loads"));
    assert!(of(16, Why::Chain).is_none() && of(17, Why::Memory).is_none());
}

/// The steps that take longer than their bound.
fn over(predictions: &[Roofline]) -> Vec<String> {
    let found = predictions.iter().map(|prediction| &prediction.sum);
    found
        .filter_map(|sum| {
            let bound = BOUNDS
                .iter()
                .find(|(workload, batch, _)| *workload == sum.workload && *batch == sum.batch);
            let (.., bound) = bound.unwrap_or_else(|| panic!("{} has no bound", sum.name));
            (sum.over_floor > *bound)
                .then(|| format!("{}: {} times the floor, bound {bound}", sum.name, sum.over_floor))
        })
        .collect()
}

#[test]
fn predicted_steps_stay_near_their_floors() {
    assert_eq!(predictions().len(), BOUNDS.len());
    let over = over(predictions());
    assert!(over.is_empty(), "{}", over.join("\n"));
}

#[test]
fn a_step_has_few_barriers() {
    let passes: Vec<usize> = predictions().iter().map(|found| found.sum.passes).collect();
    assert!(passes.iter().zip(BARRIERS).all(|(passes, most)| *passes <= most), "{passes:?}");
    assert!(predictions().iter().all(|found| found.sum.passes < found.sum.dispatches));
}

/// Predicted time and floor in µs, in the order of [`BOUNDS`], by an earlier model that predicted
/// shorter times, before products were split and
/// weight gradients had more than 64 slices. Many of those grids did not fill an H200.
const BEFORE: [[f64; 2]; 6] = [
    [804.0, 32.0],
    [2433.0, 231.0],
    [1652.0, 180.0],
    [5480.0, 1290.0],
    [4971.0, 1041.0],
    [25538.0, 7744.0],
];

/// The check of the bounds can fail, for every workload and batch: with the times of those grids,
/// and on a GPU that takes 20 µs for an iteration.
#[test]
fn a_step_that_takes_too_long_is_found() {
    let mut before = predictions().to_vec();
    for (found, [predicted, floor]) in before.iter_mut().zip(BEFORE) {
        found.sum.over_floor = predicted / floor;
    }
    assert_eq!(over(&before).len(), BOUNDS.len(), "{:?}", over(&before));
    let slow = Calibration { iteration: 20e-6, dispatch: 3e-6, load: 0.16e-6 };
    let slow: Vec<Roofline> = BOUNDS
        .iter()
        .map(|(name, batch, _)| {
            let workload = Workload::named(name).unwrap();
            roofline(KnownGpu::H200, Some(slow), workload, *batch).unwrap()
        })
        .collect();
    assert_eq!(over(&slow).len(), BOUNDS.len(), "{:?}", over(&slow));
}

/// A prediction of W1.
fn predict() -> Command {
    Command::new("bench --roofline h200 --workload w1 --batch 128")
}

#[test]
fn a_table_has_the_ten_longest_dispatches_and_the_sums() {
    let table = predict().succeed();
    for words in ["not measured", "in turn", "predicted", "images/s", "latency"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    let lines = |table: &str| table.lines().filter(|line| line.contains(" n128")).count();
    // A title, the headings, ten dispatches and two lines of sums.
    assert_eq!(table.lines().count(), 14, "{table}");
    assert!(lines(&table) < 11 && lines(&predict().arg("-v").succeed()) > 20, "{table}");
}

#[test]
fn the_dispatches_of_a_prediction_add_up_to_its_last_line() {
    let lines = predict().arg("-v").json();
    let (rows, sums) = (of_kind(&lines, "roofline"), of_kind(&lines, "roofline_step"));
    assert_eq!((sums.len(), rows.len() + 1), (1, lines.len()));
    let sum = sums[0];
    assert_eq!(sum["name"], "w1.n128/step");
    assert_eq!(number(sum, "dispatches"), rows.len() as f64);
    for key in ["predicted_us", "floor_us", "mflop", "mb"] {
        let total: f64 = rows.iter().map(|row| number(row, key)).sum();
        // The dispatches of a pass overlap.
        let overlap = if key == "predicted_us" { number(sum, "overlap_us") } else { 0.0 };
        assert!((total - overlap - number(sum, key)).abs() < 0.01, "{key}: {total}, {sum}");
    }
    let passes: Vec<f64> = rows.iter().map(|row| number(row, "pass")).collect();
    assert!(passes.is_sorted() && passes.last() == Some(&number(sum, "passes")), "{passes:?}");
}

#[test]
fn predictions_are_of_all_workloads_at_two_batches() {
    let lines = Command::new("bench --roofline igpu").json();
    let names: Vec<&str> =
        of_kind(&lines, "roofline_step").iter().filter_map(|sum| sum["name"].as_str()).collect();
    let wanted: Vec<String> = BOUNDS.map(|(name, batch, _)| format!("{name}.n{batch}/step")).into();
    assert_eq!(names, wanted);
}

#[test]
fn calibrated_times_change_a_prediction() {
    let time =
        |command: Command| number(of_kind(&command.json(), "roofline_step")[0], "predicted_us");
    let slower = predict().option("--calibrate", "3,12,0.5");
    assert!(time(slower) > 1.5 * time(predict()));
}

#[test]
fn wrong_words_are_refused_with_what_to_write() {
    predict().option("--calibrate", "1,2").fails(2, &["three times", "1.1,3,0.16"]);
    predict().option("--calibrate", "1,2,0").fails(2, &["above 0"]);
    Command::new("bench --roofline h20").fails(2, &["use one of", "rx7900xtx", "h200?"]);
    Command::new("bench --calibrate 1,2,3").fails(2, &["--roofline"]);
    for flags in ["--profile", "--grow", "--tune", "--precision f16", "--device cpu"] {
        let word = flags.split(' ').next().unwrap();
        Command::new("bench --roofline h200").flags(flags).fails(2, &[word, "--roofline"]);
    }
}
