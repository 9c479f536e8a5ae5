//! CPU twins of `ops/missing.rs`.

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::{FillMissing, KeepKnown, KnownValues, MissingPixels};
use crate::raster::fill::pull_push;
use crate::raster::glyphs;
use crate::raster::glyphs::GLYPHS;
use crate::reference::{Memory, Reference};
use crate::rng::{below, word, words};
use crate::sample_type::MISSING;
use crate::view::StepParams;

/// A shape of missing pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Single pixels: the share of missing ones in units of 2⁻¹⁶.
    Pixels(u32),
    /// A rectangle: first row and column, and the row and column after the last.
    Block { from: [i32; 2], to: [i32; 2] },
    /// A line: its ends (y, x) and radius in half pixels.
    Line { ends: [[i32; 2]; 2], radius: i32 },
    /// A letter: its top left corner, the side of a dot in pixels, and its number; 26 is a blank.
    Letter { corner: [i32; 2], dot: i32, letter: usize },
}

impl MissingPixels {
    /// The shapes of sample `n` of the batch.
    fn shapes(&self, n: u32, step: &StepParams, seed: u64) -> Vec<Shape> {
        let choice = words(n, step.step, Self::STREAMS[0], seed);
        let kinds = (0..4).filter(|kind| self.kinds >> kind & 1 == 1);
        let kind = kinds
            .clone()
            .nth(below(choice[0], kinds.count() as u32) as usize)
            .expect("at least one kind is allowed");
        let [low, span] = self.shares();
        let share = low + below(choice[1], span);
        if kind == 0 {
            return vec![Shape::Pixels(share)];
        }
        let count =
            ((share * Self::densities()[kind]).wrapping_add(65535) >> 16).min(Self::SHAPES as u32);
        let of =
            |shape: u32| words(Self::SHAPES as u32 * n + shape, step.step, Self::STREAMS[1], seed);
        let (h, w) = (self.dims.h as u32, self.dims.w as u32);
        // Sizes are relative to the shorter side. The limit of 2048 keeps the integers of `covers`
        // below 2²⁴.
        let side = h.min(w).min(2048);
        let max_offset = (side / 3).max(2);
        let shape = |number: u32| match kind {
            1 => {
                let (word, limit) = (of(number), (side / 4).max(2));
                let side = [0, 1].map(|i| 2 + below(word[i], limit - 1) as i32);
                let from = [(h, 2), (w, 3)].map(|(length, i)| {
                    let side = side[i - 2];
                    below(word[i], length + side as u32 - 1) as i32 - side + 1
                });
                Shape::Block { from, to: [from[0] + side[0], from[1] + side[1]] }
            }
            2 => {
                // Four lines in a row form a chain. Each is found from the start of its chain.
                let first = number / 4 * 4;
                let chain = of(first);
                let mut ends = [[below(chain[0], 2 * h) as i32, below(chain[1], 2 * w) as i32]; 2];
                for line in 0..=number % 4 {
                    let turn = of(first + line)[3];
                    let [y, x] = ends[1];
                    let [down, right] = [turn, turn << 16]
                        .map(|word| below(word, 2 * max_offset + 1) as i32 - max_offset as i32);
                    ends = [[y, x], [y + down, x + right]];
                }
                Shape::Line { ends, radius: 1 + below(chain[2], (side / 9).max(1)) as i32 }
            }
            _ => {
                // Eight letters in a row form a line of text, six dots apart.
                let line = of(number / 8 * 8);
                let dot = 1 + below(line[0], (side / 16).max(1)) as i32;
                let top = below(line[1], h + 7 * dot as u32) as i32 - 7 * dot;
                let left =
                    below(line[2], w) as i32 - (w / 2) as i32 + (number % 8) as i32 * 6 * dot;
                Shape::Letter {
                    corner: [top, left],
                    dot,
                    letter: below(of(number)[3], 27) as usize,
                }
            }
        };
        (0..count).map(shape).collect()
    }
}

impl Shape {
    /// The ranges of rows and columns that contain all pixels that it covers, ends exclusive.
    fn bounds(self, h: i32, w: i32) -> [[i32; 2]; 2] {
        match self {
            Self::Pixels(_) => [[0, h], [0, w]],
            Self::Block { from, to } => [[from[0], to[0]], [from[1], to[1]]],
            Self::Line { ends: [a, b], radius } => [0, 1].map(|i| {
                [
                    (a[i].min(b[i]) - radius).div_euclid(2),
                    (a[i].max(b[i]) + radius).div_euclid(2) + 1,
                ]
            }),
            Self::Letter { corner: [top, left], dot, .. } => {
                [[top, top + 7 * dot], [left, left + 5 * dot]]
            }
        }
    }

