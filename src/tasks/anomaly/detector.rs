//! Three views of an image, what is usual in each, and the heat map that they make together.

use serde::{Deserialize, Serialize};

use super::bank::{Bank, Gatherer};
use super::field::Describer;
use super::residual::{blur, squared_error, structure};
use crate::data::{Handles, Pixels};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::{Inference, MemoryInUse};
use crate::infer::reconstruct;
use crate::metrics::ranks::Ranks;
use crate::model::{Graph, LoadedModel, Purpose, tile_geometry};
use crate::shape::Dims;
use crate::spec::ModelSpec;

/// The views, in the order in which they are kept.
pub const VIEWS: [&str; 3] = ["error", "structure", "code"];
/// Of so many normal images one is held out: what is usual is read from it, not from images that
/// the bank knows.
const FOLDS: usize = 5;
/// Less than this is no spread: differences that rounding makes.
const LEAST: f64 = 1e-6;

/// How a detector is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Normal descriptors that are kept.
    pub bank: usize,
    /// What each view weighs, in the order of [`VIEWS`]; not negative, not all 0.
    pub weights: [f64; 3],
    /// Standard deviation of the smoothing of every view, in pixels.
    pub smoothing: f64,
    /// The share of normal images, and of normal pixels, that may lie above the thresholds.
    pub rate: f64,
    /// Seed of what is kept.
    pub seed: u64,
}

/// What is usual in a view, over pixels of normal images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub deviation: f64,
}

/// What a detector knows beside its bank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Hash of the model that it is for.
    pub model: String,
    /// The layer whose output describes places.
    pub layer: String,
    /// Height and width of tiles, where the model's input does not say: the same for every image,
    /// so that none depends on what others there are.
    pub tile: Option<[usize; 2]>,
    /// What each view weighs.
    pub weights: [f64; 3],
    /// Standard deviation of the smoothing, in pixels.
    pub smoothing: f64,
    /// What is usual in each view.
    pub usual: [Usual; 3],
    /// The share of normal images and pixels that may lie above the thresholds.
    pub rate: f64,
    /// An image whose score lies above this is called anomalous.
    pub image_threshold: f32,
    /// A pixel likewise.
    pub pixel_threshold: f32,
    /// Images that filled the bank.
    pub gathered: usize,
    /// Images that were held out, by which the thresholds are set.
    pub held_out: usize,
}

impl Calibration {
    /// The least false-alarm rate of images that so few held-out ones can state; above the rate
    /// that was asked for, the threshold is their largest score.
    pub fn stated_rate(&self) -> f64 {
        self.rate.max(1.0 / (self.held_out as f64 + 1.0))
    }
}

/// A detector of what is not normal.
#[derive(Clone, Debug, PartialEq)]
pub struct Detector {
    /// Descriptors of normal images.
    pub bank: Bank,
    /// The rest.
    pub calibration: Calibration,
}

/// An image as a detector sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Views {
    /// How far each view strays from its mean, in standard deviations of normal pixels, in the
    /// order of [`VIEWS`]; the code only upwards.
    pub maps: [Vec<f32>; 3],
    /// Their weighted mean: the heat map.
    pub heat: Vec<f32>,
}

impl Views {
    /// The image's score: the largest value of its heat map.
    pub fn score(&self) -> f32 {
        largest(&self.heat)
    }
}

/// The largest of some values.
pub fn largest(values: &[f32]) -> f32 {
    values.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// A model and its layers up to the one that describes places, on tiles. Where no layer fixes the
/// size of its input, tiles are as large as images, up to 256 pixels, and overlap by a quarter;
/// else they are the model's input, and overlap by three.
#[derive(Clone, Debug)]
pub struct Frames {
    whole: Graph,
    part: Graph,
    quarters: usize,
}

/// The side of a tile at most, but for models whose input is larger.
const TILE: usize = 256;

impl Frames {
    /// Height and width of the tiles that suit images of these sizes: none where the model's input
    /// is of one size.
    pub fn tile(
        loaded: &LoadedModel,
        sizes: impl Iterator<Item = (usize, usize)>,
    ) -> Option<[usize; 2]> {
        let align = tile_geometry(&loaded.graph).ok()?.align;
        let most = sizes.fold([1, 1], |most, (h, w)| [most[0].max(h), most[1].max(w)]);
        let tile = most.map(|side| side.min(TILE).next_multiple_of(align.max(1)));
        // some layers take one size for other reasons
        Graph::new(&loaded.graph.spec, Dims::new(loaded.graph.nodes[0].dims.c, tile[0], tile[1]))
            .ok()
            .map(|_| tile)
    }

    /// For tiles of this height and width, or of the model's input.
    ///
    /// # Errors
    /// When the layers make no model of that size.
    pub fn new(
        loaded: &LoadedModel,
        encoder: &ModelSpec,
        tile: Option<[usize; 2]>,
    ) -> Result<Self> {
        let own = loaded.graph.nodes[0].dims;
        let dims = tile.map_or(own, |[h, w]| Dims::new(own.c, h, w));
        let quarters = if tile.is_some() { 3 } else { 1 };
        Ok(Self {
            whole: Graph::new(&loaded.graph.spec, dims)?,
            part: Graph::new(encoder, dims)?,
            quarters,
        })
    }

    /// Height, width and channels of a tile.
    pub fn dims(&self) -> Dims {
        self.whole.nodes[0].dims
    }
}

/// Looks at images through a model: at what it draws of them, and at what its code says.
#[derive(Debug)]
pub struct Eye<'a> {
    drawing: Inference<'a>,
    describer: Describer<'a>,
    quarters: usize,
}

