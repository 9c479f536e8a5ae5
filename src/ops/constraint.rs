//! Constraints on parameters, applied after each update.

use super::operation;
use crate::gpu::{Kernel, Recorder, params};

operation! {
    /// Keeps every atom within the ball of radius `max_norm`: w[o,a,i] ·= min(1, max_norm/‖w[·,a,·]‖₂). In memory `w` is (outer, atoms, inner). Without it an L1
    /// penalty is paid by shrinking the code and growing the atoms (Olshausen & Field 1996; Mairal et al. 2010).
    MaxNorm { outer: usize, atoms: usize, inner: usize, max_norm: f64 } updates { w }
}

params! {
    struct MaxNormParams { outer: u32, atoms: u32, inner: u32, max_norm: f32 }
}

impl MaxNorm {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let params = MaxNormParams {
            outer: self.outer as u32,
            atoms: self.atoms as u32,
            inner: self.inner as u32,
            max_norm: self.max_norm as f32,
        };
        r.kernel(Kernel::MaxNorm, &params).bind("w", self.w).groups(self.atoms as u64, 64);
    }
}
