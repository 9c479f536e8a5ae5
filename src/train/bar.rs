//! The progress bar of a training run, on a terminal. Without the feature `cli` there is no bar.

#[cfg(feature = "cli")]
use indicatif::{ProgressBar, ProgressStyle};

/// Progress bar over the steps of a training run.
#[cfg(feature = "cli")]
#[derive(Debug)]
pub(super) struct Bar(ProgressBar);

#[cfg(feature = "cli")]
impl Bar {
    /// Creates a bar over `total` steps.
    pub(super) fn new(total: u64) -> Option<Self> {
        // Both lines fit into any width.
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}\n{wide_msg}")
            .expect("the template is sound");
        Some(Self(ProgressBar::new(total).with_style(style)))
    }

    /// Moves the bar to a step and shows a message beside it.
    pub(super) fn set(&self, step: u64, message: String) {
        self.0.set_position(step);
        self.0.set_message(message);
    }

    /// Writes a line to standard error above the bar.
    pub(super) fn say(&self, line: &str) {
        self.0.suspend(|| super::log::print(line));
    }

    /// Removes the bar from the terminal.
    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Width of the terminal in columns. `None` if standard error is not a terminal.
#[cfg(feature = "cli")]
pub(super) fn width() -> Option<usize> {
    terminal_size::terminal_size_of(std::io::stderr()).map(|(width, _)| usize::from(width.0))
}

/// The width is not known without the feature `cli`.
#[cfg(not(feature = "cli"))]
pub(super) const fn width() -> Option<usize> {
    None
}

/// Stand-in without the feature `cli`: no value of this type exists.
#[cfg(not(feature = "cli"))]
#[derive(Debug)]
pub(super) enum Bar {}

#[cfg(not(feature = "cli"))]
impl Bar {
    pub(super) const fn new(_total: u64) -> Option<Self> {
        None
    }

    pub(super) const fn set(&self, _step: u64, _message: String) {
        match *self {}
    }

    pub(super) const fn say(&self, _line: &str) {
        match *self {}
    }

    pub(super) const fn finish(&self) {
        match *self {}
    }
}
