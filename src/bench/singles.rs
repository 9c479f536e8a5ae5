//! Benchmarks of the operations that the training steps of W1–W3 do not use, each on its own
//! buffers (`ops::Work::alone`), at several batch sizes.

use crate::device::{Allocation, Device};
use crate::error::Result;
use crate::ops::{Buffers, Fill};
use crate::program::Call;
use crate::rng::Stream;

/// Batch sizes.
pub(super) const BATCHES: [usize; 3] = [32, 128, 512];

/// A call on buffers that are not allocated yet.
#[derive(Clone, Debug)]
pub(super) struct Single {
    pub(super) call: Call,
    buffers: Buffers,
}

impl Single {
    /// Allocates and fills its buffers.
    pub(super) fn place(&self, device: &mut Device) -> Result<(Call, Vec<Allocation>)> {
        let mut stream = Stream::new(1, self.call.name());
        let mut buffers = Vec::new();
        for (len, fill) in &self.buffers.0 {
            let words: Vec<u32> = match fill {
                Fill::Real => {
                    let buffer = device.alloc_real("bench", *len)?;
                    let values: Vec<f32> = (0..*len).map(|_| stream.uniform() - 0.3).collect();
                    device.write(*buffer, &values);
                    buffers.push(buffer);
                    continue;
                }
                Fill::Words(word) => (0..*len).map(word).collect(),
                Fill::Switches(size) => {
                    let first = |i: usize| {
                        let (q, p) = (i / size.y.c % size.y.w, i / size.y.c / size.y.w % size.y.h);
                        (p * size.stride[0] * size.x.w + q * size.stride[1]) as u32
                    };
                    (0..*len).map(first).collect()
                }
            };
            let buffer = device.alloc_words("bench", *len)?;
            device.write_words(*buffer, &words);
            buffers.push(buffer);
        }
        let mut call = self.call.clone();
        call.visit(&mut |view, _| view.buffer = buffers[view.buffer.index as usize].buffer);
        Ok((call, buffers))
    }
}

/// All single operations for a batch of `n`.
pub(super) fn singles(n: usize) -> Vec<Single> {
    Call::alone(n)
        .into_iter()
        .map(|one| Single { call: one.operation, buffers: one.buffers })
        .collect()
}
