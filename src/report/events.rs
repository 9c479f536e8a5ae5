//! Event files for TensorBoard: scalars and pictures of a run.
//!
//! A file is a sequence of records: length (u64), masked CRC-32C of the length, data, masked
//! CRC-32C of the data. The data are an `Event` message of TensorBoard's protocol buffers.
//! <https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto>

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::error::{Error, Result};
use crate::files;
use crate::protobuf::Message;
use crate::report::history::{Entry, Kind};
use crate::report::runs::{Entries, LOG, LogReader};

/// The folder of event files in a run folder.
pub const FOLDER: &str = "tensorboard";
/// The beginning of the name of an event file, by which TensorBoard finds it.
pub const PREFIX: &str = "events.out.tfevents.";

/// Writes the log of a run as an event file while it grows.
#[derive(Debug)]
pub struct Events {
    run: PathBuf,
    reader: LogReader,
    sink: Sink,
}

/// The open event file.
#[derive(Debug)]
struct Sink {
    file: BufWriter<File>,
    /// The time of the events, in seconds since 1970.
    time: f64,
    path: PathBuf,
    /// The first failure of a write, which is reported later.
    failed: Option<std::io::Error>,
}

/// Finds the last step of a log.
#[derive(Debug, Default)]
struct LastStep(Option<u64>);

impl Entries for LastStep {
    fn restart(&mut self) {
        self.0 = None;
    }

    fn entry(&mut self, _kind: Kind, entry: &Entry) {
        self.0 = Some(entry.step);
    }
}

impl Events {
    /// Whether a run has event files, so that a resume writes them, too.
    pub fn exist(run: &Path) -> bool {
        names(&run.join(FOLDER)).next().is_some()
    }

    /// Removes the event files of a run.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn remove(run: &Path) -> Result<()> {
        let folder = run.join(FOLDER);
        for name in names(&folder) {
            let path = folder.join(name);
            std::fs::remove_file(&path).map_err(|error| Error::io(&path, &error))?;
        }
        Ok(())
    }

    /// Begins another event file of a run. Entries of its log that an earlier file has are left
    /// out.
    ///
    /// # Errors
    /// If the file cannot be created or the log cannot be read.
    pub fn begin(run: &Path) -> Result<Self> {
        let folder = run.join(FOLDER);
        files::make_folder(&folder)?;
        let earlier = names(&folder).max();
        // Files are read in the order of their names.
        let number = |name: &String| name.strip_prefix(PREFIX)?.get(..10)?.parse::<u64>().ok();
        let next = earlier.as_ref().map_or(0, |name| number(name).unwrap_or(0) + 1);
        let path = folder.join(format!("{PREFIX}{next:010}.csae"));
        let file =
            File::create_new(&path).map_err(|error| files::not_written(path.display(), &error))?;
        let sink = Sink { file: BufWriter::new(file), time: 0.0, path, failed: None };
        let reader = LogReader::new(&run.join(LOG));
        let mut events = Self { run: run.to_owned(), reader, sink };
        events.sink.time = events.time();
        events.sink.event(0, &Message::default().text(3, "brain.Event:2"));
        if earlier.is_some() {
            let mut last = LastStep::default();
            events.reader.update(&mut last)?;
            events.sink.restart(last.0.map_or(0, |step| step + 1));
        }
        events.flush()?;
        Ok(events)
    }

    /// Writes what was added to the log.
    ///
    /// # Errors
    /// If the log cannot be read or the file cannot be written.
    pub fn update(&mut self) -> Result<()> {
        self.sink.time = self.time();
        if self.reader.update(&mut self.sink)? { self.flush() } else { Ok(()) }
    }

    /// Writes pictures of the run folder at a step. `names` are their file names; others than PNG
    /// files are left out.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn pictures(&mut self, step: u64, names: &[&str]) -> Result<()> {
        for name in names.iter().filter(|name| name.ends_with(".png")) {
            let Ok(png) = std::fs::read(self.run.join(name)) else { continue };
            let Some(image) = image(&png) else { continue };
            let tag = format!("pictures/{}", name.trim_end_matches(".png"));
            let value = Message::default().text(1, &tag).message(4, &image);
            self.sink.summary(step, &[value]);
        }
        self.flush()
    }

    /// When the log was last written. Events have a time of day in this format, but nothing here
    /// depends on the clock.
    fn time(&self) -> f64 {
        let modified = self.run.join(LOG).metadata().and_then(|data| data.modified()).ok();
        let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since.unwrap_or_default().as_secs_f64()
    }

    fn flush(&mut self) -> Result<()> {
        let failed = self.sink.failed.take().map_or(Ok(()), Err);
        let flushed = failed.and_then(|()| self.sink.file.flush());
        flushed.map_err(|error| files::not_written(self.sink.path.display(), &error))
    }
}

