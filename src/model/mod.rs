//! A model: its configuration, its layers, and the graph made from them, with shapes, parameters
//! and receptive fields; and the model file.

mod corruption;
mod decoder;
mod description;
mod encoder;
mod file;
mod graph;
pub mod keys;
pub(crate) mod layers;
mod params;
mod receptive;
mod state_dict;
mod store;
mod summary;
mod values;

pub use corruption::{CorruptionSpec, NO_CORRUPTION, Task};
pub use decoder::{Context, Decoder, decoder};
pub(crate) use description::spelling_for_signals;
pub use description::{LabelReading, LayerSpec, ModelSpec};
pub use encoder::{
    GridPooling, HEAD, POOL, PoolKind, classifier, encoder, encoder_of_several, feature_layer,
};
pub use file::{LoadedModel, bundled, bundled_names, load, load_bytes, restorer, save, to_bytes};
pub use graph::{Graph, Node};
pub use layers::{
    ActivationSpec, AddSpec, AvgPool2dSpec, BatchTopKSpec, ConcatSpec, Conv2dSpec,
    ConvTranspose2dSpec, DropoutSpec, KnownSpec, L2Pool2dSpec, LayerOp, LifetimeWtaSpec,
    LinearSpec, ListaSpec, MaxPool2dSpec, MaxUnpool2dSpec, Pool2dSpec, Selection,
    SoftThresholdSpec, SpatialWtaSpec, SubSpec, TopKSpec, UpsampleSpec, WhitenSpec,
};
pub(crate) use layers::{LayerKind, Places, threshold_rate};
pub use params::{Packing, Param, ParamRole};
pub use receptive::{ReceptiveField, TileGeometry, receptive_field, tile_geometry};
pub use store::{Purpose, Store};
pub use summary::{LayerRow, ModelSummary, settings, summary};
pub use values::{FilterCount, Init, Pad, Pair};
