use super::image::Image;
use super::model::{Model, check_stop};
use crate::error::{Error, Result};
use crate::infer::conditions::Condition;
use crate::infer::restore::{Restorer, check_task};
use crate::raster::corrupt::Mask;
use crate::raster::jpeg;
use crate::spec::Task;
use crate::tasks::restore::image;

/// The noise level of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Noise {
    /// Estimated from the image ([`Image::noise_level`]).
    #[default]
    Auto,
    /// The standard deviation of white Gaussian noise, on the scale 0 to 255.
    Sigma(f64),
}

/// How strongly an image was compressed as a JPEG file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Read from the quantization tables of the image's JPEG file.
    #[default]
    OfFile,
    /// This quality, from 1 to 100, by the tables of the Independent JPEG Group. For images that
    /// were saved in another format since.
    Quality(u8),
}

/// Restoration of images of any size, with a model that was trained for it. Large images are
/// processed in overlapping tiles, which are blended without seams.
///
/// A gray model fills and enlarges the channels of a colour image one by one, removes noise from
/// its luma and chroma planes, and the artefacts of JPEG from its luma. The results have the depth,
/// the transparency and the colour profile of the image, and are not clipped to the scale 0 to 1.
impl Model {
    /// Removes noise from an image.
    ///
    /// # Errors
    /// When the model was not trained to denoise, `Noise::Sigma` is not within 0 to 255, the noise
    /// cannot be estimated ([`Image::noise_level`]), the model does not support the number of
    /// channels, or the device fails.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use csae::{Image, Model, Noise};
    ///
    /// let noisy = Image::open("noisy.png")?;
    /// let clean = Model::bundled("denoise")?.denoise(&noisy, Noise::Auto)?;
    /// clean.save("clean.png")?;
    /// # Ok::<(), csae::Error>(())
    /// ```
    pub fn denoise(&mut self, image: &Image, noise: Noise) -> Result<Image> {
        check_task(&self.graph.spec, Task::Denoise)?;
        let condition = match noise {
            // The model ignores the level, so an image can be too small for an estimate.
            Noise::Auto if !self.graph.is_conditioned_on_level() => Condition::noise(0.0),
            Noise::Auto => image.noise()?.condition(),
            Noise::Sigma(sigma) if (0.0..=255.0).contains(&sigma) => Condition::noise(sigma),
            Noise::Sigma(sigma) => {
                return Err(Error::usage(format!(
                    "Noise::Sigma({sigma}): the standard deviation must be from 0 to 255"
                )));
            }
        };
        self.restore(image, &image.visible(), &condition)
    }

    /// Fills missing pixels of an image. All other pixels stay unchanged.
    ///
    /// `mask` has the image's size. A pixel is missing if a channel of the mask is at least 0.25
    /// and the mask is at least half opaque there. In a mask of 0 and one smaller value, that
    /// value marks missing pixels.
    ///
    /// # Errors
    /// When the model was not trained to inpaint, the mask has another size than the image, every
    /// pixel is missing, the model does not support the number of channels, or the device fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use csae::{Array, Image, Model};
    ///
    /// let mut mask = Array::new([1, 1, 16, 16], vec![0.0; 256])?;
    /// mask[[0, 0, 8, 8]] = 1.0;
    /// let image = Image::new(Array::new([1, 1, 16, 16], vec![0.5; 256])?)?;
    /// let mut model = Model::builder().device("cpu").bundled("inpaint")?;
    /// let whole = model.inpaint(&image, &Image::new(mask)?)?;
    /// assert!((whole.pixels()[[0, 0, 8, 8]] - 0.5).abs() < 0.05);
    /// # Ok::<(), csae::Error>(())
    /// ```
    pub fn inpaint(&mut self, image: &Image, mask: &Image) -> Result<Image> {
        check_task(&self.graph.spec, Task::Inpaint)?;
        if mask.size() != image.size() {
            return Err(Error::usage(format!(
                "the mask has {} pixels, but the image has {}; give a mask of the image's size",
                mask.size(),
                image.size()
            )));
        }
        let mask: Mask = mask.marked()?;
        let mut pixels = image.visible();
        image::guess(&mut pixels, image.channels(), &mask)?;
        self.restore(image, &pixels, &Condition::missing(mask))
    }

