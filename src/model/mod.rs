//! From a description to calls: the graph with its shapes, the parameters, and the tape of a
//! forward or training pass with its memory planned.

mod builder;
mod decoder;
mod encoder;
mod file;
mod graph;
mod layers;
mod params;
mod receptive;
mod store;
mod summary;
mod tape;

pub use builder::{Auxiliary, Builder, Mode, Penalty, PenaltyKind, Revival};
pub use decoder::{Decoder, decoder};
pub use encoder::{HEAD, POOL, Pool, Pooling, classifier, encoder, feature_layer};
pub use file::{Loaded, bundled, load, load_bytes, restorer, save};
pub use graph::{Graph, Node};
pub use params::{Packing, Param, Role};
pub use receptive::{Field, receptive_field};
pub use store::{Purpose, Store};
pub use summary::{Row, Summary, settings, summary};
pub use tape::{Memory, Tape};
