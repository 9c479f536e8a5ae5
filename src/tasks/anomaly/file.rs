//! The detector's folder holds `model.safetensors` and `detector.safetensors`. The latter stores
//! the bank as tensors, and the calibration as JSON under a metadata key.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::bank::Bank;
use super::detector::{Calibration, Detector};
use crate::error::{Error, Result};
use crate::files;
use crate::tensor_file::{self, Tensor};

/// Name of the detector's file in its folder.
pub const FILE_NAME: &str = "detector.safetensors";
const KEY: &str = "csae_detector";

impl Detector {
    /// Writes the detector into a folder.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE_NAME);
        let depth = self.bank.mean.len();
        let Bank { mean, members, whitening } = &self.bank;
        let tensor = |name, shape: &[usize], values| Tensor { name, shape: shape.to_vec(), values };
        let tensors = vec![
            tensor("mean", &[depth], mean),
            tensor("members", &[members.len() / depth, depth], members),
            tensor("whitening", &[depth, depth], whitening),
        ];
        let json =
            serde_json::to_string(&self.calibration).expect("a calibration serializes to JSON");
        tensor_file::write(&path, tensors, KEY, json)
    }

    /// Reads the detector in a folder, for the model with the hash `model`.
    ///
    /// # Errors
    /// If there is no detector, its file is damaged, or it belongs to another model.
    pub fn load(folder: &Path, model: &str) -> Result<Self> {
        let path = folder.join(FILE_NAME);
        let bad = |what: String| {
            Error::usage(format!(
                "{}: {what}; make a detector with `csae anomaly fit`",
                path.display()
            ))
        };
        if !path.is_file() {
            return Err(bad("no such file".to_owned()));
        }
        let bytes = files::read(&path)?;
        let damaged = |error: &dyn std::fmt::Display| bad(format!("not a detector ({error})"));
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(&error))?;
        let json = metadata
            .metadata()
            .as_ref()
            .and_then(|map| map.get(KEY))
            .ok_or_else(|| damaged(&"it lacks the metadata of one"))?;
        if is_of_earlier_version(json) {
            return Err(bad("it was fitted by an earlier version of csae".to_owned()));
        }
        let calibration: Calibration =
            serde_json::from_str(json).map_err(|error| damaged(&error))?;
        if calibration.model != model {
            return Err(bad("it belongs to another model than the one in this folder".to_owned()));
        }
        let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(&error))?;
        let read = |name: &str| -> Result<Vec<f32>> {
            let view = file.tensor(name).map_err(|error| damaged(&error))?;
            if view.dtype() != Dtype::F32 {
                return Err(damaged(&format!("{name} is not of type F32")));
            }
            Ok(view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect())
        };
        let bank =
            Bank { mean: read("mean")?, whitening: read("whitening")?, members: read("members")? };
        let depth = bank.mean.len();
        let consistent = depth > 0
            && bank.whitening.len() == depth * depth
            && !bank.members.is_empty()
            && bank.members.len().is_multiple_of(depth);
        if !consistent {
            return Err(damaged(&"the shapes of its tensors do not match"));
        }
        Ok(Self { bank, calibration })
    }
}

/// Whether the calibration is of the detectors before version 0.1 was published, which weighted
/// three views.
fn is_of_earlier_version(json: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(json)
        .is_ok_and(|value| value.get("weights").is_some())
}
