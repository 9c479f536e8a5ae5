//! From a model configuration to a graph with shapes and parameters; receptive fields; the model
//! file.

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
pub use encoder::{GridPooling, HEAD, POOL, PoolKind, classifier, encoder, feature_layer};
pub use file::{LoadedModel, bundled, load, load_bytes, restorer, save};
pub use graph::{Graph, Node};
pub use params::{Packing, Param, ParamRole};
pub use receptive::{ReceptiveField, TileGeometry, receptive_field, tile_geometry};
pub use store::{Purpose, Store};
pub use summary::{LayerRow, ModelSummary, settings, summary};
