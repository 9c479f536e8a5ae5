//! Image files for restoration. Samples keep the bit depth of the file, alpha is separate, and
//! results are written with the same depth, channels and colour profile.

use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::data::formats::content;
use crate::data::formats::decode::{self, Limit, Lossless};
use crate::data::metadata::Metadata;
use crate::error::{Error, Result};
use crate::files;
use crate::shape::{Dims, Size};

/// The default quality of JPEG files, 1 to 100. Higher values keep more of the restored detail but
/// make larger files.
pub const JPEG_QUALITY: u8 = 95;

/// Samples with the bit depth of a file. The 0–1 scale is 0–255 or 0–65535.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Samples {
    /// 8 bits per sample.
    Eight(Vec<u8>),
    /// 16 bits per sample.
    Sixteen(Vec<u16>),
}

impl Samples {
    /// `len` zeros of the same depth.
    fn zeros(&self, len: usize) -> Self {
        match self {
            Self::Eight(_) => Self::Eight(vec![0; len]),
            Self::Sixteen(_) => Self::Sixteen(vec![0; len]),
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Self::Eight(v) => v.len(),
            Self::Sixteen(v) => v.len(),
        }
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the samples of a range to `out`, on the 0–1 scale.
    fn read(&self, range: Range<usize>, out: &mut Vec<f32>) {
        match self {
            Self::Eight(v) => out.extend(v[range].iter().map(|&v| f32::from(v) / 255.0)),
            Self::Sixteen(v) => out.extend(v[range].iter().map(|&v| f32::from(v) / 65535.0)),
        }
    }

    /// Overwrites the samples from index `at` on with values on the 0–1 scale. Values are rounded
    /// and clipped; NaN becomes 0.
    fn write(&mut self, at: usize, values: &[f32]) {
        match self {
            Self::Eight(v) => v[at..][..values.len()]
                .iter_mut()
                .zip(values)
                .for_each(|(out, v)| *out = (v * 255.0).round() as u8),
            Self::Sixteen(v) => {
                v[at..][..values.len()]
                    .iter_mut()
                    .zip(values)
                    .for_each(|(out, v)| *out = (v * 65535.0).round() as u16);
            }
        }
    }
}

/// An image that was read from a file or will be written to one. Samples keep their bit depth to
/// save memory; rows are converted to f32 when they are read, and back when they are written.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageFile {
    /// Size, with the number of channels without alpha: 1 (gray) or 3 (RGB). An RGB file has 3
    /// channels even if they are equal.
    pub dims: Dims,
    /// H,W,C.
    samples: Samples,
    /// H,W; 1 is opaque. `None` if the file has no alpha channel.
    alpha: Option<Samples>,
    /// The metadata. An ICC profile is for the same kind of colours (gray or RGB) as the samples.
    metadata: Metadata,
    /// Number of images in the file that was read: frames or pages.
    frames: usize,
    /// Whether the file that was read is a JPEG.
    is_jpeg: bool,
}

/// The endings of JPEG files.
const JPEG_ENDINGS: [&str; 4] = ["jpg", "jpeg", "jpe", "jfif"];

/// Maximum memory for decoding a file for restoration, in bytes. It is enough for 100 megapixels of
/// RGB with alpha and 16 bits.
pub const MAX_BYTES: u64 = 1 << 30;

