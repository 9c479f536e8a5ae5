//! The detector's folder holds `model.safetensors` and `detector.safetensors`. The former has the
//! network, and how images are read. The latter stores the banks as tensors, and the calibration as
//! JSON under a metadata key.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::bank::{Bank, Banks};
use super::detector::{Calibration, Detector};
use super::views::VIEWS;
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
        let named =
            [(FILTERS, Some(&self.banks.filters)), (FEATURES, self.banks.features.as_ref())];
        let banks = named.into_iter().filter_map(|(names, bank)| Some(names).zip(bank));
        let mut tensors: Vec<Tensor<'_>> =
            banks.flat_map(|(names, bank)| tensors(names, bank)).collect();
        tensors.sort_by_key(|tensor| tensor.name);
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
        let read_tensor = |name: &str| -> Result<Vec<f32>> {
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
        let read_bank = |names: [&str; 4]| -> Result<Bank> {
            let [mean, members, spacing, whitening] = names;
            let (mean, members) = (read_tensor(mean)?, read_tensor(members)?);
            let (spacing, whitening) = (read_tensor(spacing)?, read_tensor(whitening)?);
            let depth = mean.len();
            let consistent = depth > 0
                && whitening.len() == depth * depth
                && !spacing.is_empty()
                && members.len() == depth * spacing.len();
            if !consistent {
                return Err(damaged(&"the shapes of its tensors do not match"));
            }
            Ok(Bank { mean, whitening, members, spacing })
        };
        let filters = read_bank(FILTERS)?;
        let has_network = match calibration.statistics.len() {
            1 => false,
            n if n == VIEWS.len() => true,
            n => return Err(damaged(&format!("it has {n} views"))),
        };
        let features = has_network.then(|| read_bank(FEATURES)).transpose()?;
        Ok(Self { banks: Banks { filters, features }, calibration })
    }
}

/// Names of the tensors of the banks: mean, members, spacing, whitening.
const FILTERS: [&str; 4] =
    ["filters.mean", "filters.members", "filters.spacing", "filters.whitening"];
const FEATURES: [&str; 4] =
    ["features.mean", "features.members", "features.spacing", "features.whitening"];

/// The tensors of a bank.
fn tensors<'a>(names: [&'static str; 4], bank: &'a Bank) -> Vec<Tensor<'a>> {
    let depth = bank.mean.len();
    let members = bank.spacing.len();
    let shapes = [vec![depth], vec![members, depth], vec![members], vec![depth, depth]];
    let values = [&bank.mean, &bank.members, &bank.spacing, &bank.whitening];
    let all = names.into_iter().zip(shapes).zip(values);
    all.map(|((name, shape), values)| Tensor { name, shape, values }).collect()
}

/// Whether the calibration is of the detectors before version 0.1 was published, which weighted
/// three views.
fn is_of_earlier_version(json: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(json)
        .is_ok_and(|value| value.get("weights").is_some())
}
