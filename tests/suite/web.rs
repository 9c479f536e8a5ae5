//! `csae export --web`: pages compute in a browser what the program computes, are small, and refuse
//! what they cannot show.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use csae::internals::device::Device;
use csae::internals::infer::batches::Inference;
use csae::internals::infer::conditions::Condition;
use csae::internals::infer::restore::Restorer;
use csae::internals::model::{
    self, CorruptionSpec, Decoder, Graph, LoadedModel, ModelSpec, Purpose, Task,
};
use csae::internals::raster::corrupt::Mask;
use csae::internals::raster::fill::fill;
use csae::internals::raster::jpeg;
use csae::internals::raster::resample::imresize;
use csae::internals::rng::Stream;
use csae::internals::shape::{Dims, Size, to_nhwc};
use csae::internals::spec::preset_text;
use csae::internals::tasks::segment::Segmenter;
use image::codecs::jpeg::JpegEncoder;
use serde_json::{Value, json};

use crate::support::chromium::Browser;
use crate::support::models::digits;
use crate::support::random_models::{images, parse, write_model};
use crate::support::web::{self, Case, LIMIT};
use crate::support::{Command, TempFolder, skip, text};

/// Two tiles of 128 pixels, and not a multiple of a stride.
const LARGE: Size = Size::new(128, 137);
/// A page that has shown its example.
const READY: &str = "document.querySelector('.time')?.textContent.includes('ms')";

/// One image in the order of memory.
fn image(dims: Dims) -> Vec<f32> {
    to_nhwc(&images(dims, 1), dims)
}

/// What the program restores.
fn restored(loaded: &LoadedModel, pixels: &[f32], dims: Dims, condition: &Condition) -> Vec<f32> {
    let mut device = Device::cpu();
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer).unwrap();
    let restorer = Restorer::new(&loaded.graph, &store).unwrap();
    restorer.restore_pixels(&mut device, dims, condition, pixels).unwrap()
}

/// What the program computes for an image of the size of a model.
fn computed(loaded: &LoadedModel, pixels: &[f32]) -> Vec<f32> {
    let mut device = Device::cpu();
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer).unwrap();
    Inference::new(&loaded.graph, &store).run_output(&mut device, pixels, &[]).unwrap()
}

/// A restorer without thresholds below 0: there a layer jumps at 0, where rounding decides. Bundled
/// models have some.
fn restorer(folder: &TempFolder, task: Task) -> LoadedModel {
    let mut spec = parse(preset_text(task.name()).unwrap());
    spec.undoes = CorruptionSpec::for_task(task);
    write_model(folder, &format!("random-{task}"), &spec, Dims::new(1, 32, 32))
}

fn denoise_cases(loaded: &LoadedModel) -> Vec<Case> {
    let case = |dims: Dims, sigma: f64| {
        let pixels = image(dims);
        let want = restored(loaded, &pixels, dims, &Condition::noise(sigma));
        Case { pixels, dims, options: json!({ "sigma": sigma }), want }
    };
    // Below 4 a part of the noise stays.
    let mut cases = vec![case(Dims::of(LARGE, 1), 25.0), case(Dims::new(1, 128, 128), 3.0)];
    // A colour image, and a gray one with three channels.
    cases.push(case(Dims::new(3, 128, 128), 25.0));
    let dims = Dims::new(3, 128, 128);
    let pixels: Vec<f32> = image(dims).chunks(3).flat_map(|pixel| [pixel[0]; 3]).collect();
    let want = restored(loaded, &pixels, dims, &Condition::noise(10.0));
    cases.push(Case { pixels, dims, options: json!({ "sigma": 10.0 }), want });
    cases
}

