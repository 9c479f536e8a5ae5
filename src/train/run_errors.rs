//! What a run does after an error: it saves what it can, and says how to resume.

use super::{Run, Task};
use crate::device::Device;
use crate::error::Error;
use crate::train::log::Log;
use crate::train::trainer::Trainer;

impl<T: Task> Run<'_, T> {
    /// Writes a checkpoint after an image could not be read, and adds to the error how to resume.
    pub(super) fn after_read_error(
        &mut self,
        error: Error,
        device: &mut Device,
        log: &mut Log,
    ) -> Error {
        log.finish();
        let Trainer { done, total, .. } = self.trainer;
        let error = error.at(format!("after step {done} of {total}"));
        let kept = if done == 0 {
            Ok(())
        } else {
            self.stage(device, log).and_then(|checkpoint| self.publish(checkpoint, log))
        };
        if let Err(other) = kept {
            return error.and(format!("the checkpoint could not be written either: {other}"));
        }
        let kept = if done == 0 {
            String::new()
        } else {
            format!("progress is saved in {}; ", self.folder.checkpoint(done).display())
        };
        error.and(format!(
            "{kept}restore the file, then run: csae resume {}",
            self.folder.path().display()
        ))
    }

    /// Writes a checkpoint after another process has failed, and adds to the error how to resume.
    pub(super) fn after_rank_error(
        &mut self,
        error: Error,
        device: &mut Device,
        log: &mut Log,
    ) -> Error {
        log.finish();
        let Trainer { done, total, .. } = self.trainer;
        let error = error.at(format!("after step {done} of {total}"));
        if done == 0 {
            return error;
        }
        match self.capture(device, log).and_then(|state| self.keep(state, log)) {
            Ok(()) => error.and(format!(
                "progress is saved in {}; continue with: csae resume {}",
                self.folder.checkpoint(done).display(),
                self.folder.path().display()
            )),
            Err(other) => error.and(format!("the checkpoint could not be written either: {other}")),
        }
    }

    /// Adds to an adapter's error the step at which it failed and how to resume.
    pub(super) fn after_adapter_error(&self, error: Error) -> Error {
        let Trainer { done, total, .. } = self.trainer;
        let error = error.at(format!("after step {done} of {total}"));
        match self.folder.newest() {
            Ok(Some(last)) => error.and(format!(
                "{} is the last checkpoint; resume with: csae resume {}",
                last.display(),
                self.folder.path().display()
            )),
            _ => error.and("no checkpoint was written yet"),
        }
    }
}
