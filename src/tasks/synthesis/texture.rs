//! Texture synthesis: an image of any size whose moments match those of a small exemplar.

use crate::device::Device;
use crate::error::Result;
use crate::model::Store;
use crate::raster::resample::imresize_to;
use crate::report::picture::Picture;
use crate::rng::Stream;
use crate::shape::{Dims, Size};
use crate::tasks::synthesis::RGB;
use crate::tasks::synthesis::extractor::Content;
use crate::tasks::synthesis::frame::{Border, half};
use crate::tasks::synthesis::objective::{Objective, Scales, pyramid, scale_count, target_moments};
use crate::tasks::synthesis::quilt::quilt;
use crate::tasks::synthesis::synthesizer::Synthesizer;
use crate::tasks::synthesis::transform::Affine;

/// Pixels around a texture that need not tile. They are cut off, and with them the constraint that
/// opposite sides meet.
const MARGIN: usize = 16;
/// Standard deviation of the noise added after enlarging a smaller texture. Without it, the
/// enlarged image has no fine detail that the optimisation could shape.
const GRAIN: f32 = 0.02;

/// After the margin is cut off, one step for every `POLISH` steps per size is taken on the rest.
const POLISH: usize = 3;

/// How a picture is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Optimise an image until its moments match the target.
    Optimise {
        /// Steps at each size, from the smallest to the largest.
        steps: usize,
    },
    /// Whiten and colour the codes of autoencoders.
    Quick,
}

/// Options of [`texture`].
#[derive(Clone, Copy, Debug)]
pub struct TextureOptions {
    /// Height and width of the texture.
    pub size: Size,
    /// Whether opposite sides should meet, so that the texture tiles.
    pub tile: bool,
    /// The method.
    pub method: Method,
    /// Seed of the initial noise.
    pub seed: u64,
}

/// Progress of a synthesis.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Number of steps done.
    pub done: usize,
    /// Total number of steps.
    pub total: usize,
    /// Value of the objective; NaN for the quick method.
    pub loss: f64,
}

/// The result of [`texture`].
#[derive(Clone, Debug)]
pub struct Texture {
    /// The texture.
    pub picture: Picture,
    /// Distance of its moments from the exemplar's.
    pub distance: f64,
    /// The same distance for randomly drawn pixels of the exemplar, as a baseline.
    pub shuffled: f64,
}

/// Pixels drawn at random from an image, with replacement.
fn sampled_pixels(image: &[f32], count: usize, seed: u64) -> Vec<f32> {
    let (mut stream, pixels) = (Stream::new(seed, "texture"), image.len() / RGB);
    (0..count).flat_map(|_| image[stream.below(pixels) * RGB..][..RGB].to_vec()).collect()
}

/// Optimises noise on a torus, from the smallest scale to the largest.
fn optimised(
    device: &mut Device,
    synthesizers: &[(Synthesizer, Store)],
    scales: &[(Vec<f32>, Size)],
    target: &Scales,
    (canvas, steps, seed): (Size, usize, u64),
    should_continue: &mut impl FnMut(usize, f64) -> bool,
) -> Result<Vec<f32>> {
    let halves = std::iter::successors(Some(canvas), |size| Some(half(*size)));
    let sizes: Vec<Size> = halves.take(scales.len()).collect();
    // Build the largest objective first, because it needs the most memory: fail before the smaller
    // sizes take their time.
    drop(Objective::new(
        device,
        synthesizers,
        canvas,
        Some(Border::Wrap),
        vec![(1.0, target.clone())],
        Some(&[]),
    )?);
    let (mut image, mut stopped) = (Vec::new(), false);
    for (level, &size) in sizes.iter().enumerate().rev() {
        image = match sizes.get(level + 1) {
            None => sampled_pixels(&scales[level].0, size.area(), seed),
            Some(&smaller) => {
                let mut stream = Stream::new(seed, &format!("grain {level}"));
                let mut larger = imresize_to(&image, Dims::of(smaller, RGB), size);
                larger.iter_mut().for_each(|v| *v += GRAIN * stream.normal());
                larger
            }
        };
        if stopped {
            continue;
        }
        let exemplars = vec![(1.0, target[level..].to_vec())];
        let mut objective =
            Objective::new(device, synthesizers, size, Some(Border::Wrap), exemplars, Some(&[]))?;
        objective.match_spectrum(&scales[level].0, scales[level].1);
        let before = (sizes.len() - 1 - level) * steps;
        objective.minimise(&mut image, steps, |done, loss| {
            stopped = !should_continue(before + done, loss);
            !stopped
        })?;
    }
    Ok(image)
}

