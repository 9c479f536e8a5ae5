//! An image file as restoration needs it: samples at the depth that they were saved with, alpha
//! apart, and written back as the same kind.

use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{DynamicImage, ExtendedColorType, ImageEncoder};

use crate::data::formats::decode;
use crate::error::{Error, Result};
use crate::files;
use crate::shape::Size;

/// The quality of JPEG files, of 100.
const JPEG_QUALITY: u8 = 95;

/// Samples as a file holds them. 0–1 is 0–255 or 0–65535.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Samples {
    /// 8 bits a sample.
    Eight(Vec<u8>),
    /// 16 bits a sample.
    Sixteen(Vec<u16>),
}

impl Samples {
    /// So many zeros of the same depth.
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

    /// Adds a part to a vector of reals, on the 0–1 scale.
    fn read(&self, range: Range<usize>, out: &mut Vec<f32>) {
        match self {
            Self::Eight(v) => out.extend(v[range].iter().map(|&v| f32::from(v) / 255.0)),
            Self::Sixteen(v) => out.extend(v[range].iter().map(|&v| f32::from(v) / 65535.0)),
        }
    }

    /// Writes reals of the 0–1 scale over a part: rounded, what lies outside clipped, NaN as 0.
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

/// An image from a file, or to become one. Samples stay at their depth, so that a large image takes
/// no more than its file's pixels; reals are read from it and written to it by rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// Height in pixels.
    pub h: usize,
    /// Width in pixels.
    pub w: usize,
    /// 1 (gray) or 3 (RGB), as the file says: an RGB file stays one though its channels be equal.
    pub c: usize,
    /// H,W,C.
    samples: Samples,
    /// H,W; 1: opaque. None where the file has no transparency.
    alpha: Option<Samples>,
    /// The colour profile, where it is one of gray or RGB as the samples are.
    profile: Option<Vec<u8>>,
}

/// The most bytes that decoding a file of restoration may take: 100 megapixels with alpha at 16
/// bits.
pub const MAX_BYTES: u64 = 1 << 30;

impl ImageFile {
    /// Reads PNG, JPEG, BMP, GIF (its first frame), TIFF, WebP or PNM, recognised by its content.
    /// The EXIF orientation is applied. Palettes become the colours that they stand for, CMYK and
    /// YCbCr RGB, float samples 16 bits, fewer than 8 bits 8.
    ///
    /// # Errors
    /// When the file cannot be read or decoded, or takes more than [`MAX_BYTES`]; the message
    /// begins with its path.
    pub fn read(path: &Path) -> Result<Self> {
        decode::picture_of_file(path, MAX_BYTES)
            .and_then(|(image, profile)| Self::new(image, profile))
            .map_err(|error| error.at(path.display()))
    }

    fn new(image: DynamicImage, profile: Option<Vec<u8>>) -> Result<Self> {
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
        // Offset 16 of a profile's head: the colours that it is for (ICC.1:2022, 7.2.6).
        let kind: &[u8] = if c == 1 { b"GRAY" } else { b"RGB " };
        let profile = profile.filter(|profile| profile.get(16..20) == Some(kind));
        let (samples, alpha) = if color.has_alpha() { apart(samples, c) } else { (samples, None) };
        Ok(Self { h, w, c, samples, alpha, profile })
    }

    /// An image of H,W,C samples on the 0–1 scale, with 8 or 16 bits.
    pub fn from_pixels(pixels: &[f32], h: usize, w: usize, c: usize, deep: bool) -> Self {
        assert!(pixels.len() == h * w * c && (c == 1 || c == 3), "a picture of {h}x{w}x{c}");
        let none = if deep { Samples::Sixteen(Vec::new()) } else { Samples::Eight(Vec::new()) };
        let mut samples = none.zeros(pixels.len());
        samples.write(0, pixels);
        Self { h, w, c, samples, alpha: None, profile: None }
    }

    /// A black image of the same kind (channels, depth, profile) and another size, for a result.
    /// The alpha is copied where the size is the same; else set it by [`ImageFile::set_alpha`].
    pub fn like(&self, h: usize, w: usize) -> Self {
        let alpha = self.alpha.clone().filter(|_| (h, w) == (self.h, self.w));
        Self {
            h,
            w,
            c: self.c,
            samples: self.samples.zeros(h * w * self.c),
            alpha,
            profile: self.profile.clone(),
        }
    }

    /// Height and width.
    pub const fn size(&self) -> Size {
        Size { h: self.h, w: self.w }
    }

