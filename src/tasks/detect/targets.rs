//! Training samples of a detector: an image in a square, and the target of each cell of the grid.

use std::borrow::Cow;

use super::frame::letterbox;
use crate::annotations::augment::{Flips, Jitter};
use crate::annotations::box_files::Object;
use crate::annotations::boxes::Bounds;
use crate::rng::Stream;
use crate::shape::{Dims, Size};
use crate::spec::PoseAugment;

/// An object is assigned to the cells inside it whose centres are within this many cells of its own
/// centre (centre sampling: Tian et al., "FCOS", 2019).
const CENTRE_RADIUS: f64 = 1.5;
/// An object is a target if at least this share of its area is inside the square. Of less than a
/// quarter too little is visible to tell its class and its size.
const MIN_VISIBLE: f64 = 0.25;
/// Range of random zoom.
const ZOOM: [f64; 2] = [0.75, 1.3];
/// Maximum change of brightness and contrast, as a share of the range.
pub(super) const JITTER: f64 = 0.1;
/// Random numbers that one sample can use; samples begin at multiples of it.
pub(super) const WORDS: u64 = 8;

/// An image with its objects.
pub(super) struct AnnotatedImage<'a> {
    /// H,W,C bytes.
    pub pixels: Cow<'a, [u8]>,
    pub dims: Dims,
    pub objects: &'a [Object],
}

/// An image in a square, and its targets.
#[derive(Debug)]
pub(super) struct Square {
    /// H,W,C on the 0–1 scale.
    pub pixels: Vec<f32>,
    pub targets: CellTargets,
}

/// The targets of the cells of a grid, row by row.
#[derive(Debug)]
pub(super) struct CellTargets {
    /// Class of the object of each cell; `u32::MAX` in cells without an object.
    pub labels: Vec<u32>,
    /// Box of the object of each cell, in cells: its centre relative to the centre of the cell
    /// (x, y), its width and its height.
    pub boxes: Vec<f32>,
    /// 1 for cells that count in the loss, else 0.
    pub weights: Vec<f32>,
}

/// Puts an image into a square of `side` pixels, at a random zoom and position, and assigns its
/// objects to a grid of `cells` cells a side.
pub(super) fn augmented_square(
    image: &AnnotatedImage<'_>,
    [side, cells]: [usize; 2],
    augment: PoseAugment,
    jitter: f64,
    stream: &mut Stream,
) -> Square {
    let AnnotatedImage { pixels, dims, objects } = image;
    let (moves, all) = (augment != PoseAugment::None, augment == PoseAugment::All);
    let range = if all { jitter } else { 0.0 };
    let mut uniform = |from: f64, to: f64| from + (to - from) * f64::from(stream.uniform());
    let (zoom, at) = if moves {
        ((uniform(ZOOM[0].ln(), ZOOM[1].ln())).exp(), [uniform(0.0, 1.0), uniform(0.0, 1.0)])
    } else {
        (1.0, [0.5, 0.5])
    };
    let brightness = uniform(-range, range) as f32;
    let jitter = Jitter { brightness, contrast: 1.0 + uniform(-range, range) as f32 };
    let flips = Flips::draw(Flips { flip_x: moves, flip_y: all, transpose: all }, stream);
    let (square, frame) = letterbox(pixels, *dims, side, zoom, at);
    let inside = Dims::new(dims.c, side, side);
    let mut pixels = Vec::with_capacity(square.len());
    for y in 0..side {
        for x in 0..side {
            let (y, x) = flips.source(y, x, inside.size());
            let from = inside.offset(0, y, x);
            pixels.extend(square[from..from + dims.c].iter().map(|value| jitter.apply(*value)));
        }
    }
    let transformed = |object: &Object| {
        let bounds = flips.bounds(frame.to_square(&object.bounds), side as f64);
        Object { bounds, ..*object }
    };
    let objects: Vec<Object> = objects.iter().map(transformed).collect();
    Square { pixels, targets: cell_targets(&objects, side, cells) }
}

