//! Profiles of GPUs, from which [`super::roofline`] predicts the time of a training step.
//!
//! Numbers of units, clocks and rates are those of data sheets, where a comment does not name
//! another source. Latencies and overheads are assumptions, but for the overhead of an H200. Three
//! times that were measured on a GPU replace some of them ([`super::roofline::Calibration`]).

use crate::names::names;

names! {
    /// A GPU whose times can be predicted.
    pub enum KnownGpu {
        /// NVIDIA H200 SXM, 132 multiprocessors.
        H200 = "h200",
        /// NVIDIA GeForce RTX 4090, 128 multiprocessors.
        Rtx4090 = "rtx4090",
        /// AMD Radeon RX 7900 XTX, 96 compute units.
        Rx7900Xtx = "rx7900xtx",
        /// Intel Arc A770, 32 Xe cores.
        A770 = "a770",
        /// Apple M2, 10 cores.
        M2 = "m2",
        /// Graphics of a laptop processor, 8 compute units such as those of a Radeon 760M.
        Integrated = "igpu",
    }
}

/// How the multiprocessors of a family of GPUs execute workgroups. A multiprocessor is the part of
/// a GPU that a workgroup runs on, whatever its maker calls it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Design {
    /// Number of single-precision multiply-adds that a multiprocessor starts in a cycle.
    pub lanes: f64,
    /// Cycles between two instructions of a workgroup of 64 that runs alone.
    pub lone_cycles: f64,
    /// Whether loads and stores take the place of arithmetic when they are issued.
    pub loads_take_slots: bool,
    /// Number of 32-bit registers of a multiprocessor.
    pub registers: f64,
    /// Bytes of workgroup memory of a multiprocessor.
    pub shared: f64,
    /// Cycles of a load from workgroup memory.
    pub shared_load: f64,
    /// Cycles of an iteration of a tile without its instructions: a load and two barriers.
    pub iteration: f64,
    /// Cycles of a load from the L2 cache.
    pub near_load: f64,
    /// Cycles of a load from addresses far apart: most of these loads miss the cache.
    pub far_load: f64,
}

/// A GPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Profile {
    /// Maker and model.
    pub about: &'static str,
    /// Its multiprocessors.
    pub design: Design,
    /// Number of multiprocessors.
    pub multiprocessors: f64,
    /// Cycles per second while it computes.
    pub clock: f64,
    /// Peak rate in single-precision operations per second, without matrix units.
    pub flops: f64,
    /// Bytes per second from and to memory, by the data sheet.
    pub bandwidth: f64,
    /// Bytes of the last cache before memory.
    pub cache: f64,
    /// Bytes per second from and to that cache.
    pub cache_rate: f64,
    /// Seconds between the end of a dispatch and the start of the next one, with a barrier.
    pub overhead: f64,
}

/// NVIDIA Hopper and Ada: four schedulers of 32 lanes. Each issues one instruction per cycle, a
/// load or a multiply-add. 65,536 registers (CUDA programming guide). Latencies are assumptions.
const NVIDIA: Design = Design {
    lanes: 128.0,
    lone_cycles: 1.0,
    loads_take_slots: true,
    registers: 65_536.0,
    // Hopper: 228 KiB with 1 KiB reserved for each workgroup.
    shared: 227.0 * 1024.0,
    shared_load: 30.0,
    // A load that hits the L2 cache, its stores to workgroup memory, and two barriers.
    iteration: 680.0,
    near_load: 300.0,
    far_load: 620.0,
};

/// AMD RDNA 3: two units of 32 lanes. Compilers make one wave of 64 of a tile's workgroup, so that
/// an instruction takes two cycles. Double issue is assumed not to help the loops of the products.
/// Loads are issued beside arithmetic. Latencies are assumptions: 1.3 to 2 times NVIDIA's.
const RDNA3: Design = Design {
    lanes: 64.0,
    lone_cycles: 2.0,
    loads_take_slots: false,
    // Navi 31: 1,536 registers of 32 lanes in each of two units.
    registers: 2.0 * 1536.0 * 32.0,
    // 128 KiB for two compute units.
    shared: 65_536.0,
    shared_load: 60.0,
    iteration: 900.0,
    near_load: 450.0,
    far_load: 800.0,
};

