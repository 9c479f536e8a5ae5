//! Predicts the time of a training step on a GPU from the recorded dispatches alone.
//!
//! A dispatch takes the longest of these times, plus the overhead of a dispatch:
//!
//! - *latency*: the iterations of a workgroup follow each other, and each waits for its loads. This
//!   is the time of a grid that does not fill the GPU.
//! - *issue*: a multiprocessor issues the instructions of all its workgroups, one after the other.
//! - *chain*: a load that waits for the one before it.
//! - *memory*: bytes over the rate of memory, or of the cache if they fit into it.
//!
//! The floor of an operation is the time of its arithmetic or of its bytes at the peak rates. A
//! second stage has no floor of its own. All numbers are predictions: absolute times can be wrong
//! by 40 %, ratios between dispatches by less.

use serde::Serialize;

use super::gpus::{Design, KnownGpu, Profile};
use super::workloads::{Workload, planned};
use crate::error::{Error, Result};
use crate::gpu::{Dispatch, Kernel, Matrices, Recorder, Traits};
use crate::names::names;
use crate::program::Call;
use crate::spec::Precision;
use crate::view::View;

/// Terms that a tile adds in an iteration (`DEPTH` of `shaders/common/workgroup_tile.wgsl`).
const DEPTH: u64 = 16;
/// Invocations of a tile's workgroup.
const TILE: f64 = 64.0;
/// Bytes of workgroup memory of a tile: 16 terms of 64 rows and 64 columns.
const TILE_BYTES: f64 = 8192.0;
/// Share of the issue slots that a full multiprocessor uses: an assumption. The rest is lost at
/// barriers.
const ISSUED: f64 = 0.85;
/// Share of the data sheet's memory rate that a copy reaches: an assumption.
const REACHED: f64 = 0.9;
/// Share of that rate that an element-wise kernel reaches: an assumption. It starts and ends with
/// empty queues.
const STREAMED: f64 = 0.8;
/// Cycles of one level of a workgroup's tree of sums: two loads, a store and a barrier. An
/// assumption, by which eight levels take about 0.5 µs.
const TREE_LEVEL: f64 = 120.0;
/// Levels of the tree of a workgroup of 256.
const TREE: u32 = 8;
/// Grids of at least this number of workgroups per multiprocessor count as spread evenly. Below it,
/// the multiprocessor with the most workgroups determines the time.
const EVEN: f64 = 8.0;
/// Groups of terms in an iteration. The loads of a group overlap its sums, so a workgroup that runs
/// alone waits for workgroup memory once per group.
const GROUPS: f64 = 4.0;
/// Vectors that an invocation loads in an iteration, four of rows and four of columns, and stores
/// to workgroup memory, and two barriers.
const ITERATION_ACCESSES: f64 = 18.0;
/// Loads that an iteration has in addition if four rows are 16 single loads instead of 4 vectors.
const SINGLE_LOADS: f64 = 12.0;
/// Vector instructions of an iteration that are neither multiply-adds nor their overhead, in tiles
/// with single loads. AMD's compiler makes 112 to 250 with 32 columns. Single loads compute the
/// most addresses, so they are assumed to have the most.
const SINGLE_OTHERS: f64 = 250.0;
/// What a narrow tile adds to the other instructions of an iteration: AMD's compiler makes 112 for
/// a convolution with 32 columns, and 106 with 64.
const NARROW_OTHERS: f64 = 6.0;

names! {
    /// What determines the time of a dispatch.
    pub enum Why {
        /// The iterations of a workgroup.
        Latency = "latency",
        /// The instructions of a multiprocessor.
        Issue = "issue",
        /// Loads that wait for each other.
        Chain = "chain",
        /// Bytes.
        Memory = "memory",
    }
}

/// A product with tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forward,
    Input,
    Weight,
}

impl Direction {
    /// Instructions of an iteration with 64 columns and vector loads that are neither multiply-adds
    /// nor their overhead, as AMD's compiler makes them: addresses, bounds and loop.
    const fn others(self) -> f64 {
        match self {
            Self::Forward => 106.0,
            Self::Input => 121.0,
            Self::Weight => 152.0,
        }
    }
}

