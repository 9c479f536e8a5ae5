//! Recognises images in the place of a model: MODEL and DATA swapped, or an image given as MODEL.

use std::path::Path;

use crate::data::formats::content::Content;
use crate::data::formats::idx::named_idx;
use crate::data::{bundled, find, pattern};
use crate::error::Error;

/// What a path is, if it is recognisably not a model.
fn description(path: &Path) -> Option<&'static str> {
    let text = path.to_string_lossy();
    if path.is_dir() {
        return find::files(path).is_ok().then_some("a folder of images");
    }
    if !path.exists() {
        let is_set = bundled::names().contains(&text.as_ref());
        let is_list = text == "-" || text.starts_with('@');
        return match (is_set, is_list, pattern::is_pattern(&text)) {
            (true, ..) => Some("a bundled set of images"),
            (_, true, _) => Some("a list of images"),
            (.., true) => Some("a pattern of image files"),
            _ => None,
        };
    }
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    match find::content_of(path).ok()? {
        Content::Image(_) | Content::Unsupported(_) => Some("an image"),
        Content::Other if named_idx(path) => Some("a file of images"),
        Content::Other if ["npy", "csv"].iter().any(|data| ending == *data) => {
            Some("a file of images")
        }
        Content::Other => None,
    }
}

/// The error of a model that could not be read. If the path is that of images, it says so.
pub fn explain(path: &Path, error: Error) -> Error {
    match description(path) {
        Some(what) => Error::usage(format!(
            "{} is {what}, not a model{}; name a model file, a run folder or a bundled model \
             (where a command takes both, the model comes first, then the images)",
            path.display(),
            if path.is_file() { " file" } else { "" }
        )),
        None => error,
    }
}
