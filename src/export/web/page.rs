//! The text of a page.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::example::{example, shrunk};
use super::{File, Model, Options, PageTask};
use crate::error::{Error, Result};
use crate::report::page::{escaped, frame, now, offline_head};
use crate::shape::Size;

/// The runner, which needs no document.
const RUNNER: [&str; 5] = [
    include_str!("tiles.js"),
    include_str!("pixels.js"),
    include_str!("jpeg.js"),
    include_str!("engine.js"),
    include_str!("runner.js"),
];
/// What shows images and results.
const VIEWS: [&str; 6] = [
    include_str!("elements.js"),
    include_str!("restore.js"),
    include_str!("deblock.js"),
    include_str!("code.js"),
    include_str!("classes.js"),
    include_str!("page.js"),
];
const STYLE: &str = include_str!("style.css");

impl PageTask {
    /// Title and introduction of a page.
    const fn words(self) -> [&'static str; 2] {
        match self {
            Self::Denoise => [
                "Remove noise",
                "Choose a noisy photograph, or try the example, to which the page adds noise.",
            ],
            Self::Inpaint => [
                "Fill missing pixels",
                "Choose a photograph and paint over what the model must fill, or try the example.",
            ],
            Self::Upscale => {
                ["Enlarge images", "Choose a small image, or try the example, and a factor."]
            }
            Self::Dejpeg => [
                "Remove the artefacts of JPEG",
                "Choose a JPEG file, or try the example, which the page compresses.",
            ],
            Self::Reconstruct => [
                "Encode and decode images",
                "The model describes an image by units, most of which are 0. Choose an image and \
                 change its strongest units: the page decodes the changed code.",
            ],
            Self::Classify => {
                ["Classify images", "Choose an image. The bars are probabilities of its classes."]
            }
            Self::Segment => [
                "Classify pixels",
                "Choose an image. Colours show the most likely class of each pixel.",
            ],
        }
    }
}

/// How images of other sizes become those that the model takes, for people.
fn sizes(model: &Model) -> String {
    let size = own_size(model);
    match model.fit {
        "tiles" => "Images can have any size: large ones are cut into overlapping tiles, whose \
                    results are joined without seams."
            .to_owned(),
        "mirrored" => format!("Larger images are shrunk to at most {size} pixels."),
        _ => format!("Images are resized to {size} pixels, the size that the model takes."),
    }
}

/// The size of the images that the first pass takes.
fn own_size(model: &Model) -> Size {
    let [w, h] = model.sizes[0];
    Size::new(h, w)
}

/// A script element with data. Text that could end the element is escaped.
fn data(id: &str, value: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string(value)
        .map_err(|error| Error::failed(format!("the page cannot be written: {error}")))?;
    let json = json.replace('<', "\\u003c");
    Ok(format!("<script id=\"{id}\" type=\"application/json\">{json}</script>\n"))
}

/// Writes a page.
///
/// # Errors
/// When the example cannot be encoded.
pub fn write(model: &Model, task: PageTask, values: &[f32], options: &Options) -> Result<File> {
    let [heading, intro] = task.words();
    let title = format!("{heading}: {}", options.name);
    let mut facts = vec![("model", options.name.clone()), ("task", task.name().to_owned())];
    facts.extend(options.licence.iter().map(|licence| ("licence", licence.clone())));
    facts.extend([("date", now()), ("csae", env!("CARGO_PKG_VERSION").to_owned())]);
    let facts: String = facts
        .iter()
        .map(|(name, value)| format!("<span>{name}: {}</span>", escaped(value)))
        .collect();
    let picture = match &options.example {
        Some((pixels, dims)) => shrunk(pixels, *dims)?,
        None => example(task, model.channels, own_size(model))?,
    };
    let picture = STANDARD.encode(picture);
    let main = format!(
        "<p class=\"intro\">{intro} {} Nothing leaves this computer.</p>\n\
         <noscript><p class=\"card\">This page needs JavaScript.</p></noscript>\n\
         <div id=\"app\"></div>\n\
         <img id=\"example\" alt=\"the example\" hidden \
         src=\"data:image/jpeg;base64,{picture}\">\n",
        sizes(model)
    );
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let values = STANDARD.encode(bytes);
    let scripts = format!(
        "{}<script id=\"values\" type=\"text/plain\">{values}</script>\n\
         <script id=\"runner\">\n{}</script>\n<script type=\"module\">\n{}</script>\n",
        data("model", model)?,
        RUNNER.concat(),
        VIEWS.concat()
    );
    let html = frame(&title, &offline_head(STYLE), &facts, &main, &scripts);
    Ok(File { html, task, values: values.len() })
}
