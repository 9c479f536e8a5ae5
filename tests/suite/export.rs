//! `csae export`: ONNX files that onnxruntime runs with the results of the program, and wrong
//! input.

use std::path::Path;

use csae::internals::device::Device;
use csae::internals::export::onnx::{self as export, Options, Part, Sigma};
use csae::internals::infer::batches::Inference;
use csae::internals::infer::conditions::Condition;
use csae::internals::infer::restore::Restorer;
use csae::internals::model::{self, Decoder, Graph, LoadedModel, ModelSpec, Purpose, Store};
use csae::internals::raster::corrupt::Mask;
use csae::internals::raster::resample::imresize;
use csae::internals::rng::Stream;
use csae::internals::shape::{Dims, Size, to_nchw, to_nhwc};
use csae::internals::spec::{Config, preset_names, preset_text};
use csae::internals::tasks::segment::Segmenter;
use serde_json::{Value, json};

use crate::support::models::digits;
use crate::support::onnx::{self, Case};
use crate::support::{Command, TempFolder, bytes};

/// The largest relative error.
const LIMIT: f64 = 1e-5;
/// Samples in a batch; each case also runs the first sample alone.
const BATCH: usize = 7;
/// An odd size, for models of images of any size.
const ODD: Size = Size { h: 33, w: 47 };

/// Writes a model with random values: also in tensors that start constant, so that every part of a
/// layer changes the result.
fn write_model(folder: &TempFolder, name: &str, spec: &ModelSpec, input: Dims) -> LoadedModel {
    let mut device = Device::cpu();
    let graph = Graph::new(spec, input).unwrap();
    let store = Store::new(&mut device, &graph, Purpose::Infer).unwrap();
    store.initialise(&mut device, &graph, 1);
    let mut stream = Stream::new(7, name);
    let mut random = |values: &mut [f32]| {
        // Weights are large against these changes, and constants small.
        values.iter_mut().for_each(|value| *value += 0.03 * (2.0 * stream.uniform() - 1.0));
    };
    for (i, param) in graph.params.iter().enumerate() {
        let mut values = store.read_param(&mut device, &graph, i).unwrap();
        random(&mut values);
        // A threshold below 0 makes a layer jump at 0, where rounding decides. One layer has such
        // thresholds, and no inputs near 0.
        if [".threshold", ".slope"].iter().any(|end| param.name.ends_with(end))
            && param.name != "negative.threshold"
        {
            values.iter_mut().for_each(|value| *value = value.abs());
        }
        device.write(store.weight(i), &param.pack(&values));
    }
    for i in 0..graph.states.len() {
        device.write(store.state(i), &[0.2]);
    }
    let path = folder.path(&format!("{name}.safetensors"));
    model::save(Path::new(&path), &mut device, &graph, &store).unwrap();
    model::load(Path::new(&path)).unwrap()
}

fn parse(text: &str) -> ModelSpec {
    Config::parse(text, "test", &[]).unwrap().model
}

/// Images (N,C,H,W) from 0 to 1: smooth, with noise.
fn images(dims: Dims, n: usize) -> Vec<f32> {
    let mut stream = Stream::new(3, "images");
    let mut all = Vec::with_capacity(n * dims.len());
    for at in 0..n * dims.c {
        let shift = stream.uniform();
        for row in 0..dims.h {
            for column in 0..dims.w {
                let wave = ((row as f32) * 0.31 + (column as f32) * 0.17 + at as f32).sin();
                all.push(0.4 + 0.25 * wave + 0.2 * stream.uniform() + 0.1 * shift);
            }
        }
    }
    all
}

/// The same in the order of memory, one sample after the other.
fn in_memory(x: &[f32], dims: Dims) -> Vec<f32> {
    x.chunks(dims.len()).flat_map(|one| to_nhwc(one, dims)).collect()
}

fn natural(y: &[f32], dims: Dims) -> Vec<f32> {
    y.chunks(dims.len()).flat_map(|one| to_nchw(one, dims)).collect()
}

