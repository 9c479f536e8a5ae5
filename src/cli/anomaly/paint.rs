//! `csae anomaly paint`: a test set with synthetic defects.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::data;
use crate::data::Handles;
use crate::error::{Error, Result};
use crate::files;
use crate::raster::corrupt;
use crate::report::picture;
use crate::shape::{Dims, Size};
use crate::tasks::anomaly::{Defect, Image, MIN_SIDE, PaintedDefect, paint};

use crate::cli::outputs::check_folder;
use crate::cli::reading::ReadArgs;
use crate::cli::{CommandArgs, Common};

/// Make a test set for detectors from normal images, such as textures: paint defects into them,
/// with masks.
///
/// Three quarters of each image go to DIR/normal, for fitting a detector. The fourth goes to
/// DIR/test: unchanged to `good`, and with a blot, a scratch, a smear, speckle noise or a patch of
/// the next image to folders of these names. Masks go to `masks`. A defect that would be invisible,
/// such as a smear on an even surface, is left out.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae anomaly paint textures -o painted
  csae anomaly paint vistex27/ -o painted --each --seed 3")]
pub struct PaintArgs {
    /// Normal images: a folder, a file, a pattern ('scans/*.png'), a list (@FILE, or -) or a
    /// bundled set
    data: String,
    /// Folder for the set, which must not exist yet
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Make a separate set for each image, in DIR/NAME: for images of unrelated surfaces
    #[arg(long)]
    each: bool,
    /// Seed of the defects
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    common: Common,
}

/// The part of an image of `size` with the first row and column `start`.
fn crop(image: &Image, start: (usize, usize), size: Size) -> Image {
    let pixels = crate::raster::crop(&image.pixels, image.dims, start, size);
    Image { pixels, dims: Dims::of(size, image.dims.c) }
}

/// The bottom right quarter.
fn bottom_right(image: &Image) -> Image {
    let size = image.dims.size().map(|side| side / 2);
    crop(image, (image.dims.h - size.h, image.dims.w - size.w), size)
}

fn save(folder: &Path, name: &str, image: &Image) -> Result<()> {
    files::make_folder(folder)?;
    picture::save_png(&folder.join(format!("{name}.png")), &image.pixels, image.dims)
}

impl CommandArgs for PaintArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: PaintArgs) -> anyhow::Result<()> {
    check_folder(&args.out)?;
    if args.out.exists() {
        return Err(Error::usage(format!(
            "{} already exists; give another folder with -o",
            args.out.display()
        ))
        .into());
    }
    let budget = args.read.budget()?;
    let found = data::open(&args.data, &args.read.options(&budget, None), budget.data)?;
    args.common.report_files(&found.report);
    let images = found.pixels;
    if let Some(size) = images.sizes().find(|size| size.h.min(size.w) / 2 < MIN_SIDE) {
        let min_side = 2 * MIN_SIDE;
        return Err(Error::usage(format!(
            "{}: an image of {size} is too small; both sides need at least {min_side} pixels",
            args.data
        ))
        .into());
    }
    let mut painted = Defect::ALL.map(|(name, _)| (name, 0_usize));
    let mut handles = Handles::default();
    for i in 0..images.len() {
        let stem = Path::new(&images.name(i))
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let name = format!("{i:04}-{stem}");
        let set = if args.each { args.out.join(&name) } else { args.out.clone() };
        let whole = Image::read(&images, i, &mut handles)?;
        let size = whole.dims.size().map(|side| side / 2);
        for (quarter, start) in [(0, 0), (0, size.w), (size.h, 0)].into_iter().enumerate() {
            save(&set.join("normal"), &format!("{name}-{quarter}"), &crop(&whole, start, size))?;
        }
        let image = bottom_right(&whole);
        save(&set.join("test/good"), &name, &image)?;
        let other = bottom_right(&Image::read(&images, (i + 1) % images.len(), &mut handles)?);
        for ((kind, painted), (_, defect)) in painted.iter_mut().zip(Defect::ALL) {
            let mut stream = corrupt::stream(args.seed, kind, i);
            let Some(PaintedDefect { pixels, mask }) = paint(defect, &image, &other, &mut stream)
            else {
                continue;
            };
            save(&set.join("test").join(*kind), &name, &Image { pixels, ..image })?;
            let mask = mask.into_iter().map(|on| f32::from(u8::from(on))).collect();
            save(
                &set.join("test/masks").join(*kind),
                &name,
                &Image { pixels: mask, dims: Dims { c: 1, ..image.dims } },
            )?;
            *painted += 1;
        }
    }
    if args.common.json {
        let counts: serde_json::Map<String, serde_json::Value> =
            painted.iter().map(|(name, painted)| ((*name).to_owned(), json!(painted))).collect();
        outln!(
            "{}",
            json!({
                "kind": "paint", "normal": 3 * images.len(), "good": images.len(),
                "defects": counts, "folder": args.out.display().to_string()
            })
        );
    } else {
        let counts = painted
            .iter()
            .map(|(name, painted)| format!("{name} {painted}"))
            .collect::<Vec<_>>()
            .join(", ");
        args.common.report_written(format_args!(
            "{}: {} normal crops; test: good {}, {counts}",
            args.out.display(),
            3 * images.len(),
            images.len()
        ));
    }
    Ok(())
}
