//! Where images come from: folders, lists, single files, IDX, CIFAR and npy files, and the bundled
//! sets.

pub mod annotations;
pub mod array;
pub mod augment;
pub mod bundled;
pub mod catalogue;
pub mod folder;
pub mod formats;
pub mod image_file;
pub mod images;
mod list;
pub mod patches;
pub mod pixels;
mod records;
mod sample;
pub mod split;

#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod stream_tests;

use std::io::Read;
use std::path::Path;

pub use catalogue::{Catalogue, Handles, Places};
pub use formats::decode::{Decoded, decode, decode_file};
pub use images::{Entry, Images, Labels, MAX_BYTES};
pub use patches::Patch;
pub use pixels::Pixels;
pub use sample::Sample;

use formats::{cifar, idx, npy};

use crate::error::{Error, Result, did_you_mean};

/// What the caller needs of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Channels to convert to; none: gray if every image is gray, else RGB.
    pub channels: Option<usize>,
    /// An image that does not decode is an error, not skipped.
    pub strict: bool,
    /// Bytes that decoding one image may take; none: as many as any image may.
    pub memory: Option<u64>,
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The images, at least one.
    pub images: Images,
    /// Files passed over: path and reason.
    pub skipped: Vec<(String, String)>,
    /// One line: the source, how many images of which size, classes.
    pub description: String,
}

/// What was found: in memory where it fits, else in its files.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The images, at least one.
    pub pixels: Pixels,
    /// Files passed over: path and reason.
    pub skipped: Vec<(String, String)>,
    /// One line: the source, how many images of which size, classes.
    pub description: String,
}

impl Opened {
    fn new(source: &str, pixels: Pixels, note: &str) -> Self {
        let what = match &pixels {
            Pixels::Resident(images) => images.describe(),
            Pixels::Streamed(catalogue) => catalogue.describe(),
        };
        Self { pixels, skipped: Vec::new(), description: format!("{source}: {what}{note}") }
    }
}

/// Reads images into memory from the name of a bundled set, a folder (of images, or of CIFAR's
/// batches), an image file, an IDX file (also gzipped), a CIFAR or npy file, a list of image files
/// (`@FILE`, or `-` for standard input). A bundled set goes before a folder of the same name:
/// `./photos` is the folder.
///
/// # Errors
/// One line that names the source, what is wrong with it and what to do.
pub fn load(source: &str, want: &Wanted) -> Result<Loaded> {
    let Opened { pixels, skipped, description } = open(source, want, MAX_BYTES as u64)?;
    match pixels {
        Pixels::Resident(images) => Ok(Loaded { images, skipped, description }),
        Pixels::Streamed(_) => Err(images::too_large().at(source)),
    }
}

/// As [`load`], but what takes more than `limit` bytes when decoded stays in its files. Every image
/// file is decoded once all the same, so that the same ones are skipped and the channels are the
/// same as in memory.
///
/// # Errors
/// As [`load`].
pub fn open(source: &str, want: &Wanted, limit: u64) -> Result<Opened> {
    let limit = limit.min(MAX_BYTES as u64);
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
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Error::usage(format!(
            "{source}: this path does not exist, nor is it a bundled set (those are {}){}",
            bundled::names().join(", "),
            did_you_mean(source, bundled::names().iter().copied())
        )),
        _ => Error::io(path, &error),
    })?;
    if metadata.is_dir() {
        let batches = cifar::training_files(path);
        return if batches.is_empty() {
            folder::load(path, want, limit)
        } else {
            records::cifar(path, &batches, want, limit)
        };
    }
    if !metadata.is_file() {
        return Err(Error::usage(format!("{source}: neither a folder nor a regular file")));
    }
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, &e))?;
    file.take(4).read_to_end(&mut start).map_err(|e| Error::io(path, &e))?;
    if start.is_empty() {
        return Err(Error::usage(format!("{source}: the file is empty")));
    }
    if npy::looks_like(&start, path) {
        return records::npy(path, want, limit);
    }
    if cifar::named_cifar(path) {
        return records::cifar(path, &[path.to_owned()], want, limit);
    }
    if !idx::looks_like(&start, path) {
        return folder::load_file(path, want, limit);
    }
    if let Some((array, labels)) = idx::to_stream(path, limit)? {
        return records::open(source, vec![(path.to_owned(), array)], labels, want, limit, "");
    }
    let mut images = idx::load(path)?;
    if let Some(channels) = want.channels {
        images.convert_channels(channels).map_err(|e| e.at(source))?;
    }
    Ok(Opened::new(source, Pixels::Resident(images), ""))
}

/// As [`open`], of a folder's image files those whose paths in it are to be kept; none where no
/// file is.
///
/// # Errors
/// As [`open`].
pub fn open_some(
    root: &Path,
    keep: impl Fn(&Path) -> bool,
    want: &Wanted,
    limit: u64,
) -> Result<Option<Opened>> {
    folder::load_some(root, keep, want, limit.min(MAX_BYTES as u64))
}

/// What to say about skipped files: a line that counts them, and a line each for the first `most`.
pub fn tell_skipped(skipped: &[(String, String)], most: usize) -> Vec<String> {
    if skipped.is_empty() {
        return Vec::new();
    }
    let shown = skipped.len().min(most);
    let files = if skipped.len() == 1 { "file" } else { "files" };
    let named = match shown {
        0 => String::new(),
        _ if shown < skipped.len() => format!("; the first {shown} (-v names all):"),
        _ => ":".to_owned(),
    };
    let first = format!(
        "skipped {} {files} that cannot be used (--strict makes it an error){named}",
        skipped.len()
    );
    std::iter::once(first)
        .chain(skipped[..shown].iter().map(|(file, reason)| format!("  {file}: {reason}")))
        .collect()
}
