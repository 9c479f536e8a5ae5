//! Style transfer. Two methods give a picture's content the style of others. The quick one whitens
//! and colours its codes as theirs are, from the coarsest level to the finest (Li et al.,
//! "Universal Style Transfer via Feature Transforms", 2017). The slow one optimises the picture
//! until its moments match theirs while its coarsest code stays close to the original (Gatys, Ecker
//! & Bethge, "Image Style Transfer Using Convolutional Neural Networks", 2016).

use crate::device::Device;
use crate::error::{Error, Result};
use crate::metrics::quality;
use crate::model::Store;
use crate::raster::resample::imresize_to;
use crate::report::picture::Picture;
use crate::shape::{Dims, Size};
use crate::tasks::synthesis::RGB;
use crate::tasks::synthesis::extractor::{Content, Output};
use crate::tasks::synthesis::frame::Border;
use crate::tasks::synthesis::objective::{
    Objective, Scales, moments_bytes, objective_bytes, pyramid, scale_count, target_moments,
};
use crate::tasks::synthesis::synthesizer::Synthesizer;
use crate::tasks::synthesis::texture::check_budget;
use crate::tasks::synthesis::transform::Affine;

/// Maximum number of scales at which moments are compared, each half of the one before.
const MAX_SCALES: usize = 3;
/// Weight of the content, relative to the moments, at strength 1. More keeps more of the content's
/// structure.
const CONTENT_WEIGHT: f64 = 0.2;

/// Copies of the content's pixels in f32 that exist at once on the host: the content, its gray
/// copy, the picture between the passes, padded, decoded and cropped, and the result with its
/// encoded file. Measured.
const PICTURES: usize = 8;

/// How a picture is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Optimise an image until its moments match the target.
    Optimise {
        /// Number of steps.
        steps: usize,
    },
    /// Whiten and colour the codes of autoencoders.
    Quick,
}

/// Progress of a style transfer.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Number of steps done.
    pub done: usize,
    /// Total number of steps.
    pub total: usize,
    /// Value of the objective; NaN for the quick method.
    pub loss: f64,
}

/// Options of [`stylize`].
#[derive(Clone, Copy, Debug)]
pub struct StyleOptions {
    /// The method.
    pub method: Method,
    /// 0 returns the picture unchanged, 1 gives it as much of the style as possible.
    pub strength: f64,
    /// Whether the picture keeps its colours and only its brightness is styled.
    pub keep_color: bool,
}

/// The result of [`stylize`].
#[derive(Clone, Debug)]
pub struct StyledPicture {
    /// The styled picture.
    pub picture: Picture,
    /// Distance of its moments from the styles', averaged over the styles by their weights.
    pub distance: f64,
    /// The same distance for the original picture.
    pub before: f64,
    /// Structural similarity (SSIM) of its brightness and the original's.
    pub ssim: f64,
}

/// The brightness of pixels, from 0 (black) to 1 (white): luma with the weights of ITU-R BT.601,
/// full range.
pub fn brightness(pixels: &[f32]) -> Vec<f32> {
    pixels.chunks_exact(RGB).map(|p| 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2]).collect()
}

/// Resamples a picture to another size.
fn resized(picture: &Picture, to: Size) -> Picture {
    if picture.dims.size() == to {
        return picture.clone();
    }
    let pixels = imresize_to(&picture.pixels, picture.dims, to);
    Picture { dims: Dims::of(to, RGB), pixels }
}

/// Resizes a style to the size at which its moments are taken: its shorter side becomes the
/// content's, times `scale`. Its strokes then appear at that size in the result.
fn fitted(style: &Picture, content: &Picture, scale: f64) -> Picture {
    let mut fitted = resized(style, fitted_size(style.dims.size(), content.dims.size(), scale));
    fitted.pixels.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
    fitted
}

/// The size of a style after [`fitted`].
fn fitted_size(style: Size, content: Size, scale: f64) -> Size {
    let shorter = |size: Size| size.h.min(size.w) as f64;
    let by = scale * shorter(content) / shorter(style);
    style.map(|side| ((by * side as f64).round() as usize).max(1))
}

/// The brightness of a picture in all three channels, and its mean and standard deviation. With
/// `target`, the brightness is shifted and scaled to that mean and standard deviation.
fn gray(picture: &Picture, target: Option<(f64, f64)>) -> (Picture, (f64, f64)) {
    let mut values = brightness(&picture.pixels);
    let n = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let std = (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n).sqrt();
    if let Some((target_mean, target_std)) = target {
        let by = target_std / std.max(1e-6);
        values.iter_mut().for_each(|v| *v = (target_mean + by * (f64::from(*v) - mean)) as f32);
    }
    (Picture { pixels: values.iter().flat_map(|v| [*v; 3]).collect(), ..*picture }, (mean, std))
}

/// The colours of one picture with the brightness of another, both on the 0–1 scale.
fn recoloured(colours: &Picture, shades: &[f32]) -> Vec<f32> {
    let (own, new) = (brightness(&colours.pixels), brightness(shades));
    colours.pixels.iter().enumerate().map(|(at, v)| v + new[at / RGB] - own[at / RGB]).collect()
}

