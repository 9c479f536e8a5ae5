//! Reconstruction of images of any size. A convolutional model encodes the whole image. A model of
//! fixed input size reconstructs overlapping tiles, which are blended by a smooth window.

use crate::device::Device;
use crate::error::Result;
use crate::infer::batches::Inference;
use crate::infer::conditions::Condition;
use crate::infer::restore::Restorer;
use crate::infer::tiles::mirrored;
use crate::model::{Graph, tile_geometry};
use crate::shape::{Dims, Size};

/// Positions of tiles of `size` along a side of `length` ≥ `size`. Neighbours are at most
/// `quarters`/4 of `size` apart; the last tile ends at the end of the side.
pub(crate) fn starts(length: usize, size: usize, quarters: usize) -> Vec<usize> {
    let last = length - size;
    let gaps = last.div_ceil((size * quarters / 4).max(1));
    (0..=gaps).map(|i| i * last / gaps.max(1)).collect()
}

/// Weights of the pixels of a tile along one side: a raised cosine. The 10⁻³ keeps the total weight
/// of border pixels, which a single tile covers, away from 0.
pub(crate) fn window(size: usize) -> Vec<f64> {
    let cosine = |i: usize| (std::f64::consts::TAU * (i as f64 + 0.5) / size as f64).cos();
    (0..size).map(|i| 0.5 - 0.5 * cosine(i) + 1e-3).collect()
}

/// Whether a model has one code for an image of any size. Otherwise an image is encoded in tiles of
/// the model's input size: the model has a fully connected layer, or a selection that compares the
/// units of a whole sample, whose number is for samples of that size.
pub fn encodes_whole_images(graph: &Graph) -> bool {
    tile_geometry(graph).is_ok_and(|geometry| !geometry.whole)
}

/// Memory in bytes that [`image()`] and its caller need for an image of `size`, besides the model's
/// batches: the image as bytes and as f32, padded to the input size, the weighted sum and its
/// weights in f64, and the result as f32 and as bytes.
pub fn bytes(dims: Dims, size: Size) -> u64 {
    let (area, full, c) =
        (size.area() as u64, size.at_least(dims.size()).area() as u64, dims.c as u64);
    area * c * (1 + 4 + 4 + 1) + full * (c * (4 + 8) + 8)
}

/// Reconstructs an image (H,W,C; 0…1) of any size. For a model of fixed input size, a smaller image
/// is padded by mirroring.
///
/// # Errors
/// When the device fails or has no memory for the buffers.
pub fn image(
    device: &mut Device,
    inference: &mut Inference,
    pixels: &[f32],
    size: Size,
) -> Result<Vec<f32>> {
    if encodes_whole_images(inference.graph) {
        let restorer = Restorer::new(inference.graph, &inference.store)?;
        let c = restorer.channels();
        let mut all = Vec::with_capacity(pixels.len());
        restorer.restore(
            device,
            Dims::of(size, c),
            &Condition::default(),
            |y, columns, row| {
                let row_start = y * size.w;
                row.extend_from_slice(
                    &pixels[(row_start + columns.start) * c..(row_start + columns.end) * c],
                );
            },
            |strip| {
                all.extend(strip.pixels);
                Ok(())
            },
        )?;
        return Ok(all);
    }
    by_tiles(device, inference, pixels, size, 1)
}

/// [`image()`] with tiles at most `quarters`/4 of their size apart.
pub(crate) fn by_tiles(
    device: &mut Device,
    inference: &mut Inference,
    pixels: &[f32],
    size: Size,
    quarters: usize,
) -> Result<Vec<f32>> {
    let dims = inference.graph.nodes[0].dims;
    let c = dims.c;
    let full = size.at_least(dims.size());
    let padded = mirror(pixels, Dims::of(size, c), full);
    let (wy, wx) = (window(dims.h), window(dims.w));
    let mut sum = vec![0.0_f64; full.area() * c];
    let mut weight = vec![0.0_f64; full.area()];
    let tiles: Vec<(usize, usize)> = starts(full.h, dims.h, quarters)
        .iter()
        .flat_map(|y| starts(full.w, dims.w, quarters).into_iter().map(|x| (*y, x)))
        .collect();
    for batch in tiles.chunks(inference.batch(device)) {
        let mut x = Vec::with_capacity(batch.len() * dims.len());
        for (top, left) in batch {
            for row in *top..top + dims.h {
                let start = (row * full.w + left) * c;
                x.extend_from_slice(&padded[start..start + dims.w * c]);
            }
        }
        let output = inference.run(device, &x)?;
        for ((top, left), tile) in batch.iter().zip(output.y.chunks(dims.len())) {
            for i in 0..dims.h {
                for j in 0..dims.w {
                    let factor = wy[i] * wx[j];
                    let at = (top + i) * full.w + left + j;
                    weight[at] += factor;
                    for ch in 0..c {
                        sum[at * c + ch] += factor * f64::from(tile[(i * dims.w + j) * c + ch]);
                    }
                }
            }
        }
    }
    let mut out = Vec::with_capacity(size.area() * c);
    for row in 0..size.h {
        for at in row * full.w..row * full.w + size.w {
            out.extend((0..c).map(|ch| (sum[at * c + ch] / weight[at]) as f32));
        }
    }
    Ok(out)
}

/// Pads an image (H,W,C) at the right and the bottom to the size `to` by mirroring; the edge pixel
/// is repeated.
pub(crate) fn mirror(pixels: &[f32], from: Dims, to: Size) -> Vec<f32> {
    let mut out = Vec::with_capacity(to.area() * from.c);
    for i in 0..to.h {
        for j in 0..to.w {
            let at = from.offset(0, mirrored(i, from.h), mirrored(j, from.w));
            out.extend_from_slice(&pixels[at..at + from.c]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_side() {
        for length in 8..60 {
            let all = starts(length, 8, 1);
            assert_eq!((all[0], all[all.len() - 1]), (0, length - 8));
            assert!(
                all.windows(2).all(|pair| pair[1] - pair[0] <= 2 && pair[1] > pair[0]),
                "{length}: {all:?}"
            );
        }
    }

    #[test]
    fn mirroring_repeats_the_edge_pixel() {
        assert_eq!(
            mirror(&[1.0, 2.0, 3.0], Dims::new(1, 1, 3), Size::new(1, 8)),
            [1.0, 2.0, 3.0, 3.0, 2.0, 1.0, 1.0, 2.0]
        );
    }
}
