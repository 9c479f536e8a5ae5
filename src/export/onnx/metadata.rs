//! The description of a model in its file, by key.

use serde_json::json;

use super::{Options, Part};
use crate::model::{Graph, LoadedModel};

/// The metadata of a file. Lists are JSON.
pub fn of(
    loaded: &LoadedModel,
    task: &'static str,
    options: &Options,
) -> Vec<(&'static str, String)> {
    let spec = &loaded.graph.spec;
    let mut all = vec![
        ("csae_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("csae_hash", loaded.hash.clone()),
        ("task", task.to_owned()),
    ];
    match &options.part {
        Part::Model => {}
        Part::Encoder | Part::Decoder => all.push(("layer", spec.code.clone())),
        Part::Layer(name) => all.push(("layer", name.clone())),
    }
    let (min, max) = match &spec.normalization {
        None => (vec![0.0], vec![1.0]),
        Some(normalization) => (normalization.min.clone(), normalization.max.clone()),
    };
    all.push(("input_min", json!(min).to_string()));
    all.push(("input_max", json!(max).to_string()));
    if let Some(spectrogram) = &spec.spectrogram {
        all.push(("spectrogram", json!(spectrogram).to_string()));
    }
    if !spec.classes.is_empty() {
        all.push(("labels", json!(spec.classes).to_string()));
    }
    if let Some(range) = &spec.undoes.sigma {
        all.push(("sigma_range", json!(range).to_string()));
    }
    if !spec.undoes.scales.is_empty() {
        all.push(("scales", json!(spec.undoes.scales).to_string()));
    }
    if let Some(scale) = options.scale {
        all.push(("scale", scale.to_string()));
    }
    if let Some(sigma) = options.sigma {
        all.push(("sigma", sigma.to_string()));
    }
    if let Some(score) = options.score {
        all.push(("min_score", score.to_string()));
    }
    if let Some(licence) = &options.licence {
        all.push(("licence", licence.clone()));
    }
    all
}

/// What the samples of a model are, for people.
pub fn samples(graph: &Graph) -> String {
    let spec = &graph.spec;
    let what = if spec.spectrogram.is_some() {
        "log-mel spectrograms"
    } else if graph.nodes[0].dims.h == 1 {
        "signals"
    } else {
        "images"
    };
    match &spec.normalization {
        None => format!("{what}, values from 0 to 1"),
        Some(normalization) => {
            format!("{what}, values in the units of the training data ({})", normalization.samples)
        }
    }
}
