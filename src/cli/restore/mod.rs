//! What `csae denoise`, `csae inpaint` and `csae upscale` share: images in, restored images out.

pub mod denoise;
pub mod inpaint;
mod jobs;
pub mod upscale;

use std::ops::Range;
use std::path::PathBuf;

use clap::Args;
use csae::data::image_file::ImageFile;
use csae::device::Device;
use csae::error::{Error, Kind, Result};
use csae::files;
use csae::infer::conditions::Condition;
use csae::infer::restore::{Restorer, check_task};
use csae::metrics::quality;
use csae::model::{self, LoadedModel, Purpose};
use csae::raster::color;
use csae::spec::Task;
use csae::train::draws;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use self::jobs::Job;
use super::Common;
use super::targets::reason;

/// What every command takes that restores images.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Images: files, folders of them, or patterns such as 'scans/*.png'
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Model file, or a run folder, of a model trained for this task [default: the bundled one]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Folder for the results [default: denoised, inpainted or upscaled]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The clean image, or the folder with the clean images of the same names: prints PSNR and SSIM
    #[arg(long, value_name = "CLEAN")]
    compare: Option<PathBuf>,
    /// Restore each tile turned and flipped in all eight ways and average: some tenths of a decibel
    /// better, eight times slower
    #[arg(long)]
    ensemble: bool,
    /// Also write NAME.side.png: before and after, side by side
    #[arg(long)]
    side_by_side: bool,
    /// Write over existing files
    #[arg(long)]
    force: bool,
    /// A file that does not decode is an error, not skipped
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    pub(in crate::cli) common: Common,
}

/// An image as a model is given it.
struct Given {
    /// What the result is compared with, of its size.
    before: ImageFile,
    /// The samples (H,W,C) where they are finer than those of `before`.
    pixels: Option<Vec<f32>>,
    /// Whether only the brightness of a colour image is restored, by a gray model.
    luma: bool,
    /// What the model is told.
    told: Condition,
    /// What is said of it, for people and as JSON.
    says: String,
    fields: Map<String, Value>,
}

impl Given {
    /// An image that is restored as it is.
    fn whole(image: ImageFile, told: Condition, says: String, fields: Value) -> Self {
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        Self { before: image, pixels: None, luma: false, told, says, fields }
    }
}

/// The model that is asked for, or the bundled one.
fn load(args: &RestoreArgs, task: Task) -> Result<LoadedModel> {
    let loaded = match &args.model {
        Some(path) => model::load(path)?,
        None => model::restorer(task),
    };
    check_task(&loaded.graph.spec, task)?;
    Ok(loaded)
}

/// Restores each image as `give` prepares it for the model, once `check` has found nothing wrong
/// with any of them.
fn run(
    args: &RestoreArgs,
    loaded: &LoadedModel,
    task: Task,
    check: impl Fn(&Job) -> Result<()>,
    give: impl Fn(&Job, ImageFile) -> Result<Given>,
) -> anyhow::Result<()> {
    let done = match task {
        Task::Denoise => "denoised",
        Task::Inpaint => "inpainted",
        Task::Upscale => "upscaled",
    };
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(done));
    let jobs = jobs::jobs(args, &out)?;
    jobs.iter().try_for_each(check)?;
    let mut device = args.common.open()?;
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer)?;
    let mut restorer = Restorer::new(&loaded.graph, &store)?;
    restorer.ensemble = args.ensemble;
    let mut skipped = Vec::new();
    for (number, job) in jobs.iter().enumerate() {
        let place = |error: Error| error.at(job.image.display());
        let given = ImageFile::read(&job.image).and_then(|image| give(job, image).map_err(place));
        let mut given = match given {
            // the last one is an error if none was restored
            Err(error)
                if error.kind == Kind::Usage && !args.strict && skipped.len() + 1 < jobs.len() =>
            {
                let name = job.image.display().to_string();
                skipped.push((name.clone(), reason(&error, &name)));
                continue;
            }
            given => given?,
        };
        let bar = progress(args, &given.before, number, jobs.len());
        let result = restore(&restorer, &mut device, &mut given, &bar).map_err(place)?;
        bar.finish_and_clear();
        let before = &given.before;
        let judged =
            job.clean.as_ref().map(|clean| judge(job, clean, before, &result)).transpose()?;
        files::make_folder(job.target.parent().unwrap_or(&out))?;
        result.save(&job.target)?;
        if args.side_by_side {
            side_by_side(before, &result).save(&job.side())?;
        }
        if args.common.json {
            let mut line = json!({"kind": task.name(), "file": job.target.display().to_string(), "width": result.w, "height": result.h});
            let table = line.as_object_mut().expect("it is an object");
            table.extend(given.fields);
            if let Some([p0, s0, p1, s1]) = judged {
                let scores = [("psnr_before", p0), ("ssim_before", s0), ("psnr", p1), ("ssim", s1)];
                table.extend(scores.map(|(name, value)| (name.to_owned(), value.into())));
            }
            outln!("{line}");
        } else {
            let judged = judged.map_or(String::new(), |[p0, s0, p1, s1]| {
                format!("  PSNR {p0:.2} → {p1:.2} dB  SSIM {s0:.4} → {s1:.4}")
            });
            let (number, count, target) = (number + 1, jobs.len(), job.target.display());
            outln!(
                "[{number}/{count}] {target}  {}x{}  {}{judged}",
                result.w,
                result.h,
                given.says
            );
        }
    }
    args.common.say_skipped(&skipped);
    args.common.say_kernels(&mut device);
    Ok(())
}

