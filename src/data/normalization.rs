//! Normalization of the channels: offsets and divisors that bring samples to a range that training
//! works well with, computed over the training samples.

use serde::{Deserialize, Serialize};

use super::catalogue::Handles;
use super::encoding::Encoding;
use super::pixels::Pixels;
use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::names::names;
use crate::sample_type::{SampleType, is_value};

names! {
    /// How the channels are normalised.
    pub enum NormalizeName {
        /// Integers that use at least half of their range, and floats in 0…1, are not normalised.
        /// Other data are: by `range` if the model reconstructs values in 0…1 only, otherwise by
        /// `standard`.
        Auto = "auto",
        /// The full range of integers becomes 0…1. Floats are kept.
        None = "none",
        /// The smallest value of a channel becomes 0, the largest 1.
        Range = "range",
        /// The mean of a channel becomes 0, its standard deviation 1.
        Standard = "standard",
        /// The median of a channel becomes 0, its interquartile range 1.349 (that of a normal
        /// distribution of standard deviation 1).
        Robust = "robust",
    }
}

names! {
    /// What happens to values that are not finite.
    #[derive(Default)]
    pub enum NanName {
        /// They are an error that names the sample.
        #[default]
        Error = "error",
        /// They become 0 after normalisation: with `standard` the mean of the channel.
                Zero = "zero",
        /// They are missing: the model sees a smooth interpolation of the others, and the loss and
        /// the evaluation leave them out.
        Mask = "mask",
    }
}

/// The interquartile range of a normal distribution of standard deviation 1.
const NORMAL_IQR: f64 = 1.349;

/// Maximum number of floats of a channel that `robust` takes quantiles of. Their ranks have a
/// standard error of less than 0.1 %.
const QUANTILE_VALUES: usize = 1 << 20;

/// The normalization that a model was trained with. A sample s of channel c becomes
/// (s − `offset[c]`) / `divisor[c]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// The type of the training samples: `8-bit`, `16-bit`, `16-bit float` or `32-bit float`.
    pub samples: String,
    /// Offset of each channel, in the units of the samples.
    pub offset: Vec<f32>,
    /// Divisor of each channel, in the units of the samples.
    pub divisor: Vec<f32>,
    /// Smallest value of each channel in training, in the units of the samples.
    pub min: Vec<f32>,
    /// Largest value of each channel in training, in the units of the samples.
    pub max: Vec<f32>,
}

impl Normalization {
    /// Maps the range from `low` to `high` to 0…1, in each of `channels` channels.
    fn of_range(sample: SampleType, channels: usize, [low, high]: [f32; 2]) -> Self {
        Self {
            samples: sample.name().to_owned(),
            offset: vec![low; channels],
            divisor: vec![high - low; channels],
            min: vec![low; channels],
            max: vec![high; channels],
        }
    }

    /// Checks that there are numbers for each channel.
    ///
    /// # Errors
    /// If numbers are missing, not finite, or a divisor is not positive.
    pub fn check(&self, channels: usize) -> Result<()> {
        let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
        let all = [&self.offset, &self.divisor, &self.min, &self.max];
        if all.iter().any(|values| values.len() != channels || !finite(values))
            || self.divisor.iter().any(|divisor| *divisor <= 0.0)
        {
            return Err(Error::usage(format!(
                "the model is for {} channels, but the data have {channels}; \
                 model.normalization needs a finite offset, a positive divisor, min and max for \
                 each channel",
                self.offset.len()
            )));
        }
        Ok(())
    }

    /// Maps normalised values (…,C) so that the range of each channel in training becomes 0…1, for
    /// pictures and for measures that need a range.
    pub fn to_unit(&self, values: &mut [f32]) {
        for pixel in values.chunks_exact_mut(self.offset.len()) {
            for (c, value) in pixel.iter_mut().enumerate() {
                let range = self.max[c] - self.min[c];
                let range = if range > 0.0 { range } else { 1.0 };
                *value = (*value * self.divisor[c] + self.offset[c] - self.min[c]) / range;
            }
        }
    }

    /// As [`Normalization::to_unit`] for differences of values (…,C): 0 stays 0.
    #[cfg(feature = "cli")]
    pub(crate) fn change_to_unit(&self, changes: &mut [f32]) {
        for pixel in changes.chunks_exact_mut(self.offset.len()) {
            for (c, value) in pixel.iter_mut().enumerate() {
                let range = self.max[c] - self.min[c];
                *value *= self.divisor[c] / if range > 0.0 { range } else { 1.0 };
            }
        }
    }

    /// Normalises values (…,C) in the units of the samples.
    pub fn apply(&self, values: &mut [f32]) {
        for pixel in values.chunks_exact_mut(self.offset.len()) {
            for (c, value) in pixel.iter_mut().enumerate() {
                *value = (*value - self.offset[c]) / self.divisor[c];
            }
        }
    }

