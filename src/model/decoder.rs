//! Decoders for dense prediction: they enlarge an encoder's maps step by step, with skip
//! connections from the encoder's maps of the same size.

use super::encoder::HEAD;
use super::graph::Graph;
use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::model::{
    ConcatSpec, Conv2dSpec, ConvTranspose2dSpec, FilterCount, Init, LayerOp, LayerSpec,
    MaxUnpool2dSpec, ModelSpec, Pad, Pair,
};
use crate::ops::Activation;
use crate::shape::Dims;

/// How a decoder enlarges maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// Transposed convolution (U-Net: Ronneberger et al. 2015).
    Deconv,
    /// Max-unpooling by the switches of the encoder (SegNet: Badrinarayanan et al. 2017).
    Unpool,
}

/// Dilations of 3×3 convolutions that enlarge the receptive field (Yu & Koltun 2016).
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// Of the convolutions on the code, before upsampling.
    pub code: &'a [usize],
    /// Of the convolutions on the upsampled maps, before the last layer.
    pub maps: &'a [usize],
}

/// Minimum number of filters of a decoder layer. A skip from a gray input has a single channel,
/// too few to merge with the enlarged maps.
const MIN_FILTERS: usize = 8;
/// Name prefix of the layers of a [`Context`].
const CONTEXT_PREFIX: &str = "head.context.";

fn convolution(filters: usize, kernel: usize, activation: Activation) -> LayerOp {
    LayerOp::Conv2d(Conv2dSpec { kernel: Pair::both(kernel), activation, ..plain(filters) })
}

fn dilated(filters: usize, dilation: usize) -> LayerOp {
    LayerOp::Conv2d(Conv2dSpec { dilation: Pair::both(dilation), ..plain(filters) })
}

/// A 3×3 convolution with ReLU that keeps the size.
const fn plain(filters: usize) -> Conv2dSpec {
    Conv2dSpec {
        filters: FilterCount::Count(filters),
        kernel: Pair::both(3),
        stride: Pair::both(1),
        padding: Pad::Same,
        dilation: Pair::both(1),
        groups: 1,
        bias: true,
        activation: Activation::Relu,
        init: Init::Auto,
        weight: None,
    }
}

/// A transposed convolution that enlarges by `scale`; its kernel windows do not overlap.
fn transposed(filters: usize, scale: [usize; 2]) -> LayerOp {
    LayerOp::ConvTranspose2d(ConvTranspose2dSpec {
        filters: FilterCount::Count(filters),
        kernel: Pair(scale),
        stride: Pair(scale),
        padding: Pad::Fixed(Pair::both(0)),
        output_padding: Pair::both(0),
        dilation: Pair::both(1),
        groups: 1,
        bias: true,
        activation: Activation::Relu,
        init: Init::Auto,
        weight: None,
        max_norm: None,
        unit_norm: false,
    })
}

/// The encoder's downsampling nodes with their input nodes, from the last to the first.
fn levels(graph: &Graph) -> Vec<(usize, usize)> {
    let (mut node, mut found) = (graph.output, Vec::new());
    while node > 0 {
        let from = graph.nodes[node].inputs[0];
        let (small, large) = (graph.nodes[node].dims, graph.nodes[from].dims);
        if (small.h, small.w) != (large.h, large.w) {
            found.push((node, from));
        }
        node = from;
    }
    found
}

/// Appends dilated convolutions to the layer `end`, which becomes the last of them.
fn add_context(
    layers: &mut Vec<LayerSpec>,
    end: &mut String,
    prefix: &str,
    dims: Dims,
    dilations: &[usize],
) {
    for (i, dilation) in dilations.iter().enumerate() {
        let (name, op) =
            (format!("{prefix}{}", i + 1), dilated(dims.c.max(MIN_FILTERS), *dilation));
        layers.push(LayerSpec::new(&name, vec![std::mem::replace(end, name.clone())], op));
    }
}

