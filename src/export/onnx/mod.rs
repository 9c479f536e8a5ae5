//! ONNX files: operators of version 17, values of `f32`, arrays N×C×H×W.
//!
//! The number of samples is free, and so are height and width if the layers allow it. Images whose
//! sides are not multiples of the strides are padded by mirroring inside of the graph, and its
//! result is cropped. The normalization of the samples is a part of the graph.

mod conditions;
mod graph;
mod layers;
mod metadata;
mod proto;
mod sizes;

use conditions::{Conditions, Restoration};
use graph::{Builder, Name};
use layers::{Layers, needed, sources};
use proto::{Axis, Model, Port};

use crate::error::{Error, Result};
use crate::model::{self, Graph, HEAD, LayerOp, LoadedModel, TileGeometry, tile_geometry};
use crate::ops::CELL;
use crate::shape::Dims;

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
    /// The output.
    pub output: [String; 2],
    /// What the model does: `reconstruct`, `denoise` and the like.
    pub task: &'static str,
}

/// Exports a model, or a part of it.
///
/// # Errors
/// When the part does not exist or cannot run on its own, an option does not fit the model, or the
/// model file lacks a tensor.
pub fn export(loaded: &LoadedModel, options: &Options) -> Result<File> {
    let (mut model, task) = match &options.part {
        Part::Model => whole(loaded, options)?,
        Part::Decoder => decoder(loaded, options)?,
        Part::Encoder => {
            let code = &loaded.graph.nodes[loaded.graph.code].name;
            (encoder(loaded, code, ("code", "the code"), options)?, "encode")
        }
        Part::Layer(name) => {
            (encoder(loaded, name, ("features", "the output of the layer"), options)?, "features")
        }
    };
    model.metadata = metadata::of(loaded, task, options);
    model.about = format!("{task}: a model of csae");
    // The output is the last port, and every export has one.
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
        output: model.outputs.iter().map(described).next().unwrap_or_default(),
        task,
    })
}

/// Height and width of the images that a graph takes, and what their sides are multiples of.
#[derive(Clone, Debug)]
struct Sizes {
    /// Whether it takes images of the size of training only.
    fixed: bool,
    /// Height and width are multiples of these numbers after padding.
    align: [usize; 2],
    axes: [Axis; 2],
}

impl Sizes {
    /// The sizes that the layers of a graph up to its output take. A restorer also takes whole
    /// images of any size if its layers compare the units of a whole image.
    fn of(graph: &Graph, restores: bool) -> Self {
        let dims = graph.nodes[0].dims;
        // The mean of a map takes maps of any size: those that are before it decide.
        let is_mean = |node: usize| graph.map_means().any(|mean| mean == node);
        let mut end = graph.output;
        while is_mean(end) || graph.nodes[end].inputs.first().is_some_and(|at| is_mean(*at)) {
            end = graph.nodes[end].inputs[0];
        }
        let before = Graph { output: end, ..graph.clone() };
        match tile_geometry(&before).ok().filter(|geometry| !geometry.whole || restores) {
            None => Self { fixed: true, align: [1, 1], axes: fixed(dims) },
            Some(TileGeometry { align, .. }) => Self {
                fixed: false,
                // A signal has one row.
                align: [if dims.h == 1 { 1 } else { align }, align],
                axes: any(dims, ["height", "width"]),
            },
        }
    }
}

fn fixed(dims: Dims) -> [Axis; 2] {
    [Axis::Fixed(dims.h), Axis::Fixed(dims.w)]
}