    /// Whether it covers a pixel within its bounds. `index` is the pixel's index in the batch.
    fn covers(self, pixel: [i32; 2], index: u32, step: &StepParams, seed: u64) -> bool {
        match self {
            Self::Pixels(share) => {
                word(index, step.step, MissingPixels::STREAMS[2], seed) >> 16 < share
            }
            Self::Block { .. } => true,
            Self::Line { ends: [a, b], radius } => {
                let from = |end: [i32; 2]| [0, 1].map(|i| 2 * pixel[i] + 1 - end[i]);
                let dot = |u: [i32; 2], v: [i32; 2]| u[0] * v[0] + u[1] * v[1];
                let (d, e) = ([b[0] - a[0], b[1] - a[1]], from(a));
                let (along, length2) = (dot(d, e), dot(d, d));
                if along <= 0 {
                    dot(e, e) <= radius * radius
                } else if along >= length2 {
                    dot(from(b), from(b)) <= radius * radius
                } else {
                    let across = d[0] * e[1] - d[1] * e[0];
                    // The distance from the line is |across|/√length2. All factors are integers
                    // below 2²⁴, hence exact in f32. Their products may exceed the range of i32.
                    (across as f32) * (across as f32) <= (radius * radius) as f32 * length2 as f32
                }
            }
            Self::Letter { corner, dot, letter } => {
                let [row, column] = [0, 1].map(|i| ((pixel[i] - corner[i]) / dot) as usize);
                GLYPHS
                    .get(letter)
                    .is_some_and(|glyph| glyph[row] >> (glyphs::W - 1 - column) & 1 == 1)
            }
        }
    }
}

impl Reference for MissingPixels {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut known = memory.take(self.known);
        let (step, seed, dims) = (memory.step, memory.seed(), self.dims);
        let (h, w) = (dims.h as i32, dims.w as i32);
        known.par_chunks_exact_mut(dims.len()).enumerate().for_each(|(n, known)| {
            known.fill(T::ONE);
            let n = step.first_sample + n as u32;
            for shape in self.shapes(n, &step, seed) {
                let [rows, columns] = shape.bounds(h, w);
                for y in rows[0].max(0)..rows[1].min(h) {
                    for x in columns[0].max(0)..columns[1].min(w) {
                        let at = (y * w + x) as usize;
                        if shape.covers(
                            [y, x],
                            n.wrapping_mul(dims.area() as u32).wrapping_add(at as u32),
                            &step,
                            seed,
                        ) {
                            known[at * dims.c..(at + 1) * dims.c].fill(T::ZERO);
                        }
                    }
                }
            }
        });
        memory.put(known);
    }
}

impl Reference for FillMissing {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut y = memory.take(self.y);
        let (x, known, dims) = (memory.real(self.x), memory.real(self.known), self.dims);
        let (c, sample) = (dims.c, dims.len());
        let samples = (
            y.par_chunks_exact_mut(sample),
            x.par_chunks_exact(sample),
            known.par_chunks_exact(sample),
        );
        samples.into_par_iter().for_each(|(y, x, known)| {
            for channel in 0..c {
                let plane: Vec<f64> = x.iter().skip(channel).step_by(c).map(|x| x.f64()).collect();
                let known =
                    known.iter().skip(channel).step_by(c).map(|known| *known == T::ONE).collect();
                let filled = pull_push(dims.size(), plane, known);
                y.iter_mut()
                    .skip(channel)
                    .step_by(c)
                    .zip(filled)
                    .for_each(|(to, from)| *to = T::of(from));
            }
        });
        memory.put(y);
    }
}

impl Reference for KnownValues {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut known = memory.take(self.known);
        let mark = T::of(f64::from(MISSING));
        known.par_iter_mut().zip(memory.real(self.x)).for_each(|(known, x)| {
            *known = if *x == mark { T::ZERO } else { T::ONE };
        });
        memory.put(known);
    }
}

