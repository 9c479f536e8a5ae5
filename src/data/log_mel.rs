//! Log-mel spectrograms of recordings.
//!
//! The mel scale is that of Slaney's Auditory Toolbox (Interval Research, technical report
//! 1998-010): linear below 1 kHz and logarithmic above. Each filter is a triangle of unit area.
//! This is the default of librosa, whose values the tests have: `power_to_db(melspectrogram(y,
//! power=2))` without `top_db`.

#[cfg(feature = "cli")]
use std::f64::consts::PI;
#[cfg(feature = "cli")]
use std::sync::Arc;

#[cfg(feature = "cli")]
use rustfft::num_complex::Complex;
#[cfg(feature = "cli")]
use rustfft::{Fft, FftPlanner};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Power below which a value is silence: −100 dB.
#[cfg(feature = "cli")]
const SILENCE: f64 = 1e-10;

/// How recordings become images: mel bands × frames, in decibels of the power of the full scale.
/// The first row is the lowest band.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogMel {
    /// Samples per second of the recordings.
    pub rate: u32,
    /// Length of a window in samples.
    pub window: usize,
    /// Samples from one window to the next.
    pub hop: usize,
    /// Number of mel bands.
    pub mels: usize,
    /// Lowest and highest frequency in Hz.
    pub range: [f32; 2],
    /// Frames of a piece of a recording; 0: the whole recording.
    pub frames: usize,
}

/// Mel of a frequency in Hz.
#[cfg(feature = "cli")]
fn mel(hertz: f64) -> f64 {
    // 200/3 Hz for each mel up to 1 kHz, then 27 mels for each factor of 6.4.
    if hertz < 1000.0 {
        hertz * 3.0 / 200.0
    } else {
        15.0 + (hertz / 1000.0).ln() * 27.0 / 6.4_f64.ln()
    }
}

/// Frequency in Hz of a mel.
#[cfg(feature = "cli")]
fn hertz(mel: f64) -> f64 {
    if mel < 15.0 { mel * 200.0 / 3.0 } else { 1000.0 * ((mel - 15.0) * 6.4_f64.ln() / 27.0).exp() }
}

/// A filter of a mel band: the first bin of the spectrum that it weights, and the weights.
#[cfg(feature = "cli")]
#[derive(Clone, Debug)]
struct Filter {
    first: usize,
    weights: Vec<f64>,
}

/// Computes spectrograms.
#[cfg(feature = "cli")]
pub struct Analysis {
    settings: LogMel,
    /// Hann's window, periodic.
    window: Vec<f64>,
    filters: Vec<Filter>,
    fft: Arc<dyn Fft<f64>>,
}

impl LogMel {
    /// Checks the settings.
    ///
    /// # Errors
    /// If a number is outside its limits.
    pub fn check(&self) -> Result<()> {
        let [low, high] = self.range;
        let half = self.rate as f32 / 2.0;
        if !(0.0 <= low && low < high && high <= half) {
            return Err(Error::usage(format!(
                "data.spectrogram_range = [{low}, {high}]: it must be two frequencies from 0 to \
                 {half} Hz, half of the sample rate, the second one larger"
            )));
        }
        if self.hop > self.window {
            return Err(Error::usage(format!(
                "data.spectrogram_hop = {}: it must be at most data.spectrogram_window, {}",
                self.hop, self.window
            )));
        }
        Ok(())
    }

    /// Number of frames of a recording of `samples` samples: one is centred at every multiple of
    /// the hop.
    pub const fn frames_of(&self, samples: usize) -> usize {
        1 + samples / self.hop
    }

    /// The filters of the mel bands, as weights of the bins of the spectrum.
    #[cfg(feature = "cli")]
    fn filters(&self) -> Vec<Filter> {
        let [low, high] = self.range.map(|frequency| mel(f64::from(frequency)));
        let edge = |i: usize| hertz(low + (high - low) * i as f64 / (self.mels + 1) as f64);
        let bin = f64::from(self.rate) / self.window as f64;
        let filter = |band: usize| {
            let [left, middle, right] = [edge(band), edge(band + 1), edge(band + 2)];
            let weight = |at: usize| {
                let frequency = at as f64 * bin;
                let rise = (frequency - left) / (middle - left);
                let fall = (right - frequency) / (right - middle);
                rise.min(fall).max(0.0) * 2.0 / (right - left)
            };
            let first = (left / bin).floor() as usize;
            let last = ((right / bin).ceil() as usize).min(self.window / 2);
            Filter { first, weights: (first..=last).map(weight).collect() }
        };
        (0..self.mels).map(filter).collect()
    }
}

#[cfg(feature = "cli")]
impl Analysis {
    /// Prepares the window and the filters.
    pub fn new(settings: &LogMel) -> Self {
        let n = settings.window;
        let window = (0..n).map(|i| 0.5 - 0.5 * (2.0 * PI * i as f64 / n as f64).cos()).collect();
        let fft = FftPlanner::new().plan_fft_forward(n);
        Self { window, filters: settings.filters(), fft, settings: settings.clone() }
    }

    /// Number of bands without a bin of the spectrum, which are silent in every frame.
    pub fn empty_bands(&self) -> usize {
        let is_empty = |filter: &&Filter| filter.weights.iter().all(|weight| *weight == 0.0);
        self.filters.iter().filter(is_empty).count()
    }

    /// The spectrogram of a recording with values in −1…1: rows are bands, columns are frames.
    pub fn spectrogram(&self, recording: &[f32]) -> Vec<f32> {
        let LogMel { window: n, hop, mels, .. } = self.settings;
        let frames = self.settings.frames_of(recording.len());
        let mut out = vec![0.0; mels * frames];
        let mut buffer = vec![Complex::default(); n];
        let mut scratch = vec![Complex::default(); self.fft.get_inplace_scratch_len()];
        for frame in 0..frames {
            // Frames are centred; there is silence before and after the recording.
            let first = (frame * hop) as isize - (n / 2) as isize;
            for (i, value) in buffer.iter_mut().enumerate() {
                let at = usize::try_from(first + i as isize).ok();
                let sample = at.and_then(|at| recording.get(at)).copied().unwrap_or(0.0);
                *value = Complex::new(f64::from(sample) * self.window[i], 0.0);
            }
            self.fft.process_with_scratch(&mut buffer, &mut scratch);
            for (band, filter) in self.filters.iter().enumerate() {
                let bins = filter.weights.iter().zip(&buffer[filter.first.min(n / 2)..]);
                let power: f64 = bins.map(|(weight, bin)| weight * bin.norm_sqr()).sum();
                out[band * frames + frame] = (10.0 * power.max(SILENCE).log10()) as f32;
            }
        }
        out
    }
}

#[cfg(all(test, feature = "cli"))]
#[path = "log_mel_tests.rs"]
mod tests;
