//! Feature files: `.npy` with labels and names in separate files, or a single safetensors file.
//! They are written batch by batch, so that the features can be larger than memory.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::data::Sample;
pub use crate::data::numbers::npy_header::encode as npy_header;
use crate::error::{Error, Result};
use crate::files::{self, Partial};
use crate::shape::Dims;

/// Maximum size of a safetensors header: readers refuse larger ones.
pub(super) const HEADER_LIMIT: usize = 100_000_000;
/// Metadata key of the description of the features.
pub(super) const KEY: &str = "csae_features";
/// Extension of the names of the images beside an array.
pub const NAMES: &str = "names.txt";
/// Extension of the labels of the images beside an array.
pub const LABELS: &str = "labels.npy";

/// File format of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureFormat {
    /// A NumPy array, with labels and names in `NAME.labels.npy` and `NAME.names.txt` beside it.
    Npy,
    /// Tensors `features` and `labels`, and names and classes in the metadata.
    Safetensors,
}

impl FeatureFormat {
    /// The format by the extension of a path.
    ///
    /// # Errors
    /// When it is neither `.npy` nor `.safetensors`.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("npy") => Ok(Self::Npy),
            Some("safetensors") => Ok(Self::Safetensors),
            _ => Err(Error::usage(format!(
                "{}: unknown feature format; use a name that ends in .npy or .safetensors",
                path.display()
            ))),
        }
    }

    /// The files that a [`Writer`] for `path` creates.
    pub fn files(self, path: &Path, labelled: bool) -> Vec<PathBuf> {
        match self {
            Self::Safetensors => vec![path.to_owned()],
            Self::Npy if labelled => {
                vec![path.to_owned(), path.with_extension(NAMES), path.with_extension(LABELS)]
            }
            Self::Npy => vec![path.to_owned(), path.with_extension(NAMES)],
        }
    }
}

/// The origin of features. Stored features are reused only if it is equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureSource {
    /// Hash of the model's values.
    pub model: String,
    /// Name of the layer that they are read from.
    pub layer: String,
    /// Pooling, such as `max 4x4`; empty without pooling.
    pub pooling: String,
    /// Size of the features of an image.
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

/// Writes a feature file.
#[derive(Debug)]
pub struct Writer {
    format: FeatureFormat,
    path: PathBuf,
    partial: Partial,
    /// Number of values still to be written.
    left: usize,
    labels: Option<Vec<u32>>,
    names: String,
}

impl Writer {
    /// Starts a file for the images of a sample. It gets its final name in [`Writer::finish`].
    ///
    /// # Errors
    /// When the extension is unknown, the file cannot be written, or the names of the images are
    /// too long for a safetensors header.
    pub fn create(path: &Path, source: &FeatureSource, sample: &Sample) -> Result<Self> {
        let format = FeatureFormat::of(path)?;
        let names: Vec<String> = (0..sample.len()).map(|image| sample.name(image)).collect();
        let labels = sample.labels_of_patches();
        let shape = source.shape();
        let left = shape.iter().product();
        let mut partial = Partial::create(path)?;
        match format {
            FeatureFormat::Npy => partial.write(&npy_header("<f4", &shape))?,
            FeatureFormat::Safetensors => {
                let classes = labels.as_ref().map(|labels| json!(labels.classes).to_string());
                let header = TensorHeader {
                    source: &source.json().to_string(),
                    names: &names,
                    shape: &shape,
                    classes: classes.as_deref(),
                };
                partial.write(&header.bytes().map_err(|error| error.at(path.display()))?)?;
            }
        }
        let names = names.into_iter().map(|name| name + "\n").collect();
        Ok(Self {
            format,
            path: path.to_owned(),
            partial,
            left,
            labels: labels.map(|labels| labels.of),
            names,
        })
    }