/// Appends a decoder to an encoder. The result has `outputs` channels, in maps `stride` times
/// smaller than the input along each side.
///
/// `graph` is the encoder's graph. The decoder's layers are called `head.…`, the last one `head`.
///
/// # Errors
/// When the encoder already has layers called `head`, has a fully connected layer, shrinks maps by
/// a factor that is not an integer, or never has maps of that stride; or when
/// [`Decoder::Unpool`] meets a downsampling layer other than max pooling; or when a dilation of
/// [`Context::code`] is not smaller than the code's maps.
pub fn decoder(
    encoder: &ModelSpec,
    graph: &Graph,
    (upsampling, stride, outputs): (Decoder, usize, usize),
    context: Context<'_>,
    classes: Vec<String>,
) -> Result<ModelSpec> {
    let named_head = |layer: &LayerSpec| layer.defines(HEAD) || layer.name.starts_with("head.");
    if encoder.layers.iter().any(named_head) {
        return Err(Error::usage(format!(
            "the model already has a layer {HEAD}: {}, such as the last of its encoder",
            Advice::OtherLayer
        )));
    }
    let vector = graph.nodes.iter().find(|node| matches!(node.op, Some(LayerOp::Linear(_))));
    if let Some(layer) = vector {
        return Err(Error::usage(format!(
            "layer {} is fully connected, so that positions are lost; {}, one before it, or train \
             a convolutional model such as preset pyramid",
            layer.name,
            Advice::OtherLayer
        )));
    }
    let input = graph.nodes[0].dims;
    let mut layers = encoder.layers.clone();
    // Layers frozen by layer-wise training are fine-tuned here.
    layers.iter_mut().for_each(|layer| layer.frozen = false);
    let (mut end, mut dims) = (encoder.code.clone(), graph.nodes[graph.output].dims);
    if let Some(dilation) = context.code.iter().find(|dilation| **dilation >= dims.h.min(dims.w)) {
        return Err(Error::usage(format!(
            "the code of {dims} is too small for a convolution with dilation {dilation}, which \
             would read padding alone; {}",
            Advice::LargerCrops
        )));
    }
    let code = format!("{CONTEXT_PREFIX}code.");
    add_context(&mut layers, &mut end, &code, dims, context.code);
    let strides = |dims: Dims| (input.h.checked_div(dims.h), input.w.checked_div(dims.w));
    for (level, (pool, from)) in levels(graph).into_iter().enumerate() {
        if strides(dims) == (Some(stride), Some(stride)) {
            break;
        }
        let (name, skip) = (&graph.nodes[pool].name, graph.nodes[from].dims);
        let scale =
            [skip.h.checked_div(dims.h).unwrap_or(0), skip.w.checked_div(dims.w).unwrap_or(0)];
        if [dims.h * scale[0], dims.w * scale[1]] != [skip.h, skip.w] {
            return Err(Error::usage(format!(
                "layer {name} reduces maps from {skip} to {dims}, which is not an integer factor, \
                 so that a decoder cannot undo it; pad its convolutions (padding = \"same\")"
            )));
        }
        let mut add = |part: &str, from: Vec<String>, op: LayerOp| {
            let name = format!("head.{}.{part}", level + 1);
            layers.push(LayerSpec::new(&name, from, op));
            name
        };
        let filters = skip.c.max(MIN_FILTERS);
        let enlarged = match upsampling {
            Decoder::Deconv => add("up", vec![end], transposed(filters, scale)),
            Decoder::Unpool => {
                let Some(LayerOp::MaxPool2d(_)) = graph.nodes[pool].op else {
                    return Err(Error::usage(format!(
                        "layer {name} is not a max_pool2d, so that it has no switches; {}",
                        Advice::Deconv
                    )));
                };
                // Unpooling needs the channel count of the switches.
                let fitted = add(
                    "fit",
                    vec![end],
                    convolution(graph.nodes[pool].dims.c, 3, Activation::Relu),
                );
                add(
                    "up",
                    vec![fitted],
                    LayerOp::MaxUnpool2d(MaxUnpool2dSpec { switches: name.clone() }),
                )
            }
        };
        let skip_name = if from == 0 { "input".to_owned() } else { graph.nodes[from].name.clone() };
        let both = add("skip", vec![enlarged, skip_name], LayerOp::Concat(ConcatSpec {}));
        end = add("mix", vec![both], convolution(filters, 3, Activation::Relu));
        dims = Dims::of(skip.size(), filters);
    }
    if strides(dims) != (Some(stride), Some(stride)) {
        return Err(Error::usage(format!(
            "the model has no maps {stride} times smaller than its input; from layer {} a decoder \
             reaches {dims} of {input}; {}",
            encoder.code,
            Advice::OtherLayer
        )));
    }
    add_context(&mut layers, &mut end, CONTEXT_PREFIX, dims, context.maps);
    layers.push(LayerSpec::new(HEAD, vec![end], convolution(outputs, 1, Activation::Identity)));
    Ok(ModelSpec { output: Some(HEAD.to_owned()), layers, classes, ..encoder.clone() })
}

