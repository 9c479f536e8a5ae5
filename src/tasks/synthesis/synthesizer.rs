//! An autoencoder of colour images, prepared for texture synthesis and style transfer: it accepts
//! images of any size.

use crate::advice::Advice;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{self, Graph, LoadedModel, Purpose, Store, TileGeometry};
use crate::report::picture::Picture;
use crate::shape::{Dims, Size};
use crate::spec::{LayerOp, ModelSpec, Pad, Pair};
use crate::tasks::synthesis::RGB;
use crate::tasks::synthesis::extractor::{MapExtractor, Output, SHIFT, planned_bytes};
use crate::tasks::synthesis::frame::{Border, Frame};
use crate::tasks::synthesis::moments::Moments;

/// An autoencoder whose encoder has no padding, so that every position of its maps depends on image
/// pixels only.
#[derive(Debug)]
pub struct Synthesizer {
    loaded: LoadedModel,
    /// Encoder and decoder.
    autoencoder: ModelSpec,
    encoder: ModelSpec,
    /// Downsampling factor of the code.
    pub stride: usize,
    /// Pixels that the encoder needs beyond each edge of an image, so that the decoded code covers
    /// it.
    reach: usize,
    /// Upper bound on the pixels at each edge of a decoded picture that depend on the decoder's
    /// padding.
    margin: usize,
    /// Height and width of the code's receptive field.
    pub field: Size,
}

/// The model with frozen parameters and without padding in the layers up to the code.
fn without_padding(spec: &ModelSpec) -> Result<ModelSpec> {
    let mut spec = spec.clone();
    let code = spec.layers.iter().position(|layer| layer.defines(&spec.code)).unwrap_or(0);
    for (i, layer) in spec.layers.iter_mut().enumerate() {
        let name = layer.name.clone();
        match &mut layer.op {
            LayerOp::Conv2d(op) => {
                layer.frozen = true;
                if i <= code {
                    op.padding = Pad::Fixed(Pair::both(0));
                }
            }
            LayerOp::ConvTranspose2d(_) if i > code => layer.frozen = true,
            LayerOp::MaxPool2d(op) if i <= code => op.0.padding = Pair::both(0),
            LayerOp::L2Pool2d(op) if i <= code => op.0.padding = Pair::both(0),
            LayerOp::AvgPool2d(op) if i <= code => op.padding = Pair::both(0),
            LayerOp::UpsampleNearest2d(_) if i > code => {}
            LayerOp::Activation(_) | LayerOp::Dropout(_) => {}
            _ => {
                return Err(Error::usage(format!(
                    "layer {name}: textures and styles need a model of convolutions, pooling, \
                     activations and upsampling only, such as one trained with the preset paint-3"
                )));
            }
        }
    }
    Ok(spec)
}

impl Synthesizer {
    /// Prepares a model.
    ///
    /// # Errors
    /// If it is not an autoencoder of RGB images, or has layers that do not work at every size.
    pub fn new(loaded: LoadedModel) -> Result<Self> {
        let graph = &loaded.graph;
        graph.check_autoencoder()?;
        graph.check_reconstructs_images()?;
        if graph.nodes[0].dims.c != 3 {
            return Err(Error::usage(format!(
                "the model takes gray images; use one of colour images, {}",
                Advice::ColorModel
            )));
        }
        let autoencoder = without_padding(&graph.spec)?;
        let at = |side: usize| Graph::new(&autoencoder, Dims::new(3, side, side));
        let TileGeometry { align, halo: margin, .. } = model::tile_geometry(graph)?;
        // Test sizes that are large enough for any layers: several times the halo, and a multiple
        // of the alignment.
        let side = 4 * (margin + 8) * align.max(8);
        let (small, large) = (at(side)?, at(side + align)?);
        let field = model::receptive_field(&small, small.code, 0, 0).size();
        let lost = |graph: &Graph| {
            [0, 1].map(|i| {
                let of = |dims: Dims| [dims.h, dims.w][i];
                of(graph.nodes[0].dims).checked_sub(of(graph.nodes[graph.output].dims))
            })
        };
        let stride = [small.nodes[small.code].dims, large.nodes[large.code].dims];
        let even = lost(&small)[0].filter(|lost| lost.is_multiple_of(2));
        let (Some(lost_pixels), true) = (
            even,
            lost(&small) == [even, even]
                && lost(&large) == [even, even]
                && stride[1].h == stride[0].h + 1,
        ) else {
            return Err(Error::usage(
                "without padding in its encoder, the model does not reconstruct the centre of an \
                 image; use odd kernel sizes and pooling without overlap, as in the preset paint-3",
            ));
        };
        let encoder = model::encoder(&small, Some(&small.nodes[small.code].name), None)?;
        Ok(Self {
            stride: align,
            reach: lost_pixels / 2,
            margin: margin.next_multiple_of(align),
            field,
            autoencoder,
            encoder,
            loaded,
        })
    }

