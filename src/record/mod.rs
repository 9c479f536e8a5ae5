//! Recording a graph's passes: the calls of its layers in forward and backward order, on a tape of
//! virtual buffers that are then laid into as few real ones as their lifetimes allow.

mod builder;
mod layers;
mod tape;

pub use builder::{Auxiliary, Builder, Mode, Penalty, PenaltyKind, Resurrection};
pub use tape::{Memory, Tape};
