//! Writes generated images: one file each, one picture of all, and a page.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::GenerateArgs;
use crate::data::{Sample, patches};
use crate::error::{Error, Result};
use crate::files;
use crate::metrics::frechet::Nearest;
use crate::report::picture;
use crate::report::titled::titled;
use crate::shape::Dims;
use crate::tasks::generate::gallery::{self, Section};

/// The picture of all images.
pub const PICTURE: &str = "samples.png";
/// The page.
pub const GALLERY: &str = "gallery.html";
/// Maximum number of images on the picture and the page.
pub const MAX_IMAGES: usize = 400;

/// Heading of the page.
#[derive(Debug)]
pub struct Heading {
    title: String,
    note: String,
    columns: Option<usize>,
    device: String,
}

impl Heading {
    /// A heading with a title, a note below it, and a number of columns; `None` chooses one.
    pub fn new(title: &str, note: String, columns: Option<usize>) -> Self {
        Self { title: title.to_owned(), note, columns, device: String::new() }
    }

    /// The same with the device on which the images were generated.
    pub fn with_device(self, device: &str) -> Self {
        Self { device: device.to_owned(), ..self }
    }
}

/// File names of images: `start` and a zero-padded number.
pub fn names(start: &str, count: usize) -> Vec<String> {
    let width = (count.max(1) - 1).to_string().len().max(2);
    (0..count).map(|i| format!("{start}{i:0width$}.png")).collect()
}

/// Number of files that are named like generated images but are not among `names`.
fn stale(out: &Path, start: &str, names: &[String]) -> Result<usize> {
    let numbered = |name: &str| {
        let number = name.strip_prefix(start).and_then(|name| name.strip_suffix(".png"));
        number
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let names: HashSet<&str> = names.iter().map(String::as_str).collect();
    let entries = std::fs::read_dir(out).map_err(|error| Error::io(out, &error))?;
    let names_there = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names_there.filter(|name| numbered(name) && !names.contains(name.as_str())).count())
}

/// Images to write.
#[derive(Debug)]
pub struct Samples {
    /// Heading of the page.
    pub heading: Heading,
    /// The generated images, H,W,C each.
    pub generated: Vec<f32>,
    /// Images given by the user.
    pub originals: Vec<Vec<f32>>,
    /// Size of an image.
    pub dims: Dims,
}

/// The facts of a page's heading.
pub fn facts(args: &GenerateArgs, device: &str) -> Vec<(&'static str, String)> {
    let data = args.train.iter().map(|train| ("data", train.clone()));
    let model = ("model", args.model.display().to_string());
    std::iter::once(model).chain(data).chain([("device", device.to_owned())]).collect()
}

/// Bytes that writing `count` images needs.
pub fn bytes(dims: Dims, count: usize) -> u64 {
    // Two copies of the images in f32 (tiles and sheet). 12 MiB cover the picture, which is
    // enlarged to at most a thousand pixels a row, and the encoded sheet.
    8 * (count.min(MAX_IMAGES) * dims.len()) as u64 + (12 << 20)
}

/// The nearest training image of each image by pixel values, and its number.
///
/// # Errors
/// If an image can no longer be read.
pub fn nearest(train: &Sample, images: &[f32], dims: Dims) -> Result<Vec<(usize, Vec<f32>)>> {
    const AT_ONCE: usize = 1024;
    let mut nearest = Nearest::new(images, dims.len());
    train.each_part(|images, chosen| {
        chosen
            .chunks(AT_ONCE)
            .for_each(|chosen| nearest.add(&patches::cut(images, chosen, dims.size())));
        Ok(())
    })?;
    Ok(nearest.found.into_iter().map(|(_, number, pixels)| (number, pixels)).collect())
}

impl Samples {
    /// Writes everything. With training images, the page shows the nearest one below each image.
    ///
    /// # Errors
    /// If a file cannot be written, or a training image can no longer be read.
    pub fn write(self, args: &GenerateArgs, train: Option<&Sample>) -> Result<()> {
        let dims = self.dims;
        files::make_folder(&args.out)?;
        let images: Vec<Vec<f32>> =
            self.generated.chunks_exact(dims.len()).map(<[f32]>::to_vec).collect();
        let Heading { title, note, columns: by, device } = &self.heading;
        let names = names(args.start(), images.len());
        for (image, name) in images.iter().zip(&names) {
            picture::save_png(&args.out.join(name), image, dims)?;
        }
        let shown = &images[..images.len().min(MAX_IMAGES)];
        let mut files: Vec<PathBuf> = vec![args.out.join(PICTURE), args.out.join(GALLERY)];
        let columns = by.unwrap_or_else(|| picture::columns_for(shown.len(), dims.size()));
        let caption = format!("{title}: {note}");
        titled(picture::grid(shown, dims, columns, 2), &caption).save(&files[0])?;
        let found = train
            .map(|train| nearest(train, &self.generated[..shown.len() * dims.len()], dims))
            .transpose()?;
        let notes = |i: usize| {
            found
                .as_ref()
                .map(|found| format!("{}; nearest: training image {}", names[i], found[i].0))
        };
        let notes: Vec<String> =
            (0..shown.len()).map(|i| notes(i).unwrap_or_else(|| names[i].clone())).collect();
        let mut text = String::new();
        if found.is_some() {
            text.push_str("Below each image is the nearest training image, by pixel values. ");
        }
        if images.len() > shown.len() {
            text.push_str(&format!("The first {} of {}.", shown.len(), images.len()));
        }
        let mut sections = Vec::new();
        if !self.originals.is_empty() {
            let (title, images) = (String::from("Given images"), self.originals);
            sections.push(Section {
                title,
                text: String::new(),
                images,
                below: None,
                notes: Vec::new(),
                columns: None,
            });
        }
        let below = found.map(|found| found.into_iter().map(|(_, pixels)| pixels).collect());
        sections.push(Section {
            title: String::from("Generated images"),
            text,
            images: shown.to_vec(),
            below,
            notes,
            columns: *by,
        });
        let facts = facts(args, device);
        let page = gallery::samples((title, note), &facts, &[], &sections, dims)?;
        files::write_atomically(&files[1], page.as_bytes())?;
        let stale = stale(&args.out, args.start(), &names)?;
        if stale > 0 {
            let stale = crate::cli::counted(stale, "numbered image", "numbered images");
            args.common.status(&format!(
                "note: {} also holds {stale} of an earlier run",
                args.out.display()
            ));
        }
        if args.common.json {
            files.extend(names.iter().map(|name| args.out.join(name)));
            let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            outln!(
                "{}",
                json!({"kind": "generate", "images": images.len(), "note": note, "files": files})
            );
        } else {
            args.common.report_written(format_args!(
                "{}: {}, {PICTURE}, {GALLERY}",
                args.out.display(),
                crate::cli::counted(images.len(), "image", "images")
            ));
        }
        Ok(())
    }
}
