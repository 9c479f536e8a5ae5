//! The published protocols of image restoration, exactly: what is done to which images, how the
//! result is scored, and what others report.
//!
//! - Denoising (`bsd68`, `set12`): N(0, σ²) on the 0–255 scale, neither clipped nor quantised, from
//!   a fixed seed for each image; PSNR of the clipped result, each image by itself; the mean over
//!   the set.
//! - Super-resolution (`set5`, `set14`), as SRCNN's code does it: BT.601 luma, rounded to 8 bits,
//!   cropped to a multiple of the scale and shrunk by MATLAB's bicubic as floats; the result
//!   rounded to 8 bits, and `scale` pixels cut off at each border.
//! - Inpainting (`inpaint50`): eight images of Set12, exactly half of the pixels missing at random;
//!   PSNR over all pixels of the clipped result.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

use crate::data::folder::EXTENSIONS;
use crate::data::formats::decode::decode_file;
use crate::error::{Error, Result, did_you_mean};
use crate::metrics::quality;
use crate::names::names;
use crate::raster::color;
use crate::raster::corrupt;
use crate::raster::corrupt::{Mask, MaskKind};
use crate::raster::resample::{imresize, quantise};
use crate::report::picture::Picture;
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

/// What is done to the clean images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Degradation {
    /// White Gaussian noise of this standard deviation on the 0–255 scale.
    Sigma(f64),
    /// Shrunk by this factor.
    Scale(usize),
    /// This share of the pixels missing.
    Missing(f64),
}

impl Protocol {
    /// What a model does that is judged by it.
    pub const fn task(self) -> Task {
        match self {
            Self::Bsd68 | Self::Set12 => Task::Denoise,
            Self::Set5 | Self::Set14 => Task::Upscale,
            Self::Inpaint50 => Task::Inpaint,
        }
    }

    /// What it degrades images by, each for a mean of its own.
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

    /// The images of a folder that holds the protocol's set, in the order of their names. For
    /// inpainting that is Set12, of which the eight are chosen by their numbers, or a folder with
    /// images of the eight's names.
    ///
    /// # Errors
    /// When the folder cannot be read or does not hold as many images as the set has.
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
                "{}: {} of the images that {} is about, not {}; name the folder that holds just \
                 this set",
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
                "no protocol is called {name}; known are {}{}",
                Self::names().collect::<Vec<_>>().join(", "),
                did_you_mean(name, Self::names())
            ))
        })
    }
}

/// The eight images that inpainting is judged on: their numbers in Set12, and their names.
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

/// What a restorer is given.
#[derive(Clone, Debug)]
pub struct Degraded {
    /// The image after its degradation, gray. Noise leaves the 0–1 scale; missing pixels are 0; a
    /// shrunk image is small, and its result is expected `scale` times as large.
    pub picture: Picture,
    /// What was done to it.
    pub degradation: Degradation,
    /// Which pixels are missing, where some are.
    pub mask: Option<Mask>,
}

/// Degrades a clean gray picture; the number of the image in its set chooses its noise or its mask.
/// Returns too what the result will be compared with: the picture, cropped to a multiple of the
/// scale.
///
/// # Errors
/// When the picture is smaller than the scale.
pub fn degrade(
    clean: &Picture,
    degradation: Degradation,
    seed: u64,
    image: usize,
) -> Result<(Picture, Degraded)> {
    assert_eq!(clean.c, 1, "the protocols are about gray pictures");
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
            let drawn = MaskKind::Pixels.draw(
                clean.h,
                clean.w,
                share,
                &mut corrupt::stream(seed, "mask", image),
            );
            let mut holes = clean.clone();
            drawn.apply(&mut holes.pixels, 1, 0.0);
            mask = Some(drawn);
            holes
        }
        Degradation::Scale(scale) => {
            let (h, w) = (clean.h / scale * scale, clean.w / scale * scale);
            if h * w == 0 {
                crate::bail_usage!(
                    "{}x{} pixels cannot be shrunk by {scale}; remove this image",
                    clean.w,
                    clean.h
                );
            }
            reference = crop(clean, 0, 0, h, w);
            let (pixels, h, w) = imresize(&reference.pixels, (h, w), 1, 1.0 / scale as f64)?;
            Picture { h, w, c: 1, pixels }
        }
    };
    Ok((reference, Degraded { picture, degradation, mask }))
}

fn crop(picture: &Picture, top: usize, left: usize, h: usize, w: usize) -> Picture {
    let (c, pixels) = (
        picture.c,
        crate::raster::crop(&picture.pixels, picture.w, picture.c, top..top + h, left..left + w),
    );
    Picture { h, w, c, pixels }
}

