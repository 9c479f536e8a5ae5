//! Label images: PNG files with one number a pixel, gray or with a palette.

use std::io::{BufReader, Cursor};
use std::path::Path;

use png::{BitDepth, ColorType, Decoder, Encoder, Transformations};

use crate::error::{Error, Result};
use crate::files;

/// The most pixels of a label image.
const MOST: u64 = 1 << 28;

/// A number for each pixel, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelImage {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// The numbers.
    pub values: Vec<u16>,
}

/// What the numbers of label images mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelling {
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Whether numbers are those of instances: 0 is the background, every other one the foreground.
    pub instances: bool,
    /// The number of pixels that do not count.
    pub ignore: Option<u16>,
}

/// A class number that is none: of pixels that do not count.
pub const NONE: u8 = u8::MAX;

impl Labelling {
    /// The class of each pixel, [`NONE`] of those that do not count.
    ///
    /// # Errors
    /// When a number is no class.
    pub fn classes_of(&self, image: &LabelImage) -> Result<Vec<u8>> {
        let class = |value: &u16| {
            if self.ignore == Some(*value) {
                Ok(NONE)
            } else if self.instances {
                Ok(u8::from(*value > 0))
            } else if usize::from(*value) < self.classes.len() {
                Ok(*value as u8)
            } else {
                Err(*value)
            }
        };
        image.values.iter().map(class).collect::<Result<_, _>>().map_err(|value| {
            let (last, named) = (self.classes.len() - 1, self.classes.join(", "));
            Error::usage(format!(
                "a label {value}, where classes are 0 to {last} ({named}); name more by --classes, --ignore {value}, or --instances if labels number objects"
            ))
        })
    }
}

/// Reads a label image.
///
/// # Errors
/// When it is no PNG of gray values or palette entries: a line without the file's name.
pub fn read_labels(path: &Path) -> Result<LabelImage> {
    decode(&files::read(path)?)
}

fn decode(bytes: &[u8]) -> Result<LabelImage> {
    let broken = |error: png::DecodingError| {
        Error::usage(format!("no label image ({error}); labels are PNG files"))
    };
    let mut decoder = Decoder::new(BufReader::new(Cursor::new(bytes)));
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(broken)?;
    let info = reader.info();
    let (w, h, colour, depth) =
        (info.width as usize, info.height as usize, info.color_type, info.bit_depth);
    let channels = match colour {
        ColorType::Grayscale | ColorType::Indexed => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb | ColorType::Rgba => {
            return Err(Error::usage(
                "a label image in colour; labels have one number a pixel: gray values, or a palette's entries",
            ));
        }
    };
    if (w * h) as u64 > MOST {
        return Err(Error::usage(format!("a label image of {w}x{h} pixels is too large")));
    }
    let row = reader.output_line_size(w as u32).unwrap_or(0);
    let mut raw = vec![0_u8; reader.output_buffer_size().unwrap_or(row * h)];
    reader.next_frame(&mut raw).map_err(broken)?;
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
    Ok(LabelImage { h, w, values })
}

/// The colour of a class, as PASCAL VOC's palette has it: bits of the number, spread over red,
/// green and blue.
pub fn colour(class: usize) -> [u8; 3] {
    let mut rgb = [0_u8; 3];
    for bit in 0..8 {
        for (channel, value) in rgb.iter_mut().enumerate() {
            *value |= (((class >> (3 * bit + channel)) & 1) as u8) << (7 - bit);
        }
    }
    rgb
}

/// Writes classes as a PNG whose palette has the colours of [`colour`]: programs read numbers,
/// people see colours.
///
/// # Errors
/// When the file cannot be written.
pub fn write_labels(path: &Path, classes: &[u8], h: usize, w: usize) -> Result<()> {
    let mut bytes = Vec::new();
    let failed = |error: png::EncodingError| Error::failed(format!("{}: {error}", path.display()));
    let mut encoder = Encoder::new(&mut bytes, w as u32, h as u32);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_palette((0..256).flat_map(colour).collect::<Vec<u8>>());
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
    fn numbers_are_read_at_every_depth() {
        let read = |colour, depth, w, data: &[u8]| {
            decode(&encoded(colour, depth, w, 2, data)).unwrap().values
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
        let colour = encoded(ColorType::Rgb, BitDepth::Eight, 1, 1, &[1, 2, 3]);
        assert!(decode(&colour).unwrap_err().to_string().contains("in colour"));
        assert!(decode(b"nothing").is_err());
    }

    #[test]
    fn numbers_mean_classes() {
        let image = LabelImage { h: 1, w: 4, values: vec![0, 2, 300, 1] };
        let named = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<String>>();
        let instances = Labelling { classes: named(2), instances: true, ignore: Some(2) };
        assert_eq!(instances.classes_of(&image).unwrap(), [0, NONE, 1, 1]);
        let classes = Labelling { classes: named(3), instances: false, ignore: None };
        let refused = classes.classes_of(&image).unwrap_err().to_string();
        assert!(refused.contains("label 300") && refused.contains("--instances"), "{refused}");
        assert_eq!(
            [0, 1, 2, 15].map(colour),
            [[0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128]]
        );
    }
}