fn shape(n: usize, dims: Dims) -> Vec<usize> {
    vec![n, dims.c, dims.h, dims.w]
}

/// What the program computes for a layer, at the size of `dims`.
fn features(loaded: &LoadedModel, layer: &str, x: &[f32], dims: Dims) -> (Dims, Vec<f32>) {
    let mut device = Device::cpu();
    let spec = model::encoder(&loaded.graph, Some(layer), None).unwrap();
    let graph = Graph::new(&spec, dims).unwrap();
    let store = loaded.place(&mut device, &graph, Purpose::Infer).unwrap();
    let mut inference = Inference::new(&graph, &store);
    let out = graph.nodes[graph.output].dims;
    let y = inference.run_output(&mut device, &in_memory(x, dims), &[]).unwrap();
    (out, natural(&y, out))
}

/// Cases of every layer of a model, at its own size, and at `other` if the layers allow it.
fn layers(folder: &TempFolder, name: &str, loaded: &LoadedModel, other: Option<Size>) -> Vec<Case> {
    let graph = &loaded.graph;
    let own = graph.nodes[0].dims;
    let mut cases = Vec::new();
    for node in 1..graph.nodes.len() {
        let layer = &graph.nodes[node].name;
        let options = Options { part: Part::Layer(layer.clone()), ..Options::default() };
        let file = export::export(loaded, &options).unwrap();
        let onnx = folder.write(&format!("{name}-{node}.onnx"), &file.bytes);
        let any = file.inputs[0][1].contains("width");
        let sizes = [Some(own.size()), other.filter(|_| any)];
        for size in sizes.into_iter().flatten() {
            let dims = Dims::of(size, own.c);
            let (n, place) = (BATCH, format!("{name}-{node}-{size}"));
            let x = images(dims, n);
            let (out, want) = features(loaded, layer, &x, dims);
            let want_shape = if !any && out.area() == 1 { vec![n, out.c] } else { shape(n, out) };
            let want = onnx::write(folder, &format!("{place}-y.npy"), &want_shape, &want);
            let x = onnx::write(folder, &format!("{place}-x.npy"), &shape(n, dims), &x);
            let mut inputs = vec![("input", json!(x))];
            // The level 0 of features: no noise, and images that were not enlarged.
            for [input, _] in &file.inputs[1..] {
                match input.as_str() {
                    "sigma" => inputs.push(("sigma", json!(vec![0.0; n]))),
                    "scale" => inputs.push(("scale", json!(vec![1.0; n]))),
                    _ => {
                        let zeros = vec![0.0; n * dims.area()];
                        let shape = shape(n, Dims { c: 1, ..dims });
                        let mask = format!("{place}-mask.npy");
                        let mask = onnx::write(folder, &mask, &shape, &zeros);
                        inputs.push(("mask", json!(mask)));
                    }
                }
            }
            cases.push(Case::new(&format!("{name} {layer} {size}"), &onnx, &inputs, &want));
        }
    }
    cases
}

/// The size of samples for a preset.
fn input_of(preset: &str) -> Dims {
    match preset {
        "signals" => Dims::new(2, 1, 64),
        "article" => Dims::new(1, 16, 16),
        "w2" | "wta-color" => Dims::new(3, 32, 32),
        "w3" => Dims::new(3, 64, 64),
        "paint-1" | "paint-2" | "paint-3" | "plain" | "pyramid" => Dims::new(3, 32, 32),
        "denoise" | "inpaint" | "upscale" | "photographs" => Dims::new(1, 32, 32),
        _ => Dims::new(1, 28, 28),
    }
}

