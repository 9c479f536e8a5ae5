//! Images in memory or in their files, whichever it is.

use std::borrow::Cow;
use std::sync::Arc;

use super::catalogue::{Catalogue, Handles};
use super::images::Images;
use crate::error::Result;

/// Images in memory, or in their files.
#[derive(Clone, Debug)]
pub enum Pixels {
    /// All in memory.
    Resident(Images),
    /// Read when they are needed.
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

    /// Channels of every image.
    pub fn channels(&self) -> usize {
        match self {
            Self::Resident(images) => images.channels,
            Self::Streamed(catalogue) => catalogue.channels,
        }
    }

    /// Bytes in the host's memory: pixels, where they are there, and lists.
    pub fn held_bytes(&self) -> u64 {
        match self {
            Self::Resident(images) => images.held_bytes(),
            Self::Streamed(catalogue) => catalogue.held_bytes(),
        }
    }

    /// Bytes that reading one image takes at most, beside those held.
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

    /// The pixels of an image, H,W,C.
    ///
    /// # Errors
    /// When its file does not give it (any more), with the file's name.
    pub fn read(&self, image: usize, handles: &mut Handles) -> Result<Cow<'_, [u8]>> {
        Ok(match self {
            Self::Resident(images) => Cow::Borrowed(images.image(image)),
            Self::Streamed(catalogue) => Cow::Owned(catalogue.read(image, handles)?),
        })
    }

    /// Height and width of an image.
    pub fn size(&self, image: usize) -> (usize, usize) {
        match self {
            Self::Resident(images) => (images.table[image].h, images.table[image].w),
            Self::Streamed(catalogue) => catalogue.size(image),
        }
    }

    /// Heights and widths.
    pub fn sizes(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.len()).map(|image| self.size(image))
    }

    /// Whether an image comes from the same file as the one before it, as patches do.
    pub fn follows(&self, image: usize) -> bool {
        match self {
            Self::Resident(images) => image > 0 && images.names[image] == images.names[image - 1],
            Self::Streamed(catalogue) => catalogue.follows(image),
        }
    }

    /// The common size (height, width), if there is one.
    pub fn common_size(&self) -> Option<(usize, usize)> {
        match self {
            Self::Resident(images) => images.common_size(),
            Self::Streamed(catalogue) => catalogue.common_size(),
        }
    }
}
