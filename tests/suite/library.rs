//! The library's documented interface: the same bytes as the commands give, the examples, and how
//! much of it there is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use csae::{Array, DeviceChoice, Image, Model, Noise, Size, TrainOptions};

use crate::support::{Command, TempFolder, bytes, gpu, model_bytes, text};

#[allow(dead_code)] // its `main`
#[path = "../examples/denoise_image.rs"]
mod denoise_image;
#[allow(dead_code)] // its `main`
#[path = "../examples/features_to_file.rs"]
mod features_to_file;
#[allow(dead_code)] // its `main`
#[path = "../examples/own_model.rs"]
mod own_model;
#[allow(dead_code)] // its `main`
#[path = "../examples/train_on_arrays.rs"]
mod train_on_arrays;

/// Documented items at most: what a newcomer can look through in one sitting.
const MOST_ITEMS: usize = 150;

fn bundled(name: &str) -> Model {
    Model::builder().device(DeviceChoice::Cpu).bundled(name).unwrap()
}

/// A value between 0 and 1 that varies over an image: waves and a little noise.
fn wave(x: u32, y: u32, c: u32) -> f64 {
    let smooth = 0.4 * (f64::from(x) / 5.0 + f64::from(c)).sin() * (f64::from(y) / 4.0).cos();
    let noise = f64::from((x * 7919 + y * 104_729 + c * 13) % 97) / 97.0 - 0.5;
    (0.5 + smooth + 0.1 * noise).clamp(0.0, 1.0)
}

/// A gray image of 8 bits.
fn gray(path: &str, w: u32, h: u32) {
    let pixel = |x, y| image::Luma([(255.0 * wave(x, y, 0)) as u8]);
    image::ImageBuffer::from_fn(w, h, pixel).save(path).unwrap();
}

/// A colour image of 16 bits with transparency.
fn deep_color(path: &str, w: u32, h: u32) {
    let pixel = |x, y| {
        let [r, g, b] = [0, 1, 2].map(|c| (65535.0 * wave(x, y, c)) as u16);
        image::Rgba([r, g, b, (x * 1000) as u16])
    };
    image::ImageBuffer::from_fn(w, h, pixel).save(path).unwrap();
}

#[test]
fn denoising_gives_the_bytes_of_the_command() {
    let folder = TempFolder::new("library-denoise");
    let (small, deep, out) = (folder.path("a.png"), folder.path("b.png"), folder.path("out"));
    gray(&small, 37, 29);
    deep_color(&deep, 24, 23);
    for (sigma, noise) in [("25", Noise::Sigma(25.0)), ("auto", Noise::Auto)] {
        let denoise = Command::new("denoise").args([&small, &deep]).option("--sigma", sigma);
        denoise.out(&out).force().on_cpu().quiet().succeed();
        for file in ["a.png", "b.png"] {
            let image = Image::open(folder.path(file)).unwrap();
            let own = folder.path("own.png");
            bundled("denoise").denoise(&image, noise).unwrap().save(&own).unwrap();
            let theirs = bytes(Path::new(&out).join(file));
            assert!(bytes(&own) == theirs, "{file} with sigma {sigma}");
        }
    }
}

#[test]
fn denoising_on_a_gpu_gives_the_bytes_of_the_command() {
    let Some(_turn) = gpu::turn() else { return };
    let folder = TempFolder::new("library-gpu");
    let (noisy, out, own) = (folder.path("a.png"), folder.path("out"), folder.path("own.png"));
    gray(&noisy, 21, 18);
    let device = gpu::name();
    let denoise = Command::new("denoise --sigma 20").arg(&noisy).out(&out);
    denoise.device(&device).quiet().succeed();
    let builder = || Model::builder().device(device.as_str());
    let image = Image::open(&noisy).unwrap();
    let clean = builder().bundled("denoise").unwrap().denoise(&image, Noise::Sigma(20.0)).unwrap();
    clean.save(&own).unwrap();
    assert!(bytes(&own) == bytes(Path::new(&out).join("a.png")));
}

