//! Image sources: folders, lists, single files, IDX, CIFAR, npy and csv files, and the bundled
//! sets. Images are loaded into memory, or streamed from their files if they do not fit.

mod accumulator;
pub mod array;
pub mod bundled;
pub mod catalogue;
pub mod container_set;
pub mod containers;
pub mod encoding;
mod exif;
pub mod file_report;
mod film;
pub mod find;
pub mod folder;
pub mod formats;
pub mod image_file;
pub mod images;
pub mod layout;
mod list;
pub mod listing;
pub mod log_mel;
pub mod metadata;
pub mod missing;
pub mod normalization;
pub mod number_set;
pub mod numbers;
pub mod patches;
#[cfg(feature = "cli")]
pub mod pattern;
pub mod pixels;
#[cfg(feature = "cli")]
pub mod recordings;
mod records;
mod sample;
pub mod several;
pub mod split;
mod storage;
mod subset;
#[cfg(feature = "cli")]
mod waveforms;
mod zstd;

#[cfg(test)]
mod find_tests;
#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod stream_tests;

use std::path::Path;

pub use crate::sample_type::SampleType;
pub use catalogue::{Catalogue, Handles, Storage};
pub use encoding::Encoding;
pub use file_report::FileReport;
pub use formats::decode::{Decoded, decode, decode_file};
pub use images::{Entry, Images, Labels, MAX_BYTES};
pub use layout::Layout;
pub use listing::{Listing, Part};
pub use log_mel::LogMel;
pub use normalization::{NanName, Normalization, NormalizeName};
pub use patches::Patch;
pub use pixels::Pixels;
pub use sample::{Sample, WholeSize};
pub use subset::{AnnotatedImages, Subset};

use crate::budget::Budget;
use crate::error::{Error, Result, did_you_mean};

/// How images are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadOptions<'a> {
    /// Number of channels to convert to. `None`: gray if every image is gray, otherwise RGB.
    pub channels: Option<usize>,
    /// Whether an image that cannot be decoded is an error. Otherwise it is skipped.
    pub strict: bool,
    /// Whether samples are converted to 8 bits, and of several pages only the first one is read, as
    /// for images with annotations.
    pub eight_bits: bool,
    /// What the axes of an array stand for. `None`: inferred.
    pub layout: Option<&'a Layout>,
    /// What happens to values that are not finite.
    pub nan: NanName,
    /// The normalization of the model that the images are for.
    pub normalization: Option<&'a Normalization>,
    /// How recordings become images. `None`: they are signals.
    pub spectrogram: Option<&'a LogMel>,
    /// Maximum memory for decoding one image, in bytes. `None`: 512 MiB for the decoded image.
    pub memory: Option<u64>,
}

impl LoadOptions<'_> {
    /// Options within a memory budget. Everything else is the default.
    pub fn new(strict: bool, budget: &Budget) -> Self {
        Self { strict, memory: budget.all, ..Self::default() }
    }
}

/// Images in memory.
#[derive(Clone, Debug)]
pub struct LoadedImages {
    /// The images, at least one.
    pub images: Images,
    /// Files that are not read, or not as a whole.
    pub report: FileReport,
    /// One line: the source, the number and size of the images, the number of classes.
    pub description: String,
}

/// Images in memory, or in their files if they do not fit.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The images, at least one.
    pub pixels: Pixels,
    /// Files that are not read, or not as a whole.
    pub report: FileReport,
    /// One line: the source, the number and size of the images, the number of classes.
    pub description: String,
}

impl Opened {
    /// Images without skipped files. `note` ends the description.
    fn new(source: &str, pixels: Pixels, note: &str) -> Self {
        let summary = match &pixels {
            Pixels::Resident(images) => images.describe(),
            Pixels::Streamed(catalogue) => catalogue.describe(),
        };
        Self {
            pixels,
            report: FileReport::default(),
            description: format!("{source}: {summary}{note}"),
        }
    }

