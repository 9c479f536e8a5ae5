//! From a case to calls on a device: layers through the graph that training uses, the rest directly.

use serde_json::{Value, json};

use super::case::{Case, Tensor, Values};
use super::train_case;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::gpu::{Choice, Recorder};
use crate::model::{Builder, Graph, Mode, Store};
use crate::ops::{
    Adam, Augment, Buffer, Call, ClipGrads, CountNonzero, CrossEntropy, DropoutMask, FiringUpdate, GatherBatch, KlPenalty,
    L1Penalty, Loss, LossKind, MaskApply, MaxNorm, MaxUnpool2dBwd, MaxUnpool2dFwd, Revive, SCALAR_PARTIALS, Sgd, StepParams,
    SumSquares, View,
};
use crate::shape::{Dims, Pool2d, to_nchw, to_nhwc};
use crate::spec::ModelSpec;

/// How an output in memory becomes natural.
#[derive(Clone, Debug)]
pub(super) enum Unpack {
    Plain,
    Maps(Dims),
    Param(crate::model::Param),
}

/// What to write before a step, the step's values.
#[derive(Clone, Debug, Default)]
pub(super) struct Step {
    pub(super) writes: Vec<(View, Values)>,
    pub(super) params: StepParams,
}

/// A case on a device.
#[derive(Debug)]
pub struct Prepared {
    /// Its calls.
    pub calls: Vec<Call>,
    pub(super) first: Vec<(View, Values)>,
    pub(super) steps: Vec<Step>,
    /// Read after every step, one after the other.
    pub(super) each: Vec<(String, View, Unpack)>,
    /// Read at the end.
    pub(super) last: Vec<(String, View, Unpack)>,
    pub(super) buffers: Vec<Buffer>,
}

impl Prepared {
    /// Runs the steps and reads the outputs in natural order. Outputs hold NaN beforehand.
    pub fn execute(&self, device: &mut Device) -> Result<Vec<(String, Vec<f64>)>> {
        let write = |device: &mut Device, writes: &[(View, Values)]| {
            for (view, values) in writes {
                match values {
                    Values::Real(values) => device.write_f64(*view, values),
                    Values::Int(values) => device.write_words(*view, &values.iter().map(|x| *x as u32).collect::<Vec<_>>()),
                }
            }
        };
        for (_, view, _) in self.each.iter().chain(&self.last) {
            device.write_f64(*view, &vec![f64::NAN; view.len]);
        }
        write(device, &self.first);
        let program = device.compile(self.calls.clone())?;
        let mut each: Vec<Vec<f64>> = vec![Vec::new(); self.each.len()];
        for step in &self.steps {
            write(device, &step.writes);
            device.run(&program, &step.params)?;
            for (to, (_, view, unpack)) in each.iter_mut().zip(&self.each) {
                to.extend(natural(device.read_f64(*view)?, unpack));
            }
        }
        let mut found: Vec<(String, Vec<f64>)> = self.each.iter().map(|(name, ..)| name.clone()).zip(each).collect();
        for (name, view, unpack) in &self.last {
            found.push((name.clone(), natural(device.read_f64(*view)?, unpack)));
        }
        Ok(found)
    }

    /// Gives its buffers back.
    pub fn free(&self, device: &mut Device) {
        self.buffers.iter().for_each(|buffer| device.free(*buffer));
    }
}

fn natural(values: Vec<f64>, unpack: &Unpack) -> Vec<f64> {
    match unpack {
        Unpack::Plain => values,
        Unpack::Maps(dims) => to_nchw(&values, *dims),
        Unpack::Param(param) => param.unpack(&values),
    }
}

/// Whether the case runs other kernels when the plain ones are asked for.
pub fn has_choice(case: &Case) -> bool {
    let kernels = |choice| {
        let mut device = Device::cpu();
        let prepared = prepare(&mut device, case).ok()?;
        let mut recorder = Recorder { choice, ..Recorder::default() };
        prepared.calls.iter().for_each(|call| call.record(&mut recorder));
        Some(recorder.dispatches.iter().map(|dispatch| dispatch.kernel).collect::<Vec<_>>())
    };
    kernels(Choice::Auto) != kernels(Choice::Plain)
}