/// The event files in a folder.
fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(PREFIX))
}

impl Entries for Sink {
    /// The log was truncated: its entries follow again, and replace those before.
    fn restart(&mut self) {
        Self::restart(self, 0);
    }

    fn entry(&mut self, kind: Kind, entry: &Entry) {
        let group = match kind {
            Kind::Train => "training",
            Kind::Validation => "validation",
        };
        let values: Vec<Message> = entry
            .flat()
            .into_iter()
            .filter(|(_, value)| value.is_finite())
            .map(|(name, value)| {
                Message::default().text(1, &format!("{group}/{name}")).float(2, value as f32)
            })
            .collect();
        self.summary(entry.step, &values);
    }
}

impl Sink {
    fn summary(&mut self, step: u64, values: &[Message]) {
        let summary = values.iter().fold(Message::default(), |all, value| all.message(1, value));
        self.event(step, &Message::default().message(5, &summary));
    }

    /// Makes readers forget the values from a step on: `SessionLog` with the status START.
    fn restart(&mut self, step: u64) {
        let start = Message::default().number(1, 1);
        self.event(step, &Message::default().message(7, &start));
    }

    /// Writes an event: the time, the step and the fields of `what`.
    fn event(&mut self, step: u64, what: &Message) {
        let mut event = Message::default().double(1, self.time).number(2, step);
        event.0.extend_from_slice(&what.0);
        if let Err(error) = self.file.write_all(&record(&event.0)) {
            self.failed.get_or_insert(error);
        }
    }
}

/// The image message of a PNG file. `None` if its header is not that of a PNG file.
fn image(png: &[u8]) -> Option<Message> {
    let size = |at: usize| Some(u32::from_be_bytes(png.get(at..at + 4)?.try_into().ok()?));
    let (width, height) = (size(16)?, size(20)?);
    // Colour types of PNG: gray, RGB, palette, gray with alpha, RGB with alpha.
    let channels = match png.get(25)? {
        0 => 1,
        2 | 3 => 3,
        4 => 2,
        6 => 4,
        _ => return None,
    };
    let message = Message::default().number(1, u64::from(height)).number(2, u64::from(width));
    Some(message.number(3, channels).bytes(4, png))
}

/// A record of data.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let parts = [&length[..], &masked(&length), data, &masked(data)];
    parts.concat()
}

/// The masked checksum of bytes. The mask keeps a checksum of data that contain checksums useful.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// CRC-32C (Castagnoli), with the reversed polynomial.
fn crc32c(bytes: &[u8]) -> u32 {
    const fn table() -> [u32; 256] {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut crc, mut bit) = (i as u32, 0);
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    }
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0, |crc, byte| TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ crc >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_ne!(crc32c(b"123456780"), 0xe306_9283);
    }

    #[test]
    fn the_size_of_a_picture_is_that_of_its_header() {
        let png = crate::report::picture::png(&[0.5; 6], crate::shape::Dims::new(1, 2, 3)).unwrap();
        let begin = Message::default().number(1, 2).number(2, 3).number(3, 1);
        assert!(image(&png).unwrap().0.starts_with(&begin.0));
        assert_eq!(image(b"text"), None);
    }
}