/// The kernels with tiles.
const PRODUCTS: [(Kernel, Direction); 6] = [
    (Kernel::Conv2dFwdTiled, Direction::Forward),
    (Kernel::Conv2dFwdTiledSplit, Direction::Forward),
    (Kernel::Conv2dMaxPoolFwdTiled, Direction::Forward),
    (Kernel::Conv2dBwdInputTiled, Direction::Input),
    (Kernel::Conv2dBwdInputTiledSplit, Direction::Input),
    (Kernel::Conv2dBwdWeightTiled, Direction::Weight),
];

/// The work of a workgroup of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    direction: Direction,
    /// Columns of the tile: 16, 32 or 64.
    columns: u32,
    /// Iterations of [`DEPTH`] terms.
    iterations: u64,
    /// Whether rows are loaded as vectors of four.
    vectors: bool,
}

/// Instructions of an iteration, for one invocation.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Instructions {
    arithmetic: f64,
    accesses: f64,
}

impl Tile {
    /// Vector instructions of four terms, and loads from workgroup memory for one term. AMD's
    /// compiler makes 264 instructions for the 256 multiply-adds of 64 columns and 134 for the 128
    /// of 32. 70 for the 64 of 16 columns follow from those. The loads are in the shader: a vector
    /// for each four rows and columns of an invocation.
    fn terms(self) -> (f64, f64) {
        match self.columns {
            64.. => (264.0, 4.0),
            32..64 => (134.0, 3.0),
            _ => (70.0, 2.0),
        }
    }

    fn instructions(self) -> Instructions {
        let (four_terms, loads) = self.terms();
        let narrow = if self.columns < 64 { NARROW_OTHERS } else { 0.0 };
        let others = if self.vectors { self.direction.others() + narrow } else { SINGLE_OTHERS };
        let single = if self.vectors { 0.0 } else { SINGLE_LOADS };
        Instructions {
            arithmetic: DEPTH as f64 / 4.0 * four_terms + others,
            accesses: DEPTH as f64 * loads + ITERATION_ACCESSES + single,
        }
    }

    /// Registers of an invocation: assumptions. AMD's compiler needed 132 to 168 with 64 columns,
    /// 120 to 144 with 32, and 96 to 132 with 16.
    fn registers(self) -> f64 {
        match self.columns {
            64.. => 168.0,
            32..64 => 132.0,
            _ => 96.0,
        }
    }
}

/// The loads of an invocation of any other kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chain {
    /// Loads that wait for each other.
    loads: u64,
    /// Whether they read partial sums, which the dispatch before has left in the L2 cache.
    near: bool,
    /// Levels of the tree of sums that follows.
    levels: u32,
}

impl Chain {
    /// The chain of `count` loads in a loop that has `flight` of them in flight at once. The rest
    /// of the division is loaded one by one.
    const fn new(count: u64, flight: u64, near: bool, levels: u32) -> Self {
        Self { loads: count / flight + count % flight, near, levels }
    }

    /// The chain of a kernel whose invocations load each element once.
    const fn flat() -> Self {
        Self { loads: 1, near: false, levels: 0 }
    }
}

/// The work of one dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Product(Tile),
    Reduction(Chain),
    Flat,
}

/// The value of a field of a dispatch's parameter block.
fn field(dispatch: &Dispatch, name: &str) -> u64 {
    // All fields have four bytes.
    let at = dispatch.fields.iter().position(|(known, _)| *known == name);
    let at = at.unwrap_or_else(|| panic!("{:?} has no parameter {name}", dispatch.kernel)) * 4;
    let bytes = dispatch.params[at..at + 4].try_into().expect("four bytes");
    u64::from(u32::from_le_bytes(bytes))
}

