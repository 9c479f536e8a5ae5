//! The operations, one file each. An operation is a plain struct: its sizes, and the views of
//! memory that it reads and writes. It also states its minimum work ([`Work`]). Two interpreters
//! run it: `record` turns it into dispatches of WGSL kernels, and `Reference::run` computes it on
//! the CPU. The table `operations!` lists them.

// Formulas use brackets for indices: y[n,p,q,k] is not a link.
#![allow(rustdoc::broken_intra_doc_links)]

mod activation;
mod alone;
mod bicubic;
mod constraint;
mod conv2d;
mod corrupt;
mod data;
mod detection;
mod elementwise;
mod gate;
mod hurdle;
mod local_contrast;
mod loss;
mod mask;
mod missing;
mod optimizer;
mod pixel_shuffle;
mod pool2d;
mod reduce;
mod revive;
mod segmentation;
mod soft_threshold;
mod sums;
mod unpool2d;

use crate::gpu::{Kernel, Product};
use crate::shape::Dims;
use crate::view::{Access, View};

pub use activation::{Activation, ActivationName};
pub use alone::{Alone, Buffers, Fill};
pub use data::{Augment, Draw};
pub use detection::{CELL, SIZES};
pub use gate::Gate;
pub use hurdle::{HURDLE_OUTPUTS, HURDLE_VALUES, Hurdle, UnitLoss};
pub use loss::LossKind;
pub use reduce::{SCALAR_PARTIALS, WINDOW};
pub use sums::{SumRow, sums_of};

/// The table of operations. Passes its rows to a macro; a row is a file and the operations in it.
macro_rules! operations {
    ($macro:ident) => {
        $macro! {
            conv2d: Conv2dFwd, Conv2dMaxPoolFwd, Conv2dBwdInput, Conv2dBwdWeight;
            activation: ActivationFwd, ActivationBwd, ActivationBwdOutput;
            pool2d: MaxPool2dFwd, MaxPool2dBwd, AvgPool2dFwd, AvgPool2dBwd, L2Pool2dFwd,
                L2Pool2dBwd;
            unpool2d: MaxUnpool2dFwd, MaxUnpool2dBwd, UpsampleNearest2dFwd, UpsampleNearest2dBwd;
            elementwise: Combine, AddAssign, CopyChannels;
            mask: Dropout, TopKMask, BatchTopKMask, ThresholdMask, SpatialWtaMask,
                LifetimeWtaMask, MaskApply;
            soft_threshold: SoftThresholdFwd, SoftThresholdBwd;
            loss: Loss, CrossEntropy, L1Penalty, L1Norm, KlPenalty;
            segmentation: PixelCrossEntropy, Dice;
            detection: GridDetection;
            hurdle: HurdleLoss;
            reduce: ChannelSum, CountNonzero, SumSquares;
            revive: FiringUpdate, IdleUpdate, IdleOnly, Revive;
            optimizer: ClipGrads, Sgd, Adam, Lion;
            constraint: MaxNorm, ProjectGrad;
            data: GatherBatch;
            corrupt: GaussianNoise;
            missing: MissingPixels, FillMissing, KnownValues, KeepKnown;
            bicubic: BicubicDownUp;
            local_contrast: LocalContrast;
            pixel_shuffle: PixelShuffleFwd, PixelShuffleBwd;
        }
    };
}
pub(crate) use operations;

macro_rules! exports {
    ($($file:ident: $($operation:ident),*;)*) => {
        $(pub use $file::{$($operation),*};)*

        /// Every kernel.
        pub fn kernels() -> impl Iterator<Item = Kernel> {
            [$($file::KERNELS),*].into_iter().flatten().copied()
        }
    };
}
operations!(exports);

/// Declares the kernels that a file of operations dispatches, by the names of their shaders.
macro_rules! shaders {
    ($($kernel:ident $name:literal),* $(,)?) => {
        #[allow(missing_docs, non_upper_case_globals)] // kernels have the names of operations
        impl crate::gpu::Kernel {
            $(pub const $kernel: Self = Self::new($name);)*
        }

        /// The kernels of this file.
        pub(super) const KERNELS: &[crate::gpu::Kernel] = &[$(crate::gpu::Kernel::$kernel),*];
    };
}
use shaders;

/// The views of an operation. `operation!` implements it.
pub trait Views: Clone {
    /// Calls `f` with every view and its kind of access.
    fn visit(&mut self, f: &mut dyn FnMut(&mut View, Access));

