//! Which calls the backward pass records.

use super::*;
use crate::model::{Graph, ModelSpec, Purpose, Store};
use crate::program::Call;
use crate::record::Mode;
use crate::shape::Dims;

/// The graph of some layers; the code is `a`.
fn graph(layers: &str) -> Graph {
    let text = format!("code = \"a\"\n{layers}");
    let model: ModelSpec = toml::from_str(&text).unwrap();
    Graph::new(&model, Dims::new(2, 6, 6)).unwrap()
}

/// A convolution that keeps the size.
fn conv(name: &str, from: &str, more: &str) -> String {
    format!(
        "[[layers]]\nname = \"{name}\"\nfrom = [\"{from}\"]\nop = \"conv2d\"\nfilters = 2\n\
         kernel = 3\npadding = 1\n{more}\n"
    )
}

/// Names of the calls that the backward pass records when the output has a gradient.
fn backward(graph: &Graph) -> Vec<&'static str> {
    calls(graph).iter().map(Call::name).collect()
}

/// The calls that the backward pass records when the output has a gradient.
fn calls(graph: &Graph) -> Vec<Call> {
    let store = Store::layout(graph, Purpose::Train { moments: 1, parts: false });
    let mut b = Builder::new(graph, &store, 3, Mode::Train);
    let x = b.input();
    b.forward(x, &[graph.output]);
    let dy = b.tape.map("gradient of the output", b.value(graph.output).len);
    let forward = b.tape.calls.len();
    b.seed(graph.output, dy);
    b.backward();
    b.tape.calls.split_off(forward)
}

fn count(calls: &[&str], name: &str) -> usize {
    calls.iter().filter(|call| **call == name).count()
}

const RELU: &str = "activation = \"relu\"";

#[test]
fn a_whole_gradient_is_multiplied_by_the_slope_where_it_is_written() {
    let graph = graph(&[conv("a", "input", RELU), conv("b", "a", "")].concat());
    let calls = backward(&graph);
    assert_eq!((count(&calls, "Conv2dBwdInput"), count(&calls, "Conv2dBwdWeight")), (1, 2));
    assert_eq!(count(&calls, "ActivationBwdOutput"), 0, "{calls:?}");
}

#[test]
fn a_sum_of_gradients_is_multiplied_by_the_slope_after_the_sum() {
    let add = "[[layers]]\nname = \"d\"\nop = \"add\"\nfrom = [\"b\", \"c\"]\n";
    let layers = [conv("a", "input", RELU), conv("b", "a", ""), conv("c", "a", "")].concat() + add;
    let calls = backward(&graph(&layers));
    assert_eq!(count(&calls, "Conv2dBwdInput"), 2);
    let at = |name: &str| calls.iter().position(|call| *call == name).unwrap();
    assert!(at("AddAssign") < at("ActivationBwdOutput"), "{calls:?}");
    assert_eq!(count(&calls, "ActivationBwdOutput"), 1);
}

#[test]
fn nothing_is_recorded_before_the_first_learned_layer() {
    let layers = [conv("a", "input", "frozen = true"), conv("b", "a", ""), conv("c", "b", "")];
    let calls = backward(&graph(&layers.concat()));
    assert_eq!((count(&calls, "Conv2dBwdInput"), count(&calls, "Conv2dBwdWeight")), (1, 2));
}

#[test]
fn a_frozen_layer_between_learned_ones_passes_the_gradient_on() {
    let layers = [conv("a", "input", ""), conv("b", "a", "frozen = true"), conv("c", "b", "")];
    let calls = backward(&graph(&layers.concat()));
    assert_eq!((count(&calls, "Conv2dBwdInput"), count(&calls, "Conv2dBwdWeight")), (2, 2));
}

#[test]
fn the_gradients_of_a_shared_weight_are_added() {
    let layers = [conv("a", "input", ""), conv("b", "a", "weight = \"a.weight\"")];
    let calls = backward(&graph(&layers.concat()));
    assert_eq!((count(&calls, "Conv2dBwdWeight"), count(&calls, "AddAssign")), (2, 1), "{calls:?}");
}

#[test]
fn biases_have_a_gradient_beside_the_weight_and_layers_without_them_none() {
    let layers = [conv("a", "input", ""), conv("b", "a", "bias = false")];
    let calls = calls(&graph(&layers.concat()));
    let with_bias = |call: &Call| match call {
        Call::Conv2dBwdWeight(call) => Some(call.db.is_some()),
        _ => None,
    };
    // The last layer comes first.
    assert_eq!(calls.iter().filter_map(with_bias).collect::<Vec<_>>(), [false, true]);
    assert!(calls.iter().all(|call| call.name() != "ChannelSum"), "{calls:?}");
}

#[test]
fn the_bias_of_a_layer_with_a_frozen_weight_has_a_sum_of_its_own() {
    let shared = conv("b", "a", "weight = \"a.weight\"");
    let layers = [conv("a", "input", "frozen = true"), shared];
    let calls = backward(&graph(&layers.concat()));
    assert_eq!((count(&calls, "ChannelSum"), count(&calls, "Conv2dBwdWeight")), (1, 0));
}

#[test]
fn the_bias_of_a_transposed_convolution_has_its_gradient_beside_the_weight() {
    let transposed = conv("a", "input", "").replace("conv2d", "conv_transpose2d");
    let calls = calls(&graph(&transposed));
    let found = calls.iter().find_map(|call| match call {
        Call::Conv2dBwdWeight(call) => Some((call.transposed, call.db.is_some())),
        _ => None,
    });
    assert!(calls.iter().all(|call| call.name() != "ChannelSum"), "{calls:?}");
    assert_eq!(found, Some((true, true)), "{calls:?}");
}
