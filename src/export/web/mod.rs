//! A model as one HTML page, which runs it in a browser with WebGPU.
//!
//! The page has the values of the model, its recorded passes as data ([`plan`]), the kernels that
//! they use, and a runner in JavaScript. It loads nothing and works offline.

mod example;
mod page;
mod plan;
mod record;

use serde::Serialize;

use crate::annotations::label_image::class_colour;
use crate::error::{Error, Result};
use crate::export::onnx::Output;
use crate::infer::conditions::WEAK_NOISE;
use crate::model::{CorruptionSpec, Graph, LoadedModel, Task, TileGeometry};
use crate::names::names;
use crate::shape::Dims;
use plan::{Library, Plan};
use record::{Fit, Recorded, Sizes, Wanted};

names! {
    /// What a page does with an image.
    pub enum PageTask {
        /// Removes noise.
        Denoise = "denoise",
        /// Fills missing pixels.
        Inpaint = "inpaint",
        /// Enlarges.
        Upscale = "upscale",
        /// Removes the artefacts of JPEG.
        Dejpeg = "dejpeg",
        /// Encodes and decodes.
        Reconstruct = "reconstruct",
        /// Names its class.
        Classify = "classify",
        /// Names the class of each pixel.
        Segment = "segment",
    }
}

/// What to export.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The name of the model, for the title.
    pub name: String,
    /// The image that the page shows first: its values (H,W,C with C 1 or 3; 0–1 scale) and its
    /// size. A large one is shrunk. `None` is a bundled picture.
    pub example: Option<(Vec<f32>, Dims)>,
    /// The licence of the model.
    pub licence: Option<String>,
}

/// A page.
#[derive(Clone, Debug)]
pub struct File {
    /// The text of the page.
    pub html: String,
    /// What it does.
    pub task: PageTask,
    /// Bytes of the values of the model in the page, as base64.
    pub values: usize,
}

impl PageTask {
    /// What a page can do with a model.
    ///
    /// # Errors
    /// When a page cannot show its results.
    fn of(graph: &Graph) -> Result<Self> {
        graph.check_takes_plain_images()?;
        let dims = graph.nodes[0].dims;
        if dims.h == 1 || ![1, 3].contains(&dims.c) {
            return Err(Error::usage(format!(
                "the model takes samples of {dims} (channels x height x width), but a page shows \
                 gray and colour images; export the model as an ONNX file"
            )));
        }
        match (Output::of(graph), graph.spec.undoes.task()) {
            (Output::Samples, Some(Task::Denoise)) => Ok(Self::Denoise),
            (Output::Samples, Some(Task::Inpaint)) => Ok(Self::Inpaint),
            (Output::Samples, Some(Task::Upscale)) => Ok(Self::Upscale),
            (Output::Samples, Some(Task::Dejpeg)) => Ok(Self::Dejpeg),
            (Output::Samples, None) => Ok(Self::Reconstruct),
            (Output::Classes, _) => Ok(Self::Classify),
            (Output::Pixels, _) => Ok(Self::Segment),
            (Output::Grid, _) => Err(Error::usage(
                "a page cannot show the boxes of a detector; export the model as an ONNX file",
            )),
            (Output::Values, _) => Err(Error::usage(
                "the result of the model is not an image, so that a page cannot show it; export \
                 the model as an ONNX file",
            )),
        }
    }

    /// What a page for this task needs of a model.
    const fn wanted(self) -> Wanted {
        let sizes = match self {
            Self::Denoise | Self::Inpaint | Self::Upscale | Self::Dejpeg | Self::Segment => {
                Sizes::Any
            }
            Self::Reconstruct => Sizes::One,
            Self::Classify => Sizes::Own,
        };
        Wanted { sizes, code: matches!(self, Self::Reconstruct) }
    }
}

/// A model as the runner reads it.
#[derive(Debug, Serialize)]
struct Model<'a> {
    task: &'static str,
    channels: usize,
    /// Width and height of the images that a pass takes, for each pass.
    sizes: Vec<[usize; 2]>,
    /// `tiles`, `mirrored` or `resized`: see [`Fit`].
    fit: &'static str,
    halo: usize,
    align: usize,
    classes: &'a [String],
    /// The colour of each class of a segmenter.
    colours: Vec<[u8; 3]>,
    /// The noise that the model was trained for.
    sigma: Option<[f64; 2]>,
    /// Whether the model is conditioned on the noise level.
    conditioned: bool,
    weak: [f64; 2],
    scales: &'a [usize],
    /// The level of each scale.
    levels: Vec<f64>,
    /// Size of the code: channels, height, width.
    code: [usize; 3],
    /// Number of values of parameters and of states.
    values: [usize; 2],
    library: &'a Library,
    /// From images to the result, for each of `sizes`.
    forward: Vec<&'a Plan>,
    decode: &'a Option<Plan>,
}

/// Exports a model as a page.
///
/// # Errors
/// When a page cannot run the model or show its results, or the model file lacks a tensor.
pub fn export(loaded: &LoadedModel, options: &Options) -> Result<File> {
    let task = PageTask::of(&loaded.graph)?;
    let recorded = record::record(loaded, task.wanted())?;
    let Recorded { library, forward, decode, fit, graph, values } = &recorded;
    let (fit, TileGeometry { halo, align, .. }) = match *fit {
        Fit::Tiles(geometry) => ("tiles", geometry),
        Fit::Mirrored => ("mirrored", WHOLE),
        Fit::Resized => ("resized", WHOLE),
    };
    let spec = &graph.spec;
    let code = graph.nodes[graph.code].dims;
    let scales = &spec.undoes.scales;
    let model = Model {
        task: task.name(),
        channels: graph.nodes[0].dims.c,
        sizes: forward.iter().map(|(size, _)| [size.w, size.h]).collect(),
        fit,
        halo,
        align,
        classes: &spec.classes,
        colours: (0..spec.classes.len()).map(class_colour).collect(),
        sigma: spec.undoes.sigma,
        conditioned: graph.is_conditioned_on_level(),
        weak: WEAK_NOISE,
        scales,
        levels: scales.iter().map(|scale| CorruptionSpec::level_of_scale(*scale)).collect(),
        code: [code.c, code.h, code.w],
        values: [values[0].len(), values[1].len()],
        library,
        forward: forward.iter().map(|(_, plan)| plan).collect(),
        decode,
    };
    page::write(&model, task, &values.concat(), options)
}

/// The geometry of an image that is a single tile.
const WHOLE: TileGeometry = TileGeometry { align: 1, halo: 0, whole: true };
