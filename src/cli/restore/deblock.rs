//! `csae deblock`: removal of JPEG artefacts.

use clap::Args;
use serde_json::json;

use super::{Input, RestoreArgs};
use crate::cli::{CommandArgs, Common};
use crate::error::Error;
use crate::infer::conditions::Condition;
use crate::raster::jpeg;
use crate::spec::Task;

/// Remove the artefacts of JPEG compression: blocks, and ripples beside edges. A gray model
/// restores the luma; the chroma of colour images stays as it is.
///
/// How strong the artefacts are is read from the quantization tables of each file. Results keep the
/// images' names. JPEG files stay JPEG (--quality); TIFF files stay TIFF; all others become PNG.
/// Colour profile, EXIF, XMP and resolution are kept. Large images are processed in overlapping
/// tiles.
#[derive(Debug, Args)]
#[command(
    alias = "dejpeg",
    after_help = "Examples:
  csae deblock photo.jpg
  csae deblock photos/ -o better/ --compare originals/
  csae deblock saved-again.png -m runs/dejpeg --jpeg-quality 30"
)]
pub struct DeblockArgs {
    #[command(flatten)]
    pub(in crate::cli) restore: RestoreArgs,
    /// Quality of the compression, 1 to 100, for images that were saved in another format after it
    /// [default: read from each JPEG file]
    #[arg(long, value_name = "Q", value_parser = clap::value_parser!(u8).range(1..=100))]
    jpeg_quality: Option<u8>,
}

impl CommandArgs for DeblockArgs {
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

fn run(args: DeblockArgs) -> anyhow::Result<()> {
    let loaded = super::load(&args.restore, Task::Dejpeg)?;
    super::run(
        &args.restore,
        &loaded,
        Task::Dejpeg,
        |_| Ok(()),
        |_, image| {
            let level = match (args.jpeg_quality, image.luma_steps()) {
                (Some(quality), _) => jpeg::level_of_quality(quality),
                (None, Some(steps)) => jpeg::level(steps.into_iter().map(f64::from)),
                (None, None) => {
                    return Err(Error::usage(
                        "it has no quantization tables of luma, as JPEG files have them; set the \
                         quality that it was compressed with by --jpeg-quality",
                    ));
                }
            };
            let pixels = super::visible(&image);
            let text = format!("rounding error {:.1}", 255.0 * level);
            let fields = json!({"rounding_error": 255.0 * level});
            Ok(Input { pixels, ..Input::whole(image, Condition::compressed(level), text, fields) })
        },
    )
}