#[test]
fn every_layer_of_every_preset_computes_the_same_in_onnxruntime() {
    let Some(python) = onnx::python() else { return };
    let folder = TempFolder::new("export-presets");
    let mut cases = Vec::new();
    for preset in preset_names() {
        let input = input_of(preset);
        let loaded = write_model(&folder, preset, &parse(preset_text(preset).unwrap()), input);
        let other = if input.h == 1 { Size::new(1, 96) } else { Size::new(48, 80) };
        cases.extend(layers(&folder, preset, &loaded, Some(other)));
    }
    assert!(cases.len() > 200, "{}", cases.len());
    onnx::assert_equal(&python, &cases, LIMIT);
}

/// A layer: `name`, `op`, and its options as TOML.
fn layer(name: &str, op: &str, options: &str) -> String {
    format!("[[model.layers]]\nname = \"{name}\"\nop = \"{op}\"\n{options}\n")
}

/// Layers and options that no preset has.
fn operations() -> String {
    let conv = |name: &str, options: &str| layer(name, "conv2d", options);
    let mut text = "[model]\ncode = \"code\"\n".to_owned();
    text += &layer("contrast", "local_contrast", "window = 5");
    text += &layer("white", "whiten", "kernel = [3, 5]\nfrom = \"input\"");
    text += &layer("both", "concat", "from = [\"contrast\", \"white\"]");
    text += &conv("a", "filters = 12\nkernel = [3, 4]\nstride = [1, 2]\npadding = [2, 1]");
    text +=
        &conv("b", "filters = 16\nkernel = 3\ngroups = 4\ndilation = [2, 1]\npadding = \"same\"");
    for kind in ["relu", "elu", "softplus", "sigmoid", "tanh", "gelu", "silu", "leaky_relu"] {
        let options = format!("activation = \"{kind}\"\nfrom = \"b\"");
        text += &layer(kind, "activation", &options);
    }
    let constants = "activation = { kind = \"leaky_relu\", slope = 0.3 }\nfrom = \"b\"";
    text += &layer("leaky", "activation", constants);
    text += &layer("alpha", "activation", "activation = { kind = \"elu\", alpha = 0.7 }");
    text += &layer("negative", "soft_threshold", "value = 0.0\nfrom = \"b\"");
    text += &layer("l2", "l2_pool2d", "kernel = [2, 3]\nstride = 2\npadding = 1\nfrom = \"b\"");
    let counted = "kernel = 3\nstride = 2\npadding = 1\ncount_include_pad = false\nfrom = \"b\"";
    text += &layer("average", "avg_pool2d", counted);
    text += &layer("mean", "avg_pool2d", "kernel = 3\nstride = 2\npadding = 1\nfrom = \"b\"");
    text += &layer("pool", "max_pool2d", "kernel = 3\nstride = 2\nfrom = \"gelu\"");
    text += &conv("code", "filters = 16\nkernel = 1\nactivation = \"relu\"");
    text += &layer("batch", "batch_top_k", "per_position = 2.0");
    text += &layer("life", "lifetime_wta", "rate = 0.2");
    text += &layer("drop", "dropout", "p = 0.3");
    text += &layer("unpool", "max_unpool2d", "switches = \"pool\"");
    text += &layer("difference", "sub", "from = [\"unpool\", \"b\"]");
    let up = "filters = 8\nkernel = [3, 4]\nstride = [2, 3]\npadding = 1\noutput_padding = [1, 2]\n\
              dilation = [1, 2]\ngroups = 2\nactivation = \"silu\"";
    text += &layer("up", "conv_transpose2d", up);
    text += &layer("shuffle", "pixel_shuffle", "scale = 2");
    text += &layer("nearest", "upsample_nearest2d", "scale = [2, 3]");
    text
}

