//! The published test protocols of image restoration: which images are degraded how, how results
//! are scored, and the published results.
//!
//! - Denoising (`bsd68`, `set12`): noise N(0, σ²) on the 0–255 scale, neither clipped nor
//!   quantised, with a fixed seed for each image. The score is the PSNR of the clipped result,
//!   averaged over images.
//! - Super-resolution (`set5`, `set14`), as in SRCNN's code: BT.601 luma is rounded to 8 bits,
//!   cropped to a multiple of the scale, and shrunk by MATLAB's bicubic interpolation in floating
//!   point. The result is rounded to 8 bits, and `scale` pixels at each border are cut off.
//! - Inpainting (`inpaint50`): eight images of Set12 with exactly half of the pixels missing at
//!   random. The score is the PSNR over all pixels of the clipped result.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

use crate::data::formats::content::EXTENSIONS;
use crate::data::formats::decode::decode_file;
use crate::error::{Error, Result, did_you_mean};
use crate::metrics::quality;
use crate::names::names;
use crate::raster::color;
use crate::raster::corrupt;
use crate::raster::corrupt::{Mask, MaskKind};
use crate::raster::resample::{imresize, quantise};
use crate::report::picture::Picture;
use crate::shape::{Dims, Size};
use crate::spec::Task;
use crate::tasks::restore::published::{Published, published};

names! {
    /// A published protocol.
    pub enum Protocol {
        /// Gray denoising on the 68 test images of the Berkeley segmentation data (Roth & Black
        /// 2009).
        Bsd68 = "bsd68",
        /// Gray denoising on twelve classical images (Zhang et al. 2017).
        Set12 = "set12",
        /// Super-resolution on five images (Bevilacqua et al. 2012).
        Set5 = "set5",
        /// Super-resolution on fourteen images (Zeyde et al. 2010).
        Set14 = "set14",
        /// Inpainting of half of the pixels on eight images of Set12 (Heide et al. 2015, Papyan et
        /// al. 2017).
        Inpaint50 = "inpaint50",
    }
}

/// A degradation of clean images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Degradation {
    /// White Gaussian noise of this standard deviation on the 0–255 scale.
    Sigma(f64),
    /// Down-scaling by this factor.
    Scale(usize),
    /// Missing pixels, this share of all.
    Missing(f64),
}

impl Protocol {
    /// The restoration task that it tests.
    pub const fn task(self) -> Task {
        match self {
            Self::Bsd68 | Self::Set12 => Task::Denoise,
            Self::Set5 | Self::Set14 => Task::Upscale,
            Self::Inpaint50 => Task::Inpaint,
        }
    }

    /// The degradations that it tests. Each one has its own mean score.
    pub fn degradations(self) -> Vec<Degradation> {
        match self {
            Self::Bsd68 | Self::Set12 => [15.0, 25.0, 50.0].map(Degradation::Sigma).to_vec(),
            Self::Set5 | Self::Set14 => [2, 3, 4].map(Degradation::Scale).to_vec(),
            Self::Inpaint50 => vec![Degradation::Missing(0.5)],
        }
    }

