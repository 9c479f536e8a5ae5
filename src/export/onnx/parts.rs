//! The parts of a model as graphs: the whole model, the layers up to one of them, and the decoder.

use super::colour;
use super::conditions::{Conditions, Restoration, images_channels};
use super::graph::{Builder, Name};
use super::layers::{Layers, needed, sources};
use super::proto::{Axis, Model, Port, Value};
use super::{BATCH, Options, Part, Sigma, boxes, metadata, sizes};
use crate::error::{Error, Result};
use crate::model::{self, Graph, HEAD, LayerOp, LoadedModel, TileGeometry, tile_geometry};
use crate::ops::CELL;
use crate::shape::Dims;

/// The name of the means of the channels: a second output of an encoder, and input of a decoder.
const MEAN: &str = "mean";

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
    let mut channels = images_channels(graph, options);
    if conditions.level && options.sigma == Some(Sigma::Channel) {
        channels += 1;
        about += "; the last channel is the standard deviation of the noise on the same scale";
    }
    let input = layers.out.input(port("input", channels, sizes.axes.clone(), about));
    let restoration = Restoration::begin(layers, &input, conditions, options, sizes.axes.clone());
    layers.out.enter("input");
    let mut x = restoration.filled.clone();
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
pub enum Output {
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
    /// What the output of the model of a graph is.
    pub fn of(graph: &Graph) -> Self {
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

/// Whether a model is a detector.
pub fn is_detector(graph: &Graph) -> bool {
    Output::of(graph) == Output::Grid
}

/// A whole model, and its task.
pub fn whole(loaded: &LoadedModel, options: &Options) -> Result<(Model, &'static str)> {
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
    if let Some(scale) = options.scale.filter(|_| sizes.fixed) {
        return Err(Error::usage(format!(
            "scale = {scale}: the model works for images of {} only, so that it cannot enlarge \
             others; leave scale out",
            graph.nodes[0].dims.size()
        )));
    }
    let names = [name, boxes::port().name];
    let mut layers = Layers::new(loaded, graph, Builder::new(&names, options.half), sizes.fixed);
    let restoration = begin(&mut layers, &sizes, conditions, options);
    let mut y = layers.add(graph.output)?;
    layers.out.enter("output");
    let dims = graph.nodes[graph.output].dims;
    let keeps_size = matches!(kind, Output::Samples | Output::Pixels);
    if keeps_size && sizes.align != [1, 1] {
        y = sizes::crop(&mut layers.out, &y, &restoration.images);
        if kind == Output::Samples {
            y = sizes::shaped(&mut layers.out, &y, &restoration.images);
        }
    }
    let axes = match (keeps_size, sizes.fixed, options.scale) {
        (_, true, _) => fixed(dims),
        (true, false, None) => sizes.axes,
        (true, false, Some(_)) | (false, false, _) => any(dims, OUTPUT_SIDES),
    };
    let channels = if options.rgb { colour::CHANNELS } else { dims.c };
    let mut shape = port(name, channels, axes, about.to_owned());
    let softmax = || vec![("axis", Value::Int(1))];
    let y = match kind {
        Output::Samples => {
            let y = in_units(&mut layers, y);
            restoration.end(&mut layers, y)
        }
        Output::Values => y,
        Output::Grid => match options.score {
            None => y,
            Some(score) => {
                shape = boxes::port();
                boxes::find(&mut layers.out, &y, dims, graph.nodes[0].dims.h, score)
            }
        },
        Output::Pixels => layers.out.add("Softmax", &[&y], softmax()),
        Output::Classes => {
            let y = flat(&mut layers, &y, &mut shape);
            layers.out.add("Softmax", &[&y], softmax())
        }
    };
    layers.out.output(&y, shape);
    Ok((layers.out.finish(), what))
}

/// The names of axes whose size follows from that of the images.
const OUTPUT_SIDES: [&str; 2] = ["output_height", "output_width"];

/// Removes the axes of positions from vectors, and from the shape of their port.
fn flat(layers: &mut Layers, y: &str, shape: &mut Port) -> Name {
    shape.shape.truncate(2);
    layers.out.add("Flatten", &[y], Vec::new())
}

/// The layers up to the one called `layer`, and the task. The encoder also returns the means of
/// the channels if the decoder reads them.
pub fn encoder(
    loaded: &LoadedModel,
    layer: &str,
    options: &Options,
) -> Result<(Model, &'static str)> {
    let is_encoder = options.part == Part::Encoder;
    let (name, about, task) = if is_encoder {
        ("code", "the code", "encode")
    } else {
        ("features", "the output of the layer", "features")
    };
    let spec = model::encoder(&loaded.graph, Some(layer), None)?;
    let graph = &Graph::new(&spec, loaded.graph.nodes[0].dims)?;
    let nodes = needed(graph, graph.output, |_| false);
    let conditions = Conditions::of(graph, &nodes, false, options)?;
    let sizes = Sizes::of(graph, false);
    let mut layers =
        Layers::new(loaded, graph, Builder::new(&[name, MEAN], options.half), sizes.fixed);
    begin(&mut layers, &sizes, conditions, options);
    let mut y = layers.add(graph.output)?;
    let dims = graph.nodes[graph.output].dims;
    let axes = if sizes.fixed { fixed(dims) } else { any(dims, OUTPUT_SIDES) };
    let mut shape = port(name, dims.c, axes, about.to_owned());
    // An encoder can be exported without its decoder.
    let mean = if is_encoder { mean_of_decoder(&loaded.graph).unwrap_or(None) } else { None };
    let mean = mean.and_then(|spread| graph.find(&loaded.graph.nodes[spread].name));
    let mean = mean.map(|spread| graph.nodes[spread].inputs[0]);
    let channels = mean.map_or(0, |mean| graph.nodes[mean].dims.c);
    let mean = mean.map(|mean| layers.add(mean)).transpose()?;
    layers.out.enter("output");
    if sizes.fixed && dims.area() == 1 {
        y = flat(&mut layers, &y, &mut shape);
    }
    layers.out.output(&y, shape);
    if let Some(mean) = mean {
        let mut shape = port(MEAN, channels, sizes.axes, MEAN_ABOUT.to_owned());
        let mean = flat(&mut layers, &mean, &mut shape);
        layers.out.output(&mean, shape);
    }
    Ok((layers.out.finish(), task))
}

/// What the means are.
const MEAN_ABOUT: &str = "the mean of each channel of the images, which the decoder adds";

/// The nodes that the output depends on, without those before the code and the means of `lista`
/// that they add.
fn decoding(graph: &Graph) -> (Vec<usize>, Vec<usize>) {
    let is_mean = |node: usize| {
        let reads = graph.nodes[node].inputs.first();
        node < graph.code && reads.is_some_and(|at| graph.map_means().any(|mean| mean == *at))
    };
    let nodes = needed(graph, graph.output, |node| node == graph.code || is_mean(node));
    let read = nodes.iter().flat_map(|node| sources(graph, *node));
    let mut means: Vec<usize> = read.filter(|node| is_mean(*node)).collect();
    means.sort_unstable();
    means.dedup();
    (nodes, means)
}

/// The map of means that the decoder of an autoencoder adds, if it does.
///
/// # Errors
/// When it reads several of them, or does not only add them.
fn mean_of_decoder(graph: &Graph) -> Result<Option<usize>> {
    if graph.check_autoencoder().is_err() {
        return Ok(None);
    }
    let (nodes, means) = decoding(graph);
    let Some(mean) = means.first().copied() else { return Ok(None) };
    let adds =
        |node: &usize| matches!(graph.nodes[*node].op, Some(LayerOp::Add(_) | LayerOp::Sub(_)));
    let reads = |node: &&usize| sources(graph, **node).any(|from| from == mean);
    if means.len() == 1 && nodes.iter().filter(reads).all(adds) {
        return Ok(Some(mean));
    }
    Err(Error::usage(format!(
        "the decoder reads layer {} in a way that a decoder of its own cannot; export the whole \
         model",
        graph.nodes[mean].name
    )))
}

/// The layers from the code on, and the task.
pub fn decoder(loaded: &LoadedModel, options: &Options) -> Result<(Model, &'static str)> {
    let graph = &loaded.graph;
    graph.check_autoencoder()?;
    let (nodes, _) = decoding(graph);
    let mean = mean_of_decoder(graph)?;
    let read = nodes.iter().flat_map(|node| sources(graph, *node));
    let inside = |node: &usize| *node >= graph.code || Some(*node) == mean;
    // Of the layers before the code, the last one is the one that the decoder reads.
    let outside = nodes.iter().copied().chain(read).filter(|node| !inside(node));
    if let Some(other) = outside.max() {
        return Err(Error::usage(format!(
            "the decoder also reads layer {}, which is not computed from the code; export the \
             whole model, or its encoder",
            graph.nodes[other].name
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
    let mut layers = Layers::new(loaded, graph, Builder::new(&["output"], options.half), sized);
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
    let positions = layers.out.integers(&[2, 3]);
    if is_vector {
        z = layers.out.add("Unsqueeze", &[&z, &positions], Vec::new());
    }
    layers.set(graph.code, z);
    if let Some(mean) = mean {
        let mut shape = port(MEAN, graph.nodes[mean].dims.c, to.clone(), MEAN_ABOUT.to_owned());
        shape.shape.truncate(2);
        let values = layers.out.input(shape);
        let values = layers.out.add("Unsqueeze", &[&values, &positions], Vec::new());
        layers.set(mean, values);
    }
    let mut y = layers.add(graph.output)?;
    layers.out.enter("output");
    if Output::of(graph) == Output::Samples {
        y = in_units(&mut layers, y);
    }
    layers.out.output(&y, port("output", dims.c, to, "the reconstruction".to_owned()));
    Ok((layers.out.finish(), "decode"))
}
