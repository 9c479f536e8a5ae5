//! An autoencoder of colour images that works on images of any size, as textures and styles need
//! it.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{self, Graph, LoadedModel, Purpose, Store, TileGeometry};
use crate::report::picture::Picture;
use crate::shape::Dims;
use crate::spec::{LayerOp, ModelSpec, Pad, Pair};
use crate::tasks::synthesis::extractor::{APART, MapExtractor, Then};
use crate::tasks::synthesis::frame::{Border, Frame};
use crate::tasks::synthesis::moments::Moments;

/// An autoencoder whose encoder pads nothing: every place of its maps is of the image alone.
#[derive(Debug)]
pub struct Synthesizer {
    loaded: LoadedModel,
    /// Encoder and decoder.
    whole: ModelSpec,
    encoder: ModelSpec,
    /// By how much the code is smaller than the image.
    pub stride: usize,
    /// Pixels on each side of an image that the encoder needs for what lies between them.
    reach: usize,
    /// Pixels on each side of a picture that the decoder's padding spoils, at most.
    margin: usize,
    /// Height and width of what a place of the code sees.
    pub field: [usize; 2],
}

/// The layers up to the code without padding, their parameters frozen; those behind it frozen too.
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
            LayerOp::MaxPool2d(op) | LayerOp::L2Pool2d(op) if i <= code => {
                op.padding = Pair::both(0)
            }
            LayerOp::AvgPool2d(op) if i <= code => op.padding = Pair::both(0),
            LayerOp::UpsampleNearest2d(_) if i > code => {}
            LayerOp::Activation(_) | LayerOp::Dropout(_) => {}
            _ => {
                return Err(Error::usage(format!(
                    "layer {name}: textures and styles take convolutions, pooling, activations and upsampling; train such a model by --preset paint-3"
                )));
            }
        }
    }
    Ok(spec)
}

impl Synthesizer {
    /// Of a model.
    ///
    /// # Errors
    /// When it is no autoencoder of RGB images, or has layers that do not work at any size.
    pub fn new(loaded: LoadedModel) -> Result<Self> {
        let graph = &loaded.graph;
        graph.check_autoencoder()?;
        graph.check_reconstructs_images()?;
        if graph.nodes[0].dims.c != 3 {
            return Err(Error::usage(
                "the model is of gray images; train one of colour images, as by csae train photos --preset paint-3 --set model.input=[3,64,64]",
            ));
        }
        let whole = without_padding(&graph.spec)?;
        let at = |side: usize| Graph::new(&whole, Dims::new(3, side, side));
        let TileGeometry { align, halo: margin } = model::tile_geometry(graph)?;
        // large enough for whatever the layers are
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
                "the model does not give back the middle of an image when its encoder is not padded; let its kernels be odd and its poolings side by side, as in --preset paint-3",
            ));
        };
        let encoder = model::encoder(&small, Some(&small.nodes[small.code].name), None)?;
        Ok(Self {
            stride: align,
            reach: lost_pixels / 2,
            margin: margin.next_multiple_of(align),
            field: field.into(),
            whole,
            encoder,
            loaded,
        })
    }

    /// The model's values on a device.
    pub fn place(&self, device: &mut Device) -> Result<Store> {
        let graph = Graph::new(&self.whole, self.loaded.graph.nodes[0].dims)?;
        self.loaded.place(device, &graph, Purpose::Infer)
    }

    /// Height and width of the smallest image that moments are of: places that lie apart are in it.
    pub fn least(&self) -> [usize; 2] {
        self.field.map(|side| side + APART * self.stride)
    }

    /// Fails for an image that is smaller than that.
    pub fn check_size(&self, [h, w]: [usize; 2]) -> Result<()> {
        let [least_h, least_w] = self.least();
        if h < least_h || w < least_w {
            return Err(Error::usage(format!(
                "{w}x{h} pixels are less than the {least_w}x{least_h} that the encoder looks at; take a larger image"
            )));
        }
        Ok(())
    }

    /// A extractor on each convolution of the encoder: the moments of an image, and its gradient.
    /// Without a border, the image alone.
    pub fn measuring(
        &self,
        device: &mut Device,
        store: &Store,
        size: [usize; 2],
        border: Option<Border>,
        then: &Then,
        taken: u64,
    ) -> Result<MapExtractor> {
        let frame = border.map_or_else(
            || Frame::bare(size),
            |border| Frame::new(size, border, self.reach, self.stride),
        );
        let [h, w] = frame.padded();
        let graph = Graph::new(&self.encoder, Dims::new(3, h, w))?;
        let convolutions = |node: &usize| matches!(graph.nodes[*node].op, Some(LayerOp::Conv2d(_)));
        let layers: Vec<usize> = (1..graph.nodes.len()).filter(convolutions).collect();
        MapExtractor::new(device, (&graph, store), &layers, frame, then, taken)
    }

    /// A extractor on the code: its moments, and pictures of it changed.
    pub fn changing(
        &self,
        device: &mut Device,
        store: &Store,
        size: [usize; 2],
        border: Border,
        taken: u64,
    ) -> Result<MapExtractor> {
        let frame = Frame::new(size, border, self.reach + self.margin, self.stride);
        let [h, w] = frame.padded();
        let graph = Graph::new(&self.whole, Dims::new(3, h, w))?;
        MapExtractor::new(device, (&graph, store), &[graph.code], frame, &Then::Decode, taken)
    }

    /// The moments of the code of a picture alone, without anything around it.
    pub fn code(&self, device: &mut Device, store: &Store, picture: &Picture) -> Result<Moments> {
        let graph = Graph::new(&self.encoder, Dims::new(3, picture.h, picture.w))?;
        let frame = Frame::bare([picture.h, picture.w]);
        let extractor = MapExtractor::new(
            device,
            (&graph, store),
            &[graph.code],
            frame,
            &Then::Stop { apart: false },
            0,
        )?;
        Ok(extractor.look(device, &picture.pixels)?.0.remove(0))
    }
}
