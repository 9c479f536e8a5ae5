use std::path::Path;

use super::array::Array;
pub use crate::data::image_file::Depth;
use crate::data::image_file::ImageFile;
use crate::error::{Error, Result};
use crate::raster::corrupt::Mask;
use crate::raster::jpeg;
use crate::shape::{Dims, Size, to_nhwc};
use crate::tasks::restore::image;
use crate::tasks::restore::noise_level::{self, NoiseLevel};
use crate::tasks::restore::quantization::Quantization;

/// One image: gray or RGB pixels as an [`Array`] of shape 1×C×H×W on the scale 0 to 1, with the
/// properties of its file.
///
/// Transparency, colour profile, EXIF, XMP and resolution of a file are kept. Pixels have the
/// precision of `f32`. They are rounded to integers only when the image is saved, unless it has
/// floats.
///
/// # Examples
///
/// ```
/// use csae::{Array, Depth, Image};
///
/// let gray = Array::new([1, 1, 2, 2], vec![0.0, 0.25, 0.5, 1.0])?;
/// let image = Image::new(gray)?.with_depth(Depth::Sixteen);
/// assert_eq!((image.size().h, image.size().w, image.channels()), (2, 2, 1));
/// # Ok::<(), csae::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    pixels: Array,
    /// Opacity of each pixel (H,W), from 0 to 1. `None` for an opaque image.
    alpha: Option<Vec<f32>>,
    /// Channels, depth and colour profile of the file, without pixels.
    kind: ImageFile,
    /// The quantization of the JPEG file that the pixels are from.
    quantization: Option<Quantization>,
    /// The strength of the compression of that file ([`jpeg::level`]).
    compression: Option<f64>,
}

impl Image {
    /// An opaque image with these pixels (1×C×H×W; C is 1 for gray or 3 for RGB), saved with 8
    /// bits.
    ///
    /// # Errors
    /// When `pixels` has more than one sample, or another number of channels.
    pub fn new(pixels: Array) -> Result<Self> {
        let [n, c, h, w] = pixels.shape();
        if n != 1 || (c != 1 && c != 3) {
            return Err(Error::usage(format!(
                "an image must have the shape 1×1×H×W or 1×3×H×W, not {n}×{c}×{h}×{w}"
            )));
        }
        let kind = ImageFile::from_pixels(&[], Dims::new(c, 0, 0), Depth::Eight);
        Ok(Self { pixels, alpha: None, kind, quantization: None, compression: None })
    }

