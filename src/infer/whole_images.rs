//! Evaluation of restoration models on whole images, degraded as in training.

use serde::{Deserialize, Serialize};

use crate::data::Images;
use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::infer::conditions::{Condition, degrade};
use crate::infer::restore::Restorer;
use crate::metrics::quality;
use crate::model::{Graph, Store};
use crate::raster::crop;
use crate::shape::{Dims, Size, lcm};
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
    pub size: Size,
    /// Degraded, restored and clean image, H,W,C each.
    pub pictures: [Vec<f32>; 3],
}

/// Maximum size of an image; larger ones are cropped, to bound the time of a validation.
const MAX_SIZE: Size = Size::new(1024, 1024);

/// An image of a data set, clean and degraded.
#[derive(Clone, Debug)]
pub struct DegradedImage {
    /// Height and width.
    pub size: Size,
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
    let (whole, c) = (images.table[number].size, images.channels);
    let multiple = spec.scales.iter().fold(1, |multiple, scale| lcm(multiple, *scale));
    let size = whole.at_most(MAX_SIZE).map(|side| side / multiple * multiple);
    if size.area() == 0 {
        return Err(Error::usage(format!(
            "{} has {whole} pixels, too few to be shrunk; remove this image",
            images.names[number]
        )));
    }
    let start = ((whole.h - size.h) / 2, (whole.w - size.w) / 2);
    let clean = crop(&images.image_f32(number), Dims::of(whole, c), start, size);
    let mut given = clean.clone();
    let condition = degrade(spec, seed, number, Dims::of(size, c), &mut given)?;
    Ok(DegradedImage { size, clean, given, condition })
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
    let DegradedImage { size, clean, given, condition } =
        degrade_image(images, number, corruption)?;
    let dims = Dims::of(size, images.channels);
    let mut restored = restorer.restore_pixels(device, dims, &condition, &given)?;
    restored.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
    Ok(RestoredExample { size, pictures: [given, restored, clean] })
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
    let larger = images.sizes().any(|size| size != input.size());
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
    let size = images.sizes().reduce(Size::at_least).unwrap_or(Size::new(1, 1)).at_most(MAX_SIZE);
    let pass = restorer.planned_bytes(device, size)?;
    Ok(pass + 4 * 6 * (size.area() * images.channels) as u64)
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
        let RestoredExample { size, pictures: [given, restored, clean] } =
            restore_example(device, restorer, images, number, corruption)?;
        sums.images += 1;
        // A perfect result has an infinite PSNR; 100 dB keeps the mean finite.
        let psnr = |other: &[f32]| {
            let psnr = quality::psnr(&clean, other);
            if psnr > 100.0 { 100.0 } else { psnr }
        };
        sums.psnr_before += psnr(&given);
        sums.psnr += psnr(&restored);
        sums.ssim += quality::ssim(&clean, &restored, Dims::of(size, images.channels));
        pixels += size.area();
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
