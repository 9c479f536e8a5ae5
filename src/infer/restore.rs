//! Restoration of images of any size by a convolutional model: overlapping tiles, joined without
//! seams.

use crate::advice::Advice;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::Inference;
use crate::infer::conditions::Condition;
use crate::infer::dihedral::Dihedral;
use crate::infer::tiles::{Blend, ImageTile, Strip, Tiles};
use crate::model::{Graph, Store, TileGeometry, tile_geometry};
use crate::raster::corrupt::Mask;
use crate::raster::crop;
use crate::shape::Dims;
use crate::spec::{ModelSpec, Task};

/// Maximum side of a tile in pixels. Larger tiles waste less on halos, but need more memory.
const MAX_TILE: usize = 512;
/// Minimum side of a tile that is tried if a device cannot hold a larger one. A halo would take
/// up all of a smaller tile.
const MIN_TILE: usize = 64;

/// A trained restoration model.
#[derive(Clone, Debug)]
pub struct Restorer {
    spec: ModelSpec,
    store: Store,
    channels: usize,
    align: usize,
    halo: usize,
    /// Maximum side of a tile in pixels.
    max_tile: usize,
    /// Whether to average the results for all eight dihedral transforms of each tile (flips and
    /// rotations). This is the geometric self-ensemble of Timofte et al., "Seven Ways to Improve
    /// Example-Based Single Image Super Resolution", CVPR 2016. It takes eight times as long.
    pub ensemble: bool,
}

/// Checks that a model was trained for a restoration task.
///
/// # Errors
/// When it was trained for another task or for none.
pub fn check_task(spec: &ModelSpec, task: Task) -> Result<()> {
    match spec.undoes.task() {
        Some(trained) if trained == task => Ok(()),
        Some(other) => Err(Error::usage(format!(
            "the model was trained to {other}, not to {task}: use the bundled model {task}, or \
             {} {task}",
            Advice::TrainForTask
        ))),
        None => Err(Error::usage(format!(
            "the model was not trained for restoration: use the bundled model {task}, or {} \
             {task}",
            Advice::TrainForTask
        ))),
    }
}

/// The code of a part of an image.
#[derive(Clone, Debug)]
pub struct Code {
    /// The values in memory order (H,W,C).
    pub values: Vec<f32>,
    /// Size of the code.
    pub dims: Dims,
    /// Height and width of the part of the image.
    pub of: (usize, usize),
}

impl Restorer {
    /// A restorer from a model whose values are on a device.
    ///
    /// # Errors
    /// When the model works for one image size only.
    pub fn new(graph: &Graph, store: &Store) -> Result<Self> {
        let TileGeometry { align, halo } = tile_geometry(graph)?;
        Ok(Self {
            spec: graph.spec.clone(),
            store: store.clone(),
            channels: graph.nodes[0].dims.c,
            align,
            halo,
            max_tile: MAX_TILE,
            ensemble: false,
        })
    }

    /// Number of channels of the model's input.
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// Restores an image (H,W,C; 0–1 scale) of any size.
    ///
    /// `read(y, columns, row)` appends the given columns of row y of the image to `row`. `write`
    /// gets the rows of the result from top to bottom, not clipped. Missing pixels must hold a
    /// guess ([`crate::raster::fill`]); only they are changed.
    ///
    /// A gray model restores each channel of a colour image separately. A model with several
    /// channels gets a gray image in each of them, and the result is the mean over the channels.
    ///
    /// # Errors
    /// When neither the model nor the image is gray and their channels differ, the model is not a
    /// restoration autoencoder, the device fails, or `write` fails.
    pub fn restore(
        &self,
        device: &mut Device,
        [h, w, c]: [usize; 3],
        condition: &Condition,
        mut read: impl FnMut(usize, std::ops::Range<usize>, &mut Vec<f32>),
        mut write: impl FnMut(Strip) -> Result<()>,
    ) -> Result<()> {
        if self.channels != 1 && c != 1 && self.channels != c {
            return Err(Error::usage(format!(
                "the model takes {} channels, but the image has {c}; convert the image, or use a \
                 gray model",
                self.channels
            )));
        }
        let tiles = Tiles::new(h, w, self.tile(device)?, self.halo, self.align)?;
        let (tile_h, tile_w) = tiles.size();
        let graph = Graph::new(&self.spec, Dims::new(self.channels, tile_h, tile_w))?;
        graph.check_autoencoder()?;
        graph.check_reconstructs_images()?;
        // Half of the dihedral transforms exchange height and width.
        let transposed = if self.ensemble && tile_h != tile_w {
            Graph::new(&self.spec, Dims::new(self.channels, tile_w, tile_h))?
        } else {
            graph.clone()
        };
        let mut passes = [&graph, &transposed].map(|graph| Inference::new(graph, &self.store));
        let mut blend = Blend::new(&tiles, c);
        for tile in tiles.iter() {
            let mut pixels = tiles.cut(&tile, c, &mut read);
            let mask = condition.mask.as_ref().map(|mask| cut_mask(&tiles, &tile, mask));
            let condition = Condition { mask, ..*condition };
            let mut run = |pixels: &[f32]| {
                self.run_tile(device, &mut passes, (tile_h, tile_w), pixels, &condition)
            };
            let restored = if self.channels == c {
                run(&pixels)?
            } else if c == 1 {
                let replicated: Vec<f32> =
                    pixels.iter().flat_map(|v| std::iter::repeat_n(*v, self.channels)).collect();
                let mean = |pixel: &[f32]| pixel.iter().sum::<f32>() / self.channels as f32;
                run(&replicated)?.chunks_exact(self.channels).map(mean).collect()
            } else {
                let mut restored = vec![0.0; pixels.len()];
                for channel in 0..c {
                    let plane: Vec<f32> = pixels.iter().skip(channel).step_by(c).copied().collect();
                    restored
                        .iter_mut()
                        .skip(channel)
                        .step_by(c)
                        .zip(run(&plane)?)
                        .for_each(|(to, from)| *to = from);
                }
                restored
            };
            let Condition { mask, .. } = condition;
            if let Some(mask) = mask {
                let all =
                    pixels.chunks_exact_mut(c).zip(restored.chunks_exact(c)).zip(&mask.missing);
                all.filter(|(_, missing)| **missing == 1)
                    .for_each(|((to, from), _)| to.copy_from_slice(from));
            } else {
                pixels = restored;
            }
            if let Some(strip) = blend.add(&tile, &pixels) {
                write(strip)?;
            }
        }
        Ok(())
    }

