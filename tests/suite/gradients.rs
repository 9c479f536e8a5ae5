//! Backward is the derivative of forward: central differences on the CPU path in f64, for every
//! layer and model of the case table, for losses and for penalties.

use std::collections::BTreeMap;

use csae::internals::device::Device;
use csae::internals::model::{Graph, Purpose, Store};
use csae::internals::program::Call;
use csae::internals::rng::Stream;
use csae::internals::shape::Dims;
use csae::internals::spec::{ModelSpec, OptimizerName, OptimizerSpec, PenaltyName, SparsitySpec};
use csae::internals::train::step::{self, StepSpec};
use csae::internals::verify::{self, Case, Tensor};
use csae::internals::view::StepParams;
use serde_json::json;

const STEP: f64 = 1e-5;
const TOLERANCE: f64 = 1e-6;
/// Number of coordinates that are checked of each input of a loss.
const SAMPLES: usize = 24;

/// Cases that are skipped, each with the reason.
const LEFT_OUT: [(&str, &str); 5] = [
    ("conv2d/many_workgroups", "the arithmetic of other cases at a size that takes minutes here"),
    ("batch_top_k/ties_at_zero", "a step would change which of the equal zeros is selected"),
    ("batch_top_k/long_ties", "a step would change which of the equals is selected"),
    ("batch_top_k/many_workgroups", "a step would change which of the equal zeros is selected"),
    ("model/pooled_ties", "a step would change which of the equals is the largest"),
];

fn cases() -> Vec<Case> {
    let mut cases = verify::built_in();
    cases.retain(|case| LEFT_OUT.iter().all(|(id, _)| case.id() != *id));
    cases
}

fn outputs(case: &Case) -> BTreeMap<String, Vec<f64>> {
    verify::execute(&mut Device::oracle(), case)
        .unwrap_or_else(|error| panic!("{error}"))
        .into_iter()
        .collect()
}

