//! The training log: one JSON object per line in `metrics.jsonl`, and progress output for people.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bar::{self, Bar};
use super::rows::{Row, Rows, fitting, rate, significant};
use super::validation_result::ValidationResult;
use crate::error::Result;
use crate::files;

/// Progress over the last logging interval.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Total number of steps.
    pub total: u64,
    /// Epochs done.
    pub epoch: f64,
    /// Means of the loss terms and of the other logged values, by name.
    pub terms: Vec<(&'static str, f64)>,
    /// Learning rate.
    pub lr: f64,
    /// Images per second.
    pub rate: f64,
    /// Estimated remaining time.
    pub eta: Duration,
}

/// The log of a run.
#[derive(Debug)]
pub struct Log {
    file: Option<std::io::BufWriter<std::fs::File>>,
    path: String,
    bar: Option<Bar>,
    json: bool,
    quiet: bool,
    last_line: Instant,
    latest: Option<Progress>,
    /// The progress of the last logging interval.
    last: Option<Progress>,
    /// The columns of the table of validations, chosen at the first one.
    rows: Option<Rows>,
    /// When the progress began, until it has been checked for a long training.
    unchecked_since: Option<Instant>,
}

/// A note about a training that takes longer than an hour.
fn long(left: Duration) -> Option<String> {
    let hours = left.as_secs_f64() / 3600.0;
    (hours > 1.0).then(|| {
        format!(
            "note: about {hours:.1} hours are left on this device; the run can be stopped at any \
             time and resumed later"
        )
    })
}

