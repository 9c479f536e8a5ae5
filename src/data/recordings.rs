//! Recordings (WAV files) as log-mel spectrograms: one file, the files below a folder, a pattern or
//! a list.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::folder::labels;
use super::images::Images;
use super::log_mel::{Analysis, LogMel};
use super::numbers::{self, NumberFile};
use super::storage::numbered;
use super::waveforms::without_path;
use super::{FileReport, LoadOptions, Opened, Pixels, find, list, pattern};
use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::sample_type::SampleType;
use crate::shape::Size;

/// Extensions of recordings.
const EXTENSIONS: [&str; 2] = ["wav", "wave"];

/// The recordings of a source.
struct Recordings {
    /// The folder that the paths are relative to.
    root: PathBuf,
    /// The paths, in order.
    files: Vec<PathBuf>,
    /// Whether sub-folders are classes.
    labelled: bool,
}

/// Whether the name of a file is that of a recording.
pub(super) fn is_recording(path: &Path) -> bool {
    let own = path.extension().unwrap_or_default();
    EXTENSIONS.iter().any(|extension| own.eq_ignore_ascii_case(extension))
}

impl Recordings {
    /// # Errors
    /// If the source does not exist, or has no recording.
    fn of(source: &str) -> Result<Self> {
        let path = Path::new(source);
        let whole = |root: PathBuf, files| Self { root, files, labelled: false };
        let found = if let Some(file) = source.strip_prefix('@') {
            let file = Path::new(file);
            let root = file.parent().unwrap_or(Path::new("")).to_owned();
            whole(root, list::paths(file)?)
        } else if path.is_dir() {
            let files = find::below(path, is_recording)?;
            Self { root: path.to_owned(), files, labelled: true }
        } else if path.is_file() {
            let name = PathBuf::from(path.file_name().unwrap_or_default());
            whole(path.parent().unwrap_or(Path::new("")).to_owned(), vec![name])
        } else if pattern::is_pattern(source) {
            let found = pattern::expand(source)?;
            Self { root: found.root, files: found.files, labelled: true }
        } else {
            return Err(Error::usage(format!(
                "{source}: no such file or folder; data.spectrogram needs WAV files"
            )));
        };
        if found.files.is_empty() {
            return Err(Error::usage(format!(
                "{source}: no WAV file in this folder or below; data.spectrogram needs WAV files"
            )));
        }
        Ok(found)
    }

    /// Opens a recording. Returns its sample rate and number of samples, too.
    fn open(&self, index: usize, limit: u64) -> Result<(NumberFile, u32, usize)> {
        let path = self.root.join(&self.files[index]);
        let other = || {
            Error::usage(format!(
                "{}: is not a WAV file; data.spectrogram needs WAV files",
                path.display()
            ))
        };
        let file = numbers::open(&path, None, limit);
        let file = file.map_err(|error| if is_recording(&path) { error } else { other() })?;
        let (Some(rate), &[_, len]) = (file.sample_rate(), file.shape()) else {
            return Err(other());
        };
        Ok((file, rate, len))
    }
}

/// Completes settings for training on a source: the sample rate, the range of frequencies, and the
/// length of pieces, which is that of all recordings if they have the same, otherwise `crop`
/// frames. Zeros mark what is not given.
///
/// # Errors
/// If a recording cannot be read, or a setting does not fit.
pub fn complete(given: &LogMel, source: &str, crop: usize, limit: u64) -> Result<LogMel> {
    let recordings = Recordings::of(source)?;
    let mut settings = given.clone();
    let (mut frames, mut differ, mut failed) = (None, false, None);
    for index in 0..recordings.files.len() {
        let (rate, len) = match recordings.open(index, limit) {
            Ok((_, rate, len)) => (rate, len),
            // It is reported when it is opened for its samples.
            Err(error) => {
                failed.get_or_insert(error);
                continue;
            }
        };
        if settings.rate == 0 {
            settings.rate = rate;
        }
        let own = settings.frames_of(len);
        differ |= *frames.get_or_insert(own) != own;
    }
    if let (None, Some(error)) = (frames, failed) {
        return Err(error);
    }
    if settings.range[1] == 0.0 {
        settings.range[1] = settings.rate as f32 / 2.0;
    }
    if settings.frames == 0 && differ {
        settings.frames = crop;
    }
    settings.check()?;
    Ok(settings)
}

