//! Programs. A program is a list of calls, and a [`Call`] is any operation. Two interpreters run
//! it: the GPU records it as dispatches, the CPU path computes it.

mod cost;

pub use cost::snake;

use crate::gpu::{Product, Record, Recorder};
use crate::ops::{Alone, Views, Work, operations};
use crate::profile::Operation;
use crate::reference::{Memory, Reference};
use crate::view::{Access, View};

/// Declares the enum over the table of operations and its dispatch to both interpreters.
macro_rules! calls {
    ($($file:ident: $($name:ident),*;)*) => {
        /// Any operation, ready to run.
        #[derive(Clone, Debug)]
        #[allow(missing_docs)]
        pub enum Call { $($($name(crate::ops::$name),)*)* }

        impl Call {
            /// Every operation's name.
            pub const NAMES: &[&str] = &[$($(stringify!($name)),*),*];

            /// The operation's name.
            pub fn name(&self) -> &'static str {
                match self { $($(Self::$name(_) => stringify!($name),)*)* }
            }

            /// Calls `f` with every view and its kind of access.
            pub fn visit(&mut self, f: &mut dyn FnMut(&mut View, Access)) {
                match self { $($(Self::$name(op) => op.visit(f),)*)* }
            }

            /// All views with their kinds of access.
            pub fn views(&self) -> Vec<(View, Access)> {
                match self { $($(Self::$name(op) => op.views(),)*)* }
            }

            fn flops(&self) -> f64 {
                match self { $($(Self::$name(op) => op.flops(),)*)* }
            }

            fn bytes(&self) -> f64 {
                match self { $($(Self::$name(op) => op.bytes(),)*)* }
            }

            /// A short description of the sizes, such as `3x32x32-32x32x32 k3x3 n128`: input,
            /// output, kernel, batch.
            pub fn sizes(&self) -> String {
                match self { $($(Self::$name(op) => op.sizes(),)*)* }
            }

            /// The matrix product that computes the operation. None if it is not a matrix product.
            pub fn product(&self) -> Option<Product> {
                match self { $($(Self::$name(op) => op.product(),)*)* }
            }

            /// All operations that are benchmarked on their own buffers, for a batch of `n`.
            pub fn alone(n: usize) -> Vec<Alone<Self>> {
                let mut all = Vec::new();
                $($(all.extend(<crate::ops::$name>::alone(n).into_iter().map(|one| Alone {
                    operation: Self::$name(one.operation),
                    buffers: one.buffers,
                }));)*)*
                all
            }

            /// Appends the operation's dispatches.
            pub fn record(&self, recorder: &mut Recorder) {
                match self { $($(Self::$name(op) => op.record(recorder),)*)* }
            }

            /// Computes the operation on the CPU.
            pub fn run<T: crate::linalg::real::Real>(&self, memory: &mut Memory<T>) {
                match self { $($(Self::$name(op) => op.run(memory),)*)* }
            }
        }

        $($(impl From<crate::ops::$name> for Call {
            fn from(op: crate::ops::$name) -> Self { Self::$name(op) }
        })*)*
    };
}

operations!(calls);

impl Record for Call {
    fn record(&self, recorder: &mut Recorder) {
        self.record(recorder);
    }

    fn operation(&self) -> Operation {
        self.operation()
    }
}
