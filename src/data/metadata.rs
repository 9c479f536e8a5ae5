//! Metadata of an image: colour profile, EXIF, XMP, resolution, gamma and texts. Results keep what
//! their format can hold.

use image::codecs::jpeg::{JpegEncoder, PixelDensity, PixelDensityUnit};
use image::{ImageDecoder, ImageEncoder, ImageFormat};

use super::exif;
use super::formats::png_chunks;
use crate::shape::Size;

/// Maximum length of a segment of a JPEG file in bytes, without its length field.
const MAX_SEGMENT: usize = 65_533;
/// The identifier of XMP in a JPEG segment, and its keyword in a PNG chunk.
const XMP_SEGMENT: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
const XMP_CHUNK: &[u8] = b"XML:com.adobe.xmp\0";

/// A chunk of a PNG file: type and data.
type Chunk = ([u8; 4], Vec<u8>);

/// The unit of a [`Density`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// None: only the ratio of `x` and `y` has a meaning.
    Ratio,
    /// Per inch.
    Inch,
    /// Per centimetre.
    Centimetre,
    /// Per metre.
    Metre,
}

/// Pixels per unit of length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Density {
    /// Along a row.
    pub x: f64,
    /// Along a column.
    pub y: f64,
    /// The unit of both.
    pub unit: Unit,
}

impl Density {
    /// The density in another unit. A ratio stays a ratio.
    fn per(self, unit: Unit) -> Self {
        let metres = |unit| match unit {
            Unit::Ratio => 0.0,
            Unit::Inch => 0.0254,
            Unit::Centimetre => 0.01,
            Unit::Metre => 1.0,
        };
        if self.unit == Unit::Ratio || self.unit == unit {
            return self;
        }
        let factor = metres(unit) / metres(self.unit);
        Self { x: self.x * factor, y: self.y * factor, unit }
    }
}

/// The metadata of an image file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// The ICC profile.
    pub profile: Option<Vec<u8>>,
    /// EXIF metadata, from the byte order on, without orientation and thumbnail.
    exif: Option<Vec<u8>>,
    /// The XMP packet, without the orientation.
    xmp: Option<Vec<u8>>,
    /// The resolution.
    density: Option<Density>,
    /// Chunks of a PNG file with its colours or texts.
    chunks: Vec<Chunk>,
}

impl Metadata {
    /// The metadata that a decoder finds in the file `bytes`.
    pub(super) fn read(decoder: &mut impl ImageDecoder, format: ImageFormat, bytes: &[u8]) -> Self {
        // Damaged metadata do not make the image unusable.
        let exif = decoder.exif_metadata().ok().flatten();
        let (density, chunks) = match format {
            ImageFormat::Png => of_png(bytes),
            ImageFormat::Jpeg => (of_jpeg(bytes), Vec::new()),
            ImageFormat::Bmp => (of_bmp(bytes), Vec::new()),
            _ => (None, Vec::new()),
        };
        let profile = decoder.icc_profile().ok().flatten();
        let xmp = decoder.xmp_metadata().ok().flatten();
        Self { chunks, ..Self::new(profile, exif, xmp, density) }
    }

    /// Metadata without those that hold for the file only: how it is turned, and its thumbnail.
    pub(super) fn new(
        profile: Option<Vec<u8>>,
        exif: Option<Vec<u8>>,
        mut xmp: Option<Vec<u8>>,
        density: Option<Density>,
    ) -> Self {
        let density =
            density.filter(|density| density.unit != Unit::Ratio || density.x != density.y);
        let density = density.or_else(|| exif::density(exif.as_deref()?));
        let mut exif = exif.map(exif::without_prefix);
        if let Some(exif) = &mut exif {
            exif::forget_pixels(exif);
        }
        if let Some(xmp) = &mut xmp {
            reset_orientation(xmp);
        }
        Self { profile, exif, xmp, density, chunks: Vec::new() }
    }