/// PSNR (dB) and SSIM of a result beside what it should be: clipped to 0–1, and for
/// super-resolution rounded to 8 bits and without `scale` pixels at each border.
///
/// # Errors
/// When the result has another size, or is all border.
pub fn score(
    reference: &Picture,
    restored: &Picture,
    degradation: Degradation,
) -> Result<(f64, f64)> {
    let Picture { h, w, c, .. } = *reference;
    if (restored.h, restored.w, restored.c) != (h, w, c) {
        return Err(Error::failed(format!(
            "a result of {}x{} with {} channels instead of {w}x{h} with {c}; use a model for this \
             task and this scale",
            restored.w, restored.h, restored.c
        )));
    }
    let (mut a, mut b) = (reference.clone(), restored.clone());
    b.pixels.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
    if let Degradation::Scale(scale) = degradation {
        if h.min(w) <= 2 * scale {
            return Err(Error::usage(format!(
                "{w}x{h} pixels are nothing but border at x{scale}; remove this image"
            )));
        }
        quantise(&mut b.pixels);
        (a, b) = (
            crop(&a, scale, scale, h - 2 * scale, w - 2 * scale),
            crop(&b, scale, scale, h - 2 * scale, w - 2 * scale),
        );
    }
    Ok((quality::psnr(&a.pixels, &b.pixels), quality::ssim(&a.pixels, &b.pixels, a.h, a.w, c)))
}

/// What came of an image.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the restorer was given, at the result's size: noisy, filled smoothly, or enlarged by
    /// bicubic interpolation.
    pub before: Picture,
    /// Its result.
    pub after: Picture,
}

/// The score of one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// The file's name.
    pub image: String,
    /// PSNR in dB.
    pub psnr: f64,
    /// SSIM.
    pub ssim: f64,
}

/// The scores at one degradation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DegradationResult {
    /// What was done to the images.
    pub degradation: Degradation,
    /// Each image.
    pub images: Vec<Score>,
    /// The mean of the PSNR in dB of what was given.
    pub psnr_before: f64,
    /// The mean of its SSIM.
    pub ssim_before: f64,
    /// The mean of the images' PSNR in dB.
    pub psnr: f64,
    /// The mean of the images' SSIM.
    pub ssim: f64,
    /// What others report.
    pub published: Vec<Published>,
}

/// A protocol's scores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProtocolReport {
    /// The protocol.
    pub protocol: Protocol,
    /// The seed of noise and masks.
    pub seed: u64,
    /// A part for each degradation.
    pub outcomes: Vec<DegradationResult>,
}

/// Reads a protocol's clean image: gray, or for super-resolution the BT.601 luma rounded to 8 bits.
///
/// # Errors
/// When the file does not decode; with its path.
pub fn clean(protocol: Protocol, file: &Path) -> Result<Picture> {
    let decoded = decode_file(file).map_err(|error| error.at(file.display()))?;
    let (h, w) = (decoded.h, decoded.w);
    let reals =
        |bytes: Vec<u8>| bytes.into_iter().map(|v| f32::from(v) / 255.0).collect::<Vec<f32>>();
    let pixels = match protocol {
        // A gray file is luma already: MATLAB's scripts pass it by.
        Protocol::Set5 | Protocol::Set14 if decoded.channels == 3 => {
            let mut luma = color::luma(&reals(decoded.pixels), 3);
            quantise(&mut luma);
            luma
        }
        _ => reals(decoded.into_channels(1)),
    };
    Ok(Picture { h, w, c: 1, pixels })
}

/// Runs a protocol on the images of a folder, at each of the degradations. `restore` makes an image
/// of the clean one's size (the cropped one's for super-resolution) of what it is given, and says
/// what it began with.
///
/// # Errors
/// When the folder is not the protocol's, a file does not decode or a restoration fails; with the
/// file's path.
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
        let mut given = [0.0; 2];
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
            given = [
                given[0] + before.0 / files.len() as f64,
                given[1] + before.1 / files.len() as f64,
            ];
            let image = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            images.push(Score { image, psnr, ssim });
        }
        let mean = |of: fn(&Score) -> f64| images.iter().map(of).sum::<f64>() / images.len() as f64;
        let (psnr, ssim) = (mean(|score| score.psnr), mean(|score| score.ssim));
        let [psnr_before, ssim_before] = given;
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
            let begun = match outcome.degradation {
                Degradation::Sigma(_) => "mean of the noisy images",
                Degradation::Scale(_) => "mean by bicubic",
                Degradation::Missing(_) => "mean of the filled images",
            };
            writeln!(f, "{begun:width$}  {:5.2}  {:.4}", outcome.psnr_before, outcome.ssim_before)?;
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
