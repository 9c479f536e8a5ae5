//! An operation on its own buffers, for benchmarks of operations that the training steps of the
//! workloads do not use.

use super::SCALAR_PARTIALS;
use crate::shape::{Dims, Pool2d};
use crate::view::{Buffer, View};

/// Size of the maps: that of the input of the second convolution of workload W2.
pub(super) const MAPS: Dims = Dims::new(32, 16, 16);
/// Size of the code: that of W2.
pub(super) const CODE: Dims = Dims::flat(512);

/// Initial content of a buffer.
#[derive(Clone, Copy, Debug)]
pub enum Fill {
    /// Reals, uniform in −0.3…0.7.
    Real,
    /// The u32 that a function returns for each index.
    Words(fn(usize) -> u32),
    /// Switches of a pooling: the first position of each window.
    Switches(Pool2d),
}

/// Lengths and contents of buffers that are not allocated yet.
#[derive(Clone, Debug, Default)]
pub struct Buffers(pub Vec<(usize, Fill)>);

impl Buffers {
    /// Adds a buffer.
    fn buffer(&mut self, len: usize, fill: Fill) -> View {
        self.0.push((len, fill));
        View::whole(Buffer::planned(self.0.len() as u32 - 1), len)
    }

    /// Adds a buffer of reals.
    pub(super) fn real(&mut self, len: usize) -> View {
        self.buffer(len, Fill::Real)
    }

    /// Adds two buffers of reals of the same size.
    pub(super) fn two(&mut self, len: usize) -> [View; 2] {
        [self.real(len), self.real(len)]
    }

    /// Adds a buffer of u32.
    pub(super) fn words(&mut self, len: usize, word: fn(usize) -> u32) -> View {
        self.buffer(len, Fill::Words(word))
    }

    /// Adds a buffer with the switches of a max pooling.
    pub(super) fn switches(&mut self, len: usize, size: Pool2d) -> View {
        self.buffer(len, Fill::Switches(size))
    }

    /// Adds a buffer for one scalar and one for its partial sums.
    pub(super) fn sums(&mut self) -> [View; 2] {
        [self.real(1), self.real(SCALAR_PARTIALS)]
    }
}

/// An operation on buffers that are not allocated yet.
#[derive(Clone, Debug)]
pub struct Alone<T> {
    /// The operation. The number of a buffer is its index in the list.
    pub operation: T,
    /// The buffers.
    pub buffers: Buffers,
}

impl<T> Alone<T> {
    /// The operation that `make` returns, on the buffers that it adds.
    pub(super) fn new(make: impl FnOnce(&mut Buffers) -> T) -> Self {
        let mut buffers = Buffers::default();
        let operation = make(&mut buffers);
        Self { operation, buffers }
    }
}