#[test]
fn both_paths_train_and_reconstruct_alike() {
    let Some(_turn) = gpu::turn() else { return };
    let images = constant([8, 1, 24, 24], 0.5);
    let [gpu, cpu] = [&gpu::name(), "cpu"].map(|device| {
        let builder = Model::builder().device(device);
        let mut model = builder.from_toml(own_model::DESCRIPTION).unwrap();
        let report = model.train(&images, TrainOptions::new().steps(3)).unwrap();
        (report.psnr, model.reconstruct(&images).unwrap())
    });
    assert!((gpu.0 - cpu.0).abs() < 0.01, "{} {}", gpu.0, cpu.0);
    let differences = gpu.1.values().iter().zip(cpu.1.values());
    let largest = differences.fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
    assert!(largest < 1e-4, "{largest}");
}

#[test]
fn inpainting_gives_the_bytes_of_the_command() {
    let folder = TempFolder::new("library-inpaint");
    let (image, mask, out) = (folder.path("a.png"), folder.path("mask.png"), folder.path("out"));
    deep_color(&image, 26, 21);
    // A gray edge beside the white, and white that is transparent.
    let pixel = |x, y| match (x, y) {
        (5..9, 3..17) => image::LumaA([255_u8, 255]),
        (9, 3..17) => image::LumaA([70, 255]),
        (12..20, 5) => image::LumaA([255, 10]),
        _ => image::LumaA([20, 255]),
    };
    image::ImageBuffer::from_fn(26, 21, pixel).save(&mask).unwrap();
    let inpaint = Command::new("inpaint").arg(&image).option("--mask", &mask);
    inpaint.out(&out).on_cpu().quiet().succeed();
    let [image, mask] = [&image, &mask].map(|path| Image::open(path).unwrap());
    let own = folder.path("own.png");
    bundled("inpaint").inpaint(&image, &mask).unwrap().save(&own).unwrap();
    assert!(bytes(&own) == bytes(Path::new(&out).join("a.png")));
}

#[test]
fn upscaling_gives_the_bytes_of_the_command() {
    let folder = TempFolder::new("library-upscale");
    let (image, out, own) = (folder.path("a.png"), folder.path("out"), folder.path("own.png"));
    deep_color(&image, 13, 11);
    Command::new("upscale --scale 3").arg(&image).out(&out).on_cpu().quiet().succeed();
    let large = bundled("upscale").upscale(&Image::open(&image).unwrap(), 3).unwrap();
    assert_eq!(large.size(), Size::new(33, 39));
    large.save(&own).unwrap();
    assert!(bytes(&own) == bytes(Path::new(&out).join("a.png")));
}

#[test]
fn reconstructions_of_any_size_are_those_of_the_command() {
    let folder = TempFolder::new("library-reconstruct");
    let (image, out, own) = (folder.path("a.png"), folder.path("out"), folder.path("own.png"));
    let pixel = |x, y| image::Rgb([0, 1, 2].map(|c| (255.0 * wave(x, y, c)) as u8));
    image::ImageBuffer::from_fn(50, 33, pixel).save(&image).unwrap();
    Command::reconstruct("paint-1", &image).out(&out).on_cpu().quiet().succeed();
    let pixels = Image::open(&image).unwrap().into_pixels();
    let result = bundled("paint-1").reconstruct(&pixels).unwrap();
    Image::new(result).unwrap().save(&own).unwrap();
    let file = std::fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
    assert!(bytes(&own) == bytes(file));
}

#[test]
fn features_are_the_file_of_the_command() {
    let folder = TempFolder::new("library-features");
    folder.create("images");
    let files: Vec<String> =
        ["a", "b", "c"].iter().map(|name| folder.path(&format!("images/{name}.png"))).collect();
    let [_, h, w] = bundled("paint-1").input_shape();
    for (number, file) in (0..).zip(&files) {
        let pixel = |x, y| image::Rgb([0, 1, 2].map(|c| (255.0 * wave(x + number, y, c)) as u8));
        image::ImageBuffer::from_fn(w as u32, h as u32, pixel).save(file).unwrap();
    }
    let (theirs, own) = (folder.path("theirs.npy"), folder.path("own.npy"));
    let features = Command::new("features paint-1").arg(folder.path("images")).out(&theirs);
    features.on_cpu().quiet().succeed();
    features_to_file::write(DeviceChoice::Cpu, "paint-1", &own, &files).unwrap();
    assert!(bytes(&own) == bytes(&theirs));
}

/// A whitening layer, whose filters come from the images, before a learned layer.
const WHITENED: &str = r#"
[model]
code = "code"
target = "whiten"

