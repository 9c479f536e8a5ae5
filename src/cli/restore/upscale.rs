//! `csae upscale`: super-resolution.

use clap::Args;
use serde_json::json;

use super::{Input, RestoreArgs};
use crate::cli::{CommandArgs, Common};
use crate::data::image_file::ImageFile;
use crate::error::Result;
use crate::infer::conditions::Condition;
use crate::shape::Dims;
use crate::spec::Task;
use crate::tasks::restore::image as restore;

/// Enlarge images and restore the detail that plain interpolation lacks.
///
/// Results keep the images' names and the type of their samples. JPEG files stay JPEG (--quality);
/// TIFF files stay TIFF; all others become PNG. Colour profile, EXIF, XMP and resolution are kept.
/// Of animations and files with several pages, the first image is read. Large images are processed
/// in overlapping tiles.
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

/// The image, with its transparency, enlarged by bicubic interpolation; and its samples before
/// rounding.
fn enlarge(image: &ImageFile, scale: usize) -> Result<(ImageFile, Vec<f32>)> {
    let visible = super::visible(image).unwrap_or_else(|| image.pixels());
    let (pixels, size) = restore::enlarge(&visible, image.dims, scale)?;
    let mut large = image.like(size);
    large.write_rows(0, &pixels);
    let opacity = Dims { c: 1, ..image.dims };
    let alpha = image.alpha().map(|alpha| restore::enlarge(&alpha, opacity, scale)).transpose()?;
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

    fn is_shard(&self) -> bool {
        self.restore.shard.is_given()
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
            let input = Input::whole(
                before,
                Condition::enlarged(scale),
                format!("x{scale}"),
                json!({"scale": scale}),
            );
            Ok(Input { pixels: Some(pixels), ..input })
        },
    )
}