/// The value of an `override` constant of a dispatch. None if the kernel has none of this name.
fn constant(dispatch: &Dispatch, name: &str) -> Option<f64> {
    dispatch.constants.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

impl Tile {
    fn of(dispatch: &Dispatch, direction: Direction) -> Self {
        let p = |name| field(dispatch, name);
        let on = |name| constant(dispatch, name) == Some(1.0);
        let (steps, vectors) = match direction {
            Direction::Forward => (p("r") * p("s") * p("c"), on("VEC_C")),
            // The phase with the most taps takes longest.
            Direction::Input => {
                let taps = p("r").div_ceil(p("stride_h")) * p("s").div_ceil(p("stride_w"));
                (taps * p("k"), on("VEC_K"))
            }
            Direction::Weight => (p("n") * p("p") * p("q"), on("VEC_C")),
        };
        let columns = constant(dispatch, "COLUMNS").expect("a tile has columns");
        let iterations = steps.min(p("slice_terms")).div_ceil(DEPTH);
        Self { direction, columns: 4 * columns as u32, iterations, vectors }
    }
}

impl Shape {
    /// The work of a dispatch.
    ///
    /// # Errors
    /// If the dispatch is a product without tiles, which the model does not describe.
    fn of(dispatch: &Dispatch) -> Result<Self> {
        let kernel = dispatch.kernel;
        let p = |name| field(dispatch, name);
        if let Some((_, direction)) = PRODUCTS.iter().find(|(known, _)| *known == kernel) {
            return Ok(Self::Product(Tile::of(dispatch, *direction)));
        }
        Ok(Self::Reduction(if kernel == Kernel::Conv2dEpilogue {
            Chain::new(p("slices"), 4, true, 0)
        } else if kernel == Kernel::SumSlices {
            let lanes = constant(dispatch, "LANES").expect("it has lanes") as u64;
            Chain::new(p("slices").div_ceil(lanes), 8, true, lanes.trailing_zeros())
        } else if kernel == Kernel::ChannelSum {
            let (threads, lanes) = (u64::from(dispatch.workgroup_size), p("lanes"));
            let rows = p("rows_per_slice").div_ceil(threads / lanes);
            Chain::new(rows, 4, false, TREE - lanes.trailing_zeros())
        } else if [Kernel::Loss, Kernel::L1Penalty, Kernel::CountNonzero, Kernel::SumSquares]
            .contains(&kernel)
        {
            Chain::new(p("vectors").div_ceil(p("stride")), 1, false, TREE)
        } else if kernel == Kernel::SumScalar {
            Chain::new(p("count").div_ceil(u64::from(dispatch.workgroup_size)), 1, true, TREE)
        } else if kernel.name().starts_with("conv2d") {
            let name = kernel.name();
            return Err(Error::failed(format!("the model of a GPU does not describe {name}")));
        } else {
            return Ok(Self::Flat);
        }))
    }
}

/// Three times that were measured on a GPU. They replace assumptions of its profile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// Seconds of an iteration of a workgroup that runs alone: a convolution with 64 columns.
    pub iteration: f64,
    /// Seconds of an empty dispatch.
    pub dispatch: f64,
    /// Seconds of a load from the L2 cache that waits for the one before it.
    pub load: f64,
}

/// A GPU, with the times that the model needs.
#[derive(Clone, Copy, Debug)]
struct Machine {
    profile: Profile,
    /// Seconds of a dispatch without work.
    overhead: f64,
    /// Seconds of a load from the L2 cache, and of one from memory.
    near_load: f64,
    far_load: f64,
    /// Factor of the time of a workgroup that runs alone: measured over predicted.
    lone_factor: f64,
}

impl Machine {
    fn new(gpu: KnownGpu, calibration: Option<Calibration>) -> Self {
        let profile = gpu.profile();
        let design = profile.design;
        let mut machine = Self {
            profile,
            overhead: profile.overhead,
            near_load: design.near_load / profile.clock,
            far_load: design.far_load / profile.clock,
            lone_factor: 1.0,
        };
        if let Some(Calibration { iteration, dispatch, load }) = calibration {
            let tile =
                Tile { direction: Direction::Forward, columns: 64, iterations: 1, vectors: true };
            machine.lone_factor = iteration / machine.lone(tile);
            machine.overhead = dispatch;
            machine.far_load *= load / machine.near_load;
            machine.near_load = load;
        }
        machine
    }