    /// An image without pixels that has the same channels and colour profile: what
    /// [`ImageFile::like`] makes images of.
    pub fn kind(&self, deep: bool) -> Self {
        let samples = if deep { Samples::Sixteen(Vec::new()) } else { Samples::Eight(Vec::new()) };
        Self { h: 0, w: 0, c: self.c, samples, alpha: None, profile: self.profile.clone() }
    }

    /// Whether it has 16 bits a sample.
    pub fn is_deep(&self) -> bool {
        matches!(self.samples, Samples::Sixteen(_))
    }

    /// All samples (H,W,C; 0…1).
    pub fn pixels(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.samples.len());
        self.samples.read(0..self.samples.len(), &mut out);
        out
    }

    /// Adds some columns of a row (W,C; 0…1) to a vector.
    pub fn read_row(&self, y: usize, columns: Range<usize>, out: &mut Vec<f32>) {
        let row = y * self.w;
        self.samples.read((row + columns.start) * self.c..(row + columns.end) * self.c, out);
    }

    /// Writes whole rows (H,W,C; 0…1) from row `top` on: rounded to the depth, what lies outside
    /// clipped.
    pub fn write_rows(&mut self, top: usize, rows: &[f32]) {
        self.samples.write(top * self.w * self.c, rows);
    }

    /// The alpha plane (H,W; 1: opaque), if there is one.
    pub fn alpha(&self) -> Option<Vec<f32>> {
        let alpha = self.alpha.as_ref()?;
        let mut out = Vec::with_capacity(alpha.len());
        alpha.read(0..alpha.len(), &mut out);
        Some(out)
    }

    /// Sets the alpha plane (H,W; 0…1) or takes it away.
    pub fn set_alpha(&mut self, alpha: Option<&[f32]>) {
        self.alpha = alpha.map(|values| {
            assert_eq!(values.len(), self.h * self.w, "an alpha plane of the image's size");
            let mut alpha = self.samples.zeros(values.len());
            alpha.write(0, values);
            alpha
        });
    }

    /// Writes a PNG of the same kind, or, where the name ends in `.jpg` or `.jpeg`, a JPEG: 8 bits,
    /// and what is transparent over white. The file is written beside under a temporary name and
    /// then renamed.
    ///
    /// # Errors
    /// When the name ends otherwise, the format cannot hold the size, or the file cannot be
    /// written; nothing is left behind then.
    pub fn save(&self, path: &Path) -> Result<()> {
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let mut bytes = Cursor::new(Vec::new());
        let encoded = match &ending[..] {
            "png" => self.encode(PngEncoder::new(&mut bytes)),
            "jpg" | "jpeg" => self
                .shallow_opaque()
                .encode(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)),
            _ => crate::bail_usage!(
                "{}: results are PNG or JPEG; let the name end in .png or .jpg",
                path.display()
            ),
        };
        encoded.map_err(|error| {
            Error::usage(format!(
                "{}: {}x{} pixels cannot be saved ({error}); save as .png",
                path.display(),
                self.w,
                self.h
            ))
        })?;
        files::write_atomically(path, bytes.get_ref())
    }

    fn encode(&self, mut encoder: impl ImageEncoder) -> image::ImageResult<()> {
        use ExtendedColorType::{L8, L16, La8, La16, Rgb8, Rgb16, Rgba8, Rgba16};
        if let Some(profile) = &self.profile {
            // A format without a place for it loses it.
            let _ = encoder.set_icc_profile(profile.clone());
        }
        let together = self.alpha.as_ref().map(|alpha| together(&self.samples, alpha, self.c));
        let samples = together.as_ref().unwrap_or(&self.samples);
        let color = match (self.c, self.alpha.is_some(), self.is_deep()) {
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
            // The encoder expects the machine's byte order.
            Samples::Sixteen(v) => bytemuck::cast_slice(v),
        };
        encoder.write_image(bytes, self.w as u32, self.h as u32, color)
    }

    /// With 8 bits, over white, for JPEG.
    fn shallow_opaque(&self) -> Self {
        let alpha = self.alpha();
        let mut samples = Samples::Eight(vec![0; self.samples.len()]);
        let mut row = Vec::new();
        for y in 0..self.h {
            row.clear();
            self.read_row(y, 0..self.w, &mut row);
            if let Some(alpha) = &alpha {
                let opaque = row.chunks_exact_mut(self.c).zip(&alpha[y * self.w..]);
                opaque.for_each(|(pixel, a)| pixel.iter_mut().for_each(|v| *v = *v * a + 1.0 - a));
            }
            samples.write(y * self.w * self.c, &row);
        }
        Self { samples, alpha: None, profile: self.profile.clone(), ..*self }
    }
}

