//! The network over an image of any size: the log-odds of a defect at each pixel, and descriptors.

use crate::device::Device;
use crate::error::Result;
use crate::infer::batches::Inference;
use crate::infer::reconstruct::{mirror, starts, window};
use crate::shape::{Dims, Size};

/// Tiles overlap by a quarter: they are three quarters of their size apart.
const QUARTERS: usize = 3;
/// A descriptor averages magnitudes over this many cells to each side. Pixel AUROC of textures was
/// 0.915 with windows of 3×3 cells, 0.890 with 1×1 and 0.883 with 5×5
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

/// What the network finds in an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Log-odds of a defect at each pixel.
    pub odds: Vec<f32>,
    /// Descriptors.
    pub grid: DescriptorGrid,
}

/// Runs the network on images of any size, tile by tile. The output of its graph has the logits of
/// normal and defect at each pixel. Its code has the maps that descriptors come from: a descriptor
/// is the square root of the mean magnitudes in a window of 3×3 cells. The root shortens the long
/// tails of magnitudes, which would dominate the distances; a logarithm works as well but needs a
/// scale.
#[derive(Debug)]
pub struct Describer<'a> {
    inference: Inference<'a>,
}

impl<'a> Describer<'a> {
    /// Describes by a network.
    pub const fn new(inference: Inference<'a>) -> Self {
        Self { inference }
    }

    /// Height, width and channels of the network's input, output and code.
    fn dims(&self) -> [Dims; 3] {
        let graph = self.inference.graph;
        [0, graph.output, graph.code].map(|node| graph.nodes[node].dims)
    }

    /// Number of values of a descriptor.
    pub fn depth(&self) -> usize {
        self.dims()[2].c
    }

    /// Describes an image (H,W,C). An image smaller than the network's input is mirrored at its
    /// edges first.
    ///
    /// # Errors
    /// If the device fails.
    pub fn describe(&mut self, device: &mut Device, pixels: &[f32], size: Size) -> Result<Field> {
        let [input, output, maps] = self.dims();
        let full = size.at_least(input.size());
        let padded = mirror(pixels, Dims::of(size, input.c), full);
        let (ys, xs) = (starts(full.h, input.h, QUARTERS), starts(full.w, input.w, QUARTERS));
        let (down, across) = (input.h / maps.h, input.w / maps.w);
        let (rows, columns) = (size.h.div_ceil(down), size.w.div_ceil(across));
        let depth = maps.c;
        let (mut sum, mut weight) =
            (vec![0.0_f64; rows * columns * depth], vec![0.0_f64; rows * columns]);
        let (mut odds, mut shares) = (vec![0.0_f64; size.area()], vec![0.0_f64; size.area()]);
        let (wy, wx) = (window(input.h), window(input.w));
        let tiles: Vec<(usize, usize)> =
            ys.iter().flat_map(|y| xs.iter().map(|x| (*y, *x))).collect();
        for part in tiles.chunks(self.inference.batch(device)) {
            let mut x = Vec::with_capacity(part.len() * input.len());
            for (top, left) in part {
                for y in *top..top + input.h {
                    let start = (y * full.w + left) * input.c;
                    x.extend_from_slice(&padded[start..start + input.w * input.c]);
                }
            }
            let found = self.inference.run(device, &x)?;
            for (i, (top, left)) in part.iter().enumerate() {
                let logits = &found.y[i * output.len()..][..output.len()];
                for (at, logits) in logits.chunks_exact(output.c).enumerate() {
                    let (y, x) = (at / output.w, at % output.w);
                    if top + y < size.h && left + x < size.w {
                        let factor = wy[y] * wx[x];
                        let at = (top + y) * size.w + left + x;
                        shares[at] += factor;
                        odds[at] += factor * f64::from(logits[1] - logits[0]);
                    }
                }
                let codes = &found.z[i * maps.len()..][..maps.len()];
                for (at, z) in codes.chunks_exact(depth).enumerate() {
                    // centre, in the tile, of the area that this position covers
                    let (y, x) = (at / maps.w * down + down / 2, at % maps.w * across + across / 2);
                    let (row, column) = ((top + y) / down, (left + x) / across);
                    if row < rows && column < columns {
                        let factor = wy[y] * wx[x];
                        let at = row * columns + column;
                        weight[at] += factor;
                        for (sum, z) in sum[at * depth..][..depth].iter_mut().zip(z) {
                            *sum += factor * f64::from(z.abs());
                        }
                    }
                }
            }
        }
        let centres = |n: usize, pitch: usize| -> Vec<f64> {
            (0..n).map(|i| (i as f64 + 0.5) * pitch as f64).collect()
        };
        let mut values = pooled(&sum, &weight, [rows, columns, depth], POOLING_RADIUS);
        values.iter_mut().for_each(|value| *value = value.max(0.0).sqrt());
        let (rows, columns) = (centres(rows, down), centres(columns, across));
        let odds = odds.iter().zip(shares).map(|(odds, share)| (odds / share) as f32).collect();
        Ok(Field { odds, grid: DescriptorGrid { rows, columns, depth, values } })
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
