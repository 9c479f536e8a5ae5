//! Corruption of clean images for training and evaluating restoration: noise, and masks of missing
//! pixels. It is deterministic: the same random stream gives the same corruption.

use crate::names::names;
use crate::raster::glyphs;
use crate::rng::Stream;
use crate::shape::Size;

/// Maximum number of shapes in one mask. It bounds the time that a share near 1 takes, when most
/// shapes cover pixels that are missing already.
const MAX_SHAPES: usize = 10_000;

/// The random stream for the corruption of one image. `purpose` separates uses (noise, mask,
/// validation), `image` is the number of the image.
pub fn stream(seed: u64, purpose: &str, image: usize) -> Stream {
    Stream::new(seed, &format!("corrupt {purpose} {image}"))
}

/// Adds white Gaussian noise to samples on the 0–1 scale. `sigma` is the standard deviation on the
/// 0–255 scale. The result is neither clipped nor quantised, as in the published denoising
/// protocols.
pub fn add_noise(pixels: &mut [f32], sigma: f64, stream: &mut Stream) {
    let scale = (sigma / 255.0) as f32;
    pixels.iter_mut().for_each(|v| *v += scale * stream.normal());
}

/// A mask of the missing pixels of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Height and width.
    pub size: Size,
    /// H,W; 1 for a missing pixel, 0 for a known one.
    pub missing: Vec<u8>,
}

names! {
    /// The shape of the holes in a random mask. A kind's place in the table is its bit in
    /// `ops::MissingPixels`.
    pub enum MaskKind {
        /// Single pixels.
        Pixels = "pixels",
        /// Rectangles whose sides are between 1/16 and 1/4 of the shorter side of the image.
        Blocks = "blocks",
        /// Thick polylines.
        Strokes = "strokes",
        /// Lines of letters.
        Text = "text",
    }
}

impl MaskKind {
    /// Draws a random mask in which `share` (0…1) of the pixels are missing.
    ///
    /// [`MaskKind::Pixels`] removes exactly round(share·H·W) pixels, every subset of that size with
    /// the same probability. The other kinds add shapes until at least that many pixels are
    /// missing, so the last shape can exceed the share. They stop after 10,000 shapes.
    pub fn draw(self, size: Size, share: f64, stream: &mut Stream) -> Mask {
        let mut mask = Mask { size, missing: vec![0; size.area()] };
        let target = (share.clamp(0.0, 1.0) * size.area() as f64).round() as usize;
        if self == Self::Pixels {
            mask.remove_pixels(target, stream);
            return mask;
        }
        let (mut removed, mut shapes) = (0, 0);
        while removed < target && shapes < MAX_SHAPES {
            removed += match self {
                Self::Strokes => mask.remove_stroke(stream),
                Self::Text => mask.remove_text(stream),
                Self::Pixels | Self::Blocks => mask.remove_block(stream),
            };
            shapes += 1;
        }
        mask
    }
}

impl Mask {
    /// The number of missing pixels.
    pub fn count(&self) -> usize {
        self.missing.iter().map(|&m| usize::from(m)).sum()
    }

    /// Sets every channel of the missing pixels of an image (H,W,C) to `value`.
    pub fn apply(&self, pixels: &mut [f32], c: usize, value: f32) {
        assert_eq!(pixels.len(), self.missing.len() * c, "a mask of the image's size");
        let missing =
            pixels.chunks_exact_mut(c).zip(&self.missing).filter(|(_, missing)| **missing == 1);
        missing.for_each(|(pixel, _)| pixel.fill(value));
    }

    /// Removes exactly `count` random pixels in one pass, by selection sampling (Knuth, "The Art of
    /// Computer Programming" vol. 2, section 3.4.2, algorithm S).
    fn remove_pixels(&mut self, count: usize, stream: &mut Stream) {
        let (total, mut needed) = (self.missing.len(), count);
        for (i, missing) in self.missing.iter_mut().enumerate() {
            if stream.below(total - i) < needed {
                *missing = 1;
                needed -= 1;
            }
        }
    }

