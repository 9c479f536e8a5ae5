//! A case: an operation, its attributes, its inputs and, where stored, its answers. The format of
//! stored cases is one safetensors file `OP__NAME.safetensors` with `op` and `attrs` (JSON) in the
//! metadata; tensors are NCHW, float32 or int32.

use std::collections::BTreeMap;
use std::path::Path;

use half::f16;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::files;

/// A tensor's values.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Reals.
    Real(Vec<f64>),
    /// Indices, labels, masks.
    Int(Vec<i32>),
}

/// A tensor in natural order.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Shape.
    pub shape: Vec<usize>,
    /// Values.
    pub values: Values,
}

impl Tensor {
    /// A tensor of reals.
    pub fn real(shape: &[usize], values: Vec<f64>) -> Self {
        Self { shape: shape.to_vec(), values: Values::Real(values) }
    }

    /// As reals.
    pub fn reals(&self) -> Vec<f64> {
        match &self.values {
            Values::Real(values) => values.clone(),
            Values::Int(values) => values.iter().map(|x| f64::from(*x)).collect(),
        }
    }

    /// As words.
    pub fn words(&self) -> Vec<u32> {
        match &self.values {
            Values::Real(values) => values.iter().map(|x| *x as u32).collect(),
            Values::Int(values) => values.iter().map(|x| *x as u32).collect(),
        }
    }
}

/// An operation with inputs and perhaps answers.
#[derive(Clone, Debug)]
pub struct Case {
    /// The operation.
    pub op: String,
    /// Name of the case.
    pub name: String,
    /// Attributes.
    pub attrs: Value,
    /// Inputs.
    pub inputs: BTreeMap<String, Tensor>,
    /// Answers by name.
    pub answers: BTreeMap<String, Tensor>,
    /// Whether maps are in half precision.
    pub half: bool,
}

impl Case {
    /// `op/name`, and `in halves` behind it where maps are in half precision.
    pub fn id(&self) -> String {
        format!("{}/{}{}", self.op, self.name, if self.half { " in halves" } else { "" })
    }

    /// The case with maps in half precision, and every real that it is given one: so the answers,
    /// which the CPU path gives, are of the same numbers.
    pub fn halved(&self) -> Result<Self> {
        let mut case = Self { half: true, ..self.clone() };
        for tensor in case.inputs.values_mut() {
            if let Values::Real(values) = &mut tensor.values {
                values.iter_mut().for_each(|x| *x = f16::from_f64(*x).to_f64());
            }
        }
        case.answered()
    }

    /// Whether answers are stored.
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// The case with the answers of the CPU path in f64.
    pub fn answered(&self) -> Result<Self> {
        let found = super::execute(&mut Device::oracle(), self)?;
        let answers = found
            .into_iter()
            .map(|(name, values)| (name, Tensor::real(&[values.len()], values)))
            .collect();
        Ok(Self { answers, ..self.clone() })
    }

    /// An input, or an error that names it.
    pub fn input(&self, name: &str) -> Result<&Tensor> {
        self.inputs
            .get(name)
            .ok_or_else(|| Error::usage(format!("{}: the case has no tensor {name}", self.id())))
    }

    /// A number among the attributes.
    pub fn number(&self, key: &str) -> Result<f64> {
        self.attrs[key].as_f64().ok_or_else(|| {
            Error::usage(format!("{}: the attributes have no number {key}", self.id()))
        })
    }

