//! Cases of layers and models, which run through the same graph as training.

use serde_json::{Value, json};

use super::case::{Case, Tensor, Values};
use super::prepare::{Prepared, Step, Unpack, batch_of, step_of};
use crate::device::{Allocation, Device};
use crate::error::{Error, Result};
use crate::model::{Graph, LayerKind, Purpose, Store};
use crate::record::{Builder, Mode, Penalty, PenaltyKind};
use crate::shape::{Dims, to_nhwc};
use crate::spec::ModelSpec;
use crate::view::View;

/// The shape of the gradient by a layer's output. None if the layer passes no gradient.
pub(super) fn gradient_shape(case: &Case) -> Result<Option<Vec<usize>>> {
    let (n, dims) = batch_of(case, case.input("x")?)?;
    let graph = Graph::new(&layer_spec(case)?, dims).map_err(|error| error.at(case.id()))?;
    if prepares(&graph) {
        return Ok(None);
    }
    let out = graph.nodes[graph.output].dims;
    Ok(Some(if case.input("x")?.shape.len() == 2 || out.area() == 1 {
        vec![n, out.len()]
    } else {
        vec![n, out.c, out.h, out.w]
    }))
}

/// Prepares the case of a single layer, as a graph with one node.
pub(super) fn layer(device: &mut Device, case: &Case) -> Result<Prepared> {
    let (_, dims) = batch_of(case, case.input("x")?)?;
    graph_case(device, case, &layer_spec(case)?, dims, |name| match name {
        "layer.weight" => Some("weight".to_owned()),
        "layer.bias" => Some("bias".to_owned()),
        "layer.threshold" => Some("threshold".to_owned()),
        "layer.slope" => Some("slope".to_owned()),
        _ => None,
    })
}

/// The model description of a single layer, from the case's attributes and shapes.
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
        ("activation", _) => {
            keys = serde_json::Map::from_iter([("activation".to_owned(), case.attrs.clone())])
        }
        _ => {}
    }
    keys.extend([("name".to_owned(), json!("layer")), ("op".to_owned(), json!(case.op))]);
    serde_json::from_value(json!({"code": "layer", "layers": [keys]}))
        .map_err(|error| Error::usage(format!("{}: {error}", case.id())))
}

/// Prepares the case of a whole model, given by the attribute `model`. Parameters and states are
/// tensors of the same names; missing states are 0. The attribute `mode` can be `infer`.
/// `lambda` is the weight of an L1 penalty on the code.
pub(super) fn model(device: &mut Device, case: &Case) -> Result<Prepared> {
    case.check_attributes(&["model", "mode", "seed", "step", "lambda"])?;
    let (_, dims) = batch_of(case, case.input("x")?)?;
    let spec: ModelSpec = serde_json::from_value(case.attrs["model"].clone())
        .map_err(|error| Error::usage(format!("{}: {error}", case.id())))?;
    graph_case(device, case, &spec, dims, |name| Some(name.to_owned()))
}

/// Whether a layer of a graph passes no gradient.
pub(super) fn prepares(graph: &Graph) -> bool {
    let mut ops = graph.nodes.iter().filter_map(|node| node.op.as_ref());
    ops.any(|op| matches!(op.kind(), LayerKind::Preparation { .. }))
}

/// Prepares only the forward pass, of a graph without parameters.
fn forward_case(
    device: &mut Device,
    b: Builder,
    case: &Case,
    mut x: View,
    (mut y, out): (View, Dims),
) -> Result<Prepared> {
    let dims = b.graph.nodes[0].dims;
    if !b.graph.params.is_empty() {
        return Err(Error::usage(format!(
            "{}: the model has parameters and a layer that passes no gradient",
            case.id()
        )));
    }
    let (calls, memory) = b.tape.allocate(device, &mut [&mut x, &mut y])?;
    Ok(Prepared {
        calls,
        first: vec![(x, Values::Real(to_nhwc(&case.input("x")?.reals(), dims)))],
        steps: vec![Step { writes: Vec::new(), params: step_of(case) }],
        last: vec![("y".to_owned(), y, Unpack::Maps(out))],
        buffers: memory.buffers,
        ..Prepared::default()
    })
}

/// Records an L1 penalty on the code, and returns the buffer of its value.
fn penalise(device: &mut Device, b: &mut Builder, lambda: f64) -> Result<Allocation> {
    let scalars = device.alloc_real("penalty", 1)?;
    let kind = PenaltyKind::L1 { lambda };
    b.penalise(Penalty { node: b.graph.code, kind, scalars: *scalars, width: 1, index: 0 });
    Ok(scalars)
}

