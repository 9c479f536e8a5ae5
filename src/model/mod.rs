//! A model: its description, its layers, and from them the graph: shapes, parameters, receptive
//! fields. And the model file.

mod corruption;
mod decoder;
mod description;
mod encoder;
mod file;
mod graph;
pub(crate) mod layers;
mod params;
mod receptive;
mod store;
mod summary;
mod values;

pub use corruption::{CorruptionSpec, NO_CORRUPTION, Task};
pub use decoder::{Decoder, decoder};
pub use description::{LayerSpec, ModelSpec};
pub use encoder::{HEAD, POOL, Pool, Pooling, classifier, encoder, feature_layer};
pub use file::{Loaded, bundled, bundled_names, load, load_bytes, restorer, save};
pub use graph::{Graph, Node};
pub use layers::{
    ActivationSpec, AddSpec, AvgPool2dSpec, BatchTopKSpec, ConcatSpec, Conv2dSpec,
    ConvTranspose2dSpec, DropoutSpec, KnownSpec, L2Pool2dSpec, LayerOp, LifetimeWtaSpec,
    LinearSpec, ListaSpec, MaxPool2dSpec, MaxUnpool2dSpec, Pool2dSpec, Selection,
    SoftThresholdSpec, SpatialWtaSpec, SubSpec, TopKSpec, UpsampleSpec, WhitenSpec,
};
pub(crate) use layers::{LayerKind, Places, threshold_rate};
pub use params::{Packing, Param, Role};
pub use receptive::{Field, Tiling, receptive_field, tiling};
pub use store::{Purpose, Store};
pub use summary::{Row, Summary, settings, summary};
pub use values::{Filters, Init, Pad, Pair};
