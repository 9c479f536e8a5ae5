//! Ranges of device buffers, which are the arguments of operations, and the parameters of a step.

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

/// Handle of a buffer of f32, of u32 (indices and packed bytes), or of f16. It does not keep the
/// buffer alive; [`crate::device::Allocation`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Buffer {
    /// Number of the device that created it, [`Buffer::PLANNED`] or [`Buffer::VIRTUAL`].
    pub device: u32,
    /// Index among the buffers of the device.
    pub index: u32,
    /// Number of earlier buffers with the same index.
    pub generation: u32,
}

impl Buffer {
    /// The `device` of buffers that exist only in a plan. No device compiles, reads or writes them.
    pub const PLANNED: u32 = 0;
    /// The `device` of buffers on a [`crate::record::Tape`] that have no memory yet.
    pub const VIRTUAL: u32 = 1;
    /// The number of the first device. Later devices count up.
    pub const FIRST_DEVICE: u32 = 2;

    /// A buffer for bindings that a dispatch does not use. It has [`View::UNUSED`].len elements.
    pub const UNUSED: Self = Self { device: u32::MAX, index: 0, generation: 0 };

    /// A buffer that exists only in a plan.
    pub const fn planned(index: u32) -> Self {
        Self { device: Self::PLANNED, index, generation: 0 }
    }

    /// A buffer on a tape.
    pub const fn on_tape(index: u32) -> Self {
        Self { device: Self::VIRTUAL, index, generation: 0 }
    }

    /// The index on a tape, or `None` for any other buffer.
    pub const fn tape_index(self) -> Option<u32> {
        if self.device == Self::VIRTUAL { Some(self.index) } else { None }
    }
}

/// A range of a buffer, in elements. On the GPU `start` is a multiple of 64 elements: 256 bytes for
/// 4-byte elements, 128 bytes for f16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The buffer.
    pub buffer: Buffer,
    /// Index of the first element.
    pub start: usize,
    /// Number of elements.
    pub len: usize,
    /// Whether the elements are f16 on a GPU. The CPU path stores f32 or f64 and rounds to f16 when
    /// it writes.
    pub half: bool,
}

impl View {
    /// A view for variables that a dispatch does not use.
    pub const UNUSED: Self = Self::whole(Buffer::UNUSED, 64);

    /// The whole of a buffer of `len` elements, in full precision.
    pub const fn whole(buffer: Buffer, len: usize) -> Self {
        Self { buffer, start: 0, len, half: false }
    }

    /// Size of an element on a GPU, in bytes.
    pub const fn element(self) -> u64 {
        if self.half { 2 } else { 4 }
    }

    /// The part of this view that begins at its element `start` and has `len` elements.
    ///
    /// # Panics
    /// If the part is not inside this view.
    #[must_use]
    pub fn part(self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.len, "part {start}+{len} of a view of {}", self.len);
        Self { start: self.start + start, len, ..self }
    }

    /// Whether this view and `other` have an element in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.buffer == other.buffer
            && self.start < other.start + other.len
            && other.start < self.start + self.len
    }

    /// The smallest view that contains this one and `other`, a view of the same buffer.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        assert!(self.buffer == other.buffer && self.half == other.half, "views of one buffer");
        let start = self.start.min(other.start);
        let end = (self.start + self.len).max(other.start + other.len);
        Self { start, len: end - start, ..self }
    }

    /// Divides this view into parts of `len` elements; the last part can be shorter. A view larger
    /// than the maximum binding size is bound part by part.
    pub fn windows(self, len: usize) -> impl Iterator<Item = Self> {
        (0..self.len).step_by(len).map(move |start| self.part(start, len.min(self.len - start)))
    }
}

/// How an operation uses a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The elements are read.
    Read,
    /// The elements are read and written in place.
    Update,
    /// Every element is written, none is read.
    Write,
    /// Workspace: the values before and after the operation are undefined.
    Scratch,
}

/// The parameters that change from step to step: the immediates `step` of the kernels
/// (`shaders/common/step.wgsl`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable, PartialEq)]
pub struct StepParams {
    /// Step number from 0; the counter of the random number generator ([`crate::rng`]).
    pub step: u32,
    /// Seed of the run, low word.
    pub seed_lo: u32,
    /// Seed of the run, high word.
    pub seed_hi: u32,
    /// Index of the first entry of this batch in the order of the epoch.
    pub cursor: u32,
    /// Learning rate.
    pub lr: f32,
    /// Adam's first bias correction, 1 − β₁ᵗ.
    pub correction1: f32,
    /// Adam's second bias correction, 1 − β₂ᵗ.
    pub correction2: f32,
    /// Factor on the sparsity penalty, 0…1; below 1 during its warm-up.
    pub sparsity_scale: f32,
    /// Row of the buffer of scalars (losses and counts) that this step writes.
    pub slot: u32,
    /// Index within the batch of the first sample, if the batch is computed in parts (gradient
    /// accumulation). It enters the counter of the random number generator.
    pub first_sample: u32,
    /// Padding: a uniform block is a multiple of 16 bytes long.
    pub _pad: [u32; 2],
}

impl Default for StepParams {
    fn default() -> Self {
        Self { correction1: 1.0, correction2: 1.0, sparsity_scale: 1.0, ..Self::zeroed() }
    }
}

/// The number format in which maps (layer values, their gradients, masks) are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// Single precision.
    #[default]
    #[serde(rename = "f32")]
    F32,
    /// Half precision (Micikevicius et al., "Mixed Precision Training", 2018).
    #[serde(rename = "f16")]
    F16,
}
