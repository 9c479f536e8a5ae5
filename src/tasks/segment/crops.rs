//! Crops of images with label images: where they are, and their augmentation.

use std::borrow::Cow;

use crate::annotations::augment::{Flips, Jitter};
use crate::annotations::label_image::IGNORED;
use crate::infer::tiles::mirrored;
use crate::rng::Stream;
use crate::shape::{Dims, Size};
use crate::spec::{SegmentAugment, SegmentCrops};

/// Maximum change of brightness, contrast and colour, as a share of the range: about as much as
/// automatic exposure and white balance differ.
const JITTER: f64 = 0.1;
/// Minimum and maximum factor by which crops of photographs are enlarged: the distances at which
/// people photograph the same thing differ by as much.
const ZOOM: [f64; 2] = [0.7, 1.4];
/// Maximum number of random numbers that a crop takes from each stream.
const WORDS: u64 = 8;

/// An image with the class of each of its pixels.
#[derive(Debug)]
pub(super) struct LabelledPixels<'a> {
    /// Its size.
    pub size: Size,
    /// Pixels (H,W,C).
    pub pixels: Cow<'a, [u8]>,
    /// The class of each pixel.
    pub classes: Cow<'a, [u8]>,
}

/// A crop, and the class of each of its pixels.
#[derive(Debug)]
pub(super) struct Crop {
    /// Pixels (H,W,C), from 0 to 1.
    pub pixels: Vec<f32>,
    /// The class of each pixel.
    pub classes: Vec<u8>,
}

/// How crops are sampled.
#[derive(Clone, Debug)]
pub(super) struct Sampling {
    /// Size of the model's input.
    pub input: Dims,
    /// Augmentation.
    pub augment: SegmentAugment,
    /// How their positions are chosen.
    pub crops: SegmentCrops,
    /// The weight of each class. No crop is placed around a pixel of a class of weight 0.
    pub class_weights: Vec<f64>,
    /// Seed of the random numbers.
    pub seed: u64,
}

/// The rectangle of an image that a crop shows.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// Row and column of its first pixel.
    top: usize,
    left: usize,
    /// Pixels of the image for each one of the crop, along a side: 1 / zoom.
    step: f64,
}

impl Sampling {
    /// The crop with this number over the whole training. It depends on the seed and the number
    /// alone.
    pub fn crop(&self, image: &LabelledPixels<'_>, number: u64) -> Crop {
        let stream = |name: &str| Stream::new(self.seed, name).skip(number * WORDS);
        // Positions and flips keep the stream `crops`: trainings without zoom keep their bytes.
        let (mut places, mut others) = (stream("crops"), stream("classes and zoom of crops"));
        let photo = self.augment == SegmentAugment::Photo;
        let mut between = |[low, high]: [f64; 2]| low + (high - low) * f64::from(others.uniform());
        let step = if photo { (1.0 / between(ZOOM)).min(self.whole(image.size)) } else { 1.0 };
        let colors = [(); 3].map(|()| (1.0 + between([-JITTER, JITTER])) as f32);
        let centre = match self.crops {
            SegmentCrops::Balanced => self.pixel_of_a_class(&image.classes, &mut others),
            SegmentCrops::Random => None,
        };
        let window = self.window(image.size, step, centre, &mut places);
        let all = self.augment == SegmentAugment::All;
        let allowed = Flips {
            flip_x: self.augment != SegmentAugment::None,
            flip_y: all,
            transpose: all && self.input.h == self.input.w,
        };
        let flips = Flips::draw(allowed, &mut places);
        let range = if all || photo { JITTER } else { 0.0 };
        let mut by = || (range * f64::from(2.0 * places.uniform() - 1.0)) as f32;
        let jitter = Jitter { brightness: by(), contrast: 1.0 + by() };
        let colors = if photo && self.input.c == 3 { colors } else { [1.0; 3] };
        let mut crop = cut(self.input, image, window, flips);
        for pixel in crop.pixels.chunks_exact_mut(self.input.c) {
            for (value, factor) in pixel.iter_mut().zip(colors.iter().cycle()) {
                *value = jitter.apply(*value * factor);
            }
        }
        crop
    }

    /// The largest step at which a crop does not reach beyond an image; 1 if the image is smaller.
    fn whole(&self, size: Size) -> f64 {
        let of = |length: usize, side: usize| length as f64 / side as f64;
        of(size.h, self.input.h).min(of(size.w, self.input.w)).max(1.0)
    }