/// ‖a − b‖/‖b‖.
fn relative(a: &[f64], b: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn layers_and_models_agree_with_differences() {
    let mut failures = Vec::new();
    let mut checked = 0;
    for case in cases().iter().filter(|case| case.inputs.contains_key("grad_y")) {
        let errors = verify::check_gradient(case, STEP).unwrap_or_else(|error| panic!("{error}"));
        assert!(!errors.is_empty(), "{}: no gradient", case.id());
        checked += errors.len();
        for (input, error) in errors {
            // Written so that NaN fails.
            let passed = error <= TOLERANCE;
            if !passed {
                failures.push(format!(
                    "{}: grad_{input} differs from differences by {error:.2e}",
                    case.id()
                ));
            }
        }
        for (name, gradient) in outputs(case).iter().filter(|(name, _)| name.starts_with("grad_")) {
            if gradient.iter().all(|g| *g == 0.0) {
                failures.push(format!("{}: {name} is all zero", case.id()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(checked > 80, "only {checked} gradients");
}

/// Error between `factor` times the gradient of a scalar output and its central differences.
fn scalar_error(case: &Case, input: &str, factor: f64) -> f64 {
    let gradient = outputs(case).remove(&format!("grad_{input}")).expect("a loss has a gradient");
    assert!(gradient.iter().any(|g| *g != 0.0), "{}: the gradient is all zero", case.id());
    let tensor = &case.inputs[input];
    // Smaller than the distance to the clamp of logarithms and to the corner of an absolute value.
    let step = 1e-7;
    let at = |i: usize, delta: f64| {
        let mut values = tensor.reals();
        values[i] += delta;
        let mut moved = case.clone();
        moved.inputs.insert(input.to_owned(), Tensor::real(&tensor.shape, values));
        outputs(&moved)["loss"].iter().sum::<f64>()
    };
    let mut pick = Stream::new(2, &case.id());
    let indices: Vec<usize> =
        (0..SAMPLES.min(gradient.len())).map(|_| pick.below(gradient.len())).collect();
    let differences: Vec<f64> =
        indices.iter().map(|i| (at(*i, step) - at(*i, -step)) / (2.0 * step)).collect();
    let analytic: Vec<f64> = indices.iter().map(|i| factor * gradient[*i]).collect();
    relative(&analytic, &differences)
}

/// Losses and penalties that are small enough for a step to exceed rounding.
fn scalar_cases() -> Vec<(Case, &'static str)> {
    let input = |case: &Case| match case.op.as_str() {
        "loss" | "segmentation_loss" | "detection_loss" | "hurdle_loss" => Some("y"),
        "l1_penalty" | "kl_penalty" | "gated_loss" => Some("x"),
        // An earlier gradient, and the push on dead units, are not part of the loss.
        "gated_l1_penalty" if !case.inputs.contains_key("idle") => Some("x"),
        _ => None,
    };
    let all = cases().into_iter().filter_map(|case| input(&case).map(|input| (case, input)));
    all.filter(|(case, input)| case.inputs[*input].reals().len() < 1000).collect()
}

#[test]
fn losses_and_penalties_agree_with_differences() {
    let cases = scalar_cases();
    assert!(cases.len() >= 9, "only {} losses", cases.len());
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|(case, input)| {
            let error = scalar_error(case, input, 1.0);
            if error <= TOLERANCE {
                None
            } else {
                Some(format!("{}: off by {error:.2e}", case.id()))
            }
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_wrong_gradient_is_found() {
    for (case, input) in scalar_cases() {
        let error = scalar_error(&case, input, 1.01);
        assert!(error > 5e-3, "{}: a gradient wrong by 1 % is off by {error:.2e} only", case.id());
    }
    // At the corner of a rectifier the gradient is 0 by definition, the central difference half the
    // slope.
    let inputs = BTreeMap::from([
        ("x".to_owned(), Tensor::real(&[1, 4], vec![0.0; 4])),
        ("grad_y".to_owned(), Tensor::real(&[1, 4], vec![1.0; 4])),
    ]);
    let corner = Case {
        op: "activation".to_owned(),
        name: "corner".to_owned(),
        attrs: json!({"kind": "relu"}),
        inputs,
        answers: BTreeMap::new(),
        half: false,
    };
    let errors = verify::check_gradient(&corner, STEP).unwrap();
    assert!(errors.iter().all(|(_, error)| *error > 0.1), "{errors:?}");
}

/// Error between the gradients that a training step computes and central differences of the losses
/// that it reports, and its calls.
fn step_error(layers: &serde_json::Value, sparsity: &SparsitySpec) -> (f64, Vec<Call>) {
    let n = 3;
    let spec: ModelSpec =
        serde_json::from_value(json!({"code": "code", "layers": layers})).unwrap();
    let graph = Graph::new(&spec, Dims::new(2, 6, 5)).unwrap();
    let mut device = Device::oracle();
    let store = Store::new(&mut device, &graph, Purpose::train(1)).unwrap();
    let scalars = device.alloc_real("scalars", step::WIDTH).unwrap();
    let optimizer = OptimizerSpec { kind: OptimizerName::Sgd, ..OptimizerSpec::default() };
    let recorded = step::record(
        &mut device,
        &StepSpec::plain(&graph, &store, n, sparsity, &optimizer, *scalars),
    )
    .unwrap();
    let calls = recorded.segments.concat();
    let mut draw = Stream::new(3, &layers.to_string());
    let mut normals = |len: usize, scale: f64| -> Vec<f64> {
        (0..len).map(|_| scale * f64::from(draw.normal())).collect()
    };
    device.write_f64(recorded.x, &normals(recorded.x.len, 1.0));
    for i in 0..graph.params.len() {
        device.write_f64(store.weight(i), &normals(store.weight(i).len, 0.4));
    }
    let program = device.compile(calls.clone()).unwrap();
    // The learning rate is 0, so the weights stay.
    let run = |device: &mut Device| {
        device.run(&program, &StepParams::default()).unwrap();
        let scalars = device.read_f64(*scalars).unwrap();
        scalars[step::RECONSTRUCTION] + scalars[step::SPARSITY]
    };
    run(&mut device);
    // All gradients are read now: later runs, at moved weights, overwrite them.
    let gradients: Vec<Vec<f64>> =
        (0..graph.params.len()).map(|i| device.read_f64(store.grad(i)).unwrap()).collect();
    let (mut analytic, mut differences) = (Vec::new(), Vec::new());
    for (i, gradient) in gradients.iter().enumerate() {
        let weights = device.read_f64(store.weight(i)).unwrap();
        for at in (0..weights.len()).step_by(weights.len().div_ceil(7)) {
            let mut moved = |delta: f64| {
                let mut moved = weights.clone();
                moved[at] += delta;
                device.write_f64(store.weight(i), &moved);
                run(&mut device)
            };
            differences.push((moved(STEP) - moved(-STEP)) / (2.0 * STEP));
            analytic.push(gradient[at]);
        }
        device.write_f64(store.weight(i), &weights);
    }
    (relative(&analytic, &differences), calls)
}

#[test]
fn a_training_step_has_the_gradient_of_its_losses() {
    let sparsity = |penalty: &str| SparsitySpec {
        penalty: PenaltyName::named(penalty).unwrap(),
        lambda: 0.7,
        beta: 0.5,
        rho: 0.2,
        revive_strength: 0.0,
        ..SparsitySpec::default()
    };
    let chain = |code: &str, output: &str| {
        json!([
            {"name": "conv", "op": "conv2d", "filters": 4, "kernel": 3,
             "padding": 1, "activation": code},
            {"name": "pool", "op": "max_pool2d", "kernel": 2},
            {"name": "code", "op": "linear", "units": 7, "activation": code},
            {"name": "expand", "op": "linear", "shape": [3, 5, 4], "activation": "elu"},
            {"name": "out", "op": "conv_transpose2d", "filters": 2, "kernel": 2,
             "activation": output}])
    };
    // The code is read twice, and followed by an activation that is not an epilogue.
    let skips = json!([
        {"name": "code", "op": "conv2d", "filters": 3, "kernel": 1, "activation": "tanh"},
        {"name": "a", "op": "conv2d", "filters": 2, "kernel": 1, "activation": "gelu"},
        {"name": "b", "op": "conv2d", "filters": 2, "kernel": 1,
         "from": "code", "activation": "sigmoid"},
        {"name": "out", "op": "add", "from": ["a", "b"]}]);
    // The gradient of the code comes from a layer with a gate.
    let read_by = |layer: serde_json::Value| {
        json!([
            {"name": "code", "op": "conv2d", "filters": 3, "kernel": 1, "activation": "tanh"},
            layer,
            {"name": "out", "op": "conv2d", "filters": 2, "kernel": 3, "padding": 1}])
    };
    let readers = [
        json!({"name": "r", "op": "conv2d", "filters": 4, "kernel": 3, "padding": 1}),
        json!({"name": "r", "op": "conv_transpose2d", "filters": 3, "kernel": 3, "padding": 1}),
        json!({"name": "r", "op": "linear", "shape": [2, 6, 5]}),
        json!({"name": "r", "op": "dropout", "p": 0.4}),
        json!({"name": "r", "op": "top_k", "k": 21}),
    ];
    let count =
        |calls: &[Call], name: &str| calls.iter().filter(|call| call.name() == name).count();
    for layer in readers {
        let layers = read_by(layer);
        let (error, calls) = step_error(&layers, &sparsity("l1"));
        assert!(error <= TOLERANCE, "{layers}: off by {error:.2e}");
        let own_passes = ["L1Penalty", "ActivationBwdOutput"].map(|name| count(&calls, name));
        assert_eq!((own_passes, count(&calls, "L1Norm")), ([0; 2], 1), "{layers}");
    }
    // A max pooling has a gate, but it does not add penalties.
    let pooled = json!([
        {"name": "code", "op": "conv2d", "filters": 3, "kernel": 1, "activation": "tanh"},
        {"name": "r", "op": "max_pool2d", "kernel": 2},
        {"name": "out", "op": "linear", "shape": [2, 6, 5]}]);
    let (error, calls) = step_error(&pooled, &sparsity("l1"));
    assert!(error <= TOLERANCE, "{pooled}: off by {error:.2e}");
    assert_eq!((count(&calls, "L1Penalty"), count(&calls, "L1Norm")), (1, 0));
    let own_pass = |calls: &[Call]| count(calls, "ActivationBwdOutput");
    for (layers, penalty, passes) in [
        (chain("softplus", "sigmoid"), "l1", 0),
        (chain("tanh", "softplus"), "l1", 0),
        (chain("sigmoid", "tanh"), "none", 0),
        (chain("sigmoid", "identity"), "kl", 1),
        // `add` writes the gradient of `b` without a gate.
        (skips.clone(), "l1", 1),
        (skips, "none", 2),
    ] {
        let (error, calls) = step_error(&layers, &sparsity(penalty));
        assert!(error <= TOLERANCE, "{penalty} on {layers}: off by {error:.2e}");
        assert_eq!(own_pass(&calls), passes, "{penalty} on {layers}");
    }
}

/// The auxiliary loss treats the residual as constant, so differences of the reported losses are
/// not its gradient. It is computed by hand and compared with its contribution to the gradients.
#[test]
fn the_auxiliary_loss_has_its_gradient() {
    let layers = json!([
        {"name": "conv", "op": "conv2d", "filters": 3, "kernel": 3,
         "padding": 1, "activation": "tanh"},
        {"name": "units", "op": "linear", "units": 9},
        {"name": "code", "op": "top_k", "k": 2},
        {"name": "expand", "op": "linear", "shape": [3, 6, 5], "activation": "tanh"},
        {"name": "out", "op": "conv_transpose2d", "filters": 2, "kernel": 3, "padding": 1}]);
    let (n, alpha) = (3, 1.0 / 32.0);
    let spec: ModelSpec =
        serde_json::from_value(json!({"code": "code", "layers": layers})).unwrap();
    let graph = Graph::new(&spec, Dims::new(2, 6, 5)).unwrap();
    let mut device = Device::oracle();
    let store = Store::new(&mut device, &graph, Purpose::train(1)).unwrap();
    let scalars = device.alloc_real("scalars", step::WIDTH).unwrap();
    let optimizer = OptimizerSpec { kind: OptimizerName::Sgd, ..OptimizerSpec::default() };
    let sparsity = |aux_alpha: f64| SparsitySpec {
        aux_alpha,
        aux_k: 4,
        revive_patience: 5,
        ..SparsitySpec::default()
    };
    let mut draw = Stream::new(3, "auxiliary");
    let mut normals = |len: usize, scale: f64| -> Vec<f64> {
        (0..len).map(|_| scale * f64::from(draw.normal())).collect()
    };
    for i in 0..graph.params.len() {
        device.write_f64(store.weight(i), &normals(store.weight(i).len, 0.4));
    }
    // Units 0 to 5 are dead.
    let idle: Vec<f64> = (0..9).map(|unit| if unit < 6 { 7.0 } else { 0.0 }).collect();
    let samples = normals(n * 60, 1.0);
    // The first pass reconstructs the same in both recordings, so the difference of their gradients
    // is that of the auxiliary loss.
    let mut gradients = Vec::new();
    for alpha in [alpha, 0.0] {
        let sparsity = sparsity(alpha);
        let recorded = step::record(
            &mut device,
            &StepSpec::plain(&graph, &store, n, &sparsity, &optimizer, *scalars),
        )
        .unwrap();
        let program = device.compile(recorded.segments.concat()).unwrap();
        device.write_f64(recorded.x, &samples);
        device.write_f64(store.idle, &idle);
        device.run(&program, &StepParams::default()).unwrap();
        gradients.push(
            (0..graph.params.len())
                .map(|i| device.read_f64(store.grad(i)).unwrap())
                .collect::<Vec<_>>(),
        );
    }
    // By hand: e at the given weights, ê at moved ones.
    let host = Host::new(&mut device, &graph, &store, &samples, n);
    let missing = host.missing();
    let loss = |host: &Host| alpha * host.auxiliary(&missing, &idle, 4) / n as f64;
    let (mut analytic, mut differences) = (Vec::new(), Vec::new());
    for (i, (with, without)) in gradients[0].iter().zip(&gradients[1]).enumerate() {
        let len = host.weights[i].len();
        for at in (0..len).step_by(len.div_ceil(9)) {
            let moved = |delta: f64| {
                let mut host = host.clone();
                host.weights[i][at] += delta;
                loss(&host)
            };
            differences.push((moved(STEP) - moved(-STEP)) / (2.0 * STEP));
            analytic.push(with[at] - without[at]);
        }
    }
    let error = relative(&analytic, &differences);
    assert!(error <= TOLERANCE && analytic.iter().any(|g| g.abs() > 1e-4), "off by {error:.2e}");
    // The control: another weight of the loss.
    let wrong: Vec<f64> = analytic.iter().map(|g| 1.01 * g).collect();
    assert!(relative(&wrong, &differences) > 5e-3);
    // Without dead units, nothing is added.
    device.write_f64(store.idle, &[0.0; 9]);
    let sparsity = sparsity(alpha);
    let recorded = step::record(
        &mut device,
        &StepSpec::plain(&graph, &store, n, &sparsity, &optimizer, *scalars),
    )
    .unwrap();
    let program = device.compile(recorded.segments.concat()).unwrap();
    device.write_f64(recorded.x, &samples);
    device.run(&program, &StepParams::default()).unwrap();
    for (i, plain) in gradients[1].iter().enumerate() {
        let found = device.read_f64(store.grad(i)).unwrap();
        assert!(relative(&found, plain) < 1e-12, "{}", graph.params[i].name);
    }
}

/// The model of the test above in plain loops: weights in memory order, samples H,W,C.
#[derive(Clone)]
struct Host {
    weights: Vec<Vec<f64>>,
    samples: Vec<f64>,
    n: usize,
}

impl Host {
    fn new(device: &mut Device, graph: &Graph, store: &Store, samples: &[f64], n: usize) -> Self {
        let weights =
            (0..graph.params.len()).map(|i| device.read_f64(store.weight(i)).unwrap()).collect();
        Self { weights, samples: samples.to_vec(), n }
    }

    /// Pre-activations of a sample's nine units.
    fn units(&self, sample: usize) -> Vec<f64> {
        let [conv, conv_bias, linear, linear_bias] = [0, 1, 2, 3].map(|i| &self.weights[i]);
        let x = &self.samples[sample * 60..][..60];
        let mut maps = vec![0.0; 90];
        for (p, q, k) in
            (0..6).flat_map(|p| (0..5).flat_map(move |q| (0..3).map(move |k| (p, q, k))))
        {
            let mut sum = conv_bias[k];
            for (r, s, c) in
                (0..3).flat_map(|r| (0..3).flat_map(move |s| (0..2).map(move |c| (r, s, c))))
            {
                let (row, column): (usize, usize) = (p + r, q + s);
                if (1..7).contains(&row) && (1..6).contains(&column) {
                    sum += x[((row - 1) * 5 + column - 1) * 2 + c]
                        * conv[((r * 3 + s) * 2 + c) * 3 + k];
                }
            }
            maps[(p * 5 + q) * 3 + k] = f64::tanh(sum);
        }
        (0..9)
            .map(|unit| {
                linear_bias[unit]
                    + maps.iter().enumerate().map(|(i, m)| m * linear[i * 9 + unit]).sum::<f64>()
            })
            .collect()
    }

    /// The reconstruction of a code, with or without the decoder's biases.
    fn decode(&self, z: &[f64], biased: bool) -> Vec<f64> {
        let [expand, expand_bias, out, out_bias] = [4, 5, 6, 7].map(|i| &self.weights[i]);
        let maps: Vec<f64> = (0..90)
            .map(|i| {
                (if biased { expand_bias[i] } else { 0.0 }
                    + z.iter().enumerate().map(|(unit, z)| z * expand[unit * 90 + i]).sum::<f64>())
                .tanh()
            })
            .collect();
        let mut y: Vec<f64> = (0..60).map(|i| if biased { out_bias[i % 2] } else { 0.0 }).collect();
        for (p, q, k) in
            (0..6).flat_map(|p| (0..5).flat_map(move |q| (0..3).map(move |k| (p, q, k))))
        {
            for (r, s, c) in
                (0..3).flat_map(|r| (0..3).flat_map(move |s| (0..2).map(move |c| (r, s, c))))
            {
                let (row, column): (usize, usize) = (p + r, q + s);
                if (1..7).contains(&row) && (1..6).contains(&column) {
                    y[((row - 1) * 5 + column - 1) * 2 + c] +=
                        maps[(p * 5 + q) * 3 + k] * out[((r * 3 + s) * 2 + c) * 3 + k];
                }
            }
        }
        y
    }

    /// The k largest of some units; the others are 0.
    fn largest(units: &[f64], k: usize, of: impl Fn(usize) -> bool) -> Vec<f64> {
        let mut order: Vec<usize> = (0..units.len()).filter(|unit| of(*unit)).collect();
        order.sort_by(|a, b| units[*b].total_cmp(&units[*a]));
        let mut z = vec![0.0; units.len()];
        order.into_iter().take(k).for_each(|unit| z[unit] = units[unit]);
        z
    }

    fn missing(&self) -> Vec<f64> {
        let decoded = (0..self.n)
            .flat_map(|sample| self.decode(&Self::largest(&self.units(sample), 2, |_| true), true));
        self.samples.iter().zip(decoded.collect::<Vec<_>>()).map(|(x, y)| x - y).collect()
    }

    /// ‖e − ê‖²
    fn auxiliary(&self, missing: &[f64], idle: &[f64], k: usize) -> f64 {
        let decoded = (0..self.n).flat_map(|sample| {
            self.decode(&Self::largest(&self.units(sample), k, |unit| idle[unit] >= 5.0), false)
        });
        missing.iter().zip(decoded.collect::<Vec<_>>()).map(|(e, y)| (e - y).powi(2)).sum()
    }
}

/// ⟨conv(x), y⟩ = ⟨x, convᵀ(y)⟩ relates the two operations without differences.
#[test]
fn convolution_and_its_transpose_are_adjoint() {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let linear: Vec<Case> = cases()
        .into_iter()
        .filter(|case| {
            case.op.starts_with("conv") || case.op == "linear" || case.op == "avg_pool2d"
        })
        .collect();
    assert!(linear.len() > 15);
    for mut case in linear {
        // Without its bias the operation is linear in x, and grad_x is the adjoint of grad_y.
        case.inputs.remove("bias");
        let found = outputs(&case);
        let (left, right) = (
            dot(&found["y"], &case.inputs["grad_y"].reals()),
            dot(&case.inputs["x"].reals(), &found["grad_x"]),
        );
        assert!(
            (left - right).abs() <= 1e-9 * left.abs().max(1.0),
            "{}: {left} and {right}",
            case.id()
        );
    }
}
