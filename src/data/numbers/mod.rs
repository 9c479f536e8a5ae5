//! Files of numbers: arrays of any type and shape, read as they are. A table lists the formats; a
//! format is one file and one row.
//!
//! [`open`] detects the format by the first bytes of the file and returns a [`NumberFile`], which
//! reads any range of elements. Axes are outermost first, whatever their order in the file. Nothing
//! is converted silently: [`NumberFile::notes`] states each interpretation.

#[cfg(feature = "hdf5")]
mod boxes;
mod fits;
mod flat;
#[cfg(feature = "hdf5")]
mod hdf5;
mod mat;
mod npy;
pub mod npy_header;
#[cfg(feature = "cli")]
mod npz;
mod path;
mod refused;
#[cfg(feature = "cli")]
mod region;
mod scaled;
mod tiff;
mod tiff_axes;
mod wav;
pub mod y4m;

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

pub use path::split;

use crate::budget;
use crate::error::{Error, Result};
use npy_header::shape_text;

/// Maximum number of axes, that of HDF5. NumPy allows 64 since version 2.
const MAX_AXES: usize = 32;

/// Number of bytes at the start of a file that detect its format. They cover every signature.
const START: u64 = 16;

/// The type of a number in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// A byte that is 0 or 1.
    Bool,
    /// An unsigned byte.
    U8,
    /// A signed byte.
    I8,
    /// An unsigned integer of 16 bits.
    U16,
    /// A signed integer of 16 bits.
    I16,
    /// An unsigned integer of 32 bits.
    U32,
    /// A signed integer of 32 bits.
    I32,
    /// An unsigned integer of 64 bits.
    U64,
    /// A signed integer of 64 bits.
    I64,
    /// A float of 16 bits.
    F16,
    /// A float of 32 bits.
    F32,
    /// A float of 64 bits.
    F64,
}

impl Element {
    /// Size in bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::U8 => "8-bit unsigned",
            Self::I8 => "8-bit signed",
            Self::U16 => "16-bit unsigned",
            Self::I16 => "16-bit signed",
            Self::U32 => "32-bit unsigned",
            Self::I32 => "32-bit signed",
            Self::U64 => "64-bit unsigned",
            Self::I64 => "64-bit signed",
            Self::F16 => "16-bit float",
            Self::F32 => "32-bit float",
            Self::F64 => "64-bit float",
        }
    }

    /// The integer type of `bytes` bytes.
    const fn integer(bytes: usize, signed: bool) -> Option<Self> {
        Some(match (bytes, signed) {
            (1, false) => Self::U8,
            (1, true) => Self::I8,
            (2, false) => Self::U16,
            (2, true) => Self::I16,
            (4, false) => Self::U32,
            (4, true) => Self::I32,
            (8, false) => Self::U64,
            (8, true) => Self::I64,
            _ => return None,
        })
    }

    /// The float type of `bytes` bytes.
    const fn float(bytes: usize) -> Option<Self> {
        Some(match bytes {
            2 => Self::F16,
            4 => Self::F32,
            8 => Self::F64,
            _ => return None,
        })
    }

    /// The value of an element, whose bytes are little-endian. 64-bit integers are rounded.
    pub fn value(self, bytes: &[u8]) -> f64 {
        fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
            std::array::from_fn(|i| bytes[i])
        }
        match self {
            Self::Bool | Self::U8 => f64::from(bytes[0]),
            Self::I8 => f64::from(bytes[0] as i8),
            Self::U16 => f64::from(u16::from_le_bytes(first(bytes))),
            Self::I16 => f64::from(i16::from_le_bytes(first(bytes))),
            Self::U32 => f64::from(u32::from_le_bytes(first(bytes))),
            Self::I32 => f64::from(i32::from_le_bytes(first(bytes))),
            Self::U64 => u64::from_le_bytes(first(bytes)) as f64,
            Self::I64 => i64::from_le_bytes(first(bytes)) as f64,
            Self::F16 => half::f16::from_le_bytes(first(bytes)).to_f64(),
            Self::F32 => f64::from(f32::from_le_bytes(first(bytes))),
            Self::F64 => f64::from_le_bytes(first(bytes)),
        }
    }
}