/// Batch and size of a sample: [n, d] or [n, c, h, w].
pub(super) fn batch_of(case: &Case, tensor: &Tensor) -> Result<(usize, Dims)> {
    match tensor.shape[..] {
        [n, d] if n * d > 0 => Ok((n, Dims::flat(d))),
        [n, c, h, w] if n * c * h * w > 0 => Ok((n, Dims::new(c, h, w))),
        _ => Err(Error::usage(format!("{}: shape {:?} is neither [n, d] nor [n, c, h, w]", case.id(), tensor.shape))),
    }
}

/// Collects a directly prepared case.
struct Direct<'a> {
    device: &'a mut Device,
    prepared: Prepared,
}

impl Direct<'_> {
    fn real(&mut self, len: usize) -> Result<View> {
        let view = self.device.alloc_real("verify", len)?;
        self.prepared.buffers.push(view.buffer);
        Ok(view)
    }

    fn words(&mut self, len: usize) -> Result<View> {
        let view = self.device.alloc_words("verify", len)?;
        self.prepared.buffers.push(view.buffer);
        Ok(view)
    }

    fn input(&mut self, values: Vec<f64>) -> Result<View> {
        let view = self.real(values.len())?;
        self.prepared.first.push((view, Values::Real(values)));
        Ok(view)
    }

    fn maps(&mut self, tensor: &Tensor, dims: Dims) -> Result<View> {
        self.input(to_nhwc(&tensor.reals(), dims))
    }

    fn indices(&mut self, values: Vec<u32>) -> Result<View> {
        let view = self.words(values.len())?;
        self.prepared.first.push((view, Values::Int(values.iter().map(|x| *x as i32).collect())));
        Ok(view)
    }

    fn output(&mut self, name: &str, len: usize, unpack: Unpack) -> Result<View> {
        let view = self.real(len)?;
        self.prepared.last.push((name.to_owned(), view, unpack));
        Ok(view)
    }

    fn push(&mut self, call: impl Into<Call>) {
        self.prepared.calls.push(call.into());
    }
}

/// Prepares a case on a device.
pub fn prepare(device: &mut Device, case: &Case) -> Result<Prepared> {
    let prepared = Prepared {
        calls: Vec::new(),
        first: Vec::new(),
        steps: vec![Step { writes: Vec::new(), params: step_of(case) }],
        each: Vec::new(),
        last: Vec::new(),
        buffers: Vec::new(),
    };
    let d = Direct { device, prepared };
    match case.op.as_str() {
        "max_unpool2d" => unpool(d, case),
        "l1_penalty" | "kl_penalty" => penalty(d, case),
        "dropout_apply" => dropout_apply(d, case),
        "loss" => loss(d, case),
        "clip_grad_norm" => clip(d, case),
        "optimizer" => optimizer(d, case),
        "train" => train_case::prepare(d.device, case),
        "dropout_mask" | "count_nonzero" | "firing_update" | "revive" | "max_norm" | "gather_batch" => own(d, case),
        "model" => model(d.device, case),
        _ => layer(d.device, case),
    }
}

fn step_of(case: &Case) -> StepParams {
    let word = |key: &str| case.attrs[key].as_u64().unwrap_or(0);
    let seed = word("seed");
    StepParams { step: word("step") as u32, seed_lo: seed as u32, seed_hi: (seed >> 32) as u32, ..StepParams::default() }
}

/// Shape of a layer's output.
pub(super) fn output_shape(case: &Case) -> Result<Vec<usize>> {
    let (n, dims) = batch_of(case, case.input("x")?)?;
    let graph = Graph::new(&layer_spec(case)?, dims).map_err(|error| error.at(case.id()))?;
    let out = graph.nodes[graph.output].dims;
    Ok(if case.input("x")?.shape.len() == 2 || out.area() == 1 { vec![n, out.len()] } else { vec![n, out.c, out.h, out.w] })
}

