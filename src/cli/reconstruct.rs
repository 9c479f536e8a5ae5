//! `csae reconstruct`: passes images through an autoencoder.

use std::path::PathBuf;

use clap::Args;
use csae::internals::data::{Handles, LoadOptions};
use csae::internals::files;
use csae::internals::infer::batches::{Inference, MemoryInUse};
use csae::internals::infer::reconstruct;
use csae::internals::metrics::quality;
use csae::internals::model::Purpose;
use csae::internals::report::picture;
use csae::internals::shape::Dims;
use serde_json::json;

use super::reading::ReadArgs;
use super::targets::{Job, Targets};
use super::{CommandArgs, Common};

/// Reconstruct images of any size with an autoencoder, and write the results as PNG files.
///
/// A convolutional model encodes an image as a whole. Other models encode overlapping tiles of
/// their input size, whose reconstructions are blended without seams. Prints PSNR and SSIM against
/// each original.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae reconstruct runs/001 photo.jpg -o out/
  csae reconstruct model.safetensors folder/ -o out/ --force")]
pub struct ReconstructArgs {
    /// Model file or run folder
    model: PathBuf,
    /// Images: files, folders, patterns ('scans/*.png'), lists (@FILE, or - for standard input),
    /// IDX, CIFAR, npy or csv files, bundled sets
    #[arg(required = true)]
    images: Vec<String>,
    /// Folder for the results, or the PNG file of a single result
    #[arg(short, long, value_name = "PATH")]
    out: PathBuf,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    common: Common,
}

impl CommandArgs for ReconstructArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: ReconstructArgs) -> anyhow::Result<()> {
    let loaded = args.common.load_model(&args.model)?;
    let graph = &loaded.graph;
    graph.check_autoencoder()?;
    graph.check_reconstructs_images()?;
    let dims = graph.nodes[0].dims;
    let budget = args.read.budget()?;
    let wanted = LoadOptions {
        channels: Some(dims.c),
        ..args.read.options(&budget, graph.spec.normalization.as_ref())
    };
    let out = (Some(args.out.as_path()), &[][..]);
    let targets = Targets::plan(&args.common, &args.images, out, &wanted, &budget, args.force)?;
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let store = loaded.place(&mut device, graph, Purpose::Infer)?;
    let mut inference = Inference::new(graph, &store);
    let data = targets.bytes(|size| reconstruct::bytes(dims, size));
    inference.fit(&device, MemoryInUse { parameters: 2 * store.bytes(), data })?;
    let mut handles = Handles::default();
    for Job { source, image, target, .. } in &targets.jobs {
        let pixels = &targets.sources[*source];
        let size = pixels.size(*image);
        let mut original = pixels.values(*image, &mut handles)?;
        let mut result = reconstruct::image(&mut device, &mut inference, &original, size)?;
        graph.spec.to_unit(&mut original);
        graph.spec.to_unit(&mut result);
        result.iter_mut().for_each(|x| *x = x.clamp(0.0, 1.0));
        let own = Dims::of(size, dims.c);
        files::make_folder(target.parent().unwrap_or(&args.out))?;
        picture::save_png(target, &result, own)?;
        let (psnr, ssim) =
            (quality::psnr(&original, &result), quality::ssim(&original, &result, own));
        if args.common.json {
            outln!(
                "{}",
                json!({
                    "kind": "reconstruct", "file": target.display().to_string(),
                    "width": size.w, "height": size.h, "psnr": psnr, "ssim": ssim
                })
            );
        } else {
            args.common.report_written(format_args!(
                "{}  {size}  PSNR {psnr:.2} dB  SSIM {ssim:.4}",
                target.display()
            ));
        }
    }
    args.common.report_kernels(&mut device);
    Ok(())
}
