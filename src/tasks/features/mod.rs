//! Feature extraction: the output of a trained encoder for each image, in order.

mod file;
mod parts;

pub use file::{FeatureFormat, FeatureSource, LABELS, NAMES, Writer, npy_header, read};
pub use parts::FeatureParts;

use crate::data::{Sample, patches};
use crate::device::Device;
use crate::error::Result;
use crate::infer::batches::{Inference, MemoryInUse};
use crate::model::{Graph, GridPooling, PoolKind, Store};
use crate::shape::{Dims, to_nchw};

/// Extracts features by an encoder ([`crate::model::encoder`]).
#[derive(Debug)]
pub struct Extractor<'a> {
    inference: Inference<'a>,
    /// Factor that turns average pooling into sum pooling; otherwise 1.
    scale: f32,
    /// Size of the features of an image.
    pub dims: Dims,
}

impl<'a> Extractor<'a> {
    /// An extractor for an encoder whose values are on the device. `pooling` is the pooling that
    /// the encoder was made with.
    ///
    /// # Errors
    /// When the pooling grid does not fit the encoder's maps.
    pub fn new(graph: &'a Graph, store: &Store, pooling: Option<GridPooling>) -> Result<Self> {
        let node = &graph.nodes[graph.output];
        let scale = match pooling {
            Some(pooling @ GridPooling { how: PoolKind::Sum, .. }) => {
                pooling.cell(graph.nodes[node.inputs[0]].dims)? as f32
            }
            _ => 1.0,
        };
        Ok(Self { inference: Inference::new(graph, store), scale, dims: node.dims })
    }

    /// Chooses the batch size that fits into memory; see [`Inference::fit`].
    ///
    /// # Errors
    /// When not even one image fits.
    pub fn fit(&mut self, device: &Device, in_use: MemoryInUse) -> Result<()> {
        self.inference.fit(device, in_use)
    }

    /// Extracts the features of all images in order. Calls `take` for each batch with the number of
    /// its first image and the features (N,C,H,W).
    ///
    /// # Errors
    /// When an image cannot be read, the device fails, or `take` fails.
    pub fn each(
        &mut self,
        device: &mut Device,
        sample: &Sample,
        mut take: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let size = self.inference.graph.nodes[0].dims;
        let mut done = 0;
        sample.each_part(|images, chosen| {
            for chosen in chosen.chunks(self.inference.batch(device)) {
                let x = patches::cut(images, chosen, size.size());
                let mut values = to_nchw(&self.inference.run_code(device, &x, &[])?, self.dims);
                values.iter_mut().for_each(|value| *value *= self.scale);
                take(done, &values)?;
                done += chosen.len();
            }
            Ok(())
        })
    }
}
