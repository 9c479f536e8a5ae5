//! Presets: named configurations, compiled into the binary.

use crate::error::{Error, Result, did_you_mean};

/// The default preset of `csae train`.
pub const DEFAULT: &str = "photographs";

/// What to expect of a preset: one line of `csae presets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The data it is for.
    pub data: &'static str,
    /// Duration of a training on two CPU cores, with the data of `result`.
    pub time: &'static str,
    /// What such a training reached (`benches/results`), with its data; else its purpose.
    pub result: &'static str,
}

impl Expectation {
    pub(super) const fn new(data: &'static str, time: &'static str, result: &'static str) -> Self {
        Self { data, time, result }
    }
}

/// A preset of `csae train`. A preset without an expectation does not compile.
struct Preset {
    name: &'static str,
    text: &'static str,
    expectation: Expectation,
}

macro_rules! presets {
    ($($name:literal $data:literal $time:literal $result:literal)*) => {
        &[$(Preset {
            name: $name,
            text: include_str!(concat!("../../assets/presets/", $name, ".toml")),
            expectation: Expectation::new($data, $time, $result),
        }),*]
    };
}

#[rustfmt::skip] // a row of a table each
const PRESETS: &[Preset] = presets! {
    "article" "patches of photographs" "1 min" "30.2 dB with 57 of 256 units"
    "dejpeg" "photographs" "10 min" "removes JPEG artefacts"
    "denoise" "photographs" "1 h" "28.9 dB at sigma 25 (BSD68)"
    "generate" "small images, 28x28, 32x32" "11 min" "Fréchet distance 14 (MNIST)"
    "inpaint" "photographs" "12 min" "33.6 dB, half missing (Set12)"
    "paint-1" "colour photographs" "2 min" "textures and styles, fine scale"
    "paint-2" "colour photographs" "6 min" "textures and styles, middle scale"
    "paint-3" "colour photographs" "9 min" "textures and styles, coarse scale"
    "photographs" "images of any size" "2 min" "34.9 dB with 0.16 units per pixel"
    "plain" "images of any size" "3 min" "35.8 dB, 42 % of the code active"
    "pyramid" "images of any size" "4 min" "Dice 0.89 after segment (nuclei)"
    "signals" "signals, layout NCL" "1 min" "explains 99 % with L0 280"
    "sparse" "small images, 28x28, 32x32" "3 min" "error 8.2, L0 30.5 (Fashion-MNIST)"
    "top-k" "small images, 28x28, 32x32" "3 min" "error 7.9, L0 16 (Fashion-MNIST)"
    "upscale" "photographs" "10 min" "36.8 dB at 2 times (Set5)"
    "w1" "gray images, 28x28" "1 min" "for benchmarks of speed"
    "w2" "colour images, 32x32" "1 min" "for benchmarks of speed"
    "w3" "colour images, 64x64" "1 min" "for benchmarks of speed"
    "wta" "gray images, 28x28" "11 min" "probe errs on 0.72 % (MNIST)"
    "wta-color" "colour images, 32x32" "10 min" "probe right on 63.9 % (CIFAR-10)"
    "wta2" "maps of a wta model" "6 min" "probe errs on 0.68 % (MNIST)"
};

/// Name of every preset.
pub fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|preset| preset.name)
}

fn find(name: &str) -> Result<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let hint = did_you_mean(name, names());
        Error::usage(format!(
            "preset {name:?} is unknown: use one of {}{hint}",
            names().collect::<Vec<_>>().join(", ")
        ))
    })
}

/// TOML text of a preset.
///
/// # Errors
/// When there is no preset of this name.
pub fn text(name: &str) -> Result<&'static str> {
    find(name).map(|preset| preset.text)
}

/// What to expect of a preset.
///
/// # Errors
/// When there is no preset of this name.
pub fn expectation(name: &str) -> Result<Expectation> {
    find(name).map(|preset| preset.expectation)
}