[[model.layers]]
name = "whiten"
op = "whiten"
kernel = 3
eps = 0.1

[[model.layers]]
name = "code"
op = "conv2d"
filters = 6
kernel = 3
padding = "same"
activation = "relu"

[[model.layers]]
name = "decoder"
op = "conv_transpose2d"
filters = "input"
kernel = 3
padding = 1
"#;

fn whitened() -> csae::ModelBuilder {
    Model::builder().device("cpu").input(1, Size::new(8, 8))
}

fn three_steps() -> TrainOptions<'static> {
    TrainOptions::new().steps(3).batch(16)
}

#[test]
fn a_whitened_model_is_that_of_the_command() {
    let folder = TempFolder::new("library-whiten");
    let (run, own) = (folder.path("run"), folder.path("own.safetensors"));
    let file = folder.write("own.toml", WHITENED);
    let train = Command::train("digits").option("--config", &file).out(&run);
    train.steps(3).batch(16).on_cpu().quiet().succeed();
    let mut model = whitened().from_toml(WHITENED).unwrap();
    model.train(&digits(), three_steps()).unwrap();
    model.save(&own).unwrap();
    assert!(bytes(&own) == model_bytes(&run));
}

#[test]
fn whitening_filters_are_computed_once() {
    let folder = TempFolder::new("library-whiten-once");
    let own = folder.path("own.safetensors");
    let images = digits();
    let mut model = whitened().from_toml(WHITENED).unwrap();
    model.train(&images, three_steps()).unwrap();
    model.save(&own).unwrap();
    // Other images do not change the filters of a trained model, nor does a reload.
    let before = model.features(&images, "whiten").unwrap();
    let dark = images.values().iter().map(|value| value * value).collect();
    let dark = Array::new(images.shape(), dark).unwrap();
    let from = format!("{WHITENED}\n[train]\nfrom = {own:?}");
    for mut model in [model, whitened().load(&own).unwrap(), whitened().from_toml(&from).unwrap()] {
        model.train(&dark, three_steps()).unwrap();
        assert!(model.features(&images, "whiten").unwrap() == before);
    }
}

/// The bundled digits.
fn digits() -> Array {
    let digits = csae::internals::data::bundled::load("digits").unwrap();
    let values = digits.bytes.iter().map(|byte| f32::from(*byte) / 255.0).collect();
    Array::new([digits.len(), 1, 8, 8], values).unwrap()
}

#[test]
fn training_on_arrays_gives_the_model_of_the_command() {
    let folder = TempFolder::new("library-train");
    let run = folder.path("run");
    Command::train("digits")
        .flags("--preset sparse --seed 5")
        .out(&run)
        .steps(7)
        .batch(16)
        .set("train.log_every=3")
        .set("optimizer.lr=0.002")
        .on_cpu()
        .quiet()
        .succeed();
    let images = digits();
    let builder = Model::builder().device("cpu").input(1, Size::new(8, 8)).seed(5);
    let mut model = builder.from_toml(csae::preset("sparse").unwrap()).unwrap();
    let mut seen = Vec::new();
    let options = TrainOptions::new().steps(7).batch(16).learning_rate(0.002).report_every(3);
    let report = model.train(
        &images,
        options.on_progress(|progress| {
            seen.push(progress.step);
            std::ops::ControlFlow::Continue(())
        }),
    );
    assert_eq!((report.unwrap().steps, seen), (7, vec![3, 6, 7]));
    let own = folder.path("own.safetensors");
    model.save(&own).unwrap();
    assert!(bytes(&own) == model_bytes(&run));
}

#[test]
fn a_saved_and_loaded_model_encodes_alike() {
    let folder = TempFolder::new("library-load");
    let (images, own) = (digits(), folder.path("own.safetensors"));
    let builder = Model::builder().device("cpu").input(1, Size::new(8, 8)).seed(5);
    let mut model = builder.from_toml(csae::preset("sparse").unwrap()).unwrap();
    model.train(&images, TrainOptions::new().steps(7).batch(16)).unwrap();
    model.save(&own).unwrap();
    let mut again = Model::builder().device("cpu").load(&own).unwrap();
    assert_eq!(again.encode(&images).unwrap(), model.encode(&images).unwrap());
}