    /// Removes the part of a rectangle that is inside the image. This and the methods below return
    /// the number of pixels that were not missing before.
    fn remove_rectangle(&mut self, top: i64, left: i64, rectangle: Size) -> usize {
        let clip = |at: i64, side: usize| at.clamp(0, side as i64) as usize;
        let Size { h, w } = self.size;
        let columns = clip(left, w)..clip(left + rectangle.w as i64, w);
        let mut removed = 0;
        for y in clip(top, h)..clip(top + rectangle.h as i64, h) {
            for missing in &mut self.missing[y * w..][columns.clone()] {
                removed += usize::from(*missing == 0);
                *missing = 1;
            }
        }
        removed
    }

    /// Removes a random rectangle; its sides are between 1/16 and 1/4 of the shorter side of the
    /// image.
    fn remove_block(&mut self, stream: &mut Stream) -> usize {
        let side = self.size.h.min(self.size.w);
        let (min, max) = ((side / 16).max(1), (side / 4).max(1));
        let [h, w] = [0; 2].map(|_| min + stream.below(max - min + 1));
        // The block can extend over the edges. Otherwise the middle of the image would be missing
        // more often than its border.
        let top = stream.below(self.size.h + h - 1) as i64 - (h as i64 - 1);
        let left = stream.below(self.size.w + w - 1) as i64 - (w as i64 - 1);
        self.remove_rectangle(top, left, Size { h, w })
    }

    /// Removes a polyline of 3 to 8 segments with a round brush. It turns by up to 90° at each
    /// joint. Its radius (0.5 % to 2.5 %) and its segments (5 % to 20 %) are fractions of the
    /// shorter side of the image, so that masks look alike at every resolution.
    fn remove_stroke(&mut self, stream: &mut Stream) -> usize {
        let Size { h, w } = self.size;
        let side = h.min(w) as f32;
        let radius = (side * (0.005 + 0.02 * stream.uniform())).max(0.5);
        let (mut y, mut x) = (stream.uniform() * h as f32, stream.uniform() * w as f32);
        let mut angle = std::f32::consts::TAU * stream.uniform();
        let mut removed = 0;
        for _ in 0..3 + stream.below(6) {
            let length = side * (0.05 + 0.15 * stream.uniform());
            for _ in 0..length.ceil() as usize {
                removed += self.remove_disc(y, x, radius);
                (y, x) = (y + angle.sin(), x + angle.cos());
            }
            angle += std::f32::consts::PI * (stream.uniform() - 0.5);
        }
        removed
    }

    /// Removes the pixels whose centres are inside a disc.
    fn remove_disc(&mut self, y: f32, x: f32, radius: f32) -> usize {
        let mut removed = 0;
        for row in (y - radius).floor() as i64..=(y + radius).ceil() as i64 {
            let dy = row as f32 + 0.5 - y;
            let half = (radius * radius - dy * dy).max(-1.0);
            if half >= 0.0 {
                let (first, end) = (
                    (x - half.sqrt() - 0.5).ceil() as i64,
                    (x + half.sqrt() - 0.5).floor() as i64 + 1,
                );
                let line = Size::new(1, (end - first).max(0) as usize);
                removed += self.remove_rectangle(row, first, line);
            }
        }
        removed
    }

