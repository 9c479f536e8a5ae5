//! Which images to restore, and where to write the results.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::data::formats::content::{self, Content, EXTENSIONS};
use crate::data::image_file::{is_jpeg_name, is_tiff_name};
use crate::data::{find, several};
use crate::error::{Error, Result};

use image::ImageFormat;

use super::RestoreArgs;
use crate::cli::image_names::{ImagePath, distinct_names};
use crate::cli::outputs::single_file;
use crate::cli::shard::Work;
use crate::cli::targets::EarlierResults;
use crate::cli::{counted, refuse_existing};

/// An image to restore.
pub struct Job {
    /// The image's file.
    pub image: PathBuf,
    /// Its path relative to the folder that was given, or its file name. If several images have
    /// this name, it starts with the folders that distinguish them.
    pub name: PathBuf,
    /// File of the result.
    pub target: PathBuf,
    /// The clean image to compare the result with.
    pub clean: Option<PathBuf>,
}

impl Job {
    /// File of the side-by-side picture.
    pub fn side(&self) -> PathBuf {
        side_of(&self.target)
    }
}

/// The file of the side-by-side picture for a result.
fn side_of(target: &Path) -> PathBuf {
    target.with_extension("side.png")
}

/// The name of the result of an image: a JPEG or TIFF file if the image is one by its content,
/// otherwise a PNG file, which keeps transparency and all bits.
fn result_name(name: &Path, content: Content) -> PathBuf {
    let is_png = content::extension(name) == "png";
    // Other content will be refused when it is read.
    let is_jpeg =
        if matches!(content, Content::Image(_)) { content.is_jpeg() } else { is_jpeg_name(name) };
    let is_tiff = matches!(content, Content::Image(ImageFormat::Tiff));
    if is_png || (is_jpeg && is_jpeg_name(name)) || (is_tiff && is_tiff_name(name)) {
        return name.to_owned();
    }
    let ending = match (is_jpeg, is_tiff) {
        (true, _) => "jpg",
        (_, true) => "tif",
        _ => "png",
    };
    if EXTENSIONS.contains(&content::extension(name).as_str()) {
        return name.with_extension(ending);
    }
    // What follows the last dot is a part of the name: `scan.001`.
    PathBuf::from(format!("{}.{ending}", name.display()))
}