#[test]
fn a_callback_ends_training() {
    let images = train_on_arrays::bars().unwrap();
    let text = csae::preset("plain").unwrap();
    let builder = Model::builder().device("cpu").input(1, Size::new(16, 16));
    let mut model = builder.from_toml(text).unwrap();
    let options = TrainOptions::new().steps(100).batch(8).report_every(5);
    let report =
        model.train(&images, options.on_progress(|_| std::ops::ControlFlow::Break(()))).unwrap();
    assert!(report.stopped && report.steps < 20, "{report:?}");
}

/// The flag ends training after a step, and other work before its first batch, image or strip.
#[test]
fn a_flag_stops_the_work() {
    let stop = Arc::new(AtomicBool::new(false));
    let mut model = convolutions();
    model.set_stop(Arc::clone(&stop));
    let images = constant([2, 1, 8, 8], 0.5);
    model.encode(&images).unwrap();
    let mut restorer = bundled("denoise");
    restorer.set_stop(Arc::clone(&stop));
    let image = square(24, 0.5);
    restorer.denoise(&image, Noise::Sigma(10.0)).unwrap();
    stop.store(true, Ordering::Relaxed);
    assert_refused(model.encode(&images), &["stopped"]);
    assert_refused(model.features(&images, None), &["stopped"]);
    assert_refused(model.reconstruct(&images), &["stopped"]);
    assert_refused(model.reconstruct(&constant([1, 1, 12, 20], 0.5)), &["stopped"]);
    assert_refused(restorer.denoise(&image, Noise::Sigma(10.0)), &["stopped"]);
    let report = model.train(&images, TrainOptions::new().steps(1000).batch(2)).unwrap();
    assert_eq!((report.steps, report.stopped), (1, true));
    stop.store(false, Ordering::Relaxed);
    model.encode(&images).unwrap();
}

#[test]
fn bytes_and_keys_make_models() {
    let mut model = bundled("denoise");
    let bytes = model.to_bytes().unwrap();
    let builder = || Model::builder().device(DeviceChoice::Cpu);
    assert!(bytes == builder().from_bytes(&bytes).unwrap().to_bytes().unwrap());
    assert_refused(builder().from_bytes(&bytes[..500]), &["model in memory", "not a model file"]);
    let sparse = csae::preset("sparse").unwrap();
    let builder = || builder().input(1, Size::new(8, 8));
    let small = builder().set("model.layers.code.units", 9).from_toml(sparse).unwrap();
    assert_eq!(small.code_shape(), [9, 1, 1]);
    let wrong = builder().set("model.layers.code.unit", 9).from_toml(sparse);
    assert_refused(wrong, &["did you mean units"]);
}

/// Images of one value.
fn constant(shape: [usize; 4], value: f32) -> Array {
    Array::new(shape, vec![value; shape.iter().product()]).unwrap()
}

/// A model of convolutions alone.
fn convolutions() -> Model {
    Model::builder().device("cpu").from_toml(own_model::DESCRIPTION).unwrap()
}

#[test]
fn convolutions_encode_images_of_other_sizes() {
    let codes = convolutions().encode(&constant([2, 1, 30, 36], 0.25)).unwrap();
    assert_eq!(codes.shape(), [2, 16, 11, 13]);
}

#[test]
fn codes_of_another_shape_are_refused() {
    let error = convolutions().decode(&constant([1, 3, 9, 9], 0.0)).unwrap_err();
    assert!(error.to_string().contains("16x9x9"), "{error}");
}

#[test]
fn fully_connected_models_refuse_images_of_other_sizes() {
    let sparse = csae::preset("sparse").unwrap();
    let builder = Model::builder().device("cpu").input(1, Size::new(28, 28));
    let mut flat = builder.from_toml(sparse).unwrap();
    let error = flat.encode(&constant([2, 1, 30, 36], 0.25)).unwrap_err().to_string();
    assert!(error.contains("36x30") && error.contains("28x28"), "{error}");
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: csae::Result<T>, words: &[&str]) {
    let message = result.unwrap_err().to_string();
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
}

/// A gray image of one value.
fn square(side: usize, value: f32) -> Image {
    Image::new(constant([1, 1, side, side], value)).unwrap()
}

