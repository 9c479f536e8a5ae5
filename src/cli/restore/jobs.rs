//! Which images are restored, and where the results go.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use csae::data::folder;
use csae::error::{Error, Result};

use super::RestoreArgs;
use crate::cli::refuse_existing;

/// An image to restore, where its result goes, and what it is compared with.
pub struct Job {
    pub image: PathBuf,
    /// Its name below the folder that was given, or the file's.
    pub name: PathBuf,
    pub target: PathBuf,
    pub clean: Option<PathBuf>,
}

impl Job {
    pub fn side(&self) -> PathBuf {
        side_of(&self.target)
    }
}

/// Where before and after go, side by side.
fn side_of(target: &Path) -> PathBuf {
    target.with_extension("side.png")
}

/// The files that an argument means: itself, those of a folder and below, or those that a pattern
/// matches.
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
    let paths =
        glob::glob(&text).map_err(|error| Error::usage(format!("{text}: no pattern ({error})")))?;
    let paths = paths.collect::<std::result::Result<Vec<_>, _>>();
    let paths = paths.map_err(|error| Error::io(error.path(), error.error()))?;
    let found: Vec<PathBuf> = paths.into_iter().filter(|path| path.is_file()).collect();
    if found.is_empty() {
        return Err(Error::usage(format!("{text}: no file matches this pattern")));
    }
    Ok(found)
}

/// Whether two paths lead to one file.
fn same(a: &Path, b: &Path) -> bool {
    a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b)
}

/// All images, a folder's by their places below it.
pub fn jobs(args: &RestoreArgs, out: &Path) -> Result<Vec<Job>> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut taken: HashMap<String, PathBuf> = HashMap::new();
    for source in &args.images {
        for image in files(source)? {
            let name = if source.is_dir() {
                image.strip_prefix(source).unwrap_or(&image)
            } else {
                Path::new(image.file_name().unwrap_or_default())
            };
            let ending = name.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            let mut target = out.join(name);
            if !["png", "jpg", "jpeg"].contains(&ending.as_str()) {
                target.set_extension("png");
            }
            let side = args.side_by_side.then(|| side_of(&target));
            for target in std::iter::once(&target).chain(&side) {
                // Some file systems take no notice of case.
                if let Some(other) =
                    taken.insert(target.to_string_lossy().to_lowercase(), image.clone())
                {
                    return Err(Error::usage(format!(
                        "both {} and {} would become {}: give one of them in another call, to another -o",
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
    }
    if jobs.len() > 1 && args.compare.as_ref().is_some_and(|clean| !clean.is_dir()) {
        return Err(Error::usage(
            "--compare: several images are compared with a folder of images of the same names",
        ));
    }
    for job in &jobs {
        if same(&job.image, &job.target) {
            return Err(Error::usage(format!(
                "{}: the result would take its place; name another folder by -o",
                job.image.display()
            )));
        }
        refuse_existing(&job.target, args.force)?;
        if args.side_by_side {
            refuse_existing(&job.side(), args.force)?;
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
