//! Cases of training: a whole model trained by SGD on the sum of squares with an L1 penalty.

use serde_json::{Value, json};

use super::case::{Case, Values};
use super::prepare::{Prepared, Step, Unpack};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{Graph, Purpose, Store};
use crate::shape::{Dims, to_nhwc};
use crate::spec::{ModelSpec, OptimizerSpec, PenaltyName, SparsitySpec};
use crate::train::step::{self, StepSpec};
use crate::view::StepParams;

/// The model described by the attributes.
fn spec(case: &Case) -> Result<ModelSpec> {
    let known = [
        "encoder",
        "code",
        "expand_activation",
        "decoder",
        "flatten",
        "lambda",
        "loss",
        "optimizer",
        "steps",
    ];
    case.check_attributes(&known)?;
    let attrs = &case.attrs;
    let list = |key: &str| attrs[key].as_array().cloned().unwrap_or_default();
    let mut layers = Vec::new();
    for (i, block) in list("encoder").iter().enumerate() {
        let name = format!("encoder.{i}");
        let mut keys = block.as_object().cloned().unwrap_or_default();
        let pool = keys.remove("pool");
        keys.extend([("name".to_owned(), json!(name)), ("op".to_owned(), json!("conv2d"))]);
        layers.push(Value::Object(keys));
        if let Some(Value::Object(mut keys)) = pool {
            let kind = keys
                .remove("kind")
                .and_then(|kind| kind.as_str().map(str::to_owned))
                .unwrap_or_default();
            keys.extend([
                ("name".to_owned(), json!(format!("{name}.pool"))),
                ("op".to_owned(), json!(format!("{kind}_pool2d"))),
            ]);
            layers.push(Value::Object(keys));
        }
    }
    let last = layers.last().map(|layer| layer["name"].clone()).unwrap_or_default();
    let code = &attrs["code"];
    layers.push(json!({
        "name": "code",
        "op": "linear",
        "units": code["units"],
        "activation": code["activation"],
    }));
    layers.push(json!({
        "name": "expand",
        "op": "linear",
        "like": last,
        "activation": attrs["expand_activation"],
    }));
    for (i, block) in list("decoder").iter().enumerate() {
        let mut keys = block.as_object().cloned().unwrap_or_default();
        keys.extend([
            ("name".to_owned(), json!(format!("decoder.{i}"))),
            ("op".to_owned(), json!("conv_transpose2d")),
        ]);
        layers.push(Value::Object(keys));
    }
    serde_json::from_value(json!({"code": "code", "layers": layers}))
        .map_err(|error| Error::usage(format!("{}: {error}", case.id())))
}

/// Prepares a training case: one step for each batch of the tensor `images`.
pub(super) fn prepare(device: &mut Device, case: &Case) -> Result<Prepared> {
    let images = case.input("images")?;
    let [steps, n, c, h, w] = images.shape[..] else {
        return Err(Error::usage(format!(
            "{}: images has shape {:?}, but must be [steps, n, c, h, w]",
            case.id(),
            images.shape
        )));
    };
    let dims = Dims::new(c, h, w);
    let graph = Graph::new(&spec(case)?, dims).map_err(|error| error.at(case.id()))?;
    let store = Store::new(device, &graph, Purpose::train(1))?;
    let scalars = device.alloc_real("scalars", step::WIDTH)?;
    let rule = &case.attrs["optimizer"];
    let kind = rule["kind"].as_str().unwrap_or("sgd");
    if kind != "sgd" || case.attrs["loss"].as_str().is_some_and(|loss| loss != "sum_squares") {
        return Err(Error::usage(format!(
            "{}: training cases support only optimizer sgd and loss sum_squares",
            case.id()
        )));
    }
    let optimizer = OptimizerSpec {
        momentum: rule["momentum"].as_f64().unwrap_or(0.0),
        nesterov: rule["nesterov"].as_bool().unwrap_or(false),
        weight_decay: rule["weight_decay"].as_f64().unwrap_or(0.0),
        ..OptimizerSpec::default()
    };
    let sparsity = SparsitySpec {
        penalty: PenaltyName::L1,
        lambda: case.number("lambda")?,
        ..SparsitySpec::default()
    };
    let spec = StepSpec::plain(&graph, &store, n, &sparsity, &optimizer, *scalars);
    let recorded = step::record(device, &spec)?;
    let calls = recorded.segments.concat();
    let lr = rule["lr"]
        .as_f64()
        .ok_or_else(|| Error::usage(format!("{}: optimizer.lr is missing", case.id())))?;
    let batch = n * dims.len();
    let steps = images.reals()[..steps * batch]
        .chunks_exact(batch)
        .enumerate()
        .map(|(i, x)| Step {
            writes: vec![(recorded.x, Values::Real(to_nhwc(x, dims)))],
            params: StepParams { step: i as u32, lr: lr as f32, ..StepParams::default() },
        })
        .collect();
    // A penalty of weight 0 is not recorded, so its scalar keeps this value.
    let mut first = vec![(*scalars, Values::Real(vec![0.0; step::WIDTH]))];
    let mut last = Vec::new();
    for (i, param) in graph.params.iter().enumerate() {
        let tensor = case.input(&format!("init.{}", param.name))?;
        if tensor.shape != param.shape {
            return Err(Error::usage(format!(
                "{}: init.{} has shape {:?}, but must be {:?}",
                case.id(),
                param.name,
                tensor.shape,
                param.shape
            )));
        }
        first.push((store.weight(i), Values::Real(param.pack(&tensor.reals()))));
        last.push((format!("final.{}", param.name), store.weight(i), Unpack::Param(param.clone())));
    }
    let each = [("reconstruction_loss", step::RECONSTRUCTION), ("sparsity_loss", step::SPARSITY)]
        .map(|(name, index)| {
            (name.to_owned(), crate::view::View { len: 1, start: index, ..*scalars }, Unpack::Plain)
        });
    let mut buffers = recorded.memory.buffers;
    buffers.push(scalars);
    Ok(Prepared {
        calls,
        first,
        steps,
        each: each.to_vec(),
        last,
        buffers,
        gaps: store.gaps(),
        _store: Some(store),
    })
}
