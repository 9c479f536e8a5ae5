//! Where images come from: folders, single files, IDX files and the bundled sets.

pub mod bundled;
pub mod folder;
pub mod idx;
pub mod images;
pub mod patches;

#[cfg(test)]
mod load_tests;
#[cfg(test)]
pub(crate) mod testing;

use std::io::Read;
use std::path::Path;

pub use folder::{Decoded, decode, decode_file};
pub use images::{Entry, Images, Labels, MAX_BYTES};
pub use patches::Patch;

use crate::error::{Error, Result};

/// What the caller needs of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Channels to convert to; none: gray if every image is gray, else RGB.
    pub channels: Option<usize>,
    /// An image that does not decode is an error, not skipped.
    pub strict: bool,
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

/// Reads images from the name of a bundled set, a folder, an image file or an IDX file (also gzipped). A bundled set goes before a folder of the same
/// name: `./photos` is the folder.
///
/// # Errors
/// One line that names the source, what is wrong with it and what to do.
pub fn load(source: &str, want: &Wanted) -> Result<Loaded> {
    if let Some(mut images) = bundled::load(source) {
        if let Some(channels) = want.channels {
            images.convert_channels(channels).map_err(|e| e.at(format!("bundled set {source}")))?;
        }
        return Ok(whole(&format!("bundled set {source}"), images));
    }
    let path = Path::new(source);
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Error::usage(format!(
            "{source}: this path does not exist, nor is it a bundled set (those are {})",
            bundled::names().join(", ")
        )),
        _ => Error::io(path, &error),
    })?;
    if metadata.is_dir() {
        return folder::load(path, want);
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
    let images = if idx::looks_like(&start, path) {
        let mut images = idx::load(path)?;
        if let Some(channels) = want.channels {
            images.convert_channels(channels).map_err(|e| e.at(source))?;
        }
        images
    } else {
        folder::load_file(path, want)?
    };
    Ok(whole(source, images))
}

fn whole(source: &str, images: Images) -> Loaded {
    let description = format!("{source}: {}", images.describe());
    Loaded { images, skipped: Vec::new(), description }
}
