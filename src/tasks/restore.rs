//! Restoration of images of any size by a convolutional model: overlapping tiles, each as large as its memory allows, joined without a seam.

use super::infer::Inference;
use super::tiles::{Blend, Strip, Tiles};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{Graph, Loaded, Purpose, Store};
use crate::shape::Dims;
use crate::spec::{LayerOp, ModelSpec};

/// Side of a tile at most.
const TILE: usize = 512;
/// Largest halo: what lies farther away hardly counts.
const HALO: usize = 32;

/// A trained model that restores.
#[derive(Debug)]
pub struct Restorer<'a> {
    device: &'a mut Device,
    spec: ModelSpec,
    store: Store,
    channels: usize,
    align: usize,
    halo: usize,
}

/// What sides of its input are multiples of, and how far it looks, in pixels, layer by layer as its strides go.
fn reach(spec: &ModelSpec) -> Result<(usize, usize)> {
    let (mut align, mut halo) = (1, 0);
    for layer in &spec.layers {
        let (kernel, stride, times) = match &layer.op {
            LayerOp::Lista(op) => (op.kernel.0, op.stride.0, 2 * op.iterations - 1),
            LayerOp::Conv2d(op) => (op.kernel.0, op.stride.0, 1),
            LayerOp::ConvTranspose2d(op) => (op.kernel.0, [1, 1], 1),
            LayerOp::MaxPool2d(op) | LayerOp::L2Pool2d(op) => (op.kernel.0, op.stride.unwrap_or(op.kernel).0, 1),
            LayerOp::AvgPool2d(op) => (op.kernel.0, op.stride.unwrap_or(op.kernel).0, 1),
            LayerOp::Linear(_) => {
                return Err(Error::usage(format!(
                    "layer {}: a fully connected layer fixes the image's size; restoring takes a model of convolutions (--preset denoise)",
                    layer.name
                )));
            }
            _ => continue,
        };
        halo += times * (kernel[0].max(kernel[1]) / 2) * align;
        align *= stride[0].max(stride[1]);
    }
    Ok((align, halo.min(HALO)))
}

impl<'a> Restorer<'a> {
    /// Puts a model on a device.
    ///
    /// # Errors
    /// When it works on images of one size only.
    pub fn new(device: &'a mut Device, loaded: &Loaded) -> Result<Self> {
        let spec = loaded.graph.spec.clone();
        let (align, halo) = reach(&spec)?;
        let store = loaded.place(device, &loaded.graph, Purpose::Infer)?;
        Ok(Self { device, spec, store, channels: loaded.graph.nodes[0].dims.c, align, halo })
    }

    /// Restores an image (H,W,C; 0–1 scale) with noise of standard deviation `sigma` on the 0–255 scale. `read` adds the given columns of a row to a
    /// vector; `write` is given rows of the result from above, not clipped. A gray model takes the channels of a colour image one by one.
    ///
    /// # Errors
    /// When channels do not suit, or the device fails.
    pub fn denoise(
        &mut self,
        [h, w, c]: [usize; 3],
        sigma: f64,
        mut read: impl FnMut(usize, std::ops::Range<usize>, &mut Vec<f32>),
        mut write: impl FnMut(Strip) -> Result<()>,
    ) -> Result<()> {
        if self.channels != 1 && self.channels != c {
            return Err(Error::usage(format!("the model takes {} channels, the image has {c}", self.channels)));
        }
        let tiles = Tiles::new(h, w, TILE, self.halo, self.align)?;
        let (tile_h, tile_w) = tiles.size();
        let graph = Graph::new(&self.spec, Dims::new(self.channels, tile_h, tile_w))?;
        graph.check_autoencoder()?;
        let mut inference = Inference::new(&graph, &self.store);
        inference.level = sigma;
        let mut blend = Blend::new(&tiles, c);
        for tile in tiles.iter() {
            let pixels = tiles.cut(&tile, c, &mut read);
            let restored = if self.channels == c {
                inference.run_output(self.device, &pixels)?
            } else {
                let mut restored = vec![0.0; pixels.len()];
                for channel in 0..c {
                    let plane: Vec<f32> = pixels.iter().skip(channel).step_by(c).copied().collect();
                    let plane = inference.run_output(self.device, &plane)?;
                    restored.iter_mut().skip(channel).step_by(c).zip(plane).for_each(|(to, from)| *to = from);
                }
                restored
            };
            if let Some(strip) = blend.add(&tile, &restored) {
                write(strip)?;
            }
        }
        inference.release(self.device);
        Ok(())
    }

    /// [`Restorer::denoise`] of an image in memory.
    ///
    /// # Errors
    /// As there.
    pub fn denoise_pixels(&mut self, [h, w, c]: [usize; 3], sigma: f64, pixels: &[f32]) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(pixels.len());
        let read = |y: usize, columns: std::ops::Range<usize>, row: &mut Vec<f32>| {
            row.extend_from_slice(&pixels[(y * w + columns.start) * c..(y * w + columns.end) * c]);
        };
        self.denoise([h, w, c], sigma, read, |strip| {
            out.extend(strip.pixels);
            Ok(())
        })?;
        Ok(out)
    }
}
