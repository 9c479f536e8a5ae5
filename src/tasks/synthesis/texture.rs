//! More of a texture than there is: an image of any size with the moments of a small exemplar.

use crate::device::Device;
use crate::error::Result;
use crate::model::Store;
use crate::raster::resample::imresize_to;
use crate::report::picture::Picture;
use crate::rng::Stream;
use crate::tasks::synthesis::RGB;
use crate::tasks::synthesis::extractor::Content;
use crate::tasks::synthesis::frame::Border;
use crate::tasks::synthesis::objective::{Objective, Scales, depth, halvings, moments};
use crate::tasks::synthesis::quilt::quilt;
use crate::tasks::synthesis::synthesizer::Synthesizer;
use crate::tasks::synthesis::transform::Affine;

/// Pixels around a texture that need not tile, which are cut off: what opposite sides have to do
/// with each other ends there.
const MARGIN: usize = 16;
/// Deviation of the noise that is added where a smaller texture was enlarged, so that there is
/// something that finer moments can be made of.
const GRAIN: f32 = 0.02;

/// Of the steps at each size, the share that is taken again on what is not cut off: one in so many.
const POLISH: usize = 3;

/// How a picture is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By optimising an image until its moments are those wanted.
    Optimise {
        /// Steps at each size, from the smallest on.
        steps: usize,
    },
    /// By whitening and colouring the codes of autoencoders.
    Quick,
}

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Height and width.
    pub size: [usize; 2],
    /// Whether opposite sides are to meet.
    pub tile: bool,
    /// How.
    pub method: Method,
    /// Seed of the noise it begins with.
    pub seed: u64,
}

/// Where a texture is in the making.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Steps done of all.
    pub done: usize,
    /// Steps in all.
    pub of: usize,
    /// What is made smaller.
    pub loss: f64,
}

/// A texture.
#[derive(Clone, Debug)]
pub struct Texture {
    /// The image.
    pub picture: Picture,
    /// How far its moments are from the exemplar's.
    pub distance: f64,
    /// The same of pixels of the exemplar in any order.
    pub shuffled: f64,
}

/// Pixels drawn from an image.
fn drawn(image: &[f32], count: usize, seed: u64) -> Vec<f32> {
    let (mut stream, pixels) = (Stream::new(seed, "texture"), image.len() / RGB);
    (0..count).flat_map(|_| image[stream.below(pixels) * RGB..][..RGB].to_vec()).collect()
}

/// Noise on a torus, optimised at the smallest size first.
fn optimised(
    device: &mut Device,
    synthesizers: &[(Synthesizer, Store)],
    scales: &[(Vec<f32>, [usize; 2])],
    wanted: &Scales,
    (canvas, steps, seed): ([usize; 2], usize, u64),
    go_on: &mut impl FnMut(usize, f64) -> bool,
) -> Result<Vec<f32>> {
    let halves =
        std::iter::successors(Some(canvas), |size| Some(size.map(|side| side.div_ceil(2))));
    let sizes: Vec<[usize; 2]> = halves.take(scales.len()).collect();
    // the last one needs the most memory: whether it is there must not come out after all the
    // others
    drop(Objective::new(
        device,
        synthesizers,
        canvas,
        Some(Border::Wrap),
        vec![(1.0, wanted.clone())],
        Some(&[]),
    )?);
    let (mut image, mut stopped) = (Vec::new(), false);
    for (level, &size) in sizes.iter().enumerate().rev() {
        image = match sizes.get(level + 1) {
            None => drawn(&scales[level].0, size[0] * size[1], seed),
            Some(&[h, w]) => {
                let mut stream = Stream::new(seed, &format!("grain {level}"));
                let mut larger = imresize_to(&image, (h, w), RGB, (size[0], size[1]));
                larger.iter_mut().for_each(|v| *v += GRAIN * stream.normal());
                larger
            }
        };
        if stopped {
            continue;
        }
        let exemplars = vec![(1.0, wanted[level..].to_vec())];
        let mut objective =
            Objective::new(device, synthesizers, size, Some(Border::Wrap), exemplars, Some(&[]))?;
        objective.want_spectrum(&scales[level].0, scales[level].1);
        let before = (sizes.len() - 1 - level) * steps;
        objective.descend(&mut image, steps, |done, loss| {
            stopped = !go_on(before + done, loss);
            !stopped
        })?;
    }
    Ok(image)
}

