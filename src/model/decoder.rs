//! A decoder of an encoder's maps: back to a larger size, with skips from the encoder's own maps of
//! that size, and values of each place at the end.

use super::encoder::HEAD;
use super::graph::Graph;
use crate::error::{Error, Result};
use crate::ops::Activation;
use crate::shape::Dims;
use crate::spec::{
    Conv2dSpec, ConvTranspose2dSpec, FilterCount, Init, LayerOp, LayerSpec, MaxUnpool2dSpec,
    ModelSpec, NoKeys, Pad, Pair,
};

/// How maps are enlarged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// By transposed convolutions (U-Net: Ronneberger et al. 2015).
    Deconv,
    /// By the switches of the encoder's max pools (SegNet: Badrinarayanan et al. 2017).
    Unpool,
}

/// FilterCount of the decoder's layers at least.
const LEAST: usize = 8;

fn convolution(filters: usize, kernel: usize, activation: Activation) -> LayerOp {
    LayerOp::Conv2d(Conv2dSpec { kernel: Pair::both(kernel), activation, ..plain(filters) })
}

fn dilated(filters: usize, dilation: usize) -> LayerOp {
    LayerOp::Conv2d(Conv2dSpec { dilation: Pair::both(dilation), ..plain(filters) })
}

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

fn transposed(filters: usize, by: [usize; 2]) -> LayerOp {
    LayerOp::ConvTranspose2d(ConvTranspose2dSpec {
        filters: FilterCount::Count(filters),
        kernel: Pair(by),
        stride: Pair(by),
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

/// The maps of an encoder before each of its layers that make them smaller, from the last one to
/// the first.
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

/// An encoder with a decoder behind it, which gives `outputs` values of each place of maps that are
/// `stride` times smaller than the input, or as large where it is 1. Before the last layer there is
/// one of 3×3 for each dilation of `context`, which lets places see far around them (Yu & Koltun
/// 2016). Layers of the decoder are called `head.…`, the last one `head`.
///
/// # Errors
/// When the encoder has such layers already or a fully connected one, its maps are no whole numbers
/// of times smaller, or no maps are of that stride, or switches are wanted that it does not have.
pub fn decoder(
    encoder: &ModelSpec,
    graph: &Graph,
    (how, stride, outputs): (Decoder, usize, usize),
    context: &[usize],
    classes: Vec<String>,
) -> Result<ModelSpec> {
    let named_head = |layer: &LayerSpec| layer.defines(HEAD) || layer.name.starts_with("head.");
    if encoder.layers.iter().any(named_head) {
        return Err(Error::usage(format!(
            "the model has a layer {HEAD} already: name the last layer of its encoder by --layer"
        )));
    }
    let vector = graph.nodes.iter().find(|node| matches!(node.op, Some(LayerOp::Linear(_))));
    if let Some(layer) = vector {
        return Err(Error::usage(format!(
            "layer {}: fully connected, so that places are lost; name a layer of maps before it by --layer, or train a model of convolutions (--preset pyramid)",
            layer.name
        )));
    }
    let input = graph.nodes[0].dims;
    let mut layers = encoder.layers.clone();
    // What a later stage left as it was may be tuned now.
    layers.iter_mut().for_each(|layer| layer.frozen = false);
    let (mut end, mut at) = (encoder.code.clone(), graph.nodes[graph.output].dims);
    let strides = |at: Dims| (input.h.checked_div(at.h), input.w.checked_div(at.w));
    for (level, (pool, from)) in levels(graph).into_iter().enumerate() {
        if strides(at) == (Some(stride), Some(stride)) {
            break;
        }
        let (name, skip) = (&graph.nodes[pool].name, graph.nodes[from].dims);
        let by = [skip.h.checked_div(at.h).unwrap_or(0), skip.w.checked_div(at.w).unwrap_or(0)];
        if [at.h * by[0], at.w * by[1]] != [skip.h, skip.w] {
            return Err(Error::usage(format!(
                "layer {name} makes maps of {at} from {skip}: not a whole number of times smaller, so that no layer undoes it; pad convolutions (padding = \"same\")"
            )));
        }
        let mut add = |part: &str, from: Vec<String>, op: LayerOp| {
            let name = format!("head.{}.{part}", level + 1);
            layers.push(LayerSpec::new(&name, from, op));
            name
        };
        let filters = skip.c.max(LEAST);
        let larger = match how {
            Decoder::Deconv => add("up", vec![end], transposed(filters, by)),
            Decoder::Unpool => {
                let Some(LayerOp::MaxPool2d(_)) = graph.nodes[pool].op else {
                    return Err(Error::usage(format!(
                        "layer {name} is no max_pool2d, so that it has no switches; take --decoder deconv"
                    )));
                };
                // switches are of so many channels
                let as_many = add(
                    "fit",
                    vec![end],
                    convolution(graph.nodes[pool].dims.c, 3, Activation::Relu),
                );
                add(
                    "up",
                    vec![as_many],
                    LayerOp::MaxUnpool2d(MaxUnpool2dSpec { switches: name.clone() }),
                )
            }
        };
        let skip_name = if from == 0 { "input".to_owned() } else { graph.nodes[from].name.clone() };
        let both = add("skip", vec![larger, skip_name], LayerOp::Concat(NoKeys {}));
        end = add("mix", vec![both], convolution(filters, 3, Activation::Relu));
        at = Dims::new(filters, skip.h, skip.w);
    }
    if strides(at) != (Some(stride), Some(stride)) {
        return Err(Error::usage(format!(
            "no maps of the model are {stride} times smaller than its input, those of layer {} are {at} of {input}; name another one by --layer",
            encoder.code
        )));
    }
    for (i, dilation) in context.iter().enumerate() {
        let name = format!("head.context.{}", i + 1);
        layers.push(LayerSpec::new(&name, vec![end], dilated(at.c.max(LEAST), *dilation)));
        end = name;
    }
    layers.push(LayerSpec::new(HEAD, vec![end], convolution(outputs, 1, Activation::Identity)));
    Ok(ModelSpec { output: Some(HEAD.to_owned()), layers, classes, ..encoder.clone() })
}

#[cfg(test)]
mod tests {
    use super::super::encoder::encoder;
    use super::*;
    use crate::spec::{Config, preset_text};

    fn of(preset: &str, input: Dims, layer: Option<&str>) -> (ModelSpec, Graph) {
        let config = Config::parse(preset_text(preset).unwrap(), preset, &[]).unwrap();
        let spec = encoder(&Graph::new(&config.model, input).unwrap(), layer, None).unwrap();
        let graph = Graph::new(&spec, input).unwrap();
        (spec, graph)
    }

    #[test]
    fn decoders_go_back_to_the_input() {
        let input = Dims::new(3, 64, 48);
        for how in [Decoder::Deconv, Decoder::Unpool] {
            let (spec, graph) = of("pyramid", input, None);
            let whole =
                Graph::new(&decoder(&spec, &graph, (how, 1, 5), &[], Vec::new()).unwrap(), input)
                    .unwrap();
            assert_eq!(whole.nodes[whole.output].dims, Dims::new(5, 64, 48));
            // the encoder's parameters come first and are its own
            let params = &whole.params[..graph.params.len()];
            assert!(params.iter().zip(&graph.params).all(|(a, b)| a == b));
            assert!(
                whole.params[graph.params.len()..]
                    .iter()
                    .all(|param| param.name.starts_with("head."))
            );
            let coarse = Graph::new(
                &decoder(&spec, &graph, (how, 4, 7), &[2, 4], Vec::new()).unwrap(),
                input,
            )
            .unwrap();
            assert_eq!(coarse.nodes[coarse.output].dims, Dims::new(7, 16, 12));
        }
    }

    #[test]
    fn what_cannot_be_undone_is_refused() {
        let refused =
            |preset: &str, input: Dims, layer: Option<&str>, how: Decoder, stride: usize| {
                let (spec, graph) = of(preset, input, layer);
                decoder(&spec, &graph, (how, stride, 2), &[], Vec::new()).unwrap_err().to_string()
            };
        assert!(
            refused("article", Dims::new(3, 16, 16), None, Decoder::Deconv, 1).contains("--layer")
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