/// Prepares the forward pass of a graph, and its backward pass from the output's gradient.
fn graph_case(
    device: &mut Device,
    case: &Case,
    spec: &ModelSpec,
    dims: Dims,
    tensor_of: impl Fn(&str) -> Option<String>,
) -> Result<Prepared> {
    let graph = Graph::new(spec, dims).map_err(|error| error.at(case.id()))?;
    let (n, _) = batch_of(case, case.input("x")?)?;
    let store = Store::new(device, &graph, Purpose::train(1))?;
    let mode = if case.attrs["mode"] == "infer" { Mode::Infer } else { Mode::Train };
    let mut b = Builder::new(&graph, &store, n, mode);
    b.input_gradient = true;
    b.tape.half = case.half;
    let mut x = b.input();
    b.forward(x, &[graph.output, graph.code]);
    let out = graph.nodes[graph.output].dims;
    let mut y = b.value(graph.output);
    b.tape.keep(y);
    if prepares(&graph) {
        let prepared = forward_case(device, b, case, x, (y, out))?;
        return Ok(Prepared { _store: Some(store), ..prepared });
    }
    let given = case.input("grad_y")?;
    if given.reals().len() != y.len {
        return Err(Error::usage(format!(
            "{}: grad_y has shape {:?}, but the output has {n} samples of {out}",
            case.id(),
            given.shape
        )));
    }
    let mut dy = b.tape.map("gradient of the output", y.len);
    b.tape.keep(dy);
    let lambda = case.attrs["lambda"].as_f64();
    let penalty = lambda.map(|lambda| penalise(device, &mut b, lambda)).transpose()?;
    b.seed(graph.output, dy);
    b.backward();
    let mut dx = b
        .gradient(0)
        .ok_or_else(|| Error::usage(format!("{}: no gradient reaches the input", case.id())))?;
    b.tape.keep(dx);
    let mut level = if graph.is_conditioned_on_level() { Some(b.level()) } else { None };
    let mut known = if graph.is_conditioned_on_mask() { Some(b.known()) } else { None };
    let mut kept = vec![&mut x, &mut y, &mut dy, &mut dx];
    kept.extend(&mut level);
    kept.extend(&mut known);
    let (calls, memory) = b.tape.allocate(device, &mut kept)?;
    let mut first = vec![
        (x, Values::Real(to_nhwc(&case.input("x")?.reals(), dims))),
        (dy, Values::Real(to_nhwc(&given.reals(), out))),
    ];
    if let Some(level) = level {
        first.push((level, Values::Real(case.sized("level", n)?.reals())));
    }
    if let Some(known) = known {
        first.push((
            known,
            Values::Real(to_nhwc(&case.sized("known", n * dims.len())?.reals(), dims)),
        ));
    }
    let mut last =
        vec![("y".to_owned(), y, Unpack::Maps(out)), ("grad_x".to_owned(), dx, Unpack::Maps(dims))];
    for (i, param) in graph.params.iter().enumerate() {
        let name = tensor_of(&param.name).unwrap_or_else(|| param.name.clone());
        let tensor = case.input(&name)?;
        if tensor.shape != param.shape {
            return Err(Error::usage(format!(
                "{}: {name} has shape {:?}, but the layer needs {:?}",
                case.id(),
                tensor.shape,
                param.shape
            )));
        }
        first.push((store.weight(i), Values::Real(param.pack(&tensor.reals()))));
        last.push((format!("grad_{name}"), store.grad(i), Unpack::Param(param.clone())));
    }
    for (i, state) in graph.states.iter().enumerate() {
        let given =
            case.inputs.get(&state.name).map_or_else(|| vec![0.0; state.len()], Tensor::reals);
        first.push((store.state(i), Values::Real(given)));
        last.push((format!("{} after", state.name), store.state(i), Unpack::Plain));
    }
    let mut buffers = memory.buffers;
    if let Some(scalars) = penalty {
        last.push(("penalty".to_owned(), *scalars, Unpack::Plain));
        buffers.push(scalars);
    }
    Ok(Prepared {
        calls,
        first,
        steps: vec![Step { writes: Vec::new(), params: step_of(case) }],
        each: Vec::new(),
        last,
        buffers,
        gaps: store.gaps(),
        _store: Some(store),
    })
}
