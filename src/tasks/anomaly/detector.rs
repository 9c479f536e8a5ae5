//! The three views of an image, their statistics over normal images, and the heat map they form.

use serde::{Deserialize, Serialize};

use super::bank::{Bank, BankBuilder};
use super::field::Describer;
use super::residual::{blur, squared_error, structure};
use crate::data::{Handles, Pixels};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::{Inference, MemoryInUse};
use crate::infer::reconstruct;
use crate::metrics::ranks::ScoreHistogram;
use crate::model::{Graph, LoadedModel, Purpose, tile_geometry};
use crate::shape::{Dims, Size};
use crate::spec::ModelSpec;

/// Names of the views, in storage order.
pub const VIEWS: [&str; 3] = ["error", "structure", "code"];
/// One in `FOLDS` normal images is held out. Statistics and thresholds come from held-out images,
/// because images in the bank are closer to it than new ones. A larger share held out gives more
/// reliable thresholds, a smaller one a fuller bank.
const FOLDS: usize = 5;
/// Lower limit of a standard deviation. Smaller spreads are only rounding errors.
const MIN_STD: f64 = 1e-6;

/// Options of [`Detector::fit`].
#[derive(Clone, Debug, PartialEq)]
pub struct DetectorOptions {
    /// Number of normal descriptors to keep.
    pub bank: usize,
    /// Weight of each view, in the order of [`VIEWS`]: not negative, not all 0.
    pub weights: [f64; 3],
    /// Standard deviation of the Gaussian that smooths every view, in pixels.
    pub smoothing: f64,
    /// False-alarm rate: the share of normal images, and of normal pixels, above the thresholds.
    pub rate: f64,
    /// Seed of the sample of descriptors.
    pub seed: u64,
}

/// Statistics of a view over the pixels of normal images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ViewStatistics {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    #[serde(rename = "deviation")]
    pub std: f64,
}

/// What a detector stores besides its bank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Hash of the model that the detector belongs to.
    pub model: String,
    /// The layer whose output gives the descriptors.
    pub layer: String,
    /// Height and width of tiles; `None` if the model fixes its input size. Stored, so that an
    /// image's result does not depend on the other images of a run.
    pub tile: Option<[usize; 2]>,
    /// Weight of each view.
    pub weights: [f64; 3],
    /// Standard deviation of the smoothing, in pixels.
    pub smoothing: f64,
    /// Statistics of each view.
    #[serde(rename = "usual")]
    pub statistics: [ViewStatistics; 3],
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
    /// the requested rate, the threshold is the largest held-out score.
    pub fn guaranteed_rate(&self) -> f64 {
        self.rate.max(1.0 / (self.held_out as f64 + 1.0))
    }
}

/// An anomaly detector.
#[derive(Clone, Debug, PartialEq)]
pub struct Detector {
    /// Descriptors of normal images.
    pub bank: Bank,
    /// Statistics, thresholds and settings.
    pub calibration: Calibration,
}

/// The views and the heat map of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Views {
    /// Deviation of each view from its mean, in standard deviations, in the order of [`VIEWS`].
    /// Absolute for error and structure, signed for the code.
    pub maps: [Vec<f32>; 3],
    /// The heat map: the weighted mean of `maps`.
    pub heat: Vec<f32>,
}

impl Views {
    /// The image's score: the maximum of its heat map.
    pub fn score(&self) -> f32 {
        max_value(&self.heat)
    }
}

/// The largest of some values; −∞ if there are none.
pub fn max_value(values: &[f32]) -> f32 {
    values.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// A model and its encoder (the layers up to the one that gives descriptors), built for tiles. If
/// no layer fixes the input size, tiles are as large as the images, at most 256 pixels, and overlap
/// by a quarter. Otherwise tiles have the model's input size and overlap by three quarters.
#[derive(Clone, Debug)]
pub struct TiledModel {
    full: Graph,
    part: Graph,
    quarters: usize,
}

/// Maximum side of a tile, unless the model's input is larger. Larger tiles need more memory;
/// smaller ones compute more overlap.
const MAX_TILE: usize = 256;

impl TiledModel {
    /// Height and width of the tiles that suit images of these sizes. `None` if the model fixes its
    /// input size.
    pub fn tile(loaded: &LoadedModel, sizes: impl Iterator<Item = Size>) -> Option<Size> {
        let align = tile_geometry(&loaded.graph).ok()?.align;
        let max = sizes.fold(Size::new(1, 1), Size::at_least);
        let tile = max.map(|side| side.min(MAX_TILE).next_multiple_of(align.max(1)));
        // other layers can also fix the input size
        Graph::new(&loaded.graph.spec, Dims::of(tile, loaded.graph.nodes[0].dims.c))
            .ok()
            .map(|_| tile)
    }

    /// Builds the graphs for tiles of this height and width, or of the model's input size.
    ///
    /// # Errors
    /// If the layers do not fit that size.
    pub fn new(loaded: &LoadedModel, encoder: &ModelSpec, tile: Option<Size>) -> Result<Self> {
        let own = loaded.graph.nodes[0].dims;
        let dims = tile.map_or(own, |tile| Dims::of(tile, own.c));
        let quarters = if tile.is_some() { 3 } else { 1 };
        Ok(Self {
            full: Graph::new(&loaded.graph.spec, dims)?,
            part: Graph::new(encoder, dims)?,
            quarters,
        })
    }

    /// Height, width and channels of a tile.
    pub fn dims(&self) -> Dims {
        self.full.nodes[0].dims
    }
}

/// Computes the views of images: their reconstructions and their codes.
#[derive(Debug)]
pub struct ViewExtractor<'a> {
    reconstruction: Inference<'a>,
    describer: Describer<'a>,
    quarters: usize,
}