fn upscale_cases(loaded: &LoadedModel) -> Vec<Case> {
    let (dims, scale) = (Dims::new(3, 64, 64), 2);
    let pixels = image(dims);
    let (large, size) = imresize(&pixels, dims, scale as f64).unwrap();
    let condition = Condition::enlarged(scale);
    let want = restored(loaded, &large, Dims::of(size, dims.c), &condition);
    vec![Case { pixels, dims, options: json!({ "scale": scale }), want }]
}

fn inpaint_cases(loaded: &LoadedModel) -> Vec<Case> {
    let dims = Dims::new(1, 128, 128);
    let mut stream = Stream::new(5, "mask");
    let missing: Vec<u8> = (0..dims.area()).map(|_| u8::from(stream.uniform() < 0.3)).collect();
    let mask = Mask { size: dims.size(), missing: missing.clone() };
    let pixels = image(dims);
    let mut filled = pixels.clone();
    fill(&mut filled, 1, &mask);
    let want = restored(loaded, &filled, dims, &Condition::missing(mask));
    vec![Case { pixels, dims, options: json!({ "missing": missing }), want }]
}

fn dejpeg_cases(loaded: &LoadedModel) -> Vec<Case> {
    let case = |dims: Dims, quality: u8| {
        let pixels = image(dims);
        let condition = Condition::compressed(jpeg::level_of_quality(quality));
        let want = restored(loaded, &pixels, dims, &condition);
        Case { pixels, dims, options: json!({ "quality": quality }), want }
    };
    // Of a colour image only the luma is restored.
    vec![case(Dims::of(LARGE, 1), 10), case(Dims::new(3, 128, 128), 63)]
}

/// Models with a head, and what they compute.
fn heads(folder: &TempFolder) -> Vec<(&'static str, LoadedModel, Vec<Case>)> {
    let classes: Vec<String> = ["round", "square", "other"].map(str::to_owned).into();
    let dims = Dims::new(3, 32, 32);
    let whole = Graph::new(&parse(preset_text("pyramid").unwrap()), dims).unwrap();
    let encoder = model::encoder(&whole, None, None).unwrap();
    let graph = Graph::new(&encoder, dims).unwrap();

    let spec = model::classifier(&encoder, classes.clone(), 0.5).unwrap();
    let classifier = write_model(folder, "random-classifier", &spec, dims);
    let pixels = image(dims);
    let logits = computed(&classifier, &pixels);
    let powers: Vec<f64> = logits.iter().map(|logit| f64::from(*logit).exp()).collect();
    let sum: f64 = powers.iter().sum();
    let want = powers.into_iter().map(|power| (power / sum) as f32).collect();
    let classified = vec![Case { pixels, dims, options: json!({}), want }];

    let heads = (Decoder::Deconv, 1, 3);
    let spec =
        model::decoder(&encoder, &graph, heads, model::Context { code: &[2], maps: &[2] }, classes)
            .unwrap();
    let segmenter = write_model(folder, "random-segmenter", &spec, dims);
    let mut device = Device::cpu();
    let store = segmenter.place(&mut device, &segmenter.graph, Purpose::Infer).unwrap();
    let program = Segmenter::new(&segmenter.graph, &store).unwrap();
    let dims = Dims::of(LARGE, 3);
    let pixels = image(dims);
    let plan = program.plan(&device, LARGE).unwrap();
    let want = plan.pass().probabilities(&mut device, &pixels).unwrap();
    let segmented = vec![Case { pixels, dims, options: json!({}), want }];
    vec![("classify", classifier, classified), ("segment", segmenter, segmented)]
}

/// An autoencoder of images of one size, and what it reconstructs.
fn autoencoder() -> (LoadedModel, Vec<Case>) {
    let loaded = model::load(format!("{}/model.safetensors", digits()).as_ref()).unwrap();
    let dims = loaded.graph.nodes[0].dims;
    let pixels = image(dims);
    let want = computed(&loaded, &pixels);
    (loaded, vec![Case { pixels, dims, options: json!({}), want }])
}