    /// Appends the features of the next images.
    ///
    /// # Errors
    /// When they cannot be written.
    ///
    /// # Panics
    /// When there are more features than the sample has.
    pub fn push(&mut self, values: &[f32]) -> Result<()> {
        self.left =
            self.left.checked_sub(values.len()).expect("not more features than the sample has");
        self.partial
            .write(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// Completes the file and gives it its name; writes the files beside it.
    ///
    /// # Errors
    /// When they cannot be written.
    ///
    /// # Panics
    /// When there are fewer features than the sample has.
    pub fn finish(mut self) -> Result<()> {
        assert_eq!(self.left, 0, "features are missing");
        let labels: Option<Vec<u8>> = self
            .labels
            .map(|of| of.iter().flat_map(|class| i64::from(*class).to_le_bytes()).collect());
        match (self.format, labels) {
            (FeatureFormat::Safetensors, labels) => {
                self.partial.write(&labels.unwrap_or_default())?
            }
            (FeatureFormat::Npy, labels) => {
                files::write_atomically(&self.path.with_extension(NAMES), self.names.as_bytes())?;
                if let Some(labels) = labels {
                    let whole = [npy_header("<i8", &[labels.len() / 8]), labels].concat();
                    files::write_atomically(&self.path.with_extension(LABELS), &whole)?;
                }
            }
        }
        self.partial.finish()
    }
}

/// The header of a safetensors file of features.
pub(super) struct TensorHeader<'a> {
    /// Description of the features.
    pub source: &'a str,
    /// The name of each image.
    pub names: &'a [String],
    /// Shape of the features.
    pub shape: &'a [usize],
    /// The names of the classes as a JSON array, if the images have labels.
    pub classes: Option<&'a str>,
}

impl TensorHeader<'_> {
    /// The header with its length in front.
    ///
    /// # Errors
    /// If the names are too long.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let (images, values) = (self.names.len(), 4 * self.shape.iter().product::<usize>());
        let mut metadata = json!({ KEY: self.source, "names": json!(self.names).to_string() });
        let mut header = json!({"features": tensor("F32", self.shape, [0, values])});
        if let Some(classes) = self.classes {
            metadata["classes"] = json!(classes);
            header["labels"] = tensor("I64", &[images], [values, values + 8 * images]);
        }
        header["__metadata__"] = metadata;
        let mut header = header.to_string().into_bytes();
        // Padded with spaces, so that the values are aligned to 8 bytes.
        header.resize(header.len().next_multiple_of(8), b' ');
        if header.len() > HEADER_LIMIT {
            return Err(Error::usage(format!(
                "the names of {images} images do not fit into the header of a safetensors file; \
                 write .npy instead"
            )));
        }
        Ok([&(header.len() as u64).to_le_bytes(), &header[..]].concat())
    }
}

/// The entry of a tensor in a safetensors header; `offsets` are in bytes.
fn tensor(dtype: &str, shape: &[usize], offsets: [usize; 2]) -> Value {
    json!({"dtype": dtype, "shape": shape, "data_offsets": offsets})
}

/// Reads the features of `source` (N,C,H,W) from a safetensors file that a [`Writer`] wrote.
///
/// # Errors
/// When the file is not a feature file, or its features are from another model, layer, pooling or
/// number of images. The message names the difference.
pub fn read(path: &Path, source: &FeatureSource) -> Result<Vec<f32>> {
    let bytes = files::read(path)?;
    let bad = |what: &str| {
        Error::usage(format!(
            "{}: {what}; name a .safetensors file that `csae features` wrote",
            path.display()
        ))
    };
    let (_, header) =
        SafeTensors::read_metadata(&bytes).map_err(|_| bad("not a safetensors file"))?;
    let stored = header
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(KEY))
        .ok_or_else(|| bad("it has no features"))?;
    let stored: Value =
        serde_json::from_str(stored).map_err(|_| bad("its description cannot be read"))?;
    let wanted = source.json();
    for key in ["model", "layer", "pooling"] {
        if stored[key] != wanted[key] {
            return Err(Error::usage(format!(
                "{}: its features are from another {key} ({} instead of {}); write them again with \
                 `csae features`",
                path.display(),
                stored[key],
                wanted[key]
            )));
        }
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|_| bad("the file is truncated"))?;
    let features = file.tensor("features").map_err(|_| bad("it has no features"))?;
    if features.dtype() != Dtype::F32 || features.shape() != source.shape() {
        return Err(Error::usage(format!(
            "{}: its features have shape {:?}, but the images have {:?}, so that they are from \
             other images; write them again with `csae features`",
            path.display(),
            features.shape(),
            source.shape()
        )));
    }
    Ok(features
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect())
}
