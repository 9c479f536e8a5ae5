//! Reads a log while a training appends to it.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::report::history::{Entry, Kind};

/// Bytes that are read at once. The memory that reading takes does not depend on the log's length.
const PART: usize = 1 << 16;
/// Maximum length of a line. A log has lines of a few hundred bytes; a longer one is skipped.
const MAX_LINE: usize = 1 << 20;
/// Number of bytes before the position that are remembered. They contain at least one whole number
/// of the last line, which differs in a log that was truncated and written again.
const TAIL: usize = 256;

/// Receives the entries of a log in order.
pub trait Entries {
    /// Forgets all entries: the log was truncated, and its entries follow again.
    fn restart(&mut self);

    /// The next entry.
    fn entry(&mut self, kind: Kind, entry: &Entry);
}

/// A position in a log. [`LogReader::update`] reads only complete lines after it.
#[derive(Clone, Debug)]
pub struct LogReader {
    path: PathBuf,
    /// Number of bytes read.
    at: u64,
    /// The last bytes before `at`.
    tail: Vec<u8>,
}

impl LogReader {
    /// Starts at the beginning of a log, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), at: 0, tail: Vec::new() }
    }

    /// Reads what was appended, and returns whether there was a change. Reads everything again if
    /// the log was truncated meanwhile, as a resume or a rollback does. A missing log is empty.
    ///
    /// # Errors
    /// If the log exists but cannot be read.
    pub fn update(&mut self, entries: &mut impl Entries) -> Result<bool> {
        let failed = |error: &std::io::Error| Error::io(&self.path, error);
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let changed = self.at > 0;
                if changed {
                    self.begin(entries);
                }
                return Ok(changed);
            }
            Err(error) => return Err(failed(&error)),
        };
        let continues = self.continues(&mut file).map_err(|error| failed(&error))?;
        if !continues {
            self.begin(entries);
        }
        let read = self.read(&mut file, entries);
        Ok(read.map_err(|error| Error::io(&self.path, &error))? || !continues)
    }

    fn begin(&mut self, entries: &mut impl Entries) {
        (self.at, self.tail) = (0, Vec::new());
        entries.restart();
    }

    /// Whether the file still has the bytes before the position.
    fn continues(&self, file: &mut File) -> std::io::Result<bool> {
        if file.metadata()?.len() < self.at {
            return Ok(false);
        }
        let mut found = vec![0; self.tail.len()];
        file.seek(SeekFrom::Start(self.at - self.tail.len() as u64))?;
        match file.read_exact(&mut found) {
            Ok(()) => Ok(found == self.tail),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads the complete lines after the position. A line is complete when its end is written.
    fn read(&mut self, file: &mut File, entries: &mut impl Entries) -> std::io::Result<bool> {
        file.seek(SeekFrom::Start(self.at))?;
        let (mut part, mut rest, mut changed) = (vec![0; PART], Vec::new(), false);
        loop {
            let count = match file.read(&mut part) {
                Ok(0) => return Ok(changed),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            rest.extend_from_slice(&part[..count]);
            let Some(end) = rest.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1) else {
                // A line this long is not an entry. It is forgotten, and so is its end later.
                if rest.len() > MAX_LINE {
                    self.pass(&rest);
                    rest.clear();
                }
                continue;
            };
            for line in rest[..end].split(|byte| *byte == b'\n') {
                if let Some((kind, entry)) = std::str::from_utf8(line).ok().and_then(Kind::parse) {
                    entries.entry(kind, &entry);
                }
            }
            self.pass(&rest[..end]);
            rest.drain(..end);
            changed = true;
        }
    }

    /// Moves the position behind these bytes.
    fn pass(&mut self, bytes: &[u8]) {
        self.at += bytes.len() as u64;
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::testing::Folder;

    /// The steps of the entries, and the number of restarts.
    #[derive(Default)]
    struct Steps(Vec<u64>, usize);

    impl Entries for Steps {
        fn restart(&mut self) {
            self.0.clear();
            self.1 += 1;
        }

        fn entry(&mut self, _kind: Kind, entry: &Entry) {
            self.0.push(entry.step);
        }
    }

    fn line(step: u64, loss: f64) -> String {
        format!("{{\"kind\":\"train\",\"step\":{step},\"epoch\":0.5,\"loss\":{loss}}}\n")
    }

    fn append(path: &Path, text: &str) {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn only_complete_lines_are_read_and_each_once() {
        let folder = Folder::new("reader-append");
        let path = folder.path.join("log");
        let (mut reader, mut steps) = (LogReader::new(&path), Steps::default());
        assert!(!reader.update(&mut steps).unwrap(), "there is no log yet");
        append(&path, &(line(1, 0.5) + "nonsense\n" + &line(2, 0.25)[..20]));
        assert!(reader.update(&mut steps).unwrap());
        assert_eq!(steps.0, [1]);
        assert!(!reader.update(&mut steps).unwrap(), "no complete line was added");
        append(&path, &line(2, 0.25)[20..]);
        assert!(reader.update(&mut steps).unwrap());
        assert_eq!((steps.0, steps.1), (vec![1, 2], 0));
    }

    #[test]
    fn a_log_that_was_cut_is_read_again_even_if_it_is_longer_by_then() {
        let folder = Folder::new("reader-cut");
        let path = folder.path.join("log");
        append(&path, &(line(1, 0.5) + &line(2, 0.25)));
        let (mut reader, mut steps) = (LogReader::new(&path), Steps::default());
        reader.update(&mut steps).unwrap();
        std::fs::write(&path, line(1, 0.5) + &line(2, 0.75) + &line(3, 0.125)).unwrap();
        assert!(reader.update(&mut steps).unwrap());
        assert_eq!((&steps.0[..], steps.1), (&[1, 2, 3][..], 1));
        std::fs::write(&path, line(1, 0.5)).unwrap();
        assert!(reader.update(&mut steps).unwrap());
        assert_eq!((&steps.0[..], steps.1), (&[1][..], 2));
        std::fs::remove_file(&path).unwrap();
        assert!(reader.update(&mut steps).unwrap());
        assert_eq!((&steps.0[..], steps.1), (&[][..], 3));
        assert!(!reader.update(&mut steps).unwrap());
    }

    #[test]
    fn many_parts_and_an_endless_line_are_read() {
        let folder = Folder::new("reader-parts");
        let path = folder.path.join("log");
        let all: String = (0..5000).map(|step| line(step, 1.0 / step as f64)).collect();
        append(&path, &("x".repeat(MAX_LINE + 3 * PART) + "\n" + &all));
        let (mut reader, mut steps) = (LogReader::new(&path), Steps::default());
        reader.update(&mut steps).unwrap();
        // The first line has no number: 1 / 0 is infinite, which is not JSON.
        assert_eq!(steps.0, (1..5000).collect::<Vec<_>>());
    }
}