    /// All views with their kinds of access.
    fn views(&self) -> Vec<(View, Access)> {
        let mut found = Vec::new();
        self.clone().visit(&mut |view, access| found.push((*view, access)));
        found
    }
}

/// The minimum work of an operation, from which profiles compute its roofline efficiency.
///
/// `program/mod.rs` calls it for every operation, so a new operation does not compile without it.
pub trait Work: Views {
    /// Number of floating-point operations. An addition, a multiplication, a comparison, a square
    /// root and an exponential count as 1 each. A matrix product or a convolution counts as
    /// 2·N·P·Q·K·R·S·C/groups, including taps on padding, but not bias and activation. Integer work
    /// (indices, random bits, ranks) counts as 0.
    fn flops(&self) -> f64;

    /// Number of bytes moved: those of every view that is read or written, and twice those of views
    /// that are updated in place. Scratch memory counts as 0.
    fn bytes(&self) -> f64 {
        let bytes = |(view, access): (View, Access)| {
            let times = match access {
                Access::Read | Access::Write => 1,
                Access::Update => 2,
                Access::Scratch => 0,
            };
            times * view.len as u64 * view.element()
        };
        self.views().into_iter().map(bytes).sum::<u64>() as f64
    }

    /// A short description of the sizes, such as `3x32x32-32x32x32 k3x3 n128`: input, output,
    /// kernel, batch.
    fn sizes(&self) -> String;

    /// The matrix product that computes the operation. None if it is not a matrix product.
    fn product(&self) -> Option<Product> {
        None
    }

    /// The operation on its own buffers for a batch of `n`, for benchmarks. Operations in the
    /// training steps of the workloads do not need one. A test checks that all others have one.
    fn alone(_n: usize) -> Vec<Alone<Self>> {
        Vec::new()
    }
}

/// Floating-point operations for `elements` elements with `flops` each.
fn each(elements: usize, flops: usize) -> f64 {
    elements as f64 * flops as f64
}

/// Describes the sizes of an operation on a batch of maps.
fn maps_of(n: usize, dims: Dims) -> String {
    format!("{dims} n{n}")
}

/// Declares the struct of an operation. `reads`, `maybe` (read if there), `updates` (read and
/// written in place), `writes`, `maybe_writes` (written if there) and `scratch` (GPU workspace that
/// the CPU path does not use) are [`View`]s. The other fields are its sizes and constants.
macro_rules! operation {
    (
        $(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident: $ty:ty),* $(,)? }
        $(reads { $($(#[$rmeta:meta])* $read:ident),* $(,)? })?
        $(maybe { $($(#[$mmeta:meta])* $maybe:ident),* $(,)? })?
        $(updates { $($(#[$umeta:meta])* $update:ident),* $(,)? })?
        $(writes { $($(#[$wmeta:meta])* $write:ident),* $(,)? })?
        $(maybe_writes { $($(#[$wmmeta:meta])* $maybe_write:ident),* $(,)? })?
        $(scratch { $($(#[$smeta:meta])* $scratch:ident),* $(,)? })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        #[allow(missing_docs)] // the operation's formula explains the fields
        pub struct $name {
            $($(#[$fmeta])* pub $field: $ty,)*
            $($($(#[$rmeta])* pub $read: crate::view::View,)*)?
            $($($(#[$mmeta])* pub $maybe: Option<crate::view::View>,)*)?
            $($($(#[$umeta])* pub $update: crate::view::View,)*)?
            $($($(#[$wmeta])* pub $write: crate::view::View,)*)?
            $($($(#[$wmmeta])* pub $maybe_write: Option<crate::view::View>,)*)?
            $($($(#[$smeta])* pub $scratch: crate::view::View,)*)?
        }

        impl crate::ops::Views for $name {
            fn visit(&mut self, f: &mut dyn FnMut(&mut crate::view::View, crate::view::Access)) {
                #[allow(unused_imports)]
                use crate::view::Access;
                let _ = &f;
                $($(f(&mut self.$read, Access::Read);)*)?
                $($(if let Some(view) = &mut self.$maybe { f(view, Access::Read); })*)?
                $($(f(&mut self.$update, Access::Update);)*)?
                $($(f(&mut self.$write, Access::Write);)*)?
                $($(if let Some(view) = &mut self.$maybe_write { f(view, Access::Write); })*)?
                $($(f(&mut self.$scratch, Access::Scratch);)*)?
            }
        }
    };
}
pub(crate) use operation;