impl<'a> Eye<'a> {
    /// Of a model on tiles; `data` are bytes that images take.
    ///
    /// # Errors
    /// When memory is short or the device fails.
    pub fn open(
        device: &mut Device,
        loaded: &LoadedModel,
        frames: &'a Frames,
        data: u64,
    ) -> Result<Self> {
        let Frames { whole: graph, part: encoder, quarters } = frames;
        let whole = loaded.place(device, graph, Purpose::Infer)?;
        let part = loaded.place(device, encoder, Purpose::Infer)?;
        let parameters = 2 * (whole.bytes() + part.bytes());
        let (mut drawing, mut telling) =
            (Inference::new(graph, &whole), Inference::new(encoder, &part));
        drawing.fit(
            device,
            MemoryInUse { parameters: parameters + telling.planned_bytes(device, 1), data },
        )?;
        telling.fit(
            device,
            MemoryInUse {
                parameters: parameters + drawing.planned_bytes(device, usize::MAX),
                data,
            },
        )?;
        Ok(Self { drawing, describer: Describer::new(telling, *quarters), quarters: *quarters })
    }

    /// Values of a descriptor.
    pub fn depth(&self) -> usize {
        self.describer.depth()
    }

    /// The views as they are, smoothed, the third without a bank to compare with.
    fn residuals(
        &mut self,
        device: &mut Device,
        image: &Image,
        smoothing: f64,
    ) -> Result<[Vec<f32>; 2]> {
        let Image { pixels, h, w, c } = image;
        let mut drawn =
            reconstruct::by_tiles(device, &mut self.drawing, pixels, [*h, *w], self.quarters)?;
        drawn.iter_mut().for_each(|value| *value = value.clamp(0.0, 1.0));
        let error = blur(&squared_error(pixels, &drawn, *c), *h, *w, smoothing);
        let structure = blur(&structure(pixels, &drawn, *h, *w, *c), *h, *w, smoothing);
        // errors, not their squares: those of a defect would drown the other views
        Ok([error.into_iter().map(|value| value.max(0.0).sqrt()).collect(), structure])
    }

    fn views(
        &mut self,
        device: &mut Device,
        image: &Image,
        bank: &Bank,
        smoothing: f64,
    ) -> Result<[Vec<f32>; 3]> {
        let [error, structure] = self.residuals(device, image, smoothing)?;
        let field = self.describer.describe(device, &image.pixels, image.h, image.w)?;
        let far = field.spread(&bank.distances(&field.values), image.h, image.w);
        Ok([error, structure, blur(&far, image.h, image.w, smoothing)])
    }
}

/// An image as reals, H, W, C.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// 0…1.
    pub pixels: Vec<f32>,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
}

impl Image {
    /// One of a set.
    ///
    /// # Errors
    /// When its file cannot be read any more.
    pub fn read(images: &Pixels, image: usize, handles: &mut Handles) -> Result<Self> {
        let (h, w) = images.size(image);
        let pixels =
            images.read(image, handles)?.iter().map(|byte| f32::from(*byte) / 255.0).collect();
        Ok(Self { pixels, h, w, c: images.channels() })
    }

    /// Bytes that looking at one of h×w takes beside a model's batches.
    pub fn bytes(dims: Dims, h: usize, w: usize) -> u64 {
        // the pictures' channels and their moments, and the maps
        reconstruct::bytes(dims, h, w) + (h * w) as u64 * (4 * dims.c as u64 + 8 * 4 + 8 * 4)
    }
}

/// Sums of a view's values.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    count: f64,
    mean: f64,
    spread: f64,
}

impl Sums {
    fn add(&mut self, values: &[f32]) {
        let n = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let spread = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>();
        let (between, all) = (mean - self.mean, self.count + n);
        self.spread += spread + between * between * self.count * n / all;
        self.mean += between * n / all;
        self.count = all;
    }

    fn usual(&self) -> Usual {
        Usual { mean: self.mean, deviation: (self.spread / self.count.max(1.0)).sqrt().max(LEAST) }
    }
}