    /// Number of images.
    fn count(self) -> usize {
        match self {
            Self::Bsd68 => 68,
            Self::Set12 => 12,
            Self::Set5 => 5,
            Self::Set14 => 14,
            Self::Inpaint50 => INPAINTED.len(),
        }
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
        if files.len() != self.count() {
            return Err(Error::usage(format!(
                "{}: {} images of {} instead of {}; name the folder that contains exactly this \
                 test set",
                folder.display(),
                files.len(),
                self.name(),
                self.count()
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

impl fmt::Display for Degradation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sigma(sigma) => write!(f, "sigma {sigma}"),
            Self::Scale(scale) => write!(f, "x{scale}"),
            Self::Missing(share) => write!(f, "{:.0} % missing", share * 100.0),
        }
    }
}

/// A degraded image: the input of a restorer.
#[derive(Clone, Debug)]
pub struct Degraded {
    /// The degraded gray image. Noisy values can exceed the 0–1 scale. Missing pixels are 0. A
    /// down-scaled image is small, and the restorer must return it `scale` times as large.
    pub picture: Picture,
    /// The degradation.
    pub degradation: Degradation,
    /// Mask of missing pixels, if there are any.
    pub mask: Option<Mask>,
}

/// Degrades a clean gray image. `image`, its number in the test set, seeds its noise or mask.
/// Returns the reference for scoring, which is the clean image cropped to a multiple of the scale,
/// and the degraded image.
///
/// # Errors
/// When the image is smaller than the scale.
pub fn degrade(
    clean: &Picture,
    degradation: Degradation,
    seed: u64,
    image: usize,
) -> Result<(Picture, Degraded)> {
    assert_eq!(clean.dims.c, 1, "the protocols use gray images");
    let mut reference = clean.clone();
    let mut mask = None;
    let picture = match degradation {
        Degradation::Sigma(sigma) => {
            let mut noisy = clean.clone();
            corrupt::add_noise(
                &mut noisy.pixels,
                sigma,
                &mut corrupt::stream(seed, "noise", image),
            );
            noisy
        }
        Degradation::Missing(share) => {
            let missing = MaskKind::Pixels.draw(
                clean.dims.size(),
                share,
                &mut corrupt::stream(seed, "mask", image),
            );
            let mut holes = clean.clone();
            missing.apply(&mut holes.pixels, 1, 0.0);
            mask = Some(missing);
            holes
        }
        Degradation::Scale(scale) => {
            let own = clean.dims.size();
            let size = own.map(|side| side / scale * scale);
            if size.area() == 0 {
                crate::bail_usage!("{own} pixels cannot be shrunk by {scale}; remove this image");
            }
            reference = crop(clean, 0, size);
            let (pixels, small) = imresize(&reference.pixels, reference.dims, 1.0 / scale as f64)?;
            Picture { dims: Dims::of(small, 1), pixels }
        }
    };
    Ok((reference, Degraded { picture, degradation, mask }))
}

/// The part of a picture of `size` that begins in row and column `start`.
fn crop(picture: &Picture, start: usize, size: Size) -> Picture {
    let pixels = crate::raster::crop(&picture.pixels, picture.dims, (start, start), size);
    Picture { dims: Dims::of(size, picture.dims.c), pixels }
}

/// PSNR (dB) and SSIM of a result against its reference. The result is clipped to 0–1. For
/// super-resolution it is also rounded to 8 bits, and `scale` pixels at each border are ignored.
///
/// # Errors
/// When the result has another size than the reference, or is nothing but border.
pub fn score(
    reference: &Picture,
    restored: &Picture,
    degradation: Degradation,
) -> Result<(f64, f64)> {
    let (size, c) = (reference.dims.size(), reference.dims.c);
    if restored.dims != reference.dims {
        return Err(Error::failed(format!(
            "the result has {} pixels and {} channels instead of {size} and {c}; use a model for \
             this task and this scale",
            restored.dims.size(),
            restored.dims.c
        )));
    }
    let (mut a, mut b) = (reference.clone(), restored.clone());
    b.pixels.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
    if let Degradation::Scale(scale) = degradation {
        if size.h.min(size.w) <= 2 * scale {
            return Err(Error::usage(format!(
                "{size} pixels are nothing but border at x{scale}; remove this image"
            )));
        }
        quantise(&mut b.pixels);
        let inside = size.map(|side| side - 2 * scale);
        (a, b) = (crop(&a, scale, inside), crop(&b, scale, inside));
    }
    Ok((quality::psnr(&a.pixels, &b.pixels), quality::ssim(&a.pixels, &b.pixels, a.dims)))
}

/// The result of a restorer.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The input of the model in the size of the result: noisy, filled smoothly, or enlarged by
    /// bicubic interpolation.
    pub before: Picture,
    /// The restored image.
    pub after: Picture,
}

/// The score of one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Name of the file.
    pub image: String,
    /// PSNR in dB.
    pub psnr: f64,
    /// SSIM.
    pub ssim: f64,
}

/// The scores for one degradation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DegradationResult {
    /// The degradation.
    pub degradation: Degradation,
    /// Score of each image.
    pub images: Vec<Score>,
    /// Mean PSNR in dB of the model's input.
    pub psnr_before: f64,
    /// Mean SSIM of the model's input.
    pub ssim_before: f64,
    /// Mean PSNR in dB of the restored images.
    pub psnr: f64,
    /// Mean SSIM of the restored images.
    pub ssim: f64,
    /// The published results.
    pub published: Vec<Published>,
}

