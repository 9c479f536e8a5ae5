//! Built-in cases of gates: operations that write a gradient multiplied by the slope of the
//! activation below.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::case::{Case, Tensor};
use super::models::model;
use super::table::{normal, uniforms};

/// Every activation whose slope follows from its output: its name, its description, and a loss that
/// accepts its outputs.
fn activations() -> [(&'static str, Value, &'static str); 6] {
    [
        ("relu", json!("relu"), "mse"),
        ("leaky_relu", json!({"kind": "leaky_relu", "slope": 0.2}), "l1"),
        ("elu", json!({"kind": "elu", "alpha": 1.5}), "charbonnier"),
        ("softplus", json!("softplus"), "sum_squares"),
        ("sigmoid", json!("sigmoid"), "bce"),
        ("tanh", json!("tanh"), "mse"),
    ]
}

/// All cases of gates.
pub(super) fn gates() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, activation, kind) in activations() {
        cases.push(odd_channels(name, &activation));
        cases.push(loss(name, &activation, kind, &[3, 2, 5, 7]));
        cases.push(penalty(name, &activation, &[3, 5, 4, 7], None));
        cases.push(penalty(&format!("{name}_revived"), &activation, &[3, 5, 4, 7], Some(2)));
    }
    for name in ["relu", "tanh"] {
        for channels in [5, 8] {
            cases.extend(penalties_by_gates(name, channels));
        }
    }
    let relu = json!("relu");
    cases.extend([
        vec4_channels("relu", &relu),
        vec4_channels("tanh", &json!("tanh")),
        without_gates(),
        loss("long", &relu, "mse", &[2, 3, 301, 299]),
    ]);
    // Numbers of units that are a multiple of 4, and sums over several workgroups.
    cases.extend([
        penalty("units", &relu, &[6, 68], Some(1)),
        penalty("long", &relu, &[2, 300_007], Some(1)),
    ]);
    cases
}

/// Every operation with a gate, with numbers of channels that are not multiples of 4. The gradients
/// before the activations of `a`, `b`, `d` and `e` are written by a convolution, a pooling, a
/// transposed convolution and a fully connected layer.
fn odd_channels(name: &str, activation: &Value) -> Case {
    let description = json!({"code": "e", "layers": [
        {"name": "a", "op": "conv2d", "filters": 5, "kernel": 3, "padding": 1,
         "activation": activation},
        {"name": "b", "op": "conv2d", "filters": 6, "kernel": [2, 3], "stride": [2, 1],
         "activation": activation},
        {"name": "c", "op": "max_pool2d", "kernel": [3, 2], "stride": [2, 1], "padding": [1, 1]},
        {"name": "d", "op": "conv_transpose2d", "filters": 7, "kernel": 3, "stride": [1, 2],
         "activation": activation},
        {"name": "e", "op": "conv_transpose2d", "filters": 3, "kernel": 2,
         "activation": activation},
        {"name": "f", "op": "linear", "units": 13}]});
    model(&format!("gates_{name}"), &description.to_string(), &[2, 3, 8, 7])
}

/// As [`odd_channels`], with numbers of channels that are multiples of 4, with groups, and
/// depthwise.
fn vec4_channels(name: &str, activation: &Value) -> Case {
    let description = json!({"code": "e", "layers": [
        {"name": "a", "op": "conv2d", "filters": 8, "kernel": 3, "padding": 1,
         "activation": activation},
        {"name": "b", "op": "max_pool2d", "kernel": 2},
        {"name": "c", "op": "conv2d", "filters": 36, "kernel": 2, "activation": activation},
        {"name": "d", "op": "conv2d", "filters": 36, "kernel": 3, "padding": 1, "groups": 36,
         "activation": activation},
        {"name": "e", "op": "conv2d", "filters": 12, "kernel": 1, "groups": 3,
         "activation": activation},
        {"name": "f", "op": "conv_transpose2d", "filters": 4, "kernel": 2, "stride": 2,
         "activation": activation},
        {"name": "g", "op": "conv_transpose2d", "filters": 4, "kernel": 3}]});
    model(&format!("gates_vectors_{name}"), &description.to_string(), &[3, 2, 10, 12])
}

