//! Variants of training images: smaller, and with other colours. A model of colour images learns
//! from them that colours can be more saturated and less balanced than in its photographs, and that
//! edges can be sharper.

use rayon::prelude::*;

use crate::advice::Advice;
use crate::data::Images;
use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::sample_type::is_value;
use crate::shape::{Dims, Size};

// The ranges are those that gained in `benches/results/2026-12-01-variants.md`.
/// Minimum and maximum factor on the sides of an image.
const SIZE: [f64; 2] = [0.5, 1.0];
/// Minimum and maximum factor on the difference of a value from the mean of its pixel.
const SATURATION: [f64; 2] = [0.8, 2.4];
/// Minimum and maximum factor on each channel.
const BALANCE: [f64; 2] = [0.65, 1.35];
/// Number of random numbers of a variant.
const WORDS: u64 = 5;
/// Number of variants that are made in parallel, and are in memory twice.
const PART: usize = 256;

/// Adds `count` variants of each image to the images. A variant has 0.5 to 1 times the sides of
/// its image, but at least `at_least` pixels. If images have three channels, the difference of
/// each value from the mean of its pixel is multiplied by 0.8 to 2.4, then each channel by 0.65 to
/// 1.35. Integers are rounded and clipped to their range. Pixels with missing values keep them.
///
/// # Errors
/// When the images would take more than `limit` bytes, or no image can be varied: they do not have
/// three channels, and none is larger than `at_least` on both sides.
pub fn add(
    mut images: Images,
    count: usize,
    at_least: Size,
    seed: u64,
    limit: u64,
) -> Result<Images> {
    let originals = images.len();
    let varied = |size: Size| images.channels == 3 || least_factor(size, at_least) < 1.0;
    if !images.sizes().any(varied) {
        return Err(Error::usage(format!(
            "data.variants: no image is larger than {at_least} on both sides, and without three \
             channels there are no other variants; remove it"
        )));
    }
    // A variant has at most the size of its image.
    let bytes = (images.bytes.len() as u64).saturating_mul((count as u64).saturating_add(1));
    if bytes > limit {
        return Err(Error::usage(format!(
            "data.variants: the images and {count} variants of each take up to {} MiB; use fewer \
             variants, or {}",
            bytes >> 20,
            Advice::RaiseMemoryLimit
        )));
    }
    let all: Vec<usize> = (0..originals * count).collect();
    for part in all.chunks(PART) {
        let make = |at: &usize| variant(&images, at % originals, at_least, seed, *at);
        let variants: Vec<(Size, Vec<u8>)> = part.par_iter().map(make).collect();
        for (at, (size, bytes)) in part.iter().zip(variants) {
            let name = images.names[at % originals].clone();
            images.push(name, size, &bytes)?;
            if let Some(labels) = &mut images.labels {
                labels.of.push(labels.of[at % originals]);
            }
        }
    }
    Ok(images)
}

/// The least factor on both sides of an image that leaves at least this size; 1 at most.
fn least_factor(size: Size, at_least: Size) -> f64 {
    let of = |least: usize, side: usize| least as f64 / side as f64;
    of(at_least.h, size.h).max(of(at_least.w, size.w)).min(1.0)
}

