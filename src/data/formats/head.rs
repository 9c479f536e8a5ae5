//! The headers of image files: what is known of an image before it is decoded.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::ImageDecoder;
use image::metadata::Orientation;

use super::decode::{Limit, Source, decoder_failed, open, pages_alike, source, unreadable_file};
use super::reader::Reader;
use crate::error::Result;
use crate::sample_type::SampleType;
use crate::shape::Size;

/// What the header of an image file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Height and width of the decoded image, turned by its orientation.
    pub size: Size,
    /// The type of its samples.
    pub sample: SampleType,
    /// Whether its samples are RGB. All pixels can still be gray.
    pub has_color: bool,
    /// Number of pages that are images of a set: those of a TIFF file in which all are alike.
    pub pages: usize,
}

impl Head {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// If the file cannot be read, or its image would be refused for what the header says. The
    /// message does not name the file.
    pub fn read(path: &Path, limit: Limit) -> Result<Self> {
        let read = || -> Result<Self> {
            let file = open(path)?;
            let size = file.get_ref().metadata().map_err(|e| unreadable_file(&e))?.len();
            Ok(Self::of(source(Reader::File(file), path, size, limit, None)?, path))
        };
        catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(decoder_failed()))
    }

    fn of(mut source: Source, path: &Path) -> Self {
        let (w, h) = source.size();
        let size = Size::new(h as usize, w as usize);
        let is_turned = matches!(
            source.orientation(),
            Some(
                Orientation::Rotate90
                    | Orientation::Rotate270
                    | Orientation::Rotate90FlipH
                    | Orientation::Rotate270FlipH
            )
        );
        let size = if is_turned { Size::new(size.w, size.h) } else { size };
        match source {
            Source::Image(decoder, _) => {
                let color = decoder.color_type();
                let is_deep = color.bytes_per_pixel() != color.channel_count();
                let sample = if is_deep { SampleType::U16 } else { SampleType::U8 };
                Self { size, sample, has_color: color.has_color(), pages: 1 }
            }
            Source::Tiff(file) => Self {
                size,
                sample: file.sample(),
                has_color: file.has_color(),
                pages: pages_alike(path).len().max(1),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::decode_file;
    use crate::testing::{Folder, encoded};
    use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Rgb, RgbaImage};

    #[test]
    fn a_header_says_what_decoding_gives() {
        let folder = Folder::new("head");
        let deep: ImageBuffer<Rgb<u16>, Vec<u16>> =
            ImageBuffer::from_fn(20, 10, |x, y| Rgb([(x * 900) as u16, (y * 900) as u16, 7]));
        let gray = GrayImage::from_fn(20, 10, |x, y| image::Luma([(x + y) as u8]));
        let rgba = RgbaImage::from_fn(20, 10, |x, _| image::Rgba([x as u8, 0, 9, 255]));
        let images: [(DynamicImage, SampleType, bool); 3] = [
            (deep.into(), SampleType::U16, true),
            (gray.into(), SampleType::U8, false),
            (rgba.into(), SampleType::U8, true),
        ];
        let limit = Limit::of_memory(None);
        for (number, (image, sample, has_color)) in images.into_iter().enumerate() {
            for format in [ImageFormat::Png, ImageFormat::Tiff] {
                let path = folder.write(format!("{number}"), &encoded(&image, format));
                let head = Head::read(&path, limit).unwrap();
                let wanted = Head { size: Size::new(10, 20), sample, has_color, pages: 1 };
                assert_eq!(head, wanted, "{format:?}");
                let decoded = decode_file(&path).unwrap();
                assert_eq!((decoded.dims.size(), decoded.dims.c == 3), (head.size, has_color));
            }
        }
        assert!(Head::read(&folder.write("cut.png", b"\x89PNG\r\n"), limit).is_err());
    }
}
