//! HDF5 files, with the conventions of NetCDF-4 and of MATLAB 7.3.
//!
//! The path inside the file names a data set. Dimension scales and helpers of NetCDF and MATLAB are
//! candidates only if there is nothing else.

mod conventions;
mod lzf;
mod read;

use std::sync::{Arc, Mutex};

use hdf5_reader::error::Error as Hdf5Error;
use hdf5_reader::group::Group;
use hdf5_reader::storage::RangeRequestStorage;
use hdf5_reader::{Dataset, Datatype, FilterRegistry, Hdf5File, OpenOptions};

use super::scaled::Scaled;
use super::{
    Element, Format, Input, NumberFile, Opening, candidate, checked_shape, choose, damaged,
};
use crate::error::{Error, Result};

pub(super) const FORMAT: Format = Format {
    name: "HDF5 (NetCDF-4, MATLAB 7.3)",
    extensions: &["h5", "hdf5", "hdf", "he5", "nc", "nc4", "cdf"],
    // MATLAB writes a text of 512 bytes before the file.
    sniffs: |start| start.starts_with(b"\x89HDF\r\n\x1a\n") || start.starts_with(b"MATLAB 7.3"),
    open,
};

/// Maximum depth of groups, and number of data sets, among which a path is looked for.
const MAX_DEPTH: usize = 16;
const MAX_FOUND: usize = 1000;

fn open(opening: Opening<'_>) -> Result<NumberFile> {
    let Opening { file, size, inside, limit } = opening;
    let file = open_file(file, size, limit).map_err(|e| unreadable(&e))?;
    let root = file.root_group().map_err(|e| unreadable(&e))?;
    let Some(path) = inside.map(|path| path.trim_matches('/')).filter(|path| !path.is_empty())
    else {
        let found = list(&root);
        let main: Vec<&Found> = found.iter().filter(|found| !found.is_helper).collect();
        let main = if main.is_empty() { found.iter().collect() } else { main };
        return match main[..] {
            [only] => array(&root, &only.dataset, limit).map_err(|e| e.at(&only.path)),
            _ => {
                let candidates: Vec<String> = main.iter().map(|found| found.describe()).collect();
                Err(choose(None, &candidates))
            }
        };
    };
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let group = file.group(parent);
    if let Ok(group) = &group
        && let Ok(dataset) = group.dataset(name)
    {
        return array(group, &dataset, limit).map_err(|e| e.at(path));
    }
    let (found, is_group) = match file.group(path) {
        Ok(group) => (list(&group), true),
        Err(_) => (list(&root), false),
    };
    let candidates: Vec<String> = found.iter().map(Found::describe).collect();
    if !is_group {
        return Err(choose(inside, &candidates));
    }
    let empty = candidates.is_empty();
    let list = candidates.into_iter().take(20).collect::<Vec<_>>().join(", ");
    let list = if empty { "no array of numbers".to_owned() } else { list };
    Err(Error::usage(format!("{path} is a group, not an array; it contains {list}")))
}

/// Opens the file. Chunks and their cache keep to the memory limit.
fn open_file(file: Box<dyn Input>, size: u64, limit: u64) -> Result<Hdf5File, Hdf5Error> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut filters = FilterRegistry::new();
    filters.register(lzf::ID, Box::new(move |filter, data, _| lzf::filter(filter, data, limit)));
    let options = OpenOptions::default()
        .with_max_chunk_bytes(limit)
        .with_chunk_cache_bytes((limit / 4).min(hdf5_reader::DEFAULT_CHUNK_CACHE_BYTES))
        .with_filter_registry(filters);
    let file = Mutex::new(file);
    let read = move |at: u64, len: usize| {
        let mut file = file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // The storage has checked the range against the size of the file.
        let mut bytes = vec![0; len];
        file.seek(std::io::SeekFrom::Start(at))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    Hdf5File::from_storage_with_options(Arc::new(RangeRequestStorage::new(size, read)), options)
}

/// A data set of numbers.
struct Found {
    /// The path without the leading slash.
    path: String,
    dataset: Dataset,
    is_helper: bool,
}

impl Found {
    fn describe(&self) -> String {
        let mut shape = self.dataset.shape().to_vec();
        if conventions::matlab_class(&self.dataset).is_some() {
            shape.reverse();
        }
        match element(&self.dataset) {
            Ok(element) => candidate(&self.path, element, &shape),
            Err(_) => format!("{} (not supported)", self.path),
        }
    }
}

/// The arrays of numbers below a group.
fn list(group: &Group) -> Vec<Found> {
    let mut found = Vec::new();
    let mut seen = Vec::new();
    walk(group, "", 0, &mut seen, &mut found);
    found
}

fn walk(group: &Group, path: &str, depth: usize, seen: &mut Vec<u64>, found: &mut Vec<Found>) {
    // A link to a group above makes a cycle.
    if depth > MAX_DEPTH || seen.contains(&group.address()) {
        return;
    }
    seen.push(group.address());
    // A group that cannot be read has nothing to offer.
    let (groups, datasets) = group.members().unwrap_or_default();
    for dataset in datasets {
        if found.len() >= MAX_FOUND {
            return;
        }
        if dataset.ndim() > 0 && element(&dataset).is_ok() {
            let is_helper = conventions::is_helper(&dataset);
            found.push(Found { path: format!("{path}{}", dataset.name()), dataset, is_helper });
        }
    }
    for group in groups {
        // `#refs#` and `#subsystem#` hold the parts of MATLAB's cells and objects.
        if !group.name().starts_with('#') {
            walk(&group, &format!("{path}{}/", group.name()), depth + 1, seen, found);
        }
    }
}

