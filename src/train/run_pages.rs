//! The pictures and the page of a run that is not at its end.

use std::time::{Duration, Instant};

use super::{Run, Task};
use crate::device::Device;
use crate::error::Result;
use crate::report::runs::{self, Allowance, PAGE, State};
use crate::train::log::Log;

/// Time that pictures take: on two CPU cores 0.04 s for digits, 0.2 s for whole photographs and
/// 1.3 s for restored photographs. With a share of 2 % the first ones are written after 10 s.
const EXPECTED: Duration = Duration::from_millis(200);

/// Writes pictures while a run trains.
#[derive(Debug)]
pub(super) struct Pictures {
    allowance: Allowance,
    /// Whether none are written: they are not wanted, or failed before and a second attempt would
    /// only repeat the message.
    off: bool,
}

impl Pictures {
    pub(super) fn new() -> Self {
        Self { allowance: Allowance::new(EXPECTED), off: false }
    }

    pub(super) const fn turn_off(&mut self) {
        self.off = true;
    }
}

impl<T: Task> Run<'_, T> {
    /// Writes pictures after a validation, unless pictures have taken 2 % of the time so far.
    pub(super) fn draw(&mut self, device: &mut Device, log: &Log, found: &T::Validation) {
        if self.pictures.allowance.is_left() {
            self.draw_now(device, log, found);
        }
    }

    /// Writes pictures. Training goes on without them if they fail.
    fn draw_now(&mut self, device: &mut Device, log: &Log, found: &T::Validation) {
        if self.pictures.off {
            return;
        }
        let start = Instant::now();
        if let Err(error) = self.task.pictures(device, &self.folder, found) {
            self.pictures.off = true;
            log.say(&format!("note: no pictures while training: {error}"));
        }
        self.pictures.allowance.count_since(start);
    }

    /// Writes what shows a run that is about to stop: pictures of the current model in the view of
    /// the last validation, charts, and the page.
    pub(super) fn show_stopped(&mut self, device: &mut Device, log: &Log) -> Result<()> {
        if let Some(found) = self.latest.take() {
            self.draw_now(device, log, &found);
        }
        self.files().write()
    }

    /// Writes the page of a resumed run, whose page says that it stopped or finished. Training goes
    /// on without it if that fails.
    pub(super) fn write_resumed_page(&self, log: &Log) {
        if self.folder.file(PAGE).is_file()
            && let Err(error) = runs::write_page(self.folder.path(), State::Running)
        {
            log.say(&format!("note: no page of the run: {error}"));
        }
    }

    /// Writes the page of a run that stopped, if it can be continued. A failure does not hide why
    /// the run stopped.
    pub(super) fn write_stopped_page(&self, log: &Log) {
        if matches!(self.folder.newest(), Ok(Some(_)))
            && let Err(error) = runs::write_page(self.folder.path(), State::Stopped)
        {
            log.say(&format!("note: no page of the run: {error}"));
        }
    }
}
