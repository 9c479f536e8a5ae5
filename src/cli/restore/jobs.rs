//! Which images to restore, and where to write the results.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use csae::internals::data::folder;
use csae::internals::error::{Error, Result};

use super::RestoreArgs;
use crate::cli::outputs::single_file;
use crate::cli::refuse_existing;
use crate::cli::targets::{ImagePath, distinct_names};

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

/// The files that an argument stands for: a file, all files in a folder, or the matches of a
/// pattern.
fn files(source: &Path) -> Result<Vec<PathBuf>> {
    if source.is_dir() {
        return folder::files(source);
    }
    let text = source.to_string_lossy();
    if source.exists() || !text.contains(['*', '?', '[']) {
        if !source.exists() {
            return Err(Error::usage(format!("{text}: no such file or folder")));
        }
        return Ok(vec![source.to_owned()]);
    }
    let paths = glob::glob(&text)
        .map_err(|error| Error::usage(format!("{text}: not a valid pattern ({error})")))?;
    let paths = paths.collect::<std::result::Result<Vec<_>, _>>();
    let paths = paths.map_err(|error| Error::io(error.path(), error.error()))?;
    let found: Vec<PathBuf> = paths.into_iter().filter(|path| path.is_file()).collect();
    if found.is_empty() {
        return Err(Error::usage(format!("{text}: no file matches this pattern")));
    }
    Ok(found)
}

/// The files of a folder or pattern without those below the folder of results: results of an
/// earlier call are no images to restore, unless `source` lies in that folder itself.
fn without_results(files: Vec<PathBuf>, source: &Path, out: &Path) -> (Vec<PathBuf>, usize) {
    let Ok(out) = out.canonicalize() else { return (files, 0) };
    let is_inside =
        |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(&out) && path != out);
    let named = source.canonicalize().is_ok_and(|source| source == out) || is_inside(source);
    let count = files.len();
    let files: Vec<PathBuf> = files.into_iter().filter(|file| named || !is_inside(file)).collect();
    let left_out = count - files.len();
    (files, left_out)
}

/// The jobs for all images. Results keep the images' paths relative to a folder that was given. For
/// one image, `out` can name the file of the result.
///
/// # Errors
/// If an image or clean image does not exist, two results would have the same file, a result would
/// replace an image, or a file exists and --force is not given.
pub fn jobs(args: &RestoreArgs, out: &Path) -> Result<Vec<Job>> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut targets: HashMap<String, PathBuf> = HashMap::new();
    let mut images: Vec<(PathBuf, ImagePath)> = Vec::new();
    for source in &args.images {
        let (files, results) = without_results(files(source)?, source, out);
        if results > 0 {
            args.common.status(&format!(
                "note: {}: {results} of {} files are left out, since they are in the folder of \
                 results {}",
                source.display(),
                results + files.len(),
                out.display()
            ));
        }
        for image in files {
            let inside = image.strip_prefix(source).unwrap_or(&image).to_string_lossy();
            let path = if source.is_dir() {
                ImagePath::new(&source.to_string_lossy(), &inside)
            } else {
                let name = image.file_name().unwrap_or_default().to_string_lossy();
                ImagePath::new(&image.to_string_lossy(), &name)
            };
            images.push((image, path));
        }
    }
    let single = single_file(out, images.len(), &["png", "jpg", "jpeg"])?;
    let names = distinct_names(&images.iter().map(|(_, path)| path).collect::<Vec<_>>());
    for ((image, _), name) in images.into_iter().zip(names) {
        let name = Path::new(&name.text);
        let extension = name.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let mut target = single.clone().unwrap_or_else(|| out.join(name));
        if single.is_none() && !["png", "jpg", "jpeg"].contains(&extension.as_str()) {
            target.set_extension("png");
        }
        let side = args.side_by_side.then(|| side_of(&target));
        for target in std::iter::once(&target).chain(&side) {
            // Some file systems ignore case.
            if let Some(other) =
                targets.insert(target.to_string_lossy().to_lowercase(), image.clone())
            {
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
        refuse_existing(&job.target, args.force)?;
        if args.side_by_side {
            refuse_existing(&job.side(), args.force)?;
        }
        if let Some(clean) = job.clean.as_ref().filter(|clean| !clean.is_file()) {
            return Err(Error::usage(format!(
                "--compare: {} does not exist; it is needed to compare {}",
                clean.display(),
                job.image.display()
            )));
        }
    }
    Ok(jobs)
}
