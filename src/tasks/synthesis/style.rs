//! A picture's content in the style of others. Quick: its codes are whitened and coloured as theirs
//! are, from the coarsest level to the finest (Li et al., "Universal Style Transfer via Feature
//! Transforms", 2017). Slow: the picture is optimised until its moments are theirs, while its
//! coarsest code stays near its own (Gatys, Ecker & Bethge, "Image Style Transfer Using
//! Convolutional Neural Networks", 2016).

use crate::device::Device;
use crate::error::{Error, Result};
use crate::metrics::quality;
use crate::model::Store;
use crate::raster::resample::imresize_to;
use crate::report::picture::Picture;
use crate::tasks::synthesis::RGB;
use crate::tasks::synthesis::extractor::{Content, Then};
use crate::tasks::synthesis::frame::Border;
use crate::tasks::synthesis::objective::{Objective, Scales, depth, halvings, moments};
use crate::tasks::synthesis::synthesizer::Synthesizer;
use crate::tasks::synthesis::texture::{Method, Progress};
use crate::tasks::synthesis::transform::Affine;

/// Sizes at which moments are compared, each half of the one before.
const LEVELS: usize = 3;
/// What the content weighs beside the moments where the strength is 1.
const CONTENT: f64 = 0.2;

/// What is to be made of a picture.
#[derive(Clone, Copy, Debug)]
pub struct Styling {
    /// How.
    pub method: Method,
    /// 0: the picture as it is, 1: as much of the style as there can be.
    pub strength: f64,
    /// Whether it keeps its colours.
    pub keep_color: bool,
}

/// A picture in a style.
#[derive(Clone, Debug)]
pub struct Styled {
    /// The picture.
    pub picture: Picture,
    /// How far its moments are from the style's, on average over styles by their weights.
    pub distance: f64,
    /// The same of the picture as it was.
    pub before: f64,
    /// How alike its structure is to that of the picture as it was: SSIM of the brightness.
    pub ssim: f64,
}

/// How bright pixels are, from black at 0 to white at 1 (the weights of BT.601, full range).
pub fn brightness(pixels: &[f32]) -> Vec<f32> {
    pixels.chunks_exact(RGB).map(|p| 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2]).collect()
}

/// A picture at another size.
fn resized(picture: &Picture, [h, w]: [usize; 2]) -> Picture {
    if [picture.h, picture.w] == [h, w] {
        return picture.clone();
    }
    Picture {
        h,
        w,
        c: RGB,
        pixels: imresize_to(&picture.pixels, (picture.h, picture.w), RGB, (h, w)),
    }
}

/// A style at the size at which it is looked at: its shorter side is the content's, so that its
/// strokes have their size in the picture, times `scale`.
fn fitted(style: &Picture, content: &Picture, scale: f64) -> Picture {
    let by = scale * content.h.min(content.w) as f64 / style.h.min(style.w) as f64;
    let side = |side: usize| ((by * side as f64).round() as usize).max(1);
    let mut fitted = resized(style, [side(style.h), side(style.w)]);
    fitted.pixels.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
    fitted
}

/// Its brightness in all three channels, moved and stretched by `to` (mean and deviation) where
/// that is wanted.
fn gray(picture: &Picture, to: Option<(f64, f64)>) -> (Picture, (f64, f64)) {
    let mut values = brightness(&picture.pixels);
    let n = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let deviation = (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n).sqrt();
    if let Some((to_mean, to_deviation)) = to {
        let by = to_deviation / deviation.max(1e-6);
        values.iter_mut().for_each(|v| *v = (to_mean + by * (f64::from(*v) - mean)) as f32);
    }
    (
        Picture { pixels: values.iter().flat_map(|v| [*v; 3]).collect(), ..*picture },
        (mean, deviation),
    )
}

/// The colours of one picture with the brightness of another, both on the 0–1 scale.
fn recoloured(colours: &Picture, shades: &[f32]) -> Vec<f32> {
    let (own, new) = (brightness(&colours.pixels), brightness(shades));
    colours.pixels.iter().enumerate().map(|(at, v)| v + new[at / RGB] - own[at / RGB]).collect()
}

/// Puts a picture into the style of others, each with its weight; weights add up to 1. A style is
/// looked at with its shorter side as long as the picture's, times `scale`: the larger, the larger
/// are its strokes. `synthesizers` are autoencoders from the coarsest code to the finest. `go_on` says
/// whether to: if not, what there is so far is the result of an optimisation; of the quick way
/// there is none.
///
/// # Errors
/// When a picture is smaller than what the encoder looks at, the quick way was stopped, or the
/// device fails.
pub fn stylize(
    device: &mut Device,
    synthesizers: &[(Synthesizer, Store)],
    content: &Picture,
    styles: &[(f64, Picture)],
    scale: f64,
    styling: &Styling,
    mut go_on: impl FnMut(Progress) -> bool,
) -> Result<Styled> {
    synthesizers[0].0.check_size([content.h, content.w])?;
    let mut styles: Vec<(f64, Picture)> =
        styles.iter().map(|(weight, style)| (*weight, fitted(style, content, scale))).collect();
    let mut base = content.clone();
    if styling.keep_color {
        let spread;
        (base, spread) = gray(content, None);
        styles.iter_mut().for_each(|(_, style)| *style = gray(style, Some(spread)).0);
    }
    for (_, style) in &styles {
        synthesizers[0]
            .0
            .check_size([style.h, style.w])
            .map_err(|error| error.at("the style, at the size at which it is looked at"))?;
    }
    let sizes = styles.iter().map(|(_, style)| [style.h, style.w]).chain([[content.h, content.w]]);
    let levels = depth(&synthesizers[0].0, &sizes.collect::<Vec<_>>()).min(LEVELS);
    let mut exemplars = Vec::with_capacity(styles.len());
    for (weight, style) in &styles {
        exemplars.push((*weight, moments(device, synthesizers, &halvings(style, levels))?));
    }
    let pixels = match styling.method {
        Method::Quick => quick(device, synthesizers, &base, &styles, styling.strength, &mut go_on)?,
        Method::Optimise { steps } => optimised(
            device,
            synthesizers,
            &base,
            exemplars.clone(),
            (styling.strength, steps),
            &mut go_on,
        )?,
    };
    let finish = |pixels: &[f32]| -> Vec<f32> {
        let pixels = if styling.keep_color { recoloured(content, pixels) } else { pixels.to_vec() };
        pixels.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() / 255.0).collect()
    };
    let picture = Picture { pixels: finish(&pixels), ..*content };
    // judged as it is seen, but where colours are kept by its brightness
    let seen = if styling.keep_color { gray(&picture, None).0 } else { picture.clone() };
    let mut objective = Objective::new(
        device,
        synthesizers,
        [content.h, content.w],
        Some(Border::Mirror),
        exemplars,
        None,
    )?;
    let (distance, before) = (objective.distance(&seen.pixels)?, objective.distance(&base.pixels)?);
    let ssim = quality::ssim(
        &brightness(&content.pixels),
        &brightness(&picture.pixels),
        content.h,
        content.w,
        1,
    );
    Ok(Styled { picture, distance, before, ssim })
}