/// A bar over the rows of an image, on a terminal.
fn progress(args: &RestoreArgs, image: &ImageFile, number: usize, count: usize) -> ProgressBar {
    if args.common.quiet || args.common.json || !draws() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {bar:30} {percent} %  {eta} left")
        .expect("the template is sound");
    let bar = ProgressBar::new(image.h as u64).with_style(style);
    bar.with_message(format!("[{}/{count}] {}x{}", number + 1, image.w, image.h))
}

fn restore(
    restorer: &Restorer,
    device: &mut Device,
    given: &mut Given,
    bar: &ProgressBar,
) -> Result<ImageFile> {
    let pixels = given.pixels.take();
    let before = &given.before;
    let [h, w, c] = [before.h, before.w, before.c];
    let mut result = before.like(h, w);
    let read = |y: usize, columns: Range<usize>, row: &mut Vec<f32>| match &pixels {
        Some(pixels) => {
            row.extend_from_slice(&pixels[(y * w + columns.start) * c..(y * w + columns.end) * c])
        }
        None => before.read_row(y, columns, row),
    };
    if given.luma && c == 3 && restorer.channels() == 1 {
        let luma = |y: usize, columns: Range<usize>, row: &mut Vec<f32>| {
            let mut rgb = Vec::with_capacity(3 * columns.len());
            read(y, columns, &mut rgb);
            row.extend(color::luma(&rgb, 3));
        };
        restorer.restore(device, [h, w, 1], &given.told, luma, |strip| {
            for (y, luma) in (strip.top..).zip(strip.pixels.chunks_exact(w)) {
                let mut rgb = Vec::with_capacity(3 * w);
                read(y, 0..w, &mut rgb);
                let mut ycbcr = color::rgb_to_ycbcr(&rgb);
                ycbcr.iter_mut().step_by(3).zip(luma).for_each(|(to, from)| *to = *from);
                result.write_rows(y, &color::ycbcr_to_rgb(&ycbcr));
                bar.set_position(y as u64 + 1);
            }
            Ok(())
        })?;
        return Ok(result);
    }
    restorer.restore(device, [h, w, c], &given.told, read, |strip| {
        result.write_rows(strip.top, &strip.pixels);
        bar.set_position((strip.top + strip.pixels.len() / (w * c)) as u64);
        Ok(())
    })?;
    Ok(result)
}

/// PSNR and SSIM before and after.
fn judge(
    job: &Job,
    clean: &std::path::Path,
    before: &ImageFile,
    after: &ImageFile,
) -> Result<[f64; 4]> {
    let clean = ImageFile::read(clean)?;
    if (clean.h, clean.w, clean.c) != (after.h, after.w, after.c) {
        return Err(Error::usage(format!(
            "--compare: the clean image has {}x{} pixels of {} channels, the result of {} has {}x{} of {}",
            clean.w,
            clean.h,
            clean.c,
            job.image.display(),
            after.w,
            after.h,
            after.c
        )));
    }
    let [clean, before, restored] = [&clean, before, after].map(ImageFile::pixels);
    let of = |pixels: &[f32]| {
        (quality::psnr(&clean, pixels), quality::ssim(&clean, pixels, after.h, after.w, after.c))
    };
    let ((p0, s0), (p1, s1)) = (of(&before), of(&restored));
    Ok([p0, s0, p1, s1])
}

/// Before and after with a gap between.
fn side_by_side(before: &ImageFile, after: &ImageFile) -> ImageFile {
    const GAP: usize = 8;
    let (h, w, c) = (before.h, before.w, before.c);
    let mut both = before.like(h, 2 * w + GAP);
    for y in 0..h {
        let mut row = Vec::with_capacity((2 * w + GAP) * c);
        before.read_row(y, 0..w, &mut row);
        row.resize((w + GAP) * c, 1.0);
        after.read_row(y, 0..w, &mut row);
        both.write_rows(y, &row);
    }
    both
}
