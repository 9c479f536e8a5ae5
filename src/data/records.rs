//! Files of records of one size, as images in memory or in their files.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::array::Array;
use super::catalogue::{Catalogue, Places, name_of_record};
use super::images::{Images, Labels};
use super::{Opened, Pixels, Wanted};
use crate::error::{Error, Result};

pub(super) type Arrays = Vec<(PathBuf, Array)>;

/// Opens a file and says how long it is.
pub(super) fn reader(path: &Path) -> Result<(BufReader<File>, u64)> {
    let file = File::open(path).map_err(|e| Error::io(path, &e))?;
    let size = file.metadata().map_err(|e| Error::io(path, &e))?.len();
    Ok((BufReader::new(file), size))
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
