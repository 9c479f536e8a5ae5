//! Code shared by `csae denoise`, `csae inpaint` and `csae upscale`: reading images, restoring
//! them, and writing the results.

pub mod deblock;
pub mod denoise;
pub mod inpaint;
mod jobs;
mod scores;
pub mod upscale;

use std::ops::Range;
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use self::jobs::Job;
use self::scores::Scores;
use super::Common;
use super::shard::ShardArgs;
use super::targets::reason;
use crate::budget;
use crate::data::formats::decode::Limit;
use crate::data::image_file::{self, Depth, ImageFile, Levels, is_jpeg_name, is_tiff_name};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files;
use crate::infer::conditions::Condition;
use crate::infer::restore::{Restorer, check_task};
use crate::metrics::quality;
use crate::model::{self, LoadedModel, Purpose};
use crate::report::titled::strip;
use crate::shape::{Dims, Size};
use crate::spec::Task;
use crate::tasks::restore::image;
use crate::train::shows_bar;

/// Flags of the restoration commands.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Images: files, folders, or patterns such as 'scans/*.png'
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Model file or run folder of a model trained for this task [default: the bundled one]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Folder for the results, or the PNG, JPEG or TIFF file of a single result [default: denoised,
    /// inpainted, upscaled or deblocked, after the command]
    #[arg(short, long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Clean image, or folder of clean images with the same names; prints PSNR and SSIM, of several
    /// images also the means
    #[arg(long, value_name = "CLEAN")]
    compare: Option<PathBuf>,
    /// Restore each tile in all eight flips and rotations and average the results: a few tenths of
    /// a decibel better, eight times slower
    #[arg(long)]
    ensemble: bool,
    /// Also write NAME.side.png: before and after, side by side
    #[arg(long)]
    side_by_side: bool,
    /// Values of black and white, such as 0,4095 for frames of 12 bits in files of 16. Values
    /// outside are restored, too, and not clipped [default: the range of the integers; for floats
    /// 0,1 or 0,255 if all are within, otherwise the smallest and the largest]
    #[arg(
        long,
        value_name = "BLACK,WHITE",
        value_parser = parse_levels,
        allow_hyphen_values = true
    )]
    range: Option<Levels>,
    /// Quality of JPEG results, 1 to 100: higher values keep more detail and make larger files
    /// [default: 95]
    #[arg(long, value_name = "Q", value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: Option<u8>,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
    /// Fail on files that do not decode, instead of skipping them
    #[arg(long)]
    strict: bool,
    /// Memory budget, such as 4GiB: images that take more than half of it when decoded are refused,
    /// and as many tiles are processed at once as fit [default: 2GiB for images]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) shard: ShardArgs,
    #[command(flatten)]
    pub(in crate::cli) common: Common,
}

impl RestoreArgs {
    /// The memory for all work, and the limit for one decoded image.
    fn memory(&self) -> Result<(Option<u64>, Limit)> {
        let all = self.max_memory.as_deref().map(budget::parse_bytes).transpose();
        let all = all.map_err(|error| error.at("--max-memory"))?;
        // The image and its result have the same size.
        let bytes = all.map_or(image_file::MAX_BYTES, |all| all / 2);
        Ok((all, Limit { bytes, can_raise: true }))
    }
}

/// Parses a range: two numbers and a comma.
fn parse_levels(text: &str) -> std::result::Result<Levels, String> {
    let numbers: Option<Vec<f32>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    let Some([black, white]) = numbers.as_deref() else {
        return Err("give the samples of black and white, such as 0,4095".to_owned());
    };
    Levels::new(*black, *white).map_err(|error| error.to_string())
}

/// Says on which scale an image is restored, if that is not the range of its integers or 0…1. Says
/// also that most of the range is empty, where an image of 12 bits was stored with 16.
fn report_scale(args: &RestoreArgs, job: &Job, image: &ImageFile) {
    let Levels { black, white } = image.levels();
    let place = job.image.display();
    match image.depth() {
        Depth::Float if white != 1.0 || black != 0.0 => args.common.status(&format!(
            "note: {place}: floats are restored on the scale from {black} to {white}; --range \
             sets another"
        )),
        Depth::Sixteen if image.max_sample() < MOSTLY_EMPTY * white => {
            args.common.status(&format!(
                "note: {place}: the largest sample is {} of {white}; if white is lower, set it \
                 with --range, such as --range 0,4095 for 12 bits",
                image.max_sample()
            ));
        }
        _ => {}
    }
}

/// Says if most samples are outside the range that was given: it is probably that of other images.
fn report_range(args: &RestoreArgs, job: &Job, image: &ImageFile, Levels { black, white }: Levels) {
    let outside = image.share_outside(Levels { black, white });
    if outside > 0.5 {
        args.common.status(&format!(
            "note: {}: {:.0} % of the samples are outside of {black} to {white} (--range)",
            job.image.display(),
            100.0 * outside
        ));
    }
}

