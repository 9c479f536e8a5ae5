//! The number of images in a file: the frames of an animation, or the pages of a TIFF file. Only
//! the structure of the file is read, no pixels.

use image::ImageFormat;

use super::{png_chunks, tiff};

/// The number of images in a file of this format: at least 1, also if the file is damaged.
pub(super) fn count(bytes: &[u8], format: ImageFormat) -> usize {
    let count = match format {
        ImageFormat::Gif => gif(bytes),
        ImageFormat::Png => png(bytes),
        ImageFormat::WebP => Some(webp(bytes)),
        ImageFormat::Tiff => tiff::count(bytes),
        _ => None,
    };
    count.unwrap_or(1).max(1)
}

/// Bytes `at` to `at + N` of a file.
fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The number of image descriptors (GIF89a specification, section 20).
fn gif(bytes: &[u8]) -> Option<usize> {
    // A colour table has 2^(n+1) entries of three bytes, if the highest bit of its field is set.
    let table = |field: u8| if field & 0x80 == 0 { 0 } else { 3 << ((field & 7) + 1) };
    let mut at = 13 + table(*bytes.get(10)?);
    let mut count = 0;
    // Data are blocks of up to 255 bytes after their length; the last one is empty.
    let skip_data = |mut at: usize| -> Option<usize> {
        loop {
            let length = usize::from(*bytes.get(at)?);
            at += 1 + length;
            if length == 0 {
                return Some(at);
            }
        }
    };
    loop {
        let next = match bytes.get(at) {
            // An extension, with its label.
            Some(0x21) => skip_data(at + 2),
            Some(0x2c) => {
                count += 1;
                // The code size is in front of the data.
                bytes.get(at + 9).and_then(|field| skip_data(at + 10 + table(*field) + 1))
            }
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => return Some(count),
        }
    }
}

/// The number of frames in the chunk `acTL`, which is in front of the pixels (PNG specification,
/// third edition, 11.3.6).
fn png(bytes: &[u8]) -> Option<usize> {
    let mut before_pixels = png_chunks::chunks(bytes).take_while(|(kind, _)| kind != b"IDAT");
    let (_, data) = before_pixels.find(|(kind, _)| kind == b"acTL")?;
    Some(u32::from_be_bytes(array(data, 0)?) as usize)
}

/// The number of `ANMF` chunks (RFC 9649, 2.7.1.1).
fn webp(bytes: &[u8]) -> usize {
    let (mut at, mut count) = (12_usize, 0);
    while let (Some(name), Some(length)) = (array::<4>(bytes, at), array(bytes, at + 4)) {
        count += usize::from(&name == b"ANMF");
        // Chunks begin at even offsets.
        at += 8 + (u32::from_le_bytes(length) as usize).next_multiple_of(2);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::encoded;
    use image::codecs::gif::GifEncoder;
    use image::{Delay, DynamicImage, Frame, RgbaImage};

    fn animation(frames: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        let frame = |i| {
            let image = RgbaImage::from_pixel(5, 4, image::Rgba([40 * i, 7, 9, 255]));
            Frame::from_parts(image, 0, 0, Delay::from_numer_denom_ms(100, 1))
        };
        GifEncoder::new(&mut bytes).encode_frames((0..frames).map(frame)).unwrap();
        bytes
    }

    #[test]
    fn frames_of_a_gif_are_counted() {
        for frames in [1, 2, 6] {
            let bytes = animation(frames);
            assert_eq!(count(&bytes, ImageFormat::Gif), usize::from(frames));
            // A file that is cut off has as many frames as begin in it.
            assert_eq!(count(&bytes[..20], ImageFormat::Gif), 1);
        }
    }

    #[test]
    fn frames_of_a_png_are_counted() {
        let still = encoded(&DynamicImage::new_rgb8(3, 2), ImageFormat::Png);
        assert_eq!(count(&still, ImageFormat::Png), 1);
        let mut control = Vec::new();
        png_chunks::push(&mut control, *b"acTL", &[0, 0, 0, 12, 0, 0, 0, 0]);
        let (start, end) = still.split_at(png_chunks::HEADER);
        let animated = [start, &control, end].concat();
        assert_eq!(count(&animated, ImageFormat::Png), 12);
    }

    #[test]
    fn frames_of_a_webp_are_counted() {
        let still = encoded(&DynamicImage::new_rgb8(3, 2), ImageFormat::WebP);
        assert_eq!(count(&still, ImageFormat::WebP), 1);
        let animated = b"RIFF\0\0\0\0WEBPANIM\x06\0\0\0......ANMF\x03\0\0\0....ANMF\0\0\0\0";
        assert_eq!(count(animated, ImageFormat::WebP), 2);
    }
}
