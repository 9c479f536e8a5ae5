//! `csae eval`

use std::path::{Path, PathBuf};

use clap::Args;
use csae::data::Sample;
use csae::error::Error;
use csae::infer::batches::{Inference, MemoryInUse};
use csae::infer::conditions::Condition;
use csae::infer::evaluate::evaluate_sample;
use csae::infer::restore::{Restorer, check_task};
use csae::model::{self, Purpose};
use csae::raster::fill::fill;
use csae::raster::resample::imresize;
use csae::report::picture::Picture;
use csae::tasks::restore::protocol;
use csae::tasks::restore::protocol::{Degradation, Protocol, Restored};

use super::Common;

/// Judge a model on images: PSNR, SSIM, losses, L0, dead units, explained variance.
///
/// Images larger than the model's input are cut into patches side by side; smaller ones are
/// enlarged. A bundled set with held-out images is judged on those.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae eval runs/001 photos\n  csae eval model.safetensors t10k-images-idx3-ubyte.gz --device cpu --json"
)]
pub struct EvalArgs {
    /// Model file, a run folder, or a bundled model: denoise, inpaint, upscale, paint-1, paint-2,
    /// paint-3
    model: PathBuf,
    /// Images: a folder, a file, a list (@FILE, or - for standard input) or a bundled set
    #[arg(required_unless_present = "protocol", conflicts_with = "protocol")]
    data: Option<String>,
    /// Judge restoration by a published protocol: bsd68 or set12 (noise of sigma 15, 25 and 50),
    /// set5 or set14 (enlarged 2, 3 and 4 times), inpaint50 (half of the pixels missing); prints
    /// published results beside it
    #[arg(long, value_name = "NAME", requires = "folder")]
    protocol: Option<Protocol>,
    /// Folder with the protocol's images
    #[arg(long = "data", id = "folder", value_name = "DIR", requires = "protocol")]
    folder: Option<PathBuf>,
    /// Seed of the protocol's noise and masks
    #[arg(long, value_name = "N", default_value_t = 0, requires = "protocol", value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64))]
    seed: u64,
    /// Restore each tile of the protocol's images turned and flipped in all eight ways and average
    #[arg(long, requires = "protocol")]
    ensemble: bool,
    /// Patches to look at, spread evenly over the images; 0: all
    #[arg(
        long,
        alias = "limit",
        default_value_t = 0,
        value_name = "N",
        conflicts_with = "protocol"
    )]
    images: usize,
    /// A file that does not decode is an error, not skipped
    #[arg(long, conflicts_with = "protocol")]
    strict: bool,
    /// Memory that may be taken, such as 512MiB or 2GiB: data that need more than half of it are
    /// streamed, and as many images are looked at at once as fit beside them [default: what is
    /// free]
    #[arg(long, value_name = "SIZE", conflicts_with = "protocol")]
    max_memory: Option<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Judges a restorer by a protocol.
fn run_protocol(args: &EvalArgs, protocol: Protocol, folder: &Path) -> anyhow::Result<()> {
    let loaded = model::load(&args.model)?;
    let spec = &loaded.graph.spec;
    check_task(spec, protocol.task())?;
    let trained = |degradation: &Degradation| !matches!(degradation, Degradation::Scale(scale) if !spec.undoes.scales.contains(scale));
    let degradations: Vec<Degradation> =
        protocol.degradations().into_iter().filter(trained).collect();
    if degradations.is_empty() {
        return Err(Error::usage(format!(
            "--protocol {}: the model was trained for none of its scales",
            protocol.name()
        ))
        .into());
    }
    let mut device = args.common.open()?;
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer)?;
    let mut restorer = Restorer::new(&loaded.graph, &store)?;
    restorer.ensemble = args.ensemble;
    let report = protocol::run(protocol, folder, &degradations, args.seed, |degraded| {
        let mut before = degraded.picture.clone();
        let told = match (degraded.degradation, &degraded.mask) {
            (Degradation::Sigma(sigma), _) => Condition::noise(sigma),
            (Degradation::Scale(scale), _) => {
                let (pixels, h, w) =
                    imresize(&before.pixels, (before.h, before.w), 1, scale as f64)?;
                before = Picture { h, w, c: 1, pixels };
                Condition::enlarged(scale)
            }
            (Degradation::Missing(_), Some(mask)) => {
                fill(&mut before.pixels, 1, mask);
                Condition::missing(mask.clone())
            }
            (Degradation::Missing(_), None) => unreachable!("missing pixels come with their mask"),
        };
        let Picture { h, w, c, ref pixels } = before;
        let after = Picture {
            h,
            w,
            c,
            pixels: restorer.restore_pixels(&mut device, [h, w, c], &told, pixels)?,
        };
        Ok(Restored { before, after })
    })?;
    if args.common.json {
        let mut line = serde_json::to_value(&report)?;
        line["kind"] = "protocol".into();
        outln!("{line}");
    } else {
        outln!("{report}");
    }
    Ok(())
}

pub fn run(args: EvalArgs) -> anyhow::Result<()> {
    if let (Some(protocol), Some(folder)) = (args.protocol, &args.folder) {
        return run_protocol(&args, protocol, folder);
    }
    let data = args.data.as_deref().expect("required where there is no protocol");
    let loaded = model::load(&args.model)?;
    let graph = &loaded.graph;
    graph.check_autoencoder()?;
    let dims = graph.nodes[0].dims;
    let budget = super::budget(args.max_memory.as_deref())?;
    let sample = Sample::open(data, dims, args.images, args.strict, budget)?;
    args.common.say(&format!("data: {}", sample.description));
    args.common.say_skipped(&sample.skipped);
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let store = loaded.place(&mut device, graph, Purpose::Infer)?;
    let mut inference = Inference::new(graph, &store);
    if inference.degrade_as_trained(0) {
        args.common.say("note: the model restores; images are corrupted first, as in validation");
    }
    // The values are on the device, and in the host's memory as they were read.
    inference.fit(&device, MemoryInUse { parameters: 2 * store.bytes(), data: sample.bytes() })?;
    let report = evaluate_sample(&mut device, &mut inference, &sample)?;
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
