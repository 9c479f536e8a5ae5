//! `csae upscale`: super-resolution.

use clap::Args;
use csae::budget;
use csae::data::image_file::ImageFile;
use csae::error::{Error, Result};
use csae::infer::conditions::Condition;
use csae::raster::resample::imresize;
use csae::spec::Task;
use serde_json::json;

use super::{Input, RestoreArgs};

/// Enlarge images and restore the detail that plain interpolation lacks. A gray model restores only
/// the brightness of colour images.
///
/// Results keep the images' names. PNG and JPEG files keep their format; others become PNG. Large
/// images are processed in overlapping tiles.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae upscale small.png
  csae upscale thumbnails/ --scale 4 -o large/ --side-by-side")]
pub struct UpscaleArgs {
    #[command(flatten)]
    pub(in crate::cli) restore: RestoreArgs,
    /// Upscaling factor: 2, 3 or 4
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2,
        value_parser = clap::value_parser!(u8).range(2..=8)
    )]
    scale: u8,
}

/// Upper bound on the bytes per sample while an image is enlarged: some rows, the enlarged image,
/// and the result.
const BYTES: usize = 14;

/// The image, with its transparency, enlarged by bicubic interpolation; and its samples before
/// rounding.
fn enlarge(image: &ImageFile, scale: usize) -> Result<(ImageFile, Vec<f32>)> {
    let enlarged = |pixels: &[f32], c: usize| imresize(pixels, (image.h, image.w), c, scale as f64);
    let side = |side: usize| side.checked_mul(scale).filter(|side| *side <= u16::MAX as usize);
    if side(image.h).zip(side(image.w)).is_none() {
        return Err(Error::usage(format!(
            "{}x{} pixels cannot be enlarged {scale} times: the maximum side is {} pixels",
            image.w,
            image.h,
            u16::MAX
        )));
    }
    let needed = (image.h * image.w * scale * scale * image.c * BYTES) as u64;
    if let Some(free) = budget::free().filter(|free| needed > *free) {
        return Err(Error::usage(format!(
            "enlarging {}x{} pixels {scale} times needs about {} MiB, but only {} MiB are free; \
             enlarge parts of the image, or by a smaller factor",
            image.w,
            image.h,
            needed >> 20,
            free >> 20
        )));
    }
    let (pixels, h, w) = enlarged(&image.pixels(), image.c)?;
    let mut large = image.like(h, w);
    large.write_rows(0, &pixels);
    let alpha = image.alpha().map(|alpha| enlarged(&alpha, 1)).transpose()?;
    large.set_alpha(alpha.as_ref().map(|(alpha, ..)| &alpha[..]));
    Ok((large, pixels))
}

pub fn run(args: UpscaleArgs) -> anyhow::Result<()> {
    let loaded = super::load(&args.restore, Task::Upscale)?;
    let scale = usize::from(args.scale);
    let scales = &loaded.graph.spec.undoes.scales;
    if !scales.contains(&scale) {
        let known = scales.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::usage(format!(
            "--scale {scale}: the model was trained for {known}; use one of these"
        ))
        .into());
    }
    super::run(
        &args.restore,
        &loaded,
        Task::Upscale,
        |_| Ok(()),
        |_, image| {
            let (before, pixels) = enlarge(&image, scale)?;
            let input = Input::whole(
                before,
                Condition::enlarged(scale),
                format!("x{scale}"),
                json!({"scale": scale}),
            );
            Ok(Input { pixels: Some(pixels), luma: true, ..input })
        },
    )
}
