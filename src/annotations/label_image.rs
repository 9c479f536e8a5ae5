//! Label images: PNG files with one number per pixel, as gray, an index into a palette, or a colour
//! with equal channels.

use std::path::Path;

use png::{BitDepth, ColorType, Decoder, Encoder, Transformations};

use crate::advice::Advice;
use crate::data::formats::reader::Reader;
use crate::error::{Error, Result};
use crate::files;
use crate::shape::Size;

/// Maximum number of pixels of a label image. It bounds the memory that a forged header can ask
/// for: 512 MiB of 16-bit numbers.
const MAX_PIXELS: u64 = 1 << 28;

/// A decoded label image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelImage {
    /// Height and width.
    pub size: Size,
    /// The number of each pixel (H,W).
    pub values: Vec<u16>,
}

/// How the numbers of label images map to classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelling {
    /// The names of the classes.
    pub classes: Vec<String>,
    /// Whether the numbers identify instances: 0 is the background (class 0), every other number is
    /// the foreground (class 1).
    pub instances: bool,
    /// The number of pixels that are ignored.
    pub ignore: Option<u16>,
}

/// The class of ignored pixels.
pub const IGNORED: u8 = u8::MAX;

impl Labelling {
    /// Maps the numbers of a label image to classes; ignored pixels become [`IGNORED`].
    ///
    /// # Errors
    /// If a number is not a class.
    pub fn classes_of(&self, image: &LabelImage) -> Result<Vec<u8>> {
        let class = |value: &u16| {
            if self.ignore == Some(*value) {
                Ok(IGNORED)
            } else if self.instances {
                Ok(u8::from(*value > 0))
            } else if usize::from(*value) < self.classes.len() {
                Ok(*value as u8)
            } else {
                Err(*value)
            }
        };
        image.values.iter().map(class).collect::<Result<_, _>>().map_err(|value| {
            let (last, names) = (self.classes.len() - 1, self.classes.join(", "));
            Error::usage(format!(
                "the label {value} is not a class; classes are 0 to {last} ({names}); {}, or {}",
                Advice::MoreClasses,
                Advice::LabelNumbers
            ))
        })
    }
}

/// Reads a label image.
///
/// # Errors
/// If the file is not such a PNG, or has too many pixels. The message does not name the
/// file.
pub fn read_labels(path: &Path) -> Result<LabelImage> {
    labels_from(&files::read(path)?)
}

/// As [`read_labels`], from the bytes of a file.
///
/// # Errors
/// Those of [`read_labels`].
pub fn labels_from(bytes: &[u8]) -> Result<LabelImage> {
    let invalid = |error: png::DecodingError| {
        Error::usage(format!("not a label image ({error}); label images are PNG files"))
    };
    let mut decoder = Decoder::new(Reader::of(bytes));
    // The numbers are the stored values: no palette lookup, no scaling of low bit depths.
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(invalid)?;
    let info = reader.info();
    let (w, h, colour, depth) =
        (info.width as usize, info.height as usize, info.color_type, info.bit_depth);
    let channels = match colour {
        ColorType::Grayscale | ColorType::Indexed => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
    };
    if (w * h) as u64 > MAX_PIXELS {
        return Err(Error::usage(format!(
            "the label image has {w}x{h} pixels; at most {MAX_PIXELS} pixels are supported"
        )));
    }
    let row = reader.output_line_size(w as u32).unwrap_or(0);
    let mut raw = vec![0_u8; reader.output_buffer_size().unwrap_or(row * h)];
    reader.next_frame(&mut raw).map_err(invalid)?;
    if channels > 2 {
        let size = depth as usize / 8;
        let rows = raw.chunks_exact(row).take(h);
        rows.flat_map(|row| row.chunks_exact(channels * size))
            .try_for_each(|pixel| check_gray(pixel, size))?;
    }
    let mut values = Vec::with_capacity(w * h);
    for line in raw.chunks_exact(row).take(h) {
        match depth {
            BitDepth::Sixteen => values
                .extend(line.chunks_exact(2 * channels).map(|b| u16::from_be_bytes([b[0], b[1]]))),
            BitDepth::Eight => values.extend(line.chunks_exact(channels).map(|b| u16::from(b[0]))),
            _ => {
                let bits = depth as usize;
                let value = |x: usize| {
                    (line[x * bits / 8] >> (8 - bits - x * bits % 8)) & ((1 << bits) - 1)
                };
                values.extend((0..w).map(|x| u16::from(value(x))));
            }
        }
    }
    Ok(LabelImage { size: Size { h, w }, values })
}

/// Checks that a pixel of RGB, perhaps with alpha, is opaque and gray. A sample has `size` bytes.
fn check_gray(pixel: &[u8], size: usize) -> Result<()> {
    let (red, others) = pixel.split_at(size);
    let (colour, alpha) = others.split_at(2 * size);
    if colour.chunks_exact(size).any(|sample| sample != red) {
        return Err(Error::usage(
            "the label image is in colour; label images have one number per pixel: save it as \
             gray or with a palette",
        ));
    }
    if alpha.iter().any(|byte| *byte != u8::MAX) {
        return Err(Error::usage(
            "the label image has transparent pixels, which have no number; save it without \
             transparency",
        ));
    }
    Ok(())
}

