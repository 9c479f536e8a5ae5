//! `csae segment predict`

use std::path::{Path, PathBuf};

use clap::Args;
use csae::data::annotations::label_image::{colour, write_labels};
use csae::data::{Handles, Wanted};
use csae::error::Result;
use csae::files;
use csae::report::picture;
use csae::tasks::features::npy_header;
use csae::tasks::segment::most_likely;
use serde_json::{Value, json};

use super::{check_memory, load, placed};
use crate::cli::targets::{Job, Targets};
use crate::cli::{Common, budget, refuse_existing};

/// How much of a class's colour lies over the image.
const OPACITY: f32 = 0.5;

/// Tell what every pixel of images is of, of any size: label images, coloured overlays,
/// probabilities.
///
/// NAME.png has a class number a pixel, and a palette that shows classes in colours;
/// NAME.overlay.png is the image beneath these colours, the first class left clear.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae segment predict runs/cells new/ -o out/\n  csae segment predict runs/cells photo.jpg -o out/ --probabilities"
)]
pub struct PredictArgs {
    /// Segmenter: a file or folder that `csae segment train` made
    model: PathBuf,
    /// Images: files, folders, lists (@FILE, or - for standard input), IDX, CIFAR or npy files,
    /// bundled sets
    #[arg(required = true)]
    images: Vec<String>,
    /// Folder for the pictures
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Also write NAME.npy: the probability of each class at each pixel (H,W,classes; float32)
    #[arg(long)]
    probabilities: bool,
    /// Write over existing files
    #[arg(long)]
    force: bool,
    /// A file that does not decode is an error, not skipped
    #[arg(long)]
    strict: bool,
    /// Memory that may be taken, such as 512MiB or 2GiB: images that need more than half of it stay
    /// in their files [default: what is free]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

fn overlay(pixels: &[f32], c: usize, classes: &[u8]) -> Vec<f32> {
    let mut out = Vec::with_capacity(classes.len() * 3);
    for (pixel, class) in pixels.chunks_exact(c).zip(classes) {
        let shade = colour(usize::from(*class));
        let opacity = if *class == 0 { 0.0 } else { OPACITY };
        out.extend((0..3).map(|ch| {
            let value = pixel[if c >= 3 { ch } else { 0 }];
            value + opacity * (f32::from(shade[ch]) / 255.0 - value)
        }));
    }
    out
}

fn with(picture: &Path, ending: &str) -> PathBuf {
    picture.with_extension(ending)
}

pub fn run(args: PredictArgs) -> anyhow::Result<()> {
    let loaded = load(&args.model)?;
    let channels = loaded.graph.nodes[0].dims.c;
    let budget = budget(args.max_memory.as_deref())?;
    let wanted = Wanted { channels: Some(channels), strict: args.strict, memory: budget.all };
    let targets =
        Targets::plan(&args.common, &args.images, Some(&args.out), &wanted, &budget, args.force)?;
    for job in &targets.jobs {
        refuse_existing(&with(&job.target, "overlay.png"), args.force)?;
        if args.probabilities {
            refuse_existing(&with(&job.target, "npy"), args.force)?;
        }
    }
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let segmenter = placed(&mut device, &loaded)?;
    let sizes = targets.jobs.iter().map(|job| targets.sources[job.source].size(job.image));
    check_memory(&device, &segmenter, sizes, targets.held, &budget)?;
    let names = segmenter.classes();
    let mut handles = Handles::default();
    let of_one_size = |job: &Job| targets.sources[job.source].size(job.image);
    for jobs in targets.jobs.chunk_by(|a, b| of_one_size(a) == of_one_size(b)) {
        let (h, w) = of_one_size(&jobs[0]);
        let laid = segmenter.laid(&device, h, w)?;
        let mut pass = laid.pass();
        for Job { source, image, target } in jobs {
            let set = &targets.sources[*source];
            let pixels: Vec<f32> = set
                .read(*image, &mut handles)?
                .iter()
                .map(|byte| f32::from(*byte) / 255.0)
                .collect();
            let probabilities = pass.probabilities(&mut device, &pixels)?;
            let classes = most_likely(&probabilities, names.len());
            files::make_folder(target.parent().unwrap_or(Path::new("")))?;
            write_labels(target, &classes, h, w)?;
            picture::save_png(
                &with(target, "overlay.png"),
                &overlay(&pixels, channels, &classes),
                h,
                w,
                3,
            )?;
            if args.probabilities {
                write_probabilities(&with(target, "npy"), &probabilities, [h, w, names.len()])?;
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
                    json!({"kind": "labels", "image": set.name(*image), "file": target.display().to_string(), "shares": shares})
                );
            } else {
                let shares = names.iter().enumerate().filter(|(i, _)| share(*i) > 0.0);
                let shares: Vec<String> =
                    shares.map(|(i, name)| format!("{name} {:.1} %", 100.0 * share(i))).collect();
                outln!("{}  {}", target.display(), shares.join(", "));
            }
        }
    }
    args.common.say_kernels(&mut device);
    Ok(())
}

fn write_probabilities(path: &Path, values: &[f32], shape: [usize; 3]) -> Result<()> {
    let bytes = npy_header("<f4", &shape)
        .into_iter()
        .chain(values.iter().flat_map(|value| value.to_le_bytes()));
    files::write_atomically(path, &bytes.collect::<Vec<u8>>())
}
