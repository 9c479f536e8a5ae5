//! The operations. An operation is a plain struct: its sizes and the views of memory that it reads
//! and writes. Two interpreters run it: `record` turns it into dispatches of WGSL kernels (here,
//! one file an operation), and [`crate::reference`] computes it on the CPU. A [`Call`] is any of
//! them; a program is a list of calls.

// Formulas index with brackets: y[n,p,q,k] is no link.
#![allow(rustdoc::broken_intra_doc_links)]

mod activation;
mod bicubic;
mod constraint;
mod conv2d;
mod corrupt;
mod cost;
mod data;
mod detection;
mod elementwise;
mod local_contrast;
mod loss;
mod mask;
mod missing;
mod optimizer;
mod pool2d;
mod reduce;
mod revive;
mod segmentation;
mod soft_threshold;
mod unpool2d;
mod view;

pub use activation::{Activation, ActivationBwd, ActivationBwdOutput, ActivationFwd};
pub use bicubic::BicubicDownUp;
pub use constraint::{MaxNorm, ProjectGrad};
pub use conv2d::{Conv2dBwdInput, Conv2dBwdWeight, Conv2dFwd, Conv2dMaxPoolFwd};
pub use corrupt::GaussianNoise;
pub use cost::{Cost, snake};
pub use data::{Augment, Draw, GatherBatch};
pub use detection::{CELL, GridDetection, SIZES};
pub use elementwise::{AddAssign, Combine, CopyChannels};
pub use local_contrast::LocalContrast;
pub use loss::{CrossEntropy, KlPenalty, L1Penalty, Loss, LossKind};
pub use mask::{
    BatchTopKMask, DropoutMask, LifetimeWtaMask, MaskApply, SpatialWtaMask, ThresholdMask, TopKMask,
};
pub use missing::{FillMissing, MissingPixels};
pub use optimizer::{Adam, ClipGrads, Sgd};
pub use pool2d::{
    AvgPool2dBwd, AvgPool2dFwd, L2Pool2dBwd, L2Pool2dFwd, MaxPool2dBwd, MaxPool2dFwd,
};
pub use reduce::{ChannelSum, CountNonzero, SCALAR_PARTIALS, SumSquares, WINDOW};
pub use revive::{FiringUpdate, IdleOnly, IdleUpdate, Revive};
pub use segmentation::{Dice, PixelCrossEntropy};
pub use soft_threshold::{SoftThresholdBwd, SoftThresholdFwd};
pub use unpool2d::{MaxUnpool2dBwd, MaxUnpool2dFwd, UpsampleNearest2dBwd, UpsampleNearest2dFwd};
pub use view::{Access, Buffer, StepParams, View};

/// Declares an operation's struct. `reads`, `maybe` (may be absent), `updates` (read and written in
/// place), `writes` and `scratch` (GPU workspace, of no meaning to the CPU path) are [`View`]s; the
/// rest are its sizes and constants.
macro_rules! operation {
    (
        $(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident: $ty:ty),* $(,)? }
        $(reads { $($(#[$rmeta:meta])* $read:ident),* $(,)? })?
        $(maybe { $($(#[$mmeta:meta])* $maybe:ident),* $(,)? })?
        $(updates { $($(#[$umeta:meta])* $update:ident),* $(,)? })?
        $(writes { $($(#[$wmeta:meta])* $write:ident),* $(,)? })?
        $(scratch { $($(#[$smeta:meta])* $scratch:ident),* $(,)? })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        #[allow(missing_docs)] // the operation's formula says what each is
        pub struct $name {
            $($(#[$fmeta])* pub $field: $ty,)*
            $($($(#[$rmeta])* pub $read: crate::ops::View,)*)?
            $($($(#[$mmeta])* pub $maybe: Option<crate::ops::View>,)*)?
            $($($(#[$umeta])* pub $update: crate::ops::View,)*)?
            $($($(#[$wmeta])* pub $write: crate::ops::View,)*)?
            $($($(#[$smeta])* pub $scratch: crate::ops::View,)*)?
        }

        impl $name {
            /// Visits every view with how it is used.
            pub fn visit(&mut self, f: &mut dyn FnMut(&mut crate::ops::View, crate::ops::Access)) {
                #[allow(unused_imports)]
                use crate::ops::Access;
                let _ = &f;
                $($(f(&mut self.$read, Access::Read);)*)?
                $($(if let Some(view) = &mut self.$maybe { f(view, Access::Read); })*)?
                $($(f(&mut self.$update, Access::Update);)*)?
                $($(f(&mut self.$write, Access::Write);)*)?
                $($(f(&mut self.$scratch, Access::Scratch);)*)?
            }
        }
    };
}
pub(crate) use operation;

/// One line an operation: the enum over all of them and its dispatch to both interpreters.
macro_rules! calls {
    ($($name:ident),* $(,)?) => {
        /// Any operation, ready to run.
        #[derive(Clone, Debug)]
        #[allow(missing_docs)]
        pub enum Call { $($name($name),)* }

        impl Call {
            /// Every operation's name.
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// The operation's name.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }

            /// Visits every view with how it is used.
            pub fn visit(&mut self, f: &mut dyn FnMut(&mut View, Access)) {
                match self { $(Self::$name(op) => op.visit(f),)* }
            }

            /// Appends the operation's dispatches.
            pub fn record(&self, recorder: &mut crate::gpu::Recorder) {
                match self { $(Self::$name(op) => op.record(recorder),)* }
            }

            /// Computes the operation on the CPU.
            pub fn run<T: crate::reference::Real>(&self, memory: &mut crate::reference::Memory<T>) {
                use crate::reference::Reference;
                match self { $(Self::$name(op) => op.run(memory),)* }
            }
        }

        $(impl From<$name> for Call { fn from(op: $name) -> Self { Self::$name(op) } })*
    };
}

calls! {
    Conv2dFwd, Conv2dMaxPoolFwd, Conv2dBwdInput, Conv2dBwdWeight,
    ActivationFwd, ActivationBwd, ActivationBwdOutput,
    MaxPool2dFwd, MaxPool2dBwd, AvgPool2dFwd, AvgPool2dBwd, L2Pool2dFwd, L2Pool2dBwd,
    MaxUnpool2dFwd, MaxUnpool2dBwd, UpsampleNearest2dFwd, UpsampleNearest2dBwd,
    Combine, AddAssign, CopyChannels,
    DropoutMask, TopKMask, BatchTopKMask, ThresholdMask, SpatialWtaMask, LifetimeWtaMask, MaskApply,
    SoftThresholdFwd, SoftThresholdBwd,
    Loss, CrossEntropy, PixelCrossEntropy, Dice, GridDetection, L1Penalty, KlPenalty,
    ChannelSum, CountNonzero, SumSquares,
    FiringUpdate, IdleUpdate, IdleOnly, Revive,
    ClipGrads, Sgd, Adam, MaxNorm, ProjectGrad,
    GatherBatch, GaussianNoise, MissingPixels, FillMissing, BicubicDownUp, LocalContrast,
}

impl Call {
    /// The product of matrices that it is, if it is one.
    pub fn product(&self) -> Option<crate::gpu::Product> {
        conv2d::product(self)
    }

    /// Every view with how it is used.
    pub fn views(&self) -> Vec<(View, Access)> {
        let mut found = Vec::new();
        self.clone().visit(&mut |view, access| found.push((*view, access)));
        found
    }
}