/// A layer on its own: a graph of one.
fn layer(device: &mut Device, case: &Case) -> Result<Prepared> {
    let (_, dims) = batch_of(case, case.input("x")?)?;
    graph_case(device, case, &layer_spec(case)?, dims, |name| match name {
        "layer.weight" => Some("weight".to_owned()),
        "layer.bias" => Some("bias".to_owned()),
        "layer.threshold" => Some("threshold".to_owned()),
        _ => None,
    })
}

fn layer_spec(case: &Case) -> Result<ModelSpec> {
    let mut keys = case.attrs.as_object().cloned().unwrap_or_default();
    let bias = case.inputs.contains_key("bias");
    let weight = case.inputs.get("weight").map(|weight| weight.shape.clone());
    match (case.op.as_str(), weight.as_deref()) {
        ("conv2d", Some(&[k, _, r, s])) => {
            keys.extend([
                ("filters".to_owned(), json!(k)),
                ("kernel".to_owned(), json!([r, s])),
                ("bias".to_owned(), json!(bias)),
            ]);
        }
        ("conv_transpose2d", Some(&[_, c, r, s])) => {
            let filters = c * keys.get("groups").and_then(Value::as_u64).unwrap_or(1) as usize;
            keys.extend([
                ("filters".to_owned(), json!(filters)),
                ("kernel".to_owned(), json!([r, s])),
                ("bias".to_owned(), json!(bias)),
            ]);
        }
        ("linear", Some(&[units, _])) => {
            keys.extend([("units".to_owned(), json!(units)), ("bias".to_owned(), json!(bias))]);
        }
        ("activation", _) => keys = serde_json::Map::from_iter([("activation".to_owned(), case.attrs.clone())]),
        _ => {}
    }
    keys.extend([("name".to_owned(), json!("layer")), ("op".to_owned(), json!(case.op))]);
    serde_json::from_value(json!({"code": "layer", "layers": [keys]}))
        .map_err(|error| Error::usage(format!("{}: {error}", case.id())))
}

/// A whole model given in the attributes, its parameters (and states, 0 unless given) as tensors of the same names. `mode` may be `infer`.
fn model(device: &mut Device, case: &Case) -> Result<Prepared> {
    case.know(&["model", "mode", "seed", "step"])?;
    let (_, dims) = batch_of(case, case.input("x")?)?;
    let spec: ModelSpec =
        serde_json::from_value(case.attrs["model"].clone()).map_err(|error| Error::usage(format!("{}: {error}", case.id())))?;
    graph_case(device, case, &spec, dims, |name| Some(name.to_owned()))
}

/// Forward and backward of a graph from the output's gradient.
fn graph_case(
    device: &mut Device,
    case: &Case,
    spec: &ModelSpec,
    dims: Dims,
    tensor_of: impl Fn(&str) -> Option<String>,
) -> Result<Prepared> {
    let graph = Graph::new(spec, dims).map_err(|error| error.at(case.id()))?;
    let (n, _) = batch_of(case, case.input("x")?)?;
    let store = Store::new(device, &graph, true)?;
    let mode = if case.attrs["mode"] == "infer" { Mode::Infer } else { Mode::Train };
    let mut b = Builder::new(&graph, &store, n, mode);
    b.input_gradient = true;
    let mut x = b.input();
    b.forward(x, &[]);
    let out = graph.nodes[graph.output].dims;
    let mut y = b.value(graph.output);
    b.tape.keep(y);
    let given = case.input("grad_y")?;
    if given.reals().len() != y.len {
        return Err(Error::usage(format!("{}: grad_y has shape {:?}, the output is {n} of {out}", case.id(), given.shape)));
    }
    let mut dy = b.tape.real("gradient of the output", y.len);
    b.tape.keep(dy);
    b.seed(graph.output, dy);
    b.backward(|_, _, _| {});
    let mut dx = b.gradient(0).ok_or_else(|| Error::usage(format!("{}: no gradient reaches the input", case.id())))?;
    b.tape.keep(dx);
    let (calls, memory) = b.tape.allocate(device, &mut [&mut x, &mut y, &mut dy, &mut dx])?;
    let mut first =
        vec![(x, Values::Real(to_nhwc(&case.input("x")?.reals(), dims))), (dy, Values::Real(to_nhwc(&given.reals(), out)))];
    let mut last = vec![("y".to_owned(), y, Unpack::Maps(out)), ("grad_x".to_owned(), dx, Unpack::Maps(dims))];
    for (i, param) in graph.params.iter().enumerate() {
        let name = tensor_of(&param.name).unwrap_or_else(|| param.name.clone());
        let tensor = case.input(&name)?;
        if tensor.shape != param.shape {
            return Err(Error::usage(format!(
                "{}: {name} has shape {:?}, the layer needs {:?}",
                case.id(),
                tensor.shape,
                param.shape
            )));
        }
        first.push((store.weight(i), Values::Real(param.pack(&tensor.reals()))));
        last.push((format!("grad_{name}"), store.grad(i), Unpack::Param(param.clone())));
    }
    for (i, state) in graph.states.iter().enumerate() {
        let given = case.inputs.get(&state.name).map_or_else(|| vec![0.0; state.len()], Tensor::reals);
        first.push((store.state(i), Values::Real(given)));
        last.push((format!("{} after", state.name), store.state(i), Unpack::Plain));
    }
    let mut buffers = memory.buffers;
    buffers.extend([store.weights, store.grads, store.m, store.v, store.state, store.idle].map(|view| view.buffer));
    Ok(Prepared {
        calls,
        first,
        steps: vec![Step { writes: Vec::new(), params: step_of(case) }],
        each: Vec::new(),
        last,
        buffers,
    })
}

