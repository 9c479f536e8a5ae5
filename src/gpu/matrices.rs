//! Cooperative matrices, which a subgroup holds and multiplies together, on some GPUs with
//! dedicated units (tensor cores). They are an experimental feature of wgpu, so a device has them
//! only on request.
//!
//! Known risk: naga declares the Vulkan memory model for such kernels, but does not mark accesses
//! to workgroup memory as shared between invocations, as that model requires
//! (<https://github.com/gfx-rs/wgpu/issues/8805>). A strict driver may move them across a barrier.
//! Run `csae verify --kernels matrix` on every new driver.

use super::adapter::Adapter;

/// Bytes of workgroup memory that their kernels need at most.
const MEMORY: u32 = 32 << 10;

/// The size of cooperative matrices, the type of their operands, and the subgroups that multiply
/// them. Sums are f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// 16 by 16 f16, in subgroups of at most 32 invocations: NVIDIA. For maps in half precision.
    Half,
    /// 16 by 16 f16, in subgroups of at most 64 invocations: AMD. For maps in half precision.
    HalfWide,
    /// 8 by 8 f32, in subgroups of 32 invocations: Metal. For maps of both precisions.
    Single,
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Half, Self::HalfWide, Self::Single];

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Half => "16x16 f16, subgroups of up to 32",
            Self::HalfWide => "16x16 f16, subgroups of up to 64",
            Self::Single => "8x8 f32",
        }
    }

    /// Invocations of a workgroup (`SIZE` in `shaders/common/matrix_memory.wgsl`).
    pub const fn workgroup(self) -> u32 {
        if matches!(self, Self::Single) { 64 } else { 128 }
    }

    /// The constant `BLOCKS` of the kernels: the number of blocks of 16 rows, of four, that a
    /// subgroup sums. None if it is fixed.
    pub const fn blocks(self) -> Option<u32> {
        match self {
            Self::Half => Some(1),
            Self::HalfWide => Some(2),
            Self::Single => None,
        }
    }

    /// Whether it multiplies maps of this precision.
    pub const fn takes(self, half: bool) -> bool {
        half || matches!(self, Self::Single)
    }

    /// The device features that kernels need for its operands.
    fn features(self) -> wgpu::Features {
        match self {
            Self::Single => wgpu::Features::empty(),
            _ => wgpu::Features::SHADER_F16,
        }
    }
}

/// How `_matrix` kernels multiply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matrices {
    /// Not at all: they do not run.
    #[default]
    None,
    /// With the adapter's cooperative matrices.
    Cooperative(Unit),
    /// With plain arithmetic. It is slow, but tests everything else of these kernels on adapters
    /// without cooperative matrices.
    Emulated(Unit),
}

impl Matrices {
    /// The matrices that the kernels use.
    pub const fn unit(self) -> Option<Unit> {
        match self {
            Self::None => None,
            Self::Cooperative(unit) | Self::Emulated(unit) => Some(unit),
        }
    }

    /// The device features that it needs.
    pub(super) fn features(self) -> wgpu::Features {
        match self {
            Self::None => wgpu::Features::empty(),
            Self::Cooperative(unit) => {
                wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
                    | wgpu::Features::SUBGROUP
                    | unit.features()
            }
            Self::Emulated(unit) => unit.features(),
        }
    }

    /// The permission for experimental features that it needs.
    pub(super) fn experimental(self) -> wgpu::ExperimentalFeatures {
        if !matches!(self, Self::Cooperative(_)) {
            return wgpu::ExperimentalFeatures::disabled();
        }
        // SAFETY: the caller accepts that unfinished parts of wgpu can be unsound. The kernels only
        // load, multiply and store matrices within workgroup arrays of fixed size, and only after
        // they were verified on the adapter or on the user's request.
        #[allow(unsafe_code, reason = "wgpu offers cooperative matrices in no other way")]
        unsafe {
            wgpu::ExperimentalFeatures::enabled()
        }
    }
}

impl Adapter {
    /// The cooperative matrices of the adapter that `_matrix` kernels can use.
    pub fn unit(&self) -> Option<Unit> {
        use wgpu::CooperativeScalarType::{F16, F32};
        let listed = self.handle.cooperative_matrix_properties();
        let lists = |side: u32, operands: wgpu::CooperativeScalarType| {
            listed.iter().any(|matrix| {
                [matrix.m_size, matrix.n_size, matrix.k_size] == [side; 3]
                    && matrix.ab_type == operands
                    && matrix.cr_type == F32
                    && !matrix.saturating_accumulation
            })
        };
        let [least, most] = [self.info.subgroup_min_size, self.info.subgroup_max_size];
        let unit = if lists(16, F16) && least >= 4 && most <= 32 {
            Unit::Half
        } else if lists(16, F16) && least >= 4 && most <= 64 {
            Unit::HalfWide
        } else if lists(8, F32) && self.info.backend == wgpu::Backend::Metal {
            // Metal reports subgroups of 4 to 64; GPUs that have these matrices have 32.
            Unit::Single
        } else {
            return None;
        };
        let needed = Matrices::Cooperative(unit).features();
        self.handle.features().contains(needed).then_some(unit)
    }

    /// Cooperative matrices if the adapter has them, else emulated ones.
    pub fn matrices_or_emulated(&self) -> Matrices {
        self.unit().map_or(Matrices::Emulated(Unit::Half), Matrices::Cooperative)
    }

    /// The adapter's cooperative matrices, if it has any.
    pub fn matrices(&self) -> Matrices {
        self.unit().map_or(Matrices::None, Matrices::Cooperative)
    }

    /// `wanted` if the adapter supports it, else [`Matrices::None`].
    pub(super) fn supported(&self, wanted: Matrices) -> Matrices {
        let runs = match wanted {
            Matrices::None => false,
            Matrices::Cooperative(unit) => self.unit() == Some(unit),
            Matrices::Emulated(_) => {
                self.handle.features().contains(wanted.features())
                    && self.handle.limits().max_compute_workgroup_storage_size >= MEMORY
            }
        };
        if runs { wanted } else { Matrices::None }
    }
}