/// The colour of a class in the palette of PASCAL VOC: the bits of the class number are distributed
/// over red, green and blue, from the highest bit of each down.
pub fn class_colour(class: usize) -> [u8; 3] {
    let mut rgb = [0_u8; 3];
    for bit in 0..8 {
        for (channel, value) in rgb.iter_mut().enumerate() {
            *value |= (((class >> (3 * bit + channel)) & 1) as u8) << (7 - bit);
        }
    }
    rgb
}

/// Writes the class of each pixel to a PNG with a palette of [`class_colour`]: programs read the
/// numbers, people see the colours.
///
/// # Errors
/// If the file cannot be written.
pub fn write_labels(path: &Path, classes: &[u8], size: Size) -> Result<()> {
    let mut bytes = Vec::new();
    let failed = |error: png::EncodingError| Error::failed(format!("{}: {error}", path.display()));
    let mut encoder = Encoder::new(&mut bytes, size.w as u32, size.h as u32);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_palette((0..256).flat_map(class_colour).collect::<Vec<u8>>());
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(classes).map_err(failed)?;
    writer.finish().map_err(failed)?;
    files::write_atomically(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(colour: ColorType, depth: BitDepth, w: u32, h: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, w, h);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if colour == ColorType::Indexed {
            encoder.set_palette(vec![9; 48]);
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        bytes
    }

    #[test]
    fn every_bit_depth_is_decoded() {
        let read = |colour, depth, w, data: &[u8]| {
            labels_from(&encoded(colour, depth, w, 2, data)).unwrap().values
        };
        assert_eq!(read(ColorType::Grayscale, BitDepth::Eight, 2, &[0, 1, 255, 7]), [0, 1, 255, 7]);
        assert_eq!(read(ColorType::Indexed, BitDepth::Eight, 2, &[3, 1, 15, 7]), [3, 1, 15, 7]);
        assert_eq!(
            read(ColorType::Indexed, BitDepth::Four, 3, &[0x12, 0x30, 0x45, 0xf0]),
            [1, 2, 3, 4, 5, 15]
        );
        assert_eq!(read(ColorType::Grayscale, BitDepth::Sixteen, 1, &[1, 2, 0, 3]), [258, 3]);
        assert_eq!(
            read(ColorType::Grayscale, BitDepth::One, 3, &[0b1010_0000, 0b0110_0000]),
            [1, 0, 1, 0, 1, 1]
        );
    }

    #[test]
    fn colours_with_equal_channels_are_numbers() {
        let read = |colour, depth, data: &[u8]| labels_from(&encoded(colour, depth, 2, 1, data));
        let numbers = |colour, depth, data: &[u8]| read(colour, depth, data).unwrap().values;
        assert_eq!(numbers(ColorType::Rgb, BitDepth::Eight, &[0, 0, 0, 7, 7, 7]), [0, 7]);
        let opaque = [3, 3, 3, 255, 0, 0, 0, 255];
        assert_eq!(numbers(ColorType::Rgba, BitDepth::Eight, &opaque), [3, 0]);
        let deep = [1, 2, 1, 2, 1, 2, 0, 5, 0, 5, 0, 5];
        assert_eq!(numbers(ColorType::Rgb, BitDepth::Sixteen, &deep), [258, 5]);
        let refusal =
            |data: &[u8]| read(ColorType::Rgba, BitDepth::Eight, data).unwrap_err().to_string();
        assert!(refusal(&[3, 3, 3, 255, 0, 0, 0, 9]).contains("transparent pixels"));
        assert!(refusal(&[3, 3, 3, 255, 0, 1, 0, 255]).contains("in colour"));
    }

    #[test]
    fn colour_images_and_other_files_are_refused() {
        let colour = encoded(ColorType::Rgb, BitDepth::Eight, 1, 1, &[1, 2, 3]);
        let message = labels_from(&colour).unwrap_err().to_string();
        assert!(message.contains("is in colour"), "{message}");
        let message = labels_from(b"nothing").unwrap_err().to_string();
        assert!(message.contains("not a label image"), "{message}");
    }

    fn labelling(classes: usize, instances: bool, ignore: Option<u16>) -> Labelling {
        let classes = (0..classes).map(|i| i.to_string()).collect();
        Labelling { classes, instances, ignore }
    }

    #[test]
    fn instances_are_background_and_foreground() {
        let image = LabelImage { size: Size::new(1, 4), values: vec![0, 2, 300, 1] };
        let classes = labelling(2, true, Some(2)).classes_of(&image).unwrap();
        assert_eq!(classes, [0, IGNORED, 1, 1]);
    }

    #[test]
    fn numbers_beyond_the_classes_are_refused() {
        let image = LabelImage { size: Size::new(1, 4), values: vec![0, 2, 300, 1] };
        let message = labelling(3, false, None).classes_of(&image).unwrap_err().to_string();
        assert!(message.contains("label 300") && message.contains("instances"), "{message}");
    }

    #[test]
    fn colours_are_those_of_pascal_voc() {
        assert_eq!(
            [0, 1, 2, 15].map(class_colour),
            [[0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128]]
        );
    }
}
