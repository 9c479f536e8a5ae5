//! Files of fixed-size records (CIFAR, npy, IDX) as image sources.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::array::Array;
use super::catalogue::{Catalogue, Places, name_of_record};
use super::images::{Images, Labels};
use super::{Opened, Pixels, Wanted};
use crate::data::formats::{cifar as cifar_file, npy as npy_file};
use crate::error::{Error, Result};

/// Files and the layout of their records.
type Arrays = Vec<(PathBuf, Array)>;

/// Opens a file. Returns a reader and the size of the file in bytes.
fn reader(path: &Path) -> Result<(BufReader<File>, u64)> {
    let file = File::open(path).map_err(|e| Error::io(path, &e))?;
    let size = file.metadata().map_err(|e| Error::io(path, &e))?.len();
    Ok((BufReader::new(file), size))
}

/// Opens one or several CIFAR files. `source` is the file or folder that the user named.
///
/// # Errors
/// If a file cannot be read or is not CIFAR data, or CIFAR-10 and CIFAR-100 files are mixed.
pub(super) fn cifar(source: &Path, files: &[PathBuf], want: &Wanted, limit: u64) -> Result<Opened> {
    let mut arrays = Arrays::new();
    let mut of = Vec::new();
    let mut found = None;
    for path in files {
        let (mut file, size) = reader(path)?;
        let (array, kind, labels) =
            cifar_file::array(&mut file, size).map_err(|e| e.at(path.display()))?;
        if found.is_some_and(|other| other != kind) {
            return Err(Error::usage(format!(
                "{}: this is {kind:?}, but another file here is not; use separate folders",
                path.display()
            )));
        }
        found = Some(kind);
        of.extend(labels);
        arrays.push((path.clone(), array));
    }
    let kind = found.unwrap_or(cifar_file::CifarSet::Cifar10);
    let folder = if source.is_dir() { source } else { source.parent().unwrap_or(Path::new("")) };
    let labels = Labels { classes: cifar_file::classes(folder, kind), of };
    open(&source.display().to_string(), arrays, Some(labels), want, limit, "")
}

/// Opens an npy file, with the labels of a file beside it if there is one.
///
/// # Errors
/// If a file cannot be read, is not an array of images or labels, or the numbers of images and
/// labels differ.
pub(super) fn npy(path: &Path, want: &Wanted, limit: u64) -> Result<Opened> {
    let (mut file, size) = reader(path)?;
    let array = npy_file::array(&mut file, size).map_err(|e| e.at(path.display()))?;
    let labels = npy_file::labels_beside(path).map(|beside| -> Result<Labels> {
        let (mut file, size) = reader(&beside)?;
        let labels = npy_file::labels(&mut file, size).map_err(|e| e.at(beside.display()))?;
        if labels.of.len() != array.count {
            return Err(Error::usage(format!(
                "{}: {} labels for the {} images of {}; rename this file if it does not belong to \
                 them",
                beside.display(),
                labels.of.len(),
                array.count,
                path.display()
            )));
        }
        Ok(labels)
    });
    let note =
        if array.sample == super::array::Sample::U8 { "" } else { ", floats rounded to 8 bits" };
    open(
        &path.display().to_string(),
        vec![(path.to_owned(), array)],
        labels.transpose()?,
        want,
        limit,
        note,
    )
}

/// Loads arrays into memory, or streams them if they exceed `limit` bytes. `note` ends the
/// description.
///
/// # Errors
/// If a file cannot be read, or the channels cannot be converted.
pub(super) fn open(
    source: &str,
    arrays: Arrays,
    labels: Option<Labels>,
    want: &Wanted,
    limit: u64,
    note: &str,
) -> Result<Opened> {
    let from = arrays.first().map_or(1, |(_, array)| array.c);
    let channels = want.channels.unwrap_or(from);
    // Whether channels can be converted does not depend on the images, so an empty set shows it.
    Images::new(from).convert_channels(channels).map_err(|e| e.at(source))?;
    let total: u64 = arrays.iter().map(|(_, array)| array.total()).sum();
    if total.max(total / from as u64 * channels as u64) > limit {
        let catalogue = Catalogue::new(Places::Records(arrays), channels, labels);
        return Ok(Opened::new(source, Pixels::Streamed(Arc::new(catalogue)), note));
    }
    let mut images = Images::new(from);
    for (path, array) in &arrays {
        let part = array.read_all(&mut reader(path)?.0).map_err(|e| e.at(path.display()))?;
        let start = images.bytes.len();
        if start == 0 {
            images = part;
            continue;
        }
        images.bytes.extend(part.bytes);
        images
            .table
            .extend(part.table.into_iter().map(|e| super::Entry { offset: start + e.offset, ..e }));
    }
    let records = |array: usize| (0..arrays[array].1.count).map(move |index| (array, index));
    let names = (0..arrays.len())
        .flat_map(records)
        .map(|(array, index)| name_of_record(&arrays, array, index));
    (images.names, images.labels) = (names.collect(), labels);
    images.convert_channels(channels).map_err(|e| e.at(source))?;
    Ok(Opened::new(source, Pixels::Resident(images), note))
}
