//! Restorers judged on whole images, degraded as in training.

use serde::{Deserialize, Serialize};

use crate::data::{Entry, Images};
use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::infer::conditions::{Condition, degrade};
use crate::infer::restore::Restorer;
use crate::metrics::quality;
use crate::model::{Graph, Store};
use crate::raster::crop;
use crate::shape::lcm;
use crate::spec::{Config, CorruptionSpec};

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
    pub told: Condition,
}

/// Degrades image `number` of a set, of which the middle is taken: at most 1024 pixels each way,
/// and a multiple of every scale.
///
/// # Errors
/// When the image is smaller than a scale.
pub fn pose(images: &Images, number: usize, (spec, seed): (&CorruptionSpec, u64)) -> Result<Posed> {
    let (entry, c) = (images.table[number], images.channels);
    let multiple = spec.scales.iter().fold(1, |multiple, scale| lcm(multiple, *scale));
    let [h, w] = [entry.h, entry.w].map(|side| side.min(WHOLE) / multiple * multiple);
    if h * w == 0 {
        return Err(Error::usage(format!(
            "{} has {}x{} pixels, too few to be shrunk",
            images.names[number], entry.w, entry.h
        )));
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

/// What judges a training on whole images: its model, where it restores images of any size, and
/// some are larger than its input.
pub fn judges(config: &Config, graph: &Graph, store: &Store, images: &Images) -> Option<Restorer> {
    let input = graph.nodes[0].dims;
    let larger = images.table.iter().any(|entry| (entry.h, entry.w) != (input.h, input.w));
    (larger && !config.corruption.is_none()).then(|| Restorer::new(graph, store).ok()).flatten()
}

/// Most pixels that [`judge`] looks at.
const JUDGED: usize = 2 << 20;

/// Bytes that restoring images of a set takes: the pass over its largest tile, and what is held of
/// an image.
pub fn planned_bytes(device: &Device, restorer: &Restorer, images: &Images) -> Result<u64> {
    let side = |of: fn(&Entry) -> usize| images.table.iter().map(of).max().unwrap_or(1).min(WHOLE);
    let (h, w, c) = (side(|entry| entry.h), side(|entry| entry.w), images.channels);
    let pass = restorer.planned_bytes(device, h, w)?;
    Ok(pass + 4 * 6 * (h * w * c) as u64)
}

/// Restores the first images of a set, degraded as in training, up to two megapixels of them, one
/// at least.
///
/// # Errors
/// As [`show`].
pub fn judge(
    device: &mut Device,
    restorer: &Restorer,
    images: &Images,
    corruption: (&CorruptionSpec, u64),
) -> Result<Whole> {
    let mut whole = Whole { images: 0, psnr_before: 0.0, psnr: 0.0, ssim: 0.0 };
    let mut pixels = 0;
    for number in 0..images.len() {
        let Shown { size: (h, w), pictures: [given, restored, clean] } =
            show(device, restorer, images, number, corruption)?;
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
        return Err(Error::failed(
            "whole images become NaN or infinity: the training diverged; lower optimizer.lr",
        )
        .of(ErrorKind::Diverged));
    }
    Ok(Whole {
        images: whole.images,
        psnr_before: whole.psnr_before / n,
        psnr: whole.psnr / n,
        ssim: whole.ssim / n,
    })
}
