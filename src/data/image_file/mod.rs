//! Image files for restoration. Samples keep the depth of the file, alpha is separate, and results
//! are written with the same depth, channels and colour profile.

mod samples;
mod tiff_out;

use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{DynamicImage, ExtendedColorType, ImageEncoder};

pub use samples::{Depth, Levels};

use samples::Samples;

use crate::data::formats::content;
use crate::data::formats::decode::{self, Limit, Lossless, Raster};
use crate::data::metadata::Metadata;
use crate::error::{Error, Result};
use crate::files;
use crate::shape::{Dims, Size};

/// The default quality of JPEG files, 1 to 100. Higher values keep more of the restored detail but
/// make larger files.
pub const JPEG_QUALITY: u8 = 95;

/// An image that was read from a file or will be written to one. Samples keep their depth to save
/// memory; rows are converted to f32 when they are read, and back when they are written.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageFile {
    /// Size, with the number of channels without alpha: 1 (gray) or 3 (RGB). An RGB file has 3
    /// channels even if they are equal.
    pub dims: Dims,
    /// H,W,C.
    samples: Samples,
    /// The samples that are 0 and 1 on the scale of pixels.
    levels: Levels,
    /// H,W; 1 is opaque. `None` if the file has no alpha channel.
    alpha: Option<Alpha>,
    /// The metadata. An ICC profile is for the same kind of colours (gray or RGB) as the samples.
    metadata: Metadata,
    /// Number of images in the file that was read: frames or pages.
    frames: usize,
    /// Whether the file that was read is a JPEG.
    is_jpeg: bool,
    /// The quantization steps of its luma, if the samples are those of a JPEG file.
    luma_steps: Option<[u16; 64]>,
}

/// An alpha channel.
#[derive(Clone, Debug, PartialEq)]
struct Alpha {
    samples: Samples,
    levels: Levels,
}

impl Alpha {
    fn read(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.samples.len());
        self.samples.read(0..self.samples.len(), self.levels, &mut out);
        out
    }
}

/// The endings of JPEG and TIFF files.
const JPEG_ENDINGS: [&str; 4] = ["jpg", "jpeg", "jpe", "jfif"];
const TIFF_ENDINGS: [&str; 3] = ["tif", "tiff", "btf"];

/// Maximum memory for decoding a file for restoration, in bytes. It is enough for 100 megapixels of
/// RGB with alpha and 16 bits.
pub const MAX_BYTES: u64 = 1 << 30;