/// Intel Xe-HPG: 16 engines of 8 lanes, each with 8 threads of 128 registers of 32 bytes. Latencies
/// are assumed to be those of [`RDNA3`].
const XE: Design = Design {
    lanes: 128.0,
    lone_cycles: 1.0,
    loads_take_slots: false,
    registers: 16.0 * 8.0 * 128.0 * 8.0,
    shared: 128.0 * 1024.0,
    ..RDNA3
};

/// Apple M2: four units of 32 lanes. 208 KiB of registers and about 60 KiB of workgroup memory in a
/// core, as measured by Turner's metal-benchmarks. Latencies are assumed to be those of [`NVIDIA`].
const APPLE: Design = Design { registers: 53_248.0, shared: 60.0 * 1024.0, ..NVIDIA };

impl KnownGpu {
    pub(super) const fn profile(self) -> Profile {
        match self {
            Self::H200 => Profile {
                about: "NVIDIA H200",
                design: NVIDIA,
                multiprocessors: 132.0,
                // 1.98 GHz at most; slightly less under load.
                clock: 1.9e9,
                flops: 67e12,
                bandwidth: 4.8e12,
                // 50 MB, at an assumed rate.
                cache: 50e6,
                cache_rate: 6.5e12,
                // Start, drain and barrier, measured through Vulkan.
                overhead: 5.5e-6,
            },
            Self::Rtx4090 => Profile {
                about: "NVIDIA GeForce RTX 4090",
                // Ada: 100 KiB of workgroup memory in a multiprocessor.
                design: Design { shared: 100.0 * 1024.0, ..NVIDIA },
                multiprocessors: 128.0,
                clock: 2.52e9,
                flops: 82.6e12,
                bandwidth: 1.008e12,
                // 72 MB, at an assumed rate.
                cache: 72e6,
                cache_rate: 5e12,
                // Assumed as for the H200.
                overhead: 5.5e-6,
            },
            Self::Rx7900Xtx => Profile {
                about: "AMD Radeon RX 7900 XTX",
                design: RDNA3,
                multiprocessors: 96.0,
                clock: 2.5e9,
                // With double issue.
                flops: 61.4e12,
                bandwidth: 0.96e12,
                // The Infinity Cache: 96 MB. Its links carry 5.3 TB/s; 3 TB/s is an assumption.
                cache: 96e6,
                cache_rate: 3e12,
                // An assumption: barriers also write back the first caches.
                overhead: 4e-6,
            },
            Self::A770 => Profile {
                about: "Intel Arc A770",
                design: XE,
                multiprocessors: 32.0,
                // Its peak rate needs 2.1 GHz.
                clock: 2.1e9,
                flops: 17.2e12,
                bandwidth: 0.56e12,
                // 16 MB; half of 64 bytes per core and cycle, an assumption.
                cache: 16e6,
                cache_rate: 2e12,
                // An assumption.
                overhead: 8e-6,
            },
            Self::M2 => Profile {
                about: "Apple M2",
                design: APPLE,
                multiprocessors: 10.0,
                // The clock that gives its 3.6 TFLOP/s: 10 cores of 128 lanes.
                clock: 1.4e9,
                flops: 3.6e12,
                bandwidth: 0.1e12,
                // The cache of the whole chip: 8 MB, at an assumed rate.
                cache: 8e6,
                cache_rate: 0.25e12,
                // An assumption.
                overhead: 5e-6,
            },
            Self::Integrated => Profile {
                about: "integrated GPU with 8 compute units",
                // 1,024 registers of 32 lanes in each of two units: the smaller kind of RDNA 3.
                design: Design { registers: 2.0 * 1024.0 * 32.0, ..RDNA3 },
                multiprocessors: 8.0,
                clock: 2.4e9,
                // 8 units of 64 lanes at 2.4 GHz, without double issue.
                flops: 2.46e12,
                // Two channels of DDR5-5600.
                bandwidth: 89.6e9,
                // 2 MB at an assumed half of 64 bytes per unit and cycle.
                cache: 2e6,
                cache_rate: 0.6e12,
                // An assumption.
                overhead: 5e-6,
            },
        }
    }
}
