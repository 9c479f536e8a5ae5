//! Cases of whole models.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::case::{Case, Tensor};
use super::table::{binary_mask, normal, normals};
use crate::model::Graph;
use crate::shape::Dims;
use crate::spec::ModelSpec;

/// The cases of all models.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        model("skips_and_shared", SKIPS, &[2, 3, 8, 8]),
        model("what_where", WHAT_WHERE, &[2, 2, 7, 9]),
        model("pooled_convolutions", POOLED, &[3, 3, 13, 18]),
        model("pooled_wide", POOLED_WIDE, &[2, 5, 10, 9]),
        model("pooled_not", NOT_POOLED, &[2, 4, 8, 8]),
    ];
    // Few distinct values, so that maxima of windows tie: the first of them receives the gradient.
    let mut ties = model("pooled_ties", POOLED_TIES, &[2, 1, 8, 10]);
    let few = ties.inputs["x"].reals().iter().map(|x| if *x > 0.0 { 1.0 } else { -0.5 }).collect();
    ties.inputs.insert("x".to_owned(), Tensor::real(&[2, 1, 8, 10], few));
    cases.push(ties);
    let mut unrolled = model("unrolled", UNROLLED, &[3, 2, 8, 6]);
    unrolled.inputs.insert("level".to_owned(), Tensor::real(&[3], vec![0.1, 0.0, 0.4]));
    cases.push(unrolled);
    let mut masked = model("unrolled_masked", UNROLLED_MASKED, &[3, 2, 8, 6]);
    masked.inputs.insert(
        "known".to_owned(),
        Tensor::real(&[3, 2, 8, 6], binary_mask("unrolled_masked known", &[3, 2, 8, 6])),
    );
    cases.push(masked);
    cases.extend([
        model("fused_epilogues", EPILOGUES, &[2, 3, 6, 6]),
        model("dropped", DROPPED, &[3, 2, 4, 4]),
        at_inference(),
    ]);
    cases
}

/// Sums, differences, concatenation, a weight shared by two layers, and a value that three layers
/// read.
const SKIPS: &str = r#"{"code": "mix", "layers": [
    {"name": "a", "op": "conv2d", "filters": 4, "kernel": 3, "padding": "same",
     "activation": "tanh"},
    {"name": "b", "op": "conv2d", "filters": 4, "kernel": 1, "activation": "gelu"},
    {"name": "c", "op": "conv2d", "filters": 4, "kernel": 1, "weight": "b.weight", "from": "a"},
    {"name": "sum", "op": "add", "from": ["b", "c"]},
    {"name": "difference", "op": "sub", "from": ["sum", "a"]},
    {"name": "mix", "op": "concat", "from": ["difference", "a", "input"]},
    {"name": "out", "op": "conv_transpose2d", "filters": 3, "kernel": 3, "padding": 1,
     "activation": "silu"}]}"#;

/// A what-where autoencoder: unpooling by the switches of the pooling.
const WHAT_WHERE: &str = r#"{"code": "pool", "layers": [
    {"name": "conv", "op": "conv2d", "filters": 3, "kernel": 3, "padding": "same",
     "activation": "softplus"},
    {"name": "pool", "op": "max_pool2d", "kernel": [2, 3]},
    {"name": "unpool", "op": "max_unpool2d", "switches": "pool"},
    {"name": "out", "op": "conv_transpose2d", "filters": 2, "kernel": 3, "padding": 1}]}"#;

/// A sparse code by unrolled iterations, with thresholds that depend on the noise level.
const UNROLLED: &str = r#"{"code": "code", "layers": [
    {"name": "code", "op": "lista", "filters": 5, "kernel": [3, 5], "stride": 2, "iterations": 3,
     "value": 0.02, "slope": 0.3},
    {"name": "atoms", "op": "conv_transpose2d", "filters": "input", "kernel": 3, "stride": 2,
     "padding": 1, "output_padding": 1},
    {"name": "image", "op": "add", "from": ["atoms", "code.mean"]}]}"#;

/// A sparse code by unrolled iterations with missing pixels.
const UNROLLED_MASKED: &str = r#"{"code": "code", "layers": [
    {"name": "code", "op": "lista", "filters": 5, "kernel": 3, "stride": 2, "iterations": 3,
     "value": 0.05, "masked": true},
    {"name": "atoms", "op": "conv_transpose2d", "filters": "input", "kernel": 3, "stride": 2,
     "padding": 1, "output_padding": 1},
    {"name": "image", "op": "add", "from": ["atoms", "code.mean"]}]}"#;

/// Max poolings fused into the convolutions before them: odd sides, no bias, a stride, a dilation,
/// switches that an unpooling reads.
const POOLED: &str = r#"{"code": "p3", "layers": [
    {"name": "a", "op": "conv2d", "filters": 8, "kernel": 3, "padding": "same",
     "activation": "relu"},
    {"name": "p1", "op": "max_pool2d", "kernel": 2},
    {"name": "b", "op": "conv2d", "filters": 4, "kernel": [2, 3], "padding": [1, 1], "bias": false,
     "activation": "tanh"},
    {"name": "p2", "op": "max_pool2d", "kernel": 2, "stride": 2},
    {"name": "c", "op": "conv2d", "filters": 12, "kernel": 3, "stride": [1, 2], "dilation": [2, 1],
     "padding": [2, 2], "activation": "softplus"},
    {"name": "p3", "op": "max_pool2d", "kernel": 2},
    {"name": "u", "op": "max_unpool2d", "switches": "p3"},
    {"name": "out", "op": "conv_transpose2d", "filters": 2, "kernel": 3, "stride": 2}]}"#;

