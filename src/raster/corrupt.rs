//! What is done to clean images, to train restoration and to judge it: noise, and masks of missing
//! pixels. Deterministic: the same stream gives the same corruption.

use crate::names::names;
use crate::raster::glyphs;
use crate::rng::Stream;

/// The most shapes drawn for one mask, whatever share was asked for.
const MAX_SHAPES: usize = 10_000;

/// The stream of one image's corruption: of a seed, what it is for, and the image's number.
pub fn stream(seed: u64, purpose: &str, image: usize) -> Stream {
    Stream::new(seed, &format!("corrupt {purpose} {image}"))
}

/// Adds white Gaussian noise of standard deviation `sigma` on the 0–255 scale to samples of the 0–1
/// scale. Neither clipped nor quantised, as the published denoising protocols have it.
pub fn add_noise(pixels: &mut [f32], sigma: f64, stream: &mut Stream) {
    let scale = (sigma / 255.0) as f32;
    pixels.iter_mut().for_each(|v| *v += scale * stream.normal());
}

/// Which pixels of an image are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Height in pixels.
    pub h: usize,
    /// Width in pixels.
    pub w: usize,
    /// H,W; 1: missing, 0: known.
    pub missing: Vec<u8>,
}

names! {
    /// How masks are drawn. A kind's place in the table is its bit in `ops::MissingPixels`.
    pub enum MaskKind {
        /// Single pixels.
        Pixels = "pixels",
        /// Rectangles, their sides between a sixteenth and a quarter of the image's shorter side.
        Blocks = "blocks",
        /// Thick crooked lines.
        Strokes = "strokes",
        /// Lines of letters.
        Text = "text",
    }
}

