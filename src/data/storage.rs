//! Where streamed images are stored: files of one image each, records, arrays and containers.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::array::Array;
use super::container_set::ContainerSet;
use super::containers::Container;
use super::encoding::Encoding;
use super::folder::slashed;
use super::formats::decode::{Limit, decode_stored, decode_stored_page};
use super::normalization::{NanName, check_finite};
use super::number_set::NumberSet;
use super::numbers::NumberFile;
use crate::error::{Error, Result};
use crate::shape::Size;

/// A page of a TIFF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its number, from 1 as viewers count.
    pub number: usize,
    /// Number of pages of the file.
    pub of: usize,
    /// Where its description is in the file.
    pub at: u64,
}

impl Page {
    /// The name of the page of a file: `a/stack_page07.tif`.
    pub fn name(&self, file: &Path) -> String {
        numbered(file, "page", self.number, self.of)
    }
}

/// The name of a part of a file: `a/stack_page07.tif` for part 7 of 10 or more.
pub(super) fn numbered(file: &Path, part: &str, number: usize, of: usize) -> String {
    let digits = of.max(1).ilog10() as usize + 1;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let name = format!("{stem}_{part}{number:0digits$}");
    let extension = file.extension().map(|extension| extension.to_string_lossy());
    let name = extension.map_or_else(|| name.clone(), |extension| format!("{name}.{extension}"));
    slashed(&file.with_file_name(name))
}

/// Where the images are stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Storage {
    /// Files of one image each.
    Files {
        /// The folder that the paths are relative to.
        root: PathBuf,
        /// The path of each file.
        files: Vec<PathBuf>,
        /// Height and width of each image as decoded.
        sizes: Vec<[u32; 2]>,
        /// Maximum memory for decoding one of the files, in bytes.
        decoding: u64,
        /// The page that each image is, if it is one. Empty: no image is a page.
        pages: Vec<Option<Page>>,
    },
    /// Files of many records: the records of the first file, then those of the second, and so on.
    Records(Vec<(PathBuf, Array)>),
    /// An array in a file of numbers.
    Numbers(NumberSet),
    /// Encoded images in a container.
    Container(ContainerSet),
}

/// The open files of a reader of records, so that not every record opens its file.
#[derive(Debug, Default)]
pub struct Handles {
    files: HashMap<usize, File>,
    numbers: Option<NumberFile>,
    container: Option<Container>,
}