/// A seekable file, or bytes in memory.
pub trait Input: Read + Seek + Send {}

impl<T: Read + Seek + Send> Input for T {}

/// Reads the elements of an array. [`NumberFile`] checks the range before it asks.
trait Source: Send {
    /// Appends exactly `count` elements from the flat index `first` (C order) to `out`, in
    /// little-endian byte order.
    fn read(&mut self, first: u64, count: usize, out: &mut Vec<u8>) -> Result<()>;
}

/// An array in a file.
pub struct NumberFile {
    element: Element,
    shape: Vec<usize>,
    axes: Vec<String>,
    notes: Vec<String>,
    sample_rate: Option<u32>,
    full_scale: f64,
    source: Box<dyn Source>,
}

impl fmt::Debug for NumberFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NumberFile")
            .field("element", &self.element)
            .field("shape", &self.shape)
            .field("axes", &self.axes)
            .field("notes", &self.notes)
            .finish_non_exhaustive()
    }
}

impl NumberFile {
    /// An array of a declared shape, which is checked.
    fn new(element: Element, shape: &[u64], source: Box<dyn Source>) -> Result<Self> {
        let shape = checked_shape(element, shape)?;
        let (axes, notes, sample_rate) = (Vec::new(), Vec::new(), None);
        Ok(Self { element, shape, axes, notes, sample_rate, full_scale: 1.0, source })
    }

    /// The type of the elements.
    pub fn element(&self) -> Element {
        self.element
    }

    /// The size of each axis, outermost first (C order). There are 1 to 32 axes, none has the size
    /// 0, and the size in bytes fits an `i64`.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }

    /// Always false: an array without elements is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the axes, such as `T`, `Z`, `C`, `Y`, `X` or those of NetCDF dimensions. Empty
    /// if the file has no names; an axis without one has the name "".
    pub fn axes(&self) -> &[String] {
        &self.axes
    }

    /// What a user must know: what was interpreted, dropped or converted. Clauses without a full
    /// stop.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Samples per second of a waveform.
    pub fn sample_rate(&self) -> Option<u32> {
        self.sample_rate
    }

    /// The value that stands for 1 in a waveform: 2¹⁵ for 16-bit integers, 1 for floats.
    pub fn full_scale(&self) -> f64 {
        self.full_scale
    }

    /// Appends `count` elements from the flat index `first` (C order) to `out`, in little-endian
    /// byte order. A boolean is 0 or 1.
    ///
    /// # Errors
    /// If the range exceeds the array, or the file cannot be read or is damaged there.
    pub fn read(&mut self, first: u64, count: usize, out: &mut Vec<u8>) -> Result<()> {
        if first.checked_add(count as u64).is_none_or(|end| end > self.len()) {
            return Err(Error::failed(format!(
                "{count} elements from element {first} are not all among the {} of the array",
                self.len()
            )));
        }
        let bytes = count * self.element.size();
        budget::grow(out, bytes, "the numbers")?;
        let start = out.len();
        self.source.read(first, count, out)?;
        if out.len() - start != bytes {
            return Err(damaged("it has fewer numbers than its header declares"));
        }
        if self.element == Element::Bool {
            out[start..].iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
        }
        Ok(())
    }

    fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// An array among others in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayInfo {
    /// Its path inside the file.
    pub name: String,
    /// The type of its elements.
    pub element: Element,
    /// The size of each axis, as declared.
    pub shape: Vec<u64>,
}

