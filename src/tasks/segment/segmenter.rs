//! Classification of every pixel of images of any size.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::Inference;
use crate::infer::tiles::{Blend, Tiles};
use crate::model::{Graph, HEAD, Store, TileGeometry, tile_geometry};
use crate::shape::Dims;
use crate::spec::ModelSpec;

/// Side of a tile in pixels: a larger one adds memory but hardly any speed.
const TILE: usize = 512;
/// Minimum side of a tile in pixels. Smaller tiles would consist mostly of halo.
const MIN_TILE: usize = 64;

/// A model whose output has the logits of the classes of every pixel, with its values on a device.
#[derive(Clone, Debug)]
pub struct Segmenter {
    spec: ModelSpec,
    store: Store,
    channels: usize,
    align: usize,
    halo: usize,
}

impl Segmenter {
    /// A segmenter with the values of a model on a device.
    ///
    /// # Errors
    /// When the model is not a segmenter.
    pub fn new(graph: &Graph, store: &Store) -> Result<Self> {
        Self::check(graph)?;
        let input = graph.nodes[0].dims;
        let TileGeometry { align, halo } = tile_geometry(graph)?;
        Ok(Self { spec: graph.spec.clone(), store: store.clone(), channels: input.c, align, halo })
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
        &self.spec.classes
    }

    /// Number of channels of its input.
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// Memory in bytes for an image of h×w pixels: the pass over its largest tile, the image and
    /// its probabilities.
    ///
    /// # Errors
    /// When the input of the model cannot have the size of the tile.
    pub fn planned_bytes(&self, device: &Device, h: usize, w: usize) -> Result<u64> {
        let most = self.tile(device)?;
        let [tile_h, tile_w] = [h, w].map(|side| side.min(most).next_multiple_of(self.align));
        let graph = Graph::new(&self.spec, Dims::new(self.channels, tile_h, tile_w))?;
        let image = (h * w) as u64 * 4 * (self.channels + 2 * self.spec.classes.len()) as u64;
        Ok(Inference::new(&graph, &self.store).planned_bytes(device, 1) + image)
    }

    /// Side of a tile: [`TILE`], or less if the device cannot bind or hold its buffers.
    fn tile(&self, device: &Device) -> Result<usize> {
        let mut side = TILE;
        loop {
            let whole = side.next_multiple_of(self.align);
            let graph = Graph::new(&self.spec, Dims::new(self.channels, whole, whole))?;
            if side <= MIN_TILE || Inference::new(&graph, &self.store).fits(device) {
                return Ok(side);
            }
            side /= 2;
        }
    }

    /// Plans passes over images of h×w pixels.
    ///
    /// # Errors
    /// When the input of the model cannot have the size of the tiles.
    pub fn plan(&self, device: &Device, h: usize, w: usize) -> Result<SegmentationPlan> {
        let tiles = Tiles::new(h, w, self.tile(device)?, self.halo, self.align)?;
        let (tile_h, tile_w) = tiles.size();
        let graph = Graph::new(&self.spec, Dims::new(self.channels, tile_h, tile_w))?;
        Ok(SegmentationPlan { graph, tiles, size: (h, w), store: self.store.clone() })
    }
}

/// The tiles of images of one size, and the model for one tile.
#[derive(Debug)]
pub struct SegmentationPlan {
    graph: Graph,
    tiles: Tiles,
    size: (usize, usize),
    store: Store,
}

impl SegmentationPlan {
    /// A pass over images of this size, one after the other.
    pub fn pass(&self) -> Pass<'_> {
        Pass { plan: self, inference: Inference::new(&self.graph, &self.store) }
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
        let SegmentationPlan { graph, tiles, size: (h, w), .. } = self.plan;
        let (classes, channels) = (graph.spec.classes.len(), graph.nodes[0].dims.c);
        let mut blend = Blend::new(tiles, classes);
        let mut whole = Vec::with_capacity(h * w * classes);
        for tile in tiles.iter() {
            let mut logits =
                self.inference.run_output(device, &tiles.cut_from(&tile, channels, pixels), &[])?;
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
