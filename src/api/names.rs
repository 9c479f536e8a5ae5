use crate::error::{Error, Result, did_you_mean};
use crate::{model, spec};

/// The names of the bundled models, for [`Model::bundled`](crate::Model::bundled).
///
/// `denoise`, `inpaint`, `upscale` and `dejpeg` restore images. `paint-1` to `paint-3` are
/// autoencoders of photographs, for texture synthesis and style transfer. `photographs` is a sparse
/// code of colour images of any size, for features.
///
/// # Examples
///
/// ```
/// assert!(csae::bundled_models().any(|name| name == "denoise"));
/// ```
pub fn bundled_models() -> impl Iterator<Item = &'static str> {
    model::bundled_names()
}

/// The names of the presets, for [`preset`].
pub fn presets() -> impl Iterator<Item = &'static str> {
    spec::preset_names()
}

/// A preset: the TOML that describes a model and its training. Most presets do not set the input
/// size; set it with [`ModelBuilder::input`](crate::ModelBuilder::input).
///
/// # Errors
/// When no preset has this name. The message lists the presets.
///
/// # Examples
///
/// ```
/// let text = csae::preset("sparse")?;
/// assert!(text.contains("[model]"));
/// assert!(csae::preset("spares").unwrap_err().to_string().contains("did you mean sparse"));
/// # Ok::<(), csae::Error>(())
/// ```
pub fn preset(name: &str) -> Result<&'static str> {
    if presets().any(|known| known == name) {
        return spec::preset_text(name);
    }
    Err(unknown("preset", name, presets()))
}

/// The error for an unknown name.
pub(super) fn unknown(what: &str, name: &str, known: impl Iterator<Item = &'static str>) -> Error {
    let known: Vec<&str> = known.collect();
    let hint = did_you_mean(name, known.iter().copied());
    Error::usage(format!("no {what} is called {name:?}; there are {}{hint}", known.join(", ")))
}
