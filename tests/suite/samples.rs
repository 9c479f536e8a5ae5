//! Samples that are not 8-bit pictures: 16 bits, floats, many channels and signals, from training
//! to evaluation.

use serde_json::Value;

use crate::support::arrays::npy;
use crate::support::files::config;
use crate::support::{Command, TempFolder, bytes, model_bytes};

/// A convolutional model of any size and number of channels with a linear output.
const MODEL: &str = "[model]\ncode = \"code\"\n\
    [[model.layers]]\nname = \"code\"\nop = \"conv2d\"\nfilters = 8\nkernel = 4\nstride = 4\n\
    activation = \"relu\"\n\
    [[model.layers]]\nname = \"out\"\nop = \"conv_transpose2d\"\nfilters = \"input\"\nkernel = 4\n\
    stride = 4\n[optimizer]\nkind = \"adam\"\nlr = 1e-2\n";

/// Smooth samples (N,C,H,W) in −1…1.
fn waves([n, c, h, w]: [usize; 4]) -> Vec<f32> {
    let value = |i: usize| {
        let (x, y) = (i % w, i / w % h);
        let (channel, sample) = (i / w / h % c, i / w / h / c);
        let phase = sample as f32 * 1.3 + channel as f32 * 0.7;
        (0.31 * x as f32 + phase).sin() * (0.23 * y as f32 - phase).cos()
    };
    (0..n * c * h * w).map(value).collect()
}

fn floats(shape: [usize; 4], values: impl Iterator<Item = f32>) -> Vec<u8> {
    let [n, c, h, w] = shape;
    let data: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    npy("<f4", &format!("{n}, {c}, {h}, {w}"), &data)
}

/// Trains the model for some steps on the CPU path.
fn train(folder: &TempFolder, data: &str, run: &str) -> Command {
    let config = folder.write("model.toml", MODEL);
    Command::train(data).option("--config", config).out(run).steps(400).batch(8).on_cpu().quiet()
}

fn number(report: &Value, name: &str) -> f64 {
    report[name].as_f64().unwrap_or_else(|| panic!("{name} of {report}"))
}

#[test]
fn fields_of_several_channels_and_units_are_normalised_and_measured_in_their_units() {
    let folder = TempFolder::new("samples-fields");
    let shape = [40, 2, 16, 16];
    // Two channels in units of their own: around 300 by 5, and around −1 by 0.001.
    let unit = |(i, v): (usize, f32)| {
        if i / 256 % 2 == 0 { 300.0 + 5.0 * v } else { -1.0 + 0.001 * v }
    };
    let values = waves(shape).into_iter().enumerate().map(unit);
    let data = folder.write("x.npy", floats(shape, values));
    let run = folder.path("run");
    train(&folder, &data, &run).succeed();
    let config = config(&run);
    assert!(
        config.contains("[model.normalization]") && config.contains("32-bit float"),
        "{config}"
    );
    let report = Command::eval(&run, &data).on_cpu().quiet().report();
    // `reconstruct` measures the same values.
    let lines = Command::reconstruct(&run, &data).out(folder.path("out")).on_cpu().quiet().json();
    let psnr = lines.iter().map(|line| number(line, "psnr")).sum::<f64>() / lines.len() as f64;
    assert!((psnr - number(&report, "psnr")).abs() < 0.05, "{psnr} {report}");
    // Without normalisation the second channel would have no weight.
    assert!(number(&report, "explained_variance") > 0.5, "{report}");
    // The values are around 300, so that errors are small beside them.
    let relative = number(&report, "relative_error");
    assert!(relative > 0.0 && relative < 0.02, "{report}");
    // A file of the same values in another type is the same data.
    let doubles: Vec<u8> = waves(shape)
        .into_iter()
        .enumerate()
        .flat_map(|(i, v)| f64::from(unit((i, v))).to_le_bytes())
        .collect();
    let doubles = folder.write("y.npy", npy("<f8", "40, 2, 16, 16", &doubles));
    assert_eq!(Command::eval(&run, &doubles).on_cpu().quiet().report(), report);
    // A file of this name beside samples can be their labels. This one cannot.
    let again = Command::eval(&run, &data).on_cpu();
    again.warns(&["y.npy is left out"]);
    assert_eq!(again.quiet().report(), report);
}

#[test]
fn samples_of_16_bits_keep_what_8_bits_lose() {
    let folder = TempFolder::new("samples-16");
    let shape = [40, 1, 16, 16];
    // A dim signal of 12 bits: 100 to 180.
    let value = |v: f32| (140.0 + 40.0 * v).round() as u16;
    let deep: Vec<u8> = waves(shape).into_iter().flat_map(|v| value(v).to_le_bytes()).collect();
    let crushed: Vec<u8> = waves(shape).into_iter().map(|v| (value(v) >> 4) as u8).collect();
    let deep = folder.write("deep.npy", npy("<u2", "40, 16, 16", &deep));
    let crushed = folder.write("crushed.npy", npy("|u1", "40, 16, 16", &crushed));
    let (a, b) = (folder.path("a"), folder.path("b"));
    train(&folder, &deep, &a).succeed();
    train(&folder, &crushed, &b).succeed();
    assert_ne!(model_bytes(&a), model_bytes(&b));
    assert!(config(&a).contains("16-bit"));
    let error = |run: &str, data: &str| {
        number(&Command::eval(run, data).on_cpu().quiet().report(), "explained_variance")
    };
    assert!(error(&a, &deep) > 0.5);
    // Samples of another type are evaluated, and this is said.
    Command::eval(&a, &crushed).on_cpu().warns(&["trained on 16-bit samples"]);
}

