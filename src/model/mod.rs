//! From a description to a graph: shapes, parameters, receptive fields, and the model file.

mod decoder;
mod encoder;
mod file;
mod graph;
pub(crate) mod layers;
mod params;
mod receptive;
mod store;
mod summary;

pub use decoder::{Decoder, decoder};
pub use encoder::{HEAD, POOL, Pool, Pooling, classifier, encoder, feature_layer};
pub use file::{Loaded, bundled, bundled_names, load, load_bytes, restorer, save};
pub use graph::{Graph, Node};
pub use params::{Packing, Param, Role};
pub use receptive::{Field, Tiling, receptive_field, tiling};
pub use store::{Purpose, Store};
pub use summary::{Row, Summary, settings, summary};