#[test]
fn wrong_images_and_parameters_of_restorers_are_refused() {
    let (image, small, white) = (square(16, 0.5), square(8, 0.5), square(16, 1.0));
    let (mut denoise, mut inpaint, mut upscale) =
        (bundled("denoise"), bundled("inpaint"), bundled("upscale"));
    assert_refused(inpaint.denoise(&image, Noise::Auto), &["inpaint", "denoise"]);
    assert_refused(denoise.denoise(&image, Noise::Sigma(-1.0)), &["0 to 255"]);
    assert_refused(denoise.denoise(&small, Noise::Auto), &["8x8", "too small"]);
    assert_refused(inpaint.inpaint(&image, &small), &["8x8", "16x16"]);
    assert_refused(inpaint.inpaint(&image, &white), &["every pixel"]);
    assert_refused(upscale.upscale(&image, 7), &["scale 7", "2, 3, 4"]);
}

#[test]
fn unknown_models_are_refused_with_the_nearest_known_one() {
    assert_refused(Model::bundled("denoize"), &["did you mean denoise"]);
}

#[test]
fn a_description_without_the_size_of_the_input_is_refused() {
    let text = csae::preset("sparse").unwrap();
    assert_refused(Model::builder().device("cpu").from_toml(text), &["input"]);
}

#[test]
fn values_in_units_of_their_own_are_normalised_and_returned() {
    let value = |i: usize| 300.0 + 5.0 * ((i % 24) as f32 * 0.4 + (i / 576) as f32).sin();
    let images = Array::new([8, 1, 24, 24], (0..8 * 576).map(value).collect()).unwrap();
    let mut model = convolutions();
    model.train(&images, TrainOptions::new().steps(2)).unwrap();
    assert!(model.to_toml().contains("[model.normalization]"), "{}", model.to_toml());
    let out = model.reconstruct(&images).unwrap();
    // Without the normalisation, values would be around 0.
    assert!(out.values().iter().all(|value| (200.0..400.0).contains(value)));
    let mut odd = images.clone();
    odd.values_mut()[600] = f32::NAN;
    assert_refused(convolutions().train(&odd, TrainOptions::new()), &["1: ", "NaN"]);
}

#[test]
fn settings_that_change_a_model_or_its_optimizer_are_refused() {
    let (mut model, dark) = (convolutions(), constant([8, 1, 24, 24], 0.0));
    for (key, value) in [("model.layers.filters.filters", "3"), ("optimizer.kind", "adagrad")] {
        let error = model.train(&dark, TrainOptions::new().set(key, value)).unwrap_err();
        assert_eq!(error.kind, csae::ErrorKind::Usage, "{error}");
    }
}

#[test]
fn the_example_denoise_image_denoises() {
    let folder = TempFolder::new("library-example-denoise");
    let [noisy, clean] = ["noisy.png", "clean.png"].map(|name| folder.path(name));
    gray(&noisy, 20, 18);
    denoise_image::denoise(&noisy, &clean).unwrap();
    assert_eq!(Image::open(&clean).unwrap().size(), Size::new(18, 20));
}

#[test]
fn the_example_train_on_arrays_learns() {
    let folder = TempFolder::new("library-example-train");
    let model = folder.path("model.safetensors");
    let report = train_on_arrays::train(DeviceChoice::Cpu, 60, &model).unwrap();
    assert!(report.psnr > 10.0 && report.active == 16.0, "{report:?}");
    assert_eq!(Model::builder().device("cpu").load(&model).unwrap().code_shape(), [128, 1, 1]);
}

#[test]
fn the_example_own_model_learns() {
    let (model, active) = own_model::train(DeviceChoice::Cpu).unwrap();
    assert_eq!((model.code_shape(), model.layers().len()), ([16, 9, 9], 3));
    assert!(active > 0.0 && active <= 96.0 / 1296.0, "{active}");
}

/// A documented item of the interface.
#[derive(Debug)]
struct Item {
    /// Where it stands: `model.rs: pub fn load(…`.
    place: String,
    /// The lines above it that begin with `///`.
    docs: String,
    /// Everything up to its body.
    head: String,
}