/// The order in which a picture goes through autoencoders, the coarsest first: through all, then
/// again without the coarsest, and so on, so that finer ones mend what coarser ones leave. One
/// alone is gone through twice: after once, hardly a stroke is there.
fn path(levels: usize) -> Vec<usize> {
    if levels == 1 { vec![0, 0] } else { (0..levels).flat_map(|first| first..levels).collect() }
}

/// By whitening and colouring. (At halves of the size as well, strokes are larger, and so are
/// blotches of colour.)
fn quick(
    device: &mut Device,
    synthesizers: &[(Synthesizer, Store)],
    content: &Picture,
    styles: &[(f64, Picture)],
    strength: f64,
    go_on: &mut impl FnMut(Progress) -> bool,
) -> Result<Vec<f32>> {
    let (mut levels, mut taken) = (Vec::with_capacity(synthesizers.len()), 0);
    for (synthesizer, store) in synthesizers {
        let mut goals = Vec::with_capacity(styles.len());
        for (weight, style) in styles {
            goals.push((*weight, synthesizer.code(device, store, style)?));
        }
        let extractor =
            synthesizer.changing(device, store, [content.h, content.w], Border::Mirror, taken)?;
        taken += extractor.bytes();
        levels.push((extractor, goals));
    }
    let (mut image, path, mut stopped) = (content.pixels.clone(), path(levels.len()), false);
    for (done, level) in path.iter().enumerate() {
        let (extractor, goals) = &levels[*level];
        let own = extractor.look(device, &image)?.0.remove(0);
        let affines: Vec<(f64, Affine)> =
            goals.iter().map(|(weight, goal)| (*weight, Affine::between(&own, goal))).collect();
        let (matrix, offset) = Affine::mixed(&affines).softened(strength).values();
        let mut styled = extractor.decode(device, &matrix, &offset)?;
        if strength < 1.0 {
            // what the autoencoder loses is the content's, so that none of the style leaves all of
            // it
            let (matrix, offset) = Affine::identity(own.mean.len()).values();
            let plain = extractor.decode(device, &matrix, &offset)?;
            let share = (1.0 - strength) as f32;
            styled
                .iter_mut()
                .zip(image.iter().zip(&plain))
                .for_each(|(styled, (own, plain))| *styled += share * (own - plain));
        }
        image = styled;
        // what is too bright for a picture is not to be made up for by the rest of it
        image.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
        if !go_on(Progress { done: done + 1, of: path.len(), loss: f64::NAN })
            && done + 1 < path.len()
        {
            stopped = true;
            break;
        }
    }
    // half of the way is no picture
    if stopped { Err(Error::failed("stopped before the picture was done")) } else { Ok(image) }
}

/// By optimisation from the content on.
fn optimised(
    device: &mut Device,
    synthesizers: &[(Synthesizer, Store)],
    content: &Picture,
    exemplars: Vec<(f64, Scales)>,
    (strength, steps): (f64, usize),
    go_on: &mut impl FnMut(Progress) -> bool,
) -> Result<Vec<f32>> {
    if strength <= 0.0 {
        return Ok(content.pixels.clone());
    }
    let levels = exemplars[0].1.len();
    let (synthesizer, store) = &synthesizers[0];
    let weight = CONTENT / strength.powi(2) / levels as f64;
    let mut wanted = Vec::with_capacity(levels);
    for (pixels, size) in &halvings(content, levels) {
        let extractor = synthesizer.measuring(
            device,
            store,
            *size,
            Some(Border::Mirror),
            &Then::Stop { apart: false },
            0,
        )?;
        extractor.look(device, pixels)?;
        wanted.push(Content { maps: extractor.code(device)?, weight });
    }
    let mut image = content.pixels.clone();
    let mut objective = Objective::new(
        device,
        synthesizers,
        [content.h, content.w],
        Some(Border::Mirror),
        exemplars,
        Some(&wanted),
    )?;
    objective.descend(&mut image, steps, |done, loss| go_on(Progress { done, of: steps, loss }))?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use crate::tasks::synthesis::style::path;

    #[test]
    fn finer_levels_come_again() {
        assert_eq!(path(1), [0, 0]);
        assert_eq!(path(2), [0, 1, 1]);
        assert_eq!(path(3), [0, 1, 2, 1, 2, 2]);
    }
}
