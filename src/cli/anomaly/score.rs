//! `csae anomaly score`: scores images with a detector.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Fitted;
use crate::cli::reading::{ReadArgs, ShowArgs};
use crate::cli::shard::ShardArgs;
use crate::cli::targets::{Job, Results, Targets};
use crate::cli::{CommandArgs, Common, refuse_existing};
use crate::data::numbers::npy_header;
use crate::data::{Handles, LoadOptions};
use crate::error::{Error, Result};
use crate::files;
use crate::model::ModelSpec;
use crate::report::picture::{self, Picture};
use crate::report::rendering::Rendering;
use crate::report::signals;
use crate::shape::{Dims, Size};
use crate::tasks::anomaly::{Detector, Image, Views};
use crate::tasks::shards::{Format, Info, Table, quoted};

/// Score images of any size: how anomalous each is, whether it exceeds the threshold, and where.
///
/// A score is the mean of the image's highest values, above its median, in standard deviations of
/// normal pixels.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae anomaly score detector new/ -o out/
  csae anomaly score detector new/ -o out/ --heat npy
  csae anomaly score detector part.png --json")]
pub struct ScoreArgs {
    /// Folder written by `csae anomaly fit`
    detector: PathBuf,
    /// Images: files, folders, patterns ('scans/*.png'), lists (@FILE, or - for standard input),
    /// IDX, CIFAR or npy files, bundled sets
    #[arg(required = true)]
    images: Vec<String>,
    /// Folder for pictures: NAME.png, the image beside its heat map, and NAME.mask.png, the pixels
    /// above the threshold; or the PNG file of a single result
    #[arg(short, long, value_name = "PATH")]
    pub(super) out: Option<PathBuf>,
    /// Also write the values of each heat map, beside the pictures: NAME.heat.npy, or a 16-bit
    /// NAME.heat.png with black for 0 and white for eight times the threshold
    #[arg(long, value_name = "FORMAT", requires = "out")]
    heat: Option<HeatFormat>,
    /// Also write the scores as a table: .csv or .jsonl
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    show: ShowArgs,
    #[command(flatten)]
    shard: ShardArgs,
    #[command(flatten)]
    common: Common,
}

/// Extension of the masks.
const MASK: &str = "mask.png";
/// White in a 16-bit heat map, in thresholds. Obvious defects are at three to six times the
/// threshold, and the threshold is still at 8191 of 65535 steps.
const WHITE: f32 = 8.0;

/// Formats of heat maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum HeatFormat {
    /// Array of 32-bit floats, rows × columns
    Npy,
    /// 16-bit gray picture
    Png,
}

impl HeatFormat {
    /// Extension of the files.
    const fn ending(self) -> &'static str {
        match self {
            Self::Npy => "heat.npy",
            Self::Png => "heat.png",
        }
    }

    fn write(self, target: &Path, heat: &[f32], size: Size, threshold: f32) -> Result<()> {
        let path = target.with_extension(self.ending());
        match self {
            Self::Npy => {
                let mut bytes = npy_header::encode("<f4", &[size.h, size.w]);
                bytes.extend(heat.iter().flat_map(|value| value.to_le_bytes()));
                files::write_atomically(&path, &bytes)
            }
            Self::Png => {
                let white = WHITE * threshold.max(f32::MIN_POSITIVE);
                let values: Vec<f32> = heat.iter().map(|value| value / white).collect();
                picture::save_gray16(&path, &values, size)
            }
        }
    }
}

/// The image, and beside it the same in gray with the heat map in yellow to red, from half the
/// threshold to twice the threshold. `tile` are the colours of the image (H,W,C) of `dims`.
fn overlay(tile: &[f32], Dims { c, h, w }: Dims, views: &Views, threshold: f32) -> Picture {
    const GAP: usize = 4;
    let dims = Dims::new(3, h, 2 * w + GAP);
    let mut pixels = vec![1.0_f32; dims.len()];
    for (at, pixel) in tile.chunks_exact(c).enumerate() {
        let colour: [f32; 3] = if c >= 3 { [pixel[0], pixel[1], pixel[2]] } else { [pixel[0]; 3] };
        let gray = colour.iter().sum::<f32>() / 3.0;
        let over = (views.heat[at] / threshold.max(1e-6) - 0.5).clamp(0.0, 1.5) / 1.5;
        let (shade, share) = ([1.0, 1.0 - over, 0.0], (1.5 * over).min(0.8));
        let left = dims.offset(0, at / w, at % w);
        let right = left + 3 * (w + GAP);
        pixels[left..left + 3].copy_from_slice(&colour);
        pixels[right..right + 3]
            .iter_mut()
            .zip(shade)
            .for_each(|(value, shade)| *value = gray + share * (shade - gray));
    }
    Picture { dims, pixels }
}

