//! A program is a list of calls. A [`Call`] is any operation, and both interpreters run it: the GPU
//! records it as dispatches, the CPU path computes it.

mod cost;

pub use cost::snake;

use crate::gpu::{Product, Record, Recorder};
use crate::ops::{
    ActivationBwd, ActivationBwdOutput, ActivationFwd, Adam, AddAssign, AvgPool2dBwd, AvgPool2dFwd,
    BatchTopKMask, BicubicDownUp, ChannelSum, ClipGrads, Combine, Conv2dBwdInput, Conv2dBwdWeight,
    Conv2dFwd, Conv2dMaxPoolFwd, CopyChannels, CountNonzero, CrossEntropy, Dice, DropoutMask,
    FillMissing, FiringUpdate, GatherBatch, GaussianNoise, GridDetection, IdleOnly, IdleUpdate,
    KlPenalty, L1Penalty, L2Pool2dBwd, L2Pool2dFwd, LifetimeWtaMask, LocalContrast, Loss,
    MaskApply, MaxNorm, MaxPool2dBwd, MaxPool2dFwd, MaxUnpool2dBwd, MaxUnpool2dFwd, MissingPixels,
    PixelCrossEntropy, ProjectGrad, Revive, Sgd, SoftThresholdBwd, SoftThresholdFwd,
    SpatialWtaMask, SumSquares, ThresholdMask, TopKMask, UpsampleNearest2dBwd,
    UpsampleNearest2dFwd,
};
use crate::profile::Operation;
use crate::reference::{Memory, Reference};
use crate::view::{Access, View};

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
            pub fn record(&self, recorder: &mut Recorder) {
                match self { $(Self::$name(op) => op.record(recorder),)* }
            }

            /// Computes the operation on the CPU.
            pub fn run<T: crate::linalg::real::Real>(&self, memory: &mut Memory<T>) {
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
    pub fn product(&self) -> Option<Product> {
        match self {
            Self::Conv2dFwd(op) => op.product(),
            Self::Conv2dMaxPoolFwd(op) => op.product(),
            Self::Conv2dBwdInput(op) => op.product(),
            Self::Conv2dBwdWeight(op) => op.product(),
            _ => None,
        }
    }

    /// Every view with how it is used.
    pub fn views(&self) -> Vec<(View, Access)> {
        let mut found = Vec::new();
        self.clone().visit(&mut |view, access| found.push((*view, access)));
        found
    }
}

impl Record for Call {
    fn record(&self, recorder: &mut Recorder) {
        self.record(recorder);
    }

    fn operation(&self) -> Operation {
        self.operation()
    }
}
