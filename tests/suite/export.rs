//! `csae export`: ONNX files that onnxruntime runs with the results of the program, and wrong
//! input.

use std::path::Path;

use csae::internals::export::onnx::{self as export, Options, Part};
use csae::internals::model::{LoadedModel, load_bytes};
use csae::internals::shape::{Dims, Size};
use csae::internals::spec::{preset_names, preset_text};
use serde_json::json;

use crate::support::models::digits;
use crate::support::onnx::{self, BATCH, Case, LIMIT};
use crate::support::random_models::{features, images, parse, shape, write_model};
use crate::support::{Command, TempFolder, bytes};

/// An odd size, for models of images of any size.
const ODD: Size = Size { h: 33, w: 47 };

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
        "denoise" | "inpaint" | "upscale" | "dejpeg" | "photographs" => Dims::new(1, 32, 32),
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
    onnx::assert_equal(&python, &cases);
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
    onnx::assert_equal(&python, &cases);
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
            let reconstruct = Command::reconstruct(&model, &x).out(&y).on_cpu().quiet();
            let layout = if dims.h == 1 { "NCL" } else { "NCHW" };
            reconstruct.option("--layout", layout).succeed();
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
    run_export(&model, &onnx).flags("--layer code").succeed();
    let dims = Dims::new(1, 40, 24);
    let x = onnx::write(&folder, "code-x.npy", &shape(BATCH, dims), &images(dims, BATCH));
    Command::new("features").arg(&model).arg(&x).out(&y).on_cpu().quiet().succeed();
    cases.push(Case::new("photographs code", &onnx, &[("input", json!(x))], &y));
    assert!(cases.len() > 20, "{}", cases.len());
    onnx::assert_equal(&python, &cases);
}

#[test]
fn an_encoder_and_its_decoder_are_the_parts_of_the_program() {
    let Some(python) = onnx::python() else { return };
    let folder = TempFolder::new("export-decoder");
    let mut cases = Vec::new();
    for preset in ["sparse", "plain", "top-k", "pyramid", "photographs", "denoise"] {
        let dims = input_of(preset);
        let loaded = write_model(&folder, preset, &parse(preset_text(preset).unwrap()), dims);
        let graph = &loaded.graph;
        let export = |part: Part| {
            let file = export::export(&loaded, &Options { part, ..Options::default() }).unwrap();
            let name = format!("{preset}-{}.onnx", file.task);
            let onnx = folder.write(&name, &file.bytes);
            (onnx, file)
        };
        let ((encoder, encodes), (decoder, decodes)) =
            (export(Part::Encoder), export(Part::Decoder));
        let x = images(dims, BATCH);
        let (code, z) = features(&loaded, &graph.nodes[graph.code].name, &x, dims);
        let (out, y) = features(&loaded, &graph.nodes[graph.output].name, &x, dims);
        let flat = decodes.inputs[0][1].matches(" x ").count() == 1;
        let of_code = if flat { vec![BATCH, code.c] } else { shape(BATCH, code) };
        let write = |name: &str, shape: &[usize], values: &[f32]| {
            onnx::write(&folder, &format!("{preset}-{name}.npy"), shape, values)
        };
        let (x_file, z) = (write("x", &shape(BATCH, dims), &x), write("z", &of_code, &z));
        let y = write("y", &shape(BATCH, out), &y);
        let mut given = vec![("input", json!(x_file))];
        if encodes.inputs.len() > 1 {
            given.push(("sigma", json!(vec![0.0; BATCH])));
        }
        let mut case = Case::new(&format!("{preset} encoder"), &encoder, &given, &z);
        let mut code = vec![("code", json!(z))];
        // The decoders of these presets add the means of the images.
        if let Some(name) =
            graph.nodes.iter().map(|node| &node.name).find(|name| name.ends_with(".pooled"))
        {
            let (_, mean) = features(&loaded, name, &x, dims);
            let mean = write("mean", &[BATCH, dims.c], &mean);
            case = case.and(&mean);
            code.push(("mean", json!(mean)));
        }
        cases.push(case);
        cases.push(Case::new(&format!("{preset} decoder"), &decoder, &code, &y));
    }
    assert_eq!(cases.len(), 12);
    onnx::assert_equal(&python, &cases);
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
    onnx::assert_equal(&python, &cases);
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
    Command::new("export").arg("denoise").fails(2, &["--out <FILE>", "--web <FILE>"]);
    export("digits", "").fails(2, &["digits", "not a model"]);
    let text = folder.write("text.safetensors", "no model");
    export(&text, "").fails(2, &["text.safetensors", "not a model file"]);
    export(digits(), "--layer encoder.9").fails(2, &["no layer", "did you mean"]);
    export(digits(), "--layer code --part encoder").fails(2, &["--part"]);
    export(digits(), "--sigma 25").fails(2, &["not conditioned on a noise level"]);
    export(digits(), "--scale 2").fails(2, &["takes a scale"]);
    export("denoise", "--score 0.5").fails(2, &["only a whole detector"]);
    export("denoise", "--score 2").fails(2, &["from 0 to below 1"]);
    export("denoise", "--sigma 300").fails(2, &["0 to 255"]);
    export("photographs", "--rgb").fails(2, &["gray images"]);
    export("denoise", "--rgb --part encoder").fails(2, &["gray images"]);
    let unpool = "[model]\ncode = \"code\"\n".to_owned()
        + &layer("pool", "max_pool2d", "kernel = 2")
        + &layer("code", "conv2d", "filters = 1\nkernel = 1")
        + &layer("image", "max_unpool2d", "switches = \"pool\"");
    write_model(&folder, "unpool", &parse(&unpool), Dims::new(1, 8, 8));
    let unpool = folder.path("unpool.safetensors");
    export(&unpool, "--part decoder").fails(2, &["reads layer pool", "whole model"]);
    export("upscale", "--scale 8").fails(2, &["2, 3, 4"]);
    assert!(!Path::new(&out).exists());
    export(digits(), "").succeed();
    let before = bytes(&out);
    export("denoise", "").fails(2, &["already exists", "--force"]);
    assert_eq!(bytes(&out), before);
    export("denoise", "--force").succeed();
    assert_ne!(bytes(&out), before);
}

