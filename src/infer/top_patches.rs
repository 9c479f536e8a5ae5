//! Top-activating patches: for each unit, the parts of images where it is strongest.

use crate::model::{Graph, receptive_field};
use crate::shape::{Dims, Size};

/// Maximum number of patches kept for each unit, each from another image: a row on a page.
pub const MAX_PATCHES: usize = 9;
/// Maximum number of pixels of all patches, so that they fit into memory and on a page.
const MAX_PIXELS: usize = 1 << 21;
/// Bytes for each channel of a pixel: the patch itself, and its contact sheet in f32 while a page
/// is written.
const BYTES: usize = 1 + 2 * size_of::<f32>();
/// Middle gray, for pixels outside the image.
const OUTSIDE: u8 = 128;

/// A part of an image that activates a unit.
#[derive(Clone, Debug, PartialEq)]
pub struct TopPatch {
    /// Value of the unit at this patch.
    pub value: f32,
    /// Number of the image (or sample) among those added.
    pub image: usize,
    /// The pixels that the unit depends on, H,W,C as bytes. The range of a channel of the data is
    /// 0 to 255.
    pub pixels: Vec<u8>,
}

impl TopPatch {
    /// The pixels from 0 to 1.
    pub fn values(&self) -> Vec<f32> {
        self.pixels.iter().map(|byte| f32::from(*byte) / 255.0).collect()
    }
}

/// The top-activating patches of every unit so far.
#[derive(Clone, Debug)]
pub struct TopPatches {
    code: Dims,
    input: Dims,
    /// First row and column of the patch at each position of the code.
    starts: Vec<(isize, isize)>,
    /// Height and width of a patch.
    pub size: Size,
    /// Number of patches kept for each unit.
    pub kept: usize,
    /// The patches of each unit, in descending order of their value.
    pub units: Vec<Vec<TopPatch>>,
    /// Number of images so far.
    seen: usize,
}

impl TopPatches {
    /// An empty collection for the code of a graph. It uses at most a sixteenth of `room` bytes, if
    /// that is a limit, by keeping fewer patches or none.
    pub fn new(graph: &Graph, room: Option<u64>) -> Self {
        let (code, input) = (graph.nodes[graph.code].dims, graph.nodes[0].dims);
        let centre = receptive_field(graph, graph.code, code.h / 2, code.w / 2);
        // A patch is at most as large as the image, at the centre of the receptive field.
        let size = centre.size().at_most(input.size());
        let start = |(first, last): (isize, isize), size: usize, whole: usize| {
            if size == whole { 0 } else { first + (last - first + 1 - size as isize) / 2 }
        };
        let places = (0..code.area())
            .map(|place| receptive_field(graph, graph.code, place / code.w, place % code.w));
        let starts = places
            .map(|field| {
                (start(field.rows, size.h, input.h), start(field.columns, size.w, input.w))
            })
            .collect();
        // Pixels of one patch of every unit.
        let pixels = (size.area() * code.c).max(1);
        let kept = (MAX_PIXELS / pixels).clamp(1, MAX_PATCHES);
        let fitting =
            room.map_or(kept as u64, |room| room / 16 / (pixels * input.c * BYTES) as u64);
        let kept = kept.min(usize::try_from(fitting).unwrap_or(usize::MAX));
        Self { code, input, starts, size, kept, units: vec![Vec::new(); code.c], seen: 0 }
    }

    /// Size of an image.
    pub const fn input(&self) -> Dims {
        self.input
    }

    /// Size of a patch.
    pub const fn dims(&self) -> Dims {
        Dims::of(self.size, self.input.c)
    }

    /// Memory in bytes for all patches, and for their contact sheet while a page is written.
    pub fn bytes(&self) -> u64 {
        let pixels = self.code.c * self.kept * self.size.area();
        (pixels * self.input.c * BYTES) as u64
    }

