//! Samples in a file of numbers: an array of any type, whose axes are stated or inferred.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::array::MAX_COUNT;
use super::catalogue::{Catalogue, Storage};
use super::encoding::cannot_convert;
use super::images::{Images, Labels};
use super::layout::{Layout, Samples};
use super::numbers::{self, Element, NumberFile};
use super::{LoadOptions, Opened, Pixels};
use crate::budget;
use crate::error::{Error, Result};
use crate::sample_type::SampleType;
use crate::shape::Dims;

/// Bytes of a run of consecutive elements below which a file is not read run by run: each read has
/// costs of its own.
const MIN_RUN: usize = 4096;

/// The samples of an array in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberSet {
    path: PathBuf,
    /// The path of the array inside the file.
    inside: Option<String>,
    /// Maximum memory for decoding, in bytes.
    limit: u64,
    element: Element,
    shape: Vec<usize>,
    layout: Layout,
    /// Number of samples.
    pub count: usize,
    /// Size of a sample as stored in the file.
    pub dims: Dims,
}

/// The type in which elements are stored in memory. Integers other than unsigned ones of 8 and 16
/// bits, and floats of 64 bits become floats of 32 bits.
pub(super) const fn sample_type(element: Element) -> SampleType {
    match element {
        Element::Bool | Element::U8 => SampleType::U8,
        Element::U16 => SampleType::U16,
        Element::F16 => SampleType::F16,
        Element::I8
        | Element::I16
        | Element::U32
        | Element::I32
        | Element::U64
        | Element::I64
        | Element::F32
        | Element::F64 => SampleType::F32,
    }
}

/// Elements in the type in which they are stored.
pub(super) fn stored(element: Element, read: Vec<u8>) -> Vec<u8> {
    match element {
        Element::Bool | Element::U8 | Element::U16 | Element::F16 | Element::F32 => read,
        Element::I8
        | Element::I16
        | Element::U32
        | Element::I32
        | Element::U64
        | Element::I64
        | Element::F64 => {
            let values = read.chunks_exact(element.size());
            values.flat_map(|bytes| (element.value(bytes) as f32).to_le_bytes()).collect()
        }
    }
}

