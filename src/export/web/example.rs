//! The picture that a page shows first.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::PageTask;
use crate::data::bundled;
use crate::error::{Error, Result};
use crate::raster::crop;
use crate::raster::resample::imresize_to;
use crate::shape::{Dims, Size};

/// Quality of the JPEG file, 1 to 100: its artefacts are weaker than the noise that the page adds.
const QUALITY: u8 = 92;
/// Images of models of handwritten digits are at most this large.
const SMALL: usize = 32;

/// Longest side of an example in pixels, so that the page stays small.
const SIDE: usize = 288;

/// A user's image as a JPEG file, shrunk if it is large.
pub fn shrunk(pixels: &[f32], dims: Dims) -> Result<Vec<u8>> {
    let scale = SIDE as f64 / dims.h.max(dims.w) as f64;
    if scale >= 1.0 {
        return jpeg(pixels, dims);
    }
    let size = dims.size().map(|side| ((side as f64 * scale).round() as usize).max(1));
    jpeg(&imresize_to(pixels, dims, size), Dims::of(size, dims.c))
}

/// A bundled picture as a JPEG file.
pub fn example(task: PageTask, channels: usize, model: Size) -> Result<Vec<u8>> {
    let is_digit = channels == 1 && model.fits(Size::new(SMALL, SMALL));
    let takes_whole = matches!(task, PageTask::Reconstruct | PageTask::Classify);
    if is_digit && takes_whole {
        let digits = bundled::load("digits").expect("a bundled set");
        let dims = Dims::of(digits.table[7].size, 1);
        return jpeg(&imresize_to(&digits.image_f32(7), dims, model), Dims::of(model, 1));
    }
    let photos = bundled::validation_of("photos").expect("photographs have held-out images");
    let dims = Dims::of(photos.table[0].size, photos.channels);
    // The face of the cat.
    let face = Size::new(216, 288);
    let pixels = crop(&photos.image_f32(0), dims, (20, 80), face);
    let size = match task {
        PageTask::Upscale => Size::new(72, 96),
        PageTask::Denoise | PageTask::Inpaint | PageTask::Dejpeg => face,
        PageTask::Reconstruct | PageTask::Classify | PageTask::Segment => face,
    };
    jpeg(&imresize_to(&pixels, Dims::of(face, dims.c), size), Dims::of(size, dims.c))
}

fn jpeg(pixels: &[f32], dims: Dims) -> Result<Vec<u8>> {
    let bytes: Vec<u8> =
        pixels.iter().map(|value| (value.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    let mut file = Vec::new();
    let kind = if dims.c == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    JpegEncoder::new_with_quality(&mut file, QUALITY)
        .write_image(&bytes, dims.w as u32, dims.h as u32, kind)
        .map_err(|error| Error::failed(format!("the example cannot be encoded: {error}")))?;
    Ok(file)
}
