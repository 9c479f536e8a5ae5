//! `csae denoise`

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::Args;
use csae::data::folder;
use csae::error::{Error, Result};
use csae::files;
use csae::model;
use csae::tasks::image_file::ImageFile;
use csae::tasks::restore::Restorer;
use csae::tasks::{noise_level, quality};
use serde_json::json;

use super::Common;

/// Take noise out of images of any size: gray or colour, 8 or 16 bits, transparency kept.
///
/// Results have the images' names, and their kind where that is PNG or JPEG; else they are PNG. Large images are restored in overlapping tiles.
#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Examples:\n  csae denoise noisy.png -m runs/001 -o clean/\n  csae denoise scans/ -m model.safetensors -o clean/ --sigma 25"
)]
pub struct DenoiseArgs {
    /// Images: files, or folders of them
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Model file, or a run folder, of a model trained on noisy images (csae train --preset denoise)
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// Folder for the results
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Standard deviation of the noise on the 0-255 scale, or auto: estimated for each image
    #[arg(long, value_name = "S|auto", default_value = "auto", value_parser = sigma)]
    sigma: Sigma,
    /// The clean image, or the folder with the clean images of the same names: prints PSNR and SSIM
    #[arg(long, value_name = "CLEAN")]
    compare: Option<PathBuf>,
    /// Also write NAME.side.png: before and after, side by side
    #[arg(long)]
    side_by_side: bool,
    /// Write over existing files
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

/// How much noise there is.
#[derive(Clone, Copy, Debug)]
enum Sigma {
    Auto,
    Known(f64),
}

fn sigma(text: &str) -> std::result::Result<Sigma, String> {
    if text == "auto" {
        return Ok(Sigma::Auto);
    }
    let known = text.parse().ok().filter(|sigma| (0.0..=255.0).contains(sigma));
    known.map(Sigma::Known).ok_or_else(|| "a standard deviation from 0 to 255, or auto".to_owned())
}

/// An image to restore, where its result goes, and what it is compared with.
struct Job {
    image: PathBuf,
    target: PathBuf,
    clean: Option<PathBuf>,
}

impl Job {
    fn side(&self) -> PathBuf {
        self.target.with_extension("side.png")
    }
}

/// All images, a folder's by their places below it.
fn jobs(args: &DenoiseArgs) -> Result<Vec<Job>> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut taken: HashMap<String, PathBuf> = HashMap::new();
    for source in &args.images {
        if !source.exists() {
            return Err(Error::usage(format!("{}: no such file or folder", source.display())));
        }
        let found = if source.is_dir() { folder::files(source)? } else { vec![source.clone()] };
        for image in found {
            let name = if source.is_dir() {
                image.strip_prefix(source).unwrap_or(&image)
            } else {
                Path::new(image.file_name().unwrap_or_default())
            };
            let ending = name.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            let mut target = args.out.join(name);
            if !["png", "jpg", "jpeg"].contains(&ending.as_str()) {
                target.set_extension("png");
            }
            // Some file systems take no notice of case.
            if let Some(other) = taken.insert(target.to_string_lossy().to_lowercase(), image.clone()) {
                return Err(Error::usage(format!(
                    "both {} and {} would become {}: give one of them in another call, to another -o",
                    other.display(),
                    image.display(),
                    target.display()
                )));
            }
            let clean = match &args.compare {
                Some(folder) if folder.is_dir() => Some(folder.join(name)),
                other => other.clone(),
            };
            jobs.push(Job { image, target, clean });
        }
    }
    if jobs.len() > 1 && args.compare.as_ref().is_some_and(|clean| !clean.is_dir()) {
        return Err(Error::usage("--compare: several images are compared with a folder of images of the same names"));
    }
    for job in &jobs {
        super::refuse_existing(&job.target, args.force)?;
        if args.side_by_side {
            super::refuse_existing(&job.side(), args.force)?;
        }
        if let Some(clean) = job.clean.as_ref().filter(|clean| !clean.is_file()) {
            return Err(Error::usage(format!(
                "--compare: {} is not there, which {} is compared with",
                clean.display(),
                job.image.display()
            )));
        }
    }
    Ok(jobs)
}

