//! Predicts the time of a training step on a GPU from the recorded dispatches alone.
//!
//! A dispatch alone takes the longest of these times, plus the overhead of a dispatch:
//!
//! - *latency*: the iterations of a workgroup follow each other, and each waits for its loads. This
//!   is the time of a grid that does not fill the GPU.
//! - *issue*: a multiprocessor issues the instructions of all its workgroups, one after the other.
//! - *chain*: a load that waits for the one before it.
//! - *memory*: bytes over the rate of memory, or of the cache if they fit into it.
//!
//! Dispatches of one pass run at the same time: their latencies and chains overlap. `overlap` is
//! what they then take less than one after the other.
//!
//! The floor of an operation is the time of its arithmetic or of its bytes at the peak rates. A
//! second stage has no floor of its own. All numbers are predictions. Steps of W1, W2 and W3 took
//! 10 % less to 22 % more on an H200 than predicted, single dispatches up to 40 % less or more
//! (`benches/results/2026-11-29-h200.md`). No other GPU was at hand.

mod machine;
mod shape;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::Serialize;

use super::gpus::KnownGpu;
use super::workloads::{Workload, planned};
use crate::error::Result;
use crate::gpu::{Dispatch, Kernel, Recorder, Reflection, Source, Traits, Use, passes, uses};
use crate::ops::{SumRow, sums_of};
use crate::program::Call;
use crate::spec::Precision;
use crate::view::View;

use machine::Machine;
pub use machine::{Calibration, Why};
use shape::{Chain, Shape, constant};

/// A dispatch of a plan.
#[derive(Clone, Debug)]
struct Planned {
    dispatch: Dispatch,
    /// Sizes of its operation.
    sizes: String,
    /// Operations and bytes of its operation, for the floor; 0 in a second stage.
    least: [f64; 2],
    /// Operations and bytes of the dispatch.
    own: [f64; 2],
}

/// Bytes of all buffers that a dispatch touches, each once.
fn touched(dispatch: &Dispatch) -> f64 {
    // Absent bindings are bound to another buffer, and not read.
    let absent = |name: &str| match name {
        "gate" => constant(dispatch, "GATED") == Some(0.0),
        "idle" => constant(dispatch, "REVIVE") == Some(0.0),
        "weight" => constant(dispatch, "WEIGHTED") == Some(0.0),
        _ => false,
    };
    let mut seen: Vec<View> = Vec::new();
    for (name, view) in &dispatch.bindings {
        if !absent(name) && !seen.contains(view) {
            seen.push(*view);
        }
    }
    seen.iter().map(|view| view.len as f64 * view.element() as f64).sum()
}

/// The dispatches of calls on a GPU that is not a software adapter.
fn plan(calls: &[Call]) -> Vec<Planned> {
    // 32 invocations in a subgroup, as on most GPUs. Matrix units are for half precision.
    let traits = Traits { subgroup: 32, int64: true, ..Traits::default() };
    let mut found: Vec<Planned> = Vec::new();
    let mut recorder = Recorder { traits, ..Recorder::default() };
    for call in calls {
        let waited = recorder.waiting();
        call.record(&mut recorder);
        let waits = recorder.waiting() > waited;
        // Sums that waited come before the first dispatch of the call.
        let (cost, mut first) = (call.cost(), true);
        let recorded = std::mem::take(&mut recorder.dispatches);
        let count = recorded.iter().filter(|dispatch| !dispatch.shared).count();
        let alone = count == 1 && !waits;
        for dispatch in recorded {
            if dispatch.shared {
                found.push(Planned::sum(dispatch));
                continue;
            }
            let bytes = touched(&dispatch);
            let (least, own) = if let (true, Some(sums)) = (first, sums_of(&dispatch)) {
                let [partials, _] = elements(&sums);
                let own = [cost.flops + partials, cost.bytes + 4.0 * partials];
                ([cost.flops, cost.bytes], own)
            } else if first {
                // The cost counts what is updated twice, but no partial sums.
                let bytes = if alone { cost.bytes } else { bytes.max(cost.bytes) };
                ([cost.flops, cost.bytes], [cost.flops, bytes])
            } else {
                ([0.0; 2], [added(&dispatch), bytes])
            };
            first = false;
            found.push(Planned { dispatch, sizes: call.sizes(), least, own });
        }
    }
    recorder.finish();
    found.extend(recorder.dispatches.into_iter().map(Planned::sum));
    found
}

