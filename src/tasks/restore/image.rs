//! Restoration of one image, shared by the commands and the library.

use crate::budget;
use crate::error::{Error, Result};
use crate::raster::corrupt::Mask;
use crate::raster::fill::fill;
use crate::raster::resample::imresize;
use crate::shape::{Dims, Size};
use crate::spec::ModelSpec;

/// Brightness of a channel from which a pixel of a mask counts as missing. The soft edges of a
/// brush are gray, and the pixels below them are damaged too.
const WHITE: f32 = 0.25;

/// Memory in bytes for each value of an enlarged image: intermediate rows, the enlarged image and
/// the result.
const BYTES: usize = 14;

/// The mask of missing pixels from an image of it: at least half opaque pixels whose brightest
/// channel has at least a quarter of white. `pixels` is H,W,C and `alpha` H,W, both on the 0–1
/// scale.
///
/// An image of one value besides 0, all darker than that, marks missing pixels by that value:
/// programs for labels write 0 and 1 of 255, or 0 and 255 of 65535.
///
/// # Errors
/// When no pixel is that bright, but the image is not black either.
pub fn marked(dims: Dims, pixels: &[f32], alpha: Option<&[f32]>) -> Result<Mask> {
    let opaque = |at: usize| alpha.is_none_or(|alpha| alpha[at] >= 0.5);
    let brightness: Vec<f32> = pixels
        .chunks_exact(dims.c)
        .enumerate()
        .map(|(at, pixel)| pixel.iter().copied().filter(|_| opaque(at)).fold(0.0, f32::max))
        .collect();
    let brightest = brightness.iter().copied().fold(0.0, f32::max);
    let is_binary = || brightness.iter().all(|value| *value == 0.0 || *value == brightest);
    let least = match brightest {
        // A black image marks nothing, unless its alpha is meant to.
        0.0 if alpha.is_some_and(|alpha| alpha.iter().any(|a| *a != alpha[0])) => {
            return Err(Error::usage(
                "the mask has no white pixel, and its transparency marks nothing; make missing \
                 pixels white and opaque, others black",
            ));
        }
        value if value >= WHITE || value == 0.0 => WHITE,
        value if is_binary() => value,
        value => {
            return Err(Error::usage(format!(
                "the brightest pixel of the mask has {:.1} % of white, and {:.0} % mark a missing \
                 pixel; make missing pixels white and others black",
                100.0 * value,
                100.0 * WHITE
            )));
        }
    };
    let missing = brightness.iter().map(|value| u8::from(*value >= least)).collect();
    Ok(Mask { size: dims.size(), missing })
}

/// Replaces the colour of fully transparent pixels (H,W,C) by a smooth guess from the others. Any
/// colour can be hidden there, and a filter would spread it into the visible pixels. `alpha` is
/// H,W; without it, or if every pixel is transparent, nothing changes. Returns whether it did.
pub fn fill_hidden(pixels: &mut [f32], dims: Dims, alpha: Option<&[f32]>) -> bool {
    let Some(alpha) = alpha else { return false };
    let missing: Vec<u8> = alpha.iter().map(|a| u8::from(*a <= 0.0)).collect();
    let mask = Mask { size: dims.size(), missing };
    let fills = (1..mask.missing.len()).contains(&mask.count());
    if fills {
        fill(pixels, dims.c, &mask);
    }
    fills
}

/// Makes fully transparent pixels (H,W,C) black for the estimate of noise, which leaves out patches
/// of one value. A smooth guess would pass for an image without noise.
pub fn blank_hidden(pixels: &mut [f32], c: usize, alpha: Option<&[f32]>) {
    let alpha = alpha.unwrap_or_default();
    let hidden = pixels.chunks_exact_mut(c).zip(alpha).filter(|(_, alpha)| **alpha <= 0.0);
    hidden.for_each(|(pixel, _)| pixel.fill(0.0));
}

