//! The GPU path: kernel sources and their reflection by naga, adapters, and a device that compiles
//! a program once and replays it.

mod adapter;
mod choice;
mod compile;
mod device;
mod kernels;
mod matrices;
mod memory;
mod passes;
mod pipeline_cache;
mod plan;
mod profile;
mod readback;
mod record;
mod reflect;
mod tuned;

pub use adapter::{Adapter, adapters, choose_automatically, find};
pub use choice::{Choice, Traits};
pub use device::{Counters, Gpu};
pub use kernels::{Kernel, Source, Storage};
pub use matrices::{Matrices, Unit};
pub use passes::{Use, passes, uses};
pub use plan::{Plan, fold};
pub use readback::Ticket;
pub(crate) use record::params;
pub use record::{Building, Dispatch, FLAT, Params, Record, Recorder, Waiting};
pub use reflect::{Binding, Immediates, Reflection, Role};
pub use tuned::{BuiltIn, Class, Family, Product, Setting, Tuned};