/// Every kind of page, with what it must compute.
fn pages(folder: &TempFolder) -> Vec<(&'static str, LoadedModel, Vec<Case>)> {
    let [denoise, upscale, inpaint, dejpeg] =
        [Task::Denoise, Task::Upscale, Task::Inpaint, Task::Dejpeg]
            .map(|task| restorer(folder, task));
    let (denoised, enlarged) = (denoise_cases(&denoise), upscale_cases(&upscale));
    let (filled, deblocked) = (inpaint_cases(&inpaint), dejpeg_cases(&dejpeg));
    let (digits, reconstructed) = autoencoder();
    let mut all = vec![
        ("denoise", denoise, denoised),
        ("upscale", upscale, enlarged),
        ("inpaint", inpaint, filled),
        ("dejpeg", dejpeg, deblocked),
        ("reconstruct", digits, reconstructed),
    ];
    all.extend(heads(folder));
    all
}

#[track_caller]
fn assert_equal(name: &str, where_: &str, cases: &[Case], results: &[Value]) {
    assert_eq!(results.len(), cases.len());
    for (i, (case, got)) in cases.iter().zip(results).enumerate() {
        let error = case.error(got);
        assert!(error <= LIMIT, "{name} {i} in {where_}: relative error {error:.1e}");
        eprintln!("{name} {i} in {where_}: relative error {error:.1e}");
    }
    // Control: a result that is wrong in one value by more than the limit is found.
    let mut wrong = results[0].clone();
    let last = wrong.as_array_mut().unwrap().last_mut().unwrap();
    *last = json!(last.as_f64().unwrap() + 1e-3);
    assert!(cases[0].error(&wrong) > LIMIT);
}

#[test]
fn pages_compute_in_a_browser_what_the_program_computes() {
    let Some(mut browser) = Browser::open() else { return };
    let folder = TempFolder::new("web-browser");
    for (name, loaded, cases) in pages(&folder) {
        let (file, path) = web::page(&folder, name, &loaded);
        assert_eq!(file.task.name(), name);
        let more = file.html.len() - file.values;
        assert!(more <= 300_000, "{name}: {more} bytes besides the values");
        let results = web::in_browser(&mut browser, &path, &cases);
        assert_equal(name, "Chromium", &cases, &results);
        assert!(browser.is_complete(READY), "{name}: the example is not shown");
        if name == "dejpeg" {
            assert_levels_are_read(&mut browser);
        }
        let found = browser.faults_of_open_page(&format!("web-{name}"));
        assert!(found.is_empty(), "{name}: {found:#?}");
    }
    // A browser without WebGPU shows a message.
    browser.remove_webgpu();
    browser.open_page(&web::address(&folder.path("denoise.html")));
    assert!(browser.is_complete("document.querySelector('[role=alert]') !== null"));
    let message = browser.value("document.querySelector('[role=alert]').textContent");
    let message = message.as_str().unwrap();
    assert!(message.contains("no WebGPU") && message.contains("Chrome and Edge"), "{message}");
    let found = browser.faults_of_open_page("web-none");
    assert!(found.is_empty(), "{found:#?}");
}

/// The open page reads from JPEG files how strongly they are compressed, as the program does.
fn assert_levels_are_read(browser: &mut Browser) {
    let colour = ::image::RgbImage::from_fn(40, 30, |x, y| ::image::Rgb([x as u8, y as u8, 7]));
    let gray = ::image::DynamicImage::from(colour.clone()).into_luma8();
    let mut level = |bytes: &[u8]| {
        let text = STANDARD.encode(bytes);
        let bytes = format!("Uint8Array.from(atob('{text}'), (c) => c.charCodeAt(0))");
        browser.value(&format!("levelOfFile({bytes})"))
    };
    for quality in [7, 49, 50, 88] {
        let want = jpeg::level_of_quality(quality);
        let mut files = [Vec::new(), Vec::new()];
        let [first, second] = &mut files;
        colour.write_with_encoder(JpegEncoder::new_with_quality(first, quality)).unwrap();
        gray.write_with_encoder(JpegEncoder::new_with_quality(second, quality)).unwrap();
        for file in &files {
            let got = level(file).as_f64().unwrap();
            assert!((got / want - 1.0).abs() < 1e-9, "{quality}: {got} {want}");
        }
        for end in [0, 1, 2, 5, 20, 100] {
            assert_eq!(level(&files[0][..end]), Value::Null, "{end}");
        }
    }
    assert_eq!(level(b"not a JPEG file"), Value::Null);
}

