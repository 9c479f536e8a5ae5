//! Denoises an image file: `cargo run --example denoise_image -- noisy.png clean.png`.

use csae::{Image, Model, Noise};

/// Removes noise from an image with the bundled model.
///
/// # Errors
/// When a file cannot be read or written.
pub fn denoise(input: &str, output: &str) -> csae::Result<()> {
    let noisy = Image::open(input)?;
    let clean = Model::bundled("denoise")?.denoise(&noisy, Noise::Auto)?;
    clean.save(output)
}

fn main() -> csae::Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = &names[..] else { panic!("usage: denoise_image INPUT OUTPUT") };
    denoise(input, output)
}
