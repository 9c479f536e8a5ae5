//! Writes a layer's output for image files of one size as a NumPy array:
//! `cargo run --example features_to_file -- model.safetensors features.npy a.png b.png`.

use csae::{Array, DeviceChoice, Image, Model};

/// Writes the default features of images, N×C×H×W or N×units, in their order.
///
/// # Errors
/// When a file cannot be read or written, or the images do not suit the model.
pub fn write(
    device: DeviceChoice,
    model: &str,
    output: &str,
    files: &[String],
) -> csae::Result<()> {
    let images = files.iter().map(Image::open).collect::<csae::Result<Vec<_>>>()?;
    let batch = Array::stack(images.iter().map(Image::pixels))?;
    let mut model = Model::builder().device(device).load(model)?;
    model.features(&batch, None)?.save_npy(output)
}

fn main() -> csae::Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let [model, output, files @ ..] = &names[..] else {
        panic!("usage: features_to_file MODEL OUTPUT IMAGE...")
    };
    write(DeviceChoice::Auto, model, output, files)
}
