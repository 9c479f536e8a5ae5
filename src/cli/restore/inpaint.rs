//! `csae inpaint`: inpainting.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::jobs::Job;
use super::{Input, RestoreArgs};
use crate::cli::{CommandArgs, Common};
use crate::data::image_file::{Depth, ImageFile, Levels};
use crate::error::{Error, Result};
use crate::infer::conditions::Condition;
use crate::raster::corrupt::Mask;
use crate::shape::Dims;
use crate::spec::Task;
use crate::tasks::restore::image::{fill_hidden, guess, marked};

/// Fill missing pixels of images: pixels that a mask marks, or pixels of a given colour. Other
/// pixels stay unchanged, except in JPEG files, which are encoded again.
///
/// Results keep the images' names and the type of their samples. JPEG files stay JPEG (--quality);
/// TIFF files stay TIFF; all others become PNG. Colour profile, EXIF, XMP and resolution are kept.
/// Of animations and files with several pages, the first image is read. Large images are processed
/// in overlapping tiles.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae inpaint scratched.png --mask scratches.png
  csae inpaint photos/ --mask masks/ -o whole/
  csae inpaint frame.png --mask-color '#ff00ff'")]
pub struct InpaintArgs {
    #[command(flatten)]
    pub(in crate::cli) restore: RestoreArgs,
    /// Mask of the image's size: white or a colour where pixels are missing, black or transparent
    /// elsewhere. Because of soft edges, pixels count as missing from a quarter of white on. A mask
    /// of 0 and one darker value, such as 1 of 255, marks pixels by that value. Or a folder of
    /// masks with the images' names
    #[arg(long, value_name = "FILE", conflicts_with = "mask_color")]
    mask: Option<PathBuf>,
    /// Colour of missing pixels: #rrggbb, or black, white, red, green, blue, cyan, magenta, yellow
    #[arg(long, value_name = "C", value_parser = parse_color)]
    mask_color: Option<Rgb>,
}

/// Share of missing pixels from which a mask could be inverted. Scratches and text cover less.
const MANY: f64 = 0.75;

/// A colour with 8 bits per channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rgb([u8; 3]);

fn parse_color(text: &str) -> std::result::Result<Rgb, String> {
    let digits = match text.to_lowercase().as_str() {
        "black" => "000000".to_owned(),
        "white" => "ffffff".to_owned(),
        "red" => "ff0000".to_owned(),
        "green" => "00ff00".to_owned(),
        "blue" => "0000ff".to_owned(),
        "cyan" => "00ffff".to_owned(),
        "magenta" => "ff00ff".to_owned(),
        "yellow" => "ffff00".to_owned(),
        other => other.strip_prefix('#').unwrap_or(other).to_owned(),
    };
    let value = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 6);
    let value = value.ok_or_else(|| "give a colour such as #ff00ff or magenta".to_owned())?;
    Ok(Rgb([16, 8, 0].map(|shift| (value >> shift) as u8)))
}

/// The mask file of an image: `mask` itself, or the file with the image's name in the folder
/// `mask`.
fn mask_file(job: &Job, mask: &Path) -> Result<PathBuf> {
    if !mask.exists() {
        return Err(Error::usage(format!("--mask {}: no such file or folder", mask.display())));
    }
    if !mask.is_dir() {
        return Ok(mask.to_owned());
    }
    let named = mask.join(&job.name);
    let found =
        [named.clone(), named.with_extension("png")].into_iter().find(|path| path.is_file());
    found.ok_or_else(|| {
        Error::usage(format!(
            "--mask: neither {} nor the same name with .png exists",
            named.display()
        ))
    })
}

fn read_mask(path: &Path, image: &ImageFile) -> Result<Mask> {
    let mask = ImageFile::read(path).map_err(|error| error.at("--mask"))?;
    if mask.size() != image.size() {
        return Err(Error::usage(format!(
            "--mask: {} has {}x{} pixels, but the image has {}x{}; give a mask of the image's size",
            path.display(),
            mask.dims.w,
            mask.dims.h,
            image.dims.w,
            image.dims.h
        )));
    }
    marked(mask.dims, &mask.pixels(), mask.alpha().as_deref())
        .map_err(|error| error.at(format!("--mask: {}", path.display())))
}

fn by_color(Rgb(color): Rgb, image: &ImageFile, has_range: bool) -> Result<Mask> {
    if image.dims.c == 1 && (color[0] != color[1] || color[1] != color[2]) {
        return Err(Error::usage(
            "--mask-color: a gray image has no coloured pixels; give a gray colour or use --mask",
        ));
    }
    let Levels { black, white } = image.levels();
    if image.depth() == Depth::Float
        && !has_range
        && (black != 0.0 || ![1.0, 255.0].contains(&white))
    {
        return Err(Error::usage(
            "--mask-color: these floats have no white of their own; set black and white with \
             --range, or use --mask",
        ));
    }
    let is = |pixel: &[f32]| {
        pixel.iter().zip(color).all(|(v, color)| (v * 255.0).round() as u8 == color)
    };
    let Dims { c, h, w } = image.dims;
    let mut missing = Vec::with_capacity(h * w);
    let mut row = Vec::new();
    for y in 0..h {
        row.clear();
        image.read_row(y, 0..w, &mut row);
        missing.extend(row.chunks_exact(c).map(|pixel| u8::from(is(pixel))));
    }
    Ok(Mask { size: image.size(), missing })
}

impl CommandArgs for InpaintArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.restore.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn is_shard(&self) -> bool {
        self.restore.shard.is_given()
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: InpaintArgs) -> anyhow::Result<()> {
    if args.mask.is_none() && args.mask_color.is_none() {
        let message = "mark the missing pixels with --mask FILE (white) or --mask-color C";
        return Err(Error::usage(message).into());
    }
    let loaded = super::load(&args.restore, Task::Inpaint)?;
    let common = &args.restore.common;
    let check =
        |job: &Job| args.mask.as_ref().map_or(Ok(()), |mask| mask_file(job, mask).map(|_| ()));
    super::run(&args.restore, &loaded, Task::Inpaint, check, |job, image| {
        let mask = match (&args.mask, args.mask_color) {
            (Some(mask), _) => read_mask(&mask_file(job, mask)?, &image)?,
            (None, Some(color)) => by_color(color, &image, args.restore.range.is_some())?,
            (None, None) => unreachable!("one of them was given"),
        };
        // Visible pixels stay as they are, so the image itself keeps what is hidden.
        let mut pixels = image.pixels();
        fill_hidden(&mut pixels, image.dims, image.alpha().as_deref());
        guess(&mut pixels, image.dims.c, &mask)?;
        let count = mask.count();
        let lossy = image.is_jpeg();
        if args.mask_color.is_some() && lossy {
            common.status(&format!(
                "note: {}: only pixels of exactly this colour are filled, and JPEG changes colours \
                 slightly; mark pixels in a PNG or use --mask",
                job.image.display()
            ));
        }
        if count == 0 {
            common.status(&format!("note: {}: no pixel is missing", job.image.display()));
        }
        let share = count as f64 / image.dims.area() as f64;
        if args.mask.is_some() && share > MANY {
            common.status(&format!(
                "note: {}: {:.0} % of the pixels are missing; if the mask marks them in black, \
                 invert it",
                job.image.display(),
                100.0 * share
            ));
        }
        let summary = format!("{:.1} % missing", 100.0 * share);
        let input =
            Input::whole(image, Condition::missing(mask), summary, json!({"missing": share}));
        Ok(Input { pixels: Some(pixels), ..input })
    })
}