/// Whether to show a progress bar: only on a terminal, and not with `NO_COLOR` or a dumb terminal.
pub fn shows_bar() -> bool {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal()
        && !plain
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Prints a line to standard error. Training goes on if that is closed or its disk is full.
pub(super) fn print(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Log {
    /// Opens a log that appends to `path`. Progress is shown as a bar on a terminal, as plain lines
    /// elsewhere, or as JSON on standard output.
    pub fn new(path: Option<&Path>, total: u64, quiet: bool, json: bool) -> Result<Self> {
        let file = path
            .map(|path| {
                let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
                file.map(std::io::BufWriter::new)
                    .map_err(|error| files::not_written(path.display(), &error))
            })
            .transpose()?;
        let bar = if !quiet && !json && shows_bar() { Bar::new(total) } else { None };
        let long_ago =
            Instant::now().checked_sub(Duration::from_secs(3600)).unwrap_or_else(Instant::now);
        let path = path.map_or_else(String::new, |path| path.display().to_string());
        Ok(Self {
            file,
            path,
            bar,
            json,
            quiet,
            last_line: long_ago,
            latest: None,
            last: None,
            rows: None,
            unchecked_since: Some(Instant::now()),
        })
    }

    /// Returns the progress of the last logging interval once, if there is new progress.
    pub const fn take_progress(&mut self) -> Option<Progress> {
        self.latest.take()
    }

    /// Reopens the log file, which was truncated meanwhile, and records the `number`th rollback.
    ///
    /// # Errors
    /// If the file cannot be opened or written.
    pub fn rolled_back(
        &mut self,
        from: u64,
        to: u64,
        number: u32,
        why: &crate::error::Error,
    ) -> Result<()> {
        if self.file.is_some() {
            let file = std::fs::OpenOptions::new().append(true).open(&self.path);
            self.file = Some(
                file.map(std::io::BufWriter::new)
                    .map_err(|error| files::not_written(&self.path, &error))?,
            );
        }
        let factor = 0.5_f64.powi(number as i32);
        self.record(&json!({
            "kind": "retry", "step": to, "from": from, "number": number, "lr_factor": factor
        }))?;
        self.say(&format!(
            "{why}; rolling back from step {from} to {to}, continuing with {factor} × the \
             learning rate"
        ));
        Ok(())
    }

    fn record(&mut self, value: &Value) -> Result<()> {
        if let Some(file) = &mut self.file {
            let written = writeln!(file, "{value}").and_then(|()| file.flush());
            written.map_err(|error| files::not_written(&self.path, &error))?;
        }
        if self.json {
            // Training continues if the reader of standard output closes the pipe.
            let _ = writeln!(std::io::stdout(), "{value}");
        }
        Ok(())
    }

    /// Flushes the recorded lines to the disk.
    pub fn sync(&mut self) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.flush()
            .and_then(|()| file.get_ref().sync_all())
            .map_err(|error| files::not_written(&self.path, &error))
    }

    /// Prints a line to standard error, above the bar if a bar is shown.
    pub fn say(&self, line: &str) {
        if self.quiet {
            return;
        }
        match &self.bar {
            Some(bar) => bar.say(line),
            None => print(line),
        }
    }

    /// Records the progress of a logging interval.
    pub fn progress(&mut self, p: &Progress) -> Result<()> {
        self.latest = Some(p.clone());
        self.last = Some(p.clone());
        let mut value = json!({
            "kind": "train", "step": p.step, "epoch": p.epoch, "lr": p.lr,
            "images_per_s": p.rate.round(),
        });
        p.terms.iter().for_each(|(name, mean)| value[*name] = json!(mean));
        self.record(&value)?;
        // The first steps, which compile kernels and fill caches, take longer than others.
        if self.unchecked_since.is_some_and(|since| since.elapsed() > Duration::from_secs(10)) {
            self.unchecked_since = None;
            if let Some(note) = long(p.eta).filter(|_| !self.json) {
                self.say(&note);
            }
        }
        let is_due = self.last_line.elapsed() > Duration::from_secs(5) || p.step == p.total;
        if self.bar.is_some() || is_due {
            self.last_line = Instant::now();
            self.show(p);
        }
        Ok(())
    }

    /// Whether [`Log::show`] shows anything.
    pub const fn shows_progress(&self) -> bool {
        !self.quiet && !self.json
    }

    /// Shows progress to people, without recording it.
    pub fn show(&self, p: &Progress) {
        let parts = parts(p);
        if let Some(bar) = &self.bar {
            bar.set(p.step, fitting(&parts, bar::width()));
        } else if !self.json {
            self.say(&format!("step {}/{}  {}", p.step, p.total, fitting(&parts, None)));
        }
    }

    /// Records the result of a validation, and prints a row of the table. `best` is whether it is
    /// the best validation so far, `memory` the number of bytes on the device.
    pub fn validation(
        &mut self,
        step: u64,
        epoch: f64,
        found: &impl ValidationResult,
        (best, memory): (bool, u64),
    ) -> Result<()> {
        let mut value = found.numbers();
        let row = Row { memory, best, ..Row::new(epoch, &value, self.last.as_ref()) };
        if let Some(table) = value.as_object_mut() {
            table.extend([
                ("kind".to_owned(), json!("validation")),
                ("step".to_owned(), json!(step)),
                ("epoch".to_owned(), json!(epoch)),
                ("score".to_owned(), json!(found.score())),
            ]);
        }
        self.record(&value)?;
        if self.rows.is_none() {
            let rows = Rows::new(&row, bar::width());
            self.say(&rows.head());
            self.rows = Some(rows);
        }
        if let Some(rows) = &self.rows {
            self.say(&rows.line(&row));
        }
        Ok(())
    }

    /// Removes the progress bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}

/// The progress as short texts, the most important first.
fn parts(p: &Progress) -> Vec<String> {
    let seconds = p.eta.as_secs();
    let mut parts = vec![
        format!("epoch {:.2}", p.epoch),
        match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, minutes, seconds) => format!("{minutes}:{seconds:02} left"),
            (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02} left"),
        },
    ];
    let term = |(name, mean): &(&str, f64)| match *name {
        "reconstruction" => format!("‖x − x̂‖² {}", significant(*mean)),
        "l0" => format!("L0 {mean:.1}"),
        other => format!("{} {}", other.replace('_', " "), significant(*mean)),
    };
    // The loss and the sparsity of the code come before the penalty.
    let penalty = |term: &&(&str, f64)| term.0 == "sparsity";
    parts.extend(p.terms.iter().filter(|term| !penalty(term)).map(term));
    parts.push(format!("{:.0} images/s", p.rate));
    parts.extend(p.terms.iter().filter(penalty).map(term));
    parts.push(format!("rate {}", rate(p.lr)));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_trainings_are_announced() {
        assert_eq!(long(Duration::from_secs(3600)), None);
        let note = long(Duration::from_secs(5400)).unwrap();
        assert!(note.contains("about 1.5 hours"), "{note}");
    }
}