/// Axes of any size. Signals have one row.
fn any(dims: Dims, [height, width]: [&'static str; 2]) -> [Axis; 2] {
    [if dims.h == 1 { Axis::Fixed(1) } else { Axis::Named(height) }, Axis::Named(width)]
}

/// A port for arrays of samples.
fn port(name: &'static str, channels: usize, [h, w]: [Axis; 2], about: String) -> Port {
    Port { name, shape: vec![Axis::Named(BATCH), Axis::Fixed(channels), h, w], about }
}

/// Adds the input, its normalization and padding, and what the layers are conditioned on.
fn begin(
    layers: &mut Layers,
    sizes: &Sizes,
    conditions: Conditions,
    options: &Options,
) -> Restoration {
    let graph = layers.graph;
    let mut about = metadata::samples(graph);
    let mut channels = graph.nodes[0].dims.c;
    if conditions.level && options.sigma == Some(Sigma::Channel) {
        channels += 1;
        about += "; the last channel is the standard deviation of the noise on the same scale";
    }
    let input = layers.out.input(port("input", channels, sizes.axes.clone(), about));
    let restoration = Restoration::begin(layers, &input, conditions, options, sizes.axes.clone());
    layers.out.enter("input");
    let mut x = restoration.images.clone();
    if let Some(normalization) = &graph.spec.normalization {
        let offset = layers.out.per_channel(&normalization.offset);
        let divisor = layers.out.per_channel(&normalization.divisor);
        x = layers.out.add("Sub", &[&x, &offset], Vec::new());
        x = layers.out.add("Div", &[&x, &divisor], Vec::new());
    }
    x = sizes::pad(&mut layers.out, &x, sizes.align);
    layers.known =
        layers.known.take().map(|known| sizes::pad(&mut layers.out, &known, sizes.align));
    layers.set(0, x);
    restoration
}

/// Turns values of the model into the units of the samples.
fn in_units(layers: &mut Layers, y: Name) -> Name {
    let Some(normalization) = &layers.graph.spec.normalization else { return y };
    let offset = layers.out.per_channel(&normalization.offset);
    let divisor = layers.out.per_channel(&normalization.divisor);
    let y = layers.out.add("Mul", &[&y, &divisor], Vec::new());
    layers.out.add("Add", &[&y, &offset], Vec::new())
}

/// What the output of a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    /// Samples like the input.
    Samples,
    /// The reconstruction of the output of a layer, or any other values.
    Values,
    /// Logits of the classes of an image.
    Classes,
    /// Logits of the classes of each pixel.
    Pixels,
    /// The grid of a detector.
    Grid,
}

impl Output {
    fn of(graph: &Graph) -> Self {
        let (input, output) = (graph.nodes[0].dims, graph.nodes[graph.output].dims);
        let classes = graph.spec.classes.len();
        let is_head = graph.nodes[graph.output].name == HEAD;
        match classes {
            0 if graph.target == 0 && input == output => Self::Samples,
            0 => Self::Values,
            _ if output == Dims::flat(classes) => Self::Classes,
            _ if is_head && output == Dims::new(classes, input.h, input.w) => Self::Pixels,
            _ if output.c == CELL + classes => Self::Grid,
            _ => Self::Values,
        }
    }
}

/// A whole model.
fn whole(loaded: &LoadedModel, options: &Options) -> Result<(Model, &'static str)> {
    let graph = &loaded.graph;
    let kind = Output::of(graph);
    let task = graph.spec.undoes.task().filter(|_| kind == Output::Samples);
    let (name, about, what) = match (kind, task) {
        (Output::Samples, Some(task)) => ("output", "the restored images", task.name()),
        (Output::Samples, None) => ("output", "the reconstruction", "reconstruct"),
        (Output::Values, _) => ("output", "the output of the last layer", "reconstruct"),
        (Output::Classes, _) => ("probabilities", "of the classes", "classify"),
        (Output::Pixels, _) => ("probabilities", "of the classes of each pixel", "segment"),
        (Output::Grid, _) => ("grid", "logits and boxes of the cells of a grid", "detect"),
    };
    let nodes = needed(graph, graph.output, |_| false);
    let conditions = Conditions::of(graph, &nodes, task.is_some(), options)?;
    // A detector scales images into a square.
    let mut sizes = Sizes::of(graph, task.is_some());
    if kind == Output::Grid {
        sizes = Sizes { fixed: true, align: [1, 1], axes: fixed(graph.nodes[0].dims) };
    }
    let mut layers = Layers::new(loaded, graph, Builder::new(name), sizes.fixed);
    let restoration = begin(&mut layers, &sizes, conditions, options);
    let mut y = layers.add(graph.output)?;
    layers.out.enter("output");
    let dims = graph.nodes[graph.output].dims;
    let keeps_size = matches!(kind, Output::Samples | Output::Pixels);
    if keeps_size && sizes.align != [1, 1] {
        y = sizes::crop(&mut layers.out, &y, &restoration.images);
    }
    let axes = match (keeps_size, sizes.fixed, options.scale) {
        (_, true, _) => fixed(dims),
        (true, false, None) => sizes.axes,
        (true, false, Some(_)) | (false, false, _) => any(dims, ["output_height", "output_width"]),
    };
    let mut shape = port(name, dims.c, axes, about.to_owned());
    let softmax = |axis| vec![("axis", proto::Value::Int(axis))];
    let y = match kind {
        Output::Samples => {
            let y = in_units(&mut layers, y);
            restoration.end(&mut layers, y)
        }
        Output::Values | Output::Grid => y,
        Output::Pixels => layers.out.add("Softmax", &[&y], softmax(1)),
        Output::Classes => {
            shape.shape.truncate(2);
            let y = layers.out.add("Flatten", &[&y], Vec::new());
            layers.out.add("Softmax", &[&y], softmax(1))
        }
    };
    Ok((layers.out.finish(&y, shape), what))
}