impl ImageFile {
    /// Reads a PNG, JPEG, BMP, GIF, ICO, TGA, TIFF, WebP or PNM file; of several frames or pages
    /// the first. The format is detected from the content, and the EXIF orientation is applied.
    /// Palettes, CMYK and YCbCr are converted to RGB, fewer than 8 bits to 8. Floats, in 0…1 or
    /// 0…255, become 16 bits.
    ///
    /// # Errors
    /// If the file cannot be read or decoded, or takes more than [`MAX_BYTES`]. The message begins
    /// with the path.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_within(path, Limit { bytes: MAX_BYTES, can_raise: false })
    }

    /// As [`ImageFile::read`], with another limit.
    ///
    /// # Errors
    /// As [`ImageFile::read`].
    pub fn read_within(path: &Path, limit: Limit) -> Result<Self> {
        decode::decode_lossless(path, limit)
            .and_then(Self::new)
            .map_err(|error| error.at(path.display()))
    }

    fn new(lossless: Lossless) -> Result<Self> {
        let Lossless { image, mut metadata, frames, is_jpeg } = lossless;
        let image = image.into_integers()?;
        let (h, w, color) = (image.height() as usize, image.width() as usize, image.color());
        let (c, deep) = (
            if color.has_color() { 3 } else { 1 },
            color.bytes_per_pixel() > color.channel_count(),
        );
        let samples = match (c, color.has_alpha(), deep) {
            (1, false, false) => Samples::Eight(image.into_luma8().into_raw()),
            (1, true, false) => Samples::Eight(image.into_luma_alpha8().into_raw()),
            (_, false, false) => Samples::Eight(image.into_rgb8().into_raw()),
            (_, true, false) => Samples::Eight(image.into_rgba8().into_raw()),
            (1, false, true) => Samples::Sixteen(image.into_luma16().into_raw()),
            (1, true, true) => Samples::Sixteen(image.into_luma_alpha16().into_raw()),
            (_, false, true) => Samples::Sixteen(image.into_rgb16().into_raw()),
            (_, true, true) => Samples::Sixteen(image.into_rgba16().into_raw()),
        };
        // Bytes 16 to 19 of a profile are its colour space (ICC.1:2022, 7.2.6).
        let space: &[u8] = if c == 1 { b"GRAY" } else { b"RGB " };
        metadata.profile = metadata.profile.filter(|profile| profile.get(16..20) == Some(space));
        let (samples, alpha) =
            if color.has_alpha() { split_alpha(samples, c) } else { (samples, None) };
        Ok(Self { dims: Dims { c, h, w }, samples, alpha, metadata, frames, is_jpeg })
    }

    /// An image of pixels (H,W,C, on the 0–1 scale), stored with 16 bits per sample if `deep`,
    /// otherwise with 8.
    ///
    /// # Panics
    /// If the number of samples does not match the size, or the channels are neither 1 nor 3.
    pub fn from_pixels(pixels: &[f32], dims: Dims, deep: bool) -> Self {
        assert!(pixels.len() == dims.len() && [1, 3].contains(&dims.c), "a picture of {dims:?}");
        let none = if deep { Samples::Sixteen(Vec::new()) } else { Samples::Eight(Vec::new()) };
        let mut samples = none.zeros(pixels.len());
        samples.write(0, pixels);
        let metadata = Metadata::default();
        Self { dims, samples, alpha: None, metadata, frames: 1, is_jpeg: false }
    }

    /// A black image of `size` with the channels, depth and metadata of this image. Alpha is copied
    /// if the size is the same; otherwise set it with [`ImageFile::set_alpha`].
    pub fn like(&self, size: Size) -> Self {
        let alpha = self.alpha.clone().filter(|_| size == self.size());
        let dims = Dims::of(size, self.dims.c);
        let samples = self.samples.zeros(dims.len());
        Self { dims, samples, alpha, metadata: self.metadata.clone(), ..*self }
    }

    /// Height and width.
    pub const fn size(&self) -> Size {
        self.dims.size()
    }

    /// An image without pixels that has the same channels and metadata: what
    /// [`ImageFile::like`] makes images of.
    pub fn kind(&self, deep: bool) -> Self {
        let samples = if deep { Samples::Sixteen(Vec::new()) } else { Samples::Eight(Vec::new()) };
        let dims = Dims { h: 0, w: 0, ..self.dims };
        Self { dims, samples, alpha: None, metadata: self.metadata.clone(), ..*self }
    }

    /// Number of images in the file that was read: frames or pages. This is the first one.
    pub const fn frames(&self) -> usize {
        self.frames
    }

    /// Whether the file that was read is a JPEG.
    pub const fn is_jpeg(&self) -> bool {
        self.is_jpeg
    }

    /// Whether the image has 16 bits per sample.
    pub fn is_deep(&self) -> bool {
        matches!(self.samples, Samples::Sixteen(_))
    }

    /// All pixels (H,W,C, on the 0–1 scale).
    pub fn pixels(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.samples.len());
        self.samples.read(0..self.samples.len(), &mut out);
        out
    }

    /// Appends some columns of row `y` (W,C, on the 0–1 scale) to `out`.
    pub fn read_row(&self, y: usize, columns: Range<usize>, out: &mut Vec<f32>) {
        let at = |column: usize| self.dims.offset(0, y, column);
        self.samples.read(at(columns.start)..at(columns.end), out);
    }

    /// Overwrites whole rows (H,W,C, on the 0–1 scale) from row `top` on. Values are rounded to the
    /// bit depth and clipped.
    pub fn write_rows(&mut self, top: usize, rows: &[f32]) {
        self.samples.write(self.dims.offset(0, top, 0), rows);
    }

    /// The alpha channel (H,W; 1 is opaque), if there is one.
    pub fn alpha(&self) -> Option<Vec<f32>> {
        let alpha = self.alpha.as_ref()?;
        let mut out = Vec::with_capacity(alpha.len());
        alpha.read(0..alpha.len(), &mut out);
        Some(out)
    }

    /// Sets the alpha channel (H,W, on the 0–1 scale), or removes it.
    ///
    /// # Panics
    /// If its size is not that of the image.
    pub fn set_alpha(&mut self, alpha: Option<&[f32]>) {
        self.alpha = alpha.map(|values| {
            assert_eq!(values.len(), self.dims.area(), "an alpha channel of the image's size");
            let mut alpha = self.samples.zeros(values.len());
            alpha.write(0, values);
            alpha
        });
    }

    /// Writes a PNG file, or a JPEG file if the name ends in `.jpg`, `.jpeg`, `.jpe` or `.jfif`. A
    /// JPEG has 8 bits per sample and no alpha; the image is composed over white. Colour profile,
    /// EXIF, XMP and resolution of the file that was read are kept, in a PNG file also gamma and
    /// texts of another PNG file. The write is atomic ([`files::write_atomically`]).
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
        let (mut bytes, size) = (Cursor::new(Vec::new()), self.size());
        let encoded = if content::extension(path) == "png" {
            let mut encoder = PngEncoder::new(&mut bytes);
            self.metadata.set_on_png(&mut encoder, size);
            self.encode(encoder).map(|()| self.metadata.add_to_png(bytes.get_mut()))
        } else if is_jpeg_name(path) {
            let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
            self.metadata.set_on_jpeg(&mut encoder, size);
            let encoded = self.shallow_opaque().encode(encoder);
            encoded.map(|()| self.metadata.add_to_jpeg(bytes.get_mut()))
        } else {
            crate::bail_usage!(
                "{}: results are PNG or JPEG; use a name that ends in .png or .jpg",
                path.display()
            )
        };
        encoded.map_err(|error| {
            Error::usage(format!(
                "{}: {} pixels cannot be saved ({error}); save as .png",
                path.display(),
                self.size()
            ))
        })?;
        files::write_atomically(path, bytes.get_ref())
    }

    /// Encodes the image with its alpha.
    fn encode(&self, encoder: impl ImageEncoder) -> image::ImageResult<()> {
        use ExtendedColorType::{L8, L16, La8, La16, Rgb8, Rgb16, Rgba8, Rgba16};
        let merged =
            self.alpha.as_ref().map(|alpha| merge_alpha(&self.samples, alpha, self.dims.c));
        let samples = merged.as_ref().unwrap_or(&self.samples);
        let color = match (self.dims.c, self.alpha.is_some(), self.is_deep()) {
            (1, false, false) => L8,
            (1, true, false) => La8,
            (_, false, false) => Rgb8,
            (_, true, false) => Rgba8,
            (1, false, true) => L16,
            (1, true, true) => La16,
            (_, false, true) => Rgb16,
            (_, true, true) => Rgba16,
        };
        let bytes = match samples {
            Samples::Eight(v) => v,
            // The encoder expects native byte order.
            Samples::Sixteen(v) => bytemuck::cast_slice(v),
        };
        encoder.write_image(bytes, self.dims.w as u32, self.dims.h as u32, color)
    }

    /// The image with 8 bits per sample, composed over white, for JPEG.
    fn shallow_opaque(&self) -> Self {
        let alpha = self.alpha();
        let mut samples = Samples::Eight(vec![0; self.samples.len()]);
        let (Dims { c, h, w }, mut row) = (self.dims, Vec::new());
        for y in 0..h {
            row.clear();
            self.read_row(y, 0..w, &mut row);
            if let Some(alpha) = &alpha {
                let opaque = row.chunks_exact_mut(c).zip(&alpha[y * w..]);
                opaque.for_each(|(pixel, a)| pixel.iter_mut().for_each(|v| *v = *v * a + 1.0 - a));
            }
            samples.write(y * w * c, &row);
        }
        Self { samples, alpha: None, metadata: Metadata::default(), ..*self }
    }
}