#[test]
fn operations_that_no_preset_has_compute_the_same_in_onnxruntime() {
    let Some(python) = onnx::python() else { return };
    let folder = TempFolder::new("export-operations");
    // Sizes that are multiples of the strides; others are padded.
    let operations =
        write_model(&folder, "operations", &parse(&operations()), Dims::new(3, 20, 28));
    let mut cases = layers(&folder, "operations", &operations, Some(Size::new(32, 44)));
    let whole = "[model]\ncode = \"code\"\n".to_owned()
        + &layer("maps", "conv2d", "filters = 6\nkernel = 3")
        + &layer("top", "top_k", "per_position = 1.3")
        + &layer("spatial", "spatial_wta", "from = \"maps\"")
        + &layer("code", "linear", "units = 19\nactivation = \"tanh\"")
        + &layer("again", "linear", "shape = [2, 3, 4]\nbias = false")
        + &layer("last", "linear", "like = \"input\"");
    let whole = write_model(&folder, "whole", &parse(&whole), Dims::new(2, 9, 11));
    cases.extend(layers(&folder, "whole", &whole, None));
    assert!(cases.len() > 60, "{}", cases.len());
    onnx::assert_equal(&python, &cases, LIMIT);
}

/// The comparison can fail: another model, a wrong shape, another input and a damaged file are
/// found.
#[test]
fn differences_and_damaged_files_are_found() {
    let Some(python) = onnx::python() else { return };
    let folder = TempFolder::new("export-control");
    let spec = parse(preset_text("sparse").unwrap());
    let dims = Dims::new(1, 28, 28);
    let loaded = write_model(&folder, "one", &spec, dims);
    let other = write_model(&folder, "other", &spec, dims);
    let code = Options { part: Part::Encoder, ..Options::default() };
    let file = export::export(&loaded, &code).unwrap().bytes;
    let onnx = folder.write("one.onnx", &file);
    let cut = folder.write("cut.onnx", &file[..file.len() / 2]);
    let x = images(dims, BATCH);
    let (out, want) = features(&loaded, "code", &x, dims);
    let (_, wrong) = features(&other, "code", &x, dims);
    let flat = [BATCH, out.c];
    let want = onnx::write(&folder, "want.npy", &flat, &want);
    let wrong = onnx::write(&folder, "wrong.npy", &flat, &wrong);
    let turned = onnx::write(&folder, "turned.npy", &[out.c, BATCH], &vec![0.0; BATCH * out.c]);
    let x = onnx::write(&folder, "x.npy", &shape(BATCH, dims), &x);
    let case =
        |onnx: &str, input: &str, want: &str| Case::new("", onnx, &[(input, json!(x))], want);
    let cases = [
        case(&onnx, "input", &want),
        case(&onnx, "input", &wrong),
        case(&onnx, "input", &turned),
        case(&onnx, "image", &want),
        case(&cut, "input", &want),
    ];
    let answers = onnx::answers(&python, &cases);
    assert!(onnx::error(&answers[0]) < LIMIT, "{answers:?}");
    for answer in &answers[1..] {
        assert!(onnx::error(answer) > 100.0 * LIMIT, "{answers:?}");
    }
    for (answer, word) in answers[2..].iter().zip(["shape", "inputs", ""]) {
        assert!(answer["fault"].as_str().unwrap().contains(word), "{answers:?}");
    }
}

/// Runs `csae export`.
fn run_export(model: &str, out: &str) -> Command {
    Command::new("export").arg(model).out(out).quiet()
}