fn unpool(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.know(&["kernel", "stride", "padding", "output_size"])?;
    let pair = |key: &str| -> Result<Option<[usize; 2]>> {
        match &case.attrs[key] {
            Value::Null => Ok(None),
            value => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|error| Error::usage(format!("{}: {key}: {error}", case.id()))),
        }
    };
    let (n, input) = batch_of(case, case.input("x")?)?;
    let kernel = pair("kernel")?.ok_or_else(|| Error::usage(format!("{}: the attributes have no kernel", case.id())))?;
    let [stride, padding] = [pair("stride")?.unwrap_or(kernel), pair("padding")?.unwrap_or([0, 0])];
    let [h, w] = pair("output_size")?
        .unwrap_or_else(|| [0, 1].map(|i| ([input.h, input.w][i] - 1) * stride[i] + kernel[i] - 2 * padding[i]));
    let output = Dims::new(input.c, h, w);
    let size = Pool2d::new(n, output, kernel, stride, padding)?;
    if size.y != input {
        return Err(Error::usage(format!("{}: pooling {output} gives {}, the case unpools {input}", case.id(), size.y)));
    }
    let x = d.maps(case.input("x")?, input)?;
    let switches = d.indices(to_nhwc(&case.indices("switches", n * input.len(), output.area())?, input))?;
    let dy = d.maps(case.sized("grad_y", n * output.len())?, output)?;
    let y = d.output("y", n * output.len(), Unpack::Maps(output))?;
    let dx = d.output("grad_x", n * input.len(), Unpack::Maps(input))?;
    d.push(MaxUnpool2dFwd { size, x, switches, y });
    d.push(MaxUnpool2dBwd { size, dy, switches, dx });
    Ok(d.prepared)
}

fn penalty(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.know(if case.op == "l1_penalty" { &["lambda", "reduction"] } else { &["beta", "rho", "reduction"] })?;
    let (n, dims) = batch_of(case, case.input("x")?)?;
    let z = d.maps(case.input("x")?, dims)?;
    let dz = d.output("grad_x", n * dims.len(), Unpack::Maps(dims))?;
    d.prepared.first.push((dz, Values::Real(vec![0.0; n * dims.len()])));
    let scalars = d.output("loss", 1, Unpack::Plain)?;
    if case.op == "l1_penalty" {
        let partials = d.real(SCALAR_PARTIALS)?;
        d.push(L1Penalty { lambda: case.number("lambda")?, n, width: 1, index: 0, z, dz, scalars, partials });
    } else {
        let partials = d.real(2 * dims.len())?;
        let (beta, rho) = (case.number("beta")?, case.number("rho")?);
        d.push(KlPenalty { beta, rho, n, units: dims.len(), width: 1, index: 0, z, dz, scalars, partials });
    }
    Ok(d.prepared)
}