/// Whether a file name ends as those of JPEG files do.
pub fn is_jpeg_name(path: &Path) -> bool {
    JPEG_ENDINGS.contains(&content::extension(path).as_str())
}

/// Separates pixels of `c` channels and alpha into samples and alpha. Alpha that is opaque
/// everywhere is kept, so that the result has an alpha channel like the file.
fn split_alpha(samples: Samples, c: usize) -> (Samples, Option<Samples>) {
    fn split<T: Copy>(mut v: Vec<T>, c: usize) -> (Vec<T>, Vec<T>) {
        let alpha: Vec<T> = v.iter().skip(c).step_by(c + 1).copied().collect();
        // In place, because a large image does not fit twice.
        for i in 0..alpha.len() {
            v.copy_within(i * (c + 1)..i * (c + 1) + c, i * c);
        }
        v.truncate(alpha.len() * c);
        v.shrink_to_fit();
        (v, alpha)
    }
    match samples {
        Samples::Eight(v) => {
            let (v, alpha) = split(v, c);
            (Samples::Eight(v), Some(Samples::Eight(alpha)))
        }
        Samples::Sixteen(v) => {
            let (v, alpha) = split(v, c);
            (Samples::Sixteen(v), Some(Samples::Sixteen(alpha)))
        }
    }
}