#[test]
fn reconstructions_and_features_are_those_of_the_program() {
    let Some(python) = onnx::python() else { return };
    let folder = TempFolder::new("export-program");
    let mut cases = Vec::new();
    for preset in preset_names() {
        let input = input_of(preset);
        let loaded = write_model(&folder, preset, &parse(preset_text(preset).unwrap()), input);
        if loaded.graph.target > 0 {
            continue;
        }
        let model = folder.path(&format!("{preset}.safetensors"));
        let onnx = folder.path(&format!("{preset}.onnx"));
        let report = Command::new("export").arg(&model).out(&onnx).report();
        let inputs = report["inputs"].as_array().unwrap();
        let any = inputs[0]["axes"].as_str().unwrap().contains("width");
        let odd = if input.h == 1 { Size::new(1, 61) } else { ODD };
        for size in [Some(input.size()), Some(odd).filter(|_| any)].into_iter().flatten() {
            let dims = Dims::of(size, input.c);
            let name = format!("{preset}-{size}");
            let x = images(dims, BATCH);
            // Signals have no axis of rows in the program's files.
            let own = shape(BATCH, dims);
            let own = if dims.h == 1 { vec![BATCH, dims.c, dims.w] } else { own };
            let x = onnx::write(&folder, &format!("{name}.npy"), &own, &x);
            let y = folder.path(&format!("{name}-y.npy"));
            Command::reconstruct(&model, &x).out(&y).on_cpu().quiet().succeed();
            let mut given = vec![("input", json!(x))];
            for input in &inputs[1..] {
                if input["name"] == "sigma" {
                    given.push(("sigma", json!(vec![0.0; BATCH])));
                } else {
                    let zeros = vec![0.0; BATCH * dims.area()];
                    let shape = shape(BATCH, Dims { c: 1, ..dims });
                    let mask = onnx::write(&folder, &format!("{name}-mask.npy"), &shape, &zeros);
                    given.push(("mask", json!(mask)));
                }
            }
            cases.push(Case::new(&name, &onnx, &given, &y));
        }
    }
    // The features of the program.
    let (onnx, y) = (folder.path("code.onnx"), folder.path("code.npy"));
    let model = folder.path("photographs.safetensors");
    run_export(&model, &onnx).flags("--part encoder").succeed();
    let dims = Dims::new(1, 40, 24);
    let x = onnx::write(&folder, "code-x.npy", &shape(BATCH, dims), &images(dims, BATCH));
    Command::new("features").arg(&model).arg(&x).out(&y).on_cpu().quiet().succeed();
    cases.push(Case::new("photographs code", &onnx, &[("input", json!(x))], &y));
    assert!(cases.len() > 20, "{}", cases.len());
    onnx::assert_equal(&python, &cases, LIMIT);
}

#[test]
fn a_decoder_turns_codes_into_reconstructions() {
    let Some(python) = onnx::python() else { return };
    let folder = TempFolder::new("export-decoder");
    let mut cases = Vec::new();
    for preset in ["sparse", "plain", "top-k", "pyramid"] {
        let dims = input_of(preset);
        let loaded = write_model(&folder, preset, &parse(preset_text(preset).unwrap()), dims);
        let graph = &loaded.graph;
        let options = Options { part: Part::Decoder, ..Options::default() };
        let file = export::export(&loaded, &options).unwrap();
        let onnx = folder.write(&format!("{preset}.onnx"), &file.bytes);
        let x = images(dims, BATCH);
        let (code, z) = features(&loaded, &graph.nodes[graph.code].name, &x, dims);
        let (out, y) = features(&loaded, &graph.nodes[graph.output].name, &x, dims);
        let flat = file.inputs[0][1].matches(" x ").count() == 1;
        let of_code = if flat { vec![BATCH, code.c] } else { shape(BATCH, code) };
        let z = onnx::write(&folder, &format!("{preset}-z.npy"), &of_code, &z);
        let y = onnx::write(&folder, &format!("{preset}-y.npy"), &shape(BATCH, out), &y);
        cases.push(Case::new(preset, &onnx, &[("code", json!(z))], &y));
    }
    onnx::assert_equal(&python, &cases, LIMIT);
}

/// Restores images one by one, as the program does.
fn restored(
    loaded: &LoadedModel,
    x: &[f32],
    dims: Dims,
    conditions: impl Fn(usize) -> Condition,
) -> Vec<f32> {
    let mut device = Device::cpu();
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer).unwrap();
    let restorer = Restorer::new(&loaded.graph, &store).unwrap();
    let each = x.chunks(dims.len()).enumerate().flat_map(|(i, one)| {
        let pixels = to_nhwc(one, dims);
        let y = restorer.restore_pixels(&mut device, dims, &conditions(i), &pixels).unwrap();
        to_nchw(&y, dims)
    });
    each.collect()
}

