//! The built-in case table: every operation at shapes that tend to reveal bugs (single elements,
//! primes, sizes that are not multiples of a vec4, many workgroups). Tests, `csae verify` and the
//! benches use it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::case::{Case, Tensor, Values};
use super::direct_case::SUM_ROWS;
use super::gates::gates;
use crate::model::Graph;
use crate::ops::{CELL, HURDLE_OUTPUTS, HURDLE_VALUES};
use crate::rng::Stream;
use crate::sample_type::{MISSING, SampleType};
use crate::shape::Dims;
use crate::spec::{LossName, ModelSpec, OptimizerName};

/// A case: operation, name, attributes, shape of x, and names and shapes of the other inputs.
struct Row {
    op: &'static str,
    name: &'static str,
    attrs: Value,
    x: &'static [usize],
    tensors: &'static [(&'static str, &'static [usize])],
}

fn row(
    op: &'static str,
    name: &'static str,
    attrs: Value,
    x: &'static [usize],
    tensors: &'static [(&'static str, &'static [usize])],
) -> Row {
    Row { op, name, attrs, x, tensors }
}

/// The cases that layers state.
fn layers() -> impl Iterator<Item = Row> {
    crate::model::layers::cases().into_iter().map(|(op, case)| Row {
        op,
        name: case.name,
        attrs: serde_json::from_str(case.keys).expect("the keys of a case are JSON"),
        x: case.x,
        tensors: case.tensors,
    })
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    vec![
        row("l1_penalty", "maps", json!({"lambda": 0.25}), &[3, 5, 4, 7], &[]),
        row("l1_penalty", "long", json!({"lambda": 0.25}), &[2, 300_007], &[]),
        row("kl_penalty", "code", json!({"beta": 2.0, "rho": 0.05}), &[9, 33], &[]),
        row("kl_penalty", "vectors", json!({"beta": 2.0, "rho": 0.2}), &[6, 68], &[]),
        row("dropout", "code", json!({"p": 0.25, "seed": 0x1_2345_6789_u64, "step": 17}), &[5, 203], &[]),
        row("dropout", "maps", json!({"p": 0.5, "seed": 3, "step": 1}), &[2, 5, 7, 3], &[]),
        row("gaussian_noise", "maps", json!({"low": 0.1, "high": 0.4, "seed": 3, "step": 1}), &[3, 3, 7, 5], &[]),
        row("gaussian_noise", "long", json!({"low": 0.2, "high": 0.2, "seed": 0x1_2345_6789_u64, "step": 9}), &[2, 1, 130, 61], &[]),
        row("missing_pixels", "pixels", json!({"kinds": 1, "low": 0.2, "high": 0.7, "seed": 3, "step": 4}), &[3, 3, 7, 5], &[]),
        row("missing_pixels", "blocks", json!({"kinds": 2, "low": 0.2, "high": 0.7, "seed": 0x1_2345_6789_u64, "step": 9}), &[4, 1, 33, 50], &[]),
        row("missing_pixels", "strokes", json!({"kinds": 4, "low": 0.1, "high": 0.4, "seed": 5, "step": 1}), &[3, 1, 48, 48], &[]),
        row("missing_pixels", "text", json!({"kinds": 8, "low": 0.1, "high": 0.5, "seed": 6, "step": 2}), &[3, 2, 41, 64], &[]),
        row("missing_pixels", "all", json!({"kinds": 15, "low": 0.0, "high": 0.99, "seed": 7, "step": 3}), &[32, 1, 24, 27], &[]),
        row("fill_missing", "maps", json!({}), &[3, 5, 9, 11], &[("known", &[3, 5, 9, 11])]),
        row("known_values", "maps", json!({}), &[3, 5, 9, 11], &[]),
        row("keep_known", "maps", json!({}), &[3, 5, 9, 11], &[
            ("known", &[3, 5, 9, 11]),
            ("target", &[3, 5, 9, 11]),
        ]),
        row("fill_missing", "long", json!({}), &[2, 1, 130, 61], &[("known", &[2, 1, 130, 61])]),
        row("bicubic_down_up", "gray", json!({"scales": [2, 3, 4], "seed": 3, "step": 4}), &[6, 1, 24, 36], &[]),
        row("bicubic_down_up", "colour", json!({"scales": [2, 8], "seed": 8, "step": 1}), &[3, 3, 16, 8], &[]),
        row("count_nonzero", "maps", json!({}), &[3, 5, 6, 7], &[]),
        row("count_nonzero", "long", json!({}), &[2, 300_007], &[]),
        row("firing_update", "code", json!({}), &[6, 37], &[("idle", &[37])]),
        row("firing_update", "maps", json!({}), &[3, 20, 5, 4], &[("idle", &[20])]),
        row("idle_update", "code", json!({}), &[6, 37], &[("idle", &[37])]),
        row("idle_update", "maps", json!({}), &[3, 20, 5, 4], &[("idle", &[20])]),
        row("firing_update", "many_rows", json!({}), &[4, 20, 33, 41], &[("idle", &[20])]),
        row("max_norm", "rows", json!({"outer": 1, "atoms": 7, "inner": 130, "max_norm": 11.0}), &[7, 130], &[]),
        row("max_norm", "columns", json!({"outer": 9, "atoms": 13, "inner": 1, "max_norm": 3.0}), &[9, 13], &[]),
        row("max_norm", "exact", json!({"outer": 3, "atoms": 9, "inner": 4, "max_norm": 1.0, "exact": true}), &[27, 4], &[]),
        row("project_grad", "rows", json!({"outer": 1, "atoms": 7, "inner": 130}), &[7, 130], &[("w", &[7, 130])]),
        row("project_grad", "columns", json!({"outer": 9, "atoms": 13, "inner": 1}), &[9, 13], &[("w", &[9, 13])]),
        row("idle_only", "code", json!({"patience": 1, "fill": -6e4}), &[6, 37], &[("idle", &[37])]),
        row("idle_only", "maps", json!({"patience": 2, "fill": 0.0}), &[3, 20, 5, 4], &[("idle", &[20])]),
        row("revive", "code", json!({"patience": 1, "strength": 0.5}), &[6, 37], &[("idle", &[37])]),
        row("revive", "maps", json!({"patience": 2, "strength": 0.5}), &[3, 20, 5, 4], &[("idle", &[20])]),
    ]
}