/// The type of the elements of a data set.
fn element(dataset: &Dataset) -> Result<Element> {
    let unsupported = |what: &str| {
        Err(Error::usage(format!("contains {what}, not numbers; choose an array of numbers")))
    };
    let found = match dataset.dtype() {
        Datatype::FixedPoint { size, signed, .. } => Element::integer(usize::from(*size), *signed),
        Datatype::Bitfield { size, .. } => Element::integer(usize::from(*size), false),
        Datatype::FloatingPoint { size, .. } => {
            // The size of the exponent in bits (HDF5 file format, IV.A.2.d) of IEEE 754.
            let exponent = match size {
                2 => 5,
                4 => 8,
                _ => 11,
            };
            let is_ieee = dataset.raw_datatype().is_ok_and(|raw| raw.get(13) == Some(&exponent));
            Element::float(usize::from(*size)).filter(|_| is_ieee)
        }
        Datatype::Enum { base, members } => match **base {
            // The booleans of h5py.
            Datatype::FixedPoint { size: 1, .. }
                if members.len() == 2
                    && members.iter().any(|member| member.name == "TRUE")
                    && members.iter().any(|member| member.name == "FALSE") =>
            {
                Some(Element::Bool)
            }
            Datatype::FixedPoint { size, signed, .. } => {
                Element::integer(usize::from(size), signed)
            }
            _ => None,
        },
        Datatype::String { .. } => return unsupported("text"),
        Datatype::VarLen { .. } => return unsupported("lists of different lengths, or text"),
        Datatype::Reference { .. } => return unsupported("references (a cell array in MATLAB)"),
        Datatype::Compound { .. } => return unsupported("structures or complex numbers"),
        Datatype::Array { .. } => return unsupported("arrays as elements"),
        Datatype::Opaque { .. } => return unsupported("opaque data"),
    };
    found.map_or_else(|| unsupported("a type of numbers that is not supported"), Ok)
}

/// Opens a data set.
fn array(group: &Group, dataset: &Dataset, limit: u64) -> Result<NumberFile> {
    let mut element = element(dataset)?;
    let mut shape = dataset.shape().to_vec();
    let matlab = conventions::matlab_class(dataset);
    if let Some(class) = &matlab {
        shape.reverse();
        element = conventions::matlab_element(dataset, class, element)?;
    }
    let sizes = checked_shape(element, &shape)?;
    let scaling = conventions::scaling(dataset, element);
    let elements = Box::new(read::Elements {
        dataset: dataset.clone(),
        element: scaling.stored,
        shape: sizes,
        reversed: matlab.is_some(),
    });
    let mut file = if scaling.linear.is_none() && scaling.missing.is_empty() {
        NumberFile::new(scaling.stored, &shape, elements)?
    } else {
        let (scale, offset) = scaling.linear.unwrap_or((1.0, 0.0));
        let (stored, missing) = (scaling.stored, scaling.missing);
        let scaled = Scaled::new(elements, stored, scale, offset, missing);
        NumberFile::new(Scaled::element_of(stored), &shape, Box::new(scaled))?
    };
    file.notes = scaling.notes;
    if file.element != scaling.stored {
        file.notes.push(format!("{} to {}", scaling.stored.name(), file.element.name()));
    }
    if matlab.is_some() {
        file.notes.push("MATLAB's order of axes".to_owned());
    }
    file.axes = conventions::axes(group, dataset);
    // A filter that is not supported is found now, and not in the middle of training.
    if file.element.size() as u64 <= limit {
        file.read(0, 1, &mut Vec::new())?;
    }
    Ok(file)
}

/// The message of an error. Contexts that repeat the path are dropped.
fn unreadable(error: &Hdf5Error) -> Error {
    match error {
        Hdf5Error::Context { source, .. } => unreadable(source),
        Hdf5Error::UnsupportedFilter(filter) => {
            let number = filter.trim_start_matches(|c: char| !c.is_ascii_digit());
            let name = match number {
                "307" => "bzip2",
                "32001" => "Blosc",
                "32004" => "LZ4",
                "32008" => "bitshuffle",
                "32013" => "ZFP",
                "32015" => "Zstandard",
                "32017" => "SZ",
                "32026" => "Blosc2",
                _ => filter,
            };
            Error::usage(format!(
                "the filter {name} is not supported; save it with gzip: h5repack -f GZIP=4 OLD NEW"
            ))
        }
        Hdf5Error::ResourceLimit(what) => {
            Error::usage(format!("needs more memory than the limit ({what}); use smaller chunks"))
        }
        Hdf5Error::Io(error) => super::read_error(error),
        Hdf5Error::UnsupportedEncoding(_) => Error::usage(format!("is not supported ({error})")),
        other => damaged(&other.to_string()),
    }
}
