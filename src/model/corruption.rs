//! Corruption of a model's input in training. The reconstruction target stays clean.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, did_you_mean};
use crate::names::names;
use crate::ops::BicubicDownUp;
use crate::raster::corrupt::MaskKind;

names! {
    /// A restoration task. Its name is also that of its command, its preset and its bundled model.
    pub enum Task {
        /// Removes noise.
        Denoise = "denoise",
        /// Fills missing pixels.
        Inpaint = "inpaint",
        /// Super-resolution: restores the detail of an enlarged image.
        Upscale = "upscale",
        /// Removes the artefacts of JPEG compression.
        Dejpeg = "dejpeg",
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::named(name).ok_or_else(|| {
            Error::usage(format!(
                "task {name:?} is unknown: use one of {}{}",
                Self::names().collect::<Vec<_>>().join(", "),
                did_you_mean(name, Self::names())
            ))
        })
    }
}

/// Corruption of the model's input: noise, missing pixels, down-scaling or JPEG compression, at
/// most one of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorruptionSpec {
    /// Range [min, max] of the standard deviation of white Gaussian noise on the 0–255 scale.
    /// Training draws it uniformly for each sample; validation uses the middle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma: Option<[f64; 2]>,
    /// Range [min, max] of the share of missing pixels, in [0, 1). Training draws it uniformly for
    /// each sample; validation uses the middle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<[f64; 2]>,
    /// Kinds of masks for `missing`, one chosen for each sample.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<MaskKind>,
    /// Integer scales, one chosen for each sample. The sample is shrunk by it and enlarged again
    /// by bicubic interpolation, which is the common input of super-resolution.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scales: Vec<usize>,
    /// Range [min, max] of the quality of JPEG compression, from 1 to 100. Training compresses each
    /// whole image several times before it begins, with qualities that are drawn uniformly and
    /// rounded; validation uses the middle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<[f64; 2]>,
}

/// No corruption.
pub static NO_CORRUPTION: CorruptionSpec = CorruptionSpec {
    sigma: None,
    missing: None,
    masks: Vec::new(),
    scales: Vec::new(),
    quality: None,
};

impl CorruptionSpec {
    /// Maximum scale.
    pub const MAX_SCALE: usize = BicubicDownUp::MAX_SCALE;
    /// Maximum number of scales.
    pub const MAX_SCALES: usize = BicubicDownUp::MAX_SCALES;

    /// The default corruption for a task. Its range covers the published test protocols.
    pub fn for_task(task: Task) -> Self {
        match task {
            Task::Denoise => Self { sigma: Some([0.0, 50.0]), ..Self::default() },
            Task::Inpaint => {
                Self { missing: Some([0.1, 0.8]), masks: MaskKind::ALL.to_vec(), ..Self::default() }
            }
            Task::Upscale => Self { scales: vec![2, 3, 4], ..Self::default() },
            Task::Dejpeg => Self { quality: Some([5.0, 95.0]), ..Self::default() },
        }
    }

    /// Whether there is no corruption. Configurations then leave the key out, so that the hash of
    /// a run does not depend on it.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The task that a model learns from this corruption.
    pub const fn task(&self) -> Option<Task> {
        match (&self.sigma, &self.missing, self.scales.is_empty(), &self.quality) {
            (Some(_), ..) => Some(Task::Denoise),
            (_, Some(_), ..) => Some(Task::Inpaint),
            (_, _, false, _) => Some(Task::Upscale),
            (.., Some(_)) => Some(Task::Dejpeg),
            (None, None, true, None) => None,
        }
    }

    /// The conditioning level of a scale: (scale − 1)/10, which has the magnitude of noise levels
    /// (σ = 50 of 255 is a level of 0.196).
    pub fn level_of_scale(scale: usize) -> f64 {
        BicubicDownUp::level_of(scale)
    }

    /// Checks that at most one kind is set and that every value is in range.
    pub(crate) fn check(&self) -> Result<()> {
        let kinds = [
            self.sigma.is_some(),
            self.missing.is_some(),
            !self.scales.is_empty(),
            self.quality.is_some(),
        ];
        if kinds.into_iter().filter(|kind| *kind).count() > 1 {
            return Err(Error::usage(
                "corruption: set only one of sigma, missing, scales and quality; a model is \
                 trained for one task",
            ));
        }
        if let Some([low, high]) =
            self.sigma.filter(|[low, high]| !(*low >= 0.0 && low <= high && *high <= 255.0))
        {
            return Err(Error::usage(format!(
                "corruption.sigma = [{low}, {high}]: it must be [min, max] of the standard \
                 deviation, from 0 to 255"
            )));
        }
        if let Some([low, high]) =
            self.missing.filter(|[low, high]| !(*low >= 0.0 && low <= high && *high < 1.0))
        {
            return Err(Error::usage(format!(
                "corruption.missing = [{low}, {high}]: it must be [min, max] of the share of \
                 missing pixels, at least 0 and below 1"
            )));
        }
        if let Some([low, high]) =
            self.quality.filter(|[low, high]| !(*low >= 1.0 && low <= high && *high <= 100.0))
        {
            return Err(Error::usage(format!(
                "corruption.quality = [{low}, {high}]: it must be [min, max] of the quality of \
                 JPEG compression, from 1 to 100"
            )));
        }
        if self.missing.is_some() == self.masks.is_empty() {
            return Err(Error::usage(
                "corruption: missing and masks must be set together, such as missing = [0.1, 0.8] \
                 and masks = [\"pixels\"]",
            ));
        }
        if let Some(scale) =
            self.scales.iter().find(|scale| !(2..=Self::MAX_SCALE).contains(*scale))
        {
            return Err(Error::usage(format!(
                "corruption.scales: {scale} must be from 2 to {}",
                Self::MAX_SCALE
            )));
        }
        if self.scales.len() > Self::MAX_SCALES {
            return Err(Error::usage(format!(
                "corruption.scales: {} scales are too many; use at most {}",
                self.scales.len(),
                Self::MAX_SCALES
            )));
        }
        Ok(())
    }
}
