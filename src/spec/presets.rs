//! Presets: named configurations, compiled into the binary.

use crate::error::{Error, Result, did_you_mean};

/// The default preset of `csae train`.
pub const DEFAULT: &str = "photographs";

const PRESETS: &[(&str, &str)] = &[
    ("article", include_str!("../../assets/presets/article.toml")),
    ("denoise", include_str!("../../assets/presets/denoise.toml")),
    ("generate", include_str!("../../assets/presets/generate.toml")),
    ("inpaint", include_str!("../../assets/presets/inpaint.toml")),
    ("paint-1", include_str!("../../assets/presets/paint-1.toml")),
    ("paint-2", include_str!("../../assets/presets/paint-2.toml")),
    ("paint-3", include_str!("../../assets/presets/paint-3.toml")),
    ("photographs", include_str!("../../assets/presets/photographs.toml")),
    ("plain", include_str!("../../assets/presets/plain.toml")),
    ("pyramid", include_str!("../../assets/presets/pyramid.toml")),
    ("sparse", include_str!("../../assets/presets/sparse.toml")),
    ("top-k", include_str!("../../assets/presets/top-k.toml")),
    ("upscale", include_str!("../../assets/presets/upscale.toml")),
    ("w1", include_str!("../../assets/presets/w1.toml")),
    ("w2", include_str!("../../assets/presets/w2.toml")),
    ("w3", include_str!("../../assets/presets/w3.toml")),
    ("wta", include_str!("../../assets/presets/wta.toml")),
    ("wta-color", include_str!("../../assets/presets/wta-color.toml")),
    ("wta2", include_str!("../../assets/presets/wta2.toml")),
];

/// Name of every preset.
pub fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// TOML text of a preset.
///
/// # Errors
/// When there is no preset of this name.
pub fn text(name: &str) -> Result<&'static str> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text).ok_or_else(|| {
        let hint = did_you_mean(name, names());
        Error::usage(format!(
            "preset {name:?} is unknown: use one of {}{hint}",
            names().collect::<Vec<_>>().join(", ")
        ))
    })
}
