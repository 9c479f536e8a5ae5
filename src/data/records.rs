//! CIFAR and npy files, and whatever else holds records, as images in memory or in their files.

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

type Arrays = Vec<(PathBuf, Array)>;

/// Opens a file and says how long it is.
fn reader(path: &Path) -> Result<(BufReader<File>, u64)> {
    let file = File::open(path).map_err(|e| Error::io(path, &e))?;
    let size = file.metadata().map_err(|e| Error::io(path, &e))?.len();
    Ok((BufReader::new(file), size))
}

/// One or several CIFAR files.
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
                "{}: {kind:?} beside another kind of CIFAR data; keep them apart",
                path.display()
            )));
        }
        found = Some(kind);
        of.extend(labels);
        arrays.push((path.clone(), array));
    }
    let kind = found.unwrap_or(cifar_file::Kind::Cifar10);
    let folder = if source.is_dir() { source } else { source.parent().unwrap_or(Path::new("")) };
    let labels = Labels { classes: cifar_file::classes(folder, kind), of };
    open(&source.display().to_string(), arrays, Some(labels), want, limit, "")
}

/// An npy file, with labels beside it where there are some.
pub(super) fn npy(path: &Path, want: &Wanted, limit: u64) -> Result<Opened> {
    let (mut file, size) = reader(path)?;
    let array = npy_file::array(&mut file, size).map_err(|e| e.at(path.display()))?;
    let labels = npy_file::labels_beside(path).map(|beside| -> Result<Labels> {
        let (mut file, size) = reader(&beside)?;
        let labels = npy_file::labels(&mut file, size).map_err(|e| e.at(beside.display()))?;
        if labels.of.len() != array.count {
            return Err(Error::usage(format!(
                "{}: {} labels for the {} images of {}; rename it if it does not belong to them",
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

/// Reads arrays into memory, or leaves them in their files where they would exceed `limit`.
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
    // the empty set converts wherever a full one does
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
    let named = |array: usize| (0..arrays[array].1.count).map(move |index| (array, index));
    let names = (0..arrays.len())
        .flat_map(named)
        .map(|(array, index)| name_of_record(&arrays, array, index));
    (images.names, images.labels) = (names.collect(), labels);
    images.convert_channels(channels).map_err(|e| e.at(source))?;
    Ok(Opened::new(source, Pixels::Resident(images), note))
}
