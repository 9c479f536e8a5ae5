//! Features: what a trained encoder gives for each image, image by image, in order.

mod file;

pub use file::{FeatureFormat, FeatureSource, Writer, npy_header, read};

use crate::data::{Sample, patches};
use crate::device::Device;
use crate::error::Result;
use crate::infer::batches::{Inference, MemoryInUse};
use crate::model::{Graph, GridPooling, PoolKind, Store};
use crate::shape::{Dims, to_nchw};

/// Runs images through an encoder ([`crate::model::encoder`]).
#[derive(Debug)]
pub struct Extractor<'a> {
    inference: Inference<'a>,
    /// What means are multiplied by, to be sums.
    scale: f32,
    /// Size of an image's features.
    pub dims: Dims,
}

impl<'a> Extractor<'a> {
    /// For an encoder whose values are on the device; `pooling` is that which it was made with.
    ///
    /// # Errors
    /// When the pooling is none that the encoder's maps can have.
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

    /// Takes as many images at once as fit beside what else is taken, in bytes.
    ///
    /// # Errors
    /// When not one fits.
    pub fn fit(&mut self, device: &Device, beside: MemoryInUse) -> Result<()> {
        self.inference.fit(device, beside)
    }

    /// Gives the features of the images in order to `take`: the number of the first, and their
    /// values, C,H,W of each.
    ///
    /// # Errors
    /// When an image cannot be read, the device fails, or `take` does.
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
                let x = patches::cut(images, chosen, size.h, size.w);
                let mut values = to_nchw(&self.inference.run_code(device, &x, &[])?, self.dims);
                values.iter_mut().for_each(|value| *value *= self.scale);
                take(done, &values)?;
                done += chosen.len();
            }
            Ok(())
        })
    }
}
