//! Restoration of images of any size by a convolutional model: overlapping tiles joined without a
//! seam.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::Inference;
use crate::infer::conditions::Condition;
use crate::infer::dihedral::Dihedral;
use crate::infer::tiles::{Blend, ImageTile, Strip, TileGrid};
use crate::model::{Graph, Store, TileGeometry, tile_geometry};
use crate::raster::corrupt::Mask;
use crate::raster::crop;
use crate::shape::Dims;
use crate::spec::{ModelSpec, Task};

/// Side of a tile at most.
const TILE: usize = 512;
/// Smallest side of a tile that is tried when a device cannot hold a larger one.
const MIN_TILE: usize = 64;

/// A trained model that restores.
#[derive(Clone, Debug)]
pub struct Restorer {
    spec: ModelSpec,
    store: Store,
    channels: usize,
    align: usize,
    halo: usize,
    /// Whether each tile is restored in all eight ways that it can be laid (turned, flipped), and
    /// the results averaged: the geometric self-ensemble of Timofte et al., "Seven Ways to Improve
    /// Example-Based Single Image Super Resolution", CVPR 2016. It takes eight times as long.
    pub ensemble: bool,
}

/// Fails unless a model was trained for a task.
///
/// # Errors
/// One line that says for which one it was, or how to train one.
pub fn check_task(spec: &ModelSpec, task: Task) -> Result<()> {
    match spec.undoes.task() {
        Some(trained) if trained == task => Ok(()),
        Some(other) => Err(Error::usage(format!(
            "the model was trained to {other}, not to {task}: take the bundled one, called {task}, or train one by csae train DATA --task {task}"
        ))),
        None => Err(Error::usage(format!(
            "the model was not trained to restore: take the bundled one, called {task}, or train one by csae train DATA --task {task}"
        ))),
    }
}

/// The code of a part of an image.
#[derive(Clone, Debug)]
pub struct Code {
    /// In memory order.
    pub values: Vec<f32>,
    /// Their size.
    pub dims: Dims,
    /// Height and width of the part.
    pub of: (usize, usize),
}

impl Restorer {
    /// A model with its values on a device.
    ///
    /// # Errors
    /// When it works on images of one size only.
    pub fn new(graph: &Graph, store: &Store) -> Result<Self> {
        let TileGeometry { align, halo } = tile_geometry(graph)?;
        Ok(Self {
            spec: graph.spec.clone(),
            store: store.clone(),
            channels: graph.nodes[0].dims.c,
            align,
            halo,
            ensemble: false,
        })
    }