    /// Sets the normalization that a model wants. The description says if the samples have another
    /// type than those of its training.
    fn normalize(&mut self, want: &LoadOptions) -> Result<()> {
        if want.nan == NanName::Error {
            self.pixels.refuse_nan()?;
        } else if let Some(share) = self.pixels.share_missing().filter(|share| *share > 0.0) {
            self.description = format!(
                "{}; {:.3} % of the values are not finite (data.nan: {})",
                self.description,
                100.0 * share,
                want.nan.name()
            );
        }
        self.pixels.set_nan(want.nan);
        let Some(normalization) = want.normalization else { return Ok(()) };
        let sample = self.pixels.encoding().sample.name();
        if normalization.samples != sample {
            self.description = format!(
                "{}; the model was trained on {} samples: values are compared as they are",
                self.description, normalization.samples
            );
        }
        self.pixels.normalize(normalization)
    }
}

/// Loads images into memory. `source` is the name of a bundled set, a folder of images or of CIFAR
/// batches, an image file, an IDX file (also gzipped), a CIFAR, npy or csv file, a list of image
/// files (`@FILE`, or `-` for standard input), a film on standard input (`-`), or a pattern of
/// image files (`scans/*.png`). A bundled set takes precedence over a folder of the same name;
/// `./photos` is the folder. A file takes precedence over a pattern.
///
/// # Errors
/// If the source does not exist, cannot be read, contains no valid image, or exceeds [`MAX_BYTES`].
pub fn load(source: &str, want: &LoadOptions) -> Result<LoadedImages> {
    let Opened { pixels, report, description } = open(source, want, MAX_BYTES as u64)?;
    match pixels {
        Pixels::Resident(images) => Ok(LoadedImages { images, report, description }),
        Pixels::Streamed(_) => Err(images::too_large().at(source)),
    }
}

/// Like [`load`], but images that take more than `limit` bytes when decoded are streamed from their
/// files. Every image file is still decoded once, so that the same files are skipped and the
/// channels are the same as in memory.
///
/// # Errors
/// Those of [`load`], except for the size.
pub fn open(source: &str, want: &LoadOptions, limit: u64) -> Result<Opened> {
    let mut opened = open_any(source, want, limit)?;
    opened.normalize(want).map_err(|e| e.at(source))?;
    Ok(opened)
}

fn open_any(source: &str, want: &LoadOptions, limit: u64) -> Result<Opened> {
    let limit = limit.min(MAX_BYTES as u64);
    #[cfg(feature = "cli")]
    if let Some(settings) = want.spectrogram {
        return recordings::open(source, settings, want, limit);
    }
    if let Some(mut images) = bundled::load(source) {
        if let Some(channels) = want.channels {
            images.convert_channels(channels).map_err(|e| e.at(format!("bundled set {source}")))?;
        }
        return Ok(Opened::new(&format!("bundled set {source}"), Pixels::Resident(images), ""));
    }
    if source == "-" {
        return list::standard_input(want, limit);
    }
    if let Some(file) = source.strip_prefix('@') {
        return list::file(Path::new(file), want, limit);
    }
    let path = Path::new(source);
    let metadata = std::fs::metadata(path);
    if metadata.is_err()
        && let (file, Some(inside)) = numbers::split(source)
    {
        return formats::open_inside(Path::new(file), inside, want, limit);
    }
    #[cfg(feature = "cli")]
    if metadata.is_err() && pattern::is_pattern(source) {
        return folder::load_matches(source, pattern::expand(source)?, want, limit);
    }
    let metadata = metadata.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Error::usage(format!(
            "{source}: this path does not exist, and no bundled set has this name (there are {}){}",
            bundled::names().join(", "),
            did_you_mean(source, bundled::names().iter().copied())
        )),
        _ => Error::io(path, &error),
    })?;
    if metadata.is_dir() {
        return formats::open_folder(path, want, limit)
            .unwrap_or_else(|| folder::load(path, want, limit));
    }
    if !metadata.is_file() {
        return Err(Error::usage(format!("{source}: neither a folder nor a regular file")));
    }
    formats::open(path, want, limit)
}

/// Like [`open`], for the image files below the folder `root` whose relative paths satisfy `keep`.
/// Returns `None` if there is no such file.
///
/// # Errors
/// Those of [`open`].
pub fn open_filtered(
    root: &Path,
    keep: impl Fn(&Path) -> bool,
    want: &LoadOptions,
    limit: u64,
) -> Result<Option<Opened>> {
    let mut opened = folder::load_filtered(root, keep, want, limit.min(MAX_BYTES as u64))?;
    if let Some(opened) = &mut opened {
        opened.normalize(want)?;
    }
    Ok(opened)
}