/// The layers up to the one called `layer`.
fn encoder(
    loaded: &LoadedModel,
    layer: &str,
    (name, about): (&'static str, &str),
    options: &Options,
) -> Result<Model> {
    let spec = model::encoder(&loaded.graph, Some(layer), None)?;
    let graph = &Graph::new(&spec, loaded.graph.nodes[0].dims)?;
    let nodes = needed(graph, graph.output, |_| false);
    let conditions = Conditions::of(graph, &nodes, false, options)?;
    let sizes = Sizes::of(graph, false);
    let mut layers = Layers::new(loaded, graph, Builder::new(name), sizes.fixed);
    begin(&mut layers, &sizes, conditions, options);
    let mut y = layers.add(graph.output)?;
    layers.out.enter("output");
    let dims = graph.nodes[graph.output].dims;
    let axes = if sizes.fixed { fixed(dims) } else { any(dims, ["output_height", "output_width"]) };
    let mut shape = port(name, dims.c, axes, about.to_owned());
    if sizes.fixed && dims.area() == 1 {
        shape.shape.truncate(2);
        y = layers.out.add("Flatten", &[&y], Vec::new());
    }
    Ok(layers.out.finish(&y, shape))
}

/// The layers from the code on.
fn decoder(loaded: &LoadedModel, options: &Options) -> Result<(Model, &'static str)> {
    let graph = &loaded.graph;
    graph.check_autoencoder()?;
    let nodes = needed(graph, graph.output, |node| node == graph.code);
    let before = |node: &usize| *node < graph.code;
    let mut others: Vec<usize> = nodes.iter().copied().filter(before).collect();
    let read = nodes.iter().flat_map(|node| sources(graph, *node));
    others.extend(read.filter(|node| *node == 0));
    if let Some(other) = others.iter().max() {
        return Err(Error::usage(format!(
            "the decoder also reads layer {}, which is not computed from the code; export the \
             whole model, or its encoder",
            graph.nodes[*other].name
        )));
    }
    let conditions = Conditions::of(graph, &nodes, false, options)?;
    if conditions.level || conditions.mask {
        return Err(Error::usage(
            "the decoder depends on the noise level or on a mask; export the whole model",
        ));
    }
    let is_fixed = |node: &usize| match &graph.nodes[*node].op {
        Some(LayerOp::Linear(_)) => true,
        Some(op) => op.selection().is_some_and(|one| one.at_inference && !one.over_batch),
        None => false,
    };
    let sized = nodes.iter().any(is_fixed);
    let (code, dims) = (graph.nodes[graph.code].dims, graph.nodes[graph.output].dims);
    let mut layers = Layers::new(loaded, graph, Builder::new("output"), sized);
    let [from, to] = if sized {
        [fixed(code), fixed(dims)]
    } else {
        [any(code, ["code_height", "code_width"]), any(dims, ["height", "width"])]
    };
    let mut shape = port("code", code.c, from, "the code".to_owned());
    let is_vector = sized && code.area() == 1;
    if is_vector {
        shape.shape.truncate(2);
    }
    let mut z = layers.out.input(shape);
    layers.out.enter("input");
    if is_vector {
        let axes = layers.out.integers(&[2, 3]);
        z = layers.out.add("Unsqueeze", &[&z, &axes], Vec::new());
    }
    layers.set(graph.code, z);
    let mut y = layers.add(graph.output)?;
    layers.out.enter("output");
    if Output::of(graph) == Output::Samples {
        y = in_units(&mut layers, y);
    }
    let about = "the reconstruction".to_owned();
    Ok((layers.out.finish(&y, port("output", dims.c, to, about)), "decode"))
}