impl<'a> ViewExtractor<'a> {
    /// Loads a model for tiles. `data` is the number of bytes that images occupy.
    ///
    /// # Errors
    /// If memory is too small or the device fails.
    pub fn open(
        device: &mut Device,
        loaded: &LoadedModel,
        tiled: &'a TiledModel,
        data: u64,
    ) -> Result<Self> {
        let TiledModel { full: graph, part: encoder, quarters } = tiled;
        let full = loaded.place(device, graph, Purpose::Infer)?;
        let part = loaded.place(device, encoder, Purpose::Infer)?;
        let parameters = 2 * (full.bytes() + part.bytes());
        let (mut reconstruction, mut encoding) =
            (Inference::new(graph, &full), Inference::new(encoder, &part));
        reconstruction.fit(
            device,
            MemoryInUse { parameters: parameters + encoding.planned_bytes(device, 1), data },
        )?;
        encoding.fit(
            device,
            MemoryInUse {
                parameters: parameters + reconstruction.planned_bytes(device, usize::MAX),
                data,
            },
        )?;
        Ok(Self {
            reconstruction,
            describer: Describer::new(encoding, *quarters),
            quarters: *quarters,
        })
    }

    /// Number of values of a descriptor.
    pub fn depth(&self) -> usize {
        self.describer.depth()
    }

    /// The error and structure views, smoothed. They need no bank.
    fn residuals(
        &mut self,
        device: &mut Device,
        image: &Image,
        smoothing: f64,
    ) -> Result<[Vec<f32>; 2]> {
        let Image { pixels, dims } = image;
        let size = dims.size();
        let mut reconstructed =
            reconstruct::by_tiles(device, &mut self.reconstruction, pixels, size, self.quarters)?;
        reconstructed.iter_mut().for_each(|value| *value = value.clamp(0.0, 1.0));
        let error = blur(&squared_error(pixels, &reconstructed, dims.c), size, smoothing);
        let structure = blur(&structure(pixels, &reconstructed, *dims), size, smoothing);
        // The root, because squared errors of a defect would outweigh the other views.
        Ok([error.into_iter().map(|value| value.max(0.0).sqrt()).collect(), structure])
    }

    fn raw_views(
        &mut self,
        device: &mut Device,
        image: &Image,
        bank: &Bank,
        smoothing: f64,
    ) -> Result<[Vec<f32>; 3]> {
        let [error, structure] = self.residuals(device, image, smoothing)?;
        let size = image.dims.size();
        let grid = self.describer.describe(device, &image.pixels, size)?;
        let far = grid.interpolate(&bank.distances(&grid.values), size);
        Ok([error, structure, blur(&far, size, smoothing)])
    }
}

/// An image as floating-point pixels, H,W,C.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Values in 0–1.
    pub pixels: Vec<f32>,
    /// Its size.
    pub dims: Dims,
}

impl Image {
    /// Reads an image of a set.
    ///
    /// # Errors
    /// If its file can no longer be read.
    pub fn read(images: &Pixels, image: usize, handles: &mut Handles) -> Result<Self> {
        let dims = Dims::of(images.size(image), images.channels());
        let pixels = images.values(image, handles)?;
        Ok(Self { pixels, dims })
    }

    /// Bytes needed for an image of `size`, besides the batches of a model with an input of `dims`.
    pub fn bytes(dims: Dims, size: Size) -> u64 {
        // a copy of the channels, eight maps for SSIM's moments and eight for views, 4 bytes a
        // value
        reconstruct::bytes(dims, size) + size.area() as u64 * (4 * dims.c as u64 + 8 * 4 + 8 * 4)
    }
}

/// Running count, mean and sum of squared deviations of a view.
#[derive(Clone, Copy, Debug, Default)]
struct RunningStatistics {
    count: f64,
    mean: f64,
    spread: f64,
}

impl RunningStatistics {
    fn add(&mut self, values: &[f32]) {
        let n = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let spread = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>();
        let (between, all) = (mean - self.mean, self.count + n);
        self.spread += spread + between * between * self.count * n / all;
        self.mean += between * n / all;
        self.count = all;
    }

    fn statistics(&self) -> ViewStatistics {
        ViewStatistics {
            mean: self.mean,
            std: (self.spread / self.count.max(1.0)).sqrt().max(MIN_STD),
        }
    }
}