/// Fails if [`stylize`] would need more memory than the budget allows. `content` and `styles` are
/// the sizes of the pictures, and `held` the bytes that the caller holds meanwhile.
///
/// # Errors
/// If it does, or a picture is too small for the encoder.
pub fn check_style_memory(
    device: &Device,
    synthesizers: &[(Synthesizer, Store)],
    (content, styles): (Size, &[Size]),
    scale: f64,
    method: Method,
    held: u64,
) -> Result<()> {
    let coarsest = &synthesizers[0].0;
    coarsest.check_size(content)?;
    let fitted: Vec<Size> =
        styles.iter().map(|style| fitted_size(*style, content, scale)).collect();
    let sizes: Vec<Size> = fitted.iter().copied().chain([content]).collect();
    let levels = scale_count(coarsest, &sizes).min(MAX_SCALES);
    let mut most = 0;
    for style in &fitted {
        coarsest
            .check_size(*style)
            .map_err(|error| error.at("the style, resized to the content"))?;
        most = most.max(moments_bytes(synthesizers, *style, levels)?);
    }
    let border = Some(Border::Mirror);
    let measuring = objective_bytes(synthesizers, content, border, levels, (false, false))?;
    let making = match method {
        Method::Quick => quick_bytes(synthesizers, content, &fitted)?,
        // The maps of the content at each level are held beside the objective.
        Method::Optimise { .. } => {
            objective_bytes(synthesizers, content, border, levels, (true, true))?
        }
    };
    let pictures = content.area() * PICTURES + fitted.iter().map(|size| size.area()).sum::<usize>();
    let host = (pictures * RGB * size_of::<f32>()) as u64;
    check_budget(device, content, most.max(measuring).max(making) + host + held)
}

/// Bytes on the device while [`quick`] runs.
fn quick_bytes(
    synthesizers: &[(Synthesizer, Store)],
    content: Size,
    styles: &[Size],
) -> Result<u64> {
    let (mut decoding, mut of_code) = (0, 0);
    for (synthesizer, store) in synthesizers {
        decoding += synthesizer.decoding_bytes(store, content, Border::Mirror)?;
        for style in styles {
            of_code = of_code.max(synthesizer.code_bytes(store, *style)?);
        }
    }
    Ok(decoding + of_code)
}

/// Gives a picture the style of others, each with a weight. Weights must add up to 1. A style is
/// resized until its shorter side is the picture's times `scale`: larger values give larger
/// strokes. `synthesizers` are autoencoders, sorted from the coarsest code to the finest. If
/// `should_continue` returns false, an optimisation returns its current picture, and the quick
/// method fails.
///
/// # Errors
/// If the picture or a style is smaller than the encoder's minimum, the memory budget is too small,
/// the quick method was stopped, or the device fails.
pub fn stylize(
    device: &mut Device,
    synthesizers: &[(Synthesizer, Store)],
    content: &Picture,
    styles: &[(f64, Picture)],
    scale: f64,
    options: &StyleOptions,
    mut should_continue: impl FnMut(Progress) -> bool,
) -> Result<StyledPicture> {
    let size = content.dims.size();
    synthesizers[0].0.check_size(size)?;
    let mut styles: Vec<(f64, Picture)> =
        styles.iter().map(|(weight, style)| (*weight, fitted(style, content, scale))).collect();
    let mut base = content.clone();
    if options.keep_color {
        let spread;
        (base, spread) = gray(content, None);
        styles.iter_mut().for_each(|(_, style)| *style = gray(style, Some(spread)).0);
    }
    for (_, style) in &styles {
        synthesizers[0]
            .0
            .check_size(style.dims.size())
            .map_err(|error| error.at("the style, resized to the content"))?;
    }
    let sizes = styles.iter().map(|(_, style)| style.dims.size()).chain([size]);
    let levels = scale_count(&synthesizers[0].0, &sizes.collect::<Vec<_>>()).min(MAX_SCALES);
    let mut exemplars = Vec::with_capacity(styles.len());
    for (weight, style) in &styles {
        exemplars.push((*weight, target_moments(device, synthesizers, &pyramid(style, levels))?));
    }
    let pixels = match options.method {
        Method::Quick => {
            quick(device, synthesizers, &base, &styles, options.strength, &mut should_continue)?
        }
        Method::Optimise { steps } => optimised(
            device,
            synthesizers,
            &base,
            exemplars.clone(),
            (options.strength, steps),
            &mut should_continue,
        )?,
    };
    let finish = |pixels: &[f32]| -> Vec<f32> {
        let pixels = if options.keep_color { recoloured(content, pixels) } else { pixels.to_vec() };
        pixels.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() / 255.0).collect()
    };
    let picture = Picture { pixels: finish(&pixels), ..*content };
    // Measure the rounded result that is saved. If colours are kept, only its brightness was
    // styled, so only that is measured.
    let measured = if options.keep_color { gray(&picture, None).0 } else { picture.clone() };
    let mut objective =
        Objective::new(device, synthesizers, size, Some(Border::Mirror), exemplars, None)?;
    let (distance, before) =
        (objective.distance(&measured.pixels)?, objective.distance(&base.pixels)?);
    let ssim = quality::ssim(
        &brightness(&content.pixels),
        &brightness(&picture.pixels),
        Dims::of(size, 1),
    );
    Ok(StyledPicture { picture, distance, before, ssim })
}

