//! The built-in case table: every operation at shapes that tend to reveal bugs (single elements,
//! primes, sizes that are not multiples of a vec4, many workgroups). Tests, `csae verify` and the
//! benches use it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::case::{Case, Tensor, Values};
use super::direct_case::SUM_ROWS;
use super::gates::gates;
use super::{losses, models};
use crate::rng::Stream;
use crate::sample_type::{MISSING, SampleType};
use crate::spec::OptimizerName;

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
    cases.extend(losses::cases());
    cases.extend(gates());
    cases.extend(models::cases());
    cases.extend([
        clip("long", 300_007, 1.0, 3.0),
        clip("small", 131, 1e-3, 2e-3),
        clip("untouched", 131, 1e-3, 1.0),
    ]);
    cases.extend([unpool("scalars", &[2, 3, 4, 5]), unpool("vectors", &[3, 8, 3, 4])]);
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
pub(super) fn binary_mask(id: &str, shape: &[usize]) -> Vec<f64> {
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
