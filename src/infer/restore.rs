//! Restoration of images of any size by a convolutional model: overlapping tiles, joined without
//! seams.

use crate::advice::Advice;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::Inference;
use crate::infer::conditions::Condition;
use crate::infer::dihedral::Dihedral;
use crate::infer::planes::Planes;
use crate::infer::tiles::{Blend, ImageTile, Strip, Tiles};
use crate::infer::tiling::{MAX_TILE, Tiling};
use crate::model::{Graph, Store};
use crate::raster::corrupt::Mask;
use crate::raster::crop;
use crate::shape::{Dims, Size};
use crate::spec::{ModelSpec, Task};

/// A trained restoration model.
#[derive(Clone, Debug)]
pub struct Restorer {
    tiling: Tiling,
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
    let wrong = match spec.undoes.task() {
        Some(trained) if trained == task => return Ok(()),
        Some(other) => format!("the model was trained to {other}, not to {task}"),
        None => "the model was not trained for restoration".to_owned(),
    };
    Err(Error::usage(format!(
        "{wrong}: use the bundled model {task}, or {} {task}",
        Advice::TrainForTask
    )))
}

/// The code of a part of an image.
#[derive(Clone, Debug)]
pub struct Code {
    /// The values in memory order (H,W,C).
    pub values: Vec<f32>,
    /// Size of the code.
    pub dims: Dims,
    /// Size of the part of the image.
    pub of: Size,
}

impl Restorer {
    /// A restorer from a model whose values are on a device.
    ///
    /// # Errors
    /// When the model works for one image size only.
    pub fn new(graph: &Graph, store: &Store) -> Result<Self> {
        Ok(Self { tiling: Tiling::new(graph, store)?, ensemble: false })
    }

    /// Whether the model leaves images of `c` channels and this condition as they are.
    ///
    /// # Errors
    /// When the model does not support the number of channels.
    pub fn changes_nothing(&self, graph: &Graph, c: usize, condition: &Condition) -> Result<bool> {
        let planes = Planes::of(&self.tiling.spec, self.channels(), c)?;
        Ok(graph.is_conditioned_on_level() && planes.keep_all(condition))
    }

    /// Number of channels of the model's input.
    pub const fn channels(&self) -> usize {
        self.tiling.channels
    }

    /// Restores an image (H,W,C; 0–1 scale) of any size.
    ///
    /// `read(y, columns, row)` appends the given columns of row y of the image to `row`. `write`
    /// gets the rows of the result from top to bottom, not clipped. Missing pixels must hold a
    /// guess ([`crate::raster::fill`]); only they are changed.
    ///
    /// Models and images can differ in their channels if one of them is gray ([`Planes`]).
    ///
    /// # Errors
    /// When neither the model nor the image is gray and their channels differ, the model is not a
    /// restoration autoencoder, the device fails, or `write` fails.
    pub fn restore(
        &self,
        device: &mut Device,
        dims: Dims,
        condition: &Condition,
        mut read: impl FnMut(usize, std::ops::Range<usize>, &mut Vec<f32>),
        mut write: impl FnMut(Strip) -> Result<()>,
    ) -> Result<()> {
        let (channels, c) = (self.channels(), dims.c);
        let planes = Planes::of(&self.tiling.spec, channels, c)?;
        let planes = if is_gray(dims, &mut read) { planes.of_gray() } else { planes };
        let tiles = self.tiling.tiles(device, dims.size())?;
        let tile_size = tiles.size();
        let graph = self.tiling.graph(tile_size)?;
        graph.check_autoencoder()?;
        graph.check_reconstructs_images()?;
        // Half of the dihedral transforms exchange height and width.
        let transposed = if self.ensemble && tile_size.h != tile_size.w {
            self.tiling.graph(Size::new(tile_size.w, tile_size.h))?
        } else {
            graph.clone()
        };
        let mut passes =
            [&graph, &transposed].map(|graph| Inference::new(graph, &self.tiling.store));
        let conditioned = graph.is_conditioned_on_level();
        // One tile is the whole image, so that its own mean is the right one.
        let needs_mean = tiles.count() > 1 && graph.input_means().next().is_some();
        passes.iter_mut().for_each(|pass| pass.samples_are_tiles = needs_mean);
        let mean = needs_mean.then(|| tiles.mean(c, &mut read));
        let mut blend = Blend::new(&tiles, c);
        for tile in tiles.iter() {
            let mut pixels = tiles.cut(&tile, c, &mut read);
            let mask = condition.mask.as_ref().map(|mask| cut_mask(&tiles, &tile, mask));
            let run = |plane: usize, pixels: &[f32], mean: Option<Vec<f32>>| {
                let strength = planes.strength(condition, plane);
                let kept = if conditioned { strength.kept as f32 } else { 0.0 };
                if kept == 1.0 {
                    return Ok(pixels.to_vec());
                }
                let condition = Condition { strength, planes: None, mask: mask.clone(), mean };
                let mut restored =
                    self.run_tile(device, &mut passes, tile_size, pixels, &condition)?;
                let mix = |(to, from): (&mut f32, &f32)| *to = kept * from + (1.0 - kept) * *to;
                restored.iter_mut().zip(pixels).for_each(mix);
                Ok(restored)
            };
            let restored = planes.run((channels, c), &pixels, mean.as_deref(), run)?;
            match &mask {
                Some(mask) => {
                    let all =
                        pixels.chunks_exact_mut(c).zip(restored.chunks_exact(c)).zip(&mask.missing);
                    all.filter(|(_, missing)| **missing == 1)
                        .for_each(|((to, from), _)| to.copy_from_slice(from));
                }
                None => pixels = restored,
            }
            if let Some(strip) = blend.add(&tile, &pixels) {
                write(strip)?;
            }
        }
        Ok(())
    }