/// The arrays of an `.npz` archive. It has none if the file is of another format.
///
/// # Errors
/// If the file cannot be read.
#[cfg(feature = "cli")]
pub fn arrays_of_npz(path: &Path) -> Result<Vec<ArrayInfo>> {
    let (mut file, size) = open_file(path)?;
    let start = first_bytes(&mut file).map_err(|e| e.at(path.display()))?;
    if !(npz::FORMAT.sniffs)(&start) {
        return Ok(Vec::new());
    }
    npz::arrays(file, size).map_err(|e| e.at(path.display()))
}

/// Checks a declared shape.
fn checked_shape(element: Element, shape: &[u64]) -> Result<Vec<usize>> {
    let text = shape_text(shape);
    if shape.is_empty() {
        return Err(Error::usage("is a single number, not an array"));
    }
    if shape.len() > MAX_AXES {
        return Err(Error::usage(format!(
            "has {} axes, but at most {MAX_AXES} are supported; reshape the array",
            shape.len()
        )));
    }
    if shape.contains(&0) {
        return Err(Error::usage(format!("the array is empty: its shape is {text}")));
    }
    let bytes = shape.iter().try_fold(element.size() as u64, |all, &size| all.checked_mul(size));
    if bytes.and_then(|bytes| isize::try_from(bytes).ok()).is_none() {
        return Err(damaged(&format!("its shape {text} is impossible")));
    }
    Ok(shape.iter().map(|&size| size as usize).collect())
}

/// The error for a file that contradicts itself. `what` is a clause.
pub(in crate::data) fn damaged(what: &str) -> Error {
    Error::usage(format!("the file is cut off or damaged: {what}; save it again"))
}

/// The error for a read that failed or reached the end of the file.
pub(in crate::data) fn read_error(error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput => {
            damaged(&error.to_string())
        }
        _ => Error::failed(format!("cannot be read: {error}; check the file and its disk")),
    }
}

/// The error for an array that has to be in memory as a whole, and is larger than the limit.
pub(in crate::data) fn too_large(bytes: u64, limit: u64, advice: &str) -> Error {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Error::usage(format!(
        "needs {} MiB in memory, more than the limit of {} MiB; {advice}",
        mib(bytes),
        mib(limit)
    ))
}

/// The error for a file with several arrays, or without the one that was asked for. Each candidate
/// is a name with its type and shape.
fn choose(inside: Option<&str>, candidates: &[String]) -> Error {
    /// Number of candidates that a message lists.
    const SHOWN: usize = 20;
    let mut list = candidates.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if candidates.len() > SHOWN {
        list += &format!(" and {} others", candidates.len() - SHOWN);
    }
    match inside {
        _ if candidates.is_empty() => Error::usage("contains no array of numbers"),
        Some(name) => Error::usage(format!("has no array {name:?}; it has {list}")),
        None => Error::usage(format!("has several arrays; append : and one of {list}")),
    }
}

/// A candidate of [`choose`].
fn candidate(name: &str, element: Element, shape: &[u64]) -> String {
    format!("{name} ({} {})", element.name(), shape_text(shape))
}

/// A file to open.
struct Opening<'a> {
    file: Box<dyn Input>,
    /// The size of the file in bytes.
    size: u64,
    /// The path inside the file.
    inside: Option<&'a str>,
    /// Maximum memory for decoding in bytes.
    limit: u64,
}

impl Opening<'_> {
    /// Refuses a path inside a file that has a single array.
    fn single(&self) -> Result<()> {
        match self.inside {
            None => Ok(()),
            Some(name) => {
                Err(Error::usage(format!("has a single array without a name; remove :{name}")))
            }
        }
    }

    /// Reads `len` bytes at an offset. The caller bounds `len`.
    fn bytes(&mut self, at: u64, len: usize) -> Result<Vec<u8>> {
        if at.checked_add(len as u64).is_none_or(|end| end > self.size) {
            return Err(damaged("it ends too early"));
        }
        let mut bytes = vec![0; len];
        self.file.seek(SeekFrom::Start(at)).map_err(|e| read_error(&e))?;
        self.file.read_exact(&mut bytes).map_err(|e| read_error(&e))?;
        Ok(bytes)
    }
}

