//! `csae upscale`

use clap::Args;
use csae::data::image_file::ImageFile;
use csae::error::Result;
use csae::infer::conditions::Condition;
use csae::spec::Task;
use csae::tasks::restore::image as restore;
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

/// The image enlarged by bicubic interpolation, its transparency too; and its samples before they
/// were rounded.
fn enlarge(image: &ImageFile, scale: usize) -> Result<(ImageFile, Vec<f32>)> {
    let grown = |pixels: &[f32], c: usize| restore::enlarge(pixels, image.size(), c, scale);
    let (pixels, size) = grown(&image.pixels(), image.c)?;
    let mut large = image.like(size.h, size.w);
    large.write_rows(0, &pixels);
    let alpha = image.alpha().map(|alpha| grown(&alpha, 1)).transpose()?;
    large.set_alpha(alpha.as_ref().map(|(alpha, _)| &alpha[..]));
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
    restore::check_scale(&loaded.graph.spec, scale)
        .map_err(|error| error.at(format!("--scale {scale}")))?;
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
