//! `csae denoise`

use clap::Args;
use csae::data::image_file::ImageFile;
use csae::error::Result;
use csae::infer::conditions::Condition;
use csae::spec::Task;
use csae::tasks::restore::noise_level;
use serde_json::json;

use super::{Given, RestoreArgs};

/// Take noise out of images of any size: gray or colour, 8 or 16 bits, transparency kept.
///
/// Results have the images' names, and their kind where that is PNG or JPEG; else they are PNG.
/// Large images are restored in overlapping tiles.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae denoise noisy.png\n  csae denoise scans/ -o clean/ --sigma 25\n  csae denoise noisy/ -m runs/001 -o out/ --compare clean/ --side-by-side"
)]
pub struct DenoiseArgs {
    #[command(flatten)]
    pub(in crate::cli) restore: RestoreArgs,
    /// Standard deviation of the noise on the 0-255 scale, or auto: estimated for each image
    #[arg(long, value_name = "S|auto", default_value = "auto", value_parser = sigma)]
    sigma: Sigma,
}

/// How much noise there is.
#[derive(Clone, Copy, Debug)]
enum Sigma {
    Auto,
    Known(f64),
}

fn sigma(text: &str) -> std::result::Result<Sigma, String> {
    if text == "auto" {
        return Ok(Sigma::Auto);
    }
    let known = text.parse().ok().filter(|sigma| (0.0..=255.0).contains(sigma));
    known.map(Sigma::Known).ok_or_else(|| "a standard deviation from 0 to 255, or auto".to_owned())
}

/// The noise of an image, by the middle of a large one.
fn estimate(image: &ImageFile) -> Result<f64> {
    const SIDE: usize = 2048;
    let (h, w) = (image.h.min(SIDE), image.w.min(SIDE));
    let (top, left) = ((image.h - h) / 2, (image.w - w) / 2);
    let mut pixels = Vec::with_capacity(h * w * image.c);
    (top..top + h).for_each(|y| image.read_row(y, left..left + w, &mut pixels));
    noise_level::estimate(&pixels, h, w, image.c)
}

pub fn run(args: DenoiseArgs) -> anyhow::Result<()> {
    let loaded = super::load(&args.restore, Task::Denoise)?;
    if !loaded.graph.is_conditioned_on_level() {
        args.restore.common.say(
            "note: this model was not trained to know the noise level; --sigma says nothing to it",
        );
    }
    let most = loaded.graph.spec.undoes.sigma.map_or(f64::INFINITY, |[_, most]| most);
    super::run(
        &args.restore,
        &loaded,
        Task::Denoise,
        |_| Ok(()),
        |job, image| {
            let sigma = match args.sigma {
                Sigma::Known(sigma) => sigma,
                Sigma::Auto => estimate(&image)?,
            };
            if sigma > most {
                args.restore.common.say(&format!(
                    "note: {}: sigma {sigma:.1} is more than the {most} that the model was trained on",
                    job.image.display()
                ));
            }
            Ok(Given::whole(
                image,
                Condition::noise(sigma),
                format!("sigma {sigma:.1}"),
                json!({"sigma": sigma}),
            ))
        },
    )
}