    /// EXIF metadata for an image of `size`.
    fn exif_for(&self, size: Size) -> Option<Vec<u8>> {
        let mut exif = self.exif.clone()?;
        exif::set_size(&mut exif, size);
        Some(exif)
    }

    /// Passes profile and EXIF to an encoder.
    fn set_on(&self, encoder: &mut impl ImageEncoder, size: Size, max_exif: usize) {
        // An error means that the format cannot store them. The image is still valid.
        if let Some(profile) = &self.profile {
            let _ = encoder.set_icc_profile(profile.clone());
        }
        if let Some(exif) = self.exif_for(size).filter(|exif| exif.len() <= max_exif) {
            let _ = encoder.set_exif_metadata(exif);
        }
    }

    /// Passes what it can take to the encoder of a PNG file of an image of `size`.
    pub(super) fn set_on_png(&self, encoder: &mut impl ImageEncoder, size: Size) {
        self.set_on(encoder, size, u32::MAX as usize);
    }

    /// Passes what it can take to the encoder of a JPEG file of an image of `size`.
    pub(super) fn set_on_jpeg<W: std::io::Write>(&self, encoder: &mut JpegEncoder<W>, size: Size) {
        self.set_on(encoder, size, MAX_SEGMENT - 6);
        let Some(density) = self.density else { return };
        let density = if density.unit == Unit::Metre { density.per(Unit::Inch) } else { density };
        let unit = match density.unit {
            Unit::Ratio => PixelDensityUnit::PixelAspectRatio,
            Unit::Inch | Unit::Metre => PixelDensityUnit::Inches,
            Unit::Centimetre => PixelDensityUnit::Centimeters,
        };
        let [x, y] = [density.x, density.y].map(|value| value.round());
        if (1.0..=65535.0).contains(&x) && (1.0..=65535.0).contains(&y) {
            encoder.set_pixel_density(PixelDensity { density: (x as u16, y as u16), unit });
        }
    }

    /// The XMP packet.
    pub(super) fn xmp(&self) -> Option<&[u8]> {
        self.xmp.as_deref()
    }

    /// The resolution in the units that a TIFF file has.
    pub(super) fn tiff_density(&self) -> Option<Density> {
        let density = self.density?;
        let unit = if density.unit == Unit::Metre { Unit::Centimetre } else { density.unit };
        Some(density.per(unit))
    }

    /// Adds what encoders of PNG files do not write.
    pub(super) fn add_to_png(&self, bytes: &mut Vec<u8>) {
        let mut added = Vec::new();
        for (kind, data) in &self.chunks {
            png_chunks::push(&mut added, *kind, data);
        }
        if let Some(density) = self.density.map(|density| density.per(Unit::Metre)) {
            let side = |value: f64| (value.round() as u32).to_be_bytes();
            let unit = u8::from(density.unit == Unit::Metre);
            png_chunks::push(
                &mut added,
                *b"pHYs",
                &[&side(density.x)[..], &side(density.y), &[unit]].concat(),
            );
        }
        if let Some(xmp) = &self.xmp {
            // Not compressed, without language and translated keyword.
            png_chunks::push(&mut added, *b"iTXt", &[XMP_CHUNK, &[0; 4], xmp].concat());
        }
        if bytes.len() > png_chunks::HEADER {
            bytes.splice(png_chunks::HEADER..png_chunks::HEADER, added);
        }
    }

    /// Adds what encoders of JPEG files do not write.
    pub(super) fn add_to_jpeg(&self, bytes: &mut Vec<u8>) {
        let Some(xmp) = &self.xmp else { return };
        let data = [XMP_SEGMENT, xmp].concat();
        // The encoder begins with the marker of the image and a JFIF segment.
        let Some([_, _, _, _, high, low]) = bytes.get(..6) else { return };
        let at = 4 + usize::from(u16::from_be_bytes([*high, *low]));
        if data.len() <= MAX_SEGMENT && at <= bytes.len() {
            let length = (data.len() as u16 + 2).to_be_bytes();
            let segment = [&[0xff, 0xe1][..], &length, &data].concat();
            bytes.splice(at..at, segment);
        }
    }
}