impl Reference for KeepKnown {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut goal = memory.take(self.goal);
        let (known, target, y) =
            (memory.real(self.known), memory.real(self.target), memory.real(self.y));
        let sources = known.par_iter().zip(target).zip(y);
        goal.par_iter_mut().zip(sources).for_each(|(goal, ((known, target), y))| {
            *goal = if *known == T::ZERO { *y } else { *target };
        });
        memory.put(goal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::testing::{Setup, assert_close};
    use crate::shape::Dims;

    /// The masks of many samples for one kind, and the mean share of missing pixels.
    fn masks(kind: u32, dims: Dims, [low, high]: [f64; 2]) -> (Vec<f64>, f64) {
        let n = 64;
        let mut s = Setup::<f64>::new();
        let (known, shapes) = (s.out(n * dims.len()), s.out(1));
        s.memory.step.step = 5;
        let masks =
            s.run(&MissingPixels { n, dims, kinds: 1 << kind, low, high, known, shapes }, known);
        assert!(masks.iter().all(|&m| m == 0.0 || m == 1.0), "masks hold only 0 and 1");
        let missing = 1.0 - masks.iter().sum::<f64>() / masks.len() as f64;
        (masks, missing)
    }

    #[test]
    fn every_kind_masks_about_its_share_of_pixels() {
        for (kind, dims, tolerance) in
            [(0, (48, 48), 0.01), (1, (48, 48), 0.1), (2, (40, 64), 0.15), (3, (64, 64), 0.2)]
        {
            let dims = Dims::new(1, dims.0, dims.1);
            // 64 strokes cover at most about 30 % of the pixels.
            for share in if kind == 2 { vec![0.1, 0.2, 0.3] } else { vec![0.1, 0.3, 0.5] } {
                let (masks, missing) = masks(kind, dims, [share, share]);
                assert!((missing - share).abs() < tolerance, "{kind} {share}: {missing}");
                assert!(masks[..dims.len()] != masks[dims.len()..2 * dims.len()], "samples differ");
            }
            assert_eq!(self::masks(kind, dims, [0.0, 0.0]).1, 0.0);
        }
        let ranged = masks(0, Dims::new(1, 40, 40), [0.2, 0.8]).0;
        let shares: Vec<f64> =
            ranged.chunks(1600).map(|mask| 1.0 - mask.iter().sum::<f64>() / 1600.0).collect();
        assert!(shares.iter().any(|s| *s < 0.35) && shares.iter().any(|s| *s > 0.65), "{shares:?}");
        assert!(shares.iter().all(|s| (0.15..0.85).contains(s)), "{shares:?}");
    }

    #[test]
    fn channels_share_a_mask_and_shapes_are_connected() {
        let dims = Dims::new(3, 64, 48);
        for kind in 0..4 {
            let (masks, _) = masks(kind, dims, [0.3, 0.3]);
            assert!(masks.chunks(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
            let plane: Vec<f64> = masks.iter().step_by(3).copied().collect();
            let pairs =
                plane.chunks(dims.w).flat_map(|row| row.windows(2)).filter(|pair| pair[0] == 0.0);
            let (both, all) =
                pairs.fold((0.0, 0.0), |(both, all), pair| (both + 1.0 - pair[1], all + 1.0));
            assert!(
                if kind == 0 { both / all < 0.4 } else { both / all > 0.6 },
                "{kind}: {}",
                both / all
            );
        }
    }

    #[test]
    fn a_line_covers_the_pixels_within_its_radius() {
        // From the centre of pixel (2, 2) to that of (2, 6), with a radius of 1.5 pixels.
        let line = Shape::Line { ends: [[5, 5], [5, 13]], radius: 3 };
        let step = StepParams::default();
        let covered = |y: i32, x: i32| line.covers([y, x], 0, &step, 0);
        assert!(
            covered(2, 2)
                && covered(2, 6)
                && covered(1, 4)
                && covered(3, 4)
                && covered(2, 1)
                && covered(1, 1)
        );
        assert!(
            !covered(0, 4) && !covered(4, 4) && !covered(2, 0) && !covered(2, 8) && !covered(0, 1)
        );
        let [rows, columns] = line.bounds(100, 100);
        for (y, x) in (-3..12).flat_map(|y| (-3..12).map(move |x| (y, x))) {
            let inside = (rows[0]..rows[1]).contains(&y) && (columns[0]..columns[1]).contains(&x);
            assert!(inside || !covered(y, x), "{y} {x}");
        }
    }

    #[test]
    fn missing_pixels_are_filled_separately_in_each_channel() {
        let mut s = Setup::<f64>::new();
        let x = s.real(&[1.0, 10.0, 2.0, 20.0, 6.0, 60.0, 5.0, 50.0]);
        let known = s.real(&[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        let (y, pyramid) = (s.out(8), s.out(1));
        let fill = FillMissing { n: 2, dims: Dims::new(2, 2, 1), x, known, y, pyramid };
        assert_close(&s.run(&fill, y), &[1.0, 10.0, 2.0, 20.0, 0.0, 0.0, 0.0, 0.0], 0.0);
        let one = FillMissing { n: 1, dims: Dims::new(2, 2, 2), ..fill };
        assert_close(&s.run(&one, y), &[1.0, 10.0, 2.0, 20.0, 1.5, 15.0, 1.5, 15.0], 1e-15);
    }

    #[test]
    fn a_loss_with_the_goal_leaves_missing_values_out() {
        let mark = f64::from(MISSING);
        let mut s = Setup::<f64>::new();
        let x = s.real(&[1.0, mark, -mark, 0.0]);
        let y = s.real(&[2.0, 3.0, 4.0, 5.0]);
        let (known, goal) = (s.out(4), s.out(4));
        let dims = Dims::flat(4);
        let found = s.run(&KnownValues { n: 1, dims, x, known }, known);
        assert_eq!(found, [1.0, 0.0, 1.0, 1.0]);
        let keep = KeepKnown { n: 1, dims, known, target: x, y, goal };
        assert_eq!(s.run(&keep, goal), [1.0, 3.0, -mark, 0.0]);
    }

    #[test]
    fn letters_are_the_same_in_the_shader() {
        let text = include_str!("../../../shaders/common/glyphs.wgsl");
        for glyph in GLYPHS {
            let bits = (0..35)
                .filter(|dot| glyph[dot / 5] >> (4 - dot % 5) & 1 == 1)
                .fold(0_u64, |bits, dot| bits | 1 << dot);
            let word = format!("vec2<u32>(0x{:08x}u, {}u)", bits as u32, bits >> 32);
            assert!(text.contains(&word), "{word}");
        }
    }
}
