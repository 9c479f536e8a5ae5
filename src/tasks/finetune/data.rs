//! Labelled images in memory, and augmented batches of them.

use rayon::prelude::*;

use crate::advice::Advice;
use crate::data::{Encoding, Images, Labels, Sample};
use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::shape::Dims;

/// Labelled images of the same size.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// Size of an image.
    pub dims: Dims,
    /// The stored pixels of all images, H,W,C each.
    pixels: Vec<u8>,
    /// The type of the samples, and what their values are.
    encoding: Encoding,
    /// The class of each image.
    pub of: Vec<u32>,
    /// Names of the classes.
    pub classes: Vec<String>,
}

/// Augmentation of images for classification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// Maximum random shift along each side, in pixels, filled with zeros.
    pub shift: usize,
    /// Random left-right flips.
    pub flip_x: bool,
}

impl Labelled {
    /// Reads all images of a sample. `labels` are their labels.
    ///
    /// # Errors
    /// When an image cannot be read, or all together take more than `allowed` bytes.
    pub fn read(sample: &Sample, dims: Dims, labels: Labels, allowed: Option<u64>) -> Result<Self> {
        let encoding = sample.encoding().clone();
        let bytes = (sample.len() * dims.area() * encoding.pixel(dims.c)) as u64;
        if let Some(allowed) = allowed.filter(|allowed| bytes > *allowed) {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            return Err(Error::usage(format!(
                "{} labelled images take {} MiB, more than the {} MiB allowed; use fewer images, \
                 or {}",
                sample.len(),
                mib(bytes),
                mib(allowed),
                Advice::RaiseMemoryLimit
            )));
        }
        let mut pixels = Vec::with_capacity(bytes as usize);
        sample.each_part(|images: &Images, _| {
            (0..images.len()).for_each(|image| pixels.extend_from_slice(images.image(image)));
            Ok(())
        })?;
        Ok(Self { dims, pixels, encoding, of: labels.of, classes: labels.classes })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// The pixels of all images.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.pixels
    }

    /// Memory of the pixels, in bytes.
    pub const fn held_bytes(&self) -> u64 {
        self.pixels.len() as u64
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The values of the images with these indices.
    pub fn batch(&self, images: &[usize]) -> Vec<f32> {
        let (c, size) = (self.dims.c, self.dims.area() * self.encoding.pixel(self.dims.c));
        images
            .par_iter()
            .flat_map_iter(|image| self.encoding.decode(&self.pixels[image * size..][..size], c))
            .collect()
    }

    /// The images with these indices, augmented at random, H,W,C. Augmentation
    /// depends on the seed, the step and the position in the batch.
    pub fn augmented(&self, images: &[usize], augment: Augment, seed: u64, step: u64) -> Vec<f32> {
        let Augment { shift, flip_x } = augment;
        let mut x = self.batch(images);
        if augment == Augment::default() {
            return x;
        }
        let Dims { c, h, w } = self.dims;
        x.par_chunks_exact_mut(self.dims.len()).enumerate().for_each(|(i, x)| {
            let mut stream =
                Stream::new(seed, "changes").skip((step * images.len() as u64 + i as u64) * 3);
            let mut by = || stream.below(2 * shift + 1) as isize - shift as isize;
            let (down, right) = (by(), by());
            let flipped = flip_x && stream.below(2) == 1;
            let old = x.to_vec();
            for y in 0..h {
                for column in 0..w {
                    let from_x = if flipped { w - 1 - column } else { column } as isize - right;
                    let from_y = y as isize - down;
                    let inside =
                        (0..h as isize).contains(&from_y) && (0..w as isize).contains(&from_x);
                    let to = &mut x[(y * w + column) * c..][..c];
                    if inside {
                        to.copy_from_slice(
                            &old[(from_y as usize * w + from_x as usize) * c..][..c],
                        );
                    } else {
                        to.fill(0.0);
                    }
                }
            }
        });
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn augmentation_only_shifts_and_flips() {
        let dims = Dims::new(1, 3, 4);
        let data = Labelled {
            dims,
            pixels: (1..=12).map(|i| i * 20).collect(),
            encoding: Encoding::default(),
            of: vec![0],
            classes: vec!["a".to_owned()],
        };
        let same = data.augmented(&[0, 0], Augment::default(), 1, 2);
        assert_eq!(same, data.batch(&[0, 0]));
        let row = |x: &[f32], y: usize| {
            x[y * 4..][..4].iter().map(|v| (v * 255.0 / 20.0).round() as u8).collect::<Vec<_>>()
        };
        let (mut moved, mut flipped) = (0, 0);
        for step in 0..40 {
            let x = data.augmented(&[0], Augment { shift: 1, flip_x: false }, 1, step);
            // Pixels that stay inside keep their neighbours.
            let middle = row(&x, 1);
            moved += usize::from(middle != [5, 6, 7, 8]);
            assert!(
                middle.windows(2).all(|two| two[0] == 0 || two[1] == 0 || two[1] == two[0] + 1),
                "{middle:?}"
            );
            let x = data.augmented(&[0], Augment { shift: 0, flip_x: true }, 1, step);
            let first = row(&x, 0);
            assert!(first == [1, 2, 3, 4] || first == [4, 3, 2, 1], "{first:?}");
            flipped += usize::from(first[0] == 4);
        }
        assert!(moved > 20 && (8..32).contains(&flipped), "{moved} {flipped}");
        let again = |seed| data.augmented(&[0], Augment { shift: 1, flip_x: true }, seed, 3);
        assert_eq!(again(5), again(5));
    }
}
