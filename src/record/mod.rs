//! Recording the passes of a graph: the calls of its layers in forward and backward order, on a
//! tape of virtual buffers. The tape then maps the virtual buffers to as few real ones as their
//! lifetimes allow.

mod builder;
mod layers;
mod tape;

pub use builder::{Auxiliary, Builder, Mode, Penalty, PenaltyKind, Resurrection};
pub use tape::{Memory, Tape};