/// L1 penalties that the gates of a convolution, a transposed convolution, a fully connected layer
/// and a dropout add, on a code of `channels` channels.
fn penalties_by_gates(name: &str, channels: usize) -> Vec<Case> {
    let readers = [
        ("conv", json!({"op": "conv2d", "filters": 7, "kernel": 3, "padding": 1})),
        ("transposed", json!({"op": "conv_transpose2d", "filters": 3, "kernel": 2, "stride": 2})),
        ("linear", json!({"op": "linear", "units": 9})),
        ("dropout", json!({"op": "dropout", "p": 0.4})),
    ];
    let case = |(reader, mut layer): (&str, Value)| {
        layer["name"] = json!("reader");
        let description = json!({"code": "code", "layers": [
            {"name": "code", "op": "conv2d", "filters": channels, "kernel": 3, "padding": 1,
             "activation": name}, layer]});
        let name = format!("penalty_by_{reader}_{name}_{channels}");
        let mut case = model(&name, &description.to_string(), &[3, 2, 6, 5]);
        case.attrs["lambda"] = json!(0.7);
        // No value of the code is near 0, where the penalty has no derivative.
        let small = case.inputs["x"].reals().iter().map(|x| 0.1 * x).collect();
        case.inputs.insert("x".to_owned(), Tensor::real(&[3, 2, 6, 5], small));
        let signs = (0..channels).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        case.inputs.insert("code.bias".to_owned(), Tensor::real(&[channels], signs));
        case
    };
    readers.map(case).into()
}

/// Layers whose gradients must not be gated: one read by two layers, one read twice by one layer,
/// and one whose gradient is an input of the program.
fn without_gates() -> Case {
    let description = json!({"code": "b", "layers": [
        {"name": "a", "op": "conv2d", "filters": 4, "kernel": 1, "activation": "tanh"},
        {"name": "b", "op": "conv2d", "filters": 4, "kernel": 3, "padding": 1,
         "activation": "sigmoid"},
        {"name": "c", "op": "conv2d", "filters": 4, "kernel": 1, "from": "a",
         "activation": "softplus"},
        {"name": "twice", "op": "add", "from": ["c", "c"]},
        {"name": "sum", "op": "add", "from": ["b", "twice"]},
        {"name": "pool", "op": "avg_pool2d", "kernel": 2, "from": "sum"},
        {"name": "d", "op": "conv2d", "filters": 3, "kernel": 1, "activation": "elu"},
        {"name": "mean", "op": "avg_pool2d", "kernel": 2},
        {"name": "out", "op": "linear", "units": 5, "activation": "tanh"}]});
    model("gates_not_taken", &description.to_string(), &[2, 3, 8, 4])
}

/// A case of a loss of y = f(x) with its gradient by x.
fn loss(name: &str, activation: &Value, kind: &str, shape: &[usize]) -> Case {
    let target =
        Tensor::real(shape, uniforms(&format!("gated {name} target"), shape.iter().product()));
    let inputs = BTreeMap::from([
        ("x".to_owned(), normal(&format!("gated {name} x"), shape)),
        ("target".to_owned(), target),
    ]);
    let attrs = json!({"kind": kind, "eps": 1e-3, "activation": activation});
    Case {
        op: "gated_loss".to_owned(),
        name: name.to_owned(),
        attrs,
        inputs,
        answers: BTreeMap::new(),
        half: false,
    }
}

/// A case of a penalty on z = f(x) with its gradient by x. With a patience it adds to an earlier
/// gradient and pushes dead units.
fn penalty(name: &str, activation: &Value, shape: &[usize], patience: Option<usize>) -> Case {
    let mut inputs =
        BTreeMap::from([("x".to_owned(), normal(&format!("gated penalty {name} x"), shape))]);
    let mut attrs = json!({"lambda": 0.25, "activation": activation});
    if let Some(patience) = patience {
        inputs.insert("grad_z".to_owned(), normal(&format!("gated penalty {name} grad_z"), shape));
        let idle = (0..shape[1]).map(|i| (i % 3) as f64).collect();
        inputs.insert("idle".to_owned(), Tensor::real(&shape[1..2], idle));
        attrs["patience"] = json!(patience);
        attrs["strength"] = json!(0.5);
    }
    Case {
        op: "gated_l1_penalty".to_owned(),
        name: name.to_owned(),
        attrs,
        inputs,
        answers: BTreeMap::new(),
        half: false,
    }
}
