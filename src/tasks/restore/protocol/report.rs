//! Runs of a protocol, and their report.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::{Degradation, Degraded, Protocol, Published, clean, degrade, published, score};
use crate::error::Result;
use crate::report::picture::Picture;

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

/// Runs a protocol on the images of a folder, for each of the degradations. `restore` must return
/// images of the size of the reference ([`degrade()`]).
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
                Degradation::Quality(_) => "mean of the JPEG files",
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
