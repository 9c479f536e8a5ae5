//! Descriptors of an image of any size, from a layer of a model.

use crate::device::Device;
use crate::error::Result;
use crate::infer::batches::Inference;
use crate::infer::reconstruct::{mirror, starts, window};
use crate::shape::{Dims, Size};

/// Minimum distance between descriptors, in pixels. A finer grid gives more descriptors to compare
/// with the bank; a coarser one localises defects less well.
const MIN_PITCH: usize = 4;
/// A descriptor averages magnitudes over this many cells to each side. Pixel AUROC by the code
/// alone was 0.915 with windows of 3×3, 0.890 with 1×1 and 0.883 with 5×5
/// (`benches/results/2026-11-28-anomaly.md`).
const POOLING_RADIUS: usize = 1;

/// Descriptors on a grid over an image.
#[derive(Clone, Debug, PartialEq)]
pub struct DescriptorGrid {
    /// Vertical positions of the grid's rows in the image, in pixels, ascending.
    pub rows: Vec<f64>,
    /// Horizontal positions of the grid's columns, in pixels, ascending.
    pub columns: Vec<f64>,
    /// Number of values of a descriptor.
    pub depth: usize,
    /// The descriptors, row by row.
    pub values: Vec<f32>,
}

impl DescriptorGrid {
    /// Interpolates one value per descriptor to an image of `size`: linearly between grid
    /// positions, constant outside of them.
    pub fn interpolate(&self, values: &[f32], size: Size) -> Vec<f32> {
        let along = |positions: &[f64], side: usize| -> Vec<(usize, usize, f32)> {
            let position = |at: usize| {
                let at = at as f64 + 0.5;
                let after = positions.partition_point(|position| *position <= at);
                match (after.checked_sub(1), positions.get(after)) {
                    (Some(before), Some(next)) => (
                        before,
                        after,
                        ((at - positions[before]) / (next - positions[before])) as f32,
                    ),
                    (Some(last), None) => (last, last, 0.0),
                    (None, _) => (0, 0, 0.0),
                }
            };
            (0..side).map(position).collect()
        };
        let (down, across) = (along(&self.rows, size.h), along(&self.columns, size.w));
        let n = self.columns.len();
        let mut out = Vec::with_capacity(size.area());
        for (top, bottom, dy) in down {
            for (left, right, dx) in &across {
                let row = |y: usize| values[y * n + left] * (1.0 - dx) + values[y * n + right] * dx;
                out.push(row(top) * (1.0 - dy) + row(bottom) * dy);
            }
        }
        out
    }
}

/// Describes images by a layer of a model. For a layer of maps, a descriptor is the square root of
/// the mean magnitudes in a window of 3×3 cells. The root shortens the long tails of magnitudes,
/// which would dominate the distances; a logarithm works as well but needs a scale. For a layer
/// that is a vector, a descriptor is the vector of each tile.
#[derive(Debug)]
pub struct Describer<'a> {
    inference: Inference<'a>,
    quarters: usize,
}

impl<'a> Describer<'a> {
    /// Describes by the last layer of an encoder. Tiles are `quarters` quarters of their size
    /// apart.
    pub const fn new(inference: Inference<'a>, quarters: usize) -> Self {
        Self { inference, quarters }
    }

    fn dims(&self) -> [Dims; 2] {
        let graph = self.inference.graph;
        [graph.nodes[0].dims, graph.nodes[graph.output].dims]
    }

    /// Number of values of a descriptor.
    pub fn depth(&self) -> usize {
        self.dims()[1].c
    }