impl ImageFile {
    /// Reads a PNG, JPEG, BMP, GIF, ICO, TGA, TIFF, WebP or PNM file; of several frames or pages
    /// the first. The format is detected from the content, and the EXIF orientation is applied.
    /// Palettes, CMYK and YCbCr are converted to RGB, fewer than 8 bits to 8. Floats stay floats.
    /// They are on the scale 0…1 or 0…255 if all of them are, otherwise from the smallest to the
    /// largest ([`ImageFile::with_levels`] sets another scale).
    ///
    /// # Errors
    /// If the file cannot be read or decoded, takes more than [`MAX_BYTES`], or has a float that
    /// is not finite. The message begins
    /// with the path.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_within(path, Limit { bytes: MAX_BYTES, can_raise: false })
    }

    /// As [`ImageFile::read`], with another limit.
    ///
    /// # Errors
    /// As [`ImageFile::read`].
    pub fn read_within(path: &Path, limit: Limit) -> Result<Self> {
        let decoded = decode::decode_lossless(path, limit);
        let file = decoded.and_then(|file| file.image.refuse_nan().map(|()| Self::new(file)));
        file.map_err(|error| error.at(path.display()))
    }

    fn new(lossless: Lossless) -> Self {
        let Lossless { image, mut metadata, frames, is_jpeg, luma_steps } = lossless;
        let (dims, samples) = match image {
            Raster::Integers(image) => of_integers(image),
            Raster::Floats(dims, values) => (dims, Samples::Float(values)),
        };
        // A pixel has gray or RGB, and alpha or not.
        let (c, has_alpha) = (if dims.c < 3 { 1 } else { 3 }, dims.c.is_multiple_of(2));
        // Bytes 16 to 19 of a profile are its colour space (ICC.1:2022, 7.2.6).
        let space: &[u8] = if c == 1 { b"GRAY" } else { b"RGB " };
        metadata.profile = metadata.profile.filter(|profile| profile.get(16..20) == Some(space));
        let (samples, alpha) = if has_alpha {
            let (samples, alpha) = samples.split_alpha(c);
            let levels = own_levels(&alpha);
            (samples, Some(Alpha { samples: alpha, levels }))
        } else {
            (samples, None)
        };
        let levels = own_levels(&samples);
        let dims = Dims { c, ..dims };
        Self { dims, samples, levels, alpha, metadata, frames, is_jpeg, luma_steps }
    }

    /// An image of pixels (H,W,C, on the 0–1 scale), stored with this depth.
    ///
    /// # Panics
    /// If the number of samples does not match the size, or the channels are neither 1 nor 3.
    pub fn from_pixels(pixels: &[f32], dims: Dims, depth: Depth) -> Self {
        assert!(pixels.len() == dims.len() && [1, 3].contains(&dims.c), "a picture of {dims:?}");
        let (mut samples, levels) = (Samples::zeros(depth, pixels.len()), depth.levels());
        samples.write(0, pixels, levels);
        let metadata = Metadata::default();
        let (frames, is_jpeg, luma_steps) = (1, false, None);
        Self { dims, samples, levels, alpha: None, metadata, frames, is_jpeg, luma_steps }
    }

    /// A black image of `size` with the channels, depth, levels and metadata of this image. Alpha
    /// is copied if the size is the same; otherwise set it with [`ImageFile::set_alpha`].
    pub fn like(&self, size: Size) -> Self {
        let alpha = self.alpha.clone().filter(|_| size == self.size());
        let dims = Dims::of(size, self.dims.c);
        let samples = Samples::zeros(self.depth(), dims.len());
        let metadata = self.metadata.clone();
        Self { dims, samples, alpha, metadata, luma_steps: None, ..*self }
    }

    /// Height and width.
    pub const fn size(&self) -> Size {
        self.dims.size()
    }

    /// An image without pixels that has the same channels and metadata: what [`ImageFile::like`]
    /// makes images of. Levels stay if the depth does.
    pub fn kind(&self, depth: Depth) -> Self {
        let dims = Dims { h: 0, w: 0, ..self.dims };
        let levels = if depth == self.depth() { self.levels } else { depth.levels() };
        let (samples, metadata) = (Samples::zeros(depth, 0), self.metadata.clone());
        Self { dims, samples, levels, alpha: None, metadata, luma_steps: None, ..*self }
    }

    /// The same samples on another scale.
    #[must_use]
    pub fn with_levels(self, levels: Levels) -> Self {
        Self { levels, ..self }
    }

    /// The samples that are 0 and 1 on the scale of pixels.
    pub const fn levels(&self) -> Levels {
        self.levels
    }

    /// The largest sample.
    pub fn max_sample(&self) -> f32 {
        self.samples.max()
    }

    /// The share of the samples below black or above white.
    pub fn share_outside(&self, levels: Levels) -> f64 {
        /// Number of samples that are converted at a time.
        const PART: usize = 1 << 16;
        let (mut row, mut count) = (Vec::new(), 0);
        for first in (0..self.samples.len()).step_by(PART) {
            row.clear();
            self.samples.read(first..self.samples.len().min(first + PART), levels, &mut row);
            count += row.iter().filter(|value| !(0.0..=1.0).contains(*value)).count();
        }
        count as f64 / self.samples.len().max(1) as f64
    }

    /// Number of images in the file that was read: frames or pages. This is the first one.
    pub const fn frames(&self) -> usize {
        self.frames
    }

    /// Whether the file that was read is a JPEG.
    pub const fn is_jpeg(&self) -> bool {
        self.is_jpeg
    }

    /// The quantization steps of the luma on the scale of pixels, if this image was read from a
    /// JPEG file.
    pub fn luma_steps(&self) -> Option<[f32; 64]> {
        let Levels { black, white } = self.levels;
        self.luma_steps.map(|steps| steps.map(|step| f32::from(step) / (white - black)))
    }

    /// The type of the samples.
    pub const fn depth(&self) -> Depth {
        self.samples.depth()
    }

    /// All pixels (H,W,C, on the 0–1 scale).
    pub fn pixels(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.samples.len());
        self.samples.read(0..self.samples.len(), self.levels, &mut out);
        out
    }

    /// Appends some columns of row `y` (W,C, on the 0–1 scale) to `out`.
    pub fn read_row(&self, y: usize, columns: Range<usize>, out: &mut Vec<f32>) {
        let at = |column: usize| self.dims.offset(0, y, column);
        self.samples.read(at(columns.start)..at(columns.end), self.levels, out);
    }

    /// Overwrites whole rows (H,W,C, on the 0–1 scale) from row `top` on. Integers are rounded and
    /// clipped.
    pub fn write_rows(&mut self, top: usize, rows: &[f32]) {
        self.samples.write(self.dims.offset(0, top, 0), rows, self.levels);
    }

    /// Copies the samples of the pixels of `other` for which `is_copied` (index in H,W), without
    /// rounding.
    ///
    /// # Panics
    /// If the images differ in size or depth.
    pub fn copy_pixels(&mut self, other: &Self, is_copied: impl Fn(usize) -> bool) {
        assert_eq!(self.dims, other.dims, "images of one size");
        let c = self.dims.c;
        for pixel in (0..self.dims.area()).filter(|pixel| is_copied(*pixel)) {
            self.samples.copy(&other.samples, pixel * c, c);
        }
    }

    /// The alpha channel (H,W; 1 is opaque), if there is one.
    pub fn alpha(&self) -> Option<Vec<f32>> {
        self.alpha.as_ref().map(Alpha::read)
    }

    /// Sets the alpha channel (H,W, on the 0–1 scale), or removes it.
    ///
    /// # Panics
    /// If its size is not that of the image.
    pub fn set_alpha(&mut self, alpha: Option<&[f32]>) {
        let depth = self.depth();
        self.alpha = alpha.map(|values| {
            assert_eq!(values.len(), self.dims.area(), "an alpha channel of the image's size");
            let levels = depth.levels();
            let mut samples = Samples::zeros(depth, values.len());
            let clipped: Vec<f32> = values.iter().map(|value| value.clamp(0.0, 1.0)).collect();
            samples.write(0, &clipped, levels);
            Alpha { samples, levels }
        });
    }

    /// Writes a PNG file; a JPEG file if the name ends in `.jpg`, `.jpeg`, `.jpe` or `.jfif`; or a
    /// TIFF file if it ends in `.tif`, `.tiff` or `.btf`. A PNG has integers, so that floats are
    /// clipped at 0 and 1 and rounded to 16 bits. A JPEG has 8 bits per sample and no alpha; the
    /// image is composed over white. Colour profile, XMP and resolution of the file that was read
    /// are kept, EXIF in PNG and JPEG files, and in a PNG file also gamma and texts of another PNG
    /// file. The write is atomic ([`files::write_atomically`]).
    ///
    /// # Errors
    /// If the name has another extension, the image is too large for the format, or the file cannot
    /// be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.save_with(path, JPEG_QUALITY)
    }

    /// As [`ImageFile::save`]. `quality` is that of a JPEG file, 1 to 100.
    ///
    /// # Errors
    /// As [`ImageFile::save`].
    pub fn save_with(&self, path: &Path, quality: u8) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::usage(format!(
                "{}: {} pixels cannot be saved ({error}); save as .png",
                path.display(),
                self.size()
            ))
        };
        let (mut bytes, size) = (Cursor::new(Vec::new()), self.size());
        if content::extension(path) == "png" {
            let integers = (self.depth() == Depth::Float).then(|| self.to_depth(Depth::Sixteen));
            let mut encoder = PngEncoder::new(&mut bytes);
            self.metadata.set_on_png(&mut encoder, size);
            integers.as_ref().unwrap_or(self).encode(encoder).map_err(|e| failed(&e))?;
            self.metadata.add_to_png(bytes.get_mut());
        } else if is_jpeg_name(path) {
            let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
            self.metadata.set_on_jpeg(&mut encoder, size);
            self.shallow_opaque().encode(encoder).map_err(|e| failed(&e))?;
            self.metadata.add_to_jpeg(bytes.get_mut());
        } else if is_tiff_name(path) {
            let merged = self.merged();
            let pixels = merged.as_ref().unwrap_or(&self.samples);
            let encoded = tiff_out::encode(pixels, self.dims, merged.is_some(), &self.metadata);
            *bytes.get_mut() = encoded.map_err(|e| failed(&e))?;
        } else {
            crate::bail_usage!(
                "{}: results are PNG, JPEG or TIFF; use a name that ends in .png, .jpg or .tif",
                path.display()
            )
        }
        files::write_atomically(path, bytes.get_ref())
    }

    /// The samples with alpha, if there is one.
    fn merged(&self) -> Option<Samples> {
        let alpha = self.alpha.as_ref()?;
        Some(self.samples.merge_alpha(&alpha.samples, self.dims.c))
    }

    /// The image with another depth, without metadata.
    fn to_depth(&self, depth: Depth) -> Self {
        let mut image = Self::from_pixels(&self.pixels(), self.dims, depth);
        image.set_alpha(self.alpha().as_deref());
        image
    }

    /// Encodes an image of integers with its alpha.
    fn encode(&self, encoder: impl ImageEncoder) -> image::ImageResult<()> {
        use ExtendedColorType::{L8, L16, La8, La16, Rgb8, Rgb16, Rgba8, Rgba16};
        let merged = self.merged();
        let samples = merged.as_ref().unwrap_or(&self.samples);
        let color = |gray, gray_alpha, rgb, rgba| match (self.dims.c, self.alpha.is_some()) {
            (1, false) => gray,
            (1, true) => gray_alpha,
            (_, false) => rgb,
            (_, true) => rgba,
        };
        let (bytes, color) = match samples {
            Samples::Eight(v) => (&v[..], color(L8, La8, Rgb8, Rgba8)),
            // The encoder expects native byte order.
            Samples::Sixteen(v) => (bytemuck::cast_slice(v), color(L16, La16, Rgb16, Rgba16)),
            Samples::Float(_) => unreachable!("floats were converted"),
        };
        encoder.write_image(bytes, self.dims.w as u32, self.dims.h as u32, color)
    }

    /// The image with 8 bits per sample, composed over white, for JPEG.
    fn shallow_opaque(&self) -> Self {
        let alpha = self.alpha();
        let levels = Depth::Eight.levels();
        let mut samples = Samples::zeros(Depth::Eight, self.samples.len());
        let (Dims { c, h, w }, mut row) = (self.dims, Vec::new());
        for y in 0..h {
            row.clear();
            self.read_row(y, 0..w, &mut row);
            if let Some(alpha) = &alpha {
                let opaque = row.chunks_exact_mut(c).zip(&alpha[y * w..]);
                opaque.for_each(|(pixel, a)| pixel.iter_mut().for_each(|v| *v = *v * a + 1.0 - a));
            }
            samples.write(y * w * c, &row, levels);
        }
        Self { samples, levels, alpha: None, metadata: Metadata::default(), ..*self }
    }
}