/// Samples of a recording in −1…1, the mean of its channels.
fn mono(file: &mut NumberFile, len: usize) -> Result<Vec<f32>> {
    let (element, channels, scale) = (file.element(), file.shape()[0], file.full_scale());
    let mut all = vec![0.0_f32; len];
    // The channels follow each other.
    for channel in 0..channels {
        /// Number of samples that are read at a time.
        const PART: usize = 1 << 16;
        for first in (0..len).step_by(PART) {
            let count = PART.min(len - first);
            let mut bytes = Vec::new();
            file.read((channel * len + first) as u64, count, &mut bytes)?;
            let values = bytes.chunks_exact(element.size()).map(|bytes| element.value(bytes));
            for (sum, value) in all[first..].iter_mut().zip(values) {
                *sum += (value / scale / channels as f64) as f32;
            }
        }
    }
    Ok(all)
}

/// The spectrograms of the recordings of a source, or of their pieces.
///
/// # Errors
/// If no recording can be read; if one cannot and `want.strict` is set; if a recording has another
/// sample rate, or the spectrograms take more than `limit` bytes.
pub fn open(source: &str, settings: &LogMel, want: &LoadOptions, limit: u64) -> Result<Opened> {
    if let Some(layout) = want.layout {
        return Err(Error::usage(format!(
            "{source}: the layout {layout} is for arrays; leave it out for log-mel spectrograms"
        )));
    }
    let recordings = Recordings::of(source)?;
    let memory = want.memory.unwrap_or(limit).max(limit);
    let analysis = Analysis::new(settings);
    let read = |index: &usize| -> Result<(Vec<f32>, usize)> {
        let (mut file, rate, len) = recordings.open(*index, memory)?;
        let place = |e: Error| e.at(recordings.root.join(&recordings.files[*index]).display());
        if rate != settings.rate {
            return Err(place(Error::usage(format!(
                "has {rate} samples per second, but the others and the model have {}; resample it",
                settings.rate
            ))));
        }
        let needed = (4 * len + 4 * settings.mels * settings.frames_of(len)) as u64;
        if needed > memory {
            return Err(place(numbers::too_large(needed, memory, "cut the recording")));
        }
        let channels = file.shape()[0];
        let samples = mono(&mut file, len).map_err(place)?;
        if let Some(at) = samples.iter().position(|sample| !sample.is_finite()) {
            return Err(place(Error::usage(format!("sample {at} is not finite; replace it"))));
        }
        Ok((analysis.spectrogram(&samples), channels))
    };
    let mut set = Pieces::new(settings);
    let mut report = FileReport::default();
    let all: Vec<usize> = (0..recordings.files.len()).collect();
    for part in all.chunks(rayon::current_num_threads()) {
        let done: Vec<Result<(Vec<f32>, usize)>> = part.par_iter().map(read).collect();
        for (index, done) in part.iter().zip(done) {
            match done {
                Ok((spectrogram, channels)) => {
                    set.is_mixed |= channels > 1;
                    set.add(*index, &recordings.files[*index], &spectrogram)?;
                }
                Err(error) if want.strict || all.len() == 1 => return Err(error),
                Err(error) => {
                    let name = recordings.root.join(&recordings.files[*index]);
                    let name = name.display().to_string();
                    report.skip(&name, without_path(&name, &error));
                }
            }
        }
        if set.images.bytes.len() as u64 > limit {
            return Err(Error::usage(format!(
                "{source}: the spectrograms of the first {} of {} recordings take more than the \
                 memory for data; {}, or use fewer recordings",
                set.recordings,
                all.len(),
                Advice::RaiseMemoryLimit
            )));
        }
    }
    if let (0, Some((name, reason))) = (set.recordings, report.skipped.first()) {
        return Err(Error::usage(format!("{source}: no WAV file can be used; {name}: {reason}")));
    }
    if set.images.is_empty() {
        return Err(Error::usage(format!(
            "{source}: every recording is shorter than a piece of {} frames; set \
             data.spectrogram_frames",
            settings.frames
        )));
    }
    let notes = set.notes(analysis.empty_bands());
    let Pieces { mut images, of, .. } = set;
    if let Some(channels) = want.channels.filter(|channels| *channels != 1) {
        return Err(Error::usage(format!(
            "{source}: spectrograms have 1 channel, and the model has {channels}"
        )));
    }
    if recordings.labelled {
        images.labels = labels(&recordings.files, &of);
    }
    Ok(Opened { report, ..Opened::new(source, Pixels::Resident(images), &notes) })
}