/// All built-in cases. Inputs are random numbers seeded by the case's name; answers are computed
/// when a case runs.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = layers().chain(rows()).map(fill).collect();
    cases.extend(losses());
    cases.extend(dense_losses());
    cases.extend(hurdle_losses());
    cases.extend(gates());
    cases.extend([
        model("skips_and_shared", SKIPS, &[2, 3, 8, 8]),
        model("what_where", WHAT_WHERE, &[2, 2, 7, 9]),
    ]);
    cases.extend([
        model("pooled_convolutions", POOLED, &[3, 3, 13, 18]),
        model("pooled_wide", POOLED_WIDE, &[2, 5, 10, 9]),
        model("pooled_not", NOT_POOLED, &[2, 4, 8, 8]),
    ]);
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
    ]);
    cases.extend([
        clip("long", 300_007, 1.0, 3.0),
        clip("small", 131, 1e-3, 2e-3),
        clip("untouched", 131, 1e-3, 1.0),
    ]);
    cases.extend([
        at_inference(),
        unpool("scalars", &[2, 3, 4, 5]),
        unpool("vectors", &[3, 8, 3, 4]),
    ]);
    for kind in OptimizerName::names() {
        cases.extend([
            optimizer(kind, "built_in", 1.0),
            optimizer(kind, "scaled", 64.0),
            optimizer_of_sums(kind),
        ]);
    }
    cases.extend([
        gather("centre", false, [2, 3, 4], SampleType::U8),
        gather("augmented", true, [2, 3, 4], SampleType::U8),
        gather("turned", true, [2, 3, 3], SampleType::U8),
        gather("u16", true, [2, 3, 4], SampleType::U16),
        gather("f16", true, [2, 3, 3], SampleType::F16),
        gather("f32", true, [2, 3, 4], SampleType::F32),
        gather("missing_f16", true, [2, 3, 4], SampleType::F16),
        gather("missing_f32", true, [2, 3, 3], SampleType::F32),
    ]);
    cases
}

/// Standard normal numbers, seeded by `id`.
pub(super) fn normals(id: &str, len: usize) -> Vec<f64> {
    let mut stream = Stream::new(11, id);
    (0..len).map(|_| f64::from(stream.normal())).collect()
}

/// Uniform numbers in [0, 1), seeded by `id`.
pub(super) fn uniforms(id: &str, len: usize) -> Vec<f64> {
    let mut stream = Stream::new(12, id);
    (0..len).map(|_| f64::from(stream.uniform())).collect()
}

/// A tensor of standard normal numbers, seeded by `id`.
pub(super) fn normal(id: &str, shape: &[usize]) -> Tensor {
    Tensor::real(shape, normals(id, shape.iter().product()))
}

