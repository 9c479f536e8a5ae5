//! Verification cases: an operation with attributes, inputs and optional expected outputs
//! (answers).
//!
//! A stored case is a safetensors file `OP__NAME.safetensors` with `op` and `attrs` (JSON) in the
//! metadata. Tensors are NCHW, float32 or int32.

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

/// A tensor in NCHW order.
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

    /// The values as f64.
    pub fn reals(&self) -> Vec<f64> {
        match &self.values {
            Values::Real(values) => values.clone(),
            Values::Int(values) => values.iter().map(|x| f64::from(*x)).collect(),
        }
    }

    /// The values as u32.
    pub fn words(&self) -> Vec<u32> {
        match &self.values {
            Values::Real(values) => values.iter().map(|x| *x as u32).collect(),
            Values::Int(values) => values.iter().map(|x| *x as u32).collect(),
        }
    }
}

/// An operation with inputs and optional answers.
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
    /// Expected outputs by name.
    pub answers: BTreeMap<String, Tensor>,
    /// Whether maps are in half precision.
    pub half: bool,
}

impl Case {
    /// `op/name`, followed by ` in half precision` if its maps are.
    pub fn id(&self) -> String {
        format!("{}/{}{}", self.op, self.name, if self.half { " in half precision" } else { "" })
    }

    /// The case with maps in half precision. All real inputs are rounded to f16, so that the CPU
    /// path computes the answers from the same numbers.
    ///
    /// # Errors
    /// If the case is invalid.
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
    ///
    /// # Errors
    /// If the case is invalid.
    pub fn answered(&self) -> Result<Self> {
        let found = super::execute(&mut Device::oracle(), self)?;
        let answers = found
            .into_iter()
            .map(|(name, values)| (name, Tensor::real(&[values.len()], values)))
            .collect();
        Ok(Self { answers, ..self.clone() })
    }

    /// An input tensor.
    ///
    /// # Errors
    /// If no tensor has this name.
    pub fn input(&self, name: &str) -> Result<&Tensor> {
        self.inputs
            .get(name)
            .ok_or_else(|| Error::usage(format!("{}: the case has no tensor {name}", self.id())))
    }

    /// A number among the attributes.
    ///
    /// # Errors
    /// If it is missing or not a number.
    pub fn number(&self, key: &str) -> Result<f64> {
        self.attrs[key]
            .as_f64()
            .ok_or_else(|| Error::usage(format!("{}: attribute {key} must be a number", self.id())))
    }

    /// A non-negative integer among the attributes.
    ///
    /// # Errors
    /// If it is missing or not a non-negative integer.
    pub fn count(&self, key: &str) -> Result<usize> {
        let count = self.attrs[key].as_u64().and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| {
            Error::usage(format!("{}: attribute {key} must be a non-negative integer", self.id()))
        })
    }

    /// Checks that all attributes are in `known`. An ignored attribute could change the meaning of
    /// the case.
    ///
    /// # Errors
    /// If there is another attribute.
    pub fn check_attributes(&self, known: &[&str]) -> Result<()> {
        let unknown = self
            .attrs
            .as_object()
            .and_then(|attrs| attrs.keys().find(|key| !known.contains(&key.as_str())));
        unknown.map_or(Ok(()), |key| {
            Err(Error::usage(format!("{}: attribute {key:?} is unknown", self.id())))
        })
    }

    /// An input tensor of `len` elements.
    ///
    /// # Errors
    /// If no tensor has this name, or it has another size.
    pub fn sized(&self, name: &str, len: usize) -> Result<&Tensor> {
        let tensor = self.input(name)?;
        if tensor.shape.iter().product::<usize>() == len {
            return Ok(tensor);
        }
        Err(Error::usage(format!(
            "{}: {name} has shape {:?}, but must have {len} elements",
            self.id(),
            tensor.shape
        )))
    }

    /// An input tensor of `len` indices below `bound`.
    ///
    /// # Errors
    /// If no tensor has this name, it has another size, or an index is out of range.
    pub fn indices(&self, name: &str, len: usize, bound: usize) -> Result<Vec<u32>> {
        let words = self.sized(name, len)?.words();
        match words.iter().find(|word| **word as usize >= bound) {
            None => Ok(words),
            Some(word) => Err(Error::usage(format!(
                "{}: {name} contains index {word}, the maximum is {}",
                self.id(),
                bound - 1
            ))),
        }
    }

    /// A string among the attributes.
    ///
    /// # Errors
    /// If it is missing or not a string.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.attrs[key]
            .as_str()
            .ok_or_else(|| Error::usage(format!("{}: attribute {key} must be a string", self.id())))
    }
}

/// Whether a tensor of a stored case is an answer. All others are inputs.
fn is_answer(op: &str, name: &str) -> bool {
    let by_op: &[&str] = match op {
        "loss" | "segmentation_loss" | "detection_loss" | "hurdle_loss" => &["loss", "grad_y"],
        "clip_grad_norm" => &["norm", "clipped"],
        "optimizer" => &["trajectory"],
        "train" => &["reconstruction_loss", "sparsity_loss"],
        _ => &["y", "loss", "grad_x", "grad_weight", "grad_bias", "grad_threshold"],
    };
    by_op.contains(&name) || (op == "train" && name.starts_with("final."))
}

/// Reads a stored case.
///
/// # Errors
/// If the file cannot be read or is not a case.
pub fn load(path: &Path) -> Result<Case> {
    let bad = |what: String| Error::usage(format!("{}: {what}", path.display()));
    let bytes = files::read(path)?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes)
        .map_err(|error| bad(format!("not a safetensors file ({error})")))?;
    let keys = metadata.metadata().clone().unwrap_or_default();
    let op = keys.get("op").ok_or_else(|| bad("the metadata has no `op`".to_owned()))?.clone();
    let attrs = keys.get("attrs").map_or("{}", String::as_str);
    let attrs: Value = serde_json::from_str(attrs)
        .map_err(|error| bad(format!("`attrs` of the metadata is not JSON: {error}")))?;
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
                    "tensor {tensor} has type {other:?}, but must be F32 or I32"
                )));
            }
        };
        let to = if is_answer(&op, &tensor) { &mut answers } else { &mut inputs };
        to.insert(tensor.clone(), Tensor { shape: view.shape().to_vec(), values });
    }
    if answers.is_empty() {
        return Err(bad("the case has no expected outputs".to_owned()));
    }
    Ok(Case { op, name, attrs, inputs, answers, half: false })
}

/// Reads all `.safetensors` files of a folder, sorted by name.
///
/// # Errors
/// If the folder has no such file, or a file cannot be read or is not a case.
pub fn load_folder(folder: &Path) -> Result<Vec<Case>> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::io(folder, &error))?;
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    paths.sort();
    if paths.is_empty() {
        return Err(Error::usage(format!(
            "{}: the folder contains no .safetensors files",
            folder.display()
        )));
    }
    paths.iter().map(|path| load(path)).collect()
}
