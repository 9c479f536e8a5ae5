//! `csae upscale`

use clap::Args;
use csae::budget;
use csae::data::image_file::ImageFile;
use csae::error::{Error, Result};
use csae::infer::conditions::Condition;
use csae::raster::resample::imresize;
use csae::spec::Task;
use serde_json::json;

use super::{Given, RestoreArgs};
use crate::cli::{CommandArgs, Common};

/// Enlarge images, adding the detail that plain interpolation lacks. A gray model adds it to the
/// brightness of colour images.
///
/// Results have the images' names, and their kind where that is PNG or JPEG; else they are PNG.
/// Large images are restored in overlapping tiles.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae upscale small.png\n  csae upscale thumbnails/ --scale 4 -o large/ --side-by-side"
)]
pub struct UpscaleArgs {
    #[command(flatten)]
    pub(in crate::cli) restore: RestoreArgs,
    /// How many times larger each side becomes: 2, 3 or 4
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=8))]
    scale: u8,
}

/// Bytes of a sample at most while an image is enlarged: rows of it, all of it, and what is
/// restored.
const BYTES: usize = 14;

/// The image enlarged by bicubic interpolation, its transparency too; and its samples before they
/// were rounded.
fn enlarge(image: &ImageFile, scale: usize) -> Result<(ImageFile, Vec<f32>)> {
    let grown = |pixels: &[f32], c: usize| imresize(pixels, (image.h, image.w), c, scale as f64);
    let side = |side: usize| side.checked_mul(scale).filter(|side| *side <= u16::MAX as usize);
    if side(image.h).zip(side(image.w)).is_none() {
        return Err(Error::usage(format!(
            "{}x{} pixels cannot become {scale} times as large: sides end at {}",
            image.w,
            image.h,
            u16::MAX
        )));
    }
    let needed = (image.h * image.w * scale * scale * image.c * BYTES) as u64;
    if let Some(free) = budget::free().filter(|free| needed > *free) {
        return Err(Error::usage(format!(
            "{}x{} pixels {scale} times as large need some {} MiB, {} are free; enlarge parts of it, or by less",
            image.w,
            image.h,
            needed >> 20,
            free >> 20
        )));
    }
    let (pixels, h, w) = grown(&image.pixels(), image.c)?;
    let mut large = image.like(h, w);
    large.write_rows(0, &pixels);
    let alpha = image.alpha().map(|alpha| grown(&alpha, 1)).transpose()?;
    large.set_alpha(alpha.as_ref().map(|(alpha, ..)| &alpha[..]));
    Ok((large, pixels))
}

impl CommandArgs for UpscaleArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.restore.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: UpscaleArgs) -> anyhow::Result<()> {
    let loaded = super::load(&args.restore, Task::Upscale)?;
    let scale = usize::from(args.scale);
    let scales = &loaded.graph.spec.undoes.scales;
    if !scales.contains(&scale) {
        let known = scales.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        return Err(
            Error::usage(format!("--scale {scale}: the model was trained for {known}")).into()
        );
    }
    super::run(
        &args.restore,
        &loaded,
        Task::Upscale,
        |_| Ok(()),
        |_, image| {
            let (before, pixels) = enlarge(&image, scale)?;
            let given = Given::whole(
                before,
                Condition::enlarged(scale),
                format!("x{scale}"),
                json!({"scale": scale}),
            );
            Ok(Given { pixels: Some(pixels), luma: true, ..given })
        },
    )
}
