//! What excites units: of each, the parts of images where it is strongest.

use crate::model::{Graph, receptive_field};
use crate::shape::Dims;

/// Parts kept of each unit, from different images.
pub const KEPT: usize = 9;
/// Pixels of all parts at most, so that they can be held and shown.
const PIXELS: usize = 1 << 21;
/// Bytes of a pixel's channel: of the part, and of its sheet on a page while that is made.
const BYTES: usize = 1 + 2 * size_of::<f32>();
/// What is outside of an image.
const OUTSIDE: u8 = 128;

/// A part of an image that excites a unit.
#[derive(Clone, Debug, PartialEq)]
pub struct TopPatch {
    /// The unit's value there.
    pub value: f32,
    /// Number of the image, or patch, among those looked at.
    pub image: usize,
    /// The part: what the unit sees, H,W,C as bytes.
    pub pixels: Vec<u8>,
}

/// The strongest parts of every unit so far.
#[derive(Clone, Debug)]
pub struct TopPatches {
    code: Dims,
    input: Dims,
    /// What a unit sees at each place: first row and column.
    starts: Vec<(isize, isize)>,
    /// Height and width of a part.
    pub size: (usize, usize),
    /// Parts kept of each unit.
    pub kept: usize,
    /// Of each unit, the strongest first.
    pub units: Vec<Vec<TopPatch>>,
    seen: usize,
}

impl TopPatches {
    /// Before the first image, for the code of a graph. Of `room` bytes, where that is a limit,
    /// they take a sixteenth at most: then fewer parts are kept, or none.
    pub fn new(graph: &Graph, room: Option<u64>) -> Self {
        let (code, input) = (graph.nodes[graph.code].dims, graph.nodes[0].dims);
        let centre = receptive_field(graph, graph.code, code.h / 2, code.w / 2);
        let (h, w) = centre.size();
        // No more than the image, around the middle of what is seen.
        let size = (h.min(input.h), w.min(input.w));
        let start = |(first, last): (isize, isize), size: usize, whole: usize| {
            if size == whole { 0 } else { first + (last - first + 1 - size as isize) / 2 }
        };
        let places = (0..code.area())
            .map(|place| receptive_field(graph, graph.code, place / code.w, place % code.w));
        let starts = places
            .map(|field| {
                (start(field.rows, size.0, input.h), start(field.columns, size.1, input.w))
            })
            .collect();
        let each = (size.0 * size.1 * code.c).max(1);
        let most = (PIXELS / each).clamp(1, KEPT);
        let fitting = room.map_or(most as u64, |room| room / 16 / (each * input.c * BYTES) as u64);
        let kept = most.min(usize::try_from(fitting).unwrap_or(usize::MAX));
        Self { code, input, starts, size, kept, units: vec![Vec::new(); code.c], seen: 0 }
    }

    /// Bytes that the parts of every unit take, and their sheet on a page while it is made.
    pub fn bytes(&self) -> u64 {
        let pixels = self.code.c * self.kept * self.size.0 * self.size.1;
        (pixels * self.input.c * BYTES) as u64
    }

    /// Looks at some images and their codes, both in memory order.
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
                // the earlier image goes before a later one that excites as much
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

    fn cut(&self, x: &[f32], place: usize) -> Vec<u8> {
        let (Dims { c, h, w }, (top, left)) = (self.input, self.starts[place]);
        let mut pixels = Vec::with_capacity(self.size.0 * self.size.1 * c);
        for row in top..top + self.size.0 as isize {
            for column in left..left + self.size.1 as isize {
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
    fn the_strongest_parts_are_kept_in_order() {
        let text = "[model]\ncode = \"code\"\n[[model.layers]]\nname = \"code\"\nop = \"conv2d\"\nfilters = 2\nkernel = 3\npadding = 1\n";
        let graph =
            Graph::new(&Config::parse(text, "test", &[]).unwrap().model, Dims::new(1, 5, 6))
                .unwrap();
        let mut top_patches = TopPatches::new(&graph, None);
        // two units of nine pixels, nine bytes each: two parts of each fit into a sixteenth of this
        assert_eq!(TopPatches::new(&graph, Some(16 * 2 * 2 * 9 * 9)).kept, 2);
        assert_eq!(TopPatches::new(&graph, Some(100)).bytes(), 0);
        assert_eq!((top_patches.size, top_patches.kept), ((3, 3), KEPT));
        // image i: unit 0 fires by i % 13 at the corner, unit 1 never but for a negative value
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
        // the corner sees what is outside, too
        assert_eq!(top_patches.units[0][0].pixels, [128, 128, 128, 128, 12, 13, 128, 18, 19]);
    }
}