    /// Instructions of an iteration that take an issue slot.
    fn issued(&self, tile: Tile) -> f64 {
        let Instructions { arithmetic, accesses } = tile.instructions();
        arithmetic + if self.profile.design.loads_take_slots { accesses } else { 0.0 }
    }

    /// Seconds of an iteration of a workgroup that runs alone.
    fn lone(&self, tile: Tile) -> f64 {
        let design = self.profile.design;
        let instructions = self.issued(tile) * design.lone_cycles;
        let waits = GROUPS * design.shared_load + design.iteration;
        self.lone_factor * (instructions + waits) / self.profile.clock
    }

    /// Workgroups of a product that a multiprocessor holds at once.
    fn resident(&self, tile: Tile) -> f64 {
        let Design { registers, shared, .. } = self.profile.design;
        (registers / (TILE * tile.registers())).min(shared / TILE_BYTES).floor().max(1.0)
    }

    /// Bytes per second for a dispatch that touches `bytes`.
    fn rate(&self, bytes: f64) -> f64 {
        let profile = &self.profile;
        if bytes <= profile.cache { profile.cache_rate } else { REACHED * profile.bandwidth }
    }

    /// Minimum seconds for an operation.
    fn floor(&self, flops: f64, bytes: f64) -> f64 {
        (flops / self.profile.flops).max(bytes / self.rate(bytes))
    }