/// A patchwork of the exemplar, whose finest code is whitened and coloured as the exemplar's.
fn quick(
    device: &mut Device,
    synthesizers: &[(Synthesizer, Store)],
    exemplar: &Picture,
    canvas: [usize; 2],
    seed: u64,
) -> Result<Vec<f32>> {
    let (synthesizer, store) = &synthesizers[synthesizers.len() - 1];
    let goal = synthesizer.code(device, store, exemplar)?;
    // first, since it may need more memory than there is
    let extractor = synthesizer.changing(device, store, canvas, Border::Wrap, 0)?;
    let image = quilt(&exemplar.pixels, [exemplar.h, exemplar.w], canvas, seed);
    let own = extractor.look(device, &image)?.0.remove(0);
    let (matrix, offset) = Affine::between(&own, &goal).values();
    extractor.decode(device, &matrix, &offset)
}

/// Makes a texture. `synthesizers` are autoencoders from the coarsest code to the finest. `go_on` says
/// whether to: if not, what there is so far is the result.
///
/// # Errors
/// When the exemplar or the texture is smaller than what the encoder looks at, or takes more memory
/// than may be taken, or the device fails.
pub fn texture(
    device: &mut Device,
    synthesizers: &[(Synthesizer, Store)],
    exemplar: &Picture,
    options: &Options,
    mut go_on: impl FnMut(Progress) -> bool,
) -> Result<Texture> {
    let (synthesizer, _) = &synthesizers[0];
    synthesizer.check_size([exemplar.h, exemplar.w])?;
    synthesizer.check_size(options.size)?;
    let scales = halvings(exemplar, depth(synthesizer, &[[exemplar.h, exemplar.w], options.size]));
    let around = if options.tile { 0 } else { MARGIN };
    let canvas = options.size.map(|side| side + 2 * around);
    let wanted = moments(device, synthesizers, &scales)?;
    let mut stopped = false;
    let of = match options.method {
        Method::Optimise { steps } => {
            scales.len() * steps + if options.tile { 0 } else { steps / POLISH }
        }
        Method::Quick => 1,
    };
    let mut image = match options.method {
        Method::Optimise { steps } => {
            let mut told = |done: usize, loss: f64| {
                stopped = !go_on(Progress { done, of, loss });
                !stopped
            };
            optimised(
                device,
                synthesizers,
                &scales,
                &wanted,
                (canvas, steps, options.seed),
                &mut told,
            )?
        }
        Method::Quick => quick(device, synthesizers, exemplar, canvas, options.seed)?,
    };
    let [h, w] = options.size;
    image = crate::raster::crop(&image, canvas[1], RGB, around..around + h, around..around + w);
    let border = options.tile.then_some(Border::Wrap);
    let polish = match options.method {
        Method::Optimise { steps } if !(options.tile || stopped) => steps / POLISH,
        _ => 0,
    };
    let contents: Option<&[Content]> = (polish > 0).then_some(&[]);
    let mut objective =
        Objective::new(device, synthesizers, options.size, border, vec![(1.0, wanted)], contents)?;
    if polish > 0 {
        // what is left has other moments than all of it had
        objective.descend(&mut image, polish, |done, loss| {
            go_on(Progress { done: of - polish + done, of, loss })
        })?;
    }
    // to the levels of a file
    image.iter_mut().for_each(|v| *v = (v.clamp(0.0, 1.0) * 255.0).round() / 255.0);
    let distance = objective.distance(&image)?;
    let shuffled = objective.distance(&drawn(&exemplar.pixels, h * w, options.seed))?;
    Ok(Texture { picture: Picture { h, w, c: RGB, pixels: image }, distance, shuffled })
}