#[test]
fn restorers_restore_as_the_program() {
    let Some(python) = onnx::python() else { return };
    let folder = TempFolder::new("export-restorers");
    let dims = Dims::of(ODD, 1);
    let x = images(dims, BATCH);
    let own = shape(BATCH, dims);
    let path = onnx::write(&folder, "x.npy", &own, &x);
    let given = ("input", json!(path));
    let mut cases = Vec::new();
    let mut add = |name: &str,
                   model: &LoadedModel,
                   options: &Options,
                   inputs: &[(&str, Value)],
                   (shape, want): (&[usize], &[f32])| {
        let file = export::export(model, options).unwrap();
        let onnx = folder.write(&format!("{name}.onnx"), &file.bytes);
        let want = onnx::write(&folder, &format!("{name}.npy"), shape, want);
        cases.push(Case::new(name, &onnx, inputs, &want));
    };
    // Below 4 a part of the noise stays, below 1.5 all of it.
    let sigmas = [25.0, 3.0, 1.0, 50.0, 2.0, 10.0, 0.0];
    let denoise = model::bundled("denoise").unwrap();
    let want = restored(&denoise, &x, dims, |i| Condition::noise(sigmas[i]));
    let sigma = ("sigma", json!(sigmas));
    add("denoise", &denoise, &Options::default(), &[given.clone(), sigma], (&own, &want));
    let map = Dims { c: 2, ..dims };
    let with_channel: Vec<f32> = x
        .chunks(dims.len())
        .zip(sigmas)
        .flat_map(|(one, sigma)| [one, &vec![(sigma / 255.0) as f32; dims.len()]].concat())
        .collect();
    let both = onnx::write(&folder, "channel-x.npy", &shape(BATCH, map), &with_channel);
    let channel = Options { sigma: Some(Sigma::Channel), ..Options::default() };
    add("denoise-channel", &denoise, &channel, &[("input", json!(both))], (&own, &want));
    for sigma in [25.0, 2.5] {
        let want = restored(&denoise, &x, dims, |_| Condition::noise(sigma));
        let options = Options { sigma: Some(Sigma::Value(sigma)), ..Options::default() };
        let name = format!("denoise-{sigma}");
        add(&name, &denoise, &options, std::slice::from_ref(&given), (&own, &want));
    }
    let inpaint = model::bundled("inpaint").unwrap();
    let mut stream = Stream::new(5, "mask");
    let missing: Vec<u8> =
        (0..BATCH * dims.area()).map(|_| u8::from(stream.uniform() < 0.3)).collect();
    let want = restored(&inpaint, &x, dims, |i| {
        let missing = missing[i * dims.area()..][..dims.area()].to_vec();
        Condition::missing(Mask { size: dims.size(), missing })
    });
    let missing: Vec<f32> = missing.iter().map(|one| f32::from(*one)).collect();
    let mask = onnx::write(&folder, "mask.npy", &own, &missing);
    let inputs = [given.clone(), ("mask", json!(mask))];
    add("inpaint", &inpaint, &Options::default(), &inputs, (&own, &want));
    let upscale = model::bundled("upscale").unwrap();
    let scales = [2, 3, 4, 2, 3, 4, 2];
    let want = restored(&upscale, &x, dims, |i| Condition::enlarged(scales[i]));
    let inputs = [given.clone(), ("scale", json!(scales))];
    add("upscale", &upscale, &Options::default(), &inputs, (&own, &want));
    for scale in [2, 3] {
        let large = Dims::new(1, dims.h * scale, dims.w * scale);
        let enlarged: Vec<f32> = x
            .chunks(dims.len())
            .flat_map(|one| imresize(one, dims, scale as f64).unwrap().0)
            .collect();
        let want = restored(&upscale, &enlarged, large, |_| Condition::enlarged(scale));
        let options = Options { scale: Some(scale), ..Options::default() };
        let shape = shape(BATCH, large);
        let name = format!("upscale-{scale}");
        add(&name, &upscale, &options, std::slice::from_ref(&given), (&shape, &want));
    }
    onnx::assert_equal(&python, &cases, LIMIT);
}

