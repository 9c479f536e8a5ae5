//! Filters of whitening layers, computed from images before the first step.
//!
//! W = E·(D + ε)^(−½)·Eᵀ for the covariance E·D·Eᵀ of patches (zero-phase component analysis; Bell
//! & Sejnowski, "The Independent Components of Natural Scenes are Edge Filters", 1997). The rows of
//! W for the central pixel of a patch are the filters of a convolution.

use nalgebra::{DMatrix, SymmetricEigen};
use rayon::prelude::*;

use crate::data::patches::{cut, grid, grid_of};
use crate::data::{Images, Pixels};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::Inference;
use crate::model::{self, Graph, Purpose, Store};
use crate::rng::Stream;
use crate::spec::{Config, LayerOp};

/// Maximum number of images used.
const IMAGES: usize = 512;
/// Number of patches per image.
const PATCHES: usize = 100;

/// Computes the filters of every whitening layer whose filters are all 0, which means that no other
/// model supplied them.
pub(super) fn fit(
    device: &mut Device,
    graph: &Graph,
    store: &Store,
    train: &Pixels,
    config: &Config,
) -> Result<()> {
    for node in graph.nodes.iter().filter(|node| matches!(node.op, Some(LayerOp::Whiten(_)))) {
        let [weight, shift, scale] =
            [node.weight, node.bias, node.scale].map(|param| param.expect("inference added it"));
        if store.read_param(device, graph, weight)?.iter().any(|w| *w != 0.0) {
            continue;
        }
        let maps = maps(device, graph, store, node.inputs[0], train, config.seed)?;
        let Some(LayerOp::Whiten(spec)) = node.op else { unreachable!("it was asked for") };
        let found = filters(&maps, node.dims, spec.kernel.0, spec.eps, config.seed);
        let all = [(weight, found.weight), (shift, found.shift), (scale, found.scale)];
        for (param, values) in all {
            if values.iter().any(|value| !value.is_finite()) {
                return Err(Error::usage(format!(
                    "layer {}: the images are constant and cannot be whitened; check the data",
                    node.name
                )));
            }
            device.write(store.weight(param), &graph.params[param].pack(&values));
        }
    }
    Ok(())
}

/// Evaluates a node on some of the images; samples are in memory order.
fn maps(
    device: &mut Device,
    graph: &Graph,
    store: &Store,
    node: usize,
    train: &Pixels,
    seed: u64,
) -> Result<Vec<f32>> {
    let dims = graph.nodes[0].dims;
    let x = match train {
        Pixels::Resident(images) => {
            let chosen = grid(images, dims.size(), IMAGES, seed);
            cut(images, &chosen, dims.size())
        }
        Pixels::Streamed(catalogue) => {
            let chosen = grid_of(train.sizes(), dims.size(), IMAGES, seed);
            let images: Images = catalogue.windows(&chosen, dims.size()).collect()?;
            (0..images.len()).flat_map(|image| images.image_f32(image)).collect()
        }
    };
    if node == 0 {
        return Ok(x);
    }
    let spec = model::encoder(graph, Some(&graph.nodes[node].name), None)?;
    let before = Graph::new(&spec, dims)?;
    let values = Store::new(device, &before, Purpose::Infer)?;
    store.copy_matching(device, graph, &values, &before)?;
    let mut inference = Inference::new(&before, &values);
    let size = inference.batch(device) * dims.len();
    let mut all = Vec::new();
    for x in x.chunks(size) {
        all.extend(inference.run_code(device, x, &[])?);
    }
    Ok(all)
}

/// Parameters of a whitening layer, in natural order.
struct Filters {
    /// [C, C, R, S]
    weight: Vec<f32>,
    /// \[C\]: −mean · scale.
    shift: Vec<f32>,
    /// [C, 1, 1, 1]: the same value for all channels, which makes the mean variance 1.
    scale: Vec<f32>,
}

fn filters(
    maps: &[f32],
    dims: crate::shape::Dims,
    [r, s]: [usize; 2],
    eps: f64,
    seed: u64,
) -> Filters {
    let c = dims.c;
    let count = (maps.len() / c) as f64;
    let mean: Vec<f64> = (0..c)
        .map(|at| maps.iter().skip(at).step_by(c).map(|x| f64::from(*x)).sum::<f64>() / count)
        .collect();
    let squares: f64 = maps
        .chunks_exact(c)
        .flat_map(|x| x.iter().zip(&mean).map(|(x, mean)| (f64::from(*x) - mean).powi(2)))
        .sum();
    let scale = (squares / maps.len() as f64).sqrt().recip();
    // Patches have the order (R, S, C).
    let (rows, columns) = ((dims.h + 1).saturating_sub(r), (dims.w + 1).saturating_sub(s));
    let len = r * s * c;
    let covariance = if rows * columns == 0 {
        // The window is larger than the map. Values outside count as the mean, which is 0 after
        // centering.
        covariance(maps, dims, [r, s], &mean, scale, |_| {
            (0..dims.area()).map(|at| (at / dims.w, at % dims.w)).collect()
        })
    } else {
        covariance(maps, dims, [r, s], &mean, scale, |image| {
            let mut stream = Stream::new(seed, "whitening").skip((2 * PATCHES * image) as u64);
            (0..PATCHES)
                .map(|_| (stream.below(rows) + r / 2, stream.below(columns) + s / 2))
                .collect()
        })
    };
    let eigen = SymmetricEigen::new(DMatrix::from_vec(len, len, covariance));
    let factors: Vec<f64> =
        eigen.eigenvalues.iter().map(|value| (value.max(0.0) + eps).sqrt().recip()).collect();
    let entry = |i: usize, j: usize| -> f64 {
        (0..len).map(|k| eigen.eigenvectors[(i, k)] * factors[k] * eigen.eigenvectors[(j, k)]).sum()
    };
    let middle = (r / 2 * s + s / 2) * c;
    let mut weight = Vec::with_capacity(c * len);
    for k in 0..c {
        for channel in 0..c {
            weight.extend((0..r * s).map(|tap| entry(middle + k, tap * c + channel) as f32));
        }
    }
    Filters {
        weight,
        shift: mean.iter().map(|mean| (-mean * scale) as f32).collect(),
        scale: vec![scale as f32; c],
    }
}