/// Size and stored pixels of the variant with this number.
fn variant(
    images: &Images,
    image: usize,
    at_least: Size,
    seed: u64,
    number: usize,
) -> (Size, Vec<u8>) {
    let mut stream = Stream::new(seed, "variants").skip(number as u64 * WORDS);
    let mut between = |[low, high]: [f64; 2]| low + (high - low) * f64::from(stream.uniform());
    let (factor, saturation) = (between(SIZE), between(SATURATION) as f32);
    let balance = [(); 3].map(|()| between(BALANCE) as f32);
    let from = Dims::of(images.table[image].size, images.channels);
    let factor = factor.max(least_factor(from.size(), at_least));
    let scaled = |side: usize, least: usize| ((side as f64 * factor).round() as usize).max(least);
    let to =
        Size::new(scaled(from.h, at_least.h.min(from.h)), scaled(from.w, at_least.w.min(from.w)));
    let small = images.encoding.resize(images.image(image), from, to);
    if images.channels != 3 {
        return (to, small);
    }
    let sample = images.encoding.sample;
    let mut values = sample.values(&small);
    for pixel in values.chunks_exact_mut(3).filter(|pixel| pixel.iter().all(|v| is_value(*v))) {
        let mean = (pixel[0] + pixel[1] + pixel[2]) / 3.0;
        for (value, factor) in pixel.iter_mut().zip(balance) {
            *value = (mean + (*value - mean) * saturation) * factor;
        }
    }
    (to, sample.bytes(values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Labels;

    fn images(channels: usize, size: Size) -> Images {
        let mut images = Images::new(channels);
        for i in 0..6_usize {
            let values = (0..size.area() * channels).map(|at| ((at * 7 + i * 31) % 200) as u8);
            images.push(format!("{i}"), size, &values.collect::<Vec<_>>()).unwrap();
        }
        images.labels =
            Some(Labels { classes: vec!["a".into(), "b".into()], of: vec![0, 1, 0, 1, 0, 1] });
        images
    }

    #[test]
    fn variants_follow_the_images_with_their_names_and_labels() {
        let before = images(3, Size::new(40, 30));
        let after = add(before.clone(), 2, Size::new(16, 16), 5, u64::MAX).unwrap();
        assert_eq!(after.len(), 18);
        assert_eq!(after.bytes[..before.bytes.len()], before.bytes);
        assert_eq!(after.names[6..12], before.names[..]);
        assert_eq!(after.labels.as_ref().unwrap().of[12..], before.labels.unwrap().of);
        for size in after.sizes().skip(6) {
            assert!((16..=30).contains(&size.w) && (20..=40).contains(&size.h), "{size}");
        }
        let again = add(images(3, Size::new(40, 30)), 2, Size::new(16, 16), 5, u64::MAX).unwrap();
        assert_eq!(after, again, "the same seed");
        let other = add(images(3, Size::new(40, 30)), 2, Size::new(16, 16), 6, u64::MAX).unwrap();
        assert_ne!(after, other, "another seed");
    }

    #[test]
    fn colours_are_moved_away_from_gray_and_out_of_balance() {
        // Images of the input's size are not made smaller.
        let size = Size::new(8, 8);
        let mut gray = Images::new(3);
        gray.push("gray".into(), size, &[100; 192]).unwrap();
        let all = add(gray, 50, size, 0, u64::MAX).unwrap();
        for variant in 1..all.len() {
            // Gray has no saturation: what remains is the balance.
            let pixels = all.image(variant);
            assert!(pixels.iter().all(|value| (65..=135).contains(value)), "{pixels:?}");
            assert!(pixels.chunks(3).all(|pixel| pixel == &pixels[..3]), "{pixels:?}");
        }
        let reds: std::collections::HashSet<u8> = (1..51).map(|i| all.image(i)[0]).collect();
        assert!(reds.len() > 20, "{reds:?}");
        let mut red = Images::new(3);
        red.push("red".into(), size, &[130, 90, 80].repeat(64)).unwrap();
        let all = add(red, 50, size, 0, u64::MAX).unwrap();
        // (130 - 100) * 2.4 = 72, 172 * 1.35 = 232
        let largest = (1..51).map(|i| all.image(i)[0]).max().unwrap();
        assert!((200..=232).contains(&largest), "{largest}");
    }

    #[test]
    fn gray_images_of_the_size_of_the_input_have_no_variants() {
        let size = Size::new(8, 8);
        let error = add(images(1, size), 1, size, 0, u64::MAX).unwrap_err();
        assert!(error.to_string().contains("no other variants"), "{error}");
        let smaller = add(images(1, size), 1, Size::new(6, 6), 0, u64::MAX).unwrap();
        assert!(smaller.sizes().skip(6).any(|variant| variant != size));
    }

    #[test]
    fn too_many_variants_are_refused() {
        let images = images(3, Size::new(40, 30));
        let bytes = images.bytes.len() as u64;
        let error = add(images.clone(), 3, Size::new(8, 8), 0, 4 * bytes - 1).unwrap_err();
        assert!(error.to_string().contains("data.variants"), "{error}");
        assert!(add(images, 3, Size::new(8, 8), 0, 4 * bytes).is_ok());
    }
}