impl NumberSet {
    /// Finds the samples of an opened array.
    ///
    /// # Errors
    /// If the axes are ambiguous, do not fit, or there are too many samples.
    fn new(
        path: &Path,
        inside: Option<&str>,
        file: &NumberFile,
        want: &LoadOptions,
        limit: u64,
    ) -> Result<Self> {
        let shape = file.shape();
        let layout = match (want.layout, of_names(file.axes())) {
            (Some(layout), _) => layout.clone(),
            (None, Some(named)) => named,
            (None, None) => Layout::infer(shape, want.channels)?,
        };
        let Samples { count, dims } = layout.samples(shape)?;
        if count as u64 > MAX_COUNT {
            return Err(Error::usage(format!(
                "{count} samples; at most {MAX_COUNT} are supported: split the file"
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            inside: inside.map(str::to_owned),
            limit,
            element: file.element(),
            shape: shape.to_vec(),
            layout,
            count,
            dims,
        })
    }

    /// The type of the samples that are read.
    pub const fn sample(&self) -> SampleType {
        sample_type(self.element)
    }

    /// Size of all samples in memory, in bytes.
    fn total(&self) -> u64 {
        (self.count * self.dims.len()) as u64 * self.sample().size() as u64
    }

    /// Memory for reading one sample, in bytes, in addition to the sample.
    pub fn reading_bytes(&self) -> u64 {
        (self.dims.len() * self.element.size()) as u64
    }

    /// Opens the file again.
    ///
    /// # Errors
    /// If it cannot be read any more, or has changed.
    pub fn open(&self) -> Result<NumberFile> {
        let file = numbers::open(&self.path, self.inside.as_deref(), self.limit)?;
        if file.element() != self.element || file.shape() != self.shape {
            return Err(Error::failed(format!(
                "{}: its shape or type has changed since it was first read",
                self.path.display()
            )));
        }
        Ok(file)
    }

    /// Reads a sample (H,W,C).
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(&self, file: &mut NumberFile, sample: usize) -> Result<Vec<u8>> {
        let (starts, length) = self.layout.runs(&self.shape, sample);
        let mut read = budget::reserved(self.dims.len() * self.element.size(), "a sample")?;
        for start in starts {
            file.read(start, length, &mut read).map_err(|e| e.at(self.path.display()))?;
        }
        Ok(stored(self.element, self.layout.to_hwc(self.dims, self.element.size(), read)))
    }

    /// The samples whose elements are scattered over the array: the array is read once as a whole.
    fn read_scattered(&self, file: &mut NumberFile) -> Result<Images> {
        let size = self.element.size();
        let mut all = Vec::new();
        file.read(0, self.count * self.dims.len(), &mut all)?;
        self.collect(|sample| {
            let (starts, length) = self.layout.runs(&self.shape, sample);
            let runs = starts.iter().map(|start| &all[*start as usize * size..][..length * size]);
            let read = runs.flatten().copied().collect();
            Ok(stored(self.element, self.layout.to_hwc(self.dims, size, read)))
        })
    }

    fn collect(&self, mut read: impl FnMut(usize) -> Result<Vec<u8>>) -> Result<Images> {
        let mut images = Images::of_type(self.dims.c, self.sample());
        images.bytes = budget::reserved(self.total() as usize, "the samples")?;
        for sample in 0..self.count {
            images.push(self.name(sample), self.dims.size(), &read(sample)?)?;
        }
        Ok(images)
    }

    /// The name of a sample: its number with leading zeros.
    pub fn name(&self, sample: usize) -> String {
        let digits = self.count.saturating_sub(1).max(1).ilog10() as usize + 1;
        format!("{sample:0digits$}")
    }
}

/// The layout that the names of the axes in the file state, if it names all of them by letters.
fn of_names(names: &[String]) -> Option<Layout> {
    if names.iter().any(|name| name.len() != 1) {
        return None;
    }
    // S: the samples of a pixel in a TIFF file.
    let letters = names.concat().replace('S', "C");
    letters.parse().ok()
}

/// What belongs to samples in a file.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// The labels of the samples.
    pub labels: Option<Labels>,
    /// What a user must know. Clauses without a full stop.
    pub notes: Vec<String>,
}

/// Opens the samples of an array in a file, with what is `beside` them for their number. Samples
/// that take more than `limit` bytes are streamed.
///
/// # Errors
/// If the file cannot be read, its axes are ambiguous, or its channels cannot be converted.
pub fn open(
    path: &Path,
    inside: Option<&str>,
    want: &LoadOptions,
    limit: u64,
    beside: impl FnOnce(usize) -> Result<Beside>,
) -> Result<Opened> {
    let place = match inside {
        Some(inside) => format!("{}:{inside}", path.display()),
        None => path.display().to_string(),
    };
    let decoding = want.memory.unwrap_or(limit).max(limit);
    let mut file = numbers::open(path, inside, decoding)?;
    let set = NumberSet::new(path, inside, &file, want, decoding).map_err(|e| e.at(&place))?;
    let (from, sample) = (set.dims.c, set.sample());
    let channels = want.channels.unwrap_or(from);
    if from != channels && !matches!((from, channels), (1, 3) | (3, 1)) {
        return Err(cannot_convert(from, channels).at(&place));
    }
    if want.eight_bits && sample != SampleType::U8 {
        return Err(Error::usage(format!(
            "{place}: has {} samples; this command takes 8-bit samples",
            set.element.name()
        )));
    }
    let mut notes = vec![format!("axes {} as {}", shape_text(&set.shape), set.layout)];
    notes.extend(file.notes().iter().cloned());
    if sample.size() < set.element.size() {
        notes.push(format!("{} numbers are stored as {}", set.element.name(), sample.name()));
    }
    let Beside { labels, notes: of_labels } = beside(set.count)?;
    notes.extend(of_labels);
    let notes = format!("; {}", notes.join("; "));
    let (starts, length) = set.layout.runs(&set.shape, 0);
    let is_scattered = starts.len() > 1 && length * set.element.size() < MIN_RUN;
    let larger = (channels.max(from) / from) as u64;
    if set.total().saturating_mul(larger) > limit {
        if is_scattered {
            return Err(Error::usage(format!(
                "{place}: the samples of the layout {} are scattered over the file, and together \
                 larger than the memory for data; transpose the array so that samples come first",
                set.layout
            )));
        }
        let storage = Storage::Numbers(set);
        let catalogue = Arc::new(Catalogue::new(storage, channels, sample, labels));
        return Ok(Opened::new(&place, Pixels::Streamed(catalogue), &notes));
    }
    let images = if is_scattered {
        set.read_scattered(&mut file)
    } else {
        set.collect(|sample| set.read(&mut file, sample))
    };
    let mut images = images.map_err(|e| e.at(&place))?;
    images.labels = labels;
    images.convert_channels(channels).map_err(|e| e.at(&place))?;
    Ok(Opened::new(&place, Pixels::Resident(images), &notes))
}

fn shape_text(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}
