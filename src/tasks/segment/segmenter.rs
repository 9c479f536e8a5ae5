//! Classification of every pixel of images of any size.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::Inference;
use crate::infer::conditions::Condition;
use crate::infer::tiles::{Blend, Tiles};
use crate::infer::tiling::Tiling;
use crate::model::{Graph, HEAD, Store, tile_geometry};
use crate::shape::{Dims, Size};

/// A model whose output has the logits of the classes of every pixel, with its values on a device.
#[derive(Clone, Debug)]
pub struct Segmenter {
    tiling: Tiling,
}

impl Segmenter {
    /// A segmenter with the values of a model on a device.
    ///
    /// # Errors
    /// When the model is not a segmenter.
    pub fn new(graph: &Graph, store: &Store) -> Result<Self> {
        Self::check(graph)?;
        Ok(Self { tiling: Tiling::new(graph, store)? })
    }

    /// Checks that a model classifies every pixel.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(graph: &Graph) -> Result<()> {
        let (input, output) = (graph.nodes[0].dims, graph.nodes[graph.output].dims);
        let classes = graph.spec.classes.len();
        if graph.nodes[graph.output].name != HEAD
            || classes == 0
            || output != Dims::new(classes, input.h, input.w)
        {
            return Err(Error::usage(
                "the model does not classify pixels; train one that does with `csae segment train`",
            ));
        }
        Ok(())
    }

    /// The number that the sides of the input of a model must be multiples of.
    ///
    /// # Errors
    /// When it has a fully connected layer, which fixes the size of the input.
    pub fn align(graph: &Graph) -> Result<usize> {
        Ok(tile_geometry(graph)?.align)
    }

    /// Names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.tiling.spec.classes
    }

    /// Number of channels of its input.
    pub const fn channels(&self) -> usize {
        self.tiling.channels
    }

    /// Memory in bytes for an image: the pass over its largest tile, the image and
    /// its probabilities.
    ///
    /// # Errors
    /// When the input of the model cannot have the size of the tile.
    pub fn planned_bytes(&self, device: &Device, size: Size) -> Result<u64> {
        let values = self.channels() + 2 * self.classes().len();
        let image = (size.area() * values) as u64 * 4;
        Ok(self.tiling.planned_bytes(device, size)? + image)
    }

    /// Plans passes over images of one size.
    ///
    /// # Errors
    /// When the input of the model cannot have the size of the tiles.
    pub fn plan(&self, device: &Device, size: Size) -> Result<SegmentationPlan> {
        let tiles = self.tiling.tiles(device, size)?;
        let graph = self.tiling.graph(tiles.size())?;
        Ok(SegmentationPlan { graph, tiles, size, store: self.tiling.store.clone() })
    }
}

/// The tiles of images of one size, and the model for one tile.
#[derive(Debug)]
pub struct SegmentationPlan {
    graph: Graph,
    tiles: Tiles,
    size: Size,
    store: Store,
}

impl SegmentationPlan {
    /// A pass over images of this size, one after the other.
    pub fn pass(&self) -> Pass<'_> {
        let mut inference = Inference::new(&self.graph, &self.store);
        inference.samples_are_tiles = self.tiles.count() > 1;
        Pass { plan: self, inference }
    }
}

/// A pass over images of one size.
#[derive(Debug)]
pub struct Pass<'a> {
    plan: &'a SegmentationPlan,
    inference: Inference<'a>,
}

impl Pass<'_> {
    /// Probabilities of the classes at each pixel (H,W,classes) of an image (H,W,C; 0…1).
    ///
    /// # Errors
    /// When the device fails.
    pub fn probabilities(&mut self, device: &mut Device, pixels: &[f32]) -> Result<Vec<f32>> {
        let SegmentationPlan { graph, tiles, size, .. } = self.plan;
        let (classes, channels) = (graph.spec.classes.len(), graph.nodes[0].dims.c);
        let mut blend = Blend::new(tiles, classes);
        let condition = Condition {
            mean: self.inference.samples_are_tiles.then(|| tiles.mean_of(channels, pixels)),
            ..Condition::default()
        };
        let mut whole = Vec::with_capacity(size.area() * classes);
        for tile in tiles.iter() {
            let tile_pixels = tiles.cut_from(&tile, channels, pixels);
            let mut logits = self.inference.run_output(
                device,
                &tile_pixels,
                std::slice::from_ref(&condition),
            )?;
            logits.chunks_exact_mut(classes).for_each(softmax);
            if let Some(strip) = blend.add(&tile, &logits) {
                whole.extend(strip.pixels);
            }
        }
        Ok(whole)
    }
}

fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let total: f32 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= total);
}

/// The most likely class of each pixel.
pub fn most_likely(probabilities: &[f32], classes: usize) -> Vec<u8> {
    let best = |of: &[f32]| {
        (1..classes).fold(0, |best, class| if of[class] > of[best] { class } else { best }) as u8
    };
    probabilities.chunks_exact(classes).map(best).collect()
}