    /// Seconds of a dispatch without its overhead, and what determines them.
    fn time(&self, shape: Shape, workgroups: u64, bytes: f64) -> (f64, Why) {
        let memory = bytes / self.rate(bytes);
        let times = match shape {
            Shape::Product(tile) => {
                let Profile { design, multiprocessors, clock, .. } = self.profile;
                let iterations = tile.iterations as f64;
                let each = workgroups as f64 / multiprocessors;
                let busiest = if each < EVEN { each.ceil() } else { each };
                let waves = (each / self.resident(tile)).max(1.0);
                let slots = self.issued(tile) * TILE / design.lanes;
                vec![
                    (waves * iterations * self.lone(tile), Why::Latency),
                    (busiest * iterations * slots / ISSUED / clock, Why::Issue),
                    (memory, Why::Memory),
                ]
            }
            Shape::Reduction(chain) => vec![(self.chain(chain), Why::Chain), (memory, Why::Memory)],
            Shape::Flat => {
                vec![(self.chain(Chain::flat()), Why::Chain), (memory / STREAMED, Why::Memory)]
            }
        };
        times.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).expect("there are times")
    }

    /// Seconds of a chain and the tree after it.
    fn chain(&self, chain: Chain) -> f64 {
        let load = if chain.near { self.near_load } else { self.far_load };
        chain.loads as f64 * load + f64::from(chain.levels) * TREE_LEVEL / self.profile.clock
    }
}

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
    // 32 invocations in a subgroup, as on most GPUs. Single precision has no use for matrix units.
    let traits = Traits { software: false, subgroup: 32, int64: true, matrices: Matrices::None };
    let mut found = Vec::new();
    for call in calls {
        let mut recorder = Recorder { traits, ..Recorder::default() };
        call.record(&mut recorder);
        let (cost, alone) = (call.cost(), recorder.dispatches.len() == 1);
        for (i, dispatch) in recorder.dispatches.into_iter().enumerate() {
            let sizes = call.sizes();
            let bytes = touched(&dispatch);
            let (least, own) = if i > 0 {
                // A second stage adds partial sums.
                let partials = dispatch.bindings.iter().find(|(name, _)| *name == "partials");
                let sums = partials.map_or(0.0, |(_, view)| view.len as f64);
                ([0.0; 2], [sums, bytes])
            } else {
                // The cost counts what is updated twice, but no partial sums.
                let bytes = if alone { cost.bytes } else { bytes.max(cost.bytes) };
                ([cost.flops, cost.bytes], [cost.flops, bytes])
            };
            found.push(Planned { dispatch, sizes, least, own });
        }
    }
    found
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
    /// Predicted time in µs, with the overhead of a dispatch.
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
    let mut rows = Vec::new();
    let mut by_reason = [0.0; 4];
    for (i, Planned { dispatch, sizes, least, own }) in plan(&calls).into_iter().enumerate() {
        let shape = Shape::of(&dispatch)?;
        let (seconds, why) = machine.time(shape, dispatch.workgroups, own[1]);
        by_reason[why as usize] += 1e6 * seconds;
        let (columns, iterations, chain) = match shape {
            Shape::Product(tile) => (Some(tile.columns), Some(tile.iterations), None),
            Shape::Reduction(chain) => (None, None, Some(chain.loads)),
            Shape::Flat => (None, None, Some(Chain::flat().loads)),
        };
        rows.push(RooflineRow {
            kind: "roofline",
            gpu,
            name: format!("{step}/{}", dispatch.kernel.name()),
            number: i + 1,
            kernel: dispatch.kernel.name(),
            sizes,
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
    let total = |value: fn(&RooflineRow) -> f64| rows.iter().map(value).sum::<f64>();
    let (floor, predicted) = (total(|row| row.floor_us), total(|row| row.predicted_us));
    let [latency_us, issue_us, chain_us, memory_us] = by_reason.map(round);
    let sum = RooflineSum {
        kind: "roofline_step",
        gpu,
        name: format!("{step}/step"),
        workload: workload.name,
        batch,
        dispatches: rows.len(),
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
    };
    Ok(Roofline { rows, sum })
}

fn round(x: f64) -> f64 {
    (x * 1e3).round() / 1e3
}

impl RooflineRow {
    /// The headings of [`RooflineRow::line`].
    pub fn heading() -> String {
        format!(
            "{:>3}  {:<29}  {:<40}  {:>10}  {:>10}  {:>9}  {:>8}  {:>8}  {:>9}  why",
            "", "kernel", "sizes", "workgroups", "in turn", "MFLOP", "MB", "floor µs", "µs"
        )
    }

    /// The prediction as a line of a table. `in turn` are the iterations of a tile and its columns,
    /// or the loads that wait for each other.
    pub fn line(&self) -> String {
        let Self { number, kernel, sizes, workgroups, mflop, mb, predicted_us, why, .. } = self;
        let in_turn = match (self.iterations, self.columns, self.chain) {
            (Some(iterations), Some(columns), _) => format!("{iterations} it/{columns}"),
            (.., chain) => format!("{} ld", chain.unwrap_or(0)),
        };
        let floor = if self.floor_us > 0.0 { format!("{:.1}", self.floor_us) } else { "-".into() };
        format!(
            "{number:>3}  {kernel:<29}  {sizes:<40}  {workgroups:>10}  {in_turn:>10}  \
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
        let RooflineSum { gpu, workload, batch, dispatches, .. } = &self.sum;
        let about = gpu.profile().about;
        format!(
            "{workload} batch {batch}: {dispatches} dispatches per step; predicted for {about}, \
             not measured"
        )
    }
}

impl RooflineSum {
    /// The sums as lines of text.
    pub fn lines(&self) -> Vec<String> {
        let Self { mflop, mb, floor_us, predicted_us, over_floor, images_per_s, .. } = self;
        let Self { latency_us, issue_us, chain_us, memory_us, overhead_us, .. } = self;
        vec![
            format!(
                "sum: {mflop:.0} MFLOP, {mb:.0} MB; floor {floor_us:.0} µs, predicted \
                 {predicted_us:.0} µs ({over_floor:.1} times the floor), {images_per_s:.0} images/s"
            ),
            format!(
                "of these: latency {latency_us:.0}, issue {issue_us:.0}, chain {chain_us:.0}, \
                 memory {memory_us:.0}, overhead {overhead_us:.0} µs"
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Choice;

    const TILE_64: Tile =
        Tile { direction: Direction::Forward, columns: 64, iterations: 6, vectors: true };

    /// Compares to 9 digits.
    fn assert_near(found: f64, wanted: f64) {
        assert!((found / wanted - 1.0).abs() < 1e-9, "{found}, not {wanted}");
    }

    fn h200() -> Machine {
        Machine::new(KnownGpu::H200, None)
    }

    fn calls(batch: usize) -> Vec<Call> {
        let graph = Workload::named("w1").unwrap().graph().unwrap();
        planned(&graph, batch, Precision::F32).unwrap().1
    }

    #[test]
    fn instructions_of_an_iteration_are_those_counted_by_hand() {
        // 4 × 264 + 106 and 16 × 4 + 18.
        let wide = TILE_64.instructions();
        assert_eq!((wide.arithmetic, wide.accesses), (1162.0, 82.0));
        // 4 × 134 + 152 + 6 and 16 × 3 + 18.
        let weight = Tile { direction: Direction::Weight, columns: 32, ..TILE_64 }.instructions();
        assert_eq!((weight.arithmetic, weight.accesses), (694.0, 66.0));
        // 4 × 70 + 250 and 16 × 2 + 18 + 12.
        let single = Tile { columns: 16, vectors: false, ..TILE_64 }.instructions();
        assert_eq!((single.arithmetic, single.accesses), (530.0, 62.0));
    }

    #[test]
    fn a_grid_smaller_than_the_gpu_takes_the_time_of_a_lone_workgroup() {
        // 1,162 + 82 instructions, 4 × 30 + 680 cycles of waiting, 6 times.
        let (seconds, why) = h200().time(Shape::Product(TILE_64), 68, 1e6);
        assert_near(seconds, 6.0 * 2044.0 / 1.9e9);
        assert_eq!(why, Why::Latency);
        // RDNA 3 takes 2 cycles an instruction and issues loads beside them.
        let amd = Machine::new(KnownGpu::Rx7900Xtx, None);
        let (seconds, _) = amd.time(Shape::Product(TILE_64), 68, 1e6);
        assert_near(seconds, 6.0 * (2.0 * 1162.0 + 4.0 * 60.0 + 900.0) / 2.5e9);
    }

    #[test]
    fn registers_and_workgroup_memory_limit_the_resident_workgroups() {
        let narrow = Tile { columns: 16, ..TILE_64 };
        // 65,536 / (64 × 168) = 6.1 and 65,536 / (64 × 96) = 10.7.
        assert_eq!((h200().resident(TILE_64), h200().resident(narrow)), (6.0, 10.0));
        // 64 KiB / 8 KiB.
        assert_eq!(Machine::new(KnownGpu::Rx7900Xtx, None).resident(narrow), 8.0);
    }

    #[test]
    fn a_full_grid_takes_the_time_of_its_instructions() {
        // 20 workgroups per multiprocessor, each with 1,244 instructions of two groups of 32
        // invocations on four schedulers.
        let (seconds, why) = h200().time(Shape::Product(TILE_64), 20 * 132, 1e6);
        assert_near(seconds, 20.0 * 6.0 * 1244.0 / 2.0 / 0.85 / 1.9e9);
        assert_eq!(why, Why::Issue);
        // One workgroup more than four for each multiprocessor: one of them has five.
        let (seconds, _) = h200().time(Shape::Product(TILE_64), 4 * 132 + 1, 1e6);
        assert_near(seconds, 5.0 * 6.0 * 1244.0 / 2.0 / 0.85 / 1.9e9);
    }

    #[test]
    fn bytes_take_the_rate_of_the_cache_or_of_memory() {
        let time = |shape, bytes| h200().time(shape, 1000, bytes);
        let chain = Shape::Reduction(Chain::flat());
        assert_near(time(chain, 6.5e6).0, 1e-6);
        assert_near(time(chain, 432e6).0, 100e-6);
        // Element-wise kernels reach 80 % of the rate.
        assert_near(time(Shape::Flat, 432e6).0, 125e-6);
        assert_eq!(time(Shape::Flat, 432e6).1, Why::Memory);
        assert_near(h200().floor(67e6, 432e6), 100e-6);
        assert_near(h200().floor(67e9, 432e6), 1e-3);
    }

    #[test]
    fn loads_in_flight_shorten_a_chain() {
        // 17 slices: two groups of eight, and one more.
        let chain = Chain::new(17, 8, true, 6);
        assert_eq!(chain.loads, 3);
        let (seconds, why) = h200().time(Shape::Reduction(chain), 1, 1e3);
        assert_near(seconds, (3.0 * 300.0 + 6.0 * 120.0) / 1.9e9);
        assert_eq!(why, Why::Chain);
        assert_eq!(Chain::new(31, 4, false, 0).loads, 7 + 3);
        assert_eq!(Chain::new(32, 1, false, 0).loads, 32);
    }

    #[test]
    fn measured_times_replace_assumptions() {
        let measured = Calibration { iteration: 2e-6, dispatch: 5e-6, load: 0.3e-6 };
        let machine = Machine::new(KnownGpu::H200, Some(measured));
        assert_eq!(machine.overhead, 5e-6);
        assert_near(machine.lone(TILE_64), 2e-6);
        assert_near(machine.near_load, 0.3e-6);
        assert_near(machine.far_load, 0.62e-6);
        // They do not change the rate of issue.
        let full = |machine: Machine| machine.time(Shape::Product(TILE_64), 1 << 20, 1e6).0;
        let fast = Calibration { iteration: 1e-6, ..measured };
        assert_near(full(Machine::new(KnownGpu::H200, Some(fast))), full(h200()));
    }

    #[test]
    fn a_recorded_split_product_has_the_sizes_counted_by_hand() {
        let calls = calls(128);
        let found = plan(&calls);
        // 1,568 terms in slices of 96: 17 slices of 2 × 2 tiles, each of 6 iterations.
        let split = &found[2];
        assert_eq!(split.dispatch.kernel, Kernel::Conv2dFwdTiledSplit);
        assert_eq!(split.dispatch.workgroups, 17 * 4);
        assert_eq!(Shape::of(&split.dispatch).unwrap(), Shape::Product(TILE_64));
        // Maps, weights and 17 sums of 128 × 128.
        let [map, weights, sums] = [128.0 * 1568.0, 1568.0 * 128.0, 128.0 * 128.0];
        assert_eq!(split.own[1], 4.0 * (map + weights + 17.0 * sums));
        assert_eq!(split.least, [2.0 * 1568.0 * sums, 4.0 * (map + weights + sums + 128.0)]);
        let second = &found[3];
        assert_eq!(second.dispatch.kernel, Kernel::Conv2dEpilogue);
        let chain = Chain { loads: 4 + 1, near: true, levels: 0 };
        assert_eq!(Shape::of(&second.dispatch).unwrap(), Shape::Reduction(chain));
        assert_eq!(second.own, [17.0 * sums, 4.0 * (17.0 * sums + 128.0 + sums)]);
        assert_eq!(second.least, [0.0; 2]);
    }

    #[test]
    fn the_floors_have_the_work_of_every_operation_once() {
        let calls = calls(32);
        let least: f64 = plan(&calls).iter().map(|planned| planned.least[1]).sum();
        assert_near(least, calls.iter().map(|call| call.cost().bytes).sum());
    }

    #[test]
    fn no_prediction_is_below_its_floor() {
        for gpu in KnownGpu::ALL {
            let found = roofline(*gpu, None, Workload::named("w1").unwrap(), 64).unwrap();
            for row in &found.rows {
                assert!(row.predicted_us > row.floor_us, "{gpu}: {row:?}");
            }
            let longest = found.longest(Some(10));
            assert!(longest.len() == 10 && longest[0].predicted_us >= longest[9].predicted_us);
            assert_eq!(found.longest(None).len(), found.sum.dispatches);
        }
    }

    #[test]
    fn a_product_without_tiles_is_refused() {
        let mut recorder = Recorder { choice: Choice::Registers, ..Recorder::default() };
        calls(2)[0].record(&mut recorder);
        let error = Shape::of(&recorder.dispatches[0]).unwrap_err().to_string();
        assert!(error.contains("conv2d_max_pool_fwd_regs"), "{error}");
    }
}
