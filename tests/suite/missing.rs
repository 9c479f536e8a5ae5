//! Data with missing values (`--nan mask`).

use serde_json::Value;
use tiff::encoder::TiffEncoder;
use tiff::encoder::colortype::Gray32Float;

use crate::support::arrays::npy;
use crate::support::files::{config, model_bytes};
use crate::support::json::number;
use crate::support::{Command, TempFolder, gpu};

const SHAPE: [usize; 4] = [48, 2, 16, 16];

/// Smooth fields in 0…1: a wave per channel, with another phase in each sample.
fn fields() -> Vec<f32> {
    let [n, c, h, w] = SHAPE;
    (0..n * c * h * w)
        .map(|at| {
            let (x, y) = ((at % w) as f32, (at / w % h) as f32);
            let (channel, sample) = ((at / w / h % c) as f32, (at / w / h / c) as f32);
            let phase = 0.7 * sample + 1.3 * channel;
            0.5 + 0.3 * (x / 2.5 + phase).sin() * (y / 3.5 + 0.4 * phase).cos()
        })
        .collect()
}

/// Whether a value is missing: blocks of 4×4 in the first channel, a quarter of them, and whole
/// rows in the second.
fn is_gap(at: usize) -> bool {
    let [_, c, h, w] = SHAPE;
    let (x, y, channel, sample) = (at % w, at / w % h, at / w / h % c, at / w / h / c);
    if channel == 0 { (x / 4 + y / 4 + sample) % 4 == 0 } else { (y + sample) % 5 == 0 }
}

fn write(folder: &TempFolder, name: &str, gap: Option<f32>) -> String {
    let values = fields().into_iter().enumerate().flat_map(|(at, value)| {
        let value = gap.filter(|_| is_gap(at)).unwrap_or(value);
        value.to_le_bytes()
    });
    folder.write(name, npy("<f4", "48, 2, 16, 16", &values.collect::<Vec<u8>>()))
}

const MODEL: &str = r#"
[model]
code = "code"

[[model.layers]]
name = "code"
op = "conv2d"
filters = 16
kernel = 5
stride = 2
padding = 2
activation = "tanh"

[[model.layers]]
name = "image"
op = "conv_transpose2d"
filters = "input"
kernel = 6
stride = 2
padding = 2

[optimizer]
kind = "adam"
lr = 3e-3
"#;

fn train(folder: &TempFolder, data: &str, run: &str) -> Command {
    let config = folder.write("model.toml", MODEL);
    Command::train(data).option("--config", config).out(run).batch(8).quiet()
}

fn train_on_cpu(folder: &TempFolder, data: &str, run: &str) -> Command {
    train(folder, data, run).steps(300).on_cpu()
}

/// Mean squared errors of reconstructions at the known values and in the gaps.
fn errors(folder: &TempFolder, run: &str, data: &str, nan: &str) -> [f64; 2] {
    let out = folder.path("out.npy");
    let reconstruct = Command::reconstruct(run, data).out(&out).option("--nan", nan).force();
    reconstruct.on_cpu().quiet().succeed();
    let bytes = std::fs::read(&out).unwrap();
    let result = bytes[bytes.len() - 4 * fields().len()..]
        .chunks_exact(4)
        .map(|value| f32::from_le_bytes(value.try_into().unwrap()));
    let (mut sums, mut counts) = ([0.0; 2], [0.0; 2]);
    for (at, (value, truth)) in result.zip(fields()).enumerate() {
        let kind = usize::from(is_gap(at));
        sums[kind] += f64::from(value - truth).powi(2);
        counts[kind] += 1.0;
    }
    [0, 1].map(|kind| sums[kind] / counts[kind])
}

fn eval(run: &str, data: &str) -> Value {
    Command::eval(run, data).flags("--nan mask").on_cpu().quiet().report()
}

/// Images of the first channel as 32-bit float TIFF files.
fn write_tiff_files(folder: &TempFolder, gap: f32) -> String {
    let [n, c, h, w] = SHAPE;
    let fields = fields();
    for i in 0..n {
        let first = i * c * h * w;
        let image: Vec<f32> =
            (first..first + h * w).map(|at| if is_gap(at) { gap } else { fields[at] }).collect();
        let mut file = std::io::Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut file).unwrap();
        encoder.write_image::<Gray32Float>(w as u32, h as u32, &image).unwrap();
        folder.write(&format!("images/{i:02}.tif"), file.into_inner());
    }
    folder.path("images")
}

/// The first channel as an array.
fn write_first_channel(folder: &TempFolder, gap: f32) -> String {
    let [_, c, h, w] = SHAPE;
    let values = fields().into_iter().enumerate();
    let first = values.filter(|(at, _)| at / (h * w) % c == 0);
    let bytes = first.flat_map(|(at, value)| if is_gap(at) { gap } else { value }.to_le_bytes());
    folder.write("first.npy", npy("<f4", "48, 1, 16, 16", &bytes.collect::<Vec<u8>>()))
}

