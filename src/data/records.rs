//! Files of fixed-size records (CIFAR, npy, IDX) as image sources.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::array::Array;
use super::catalogue::{Catalogue, Storage};
use super::images::{Images, Labels};
use super::storage::name_of_record;
use super::{LoadOptions, Opened, Pixels};
use crate::error::{Error, Result};
use crate::sample_type::SampleType;

/// Files and the layout of their records.
pub(super) type Arrays = Vec<(PathBuf, Array)>;

/// Opens a file. Returns a reader and the size of the file in bytes.
///
/// # Errors
/// If the file cannot be opened.
pub(super) fn reader(path: &Path) -> Result<(BufReader<File>, u64)> {
    let file = File::open(path).map_err(|e| Error::io(path, &e))?;
    let size = file.metadata().map_err(|e| Error::io(path, &e))?.len();
    Ok((BufReader::new(file), size))
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
    want: &LoadOptions,
    limit: u64,
    note: &str,
) -> Result<Opened> {
    let from = arrays.first().map_or(1, |(_, array)| array.dims.c);
    let channels = want.channels.unwrap_or(from);
    // Whether channels can be converted does not depend on the images, so an empty set shows it.
    Images::new(from).convert_channels(channels).map_err(|e| e.at(source))?;
    let total: u64 = arrays.iter().map(|(_, array)| array.total()).sum();
    if total.max(total / from as u64 * channels as u64) > limit {
        let catalogue = Catalogue::new(Storage::Records(arrays), channels, SampleType::U8, labels);
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