    /// Adds images, whose values are from 0 to 1, and their codes, both in memory order (N,H,W,C).
    pub fn add(&mut self, x: &[f32], codes: &[f32]) {
        for (x, code) in x.chunks_exact(self.input.len()).zip(codes.chunks_exact(self.code.len())) {
            let mut best: Vec<(f32, usize)> = vec![(0.0, 0); self.code.c];
            for (place, values) in code.chunks_exact(self.code.c).enumerate() {
                for (best, value) in best.iter_mut().zip(values) {
                    if *value > best.0 {
                        *best = (*value, place);
                    }
                }
            }
            for (unit, (value, place)) in
                best.into_iter().enumerate().filter(|(_, (value, _))| *value > 0.0)
            {
                let found = &self.units[unit];
                // Of equal values the earlier image comes first.
                if self.kept == 0 || found.len() == self.kept && found[self.kept - 1].value >= value
                {
                    continue;
                }
                let at = found.partition_point(|other| other.value >= value);
                let pixels = self.cut(x, place);
                let found = &mut self.units[unit];
                found.insert(at, TopPatch { value, image: self.seen, pixels });
                found.truncate(self.kept);
            }
            self.seen += 1;
        }
    }

    /// The patch at a position of the code.
    fn cut(&self, x: &[f32], place: usize) -> Vec<u8> {
        let (Dims { c, h, w }, (top, left)) = (self.input, self.starts[place]);
        let mut pixels = Vec::with_capacity(self.size.area() * c);
        for row in top..top + self.size.h as isize {
            for column in left..left + self.size.w as isize {
                if (0..h as isize).contains(&row) && (0..w as isize).contains(&column) {
                    let at = &x[(row as usize * w + column as usize) * c..][..c];
                    pixels.extend(at.iter().map(|x| (x.clamp(0.0, 1.0) * 255.0).round() as u8));
                } else {
                    pixels.extend(std::iter::repeat_n(OUTSIDE, c));
                }
            }
        }
        pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Config;

    #[test]
    fn the_strongest_patches_are_kept_in_order() {
        let text = "[model]\ncode = \"code\"\n[[model.layers]]\nname = \"code\"\nop = \"conv2d\"\n\
                    filters = 2\nkernel = 3\npadding = 1\n";
        let graph =
            Graph::new(&Config::parse(text, "test", &[]).unwrap().model, Dims::new(1, 5, 6))
                .unwrap();
        let mut top_patches = TopPatches::new(&graph, None);
        // 2 units, patches of 9 pixels, 9 bytes each: 2 patches of each unit fit into a sixteenth.
        assert_eq!(TopPatches::new(&graph, Some(16 * 2 * 2 * 9 * 9)).kept, 2);
        assert_eq!(TopPatches::new(&graph, Some(100)).bytes(), 0);
        assert_eq!((top_patches.size, top_patches.kept), (Size::new(3, 3), MAX_PATCHES));
        // In image i, unit 0 has value i % 13 at the corner. Unit 1 is never positive.
        for i in 0..40 {
            let x: Vec<f32> = (0..30).map(|p| (p + i) as f32 / 255.0).collect();
            let mut z = vec![0.0; 60];
            z[0] = (i % 13) as f32;
            z[1] = -5.0;
            top_patches.add(&x, &z);
        }
        let found: Vec<(f32, usize)> =
            top_patches.units[0].iter().map(|e| (e.value, e.image)).collect();
        assert_eq!(
            found,
            [
                (12.0, 12),
                (12.0, 25),
                (12.0, 38),
                (11.0, 11),
                (11.0, 24),
                (11.0, 37),
                (10.0, 10),
                (10.0, 23),
                (10.0, 36)
            ]
        );
        assert!(top_patches.units[1].is_empty());
        // The receptive field of the corner extends beyond the image.
        assert_eq!(top_patches.units[0][0].pixels, [128, 128, 128, 128, 12, 13, 128, 18, 19]);
    }
}