/// Quilts the exemplar, then whitens and colours the finest code to match the exemplar's.
fn quick(
    device: &mut Device,
    synthesizers: &[(Synthesizer, Store)],
    exemplar: &Picture,
    canvas: Size,
    seed: u64,
) -> Result<Vec<f32>> {
    let (synthesizer, store) = &synthesizers[synthesizers.len() - 1];
    let goal = synthesizer.code_moments(device, store, exemplar)?;
    // Built first, because it may fail for lack of memory.
    let extractor = synthesizer.decoding_extractor(device, store, canvas, Border::Wrap, 0)?;
    let image = quilt(&exemplar.pixels, exemplar.dims.size(), canvas, seed);
    let own = extractor.statistics(device, &image)?.0.remove(0);
    let (matrix, offset) = Affine::between(&own, &goal).to_f32();
    extractor.decode(device, &matrix, &offset)
}

/// Synthesizes a texture. `synthesizers` are autoencoders, sorted from the coarsest code to the
/// finest. If `should_continue` returns false, the current picture is the result.
///
/// # Errors
/// If the exemplar or the texture is smaller than the encoder's minimum, the memory budget is too
/// small, or the device fails.
pub fn texture(
    device: &mut Device,
    synthesizers: &[(Synthesizer, Store)],
    exemplar: &Picture,
    options: &TextureOptions,
    mut should_continue: impl FnMut(Progress) -> bool,
) -> Result<Texture> {
    let (synthesizer, _) = &synthesizers[0];
    let (own, size) = (exemplar.dims.size(), options.size);
    synthesizer.check_size(own)?;
    synthesizer.check_size(size)?;
    let scales = pyramid(exemplar, scale_count(synthesizer, &[own, size]));
    let around = if options.tile { 0 } else { MARGIN };
    let canvas = size.map(|side| side + 2 * around);
    let target = target_moments(device, synthesizers, &scales)?;
    let mut stopped = false;
    let total = match options.method {
        Method::Optimise { steps } => {
            scales.len() * steps + if options.tile { 0 } else { steps / POLISH }
        }
        Method::Quick => 1,
    };
    let mut image = match options.method {
        Method::Optimise { steps } => {
            let mut report = |done: usize, loss: f64| {
                stopped = !should_continue(Progress { done, total, loss });
                !stopped
            };
            optimised(
                device,
                synthesizers,
                &scales,
                &target,
                (canvas, steps, options.seed),
                &mut report,
            )?
        }
        Method::Quick => quick(device, synthesizers, exemplar, canvas, options.seed)?,
    };
    image = crate::raster::crop(&image, Dims::of(canvas, RGB), (around, around), size);
    let border = options.tile.then_some(Border::Wrap);
    let polish = match options.method {
        Method::Optimise { steps } if !(options.tile || stopped) => steps / POLISH,
        _ => 0,
    };
    let contents: Option<&[Content]> = (polish > 0).then_some(&[]);
    let mut objective =
        Objective::new(device, synthesizers, size, border, vec![(1.0, target)], contents)?;
    if polish > 0 {
        // Cutting the margin changes the moments.
        objective.minimise(&mut image, polish, |done, loss| {
            should_continue(Progress { done: total - polish + done, total, loss })
        })?;
    }
    // Round to the 8-bit levels of an image file.
    image.iter_mut().for_each(|v| *v = (v.clamp(0.0, 1.0) * 255.0).round() / 255.0);
    let distance = objective.distance(&image)?;
    let shuffled =
        objective.distance(&sampled_pixels(&exemplar.pixels, size.area(), options.seed))?;
    let picture = Picture { dims: Dims::of(size, RGB), pixels: image };
    Ok(Texture { picture, distance, shuffled })
}