    /// Enlarges both sides of an image `scale` times and adds the detail that plain interpolation
    /// lacks.
    ///
    /// # Errors
    /// When the model was not trained for the scale (the bundled model supports 2, 3 and 4), the
    /// result would have a side of more than 65,535 pixels or not fit into memory, the model does
    /// not support the number of channels, or the device fails.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use csae::{Image, Model};
    ///
    /// let large = Model::bundled("upscale")?.upscale(&Image::open("small.png")?, 3)?;
    /// large.save("large.png")?;
    /// # Ok::<(), csae::Error>(())
    /// ```
    pub fn upscale(&mut self, image: &Image, scale: usize) -> Result<Image> {
        check_task(&self.graph.spec, Task::Upscale)?;
        image::check_scale(&self.graph.spec, scale)
            .map_err(|error| error.at(format!("scale {scale}")))?;
        let large = image.enlarged(scale)?;
        self.restore(&large, &large.interleaved(), &Condition::enlarged(scale))
    }

    /// Removes the artefacts of JPEG compression from an image: blocks, and ripples beside edges.
    ///
    /// # Errors
    /// When the model was not trained for them (task `dejpeg`), the image is not from a JPEG file
    /// and no quality is given, the quality is not within 1 to 100, the model does not support the
    /// number of channels, or the device fails.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use csae::{Compression, Image, Model};
    ///
    /// let photo = Image::open("photo.jpg")?;
    /// let better = Model::bundled("dejpeg")?.deblock(&photo, Compression::OfFile)?;
    /// better.save("better.png")?;
    /// # Ok::<(), csae::Error>(())
    /// ```
    pub fn deblock(&mut self, image: &Image, compression: Compression) -> Result<Image> {
        check_task(&self.graph.spec, Task::Dejpeg)?;
        let level = match compression {
            Compression::Quality(quality @ 1..=100) => jpeg::level_of_quality(quality),
            Compression::Quality(quality) => {
                return Err(Error::usage(format!(
                    "Compression::Quality({quality}): the quality must be from 1 to 100"
                )));
            }
            Compression::OfFile => image.compression().ok_or_else(|| {
                Error::usage(
                    "the image has no quantization tables of luma, as JPEG files have them; give \
                     the quality that it was compressed with, Compression::Quality",
                )
            })?,
        };
        self.restore(image, &image.visible(), &Condition::compressed(level))
    }

    /// Sets whether restoration averages the results for all eight flips and rotations of the
    /// image. This gains a few tenths of a decibel and takes eight times as long. The default is
    /// `false`.
    pub const fn set_ensemble(&mut self, ensemble: bool) {
        self.ensemble = ensemble;
    }

    /// Restores `pixels` (H,W,C), the prepared input for an image.
    fn restore(&mut self, image: &Image, pixels: &[f32], condition: &Condition) -> Result<Image> {
        let mut restorer = Restorer::new(&self.graph, &self.store)?;
        restorer.ensemble = self.ensemble;
        let dims = image.pixels().dims();
        if restorer.changes_nothing(&self.graph, dims.c, condition)? {
            return Ok(image.clone());
        }
        let mut restored = Vec::with_capacity(pixels.len());
        let read = |y: usize, columns: std::ops::Range<usize>, row: &mut Vec<f32>| {
            let at = |column: usize| dims.offset(0, y, column);
            row.extend_from_slice(&pixels[at(columns.start)..at(columns.end)]);
        };
        let stop = self.stop.as_deref();
        restorer.restore(&mut self.device, dims, condition, read, |strip| {
            check_stop(stop)?;
            restored.extend(strip.pixels);
            Ok(())
        })?;
        if let Some(mask) = &condition.mask {
            // Pixels that are not missing stay, also the colours that transparent ones hide.
            let own = image.interleaved();
            let pixels = restored.chunks_exact_mut(dims.c).zip(own.chunks_exact(dims.c));
            let kept = pixels.zip(&mask.missing).filter(|(_, missing)| **missing == 0);
            kept.for_each(|((to, from), _)| to.copy_from_slice(from));
        }
        Ok(image.with_interleaved(&restored))
    }
}
