//! CPU twins of `ops/constraint.rs`.

use crate::linalg::real::Real;
use crate::ops::{MaxNorm, ProjectGrad};
use crate::reference::{Memory, Reference};

impl MaxNorm {
    /// The factor for an atom of norm `norm`.
    fn factor(&self, norm: f64) -> f64 {
        let factor = self.max_norm / norm;
        match self.exact {
            true if norm > 0.0 => factor,
            true => 1.0,
            false => factor.min(1.0),
        }
    }
}

impl Reference for ProjectGrad {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut dw = memory.take(self.dw);
        let w = memory.real(self.w);
        let (row, inner) = (self.atoms * self.inner, self.inner);
        let mut sums = vec![[0.0_f64; 2]; self.atoms];
        for (w, dw) in w.chunks_exact(row).zip(dw.chunks_exact(row)) {
            for (sums, (w, dw)) in
                sums.iter_mut().zip(w.chunks_exact(inner).zip(dw.chunks_exact(inner)))
            {
                for (w, dw) in w.iter().zip(dw) {
                    sums[0] += w.f64() * dw.f64();
                    sums[1] += w.f64() * w.f64();
                }
            }
        }
        let factors: Vec<f64> = sums
            .iter()
            .map(|[along, square]| if *square > 0.0 { along / square } else { 0.0 })
            .collect();
        for (w, dw) in w.chunks_exact(row).zip(dw.chunks_exact_mut(row)) {
            for (factor, (w, dw)) in
                factors.iter().zip(w.chunks_exact(inner).zip(dw.chunks_exact_mut(inner)))
            {
                w.iter().zip(dw).for_each(|(w, dw)| *dw = T::of(dw.f64() - factor * w.f64()));
            }
        }
        memory.put(dw);
    }
}

impl Reference for MaxNorm {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut w = memory.take(self.w);
        let (row, inner) = (self.atoms * self.inner, self.inner);
        // Row by row, so that memory is read in order for every layout.
        let mut sums = vec![0.0_f64; self.atoms];
        for w in w.chunks_exact(row) {
            for (sum, w) in sums.iter_mut().zip(w.chunks_exact(inner)) {
                *sum += w.iter().map(|w| w.f64() * w.f64()).sum::<f64>();
            }
        }
        let factors: Vec<T> = sums.iter().map(|sum| T::of(self.factor(sum.sqrt()))).collect();
        for w in w.chunks_exact_mut(row) {
            for (&factor, w) in factors.iter().zip(w.chunks_exact_mut(inner)) {
                w.iter_mut().for_each(|w| *w *= factor);
            }
        }
        memory.put(w);
    }
}
