//! Cooperative matrices, which a subgroup holds and multiplies together, on some GPUs with
//! dedicated units (tensor cores). They are an experimental feature of wgpu, so a device has them
//! only on request.
//!
//! Known risk: naga declares the Vulkan memory model for such kernels, but does not mark accesses
//! to workgroup memory as shared between invocations, as that model requires
//! (<https://github.com/gfx-rs/wgpu/issues/8805>). A strict driver may move them across a barrier.
//! Run `csae verify --kernels matrix` on every new driver.

use super::adapter::Adapter;

/// Subgroup size that `_matrix` kernels assume.
const SUBGROUP: u32 = 32;
/// Rows, columns and terms of one product of cooperative matrices.
const SIDE: u32 = 16;

/// How `_matrix` kernels multiply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matrices {
    /// Not at all: they do not run.
    #[default]
    None,
    /// With the adapter's cooperative matrices.
    Cooperative,
    /// With plain arithmetic. It is slow, but tests everything else of these kernels on adapters
    /// without cooperative matrices.
    Emulated,
}

impl Matrices {
    /// The device features that it needs.
    pub(super) fn features(self) -> wgpu::Features {
        match self {
            Self::Cooperative => {
                wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16
            }
            _ => wgpu::Features::empty(),
        }
    }

    /// The permission for experimental features that it needs.
    pub(super) fn experimental(self) -> wgpu::ExperimentalFeatures {
        if self != Self::Cooperative {
            return wgpu::ExperimentalFeatures::disabled();
        }
        // SAFETY: the caller accepts that unfinished parts of wgpu can be unsound. The kernels only
        // load, multiply and store matrices within workgroup arrays of fixed size, and only on the
        // user's request.
        #[allow(unsafe_code, reason = "wgpu offers cooperative matrices in no other way")]
        unsafe {
            wgpu::ExperimentalFeatures::enabled()
        }
    }
}

impl Adapter {
    /// Whether it has the cooperative matrices of `_matrix` kernels: 16 by 16 f16 with f32 sums, in
    /// subgroups of exactly 32 invocations.
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

    /// Cooperative matrices if the adapter has them, else emulated ones.
    pub fn matrices_or_emulated(&self) -> Matrices {
        if self.has_matrices() { Matrices::Cooperative } else { Matrices::Emulated }
    }

    /// `wanted` if the adapter supports it, else [`Matrices::None`].
    pub(super) fn matrices(&self, wanted: Matrices) -> Matrices {
        match wanted {
            Matrices::Cooperative if self.has_matrices() => wanted,
            // Emulated kernels have f16 operands as well.
            Matrices::Emulated if self.handle.features().contains(wgpu::Features::SHADER_F16) => {
                wanted
            }
            _ => Matrices::None,
        }
    }
}