fn write(
    target: &Path,
    image: &Image,
    views: &Views,
    detector: &Detector,
    (model, rendering): (&ModelSpec, &Rendering),
) -> Result<()> {
    let threshold = detector.calibration.pixel_threshold;
    files::make_folder(target.parent().unwrap_or(Path::new("")))?;
    if let Some(lines) = rendering.lines() {
        let how = (model, image.dims, lines);
        signals::heat(&image.pixels, &views.heat, threshold, how).save(target)?;
    } else {
        let mut pixels = image.pixels.clone();
        model.to_unit(&mut pixels);
        let picture =
            overlay(&rendering.tile(&pixels), rendering.dims(image.dims), views, threshold);
        let title = "Left: the image. Right: its heat map; yellow is half the threshold, red twice \
                     the threshold or more.";
        rendering.below_title(picture, title).save(target)?;
    }
    let above: Vec<f32> =
        views.heat.iter().map(|heat| f32::from(u8::from(*heat > threshold))).collect();
    picture::save_png(&target.with_extension(MASK), &above, Dims { c: 1, ..image.dims })
}

impl CommandArgs for ScoreArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        self.out.is_some() || self.table.is_some()
    }

    fn is_shard(&self) -> bool {
        self.shard.is_given()
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: ScoreArgs) -> anyhow::Result<()> {
    let fitted = Fitted::load(&args.detector)?;
    let detector = &fitted.detector;
    let channels = fitted.channels();
    let budget = args.read.budget()?;
    let wanted = LoadOptions {
        channels: Some(channels),
        ..args.read.options(&budget, Some(&fitted.loaded.graph.spec))
    };
    let work = args.shard.work()?;
    if work.skip_existing && args.out.is_none() && args.table.is_none() {
        let message = "--skip-existing needs files of results: add -o or --table";
        return Err(Error::usage(message).into());
    }
    let mut table = match &args.table {
        Some(path) => Some(open_table(&args, &fitted, path)?),
        None => None,
    };
    if args.out.is_none()
        && let Some(path) = &args.table
        && work.has_all(&args.common, &[work.file(path)], args.force)?
    {
        return Ok(());
    }
    let beside: Vec<&str> =
        std::iter::once(MASK).chain(args.heat.map(HeatFormat::ending)).collect();
    let results = Results {
        out: args.out.as_deref(),
        beside: &beside,
        keeps_tiff: false,
        force: args.force,
        work,
        table: table.as_ref(),
    };
    let targets = Targets::plan(&args.common, &args.images, &results, &wanted, &budget)?;
    if targets.jobs.is_empty() && table.as_ref().is_none_or(|table| table.exists()) {
        return Ok(());
    }
    if let Some(table) = &mut table {
        targets.finished.iter().for_each(|job| table.keep(job.place, &job.name));
    }
    if targets.jobs.is_empty() {
        return Ok(table.map_or(Ok(()), |table| table.finish(&targets.names))?);
    }
    let model = &fitted.loaded.graph.spec;
    let rendering = targets.rendering(model, &args.show.show_channels)?;
    let mut device = args.common.open()?;
    device.limit_memory(budget.all);
    let reserved = targets.bytes(|size| Image::bytes(channels, size));
    let mut extractor = fitted.extractor(&mut device, reserved)?;
    let mut handles = Handles::default();
    if let Some(table) = table.as_mut().filter(|_| args.out.is_some()) {
        table.start_journal()?;
    }
    let threshold = detector.calibration.image_threshold;
    for Job { source, image, place, name, target } in &targets.jobs {
        let image = Image::read(&targets.sources[*source], *image, &mut handles)?;
        let views = detector.views(&mut device, &mut extractor, &image)?;
        let score = views.score;
        let anomalous = score > threshold;
        if let Some(table) = &mut table {
            let row = match table.format() {
                Format::Csv => format!("{},{score},{threshold},{anomalous}\n", quoted(name)),
                Format::Json | Format::JsonLines => {
                    let row = json!({
                        "image": name, "score": score, "threshold": threshold,
                        "anomalous": anomalous
                    });
                    format!("{row}\n")
                }
            };
            table.push(*place, name, row)?;
        }
        if args.out.is_some() {
            write(target, &image, &views, detector, (model, &rendering))?;
            if let Some(format) = args.heat {
                let threshold = detector.calibration.pixel_threshold;
                format.write(target, &views.heat, image.dims.size(), threshold)?;
            }
        }
        if args.common.json {
            let picture = args.out.as_ref().map(|_| target.display().to_string());
            outln!(
                "{}",
                json!({
                    "kind": "score", "image": name, "score": score, "threshold": threshold,
                    "anomalous": anomalous, "picture": picture
                })
            );
        } else {
            outln!("{score:8.3}  {}  {name}", if anomalous { "anomalous" } else { "normal   " });
        }
    }
    if let Some(table) = table {
        table.finish(&targets.names)?;
    }
    args.common.report_kernels(&mut device);
    Ok(())
}

/// The table of the scores, with the rows of an earlier process.
fn open_table(args: &ScoreArgs, fitted: &Fitted, path: &Path) -> Result<Table> {
    let work = args.shard.work()?;
    let format = Format::of(path)?;
    let path = work.file(path);
    if !work.skip_existing {
        refuse_existing(&path, args.force)?;
    }
    let calibration = &fitted.detector.calibration;
    let settings =
        format!("thresholds {} and {}", calibration.image_threshold, calibration.pixel_threshold);
    let info = Info::new("anomaly score", &fitted.loaded.hash, settings, work.shard());
    let head = "image,score,threshold,anomalous\n".to_owned();
    let mut table = Table::new(&path, format, head, info);
    if work.skip_existing && args.out.is_some() {
        table.read_known()?;
    }
    Ok(table)
}
