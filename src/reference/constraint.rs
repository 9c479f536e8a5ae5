//! Twins of `ops/constraint.rs`.

use super::{Memory, Real, Reference};
use crate::ops::MaxNorm;

impl Reference for MaxNorm {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut w = memory.take(self.w);
        let (row, inner) = (self.atoms * self.inner, self.inner);
        // Row by row, so that memory is walked in order whatever the layout.
        let mut sums = vec![0.0_f64; self.atoms];
        for w in w.chunks_exact(row) {
            for (sum, w) in sums.iter_mut().zip(w.chunks_exact(inner)) {
                *sum += w.iter().map(|w| w.f64() * w.f64()).sum::<f64>();
            }
        }
        let factors: Vec<T> = sums.iter().map(|sum| T::of((self.max_norm / sum.sqrt()).min(1.0))).collect();
        for w in w.chunks_exact_mut(row) {
            for (&factor, w) in factors.iter().zip(w.chunks_exact_mut(inner)) {
                w.iter_mut().for_each(|w| *w *= factor);
            }
        }
        memory.put(w);
    }
}
