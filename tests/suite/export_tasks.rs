//! Exported restorers, classifiers, segmenters and detectors: onnxruntime computes what the program
//! does.

use std::path::Path;

use csae::internals::annotations::boxes::Bounds;
use csae::internals::device::Device;
use csae::internals::export::onnx::{self as export, Options, Part, Sigma};
use csae::internals::infer::conditions::Condition;
use csae::internals::infer::restore::Restorer;
use csae::internals::model::{self, CorruptionSpec, Decoder, Graph, LoadedModel, Purpose, Task};
use csae::internals::raster::corrupt::Mask;
use csae::internals::raster::fill::fill;
use csae::internals::raster::resample::imresize;
use csae::internals::rng::Stream;
use csae::internals::shape::{Dims, Size, to_nchw, to_nhwc};
use csae::internals::spec::preset_text;
use csae::internals::tasks::detect::Detector;
use csae::internals::tasks::segment::Segmenter;
use serde_json::{Value, json};

use crate::support::TempFolder;
use crate::support::models::digits;
use crate::support::onnx::{self, BATCH, Case};
use crate::support::random_models::{features, images, parse, shape, write_model};

#[test]
fn parameters_of_half_precision_halve_the_file() {
    let Some(python) = onnx::python() else { return };
    let folder = TempFolder::new("export-half");
    // A trained model with parameters of 32 bits; those of bundled models have 16.
    let digits = model::load(Path::new(digits())).unwrap();
    let dims = digits.graph.nodes[0].dims;
    let x = images(dims, BATCH);
    let (out, want) = features(&digits, "code", &x, dims);
    let want = onnx::write(&folder, "y.npy", &[BATCH, out.c], &want);
    let x = onnx::write(&folder, "x.npy", &shape(BATCH, dims), &x);
    let [full, half] = [false, true].map(|half| {
        let part = Part::Layer("code".to_owned());
        export::export(&digits, &Options { part, half, ..Options::default() }).unwrap().bytes
    });
    assert!(2 * half.len() < full.len() + 20_000, "{} {}", half.len(), full.len());
    let file = folder.write("half.onnx", &half);
    let case = Case::new("half", &file, &[("input", json!(x))], &want);
    let error = onnx::error(&onnx::answers(&python, &[case])[0]);
    // The parameters are rounded, and the operators compute with 32 bits.
    assert!(error > onnx::LIMIT && error < 2e-3, "{error}");
}

/// An odd size, for models of images of any size.
const ODD: Size = Size::new(33, 47);

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
        let (mut pixels, condition) = (to_nhwc(one, dims), conditions(i));
        if let Some(mask) = &condition.mask {
            fill(&mut pixels, dims.c, mask);
        }
        let y = restorer.restore_pixels(&mut device, dims, &condition, &pixels).unwrap();
        to_nchw(&y, dims)
    });
    each.collect()
}

#[test]
fn restorers_restore_as_the_program() {
    let Some(python) = onnx::python() else { return };
    let folder = TempFolder::new("export-restorers");
    let inner = TempFolder::new("export-inpaint");
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
    // The bundled model has thresholds below 0. There a layer jumps at 0, where rounding decides.
    let mut spec = parse(preset_text("inpaint").unwrap());
    spec.undoes = CorruptionSpec::for_task(Task::Inpaint);
    let inpaint = write_model(&inner, "random-inpaint", &spec, Dims::new(1, 32, 32));
    let mut stream = Stream::new(5, "mask");
    let missing: Vec<u8> =
        (0..BATCH * dims.area()).map(|_| u8::from(stream.uniform() < 0.3)).collect();
    let want = restored(&inpaint, &x, dims, |i| {
        let missing = missing[i * dims.area()..][..dims.area()].to_vec();
        Condition::missing(Mask { size: dims.size(), missing })
    });
    let missing: Vec<f32> = missing.iter().map(|one| f32::from(*one)).collect();
    let mask = onnx::write(&folder, "mask.npy", &own, &missing);
    // Missing pixels can hold any values.
    let damaged: Vec<f32> =
        x.iter().zip(&missing).map(|(x, gap)| if *gap > 0.0 { f32::NAN } else { *x }).collect();
    let damaged = onnx::write(&folder, "damaged.npy", &own, &damaged);
    let inputs = [("input", json!(damaged)), ("mask", json!(mask))];
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
    for (case, answer) in cases.iter().zip(onnx::assert_equal(&python, &cases)) {
        let scale = match case.name.as_str() {
            "upscale-2" => 2.0,
            "upscale-3" => 3.0,
            _ => 1.0,
        };
        assert_eq!(answer["scale"], scale, "{}", case.name);
    }
}

