//! Drawn images as files, one picture, and a page.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use csae::data::{Sample, patches};
use csae::error::{Error, Result};
use csae::files;
use csae::metrics::frechet::Nearest;
use csae::report::picture;
use csae::shape::Dims;
use csae::tasks::generate::gallery::{self, Part};
use serde_json::json;

use super::GenerateArgs;

/// All of them on one picture.
pub const PICTURE: &str = "samples.png";
/// The page.
pub const GALLERY: &str = "gallery.html";
/// Images at most on the picture and the page.
pub const MOST: usize = 400;

/// What images are.
#[derive(Debug)]
pub struct What {
    title: String,
    note: String,
    columns: Option<usize>,
}

impl What {
    /// Under this heading, of which this is to be said, in so many columns, or as many as suit
    /// them.
    pub fn new(title: &str, note: String, columns: Option<usize>) -> Self {
        Self { title: title.to_owned(), note, columns }
    }
}

/// Names of the files of images: what they begin with, and a number each, all as wide.
pub fn names(start: &str, count: usize) -> Vec<String> {
    let width = (count.max(1) - 1).to_string().len().max(2);
    (0..count).map(|i| format!("{start}{i:0width$}.png")).collect()
}

/// Files that are called like images, but are none of `names`.
fn others(out: &Path, start: &str, names: &[String]) -> Result<usize> {
    let numbered = |name: &str| {
        let number = name.strip_prefix(start).and_then(|name| name.strip_suffix(".png"));
        number
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let names: HashSet<&str> = names.iter().map(String::as_str).collect();
    let entries = std::fs::read_dir(out).map_err(|error| Error::io(out, &error))?;
    let called = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(called.filter(|name| numbered(name) && !names.contains(name.as_str())).count())
}

/// What is shown.
#[derive(Debug)]
pub struct Shown {
    /// What the images are.
    pub what: What,
    /// The images, H,W,C each.
    pub drawn: Vec<f32>,
    /// Images that were given.
    pub originals: Vec<Vec<f32>>,
    /// Size of an image.
    pub dims: Dims,
}

/// Bytes of the picture and the page of so many images.
pub fn bytes(dims: Dims, count: usize) -> u64 {
    // tiles, the picture of them, enlarged up to a thousand pixels a row, and the sheet with its
    // bytes
    8 * (count.min(MOST) * dims.len()) as u64 + (12 << 20)
}

/// The training image nearest to each of some, and its number.
pub fn nearest(train: &Sample, images: &[f32], dims: Dims) -> Result<Vec<(usize, Vec<f32>)>> {
    const AT_ONCE: usize = 1024;
    let mut nearest = Nearest::new(images, dims.len());
    train.each_part(|images, chosen| {
        chosen
            .chunks(AT_ONCE)
            .for_each(|chosen| nearest.add(&patches::cut(images, chosen, dims.h, dims.w)));
        Ok(())
    })?;
    Ok(nearest.found.into_iter().map(|(_, number, pixels)| (number, pixels)).collect())
}

impl Shown {
    /// Writes all of it; with training images the nearest below each on the page.
    pub fn write(self, args: &GenerateArgs, train: Option<&Sample>) -> Result<()> {
        let Dims { c, h, w } = self.dims;
        files::make_folder(&args.out)?;
        let images: Vec<Vec<f32>> =
            self.drawn.chunks_exact(h * w * c).map(<[f32]>::to_vec).collect();
        let What { title, note, columns: by } = &self.what;
        let names = names(args.start(), images.len());
        for (image, name) in images.iter().zip(&names) {
            picture::save_png(&args.out.join(name), image, h, w, c)?;
        }
        let shown = &images[..images.len().min(MOST)];
        let mut files: Vec<PathBuf> = vec![args.out.join(PICTURE), args.out.join(GALLERY)];
        let columns = by.unwrap_or_else(|| picture::columns_for(shown.len(), h, w));
        picture::grid(shown, h, w, c, columns, 2).save(&files[0])?;
        let found = train
            .map(|train| nearest(train, &self.drawn[..shown.len() * h * w * c], self.dims))
            .transpose()?;
        let notes = |i: usize| {
            found
                .as_ref()
                .map(|found| format!("{}; nearest: training image {}", names[i], found[i].0))
        };
        let notes: Vec<String> =
            (0..shown.len()).map(|i| notes(i).unwrap_or_else(|| names[i].clone())).collect();
        let mut says = String::new();
        if found.is_some() {
            says.push_str("Below each image the training image nearest to it, pixel by pixel. ");
        }
        if images.len() > shown.len() {
            says.push_str(&format!("The first {} of {}.", shown.len(), images.len()));
        }
        let mut parts = Vec::new();
        if !self.originals.is_empty() {
            let (title, images) = (String::from("Given"), self.originals);
            parts.push(Part {
                title,
                says: String::new(),
                images,
                below: None,
                notes: Vec::new(),
                columns: None,
            });
        }
        let below = found.map(|found| found.into_iter().map(|(_, pixels)| pixels).collect());
        parts.push(Part {
            title: String::from("Drawn"),
            says,
            images: shown.to_vec(),
            below,
            notes,
            columns: *by,
        });
        let page = gallery::samples(title, note, &[], &parts, [h, w, c])?;
        files::write_atomically(&files[1], page.as_bytes())?;
        let others = others(&args.out, args.start(), &names)?;
        if others > 0 {
            let others = crate::cli::counted(others, "numbered image", "numbered images");
            args.common.say(&format!("{}: {others} more, of an earlier call", args.out.display()));
        }
        if args.common.json {
            files.extend(names.iter().map(|name| args.out.join(name)));
            let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            outln!(
                "{}",
                json!({"kind": "generate", "images": images.len(), "note": note, "files": files})
            );
        } else {
            outln!(
                "{}: {}, {PICTURE}, {GALLERY}",
                args.out.display(),
                crate::cli::counted(images.len(), "image", "images")
            );
        }
        Ok(())
    }
}
