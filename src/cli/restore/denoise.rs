//! `csae denoise`: denoising.

use clap::Args;
use serde_json::json;

use super::{Input, RestoreArgs};
use crate::cli::{CommandArgs, Common};
use crate::data::image_file::ImageFile;
use crate::error::Result;
use crate::spec::Task;
use crate::tasks::restore::image as restore;
use crate::tasks::restore::noise_level::{self, NoiseLevel};
use crate::tasks::restore::quantization::Quantization;

/// Remove noise from images of any size: gray or colour; 8 bits, 16 bits or floats; transparency is
/// kept.
///
/// Results keep the images' names and the type of their samples. JPEG files stay JPEG (--quality);
/// TIFF files stay TIFF; all others become PNG. Colour profile, EXIF, XMP and resolution are kept.
/// Of animations and files with several pages, the first image is read. Large images are processed
/// in overlapping tiles.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae denoise noisy.png
  csae denoise scans/ -o clean/ --sigma 25
  csae denoise noisy/ -m runs/001 -o out/ --compare clean/ --side-by-side")]
pub struct DenoiseArgs {
    #[command(flatten)]
    pub(in crate::cli) restore: RestoreArgs,
    /// Standard deviation of the noise on the scale from 0 (black) to 255 (white); auto estimates
    /// it for each image
    #[arg(long, value_name = "S|auto", default_value = "auto", value_parser = parse_sigma)]
    sigma: Sigma,
}

/// The noise level of the images.
#[derive(Clone, Copy, Debug)]
enum Sigma {
    Auto,
    Known(f64),
}

fn parse_sigma(text: &str) -> std::result::Result<Sigma, String> {
    if text == "auto" {
        return Ok(Sigma::Auto);
    }
    let known = text.parse().ok().filter(|sigma| (0.0..=255.0).contains(sigma));
    known
        .map(Sigma::Known)
        .ok_or_else(|| "give a standard deviation from 0 to 255, or auto".to_owned())
}

/// The estimated noise level of an image, from its centre if it is large. Fully transparent pixels
/// do not count.
fn estimate(image: &ImageFile) -> Result<NoiseLevel> {
    let at = |y: usize, column: usize| image.dims.offset(0, y, column);
    let visible = image.alpha().map(|alpha| {
        let mut pixels = image.pixels();
        restore::blank_hidden(&mut pixels, image.dims.c, Some(&alpha));
        pixels
    });
    let quantization = image.luma_steps().map(|steps| Quantization::new(&steps));
    noise_level::estimate_middle(
        image.dims,
        quantization.as_ref(),
        |y, columns, row| match &visible {
            Some(pixels) => {
                row.extend_from_slice(&pixels[at(y, columns.start)..at(y, columns.end)])
            }
            None => image.read_row(y, columns, row),
        },
    )
}

impl CommandArgs for DenoiseArgs {
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

fn run(args: DenoiseArgs) -> anyhow::Result<()> {
    let loaded = super::load(&args.restore, Task::Denoise)?;
    let conditioned = loaded.graph.is_conditioned_on_level();
    if !conditioned {
        args.restore.common.status(
            "note: this model is not conditioned on the noise level; --sigma has no effect on it",
        );
    }
    let max_sigma = loaded.graph.spec.undoes.sigma.map_or(f64::INFINITY, |[_, max]| max);
    super::run(
        &args.restore,
        &loaded,
        Task::Denoise,
        |_| Ok(()),
        |job, image| {
            let pixels = super::visible(&image);
            let found = match args.sigma {
                Sigma::Known(sigma) => NoiseLevel::white(sigma),
                Sigma::Auto => estimate(&image)?,
            };
            let NoiseLevel { sigma, chroma, in_channel: level, at_most, .. } = found;
            if let Some(most) = at_most.filter(|_| conditioned) {
                args.restore.common.status(&format!(
                    "note: {}: the estimate sigma {sigma:.1} is doubtful: the noise can be as \
                     strong as {most:.1} if JPEG compression or demosaicing removed its fine part; \
                     --sigma sets the level",
                    job.image.display()
                ));
            }
            if sigma > max_sigma {
                args.restore.common.status(&format!(
                    "note: {}: sigma {sigma:.1} is above {max_sigma}, the highest noise level that \
                     the model was trained on",
                    job.image.display()
                ));
            }
            let mut text = format!("sigma {sigma:.1}");
            if chroma < 0.9 * sigma {
                text += &format!(", {chroma:.1} in the chroma");
            }
            let fields =
                json!({"sigma": sigma, "level": level, "chroma": chroma, "at_most": at_most});
            Ok(Input { pixels, ..Input::whole(image, found.condition(), text, fields) })
        },
    )
}