#[test]
fn streamed_arrays_give_the_same_model_as_arrays_in_memory() {
    let folder = TempFolder::new("samples-stream");
    let shape = [60, 3, 40, 40];
    let data = folder.write("x.npy", floats(shape, waves(shape).into_iter().map(|v| 1e3 * v)));
    let (resident, streamed) = (folder.path("resident"), folder.path("streamed"));
    let crops = |run: &str| train(&folder, &data, run).set("data.crop=16");
    crops(&resident).succeed();
    crops(&streamed).max_memory("4MiB").succeed();
    assert!(model_bytes(&resident) == model_bytes(&streamed));
}

#[test]
fn signals_are_trained_evaluated_inspected_and_searched_for_anomalies() {
    let folder = TempFolder::new("samples-signals");
    let shape = [64, 3, 1, 256];
    let data: Vec<u8> = waves(shape).into_iter().flat_map(|v| (4.0 * v).to_le_bytes()).collect();
    let data = folder.write("x.npy", npy("<f4", "64, 3, 256", &data));
    let run = folder.path("run");
    let command = Command::new("train")
        .arg(&data)
        .flags("--preset signals --steps 200 --layout NCL --device cpu -q")
        .set("train.batch=8")
        .set("model.layers.unrolled.filters=16");
    command.out(&run).succeed();
    let report = Command::eval(&run, &data).on_cpu().quiet().report();
    assert!(number(&report, "explained_variance") > 0.2, "{report}");
    Command::inspect(&run).option("--data", &data).on_cpu().quiet().succeed();
    let features = folder.path("features.npy");
    let command = Command::new("features").arg(&run).arg(&data).out(&features).on_cpu().quiet();
    command.succeed();
    assert!(bytes(&features).len() > 64 * 4);
    // The default preset is for images.
    Command::new("train")
        .arg(&data)
        .flags("--layout NCL --device cpu -q")
        .out(folder.path("default"))
        .fails(2, &["the data are signals", "--preset signals"]);
    // Without --layout the shape is ambiguous, unless the model's channels decide.
    Command::new("train")
        .arg(&data)
        .out(folder.path("none"))
        .on_cpu()
        .fails(2, &["64x3x256", "NCL (64 signals of length 256, 3 channels)", "--layout"]);
}

/// Commands that read images of 8 bits refuse a model of normalised samples: its values would be
/// wrong without a sign of it.
#[test]
fn models_of_normalised_samples_are_refused_where_only_images_are_read() {
    let folder = TempFolder::new("samples-plain");
    let shape = [8, 1, 16, 16];
    let data = folder.write("x.npy", floats(shape, waves(shape).into_iter().map(|v| 9.0 * v)));
    let run = folder.path("run");
    train(&folder, &data, &run).succeed();
    for command in ["segment train", "detect train"] {
        let command = Command::new(command).args([&run, &data]).out(folder.path("out")).on_cpu();
        command.fails(2, &["normalised 32-bit float samples", "data.normalize"]);
    }
    let command = Command::new("generate").arg(&run).out(folder.path("out")).on_cpu();
    command.fails(2, &["normalised 32-bit float samples"]);
}

#[test]
fn values_that_are_not_finite_name_the_sample() {
    let folder = TempFolder::new("samples-nan");
    let shape = [4, 1, 16, 16];
    let values = waves(shape).into_iter().enumerate();
    let values = values.map(|(i, v)| if i == 2 * 256 + 5 * 16 + 3 { f32::NAN } else { v });
    let data = folder.write("x.npy", floats(shape, values));
    train(&folder, &data, &folder.path("run"))
        .fails(2, &["2: the value at row 5, column 3, channel 0 is NaN"]);
}

#[test]
fn a_constant_channel_becomes_zero_and_is_named() {
    let folder = TempFolder::new("samples-constant");
    let shape = [16, 2, 16, 16];
    let values = waves(shape).into_iter().enumerate();
    let values = values.map(|(i, v)| if i / 256 % 2 == 1 { 7.0 } else { 9.0 * v });
    let data = folder.write("x.npy", floats(shape, values));
    let config = folder.write("model.toml", MODEL);
    let command = Command::train(&data).option("--config", config).steps(2).on_cpu();
    command.out(folder.path("run")).warns(&["channel 1 is constant and becomes 0"]);
}

#[test]
fn floats_of_16_bits_in_memory_train_almost_the_same_model() {
    let folder = TempFolder::new("samples-f16");
    let shape = [60, 3, 16, 16];
    let data = folder.write("x.npy", floats(shape, waves(shape).into_iter().map(|v| 1e5 + v)));
    let variance = |storage: &str| {
        let run = folder.path(storage);
        train(&folder, &data, &run).set(format!("data.storage={storage}")).succeed();
        number(&Command::eval(&run, &data).on_cpu().quiet().report(), "explained_variance")
    };
    let (whole, half) = (variance("same"), variance("f16"));
    // 100,000 ± 1 has no digits left in 16 bits. The values are stored after normalisation.
    assert!(half > 0.5 && (whole - half).abs() < 0.02, "{whole} {half}");
    assert_ne!(model_bytes(&folder.path("same")), model_bytes(&folder.path("f16")));
    let large = train(&folder, &data, &folder.path("large"));
    let large = large.set("data.storage=f16").set("data.normalize=none");
    large.fails(2, &["after normalisation", "65504", "data.storage"]);
    let bytes = folder.write("u2.npy", npy("<u2", "2, 16, 16", &[7; 1024]));
    let integers = train(&folder, &bytes, &folder.path("integers")).set("data.storage=f16");
    integers.fails(2, &["data.storage", "16-bit samples"]);
}
