//! Feature extraction: the output of a trained encoder for each image, in order.

mod file;
mod parts;

pub use file::{FeatureFormat, FeatureSource, LABELS, NAMES, Writer, npy_header, read};
pub use parts::FeatureParts;

use crate::data::{Sample, patches};
use crate::device::Device;
use crate::error::Result;
use crate::infer::batches::{Inference, MemoryInUse};
use crate::model::{Graph, GridPooling, LayerOp, PoolKind, Store};
use crate::shape::{Dims, to_nchw};

/// Whether the features of images or of their mirror images are extracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orientation {
    /// Images as they are.
    Own,
    /// Images mirrored left to right.
    Mirrored,
}

impl Orientation {
    /// Both orientations.
    pub const ALL: [Self; 2] = [Self::Own, Self::Mirrored];

    /// Mirrors images (N,H,W,C), or leaves them as they are.
    pub fn apply(self, images: &mut [f32], dims: Dims) {
        if self == Self::Own {
            return;
        }
        for row in images.chunks_exact_mut(dims.w * dims.c) {
            for x in 0..dims.w / 2 {
                let (left, right) = row.split_at_mut((dims.w - 1 - x) * dims.c);
                left[x * dims.c..][..dims.c].swap_with_slice(&mut right[..dims.c]);
            }
        }
    }
}

/// Extracts features by an encoder ([`crate::model::encoder`]).
#[derive(Debug)]
pub struct Extractor<'a> {
    inference: Inference<'a>,
    /// For each pooled layer the number of its values in the features of an image, and the factor
    /// that turns average pooling into sum pooling. Empty without sum pooling.
    sums: Vec<(usize, f32)>,
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
        let mut sums = Vec::new();
        if let Some(pooling @ GridPooling { how: PoolKind::Sum, .. }) = pooling {
            let pools = match node.op {
                Some(LayerOp::Concat(_)) => &node.inputs[..],
                _ => std::slice::from_ref(&graph.output),
            };
            for pool in pools {
                let pool = &graph.nodes[*pool];
                let cell = pooling.cell(graph.nodes[pool.inputs[0]].dims)?;
                sums.push((pool.dims.len(), cell as f32));
            }
        }
        Ok(Self { inference: Inference::new(graph, store), sums, dims: node.dims })
    }

    /// Chooses the batch size that fits into memory; see [`Inference::fit`].
    ///
    /// # Errors
    /// When not even one image fits.
    pub fn fit(&mut self, device: &Device, in_use: MemoryInUse) -> Result<()> {
        self.inference.fit(device, in_use)
    }

    /// Extracts the features of all images, or of their mirror images, in order. Calls `take` for
    /// each batch with the number of its first image and the features (N,C,H,W).
    ///
    /// # Errors
    /// When an image cannot be read, the device fails, or `take` fails.
    pub fn each(
        &mut self,
        device: &mut Device,
        sample: &Sample,
        orientation: Orientation,
        mut take: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let size = self.inference.graph.nodes[0].dims;
        let mut done = 0;
        sample.each_part(|images, chosen| {
            for chosen in chosen.chunks(self.inference.batch(device)) {
                let mut x = patches::cut(images, chosen, size.size());
                orientation.apply(&mut x, size);
                let mut values = to_nchw(&self.inference.run_code(device, &x, &[])?, self.dims);
                if !self.sums.is_empty() {
                    values.chunks_exact_mut(self.dims.len()).for_each(|image| self.to_sums(image));
                }
                take(done, &values)?;
                done += chosen.len();
            }
            Ok(())
        })
    }

    /// Turns the means of an image's features into sums.
    fn to_sums(&self, mut image: &mut [f32]) {
        for (count, factor) in &self.sums {
            let (own, rest) = image.split_at_mut(*count);
            own.iter_mut().for_each(|value| *value *= factor);
            image = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_mirrored_pixel_by_pixel() {
        let dims = Dims::new(2, 2, 3);
        let mut images: Vec<f32> = (0..24_u8).map(f32::from).collect();
        let own = images.clone();
        Orientation::Own.apply(&mut images, dims);
        assert_eq!(images, own);
        Orientation::Mirrored.apply(&mut images, dims);
        assert_eq!(images[..12], [4., 5., 2., 3., 0., 1., 10., 11., 8., 9., 6., 7.]);
        assert_eq!(images[12..18], [16., 17., 14., 15., 12., 13.]);
        Orientation::Mirrored.apply(&mut images, dims);
        assert_eq!(images, own);
    }
}