/// Says what a file cannot hold of its image.
fn report_loss(args: &RestoreArgs, job: &Job, result: &ImageFile) {
    let (place, is_jpeg) = (job.target.display(), is_jpeg_name(&job.target));
    if result.depth() == Depth::Float && !is_tiff_name(&job.target) {
        let bits = if is_jpeg { 8 } else { 16 };
        args.common.status(&format!(
            "note: {place}: floats are clipped and rounded to {bits} bits; a TIFF file keeps them"
        ));
    }
    if is_jpeg && result.alpha().is_some() {
        args.common.status(&format!(
            "note: {place}: a JPEG file has no transparency; transparent parts are white"
        ));
    }
}

/// Share of the range of 16 bits below which an image probably has fewer bits.
const MOSTLY_EMPTY: f32 = 0.125;

/// The input of the model for one image.
struct Input {
    /// The input image, of the result's size.
    before: ImageFile,
    /// Pixels (H,W,C) with more precision than `before` has, if available.
    pixels: Option<Vec<f32>>,
    /// The condition of the model: noise level, mask or scale.
    condition: Condition,
    /// Description of the input for the output line.
    summary: String,
    /// The same description as fields for `--json`.
    fields: Map<String, Value>,
}

impl Input {
    /// An image that is restored as it is.
    fn whole(image: ImageFile, condition: Condition, summary: String, fields: Value) -> Self {
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        Self { before: image, pixels: None, condition, summary, fields }
    }
}

/// The pixels of an image without the colours that its transparent pixels hide. None if it hides
/// none.
fn visible(image: &ImageFile) -> Option<Vec<f32>> {
    let alpha = image.alpha()?;
    let mut pixels = image.pixels();
    image::fill_hidden(&mut pixels, image.dims, Some(&alpha)).then_some(pixels)
}

/// The model that `args` name, or the bundled one.
fn load(args: &RestoreArgs, task: Task) -> Result<LoadedModel> {
    let loaded = match &args.model {
        Some(path) => args.common.load_model(path)?,
        None => model::restorer(task),
    };
    check_task(&loaded.graph.spec, task)?;
    Ok(loaded)
}

/// Restores all images. `prepare` makes the model's input from an image. `check` is called for
/// every image before the first one is restored.
fn run(
    args: &RestoreArgs,
    loaded: &LoadedModel,
    task: Task,
    check: impl Fn(&Job) -> Result<()>,
    prepare: impl Fn(&Job, ImageFile) -> Result<Input>,
) -> anyhow::Result<()> {
    let default_folder = match task {
        Task::Denoise => "denoised",
        Task::Inpaint => "inpainted",
        Task::Upscale => "upscaled",
        Task::Dejpeg => "deblocked",
    };
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(default_folder));
    let (memory, limit) = args.memory()?;
    let work = args.shard.work()?;
    let jobs = jobs::jobs(args, &out, work)?;
    jobs.iter().try_for_each(check)?;
    if jobs.is_empty() {
        return Ok(());
    }
    let mut device = args.common.open()?;
    device.limit_memory(memory);
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer)?;
    let mut restorer = Restorer::new(&loaded.graph, &store)?;
    restorer.ensemble = args.ensemble;
    let (mut skipped, mut several, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    for (number, job) in jobs.iter().enumerate() {
        let place = |error: Error| error.at(job.image.display());
        let input = ImageFile::read_within(&job.image, limit).and_then(|image| {
            if image.frames() > 1 {
                several.push((job.image.display().to_string(), image.frames()));
            }
            let image = match args.range {
                Some(levels) => {
                    report_range(args, job, &image, levels);
                    image.with_levels(levels)
                }
                None => {
                    report_scale(args, job, &image);
                    image
                }
            };
            prepare(job, image).map_err(place)
        });
        let mut input = match input {
            // If no image could be restored, the error of the last image is returned. A part can
            // have no image that can be used.
            Err(error) if !args.strict && (work.is_part() || skipped.len() + 1 < jobs.len()) => {
                let name = job.image.display().to_string();
                skipped.push((name.clone(), reason(&error, &name)));
                continue;
            }
            input => input?,
        };
        let is_unchanged = restorer
            .changes_nothing(&loaded.graph, input.before.dims.c, &input.condition)
            .map_err(place)?;
        if is_unchanged {
            input.summary += ", unchanged";
        }
        let result = if is_unchanged {
            input.before.clone()
        } else {
            let bar = progress(args, &input.before, number, jobs.len());
            let result = restore(&restorer, &mut device, &mut input, &bar).map_err(place)?;
            bar.finish_and_clear();
            result
        };
        let before = &input.before;
        let quality = job
            .clean
            .as_ref()
            .map(|clean| measure(job, clean, before, &result, args.range))
            .transpose()?;
        scores.extend(quality);
        files::make_folder(job.target.parent().unwrap_or(&out))?;
        report_loss(args, job, &result);
        let is_copy = is_unchanged && args.quality.is_none();
        if !(is_copy && copy_jpeg(&job.image, &job.target)?) {
            result.save_with(&job.target, args.quality.unwrap_or(image_file::JPEG_QUALITY))?;
        }
        if args.side_by_side {
            side_by_side(before, &result).save(&job.side())?;
        }
        if args.common.json {
            let mut line = json!({
                "kind": task.name(), "file": job.target.display().to_string(),
                "width": result.dims.w, "height": result.dims.h
            });
            let table = line.as_object_mut().expect("`line` is an object");
            table.extend(input.fields);
            table.extend(quality.iter().flat_map(Scores::fields));
            outln!("{line}");
        } else {
            let quality = quality.map_or(String::new(), |scores| scores.to_string());
            let (number, count, target) = (number + 1, jobs.len(), job.target.display());
            let line = format!(
                "[{number}/{count}] {target}  {}  {}{quality}",
                result.size(),
                input.summary
            );
            if job.clean.is_some() {
                outln!("{line}");
            } else {
                args.common.report_written(line);
            }
        }
    }
    if let Some(mean) = Scores::mean(&scores) {
        outln!("{}", mean.report(scores.len(), args.common.json));
    }
    args.common.report_first_images(&several);
    args.common.report_skipped(&skipped);
    args.common.report_kernels(&mut device);
    Ok(())
}