/// Colour images for models of gray ones.
#[test]
fn restorers_of_gray_images_restore_colour_images_as_the_program() {
    let Some(python) = onnx::python() else { return };
    let folder = TempFolder::new("export-rgb");
    let inner = TempFolder::new("export-rgb-models");
    let (dims, scale) = (Dims::of(ODD, 3), 2);
    let mut x = images(dims, BATCH);
    // The second image is gray: its noise is the same in all channels.
    let (first, others) = x[dims.len()..2 * dims.len()].split_at_mut(dims.area());
    others.chunks_mut(dims.area()).for_each(|channel| channel.copy_from_slice(first));
    let given = ("input", json!(onnx::write(&folder, "x.npy", &shape(BATCH, dims), &x)));
    let mut stream = Stream::new(5, "mask");
    let missing: Vec<u8> =
        (0..BATCH * dims.area()).map(|_| u8::from(stream.uniform() < 0.3)).collect();
    let values: Vec<f32> = missing.iter().map(|one| f32::from(*one)).collect();
    let one = Dims { c: 1, ..dims };
    let mask = ("mask", json!(onnx::write(&folder, "mask.npy", &shape(BATCH, one), &values)));
    let sigmas = [25.0, 3.0, 1.0, 50.0, 2.0, 10.0, 0.0];
    let sigma = ("sigma", json!(sigmas));
    let error = ("rounding_error", json!(sigmas));
    let mut cases = Vec::new();
    for (task, more) in [
        ("denoise", Some(sigma)),
        ("inpaint", Some(mask)),
        ("upscale", None),
        ("dejpeg", Some(error)),
    ] {
        // The bundled models have thresholds below 0. There a layer jumps at 0, where rounding
        // decides.
        let mut spec = parse(preset_text(task).unwrap());
        spec.undoes = CorruptionSpec::for_task(task.parse().unwrap());
        let loaded = write_model(&inner, &format!("random-{task}"), &spec, Dims::new(1, 32, 32));
        let is_upscale = task == "upscale";
        let options =
            Options { rgb: true, scale: is_upscale.then_some(scale), ..Options::default() };
        let file = export::export(&loaded, &options).unwrap();
        let onnx = folder.write(&format!("{task}.onnx"), &file.bytes);
        let mut device = Device::cpu();
        let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer).unwrap();
        let restorer = Restorer::new(&loaded.graph, &store).unwrap();
        let (mut want, mut out) = (Vec::new(), dims);
        for (i, one) in x.chunks(dims.len()).enumerate() {
            let mut pixels = to_nhwc(one, dims);
            let condition = match task {
                "denoise" => Condition::noise(sigmas[i]),
                "inpaint" => {
                    let missing = missing[i * dims.area()..][..dims.area()].to_vec();
                    let mask = Mask { size: dims.size(), missing };
                    fill(&mut pixels, dims.c, &mask);
                    Condition::missing(mask)
                }
                "dejpeg" => Condition::compressed(sigmas[i] / 255.0),
                _ => Condition::enlarged(scale),
            };
            if is_upscale {
                let (large, size) = imresize(&pixels, dims, scale as f64).unwrap();
                (pixels, out) = (large, Dims::of(size, 3));
            }
            let y = restorer.restore_pixels(&mut device, out, &condition, &pixels).unwrap();
            want.extend(to_nchw(&y, out));
        }
        let want = onnx::write(&folder, &format!("{task}.npy"), &shape(BATCH, out), &want);
        let inputs: Vec<_> = std::iter::once(given.clone()).chain(more).collect();
        cases.push(Case::new(task, &onnx, &inputs, &want));
    }
    let answers = onnx::assert_equal(&python, &cases);
    let scales: Vec<&Value> = answers.iter().map(|answer| &answer["scale"]).collect();
    assert_eq!(scales, [1.0, 1.0, 2.0, 1.0]);
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
    assert_eq!(file.outputs, [["probabilities", "batch_size x 3"]]);
    let (_, logits) = features(&classifier, "head", &x, dims);
    add("classifier", &file, (&own, &x), (&[BATCH, 3], &softmax(&logits, 3)));

    for (name, how) in [("deconv", Decoder::Deconv), ("unpool", Decoder::Unpool)] {
        let spec = model::decoder(
            &encoder,
            &graph,
            (how, 1, 3),
            model::Context { code: &[2], maps: &[2] },
            classes.clone(),
        )
        .unwrap();
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
    let spec = model::decoder(&encoder, &graph, heads, model::Context::default(), classes.clone())
        .unwrap();
    let detector = write_model(&folder, "detector", &spec, dims);
    let file = export::export(&detector, &Options::default()).unwrap();
    assert_eq!((file.task, file.outputs[0][0].as_str()), ("detect", "grid"));
    let (out, y) = features(&detector, "head", &x, dims);
    add("detector", &file, (&own, &x), (&shape(BATCH, out), &y));

    // The command takes bytes.
    let (score, side) = (0.1, dims.size());
    let pictures: Vec<Vec<u8>> = x
        .chunks(dims.len())
        .map(|one| to_nhwc(one, dims).iter().map(|value| (255.0 * value) as u8).collect())
        .collect();
    let mut device = Device::cpu();
    let store = detector.place(&mut device, &detector.graph, Purpose::Infer).unwrap();
    let given: Vec<(&[u8], Dims)> = pictures.iter().map(|one| (&one[..], dims)).collect();
    let mut program = Detector::new(&detector.graph, &store).unwrap();
    let mut rows = Vec::new();
    for (image, mut found) in
        program.find(&mut device, &given, score).unwrap().into_iter().enumerate()
    {
        // The file sorts the detections of an image by class, and then by score.
        found.sort_by_key(|one| one.class);
        for one in found {
            let Bounds { left, top, right, bottom } = one.bounds;
            let values = [image as f64, one.class as f64, one.score, left, top, right, bottom];
            rows.extend(values.map(|value| value as f32));
        }
    }
    let count = rows.len() / 7;
    assert!(count > 2 * BATCH && side.h == side.w, "{count} detections");
    let x: Vec<f32> = pictures
        .iter()
        .flat_map(|one| to_nchw(one, dims))
        .map(|byte| f32::from(byte) / 255.0)
        .collect();
    let options = Options { score: Some(score), ..Options::default() };
    let file = export::export(&detector, &options).unwrap();
    add("boxes", &file, (&own, &x), (&[count, 7], &rows));
    onnx::assert_equal(&python, &cases);
}