    /// A whole number among the attributes.
    pub fn count(&self, key: &str) -> Result<usize> {
        let count = self.attrs[key].as_u64().and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| {
            Error::usage(format!("{}: the attributes have no whole number {key}", self.id()))
        })
    }

    /// Fails if there is an attribute that is not among `known`: ignoring it might mean computing
    /// something else.
    pub fn know(&self, known: &[&str]) -> Result<()> {
        let unknown = self
            .attrs
            .as_object()
            .and_then(|attrs| attrs.keys().find(|key| !known.contains(&key.as_str())));
        unknown.map_or(Ok(()), |key| {
            Err(Error::usage(format!("{}: attribute {key:?} is unknown", self.id())))
        })
    }

    /// An input of `len` elements, or an error that names it.
    pub fn sized(&self, name: &str, len: usize) -> Result<&Tensor> {
        let tensor = self.input(name)?;
        if tensor.shape.iter().product::<usize>() == len {
            return Ok(tensor);
        }
        Err(Error::usage(format!(
            "{}: {name} has shape {:?}, which is not {len} elements",
            self.id(),
            tensor.shape
        )))
    }

    /// An input of words below `bound`, `len` of them.
    pub fn indices(&self, name: &str, len: usize, bound: usize) -> Result<Vec<u32>> {
        let words = self.sized(name, len)?.words();
        match words.iter().find(|word| **word as usize >= bound) {
            None => Ok(words),
            Some(word) => Err(Error::usage(format!(
                "{}: {name} holds {word}, the largest index is {}",
                self.id(),
                bound - 1
            ))),
        }
    }

    /// A text among the attributes.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.attrs[key].as_str().ok_or_else(|| {
            Error::usage(format!("{}: the attributes have no text {key}", self.id()))
        })
    }
}

/// Which tensors of a stored case are answers; the rest are inputs.
fn is_answer(op: &str, name: &str) -> bool {
    let by_op: &[&str] = match op {
        "loss" | "segmentation_loss" | "detection_loss" => &["loss", "grad_y"],
        "clip_grad_norm" => &["norm", "clipped"],
        "optimizer" => &["trajectory"],
        "train" => &["reconstruction_loss", "sparsity_loss"],
        _ => &["y", "loss", "grad_x", "grad_weight", "grad_bias", "grad_threshold"],
    };
    by_op.contains(&name) || (op == "train" && name.starts_with("final."))
}

/// Reads one stored case.
pub fn load(path: &Path) -> Result<Case> {
    let bad = |what: String| Error::usage(format!("{}: {what}", path.display()));
    let bytes = files::read(path)?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes)
        .map_err(|error| bad(format!("not a safetensors file ({error})")))?;
    let keys = metadata.metadata().clone().unwrap_or_default();
    let op = keys.get("op").ok_or_else(|| bad("its metadata names no op".to_owned()))?.clone();
    let attrs = keys.get("attrs").map_or("{}", String::as_str);
    let attrs: Value = serde_json::from_str(attrs)
        .map_err(|error| bad(format!("its attrs are not JSON: {error}")))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = stem.split_once("__").map_or(stem.clone(), |(_, name)| name.to_owned());
    let file = SafeTensors::deserialize(&bytes).map_err(|error| bad(error.to_string()))?;
    let (mut inputs, mut answers) = (BTreeMap::new(), BTreeMap::new());
    for (tensor, view) in file.tensors() {
        let words = view.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
        let values = match view.dtype() {
            Dtype::F32 => Values::Real(words.map(|b| f64::from(f32::from_le_bytes(b))).collect()),
            Dtype::I32 => Values::Int(words.map(i32::from_le_bytes).collect()),
            other => {
                return Err(bad(format!(
                    "tensor {tensor} holds {other:?}; cases hold F32 and I32"
                )));
            }
        };
        let to = if is_answer(&op, &tensor) { &mut answers } else { &mut inputs };
        to.insert(tensor.clone(), Tensor { shape: view.shape().to_vec(), values });
    }
    if answers.is_empty() {
        return Err(bad("it holds no answer".to_owned()));
    }
    Ok(Case { op, name, attrs, inputs, answers, half: false })
}

/// Reads every `.safetensors` file of a folder, in order of name.
pub fn load_folder(folder: &Path) -> Result<Vec<Case>> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::io(folder, &error))?;
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    paths.sort();
    if paths.is_empty() {
        return Err(Error::usage(format!("{}: holds no .safetensors case", folder.display())));
    }
    paths.iter().map(|path| load(path)).collect()
}
