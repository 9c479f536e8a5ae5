//! Finding the image files below a folder, by their names and their first bytes.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::bundled;
use super::file_report::FileReport;
use super::formats::content::{self, Content, EXTENSIONS};
use super::formats::idx;
use crate::error::{Error, Result};
use crate::files;

/// The paths of the image files below `root`, sorted, and the files that are left out. The paths
/// include `root`. Run folders below it are left out.
///
/// # Errors
/// If there is no image file, `root` cannot be read, or it is the folder of a run.
pub fn files(root: &Path) -> Result<(Vec<PathBuf>, FileReport)> {
    let found = find(root)?;
    if found.images.is_empty() {
        return Err(no_images(root, &found));
    }
    Ok((found.images.into_iter().map(|image| root.join(image)).collect(), found.report))
}

/// The error for a folder without images. If it has IDX files, one of them is suggested.
pub(super) fn no_images(root: &Path, found: &Found) -> Error {
    let idx = &found.idx;
    // Prefer the training images, as named in MNIST and its relatives.
    let name = |path: &&PathBuf| path.to_string_lossy().to_lowercase();
    let suggested = idx.iter().find(|p| name(p).contains("train") && name(p).contains("images"));
    let suggested = suggested
        .or_else(|| idx.iter().find(|p| name(p).contains("images")))
        .or_else(|| idx.first());
    Error::usage(match suggested {
        Some(file) => {
            format!(
                "{}: this folder has no image files, but IDX files; name the file: {}",
                root.display(),
                root.join(file).display()
            )
        }
        None => format!(
            "{}: no image found in this folder or below{}",
            root.display(),
            found.report.describe_folder_without_images()
        ),
    })
}

/// The files below a folder, relative to it and sorted.
#[derive(Default)]
pub(super) struct Found {
    pub images: Vec<PathBuf>,
    idx: Vec<PathBuf>,
    /// Folders that cannot be read, images of kinds that are not supported, and other files.
    pub report: FileReport,
}

/// Finds the image and IDX files below `root`. A file whose name does not tell what it is is opened
/// to look at its first bytes.
///
/// # Errors
/// If `root` cannot be read, or is the folder of a run.
pub(super) fn find(root: &Path) -> Result<Found> {
    if is_run(root) {
        return Err(Error::usage(format!(
            "{} is a run folder: it stands for a model, not for images; name images, such as a \
             folder or the bundled set {}",
            root.display(),
            bundled::names()[0]
        )));
    }
    let mut found = Found::default();
    let mut seen = HashSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let path = root.join(&folder);
        match entries(&path, &mut seen) {
            Ok(names) => {
                for name in names {
                    found.add(root, folder.join(name), &mut open);
                }
            }
            Err(error) if folder.as_os_str().is_empty() => return Err(Error::io(&path, &error)),
            Err(error) => found.report.skip(
                path.display(),
                format!("this folder cannot be read ({error}); check it and its permissions"),
            ),
        }
    }
    found.images.sort();
    found.idx.sort();
    // Folders are read in the order of the file system.
    found.report.skipped.sort();
    found.report.runs.sort();
    found.report.unsupported.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// Whether a folder is that of a run. The pictures in it are results.
pub(super) fn is_run(folder: &Path) -> bool {
    [files::RUN_CONFIG, files::RUN_ORIGIN].iter().all(|name| folder.join(name).is_file())
}

/// The files below `root` that satisfy `keep`, relative to it and sorted. Hidden files and folders
/// are ignored.
///
/// # Errors
/// If a folder cannot be read.
#[cfg(feature = "cli")]
pub(super) fn below(root: &Path, keep: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let (mut found, mut seen, mut open) = (Vec::new(), HashSet::new(), vec![PathBuf::new()]);
    while let Some(folder) = open.pop() {
        let path = root.join(&folder);
        for name in entries(&path, &mut seen).map_err(|e| Error::io(&path, &e))? {
            let relative = folder.join(name);
            if root.join(&relative).is_dir() {
                open.push(relative);
            } else if keep(&relative) {
                found.push(relative);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The names of the entries of a folder that are not hidden. None if it was `seen`: symbolic links
/// can form cycles.
fn entries(path: &Path, seen: &mut HashSet<PathBuf>) -> std::io::Result<Vec<OsString>> {
    if !seen.insert(path.canonicalize()?) {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with('.') && name != "__MACOSX" {
            names.push(name);
        }
    }
    Ok(names)
}

impl Found {
    /// Adds a file, or a folder to `open`.
    fn add(&mut self, root: &Path, relative: PathBuf, open: &mut Vec<PathBuf>) {
        let path = root.join(&relative);
        let extension = content::extension(&relative);
        // This follows links.
        let metadata = std::fs::metadata(&path);
        if metadata.as_ref().is_ok_and(|m| m.is_dir()) {
            if is_run(&path) {
                self.report.runs.push(path.display().to_string());
            } else {
                open.push(relative);
            }
        } else if EXTENSIONS.contains(&extension.as_str()) {
            // A broken link is reported later, when the file cannot be read.
            self.images.push(relative);
        } else if idx::named_idx(&relative) {
            self.idx.push(relative);
        } else if Content::is_other_by_name(&relative) {
            *self.report.others.entry(extension).or_default() += 1;
        } else if let Err(error) = metadata {
            self.report.skip(path.display(), format!("cannot be read ({error}); remove it"));
        } else {
            match content_of(&path) {
                Ok(Content::Image(_)) => self.images.push(relative),
                Ok(Content::Unsupported(kind)) => {
                    self.report.unsupported.push((path.display().to_string(), kind));
                }
                Ok(Content::Other) => *self.report.others.entry(extension).or_default() += 1,
                Err(error) => {
                    let reason = format!("cannot be read ({error}); check its permissions");
                    self.report.skip(path.display(), reason);
                }
            }
        }
    }
}

/// What a file is by its first bytes. Other things than regular files are not opened: opening a
/// named pipe waits for a writer.
///
/// # Errors
/// If it cannot be read.
pub fn content_of(path: &Path) -> std::io::Result<Content> {
    let mut start = Vec::new();
    if std::fs::metadata(path)?.is_file() {
        File::open(path)?.take(content::START as u64).read_to_end(&mut start)?;
    }
    Ok(Content::of(&start, path))
}