    /// Copies the model's parameters to a device.
    ///
    /// # Errors
    /// If the device fails or its memory is too small.
    pub fn place(&self, device: &mut Device) -> Result<Store> {
        let graph = Graph::new(&self.autoencoder, self.loaded.graph.nodes[0].dims)?;
        self.loaded.place(device, &graph, Purpose::Infer)
    }

    /// Height and width of the smallest image whose moments can be computed. It contains the two
    /// positions of a correlation at a distance.
    pub fn min_size(&self) -> Size {
        self.field.map(|side| side + SHIFT * self.stride)
    }

    /// Checks that an image of `size` is large enough.
    ///
    /// # Errors
    /// If it is smaller than [`Self::min_size`].
    pub fn check_size(&self, size: Size) -> Result<()> {
        let min = self.min_size();
        if !min.fits(size) {
            return Err(Error::usage(format!(
                "{size} pixels are too small for the encoder, which needs at least {min}; use a \
                 larger image"
            )));
        }
        Ok(())
    }

    /// An extractor for the moments of every convolution of the encoder and, depending on `output`,
    /// their gradient. Without `border`, the image is not padded.
    ///
    /// # Errors
    /// As [`MapExtractor::new`].
    pub fn statistics_extractor(
        &self,
        device: &mut Device,
        store: &Store,
        size: Size,
        border: Option<Border>,
        output: &Output,
        reserved: u64,
    ) -> Result<MapExtractor> {
        let Extraction { graph, layers, frame } = self.statistics(size, border)?;
        MapExtractor::new(device, (&graph, store), &layers, frame, output, reserved)
    }

    /// An extractor for the moments of the code and the decoder's output for a changed code.
    ///
    /// # Errors
    /// As [`MapExtractor::new`].
    pub fn decoding_extractor(
        &self,
        device: &mut Device,
        store: &Store,
        size: Size,
        border: Border,
        reserved: u64,
    ) -> Result<MapExtractor> {
        let Extraction { graph, layers, frame } = self.decoding(size, border)?;
        MapExtractor::new(device, (&graph, store), &layers, frame, &Output::Decoded, reserved)
    }

    /// The moments of a picture's code, without padding.
    ///
    /// # Errors
    /// As [`MapExtractor::new`].
    pub fn code_moments(
        &self,
        device: &mut Device,
        store: &Store,
        picture: &Picture,
    ) -> Result<Moments> {
        let Extraction { graph, layers, frame } = self.code(picture.dims.size())?;
        let extractor = MapExtractor::new(device, (&graph, store), &layers, frame, &PLAIN, 0)?;
        Ok(extractor.statistics(device, &picture.pixels)?.0.remove(0))
    }

    /// Bytes on the device of a [`Self::statistics_extractor`].
    pub fn statistics_bytes(
        &self,
        store: &Store,
        size: Size,
        border: Option<Border>,
        output: &Output,
    ) -> Result<u64> {
        let Extraction { graph, layers, .. } = self.statistics(size, border)?;
        planned_bytes((&graph, store), &layers, output)
    }

    /// Bytes on the device of a [`Self::decoding_extractor`].
    pub fn decoding_bytes(&self, store: &Store, size: Size, border: Border) -> Result<u64> {
        let Extraction { graph, layers, .. } = self.decoding(size, border)?;
        planned_bytes((&graph, store), &layers, &Output::Decoded)
    }

    /// Bytes on the device while [`Self::code_moments`] runs.
    pub fn code_bytes(&self, store: &Store, size: Size) -> Result<u64> {
        let Extraction { graph, layers, .. } = self.code(size)?;
        planned_bytes((&graph, store), &layers, &PLAIN)
    }

    fn statistics(&self, size: Size, border: Option<Border>) -> Result<Extraction> {
        let frame = border.map_or_else(
            || Frame::unpadded(size),
            |border| Frame::new(size, border, self.reach, self.stride),
        );
        let graph = Graph::new(&self.encoder, Dims::of(frame.padded(), RGB))?;
        let convolutions = |node: &usize| matches!(graph.nodes[*node].op, Some(LayerOp::Conv2d(_)));
        let layers = (1..graph.nodes.len()).filter(convolutions).collect();
        Ok(Extraction { graph, layers, frame })
    }

    fn decoding(&self, size: Size, border: Border) -> Result<Extraction> {
        let frame = Frame::new(size, border, self.reach + self.margin, self.stride);
        let graph = Graph::new(&self.autoencoder, Dims::of(frame.padded(), RGB))?;
        Ok(Extraction { layers: vec![graph.code], graph, frame })
    }

    fn code(&self, size: Size) -> Result<Extraction> {
        let frame = Frame::unpadded(size);
        let graph = Graph::new(&self.encoder, Dims::of(size, RGB))?;
        Ok(Extraction { layers: vec![graph.code], graph, frame })
    }
}

/// The moments of each position alone, and nothing else.
const PLAIN: Output = Output::Statistics { shifted: false };

/// A model at the size of an image, and the layers to observe.
struct Extraction {
    graph: Graph,
    layers: Vec<usize>,
    frame: Frame,
}