/// Computes the covariance of scaled patches around the positions that `places` returns for each
/// image.
fn covariance(
    maps: &[f32],
    dims: crate::shape::Dims,
    [r, s]: [usize; 2],
    mean: &[f64],
    scale: f64,
    places: impl Fn(usize) -> Vec<(usize, usize)> + Sync,
) -> Vec<f64> {
    let (c, len) = (dims.c, r * s * dims.c);
    let images: Vec<&[f32]> = maps.chunks_exact(dims.len()).collect();
    // The number of parts does not depend on the number of threads, so sums are reproducible.
    let parts: Vec<(Vec<f64>, usize)> = images
        .par_chunks(32)
        .enumerate()
        .map(|(part, images)| {
            let (mut sums, mut count, mut patch) = (vec![0.0; len * len], 0, vec![0.0; len]);
            for (i, image) in images.iter().enumerate() {
                for (y, x) in places(part * 32 + i) {
                    for (tap, patch) in patch.chunks_exact_mut(c).enumerate() {
                        let (row, column) =
                            ((y + tap / s).wrapping_sub(r / 2), (x + tap % s).wrapping_sub(s / 2));
                        if row < dims.h && column < dims.w {
                            let at = &image[(row * dims.w + column) * c..][..c];
                            patch
                                .iter_mut()
                                .zip(at.iter().zip(mean))
                                .for_each(|(p, (x, mean))| *p = (f64::from(*x) - mean) * scale);
                        } else {
                            patch.fill(0.0);
                        }
                    }
                    for (a, sums) in patch.iter().zip(sums.chunks_exact_mut(len)) {
                        sums.iter_mut().zip(&patch).for_each(|(sum, b)| *sum += a * b);
                    }
                    count += 1;
                }
            }
            (sums, count)
        })
        .collect();
    let count: usize = parts.iter().map(|part| part.1).sum();
    (0..len * len)
        .map(|i| parts.iter().map(|part| part.0[i]).sum::<f64>() / count.max(1) as f64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Dims;

    #[test]
    fn whitened_noise_is_white() {
        // Noise smoothed along rows, so that neighbours are correlated.
        let dims = Dims::new(2, 16, 16);
        let mut stream = Stream::new(1, "noise");
        let mut maps = Vec::new();
        for _ in 0..200 {
            let noise: Vec<f32> = (0..16 * 18 * 2).map(|_| stream.normal()).collect();
            for (row, column, channel) in (0..16).flat_map(|row| {
                (0..16).flat_map(move |column| (0..2).map(move |c| (row, column, c)))
            }) {
                let at = |shift: usize| noise[(row * 18 + column + shift) * 2 + channel];
                maps.push(0.4 + 0.1 * (at(0) + at(1) + at(2)));
            }
        }
        let found = filters(&maps, dims, [5, 5], 1e-3, 7);
        let correlation = |of: &dyn Fn(usize, usize) -> f64| {
            let (mut same, mut next) = (0.0, 0.0);
            for row in 4..12 {
                for column in 4..11 {
                    same += of(row, column).powi(2);
                    next += of(row, column) * of(row, column + 1);
                }
            }
            next / same
        };
        let (mut before, mut after) = (0.0, 0.0);
        for image in maps.chunks_exact(dims.len()) {
            let x = |row: usize, column: usize, c: usize| {
                f64::from(image[(row * 16 + column) * 2 + c]) * f64::from(found.scale[c])
                    + f64::from(found.shift[c])
            };
            let y = |row: usize, column: usize| -> f64 {
                let taps = (0..2).flat_map(|c| (0..25).map(move |tap| (c, tap)));
                taps.map(|(c, tap)| {
                    f64::from(found.weight[c * 25 + tap])
                        * x(row + tap / 5 - 2, column + tap % 5 - 2, c)
                })
                .sum()
            };
            before += correlation(&|row, column| x(row, column, 0)) / 200.0;
            after += correlation(&y) / 200.0;
        }
        assert!(before > 0.5 && after.abs() < 0.1, "{before} {after}");
    }
}
