//! The published test protocols of image restoration: which images are degraded how, how results
//! are scored, and the published results.
//!
//! - Denoising: noise N(0, σ²) on the 0–255 scale, neither clipped nor quantised, with a fixed seed
//!   for each image. The score is the PSNR of the clipped result, of colour images over all
//!   channels, averaged over images.
//! - Super-resolution, as in SRCNN's code: BT.601 luma is rounded to 8 bits, cropped to a multiple
//!   of the scale, and shrunk by MATLAB's bicubic interpolation in floating point. The result is
//!   rounded to 8 bits, and `scale` pixels at each border are cut off.
//! - Inpainting (`inpaint50`): eight images of Set12 with exactly half of the pixels missing at
//!   random. The score is the PSNR over all pixels of the clipped result.
//! - JPEG artefacts: BT.601 luma, compressed as a gray baseline JPEG file of this quality. The
//!   result is rounded to 8 bits.

mod degrade;
mod published;
mod report;

use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use degrade::{Degradation, Degraded, clean, degrade, score};
pub use published::{Published, published};
pub use report::{DegradationResult, ProtocolReport, Restored, Score, run};

use self::published::PublishedRow;
use crate::data::formats::content::EXTENSIONS;
use crate::error::{Error, Result, did_you_mean};
use crate::names::names;
use crate::spec::Task;

names! {
    /// A published protocol.
    pub enum Protocol {
        /// Gray denoising on the 68 test images of the Berkeley segmentation data (Roth & Black
        /// 2009).
        Bsd68 = "bsd68",
        /// Gray denoising on twelve classical images (Zhang et al. 2017).
        Set12 = "set12",
        /// Colour denoising on the images of `bsd68` in colour.
        Cbsd68 = "cbsd68",
        /// Colour denoising on 24 photographs (Franzen 1999).
        Kodak24 = "kodak24",
        /// Colour denoising on 18 images with strong colours (Zhang et al. 2011).
        Mcmaster = "mcmaster",
        /// Super-resolution on five images (Bevilacqua et al. 2012).
        Set5 = "set5",
        /// Super-resolution on fourteen images (Zeyde et al. 2010).
        Set14 = "set14",
        /// Super-resolution on 100 test images of the Berkeley segmentation data (Martin et al.
        /// 2001).
        Bsd100 = "bsd100",
        /// Super-resolution on 100 photographs of buildings (Huang et al. 2015).
        Urban100 = "urban100",
        /// Inpainting of half of the pixels on eight images of Set12 (Heide et al. 2015, Papyan et
        /// al. 2017).
        Inpaint50 = "inpaint50",
        /// JPEG artefacts on five classical gray images (Foi et al. 2007).
        Classic5 = "classic5",
        /// JPEG artefacts on the luma of 29 photographs (Sheikh et al. 2005).
        Live1 = "live1",
    }
}

/// What a protocol tests.
struct Row {
    /// Number of images.
    count: usize,
    /// How images are read.
    pixels: Pixels,
    degradations: &'static [Degradation],
    published: &'static [PublishedRow],
}

/// How a protocol reads its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pixels {
    /// Gray with the full range of luma.
    Gray,
    /// BT.601 luma from 16 to 235 of colour images, rounded. Gray images are luma already.
    Luma,
    /// Red, green and blue.
    Colour,
}

const NOISE: &[Degradation] =
    &[Degradation::Sigma(15.0), Degradation::Sigma(25.0), Degradation::Sigma(50.0)];
const SHRUNK: &[Degradation] =
    &[Degradation::Scale(2), Degradation::Scale(3), Degradation::Scale(4)];

const COMPRESSED: &[Degradation] = &[
    Degradation::Quality(10),
    Degradation::Quality(20),
    Degradation::Quality(30),
    Degradation::Quality(40),
];
const HALF: &[Degradation] = &[Degradation::Missing(0.5)];

impl Protocol {
    /// The description. A protocol is a row.
    #[rustfmt::skip]
    const fn row(self) -> Row {
        let (count, pixels, degradations, published) = match self {
            Self::Bsd68 => (68, Pixels::Gray, NOISE, published::BSD68),
            Self::Set12 => (12, Pixels::Gray, NOISE, published::SET12),
            Self::Cbsd68 => (68, Pixels::Colour, NOISE, published::CBSD68),
            Self::Kodak24 => (24, Pixels::Colour, NOISE, published::KODAK24),
            Self::Mcmaster => (18, Pixels::Colour, NOISE, published::MCMASTER),
            Self::Set5 => (5, Pixels::Luma, SHRUNK, published::SET5),
            Self::Set14 => (14, Pixels::Luma, SHRUNK, published::SET14),
            Self::Bsd100 => (100, Pixels::Luma, SHRUNK, published::BSD100),
            Self::Urban100 => (100, Pixels::Luma, SHRUNK, published::URBAN100),
            Self::Inpaint50 => (INPAINTED.len(), Pixels::Gray, HALF, published::INPAINT50),
            Self::Classic5 => (5, Pixels::Luma, COMPRESSED, published::CLASSIC5),
            Self::Live1 => (29, Pixels::Luma, COMPRESSED, published::LIVE1),
        };
        Row { count, pixels, degradations, published }
    }

    /// The restoration task that it tests.
    pub const fn task(self) -> Task {
        match self.row().degradations[0] {
            Degradation::Sigma(_) => Task::Denoise,
            Degradation::Scale(_) => Task::Upscale,
            Degradation::Missing(_) => Task::Inpaint,
            Degradation::Quality(_) => Task::Dejpeg,
        }
    }

    /// The degradations that it tests. Each one has its own mean score.
    pub const fn degradations(self) -> &'static [Degradation] {
        self.row().degradations
    }

    /// Paths of the test images in a folder, sorted by name. For inpainting the folder is Set12, or
    /// has the eight images under their names; the other images are ignored.
    ///
    /// # Errors
    /// When the folder cannot be read, or does not have the number of images of the test set.
    pub fn images(self, folder: &Path) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder).map_err(|error| Error::io(folder, &error))?;
        let entries: Vec<_> =
            entries.collect::<Result<_, _>>().map_err(|error| Error::io(folder, &error))?;
        let is_image = |path: &PathBuf| {
            let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            let hidden =
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            EXTENSIONS.contains(&&ending[..]) && !hidden
        };
        let mut files: Vec<PathBuf> =
            entries.into_iter().map(|entry| entry.path()).filter(is_image).collect();
        files.sort();
        if self == Self::Inpaint50 {
            let stem = |file: &PathBuf| {
                file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase()
            };
            files.retain(|file| {
                INPAINTED.iter().any(|(number, name)| [*number, *name].contains(&&stem(file)[..]))
            });
        }
        if files.len() != self.row().count {
            return Err(Error::usage(format!(
                "{}: {} images of {} instead of {}; name the folder that contains exactly this \
                 test set",
                folder.display(),
                files.len(),
                self.name(),
                self.row().count
            )));
        }
        Ok(files)
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::named(name).ok_or_else(|| {
            Error::usage(format!(
                "protocol {name:?} is unknown: use one of {}{}",
                Self::names().collect::<Vec<_>>().join(", "),
                did_you_mean(name, Self::names())
            ))
        })
    }
}

/// The eight test images of inpainting: number in Set12, and name.
const INPAINTED: [(&str, &str); 8] = [
    ("01", "cameraman"),
    ("02", "house"),
    ("03", "peppers"),
    ("08", "lena"),
    ("09", "barbara"),
    ("10", "boat"),
    ("11", "man"),
    ("12", "couple"),
];

#[cfg(test)]
mod tests;