/// The documented items of a source: what is `pub`, and the variants of public enums.
fn items(file: &str, source: &str) -> Vec<Item> {
    let source = source.split("#[cfg(test)]").next().unwrap();
    let (mut found, mut docs, mut hidden, mut in_enum) = (Vec::new(), String::new(), false, false);
    let lines: Vec<&str> = source.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let text = line.trim();
        if let Some(doc) = text.strip_prefix("///") {
            docs.push_str(doc);
            docs.push('\n');
            continue;
        }
        if text.starts_with("#[") {
            hidden |= text == "#[doc(hidden)]";
            continue;
        }
        let variant = in_enum && line.starts_with("    ") && !text.is_empty() && text != "}";
        if (text.starts_with("pub ") || variant) && !text.starts_with("pub use") && !hidden {
            let rest = lines[number..].iter().take_while(|line| !line.trim().is_empty());
            let rest: String = rest.map(|line| format!("{} ", line.trim())).collect();
            let head = rest.split('{').next().unwrap().to_owned();
            found.push(Item { place: format!("{file}: {text}"), docs: docs.clone(), head });
        }
        in_enum |= text.starts_with("pub enum");
        in_enum &= *line != "}";
        if !text.is_empty() {
            (docs, hidden) = (String::new(), false);
        }
    }
    found
}

/// All documented items: those of `src/api`, of the error type, and `Size`.
fn interface() -> Vec<Item> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(root.join("api")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.push(root.join("error.rs"));
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        found.extend(items(&name, &text(&file)));
    }
    let shape = text(root.join("shape.rs"));
    let start = shape.find("/// Height and width of an image or a map").unwrap();
    let end = shape[start..].find("impl std::fmt::Display").unwrap();
    found.extend(items("shape.rs", &shape[start..start + end]));
    found
}

#[test]
fn the_interface_is_small_and_documented() {
    let items = interface();
    let names: Vec<&str> = items.iter().map(|item| item.place.as_str()).collect();
    assert!((60..=MOST_ITEMS).contains(&items.len()), "{}: {names:#?}", items.len());
    for item in &items {
        assert!(!item.docs.is_empty(), "{}", item.place);
        let fails = item.head.contains("fn ") && item.head.contains("-> Result<");
        assert_eq!(fails, item.docs.contains("# Errors"), "{}", item.place);
    }
}

/// The public modules are the guide and `internals`, which the documentation hides.
#[test]
fn only_the_interface_is_public() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = text(root.join("lib.rs"));
    let lines: Vec<&str> = lib.lines().collect();
    let public: Vec<[&str; 2]> = lines
        .windows(2)
        .filter(|pair| pair[1].starts_with("pub mod"))
        .map(|pair| [pair[0], pair[1]])
        .collect();
    assert_eq!(public, [["mod gpu;", "pub mod guide;"], ["#[doc(hidden)]", "pub mod internals {"]]);
}

/// What a user of the library alone would not want to compile is optional.
#[test]
fn the_library_alone_brings_no_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = text(root.join("Cargo.toml"));
    let table = csae::internals::spec::from_toml(&text).unwrap();
    let names = [
        "anyhow",
        "base64",
        "clap",
        "etcetera",
        "glob",
        "indicatif",
        "plotters",
        "roxmltree",
        "rustfft",
        "statrs",
    ];
    for name in names {
        assert_eq!(table["dependencies"][name]["optional"], true, "{name}");
    }
    for (system, name) in [("cfg(unix)", "signal-hook"), ("cfg(not(unix))", "ctrlc")] {
        let dependency = &table["target"][system]["dependencies"][name];
        assert_eq!(dependency["optional"], true, "{name}");
    }
    assert_eq!(table["features"]["default"], serde_json::json!(["cli", "hdf5"]));
}

/// The check above must be able to fail.
#[test]
fn an_item_without_its_errors_is_found() {
    let source = "\
/// Reads.
pub fn read(
    path: &str,
) -> Result<()> {
}

/// A kind.
pub enum Kind {
    /// One.
    One,
    Two(u8),
}

impl Kind {
    fn own() {}

    /// # Errors
    /// Yes.
    #[must_use]
    pub fn other() -> Result<Self> {
        Self(1)
    }

    #[doc(hidden)]
    pub fn hidden() {}
}
";
    let found = items("a.rs", source);
    let places: Vec<&str> = found.iter().map(|item| item.place.as_str()).collect();
    assert_eq!(
        places,
        [
            "a.rs: pub fn read(",
            "a.rs: pub enum Kind {",
            "a.rs: One,",
            "a.rs: Two(u8),",
            "a.rs: pub fn other() -> Result<Self> {"
        ]
    );
    assert!(found[0].head.contains("-> Result<") && !found[0].docs.contains("# Errors"));
    assert!(found[3].docs.is_empty() && found[4].docs.contains("# Errors"));
}
