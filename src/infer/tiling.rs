//! How a convolutional model runs on images of any size: the size of its tiles, and the graph for
//! one of them.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::Inference;
use crate::infer::tiles::Tiles;
use crate::model::{Graph, Store, TileGeometry, tile_geometry};
use crate::shape::{Dims, Size};
use crate::spec::ModelSpec;

/// Maximum side of a tile in pixels. Larger tiles waste less on halos, but need more memory.
pub const MAX_TILE: usize = 512;
/// Minimum side of a tile that is tried if a device cannot hold a larger one. A halo would take
/// up all of a smaller tile.
const MIN_TILE: usize = 64;

/// A convolutional model with its values on a device, for images of any size.
#[derive(Clone, Debug)]
pub struct Tiling {
    /// The description of the model.
    pub spec: ModelSpec,
    /// The values of its parameters and states.
    pub store: Store,
    /// Number of channels of its input.
    pub channels: usize,
    /// Alignment, halo, and whether the model can be tiled.
    pub geometry: TileGeometry,
    /// Maximum side of a tile in pixels.
    pub max_tile: usize,
}

impl Tiling {
    /// The tiling of a model whose values are on a device.
    ///
    /// # Errors
    /// When the model works for one image size only.
    pub fn new(graph: &Graph, store: &Store) -> Result<Self> {
        Ok(Self {
            spec: graph.spec.clone(),
            store: store.clone(),
            channels: graph.nodes[0].dims.c,
            geometry: tile_geometry(graph)?,
            max_tile: MAX_TILE,
        })
    }

    /// The tiles of an image: one if it is small or a layer depends on whole maps.
    ///
    /// # Errors
    /// When the image has no pixels, the model cannot have the size of a tile, or a layer depends
    /// on whole maps but the device cannot hold the whole image.
    pub fn tiles(&self, device: &Device, image: Size) -> Result<Tiles> {
        let TileGeometry { align, halo, .. } = self.geometry;
        Tiles::new(image, self.side(device, image)?, halo, align)
    }

    /// The model for a tile of this size.
    ///
    /// # Errors
    /// When the model cannot have this size.
    pub fn graph(&self, tile: Size) -> Result<Graph> {
        Graph::new(&self.spec, Dims::of(tile, self.channels))
    }

    /// Memory in bytes for the pass over the largest tile of an image.
    ///
    /// # Errors
    /// As [`Tiling::tiles`].
    pub fn planned_bytes(&self, device: &Device, image: Size) -> Result<u64> {
        let side = self.side(device, image)?;
        let graph = self.graph(self.aligned(image.at_most(Size::new(side, side))))?;
        Ok(Inference::new(&graph, &self.store).planned_bytes(device, 1))
    }

    fn aligned(&self, size: Size) -> Size {
        size.map(|side| side.next_multiple_of(self.geometry.align))
    }

    /// Side of a tile: that of the image if a layer depends on whole maps. Otherwise
    /// [`Tiling::max_tile`] pixels, or less if the device cannot bind or hold its buffers.
    fn side(&self, device: &Device, image: Size) -> Result<usize> {
        let fits = |size: Size| -> Result<bool> {
            Ok(Inference::new(&self.graph(size)?, &self.store).fits(device))
        };
        if self.geometry.whole {
            if !fits(self.aligned(image))? {
                return Err(Error::usage(format!(
                    "a layer of the model depends on the whole image, and {image} pixels need more \
                     memory than the device has; use a smaller image"
                )));
            }
            return Ok(image.h.max(image.w));
        }
        let mut side = self.max_tile;
        while side > MIN_TILE && !fits(self.aligned(Size::new(side, side)))? {
            side /= 2;
        }
        Ok(side)
    }
}
