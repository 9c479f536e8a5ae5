//! `csae eval`: evaluates a model.

use std::path::{Path, PathBuf};

use clap::Args;

use super::reading::parse_nan;
use super::{CommandArgs, Common};
use crate::data::{Layout, LoadOptions, NanName, Sample};
use crate::error::Error;
use crate::infer::batches::{Inference, MemoryInUse};
use crate::infer::conditions::Condition;
use crate::infer::evaluate::evaluate_sample;
use crate::infer::restore::{Restorer, check_task};
use crate::model::Purpose;
use crate::raster::fill::fill;
use crate::raster::jpeg;
use crate::raster::resample::imresize;
use crate::report::picture::Picture;
use crate::shape::Dims;
use crate::tasks::restore::protocol;
use crate::tasks::restore::protocol::{Degradation, Protocol, Restored};

/// Evaluate a model on images: PSNR, SSIM, losses, L0, dead units, explained variance.
///
/// Images larger than the model's input are cut into adjacent patches; smaller ones are enlarged.
/// If a bundled set has held-out images, only the held-out images are used.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae eval runs/001 photos
  csae eval model.safetensors t10k-images-idx3-ubyte.gz --device cpu --json
  csae eval denoise --protocol bsd68 --data BSD68/")]
pub struct EvalArgs {
    /// Model file, run folder, or bundled model: photographs, denoise, inpaint, upscale, dejpeg,
    /// paint-1, paint-2, paint-3
    model: PathBuf,
    /// Images: a folder, a file, a pattern ('scans/*.png'), a list (@FILE, or - for standard input)
    /// or a bundled set
    #[arg(required_unless_present = "protocol", conflicts_with = "protocol")]
    data: Option<String>,
    /// Evaluate restoration by a published protocol: bsd68 or set12 (noise with sigma 15, 25 and
    /// 50), cbsd68, kodak24 or mcmaster (the same in colour), set5, set14, bsd100 or urban100
    /// (upscaling by 2, 3 and 4), inpaint50 (half of the pixels missing), classic5 or live1 (JPEG
    /// quality 10 to 40); prints published results beside the model's
    #[arg(long, value_name = "NAME", requires = "folder")]
    protocol: Option<Protocol>,
    /// Folder with the protocol's images
    #[arg(long = "data", id = "folder", value_name = "DIR", requires = "protocol")]
    folder: Option<PathBuf>,
    /// Seed of the protocol's noise and masks
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        requires = "protocol",
        value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64)
    )]
    seed: u64,
    /// Restore each tile of the protocol's images in all eight flips and rotations, and average the
    /// results
    #[arg(long, requires = "protocol")]
    ensemble: bool,
    /// Number of patches to evaluate, spread evenly over the images; 0 means all
    #[arg(
        long,
        alias = "limit",
        default_value_t = 0,
        value_name = "N",
        conflicts_with = "protocol"
    )]
    images: usize,
    /// Fail on files that do not decode, instead of skipping them
    #[arg(long, conflicts_with = "protocol")]
    strict: bool,
    /// Axes of an array, outermost first: N samples, C channels, H rows, W columns, L signals;
    /// such as NCHW or NCL [default: inferred]
    #[arg(long, value_name = "AXES", conflicts_with = "protocol")]
    layout: Option<Layout>,
    /// Values that are not finite: error; zero (0 after normalisation); or mask (missing: filled
    /// for the model, left out of loss and evaluation) [default: error]
    #[arg(long, value_name = "HOW", value_parser = parse_nan, conflicts_with = "protocol")]
    nan: Option<NanName>,
    /// Memory budget, such as 512MiB or 2GiB; data that need more than half of it are streamed, and
    /// the batch size is chosen to fit [default: the free memory]
    #[arg(long, value_name = "SIZE", conflicts_with = "protocol")]
    max_memory: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Evaluates a restoration model by a protocol.
fn run_protocol(args: &EvalArgs, protocol: Protocol, folder: &Path) -> anyhow::Result<()> {
    let loaded = args.common.load_model(&args.model)?;
    let spec = &loaded.graph.spec;
    check_task(spec, protocol.task())?;
    let trained = |degradation: &Degradation| match degradation {
        Degradation::Scale(scale) => spec.undoes.scales.contains(scale),
        Degradation::Sigma(_) | Degradation::Missing(_) | Degradation::Quality(_) => true,
    };
    let degradations: Vec<Degradation> =
        protocol.degradations().iter().copied().filter(trained).collect();
    if degradations.is_empty() {
        return Err(Error::usage(format!(
            "--protocol {}: the model was not trained for any of its scales",
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
        let condition = match (degraded.degradation, &degraded.mask) {
            (Degradation::Sigma(sigma), _) => Condition::noise(sigma),
            (Degradation::Quality(quality), _) => {
                Condition::compressed(jpeg::level_of_quality(quality))
            }
            (Degradation::Scale(scale), _) => {
                let (pixels, size) = imresize(&before.pixels, before.dims, scale as f64)?;
                before = Picture { dims: Dims::of(size, before.dims.c), pixels };
                Condition::enlarged(scale)
            }
            (Degradation::Missing(_), Some(mask)) => {
                fill(&mut before.pixels, before.dims.c, mask);
                Condition::missing(mask.clone())
            }
            (Degradation::Missing(_), None) => {
                unreachable!("a degradation with missing pixels has a mask")
            }
        };
        let Picture { dims, ref pixels } = before;
        let pixels = restorer.restore_pixels(&mut device, dims, &condition, pixels)?;
        let after = Picture { dims, pixels };
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

impl CommandArgs for EvalArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        false
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: EvalArgs) -> anyhow::Result<()> {
    if let (Some(protocol), Some(folder)) = (args.protocol, &args.folder) {
        return run_protocol(&args, protocol, folder);
    }
    let data = args.data.as_deref().expect("clap requires it without --protocol");
    let loaded = args.common.load_model(&args.model)?;
    let graph = &loaded.graph;
    graph.check_autoencoder()?;
    let dims = graph.nodes[0].dims;
    let budget = super::budget(args.max_memory.as_deref())?;
    let want = LoadOptions {
        layout: args.layout.as_ref(),
        nan: args.nan.unwrap_or_default(),
        normalization: graph.spec.normalization.as_ref(),
        spectrogram: graph.spec.spectrogram.as_ref(),
        ..LoadOptions::new(args.strict, &budget)
    };
    let sample = Sample::open(data, dims, args.images, &want, budget)?;
    args.common.status(&format!("data: {}", sample.description));
    args.common.report_files(&sample.report);
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let store = loaded.place(&mut device, graph, Purpose::Infer)?;
    let mut inference = Inference::new(graph, &store);
    if inference.degrade_as_trained(0) {
        args.common.status(
            "note: this is a restoration model; images are degraded first, as in validation",
        );
    }
    // Parameters are on the device, and also in host memory as they were read.
    inference.fit(&device, MemoryInUse { parameters: 2 * store.bytes(), data: sample.bytes() })?;
    let report = evaluate_sample(&mut device, &mut inference, &sample)?;
    args.common.report_kernels(&mut device);
    if args.common.json {
        let mut line = serde_json::to_value(&report)?;
        line["kind"] = "eval".into();
        outln!("{line}");
    } else {
        outln!("{} images of {dims}: {report}", report.images);
    }
    Ok(())
}