    /// Removes a line of 4 to 24 random letters. A dot of a letter is a square of 1 to 4 pixels;
    /// larger images can have larger dots.
    fn remove_text(&mut self, stream: &mut Stream) -> usize {
        let Size { h, w } = self.size;
        let max = (h.min(w) / 64).clamp(1, 4);
        let dot = 1 + stream.below(max);
        let top = stream.below(h + glyphs::H * dot) as i64 - (glyphs::H * dot) as i64;
        let mut left = stream.below(w) as i64 - (w / 2) as i64;
        let mut removed = 0;
        for _ in 0..4 + stream.below(21) {
            // One in six is a space, about as in English text.
            if stream.below(6) > 0 {
                let glyph = glyphs::GLYPHS[stream.below(glyphs::GLYPHS.len())];
                for (row, bits) in glyph.iter().enumerate() {
                    for column in
                        (0..glyphs::W).filter(|column| bits >> (glyphs::W - 1 - column) & 1 == 1)
                    {
                        removed += self.remove_rectangle(
                            top + (row * dot) as i64,
                            left + (column * dot) as i64,
                            Size::new(dot, dot),
                        );
                    }
                }
            }
            left += ((glyphs::W + 1) * dot) as i64;
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_its_standard_deviation_and_is_not_clipped() {
        let mut pixels = vec![0.5; 200_000];
        add_noise(&mut pixels, 50.0, &mut stream(3, "noise", 0));
        let noise: Vec<f64> = pixels.iter().map(|&v| (f64::from(v) - 0.5) * 255.0).collect();
        let mean = noise.iter().sum::<f64>() / noise.len() as f64;
        let sigma = (noise.iter().map(|v| v * v).sum::<f64>() / noise.len() as f64).sqrt();
        assert!(mean.abs() < 0.5 && (sigma - 50.0).abs() < 0.4, "{mean} {sigma}");
        assert!(pixels.iter().any(|&v| v < 0.0) && pixels.iter().any(|&v| v > 1.0), "not clipped");
        assert!(pixels.iter().any(|&v| (v * 255.0).fract().abs() > 0.1), "not quantised");
    }

    #[test]
    fn noise_depends_on_the_seed_and_the_image() {
        let noise = |seed, image| {
            let mut v = [0.0; 4];
            add_noise(&mut v, 1.0, &mut stream(seed, "noise", image));
            v
        };
        assert_eq!(noise(3, 0), noise(3, 0));
        assert!(noise(3, 0) != noise(3, 1) && noise(3, 0) != noise(4, 0));
    }

    #[test]
    fn pixel_masks_have_an_exact_count() {
        for (h, w, share, expected) in [
            (16, 16, 0.5, 128),
            (3, 5, 0.5, 8),
            (7, 9, 0.0, 0),
            (4, 4, 1.0, 16),
            (10, 10, 0.123, 12),
        ] {
            let mask = MaskKind::Pixels.draw(Size { h, w }, share, &mut stream(1, "mask", 0));
            assert_eq!(mask.count(), expected, "{h}x{w} {share}");
        }
    }

    #[test]
    fn pixel_masks_remove_every_pixel_equally_often() {
        let mut counts = [0usize; 24];
        for image in 0..4000 {
            let mask = MaskKind::Pixels.draw(Size::new(4, 6), 0.5, &mut stream(1, "mask", image));
            counts.iter_mut().zip(&mask.missing).for_each(|(count, &m)| *count += usize::from(m));
        }
        assert!(counts.iter().all(|&count| (1850..2150).contains(&count)), "{counts:?}");
    }

    #[test]
    fn shape_masks_have_about_their_share_and_differ_between_images() {
        for kind in MaskKind::ALL {
            let name = kind.name();
            for size in [Size::new(120, 90), Size::new(64, 64), Size::new(33, 200)] {
                let draw = |seed, image| kind.draw(size, 0.25, &mut stream(seed, "mask", image));
                let mask = draw(1, 0);
                let share = mask.count() as f64 / size.area() as f64;
                assert!((0.24..0.40).contains(&share), "{name} {size}: {share}");
                assert!(mask.missing.iter().all(|&m| m <= 1));
                assert_eq!(mask, draw(1, 0));
                assert!(mask != draw(1, 1) && mask != draw(2, 0), "{name}");
            }
            let count = |h: usize, w: usize, share: f64| {
                kind.draw(Size { h, w }, share, &mut stream(1, "mask", 0)).count()
            };
            assert_eq!((count(1, 1, 1.0), count(5, 3, 0.0)), (1, 0), "{name}");
        }
    }

    /// Pixels of a shape are connected, single pixels are not: measured by the share of missing
    /// pixels whose right neighbour is missing too.
    #[test]
    fn shapes_are_connected() {
        let connected = |kind: MaskKind| {
            let mask = kind.draw(Size::new(128, 128), 0.2, &mut stream(5, "mask", 0));
            let pairs =
                mask.missing.chunks(128).flat_map(|row| row.windows(2)).filter(|pair| pair[0] == 1);
            let (both, all) =
                pairs.fold((0, 0), |(both, all), pair| (both + usize::from(pair[1]), all + 1));
            both as f64 / f64::from(all)
        };
        assert!(connected(MaskKind::Pixels) < 0.3);
        assert!(
            connected(MaskKind::Blocks) > 0.9
                && connected(MaskKind::Strokes) > 0.6
                && connected(MaskKind::Text) > 0.4
        );
    }

    #[test]
    fn a_mask_is_applied_to_every_channel() {
        let mask = Mask { size: Size::new(1, 3), missing: vec![0, 1, 0] };
        let mut pixels = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        mask.apply(&mut pixels, 2, 0.5);
        assert_eq!(pixels, [1.0, 2.0, 0.5, 0.5, 5.0, 6.0]);
    }
}