fn dropout_apply(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.know(&["p"])?;
    let (n, dims) = batch_of(case, case.input("x")?)?;
    let scale = 1.0 / (1.0 - case.number("p")?);
    let [x, mask, dy] =
        ["x", "mask", "grad_y"].map(|name| case.sized(name, n * dims.len()).and_then(|tensor| d.maps(tensor, dims)));
    let (x, mask, dy) = (x?, mask?, dy?);
    let y = d.output("y", n * dims.len(), Unpack::Maps(dims))?;
    let dx = d.output("grad_x", n * dims.len(), Unpack::Maps(dims))?;
    d.push(MaskApply { scale, x, mask, y });
    d.push(MaskApply { scale, x: dy, mask, y: dx });
    Ok(d.prepared)
}

fn loss(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.know(&["kind", "eps", "reduction"])?;
    let (n, dims) = batch_of(case, case.input("y")?)?;
    let y = d.maps(case.input("y")?, dims)?;
    let dy = d.output("grad_y", n * dims.len(), Unpack::Maps(dims))?;
    let scalars = d.output("loss", 1, Unpack::Plain)?;
    let kind = match case.text("kind")? {
        "cross_entropy" => {
            let labels = d.indices(case.indices("target", n, dims.len())?)?;
            let partials = d.real(n)?;
            d.push(CrossEntropy { n, classes: dims.len(), width: 1, index: 0, y, labels, scalars, dy, partials });
            return Ok(d.prepared);
        }
        "sum_squares" => LossKind::SumSquares,
        "mse" => LossKind::Mse,
        "l1" => LossKind::L1,
        "bce" => LossKind::Bce,
        "charbonnier" => LossKind::Charbonnier { eps: case.number("eps")? },
        other => return Err(Error::usage(format!("{}: loss {other:?} is unknown", case.id()))),
    };
    let target = d.maps(case.sized("target", n * dims.len())?, dims)?;
    let partials = d.real(SCALAR_PARTIALS)?;
    d.push(Loss { kind, n, width: 1, index: 0, y, target, scalars, dy, partials });
    Ok(d.prepared)
}

fn clip(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.know(&["max_norm"])?;
    let given = case.input("grads")?.reals();
    let grads = d.output("clipped", given.len(), Unpack::Plain)?;
    d.prepared.first.push((grads, Values::Real(given)));
    let scalars = d.output("norm", 1, Unpack::Plain)?;
    let partials = d.real(SCALAR_PARTIALS)?;
    d.push(SumSquares { width: 1, index: 0, x: grads, scalars, partials });
    d.push(ClipGrads { max_norm: case.number("max_norm")?, width: 1, index: 0, scalars, grads });
    Ok(d.prepared)
}