/// Spectrograms, or pieces of them.
struct Pieces<'a> {
    settings: &'a LogMel,
    images: Images,
    /// The recording of each image.
    of: Vec<usize>,
    /// Number of recordings.
    recordings: usize,
    /// Number of recordings that are shorter than a piece.
    short: usize,
    /// Number of frames, and of those at the ends that are left out.
    frames: usize,
    rest: usize,
    /// Whether a recording has several channels.
    is_mixed: bool,
}

impl<'a> Pieces<'a> {
    fn new(settings: &'a LogMel) -> Self {
        Self {
            settings,
            images: Images::of_type(1, SampleType::F32),
            of: Vec::new(),
            recordings: 0,
            short: 0,
            frames: 0,
            rest: 0,
            is_mixed: false,
        }
    }

    fn add(&mut self, index: usize, file: &Path, spectrogram: &[f32]) -> Result<()> {
        let mels = self.settings.mels;
        let frames = spectrogram.len() / mels;
        let (length, count) = match self.settings.frames {
            0 => (frames, 1),
            length => (length, frames / length),
        };
        self.recordings += 1;
        self.frames += frames;
        self.rest += frames - count * length;
        self.short += usize::from(count == 0);
        for piece in 0..count {
            let rows = spectrogram.chunks_exact(frames);
            let values = rows.flat_map(|row| &row[piece * length..(piece + 1) * length]);
            let bytes: Vec<u8> = values.flat_map(|value| value.to_le_bytes()).collect();
            let name = match self.settings.frames {
                0 => super::folder::slashed(file),
                _ => numbered(file, "piece", piece + 1, count),
            };
            self.images.push(name, Size { h: mels, w: length }, &bytes)?;
            self.of.push(index);
        }
        Ok(())
    }

    /// What a user must know.
    fn notes(&self, empty_bands: usize) -> String {
        let LogMel { rate, window, hop, mels, range: [low, high], frames } = self.settings;
        let mut notes = format!(
            "; log-mel spectrograms in dB: {mels} bands from {low} to {high} Hz, windows of \
             {window} samples every {hop}, {rate} samples per second"
        );
        if self.is_mixed {
            notes += "; the mean of the channels";
        }
        if empty_bands > 0 {
            notes += &format!(
                "; {empty_bands} bands are narrower than the resolution of a window and always \
                 silent: use fewer bands or longer windows"
            );
        }
        if *frames > 0 {
            let count = self.recordings;
            let recordings = if count == 1 { "recording" } else { "recordings" };
            notes += &format!("; {count} {recordings} cut into pieces of {frames} frames");
            if self.rest > 0 {
                let share = 100.0 * self.rest as f64 / self.frames as f64;
                notes += &format!(", their ends left out ({share:.1} % of all frames)");
            }
            if self.short > 0 {
                notes += &format!(", {} of them as a whole: shorter than a piece", self.short);
            }
        }
        notes
    }
}
