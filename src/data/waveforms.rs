//! Recordings (WAV files) below a folder as signals: each file is one sample.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::folder::{labels, slashed};
use super::images::Images;
use super::number_set::{sample_type, stored};
use super::numbers::{self, Element};
use super::recordings::is_recording;
use super::{FileReport, LoadOptions, Opened, Pixels, find};
use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::shape::Size;

/// What all recordings of a set have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Kind {
    element: Element,
    channels: usize,
    /// Samples per second.
    rate: u32,
}

/// A recording that was read.
struct Recording {
    kind: Kind,
    /// Number of samples of a channel.
    len: usize,
    /// The values (L,C) in the type in which they are kept.
    values: Vec<u8>,
}

impl Kind {
    /// Why a recording of another kind cannot be in one set with recordings of this kind.
    fn differs_from(self, other: Self) -> Option<String> {
        let differs = |own: String, others: String| {
            Some(format!(
                "has {own}, but the recordings before it have {others}; convert all to one format"
            ))
        };
        let channels = |n: usize| format!("{n} channel{}", if n == 1 { "" } else { "s" });
        if other.channels != self.channels {
            return differs(channels(other.channels), channels(self.channels));
        }
        if other.rate != self.rate {
            return differs(format!("{} samples per second", other.rate), format!("{}", self.rate));
        }
        if other.element != self.element {
            return differs(
                format!("{} samples", other.element.name()),
                self.element.name().into(),
            );
        }
        None
    }
}

fn read(path: &Path, memory: u64) -> Result<Recording> {
    let mut file = numbers::open(path, None, memory)?;
    let (Some(rate), &[channels, len]) = (file.sample_rate(), file.shape()) else {
        return Err(Error::usage("is not a WAV file"));
    };
    let element = file.element();
    let size = element.size();
    let needed = (2 * channels * len * size) as u64;
    if needed > memory {
        return Err(numbers::too_large(needed, memory, "cut the recording"));
    }
    let mut by_channel = Vec::new();
    file.read(0, channels * len, &mut by_channel)?;
    let mut values = Vec::with_capacity(by_channel.len());
    for at in 0..len {
        for channel in 0..channels {
            values.extend_from_slice(&by_channel[(channel * len + at) * size..][..size]);
        }
    }
    let kind = Kind { element, channels, rate };
    Ok(Recording { kind, len, values: stored(element, values) })
}

/// Opens the recordings below a folder; sub-folders are classes. Returns `None` if there is no WAV
/// file.
pub fn open(root: &Path, want: &LoadOptions, limit: u64) -> Option<Result<Opened>> {
    match find::below(root, is_recording) {
        Ok(files) if files.is_empty() => None,
        Ok(files) => Some(load(root, &files, want, limit)),
        Err(error) => Some(Err(error)),
    }
}

fn load(root: &Path, files: &[PathBuf], want: &LoadOptions, limit: u64) -> Result<Opened> {
    let source = root.display().to_string();
    if let Some(layout) = want.layout {
        return Err(Error::usage(format!(
            "{source}: the layout {layout} is for arrays; leave it out for WAV files"
        )));
    }
    let memory = want.memory.unwrap_or(limit).max(limit);
    let mut set: Option<(Kind, Images)> = None;
    let (mut of, mut report) = (Vec::new(), FileReport::default());
    let all: Vec<usize> = (0..files.len()).collect();
    for part in all.chunks(rayon::current_num_threads()) {
        let read = |index: &usize| read(&root.join(&files[*index]), memory);
        let done: Vec<Result<Recording>> = part.par_iter().map(read).collect();
        for (index, done) in part.iter().zip(done) {
            let name = root.join(&files[*index]).display().to_string();
            let recording = done.and_then(|recording| {
                let other = set.as_ref().and_then(|(kind, _)| kind.differs_from(recording.kind));
                other.map_or(Ok(recording), |reason| Err(Error::usage(reason)))
            });
            match recording {
                Ok(Recording { kind, len, values }) => {
                    let (_, images) = set.get_or_insert_with(|| {
                        (kind, Images::of_type(kind.channels, sample_type(kind.element)))
                    });
                    images.push(slashed(&files[*index]), Size { h: 1, w: len }, &values)?;
                    of.push(*index);
                }
                Err(error) if want.strict => return Err(error.at(name)),
                Err(error) => report.skip(&name, without_path(&name, &error)),
            }
        }
        let held = set.as_ref().map_or(0, |(_, images)| images.bytes.len() as u64);
        if held > limit {
            return Err(Error::usage(format!(
                "{source}: the first {} of {} recordings take more than the memory for data; {}, \
                 or use fewer recordings",
                of.len(),
                files.len(),
                Advice::RaiseMemoryLimit
            )));
        }
    }
    let Some((kind, mut images)) = set else {
        let first = report.skipped.first();
        let (name, reason) = first.expect("a file is read or skipped");
        return Err(Error::usage(format!("{source}: no WAV file can be used; {name}: {reason}")));
    };
    if let Some(channels) = want.channels.filter(|channels| *channels != kind.channels) {
        return Err(Error::usage(format!(
            "{source}: the recordings have {} channels, and the model has {channels}",
            kind.channels
        )));
    }
    images.labels = labels(files, &of);
    let sample = sample_type(kind.element);
    let mut notes = format!(
        "; WAV files as signals, {} samples per second (data.spectrogram = \"log-mel\" makes \
         spectrograms of them)",
        kind.rate
    );
    if sample.size() != kind.element.size() || kind.element.name() != sample.name() {
        notes += &format!("; {} numbers are stored as {}", kind.element.name(), sample.name());
    }
    Ok(Opened { report, ..Opened::new(&source, Pixels::Resident(images), &notes) })
}

/// The text of an error without the path in front.
pub(super) fn without_path(path: &str, error: &Error) -> String {
    let error = error.to_string();
    error.strip_prefix(&format!("{path}: ")).unwrap_or(&error).to_owned()
}