/// Joins samples of `c` channels and alpha into pixels.
fn merge_alpha(samples: &Samples, alpha: &Samples, c: usize) -> Samples {
    fn join<T: Copy>(v: &[T], alpha: &[T], c: usize) -> Vec<T> {
        let mut out = Vec::with_capacity(v.len() + alpha.len());
        for (pixel, a) in v.chunks_exact(c).zip(alpha) {
            out.extend_from_slice(pixel);
            out.push(*a);
        }
        out
    }
    match (samples, alpha) {
        (Samples::Eight(v), Samples::Eight(alpha)) => Samples::Eight(join(v, alpha, c)),
        (Samples::Sixteen(v), Samples::Sixteen(alpha)) => Samples::Sixteen(join(v, alpha, c)),
        _ => unreachable!("samples and alpha have the same depth"),
    }
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
        let kinds: [(DynamicImage, usize, bool, bool); 8] = [
            (noise::<Luma<u8>, u8>(1).into(), 1, false, false),
            (noise::<LumaA<u8>, u8>(1).into(), 1, true, false),
            (noise::<Rgb<u8>, u8>(1).into(), 3, false, false),
            (noise::<Rgba<u8>, u8>(1).into(), 3, true, false),
            (noise::<Luma<u16>, u16>(261).into(), 1, false, true),
            (noise::<LumaA<u16>, u16>(261).into(), 1, true, true),
            (noise::<Rgb<u16>, u16>(261).into(), 3, false, true),
            (noise::<Rgba<u16>, u16>(261).into(), 3, true, true),
        ];
        for (image, c, alpha, deep) in kinds {
            let path = folder.write("a.png", &encoded(&image, ImageFormat::Png));
            let file = ImageFile::read(&path).unwrap();
            assert_eq!(
                (file.dims, file.alpha().is_some(), file.is_deep()),
                (Dims::new(c, 5, 7), alpha, deep)
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
            assert_eq!((back.dims.c, back.alpha(), back.is_deep()), (c, None, false));
        }
        assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 3);
    }

    #[test]
    fn pixels_are_rounded_and_clipped() {
        let file = ImageFile::from_pixels(&[0.25, 2.0, f32::NAN, -1.0], Dims::new(1, 2, 2), true);
        assert_eq!(file.samples, Samples::Sixteen(vec![16384, 65535, 0, 0]));
    }

    #[test]
    fn alpha_is_copied_to_results_of_the_same_size_only() {
        let mut file = ImageFile::from_pixels(&[0.0; 4], Dims::new(1, 2, 2), true);
        file.set_alpha(Some(&[1.0, 0.0, 0.5, 1.0]));
        assert_eq!(file.like(file.size()).alpha(), file.alpha());
        let mut larger = file.like(Size::new(4, 4));
        assert_eq!((larger.alpha(), larger.pixels().len(), larger.is_deep()), (None, 16, true));
        larger.set_alpha(Some(&[1.0; 16]));
        assert_eq!(larger.alpha().unwrap(), [1.0; 16]);
    }

    #[test]
    fn transparent_pixels_are_white_in_a_jpeg() {
        let mut file = ImageFile::from_pixels(&[0.0; 4], Dims::new(1, 2, 2), true);
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
            let lossless = Lossless { image, metadata, frames: 1, is_jpeg: false };
            let file = ImageFile::new(lossless).unwrap();
            assert_eq!(file.metadata.profile.is_some(), kept);
            for name in ["a.png", "a.jpg"] {
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
        let file = ImageFile::from_pixels(&[0.0], Dims::flat(1), false);
        let message = file.save(&folder.path.join("a.tif")).unwrap_err().to_string();
        assert!(message.contains("a.tif") && message.contains(".png"), "{message}");
        let wide = ImageFile::from_pixels(&vec![0.0; 70_000], Dims::new(1, 1, 70_000), false);
        let message = wide.save(&folder.path.join("wide.jpg")).unwrap_err().to_string();
        assert!(message.contains("wide.jpg") && message.contains("70000"), "{message}");
        assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 0);
    }
}