/// The resolution of a PNG file, and its chunks that also hold for a result.
fn of_png(bytes: &[u8]) -> (Option<Density>, Vec<Chunk>) {
    let (mut density, mut chunks) = (None, Vec::new());
    for (kind, data) in png_chunks::chunks(bytes) {
        match &kind {
            b"pHYs" => density = of_phys(data),
            b"gAMA" | b"cHRM" | b"sRGB" | b"cICP" | b"mDCV" | b"cLLI" => {
                chunks.push((kind, data.to_vec()));
            }
            b"tEXt" | b"zTXt" | b"iTXt" => {
                // XMP is written again. EXIF as text repeats how the file is turned.
                let is_kept =
                    !data.starts_with(XMP_CHUNK) && !data.starts_with(b"Raw profile type");
                if is_kept {
                    chunks.push((kind, data.to_vec()));
                }
            }
            _ => {}
        }
    }
    (density, chunks)
}

/// The resolution in the chunk `pHYs` of a PNG file.
fn of_phys(data: &[u8]) -> Option<Density> {
    let &[a, b, c, d, e, f, g, h, unit] = data else { return None };
    let [x, y] = [[a, b, c, d], [e, f, g, h]].map(|side| f64::from(u32::from_be_bytes(side)));
    let unit = if unit == 1 { Unit::Metre } else { Unit::Ratio };
    (x > 0.0 && y > 0.0).then_some(Density { x, y, unit })
}

/// The resolution in the JFIF segment of a JPEG file (ITU-T T.871, 10.1), which is the first one.
fn of_jpeg(bytes: &[u8]) -> Option<Density> {
    let segment = bytes.get(6..18).filter(|segment| segment.starts_with(b"JFIF\0"))?;
    let unit = match segment[7] {
        0 => Unit::Ratio,
        1 => Unit::Inch,
        2 => Unit::Centimetre,
        _ => return None,
    };
    let side = |at: usize| f64::from(u16::from_be_bytes([segment[at], segment[at + 1]]));
    let (x, y) = (side(8), side(10));
    (x > 0.0 && y > 0.0).then_some(Density { x, y, unit })
}

/// The resolution in the header of a bitmap.
fn of_bmp(bytes: &[u8]) -> Option<Density> {
    // Headers of fewer than 40 bytes have none.
    bytes.get(14).filter(|length| **length >= 40)?;
    let side = |at: usize| -> Option<f64> {
        let four = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(f64::from(i32::from_le_bytes(four)))
    };
    let (x, y) = (side(38)?, side(42)?);
    (x > 0.0 && y > 0.0).then_some(Density { x, y, unit: Unit::Metre })
}

