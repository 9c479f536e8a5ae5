//! A GPU and the times that it takes for the work of a dispatch.

use super::shape::{Chain, Direction, Instructions, Shape, Tile};
use crate::bench::gpus::{Design, KnownGpu, Profile};
use crate::names::names;

/// Invocations of a tile's workgroup.
const TILE: f64 = 64.0;
/// Bytes of workgroup memory of a tile: 16 terms of 64 rows and 64 columns, or 32 terms of 32.
const TILE_BYTES: f64 = 8192.0;
/// Share of the issue slots that a full multiprocessor uses, measured on an H200. The rest is lost
/// at barriers and while workgroup memory is read.
const ISSUED: f64 = 0.57;
/// Iterations that the addresses at the start and the stores at the end of a workgroup of a product
/// take, measured on an H200.
const AROUND: f64 = 1.5;
/// Seconds of a dispatch of a product in addition to those of others, measured on an H200. Its code
/// is long, and every multiprocessor has to fetch it.
const START: f64 = 3.5e-6;
/// Share of the data sheet's memory rate that a copy reaches: an assumption.
const REACHED: f64 = 0.9;
/// Share of that rate that other kernels than products reach, measured on an H200: in memory, and
/// in the cache.
const STREAMED: f64 = 0.95;
const CACHED: f64 = 0.5;
/// Cycles of one level of a workgroup's tree of sums: two loads, a store and a barrier. An
/// assumption, by which eight levels take about 0.5 µs.
const TREE_LEVEL: f64 = 120.0;
/// Share of the overhead of a dispatch that one without a barrier has, the second or later of its
/// pass: an assumption. It is launched while others run, and no other must end before it starts.
const LAUNCH: f64 = 0.33;
/// Grids of at least this number of workgroups per multiprocessor count as spread evenly. Below it,
/// the multiprocessor with the most workgroups determines the time.
const EVEN: f64 = 8.0;

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

/// Times of a dispatch, in seconds. It takes the longest of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Of iterations or loads that wait for each other, and which of these it is.
    pub(super) waits: (f64, Why),
    /// Of the instructions.
    pub(super) issue: f64,
    /// Of the bytes.
    pub(super) memory: f64,
}

impl Times {
    /// The longest, and what determines it.
    pub(super) fn longest(self) -> (f64, Why) {
        [self.waits, (self.issue, Why::Issue), (self.memory, Why::Memory)]
            .into_iter()
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .expect("there are times")
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
pub(super) struct Machine {
    pub(super) profile: Profile,
    /// Seconds of a dispatch without work.
    pub(super) overhead: f64,
    /// Seconds of a load from the L2 cache, and of one from memory.
    pub(super) near_load: f64,
    pub(super) far_load: f64,
    /// Factor of the time of a workgroup that runs alone: measured over predicted.
    pub(super) lone_factor: f64,
}

impl Machine {
    pub(super) fn new(gpu: KnownGpu, calibration: Option<Calibration>) -> Self {
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
            let tile = Tile {
                direction: Direction::Forward,
                columns: 64,
                elements: 64,
                groups: 4,
                iterations: 1,
                vectors: true,
                sums: 0,
            };
            machine.lone_factor = iteration / machine.lone(tile);
            machine.overhead = dispatch;
            machine.far_load *= load / machine.near_load;
            machine.near_load = load;
        }
        machine
    }

    /// Instructions of an iteration that take an issue slot.
    pub(super) fn issued(&self, tile: Tile) -> f64 {
        let Instructions { arithmetic, accesses } = tile.instructions();
        arithmetic + if self.profile.design.loads_take_slots { accesses } else { 0.0 }
    }

    /// Seconds of an iteration of a workgroup that runs alone.
    pub(super) fn lone(&self, tile: Tile) -> f64 {
        let design = self.profile.design;
        let instructions = self.issued(tile) * design.lone_cycles;
        // The loads of a group of terms overlap its sums, so that a workgroup that runs alone waits
        // for workgroup memory once per group.
        let waits = f64::from(tile.groups) * design.shared_load + design.iteration;
        self.lone_factor * (instructions + waits) / self.profile.clock
    }

    /// Workgroups of a product that a multiprocessor holds at once.
    pub(super) fn resident(&self, tile: Tile) -> f64 {
        let Design { registers, shared, .. } = self.profile.design;
        (registers / (TILE * tile.registers())).min(shared / TILE_BYTES).floor().max(1.0)
    }

    /// Bytes per second for a dispatch that touches `bytes`.
    pub(super) fn rate(&self, bytes: f64) -> f64 {
        let profile = &self.profile;
        if bytes <= profile.cache { profile.cache_rate } else { REACHED * profile.bandwidth }
    }

    /// Minimum seconds for an operation.
    pub(super) fn floor(&self, flops: f64, bytes: f64) -> f64 {
        (flops / self.profile.flops).max(bytes / self.rate(bytes))
    }

    /// The times of a dispatch without its overhead.
    pub(super) fn times(&self, shape: Shape, workgroups: u64, bytes: f64) -> Times {
        let memory = bytes / self.rate(bytes);
        match shape {
            Shape::Product(tile) => {
                let Profile { design, multiprocessors, clock, .. } = self.profile;
                let iterations = tile.iterations as f64 + AROUND;
                let each = workgroups as f64 / multiprocessors;
                let busiest = if each < EVEN { each.ceil() } else { each };
                let waves = (each / self.resident(tile)).max(1.0);
                let slots = self.issued(tile) * TILE / design.lanes;
                Times {
                    waits: (START + waves * iterations * self.lone(tile), Why::Latency),
                    issue: START + busiest * iterations * slots / ISSUED / clock,
                    memory,
                }
            }
            Shape::Reduction(_) | Shape::Flat => {
                let chain = if let Shape::Reduction(chain) = shape { chain } else { Chain::flat() };
                let share = if bytes <= self.profile.cache { CACHED } else { STREAMED };
                Times { waits: (self.chain(chain), Why::Chain), issue: 0.0, memory: memory / share }
            }
        }
    }

    /// Seconds of a pass, with its overhead. The waits of its dispatches overlap; instructions and
    /// bytes do not.
    pub(super) fn pass(&self, dispatches: &[Times]) -> f64 {
        let waits = dispatches.iter().map(|times| times.waits.0).fold(0.0, f64::max);
        let issue: f64 = dispatches.iter().map(|times| times.issue).sum();
        let memory: f64 = dispatches.iter().map(|times| times.memory).sum();
        let launches = 1.0 + LAUNCH * (dispatches.len() - 1) as f64;
        waits.max(issue).max(memory) + launches * self.overhead
    }

    /// Seconds of a chain and the tree after it.
    pub(super) fn chain(&self, chain: Chain) -> f64 {
        let load = if chain.near { self.near_load } else { self.far_load };
        chain.loads as f64 * load + f64::from(chain.levels) * TREE_LEVEL / self.profile.clock
    }
}
