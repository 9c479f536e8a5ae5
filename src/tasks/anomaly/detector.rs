//! A detector: its banks, the statistics of normal pixels, and thresholds.

use serde::{Deserialize, Serialize};

use super::Image;
use super::bank::{BankBuilder, Banks, Units};
use super::filters;
use super::statistics::{BANDS, BandMoments, BandStatistics, threshold};
use super::views::{VIEWS, ViewExtractor, Views};
use crate::data::{Handles, Pixels};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::metrics::ranks::ScoreHistogram;
use crate::shape::Size;

/// One in `FOLDS` normal images is held out. Statistics and thresholds come from held-out images,
/// because images in the bank are closer to it than new ones. A larger share held out gives more
/// reliable thresholds, a smaller one a fuller bank.
const FOLDS: usize = 5;

/// Options of [`Detector::fit`].
#[derive(Clone, Debug, PartialEq)]
pub struct DetectorOptions {
    /// Number of normal descriptors to keep in each bank.
    pub bank: usize,
    /// False-alarm rate: the share of normal images, and of normal pixels, above the thresholds.
    pub rate: f64,
    /// Seed of the sample of descriptors.
    pub seed: u64,
}

/// What a detector stores besides its banks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Hash of the model file that the detector belongs to.
    pub model: String,
    /// Height and width of tiles. Stored, so that an image's result does not depend on the other
    /// images of a run.
    pub tile: [usize; 2],
    /// Statistics of each view in each band.
    pub statistics: Vec<[BandStatistics; BANDS]>,
    /// False-alarm rate of images and of pixels for which the thresholds are set.
    pub rate: f64,
    /// An image with a higher score is called anomalous.
    pub image_threshold: f32,
    /// A pixel with a higher value is called anomalous.
    pub pixel_threshold: f32,
    /// Number of images that filled the bank.
    pub gathered: usize,
    /// Number of images held out to set the thresholds.
    pub held_out: usize,
}

impl Calibration {
    /// The lowest false-alarm rate of images that the held-out images can guarantee. If it is above
    /// the requested rate, the threshold continues the tail of the held-out scores.
    pub fn guaranteed_rate(&self) -> f64 {
        self.rate.max(1.0 / (self.held_out as f64 + 1.0))
    }
}

/// An anomaly detector.
#[derive(Clone, Debug, PartialEq)]
pub struct Detector {
    /// Descriptors of normal images.
    pub banks: Banks,
    /// Statistics, thresholds and settings.
    pub calibration: Calibration,
}

/// The numbers of the images that a detector learns from, and of those that it is calibrated on.
///
/// # Errors
/// If there is only one image.
pub fn split(images: usize) -> Result<[Vec<usize>; 2]> {
    if images < 2 {
        return Err(Error::usage(
            "one normal image is too few: thresholds need at least one image outside the bank; \
             give at least 2 images",
        ));
    }
    let is_held = |i: &usize| if images < FOLDS { i + 1 == images } else { i % FOLDS == FOLDS - 1 };
    let (held, known) = (0..images).partition(is_held);
    Ok([known, held])
}

impl Detector {
    /// Fits a detector to normal images, with a trained network or without one, in three passes.
    /// First, descriptors of the images that the network learned from fill the banks. Then the
    /// held-out ones ([`split`]) give the statistics of each view, and then the thresholds.
    /// `progress` is called after every image with the number done and the total.
    ///
    /// # Errors
    /// If there is only one image, the descriptors are constant, or the device fails.
    pub fn fit(
        device: &mut Device,
        extractor: &mut ViewExtractor<'_>,
        (model, tile): (&str, Size),
        images: &Pixels,
        options: &DetectorOptions,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self> {
        let [known, held] = split(images.len())?;
        let (all, mut done) = (known.len() + 2 * held.len(), 0);
        let mut handles = Handles::default();
        let mut step = || {
            done += 1;
            progress(done, all);
        };
        let builder = |depth| BankBuilder::new(depth, options.bank, options.seed);
        let mut filtered = builder(filters::depth(images.channels()))?;
        let mut features =
            extractor.describer.as_ref().map(|network| builder(network.depth())).transpose()?;
        for image in &known {
            let image = Image::read(images, *image, &mut handles)?;
            filtered.add(&filters::describe(&image.pixels, image.dims).values);
            if let (Some(describer), Some(features)) = (&mut extractor.describer, &mut features) {
                let found = describer.describe(device, &image.pixels, image.dims.size())?;
                features.add(&found.grid.values);
            }
            step();
        }
        let banks = Banks {
            filters: filtered.finish(Units::Spacing)?,
            // In units of spacing, the image AUROC of magnetic tiles was 0.02 lower, and the pixel
            // AUROC 0.10 (`benches/results/2026-12-01-anomaly.md`).
            features: features.map(|features| features.finish(Units::Absolute)).transpose()?,
        };
        let views = if banks.features.is_some() { VIEWS.len() } else { 1 };
        let mut moments = vec![BandMoments::default(); views];
        for image in &held {
            let image = Image::read(images, *image, &mut handles)?;
            let views = extractor.raw_views(device, &image, &banks)?;
            let size = image.dims.size();
            moments.iter_mut().zip(&views).for_each(|(moments, view)| moments.add(view, size));
            step();
        }
        let calibration = Calibration {
            model: model.to_owned(),
            tile: [tile.h, tile.w],
            statistics: moments.iter().map(BandMoments::finish).collect(),
            rate: options.rate,
            image_threshold: f32::INFINITY,
            pixel_threshold: f32::INFINITY,
            gathered: known.len(),
            held_out: held.len(),
        };
        let mut detector = Self { banks, calibration };
        let (mut scores, mut pixels) = (Vec::with_capacity(held.len()), ScoreHistogram::default());
        for image in &held {
            let image = Image::read(images, *image, &mut handles)?;
            let views = detector.views(device, extractor, &image)?;
            scores.push(views.score);
            views.heat.iter().for_each(|value| pixels.add_normal(*value));
            step();
        }
        detector.calibration.image_threshold = threshold(scores, options.rate);
        detector.calibration.pixel_threshold =
            pixels.threshold(options.rate).unwrap_or(f32::INFINITY);
        Ok(detector)
    }

    /// Computes the views and the heat map of an image.
    ///
    /// # Errors
    /// If the device fails.
    pub fn views(
        &self,
        device: &mut Device,
        extractor: &mut ViewExtractor<'_>,
        image: &Image,
    ) -> Result<Views> {
        let maps = extractor.raw_views(device, image, &self.banks)?;
        Ok(Views::new(maps, image.dims.size(), &self.calibration.statistics))
    }
}
