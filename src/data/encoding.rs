//! How the samples of images are stored, and what their values are.

use std::borrow::Cow;

use super::normalization::NanName;
use crate::error::{Error, Result};
use crate::sample_type::{MISSING, SampleType, is_value};
use crate::shape::{Dims, Size};

/// How stored samples become the values that a model sees: value = (sample − offset) / divisor.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoding {
    /// The type of the stored samples.
    pub sample: SampleType,
    /// Offset and divisor of each channel, or one pair for all channels.
    scales: Vec<[f32; 2]>,
    /// What happens to values that are not finite.
    pub nan: NanName,
}

impl Default for Encoding {
    fn default() -> Self {
        Self::full_range(SampleType::U8)
    }
}

impl Encoding {
    /// The full range of an integer type becomes 0…1. Floats are kept.
    pub fn full_range(sample: SampleType) -> Self {
        Self { sample, scales: vec![[0.0, sample.full_scale()]], nan: NanName::Error }
    }

    /// An offset and a divisor for each channel.
    ///
    /// # Panics
    /// If there is no channel.
    pub fn per_channel(sample: SampleType, scales: Vec<[f32; 2]>) -> Self {
        assert!(!scales.is_empty(), "an encoding of at least one channel");
        Self { sample, scales, nan: NanName::Error }
    }

    /// Offset and divisor of a channel.
    #[inline]
    pub fn scale(&self, channel: usize) -> [f32; 2] {
        self.scales[if self.scales.len() == 1 { 0 } else { channel }]
    }

    /// Size of a pixel of `channels` in bytes.
    pub const fn pixel(&self, channels: usize) -> usize {
        channels * self.sample.size()
    }

    /// Appends the values of stored pixels (…,C) of `channels`. With [`NanName::Mask`], those that
    /// are not finite become [`MISSING`].
    pub fn decode_into(&self, raw: &[u8], channels: usize, out: &mut Vec<f32>) {
        if let ([[offset, divisor]], SampleType::U8) = (&self.scales[..], self.sample) {
            let [offset, divisor] = [*offset, *divisor].map(f64::from);
            let value = |byte: u8| ((f64::from(byte) - offset) / divisor) as f32;
            let values: Vec<f32> = (0..=u8::MAX).map(value).collect();
            out.extend(raw.iter().map(|byte| values[usize::from(*byte)]));
            return;
        }
        out.reserve(raw.len() / self.sample.size());
        for pixel in raw.chunks_exact(self.pixel(channels)) {
            for (c, sample) in pixel.chunks_exact(self.sample.size()).enumerate() {
                // In f64 and rounded once, like the CPU twin of `gather_batch`.
                let [offset, divisor] = self.scale(c).map(f64::from);
                let sample = self.sample.value(sample);
                let value = ((f64::from(sample) - offset) / divisor) as f32;
                out.push(match self.nan {
                    _ if is_value(sample) => value,
                    NanName::Error => value,
                    NanName::Zero => 0.0,
                    NanName::Mask => MISSING,
                });
            }
        }
    }

    /// The values of stored pixels (…,C) of `channels`.
    pub fn decode(&self, raw: &[u8], channels: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(raw.len() / self.sample.size());
        self.decode_into(raw, channels, &mut out);
        out
    }

    /// Replaces stored samples (…,C) that are not finite by those of the value 0, if
    /// [`Encoding::nan`] says so.
    pub fn replace_nan<'r>(&self, raw: &'r [u8], channels: usize) -> Cow<'r, [u8]> {
        let size = self.sample.size();
        let is_finite = |sample| is_value(self.sample.value(sample));
        if self.nan != NanName::Zero || raw.chunks_exact(size).all(is_finite) {
            return Cow::Borrowed(raw);
        }
        let mut out = Vec::with_capacity(raw.len());
        for (at, sample) in raw.chunks_exact(size).enumerate() {
            let value = self.sample.value(sample);
            let [offset, _] = self.scale(at % channels);
            self.sample.push(if is_value(value) { value } else { offset }, &mut out);
        }
        Cow::Owned(out)
    }

    /// The scales for the device: offset and divisor of each of `channels`, as bits.
    pub fn words(&self, channels: usize) -> Vec<u32> {
        (0..channels).flat_map(|c| self.scale(c)).map(f32::to_bits).collect()
    }

    /// Converts stored pixels between gray (1 channel) and RGB (3 channels). Gray is repeated. RGB
    /// becomes the full-range luma of BT.601, 0.299 R + 0.587 G + 0.114 B; integers are rounded.
    ///
    /// # Errors
    /// If the channels differ and are not 1 and 3.
    pub fn convert_channels(&self, raw: Vec<u8>, from: usize, to: usize) -> Result<Vec<u8>> {
        let size = self.sample.size();
        Ok(match (from, to) {
            (from, to) if from == to => raw,
            (1, 3) => {
                raw.chunks_exact(size).flat_map(|sample| [sample; 3]).flatten().copied().collect()
            }
            (3, 1) => match self.sample {
                SampleType::U8 => raw.chunks_exact(3).map(luma_of_bytes).collect(),
                sample => {
                    let mut gray = Vec::with_capacity(raw.len() / 3);
                    for pixel in raw.chunks_exact(3 * size) {
                        let [r, g, b] = [0, 1, 2].map(|c| sample.value(&pixel[c * size..]));
                        sample.push(0.299 * r + 0.587 * g + 0.114 * b, &mut gray);
                    }
                    gray
                }
            },
            (from, to) => return Err(cannot_convert(from, to)),
        })
    }

    /// Resizes stored pixels with Catmull–Rom interpolation, antialiased when shrinking.
    pub fn resize(&self, raw: &[u8], from: Dims, to: Size) -> Vec<u8> {
        if from.size() == to {
            return raw.to_vec();
        }
        match self.sample {
            SampleType::U8 => super::images::resize(raw, from, to),
            sample => {
                let values = crate::raster::resample::imresize_to(&sample.values(raw), from, to);
                sample.bytes(values)
            }
        }
    }
}

/// The error for channels that cannot be converted.
pub(super) fn cannot_convert(from: usize, to: usize) -> Error {
    Error::usage(format!(
        "images of {from} channels cannot be converted to {to}; only gray (1) and RGB (3) can be \
         converted into each other"
    ))
}

/// BT.601 luma in 16-bit fixed point. The weights sum to 65536, so that equal channels give the
/// same value.
fn luma_of_bytes(p: &[u8]) -> u8 {
    ((19_595 * u32::from(p[0]) + 38_470 * u32::from(p[1]) + 7_471 * u32::from(p[2]) + 32_768) >> 16)
        as u8
}
