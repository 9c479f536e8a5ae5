//! Images that are either in memory or streamed from their files, behind one interface.

use std::borrow::Cow;
use std::sync::Arc;

use super::catalogue::{Catalogue, Handles};
use super::encoding::Encoding;
use super::images::Images;
use super::missing;
use super::normalization::{NanName, Normalization, check_finite};
use crate::error::Result;
use crate::sample_type::is_value;
use crate::shape::{Dims, Size};

/// A set of images, in memory or in files.
#[derive(Clone, Debug)]
pub enum Pixels {
    /// All images are in memory.
    Resident(Images),
    /// Images are read from their files when they are needed.
    Streamed(Arc<Catalogue>),
}

impl Pixels {
    /// Number of images.
    pub fn len(&self) -> usize {
        match self {
            Self::Resident(images) => images.len(),
            Self::Streamed(catalogue) => catalogue.len(),
        }
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of channels of every image.
    pub fn channels(&self) -> usize {
        match self {
            Self::Resident(images) => images.channels,
            Self::Streamed(catalogue) => catalogue.channels,
        }
    }

    /// The host memory of the set, in bytes: the pixels in memory, and the tables.
    pub fn held_bytes(&self) -> u64 {
        match self {
            Self::Resident(images) => images.held_bytes(),
            Self::Streamed(catalogue) => catalogue.held_bytes(),
        }
    }

    /// Maximum memory for reading one image, in bytes, in addition to [`Pixels::held_bytes`].
    pub fn reading_bytes(&self) -> u64 {
        match self {
            Self::Resident(_) => 0,
            Self::Streamed(catalogue) => catalogue.reading_bytes(),
        }
    }

    /// The name of an image: its path inside the folder, or its number inside a file.
    pub fn name(&self, image: usize) -> String {
        match self {
            Self::Resident(images) => images.names[image].clone(),
            Self::Streamed(catalogue) => catalogue.name(image),
        }
    }

    /// The type of the samples, and what their values are.
    pub fn encoding(&self) -> &Encoding {
        match self {
            Self::Resident(images) => &images.encoding,
            Self::Streamed(catalogue) => &catalogue.encoding,
        }
    }

    /// Sets what happens to values that are not finite.
    pub fn set_nan(&mut self, nan: NanName) {
        match self {
            Self::Resident(images) => images.encoding.nan = nan,
            Self::Streamed(catalogue) => Arc::make_mut(catalogue).encoding.nan = nan,
        }
    }

    /// The share of values that are not finite, if the images are in memory and can have such.
    pub fn share_missing(&self) -> Option<f64> {
        let Self::Resident(images) = self else { return None };
        let sample = images.encoding.sample;
        if sample.is_integer() || images.bytes.is_empty() {
            return None;
        }
        let values = images.bytes.chunks_exact(sample.size());
        let count = values.len();
        let missing = values.filter(|value| !is_value(sample.value(value))).count();
        Some(missing as f64 / count as f64)
    }

    /// Refuses images in memory with values that are not finite. Streamed ones are checked when
    /// they are read.
    ///
    /// # Errors
    /// If there is such a value. The message names the image.
    pub fn refuse_nan(&self) -> Result<()> {
        let Self::Resident(images) = self else { return Ok(()) };
        if images.encoding.sample.is_integer() {
            return Ok(());
        }
        (0..images.len()).try_for_each(|i| {
            let values = images.encoding.sample.values(images.image(i));
            check_finite(&values, images.channels, images.table[i].size.w)
                .map_err(|e| e.at(&images.names[i]))
        })
    }

    /// Sets the offset and divisor of each channel.
    ///
    /// # Errors
    /// If the normalization has other channels.
    pub fn normalize(&mut self, normalization: &Normalization) -> Result<()> {
        normalization.check(self.channels())?;
        let mut encoding = normalization.encoding(self.encoding().sample);
        encoding.nan = self.encoding().nan;
        match self {
            Self::Resident(images) => images.encoding = encoding,
            Self::Streamed(catalogue) => Arc::make_mut(catalogue).encoding = encoding,
        }
        Ok(())
    }

    /// The values of an image (H,W,C). Missing ones are filled ([`missing::fill`]).
    ///
    /// # Errors
    /// If its file cannot be read any more, or has changed. The message names the file.
    pub fn values(&self, image: usize, handles: &mut Handles) -> Result<Vec<f32>> {
        Ok(self.values_and_missing(image, handles)?.0)
    }

    /// As [`Pixels::values`], and where values were missing (H,W,C), if they were.
    ///
    /// # Errors
    /// As [`Pixels::values`].
    pub fn values_and_missing(
        &self,
        image: usize,
        handles: &mut Handles,
    ) -> Result<(Vec<f32>, Option<Vec<bool>>)> {
        let mut values = self.encoding().decode(&self.read(image, handles)?, self.channels());
        let missing = missing::fill(&mut values, Dims::of(self.size(image), self.channels()));
        Ok((values, missing))
    }

    /// The stored pixels of an image (H,W,C).
    ///
    /// # Errors
    /// If its file cannot be read any more, or has changed. The message names the file.
    pub fn read(&self, image: usize, handles: &mut Handles) -> Result<Cow<'_, [u8]>> {
        Ok(match self {
            Self::Resident(images) => Cow::Borrowed(images.image(image)),
            Self::Streamed(catalogue) => Cow::Owned(catalogue.read(image, handles)?),
        })
    }

    /// Height and width of an image.
    pub fn size(&self, image: usize) -> Size {
        match self {
            Self::Resident(images) => images.table[image].size,
            Self::Streamed(catalogue) => catalogue.size(image),
        }
    }

    /// Height and width of each image.
    pub fn sizes(&self) -> impl Iterator<Item = Size> {
        (0..self.len()).map(|image| self.size(image))
    }

    /// Whether an image comes from the same file as the previous image, as patches can.
    pub fn shares_file_with_previous(&self, image: usize) -> bool {
        match self {
            Self::Resident(images) => image > 0 && images.names[image] == images.names[image - 1],
            Self::Streamed(catalogue) => catalogue.shares_file_with_previous(image),
        }
    }

    /// The size that all images have. `None` if sizes differ, or without images.
    pub fn common_size(&self) -> Option<Size> {
        match self {
            Self::Resident(images) => images.common_size(),
            Self::Streamed(catalogue) => catalogue.common_size(),
        }
    }
}