/// Replaces missing pixels (H,W,C) by a smooth guess. It is computed over the whole image, since a
/// gap can be larger than a tile.
///
/// # Errors
/// When every pixel is missing.
pub fn guess(pixels: &mut [f32], c: usize, mask: &Mask) -> Result<()> {
    if mask.count() == mask.missing.len() {
        return Err(Error::usage(
            "every pixel is missing, and nothing is left to fill them from; if the mask marks \
             missing pixels in black, invert it",
        ));
    }
    fill(pixels, c, mask);
    Ok(())
}

/// Checks that a model was trained for a scale.
///
/// # Errors
/// When it was not; the message has the scales that it was trained for.
pub fn check_scale(spec: &ModelSpec, scale: usize) -> Result<()> {
    let scales = &spec.undoes.scales;
    if scales.contains(&scale) {
        return Ok(());
    }
    let known = scales.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    Err(Error::usage(format!("the model was trained for {known}; use one of these scales")))
}

/// Checks that an image of this size can be enlarged.
///
/// # Errors
/// When a side would exceed 65535 pixels, or there is not enough memory.
pub fn check_enlarged(dims: Dims, scale: usize) -> Result<()> {
    let size = dims.size();
    let side = |side: usize| side.checked_mul(scale).filter(|side| *side <= u16::MAX as usize);
    if side(size.h).zip(side(size.w)).is_none() {
        return Err(Error::usage(format!(
            "{size} pixels cannot be enlarged {scale} times, since a side can have at most {} \
             pixels; use a smaller scale",
            u16::MAX
        )));
    }
    let needed = (dims.len() * scale * scale * BYTES) as u64;
    if let Some(free) = budget::free().filter(|free| needed > *free) {
        return Err(Error::usage(format!(
            "enlarging {size} pixels {scale} times needs about {} MiB, but {} MiB are free; \
             enlarge parts of the image, or use a smaller scale",
            needed >> 20,
            free >> 20
        )));
    }
    Ok(())
}

/// Enlarges an image (H,W,C) by bicubic interpolation, which is the input of a super-resolution
/// model.
///
/// # Errors
/// As [`check_enlarged`].
pub fn enlarge(pixels: &[f32], dims: Dims, scale: usize) -> Result<(Vec<f32>, Size)> {
    check_enlarged(dims, scale)?;
    imresize(pixels, dims, scale as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The missing pixels of a mask of one row.
    fn row(c: usize, pixels: &[f32], alpha: Option<&[f32]>) -> Result<Vec<u8>> {
        marked(Dims::new(c, 1, pixels.len() / c), pixels, alpha).map(|mask| mask.missing)
    }

    #[test]
    fn a_quarter_of_white_in_any_channel_marks_a_pixel() {
        assert_eq!(row(1, &[0.0, 0.2, 0.25, 1.0], None).unwrap(), [0, 0, 1, 1]);
        // The first colour of the palette of PASCAL VOC.
        assert_eq!(row(3, &[0.5, 0.0, 0.0, 0.0, 0.0, 0.0], None).unwrap(), [1, 0]);
        assert_eq!(row(1, &[1.0, 1.0, 0.0], Some(&[1.0, 0.0, 1.0])).unwrap(), [1, 0, 0]);
    }

    #[test]
    fn a_single_dark_value_marks_pixels() {
        assert_eq!(row(1, &[0.0, 1.0 / 255.0, 0.0], None).unwrap(), [0, 1, 0]);
        assert_eq!(row(1, &[255.0 / 65535.0, 0.0], None).unwrap(), [1, 0]);
        assert_eq!(row(3, &[0.0, 0.0, 0.0, 0.01, 0.01, 0.01], None).unwrap(), [0, 1]);
        assert_eq!(row(1, &[0.0; 3], None).unwrap(), [0; 3]);
        assert_eq!(row(1, &[0.0; 3], Some(&[1.0; 3])).unwrap(), [0; 3]);
    }

    #[test]
    fn masks_that_mark_nothing_are_refused() {
        let several = row(1, &[0.0, 1.0 / 255.0, 2.0 / 255.0], None).unwrap_err().to_string();
        assert!(several.contains("0.8 % of white") && several.contains("25 %"), "{several}");
        let alpha = row(1, &[0.0; 2], Some(&[1.0, 0.0])).unwrap_err().to_string();
        assert!(alpha.contains("transparency marks nothing"), "{alpha}");
    }
}