/// A mask of 0 and 1 with equal probability. The first map of the last sample is all 0.
fn binary_mask(id: &str, shape: &[usize]) -> Vec<f64> {
    let mut values: Vec<f64> =
        uniforms(id, shape.iter().product()).iter().map(|u| u.round()).collect();
    let sample = values.len() / shape[0];
    let last = values.len() - sample;
    values[last..last + sample / shape[1]].fill(0.0);
    values
}

/// The case of a row, with random inputs.
fn fill(row: Row) -> Case {
    let id = format!("{}/{}", row.op, row.name);
    let mut inputs = BTreeMap::new();
    let mut x = normals(&format!("{id} x"), row.x.iter().product());
    match row.op {
        // A sparse code as after a ReLU. Its many zeros also test ties.
        "count_nonzero" | "firing_update" | "idle_update" | "batch_top_k" => {
            x.iter_mut().for_each(|x| *x = (*x - 0.8).max(0.0))
        }
        "known_values" => x.iter_mut().step_by(3).for_each(|x| *x = f64::from(MISSING)),
        "kl_penalty" => {
            x.iter_mut().for_each(|x| *x = f64::from((1.0 / (1.0 + (-*x).exp())) as f32))
        }
        _ => {}
    }
    if ["firing_update", "idle_update"].contains(&row.op) {
        // Of every four units one is dead, and one fires only in the first sample.
        let (channels, area) = (row.x[1], row.x[2..].iter().product::<usize>());
        let silent =
            |i: usize| matches!((i / area % channels % 4, i / area / channels), (1, _) | (2, 1..));
        x.iter_mut().enumerate().filter(|(i, _)| silent(*i)).for_each(|(_, x)| *x = 0.0);
    }
    if row.op == "batch_top_k" {
        // Exact in f32, so that all devices compare equal values.
        x.iter_mut().for_each(|x| *x = f64::from(*x as f32));
        if row.name == "long_ties" {
            // Few distinct values, so that a tie above 0 has to be broken.
            x.iter_mut().for_each(|x| *x = (*x * 4.0).round() / 4.0);
        }
    }
    inputs.insert("x".to_owned(), Tensor::real(row.x, x));
    for (name, shape) in row.tensors {
        let len = shape.iter().product();
        let values = match *name {
            "threshold" => uniforms(&id, len),
            "idle" => (0..len).map(|i| (i % 3) as f64).collect(),
            "known" => binary_mask(&id, shape),
            _ => normals(&format!("{id} {name}"), len),
        };
        inputs.insert((*name).to_owned(), Tensor::real(shape, values));
    }
    let mut case = Case {
        op: row.op.to_owned(),
        name: row.name.to_owned(),
        attrs: row.attrs,
        inputs,
        answers: BTreeMap::new(),
        half: false,
    };
    case.add_output_gradient();
    case
}

impl Case {
    /// Adds a random `grad_y` to the case of a layer.
    fn add_output_gradient(&mut self) {
        let no_gradient = [
            "l1_penalty",
            "kl_penalty",
            "dropout",
            "gaussian_noise",
            "missing_pixels",
            "fill_missing",
            "known_values",
            "keep_known",
            "bicubic_down_up",
            "count_nonzero",
            "firing_update",
            "idle_update",
            "revive",
            "max_norm",
            "project_grad",
            "idle_only",
        ];
        if no_gradient.contains(&self.op.as_str()) {
            return;
        }
        let shape = super::layer_case::gradient_shape(self).expect("a built-in case has a shape");
        if let Some(shape) = shape {
            let gradient = normal(&format!("{} grad_y", self.id()), &shape);
            self.inputs.insert("grad_y".to_owned(), gradient);
        }
    }
}

/// Cases of the losses.
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

/// A case of max unpooling, with random switches within each 2×2 window.
fn unpool(name: &str, x: &[usize]) -> Case {
    let mut stream = Stream::new(6, name);
    let (h, w) = (x[2], x[3]);
    let switches: Vec<i32> = (0..x.iter().product())
        .map(|i: usize| {
            let (row, column) = (i / w % h, i % w);
            ((2 * row + stream.below(2)) * 2 * w + 2 * column + stream.below(2)) as i32
        })
        .collect();
    let inputs = BTreeMap::from([
        ("x".to_owned(), normal(&format!("unpool {name}"), x)),
        ("switches".to_owned(), Tensor { shape: x.to_vec(), values: Values::Int(switches) }),
        (
            "grad_y".to_owned(),
            normal(&format!("unpool {name} grad_y"), &[x[0], x[1], 2 * h, 2 * w]),
        ),
    ]);
    let attrs = json!({"kernel": [2, 2], "stride": [2, 2], "output_size": [2 * h, 2 * w]});
    Case {
        op: "max_unpool2d".to_owned(),
        name: name.to_owned(),
        attrs,
        inputs,
        answers: BTreeMap::new(),
        half: false,
    }
}