/// The samples of an image of integers, with alpha: H,W,C.
fn of_integers(image: DynamicImage) -> (Dims, Samples) {
    let (h, w, color) = (image.height() as usize, image.width() as usize, image.color());
    let is_deep = color.bytes_per_pixel() > color.channel_count();
    let (c, samples) = match (color.has_color(), color.has_alpha(), is_deep) {
        (false, false, false) => (1, Samples::Eight(image.into_luma8().into_raw())),
        (false, true, false) => (2, Samples::Eight(image.into_luma_alpha8().into_raw())),
        (true, false, false) => (3, Samples::Eight(image.into_rgb8().into_raw())),
        (true, true, false) => (4, Samples::Eight(image.into_rgba8().into_raw())),
        (false, false, true) => (1, Samples::Sixteen(image.into_luma16().into_raw())),
        (false, true, true) => (2, Samples::Sixteen(image.into_luma_alpha16().into_raw())),
        (true, false, true) => (3, Samples::Sixteen(image.into_rgb16().into_raw())),
        (true, true, true) => (4, Samples::Sixteen(image.into_rgba16().into_raw())),
    };
    (Dims { c, h, w }, samples)
}

/// The levels of the samples of a file.
fn own_levels(samples: &Samples) -> Levels {
    match samples {
        Samples::Eight(_) | Samples::Sixteen(_) => samples.depth().levels(),
        Samples::Float(v) => {
            let min = v.iter().copied().fold(f32::INFINITY, f32::min);
            Levels::of_floats(min, samples.max())
        }
    }
}