    /// Memory in bytes for the pass over the largest tile of an image.
    ///
    /// # Errors
    /// When the model does not accept the size of a tile.
    pub fn planned_bytes(&self, device: &Device, size: Size) -> Result<u64> {
        self.tiling.planned_bytes(device, size)
    }

    /// Restores a tile with the model's number of channels (H,W,C). `passes` has the pass for tiles
    /// of this size and, for an ensemble, the one with height and width exchanged.
    fn run_tile(
        &self,
        device: &mut Device,
        passes: &mut [Inference; 2],
        size: Size,
        pixels: &[f32],
        condition: &Condition,
    ) -> Result<Vec<f32>> {
        if !self.ensemble {
            return passes[0].run_output(device, pixels, std::slice::from_ref(condition));
        }
        let (mut mean, dims) = (vec![0.0; pixels.len()], Dims::of(size, self.channels()));
        for transform in (0..8).map(Dihedral) {
            let mask = condition.mask.as_ref().map(|mask| {
                let missing = transform.apply(&mask.missing, Dims::of(mask.size, 1));
                Mask { size: transform.size(size), missing }
            });
            let condition = Condition { mask, ..condition.clone() };
            let transformed = transform.apply(pixels, dims);
            let pass = &mut passes[usize::from(transform.swaps_sides() && size.h != size.w)];
            let restored = pass.run_output(device, &transformed, &[condition])?;
            let restored = transform.invert(&restored, dims);
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
        dims: Dims,
        condition: &Condition,
        pixels: &[f32],
    ) -> Result<Option<Code>> {
        let align = self.tiling.geometry.align;
        let fit = dims.size().map(|side| side.min(MAX_TILE) / align * align);
        if dims.c != self.channels() || fit.area() == 0 {
            return Ok(None);
        }
        let graph = self.tiling.graph(fit)?;
        let mut inference = Inference::new(&graph, &self.tiling.store);
        let cut = crop(pixels, dims, (0, 0), fit);
        let missing = |mask: &Mask| crop(&mask.missing, Dims::of(dims.size(), 1), (0, 0), fit);
        let mask = condition.mask.as_ref().map(|mask| Mask { size: fit, missing: missing(mask) });
        let values =
            inference.run_code(device, &cut, &[Condition { mask, ..condition.clone() }])?;
        Ok(Some(Code { values, dims: graph.nodes[graph.code].dims, of: fit }))
    }

    /// Restores an image in memory (H,W,C; 0–1 scale); see [`Restorer::restore`].
    ///
    /// # Errors
    /// As [`Restorer::restore`].
    pub fn restore_pixels(
        &self,
        device: &mut Device,
        dims: Dims,
        condition: &Condition,
        pixels: &[f32],
    ) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(pixels.len());
        let read = |y: usize, columns: std::ops::Range<usize>, row: &mut Vec<f32>| {
            let start = dims.offset(0, y, columns.start);
            row.extend_from_slice(&pixels[start..start + columns.len() * dims.c]);
        };
        self.restore(device, dims, condition, read, |strip| {
            out.extend(strip.pixels);
            Ok(())
        })?;
        Ok(out)
    }
}

/// Whether the channels of an image are equal in every pixel.
fn is_gray(dims: Dims, mut read: impl FnMut(usize, std::ops::Range<usize>, &mut Vec<f32>)) -> bool {
    let mut row = Vec::with_capacity(dims.w * dims.c);
    (0..dims.h).all(|y| {
        row.clear();
        read(y, 0..dims.w, &mut row);
        row.chunks_exact(dims.c).all(|pixel| pixel.iter().all(|v| *v == pixel[0]))
    })
}

/// The part of a mask that belongs to a tile. Beyond the image it is mirrored as the pixels are.
fn cut_mask(tiles: &Tiles, tile: &ImageTile, mask: &Mask) -> Mask {
    let cut = tiles.cut(tile, 1, |y, columns, out| {
        out.extend(
            mask.missing[y * mask.size.w..][columns].iter().map(|missing| f32::from(*missing)),
        );
    });
    Mask { size: tile.size, missing: cut.into_iter().map(|v| v as u8).collect() }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