    /// Index of a random pixel of a random class that the image has, and whose weight is above 0.
    fn pixel_of_a_class(&self, classes: &[u8], stream: &mut Stream) -> Option<usize> {
        let mut counts = [0_usize; 256];
        classes.iter().for_each(|class| counts[usize::from(*class)] += 1);
        let counted =
            |class: &u8| *class != IGNORED && self.class_weights[usize::from(*class)] > 0.0;
        let present: Vec<u8> =
            (0..=u8::MAX).filter(|class| counts[usize::from(*class)] > 0).filter(counted).collect();
        let class = *present.get(stream.below(present.len()))?;
        let place = stream.below(counts[usize::from(class)]);
        let of_class = classes.iter().enumerate().filter(|(_, other)| **other == class);
        of_class.map(|(place, _)| place).nth(place)
    }

    /// A random window that lies in the image, if that is large enough, and around the pixel
    /// `shown`, if there is one. A window that makes the image smaller can skip this pixel.
    fn window(&self, size: Size, step: f64, shown: Option<usize>, stream: &mut Stream) -> Window {
        let mut start = |length: usize, side: usize, shown: Option<usize>| {
            // Samples span at most this length rounded up, and at least this length rounded down.
            let side = side as f64 * step;
            let last = length.saturating_sub(side.ceil() as usize);
            let (low, high) = match shown {
                Some(at) => ((at + 1).saturating_sub(side as usize).min(last), at.min(last)),
                None => (0, last),
            };
            if low < high { low + stream.below(high - low + 1) } else { low }
        };
        let top = start(size.h, self.input.h, shown.map(|at| at / size.w));
        let left = start(size.w, self.input.w, shown.map(|at| at % size.w));
        Window { top, left, step }
    }
}