/// The order of autoencoders that a picture passes through, coarsest first: through all of them,
/// then through all but the coarsest, and so on. Finer ones repair what coarser ones lose. A single
/// autoencoder is applied twice, because one pass transfers few strokes. Other orders were measured
/// in `benches/results/2026-11-28-textures-and-styles.md`.
fn pass_order(levels: usize) -> Vec<usize> {
    if levels == 1 { vec![0, 0] } else { (0..levels).flat_map(|first| first..levels).collect() }
}

/// Styles a picture by whitening and colouring. It works at full size only. At half sizes as well,
/// strokes would become larger, but so would colour blotches.
fn quick(
    device: &mut Device,
    synthesizers: &[(Synthesizer, Store)],
    content: &Picture,
    styles: &[(f64, Picture)],
    strength: f64,
    should_continue: &mut impl FnMut(Progress) -> bool,
) -> Result<Vec<f32>> {
    let (mut levels, mut reserved) = (Vec::with_capacity(synthesizers.len()), 0);
    for (synthesizer, store) in synthesizers {
        let mut goals = Vec::with_capacity(styles.len());
        for (weight, style) in styles {
            goals.push((*weight, synthesizer.code_moments(device, store, style)?));
        }
        let extractor = synthesizer.decoding_extractor(
            device,
            store,
            content.dims.size(),
            Border::Mirror,
            reserved,
        )?;
        reserved += extractor.bytes();
        levels.push((extractor, goals));
    }
    let (mut image, pass_order, mut stopped) =
        (content.pixels.clone(), pass_order(levels.len()), false);
    for (done, level) in pass_order.iter().enumerate() {
        let (extractor, goals) = &levels[*level];
        let own = extractor.statistics(device, &image)?.0.remove(0);
        let affines: Vec<(f64, Affine)> =
            goals.iter().map(|(weight, goal)| (*weight, Affine::between(&own, goal))).collect();
        let (matrix, offset) = Affine::weighted_mean(&affines).with_strength(strength).to_f32();
        let mut styled = extractor.decode(device, &matrix, &offset)?;
        if strength < 1.0 {
            // Adds back what the autoencoder loses of the content, so that strength 0 is the
            // identity.
            let (matrix, offset) = Affine::identity(own.mean.len()).to_f32();
            let plain = extractor.decode(device, &matrix, &offset)?;
            let share = (1.0 - strength) as f32;
            styled
                .iter_mut()
                .zip(image.iter().zip(&plain))
                .for_each(|(styled, (own, plain))| *styled += share * (own - plain));
        }
        image = styled;
        // Clamp now. Otherwise the next transform would compensate for out-of-range pixels
        // elsewhere.
        image.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
        if !should_continue(Progress { done: done + 1, total: pass_order.len(), loss: f64::NAN })
            && done + 1 < pass_order.len()
        {
            stopped = true;
            break;
        }
    }
    // A partial pass is not a usable picture.
    if stopped { Err(Error::failed("stopped before the picture was finished")) } else { Ok(image) }
}

/// Styles a picture by optimisation, starting from the content.
fn optimised(
    device: &mut Device,
    synthesizers: &[(Synthesizer, Store)],
    content: &Picture,
    exemplars: Vec<(f64, Scales)>,
    (strength, steps): (f64, usize),
    should_continue: &mut impl FnMut(Progress) -> bool,
) -> Result<Vec<f32>> {
    if strength <= 0.0 {
        return Ok(content.pixels.clone());
    }
    let levels = exemplars[0].1.len();
    let (synthesizer, store) = &synthesizers[0];
    let weight = CONTENT_WEIGHT / strength.powi(2) / levels as f64;
    let mut wanted = Vec::with_capacity(levels);
    for (pixels, size) in &pyramid(content, levels) {
        let extractor = synthesizer.statistics_extractor(
            device,
            store,
            *size,
            Some(Border::Mirror),
            &Output::Statistics { shifted: false },
            0,
        )?;
        extractor.statistics(device, pixels)?;
        wanted.push(Content { maps: extractor.last_maps(device)?, weight });
    }
    let mut image = content.pixels.clone();
    let mut objective = Objective::new(
        device,
        synthesizers,
        content.dims.size(),
        Some(Border::Mirror),
        exemplars,
        Some(&wanted),
    )?;
    objective.minimise(&mut image, steps, |done, loss| {
        should_continue(Progress { done, total: steps, loss })
    })?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use crate::tasks::synthesis::style::pass_order;

    #[test]
    fn finer_autoencoders_are_applied_again() {
        assert_eq!(pass_order(1), [0, 0]);
        assert_eq!(pass_order(2), [0, 1, 1]);
        assert_eq!(pass_order(3), [0, 1, 2, 1, 2, 2]);
    }
}
