//! `csae reconstruct`

use std::path::{Path, PathBuf};

use clap::Args;
use csae::data::{self, Images, Wanted};
use csae::error::Error;
use csae::files;
use csae::model::{self, Purpose};
use csae::tasks::infer::Inference;
use csae::tasks::{picture, quality, reconstruct};
use serde_json::json;

use super::Common;

/// Pass images of any size through a model and write what comes out, as PNG.
///
/// Larger images are covered by overlapping tiles of the model's input, blended without seams. Prints PSNR and SSIM beside each original.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae reconstruct runs/001 photo.jpg -o out/\n  csae reconstruct model.safetensors folder/ -o out/ --force"
)]
pub struct ReconstructArgs {
    /// Model file, or a run folder
    model: PathBuf,
    /// Images: files or folders
    #[arg(required = true)]
    images: Vec<String>,
    /// Folder for the results
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Write over existing files
    #[arg(long)]
    force: bool,
    /// A file that does not decode is an error, not skipped
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub fn run(args: ReconstructArgs) -> anyhow::Result<()> {
    let loaded = model::load(&args.model)?;
    let graph = &loaded.graph;
    graph.check_autoencoder()?;
    let c = graph.nodes[0].dims.c;
    let mut jobs: Vec<(Images, usize, PathBuf)> = Vec::new();
    for source in &args.images {
        let found = data::load(source, &Wanted { channels: Some(c), strict: args.strict })?;
        args.common.say_skipped(&found.skipped);
        for i in 0..found.images.len() {
            // A folder's files keep their places below it; a single file its name.
            let name = Path::new(&found.images.names[i]);
            let name = if Path::new(source).is_dir() { name } else { Path::new(name.file_name().unwrap_or_default()) };
            let target = args.out.join(name.strip_prefix(source).unwrap_or(name)).with_extension("png");
            let lower = |path: &Path| path.to_string_lossy().to_lowercase();
            if jobs.iter().any(|(.., other)| lower(other) == lower(&target)) {
                return Err(Error::usage(format!("two images would become {}: give them in two calls", target.display())).into());
            }
            super::refuse_existing(&target, args.force)?;
            jobs.push((found.images.subset(&[i]), 0, target));
        }
    }
    let mut device = args.common.open()?;
    let store = loaded.place(&mut device, graph, Purpose::Infer)?;
    let mut inference = Inference::new(graph, &store);
    files::make_folder(&args.out)?;
    for (images, i, target) in &jobs {
        let (h, w) = (images.table[*i].h, images.table[*i].w);
        let original = images.image_f32(*i);
        let mut result = reconstruct::image(&mut device, &mut inference, &original, h, w)?;
        result.iter_mut().for_each(|x| *x = x.clamp(0.0, 1.0));
        files::make_folder(target.parent().unwrap_or(&args.out))?;
        picture::save_png(target, &result, h, w, c)?;
        let (psnr, ssim) = (quality::psnr(&original, &result), quality::ssim(&original, &result, h, w, c));
        if args.common.json {
            outln!(
                "{}",
                json!({"kind": "reconstruct", "file": target.display().to_string(), "width": w, "height": h, "psnr": psnr, "ssim": ssim})
            );
        } else {
            outln!("{}  {w}x{h}  PSNR {psnr:.2} dB  SSIM {ssim:.4}", target.display());
        }
    }
    args.common.say_kernels(&mut device);
    Ok(())
}
