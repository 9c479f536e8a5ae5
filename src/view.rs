//! Where an operation's arguments lie.

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

/// The name of a buffer of f32, of u32 (indices and packed bytes), or of f16. It does not keep the
/// buffer alive: [`crate::device::Allocation`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Buffer {
    /// The device that made it, or [`Buffer::PLANNED`] or [`Buffer::VIRTUAL`].
    pub device: u32,
    /// Its place among the buffers of the device.
    pub index: u32,
    /// How many buffers had this place before it.
    pub generation: u32,
}

impl Buffer {
    /// The `device` of buffers that exist only in a plan. No device compiles, reads or writes them.
    pub const PLANNED: u32 = 0;
    /// The `device` of buffers on a [`crate::record::Tape`], before it is given memory.
    pub const VIRTUAL: u32 = 1;
    /// The number of the first device. Later ones count up.
    pub const FIRST_DEVICE: u32 = 2;

    /// A buffer that exists only in a plan.
    pub const fn planned(index: u32) -> Self {
        Self { device: Self::PLANNED, index, generation: 0 }
    }

    /// A buffer on a tape.
    pub const fn on_tape(index: u32) -> Self {
        Self { device: Self::VIRTUAL, index, generation: 0 }
    }

    /// Its index on a tape; none if it is not on one.
    pub const fn tape_index(self) -> Option<u32> {
        if self.device == Self::VIRTUAL { Some(self.index) } else { None }
    }
}

/// A range of a buffer, in elements. On the GPU `start` is a multiple of 64 (256 bytes, of half
/// precision 128).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The buffer.
    pub buffer: Buffer,
    /// First element.
    pub start: usize,
    /// Elements.
    pub len: usize,
    /// Whether they are f16 on a GPU; the CPU path keeps reals, rounded to f16 where they are
    /// stored.
    pub half: bool,
}

impl View {
    /// A whole buffer of `len` elements.
    pub const fn whole(buffer: Buffer, len: usize) -> Self {
        Self { buffer, start: 0, len, half: false }
    }

    /// Bytes of an element on a GPU.
    pub const fn element(self) -> u64 {
        if self.half { 2 } else { 4 }
    }

    /// A part of this view.
    #[must_use]
    pub fn part(self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.len, "part {start}+{len} of a view of {}", self.len);
        Self { start: self.start + start, len, ..self }
    }

    /// Its parts of `len` elements in order, the last of them shorter: what is longer than a
    /// binding may be is bound so.
    pub fn windows(self, len: usize) -> impl Iterator<Item = Self> {
        (0..self.len).step_by(len).map(move |start| self.part(start, len.min(self.len - start)))
    }
}

/// How an operation uses a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and written in place.
    Update,
    /// Every element is written, none is read.
    Write,
    /// Workspace: its values mean nothing before and after.
    Scratch,
}

/// What changes from step to step: the uniform `step` of the kernels (`common/step.wgsl`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable, PartialEq)]
pub struct StepParams {
    /// Step number from 0: counter of the generators.
    pub step: u32,
    /// Seed of the run, low word.
    pub seed_lo: u32,
    /// Seed of the run, high word.
    pub seed_hi: u32,
    /// First entry of this batch in the epoch's order.
    pub cursor: u32,
    /// Learning rate.
    pub lr: f32,
    /// Adam's first bias correction, 1 − β₁ᵗ.
    pub correction1: f32,
    /// Adam's second bias correction, 1 − β₂ᵗ.
    pub correction2: f32,
    /// Factor of the sparsity penalty in its warm-up, 0…1.
    pub sparsity_scale: f32,
    /// Row of the step's scalars (losses and counts).
    pub slot: u32,
    /// Place in the batch of the first sample, where the batch is taken in parts: counter of the
    /// generators.
    pub first_sample: u32,
    /// Fills the block to a multiple of 16 bytes.
    pub _pad: [u32; 2],
}

impl Default for StepParams {
    fn default() -> Self {
        Self { correction1: 1.0, correction2: 1.0, sparsity_scale: 1.0, ..Self::zeroed() }
    }
}

/// What maps are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// Single precision.
    #[default]
    #[serde(rename = "f32")]
    F32,
    /// Half precision (Micikevicius et al. 2018).
    #[serde(rename = "f16")]
    F16,
}