impl Storage {
    /// Number of images.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Files { files, .. } => files.len(),
            Self::Records(arrays) => arrays.iter().map(|(_, array)| array.count).sum(),
            Self::Numbers(set) => set.count,
            Self::Container(set) => set.sizes.len(),
        }
    }

    /// Height and width of an image as decoded.
    pub(super) fn size(&self, place: usize) -> Size {
        let of = |sizes: &[[u32; 2]]| {
            let [h, w] = sizes[place].map(|side| side as usize);
            Size { h, w }
        };
        match self {
            Self::Files { sizes, .. } => of(sizes),
            Self::Records(arrays) => arrays[record(arrays, place).0].1.dims.size(),
            Self::Numbers(set) => set.dims.size(),
            Self::Container(set) => of(&set.sizes),
        }
    }

    /// The name of an image: its path inside the folder, or its number inside a file.
    pub(super) fn name(&self, place: usize) -> String {
        match self {
            Self::Files { files, pages, .. } => match pages.get(place) {
                Some(Some(page)) => page.name(&files[place]),
                Some(None) | None => slashed(&files[place]),
            },
            Self::Records(arrays) => {
                let (array, index) = record(arrays, place);
                name_of_record(arrays, array, index)
            }
            Self::Numbers(set) => set.name(place),
            Self::Container(set) => set.names[place].clone(),
        }
    }

    /// Whether two images are in one file of images.
    pub(super) fn share_file(&self, one: usize, other: usize) -> bool {
        match self {
            Self::Files { files, pages, .. } => {
                files[one] == files[other] && pages.get(one) == pages.get(other)
            }
            Self::Records(_) | Self::Numbers(_) | Self::Container(_) => false,
        }
    }

    /// The memory of the tables, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Files { files, pages, .. } => {
                let each = size_of::<PathBuf>() + size_of::<[u32; 2]>();
                let files = files.iter().map(|file| file.as_os_str().len() + each);
                files.sum::<usize>() + size_of_val(&pages[..])
            }
            Self::Records(arrays) => size_of_val(&arrays[..]),
            Self::Numbers(_) => 0,
            Self::Container(set) => set.held_bytes(),
        }
    }

    /// Maximum memory for decoding an image to pixels of `pixel` bytes, in bytes.
    pub(super) fn decoding_bytes(&self, place: usize, pixel: usize) -> u64 {
        match self {
            Self::Files { decoding, .. } => *decoding,
            Self::Records(arrays) => {
                let (_, array) = &arrays[record(arrays, place).0];
                (array.record() + array.dims.len() + pixel * array.dims.area()) as u64
            }
            Self::Numbers(set) => set.reading_bytes() + (pixel * set.dims.area()) as u64,
            Self::Container(set) => set.decoding,
        }
    }

    /// Whether all images have the same size.
    pub(super) fn is_uniform(&self) -> bool {
        match self {
            Self::Records(arrays) => arrays.len() == 1,
            Self::Numbers(_) => true,
            Self::Files { .. } | Self::Container(_) => false,
        }
    }

    /// Reads an image and converts its channels.
    ///
    /// # Errors
    /// If its file cannot be read any more, or has changed. The message names the file.
    pub(super) fn read(
        &self,
        place: usize,
        handles: &mut Handles,
        encoding: &Encoding,
        channels: usize,
    ) -> Result<Vec<u8>> {
        match self {
            Self::Files { root, files, decoding, pages, .. } => {
                let path = root.join(&files[place]);
                let limit = Limit::of_memory(Some(*decoding));
                let decoded = match pages.get(place) {
                    Some(Some(page)) => decode_stored_page(&path, page.at, limit),
                    Some(None) | None => decode_stored(&path, limit),
                };
                let decoded = decoded.map_err(|e| e.at(path.display()))?;
                if decoded.dims.size() != self.size(place) {
                    return Err(Error::failed(format!(
                        "{}: its size has changed since it was first read",
                        path.display()
                    )));
                }
                decoded.into_stored(channels, encoding.sample).map_err(|e| e.at(path.display()))
            }
            Self::Records(arrays) => {
                let (number, index) = record(arrays, place);
                let (path, array) = &arrays[number];
                let file = match handles.files.entry(number) {
                    std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
                    std::collections::hash_map::Entry::Vacant(closed) => {
                        closed.insert(File::open(path).map_err(|e| Error::io(path, &e))?)
                    }
                };
                let pixels = array.read(file, index).map_err(|e| e.at(path.display()))?;
                encoding.convert_channels(pixels, array.dims.c, channels)
            }
            Self::Numbers(set) => {
                let file = match &mut handles.numbers {
                    Some(open) => open,
                    closed => closed.insert(set.open()?),
                };
                let pixels = set.read(file, place)?;
                if encoding.nan == NanName::Error && !encoding.sample.is_integer() {
                    let values = encoding.sample.values(&pixels);
                    check_finite(&values, set.dims.c, set.dims.w)
                        .map_err(|e| e.at(self.name(place)))?;
                }
                encoding.convert_channels(pixels, set.dims.c, channels)
            }
            Self::Container(set) => {
                let container = match &mut handles.container {
                    Some(open) => open,
                    closed => closed.insert(set.open()?),
                };
                set.read(container, place)?.into_stored(channels, encoding.sample)
            }
        }
    }
}

/// The file and the index inside the file of record `place`, counted over all files.
fn record(arrays: &[(PathBuf, Array)], mut place: usize) -> (usize, usize) {
    for (file, (_, array)) in arrays.iter().enumerate() {
        if place < array.count {
            return (file, place);
        }
        place -= array.count;
    }
    unreachable!("every place is below the number of records")
}

/// The name of a record: its number; if there are several files, `FILE/NUMBER`.
pub(super) fn name_of_record(arrays: &[(PathBuf, Array)], file: usize, index: usize) -> String {
    let (path, array) = &arrays[file];
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if arrays.len() > 1 {
        format!("{}/{}", name(path), array.name(index))
    } else {
        array.name(index)
    }
}