/// A case of four steps of an optimiser, with gradients scaled by `grad_scale`.
fn optimizer(kind: &str, name: &str, grad_scale: f64) -> Case {
    let attrs = json!({
        "kind": kind,
        "grad_scale": grad_scale,
        "lr": 0.05,
        "momentum": 0.8,
        "nesterov": true,
        "betas": [0.9, 0.99],
        "weight_decay": 0.02,
    });
    let inputs = BTreeMap::from([
        ("weight".to_owned(), normal(kind, &[131])),
        ("grads".to_owned(), normal(&format!("{kind} g"), &[4, 131])),
    ]);
    Case {
        op: "optimizer".to_owned(),
        name: format!("{kind}_{name}"),
        attrs,
        inputs,
        answers: BTreeMap::new(),
        half: false,
    }
}

/// A case of two steps of an optimiser whose gradients are sums in part.
fn optimizer_of_sums(kind: &str) -> Case {
    let mut case = optimizer(kind, "of_sums", 1.0);
    let name = format!("{kind} sums");
    case.attrs["sums"] = json!(true);
    let rows = SUM_ROWS * (68 + 4 + 45);
    let scaled = |name: String, shape: &[usize], scale: f64| {
        let values = normals(&name, shape.iter().product()).iter().map(|x| scale * x).collect();
        Tensor::real(shape, values)
    };
    case.inputs = BTreeMap::from([
        ("weight".to_owned(), normal(&name, &[301])),
        ("grads".to_owned(), normal(&format!("{name} g"), &[2, 301])),
        ("rows".to_owned(), scaled(format!("{name} rows"), &[2, rows], 0.02)),
    ]);
    case
}

/// A case of gradient clipping.
fn clip(name: &str, len: usize, scale: f64, max_norm: f64) -> Case {
    let grads = normals(&format!("clip {name}"), len).iter().map(|g| scale * g).collect();
    let inputs = BTreeMap::from([("grads".to_owned(), Tensor::real(&[len], grads))]);
    Case {
        op: "clip_grad_norm".to_owned(),
        name: name.to_owned(),
        attrs: json!({"max_norm": max_norm}),
        inputs,
        answers: BTreeMap::new(),
        half: false,
    }
}

/// A case of gathering a batch from stored samples.
fn gather(name: &str, random: bool, dims: [usize; 3], sample: SampleType) -> Case {
    // Three images of 2 channels, 5x6, 4x4 and 7x5, packed little-endian.
    let sides = [(5, 6), (4, 4), (7, 5)];
    let mut bytes: Vec<u8> = Vec::new();
    let mut table = Vec::new();
    let mut stream = Stream::new(5, "gather");
    let missing = name.starts_with("missing");
    for (h, w) in sides {
        table.extend([(bytes.len() / sample.size()) as i32, h, w]);
        for i in 0..h * w * 2 {
            match sample {
                _ if missing && i % 5 < 3 => {
                    let value = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][(i % 5) as usize];
                    sample.push(value, &mut bytes);
                }
                SampleType::U8 => bytes.push(stream.word() as u8),
                SampleType::U16 => bytes.extend((stream.word() as u16).to_le_bytes()),
                SampleType::F16 | SampleType::F32 => {
                    sample.push(20.0 * stream.uniform() - 10.0, &mut bytes);
                }
            }
        }
    }
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let words =
        bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let ints = |values: Vec<i32>| Tensor { shape: vec![values.len()], values: Values::Int(values) };
    // A quarter of the full range, and another scale for the second channel.
    let full = sample.full_scale();
    let scales = [0.25 * full, full, -3.0, 0.7 * full];
    let inputs = BTreeMap::from([
        ("bytes".to_owned(), ints(words)),
        ("table".to_owned(), ints(table)),
        ("order".to_owned(), ints(vec![2, 0, 1, 1, 2])),
        ("scales".to_owned(), ints(scales.map(|scale| scale.to_bits() as i32).to_vec())),
    ]);
    let turn = random && dims[1] == dims[2];
    let attrs = json!({
        "dims": dims,
        "crop": random,
        "flip_x": random,
        "flip_y": random,
        "turn": turn,
        "seed": 9,
                "step": 4,
        "sample": sample.code(),
        "missing": missing,
    });
    Case {
        op: "gather_batch".to_owned(),
        name: name.to_owned(),
        attrs,
        inputs,
        answers: BTreeMap::new(),
        half: false,
    }
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
