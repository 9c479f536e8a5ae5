//! Containers of encoded images with labels: WebDataset archives and Hugging Face parquet files.
//!
//! [`open`] reads the table of a container: the name, the place and the label of each image. The
//! images are read one by one, by their index.

mod labels;
mod parquet;
mod tar;
mod webdataset;

use std::fmt;
use std::io::SeekFrom;
use std::path::Path;

use super::array::MAX_COUNT;
use super::images::Labels;
use super::numbers::{Input, damaged, open_file, read_error};
use crate::error::{Error, Result};

/// Number of bytes at the start of a file that detect its format.
const START: usize = 512;

/// Reads the encoded images. [`Container`] checks the index.
trait Source: Send {
    fn read(&mut self, index: usize) -> Result<Vec<u8>>;
}

/// A file with encoded images.
pub struct Container {
    names: Vec<String>,
    labels: Option<Labels>,
    notes: Vec<String>,
    source: Box<dyn Source>,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container")
            .field("names", &self.names)
            .field("labels", &self.labels)
            .field("notes", &self.notes)
            .finish_non_exhaustive()
    }
}

impl Container {
    fn new(
        names: Vec<String>,
        labels: Option<Labels>,
        notes: Vec<String>,
        source: Box<dyn Source>,
    ) -> Result<Self> {
        if names.is_empty() {
            return Err(Error::usage("contains no image"));
        }
        Ok(Self { names, labels, notes, source })
    }

    /// Number of images, at least one.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Always false: a container without images is refused.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name of each image: its path in the container, or its number.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The classes, if every image has a label.
    pub fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }

    /// What a user must know: what was interpreted or left out. Clauses without a full stop.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The bytes of an image file.
    ///
    /// # Errors
    /// If there is no image `index`, or it cannot be read.
    pub fn read(&mut self, index: usize) -> Result<Vec<u8>> {
        let Some(name) = self.names.get(index) else {
            return Err(Error::failed(format!("there is no image {index}")));
        };
        self.source.read(index).map_err(|e| e.at(name))
    }
}

/// A file to open.
struct Opening<'a> {
    file: Box<dyn Input>,
    /// The size of the file in bytes.
    size: u64,
    /// The column of the images.
    inside: Option<&'a str>,
    /// Maximum memory for decoding in bytes.
    limit: u64,
}

impl Opening<'_> {
    /// Reads `len` bytes at an offset. The caller bounds `len`.
    fn bytes(&mut self, at: u64, len: usize) -> Result<Vec<u8>> {
        bytes(&mut self.file, self.size, at, len)
    }
}

/// Reads `len` bytes of a file of `size` bytes at an offset.
fn bytes(file: &mut Box<dyn Input>, size: u64, at: u64, len: usize) -> Result<Vec<u8>> {
    if at.checked_add(len as u64).is_none_or(|end| end > size) {
        return Err(damaged("it ends too early"));
    }
    let mut bytes = vec![0; len];
    file.seek(SeekFrom::Start(at))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|e| read_error(&e))?;
    Ok(bytes)
}

/// Checks the number of images.
fn check_count(count: u64) -> Result<()> {
    if count > MAX_COUNT {
        return Err(Error::usage(format!(
            "{count} images; at most {MAX_COUNT} are supported: split the file"
        )));
    }
    Ok(())
}

/// A format of containers.
struct Format {
    name: &'static str,
    /// Whether a file is in this format, by its first bytes (at most [`START`]) and its path.
    sniffs: fn(start: &[u8], path: &Path) -> bool,
    open: fn(Opening<'_>) -> Result<Container>,
}

/// The formats. The first one that detects a file opens it.
const FORMATS: &[Format] = &[parquet::FORMAT, webdataset::FORMAT];

/// Whether a file is a container, by its first bytes (512, if it has them) and its extension.
pub fn sniffs(start: &[u8], path: &Path) -> bool {
    FORMATS.iter().any(|format| (format.sniffs)(start, path))
}

/// Whether the path has one of these extensions.
fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let own = path.extension().unwrap_or_default();
    extensions.iter().any(|extension| own.eq_ignore_ascii_case(extension))
}

/// Opens a container. `inside` is the column of the images in a parquet file, if it has several.
/// `limit` is the maximum memory for decoding in bytes.
///
/// # Errors
/// If the file cannot be read, is damaged or in another format, or contains no images.
pub fn open(path: &Path, inside: Option<&str>, limit: u64) -> Result<Container> {
    let (file, _) = open_file(path)?;
    open_input(file, path, inside, limit).map_err(|e| e.at(path.display()))
}

/// Like [`open`], for a file that is open already or in memory. `path` only gives the extension.
///
/// # Errors
/// Those of [`open`].
pub fn open_input(
    mut file: Box<dyn Input>,
    path: &Path,
    inside: Option<&str>,
    limit: u64,
) -> Result<Container> {
    let size = file.seek(SeekFrom::End(0)).map_err(|e| read_error(&e))?;
    let mut opening = Opening { file, size, inside, limit };
    let start = opening.bytes(0, START.min(usize::try_from(size).unwrap_or(START)))?;
    if start.is_empty() {
        return Err(Error::usage("the file is empty"));
    }
    let Some(format) = FORMATS.iter().find(|format| (format.sniffs)(&start, path)) else {
        let names: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
        return Err(Error::usage(format!(
            "is not a container of images; those are {}",
            names.join(" and ")
        )));
    };
    (format.open)(opening)
}