impl Detector {
    /// Fits a detector to normal images in three passes. First, descriptors of four images in five
    /// fill the bank. Then the held-out fifth gives the statistics of each view, and then the
    /// thresholds. `progress` is called after every image with the number done and the total.
    ///
    /// # Errors
    /// If there is only one image, the layer's features are constant, or the device fails.
    pub fn fit(
        device: &mut Device,
        extractor: &mut ViewExtractor<'_>,
        (model, layer, tile): (&str, &str, Option<Size>),
        images: &Pixels,
        options: &DetectorOptions,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self> {
        let n = images.len();
        if n < 2 {
            return Err(Error::usage(
                "one normal image is too few: thresholds need at least one image outside the bank; \
                 give at least 2 images",
            ));
        }
        let (held, known): (Vec<usize>, Vec<usize>) =
            (0..n).partition(|i| if n < FOLDS { i + 1 == n } else { i % FOLDS == FOLDS - 1 });
        let (all, mut done) = (n + held.len(), 0);
        let mut handles = Handles::default();
        let mut step = || {
            done += 1;
            progress(done, all);
        };
        let mut builder = BankBuilder::new(extractor.depth(), options.bank, options.seed)?;
        for image in &known {
            let image = Image::read(images, *image, &mut handles)?;
            builder.add(
                &extractor.describer.describe(device, &image.pixels, image.dims.size())?.values,
            );
            step();
        }
        let bank = builder.finish().map_err(|error| error.at(format!("layer {layer}")))?;
        let mut sums = [RunningStatistics::default(); 3];
        for image in &held {
            let views = extractor.raw_views(
                device,
                &Image::read(images, *image, &mut handles)?,
                &bank,
                options.smoothing,
            )?;
            sums.iter_mut().zip(&views).for_each(|(sums, view)| sums.add(view));
            step();
        }
        let calibration = Calibration {
            model: model.to_owned(),
            layer: layer.to_owned(),
            tile: tile.map(|Size { h, w }| [h, w]),
            weights: options.weights,
            smoothing: options.smoothing,
            statistics: std::array::from_fn(|view| sums[view].statistics()),
            rate: options.rate,
            image_threshold: f32::INFINITY,
            pixel_threshold: f32::INFINITY,
            gathered: known.len(),
            held_out: held.len(),
        };
        let mut detector = Self { bank, calibration };
        let (mut scores, mut pixels) = (Vec::with_capacity(held.len()), ScoreHistogram::default());
        for image in &held {
            let views =
                detector.views(device, extractor, &Image::read(images, *image, &mut handles)?)?;
            views.heat.iter().for_each(|heat| pixels.add_normal(*heat));
            scores.push(views.score());
            step();
        }
        detector.calibration.image_threshold = quantile(scores, options.rate);
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
        let Calibration { weights, smoothing, statistics, .. } = &self.calibration;
        let mut maps = extractor.raw_views(device, image, &self.bank, *smoothing)?;
        for ((map, statistics), two_sided) in
            maps.iter_mut().zip(statistics).zip([true, true, false])
        {
            for value in map {
                let deviation = ((f64::from(*value) - statistics.mean) / statistics.std) as f32;
                // an unusually good reconstruction is as suspicious as a bad one
                *value = if two_sided { deviation.abs() } else { deviation };
            }
        }
        let all = weights.iter().sum::<f64>();
        let share: [f32; 3] = weights.map(|weight| (weight / all) as f32);
        let heat = (0..image.dims.area())
            .map(|at| (0..3).map(|view| share[view] * maps[view][at]).sum())
            .collect();
        Ok(Views { maps, heat })
    }
}

/// The score that a new normal image exceeds with probability at most `rate` (split conformal
/// prediction: Vovk et al., "Algorithmic Learning in a Random World", 2005). If there are too few
/// scores for that, the largest one.
fn quantile(mut scores: Vec<f32>, rate: f64) -> f32 {
    scores.sort_by(f32::total_cmp);
    let n = scores.len();
    let rank = ((1.0 - rate) * (n as f64 + 1.0)).ceil() as usize;
    scores[rank.clamp(1, n) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_do_not_depend_on_batches() {
        let values: Vec<f32> = (0..60_u16).map(|i| f32::from(i * i % 17) + 100.0).collect();
        let (mut one, mut many) = (RunningStatistics::default(), RunningStatistics::default());
        one.add(&values);
        values.chunks(7).for_each(|part| many.add(part));
        let mean = values.iter().sum::<f32>() / 60.0;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 60.0).sqrt();
        assert!(
            (one.statistics().mean - many.statistics().mean).abs() < 1e-9
                && (one.statistics().std - many.statistics().std).abs() < 1e-9
        );
        assert!(
            (one.statistics().mean - f64::from(mean)).abs() < 1e-4
                && (one.statistics().std - f64::from(std)).abs() < 1e-4
        );
    }

    #[test]
    fn quantile_bounds_the_false_alarm_rate() {
        let scores: Vec<f32> = (1..=99_u8).rev().map(f32::from).collect();
        assert_eq!(
            [0.01, 0.05, 0.5].map(|rate| quantile(scores.clone(), rate)),
            [99.0, 95.0, 50.0]
        );
        // nine images cannot guarantee a rate below one tenth
        assert_eq!(quantile(scores[..9].to_vec(), 0.01), 99.0);
    }
}
