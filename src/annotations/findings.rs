//! Odd annotations that are skipped or corrected, counted by kind.

use crate::error::{Error, Result};

/// A kind of odd annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// It has no box, or an empty one.
    NoBox,
    /// Its box is not four numbers.
    InvalidBox,
    /// It refers to an image that is not in its file.
    UnknownImage,
    /// It refers to a category that is not in its file.
    UnknownCategory,
    /// An image has no id or no file name.
    UnnamedImage,
    /// Two images have the same id. The boxes with this id belong to the later one.
    RepeatedId,
    /// Several annotations could belong to an image, or the reverse.
    Ambiguous,
    /// The boxes are for an image of another shape.
    OtherShape,
    /// The boxes are for another size of the same shape.
    OtherSize,
    /// The boxes are for the image as stored, and its EXIF orientation turns it.
    Turned,
    /// The corners of a box are in the wrong order.
    SwappedCorners,
    /// An image has the same box of the same class twice.
    Repeated,
}

impl Oddity {
    /// Whether it is a fault of the annotations. A strict reader refuses faults.
    pub const fn is_fault(self) -> bool {
        match self {
            Self::OtherSize | Self::Turned => false,
            Self::NoBox
            | Self::InvalidBox
            | Self::UnknownImage
            | Self::UnknownCategory
            | Self::UnnamedImage
            | Self::RepeatedId
            | Self::Ambiguous
            | Self::OtherShape
            | Self::SwappedCorners
            | Self::Repeated => true,
        }
    }

    /// A message that `n` of them were skipped or corrected.
    pub fn describe(self, n: usize) -> String {
        let count =
            |one: &str, several: &str| format!("{n} {}", if n == 1 { one } else { several });
        let (annotations, images) = (count("annotation", "annotations"), count("image", "images"));
        let boxes = count("box", "boxes");
        match self {
            Self::NoBox => format!("skipped {annotations} without a box"),
            Self::InvalidBox => format!("skipped {annotations} with an invalid box"),
            Self::UnknownImage => format!("skipped {annotations} of an unknown image"),
            Self::UnknownCategory => format!("skipped {annotations} of an unknown category"),
            Self::UnnamedImage => format!("skipped {images} without an id or a file name"),
            Self::RepeatedId => {
                let ids = count("id", "ids");
                format!("{ids} of several images: the boxes are taken for the last image")
            }
            Self::Ambiguous => format!("skipped {images} with several possible annotations"),
            Self::OtherShape => format!("skipped {images} of another shape than annotated"),
            Self::OtherSize => format!("scaled the boxes of {images} to the size of the image"),
            Self::Turned => format!("turned the boxes of {images} by the EXIF orientation"),
            Self::SwappedCorners => format!("put the corners of {boxes} in order"),
            Self::Repeated => format!("dropped {} that occur twice", boxes),
        }
    }
}

/// The odd annotations of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Their kind.
    pub oddity: Oddity,
    /// For each of them, where it is and what is wrong.
    pub places: Vec<String>,
}

/// Odd annotations by kind, in the order in which the kinds were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Adds an odd annotation.
    pub fn add(&mut self, oddity: Oddity, place: String) {
        match self.0.iter_mut().find(|finding| finding.oddity == oddity) {
            Some(finding) => finding.places.push(place),
            None => self.0.push(Finding { oddity, places: vec![place] }),
        }
    }

    /// The findings, one per kind.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }

    /// Fails if there is a fault.
    ///
    /// # Errors
    /// The first fault.
    pub fn refuse_faults(&self) -> Result<()> {
        match self.0.iter().find(|finding| finding.oddity.is_fault()) {
            Some(finding) => Err(Error::usage(finding.places[0].clone())),
            None => Ok(()),
        }
    }
}