impl Detector {
    /// Learns what is normal, in three passes over a set: descriptors of four images in five fill
    /// the bank, and by the fifth it is told what is usual in each view, then where the thresholds
    /// lie. `look` is called after every image with how many are done and how many there are to do.
    ///
    /// # Errors
    /// When there is one image only, the layer says nothing, or the device fails.
    pub fn fit(
        device: &mut Device,
        eye: &mut Eye<'_>,
        (model, layer, tile): (&str, &str, Option<[usize; 2]>),
        images: &Pixels,
        options: &Options,
        mut look: impl FnMut(usize, usize),
    ) -> Result<Self> {
        let n = images.len();
        if n < 2 {
            return Err(Error::usage(
                "one normal image is too few: thresholds are set by images that the detector does not know",
            ));
        }
        let (held, known): (Vec<usize>, Vec<usize>) =
            (0..n).partition(|i| if n < FOLDS { i + 1 == n } else { i % FOLDS == FOLDS - 1 });
        let (all, mut done) = (n + held.len(), 0);
        let mut handles = Handles::default();
        let mut step = || {
            done += 1;
            look(done, all);
        };
        let mut gatherer = Gatherer::new(eye.depth(), options.bank, options.seed)?;
        for image in &known {
            let image = Image::read(images, *image, &mut handles)?;
            gatherer.add(&eye.describer.describe(device, &image.pixels, image.h, image.w)?.values);
            step();
        }
        let bank = gatherer.finish().map_err(|error| error.at(format!("layer {layer}")))?;
        let mut sums = [Sums::default(); 3];
        for image in &held {
            let views = eye.views(
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
            tile,
            weights: options.weights,
            smoothing: options.smoothing,
            usual: std::array::from_fn(|view| sums[view].usual()),
            rate: options.rate,
            image_threshold: f32::INFINITY,
            pixel_threshold: f32::INFINITY,
            gathered: known.len(),
            held_out: held.len(),
        };
        let mut detector = Self { bank, calibration };
        let (mut scores, mut pixels) = (Vec::with_capacity(held.len()), Ranks::default());
        for image in &held {
            let views = detector.look(device, eye, &Image::read(images, *image, &mut handles)?)?;
            views.heat.iter().for_each(|heat| pixels.normal(*heat));
            scores.push(views.score());
            step();
        }
        detector.calibration.image_threshold = quantile(scores, options.rate);
        detector.calibration.pixel_threshold =
            pixels.threshold(options.rate).unwrap_or(f32::INFINITY);
        Ok(detector)
    }

    /// Looks at an image.
    ///
    /// # Errors
    /// When the device fails.
    pub fn look(&self, device: &mut Device, eye: &mut Eye<'_>, image: &Image) -> Result<Views> {
        let Calibration { weights, smoothing, usual, .. } = &self.calibration;
        let mut maps = eye.views(device, image, &self.bank, *smoothing)?;
        for ((map, usual), sided) in maps.iter_mut().zip(usual).zip([2, 2, 1]) {
            for value in map {
                let strayed = ((f64::from(*value) - usual.mean) / usual.deviation) as f32;
                // a place that is drawn too well is as strange as one that is drawn badly
                *value = if sided == 2 { strayed.abs() } else { strayed };
            }
        }
        let all = weights.iter().sum::<f64>();
        let share: [f32; 3] = weights.map(|weight| (weight / all) as f32);
        let heat = (0..image.h * image.w)
            .map(|at| (0..3).map(|view| share[view] * maps[view][at]).sum())
            .collect();
        Ok(Views { maps, heat })
    }
}

/// The score that a new normal image exceeds with a chance of at most `rate` (split conformal: Vovk
/// et al., "Algorithmic Learning in a Random World", 2005); the largest where there are too few for
/// that.
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
    fn sums_do_not_depend_on_the_parts() {
        let values: Vec<f32> = (0..60_u16).map(|i| f32::from(i * i % 17) + 100.0).collect();
        let (mut one, mut many) = (Sums::default(), Sums::default());
        one.add(&values);
        values.chunks(7).for_each(|part| many.add(part));
        let mean = values.iter().sum::<f32>() / 60.0;
        let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 60.0).sqrt();
        assert!(
            (one.usual().mean - many.usual().mean).abs() < 1e-9
                && (one.usual().deviation - many.usual().deviation).abs() < 1e-9
        );
        assert!(
            (one.usual().mean - f64::from(mean)).abs() < 1e-4
                && (one.usual().deviation - f64::from(deviation)).abs() < 1e-4
        );
    }

    #[test]
    fn a_new_normal_image_is_rarely_above() {
        let scores: Vec<f32> = (1..=99_u8).rev().map(f32::from).collect();
        assert_eq!(
            [0.01, 0.05, 0.5].map(|rate| quantile(scores.clone(), rate)),
            [99.0, 95.0, 50.0]
        );
        // nine images state no rate below a tenth
        assert_eq!(quantile(scores[..9].to_vec(), 0.01), 99.0);
    }
}