    /// Turns normalised values (…,C) into the units of the samples.
    pub fn undo(&self, values: &mut [f32]) {
        for pixel in values.chunks_exact_mut(self.offset.len()) {
            for (c, value) in pixel.iter_mut().enumerate() {
                *value = *value * self.divisor[c] + self.offset[c];
            }
        }
    }

    /// The encoding of samples of a type under this normalization.
    pub fn encoding(&self, sample: SampleType) -> Encoding {
        let scales = self.offset.iter().zip(&self.divisor).map(|(o, d)| [*o, *d]);
        Encoding::per_channel(sample, scales.collect())
    }
}

/// Statistics of one channel of the training samples.
#[derive(Clone, Debug)]
struct Channel {
    count: f64,
    mean: f64,
    /// Sum of squared deviations from the mean.
    spread: f64,
    min: f32,
    max: f32,
    /// Some of the values, evenly distributed, for quantiles.
    some: Vec<f32>,
}

impl Channel {
    const EMPTY: Self = Self {
        count: 0.0,
        mean: 0.0,
        spread: 0.0,
        min: f32::INFINITY,
        max: f32::NEG_INFINITY,
        some: Vec::new(),
    };

    /// Adds the values of one image (Chan, Golub and LeVeque, "Updating formulae and a pairwise
    /// algorithm for computing sample variances", 1979).
    fn add(&mut self, values: impl Iterator<Item = f32> + Clone, every: usize) {
        let (mut count, mut sum) = (0.0_f64, 0.0_f64);
        for value in values.clone() {
            count += 1.0;
            sum += f64::from(value);
            (self.min, self.max) = (self.min.min(value), self.max.max(value));
        }
        if count == 0.0 {
            return;
        }
        let mean = sum / count;
        let spread: f64 = values.clone().map(|value| (f64::from(value) - mean).powi(2)).sum();
        let (all, apart) = (self.count + count, mean - self.mean);
        self.spread += spread + apart * apart * self.count * count / all;
        self.mean += apart * count / all;
        if every > 0 {
            // The phase continues from image to image.
            let first = (every - self.count as usize % every) % every;
            self.some.extend(values.skip(first).step_by(every));
        }
        self.count = all;
    }

    /// The value at a rank from 0 to 1.
    fn quantile(&mut self, rank: f64) -> f32 {
        let at = (rank * (self.some.len() - 1) as f64).round() as usize;
        *self.some.select_nth_unstable_by(at, f32::total_cmp).1
    }

    /// Offset and divisor. The divisor is 0 for a channel without spread.
    fn scale(&mut self, method: NormalizeName) -> [f32; 2] {
        match method {
            NormalizeName::Auto | NormalizeName::None => [0.0, 1.0],
            NormalizeName::Range => [self.min, self.max - self.min],
            NormalizeName::Standard => [self.mean as f32, (self.spread / self.count).sqrt() as f32],
            NormalizeName::Robust => {
                let [low, middle, high] = [0.25, 0.5, 0.75].map(|rank| self.quantile(rank));
                [middle, (f64::from(high - low) / NORMAL_IQR) as f32]
            }
        }
    }
}

/// A normalization, and what a user must know about it.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The normalization, or `None` for the full range.
    pub normalization: Option<Normalization>,
    /// One line, or an empty text for 8-bit images at their full range.
    pub description: String,
}

/// The values that a model reconstructs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputRange {
    /// Any values.
    Unbounded,
    /// It reconstructs values in 0…1 only.
    Unit,
    /// Those of images in 0…1, whose noise has a known scale.
    Image,
}

