//! ONNX files: operators of version 17, values of `f32`, arrays N×C×H×W.
//!
//! The number of samples is free, and so are height and width if the layers allow it. Images whose
//! sides are not multiples of the strides are padded by mirroring inside of the graph, and its
//! result is cropped. The normalization of the samples is a part of the graph.

mod boxes;
mod colour;
mod conditions;
mod fill;
mod graph;
mod layers;
mod metadata;
mod parts;
mod proto;
mod sizes;

pub(super) use parts::Output;
use proto::{Axis, Port};

use crate::error::{Error, Result};
use crate::model::LoadedModel;

/// The name of the axis of samples.
const BATCH: &str = "batch_size";

/// The part of a model that is exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// From the samples to the result.
    #[default]
    Model,
    /// From the samples to the code.
    Encoder,
    /// From the code to the reconstruction.
    Decoder,
    /// From the samples to the output of a layer.
    Layer(String),
}

/// How a model gets the standard deviation of the noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sigma {
    /// It is a constant of the graph, on the 0–255 scale.
    Value(f64),
    /// It is an input of the graph: a number for each sample, on the 0–255 scale.
    Input,
    /// It is one more channel of the images, on the scale of the images (0–1).
    Channel,
}

impl std::fmt::Display for Sigma {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(value) => value.fmt(f),
            Self::Input => f.write_str("input"),
            Self::Channel => f.write_str("channel"),
        }
    }
}

/// What to export, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// The part of the model.
    pub part: Part,
    /// How a denoiser gets the noise level. `None` is [`Sigma::Input`] for a model that depends on
    /// it.
    pub sigma: Option<Sigma>,
    /// The factor by which a model for super-resolution enlarges images, inside of the graph.
    /// Without it the graph takes enlarged images, and the factor as an input.
    pub scale: Option<usize>,
    /// Whether a restorer of gray images takes colour images (N,3,H,W): noise is removed from luma
    /// and chroma planes, artefacts of JPEG from the luma, and each channel is filled and enlarged
    /// by itself ([`Planes`]).
    ///
    /// [`Planes`]: crate::infer::planes::Planes
    pub rgb: bool,
    /// The score above which a detector returns boxes, after non-maximum suppression. Without it,
    /// it returns its grid.
    pub score: Option<f64>,
    /// Whether the parameters are stored in half precision. Operators still compute with `f32`.
    pub half: bool,
    /// The licence of the model.
    pub licence: Option<String>,
}

/// A file, and what it takes and returns.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// The bytes of the file.
    pub bytes: Vec<u8>,
    /// The inputs: name, and axes as text.
    pub inputs: Vec<[String; 2]>,
    /// The outputs: name, and axes as text.
    pub outputs: Vec<[String; 2]>,
    /// What the model does: `reconstruct`, `denoise` and the like.
    pub task: &'static str,
}

/// Exports a model, or a part of it.
///
/// # Errors
/// When the part does not exist or cannot run on its own, an option does not fit the model, or the
/// model file lacks a tensor.
pub fn export(loaded: &LoadedModel, options: &Options) -> Result<File> {
    if let Some(score) = options.score
        && !(options.part == Part::Model && parts::is_detector(&loaded.graph))
    {
        return Err(Error::usage(format!(
            "score = {score}: only a whole detector returns boxes with scores; leave score out"
        )));
    }
    let (mut model, task) = match &options.part {
        Part::Model => parts::whole(loaded, options)?,
        Part::Decoder => parts::decoder(loaded, options)?,
        Part::Encoder => {
            parts::encoder(loaded, &loaded.graph.nodes[loaded.graph.code].name, options)?
        }
        Part::Layer(name) => parts::encoder(loaded, name, options)?,
    };
    model.metadata = metadata::of(loaded, task, options);
    model.about = format!("{task}: a model of csae");
    let described = |port: &Port| {
        let axes = port.shape.iter().map(|axis| match axis {
            Axis::Fixed(size) => size.to_string(),
            Axis::Named(name) => (*name).to_owned(),
        });
        [port.name.to_owned(), axes.collect::<Vec<_>>().join(" x ")]
    };
    let bytes = model.bytes();
    // Readers of protocol buffers refuse larger messages.
    if bytes.len() > i32::MAX as usize {
        return Err(Error::usage(
            "the file would have more than 2 GiB, which its format does not allow; export a part \
             of the model",
        ));
    }
    Ok(File {
        bytes,
        inputs: model.inputs.iter().map(described).collect(),
        outputs: model.outputs.iter().map(described).collect(),
        task,
    })
}
