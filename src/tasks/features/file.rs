//! Feature files: `.npy` (labels and names in files beside it) or safetensors (everything in one),
//! written as the features come, so that a set larger than memory works.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

pub use crate::data::formats::npy::encode_header as npy_header;
use crate::data::{Labels, Sample};
use crate::error::{Error, Result};
use crate::files::{self, Partial};
use crate::shape::Dims;

/// Bytes of a safetensors header that readers take.
const HEADER_LIMIT: usize = 100_000_000;
/// The metadata key that holds what the features are of.
const KEY: &str = "csae_features";

/// How features are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureFormat {
    /// One array; labels and names lie beside it as `NAME.labels.npy` and `NAME.names.txt`.
    Npy,
    /// Tensors `features` and `labels`, the rest in the metadata.
    Safetensors,
}

impl FeatureFormat {
    /// By a file's ending.
    ///
    /// # Errors
    /// When it is neither.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("npy") => Ok(Self::Npy),
            Some("safetensors") => Ok(Self::Safetensors),
            _ => Err(Error::usage(format!(
                "{}: features are written as .npy or .safetensors: end the name so",
                path.display()
            ))),
        }
    }

    /// The files that writing to `path` makes.
    pub fn files(self, path: &Path, labelled: bool) -> Vec<PathBuf> {
        match self {
            Self::Safetensors => vec![path.to_owned()],
            Self::Npy if labelled => vec![
                path.to_owned(),
                path.with_extension("names.txt"),
                path.with_extension("labels.npy"),
            ],
            Self::Npy => vec![path.to_owned(), path.with_extension("names.txt")],
        }
    }
}

/// What features are of. Those of a stored file are taken for these only where all of it is the
/// same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureSource {
    /// Hash of the model's values.
    pub model: String,
    /// The layer that they are read from.
    pub layer: String,
    /// How they are pooled: `max 4x4`; empty: they are not.
    pub pooling: String,
    /// Size of an image's.
    pub dims: Dims,
    /// Number of images.
    pub images: usize,
}

impl FeatureSource {
    fn shape(&self) -> Vec<usize> {
        let Dims { c, h, w } = self.dims;
        if h * w == 1 { vec![self.images, c] } else { vec![self.images, c, h, w] }
    }

    fn json(&self) -> Value {
        json!({"model": self.model, "layer": self.layer, "pooling": self.pooling})
    }
}

/// A feature file that is being written.
#[derive(Debug)]
pub struct Writer {
    format: FeatureFormat,
    path: PathBuf,
    partial: Partial,
    /// Values to come.
    left: usize,
    labels: Option<Vec<u32>>,
    names: String,
}

impl Writer {
    /// Begins a file for the images of a sample.
    ///
    /// # Errors
    /// When the file cannot be written, or a name cannot be kept.
    pub fn create(path: &Path, described: &FeatureSource, sample: &Sample) -> Result<Self> {
        let format = FeatureFormat::of(path)?;
        let names: Vec<String> = (0..sample.len()).map(|image| sample.name(image)).collect();
        let labels = sample.labels();
        let shape = described.shape();
        let left = shape.iter().product();
        let mut partial = Partial::create(path)?;
        match format {
            FeatureFormat::Npy => partial.write(&npy_header("<f4", &shape))?,
            FeatureFormat::Safetensors => {
                let values = 4 * left;
                let mut metadata =
                    json!({ KEY: described.json().to_string(), "names": json!(names).to_string() });
                let mut head = json!({"features": {"dtype": "F32", "shape": shape, "data_offsets": [0, values]}});
                if let Some(Labels { classes, of }) = labels {
                    metadata["classes"] = json!(json!(classes).to_string());
                    head["labels"] = json!({"dtype": "I64", "shape": [of.len()], "data_offsets": [values, values + 8 * of.len()]});
                }
                head["__metadata__"] = metadata;
                let mut head = head.to_string().into_bytes();
                head.resize(head.len().next_multiple_of(8), b' ');
                if head.len() > HEADER_LIMIT {
                    return Err(Error::usage(format!(
                        "{}: the names of {} images are more than a safetensors file may hold; \
                         write .npy",
                        path.display(),
                        names.len()
                    )));
                }
                partial.write(&(head.len() as u64).to_le_bytes())?;
                partial.write(&head)?;
            }
        }
        let names = names.into_iter().map(|name| name + "\n").collect();
        Ok(Self {
            format,
            path: path.to_owned(),
            partial,
            left,
            labels: labels.map(|labels| labels.of.clone()),
            names,
        })
    }

    /// Adds the features of the next images.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn push(&mut self, values: &[f32]) -> Result<()> {
        self.left =
            self.left.checked_sub(values.len()).expect("no more features than were announced");
        self.partial
            .write(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// Puts the file, and those beside it, in their places.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn finish(mut self) -> Result<()> {
        assert_eq!(self.left, 0, "as many features as were announced");
        let labels: Option<Vec<u8>> = self
            .labels
            .map(|of| of.iter().flat_map(|class| i64::from(*class).to_le_bytes()).collect());
        match (self.format, labels) {
            (FeatureFormat::Safetensors, labels) => {
                self.partial.write(&labels.unwrap_or_default())?
            }
            (FeatureFormat::Npy, labels) => {
                files::write_atomically(
                    &self.path.with_extension("names.txt"),
                    self.names.as_bytes(),
                )?;
                if let Some(labels) = labels {
                    let whole = [npy_header("<i8", &[labels.len() / 8]), labels].concat();
                    files::write_atomically(&self.path.with_extension("labels.npy"), &whole)?;
                }
            }
        }
        self.partial.finish()
    }
}

/// Reads the features of `described` from a safetensors file, as [`Writer`] wrote them: C,H,W of
/// one image after the other.
///
/// # Errors
/// When the file is none of features, or of other ones: of another model, layer, pooling or number
/// of images, which is named.
pub fn read(path: &Path, described: &FeatureSource) -> Result<Vec<f32>> {
    let bytes = files::read(path)?;
    let bad = |what: &str| {
        Error::usage(format!(
            "{}: {what}; name a .safetensors file that `csae features` wrote",
            path.display()
        ))
    };
    let (_, head) =
        SafeTensors::read_metadata(&bytes).map_err(|_| bad("not a safetensors file"))?;
    let of = head
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(KEY))
        .ok_or_else(|| bad("holds no features"))?;
    let of: Value = serde_json::from_str(of).map_err(|_| bad("what it is of cannot be read"))?;
    let wanted = described.json();
    for key in ["model", "layer", "pooling"] {
        if of[key] != wanted[key] {
            return Err(Error::usage(format!(
                "{}: its features are of another {key} ({}, not {}); write them again with `csae \
                 features`",
                path.display(),
                of[key],
                wanted[key]
            )));
        }
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|_| bad("the file is cut off"))?;
    let features = file.tensor("features").map_err(|_| bad("holds no features"))?;
    if features.dtype() != Dtype::F32 || features.shape() != described.shape() {
        return Err(Error::usage(format!(
            "{}: its features are {:?}, those of the data {:?}: they are of other images; write \
             them again with `csae features`",
            path.display(),
            features.shape(),
            described.shape()
        )));
    }
    Ok(features
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect())
}
