//! Texture synthesis: an image of any size whose moments match those of a small exemplar.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::Store;
use crate::report::picture::Picture;
use crate::rng::Stream;
use crate::shape::{Dims, Size};
use crate::tasks::synthesis::RGB;
use crate::tasks::synthesis::frame::Border;
use crate::tasks::synthesis::objective::{
    Objective, moments_bytes, objective_bytes, pyramid, scale_count, target_moments,
};
use crate::tasks::synthesis::quilt::quilt;
use crate::tasks::synthesis::synthesizer::Synthesizer;
use crate::tasks::synthesis::transform::Affine;

/// Pixels around a texture that need not tile. They are cut off, and with them the constraint that
/// opposite sides meet.
const MARGIN: usize = 16;
/// Copies of the texture's pixels in f32 that exist at once on the host: quilted, padded, decoded,
/// cropped, rounded, sampled, and encoded. Measured.
const PICTURES: usize = 8;
/// Options of [`texture`].
#[derive(Clone, Copy, Debug)]
pub struct TextureOptions {
    /// Height and width of the texture.
    pub size: Size,
    /// Whether opposite sides should meet, so that the texture tiles.
    pub tile: bool,
    /// Seed of the choice of patches.
    pub seed: u64,
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

/// Fails if a picture of `size` needs more bytes than the memory budget allows.
///
/// # Errors
/// If it does.
pub(super) fn check_budget(device: &Device, size: Size, needed: u64) -> Result<()> {
    let Some(budget) = device.budget().filter(|budget| needed > *budget) else { return Ok(()) };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Err(Error::usage(format!(
        "{size} pixels need {:.0} MiB, more than the memory budget of {:.0} MiB; make the picture \
         smaller, or {}",
        mib(needed),
        mib(budget),
        device.memory_advice()
    )))
}

/// Height and width of the image that is made, with a margin unless it tiles.
fn canvas_of(options: &TextureOptions) -> Size {
    options.size.map(|side| side + if options.tile { 0 } else { 2 * MARGIN })
}

/// Fails if [`texture`] would need more memory than the budget allows. `held` is the number of
/// bytes that the caller holds meanwhile.
///
/// # Errors
/// If it does, or the exemplar or the texture is too small for the encoder.
pub fn check_texture_memory(
    device: &Device,
    synthesizers: &[(Synthesizer, Store)],
    exemplar: Size,
    options: &TextureOptions,
    held: u64,
) -> Result<()> {
    let coarsest = &synthesizers[0].0;
    coarsest.check_size(exemplar)?;
    coarsest.check_size(options.size)?;
    let (size, canvas) = (options.size, canvas_of(options));
    let levels = scale_count(coarsest, &[exemplar, size]);
    let border = options.tile.then_some(Border::Wrap);
    let (finest, store) = &synthesizers[synthesizers.len() - 1];
    let making =
        finest.decoding_bytes(store, canvas, Border::Wrap)? + finest.code_bytes(store, exemplar)?;
    let measuring = objective_bytes(synthesizers, size, border, levels, (false, false))?;
    let device_bytes = moments_bytes(synthesizers, exemplar, levels)?.max(making).max(measuring);
    let pictures = (canvas.area() * PICTURES + 2 * exemplar.area()) * RGB * size_of::<f32>();
    check_budget(device, canvas, device_bytes + pictures as u64 + held)
}

/// Synthesizes a texture. `synthesizers` are autoencoders, sorted from the coarsest code to the
/// finest.
///
/// # Errors
/// If the exemplar or the texture is smaller than the encoder's minimum, the memory budget is too
/// small, or the device fails.
pub fn texture(
    device: &mut Device,
    synthesizers: &[(Synthesizer, Store)],
    exemplar: &Picture,
    options: &TextureOptions,
) -> Result<Texture> {
    let (synthesizer, _) = &synthesizers[0];
    let (own, size) = (exemplar.dims.size(), options.size);
    synthesizer.check_size(own)?;
    synthesizer.check_size(size)?;
    let scales = pyramid(exemplar, scale_count(synthesizer, &[own, size]));
    let around = if options.tile { 0 } else { MARGIN };
    let canvas = canvas_of(options);
    let target = target_moments(device, synthesizers, &scales)?;
    let mut image = quick(device, synthesizers, exemplar, canvas, options.seed)?;
    image = crate::raster::crop(&image, Dims::of(canvas, RGB), (around, around), size);
    let border = options.tile.then_some(Border::Wrap);
    let exemplars = vec![(1.0, target)];
    let mut objective = Objective::new(device, synthesizers, size, border, exemplars, None)?;
    // Round to the 8-bit levels of an image file.
    image.iter_mut().for_each(|v| *v = (v.clamp(0.0, 1.0) * 255.0).round() / 255.0);
    let distance = objective.distance(&image)?;
    let shuffled =
        objective.distance(&sampled_pixels(&exemplar.pixels, size.area(), options.seed))?;
    let picture = Picture { dims: Dims::of(size, RGB), pixels: image };
    Ok(Texture { picture, distance, shuffled })
}