/// A file format.
struct Format {
    /// The name in messages. Empty: the format is recognised and refused.
    name: &'static str,
    /// Extensions of its files, for files without a signature at their start.
    extensions: &'static [&'static str],
    /// Whether the first bytes of a file are those of the format.
    sniffs: fn(start: &[u8]) -> bool,
    open: fn(Opening<'_>) -> Result<NumberFile>,
}

/// The formats. The first that recognises the first bytes opens a file, otherwise the first with
/// its extension.
const FORMATS: &[Format] = &[
    npy::FORMAT,
    #[cfg(feature = "cli")]
    npz::FORMAT,
    #[cfg(feature = "hdf5")]
    hdf5::FORMAT,
    mat::FORMAT,
    fits::FORMAT,
    wav::FORMAT,
    tiff::FORMAT,
    y4m::FORMAT,
    refused::NETCDF_3,
    refused::PICKLE,
];

/// The first format with the extension of a path.
fn named(path: &Path) -> Option<&'static Format> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    FORMATS.iter().find(|format| format.extensions.contains(&extension.as_str()))
}

fn format(start: &[u8], path: &Path) -> Option<&'static Format> {
    FORMATS.iter().find(|format| (format.sniffs)(start)).or_else(|| named(path))
}

/// Whether a path has an extension of one of these formats.
pub fn has_known_extension(path: &Path) -> bool {
    named(path).is_some()
}

/// Whether a file is of one of these formats: by its first bytes (16 are enough), or by its
/// extension.
pub fn sniffs(start: &[u8], path: &Path) -> bool {
    format(start, path).is_some()
}

/// Opens an array by the content of its file. `inside` is the path inside the file. Without it, the
/// file must have a single array. `limit` is the maximum memory for decoding in bytes; most formats
/// are read piece by piece and need little.
///
/// # Errors
/// If the file cannot be read or is damaged, its format or type is not supported, it needs more
/// memory, or `inside` does not name one of its arrays.
pub fn open(path: &Path, inside: Option<&str>, limit: u64) -> Result<NumberFile> {
    let (file, _) = open_file(path)?;
    open_input(file, path, inside, limit).map_err(|e| e.at(path.display()))
}

/// Opens a regular file. Returns it with its size in bytes.
pub(in crate::data) fn open_file(path: &Path) -> Result<(Box<dyn Input>, u64)> {
    let file = File::open(path).map_err(|e| Error::io(path, &e))?;
    let metadata = file.metadata().map_err(|e| Error::io(path, &e))?;
    if !metadata.is_file() {
        return Err(Error::usage(format!("{}: not a regular file", path.display())));
    }
    Ok((Box::new(BufReader::new(file)), metadata.len()))
}

/// The first bytes, which detect the format. The file is at its start before and after.
fn first_bytes(file: &mut Box<dyn Input>) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    file.by_ref().take(START).read_to_end(&mut start).map_err(|e| read_error(&e))?;
    file.rewind().map_err(|e| read_error(&e))?;
    Ok(start)
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
) -> Result<NumberFile> {
    let size = file.seek(SeekFrom::End(0)).map_err(|e| read_error(&e))?;
    file.rewind().map_err(|e| read_error(&e))?;
    let start = first_bytes(&mut file)?;
    if start.is_empty() {
        return Err(Error::usage("the file is empty"));
    }
    let Some(format) = format(&start, path) else {
        let read = FORMATS.iter().filter(|format| !format.name.is_empty());
        let names: Vec<&str> = read.map(|format| format.name).collect();
        return Err(Error::usage(format!(
            "the format is unknown; files of numbers are {}",
            names.join(", ")
        )));
    };
    (format.open)(Opening { file, size, inside, limit })
}