/// The jobs for the images that this process has and that have no results. Names are chosen among
/// all images. Results keep the images' paths relative to a folder that was given. For
/// one image, `out` can name the file of the result.
///
/// # Errors
/// If an image or clean image does not exist, two results would have the same file, a result would
/// replace an image, or a file exists and --force is not given.
pub fn jobs(args: &RestoreArgs, out: &Path, work: Work) -> Result<Vec<Job>> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut targets: HashMap<String, PathBuf> = HashMap::new();
    // Some file systems ignore case.
    let lower = |path: &Path| path.to_string_lossy().to_lowercase();
    // Images that are named as JPEG files and are not.
    let mut misnamed: Vec<String> = Vec::new();
    let mut images: Vec<(PathBuf, ImagePath)> = Vec::new();
    for source in &args.images {
        let (files, report) = several::files(source)?;
        // Results of the images in a folder keep their paths below it. Files that match a pattern
        // are as if they were named one by one.
        let root = source.is_dir().then(|| source.clone());
        if args.strict {
            report.refuse_skipped()?;
        }
        args.common.report_files(&report);
        let (earlier, all) = (EarlierResults::new(source, out), files.len());
        let files: Vec<PathBuf> =
            files.into_iter().filter(|file| !earlier.contains(file)).collect();
        earlier.report(&args.common, source, [all - files.len(), all], out);
        for image in files {
            let path = if let Some(root) = &root {
                let inside = image.strip_prefix(root).unwrap_or(&image).to_string_lossy();
                ImagePath::new(&root.to_string_lossy(), &inside)
            } else {
                let name = image.file_name().unwrap_or_default().to_string_lossy();
                ImagePath::new(&image.to_string_lossy(), &name)
            };
            images.push((image, path));
        }
    }
    let single = single_file(out, images.len(), &["png", "jpg", "jpeg", "tif", "tiff"])?;
    let names = distinct_names(&images.iter().map(|(_, path)| path).collect::<Vec<_>>());
    let named: Vec<PathBuf> = images
        .iter()
        .zip(&names)
        .map(|((image, _), name)| {
            let content = find::content_of(image).unwrap_or(Content::Other);
            result_name(Path::new(&name.text), content)
        })
        .collect();
    // Results with the names of their images. Others, for a.tif beside a.png, keep the whole name:
    // a.tif.png.
    let own: HashSet<String> = named
        .iter()
        .zip(&names)
        .filter(|(result, name)| **result == Path::new(&name.text))
        .map(|(result, _)| lower(result))
        .collect();
    for (((image, _), name), result) in images.into_iter().zip(names).zip(named) {
        let name = Path::new(&name.text);
        let mut target = single.clone().unwrap_or_else(|| out.join(&result));
        if single.is_none() {
            if is_jpeg_name(name) && !is_jpeg_name(&target) {
                misnamed.push(image.display().to_string());
            }
            let is_taken = own.contains(&lower(&result)) || targets.contains_key(&lower(&target));
            if result != name && is_taken {
                target = out.join(format!("{}.png", name.display()));
            }
        }
        let side = args.side_by_side.then(|| side_of(&target));
        for target in std::iter::once(&target).chain(&side) {
            if let Some(other) = targets.insert(lower(target), image.clone()) {
                return Err(Error::usage(format!(
                    "both {} and {} would be written to {}; process one of them in a separate \
                     call with a different -o",
                    other.display(),
                    image.display(),
                    target.display()
                )));
            }
        }
        let clean = match &args.compare {
            Some(folder) if folder.is_dir() => Some(folder.join(name)),
            other => other.clone(),
        };
        let name = name.to_owned();
        jobs.push(Job { image, name, target, clean });
    }
    args.common.report_names(
        |n| {
            let files = counted(
                n,
                "file is named as JPEG but is of another format; its result is",
                "files are named as JPEG but are of other formats; their results are",
            );
            format!("note: {files} PNG, with transparency and all bits")
        },
        &misnamed,
    );
    check_quality(args, &jobs)?;
    if jobs.len() > 1 && args.compare.as_ref().is_some_and(|clean| !clean.is_dir()) {
        return Err(Error::usage(
            "--compare: for several images, give a folder of clean images with the same names",
        ));
    }
    let inputs: HashSet<PathBuf> =
        jobs.iter().filter_map(|job| job.image.canonicalize().ok()).collect();
    for job in &jobs {
        let side = args.side_by_side.then(|| job.side());
        for target in std::iter::once(&job.target).chain(&side) {
            if target.canonicalize().is_ok_and(|target| inputs.contains(&target)) {
                return Err(Error::usage(format!(
                    "{}: the result would overwrite the image; choose another folder with -o",
                    target.display()
                )));
            }
        }
        if let Some(clean) = job.clean.as_ref().filter(|clean| !clean.is_file()) {
            return Err(Error::usage(format!(
                "--compare: {} does not exist; it is needed to compare {}",
                clean.display(),
                job.image.display()
            )));
        }
    }
    let count = jobs.len();
    let mut own: Vec<Job> = jobs.drain(work.range(count)).collect();
    let all = own.len();
    let files = |job: &Job| {
        std::iter::once(job.target.clone()).chain(args.side_by_side.then(|| job.side()))
    };
    if work.skip_existing {
        own.retain(|job| !files(job).all(|file| file.is_file()));
    } else {
        own.iter().flat_map(files).try_for_each(|file| refuse_existing(&file, args.force))?;
    }
    work.report(&args.common, count, all - own.len());
    Ok(own)
}

/// Checks that --quality has an effect, and says on how many results it has none.
///
/// # Errors
/// If no result is a JPEG file.
fn check_quality(args: &RestoreArgs, jobs: &[Job]) -> Result<()> {
    if args.quality.is_none() {
        return Ok(());
    }
    let others: Vec<&Job> = jobs.iter().filter(|job| !is_jpeg_name(&job.target)).collect();
    if let Some(first) = others.first().filter(|_| others.len() == jobs.len()) {
        return Err(Error::usage(format!(
            "--quality has an effect on JPEG files only, and {} is a {}; omit it, or name a .jpg \
             file with -o",
            first.target.display(),
            if is_tiff_name(&first.target) { "TIFF file" } else { "PNG file" }
        )));
    }
    if !others.is_empty() {
        let results = counted(others.len(), "result", "results");
        args.common
            .status(&format!("note: --quality has no effect on {results} in PNG or TIFF format"));
    }
    Ok(())
}
