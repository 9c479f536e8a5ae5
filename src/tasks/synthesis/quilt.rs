//! Image quilting: covers a torus with overlapping patches of an exemplar. Whitening and colouring
//! then turn the patchwork into one texture. Efros & Freeman, "Image Quilting for Texture Synthesis
//! and Transfer", 2001: each patch is the best of many random candidates, cut along the path
//! through the overlap where it differs least from its neighbours.

use rayon::prelude::*;

use crate::rng::Stream;
use crate::shape::Size;
use crate::tasks::synthesis::RGB;

/// Number of candidates for a patch, and for a closing patch, which must agree with neighbours on
/// opposite sides and so needs more choice. More candidates give better seams and take longer.
const CANDIDATES: [usize; 2] = [1000, 16000];
/// Minimum and maximum side of a patch in pixels.
const PATCH_SIDES: (usize, usize) = (8, 64);

/// The first pixel of each patch along one side.
fn patch_starts(side: usize, step: usize) -> Vec<usize> {
    let count = side.div_ceil(step);
    (0..count).map(|i| i * side / count).collect()
}

/// The minimum-error path through a band of `across` by `along` errors, from its first to its last
/// step along. Neighbouring steps differ by at most one. Dynamic programming, as in the paper.
fn min_error_path(error: impl Fn(usize, usize) -> f32, across: usize, along: usize) -> Vec<usize> {
    let mut sums: Vec<Vec<f32>> = vec![(0..across).map(|x| error(x, 0)).collect()];
    let near = |x: usize| x.saturating_sub(1)..(x + 2).min(across);
    for y in 1..along {
        let before = &sums[y - 1];
        let min = |x: usize| before[near(x)].iter().copied().fold(f32::INFINITY, f32::min);
        sums.push((0..across).map(|x| error(x, y) + min(x)).collect());
    }
    let best = |y: usize, range: std::ops::Range<usize>| {
        range
            .min_by(|a, b| sums[y][*a].total_cmp(&sums[y][*b]))
            .expect("a band has at least one position")
    };
    let mut line = vec![best(along - 1, 0..across)];
    for y in (0..along - 1).rev() {
        line.push(best(y, near(line[line.len() - 1])));
    }
    line.reverse();
    line
}

/// The image so far, and which of its pixels are covered.
struct Torus {
    image: Vec<f32>,
    covered: Vec<bool>,
    size: Size,
}

impl Torus {
    const fn at(&self, y: usize, x: usize) -> usize {
        y % self.size.h * self.size.w + x % self.size.w
    }

    fn squared_error(&self, exemplar: &[f32], from: usize, to: usize) -> f32 {
        (0..RGB).map(|c| (exemplar[from * RGB + c] - self.image[to * RGB + c]).powi(2)).sum()
    }
}

