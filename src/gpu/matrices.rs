//! Cooperative matrices: those that a subgroup holds and multiplies together, by units of its own
//! on some GPUs (tensor cores). wgpu counts them as an experimental feature, so a device has them
//! only where they are asked for.
//!
//! What is known against them: naga declares the Vulkan memory model for such kernels, but does not
//! mark accesses of workgroup memory as shared between invocations, which that model asks for
//! (<https://github.com/gfx-rs/wgpu/issues/8805>). A driver that takes it by the letter may move
//! them across a barrier: `csae verify --kernels matrix` comes first on every new one.

use super::adapter::Adapter;

/// Invocations of the subgroups that `_matrix` kernels are written for.
const SUBGROUP: u32 = 32;
/// Rows, columns and steps of a matrix product.
const SIDE: u32 = 16;

/// What `_matrix` kernels multiply by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matrices {
    /// Nothing: they do not run.
    #[default]
    None,
    /// The adapter's cooperative matrices.
    Cooperative,
    /// Plain arithmetic, slow: it checks all else of these kernels where there are no such
    /// matrices.
    Emulated,
}

impl Matrices {
    /// The features that a device needs for it.
    pub(super) fn features(self) -> wgpu::Features {
        match self {
            Self::Cooperative => {
                wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16
            }
            _ => wgpu::Features::empty(),
        }
    }

    /// wgpu's leave to use them.
    pub(super) fn experimental(self) -> wgpu::ExperimentalFeatures {
        if self != Self::Cooperative {
            return wgpu::ExperimentalFeatures::disabled();
        }
        // SAFETY: it says that what is not finished in wgpu may be unsound. All that is used of it
        // are loads, products and stores of matrices within workgroup arrays of fixed size, and
        // only after the user has asked for them.
        #[allow(unsafe_code, reason = "the one way to cooperative matrices")]
        unsafe {
            wgpu::ExperimentalFeatures::enabled()
        }
    }
}

impl Adapter {
    /// Whether it has the cooperative matrices of `_matrix` kernels: 16 by 16 halves whose products
    /// are summed in single precision, by subgroups that always have 32 invocations.
    pub fn has_matrices(&self) -> bool {
        use wgpu::CooperativeScalarType::{F16, F32};
        let known = |matrix: &wgpu::CooperativeMatrixProperties| {
            let sides = [matrix.m_size, matrix.n_size, matrix.k_size];
            sides == [SIDE; 3]
                && matrix.ab_type == F16
                && matrix.cr_type == F32
                && !matrix.saturating_accumulation
        };
        let subgroups = [self.info.subgroup_min_size, self.info.subgroup_max_size];
        self.handle.features().contains(Matrices::Cooperative.features())
            && subgroups == [SUBGROUP; 2]
            && self.handle.cooperative_matrix_properties().iter().any(known)
    }

    /// The adapter's own matrices, or emulated ones.
    pub fn matrices_or_emulated(&self) -> Matrices {
        if self.has_matrices() { Matrices::Cooperative } else { Matrices::Emulated }
    }

    /// What there is of what is wanted.
    pub(super) fn matrices(&self, wanted: Matrices) -> Matrices {
        match wanted {
            Matrices::Cooperative if self.has_matrices() => wanted,
            // Their operands are halves as well.
            Matrices::Emulated if self.handle.features().contains(wgpu::Features::SHADER_F16) => {
                wanted
            }
            _ => Matrices::None,
        }
    }
}