/// Chooses the normalization of training samples.
///
/// # Errors
/// If an image cannot be read, a value is not finite, or a model of images would be normalised. The
/// message names the image.
pub fn choose(
    pixels: &Pixels,
    method: NormalizeName,
    range: Option<[f32; 2]>,
    model: OutputRange,
) -> Result<Chosen> {
    let (sample, channels) = (pixels.encoding().sample, pixels.channels());
    let is_scaled = range.is_some() || !matches!(method, NormalizeName::Auto | NormalizeName::None);
    if model == OutputRange::Image && is_scaled {
        return Err(Error::usage(
            "a restoration model needs images at their full range; remove data.normalize and \
             data.range",
        ));
    }
    if let Some([low, high]) = range {
        return Ok(Chosen {
            normalization: Some(Normalization::of_range(sample, channels, [low, high])),
            description: format!("{low} to {high} become 0 to 1 (data.range)"),
        });
    }
    let as_they_are = matches!(method, NormalizeName::None)
        || matches!(method, NormalizeName::Auto) && sample == SampleType::U8;
    if as_they_are && sample.is_integer() {
        return Ok(Chosen { normalization: None, description: String::new() });
    }
    let mut channels = statistics(pixels, matches!(method, NormalizeName::Robust))?;
    let min = channels.iter().fold(f32::INFINITY, |min, channel| min.min(channel.min));
    let max = channels.iter().fold(f32::NEG_INFINITY, |max, channel| max.max(channel.max));
    let found = format!("{} samples from {min} to {max}", sample.name());
    let natural = match sample {
        SampleType::U8 | SampleType::U16 => max >= sample.full_scale() / 2.0,
        SampleType::F16 | SampleType::F32 => min >= 0.0 && max <= 1.0,
    };
    if model == OutputRange::Image && !sample.is_integer() && !natural {
        return Err(Error::usage(format!(
            "{found}, but a restoration model needs values from 0 to 1; rescale the images"
        )));
    }
    let method = match method {
        NormalizeName::Auto if natural => NormalizeName::None,
        NormalizeName::Auto if model == OutputRange::Image => NormalizeName::None,
        NormalizeName::Auto if model == OutputRange::Unit => NormalizeName::Range,
        NormalizeName::Auto => NormalizeName::Standard,
        method => method,
    };
    let how = match method {
        NormalizeName::Auto | NormalizeName::None => {
            let full = match sample {
                SampleType::U8 | SampleType::U16 => {
                    format!("0 to {} become 0 to 1", sample.full_scale())
                }
                SampleType::F16 | SampleType::F32 => "kept as they are".to_owned(),
            };
            return Ok(Chosen { normalization: None, description: format!("{found}: {full}") });
        }
        NormalizeName::Range => "the range of each channel becomes 0 to 1",
        NormalizeName::Standard => "each channel gets mean 0 and standard deviation 1",
        NormalizeName::Robust => "each channel gets median 0 and interquartile range 1.349",
    };
    let scales: Vec<[f32; 2]> = channels.iter_mut().map(|channel| channel.scale(method)).collect();
    let flat: Vec<String> =
        (0..scales.len()).filter(|c| scales[*c][1] <= 0.0).map(|c| c.to_string()).collect();
    let constant = match flat.len() {
        0 => String::new(),
        1 => format!("; channel {} is constant and becomes 0", flat[0]),
        _ => format!("; channels {} are constant and become 0", flat.join(", ")),
    };
    let divisor = |scale: &[f32; 2]| if scale[1] > 0.0 { scale[1] } else { 1.0 };
    Ok(Chosen {
        normalization: Some(Normalization {
            samples: sample.name().to_owned(),
            offset: scales.iter().map(|scale| scale[0]).collect(),
            divisor: scales.iter().map(divisor).collect(),
            min: channels.iter().map(|channel| channel.min).collect(),
            max: channels.iter().map(|channel| channel.max).collect(),
        }),
        description: format!("{found}: {how} ({}){constant}", method.name()),
    })
}

/// Refuses values (…,C) that are not finite.
///
/// # Errors
/// If there is one. The message has its position in an image of `width` columns.
pub(crate) fn check_finite(values: &[f32], c: usize, width: usize) -> Result<()> {
    let Some(at) = values.iter().position(|value| !is_value(*value)) else { return Ok(()) };
    let pixel = at / c;
    Err(Error::usage(format!(
        "the value at row {}, column {}, channel {} is {:?}; replace it, or {}",
        pixel / width,
        pixel % width,
        at % c,
        values[at],
        Advice::ZeroNan
    )))
}

/// Statistics of each channel.
fn statistics(pixels: &Pixels, quantiles: bool) -> Result<Vec<Channel>> {
    let (sample, c) = (pixels.encoding().sample, pixels.channels());
    let mut all = vec![Channel::EMPTY; c];
    let count: usize = pixels.sizes().map(|size| size.area()).sum();
    let every = if quantiles { count.div_ceil(QUANTILE_VALUES).max(1) } else { 0 };
    let mut handles = Handles::default();
    for image in 0..pixels.len() {
        let values = sample.values(&pixels.read(image, &mut handles)?);
        if pixels.encoding().nan == NanName::Error {
            check_finite(&values, c, pixels.size(image).w).map_err(|e| e.at(pixels.name(image)))?;
        }
        for (channel, of) in all.iter_mut().enumerate() {
            let own = values.iter().skip(channel).step_by(c).copied();
            of.add(own.filter(|value| is_value(*value)), every);
        }
    }
    if let Some(empty) = all.iter().position(|channel| channel.count == 0.0) {
        return Err(Error::usage(format!(
            "channel {empty} has no finite value; remove the channel"
        )));
    }
    Ok(all)
}
