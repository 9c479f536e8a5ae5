//! Descriptors from fixed filters: derivatives of Gaussians, which need no training.
//!
//! They describe fine structure, such as noise and thin lines, and need only few normal images.

use rayon::prelude::*;

use super::field::DescriptorGrid;
use crate::shape::{Dims, Size};

/// Standard deviations of the Gaussians in pixels, for the mean of the channels. Differences of
/// channels have only the second one: they have less detail.
const SCALES: [f64; 3] = [0.7, 1.4, 2.8];
/// Standard deviation of the Gaussian whose smoothed value is the local brightness or colour.
const LEVEL: f64 = 2.0;
/// Orders of the derivatives, vertical and horizontal.
const ORDERS: [[usize; 2]; 5] = [[0, 1], [1, 0], [1, 1], [0, 2], [2, 0]];
/// Distance of descriptors in pixels. Textures of 64×64 pixels had a pixel AUROC of 0.944 with 2
/// and 0.939 with 4 (`benches/results/2026-12-01-anomaly.md`).
const CELL: usize = 2;
/// A descriptor averages over its cell and this many pixels around it.
const MARGIN: usize = 1;

/// Number of values of a descriptor of an image with `channels` channels.
pub const fn depth(channels: usize) -> usize {
    let mean = 1 + SCALES.len() * ORDERS.len();
    mean + (channels - 1) * (1 + ORDERS.len())
}

/// Describes an image (H,W,C). The channels are first combined by a cosine transform: into their
/// mean, and differences such as red against blue. A descriptor has the local level of each
/// combination, and for each filter the square root of the mean magnitude of its responses. Edges
/// are mirrored.
pub fn describe(pixels: &[f32], dims: Dims) -> DescriptorGrid {
    let size = dims.size();
    let cells = size.map(|side| side.div_ceil(CELL));
    let depth = depth(dims.c);
    let mut values = vec![0.0_f32; cells.area() * depth];
    let mut column = 0;
    let mut put = |averages: Vec<f32>| {
        values
            .iter_mut()
            .skip(column)
            .step_by(depth)
            .zip(averages)
            .for_each(|(out, average)| *out = average);
        column += 1;
    };
    for plane in 0..dims.c {
        let map = combined(pixels, dims.c, plane);
        let level = taps(LEVEL, 0);
        put(averages(&columns(&rows(&map, size, &level), size, &level), size));
        let scales = if plane == 0 { &SCALES[..] } else { &SCALES[1..2] };
        for sigma in scales {
            let taps = [0, 1, 2].map(|order| taps(*sigma, order));
            let across = [0, 1, 2].map(|order| rows(&map, size, &taps[order]));
            for [down, right] in ORDERS {
                let mut found = columns(&across[right], size, &taps[down]);
                found.par_iter_mut().for_each(|value| *value = value.abs());
                let mut means = averages(&found, size);
                means.iter_mut().for_each(|mean| *mean = mean.max(0.0).sqrt());
                put(means);
            }
        }
    }
    let centres = |n: usize| (0..n).map(|i| ((i * CELL) as f64) + CELL as f64 / 2.0).collect();
    DescriptorGrid { rows: centres(cells.h), columns: centres(cells.w), depth, values }
}

/// The coefficient `plane` of the orthonormal cosine transform (DCT-II) along the channels.
fn combined(pixels: &[f32], c: usize, plane: usize) -> Vec<f32> {
    let norm = if plane == 0 { 1.0 } else { 2.0_f64 } / c as f64;
    let weight = |channel: usize| {
        let angle = (channel as f64 + 0.5) * plane as f64 * std::f64::consts::PI / c as f64;
        (norm.sqrt() * angle.cos()) as f32
    };
    let weights: Vec<f32> = (0..c).map(weight).collect();
    let pixels = pixels.par_chunks_exact(c);
    pixels.map(|pixel| pixel.iter().zip(&weights).map(|(v, w)| v * w).sum()).collect()
}

/// A Gaussian with standard deviation σ, or its first or second derivative, times σ to the power
/// of the order, so that responses to a pattern do not depend on its scale (Lindeberg, "Feature
/// Detection with Automatic Scale Selection", 1998). The window ends at four standard deviations.
fn taps(sigma: f64, order: usize) -> Vec<f32> {
    let radius = (4.0 * sigma).ceil() as i32;
    let bell = |x: f64| (-0.5 * (x / sigma).powi(2)).exp();
    let sum: f64 = (-radius..=radius).map(|x| bell(f64::from(x))).sum();
    let tap = |x: i32| {
        let x = f64::from(x);
        let factor = match order {
            0 => 1.0,
            1 => x / sigma,
            _ => (x / sigma).powi(2) - 1.0,
        };
        factor * bell(x) / sum
    };
    let taps: Vec<f64> = (-radius..=radius).map(tap).collect();
    // Derivatives of a constant are 0; the sampled second derivative is not quite.
    let mean = if order == 0 { 0.0 } else { taps.iter().sum::<f64>() / taps.len() as f64 };
    taps.iter().map(|tap| (tap - mean) as f32).collect()
}

/// The position in 0..side of a position that may lie outside, mirrored at the edges.
const fn reflected(at: isize, side: usize) -> usize {
    let at = at.rem_euclid(2 * side as isize) as usize;
    if at < side { at } else { 2 * side - 1 - at }
}

/// Correlates each row with `taps`.
fn rows(map: &[f32], Size { w, .. }: Size, taps: &[f32]) -> Vec<f32> {
    let radius = taps.len() / 2;
    let mut out = vec![0.0_f32; map.len()];
    out.par_chunks_exact_mut(w).zip(map.par_chunks_exact(w)).for_each(|(out, row)| {
        let at = |i: usize| row[reflected(i as isize - radius as isize, w)];
        let padded: Vec<f32> = (0..w + 2 * radius).map(at).collect();
        for (i, tap) in taps.iter().enumerate() {
            out.iter_mut().zip(&padded[i..]).for_each(|(out, value)| *out += tap * value);
        }
    });
    out
}