#[cfg(test)]
mod tests {
    use super::super::encoder::encoder;
    use super::*;
    use crate::spec::{Config, preset_text};

    fn encoder_of(preset: &str, input: Dims, layer: Option<&str>) -> (ModelSpec, Graph) {
        let config = Config::parse(preset_text(preset).unwrap(), preset, &[]).unwrap();
        let spec = encoder(&Graph::new(&config.model, input).unwrap(), layer, None).unwrap();
        let graph = Graph::new(&spec, input).unwrap();
        (spec, graph)
    }

    #[test]
    fn a_decoder_reaches_the_stride_asked_for() {
        let input = Dims::new(3, 64, 48);
        for how in [Decoder::Deconv, Decoder::Unpool] {
            let (spec, graph) = encoder_of("pyramid", input, None);
            let whole = Graph::new(
                &decoder(&spec, &graph, (how, 1, 5), Context::default(), Vec::new()).unwrap(),
                input,
            )
            .unwrap();
            assert_eq!(whole.nodes[whole.output].dims, Dims::new(5, 64, 48));
            // The encoder's parameters come first, with their names and shapes.
            let params = &whole.params[..graph.params.len()];
            assert!(params.iter().zip(&graph.params).all(|(a, b)| a == b));
            assert!(
                whole.params[graph.params.len()..]
                    .iter()
                    .all(|param| param.name.starts_with("head."))
            );
            let coarse = Graph::new(
                &decoder(
                    &spec,
                    &graph,
                    (how, 4, 7),
                    Context { maps: &[2, 4], ..Context::default() },
                    Vec::new(),
                )
                .unwrap(),
                input,
            )
            .unwrap();
            assert_eq!(coarse.nodes[coarse.output].dims, Dims::new(7, 16, 12));
        }
    }

    #[test]
    fn encoders_that_a_decoder_cannot_invert_are_refused() {
        let refused =
            |preset: &str, input: Dims, layer: Option<&str>, how: Decoder, stride: usize| {
                let (spec, graph) = encoder_of(preset, input, layer);
                decoder(&spec, &graph, (how, stride, 2), Context::default(), Vec::new())
                    .unwrap_err()
                    .to_string()
            };
        assert!(
            refused("article", Dims::new(3, 16, 16), None, Decoder::Deconv, 1)
                .contains("another layer")
        );
        assert!(
            refused("pyramid", Dims::new(3, 64, 64), None, Decoder::Deconv, 3)
                .contains("3 times smaller")
        );
        assert!(
            refused("wta", Dims::new(1, 28, 28), Some("encoder.1"), Decoder::Deconv, 2)
                .contains("2 times smaller")
        );
    }
}