/// The scores of a protocol.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProtocolReport {
    /// The protocol.
    pub protocol: Protocol,
    /// Seed of noise and masks.
    pub seed: u64,
    /// The scores for each degradation.
    pub outcomes: Vec<DegradationResult>,
}

/// Reads a clean image of a protocol: gray, or for super-resolution the BT.601 luma rounded to 8
/// bits.
///
/// # Errors
/// When the file cannot be decoded.
pub fn clean(protocol: Protocol, file: &Path) -> Result<Picture> {
    let decoded = decode_file(file).map_err(|error| error.at(file.display()))?;
    let dims = Dims { c: 1, ..decoded.dims };
    let reals =
        |bytes: Vec<u8>| bytes.into_iter().map(|v| f32::from(v) / 255.0).collect::<Vec<f32>>();
    let pixels = match protocol {
        // A gray file is already luma: the published MATLAB scripts leave it unchanged.
        Protocol::Set5 | Protocol::Set14 if decoded.dims.c == 3 => {
            let mut luma = color::luma(&reals(decoded.pixels), 3);
            quantise(&mut luma);
            luma
        }
        _ => reals(decoded.into_channels(1)),
    };
    Ok(Picture { dims, pixels })
}

/// Runs a protocol on the images of a folder, for each of the degradations. `restore` must return
/// images of the size of the reference ([`degrade`]).
///
/// # Errors
/// When the folder does not have the test set, a file cannot be decoded, or a restoration fails.
/// The message has the path of the file.
pub fn run(
    protocol: Protocol,
    folder: &Path,
    degradations: &[Degradation],
    seed: u64,
    mut restore: impl FnMut(&Degraded) -> Result<Restored>,
) -> Result<ProtocolReport> {
    let files = protocol.images(folder)?;
    let mut outcomes = Vec::new();
    for &degradation in degradations {
        let mut images = Vec::new();
        let mut means_before = [0.0; 2];
        for (number, file) in files.iter().enumerate() {
            let mut one = || -> Result<[(f64, f64); 2]> {
                let (reference, degraded) =
                    degrade(&clean(protocol, file)?, degradation, seed, number)?;
                let Restored { before, after } = restore(&degraded)?;
                Ok([
                    score(&reference, &before, degradation)?,
                    score(&reference, &after, degradation)?,
                ])
            };
            let [before, (psnr, ssim)] = one().map_err(|error| error.at(file.display()))?;
            means_before = [
                means_before[0] + before.0 / files.len() as f64,
                means_before[1] + before.1 / files.len() as f64,
            ];
            let image = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            images.push(Score { image, psnr, ssim });
        }
        let mean = |of: fn(&Score) -> f64| images.iter().map(of).sum::<f64>() / images.len() as f64;
        let (psnr, ssim) = (mean(|score| score.psnr), mean(|score| score.ssim));
        let [psnr_before, ssim_before] = means_before;
        outcomes.push(DegradationResult {
            degradation,
            images,
            psnr_before,
            ssim_before,
            psnr,
            ssim,
            published: published(protocol, degradation),
        });
    }
    Ok(ProtocolReport { protocol, seed, outcomes })
}

impl fmt::Display for ProtocolReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.outcomes.iter().flat_map(|o| {
            let images = o.images.iter().map(|score| score.image.chars().count());
            images.chain(o.published.iter().map(|row| row.method.chars().count()))
        });
        let width = names.max().unwrap_or(0).max(25);
        for (number, outcome) in self.outcomes.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            let title = format!("{} {}", self.protocol.name(), outcome.degradation);
            writeln!(f, "{title:width$}   PSNR    SSIM")?;
            for Score { image, psnr, ssim } in &outcome.images {
                writeln!(f, "{image:width$}  {psnr:5.2}  {ssim:.4}")?;
            }
            writeln!(f, "{:width$}  {:5.2}  {:.4}", "mean", outcome.psnr, outcome.ssim)?;
            let before = match outcome.degradation {
                Degradation::Sigma(_) => "mean of the noisy images",
                Degradation::Scale(_) => "mean by bicubic",
                Degradation::Missing(_) => "mean of the filled images",
            };
            let (psnr, ssim) = (outcome.psnr_before, outcome.ssim_before);
            writeln!(f, "{before:width$}  {psnr:5.2}  {ssim:.4}")?;
            for Published { method, psnr, .. } in &outcome.published {
                writeln!(f, "{method:width$}  {psnr:5.2}  published")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