/// Whether a file name ends as those of JPEG files do.
pub fn is_jpeg_name(path: &Path) -> bool {
    JPEG_ENDINGS.contains(&content::extension(path).as_str())
}

/// Whether a file name ends as those of TIFF files do.
pub fn is_tiff_name(path: &Path) -> bool {
    TIFF_ENDINGS.contains(&content::extension(path).as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::formats::decode::Raster;
    use crate::testing::{Folder, encoded};
    use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Pixel, Rgb, Rgba};

    /// A 7×5 image of pseudo-random samples up to 250·`scale`.
    fn noise<P: Pixel<Subpixel = T>, T: From<u8> + image::Primitive>(
        scale: T,
    ) -> ImageBuffer<P, Vec<T>> {
        let samples = (0..5 * 7 * usize::from(P::CHANNEL_COUNT))
            .map(|i| <T as From<u8>>::from((i * 37 % 251) as u8) * scale);
        ImageBuffer::from_raw(7, 5, samples.collect()).unwrap()
    }

    #[test]
    fn every_kind_of_png_is_restored_exactly() {
        let folder = Folder::new("image-file");
        let kinds: [(DynamicImage, usize, bool, Depth); 8] = [
            (noise::<Luma<u8>, u8>(1).into(), 1, false, Depth::Eight),
            (noise::<LumaA<u8>, u8>(1).into(), 1, true, Depth::Eight),
            (noise::<Rgb<u8>, u8>(1).into(), 3, false, Depth::Eight),
            (noise::<Rgba<u8>, u8>(1).into(), 3, true, Depth::Eight),
            (noise::<Luma<u16>, u16>(261).into(), 1, false, Depth::Sixteen),
            (noise::<LumaA<u16>, u16>(261).into(), 1, true, Depth::Sixteen),
            (noise::<Rgb<u16>, u16>(261).into(), 3, false, Depth::Sixteen),
            (noise::<Rgba<u16>, u16>(261).into(), 3, true, Depth::Sixteen),
        ];
        for (image, c, alpha, depth) in kinds {
            let path = folder.write("a.png", &encoded(&image, ImageFormat::Png));
            let file = ImageFile::read(&path).unwrap();
            assert_eq!(
                (file.dims, file.alpha().is_some(), file.depth()),
                (Dims::new(c, 5, 7), alpha, depth)
            );
            // Conversion to f32 and back is exact, by all rows or some.
            let mut copy = file.like(Size::new(5, 7));
            assert_ne!(copy, file);
            copy.write_rows(0, &file.pixels()[..2 * 7 * c]);
            copy.write_rows(2, &file.pixels()[2 * 7 * c..]);
            assert_eq!(copy, file);
            let mut row = Vec::new();
            file.read_row(3, 2..6, &mut row);
            assert_eq!(row, file.pixels()[(3 * 7 + 2) * c..(3 * 7 + 6) * c]);
            let again = folder.path.join("b.png");
            copy.save(&again).unwrap();
            let back = image::open(&again).unwrap();
            assert_eq!(back.color(), image.color());
            assert_eq!(back.as_bytes(), image.as_bytes());
            let jpeg = folder.path.join("c.JPG");
            copy.save(&jpeg).unwrap();
            let back = ImageFile::read(&jpeg).unwrap();
            assert_eq!((back.dims.c, back.alpha(), back.depth()), (c, None, Depth::Eight));
        }
        assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 3);
    }

    #[test]
    fn pixels_are_rounded_and_clipped() {
        let file = ImageFile::from_pixels(
            &[0.25, 2.0, f32::NAN, -1.0],
            Dims::new(1, 2, 2),
            Depth::Sixteen,
        );
        assert_eq!(file.samples, Samples::Sixteen(vec![16384, 65535, 0, 0]));
    }

    #[test]
    fn alpha_is_copied_to_results_of_the_same_size_only() {
        let mut file = ImageFile::from_pixels(&[0.0; 4], Dims::new(1, 2, 2), Depth::Sixteen);
        file.set_alpha(Some(&[1.0, 0.0, 0.5, 1.0]));
        assert_eq!(file.like(file.size()).alpha(), file.alpha());
        let mut larger = file.like(Size::new(4, 4));
        assert_eq!(
            (larger.alpha(), larger.pixels().len(), larger.depth()),
            (None, 16, Depth::Sixteen)
        );
        larger.set_alpha(Some(&[1.0; 16]));
        assert_eq!(larger.alpha().unwrap(), [1.0; 16]);
    }

    #[test]
    fn transparent_pixels_are_white_in_a_jpeg() {
        let mut file = ImageFile::from_pixels(&[0.0; 4], Dims::new(1, 2, 2), Depth::Sixteen);
        file.set_alpha(Some(&[0.0, 1.0, 0.25, 1.0]));
        assert_eq!(file.shallow_opaque().samples, Samples::Eight(vec![255, 0, 191, 0]));
    }

    #[test]
    fn only_profiles_of_the_same_colour_space_are_kept() {
        let folder = Folder::new("profile");
        let mut profile = vec![0; 132];
        profile[16..20].copy_from_slice(b"RGB ");
        for (c, kept) in [(3, true), (1, false)] {
            let image = if c == 3 {
                noise::<Rgb<u8>, u8>(1).into()
            } else {
                DynamicImage::from(noise::<Luma<u8>, u8>(1))
            };
            let metadata = Metadata::new(Some(profile.clone()), None, None, None);
            let image = Raster::Integers(image);
            let lossless = Lossless::of(image, metadata);
            let file = ImageFile::new(lossless);
            assert_eq!(file.metadata.profile.is_some(), kept);
            for name in ["a.png", "a.jpg", "a.tif"] {
                let path = folder.path.join(name);
                file.save(&path).unwrap();
                let back = ImageFile::read(&path).unwrap().metadata;
                assert_eq!(back.profile, file.metadata.profile, "{name}");
            }
        }
    }

    #[test]
    fn read_errors_name_the_file() {
        let folder = Folder::new("image-errors");
        let bad = folder.write("bad.png", b"\x89PNG\r\n");
        for path in [bad, folder.path.join("none.png"), folder.path.clone()] {
            let message = ImageFile::read(&path).unwrap_err().to_string();
            assert!(message.starts_with(&path.display().to_string()), "{message}");
        }
    }

    #[test]
    fn save_errors_name_the_file_and_leave_none() {
        let folder = Folder::new("image-save-errors");
        let file = ImageFile::from_pixels(&[0.0], Dims::flat(1), Depth::Eight);
        let message = file.save(&folder.path.join("a.bmp")).unwrap_err().to_string();
        assert!(message.contains("a.bmp") && message.contains(".png"), "{message}");
        let wide =
            ImageFile::from_pixels(&vec![0.0; 70_000], Dims::new(1, 1, 70_000), Depth::Eight);
        let message = wide.save(&folder.path.join("wide.jpg")).unwrap_err().to_string();
        assert!(message.contains("wide.jpg") && message.contains("70000"), "{message}");
        assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 0);
    }
}