/// Samples and alpha of pixels that hold both. An alpha that is opaque throughout is kept: it says
/// of what kind the file is.
fn apart(samples: Samples, c: usize) -> (Samples, Option<Samples>) {
    fn split<T: Copy>(mut v: Vec<T>, c: usize) -> (Vec<T>, Vec<T>) {
        let alpha: Vec<T> = v.iter().skip(c).step_by(c + 1).copied().collect();
        // In place: a large image is not held twice.
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

/// Pixels of samples and alpha.
fn together(samples: &Samples, alpha: &Samples, c: usize) -> Samples {
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
        _ => unreachable!("samples and alpha have one depth"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Folder, encoded};
    use image::{ImageBuffer, ImageFormat, Luma, LumaA, Pixel, Rgb, Rgba};

    fn noise<P: Pixel<Subpixel = T>, T: From<u8> + image::Primitive>(
        scale: T,
    ) -> ImageBuffer<P, Vec<T>> {
        let samples = (0..5 * 7 * usize::from(P::CHANNEL_COUNT))
            .map(|i| <T as From<u8>>::from((i * 37 % 251) as u8) * scale);
        ImageBuffer::from_raw(7, 5, samples.collect()).unwrap()
    }

    #[test]
    fn every_kind_of_png_comes_back_as_it_was() {
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
                (file.h, file.w, file.c, file.alpha().is_some(), file.is_deep()),
                (5, 7, c, alpha, deep)
            );
            // Through reals and back, at once and by rows.
            let mut copy = file.like(5, 7);
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
            assert_eq!((back.c, back.alpha(), back.is_deep()), (c, None, false));
        }
        assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 3);
    }

    #[test]
    fn a_result_of_another_size_takes_its_alpha() {
        let mut file = ImageFile::from_pixels(&[0.25, 2.0, f32::NAN, -1.0], 2, 2, 1, true);
        assert_eq!(file.samples, Samples::Sixteen(vec![16384, 65535, 0, 0]));
        file.set_alpha(Some(&[1.0, 0.0, 0.5, 1.0]));
        assert_eq!(file.like(2, 2).alpha(), file.alpha());
        let mut larger = file.like(4, 4);
        assert_eq!((larger.alpha(), larger.pixels().len(), larger.is_deep()), (None, 16, true));
        larger.set_alpha(Some(&[1.0; 16]));
        assert_eq!(larger.alpha().unwrap(), [1.0; 16]);
    }

    #[test]
    fn transparent_is_white_in_a_jpeg() {
        let mut file = ImageFile::from_pixels(&[0.0; 4], 2, 2, 1, true);
        file.set_alpha(Some(&[0.0, 1.0, 0.25, 1.0]));
        assert_eq!(file.shallow_opaque().samples, Samples::Eight(vec![255, 0, 191, 0]));
    }

    #[test]
    fn profiles_of_the_same_colours_are_kept() {
        let folder = Folder::new("profile");
        let mut profile = vec![0; 132];
        profile[16..20].copy_from_slice(b"RGB ");
        for (c, kept) in [(3, true), (1, false)] {
            let image = if c == 3 {
                noise::<Rgb<u8>, u8>(1).into()
            } else {
                DynamicImage::from(noise::<Luma<u8>, u8>(1))
            };
            let file = ImageFile::new(image, Some(profile.clone())).unwrap();
            assert_eq!(file.profile.is_some(), kept);
            for name in ["a.png", "a.jpg"] {
                let path = folder.path.join(name);
                file.save(&path).unwrap();
                assert_eq!(ImageFile::read(&path).unwrap().profile, file.profile, "{name}");
            }
        }
    }

    #[test]
    fn errors_name_the_file() {
        let folder = Folder::new("image-errors");
        let bad = folder.write("bad.png", b"\x89PNG\r\n");
        for path in [bad, folder.path.join("none.png"), folder.path.clone()] {
            let message = ImageFile::read(&path).unwrap_err().to_string();
            assert!(message.starts_with(&path.display().to_string()), "{message}");
        }
        let file = ImageFile::from_pixels(&[0.0], 1, 1, 1, false);
        let message = file.save(&folder.path.join("a.tif")).unwrap_err().to_string();
        assert!(message.contains("a.tif") && message.contains(".png"), "{message}");
        let wide = ImageFile::from_pixels(&vec![0.0; 70_000], 1, 70_000, 1, false);
        let message = wide.save(&folder.path.join("wide.jpg")).unwrap_err().to_string();
        assert!(message.contains("wide.jpg") && message.contains("70000"), "{message}");
        assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 1);
    }
}
