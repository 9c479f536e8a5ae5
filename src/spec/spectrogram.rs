//! The keys of spectrograms: `data.spectrogram` and those that begin with it.

use super::DataSpec;
use crate::data::LogMel;
use crate::error::{Error, Result};
use crate::names::names;

names! {
    /// Whether recordings become spectrograms.
    pub enum SpectrogramName {
        /// Recordings are signals.
        None = "none",
        /// The power in mel bands, in decibels.
        LogMel = "log-mel",
    }
}

/// Default length of a window in samples: 23 to 64 ms at sample rates of 44.1 to 16 kHz.
pub(super) const WINDOW: usize = 1024;
/// Default step from one window to the next: a quarter of a window, as librosa has it.
pub(super) const HOP: usize = 256;
/// Default number of mel bands. With the default window, every band has a bin of the spectrum at
/// 16 to 48 kHz.
pub(super) const MELS: usize = 64;
/// Largest window in samples: more than a second at 48 kHz.
pub(crate) const MAX_WINDOW: usize = 1 << 16;
/// Largest number of mel bands.
pub(crate) const MAX_MELS: usize = 1024;

pub(super) fn is_none(name: &SpectrogramName) -> bool {
    *name == SpectrogramName::None
}

pub(super) fn is_window(window: &usize) -> bool {
    *window == WINDOW
}

pub(super) fn is_hop(hop: &usize) -> bool {
    *hop == HOP
}

pub(super) fn is_mels(mels: &usize) -> bool {
    *mels == MELS
}

pub(super) fn is_whole(frames: &usize) -> bool {
    *frames == 0
}

impl DataSpec {
    /// The spectrograms that recordings become, if they do. Zeros mark what the recordings decide.
    pub fn log_mel(&self) -> Option<LogMel> {
        match self.spectrogram {
            SpectrogramName::None => None,
            SpectrogramName::LogMel => Some(LogMel {
                rate: 0,
                window: self.spectrogram_window,
                hop: self.spectrogram_hop,
                mels: self.spectrogram_mels,
                range: self.spectrogram_range.unwrap_or_default(),
                frames: self.spectrogram_frames,
            }),
        }
    }

    /// Checks the numbers that do not depend on the recordings.
    ///
    /// # Errors
    /// If one is outside its limits.
    pub(super) fn check_spectrogram(&self) -> Result<()> {
        if let Some([low, high]) = self.spectrogram_range
            && !(0.0 <= low && low < high && high.is_finite())
        {
            return Err(Error::usage(format!(
                "data.spectrogram_range = [{low}, {high}]: it must be two frequencies of at least \
                 0 Hz, the second one larger"
            )));
        }
        let sizes = [
            ("data.spectrogram_window", self.spectrogram_window, MAX_WINDOW),
            ("data.spectrogram_hop", self.spectrogram_hop, MAX_WINDOW),
            ("data.spectrogram_mels", self.spectrogram_mels, MAX_MELS),
        ];
        for (key, value, max) in sizes {
            if !(1..=max).contains(&value) {
                return Err(Error::usage(format!("{key} = {value}: it must be from 1 to {max}")));
            }
        }
        Ok(())
    }
}
