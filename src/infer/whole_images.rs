//! Evaluation of restoration models on whole images, degraded as in training.

use serde::{Deserialize, Serialize};

use crate::data::{Entry, Images};
use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::infer::conditions::{Condition, degrade};
use crate::infer::restore::Restorer;
use crate::metrics::quality;
use crate::model::{Graph, Store};
use crate::raster::crop;
use crate::shape::{Dims, lcm};
use crate::spec::{Config, CorruptionSpec};

/// Mean scores of restored images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WholeImageScores {
    /// Number of images.
    pub images: usize,
    /// Mean PSNR in dB of the degraded images.
    pub psnr_before: f64,
    /// Mean PSNR in dB of the restored images, clipped to 0…1.
    pub psnr: f64,
    /// Mean SSIM of the restored images, clipped to 0…1.
    pub ssim: f64,
}

/// An example for display: a degraded, a restored and a clean image.
#[derive(Clone, Debug)]
pub struct RestoredExample {
    /// Height and width.
    pub size: (usize, usize),
    /// Degraded, restored and clean image, H,W,C each.
    pub pictures: [Vec<f32>; 3],
}

/// Maximum side in pixels of an image; larger ones are cropped, to bound the time of a validation.
const MAX_SIDE: usize = 1024;

/// An image of a data set, clean and degraded.
#[derive(Clone, Debug)]
pub struct DegradedImage {
    /// Height and width.
    pub size: (usize, usize),
    /// The clean image (H,W,C).
    pub clean: Vec<f32>,
    /// The degraded image (H,W,C).
    pub given: Vec<f32>,
    /// The condition for the model.
    pub condition: Condition,
}

/// Degrades the centre of image `number` of a data set: at most 1024 pixels along each side, and a
/// multiple of every scale.
///
/// # Errors
/// When the image is smaller than a scale.
pub fn degrade_image(
    images: &Images,
    number: usize,
    (spec, seed): (&CorruptionSpec, u64),
) -> Result<DegradedImage> {
    let (entry, c) = (images.table[number], images.channels);
    let multiple = spec.scales.iter().fold(1, |multiple, scale| lcm(multiple, *scale));
    let [h, w] = [entry.h, entry.w].map(|side| side.min(MAX_SIDE) / multiple * multiple);
    if h * w == 0 {
        return Err(Error::usage(format!(
            "{} has {}x{} pixels, too few to be shrunk; remove this image",
            images.names[number], entry.w, entry.h
        )));
    }
    let (top, left) = ((entry.h - h) / 2, (entry.w - w) / 2);
    let clean = crop(&images.image_f32(number), entry.w, c, top..top + h, left..left + w);
    let mut given = clean.clone();
    let condition = degrade(spec, seed, number, Dims { c, h, w }, &mut given)?;
    Ok(DegradedImage { size: (h, w), clean, given, condition })
}

/// Degrades an image of a data set as [`degrade_image`] does, and restores it.
///
/// # Errors
/// When the device fails, or the image is smaller than a scale.
pub fn restore_example(
    device: &mut Device,
    restorer: &Restorer,
    images: &Images,
    number: usize,
    corruption: (&CorruptionSpec, u64),
) -> Result<RestoredExample> {
    let DegradedImage { size: (h, w), clean, given, condition } =
        degrade_image(images, number, corruption)?;
    let size = [h, w, images.channels];
    let mut restored = restorer.restore_pixels(device, size, &condition, &given)?;
    restored.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
    Ok(RestoredExample { size: (h, w), pictures: [given, restored, clean] })
}

/// The restorer for validation on whole images during training. `None` if the model does not
/// restore images of any size, or if no image differs in size from its input.
pub fn validation_restorer(
    config: &Config,
    graph: &Graph,
    store: &Store,
    images: &Images,
) -> Option<Restorer> {
    let input = graph.nodes[0].dims;
    let larger = images.table.iter().any(|entry| (entry.h, entry.w) != (input.h, input.w));
    (larger && !config.corruption.is_none()).then(|| Restorer::new(graph, store).ok()).flatten()
}

/// [`score`] stops after this many pixels, to bound the time of a validation.
const MAX_PIXELS: usize = 2 << 20;

/// Memory in bytes for restoring the images of a data set: the pass over its largest tile, and six
/// f32 copies of an image.
///
/// # Errors
/// When the model does not accept the size of a tile.
pub fn planned_bytes(device: &Device, restorer: &Restorer, images: &Images) -> Result<u64> {
    let side =
        |of: fn(&Entry) -> usize| images.table.iter().map(of).max().unwrap_or(1).min(MAX_SIDE);
    let (h, w, c) = (side(|entry| entry.h), side(|entry| entry.w), images.channels);
    let pass = restorer.planned_bytes(device, h, w)?;
    Ok(pass + 4 * 6 * (h * w * c) as u64)
}

/// Scores the restoration of the first images of a data set, degraded as in training: at least one
/// image, and no further one after two megapixels.
///
/// # Errors
/// When the device fails, an image is smaller than a scale, or the result is not finite.
pub fn score(
    device: &mut Device,
    restorer: &Restorer,
    images: &Images,
    corruption: (&CorruptionSpec, u64),
) -> Result<WholeImageScores> {
    let mut sums = WholeImageScores { images: 0, psnr_before: 0.0, psnr: 0.0, ssim: 0.0 };
    let mut pixels = 0;
    for number in 0..images.len() {
        let RestoredExample { size: (h, w), pictures: [given, restored, clean] } =
            restore_example(device, restorer, images, number, corruption)?;
        sums.images += 1;
        // A perfect result has an infinite PSNR; 100 dB keeps the mean finite.
        let psnr = |other: &[f32]| {
            let psnr = quality::psnr(&clean, other);
            if psnr > 100.0 { 100.0 } else { psnr }
        };
        sums.psnr_before += psnr(&given);
        sums.psnr += psnr(&restored);
        sums.ssim += quality::ssim(&clean, &restored, Dims::new(images.channels, h, w));
        pixels += h * w;
        if pixels >= MAX_PIXELS {
            break;
        }
    }
    let n = sums.images.max(1) as f64;
    if !f64::is_finite(sums.psnr) {
        return Err(Error::failed(
            "restored images are NaN or infinite: the training diverged; lower optimizer.lr",
        )
        .of(ErrorKind::Diverged));
    }
    Ok(WholeImageScores {
        images: sums.images,
        psnr_before: sums.psnr_before / n,
        psnr: sums.psnr / n,
        ssim: sums.ssim / n,
    })
}