#[test]
fn a_model_takes_the_values_of_a_state_dict() {
    let folder = TempFolder::new("import");
    let (model, out) = (digits(), folder.path("out.safetensors"));
    let state = format!("{model}/model.safetensors");
    let import =
        |state: &str| Command::new("import").arg(state).option("--like", model).out(&out).quiet();
    // The tensors of a model file have the names that those of a state_dict can have.
    import(&state).succeed();
    assert!(bytes(&out) == bytes(&state));
    import(&state).fails(2, &["--force"]);
    let wrong = |name: &str, bytes: &[u8], words: &[&str]| {
        import(&folder.write(name, bytes)).force().fails(2, words);
    };
    wrong("a.pt", b"PK\x03\x04", &["a.pt: a pickle of PyTorch", "save_file"]);
    wrong("a.safetensors", b"nothing", &["a.safetensors: not a safetensors file"]);
    let other = Command::new("import").arg(&state).option("--like", "denoise").out(&out).force();
    other.fails(2, &["tensors that the model does not have"]);
    let ending = Command::new("import").arg(&state).option("--like", model);
    ending.out(folder.path("a.onnx")).fails(2, &["ends in .safetensors"]);
    assert!(bytes(&out) == bytes(&state));
}

#[test]
fn a_model_file_of_16_bits_has_half_the_size_and_its_results() {
    let folder = TempFolder::new("export-half");
    let write = |out: &str, flags: &str| run_export(digits(), out).flags(flags).succeed();
    let (full, half) = (folder.path("full.safetensors"), folder.path("half.safetensors"));
    write(&full, "");
    assert!(bytes(&full) == bytes(format!("{}/model.safetensors", digits())));
    write(&half, "--half");
    let [large, small] = [&full, &half].map(|file| bytes(file).len());
    assert!(small < large * 55 / 100, "{small} of {large}");
    let loaded = |file: &str| load_bytes(&bytes(file), file).unwrap();
    let (a, b) = (loaded(&full), loaded(&half));
    assert_ne!(a.hash, b.hash);
    let dims = a.graph.nodes[0].dims;
    let x = images(dims, 2);
    let [(_, want), (_, got)] = [&a, &b].map(|model| features(model, "code", &x, dims));
    let largest = want.iter().copied().fold(0.0, f32::max);
    let error = want.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(error > 0.0 && error < largest * 0.01, "{error} of {largest}");
    // A second rounding changes nothing.
    let again = folder.path("again.safetensors");
    run_export(&half, &again).flags("--half").succeed();
    assert!(bytes(&again) == bytes(&half));
    let mut damaged = bytes(&half);
    *damaged.last_mut().unwrap() ^= 0x40;
    run_export(&folder.write("damaged.safetensors", &damaged), &again)
        .force()
        .fails(2, &["damaged.safetensors", "do not match their hash"]);
    run_export(digits(), &again).force().flags("--rgb").fails(2, &["--rgb", ".onnx"]);
}