    /// Channels of what the model takes.
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// Restores an image (H,W,C; 0–1 scale). `read` adds the given columns of a row to a vector;
    /// `write` is given rows of the result from above, not clipped. Where pixels are missing, a
    /// guess stands in their place ([`crate::raster::fill`]), and the others stay as they are. A gray
    /// model takes the channels of a colour image one by one; a model of several channels takes a
    /// gray image as often, and gives the mean of what it makes of it.
    ///
    /// # Errors
    /// When channels do not suit, or the device fails.
    pub fn restore(
        &self,
        device: &mut Device,
        [h, w, c]: [usize; 3],
        told: &Condition,
        mut read: impl FnMut(usize, std::ops::Range<usize>, &mut Vec<f32>),
        mut write: impl FnMut(Strip) -> Result<()>,
    ) -> Result<()> {
        if self.channels != 1 && c != 1 && self.channels != c {
            return Err(Error::usage(format!(
                "the model takes {} channels, the image has {c}",
                self.channels
            )));
        }
        let tiles = TileGrid::new(h, w, self.tile(device)?, self.halo, self.align)?;
        let (tile_h, tile_w) = tiles.size();
        let graph = Graph::new(&self.spec, Dims::new(self.channels, tile_h, tile_w))?;
        graph.check_autoencoder()?;
        graph.check_reconstructs_images()?;
        let lying = if self.ensemble && tile_h != tile_w {
            Graph::new(&self.spec, Dims::new(self.channels, tile_w, tile_h))?
        } else {
            graph.clone()
        };
        let mut passes = [&graph, &lying].map(|graph| Inference::new(graph, &self.store));
        let mut blend = Blend::new(&tiles, c);
        for tile in tiles.iter() {
            let mut pixels = tiles.cut(&tile, c, &mut read);
            let mask = told.mask.as_ref().map(|mask| cut_mask(&tiles, &tile, mask));
            let told = Condition { mask, ..*told };
            let mut run = |pixels: &[f32]| {
                self.run_tile(device, &mut passes, (tile_h, tile_w), pixels, &told)
            };
            let restored = if self.channels == c {
                run(&pixels)?
            } else if c == 1 {
                let several: Vec<f32> =
                    pixels.iter().flat_map(|v| std::iter::repeat_n(*v, self.channels)).collect();
                let mean = |pixel: &[f32]| pixel.iter().sum::<f32>() / self.channels as f32;
                run(&several)?.chunks_exact(self.channels).map(mean).collect()
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
            let Condition { mask, .. } = told;
            if let Some(mask) = mask {
                let known =
                    pixels.chunks_exact_mut(c).zip(restored.chunks_exact(c)).zip(&mask.missing);
                known
                    .filter(|(_, missing)| **missing == 1)
                    .for_each(|((to, from), _)| to.copy_from_slice(from));
            } else {
                pixels = restored;
            }
            if let Some(strip) = blend.add(&tile, &pixels) {
                write(strip)?;
            }
        }
        passes.iter_mut().for_each(|pass| pass.release(device));
        Ok(())
    }

    /// Bytes that the pass over the largest tile of an image of h×w takes.
    ///
    /// # Errors
    /// When the model cannot have such a size.
    pub fn planned_bytes(&self, device: &Device, h: usize, w: usize) -> Result<u64> {
        let most = self.tile(device)?;
        let [tile_h, tile_w] = [h, w].map(|side| side.min(most).next_multiple_of(self.align));
        let graph = Graph::new(&self.spec, Dims::new(self.channels, tile_h, tile_w))?;
        Ok(Inference::new(&graph, &self.store).planned_bytes(device, 1))
    }

    /// The side of a tile: 512 pixels, or less where a device cannot bind or hold what one takes.
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

    /// A tile of the model's channels (H,W,C), by the pass over tiles of its size and, in an
    /// ensemble, that over tiles with their sides exchanged.
    fn run_tile(
        &self,
        device: &mut Device,
        passes: &mut [Inference; 2],
        (h, w): (usize, usize),
        pixels: &[f32],
        told: &Condition,
    ) -> Result<Vec<f32>> {
        if !self.ensemble {
            return passes[0].run_output(device, pixels, std::slice::from_ref(told));
        }
        let mut sum = vec![0.0; pixels.len()];
        for transform in (0..8).map(Dihedral) {
            let mask = told.mask.as_ref().map(|mask| {
                let (h, w) = transform.sides((h, w));
                Mask { h, w, missing: transform.apply(&mask.missing, (mask.h, mask.w), 1) }
            });
            let told = Condition { mask, ..*told };
            let laid = transform.apply(pixels, (h, w), self.channels);
            let restored = passes[usize::from(transform.swaps_sides() && h != w)].run_output(
                device,
                &laid,
                &[told],
            )?;
            let back = transform.invert(&restored, (h, w), self.channels);
            sum.iter_mut().zip(back).for_each(|(sum, v)| *sum += v / 8.0);
        }
        Ok(sum)
    }

    /// The code of the upper left part of an image (H,W,C), as large as the model's strides allow
    /// and at most a tile. None where the channels do not suit.
    ///
    /// # Errors
    /// When the device fails.
    pub fn code(
        &self,
        device: &mut Device,
        [h, w, c]: [usize; 3],
        told: &Condition,
        pixels: &[f32],
    ) -> Result<Option<Code>> {
        let [fit_h, fit_w] = [h, w].map(|side| side.min(TILE) / self.align * self.align);
        if c != self.channels || fit_h * fit_w == 0 {
            return Ok(None);
        }
        let graph = Graph::new(&self.spec, Dims::new(c, fit_h, fit_w))?;
        let mut inference = Inference::new(&graph, &self.store);
        let cut = crop(pixels, w, c, 0..fit_h, 0..fit_w);
        let missing = |mask: &Mask| crop(&mask.missing, w, 1, 0..fit_h, 0..fit_w);
        let mask =
            told.mask.as_ref().map(|mask| Mask { h: fit_h, w: fit_w, missing: missing(mask) });
        let values = inference.run_code(device, &cut, &[Condition { mask, ..*told }])?;
        inference.release(device);
        Ok(Some(Code { values, dims: graph.nodes[graph.code].dims, of: (fit_h, fit_w) }))
    }

    /// [`Restorer::restore`] of an image in memory.
    ///
    /// # Errors
    /// As there.
    pub fn restore_pixels(
        &self,
        device: &mut Device,
        [h, w, c]: [usize; 3],
        told: &Condition,
        pixels: &[f32],
    ) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(pixels.len());
        let read = |y: usize, columns: std::ops::Range<usize>, row: &mut Vec<f32>| {
            row.extend_from_slice(&pixels[(y * w + columns.start) * c..(y * w + columns.end) * c]);
        };
        self.restore(device, [h, w, c], told, read, |strip| {
            out.extend(strip.pixels);
            Ok(())
        })?;
        Ok(out)
    }
}

/// The part of a mask that belongs to a tile; what lies beyond the image is mirrored as its pixels
/// are.
fn cut_mask(tiles: &TileGrid, tile: &ImageTile, mask: &Mask) -> Mask {
    let cut = tiles.cut(tile, 1, |y, columns, out| {
        out.extend(mask.missing[y * mask.w..][columns].iter().map(|missing| f32::from(*missing)));
    });
    Mask { h: tile.h, w: tile.w, missing: cut.into_iter().map(|v| v as u8).collect() }
}
