//! Trains a preset on images that the program makes itself, prints progress, and saves the model:
//! `cargo run --release --example train_on_arrays -- model.safetensors`.

use std::ops::ControlFlow;

use csae::{Array, DeviceChoice, Model, Size, TrainOptions, TrainReport};

/// Gray images of 16×16 pixels with one bright bar each, at every place and in both directions.
///
/// # Errors
/// Never: the number of values fits the shape.
pub fn bars() -> csae::Result<Array> {
    let (n, side) = (32, 16);
    let value = |image: usize, y: usize, x: usize| {
        let along = if image < side { y } else { x };
        if along == image % side { 1.0 } else { 0.1 }
    };
    let pixels =
        (0..n * side * side).map(|i| value(i / (side * side), i / side % side, i % side)).collect();
    Array::new([n, 1, side, side], pixels)
}

/// Trains the preset `top-k` and saves the model.
///
/// # Errors
/// When training fails or the file cannot be written.
pub fn train(device: DeviceChoice, steps: u64, output: &str) -> csae::Result<TrainReport> {
    let builder = Model::builder().device(device).input(1, Size::new(16, 16)).seed(1);
    let mut model = builder.from_toml(csae::preset("top-k")?)?;
    let options = TrainOptions::new()
        .steps(steps)
        .batch(16)
        .validation(0.0) // all images serve to train and to measure
        .set("schedule.warmup_epochs", 0)
        .report_every(steps.div_ceil(10))
        .on_progress(|progress| {
            println!("step {}/{}: loss {:.3}", progress.step, progress.total, progress.loss);
            ControlFlow::Continue(())
        });
    let report = model.train(&bars()?, options)?;
    model.save(output)?;
    Ok(report)
}

fn main() -> csae::Result<()> {
    let output = std::env::args().nth(1).unwrap_or_else(|| "model.safetensors".to_owned());
    let report = train(DeviceChoice::Auto, 400, &output)?;
    println!("PSNR {:.1} dB, {:.0} active units: {output}", report.psnr, report.active);
    Ok(())
}
