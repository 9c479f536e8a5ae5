//! Corruption of what a model sees in training; what it is to give back stays as it is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, did_you_mean};
use crate::ops::BicubicDownUp;
use crate::raster::corrupt::MaskKind;

/// What a model restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Takes noise away.
    Denoise,
    /// Fills missing pixels.
    Inpaint,
    /// Adds the detail that a small image lacks.
    Upscale,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 3] = [Self::Denoise, Self::Inpaint, Self::Upscale];

    /// Its name, also of the command that does it and of the preset and the bundled model for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denoise => "denoise",
            Self::Inpaint => "inpaint",
            Self::Upscale => "upscale",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let names = Self::ALL.map(Self::name);
        Self::ALL.into_iter().find(|task| task.name() == name).ok_or_else(|| {
            Error::usage(format!(
                "no task is called {name}; known are {}{}",
                names.join(", "),
                did_you_mean(name, names)
            ))
        })
    }
}

/// Corruption of what the model sees: of one kind, or none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorruptionSpec {
    /// Standard deviation of white Gaussian noise, drawn for each sample between two values on the
    /// 0–255 scale. Validation takes the middle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma: Option<[f64; 2]>,
    /// Share of the pixels that are missing, drawn for each sample between two values. Validation
    /// takes the middle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<[f64; 2]>,
    /// With `missing`: how masks are drawn, one of these for each sample.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<MaskKind>,
    /// Scales, one of which each sample is shrunk by, to be enlarged again by cubic interpolation:
    /// what super-resolution begins with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scales: Vec<usize>,
}

/// Nothing is done.
pub static NO_CORRUPTION: CorruptionSpec =
    CorruptionSpec { sigma: None, missing: None, masks: Vec::new(), scales: Vec::new() };

impl CorruptionSpec {
    /// Largest scale.
    pub const MAX_SCALE: usize = BicubicDownUp::MAX_SCALE;
    /// Scales at most.
    pub const MAX_SCALES: usize = BicubicDownUp::MAX_SCALES;

    /// What corrupts for a task where nothing else is said.
    pub fn for_task(task: Task) -> Self {
        match task {
            Task::Denoise => Self { sigma: Some([0.0, 50.0]), ..Self::default() },
            Task::Inpaint => Self {
                missing: Some([0.1, 0.8]),
                masks: MaskKind::ALL.map(|(_, kind)| kind).to_vec(),
                ..Self::default()
            },
            Task::Upscale => Self { scales: vec![2, 3, 4], ..Self::default() },
        }
    }

    /// Whether nothing is done: then a configuration does not speak of it, nor does the hash of a
    /// run.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// What a model learns from it.
    pub const fn task(&self) -> Option<Task> {
        match (&self.sigma, &self.missing, self.scales.is_empty()) {
            (Some(_), ..) => Some(Task::Denoise),
            (_, Some(_), _) => Some(Task::Inpaint),
            (.., false) => Some(Task::Upscale),
            _ => None,
        }
    }

    /// The level that a model is told of a scale: by how much the side has grown, in tens.
    pub fn level_of_scale(scale: usize) -> f64 {
        BicubicDownUp::level_of(scale)
    }

    /// Fails unless it makes sense.
    pub(super) fn check(&self) -> Result<()> {
        let kinds = [self.sigma.is_some(), self.missing.is_some(), !self.scales.is_empty()];
        if kinds.into_iter().filter(|kind| *kind).count() > 1 {
            return Err(Error::usage(
                "corruption: one of sigma, missing and scales; a model is trained for one task",
            ));
        }
        if let Some([low, high]) =
            self.sigma.filter(|[low, high]| !(*low >= 0.0 && low <= high && *high <= 255.0))
        {
            return Err(Error::usage(format!(
                "corruption.sigma = [{low}, {high}]: the smallest and the largest standard deviation, 0 to 255"
            )));
        }
        if let Some([low, high]) =
            self.missing.filter(|[low, high]| !(*low >= 0.0 && low <= high && *high < 1.0))
        {
            return Err(Error::usage(format!(
                "corruption.missing = [{low}, {high}]: the smallest and the largest share, at least 0 and below 1"
            )));
        }
        if self.missing.is_some() == self.masks.is_empty() {
            return Err(Error::usage(
                "corruption: missing and masks belong together, such as missing = [0.1, 0.8], masks = [\"pixels\"]",
            ));
        }
        if let Some(scale) =
            self.scales.iter().find(|scale| !(2..=Self::MAX_SCALE).contains(*scale))
        {
            return Err(Error::usage(format!(
                "corruption.scales: {scale} is none of 2 to {}",
                Self::MAX_SCALE
            )));
        }
        if self.scales.len() > Self::MAX_SCALES {
            return Err(Error::usage(format!(
                "corruption.scales: at most {} of them",
                Self::MAX_SCALES
            )));
        }
        Ok(())
    }
}
