//! JPEG compression of gray images for training and the published protocols: baseline, with the
//! tables of the Independent JPEG Group (ITU-T T.81, annex K).

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageFormat, ImageReader};

use crate::shape::Size;

/// The pixels (H,W; 0–1 scale) of a gray image after compression. They are clipped and rounded to 8
/// bits. `quality` is from 1 to 100.
///
/// # Panics
/// When a side has more than 65,535 pixels, or none.
pub fn compressed(pixels: &[f32], size: Size, quality: u8) -> Vec<f32> {
    let bytes: Vec<u8> = pixels.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    compressed_bytes(&bytes, size, quality).iter().map(|v| f32::from(*v) / 255.0).collect()
}

/// As [`compressed`], with pixels of 8 bits.
///
/// # Panics
/// As [`compressed`].
pub fn compressed_bytes(pixels: &[u8], size: Size, quality: u8) -> Vec<u8> {
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, quality)
        .encode(pixels, size.w as u32, size.h as u32, ExtendedColorType::L8)
        .expect("JPEG files have sides from 1 to 65,535");
    let decoded = ImageReader::with_format(Cursor::new(file), ImageFormat::Jpeg).decode();
    decoded.expect("a file that was encoded here").into_luma8().into_raw()
}

/// The conditioning level of JPEG compression with these quantization steps, where white is 1: the
/// standard deviation of the error if every coefficient is rounded, √(Σ step²/12/64). At quality 10
/// it is 0.24, like noise of σ = 61 on the 0–255 scale.
pub fn level(steps: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = steps.len().max(1) as f64;
    (steps.map(|step| step.powi(2)).sum::<f64>() / 12.0 / count).sqrt()
}

/// The conditioning level of a quality from 1 to 100.
pub fn level_of_quality(quality: u8) -> f64 {
    level(luma_steps(quality).into_iter().map(|step| f64::from(step) / 255.0))
}

/// The quantization steps of luma, in the order of rows. `quality` is from 1 to 100.
pub fn luma_steps(quality: u8) -> [u16; 64] {
    let quality = u32::from(quality.clamp(1, 100));
    let percent = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    LUMA.map(|step| ((u32::from(step) * percent + 50) / 100).clamp(1, 255) as u16)
}

/// The steps at quality 50.
#[rustfmt::skip]
const LUMA: [u16; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61,
    12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77,
    24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::formats::jpeg;

    fn ramp(size: Size) -> Vec<u8> {
        (0..size.area()).map(|i| ((i % size.w) * 5 + (i / size.w) * 7) as u8).collect()
    }

    #[test]
    fn tables_of_files_are_those_of_the_quality() {
        for quality in [1, 5, 10, 20, 30, 40, 49, 50, 75, 95, 100] {
            let mut file = Vec::new();
            JpegEncoder::new_with_quality(&mut file, quality)
                .encode(&ramp(Size::new(9, 20)), 20, 9, ExtendedColorType::L8)
                .unwrap();
            let [mut found, mut expected] = [jpeg::luma_steps(&file).unwrap(), luma_steps(quality)];
            // The first four in the order of the file: rows 0, 0, 1 and 2.
            assert_eq!(found[..4], [expected[0], expected[1], expected[8], expected[16]]);
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{quality}");
        }
    }

    #[test]
    fn compression_loses_more_at_low_quality() {
        let size = Size::new(37, 50);
        let clean = ramp(size);
        let error = |quality: u8| {
            let pixels = compressed_bytes(&clean, size, quality);
            assert_eq!(pixels.len(), size.area());
            let square = |(a, b): (&u8, &u8)| (f64::from(*a) - f64::from(*b)).powi(2);
            clean.iter().zip(&pixels).map(square).sum::<f64>() / size.area() as f64
        };
        let errors = [100, 90, 40, 10].map(error);
        assert!(errors.is_sorted() && errors[0] < 1.0 && errors[3] > 50.0, "{errors:?}");
        let reals: Vec<f32> = clean.iter().map(|v| f32::from(*v) / 255.0).collect();
        let bytes: Vec<f32> =
            compressed_bytes(&clean, size, 40).iter().map(|v| f32::from(*v) / 255.0).collect();
        assert_eq!(compressed(&reals, size, 40), bytes);
    }

    #[test]
    fn the_level_falls_with_the_quality() {
        let levels: Vec<f64> = (1..=100).map(level_of_quality).collect();
        assert!(levels.is_sorted_by(|a, b| a >= b));
        assert!((levels[9] - 0.239_158).abs() < 1e-6, "{}", levels[9]);
        assert!(levels[99] < 0.002);
    }
}