/// The softmax of each row.
fn softmax(logits: &[f32], classes: usize) -> Vec<f32> {
    let each = logits.chunks(classes).flat_map(|row| {
        let powers: Vec<f64> = row.iter().map(|logit| f64::from(*logit).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(move |power| (power / sum) as f32)
    });
    each.collect()
}

#[test]
fn classifiers_segmenters_and_detectors_predict_as_the_program() {
    let Some(python) = onnx::python() else { return };
    let folder = TempFolder::new("export-heads");
    let classes: Vec<String> = ["round", "square", "other"].map(str::to_owned).into();
    let mut cases = Vec::new();
    let mut add =
        |name: &str, file: &export::File, x: (&[usize], &[f32]), y: (&[usize], &[f32])| {
            let onnx = folder.write(&format!("{name}.onnx"), &file.bytes);
            let x = onnx::write(&folder, &format!("{name}-x.npy"), x.0, x.1);
            let y = onnx::write(&folder, &format!("{name}-y.npy"), y.0, y.1);
            cases.push(Case::new(name, &onnx, &[("input", json!(x))], &y));
        };
    let dims = Dims::new(3, 32, 32);
    let whole = Graph::new(&parse(preset_text("pyramid").unwrap()), dims).unwrap();
    let encoder = model::encoder(&whole, None, None).unwrap();
    let graph = Graph::new(&encoder, dims).unwrap();
    let x = images(dims, BATCH);
    let own = shape(BATCH, dims);

    let spec = model::classifier(&encoder, classes.clone(), 0.5).unwrap();
    let classifier = write_model(&folder, "classifier", &spec, dims);
    let file = export::export(&classifier, &Options::default()).unwrap();
    assert_eq!(file.output, ["probabilities", "batch_size x 3"]);
    let (_, logits) = features(&classifier, "head", &x, dims);
    add("classifier", &file, (&own, &x), (&[BATCH, 3], &softmax(&logits, 3)));

    for (name, how) in [("deconv", Decoder::Deconv), ("unpool", Decoder::Unpool)] {
        let spec = model::decoder(&encoder, &graph, (how, 1, 3), &[2], classes.clone()).unwrap();
        let segmenter = write_model(&folder, name, &spec, dims);
        let file = export::export(&segmenter, &Options::default()).unwrap();
        let mut device = Device::cpu();
        let store = segmenter.place(&mut device, &segmenter.graph, Purpose::Infer).unwrap();
        let program = Segmenter::new(&segmenter.graph, &store).unwrap();
        for size in [dims.size(), ODD] {
            let dims = Dims::of(size, 3);
            let (x, out) = (images(dims, BATCH), Dims::of(size, classes.len()));
            let plan = program.plan(&device, size).unwrap();
            let y: Vec<f32> = x
                .chunks(dims.len())
                .flat_map(|one| {
                    let pixels = to_nhwc(one, dims);
                    to_nchw(&plan.pass().probabilities(&mut device, &pixels).unwrap(), out)
                })
                .collect();
            let name = format!("{name}-{size}");
            add(&name, &file, (&shape(BATCH, dims), &x), (&shape(BATCH, out), &y));
        }
    }

    let cell = csae::internals::ops::CELL;
    let heads = (Decoder::Deconv, 4, cell + classes.len());
    let spec = model::decoder(&encoder, &graph, heads, &[], classes.clone()).unwrap();
    let detector = write_model(&folder, "detector", &spec, dims);
    let file = export::export(&detector, &Options::default()).unwrap();
    assert_eq!((file.task, file.output[0].as_str()), ("detect", "grid"));
    let (out, y) = features(&detector, "head", &x, dims);
    add("detector", &file, (&own, &x), (&shape(BATCH, out), &y));
    onnx::assert_equal(&python, &cases, LIMIT);
}

#[test]
fn a_normalization_is_a_part_of_the_file() {
    let Some(python) = onnx::python() else { return };
    let folder = TempFolder::new("export-normalized");
    let dims = Dims::new(2, 16, 16);
    let values: Vec<f32> = images(dims, 40).iter().map(|value| 300.0 * value - 70.0).collect();
    let data = onnx::write(&folder, "data.npy", &shape(40, dims), &values);
    let run = folder.path("run");
    let train = Command::train(&data).flags("--preset plain").out(&run).steps(3).batch(4);
    train.set("data.normalize=standard").on_cpu().quiet().succeed();
    let (onnx, y) = (folder.path("model.onnx"), folder.path("y.npy"));
    run_export(&run, &onnx).succeed();
    let few = onnx::write(&folder, "few.npy", &shape(BATCH, dims), &values[..BATCH * dims.len()]);
    Command::reconstruct(&run, &few).out(&y).on_cpu().quiet().succeed();
    let cases = [Case::new("normalized", &onnx, &[("input", json!(few))], &y)];
    onnx::assert_equal(&python, &cases, LIMIT);
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    let folder = TempFolder::new("export-bytes");
    let (one, two) = (folder.path("one.onnx"), folder.path("two.onnx"));
    run_export(digits(), &one).succeed();
    run_export(digits(), &two).succeed();
    assert_eq!(bytes(&one), bytes(&two));
}

#[test]
fn a_report_names_the_task_the_inputs_and_the_output() {
    let folder = TempFolder::new("export-report");
    let out = folder.path("denoise.onnx");
    let report = Command::new("export denoise").out(&out).report();
    assert_eq!(report["task"], "denoise");
    assert_eq!(report["inputs"][0]["axes"], "batch_size x 1 x height x width");
    assert_eq!(report["inputs"][1], json!({"name": "sigma", "axes": "batch_size"}));
    let text = Command::new("export denoise").out(&out).force().succeed();
    for word in ["denoise.onnx", "sigma (batch_size)", "output (batch_size x 1 x height x width)"] {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(Command::new("export denoise").out(&out).force().quiet().succeed(), "");
    // The metadata are text in the file.
    let file = String::from_utf8_lossy(&bytes(&out)).into_owned();
    for word in ["csae_version", "sigma_range", "[0.0,50.0]", "MIT OR Apache-2.0", "input_max"] {
        assert!(file.contains(word), "{word}");
    }
}

#[test]
fn wrong_input_is_refused_with_advice() {
    let folder = TempFolder::new("export-refused");
    let out = folder.path("model.onnx");
    let export = |model: &str, flags: &str| run_export(model, &out).flags(flags);
    run_export(digits(), &folder.path("model.pb")).fails(2, &["model.pb", ".onnx"]);
    export("no-such-model", "").fails(2, &["no-such-model"]);
    export("digits", "").fails(2, &["digits", "not a model"]);
    let text = folder.write("text.safetensors", "no model");
    export(&text, "").fails(2, &["text.safetensors", "not a model file"]);
    export(digits(), "--layer encoder.9").fails(2, &["no layer", "did you mean"]);
    export(digits(), "--layer code --part encoder").fails(2, &["--part"]);
    export(digits(), "--sigma 25").fails(2, &["not conditioned on a noise level"]);
    export(digits(), "--scale 2").fails(2, &["takes a scale"]);
    export("denoise", "--sigma 300").fails(2, &["0 to 255"]);
    export("denoise", "--part decoder").fails(2, &["code.mean", "whole model"]);
    export("upscale", "--scale 8").fails(2, &["2, 3, 4"]);
    assert!(!Path::new(&out).exists());
    export(digits(), "").succeed();
    let before = bytes(&out);
    export("denoise", "").fails(2, &["already exists", "--force"]);
    assert_eq!(bytes(&out), before);
    export("denoise", "--force").succeed();
    assert_ne!(bytes(&out), before);
}
