//! Constraints on parameters, applied after each update.

mod cpu;

use super::alone::{Alone, MAPS};
use super::{Work, each, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};

shaders! {
    MaxNorm "max_norm",
    ProjectGrad "project_grad",
}

operation! {
    /// Projects every atom into the ball of radius `max_norm`: w[o,a,i] ·= min(1,
    /// max_norm/‖w[·,a,·]‖₂). With `exact` every atom other than 0 gets exactly that norm: w[o,a,i]
    /// ·= max_norm/‖w[·,a,·]‖₂. In memory `w` is (outer, atoms, inner).
    ///
    /// Without this constraint a model can evade an L1 penalty by shrinking the code and growing
    /// the atoms (Olshausen & Field 1996; Mairal et al. 2010).
    MaxNorm { outer: usize, atoms: usize, inner: usize, max_norm: f64, exact: bool } updates { w }
}

impl Work for MaxNorm {
    fn flops(&self) -> f64 {
        each(self.w.len, 3)
    }

    fn sizes(&self) -> String {
        format!("{}x{}x{}", self.outer, self.atoms, self.inner)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            // As many parameters as the maps of a batch have elements.
            let len = n * MAPS.len();
            let w = m.real(len);
            Self { outer: 1, atoms: len / 1024, inner: 1024, max_norm: 1.0, exact: false, w }
        });
        vec![one]
    }
}

operation! {
    /// Removes the component of the gradient along each atom: dw −= (⟨dw, w⟩/‖w‖²)·w, with the
    /// layout of [`MaxNorm`]. It precedes the update of atoms whose norm is kept at 1 (Bricken et
    /// al., "Towards Monosemanticity", 2023; Gao et al., "Scaling and evaluating sparse
    /// autoencoders", 2024).
    ProjectGrad { outer: usize, atoms: usize, inner: usize } reads { w } updates { dw }
}

impl Work for ProjectGrad {
    fn flops(&self) -> f64 {
        each(self.w.len, 6)
    }

    fn sizes(&self) -> String {
        format!("{}x{}x{}", self.outer, self.atoms, self.inner)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            // As many parameters as the maps of a batch have elements.
            let len = n * MAPS.len();
            let (w, dw) = (m.real(len), m.real(len));
            Self { outer: 1, atoms: len / 1024, inner: 1024, w, dw }
        });
        vec![one]
    }
}

params! {
    struct ProjectGradParams { outer: u32, atoms: u32, inner: u32 }
}

impl ProjectGrad {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let params = ProjectGradParams {
            outer: self.outer as u32,
            atoms: self.atoms as u32,
            inner: self.inner as u32,
        };
        r.kernel(Kernel::ProjectGrad, &params)
            .bind("w", self.w)
            .bind("dw", self.dw)
            .groups(self.atoms as u64, 64);
    }
}

params! {
    struct MaxNormParams { outer: u32, atoms: u32, inner: u32, max_norm: f32, exact: u32 }
}

impl MaxNorm {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let params = MaxNormParams {
            outer: self.outer as u32,
            atoms: self.atoms as u32,
            inner: self.inner as u32,
            max_norm: self.max_norm as f32,
            exact: self.exact.into(),
        };
        r.kernel(Kernel::MaxNorm, &params).bind("w", self.w).groups(self.atoms as u64, 64);
    }
}
