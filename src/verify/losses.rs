//! Cases of the losses.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::case::{Case, Tensor, Values};
use super::table::{normal, uniforms};
use crate::ops::{CELL, HURDLE_OUTPUTS, HURDLE_VALUES};
use crate::rng::Stream;
use crate::spec::LossName;

/// The cases of all losses.
pub(super) fn cases() -> impl Iterator<Item = Case> {
    losses().into_iter().chain(dense_losses()).chain(hurdle_losses())
}

/// Losses of the reconstruction.
fn losses() -> Vec<Case> {
    let by_element = |name: &str, kind: &str, shape: &[usize]| {
        let len = shape.iter().product();
        let inputs = ["y", "target"].map(|input| {
            (input.to_owned(), Tensor::real(shape, uniforms(&format!("{name} {input}"), len)))
        });
        let attrs = json!({"kind": kind, "eps": 1e-3});
        Case {
            op: "loss".to_owned(),
            name: name.to_owned(),
            attrs,
            inputs: inputs.into(),
            answers: BTreeMap::new(),
            half: false,
        }
    };
    let by_class = |name: &str, n: usize, classes: usize| {
        let labels = Tensor {
            shape: vec![n],
            values: Values::Int((0..n).map(|i| (i * 5 % classes) as i32).collect()),
        };
        let inputs = BTreeMap::from([
            ("y".to_owned(), normal(name, &[n, classes])),
            ("target".to_owned(), labels),
        ]);
        Case {
            op: "loss".to_owned(),
            name: name.to_owned(),
            attrs: json!({"kind": "cross_entropy"}),
            inputs,
            answers: BTreeMap::new(),
            half: false,
        }
    };
    let mut cases: Vec<Case> =
        LossName::names().map(|kind| by_element(kind, kind, &[3, 2, 5, 7])).collect();
    cases.push(by_element("long", "mse", &[2, 3, 301, 299]));
    cases.extend([by_class("cross_entropy", 9, 13), by_class("many_workgroups", 70_001, 3)]);
    cases
}

/// Cases of the losses of segmentation and detection: a class and a weight for each pixel or cell,
/// and a box for each cell.
fn dense_losses() -> Vec<Case> {
    let case = |op: &str, name: &str, attrs: Value, [n, c, h, w]: [usize; 4], spread: f64| {
        let places = n * h * w;
        let mut stream = Stream::new(8, name);
        let logits = normal(&format!("{op} {name}"), &[n, c, h, w])
            .reals()
            .iter()
            .map(|y| spread * y)
            .collect();
        let classes = if op == "detection_loss" { c - CELL } else { c };
        let (mut labels, mut weights) = (Vec::new(), Vec::new());
        for _ in 0..places {
            // Two of three cells have no object. One of five places has weight 0 and an invalid
            // label.
            let has_object = op != "detection_loss" || stream.below(3) == 0;
            let counts = stream.below(5) > 0;
            labels.push(if !counts {
                255
            } else if has_object {
                stream.below(classes) as i32
            } else {
                classes as i32
            });
            weights.push(if counts {
                f64::from(0.25 + stream.uniform()) / places as f64
            } else {
                0.0
            });
        }
        let mut inputs = BTreeMap::from([
            ("y".to_owned(), Tensor::real(&[n, c, h, w], logits)),
            ("target".to_owned(), Tensor { shape: vec![n, h, w], values: Values::Int(labels) }),
            ("weights".to_owned(), Tensor::real(&[n, h, w], weights)),
        ]);
        if op == "detection_loss" {
            let boxes = (0..4 * places).map(|k| {
                f64::from(stream.uniform()) * if k % 4 < 2 { 1.0 } else { 3.0 }
                    + if k % 4 < 2 { -0.5 } else { 0.3 }
            });
            inputs.insert("boxes".to_owned(), Tensor::real(&[n, h, w, 4], boxes.collect()));
        }
        Case {
            op: op.to_owned(),
            name: name.to_owned(),
            attrs,
            inputs,
            answers: BTreeMap::new(),
            half: false,
        }
    };
    let dice = |strength: f64, smooth: f64| json!({"strength": strength, "smooth": smooth});
    let grid = |gamma: f64, positive: f64, negative: f64| {
        json!({
            "gamma": gamma,
            "positive": positive,
            "negative": negative,
            "box": 2.0,
            "class": 0.5,
        })
    };
    vec![
        case("segmentation_loss", "two_classes", dice(1.0, 1.0), [2, 2, 5, 7], 1.0),
        case("segmentation_loss", "entropy_alone", dice(0.0, 1.0), [1, 5, 3, 4], 1.0),
        case("segmentation_loss", "sure", dice(0.5, 1e-3), [1, 3, 4, 5], 8.0),
        case("segmentation_loss", "many_workgroups", dice(1.0, 1.0), [3, 11, 161, 163], 2.0),
        case("detection_loss", "focal", grid(2.0, 0.25, 0.75), [2, CELL + 3, 4, 5], 1.0),
        case("detection_loss", "cross_entropy", grid(0.0, 1.0, 1.0), [1, CELL + 1, 5, 4], 1.0),
        case("detection_loss", "sure", grid(1.5, 0.5, 0.5), [1, CELL + 2, 6, 3], 4.0),
        case(
            "detection_loss",
            "many_workgroups",
            grid(2.0, 0.25, 0.75),
            [5, CELL + 4, 161, 163],
            1.0,
        ),
    ]
}

/// Cases of the loss of hurdle models. A third of the units fire. Outputs of a wide spread lie
/// beyond both limits of the standard deviation.
fn hurdle_losses() -> Vec<Case> {
    let case = |name: &str, n: usize, units: usize, more: usize, spread: f64| {
        let outputs = normal(&format!("hurdle {name}"), &[n, HURDLE_OUTPUTS * units]).reals();
        let row = HURDLE_VALUES * units + more;
        let mut target = normal(&format!("hurdle {name} target"), &[n, row]).reals();
        let mut stream = Stream::new(9, name);
        for row in target.chunks_exact_mut(row) {
            row[..units].fill_with(|| if stream.below(3) == 0 { 0.75 } else { -0.25 });
        }
        let inputs = BTreeMap::from([
            (
                "y".to_owned(),
                Tensor::real(
                    &[n, HURDLE_OUTPUTS * units],
                    outputs.iter().map(|y| spread * y).collect(),
                ),
            ),
            ("target".to_owned(), Tensor::real(&[n, row], target)),
        ]);
        Case {
            op: "hurdle_loss".to_owned(),
            name: name.to_owned(),
            attrs: json!({"min_log_std": -4.0, "max_log_std": 2.0, "pull": 0.1}),
            inputs,
            answers: BTreeMap::new(),
            half: false,
        }
    };
    vec![
        case("one", 1, 1, 0, 1.0),
        case("conditioned", 5, 13, 7, 1.0),
        case("beyond_the_limits", 7, 11, 1, 3.0),
        case("many_workgroups", 3, 30_011, 2, 1.0),
    ]
}