#[test]
fn browsers_compute_pages_in_node_too() {
    let Some(driver) = web::driver() else {
        return skip("there is no Dawn or no SwiftShader: use tests/browser");
    };
    let folder = TempFolder::new("web-dawn");
    for (name, loaded, cases) in pages(&folder) {
        let (_, path) = web::page(&folder, name, &loaded);
        assert_equal(name, "Dawn", &cases, &web::in_dawn(driver, &path, &cases));
    }
}

#[test]
fn a_page_is_written_and_reported() {
    let folder = TempFolder::new("web-report");
    let (page, onnx) = (folder.path("denoise.html"), folder.path("denoise.onnx"));
    let export = || Command::new("export denoise").option("--web", &page);
    let report = export().report();
    assert_eq!((&report["kind"], &report["task"]), (&json!("export_page"), &json!("denoise")));
    assert_eq!(report["bytes"], text(&page).len());
    export().fails(2, &["denoise.html", "already exists", "--force"]);
    let both = export().force().out(&onnx).succeed();
    assert!(both.contains("denoise.onnx") && both.contains("denoise.html"), "{both}");
    // The page loads nothing, and has no path of this machine.
    let html = text(&page);
    for word in
        ["http://", "https://", "<link", "src=\"/", "import ", folder.root().to_str().unwrap()]
    {
        assert!(!html.contains(word), "{word}");
    }
    assert!(html.contains("default-src 'none'") && html.contains("MIT OR Apache-2.0"));
}

#[test]
fn models_that_a_page_cannot_show_are_refused_with_advice() {
    let folder = TempFolder::new("web-refused");
    let page = folder.path("page.html");
    let export = |model: &str, flags: &str| {
        Command::new("export").arg(model).option("--web", &page).flags(flags)
    };
    Command::new("export").arg(digits()).fails(2, &["--out"]);
    let named = Command::new("export denoise").option("--web", folder.path("page.htm"));
    named.fails(2, &["page.htm", ".html"]);
    export("denoise", "--sigma 25").fails(2, &["--out"]);
    export("no-such-model", "").fails(2, &["no-such-model"]);
    let refused = |name: &str, spec: &ModelSpec, dims: Dims, words: &[&str]| {
        write_model(&folder, name, spec, dims);
        export(&folder.path(&format!("{name}.safetensors")), "").fails(2, words);
    };
    let signals = parse(preset_text("signals").unwrap());
    refused("signals", &signals, Dims::new(2, 1, 64), &["2x1x64", "ONNX"]);
    let plain = parse(preset_text("plain").unwrap());
    refused("channels", &plain, Dims::new(2, 16, 16), &["2x16x16", "gray and colour", "ONNX"]);
    let dims = Dims::new(3, 32, 32);
    let whole = Graph::new(&parse(preset_text("pyramid").unwrap()), dims).unwrap();
    let encoder = model::encoder(&whole, None, None).unwrap();
    let graph = Graph::new(&encoder, dims).unwrap();
    let channels = csae::internals::ops::CELL + 1;
    let heads = (Decoder::Deconv, 4, channels);
    let detector =
        model::decoder(&encoder, &graph, heads, model::Context::default(), vec!["one".to_owned()])
            .unwrap();
    refused("detector", &detector, dims, &["detector", "ONNX"]);
    assert!(!std::path::Path::new(&page).exists());
}