/// Correlates each column with `taps`.
fn columns(map: &[f32], Size { h, w }: Size, taps: &[f32]) -> Vec<f32> {
    let radius = taps.len() / 2;
    let mut out = vec![0.0_f32; map.len()];
    out.par_chunks_exact_mut(w).enumerate().for_each(|(y, out)| {
        for (i, tap) in taps.iter().enumerate() {
            let from = reflected((y + i) as isize - radius as isize, h);
            let row = &map[from * w..(from + 1) * w];
            out.iter_mut().zip(row).for_each(|(out, value)| *out += tap * value);
        }
    });
    out
}

/// Means over each cell and its margin.
fn averages(map: &[f32], size: Size) -> Vec<f32> {
    let (h, w) = (size.h, size.w);
    let window = |cell: usize, side: usize| {
        let from = (cell * CELL) as isize - MARGIN as isize;
        (0..(CELL + 2 * MARGIN) as isize).map(move |i| reflected(from + i, side))
    };
    let count = ((CELL + 2 * MARGIN) * (CELL + 2 * MARGIN)) as f32;
    let columns: Vec<Vec<usize>> =
        (0..w.div_ceil(CELL)).map(|cell| window(cell, w).collect()).collect();
    let row = |cell: usize| {
        let mut sums = vec![0.0_f32; w];
        for y in window(cell, h) {
            sums.iter_mut().zip(&map[y * w..(y + 1) * w]).for_each(|(sum, value)| *sum += value);
        }
        let mean = |at: &Vec<usize>| at.iter().map(|x| sums[*x]).sum::<f32>() / count;
        columns.iter().map(mean).collect::<Vec<f32>>()
    };
    (0..h.div_ceil(CELL)).into_par_iter().flat_map_iter(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    /// ∂ᵏ/∂xᵏ of sin(fx), smoothed by a Gaussian, is fᵏ·exp(−σ²f²/2) times sine or cosine.
    #[test]
    fn derivatives_of_waves_are_those_of_calculus() {
        let (f, size) = (0.6_f64, Size::new(1, 65));
        let wave: Vec<f32> = (0..size.w).map(|x| (f * x as f64).sin() as f32).collect();
        let phase = f * 32.0;
        for sigma in SCALES {
            let amplitude = |order| (sigma * f).powi(order) * (-0.5 * (sigma * f).powi(2)).exp();
            let wanted = [
                phase.sin(),
                amplitude(1) / amplitude(0) * phase.cos(),
                -amplitude(2) / amplitude(0) * phase.sin(),
            ]
            .map(|value| amplitude(0) * value);
            for (order, wanted) in wanted.into_iter().enumerate() {
                let taps = taps(sigma, order);
                let across = f64::from(rows(&wave, size, &taps)[32]);
                let down = f64::from(columns(&wave, Size::new(65, 1), &taps)[32]);
                // Sampled and cut off, which the smallest scale notices most.
                assert!(
                    (across - wanted).abs() < 0.02,
                    "σ {sigma}, order {order}: {across} {wanted}"
                );
                assert!((across - down).abs() < 1e-6, "σ {sigma}, order {order}: {across} {down}");
            }
        }
    }

    #[test]
    fn even_images_have_only_a_level() {
        let grid = describe(&[0.25; 3 * 9 * 14], Dims::new(3, 9, 14));
        assert_eq!((grid.depth, grid.values.len()), (depth(3), 5 * 7 * depth(3)));
        for found in grid.values.chunks_exact(grid.depth) {
            assert!((f64::from(found[0]) - 0.25 * 3.0_f64.sqrt()).abs() < 1e-5, "{found:?}");
            // Not exactly 0: the root enlarges the rounding errors.
            assert!(found[1..].iter().all(|value| value.abs() < 2e-3), "{found:?}");
        }
    }

    #[test]
    fn sizes_of_one_pixel_and_odd_sizes_are_described() {
        let mut stream = Stream::new(1, "test");
        for (h, w) in [(1, 1), (1, 50), (3, 2), (7, 5)] {
            let dims = Dims::new(2, h, w);
            let pixels: Vec<f32> = (0..dims.len()).map(|_| stream.normal()).collect();
            let grid = describe(&pixels, dims);
            assert_eq!((grid.rows.len(), grid.columns.len()), (h.div_ceil(2), w.div_ceil(2)));
            assert_eq!(grid.values.len(), grid.rows.len() * grid.columns.len() * depth(2));
            assert!(grid.values.iter().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn noise_is_told_from_smooth_structure() {
        let mut stream = Stream::new(2, "test");
        let noise: Vec<f32> = (0..32 * 32).map(|_| stream.normal()).collect();
        let fine = describe(&noise, Dims::new(1, 32, 32));
        let smooth = columns(
            &rows(&noise, Size::new(32, 32), &taps(2.8, 0)),
            Size::new(32, 32),
            &taps(2.8, 0),
        );
        let coarse = describe(&smooth, Dims::new(1, 32, 32));
        let ratio = |grid: &DescriptorGrid| {
            let sum =
                |value: usize| grid.values.iter().skip(value).step_by(grid.depth).sum::<f32>();
            sum(1) / sum(1 + 2 * ORDERS.len())
        };
        assert!(ratio(&fine) > 1.5 * ratio(&coarse), "{} {}", ratio(&fine), ratio(&coarse));
    }
}