/// A progress bar over the rows of an image, on a terminal.
fn progress(args: &RestoreArgs, image: &ImageFile, number: usize, count: usize) -> ProgressBar {
    if args.common.quiet || args.common.json || !shows_bar() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {bar:30} {percent} %  {eta} left")
        .expect("the template is valid");
    let bar = ProgressBar::new(image.dims.h as u64).with_style(style);
    bar.with_message(format!("[{}/{count}] {}", number + 1, image.size()))
}

fn restore(
    restorer: &Restorer,
    device: &mut Device,
    input: &mut Input,
    bar: &ProgressBar,
) -> Result<ImageFile> {
    let pixels = input.pixels.take();
    let before = &input.before;
    let dims = before.dims;
    let mut result = before.like(dims.size());
    let at = |y: usize, column: usize| dims.offset(0, y, column);
    let read = |y: usize, columns: Range<usize>, row: &mut Vec<f32>| match &pixels {
        Some(pixels) => {
            row.extend_from_slice(&pixels[at(y, columns.start)..at(y, columns.end)]);
        }
        None => before.read_row(y, columns, row),
    };
    restorer.restore(device, dims, &input.condition, read, |strip| {
        result.write_rows(strip.top, &strip.pixels);
        bar.set_position((strip.top + strip.pixels.len() / (dims.w * dims.c)) as u64);
        Ok(())
    })?;
    if let Some(mask) = &input.condition.mask {
        result.copy_pixels(before, |pixel| mask.missing[pixel] == 0);
    }
    Ok(result)
}

/// Copies a JPEG file whose pixels stay as they are: compressing them again would change them.
/// Returns false if one of the files is no JPEG.
fn copy_jpeg(from: &std::path::Path, to: &std::path::Path) -> Result<bool> {
    let bytes = files::read(from)?;
    let is_jpeg = is_jpeg_name(to) && bytes.starts_with(&[0xff, 0xd8, 0xff]);
    if is_jpeg {
        files::write_atomically(to, &bytes)?;
    }
    Ok(is_jpeg)
}

/// PSNR and SSIM before and after.
fn measure(
    job: &Job,
    clean: &std::path::Path,
    before: &ImageFile,
    after: &ImageFile,
    range: Option<Levels>,
) -> Result<Scores> {
    let mut clean = ImageFile::read(clean)?;
    let levels = range.unwrap_or_else(|| clean.levels());
    if clean.dims != after.dims {
        return Err(Error::usage(format!(
            "--compare: the clean image has {}x{} pixels and {} channels, but the result of {} has \
             {}x{} pixels and {} channels",
            clean.dims.w,
            clean.dims.h,
            clean.dims.c,
            job.image.display(),
            after.dims.w,
            after.dims.h,
            after.dims.c
        )));
    }
    // All on the scale of the clean image, so that the noise has no part in it.
    let [mut before, mut restored] = [before, after].map(Clone::clone);
    if clean.depth() == before.depth() {
        (before, restored) = (before.with_levels(levels), restored.with_levels(levels));
        clean = clean.with_levels(levels);
    }
    let [clean, before, restored] = [&clean, &before, &restored].map(ImageFile::pixels);
    let of =
        |pixels: &[f32]| [quality::psnr(&clean, pixels), quality::ssim(&clean, pixels, after.dims)];
    Ok(Scores { before: of(&before), after: of(&restored) })
}

/// Before and after with a gap between them, below a strip that says so.
fn side_by_side(before: &ImageFile, after: &ImageFile) -> ImageFile {
    const GAP: usize = 8;
    let Dims { c, h, w } = before.dims;
    let width = 2 * w + GAP;
    let strip = strip("Left: before. Right: after.", width, c);
    let top = strip.len() / (width * c);
    let mut both = before.like(Size::new(top + h, width));
    both.write_rows(0, &strip);
    for y in 0..h {
        let mut row = Vec::with_capacity((2 * w + GAP) * c);
        before.read_row(y, 0..w, &mut row);
        row.resize((w + GAP) * c, 1.0);
        after.read_row(y, 0..w, &mut row);
        both.write_rows(top + y, &row);
    }
    both
}
