//! Folders with an annotation file for each image: Pascal VOC's XML, or YOLO's text.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::box_files::{Annotation, read_voc};
use super::findings::Oddity;
use super::matching::parts;
use super::yolo;
use crate::error::Result;
use crate::shape::Size;

/// The annotations of a folder.
#[derive(Debug, Default)]
pub struct Annotated {
    /// The images with annotations, by index.
    pub annotated: Vec<(usize, Annotation)>,
    /// The names of the other images.
    pub unannotated: Vec<String>,
    /// Files that cannot be used: path and reason.
    pub skipped: Vec<(String, String)>,
    /// Odd annotations, and what is wrong with them.
    pub findings: Vec<(Oddity, String)>,
}

/// The message about an annotation that can be for several images.
pub fn ambiguous(image: &str, annotation: &str) -> String {
    format!("{image}: it is not clear whether the annotation {annotation} is for this image")
}

/// Reads the annotations of images, which have these names and sizes, in a folder. The files are
/// Pascal VOC's XML if there is one, otherwise YOLO's text.
///
/// # Errors
/// If the names of YOLO's classes cannot be read. With `strict`, the first file that cannot be
/// used.
pub fn read(folder: &Path, names: &[String], sizes: &[Size], strict: bool) -> Result<Annotated> {
    let is_yolo = !has_file(folder, "xml") && has_file(folder, "txt");
    let classes = if is_yolo { yolo::class_names(folder)? } else { None };
    let mut files = own_files(folder, if is_yolo { "txt" } else { "xml" }, names);
    if !is_yolo {
        assign_by_name(&mut files, names);
    }
    let read_own = |(file, size): (&Own, &Size)| {
        let Own::File(file) = file else { return None };
        Some(if is_yolo {
            yolo::read_yolo(file, *size, classes.as_deref())
        } else {
            read_voc(file).map(|annotation| (annotation, Vec::new()))
        })
    };
    let read: Vec<_> = files.par_iter().zip(sizes).map(read_own).collect();
    let mut all = Annotated::default();
    for (image, (file, read)) in files.iter().zip(read).enumerate() {
        match (file, read) {
            (Own::Shared(file), _) => {
                let place = ambiguous(&names[image], &file.display().to_string());
                all.findings.push((Oddity::Ambiguous, place));
            }
            (Own::File(file), Some(Ok((annotation, odd)))) => {
                let place = |reason| format!("{}: {reason}", file.display());
                all.findings.extend(odd.into_iter().map(|(oddity, why)| (oddity, place(why))));
                all.annotated.push((image, annotation));
            }
            (Own::File(file), Some(Err(error))) if strict => {
                return Err(error.at(file.display()));
            }
            (Own::File(file), Some(Err(error))) => {
                all.skipped.push((file.display().to_string(), error.to_string()));
            }
            (_, None) | (Own::None, _) => all.unannotated.push(names[image].clone()),
        }
    }
    Ok(all)
}

/// Whether a file with this ending is in a folder or below.
fn has_file(folder: &Path, ending: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    let is_found = |path: &PathBuf| path.extension().is_some_and(|own| own == ending);
    paths.iter().any(is_found)
        || paths
            .iter()
            .filter(|path| path.is_dir() && !path.is_symlink())
            .any(|path| has_file(path, ending))
}

/// The annotation file of an image.
enum Own {
    None,
    File(PathBuf),
    /// The file is for this image or for others.
    Shared(PathBuf),
}

/// The annotation files of images: with the image's path below `folder`, with that below its folder
/// `images`, as in lists of YOLO, or with its file name. The last is for only one image.
fn own_files(folder: &Path, ending: &str, names: &[String]) -> Vec<Own> {
    let candidate = |name: &String| -> Option<(PathBuf, bool)> {
        let path = Path::new(name);
        let stem = path.file_stem()?.to_string_lossy();
        let file = |parent: &Path| folder.join(parent).join(format!("{stem}.{ending}"));
        let parent = path.parent().unwrap_or(Path::new(""));
        let parts: Vec<_> = parent.components().collect();
        let images = parts.iter().rposition(|part| part.as_os_str() == "images");
        let inside = images.map(|at| parts[at + 1..].iter().collect::<PathBuf>());
        let own = path.is_relative().then(|| file(parent));
        let own = own.into_iter().chain(inside.map(|parent| file(&parent)));
        let found = own.map(|file| (file, true)).chain([(file(Path::new("")), false)]);
        found.into_iter().find(|(file, _)| file.is_file())
    };
    let candidates: Vec<Option<(PathBuf, bool)>> = names.iter().map(candidate).collect();
    // The number of images of each file that have its path, and that have its file name.
    let mut users: HashMap<&Path, [usize; 2]> = HashMap::new();
    for (file, is_own) in candidates.iter().flatten() {
        users.entry(file).or_default()[usize::from(!is_own)] += 1;
    }
    let choose = |found: &Option<(PathBuf, bool)>| match found {
        None => Own::None,
        Some((file, is_own)) => match (users[file.as_path()], is_own) {
            ([1, _], true) | ([0, 1], false) => Own::File(file.clone()),
            ([1, _], false) => Own::None,
            _ => Own::Shared(file.clone()),
        },
    };
    candidates.iter().map(choose).collect()
}

/// Assigns each shared file to the image that it names in `<filename>`, if that is only one:
/// `x.xml` belongs to `x.jpg` or to `x.png`.
fn assign_by_name(files: &mut [Own], names: &[String]) {
    let mut users: HashMap<PathBuf, Vec<usize>> = HashMap::new();
    for (image, file) in files.iter().enumerate() {
        if let Own::Shared(file) = file {
            users.entry(file.clone()).or_default().push(image);
        }
    }
    for (file, images) in users {
        let Some(wanted) = read_voc(&file).ok().and_then(|annotation| annotation.file_name) else {
            continue;
        };
        let last = |path: &str| parts(path).last().map(|name| name.to_lowercase());
        let named = |image: &&usize| last(&names[**image]) == last(&wanted);
        if let [only] = images.iter().filter(named).copied().collect::<Vec<_>>()[..] {
            for image in images {
                files[image] = if image == only { Own::File(file.clone()) } else { Own::None };
            }
        }
    }
}