/// Sets the orientation in an XMP packet, as an attribute or an element, to that of turned pixels.
fn reset_orientation(xmp: &mut [u8]) {
    for before in [&b"tiff:Orientation=\""[..], b"tiff:Orientation='", b"<tiff:Orientation>"] {
        let places: Vec<usize> = xmp
            .windows(before.len() + 1)
            .enumerate()
            .filter(|(_, bytes)| bytes.starts_with(before))
            .map(|(at, _)| at + before.len())
            .collect();
        for at in places {
            if xmp[at].is_ascii_digit() {
                xmp[at] = b'1';
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use image::metadata::Orientation;

    use super::*;
    use crate::data::formats::decode::{Limit, decode_lossless};
    use crate::data::image_file::ImageFile;
    use crate::testing::{Folder, encoded};

    #[test]
    fn densities_are_converted() {
        let dots = Density { x: 300.0, y: 150.0, unit: Unit::Inch };
        let metre = dots.per(Unit::Metre);
        assert_eq!((metre.x.round(), metre.y.round(), metre.unit), (11811.0, 5906.0, Unit::Metre));
        let ratio = Density { x: 2.0, y: 1.0, unit: Unit::Ratio };
        assert_eq!(ratio.per(Unit::Inch), ratio);
    }

    #[test]
    fn the_orientation_of_xmp_is_reset() {
        let mut xmp = b"<a tiff:Orientation=\"6\"/><tiff:Orientation>8</tiff:Orientation>".to_vec();
        reset_orientation(&mut xmp);
        assert_eq!(xmp, b"<a tiff:Orientation=\"1\"/><tiff:Orientation>1</tiff:Orientation>");
    }

    const XMP: &[u8] = b"<x:xmpmeta xmlns:x=\"adobe:ns:meta/\" tiff:Orientation=\"6\"/>";

    /// A PNG file with EXIF, XMP, resolution, gamma and a text.
    fn png() -> Vec<u8> {
        let image = image::RgbImage::from_pixel(40, 30, image::Rgb([1, 2, 3])).into();
        let still = encoded(&image, ImageFormat::Png);
        let mut added = Vec::new();
        png_chunks::push(&mut added, *b"gAMA", &45455_u32.to_be_bytes());
        let metre = 11811_u32.to_be_bytes();
        png_chunks::push(&mut added, *b"pHYs", &[&metre[..], &metre, &[1]].concat());
        png_chunks::push(&mut added, *b"eXIf", &exif::tests::sample());
        png_chunks::push(&mut added, *b"iTXt", &[XMP_CHUNK, &[0; 4], XMP].concat());
        png_chunks::push(&mut added, *b"tEXt", b"Author\0Ada");
        png_chunks::push(&mut added, *b"tEXt", b"Raw profile type exif\0...");
        png_chunks::push(&mut added, *b"tIME", &[7; 7]);
        let (start, end) = still.split_at(png_chunks::HEADER);
        [start, &added, end].concat()
    }

    /// The metadata of a file that was saved as a result of `file`, and its bytes.
    fn saved(folder: &Folder, file: &[u8], name: &str, size: Size) -> (Metadata, Vec<u8>) {
        let image = ImageFile::read(&folder.write("source", file)).unwrap();
        let path = folder.path.join(name);
        image.like(size).save(&path).unwrap();
        let limit = Limit::of_memory(None);
        (decode_lossless(&path, limit).unwrap().metadata, std::fs::read(&path).unwrap())
    }

    #[test]
    fn metadata_of_a_png_are_kept() {
        let folder = Folder::new("metadata");
        let (kept, bytes) = saved(&folder, &png(), "a.png", Size::new(40, 30));
        let kinds: Vec<_> = kept.chunks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [*b"gAMA", *b"tEXt"]);
        let dots = kept.density.unwrap();
        assert_eq!((dots.x, dots.y, dots.unit), (11811.0, 11811.0, Unit::Metre));
        let xmp = kept.xmp.unwrap();
        assert!(xmp.windows(20).any(|bytes| bytes == b"tiff:Orientation=\"1\""), "{xmp:?}");
        let has = |words: &[u8]| bytes.windows(words.len()).any(|bytes| bytes == words);
        assert!(has(b"Author") && !has(b"Raw profile") && !has(b"THUMB") && !has(b"tIME"));
        // The image is not turned again.
        let exif = kept.exif.unwrap();
        assert_eq!(Orientation::from_exif_chunk(&exif), Some(Orientation::NoTransforms));
        assert_eq!(ImageFile::read(&folder.path.join("a.png")).unwrap().size(), Size::new(40, 30));
    }

    #[test]
    fn metadata_of_a_jpeg_and_a_png_are_exchanged() {
        let folder = Folder::new("metadata-jpeg");
        let (of_jpeg, jpeg) = saved(&folder, &png(), "a.jpg", Size::new(80, 60));
        assert_eq!(of_jpeg.density.unwrap(), Density { x: 300.0, y: 300.0, unit: Unit::Inch });
        assert!(of_jpeg.exif.is_some() && of_jpeg.xmp.is_some());
        let (of_png, _) = saved(&folder, &jpeg, "b.png", Size::new(80, 60));
        assert_eq!((of_png.exif, of_png.xmp), (of_jpeg.exif, of_jpeg.xmp));
        assert_eq!(of_png.density.unwrap().x.round(), 11811.0);
    }

    #[test]
    fn exif_of_a_webp_turns_the_image_and_is_kept() {
        for prefix in [&b""[..], b"Exif\0\0"] {
            let folder = Folder::new("metadata-webp");
            let mut file = std::io::Cursor::new(Vec::new());
            let mut encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut file);
            encoder.set_exif_metadata([prefix, &exif::tests::sample()].concat()).unwrap();
            let pixels = [9; 40 * 30 * 3];
            encoder.write_image(&pixels, 40, 30, image::ExtendedColorType::Rgb8).unwrap();
            let path = folder.write("a.webp", file.get_ref());
            assert_eq!(ImageFile::read(&path).unwrap().size(), Size::new(40, 30));
            let (kept, _) = saved(&folder, file.get_ref(), "a.png", Size::new(40, 30));
            let exif = kept.exif.unwrap();
            assert_eq!(Orientation::from_exif_chunk(&exif), Some(Orientation::NoTransforms));
        }
    }

    #[test]
    fn metadata_too_large_for_a_jpeg_are_left_out() {
        let folder = Folder::new("metadata-large");
        let mut file = png();
        let mut large = Vec::new();
        let xmp = [XMP_CHUNK, &[0; 4], &vec![b' '; 70_000]].concat();
        png_chunks::push(&mut large, *b"iTXt", &xmp);
        file.splice(png_chunks::HEADER..png_chunks::HEADER, large);
        let (kept, _) = saved(&folder, &file, "a.jpg", Size::new(40, 30));
        assert!(kept.xmp.is_none() && kept.exif.is_some());
    }

    #[test]
    fn the_resolution_of_other_formats_is_read() {
        let density = |bytes: &[u8]| {
            let folder = Folder::new("metadata-density");
            let path = folder.write("x", bytes);
            decode_lossless(&path, Limit::of_memory(None)).unwrap().metadata.density
        };
        let image = || image::GrayImage::new(4, 3).into();
        let mut bitmap = encoded(&image(), ImageFormat::Bmp);
        bitmap[38..46].copy_from_slice(&[2835_i32.to_le_bytes(); 2].concat());
        assert_eq!(density(&bitmap), Some(Density { x: 2835.0, y: 2835.0, unit: Unit::Metre }));
        // 150 pixels per centimetre, as a fraction behind the image.
        let mut tiff = encoded(&image(), ImageFormat::Tiff);
        let fraction = tiff.len() as u32;
        tiff.extend([300_u32.to_le_bytes(), 2_u32.to_le_bytes()].concat());
        for tag in [282_u16, 283] {
            let entry =
                [&tag.to_le_bytes()[..], &5_u16.to_le_bytes(), &1_u32.to_le_bytes()].concat();
            let at = tiff.windows(8).position(|bytes| bytes == entry).unwrap();
            tiff[at + 8..at + 12].copy_from_slice(&fraction.to_le_bytes());
        }
        let unit =
            [&296_u16.to_le_bytes()[..], &3_u16.to_le_bytes(), &1_u32.to_le_bytes()].concat();
        let at = tiff.windows(8).position(|bytes| bytes == unit).unwrap();
        tiff[at + 8] = 3;
        assert_eq!(density(&tiff), Some(Density { x: 150.0, y: 150.0, unit: Unit::Centimetre }));
        // A JPEG file without a unit, and with square pixels, has no resolution.
        assert_eq!(density(&encoded(&image(), ImageFormat::Jpeg)), None);
    }
}
