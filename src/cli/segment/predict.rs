//! `csae segment predict`: segments images.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::{check_memory, load, placed};
use crate::annotations::label_image::{class_colour, write_labels};
use crate::cli::shard::ShardArgs;
use crate::cli::targets::{Job, Results, Targets};
use crate::cli::{CommandArgs, Common, budget};
use crate::data::{Handles, LoadOptions};
use crate::error::Result;
use crate::files;
use crate::report::picture;
use crate::shape::Dims;
use crate::tasks::features::npy_header;
use crate::tasks::segment::most_likely;

/// Extension of the overlays.
const OVERLAY: &str = "overlay.png";
/// Opacity of the class colours over the image.
const OPACITY: f32 = 0.5;

/// Segment images of any size: label images, coloured overlays, probabilities.
///
/// NAME.png holds a class number per pixel, with a palette that shows classes as colours.
/// NAME.overlay.png is the image with these colours over it; the first class stays transparent.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae segment predict runs/cells new/ -o out/
  csae segment predict runs/cells photo.jpg -o out/ --probabilities")]
pub struct PredictArgs {
    /// Segmenter: a file or folder written by `csae segment train`
    model: PathBuf,
    /// Images: files, folders, patterns ('scans/*.png'), lists (@FILE, or - for standard input),
    /// IDX, CIFAR or npy files, bundled sets
    #[arg(required = true)]
    images: Vec<String>,
    /// Folder for the pictures, or the PNG file of a single label image
    #[arg(short, long, value_name = "PATH")]
    out: PathBuf,
    /// Also write NAME.npy: the probability of each class at each pixel (H,W,classes; float32)
    #[arg(long)]
    probabilities: bool,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
    /// Fail on files that do not decode, instead of skipping them
    #[arg(long)]
    strict: bool,
    /// Memory budget, such as 512MiB or 2GiB; images that need more than half of it are read from
    /// their files as needed [default: the free memory]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    #[command(flatten)]
    shard: ShardArgs,
    #[command(flatten)]
    common: Common,
}

fn overlay(pixels: &[f32], c: usize, classes: &[u8]) -> Vec<f32> {
    let mut out = Vec::with_capacity(classes.len() * 3);
    for (pixel, class) in pixels.chunks_exact(c).zip(classes) {
        let shade = class_colour(usize::from(*class));
        let opacity = if *class == 0 { 0.0 } else { OPACITY };
        out.extend((0..3).map(|ch| {
            let value = pixel[if c >= 3 { ch } else { 0 }];
            value + opacity * (f32::from(shade[ch]) / 255.0 - value)
        }));
    }
    out
}

fn beside(picture: &Path, ending: &str) -> PathBuf {
    picture.with_extension(ending)
}

impl CommandArgs for PredictArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn is_shard(&self) -> bool {
        self.shard.is_given()
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: PredictArgs) -> anyhow::Result<()> {
    let loaded = load(&args.common, &args.model)?;
    let channels = loaded.graph.nodes[0].dims.c;
    let budget = budget(args.max_memory.as_deref())?;
    let wanted = LoadOptions {
        channels: Some(channels),
        eight_bits: true,
        ..LoadOptions::new(args.strict, &budget)
    };
    let endings: &[&str] = if args.probabilities { &[OVERLAY, "npy"] } else { &[OVERLAY] };
    let results = Results {
        out: Some(&args.out),
        beside: endings,
        keeps_tiff: false,
        force: args.force,
        work: args.shard.work()?,
        table: None,
    };
    let targets = Targets::plan(&args.common, &args.images, &results, &wanted, &budget)?;
    if targets.jobs.is_empty() {
        return Ok(());
    }
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let segmenter = placed(&mut device, &loaded)?;
    let sizes = targets.jobs.iter().map(|job| targets.sources[job.source].size(job.image));
    check_memory(&device, &segmenter, sizes, targets.held, &budget)?;
    let names = segmenter.classes();
    let mut handles = Handles::default();
    let size_of = |job: &Job| targets.sources[job.source].size(job.image);
    for jobs in targets.jobs.chunk_by(|a, b| size_of(a) == size_of(b)) {
        let size = size_of(&jobs[0]);
        let plan = segmenter.plan(&device, size)?;
        let mut pass = plan.pass();
        for Job { source, image, name, target, .. } in jobs {
            let set = &targets.sources[*source];
            let pixels = set.values(*image, &mut handles)?;
            let probabilities = pass.probabilities(&mut device, &pixels)?;
            let classes = most_likely(&probabilities, names.len());
            files::make_folder(target.parent().unwrap_or(Path::new("")))?;
            write_labels(target, &classes, size)?;
            picture::save_png(
                &beside(target, OVERLAY),
                &overlay(&pixels, channels, &classes),
                Dims::of(size, 3),
            )?;
            if args.probabilities {
                let dims = Dims::of(size, names.len());
                write_probabilities(&beside(target, "npy"), &probabilities, dims)?;
            }
            let share = |class: usize| {
                classes.iter().filter(|found| usize::from(**found) == class).count() as f64
                    / classes.len() as f64
            };
            if args.common.json {
                let shares: serde_json::Map<String, Value> = names
                    .iter()
                    .enumerate()
                    .map(|(i, name)| (name.clone(), json!(share(i))))
                    .collect();
                outln!(
                    "{}",
                    json!({
                        "kind": "labels", "image": name,
                        "file": target.display().to_string(), "shares": shares
                    })
                );
            } else {
                let shares = names.iter().enumerate().filter(|(i, _)| share(*i) > 0.0);
                let shares: Vec<String> =
                    shares.map(|(i, name)| format!("{name} {:.1} %", 100.0 * share(i))).collect();
                args.common.report_written(format_args!(
                    "{}  {}",
                    target.display(),
                    shares.join(", ")
                ));
            }
        }
    }
    args.common.report_kernels(&mut device);
    Ok(())
}

fn write_probabilities(path: &Path, values: &[f32], dims: Dims) -> Result<()> {
    let bytes = npy_header("<f4", &[dims.h, dims.w, dims.c])
        .into_iter()
        .chain(values.iter().flat_map(|value| value.to_le_bytes()));
    files::write_atomically(path, &bytes.collect::<Vec<u8>>())
}
