//! The files of a run that show its log: `metrics.csv` and `train.png`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::allowance::Allowance;
use super::curves::Curves;
use super::panels::panels;
use super::reader::{Entries, LogReader};
use super::table::Table;
use super::{CHART, LOG, TABLE};
use crate::error::Result;
use crate::files;
use crate::report::chart;
use crate::report::history::{Entry, Kind};

/// Writes the table and the charts of a run during its training.
#[derive(Debug)]
pub struct RunFiles {
    folder: PathBuf,
    reader: LogReader,
    shown: Shown,
    squares: bool,
    allowance: Allowance,
}

#[derive(Debug, Default)]
struct Shown {
    table: Table,
    curves: Curves,
}

impl Entries for Shown {
    fn restart(&mut self) {
        *self = Self::default();
    }

    fn entry(&mut self, kind: Kind, entry: &Entry) {
        self.table.entry(kind, entry);
        self.curves.entry(kind, entry);
    }
}

impl RunFiles {
    /// The files of a run folder. `squares` is whether its loss is the sum of squares, see
    /// [`panels`].
    pub fn new(folder: &Path, squares: bool) -> Self {
        Self {
            folder: folder.to_owned(),
            reader: LogReader::new(&folder.join(LOG)),
            shown: Shown::default(),
            squares,
            allowance: Allowance::new(Duration::ZERO),
        }
    }

    /// Writes both files again, unless that has taken 2 % of the time so far.
    ///
    /// # Errors
    /// As [`RunFiles::write`].
    pub fn update(&mut self) -> Result<()> {
        if self.allowance.is_left() { self.write() } else { Ok(()) }
    }

    /// Writes both files again. Without an entry in the log there are no files.
    ///
    /// # Errors
    /// If the log cannot be read or a file cannot be written.
    pub fn write(&mut self) -> Result<()> {
        let start = Instant::now();
        self.reader.update(&mut self.shown)?;
        let Shown { table, curves } = &self.shown;
        if *curves != Curves::default() {
            files::write_atomically(&self.folder.join(TABLE), table.csv().as_bytes())?;
            let panels = panels(&[curves], self.squares);
            let charts: Vec<_> = panels.iter().map(|panel| panel.chart(curves)).collect();
            // One column, so that the text is legible at a width of 400 pixels.
            chart::charts(&charts, 1).save(&self.folder.join(CHART))?;
        }
        self.allowance.count_since(start);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn both_files_follow_the_log() {
        let folder = Folder::new("run-files");
        let mut run = RunFiles::new(&folder.path, true);
        run.write().unwrap();
        assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 0, "no log, no files");
        let line = r#"{"kind":"train","step":5,"epoch":0.5,"loss":7.0,"lr":0.1}"#;
        folder.write(LOG, format!("{line}\n").as_bytes());
        run.write().unwrap();
        let read = |name: &str| std::fs::read(folder.path.join(name)).unwrap();
        assert_eq!(read(TABLE), b"step,epoch,lr,train_loss\n5,0.5,0.1,7.0\n");
        let before = read(CHART);
        folder.write(LOG, format!("{line}\n{}\n", line.replace("7.0", "5.0")).as_bytes());
        run.write().unwrap();
        assert_ne!(read(CHART), before);
    }
}