    /// Memory in bytes for the pass over the largest tile of an image of h×w.
    ///
    /// # Errors
    /// When the model does not accept the size of a tile.
    pub fn planned_bytes(&self, device: &Device, h: usize, w: usize) -> Result<u64> {
        let tile = self.tile(device)?;
        let [tile_h, tile_w] = [h, w].map(|side| side.min(tile).next_multiple_of(self.align));
        let graph = Graph::new(&self.spec, Dims::new(self.channels, tile_h, tile_w))?;
        Ok(Inference::new(&graph, &self.store).planned_bytes(device, 1))
    }

    /// Side of a tile: 512 pixels, or less if the device cannot bind or hold its buffers.
    fn tile(&self, device: &Device) -> Result<usize> {
        let mut side = self.max_tile;
        loop {
            let aligned = side.next_multiple_of(self.align);
            let graph = Graph::new(&self.spec, Dims::new(self.channels, aligned, aligned))?;
            if side <= MIN_TILE || Inference::new(&graph, &self.store).fits(device) {
                return Ok(side);
            }
            side /= 2;
        }
    }

    /// Restores a tile with the model's number of channels (H,W,C). `passes` has the pass for tiles
    /// of this size and, for an ensemble, the one with height and width exchanged.
    fn run_tile(
        &self,
        device: &mut Device,
        passes: &mut [Inference; 2],
        (h, w): (usize, usize),
        pixels: &[f32],
        condition: &Condition,
    ) -> Result<Vec<f32>> {
        if !self.ensemble {
            return passes[0].run_output(device, pixels, std::slice::from_ref(condition));
        }
        let mut mean = vec![0.0; pixels.len()];
        for transform in (0..8).map(Dihedral) {
            let mask = condition.mask.as_ref().map(|mask| {
                let (h, w) = transform.sides((h, w));
                Mask { h, w, missing: transform.apply(&mask.missing, (mask.h, mask.w), 1) }
            });
            let condition = Condition { mask, ..*condition };
            let transformed = transform.apply(pixels, (h, w), self.channels);
            let pass = &mut passes[usize::from(transform.swaps_sides() && h != w)];
            let restored = pass.run_output(device, &transformed, &[condition])?;
            let restored = transform.invert(&restored, (h, w), self.channels);
            mean.iter_mut().zip(restored).for_each(|(mean, v)| *mean += v / 8.0);
        }
        Ok(mean)
    }

    /// The code of the upper left part of an image (H,W,C): as large as the alignment allows, and
    /// at most a tile. `None` if the image has another number of channels than the model, or is
    /// smaller than the alignment.
    ///
    /// # Errors
    /// When the device fails or has no memory for the buffers.
    pub fn code(
        &self,
        device: &mut Device,
        [h, w, c]: [usize; 3],
        condition: &Condition,
        pixels: &[f32],
    ) -> Result<Option<Code>> {
        let [fit_h, fit_w] = [h, w].map(|side| side.min(MAX_TILE) / self.align * self.align);
        if c != self.channels || fit_h * fit_w == 0 {
            return Ok(None);
        }
        let graph = Graph::new(&self.spec, Dims::new(c, fit_h, fit_w))?;
        let mut inference = Inference::new(&graph, &self.store);
        let cut = crop(pixels, w, c, 0..fit_h, 0..fit_w);
        let missing = |mask: &Mask| crop(&mask.missing, w, 1, 0..fit_h, 0..fit_w);
        let mask =
            condition.mask.as_ref().map(|mask| Mask { h: fit_h, w: fit_w, missing: missing(mask) });
        let values = inference.run_code(device, &cut, &[Condition { mask, ..*condition }])?;
        Ok(Some(Code { values, dims: graph.nodes[graph.code].dims, of: (fit_h, fit_w) }))
    }

    /// Restores an image in memory (H,W,C; 0–1 scale); see [`Restorer::restore`].
    ///
    /// # Errors
    /// As [`Restorer::restore`].
    pub fn restore_pixels(
        &self,
        device: &mut Device,
        [h, w, c]: [usize; 3],
        condition: &Condition,
        pixels: &[f32],
    ) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(pixels.len());
        let read = |y: usize, columns: std::ops::Range<usize>, row: &mut Vec<f32>| {
            row.extend_from_slice(&pixels[(y * w + columns.start) * c..(y * w + columns.end) * c]);
        };
        self.restore(device, [h, w, c], condition, read, |strip| {
            out.extend(strip.pixels);
            Ok(())
        })?;
        Ok(out)
    }
}

/// The part of a mask that belongs to a tile. Beyond the image it is mirrored as the pixels are.
fn cut_mask(tiles: &Tiles, tile: &ImageTile, mask: &Mask) -> Mask {
    let cut = tiles.cut(tile, 1, |y, columns, out| {
        out.extend(mask.missing[y * mask.w..][columns].iter().map(|missing| f32::from(*missing)));
    });
    Mask { h: tile.h, w: tile.w, missing: cut.into_iter().map(|v| v as u8).collect() }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