/// Additions of a second stage: one for each partial sum.
fn added(dispatch: &Dispatch) -> f64 {
    let partials = dispatch.bindings.iter().find(|(name, _)| *name == "partials");
    partials.map_or(0.0, |(_, view)| view.len as f64)
}

impl Planned {
    /// A dispatch that only computes sums.
    fn sum(dispatch: Dispatch) -> Self {
        let sums = sums_of(&dispatch).unwrap_or_default();
        let [partials, results] = elements(&sums);
        let (sizes, own) = (format!("{} sums", sums.len()), [partials, 4.0 * (partials + results)]);
        Self { dispatch, sizes, least: [0.0; 2], own }
    }
}

/// Partial sums that a dispatch adds, and results of that. The bindings also span what lies between
/// them.
fn elements(sums: &[SumRow]) -> [f64; 2] {
    let elements = sums.iter().map(|rows| match rows {
        [[.., count], [.., 1], _] => [*count, 1],
        [[.., 0], ..] => [0; 2],
        [[_, _, vectors, slices], ..] => [4 * vectors * slices, 4 * vectors],
    });
    elements.fold([0.0; 2], |sum, [a, b]| [sum[0] + f64::from(a), sum[1] + f64::from(b)])
}

/// The prediction for one dispatch.
#[derive(Clone, Debug, Serialize)]
pub struct RooflineRow {
    /// `roofline`
    pub kind: &'static str,
    /// The GPU.
    pub gpu: KnownGpu,
    /// `WORKLOAD.nBATCH/kernel`
    pub name: String,
    /// Number of the dispatch in its step, from 1.
    pub number: usize,
    /// Number of its pass, from 1. Dispatches of one pass run at the same time.
    pub pass: usize,
    /// The kernel.
    pub kernel: &'static str,
    /// Sizes of the operation.
    pub sizes: String,
    /// Number of workgroups.
    pub workgroups: u64,
    /// Columns of the tile; only for products.
    pub columns: Option<u32>,
    /// Iterations of a workgroup, 16 terms each; only for products.
    pub iterations: Option<u64>,
    /// Loads of an invocation that wait for each other; not for products.
    pub chain: Option<u64>,
    /// 10⁶ floating-point operations.
    pub mflop: f64,
    /// 10⁶ bytes that the dispatch reads and writes, each once.
    pub mb: f64,
    /// Minimum time of the operation in µs; 0 for a second stage.
    pub floor_us: f64,
    /// Predicted time in µs of the dispatch alone, with the overhead of a dispatch.
    pub predicted_us: f64,
    /// What determines the time.
    pub why: Why,
}

/// The prediction for a step.
#[derive(Clone, Debug, Serialize)]
pub struct RooflineSum {
    /// `roofline_step`
    pub kind: &'static str,
    /// The GPU.
    pub gpu: KnownGpu,
    /// `WORKLOAD.nBATCH/step`
    pub name: String,
    /// The model.
    pub workload: &'static str,
    /// Batch.
    pub batch: usize,
    /// Number of dispatches.
    pub dispatches: usize,
    /// Number of passes. Each begins with a barrier.
    pub passes: usize,
    /// 10⁶ floating-point operations.
    pub mflop: f64,
    /// 10⁶ bytes that dispatches read and write.
    pub mb: f64,
    /// Sum of the operations' minimum times in µs.
    pub floor_us: f64,
    /// Predicted time in µs.
    pub predicted_us: f64,
    /// `predicted_us / floor_us`
    pub over_floor: f64,
    /// Predicted images per second.
    pub images_per_s: f64,
    /// µs of the dispatches that latency determines, without overhead.
    pub latency_us: f64,
    /// µs of the dispatches that issue determines, without overhead.
    pub issue_us: f64,
    /// µs of the dispatches that chains of loads determine, without overhead.
    pub chain_us: f64,
    /// µs of the dispatches that memory determines, without overhead.
    pub memory_us: f64,
    /// µs of overhead of all dispatches.
    pub overhead_us: f64,
    /// µs that the dispatches of a pass take less than one after the other.
    pub overlap_us: f64,
}

