//! `csae detect predict`: detects objects.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::load;
use crate::annotations::box_files::to_voc;
use crate::annotations::boxes::{Bounds, Detection};
use crate::annotations::label_image::class_colour;
use crate::bail_usage;
use crate::cli::outputs::names_file;
use crate::cli::shard::ShardArgs;
use crate::cli::targets::{Job, Results, Targets};
use crate::cli::{CommandArgs, Common, budget, refuse_existing};
use crate::data::{Handles, LoadOptions};
use crate::error::Result;
use crate::files;
use crate::model::Purpose;
use crate::report::boxes::{LabelledBox, with_boxes};
use crate::report::picture::Picture;
use crate::shape::Dims;
use crate::tasks::detect::Detector;
use crate::tasks::shards::{Format, Info, Table, json_rows};

/// The file of all detections.
const ALL: &str = "detections.json";

/// Detect objects in images of any size: images with drawn boxes, JSON and Pascal VOC XML.
///
/// NAME.png is the image with a frame around each object, in the colour of its class, labelled with
/// class and score; small images are enlarged. NAME.xml holds the boxes in Pascal VOC format.
/// detections.json holds the boxes of all images: file, class, score and [left, top, width,
/// height], as in COCO results.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae detect predict runs/detector new/ -o out/
  csae detect predict runs/detector photo.jpg -o out/ --score 0.5")]
pub struct PredictArgs {
    /// Detector: a file or folder written by `csae detect train`
    model: PathBuf,
    /// Images: files, folders, patterns ('scans/*.png'), lists (@FILE, or - for standard input),
    /// IDX, CIFAR or npy files, bundled sets
    #[arg(required = true)]
    images: Vec<String>,
    /// Folder for the results, or the PNG file of a single result; its boxes then go to files of
    /// the same name with .xml and .json
    #[arg(short, long, value_name = "PATH")]
    out: PathBuf,
    /// Minimum score of a detection
    #[arg(long, value_name = "SCORE", default_value_t = 0.3)]
    score: f64,
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

/// The image with a labelled frame around each detection, those with the highest scores on top.
fn draw_boxes(pixels: &[u8], dims: Dims, (found, classes): (&[Detection], &[String])) -> Picture {
    let c = dims.c;
    let value =
        |pixel: &[u8], channel: usize| f32::from(pixel[if c >= 3 { channel } else { 0 }]) / 255.0;
    let pixels = pixels
        .chunks_exact(c)
        .flat_map(|pixel| [0, 1, 2].map(|channel| value(pixel, channel)))
        .collect();
    let boxes: Vec<LabelledBox> = found
        .iter()
        .rev()
        .map(|one| {
            let Bounds { left, top, right, bottom } = one.bounds;
            LabelledBox {
                edges: [left, top, right, bottom],
                colour: class_colour(one.class + 1).map(|value| f32::from(value) / 255.0),
                label: format!("{} {:.2}", classes[one.class], one.score),
            }
        })
        .collect();
    with_boxes(&Picture { dims: Dims { c: 3, ..dims }, pixels }, &boxes)
}

fn as_json(image: &str, classes: &[String], found: &[Detection]) -> Vec<Value> {
    let each = found.iter().map(|one| {
        let Bounds { left, top, right, bottom } = one.bounds;
        let rounded =
            [left, top, right - left, bottom - top].map(|value| (value * 100.0).round() / 100.0);
        json!({
            "image": image, "class": classes[one.class],
            "score": (one.score * 1e4).round() / 1e4, "bbox": rounded
        })
    });
    each.collect()
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
    check(&args)?;
    let loaded = load(&args.common, &args.model)?;
    let channels = loaded.graph.nodes[0].dims.c;
    let budget = budget(args.max_memory.as_deref())?;
    let wanted = LoadOptions {
        channels: Some(channels),
        eight_bits: true,
        ..LoadOptions::new(args.strict, &budget)
    };
    let work = args.shard.work()?;
    let all =
        if names_file(&args.out) { args.out.with_extension("json") } else { args.out.join(ALL) };
    let all = work.file(&all);
    let settings = format!("score {}", args.score);
    let info = Info::new("detect", &loaded.hash, settings, work.shard());
    let mut table = Table::new(&all, Format::Json, String::new(), info);
    if work.skip_existing {
        table.read_known()?;
    }
    let results = Results {
        out: Some(&args.out),
        beside: &["xml"],
        keeps_tiff: false,
        force: args.force,
        work,
        table: Some(&table),
    };
    let targets = Targets::plan(&args.common, &args.images, &results, &wanted, &budget)?;
    if !work.skip_existing {
        refuse_existing(&all, args.force)?;
    }
    if targets.jobs.is_empty() && table.exists() {
        return Ok(());
    }
    targets.finished.iter().for_each(|job| table.keep(job.place, &job.name));
    if targets.jobs.is_empty() {
        return Ok(table.finish(&targets.names)?);
    }
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer)?;
    let mut detector = Detector::new(&loaded.graph, &store)?;
    detector.fit(
        &device,
        2 * store.bytes(),
        // The image, and the picture before and after boxes are drawn.
        targets.bytes(|size| (size.area() * (channels + 2 * 3 * 4)) as u64),
    )?;
    let classes = detector.classes();
    let mut handles = Handles::default();
    table.start_journal()?;
    for Job { source, image, place, name, target } in &targets.jobs {
        let set = &targets.sources[*source];
        let dims = Dims::of(set.size(*image), channels);
        let pixels = set.read(*image, &mut handles)?;
        let found = detector.find(&mut device, &[(&pixels, dims)], args.score)?.remove(0);
        let objects = as_json(name, classes, &found);
        table.push(*place, name, json_rows(&objects))?;
        files::make_folder(target.parent().unwrap_or(Path::new("")))?;
        draw_boxes(&pixels, dims, (&found, classes)).save(target)?;
        files::write_atomically(
            &target.with_extension("xml"),
            to_voc(name, dims, classes, &found).as_bytes(),
        )?;
        if args.common.json {
            outln!(
                "{}",
                json!({
                    "kind": "objects", "image": name, "file": target.display().to_string(),
                    "objects": objects
                })
            );
        } else {
            let count = |class: usize| found.iter().filter(|one| one.class == class).count();
            let counts: Vec<String> = classes
                .iter()
                .enumerate()
                .filter(|(i, _)| count(*i) > 0)
                .map(|(i, name)| format!("{name} {}", count(i)))
                .collect();
            args.common.report_written(format_args!(
                "{}  {}",
                target.display(),
                if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") }
            ));
        }
    }
    table.finish(&targets.names)?;
    args.common.report_kernels(&mut device);
    Ok(())
}

fn check(args: &PredictArgs) -> Result<()> {
    if !(0.0..=1.0).contains(&args.score) {
        bail_usage!("--score {}: give a number between 0 and 1", args.score);
    }
    Ok(())
}