    /// Reads a PNG, JPEG, BMP, GIF, ICO, TGA, TIFF, WebP or PNM file, recognised by its content; of
    /// several frames or pages the first. The EXIF orientation is applied. Palettes, CMYK and YCbCr
    /// are converted to RGB. Floats of a TIFF file are on the scale 0…1 or 0…255 if all of them
    /// are, otherwise on that from the smallest to the largest.
    ///
    /// # Errors
    /// When the file cannot be read or decoded, or takes more than 1 GiB decoded.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = ImageFile::read(path.as_ref())?;
        let steps = file.luma_steps();
        Ok(Self {
            pixels: Array::of_samples(file.dims, &file.pixels()),
            alpha: file.alpha(),
            kind: file.kind(file.depth()),
            quantization: steps.map(|steps| Quantization::new(&steps)),
            compression: steps.map(|steps| jpeg::level(steps.into_iter().map(f64::from))),
        })
    }

    /// Writes a PNG file; a JPEG file if the name ends in `.jpg`, `.jpeg`, `.jpe` or `.jfif` (8
    /// bits, quality 95, transparent parts over white); or a TIFF file if it ends in `.tif`,
    /// `.tiff` or `.btf`. Values outside 0 to 1 are clipped, except floats in TIFF files, which are
    /// in the units of the file that was read. A PNG file of floats has 16 bits.
    ///
    /// # Errors
    /// When the name has another extension, the format does not support the size, or the file
    /// cannot be written. An existing file then stays as it was.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut file = self.kind.like(self.size());
        file.write_rows(0, &self.interleaved());
        file.set_alpha(self.alpha.as_deref());
        file.save(path.as_ref())
    }

    /// The pixels, of shape 1×C×H×W.
    pub const fn pixels(&self) -> &Array {
        &self.pixels
    }

    /// The pixels, of shape 1×C×H×W, without a copy.
    pub fn into_pixels(self) -> Array {
        self.pixels
    }

    /// Height and width in pixels.
    pub const fn size(&self) -> Size {
        self.pixels.size()
    }

    /// Number of channels: 1 (gray) or 3 (RGB), without transparency.
    pub const fn channels(&self) -> usize {
        self.pixels.channels()
    }

    /// The type of the samples when the image is saved. The default is that of the file that it was
    /// read from.
    pub fn depth(&self) -> Depth {
        self.kind.depth()
    }

    /// The same image, saved with another type of samples.
    #[must_use]
    pub fn with_depth(self, depth: Depth) -> Self {
        Self { kind: self.kind.kind(depth), ..self }
    }

    /// Estimates the standard deviation of white Gaussian noise in the image, on the scale 0 to
    /// 255. [`Noise::Auto`](crate::Noise::Auto) uses this estimate.
    ///
    /// The method is by Chen, Zhu & Heng (ICCV 2015), applied to weakly textured patches (Liu,
    /// Tanaka & Okutomi, TIP 2013) of the luma. It is rough if the noise is not white, such as
    /// after JPEG compression or demosaicing.
    ///
    /// # Errors
    /// When the image has too few 8×8 patches: below about 15×15 pixels.
    pub fn noise_level(&self) -> Result<f64> {
        Ok(self.noise()?.sigma)
    }

    /// The noise of the image.
    pub(super) fn noise(&self) -> Result<NoiseLevel> {
        let (mut pixels, dims) = (self.interleaved(), self.pixels.dims());
        image::blank_hidden(&mut pixels, dims.c, self.alpha.as_deref());
        noise_level::estimate_middle(dims, self.quantization.as_ref(), |y, columns, row| {
            let at = |column: usize| dims.offset(0, y, column);
            row.extend_from_slice(&pixels[at(columns.start)..at(columns.end)]);
        })
    }

    /// The strength of the JPEG compression of the file that the pixels are from.
    pub(super) const fn compression(&self) -> Option<f64> {
        self.compression
    }

    /// The pixels with the channels innermost (H,W,C).
    pub(super) fn interleaved(&self) -> Vec<f32> {
        to_nhwc(self.pixels.values(), self.pixels.dims())
    }

    /// The same without the colours of fully transparent pixels, which a filter would spread.
    pub(super) fn visible(&self) -> Vec<f32> {
        let mut pixels = self.interleaved();
        image::fill_hidden(&mut pixels, self.pixels.dims(), self.alpha.as_deref());
        pixels
    }

    /// The same image with other pixels (H,W,C) of the same size.
    pub(super) fn with_interleaved(&self, pixels: &[f32]) -> Self {
        Self {
            pixels: Array::of_samples(self.pixels.dims(), pixels),
            alpha: self.alpha.clone(),
            kind: self.kind.clone(),
            quantization: None,
            compression: None,
        }
    }

    /// The white pixels of a mask, which mark missing pixels.
    pub(super) fn marked(&self) -> Result<Mask> {
        image::marked(self.pixels.dims(), &self.interleaved(), self.alpha.as_deref())
    }

    /// The image with its transparency, enlarged by bicubic interpolation.
    pub(super) fn enlarged(&self, scale: usize) -> Result<Self> {
        let dims = self.pixels.dims();
        let (pixels, large) = image::enlarge(&self.visible(), dims, scale)?;
        let opacity = Dims { c: 1, ..dims };
        let alpha = self.alpha.as_ref().map(|alpha| image::enlarge(alpha, opacity, scale));
        Ok(Self {
            pixels: Array::of_samples(Dims::of(large, dims.c), &pixels),
            alpha: alpha.transpose()?.map(|(alpha, _)| alpha),
            kind: self.kind.clone(),
            quantization: None,
            compression: None,
        })
    }
}
