//! `csae eval`

use std::path::PathBuf;

use clap::Args;
use csae::data::{self, Wanted, bundled, patches};
use csae::model::{self, Purpose};
use csae::tasks::evaluate::evaluate;
use csae::tasks::infer::Inference;

use super::Common;

/// Judge a model on images: PSNR, SSIM, losses, L0, dead units, explained variance.
///
/// Images larger than the model's input are cut into patches side by side; smaller ones are enlarged. A bundled set with held-out images is judged
/// on those.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae eval runs/001 photos\n  csae eval model.safetensors t10k-images-idx3-ubyte.gz --device cpu --json"
)]
pub struct EvalArgs {
    /// Model file, or a run folder
    model: PathBuf,
    /// Images: a folder, a file or a bundled set
    data: String,
    /// Look at no more than so many patches; 0: all
    #[arg(long, default_value_t = 0, value_name = "N")]
    limit: usize,
    /// A file that does not decode is an error, not skipped
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub fn run(args: EvalArgs) -> anyhow::Result<()> {
    let loaded = model::load(&args.model)?;
    let graph = &loaded.graph;
    graph.check_autoencoder()?;
    let dims = graph.nodes[0].dims;
    let mut images = match bundled::validation_of(&args.data) {
        Some(images) => images,
        None => {
            let found = data::load(&args.data, &Wanted { channels: Some(dims.c), strict: args.strict })?;
            args.common.say(&format!("data: {}", found.description));
            args.common.say_skipped(&found.skipped);
            found.images
        }
    };
    images.convert_channels(dims.c)?;
    images.ensure_at_least(dims.h, dims.w)?;
    let mut device = args.common.open()?;
    let store = loaded.place(&mut device, graph, Purpose::Infer)?;
    let chosen = patches::grid(&images, dims.h, dims.w, args.limit, 0);
    let mut inference = Inference::new(graph, &store);
    let report = evaluate(&mut device, &mut inference, &images, &chosen)?;
    args.common.say_kernels(&mut device);
    if args.common.json {
        let mut line = serde_json::to_value(&report)?;
        line["kind"] = "eval".into();
        outln!("{line}");
    } else {
        outln!("{} images of {dims}: {report}", report.images);
    }
    Ok(())
}