/// Fused max poolings with more filters than a tile has columns, and other activations.
const POOLED_WIDE: &str = r#"{"code": "pb", "layers": [
    {"name": "a", "op": "conv2d", "filters": 76, "kernel": 3, "padding": 1,
     "activation": {"kind": "elu", "alpha": 0.7}},
    {"name": "pa", "op": "max_pool2d", "kernel": 2},
    {"name": "b", "op": "conv2d", "filters": 36, "kernel": 1,
     "activation": {"kind": "leaky_relu", "slope": 0.1}},
    {"name": "pb", "op": "max_pool2d", "kernel": 2},
    {"name": "out", "op": "linear", "units": 7}]}"#;

/// A fused max pooling with ties: equal pixels have equal values.
const POOLED_TIES: &str = r#"{"code": "p", "layers": [
    {"name": "a", "op": "conv2d", "filters": 8, "kernel": 1,
     "activation": {"kind": "leaky_relu", "slope": 0.3}},
    {"name": "p", "op": "max_pool2d", "kernel": 2},
    {"name": "out", "op": "linear", "units": 6}]}"#;

/// Max poolings that cannot be fused: of a map that two layers read, with other windows, of a
/// convolution with groups, with numbers of channels that are not multiples of 4, without an
/// activation before them.
const NOT_POOLED: &str = r#"{"code": "d", "layers": [
    {"name": "a", "op": "conv2d", "filters": 4, "kernel": 3, "padding": 1, "activation": "relu"},
    {"name": "pa", "op": "max_pool2d", "kernel": 2},
    {"name": "b", "op": "conv2d", "from": "a", "filters": 4, "kernel": 2, "stride": 2, "groups": 2,
     "activation": "relu"},
    {"name": "sum", "op": "add", "from": ["pa", "b"]},
    {"name": "pb", "op": "max_pool2d", "kernel": [2, 2], "stride": [1, 2]},
    {"name": "c", "op": "conv2d", "filters": 6, "kernel": 1, "activation": "relu"},
    {"name": "pc", "op": "max_pool2d", "kernel": [1, 2]},
    {"name": "d", "op": "conv2d", "filters": 8, "kernel": 2, "padding": 1},
    {"name": "pd", "op": "max_pool2d", "kernel": 2},
    {"name": "out", "op": "linear", "units": 5}]}"#;

/// Every activation that can be an epilogue, after each of the operations that have one.
const EPILOGUES: &str = r#"{"code": "d", "layers": [
    {"name": "a", "op": "conv2d", "filters": 5, "kernel": 3, "padding": 1,
     "activation": {"kind": "leaky_relu", "slope": 0.1}},
    {"name": "b", "op": "conv_transpose2d", "filters": 4, "kernel": 2, "stride": 2,
     "activation": {"kind": "elu", "alpha": 0.7}},
    {"name": "c", "op": "conv2d", "filters": 6, "kernel": 2, "stride": 2, "groups": 2,
     "activation": "softplus"},
    {"name": "d", "op": "linear", "units": 20, "activation": "tanh"},
    {"name": "e", "op": "linear", "shape": [3, 4, 2], "activation": "sigmoid"},
    {"name": "f", "op": "conv_transpose2d", "filters": 3, "kernel": 3, "groups": 3,
     "activation": "relu"}]}"#;

/// Dropout, forward and backward.
const DROPPED: &str = r#"{"code": "conv", "layers": [
    {"name": "conv", "op": "conv2d", "filters": 4, "kernel": 1, "activation": "relu"},
    {"name": "drop", "op": "dropout", "p": 0.4},
    {"name": "out", "op": "conv2d", "filters": 2, "kernel": 1}]}"#;

/// Layers that behave differently at inference: BatchTopK uses its stored threshold; dropout and
/// lifetime winner-take-all do nothing.
const AT_INFERENCE: &str = r#"{"code": "chosen", "layers": [
    {"name": "conv", "op": "conv2d", "filters": 5, "kernel": 3, "padding": 1, "activation": "relu"},
    {"name": "chosen", "op": "batch_top_k", "k": 9},
    {"name": "winners", "op": "lifetime_wta", "rate": 0.4},
    {"name": "drop", "op": "dropout", "p": 0.4},
    {"name": "out", "op": "conv2d", "filters": 2, "kernel": 1}]}"#;

/// The case of [`AT_INFERENCE`].
fn at_inference() -> Case {
    let mut case = model("at_inference", AT_INFERENCE, &[3, 2, 5, 7]);
    case.attrs["mode"] = json!("infer");
    case.inputs.insert("chosen.threshold".to_owned(), Tensor::real(&[1], vec![0.75]));
    case
}

/// The case of a whole model, with random inputs and parameters.
pub(super) fn model(name: &str, description: &str, x: &[usize]) -> Case {
    let description: Value = serde_json::from_str(description).expect("a built-in model is JSON");
    let spec: ModelSpec =
        serde_json::from_value(description.clone()).expect("a built-in model is well-formed");
    let graph = Graph::new(&spec, Dims::new(x[1], x[2], x[3])).expect("a built-in model is valid");
    let mut inputs = BTreeMap::from([("x".to_owned(), normal(&format!("{name} x"), x))]);
    for param in &graph.params {
        let values = normals(&format!("{name} {}", param.name), param.len())
            .iter()
            .map(|x| 0.5 * x)
            .collect();
        inputs.insert(param.name.clone(), Tensor::real(&param.shape, values));
    }
    let out = graph.nodes[graph.output].dims;
    inputs.insert(
        "grad_y".to_owned(),
        normal(&format!("{name} grad_y"), &[x[0], out.c, out.h, out.w]),
    );
    let attrs = json!({"model": description});
    Case {
        op: "model".to_owned(),
        name: name.to_owned(),
        attrs,
        inputs,
        answers: BTreeMap::new(),
        half: false,
    }
}
