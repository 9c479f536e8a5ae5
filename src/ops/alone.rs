//! An operation on buffers of its own, for benchmarks of operations that the training steps of the
//! workloads do not have.

use super::SCALAR_PARTIALS;
use crate::shape::{Dims, Pool2d};
use crate::view::{Buffer, View};

/// Maps as the second convolution of workload W2 takes them.
pub(super) const MAPS: Dims = Dims::new(32, 16, 16);
/// A code as W2's.
pub(super) const CODE: Dims = Dims::flat(512);

/// What a buffer holds before.
#[derive(Clone, Copy, Debug)]
pub enum Fill {
    /// Uniform in −0.3…0.7.
    Real,
    /// By index.
    Words(fn(usize) -> u32),
    /// The first place of each window.
    Switches(Pool2d),
}

/// Buffers that do not exist yet: their lengths and contents.
#[derive(Clone, Debug, Default)]
pub struct Buffers(pub Vec<(usize, Fill)>);

impl Buffers {
    fn buffer(&mut self, len: usize, fill: Fill) -> View {
        self.0.push((len, fill));
        View::whole(Buffer::planned(self.0.len() as u32 - 1), len)
    }

    /// A buffer of reals.
    pub(super) fn real(&mut self, len: usize) -> View {
        self.buffer(len, Fill::Real)
    }

    /// Two buffers of reals of one size.
    pub(super) fn two(&mut self, len: usize) -> [View; 2] {
        [self.real(len), self.real(len)]
    }

    /// A buffer of words.
    pub(super) fn words(&mut self, len: usize, word: fn(usize) -> u32) -> View {
        self.buffer(len, Fill::Words(word))
    }

    /// The switches of a max pooling.
    pub(super) fn switches(&mut self, len: usize, size: Pool2d) -> View {
        self.buffer(len, Fill::Switches(size))
    }

    /// A scalar and its partial sums.
    pub(super) fn sums(&mut self) -> [View; 2] {
        [self.real(1), self.real(SCALAR_PARTIALS)]
    }
}

/// An operation on buffers that do not exist yet.
#[derive(Clone, Debug)]
pub struct Alone<T> {
    /// The operation. The number of a buffer is its place in the list.
    pub operation: T,
    /// The buffers.
    pub buffers: Buffers,
}

impl<T> Alone<T> {
    /// An operation on the buffers that `make` asks for.
    pub(super) fn new(make: impl FnOnce(&mut Buffers) -> T) -> Self {
        let mut buffers = Buffers::default();
        let operation = make(&mut buffers);
        Self { operation, buffers }
    }
}