impl MaskKind {
    /// A mask that takes away a share (0…1) of the pixels. [`MaskKind::Pixels`] takes exactly
    /// round(share·H·W), each set of so many being as likely as any other: "half of the pixels
    /// missing" is half of them. The others draw shapes until at least so many are missing, so that
    /// the last shape may take a little more; after 10,000 shapes no more are drawn.
    pub fn draw(self, h: usize, w: usize, share: f64, stream: &mut Stream) -> Mask {
        let mut mask = Mask { h, w, missing: vec![0; h * w] };
        let wanted = (share.clamp(0.0, 1.0) * (h * w) as f64).round() as usize;
        if self == Self::Pixels {
            mask.take_pixels(wanted, stream);
            return mask;
        }
        let (mut taken, mut shapes) = (0, 0);
        while taken < wanted && shapes < MAX_SHAPES {
            taken += match self {
                Self::Strokes => mask.take_stroke(stream),
                Self::Text => mask.take_text(stream),
                Self::Pixels | Self::Blocks => mask.take_block(stream),
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

    /// Sets the missing pixels of an image (H,W,C) to a value.
    pub fn apply(&self, pixels: &mut [f32], c: usize, value: f32) {
        assert_eq!(pixels.len(), self.h * self.w * c, "a mask of the image's size");
        let missing =
            pixels.chunks_exact_mut(c).zip(&self.missing).filter(|(_, missing)| **missing == 1);
        missing.for_each(|(pixel, _)| pixel.fill(value));
    }

    /// Knuth's selection sampling (TAOCP 2, 3.4.2, algorithm S): one pass, an exact count.
    fn take_pixels(&mut self, wanted: usize, stream: &mut Stream) {
        let (total, mut needed) = (self.missing.len(), wanted);
        for (i, missing) in self.missing.iter_mut().enumerate() {
            if stream.below(total - i) < needed {
                *missing = 1;
                needed -= 1;
            }
        }
    }

    /// Takes a rectangle, as far as it lies inside; returns how many pixels were not missing
    /// before.
    fn take(&mut self, top: i64, left: i64, h: usize, w: usize) -> usize {
        let within = |at: i64, side: usize| at.clamp(0, side as i64) as usize;
        let columns = within(left, self.w)..within(left + w as i64, self.w);
        let mut taken = 0;
        for y in within(top, self.h)..within(top + h as i64, self.h) {
            for missing in &mut self.missing[y * self.w..][columns.clone()] {
                taken += usize::from(*missing == 0);
                *missing = 1;
            }
        }
        taken
    }

    fn take_block(&mut self, stream: &mut Stream) -> usize {
        let side = self.h.min(self.w);
        let (least, most) = ((side / 16).max(1), (side / 4).max(1));
        let [h, w] = [0; 2].map(|_| least + stream.below(most - least + 1));
        // Anywhere, over the edges too: else the middle would be taken more often than the rim.
        let top = stream.below(self.h + h - 1) as i64 - (h as i64 - 1);
        let left = stream.below(self.w + w - 1) as i64 - (w as i64 - 1);
        self.take(top, left, h, w)
    }

    /// A polyline of 3 to 8 pieces that turns by up to a quarter at each joint, as thick as a round
    /// brush.
    fn take_stroke(&mut self, stream: &mut Stream) -> usize {
        let side = self.h.min(self.w) as f32;
        let radius = (side * (0.005 + 0.02 * stream.uniform())).max(0.5);
        let (mut y, mut x) = (stream.uniform() * self.h as f32, stream.uniform() * self.w as f32);
        let mut angle = std::f32::consts::TAU * stream.uniform();
        let mut taken = 0;
        for _ in 0..3 + stream.below(6) {
            let length = side * (0.05 + 0.15 * stream.uniform());
            for _ in 0..length.ceil() as usize {
                taken += self.take_disc(y, x, radius);
                (y, x) = (y + angle.sin(), x + angle.cos());
            }
            angle += std::f32::consts::PI * (stream.uniform() - 0.5);
        }
        taken
    }

    /// The pixels whose centres lie within a disc.
    fn take_disc(&mut self, y: f32, x: f32, radius: f32) -> usize {
        let mut taken = 0;
        for row in (y - radius).floor() as i64..=(y + radius).ceil() as i64 {
            let dy = row as f32 + 0.5 - y;
            let half = (radius * radius - dy * dy).max(-1.0);
            if half >= 0.0 {
                let (first, end) = (
                    (x - half.sqrt() - 0.5).ceil() as i64,
                    (x + half.sqrt() - 0.5).floor() as i64 + 1,
                );
                taken += self.take(row, first, 1, (end - first).max(0) as usize);
            }
        }
        taken
    }

    /// A line of letters, a letter's cell 6×8 dots large and a dot 1 to 4 pixels.
    fn take_text(&mut self, stream: &mut Stream) -> usize {
        let most = (self.h.min(self.w) / 64).clamp(1, 4);
        let dot = 1 + stream.below(most);
        let top = stream.below(self.h + glyphs::H * dot) as i64 - (glyphs::H * dot) as i64;
        let mut left = stream.below(self.w) as i64 - (self.w / 2) as i64;
        let mut taken = 0;
        for _ in 0..4 + stream.below(21) {
            // Every sixth letter or so is a space.
            if stream.below(6) > 0 {
                let glyph = glyphs::GLYPHS[stream.below(glyphs::GLYPHS.len())];
                for (row, bits) in glyph.iter().enumerate() {
                    for column in
                        (0..glyphs::W).filter(|column| bits >> (glyphs::W - 1 - column) & 1 == 1)
                    {
                        taken += self.take(
                            top + (row * dot) as i64,
                            left + (column * dot) as i64,
                            dot,
                            dot,
                        );
                    }
                }
            }
            left += ((glyphs::W + 1) * dot) as i64;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_its_deviation_and_is_not_clipped() {
        let mut pixels = vec![0.5; 200_000];
        add_noise(&mut pixels, 50.0, &mut stream(3, "noise", 0));
        let off: Vec<f64> = pixels.iter().map(|&v| (f64::from(v) - 0.5) * 255.0).collect();
        let mean = off.iter().sum::<f64>() / off.len() as f64;
        let sigma = (off.iter().map(|v| v * v).sum::<f64>() / off.len() as f64).sqrt();
        assert!(mean.abs() < 0.5 && (sigma - 50.0).abs() < 0.4, "{mean} {sigma}");
        assert!(pixels.iter().any(|&v| v < 0.0) && pixels.iter().any(|&v| v > 1.0), "not clipped");
        assert!(pixels.iter().any(|&v| (v * 255.0).fract().abs() > 0.1), "not quantised");
        let of = |seed, image| {
            let mut v = [0.0; 4];
            add_noise(&mut v, 1.0, &mut stream(seed, "noise", image));
            v
        };
        assert_eq!(of(3, 0), of(3, 0));
        assert!(of(3, 0) != of(3, 1) && of(3, 0) != of(4, 0));
    }

    #[test]
    fn half_of_the_pixels_is_half() {
        for (h, w, share, expected) in [
            (16, 16, 0.5, 128),
            (3, 5, 0.5, 8),
            (7, 9, 0.0, 0),
            (4, 4, 1.0, 16),
            (10, 10, 0.123, 12),
        ] {
            let mask = MaskKind::Pixels.draw(h, w, share, &mut stream(1, "mask", 0));
            assert_eq!(mask.count(), expected, "{h}x{w} {share}");
        }
        // Every pixel is as likely as any other: each missing in half of many masks, which a
        // selection that favours an end would not give.
        let mut counts = [0usize; 24];
        for image in 0..4000 {
            let mask = MaskKind::Pixels.draw(4, 6, 0.5, &mut stream(1, "mask", image));
            counts.iter_mut().zip(&mask.missing).for_each(|(count, &m)| *count += usize::from(m));
        }
        assert!(counts.iter().all(|&count| (1850..2150).contains(&count)), "{counts:?}");
    }

    #[test]
    fn shapes_take_about_their_share_and_no_two_images_alike() {
        for kind in MaskKind::ALL {
            let name = kind.name();
            for (h, w) in [(120, 90), (64, 64), (33, 200)] {
                let draw = |seed, image| kind.draw(h, w, 0.25, &mut stream(seed, "mask", image));
                let mask = draw(1, 0);
                let share = mask.count() as f64 / (h * w) as f64;
                assert!((0.24..0.40).contains(&share), "{name} {h}x{w}: {share}");
                assert!(mask.missing.iter().all(|&m| m <= 1));
                assert_eq!(mask, draw(1, 0));
                assert!(mask != draw(1, 1) && mask != draw(2, 0), "{name}");
            }
            // The smallest images, and everything.
            assert_eq!(kind.draw(1, 1, 1.0, &mut stream(1, "mask", 0)).count(), 1, "{name}");
            assert_eq!(kind.draw(5, 3, 0.0, &mut stream(1, "mask", 0)).count(), 0, "{name}");
        }
    }

    /// Shapes hang together, single pixels do not: the share of missing pixels whose right
    /// neighbour is missing too.
    #[test]
    fn shapes_hang_together() {
        let together = |kind: MaskKind| {
            let mask = kind.draw(128, 128, 0.2, &mut stream(5, "mask", 0));
            let pairs =
                mask.missing.chunks(128).flat_map(|row| row.windows(2)).filter(|pair| pair[0] == 1);
            let (both, all) =
                pairs.fold((0, 0), |(both, all), pair| (both + usize::from(pair[1]), all + 1));
            both as f64 / f64::from(all)
        };
        assert!(together(MaskKind::Pixels) < 0.3);
        assert!(
            together(MaskKind::Blocks) > 0.9
                && together(MaskKind::Strokes) > 0.6
                && together(MaskKind::Text) > 0.4
        );
    }

    #[test]
    fn a_mask_is_applied_to_every_channel() {
        let mask = Mask { h: 1, w: 3, missing: vec![0, 1, 0] };
        let mut pixels = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        mask.apply(&mut pixels, 2, 0.5);
        assert_eq!(pixels, [1.0, 2.0, 0.5, 0.5, 5.0, 6.0]);
    }
}