/// Covers a torus of `size` with patches of an exemplar (H,W,3) of size `from`.
pub fn quilt(exemplar: &[f32], from: Size, size: Size, seed: u64) -> Vec<f32> {
    let Size { h, w } = from.at_most(size);
    let smallest = h.min(w);
    let Size { h, w } = from;
    let side = (smallest / 3).clamp(PATCH_SIDES.0.min(smallest), PATCH_SIDES.1);
    let step = (side - side / 3).max(1);
    let mut stream = Stream::new(seed, "quilt");
    let mut torus =
        Torus { image: vec![0.0; size.area() * RGB], covered: vec![false; size.area()], size };
    let (rows, columns) = (patch_starts(size.h, step), patch_starts(size.w, step));
    for (i, &top) in rows.iter().enumerate() {
        for (j, &left) in columns.iter().enumerate() {
            let closing = (j > 0 && j + 1 == columns.len()) || (i > 0 && i + 1 == rows.len());
            let candidates: Vec<[usize; 2]> = (0..CANDIDATES[usize::from(closing)])
                .map(|_| [stream.below(h - side + 1), stream.below(w - side + 1)])
                .collect();
            let cost = |[y0, x0]: &[usize; 2]| {
                let mut sum = 0.0;
                // a chessboard of pixels is enough to compare candidates, at half the cost
                for y in 0..side {
                    for x in (y % 2..side).step_by(2) {
                        let to = torus.at(top + y, left + x);
                        if torus.covered[to] {
                            sum += torus.squared_error(exemplar, (y0 + y) * w + x0 + x, to);
                        }
                    }
                }
                sum
            };
            let costs: Vec<f32> = candidates.par_iter().map(cost).collect();
            let best = (0..candidates.len())
                .min_by(|a, b| costs[*a].total_cmp(&costs[*b]))
                .expect("there is at least one candidate");
            let [y0, x0] = candidates[best];
            let error = |y: usize, x: usize| {
                torus.squared_error(exemplar, (y0 + y) * w + x0 + x, torus.at(top + y, left + x))
            };
            let mut keep = vec![false; side * side];
            let mut band =
                |overlaps: bool, width: usize, place: &dyn Fn(usize, usize) -> (usize, usize)| {
                    // `across` counts from the side that is already covered
                    if overlaps && width > 0 {
                        let line = min_error_path(
                            |across, along| {
                                let (y, x) = place(across, along);
                                error(y, x)
                            },
                            width,
                            side,
                        );
                        for (along, at) in line.into_iter().enumerate() {
                            for across in 0..at {
                                let (y, x) = place(across, along);
                                keep[y * side + x] = true;
                            }
                        }
                    }
                };
            let width = |before: usize, here: usize| (before + side).saturating_sub(here).min(side);
            band(j > 0, width(columns[j.max(1) - 1], left), &|across, along| (along, across));
            band(i > 0, width(rows[i.max(1) - 1], top), &|across, along| (across, along));
            let last = |starts: &[usize], at: usize, of: usize| {
                if at > 0 && at + 1 == starts.len() { width(starts[at], of) } else { 0 }
            };
            band(true, last(&columns, j, size.w), &|across, along| (along, side - 1 - across));
            band(true, last(&rows, i, size.h), &|across, along| (side - 1 - across, along));
            for y in 0..side {
                for x in 0..side {
                    let to = torus.at(top + y, left + x);
                    if !torus.covered[to] || !keep[y * side + x] {
                        let from = (y0 + y) * w + x0 + x;
                        torus.image[to * RGB..][..RGB]
                            .copy_from_slice(&exemplar[from * RGB..][..RGB]);
                        torus.covered[to] = true;
                    }
                }
            }
        }
    }
    torus.image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_follows_the_smallest_errors() {
        let errors = [
            [1.0, 0.0, 1.0, 1.0],
            [1.0, 1.0, 0.0, 1.0],
            [1.0, 1.0, 1.0, 0.0],
            [1.0, 1.0, 0.0, 1.0],
        ];
        assert_eq!(min_error_path(|across, along| errors[along][across], 4, 4), [1, 2, 3, 2]);
        assert_eq!(min_error_path(|_, _| 1.0, 1, 3), [0, 0, 0]);
        // a cheap end does not make up for an expensive path
        let errors = [[9.0, 9.0, 0.0], [9.0, 9.0, 0.0], [0.0, 5.0, 1.0]];
        assert_eq!(min_error_path(|across, along| errors[along][across], 3, 3), [2, 2, 2]);
    }

    #[test]
    fn patches_have_no_straight_edges() {
        // waves of many lengths, which no patch continues exactly
        let wave = |y: usize, x: usize| {
            let (y, x) = (y as f32, x as f32);
            0.5 + 0.2 * (0.9 * x + 0.3 * y).sin() + 0.2 * (0.7 * y - 0.2 * x + 0.01 * x * y).cos()
        };
        let exemplar: Vec<f32> = (0..60 * 60).flat_map(|at| [wave(at / 60, at % 60); 3]).collect();
        let image = quilt(&exemplar, Size::new(60, 60), Size::new(72, 72), 3);
        let jump = |x: usize| {
            (0..72)
                .map(|y| (image[(y * 72 + x) * 3] - image[(y * 72 + x - 1) * 3]).abs())
                .sum::<f32>()
        };
        let edges: Vec<usize> = patch_starts(72, 20 - 20 / 3).into_iter().skip(1).collect();
        let at_edges = edges.iter().map(|x| jump(*x)).sum::<f32>() / edges.len() as f32;
        let others: Vec<f32> = (1..72).filter(|x| !edges.contains(x)).map(jump).collect();
        let elsewhere = others.iter().sum::<f32>() / others.len() as f32;
        assert!(at_edges < 1.1 * elsewhere, "{at_edges} {elsewhere}");
    }

    #[test]
    fn a_pattern_continues_across_the_edges() {
        // a pattern of period 6 down and 4 across: patches that agree continue it
        let value = |y: usize, x: usize| if (y / 3 + x / 2).is_multiple_of(2) { 1.0 } else { 0.0 };
        let exemplar: Vec<f32> = (0..36 * 36).flat_map(|at| [value(at / 36, at % 36); 3]).collect();
        let quilted = |seed| quilt(&exemplar, Size::new(36, 36), Size::new(48, 60), seed);
        let image = quilted(1);
        assert_eq!(image.len(), 48 * 60 * 3);
        let wrong = (0..48 * 60).filter(|at| {
            let (y, x) = (at / 60, at % 60);
            image[at * 3] != image[((y + 6) % 48 * 60 + x) * 3]
                || image[at * 3] != image[(y * 60 + (x + 4) % 60) * 3]
        });
        let wrong = wrong.count();
        assert!(wrong < 48 * 60 / 20, "{wrong}");
        assert_eq!(image, quilted(1));
        assert_ne!(image, quilted(2));
    }
}