    /// Describes an image (H,W,C, values in 0–1). An image smaller than the model's input is
    /// mirrored at its edges first.
    ///
    /// # Errors
    /// If the device fails.
    pub fn describe(
        &mut self,
        device: &mut Device,
        pixels: &[f32],
        size: Size,
    ) -> Result<DescriptorGrid> {
        let [input, maps] = self.dims();
        let full = size.at_least(input.size());
        let padded = mirror(pixels, Dims::of(size, input.c), full);
        let (ys, xs) =
            (starts(full.h, input.h, self.quarters), starts(full.w, input.w, self.quarters));
        let vector = maps.area() == 1;
        let pitch = |side: usize, cells: usize| MIN_PITCH.max(side.div_ceil(cells.max(1)));
        let (down, across) = (pitch(input.h, maps.h), pitch(input.w, maps.w));
        let (rows, columns) = if vector {
            (ys.len(), xs.len())
        } else {
            (full.h.div_ceil(down), full.w.div_ceil(across))
        };
        let depth = maps.c;
        let (mut sum, mut weight) =
            (vec![0.0_f64; rows * columns * depth], vec![0.0_f64; rows * columns]);
        let (wy, wx) = (window(input.h), window(input.w));
        let tiles: Vec<(usize, usize)> =
            (0..ys.len() * xs.len()).map(|i| (i / xs.len(), i % xs.len())).collect();
        let batch = self.inference.batch(device);
        for part in tiles.chunks(batch) {
            let mut x = Vec::with_capacity(part.len() * input.len());
            for (row, column) in part {
                for y in ys[*row]..ys[*row] + input.h {
                    let start = (y * full.w + xs[*column]) * input.c;
                    x.extend_from_slice(&padded[start..start + input.w * input.c]);
                }
            }
            let z = self.inference.run_code(device, &x, &[])?;
            for ((row, column), z) in part.iter().zip(z.chunks_exact(maps.len())) {
                for (position, z) in z.chunks_exact(depth).enumerate() {
                    // centre, in the tile, of the area that this position covers
                    let y = ((position / maps.w) as f64 + 0.5) * input.h as f64 / maps.h as f64;
                    let x = ((position % maps.w) as f64 + 0.5) * input.w as f64 / maps.w as f64;
                    let (factor, at) = if vector {
                        (1.0, row * columns + column)
                    } else {
                        let (in_y, in_x) = (
                            (ys[*row] as f64 + y) as usize / down,
                            (xs[*column] as f64 + x) as usize / across,
                        );
                        (wy[y as usize] * wx[x as usize], in_y * columns + in_x)
                    };
                    weight[at] += factor;
                    for (sum, z) in sum[at * depth..][..depth].iter_mut().zip(z) {
                        *sum += factor * f64::from(if vector { *z } else { z.abs() });
                    }
                }
            }
        }
        let centre = |i: usize, pitch: usize| (i as f64 + 0.5) * pitch as f64;
        let middle = |start: &usize, side: usize| *start as f64 + side as f64 / 2.0;
        let (places_y, places_x) = if vector {
            (
                ys.iter().map(|y| middle(y, input.h)).collect(),
                xs.iter().map(|x| middle(x, input.w)).collect(),
            )
        } else {
            (
                (0..rows).map(|i| centre(i, down)).collect(),
                (0..columns).map(|i| centre(i, across)).collect(),
            )
        };
        let mut values =
            pooled(&sum, &weight, [rows, columns, depth], if vector { 0 } else { POOLING_RADIUS });
        if !vector {
            values.iter_mut().for_each(|value| *value = value.max(0.0).sqrt());
        }
        Ok(DescriptorGrid { rows: places_y, columns: places_x, depth, values })
    }
}

/// Weighted means over windows that extend `radius` cells to each side.
fn pooled(
    sum: &[f64],
    weight: &[f64],
    [rows, columns, depth]: [usize; 3],
    radius: usize,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * columns * depth);
    let mut mean = vec![0.0_f64; depth];
    for y in 0..rows {
        for x in 0..columns {
            mean.fill(0.0);
            let mut all = 0.0;
            for at_y in y.saturating_sub(radius)..(y + radius + 1).min(rows) {
                for at_x in x.saturating_sub(radius)..(x + radius + 1).min(columns) {
                    let at = at_y * columns + at_x;
                    all += weight[at];
                    mean.iter_mut().zip(&sum[at * depth..]).for_each(|(mean, sum)| *mean += sum);
                }
            }
            out.extend(mean.iter().map(|mean| (mean / all.max(1e-12)) as f32));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolation_is_linear_between_positions() {
        let grid = DescriptorGrid {
            rows: vec![1.0],
            columns: vec![1.0, 3.0],
            depth: 1,
            values: vec![0.0; 2],
        };
        let interpolated = grid.interpolate(&[0.0, 2.0], Size::new(2, 5));
        let row = [0.0, 0.5, 1.5, 2.0, 2.0];
        assert_eq!(interpolated, [row, row].concat());
    }

    #[test]
    fn pooling_weights_cells() {
        let sum = [1.0, 6.0, 0.0];
        let weight = [1.0, 2.0, 0.0];
        assert_eq!(pooled(&sum, &weight, [1, 3, 1], 0), [1.0, 3.0, 0.0]);
        assert_eq!(pooled(&sum, &weight, [1, 3, 1], 1), [7.0 / 3.0, 7.0 / 3.0, 3.0]);
    }
}
