//! Restoration of images of any size by a convolutional model: overlapping tiles joined without a seam.

use serde::{Deserialize, Serialize};

use super::degrade::{Told, degrade};
use super::infer::Inference;
use super::picture::crop;
use super::quality;
use super::tiles::{Blend, Strip, Tile, Tiles};
use crate::data::{Entry, Images};
use crate::data::corrupt::Mask;
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::model::{Graph, Store};
use crate::shape::Dims;
use crate::spec::{Config, CorruptionSpec, LayerOp, ModelSpec, Task};

/// Side of a tile at most.
const TILE: usize = 512;
/// Largest halo: what lies farther away hardly counts.
const HALO: usize = 32;

/// A trained model that restores.
#[derive(Clone, Debug)]
pub struct Restorer {
    spec: ModelSpec,
    store: Store,
    channels: usize,
    align: usize,
    halo: usize,
    /// Whether each tile is restored in all eight ways that it can be laid (turned, flipped), and the results averaged: the geometric self-ensemble of Timofte
    /// et al., "Seven Ways to Improve Example-Based Single Image Super Resolution", CVPR 2016. It takes eight times as long.
    pub ensemble: bool,
}

/// What sides of its input are multiples of, and how far it looks, in pixels, layer by layer as its strides go.
fn reach(spec: &ModelSpec) -> Result<(usize, usize)> {
    let (mut align, mut halo) = (1, 0);
    for layer in &spec.layers {
        let (kernel, dilation, stride, times) = match &layer.op {
            LayerOp::Lista(op) => (op.kernel.0, [1, 1], op.stride.0, 2 * op.iterations - 1),
            LayerOp::Conv2d(op) => (op.kernel.0, op.dilation.0, op.stride.0, 1),
            LayerOp::ConvTranspose2d(op) => (op.kernel.0, op.dilation.0, [1, 1], 1),
            LayerOp::MaxPool2d(op) | LayerOp::L2Pool2d(op) => (op.kernel.0, [1, 1], op.stride.unwrap_or(op.kernel).0, 1),
            LayerOp::AvgPool2d(op) => (op.kernel.0, [1, 1], op.stride.unwrap_or(op.kernel).0, 1),
            LayerOp::Linear(_) => {
                return Err(Error::usage(format!(
                    "layer {}: a fully connected layer fixes the image's size; restoring takes a model of convolutions (--preset denoise)",
                    layer.name
                )));
            }
            _ => continue,
        };
        let far = |i: usize| dilation[i] * (kernel[i].max(1) - 1).div_ceil(2);
        halo += times * far(0).max(far(1)) * align;
        align *= lcm(stride[0], stride[1]);
    }
    Ok((align, halo.min(HALO)))
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

impl Restorer {
    /// A model with its values on a device.
    ///
    /// # Errors
    /// When it works on images of one size only.
    pub fn new(graph: &Graph, store: &Store) -> Result<Self> {
        let (align, halo) = reach(&graph.spec)?;
        Ok(Self { spec: graph.spec.clone(), store: store.clone(), channels: graph.nodes[0].dims.c, align, halo, ensemble: false })
    }

    /// Channels of what the model takes.
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// Restores an image (H,W,C; 0–1 scale). `read` adds the given columns of a row to a vector; `write` is given rows of the result from above, not clipped.
    /// Where pixels are missing, a guess stands in their place ([`crate::data::fill`]), and the others stay as they are. A gray model takes the channels of
    /// a colour image one by one; a model of several channels takes a gray image as often, and gives the mean of what it makes of it.
    ///
    /// # Errors
    /// When channels do not suit, or the device fails.
    pub fn restore(
        &self,
        device: &mut Device,
        [h, w, c]: [usize; 3],
        told: &Told,
        mut read: impl FnMut(usize, std::ops::Range<usize>, &mut Vec<f32>),
        mut write: impl FnMut(Strip) -> Result<()>,
    ) -> Result<()> {
        if self.channels != 1 && c != 1 && self.channels != c {
            return Err(Error::usage(format!("the model takes {} channels, the image has {c}", self.channels)));
        }
        let tiles = Tiles::new(h, w, self.tile(device)?, self.halo, self.align)?;
        let (tile_h, tile_w) = tiles.size();
        let graph = Graph::new(&self.spec, Dims::new(self.channels, tile_h, tile_w))?;
        graph.check_autoencoder()?;
        let lying = if self.ensemble && tile_h != tile_w { Graph::new(&self.spec, Dims::new(self.channels, tile_w, tile_h))? } else { graph.clone() };
        let mut passes = [&graph, &lying].map(|graph| Inference::new(graph, &self.store));
        let mut blend = Blend::new(&tiles, c);
        for tile in tiles.iter() {
            let mut pixels = tiles.cut(&tile, c, &mut read);
            let mask = told.mask.as_ref().map(|mask| cut_mask(&tiles, &tile, mask));
            let told = Told { mask, ..*told };
            let mut run = |pixels: &[f32]| self.run_tile(device, &mut passes, (tile_h, tile_w), pixels, &told);
            let restored = if self.channels == c {
                run(&pixels)?
            } else if c == 1 {
                let several: Vec<f32> = pixels.iter().flat_map(|v| std::iter::repeat_n(*v, self.channels)).collect();
                let mean = |pixel: &[f32]| pixel.iter().sum::<f32>() / self.channels as f32;
                run(&several)?.chunks_exact(self.channels).map(mean).collect()
            } else {
                let mut restored = vec![0.0; pixels.len()];
                for channel in 0..c {
                    let plane: Vec<f32> = pixels.iter().skip(channel).step_by(c).copied().collect();
                    restored.iter_mut().skip(channel).step_by(c).zip(run(&plane)?).for_each(|(to, from)| *to = from);
                }
                restored
            };
            let Told { mask, .. } = told;
            if let Some(mask) = mask {
                let known = pixels.chunks_exact_mut(c).zip(restored.chunks_exact(c)).zip(&mask.missing);
                known.filter(|(_, missing)| **missing == 1).for_each(|((to, from), _)| to.copy_from_slice(from));
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

    /// The side of a tile: 512 pixels, or less where a device cannot bind or hold what one takes.
    fn tile(&self, device: &Device) -> Result<usize> {
        let mut side = TILE;
        loop {
            let whole = side.next_multiple_of(self.align);
            let graph = Graph::new(&self.spec, Dims::new(self.channels, whole, whole))?;
            if side <= 2 * HALO || Inference::new(&graph, &self.store).fits(device) {
                return Ok(side);
            }
            side /= 2;
        }
    }

    /// A tile of the model's channels (H,W,C), by the pass over tiles of its size and, in an ensemble, that over tiles with their sides exchanged.
    fn run_tile(
        &self,
        device: &mut Device,
        passes: &mut [Inference; 2],
        (h, w): (usize, usize),
        pixels: &[f32],
        told: &Told,
    ) -> Result<Vec<f32>> {
        if !self.ensemble {
            return passes[0].run_output(device, pixels, std::slice::from_ref(told));
        }
        let mut sum = vec![0.0; pixels.len()];
        for way in (0..8).map(Way) {
            let mask = told.mask.as_ref().map(|mask| {
                let (h, w) = way.sides((h, w));
                Mask { h, w, missing: way.lay(&mask.missing, (mask.h, mask.w), 1) }
            });
            let told = Told { mask, ..*told };
            let laid = way.lay(pixels, (h, w), self.channels);
            let restored = passes[usize::from(way.turned() && h != w)].run_output(device, &laid, &[told])?;
            let back = way.lay_back(&restored, (h, w), self.channels);
            sum.iter_mut().zip(back).for_each(|(sum, v)| *sum += v / 8.0);
        }
        Ok(sum)
    }

    /// The code of the upper left part of an image (H,W,C), as large as the model's strides allow and at most a tile, the size of the code, and that of the
    /// part. None where the channels do not suit.
    ///
    /// # Errors
    /// When the device fails.
    pub fn code(&self, device: &mut Device, [h, w, c]: [usize; 3], told: &Told, pixels: &[f32]) -> Result<Option<(Vec<f32>, Dims, (usize, usize))>> {
        let [fit_h, fit_w] = [h, w].map(|side| side.min(TILE) / self.align * self.align);
        if c != self.channels || fit_h * fit_w == 0 {
            return Ok(None);
        }
        let graph = Graph::new(&self.spec, Dims::new(c, fit_h, fit_w))?;
        let mut inference = Inference::new(&graph, &self.store);
        let cut = crop(pixels, w, c, 0..fit_h, 0..fit_w);
        let missing = |mask: &Mask| crop(&mask.missing, w, 1, 0..fit_h, 0..fit_w);
        let mask = told.mask.as_ref().map(|mask| Mask { h: fit_h, w: fit_w, missing: missing(mask) });
        let code = inference.run_code(device, &cut, &[Told { mask, ..*told }])?;
        inference.release(device);
        Ok(Some((code, graph.nodes[graph.code].dims, (fit_h, fit_w))))
    }

    /// [`Restorer::restore`] of an image in memory.
    ///
    /// # Errors
    /// As there.
    pub fn restore_pixels(&self, device: &mut Device, [h, w, c]: [usize; 3], told: &Told, pixels: &[f32]) -> Result<Vec<f32>> {
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

/// One of the eight ways to lay a picture, by its bits: sides exchanged, then flipped top to bottom, then left to right.
#[derive(Clone, Copy, Debug)]
struct Way(u8);

impl Way {
    const fn turned(self) -> bool {
        self.0 & 1 == 1
    }

    /// The sides afterwards.
    const fn sides(self, (h, w): (usize, usize)) -> (usize, usize) {
        if self.turned() { (w, h) } else { (h, w) }
    }

    /// For each pixel of the picture as it is laid, where it comes from.
    fn sources(self, (h, w): (usize, usize)) -> impl Iterator<Item = usize> {
        let (to_h, to_w) = self.sides((h, w));
        (0..h * w).map(move |at| {
            let (y, x) = (at / to_w, at % to_w);
            let y = if self.0 & 2 == 2 { to_h - 1 - y } else { y };
            let x = if self.0 & 4 == 4 { to_w - 1 - x } else { x };
            if self.turned() { x * w + y } else { y * w + x }
        })
    }

    /// A picture (H,W,C) laid this way.
    fn lay<T: Copy>(self, pixels: &[T], size: (usize, usize), c: usize) -> Vec<T> {
        self.sources(size).flat_map(|at| &pixels[at * c..(at + 1) * c]).copied().collect()
    }

    /// One that was laid this way as it was; `size` is that of the result.
    fn lay_back(self, pixels: &[f32], size: (usize, usize), c: usize) -> Vec<f32> {
        let mut out = vec![0.0; pixels.len()];
        for (from, to) in self.sources(size).enumerate() {
            out[to * c..(to + 1) * c].copy_from_slice(&pixels[from * c..(from + 1) * c]);
        }
        out
    }
}

/// The part of a mask that belongs to a tile; what lies beyond the image is mirrored as its pixels are.
fn cut_mask(tiles: &Tiles, tile: &Tile, mask: &Mask) -> Mask {
    let cut = tiles.cut(tile, 1, |y, columns, out| {
        out.extend(mask.missing[y * mask.w..][columns].iter().map(|missing| f32::from(*missing)));
    });
    Mask { h: tile.h, w: tile.w, missing: cut.into_iter().map(|v| v as u8).collect() }
}

/// How well whole images are restored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Whole {
    /// Images looked at.
    pub images: usize,
    /// Mean PSNR in dB of what was given.
    pub psnr_before: f64,
    /// Mean PSNR in dB of what came of it, clipped to 0…1.
    pub psnr: f64,
    /// Mean SSIM of the same.
    pub ssim: f64,
}

/// An image before it was degraded, after, and restored.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Height and width.
    pub size: (usize, usize),
    /// H,W,C each: as given, restored, and clean.
    pub pictures: [Vec<f32>; 3],
}

/// The largest side of an image that is looked at whole.
const WHOLE: usize = 1024;

/// An image of a set as a model is given it.
#[derive(Clone, Debug)]
pub struct Posed {
    /// Height and width.
    pub size: (usize, usize),
    /// H,W,C.
    pub clean: Vec<f32>,
    /// H,W,C.
    pub given: Vec<f32>,
    /// What the model is told.
    pub told: Told,
}

/// Degrades image `number` of a set, of which the middle is taken: at most 1024 pixels each way, and a multiple of every scale.
///
/// # Errors
/// When the image is smaller than a scale.
pub fn pose(images: &Images, number: usize, (spec, seed): (&CorruptionSpec, u64)) -> Result<Posed> {
    let (entry, c) = (images.table[number], images.channels);
    let multiple = spec.scales.iter().fold(1, |multiple, scale| lcm(multiple, *scale));
    let [h, w] = [entry.h, entry.w].map(|side| side.min(WHOLE) / multiple * multiple);
    if h * w == 0 {
        return Err(Error::usage(format!("{} has {}x{} pixels, too few to be shrunk", images.names[number], entry.w, entry.h)));
    }
    let (top, left) = ((entry.h - h) / 2, (entry.w - w) / 2);
    let clean = crop(&images.image_f32(number), entry.w, c, top..top + h, left..left + w);
    let mut given = clean.clone();
    let told = degrade(spec, seed, number, (h, w, c), &mut given)?;
    Ok(Posed { size: (h, w), clean, given, told })
}

/// Degrades an image of a set as [`pose`] does, and restores it.
///
/// # Errors
/// When the device fails, or the image is smaller than a scale.
pub fn show(
    device: &mut Device,
    restorer: &Restorer,
    images: &Images,
    number: usize,
    corruption: (&CorruptionSpec, u64),
) -> Result<Shown> {
    let Posed { size: (h, w), clean, given, told } = pose(images, number, corruption)?;
    let mut restored = restorer.restore_pixels(device, [h, w, images.channels], &told, &given)?;
    restored.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
    Ok(Shown { size: (h, w), pictures: [given, restored, clean] })
}

const fn lcm(a: usize, b: usize) -> usize {
    if a == 0 || b == 0 { 0 } else { a / gcd(a, b) * b }
}

const fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What judges a training on whole images: its model, where it restores images of any size, and some are larger than its input.
pub fn judges(config: &Config, graph: &Graph, store: &Store, images: &Images) -> Option<Restorer> {
    let input = graph.nodes[0].dims;
    let larger = images.table.iter().any(|entry| (entry.h, entry.w) != (input.h, input.w));
    (larger && !config.corruption.is_none()).then(|| Restorer::new(graph, store).ok()).flatten()
}

/// Most pixels that [`judge`] looks at.
const JUDGED: usize = 2 << 20;

/// Bytes that restoring images of a set takes: the pass over its largest tile, and what is held of an image.
pub fn planned_bytes(device: &Device, restorer: &Restorer, images: &Images) -> Result<u64> {
    let side = |of: fn(&Entry) -> usize| images.table.iter().map(of).max().unwrap_or(1).min(WHOLE);
    let (h, w, c) = (side(|entry| entry.h), side(|entry| entry.w), images.channels);
    let most = restorer.tile(device)?;
    let [tile_h, tile_w] = [h, w].map(|side| side.min(most).next_multiple_of(restorer.align));
    let graph = Graph::new(&restorer.spec, Dims::new(restorer.channels, tile_h, tile_w))?;
    let pass = Inference::new(&graph, &restorer.store).planned_bytes(device, 1);
    Ok(pass + 4 * 6 * (h * w * c) as u64)
}

/// Restores the first images of a set, degraded as in training, up to two megapixels of them, one at least.
///
/// # Errors
/// As [`show`].
pub fn judge(device: &mut Device, restorer: &Restorer, images: &Images, corruption: (&CorruptionSpec, u64)) -> Result<Whole> {
    let mut whole = Whole { images: 0, psnr_before: 0.0, psnr: 0.0, ssim: 0.0 };
    let mut pixels = 0;
    for number in 0..images.len() {
        let Shown { size: (h, w), pictures: [given, restored, clean] } = show(device, restorer, images, number, corruption)?;
        whole.images += 1;
        // An image without any error would make the mean infinite: 100 dB stands for it.
        let psnr = |other: &[f32]| {
            let psnr = quality::psnr(&clean, other);
            if psnr > 100.0 { 100.0 } else { psnr }
        };
        whole.psnr_before += psnr(&given);
        whole.psnr += psnr(&restored);
        whole.ssim += quality::ssim(&clean, &restored, h, w, images.channels);
        pixels += h * w;
        if pixels >= JUDGED {
            break;
        }
    }
    let n = whole.images.max(1) as f64;
    if !f64::is_finite(whole.psnr) {
        return Err(Error::failed("whole images become NaN or infinity: the training diverged; lower optimizer.lr").of(Kind::Diverged));
    }
    Ok(Whole { images: whole.images, psnr_before: whole.psnr_before / n, psnr: whole.psnr / n, ssim: whole.ssim / n })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_another_and_is_undone() {
        let (size, c) = ((2, 3), 2);
        let pixels: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let laid: std::collections::BTreeSet<Vec<u8>> =
            (0..8).map(|way| Way(way).lay(&pixels, size, c).iter().map(|v| *v as u8).collect()).collect();
        assert_eq!(laid.len(), 8);
        assert_eq!(Way(1).lay(&pixels, size, c)[..4], [0.0, 1.0, 6.0, 7.0]);
        assert!((0..8).all(|way| Way(way).lay_back(&Way(way).lay(&pixels, size, c), size, c) == pixels));
    }
}
