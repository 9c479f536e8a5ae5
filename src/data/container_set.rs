//! Encoded images in a container (WebDataset, parquet) as a set of images.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::accumulator::Accumulator;
use super::catalogue::{Catalogue, Storage};
use super::containers::{self, Container};
use super::formats::decode::{Limit, Stored, decode_stored_bytes};
use super::images::Labels;
use super::{FileReport, LoadOptions, NanName, Opened, Pixels};
use crate::error::{Error, Result};
use crate::sample_type::SampleType;

/// Number of images per thread that are read before they are decoded together.
const IMAGES_PER_THREAD: usize = 4;

/// The images of a container that decode.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSet {
    path: PathBuf,
    /// The column of the images.
    inside: Option<String>,
    /// Maximum memory for decoding, in bytes.
    limit: u64,
    /// The index of each image in the container.
    indices: Vec<usize>,
    /// The name of each image.
    pub names: Vec<String>,
    /// Height and width of each image.
    pub sizes: Vec<[u32; 2]>,
    /// Maximum memory for decoding one of the images, in bytes.
    pub decoding: u64,
}

impl ContainerSet {
    /// Opens the container again.
    ///
    /// # Errors
    /// If it cannot be read any more.
    pub fn open(&self) -> Result<Container> {
        containers::open(&self.path, self.inside.as_deref(), self.limit)
    }

    /// Reads and decodes an image.
    ///
    /// # Errors
    /// If it cannot be read, or has changed.
    pub(super) fn read(&self, container: &mut Container, image: usize) -> Result<Stored> {
        let place = |e: Error| e.at(&self.names[image]).at(self.path.display());
        let bytes = container.read(self.indices[image]).map_err(place)?;
        decode_stored_bytes(&bytes, Limit::of_memory(Some(self.decoding))).map_err(place)
    }

    /// Memory of the tables, in bytes.
    pub fn held_bytes(&self) -> usize {
        let names: usize = self.names.iter().map(|name| size_of::<String>() + name.len()).sum();
        names + size_of_val(&self.indices[..]) + size_of_val(&self.sizes[..])
    }
}

/// Opens the images of a container. If they take more than `limit` bytes when decoded, they are
/// streamed. `inside` is the column of the images in a parquet file.
///
/// # Errors
/// If the container cannot be read, no image can be decoded, or one cannot and `want.strict` is
/// set.
pub fn open(path: &Path, inside: Option<&str>, want: &LoadOptions, limit: u64) -> Result<Opened> {
    let source = path.display().to_string();
    let memory = want.memory.unwrap_or(limit).max(limit);
    let mut container = containers::open(path, inside, memory)?;
    let mut set = Accumulator::new(&source, want, limit)?;
    let mut report = FileReport::default();
    let reduced = AtomicUsize::new(0);
    let one = Limit::of_memory(want.memory);
    let batch = IMAGES_PER_THREAD * rayon::current_num_threads();
    for first in (0..container.len()).step_by(batch) {
        let indices: Vec<usize> = (first..container.len().min(first + batch)).collect();
        let encoded: Vec<Result<Vec<u8>>> =
            indices.iter().map(|index| container.read(*index)).collect();
        let decode = |encoded: Result<Vec<u8>>| -> Result<(Stored, u64)> {
            let encoded = encoded?;
            let mut stored = decode_stored_bytes(&encoded, one)?;
            let cost = (encoded.len() + 3 * stored.pixels.len()) as u64;
            if want.eight_bits && stored.sample != SampleType::U8 {
                stored = stored.into_bytes()?;
                reduced.fetch_add(1, Ordering::Relaxed);
            }
            if want.nan == NanName::Error {
                stored.refuse_nan()?;
            }
            Ok((stored, cost))
        };
        let decoded: Vec<Result<(Stored, u64)>> = encoded.into_par_iter().map(decode).collect();
        for (index, decoded) in indices.into_iter().zip(decoded) {
            let name = format!("{source}: {}", container.names()[index]);
            match decoded {
                Ok((decoded, cost)) => {
                    if decoded.frames > 1 {
                        report.several.push((name.clone(), decoded.frames));
                    }
                    set.push(index, decoded, cost).map_err(|error| error.at(&name))?;
                }
                Err(error) if want.strict => return Err(error.at(name)),
                Err(error) => report.skip(name, error),
            }
        }
    }
    let Accumulator { images, channels, sample, sizes, indices, decoding, .. } = set;
    if indices.is_empty() {
        let (first, reason) = &report.skipped[0];
        return Err(Error::usage(format!("{source}: no image can be used; {first}: {reason}")));
    }
    report.reduced = reduced.into_inner();
    let labels = container.labels().map(|labels| Labels {
        classes: labels.classes.clone(),
        of: indices.iter().map(|index| labels.of[*index]).collect(),
    });
    let names: Vec<String> =
        indices.iter().map(|index| container.names()[*index].clone()).collect();
    let notes: String = container.notes().iter().map(|note| format!("; {note}")).collect();
    let pixels = match images {
        Some(mut images) => {
            (images.names, images.labels) = (names, labels);
            Pixels::Resident(images)
        }
        None => {
            let set = ContainerSet {
                path: path.to_owned(),
                inside: inside.map(str::to_owned),
                limit: memory,
                indices,
                names,
                sizes,
                decoding,
            };
            let sample = sample.unwrap_or_default();
            let storage = Storage::Container(set);
            Pixels::Streamed(Arc::new(Catalogue::new(storage, channels, sample, labels)))
        }
    };
    Ok(Opened { report, ..Opened::new(&source, pixels, &notes) })
}
