//! A set of images that grows while files are decoded, and is streamed if it becomes too large.

use super::LoadOptions;
use super::formats::decode::{Stored, mixed_types};
use super::images::Images;
use crate::error::{Error, Result};
use crate::sample_type::SampleType;
use crate::shape::{Dims, Size};

/// The images decoded so far.
pub(super) struct Accumulator {
    /// The pixels, or `None` once they exceed the limit.
    pub images: Option<Images>,
    /// Number of channels of the set.
    pub channels: usize,
    /// The type of the samples, once there is an image.
    pub sample: Option<SampleType>,
    /// Height and width of each image.
    pub sizes: Vec<[u32; 2]>,
    /// Whether the set becomes RGB with the first colour image.
    infer_channels: bool,
    /// The index of the file of each image.
    pub indices: Vec<usize>,
    /// Maximum memory for decoding an image, in bytes.
    pub decoding: u64,
    /// Maximum size of the pixels in memory, in bytes.
    limit: u64,
}

impl Accumulator {
    /// No images so far. `source` is for messages.
    ///
    /// # Errors
    /// If `want.channels` is neither 1 nor 3.
    pub fn new(source: &str, want: &LoadOptions, limit: u64) -> Result<Self> {
        if let Some(channels) = want.channels.filter(|c| ![1, 3].contains(c)) {
            return Err(Error::usage(format!(
                "{source}: image files have 1 channel (gray) or 3 (RGB), not {channels}; change \
                 the model's channels"
            )));
        }
        let channels = want.channels.unwrap_or(1);
        Ok(Self {
            images: Some(Images::new(channels)),
            channels,
            sample: None,
            sizes: Vec::new(),
            infer_channels: want.channels.is_none(),
            indices: Vec::new(),
            decoding: 0,
            limit,
        })
    }

    /// Adds an image. Its pixels are empty if they are known not to fit. Without given channels the
    /// set is gray until the first colour image. It has 8 bits until the first image of 16 bits.
    ///
    /// # Errors
    /// If one image has integers and another one floats.
    pub fn push(&mut self, index: usize, decoded: Stored, cost: u64) -> Result<()> {
        let sample = match self.sample {
            None => decoded.sample,
            Some(SampleType::U8) if decoded.sample == SampleType::U16 => decoded.sample,
            Some(sample) => sample,
        };
        if sample.is_integer() != decoded.sample.is_integer() {
            return Err(mixed_types(decoded.sample, sample));
        }
        let wider = self.sample.is_some_and(|before| before != sample);
        self.sample = Some(sample);
        let Dims { c, h, w } = decoded.dims;
        let before = self.channels;
        if self.infer_channels && c > before {
            self.channels = c;
        }
        let channels = self.channels;
        self.indices.push(index);
        self.decoding = self.decoding.max(cost);
        self.sizes.push([h as u32, w as u32]);
        let held = self.images.as_ref().map_or(0, |images| {
            let wider = if wider { 2 } else { 1 };
            images.bytes.len() / before * channels * wider
        });
        let own = h * w * channels * sample.size();
        if decoded.pixels.is_empty() || (held + own) as u64 > self.limit {
            self.images = None;
        }
        if let Some(images) = &mut self.images {
            images.convert_channels(channels)?;
            if images.is_empty() {
                *images = Images::of_type(channels, sample);
            } else if wider {
                images.widen()?;
            }
            images.push(String::new(), Size { h, w }, &decoded.into_stored(channels, sample)?)?;
        }
        Ok(())
    }
}
