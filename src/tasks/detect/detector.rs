//! Detection of objects in images of any size.

use rayon::prelude::*;

use super::frame::{Frame, letterbox};
use crate::annotations::boxes::{
    Bounds, Detection, MAX_DETECTIONS, MAX_OVERLAP, non_max_suppression,
};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::{Inference, MemoryInUse};
use crate::model::{Graph, HEAD, Store};
use crate::ops::{CELL, SIZES};
use crate::shape::Dims;

/// A model with a grid head, with its values on a device.
#[derive(Debug)]
pub struct Detector<'a> {
    inference: Inference<'a>,
}

impl<'a> Detector<'a> {
    /// A detector with the values of a model on a device.
    ///
    /// # Errors
    /// When the model is not a detector.
    pub fn new(graph: &'a Graph, store: &Store) -> Result<Self> {
        Self::check(graph)?;
        Ok(Self { inference: Inference::new(graph, store) })
    }

    /// Checks that a model has a grid head.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(graph: &Graph) -> Result<()> {
        let (input, output) = (graph.nodes[0].dims, &graph.nodes[graph.output]);
        let classes = graph.spec.classes.len();
        let grid = output.dims.h > 0
            && input.h == input.w
            && input.h.is_multiple_of(output.dims.h)
            && output.dims.h == output.dims.w;
        if output.name != HEAD || classes == 0 || output.dims.c != CELL + classes || !grid {
            return Err(Error::usage(
                "the model does not detect objects; train one that does with `csae detect train`",
            ));
        }
        Ok(())
    }

    /// Names of the classes.
    pub fn classes(&self) -> &'a [String] {
        &self.inference.graph.spec.classes
    }

    /// Side of the square that images are scaled into, in pixels.
    pub fn side(&self) -> usize {
        self.inference.graph.nodes[0].dims.h
    }

    /// Chooses the largest batch that fits into memory; see [`Inference::fit`].
    ///
    /// # Errors
    /// When not even one image fits.
    pub fn fit(&mut self, device: &Device, parameters: u64, data: u64) -> Result<()> {
        self.inference.fit(device, MemoryInUse { parameters, data })
    }

    /// Number of images in a batch.
    pub fn batch(&self, device: &Device) -> usize {
        self.inference.batch(device)
    }

    /// Finds the objects in images (H,W,C; bytes) whose score is at least `min_score`, sorted by
    /// score, highest first.
    ///
    /// # Errors
    /// When the device fails.
    pub fn find(
        &mut self,
        device: &mut Device,
        images: &[(&[u8], Dims)],
        min_score: f64,
    ) -> Result<Vec<Vec<Detection>>> {
        let graph = self.inference.graph;
        let (side, grid) = (self.side(), graph.nodes[graph.output].dims);
        let classes = graph.spec.classes.len();
        let mut out = Vec::with_capacity(images.len());
        for part in images.chunks(self.batch(device)) {
            let squares: Vec<(Vec<f32>, Frame)> = part
                .par_iter()
                .map(|(pixels, dims)| letterbox(pixels, *dims, side, 1.0, [0.5, 0.5]))
                .collect();
            let x: Vec<f32> =
                squares.iter().flat_map(|(pixels, _)| pixels.iter().copied()).collect();
            let y = self.inference.run_output(device, &x, &[])?;
            for ((y, (_, frame)), (_, dims)) in y.chunks_exact(grid.len()).zip(&squares).zip(part) {
                let cells = y.chunks_exact(CELL + classes).enumerate();
                let stride = side as f64 / grid.w as f64;
                let found = cells.filter_map(|(at, cell)| {
                    let one = decode(cell, [at / grid.w, at % grid.w], stride)?;
                    let bounds = frame.to_image(&one.bounds).clipped(dims.size());
                    (one.score >= min_score && bounds.area() > 0.0)
                        .then_some(Detection { bounds, ..one })
                });
                out.push(non_max_suppression(found.collect(), MAX_OVERLAP, MAX_DETECTIONS));
            }
        }
        Ok(out)
    }
}

/// Decodes the output of a cell: the most likely class, the score (the probability of an object
/// times the probability of the class), and the box in pixels of the square. `None` if the score is
/// not finite.
fn decode(cell: &[f32], [row, column]: [usize; 2], stride: f64) -> Option<Detection> {
    let value = |k: usize| f64::from(cell[k]);
    let logits = &cell[CELL..];
    let class = (1..logits.len())
        .fold(0, |best, class| if logits[class] > logits[best] { class } else { best });
    let total: f64 = logits.iter().map(|logit| f64::from(logit - logits[class]).exp()).sum();
    let score = 1.0 / (1.0 + (-value(0)).exp()) / total;
    let size = [3, 4].map(|k| value(k).clamp(-SIZES, SIZES).exp() * stride);
    let middle =
        [(column as f64 + 0.5 + value(1)) * stride, (row as f64 + 0.5 + value(2)) * stride];
    let bounds = Bounds {
        left: middle[0] - size[0] / 2.0,
        top: middle[1] - size[1] / 2.0,
        right: middle[0] + size[0] / 2.0,
        bottom: middle[1] + size[1] / 2.0,
    };
    score.is_finite().then_some(Detection { class, score, bounds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_decoded_to_a_box() {
        let cell = [0.0, 0.5, -0.5, 2.0_f32.ln(), 0.0, 0.0, 0.0];
        let found = decode(&cell, [2, 1], 8.0).unwrap();
        assert!((found.score - 0.25).abs() < 1e-6 && found.class == 0);
        // The centre is at (2, 2) cells; the box is 2 cells wide and 1 cell high.
        let Bounds { left, top, right, bottom } = found.bounds;
        let expected = [8.0, 12.0, 24.0, 20.0];
        assert!(
            [left, top, right, bottom].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5),
            "{found:?}"
        );
        assert!(decode(&[f32::NAN; 6], [0, 0], 8.0).is_none());
    }
}