fn optimizer(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.know(&["kind", "lr", "momentum", "nesterov", "betas", "eps", "weight_decay"])?;
    let start = case.input("weight")?.reals();
    let len = start.len();
    let all = case.input("grads")?.reals();
    if len == 0 || all.is_empty() || !all.len().is_multiple_of(len) {
        return Err(Error::usage(format!("{}: {} gradients are no whole steps of {len} weights", case.id(), all.len())));
    }
    let number = |key: &str, default: f64| case.attrs[key].as_f64().unwrap_or(default);
    let weights = d.input(start)?;
    let (m, v, grads) = (d.input(vec![0.0; len])?, d.input(vec![0.0; len])?, d.real(len)?);
    let weight_decay = number("weight_decay", 0.0);
    let beta = |i: usize| case.attrs["betas"][i].as_f64().unwrap_or([0.9, 0.999][i]);
    let kind = case.text("kind")?;
    match kind {
        _ if kind.starts_with("sgd") => {
            let nesterov = case.attrs["nesterov"].as_bool().unwrap_or(false);
            d.push(Sgd { momentum: number("momentum", 0.0), nesterov, weight_decay, grads, weights, m });
        }
        "adam" | "adamw" => {
            let decoupled = kind == "adamw";
            d.push(Adam {
                beta1: beta(0),
                beta2: beta(1),
                eps: number("eps", 1e-8),
                weight_decay,
                decoupled,
                grads,
                weights,
                m,
                v,
            });
        }
        other => return Err(Error::usage(format!("{}: optimiser {other:?} is unknown", case.id()))),
    }
    d.prepared.steps = all
        .chunks_exact(len)
        .enumerate()
        .map(|(i, grad)| Step {
            writes: vec![(grads, Values::Real(grad.to_vec()))],
            params: StepParams {
                step: i as u32,
                lr: number("lr", 1e-3) as f32,
                correction1: (1.0 - beta(0).powi(i as i32 + 1)) as f32,
                correction2: (1.0 - beta(1).powi(i as i32 + 1)) as f32,
                ..StepParams::default()
            },
        })
        .collect();
    d.prepared.each.push(("trajectory".to_owned(), weights, Unpack::Plain));
    // `each` is filled with NaN beforehand; the first weights are written after that.
    Ok(d.prepared)
}

/// Operations that no other program has: answered by the CPU path in f64.
fn own(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.know(&["p", "outer", "atoms", "inner", "max_norm", "patience", "strength", "seed", "step", "dims", "crop", "flip_x", "flip_y"])?;
    if case.op == "gather_batch" {
        return gather(d, case);
    }
    if case.op == "max_norm" {
        let x = case.input("x")?.reals();
        let w = d.output("y", x.len(), Unpack::Plain)?;
        d.prepared.first.push((w, Values::Real(x)));
        let (outer, atoms, inner) = (case.count("outer")?, case.count("atoms")?, case.count("inner")?);
        d.push(MaxNorm { outer, atoms, inner, max_norm: case.number("max_norm")?, w });
        return Ok(d.prepared);
    }
    let (n, dims) = batch_of(case, case.input("x")?)?;
    let x = d.maps(case.input("x")?, dims)?;
    match case.op.as_str() {
        "dropout_mask" => {
            let mask = d.output("y", n * dims.len(), Unpack::Maps(dims))?;
            d.push(DropoutMask { p: case.number("p")?, n, dims, layer: 5, mask });
        }
        "count_nonzero" => {
            let scalars = d.output("y", 1, Unpack::Plain)?;
            let partials = d.real(SCALAR_PARTIALS)?;
            d.push(CountNonzero { scale: 1.0 / n as f64, width: 1, index: 0, x, scalars, partials });
        }
        _ => {
            let idle = d.output("idle", dims.c, Unpack::Plain)?;
            d.prepared.first.push((idle, Values::Real(case.sized("idle", dims.c)?.reals())));
            if case.op == "firing_update" {
                d.push(FiringUpdate { n, dims, z: x, idle });
            } else {
                d.prepared.last.push(("grad_x".to_owned(), x, Unpack::Maps(dims)));
                let (patience, strength) = (case.count("patience")?, case.number("strength")?);
                d.push(Revive { n, dims, patience, strength, idle, dx: x });
            }
        }
    }
    Ok(d.prepared)
}

fn gather(mut d: Direct, case: &Case) -> Result<Prepared> {
    let flag = |key: &str| case.attrs[key].as_bool().unwrap_or(false);
    let side = |i: usize| case.attrs["dims"][i].as_u64().unwrap_or(1) as usize;
    let dims = Dims::new(side(0), side(1), side(2));
    let bytes = d.indices(case.input("bytes")?.words())?;
    let table = d.indices(case.input("table")?.words())?;
    let order = case.input("order")?.words();
    let n = order.len();
    let order = d.indices(order)?;
    let x = d.output("y", n * dims.len(), Unpack::Maps(dims))?;
    let augment = Augment { crop: flag("crop"), flip_x: flag("flip_x"), flip_y: flag("flip_y") };
    d.push(GatherBatch { n, dims, augment, scale: 1.0 / 255.0, shift: -0.25, bytes, table, order, x });
    Ok(d.prepared)
}
