//! A report on the files of a source: those that cannot be used, those that are read in part, and
//! those that are not images.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::formats::content::Kind;
use crate::error::{Error, Result};

/// Files of a source that are not read, or not as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileReport {
    /// Files and folders that cannot be used: path and reason.
    pub skipped: Vec<(String, String)>,
    /// Image files of kinds that are not supported: path and kind.
    pub unsupported: Vec<(String, &'static Kind)>,
    /// Files with several frames or pages: path and number. Only the first one is read.
    pub several: Vec<(String, usize)>,
    /// Number of images with 16 bits or floats that are read with 8 bits.
    pub reduced: usize,
    /// The number of files that are not images, by their extension.
    pub others: BTreeMap<String, usize>,
    /// Run folders, whose pictures are results and not images.
    pub runs: Vec<String>,
    /// Why sub-folders that look like those of classes are no labels: which images are outside.
    pub outside: Option<String>,
}

impl FileReport {
    /// Adds a file or folder that cannot be used.
    pub fn skip(&mut self, path: impl ToString, reason: impl ToString) {
        self.skipped.push((path.to_string(), reason.to_string()));
    }

    /// Adds the files of another source.
    pub fn extend(&mut self, other: Self) {
        self.skipped.extend(other.skipped);
        self.unsupported.extend(other.unsupported);
        self.several.extend(other.several);
        self.runs.extend(other.runs);
        self.reduced += other.reduced;
        self.outside = self.outside.take().or(other.outside);
        for (extension, count) in other.others {
            *self.others.entry(extension).or_default() += count;
        }
    }

    /// Number of files and folders that cannot be used, and of images of unsupported kinds.
    pub fn left_out(&self) -> usize {
        self.skipped.len() + self.unsupported.len()
    }

    /// Fails if a file or folder cannot be used.
    ///
    /// # Errors
    /// The first one.
    pub fn refuse_skipped(&self) -> Result<()> {
        let skipped = self.skipped.first().map(|(path, reason)| (path, reason.clone()));
        let first =
            skipped.or_else(|| self.unsupported.first().map(|(path, kind)| (path, refusal(kind))));
        first.map_or(Ok(()), |(path, reason)| Err(Error::usage(format!("{path}: {reason}"))))
    }

    /// The kinds that are not supported, with the number of their files: `2 HEIC, 1 SVG`.
    pub fn unsupported_kinds(&self) -> String {
        let mut kinds: Vec<(&str, usize)> = Vec::new();
        for (_, kind) in &self.unsupported {
            match kinds.iter_mut().find(|(name, _)| *name == kind.name) {
                Some((_, count)) => *count += 1,
                None => kinds.push((kind.name, 1)),
            }
        }
        let each: Vec<String> =
            kinds.into_iter().map(|(name, count)| format!("{count} {name}")).collect();
        each.join(", ")
    }

    /// The files that are not images, by extension: `2 .txt, 1 without extension`.
    pub fn other_kinds(&self) -> String {
        let name = |extension: &str| {
            if extension.is_empty() {
                "without extension".to_owned()
            } else {
                format!(".{extension}")
            }
        };
        let each = self.others.iter().map(|(extension, n)| format!("{n} {}", name(extension)));
        each.collect::<Vec<_>>().join(", ")
    }

    /// Describes the other contents of a folder without images.
    pub(super) fn describe_folder_without_images(&self) -> String {
        let mut text = String::new();
        if !self.unsupported.is_empty() {
            let _ = write!(
                text,
                "; it has images of kinds that are not supported: {}: convert them to PNG or JPEG",
                self.unsupported_kinds()
            );
        }
        if let Some((path, reason)) = self.skipped.first() {
            let _ = write!(text, "; {path}: {reason}");
        }
        if let [first, more @ ..] = &self.runs[..] {
            let more = if more.is_empty() { "" } else { " and other run folders" };
            let _ = write!(text, "; the pictures in {first}{more} are results of a run");
        }
        if !self.others.is_empty() {
            let _ = write!(text, "; it has other files: {}", self.other_kinds());
        }

        text
    }
}

/// The reason why an image of this kind cannot be used.
pub fn refusal(kind: &Kind) -> String {
    format!("{} images are not supported; {}", kind.name, kind.advice)
}