/// The noise of an image, by the middle of a large one.
fn estimate(image: &ImageFile) -> Result<f64> {
    const SIDE: usize = 2048;
    let (h, w) = (image.h.min(SIDE), image.w.min(SIDE));
    let (top, left) = ((image.h - h) / 2, (image.w - w) / 2);
    let mut pixels = Vec::with_capacity(h * w * image.c);
    (top..top + h).for_each(|y| image.read_row(y, left..left + w, &mut pixels));
    noise_level::estimate(&pixels, h, w, image.c)
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

pub fn run(args: DenoiseArgs) -> anyhow::Result<()> {
    let loaded = model::load(&args.model)?;
    let jobs = jobs(&args)?;
    let mut device = args.common.open()?;
    if !loaded.graph.knows_level() {
        args.common.say("note: this model was not trained to know the noise level; --sigma says nothing to it");
    }
    let mut restorer = Restorer::new(&mut device, &loaded)?;
    for (number, job) in jobs.iter().enumerate() {
        let place = |error: Error| error.at(job.image.display());
        let image = ImageFile::read(&job.image)?;
        let sigma = match args.sigma {
            Sigma::Known(sigma) => sigma,
            Sigma::Auto => estimate(&image).map_err(place)?,
        };
        let mut result = image.like(image.h, image.w);
        let size = [image.h, image.w, image.c];
        let read = |y: usize, columns: std::ops::Range<usize>, row: &mut Vec<f32>| image.read_row(y, columns, row);
        let written = restorer.denoise(size, sigma, read, |strip| {
            result.write_rows(strip.top, &strip.pixels);
            Ok(())
        });
        written.map_err(place)?;
        let judged = job.clean.as_ref().map(|clean| -> Result<[f64; 4]> {
            let clean = ImageFile::read(clean)?;
            if (clean.h, clean.w, clean.c) != (image.h, image.w, image.c) {
                return Err(Error::usage(format!(
                    "--compare: the clean image has {}x{} pixels of {} channels, {} has {}x{} of {}",
                    clean.w,
                    clean.h,
                    clean.c,
                    job.image.display(),
                    image.w,
                    image.h,
                    image.c
                )));
            }
            let [clean, before, after] = [&clean, &image, &result].map(ImageFile::pixels);
            let of = |pixels: &[f32]| (quality::psnr(&clean, pixels), quality::ssim(&clean, pixels, image.h, image.w, image.c));
            let ((p0, s0), (p1, s1)) = (of(&before), of(&after));
            Ok([p0, s0, p1, s1])
        });
        let judged = judged.transpose()?;
        files::make_folder(job.target.parent().unwrap_or(&args.out))?;
        result.save(&job.target)?;
        if args.side_by_side {
            side_by_side(&image, &result).save(&job.side())?;
        }
        if args.common.json {
            let mut line = json!({"kind": "denoise", "file": job.target.display().to_string(), "width": image.w, "height": image.h, "sigma": sigma});
            if let Some([p0, s0, p1, s1]) = judged {
                (line["psnr_before"], line["ssim_before"], line["psnr"], line["ssim"]) =
                    (p0.into(), s0.into(), p1.into(), s1.into());
            }
            outln!("{line}");
        } else {
            let judged =
                judged.map_or(String::new(), |[p0, s0, p1, s1]| format!("  PSNR {p0:.2} → {p1:.2} dB  SSIM {s0:.4} → {s1:.4}"));
            outln!("[{}/{}] {}  {}x{}  sigma {sigma:.1}{judged}", number + 1, jobs.len(), job.target.display(), image.w, image.h);
        }
    }
    args.common.say_kernels(&mut device);
    Ok(())
}
