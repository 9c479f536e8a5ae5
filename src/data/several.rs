//! Several sources of image files, read as one set: folders, files and patterns.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::folder::{Files, load_files};
use super::formats::content::Content;
use super::{FileReport, LoadOptions, Opened, find, open};
use crate::error::{Error, Result};

/// The image files that a source stands for (all in a folder, the matches of a pattern, or the file
/// itself), and the files that are left out.
///
/// # Errors
/// If the source does not exist, or has no image.
pub fn files(source: &Path) -> Result<(Vec<PathBuf>, FileReport)> {
    if source.is_dir() {
        return find::files(source);
    }
    #[cfg(feature = "cli")]
    if let Some(pattern) = source.to_str().filter(|text| super::pattern::is_pattern(text))
        && !source.exists()
    {
        let found = super::pattern::expand(pattern)?;
        let files = found.files.iter().map(|file| found.root.join(file)).collect();
        return Ok((files, found.report));
    }
    if !source.exists() {
        return Err(Error::usage(format!("{}: no such file or folder", source.display())));
    }
    Ok((vec![source.to_owned()], FileReport::default()))
}

/// Opens `source` as [`open`] does, together with the image files of `more` sources. A file that
/// several sources name is read once. The images of several sources have no labels.
///
/// # Errors
/// Those of [`open`], or if one of several sources is not a folder, a file or a pattern of images.
pub fn open_all(source: &str, more: &[String], want: &LoadOptions, limit: u64) -> Result<Opened> {
    if more.is_empty() {
        return open(source, want, limit);
    }
    let (mut all, mut report, mut known) = (Vec::new(), FileReport::default(), HashSet::new());
    for one in std::iter::once(source).chain(more.iter().map(String::as_str)) {
        if super::bundled::names().contains(&one) || one == "-" || one.starts_with('@') {
            return Err(alone(one));
        }
        let path = Path::new(one);
        let (files, left_out) = files(path)?;
        let is_image = || matches!(find::content_of(path), Ok(Content::Image(_)));
        if path.is_file() && !is_image() {
            return Err(alone(one));
        }
        let is_new =
            |file: &PathBuf| known.insert(file.canonicalize().unwrap_or_else(|_| file.clone()));
        all.extend(files.into_iter().filter(is_new));
        report.extend(left_out);
    }
    if want.strict {
        report.refuse_skipped()?;
    }
    let name = format!("{source} and {} more", more.len());
    let files = Files { source: &name, root: Path::new(""), files: &all, labelled: false };
    let opened = load_files(&files, want, limit.min(super::MAX_BYTES as u64))?;
    report.extend(opened.report);
    let mut opened = Opened { report, ..opened };
    opened.normalize(want).map_err(|e| e.at(source))?;
    Ok(opened)
}

fn alone(source: &str) -> Error {
    Error::usage(format!(
        "{source}: with several sources, each must be an image, a folder of images or a pattern; \
         use this one alone"
    ))
}
