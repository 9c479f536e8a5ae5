//! The buffers of the CPU path.

use half::f16;
use rayon::prelude::*;

use super::parallel::CHUNK;
use crate::budget;
use crate::error::Result;
use crate::linalg::real::Real;
use crate::view::{Buffer, StepParams, View};

/// A buffer, or the place of one that is not allocated or currently taken.
#[derive(Debug)]
enum Slot<T> {
    Empty,
    Real(Vec<T>),
    Words(Vec<u32>),
}

/// Buffers of reals and of u32. An operation takes the views that it writes out of the memory,
/// reads the others in place, and puts the written views back.
#[derive(Debug)]
pub struct Memory<T> {
    slots: Vec<Slot<T>>,
    /// The current step.
    pub step: StepParams,
}

impl<T: Real> Default for Memory<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), step: StepParams::default() }
    }
}

/// A view taken out of the memory for writing. It dereferences to the view's elements.
#[derive(Debug)]
pub struct Taken<E> {
    view: View,
    data: Vec<E>,
}

impl<E> std::ops::Deref for Taken<E> {
    type Target = [E];
    fn deref(&self) -> &[E] {
        &self.data[self.view.start..self.view.start + self.view.len]
    }
}

impl<E> std::ops::DerefMut for Taken<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.data[self.view.start..self.view.start + self.view.len]
    }
}

impl<T: Real> Memory<T> {
    fn slot(&mut self, buffer: Buffer) -> &mut Slot<T> {
        let index = buffer.index as usize;
        while self.slots.len() <= index {
            self.slots.push(Slot::Empty);
        }
        &mut self.slots[index]
    }

    /// Allocates a buffer of reals, filled with zeros. Returns its size in bytes.
    ///
    /// # Errors
    /// If there is not enough memory. `label` names the buffer in the message.
    pub(crate) fn alloc_real(&mut self, buffer: Buffer, len: usize, label: &str) -> Result<u64> {
        *self.slot(buffer) = Slot::Real(budget::zeroed(len, label)?);
        Ok(self.slot(buffer).bytes())
    }

    /// Allocates a buffer of u32, filled with zeros. Returns its size in bytes.
    ///
    /// # Errors
    /// As [`Memory::alloc_real`].
    pub(crate) fn alloc_words(&mut self, buffer: Buffer, len: usize, label: &str) -> Result<u64> {
        *self.slot(buffer) = Slot::Words(budget::zeroed(len, label)?);
        Ok(self.slot(buffer).bytes())
    }

    /// Frees a buffer.
    pub(crate) fn free(&mut self, buffer: Buffer) {
        *self.slot(buffer) = Slot::Empty;
    }

    /// Bytes of all buffers.
    pub(crate) fn bytes(&self) -> u64 {
        self.slots.iter().map(Slot::bytes).sum()
    }

    /// The elements of a view of reals.
    ///
    /// # Panics
    /// If the buffer holds something else, or is taken.
    pub fn real(&self, view: View) -> &[T] {
        match &self.slots[view.buffer.index as usize] {
            Slot::Real(data) => &data[view.start..view.start + view.len],
            other => panic!("{view:?} is not a buffer of reals: {}", other.content()),
        }
    }

    /// The elements of a view of u32.
    ///
    /// # Panics
    /// If the buffer holds something else, or is taken.
    pub fn words(&self, view: View) -> &[u32] {
        match &self.slots[view.buffer.index as usize] {
            Slot::Words(data) => &data[view.start..view.start + view.len],
            other => panic!("{view:?} is not a buffer of words: {}", other.content()),
        }
    }

    /// Takes a view of reals out for writing, until [`Memory::put`]. Meanwhile no view of its
    /// buffer can be accessed.
    ///
    /// # Panics
    /// If the buffer holds something else, or is taken already.
    pub fn take(&mut self, view: View) -> Taken<T> {
        match std::mem::replace(self.slot(view.buffer), Slot::Empty) {
            Slot::Real(data) => Taken { view, data },
            other => panic!("{view:?} is not a buffer of reals: {}", other.content()),
        }
    }

    /// Puts back a view of [`Memory::take`]. Values of views in half precision are rounded to f16.
    pub fn put(&mut self, mut taken: Taken<T>) {
        if taken.view.half {
            taken
                .par_chunks_mut(CHUNK)
                .flatten()
                .for_each(|x| *x = T::of(f16::from_f32(x.f64() as f32).to_f64()));
        }
        *self.slot(taken.view.buffer) = Slot::Real(taken.data);
    }

    /// Takes a view of u32 out for writing, until [`Memory::put_words`].
    ///
    /// # Panics
    /// If the buffer holds something else, or is taken already.
    pub fn take_words(&mut self, view: View) -> Taken<u32> {
        match std::mem::replace(self.slot(view.buffer), Slot::Empty) {
            Slot::Words(data) => Taken { view, data },
            other => panic!("{view:?} is not a buffer of words: {}", other.content()),
        }
    }

    /// Puts back a view of [`Memory::take_words`].
    pub fn put_words(&mut self, taken: Taken<u32>) {
        *self.slot(taken.view.buffer) = Slot::Words(taken.data);
    }

    /// Index of a scalar of the current step.
    pub fn scalar_index(&self, width: usize, index: usize) -> usize {
        self.step.slot as usize * width + index
    }

    /// Seed of the run.
    pub fn seed(&self) -> u64 {
        u64::from(self.step.seed_hi) << 32 | u64::from(self.step.seed_lo)
    }
}

impl<T> Slot<T> {
    fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Empty => 0,
            Self::Real(data) => size_of_val(&data[..]),
            Self::Words(data) => size_of_val(&data[..]),
        };
        bytes as u64
    }

    fn content(&self) -> &'static str {
        match self {
            Self::Empty => "empty, or taken",
            Self::Real(_) => "reals",
            Self::Words(_) => "words",
        }
    }
}
