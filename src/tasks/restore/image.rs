//! Restoring one image, as the commands and the library do it.

use std::ops::Range;

use crate::budget;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::conditions::Condition;
use crate::infer::restore::Restorer;
use crate::raster::color;
use crate::raster::corrupt::Mask;
use crate::raster::fill::fill;
use crate::raster::resample::imresize;
use crate::shape::Size;
use crate::spec::ModelSpec;

/// The share of white from which a pixel of a mask counts as missing. Soft edges of a brush are
/// gray, and the pixels below them are damaged too.
const WHITE: f32 = 0.25;

/// Bytes of a sample at most while an image is enlarged: rows of it, all of it, and the result.
const BYTES: usize = 14;

/// Restores an image (H,W,C; 0–1 scale) by rows.
///
/// `read` appends the given columns of a row to a vector. `write` receives the number of the first
/// row and finished rows, from the top down and not clipped. With `luma`, a gray model restores
/// only the brightness (BT.601) of a colour image; its colour differences stay as they are.
///
/// # Errors
/// When the channels do not suit the model, the device fails, or `write` does.
pub fn restore(
    restorer: &Restorer,
    device: &mut Device,
    (Size { h, w }, c): (Size, usize),
    (condition, luma): (&Condition, bool),
    read: impl Fn(usize, Range<usize>, &mut Vec<f32>),
    mut write: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    if !(luma && c == 3 && restorer.channels() == 1) {
        return restorer
            .restore(device, [h, w, c], condition, read, |strip| write(strip.top, &strip.pixels));
    }
    let brightness = |y: usize, columns: Range<usize>, row: &mut Vec<f32>| {
        let mut rgb = Vec::with_capacity(3 * columns.len());
        read(y, columns, &mut rgb);
        row.extend(color::luma(&rgb, 3));
    };
    restorer.restore(device, [h, w, 1], condition, brightness, |strip| {
        for (y, luma) in (strip.top..).zip(strip.pixels.chunks_exact(w)) {
            let mut rgb = Vec::with_capacity(3 * w);
            read(y, 0..w, &mut rgb);
            let mut ycbcr = color::rgb_to_ycbcr(&rgb);
            ycbcr.iter_mut().step_by(3).zip(luma).for_each(|(to, from)| *to = *from);
            write(y, &color::ycbcr_to_rgb(&ycbcr))?;
        }
        Ok(())
    })
}

/// The pixels that an image of a mask marks as missing: a quarter of white or more, and at least
/// half opaque. `pixels` is H,W,C and `alpha` H,W, both on the 0–1 scale.
pub fn marked(size: Size, pixels: &[f32], c: usize, alpha: Option<&[f32]>) -> Mask {
    let white = |pixel: &[f32]| pixel.iter().sum::<f32>() >= WHITE * pixel.len() as f32;
    let opaque = |at: usize| alpha.is_none_or(|alpha| alpha[at] >= 0.5);
    let missing = pixels
        .chunks_exact(c)
        .enumerate()
        .map(|(at, pixel)| u8::from(opaque(at) && white(pixel)))
        .collect();
    Mask { h: size.h, w: size.w, missing }
}

/// Puts a smooth guess in the place of missing pixels (H,W,C). The guess is of the whole image,
/// since a gap can be larger than a tile.
///
/// # Errors
/// When every pixel is missing.
pub fn guess(pixels: &mut [f32], c: usize, mask: &Mask) -> Result<()> {
    if mask.count() == mask.missing.len() {
        return Err(Error::usage("every pixel is missing: nothing is left to fill them from"));
    }
    fill(pixels, c, mask);
    Ok(())
}

/// Fails unless a model was trained for a scale.
///
/// # Errors
/// One line with the scales that it was trained for.
pub fn check_scale(spec: &ModelSpec, scale: usize) -> Result<()> {
    let scales = &spec.undoes.scales;
    if scales.contains(&scale) {
        return Ok(());
    }
    let known = scales.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    Err(Error::usage(format!("the model was trained for {known}")))
}

/// Fails if an image of `c` channels cannot be enlarged: its sides would be too long, or there is
/// not enough memory.
///
/// # Errors
/// One line that says which of both it is.
pub fn check_enlarged(size: Size, c: usize, scale: usize) -> Result<()> {
    let side = |side: usize| side.checked_mul(scale).filter(|side| *side <= u16::MAX as usize);
    if side(size.h).zip(side(size.w)).is_none() {
        return Err(Error::usage(format!(
            "{size} pixels cannot become {scale} times as large: sides end at {}",
            u16::MAX
        )));
    }
    let needed = (size.area() * scale * scale * c * BYTES) as u64;
    if let Some(free) = budget::free().filter(|free| needed > *free) {
        return Err(Error::usage(format!(
            "{size} pixels {scale} times as large need some {} MiB, {} are free; enlarge parts of it, \
             or by less",
            needed >> 20,
            free >> 20
        )));
    }
    Ok(())
}

/// Enlarges an image (H,W,C) by bicubic interpolation: what a model of super-resolution starts
/// from.
///
/// # Errors
/// As [`check_enlarged`].
pub fn enlarge(pixels: &[f32], size: Size, c: usize, scale: usize) -> Result<(Vec<f32>, Size)> {
    check_enlarged(size, c, scale)?;
    let (pixels, h, w) = imresize(pixels, (size.h, size.w), c, scale as f64)?;
    Ok((pixels, Size { h, w }))
}