/// Cuts a window out of an image: pixels by bilinear interpolation, and the class of the nearest
/// pixel. The image is mirrored at its edges; mirrored pixels do not count in the loss.
fn cut(input: Dims, image: &LabelledPixels<'_>, window: Window, flips: Flips) -> Crop {
    let c = input.c;
    let LabelledPixels { size: Size { h, w }, ref pixels, ref classes } = *image;
    let mut out =
        Crop { pixels: Vec::with_capacity(input.len()), classes: Vec::with_capacity(input.area()) };
    // Maps a crop coordinate to the pixel before it and the weight of the next pixel.
    let place = |start: usize, i: usize| {
        let at = (start as f64 + (i as f64 + 0.5) * window.step - 0.5).max(0.0);
        (at as usize, at.fract() as f32)
    };
    for y in 0..input.h {
        for x in 0..input.w {
            let (y, x) = flips.source(y, x, input.size());
            let ((y, down), (x, right)) = (place(window.top, y), place(window.left, x));
            let at = |y: usize, x: usize| mirrored(y, h) * w + mirrored(x, w);
            let near = (y + usize::from(down >= 0.5), x + usize::from(right >= 0.5));
            let inside = near.0 < h && near.1 < w;
            out.classes.push(if inside { classes[at(near.0, near.1)] } else { IGNORED });
            let value = |place: usize, channel| f32::from(pixels[place * c + channel]) / 255.0;
            let mixed = |a: f32, b: f32, share: f32| a + (b - a) * share;
            for channel in 0..c {
                let row = |y| {
                    let first = value(at(y, x), channel);
                    if right > 0.0 {
                        mixed(first, value(at(y, x + 1), channel), right)
                    } else {
                        first
                    }
                };
                let first = row(y);
                out.pixels.push(if down > 0.0 { mixed(first, row(y + 1), down) } else { first });
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(input: Dims, augment: SegmentAugment, crops: SegmentCrops, seed: u64) -> Sampling {
        Sampling { input, augment, crops, class_weights: vec![1.0; 40], seed }
    }

    /// An image whose pixels are its classes.
    fn image(size: Size, values: &[u8]) -> LabelledPixels<'_> {
        LabelledPixels { size, pixels: Cow::Borrowed(values), classes: Cow::Borrowed(values) }
    }

    fn bytes(crop: &Crop) -> Vec<u8> {
        crop.pixels.iter().map(|value| (value * 255.0).round() as u8).collect()
    }

    #[test]
    fn labels_are_transformed_with_their_pixels() {
        // The class of each pixel is its value. The image has 5×7 pixels, so it is smaller than the
        // crop along one side.
        let pixels: Vec<u8> = (0..35).collect();
        let image = image(Size::new(5, 7), &pixels);
        let input = Dims::new(1, 6, 6);
        let mut corners = std::collections::HashSet::new();
        for seed in 0..40 {
            let mut stream = Stream::new(seed, "test");
            let all = Flips { flip_x: true, flip_y: true, transpose: true };
            let flips = Flips::draw(all, &mut stream);
            let sampling = sampling(input, SegmentAugment::All, SegmentCrops::Random, seed);
            let crop =
                cut(input, &image, sampling.window(image.size, 1.0, None, &mut stream), flips);
            let values = bytes(&crop);
            assert_eq!(crop.classes.iter().filter(|class| **class == IGNORED).count(), 6);
            assert!(
                crop.classes
                    .iter()
                    .zip(&values)
                    .all(|(class, value)| *class == IGNORED || class == value),
                "{seed}"
            );
            corners.insert(values[0]);
        }
        assert!(corners.len() >= 8, "{corners:?}");
    }

    #[test]
    fn balanced_crops_show_every_class_as_often() {
        // One pixel of class 1 among 10,000, and class 2 without weight.
        let mut classes = vec![0; 10_000];
        classes[5_050] = 1;
        classes[9_999] = 2;
        let image = image(Size::new(100, 100), &classes);
        let shown = |crops| {
            let mut sampling = sampling(Dims::new(1, 8, 8), SegmentAugment::Flip, crops, 3);
            sampling.class_weights[2] = 0.0;
            let with = |class: u8| {
                (0..400).filter(|i| sampling.crop(&image, *i).classes.contains(&class)).count()
            };
            (with(1), with(2))
        };
        let ((balanced, unwanted), (random, _)) =
            (shown(SegmentCrops::Balanced), shown(SegmentCrops::Random));
        assert!((170..=240).contains(&balanced), "{balanced}");
        assert!(random < 20, "{random}");
        assert!(unwanted < 10, "{unwanted}");
        // The pixel is anywhere in the crop.
        let sampling =
            sampling(Dims::new(1, 8, 8), SegmentAugment::None, SegmentCrops::Balanced, 3);
        let places: std::collections::HashSet<_> = (0..400)
            .filter_map(|i| sampling.crop(&image, i).classes.iter().position(|class| *class == 1))
            .collect();
        assert!(places.len() > 50, "{places:?}");
    }

    #[test]
    fn an_image_without_classes_has_random_crops() {
        let classes = vec![IGNORED; 400];
        let image = image(Size::new(20, 20), &classes);
        let input = Dims::new(1, 4, 4);
        let of = |crops| sampling(input, SegmentAugment::Flip, crops, 1).crop(&image, 5).classes;
        assert_eq!(of(SegmentCrops::Balanced), of(SegmentCrops::Random));
    }

    #[test]
    fn crops_of_photographs_are_zoomed_with_their_labels() {
        // Left half 0, right half 30: after zoom the edge is a slope of at most two pixels.
        let classes: Vec<u8> = (0..4096).map(|i| if i % 64 < 32 { 0 } else { 30 }).collect();
        let image = image(Size::new(64, 64), &classes);
        let input = Dims::new(1, 32, 32);
        let sampling = sampling(input, SegmentAugment::Photo, SegmentCrops::Random, 2);
        for number in 0..100 {
            let crop = sampling.crop(&image, number);
            for (class, value) in crop.classes.iter().zip(bytes(&crop)) {
                // Brightness and contrast change by up to a tenth each, of 255 and of 128.
                let dark = value <= 39 + 15;
                assert!(*class == 30 || *class == 0 && dark, "{number}: {class} {value}");
            }
        }
        let widths: std::collections::HashSet<_> = (0..100)
            .map(|i| {
                sampling.window(Size::new(8, 8), 1.0 / ZOOM[i % 2], None, &mut Stream::new(0, "x"))
            })
            .map(|window| (window.top, window.left))
            .collect();
        assert_eq!(widths.len(), 1, "a window larger than the image starts at its corner");
        // Zoom does not go beyond the image.
        assert_eq!(sampling.whole(Size::new(40, 64)), 1.25);
        assert_eq!(sampling.whole(Size::new(20, 64)), 1.0);
    }
}