/// Assigns objects to cells. A cell that two objects claim belongs to the smaller one. An object
/// with less than [`MIN_VISIBLE`] of its area inside the square is no target. The cells that it
/// covers do not count in the loss, nor do those that a difficult or crowd object covers.
fn cell_targets(objects: &[Object], side: usize, cells: usize) -> CellTargets {
    let stride = side as f64 / cells as f64;
    let n = cells * cells;
    let mut targets =
        CellTargets { labels: vec![u32::MAX; n], boxes: vec![0.0; 4 * n], weights: vec![1.0; n] };
    // Area of the object of each cell.
    let mut areas = vec![f64::INFINITY; n];
    for object in objects {
        let visible = object.bounds.clipped(Size::new(side, side));
        if visible.area() <= 0.0 {
            continue;
        }
        let is_target = !object.ignored() && visible.area() >= MIN_VISIBLE * object.bounds.area();
        let Bounds { left, top, right, bottom } = visible;
        let centre = [(left + right) / 2.0 / stride, (top + bottom) / 2.0 / stride];
        let own = [centre[0] as usize, centre[1] as usize].map(|at| at.min(cells - 1));
        for row in (top / stride) as usize..((bottom / stride).ceil() as usize).min(cells) {
            for column in (left / stride) as usize..((right / stride).ceil() as usize).min(cells) {
                let at = row * cells + column;
                let cell = [column as f64 + 0.5, row as f64 + 0.5];
                let covered = (left..right).contains(&(cell[0] * stride))
                    && (top..bottom).contains(&(cell[1] * stride));
                if !is_target {
                    if covered && areas[at].is_infinite() {
                        targets.weights[at] = 0.0;
                    }
                    continue;
                }
                let near = (0..2).all(|k| (centre[k] - cell[k]).abs() <= CENTRE_RADIUS);
                let assigned = [column, row] == own || near && covered;
                if !assigned || visible.area() >= areas[at] {
                    continue;
                }
                areas[at] = visible.area();
                targets.weights[at] = 1.0;
                targets.labels[at] = object.class as u32;
                let values = [
                    centre[0] - cell[0],
                    centre[1] - cell[1],
                    (right - left) / stride,
                    (bottom - top) / stride,
                ];
                targets.boxes[4 * at..4 * at + 4]
                    .iter_mut()
                    .zip(values)
                    .for_each(|(to, value)| *to = value as f32);
            }
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(class: usize, [left, top, right, bottom]: [f64; 4]) -> Object {
        Object {
            class,
            bounds: Bounds { left, top, right, bottom },
            difficult: false,
            crowd: false,
        }
    }

    #[test]
    fn cells_are_assigned_to_objects() {
        // 4×4 cells of 8 pixels. The first object covers all, the second is small and in the second
        // cell, the third is mostly outside.
        let objects = [
            object(0, [0.0, 0.0, 32.0, 32.0]),
            object(1, [9.0, 1.0, 13.0, 3.0]),
            object(2, [-30.0, 24.0, 2.0, 32.0]),
        ];
        let targets = cell_targets(&objects, 32, 4);
        let at = |row: usize, column: usize| targets.labels[4 * row + column];
        assert_eq!([at(1, 1), at(2, 2), at(0, 1), at(3, 0)], [0, 0, 1, 0]);
        assert!(!targets.labels.contains(&2));
        // The centre of the small object is (11, 2), that of its cell (12, 4).
        let expected = [11.0 / 8.0 - 1.5, 2.0 / 8.0 - 0.5, 0.5, 0.25];
        assert!(
            targets.boxes[4..8].iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6),
            "{:?}",
            &targets.boxes[4..8]
        );
    }

    #[test]
    fn cells_of_a_crowd_do_not_count() {
        let crowd = Object { crowd: true, ..object(0, [0.0, 0.0, 16.0, 8.0]) };
        let targets = cell_targets(&[crowd], 32, 4);
        assert_eq!(targets.weights[..4], [0.0, 0.0, 1.0, 1.0]);
        assert!(targets.labels.iter().all(|label| *label == u32::MAX));
    }

    #[test]
    fn a_cell_that_two_objects_claim_belongs_to_the_smaller_one() {
        let (large, small) =
            (object(0, [8.0, 8.0, 24.0, 24.0]), object(1, [17.0, 17.0, 21.0, 21.0]));
        for objects in [[large, small], [small, large]] {
            let targets = cell_targets(&objects, 32, 4);
            assert_eq!([targets.labels[4 + 1], targets.labels[4 * 2 + 2]], [0, 1], "{objects:?}");
            assert_eq!(targets.boxes[4 * (4 * 2 + 2) + 2], 0.5, "{objects:?}");
        }
    }

    #[test]
    fn boxes_are_transformed_with_their_pixels() {
        // One bright block: after any augmentation its box still contains it.
        let mut pixels = vec![0_u8; 24 * 32];
        (4..10).for_each(|y| pixels[y * 32 + 6..y * 32 + 22].fill(255));
        let objects = [object(0, [6.0, 4.0, 22.0, 10.0])];
        for seed in 0..24 {
            let image = AnnotatedImage {
                pixels: Cow::Borrowed(&pixels),
                dims: Dims::new(1, 24, 32),
                objects: &objects,
            };
            let mut stream = Stream::new(seed, "test");
            let square = augmented_square(&image, [32, 32], PoseAugment::All, 0.0, &mut stream);
            let CellTargets { labels, boxes, .. } = &square.targets;
            let cells: Vec<usize> = (0..1024).filter(|at| labels[*at] == 0).collect();
            assert!(!cells.is_empty(), "{seed}");
            for at in cells {
                let of = &boxes[4 * at..4 * at + 4];
                let centre = [(at % 32) as f32 + 0.5 + of[0], (at / 32) as f32 + 0.5 + of[1]];
                let value = |dx: f32, dy: f32| {
                    let [x, y] = [centre[0] + dx * of[2], centre[1] + dy * of[3]]
                        .map(|v| (v as usize).min(31));
                    square.pixels[y * 32 + x]
                };
                assert!(
                    value(0.0, 0.0) > 0.8 && value(0.3, 0.25) > 0.5 && value(-0.3, -0.25) > 0.5,
                    "{seed}: {of:?}"
                );
                assert!(of[2] * of[3] > 30.0, "{seed}: {of:?}");
            }
        }
    }
}
