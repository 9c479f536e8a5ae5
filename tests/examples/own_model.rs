//! Describes a model of one's own in TOML, trains it briefly and looks at its codes:
//! `cargo run --release --example own_model`.

use csae::{Array, DeviceChoice, Model, TrainOptions};

/// A dictionary of 16 filters of 6×6 pixels. Of the 16·9·9 = 1296 values that they give for an
/// image, the 96 largest are its code.
pub const DESCRIPTION: &str = r#"
[model]
input = [1, 24, 24]
code = "code"

[[model.layers]]
name = "filters"
op = "conv2d"
filters = 16
kernel = 6
stride = 3
padding = 3
activation = "relu"

[[model.layers]]
name = "code"
op = "top_k"
k = 96

[[model.layers]]
name = "image"
op = "conv_transpose2d"
filters = "input"
kernel = 6
stride = 3
padding = 3

[optimizer]
kind = "adam"
lr = 2e-3

[train]
batch = 8
steps = 60
"#;

/// Trains the model on diagonal waves and returns it with the share of its code that is not 0.
///
/// # Errors
/// When the description is not valid or training fails.
pub fn train(device: DeviceChoice) -> csae::Result<(Model, f64)> {
    let wave = |i: usize| {
        let (image, y, x) = (i / 576, i / 24 % 24, i % 24);
        0.5 + 0.4 * ((x + y * (image % 4)) as f32 * 0.2 * (1 + image % 5) as f32).sin()
    };
    let images = Array::new([40, 1, 24, 24], (0..40 * 576).map(wave).collect())?;
    let mut model = Model::builder().device(device).from_toml(DESCRIPTION)?;
    model.train(&images, TrainOptions::new())?;
    let codes = model.encode(&images)?;
    let active = codes.values().iter().filter(|value| **value != 0.0).count();
    Ok((model, active as f64 / codes.values().len() as f64))
}

fn main() -> csae::Result<()> {
    let (model, active) = train(DeviceChoice::Auto)?;
    for layer in model.layers() {
        println!("{}: {:?}", layer.name, layer.shape);
    }
    println!("{:.1} % of the code is not 0", 100.0 * active);
    Ok(())
}