#[test]
fn gaps_in_tiff_images_are_those_of_arrays() {
    let folder = TempFolder::new("missing-tiff");
    let images = write_tiff_files(&folder, f32::NAN);
    let run = |data: &str, name: &str, nan: &str| {
        let run = folder.path(name);
        train(&folder, data, &run).steps(20).on_cpu().option("--nan", nan).succeed();
        model_bytes(&run)
    };
    let refused = train(&folder, &images, &folder.path("no")).steps(20).on_cpu();
    refused.fails(2, &["no image can be used", "is NaN", "--nan mask"]);
    let array = write_first_channel(&folder, f32::NAN);
    let masked = run(&images, "tiff", "mask");
    assert!(masked == run(&array, "array", "mask"));
    // A negative control: zeros are other data.
    assert!(masked != run(&images, "zero", "zero"));
}

#[test]
fn a_model_of_fields_with_gaps_knows_the_whole_fields() {
    let folder = TempFolder::new("missing-train");
    let (whole, gaps) =
        (write(&folder, "whole.npy", None), write(&folder, "x.npy", Some(f32::NAN)));
    train_on_cpu(&folder, &gaps, &folder.path("no")).fails(2, &["is NaN", "--nan mask"]);
    let share = 100.0 * (0..fields().len()).filter(|at| is_gap(*at)).count() as f64;
    let share = format!("{:.3} % of the values are not finite", share / fields().len() as f64);

    let [mask, zero] = ["mask", "zero"].map(|nan| {
        let run = folder.path(nan);
        train_on_cpu(&folder, &gaps, &run).option("--nan", nan).succeed();
        assert!(config(&run).contains(&format!("nan = \"{nan}\"")));
        errors(&folder, &run, &gaps, nan)[1]
    });
    // The variance of the fields is 0.02 and their mean 0.5. Zeros are learned as if they were
    // data; a negative control.
    assert!(mask < 0.01 && zero > 0.1, "{mask} {zero}");
    let said = Command::eval(folder.path("mask"), &gaps).flags("--nan mask").on_cpu();
    said.warns(&[&share, "mask"]);
    let variance = number(&eval(&folder.path("mask"), &whole), "explained_variance");
    assert!(variance > 0.9, "{variance}");
    // What stands in the gaps has no effect.
    let other = write(&folder, "x.npy", Some(f32::NEG_INFINITY));
    let run = folder.path("other");
    train_on_cpu(&folder, &other, &run).flags("--nan mask").succeed();
    assert!(model_bytes(&run) == model_bytes(&folder.path("mask")));
    // Nor has it where batches are read from the file.
    let streamed = folder.path("streamed");
    train_on_cpu(&folder, &other, &streamed).flags("--nan mask").max_memory("4MiB").succeed();
    assert!(model_bytes(&streamed) == model_bytes(&run));
}

#[test]
fn gaps_are_filled_and_left_out_of_the_evaluation() {
    let folder = TempFolder::new("missing-eval");
    let gaps = write(&folder, "x.npy", Some(f32::NAN));
    let run = folder.path("run");
    train_on_cpu(&folder, &gaps, &run).flags("--nan mask").succeed();
    let [known, gap] = errors(&folder, &run, &gaps, "mask");
    let report = eval(&run, &gaps);
    let share = (0..fields().len()).filter(|at| is_gap(*at)).count() as f64 / fields().len() as f64;
    let size = (fields().len() / SHAPE[0]) as f64;
    let found = number(&report, "sum_squares") / size;
    let expected = known * (1.0 - share);
    assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
    // A negative control: the error over all values differs.
    assert!((found / (expected + gap * share) - 1.0).abs() > 0.01);
    let psnr = number(&report, "psnr");
    assert!((psnr + 10.0 * known.log10()).abs() < 0.3, "{psnr} {known}");
}

#[test]
fn a_gpu_trains_as_the_cpu_does_on_fields_with_gaps() {
    let Some(_turn) = gpu::turn() else { return };
    let folder = TempFolder::new("missing-gpu");
    let gaps = write(&folder, "x.npy", Some(f32::NAN));
    let [gpu, cpu] = [gpu::name(), "cpu".to_owned()].map(|device| {
        let run = folder.path(&device.replace(' ', "-"));
        let train = train(&folder, &gaps, &run).flags("--nan mask").device(&device);
        train.steps(40).succeed();
        number(&eval(&run, &gaps), "sum_squares")
    });
    assert!((gpu / cpu - 1.0).abs() < 1e-3, "{gpu} {cpu}");
}

#[test]
fn masks_that_cannot_work_are_refused() {
    let folder = TempFolder::new("missing-refused");
    let gaps = write(&folder, "x.npy", Some(f32::NAN));
    let half =
        train_on_cpu(&folder, &gaps, &folder.path("half")).flags("--nan mask --precision f16");
    half.fails(2, &["data.nan", "f32"]);
    let unknown = train_on_cpu(&folder, &gaps, &folder.path("unknown")).flags("--nan drop");
    unknown.fails(2, &["error, zero, mask"]);
}

/// Many programs write the lowest finite float where there are no data.
#[test]
fn the_lowest_float_is_no_value() {
    let folder = TempFolder::new("missing-lowest");
    let lowest = write(&folder, "lowest.npy", Some(f32::MIN));
    train_on_cpu(&folder, &lowest, &folder.path("no"))
        .fails(2, &["is -3.4028235e38", "--nan mask"]);
    let gaps = write(&folder, "x.npy", Some(f32::NAN));
    let [a, b] = [lowest, gaps].map(|data| {
        let run = folder.path("run");
        train_on_cpu(&folder, &data, &run).flags("--nan mask").force().succeed();
        model_bytes(&run)
    });
    assert!(a == b);
}