/// The prediction for a training step.
#[derive(Clone, Debug)]
pub struct Roofline {
    /// The dispatches in order.
    pub rows: Vec<RooflineRow>,
    /// Their sum.
    pub sum: RooflineSum,
}

/// Predicts a training step of a workload in single precision. Needs no GPU.
///
/// # Errors
/// If the workload does not exist in this batch size, or the model does not describe a kernel.
pub fn roofline(
    gpu: KnownGpu,
    calibration: Option<Calibration>,
    workload: Workload,
    batch: usize,
) -> Result<Roofline> {
    let calls = planned(&workload.graph()?, batch, Precision::F32)?.1;
    let machine = Machine::new(gpu, calibration);
    let step = format!("{}.n{batch}", workload.name);
    let planned = plan(&calls);
    let mut rows = Vec::new();
    let mut by_reason = [0.0; 4];
    let mut overlap = 0.0;
    for (pass, dispatches) in passes(&used(&planned)?).into_iter().enumerate() {
        let mut times = Vec::new();
        for i in dispatches {
            let Planned { dispatch, sizes, least, own } = &planned[i];
            let shape = Shape::of(dispatch)?;
            times.push(machine.times(shape, dispatch.workgroups, own[1]));
            let (seconds, why) = times[times.len() - 1].longest();
            by_reason[why as usize] += 1e6 * seconds;
            overlap += seconds + machine.overhead;
            let (columns, iterations, chain) = match shape {
                Shape::Product(tile) => (Some(tile.columns), Some(tile.iterations), None),
                Shape::Reduction(chain) => (None, None, Some(chain.loads)),
                Shape::Flat => (None, None, Some(Chain::flat().loads)),
            };
            rows.push(RooflineRow {
                kind: "roofline",
                gpu,
                name: format!("{step}/{}", dispatch.kernel.name()),
                number: rows.len() + 1,
                pass: pass + 1,
                kernel: dispatch.kernel.name(),
                sizes: sizes.clone(),
                workgroups: dispatch.workgroups,
                columns,
                iterations,
                chain,
                mflop: round(own[0] / 1e6),
                mb: round(own[1] / 1e6),
                floor_us: round(1e6 * machine.floor(least[0], least[1])),
                predicted_us: round(1e6 * (seconds + machine.overhead)),
                why,
            });
        }
        overlap -= machine.pass(&times);
    }
    let total = |value: fn(&RooflineRow) -> f64| rows.iter().map(value).sum::<f64>();
    let floor = total(|row| row.floor_us);
    let predicted = total(|row| row.predicted_us) - 1e6 * overlap;
    let [latency_us, issue_us, chain_us, memory_us] = by_reason.map(round);
    let sum = RooflineSum {
        kind: "roofline_step",
        gpu,
        name: format!("{step}/step"),
        workload: workload.name,
        batch,
        dispatches: rows.len(),
        passes: rows.last().map_or(0, |row| row.pass),
        mflop: round(total(|row| row.mflop)),
        mb: round(total(|row| row.mb)),
        floor_us: round(floor),
        predicted_us: round(predicted),
        over_floor: round(predicted / floor),
        images_per_s: (1e6 * batch as f64 / predicted).round(),
        latency_us,
        issue_us,
        chain_us,
        memory_us,
        overhead_us: round(1e6 * machine.overhead * rows.len() as f64),
        overlap_us: round(1e6 * overlap),
    };
    Ok(Roofline { rows, sum })
}

