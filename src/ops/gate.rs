//! Gates: an operation that writes the gradient by the output of an activation also multiplies it
//! by the slope of that activation, and can add the gradient of an L1 penalty on the output first.

use super::Activation;
use super::activation::cpu::scale_by_slope_of_output;
use super::activation::epilogue;
use crate::gpu::Building;
use crate::linalg::real::Real;
use crate::reference::Memory;
use crate::view::View;

/// A gate, or the lack of one.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// The activation f; identity without a gate.
    pub activation: Activation,
    /// Weight of the L1 penalty on the output of f, without the step's `sparsity_scale`. 0 if there
    /// is none.
    pub penalty: f64,
    /// The output of f, from which the slope is computed. `None`: no gate.
    pub output: Option<View>,
}

impl Gate {
    /// No gate.
    pub const NONE: Self = Self { activation: Activation::Identity, penalty: 0.0, output: None };

    /// Checks the gate of an operation that writes `len` elements.
    ///
    /// # Panics
    /// If the gate has another length, the slope does not follow from the output, or there is a
    /// penalty without a gate.
    pub(super) fn check(self, len: usize) -> Self {
        let fits = match self.output {
            Some(output) => output.len == len && self.activation.from_output(),
            None => self.penalty == 0.0,
        };
        assert!(fits, "{self:?} of {len} elements");
        self
    }

    /// The gate as the CPU path applies it. `None` without a gate.
    pub(super) fn slopes<T: Real>(self, memory: &Memory<T>) -> Option<Slopes<'_, T>> {
        self.output.map(|output| Slopes {
            activation: self.activation,
            penalty: T::of(self.penalty * f64::from(memory.step.sparsity_scale)),
            output: memory.real(output),
        })
    }

    /// Sets the constants of a kernel with a gate, and binds it. Without a gate the kernel does not
    /// read it, and `map` is bound.
    pub(super) fn bind<'a>(&self, dispatch: Building<'a>, map: View) -> Building<'a> {
        dispatch
            .constant("GATED", self.output.is_some())
            .constant("PENALISED", self.penalty != 0.0)
            .bind("gate", self.output.unwrap_or(map))
    }
}

/// A gate on the CPU path.
#[derive(Clone, Copy)]
pub(super) struct Slopes<'a, T> {
    activation: Activation,
    penalty: T,
    output: &'a [T],
}

impl<T: Real> Slopes<'_, T> {
    /// Applies the gate to the gradients of the elements from `at` on.
    pub(super) fn apply(&self, at: usize, gradients: &mut [T]) {
        let output = &self.output[at..at + gradients.len()];
        if self.penalty != T::ZERO {
            add_l1(self.penalty, output, gradients);
        }
        scale_by_slope_of_output(self.activation, output, gradients);
    }
}

/// gradients += slope·sign(z), with sign(0) = 0.
pub(super) fn add_l1<T: Real>(slope: T, z: &[T], gradients: &mut [T]) {
    for (gradient, &z) in gradients.iter_mut().zip(z) {
        *gradient += if z > T::ZERO {
            slope
        } else if z < T::ZERO {
            -slope
        } else {
            T::ZERO
        };
    }
}

/// The name of an epilogue in an operation's sizes, after a space. A prime marks a gate, which
/// multiplies by the slope of the activation.
pub(super) fn gated(activation: Activation, penalty: f64, gate: Option<View>) -> String {
    let name = epilogue(activation);
    match gate {
        Some(_) if !name.is_empty() && penalty != 0.0 => name + "' l1",
        Some(_) if !name.is_empty() => name + "'",
        _ => name,
    }
}