/// The buffers that each dispatch binds.
fn used(planned: &[Planned]) -> Result<Vec<Vec<Use>>> {
    let mut known: BTreeMap<Kernel, Reflection> = BTreeMap::new();
    let each = planned.iter().map(|Planned { dispatch, .. }| {
        let reflection = match known.entry(dispatch.kernel) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                new.insert(Reflection::of(dispatch.kernel, &Source::of(dispatch.kernel))?)
            }
        };
        Ok(uses(dispatch, reflection))
    });
    each.collect()
}

fn round(x: f64) -> f64 {
    (x * 1e3).round() / 1e3
}

impl RooflineRow {
    /// The headings of [`RooflineRow::line`].
    pub fn heading() -> String {
        format!(
            "{:>4}  {:<29}  {:<40}  {:>10}  {:>10}  {:>9}  {:>8}  {:>8}  {:>9}  why",
            "pass", "kernel", "sizes", "workgroups", "in turn", "MFLOP", "MB", "floor µs", "µs"
        )
    }

    /// The prediction as a line of a table. `in turn` are the iterations of a tile and its columns,
    /// or the loads that wait for each other.
    pub fn line(&self) -> String {
        let Self { pass, kernel, sizes, workgroups, mflop, mb, predicted_us, why, .. } = self;
        let in_turn = match (self.iterations, self.columns, self.chain) {
            (Some(iterations), Some(columns), _) => format!("{iterations} it/{columns}"),
            (.., chain) => format!("{} ld", chain.unwrap_or(0)),
        };
        let floor = if self.floor_us > 0.0 { format!("{:.1}", self.floor_us) } else { "-".into() };
        format!(
            "{pass:>4}  {kernel:<29}  {sizes:<40}  {workgroups:>10}  {in_turn:>10}  \
             {mflop:>9.1}  {mb:>8.2}  {floor:>8}  {predicted_us:>9.1}  {why}"
        )
    }
}

impl Roofline {
    /// The `count` dispatches with the longest predicted times, longest first; all in order without
    /// a count.
    pub fn longest(&self, count: Option<usize>) -> Vec<&RooflineRow> {
        let mut rows: Vec<&RooflineRow> = self.rows.iter().collect();
        if let Some(count) = count {
            rows.sort_by(|a, b| b.predicted_us.total_cmp(&a.predicted_us));
            rows.truncate(count);
        }
        rows
    }

    /// The title of the table.
    pub fn title(&self) -> String {
        let RooflineSum { gpu, workload, batch, dispatches, passes, .. } = &self.sum;
        let about = gpu.profile().about;
        format!(
            "{workload} batch {batch}: {dispatches} dispatches in {passes} passes per step; \
             predicted for {about}, not measured"
        )
    }
}

impl RooflineSum {
    /// The sums as lines of text.
    pub fn lines(&self) -> Vec<String> {
        let Self { mflop, mb, floor_us, predicted_us, over_floor, images_per_s, .. } = self;
        let Self { latency_us, issue_us, chain_us, memory_us, .. } = self;
        let Self { overhead_us, overlap_us, .. } = self;
        vec![
            format!(
                "sum: {mflop:.0} MFLOP, {mb:.0} MB; floor {floor_us:.0} µs, predicted \
                 {predicted_us:.0} µs ({over_floor:.1} times the floor), {images_per_s:.0} images/s"
            ),
            format!(
                "of these: latency {latency_us:.0}, issue {issue_us:.0}, chain {chain_us:.0}, \
                 memory {memory_us:.0}, overhead {overhead_us:.0}, overlap -{overlap_us:.0} µs"
            ),
        ]
    }
}

#[cfg(test)]
mod tests;
