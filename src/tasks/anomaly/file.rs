//! The folder of a detector: `model.safetensors`, and `detector.safetensors` with the bank and,
//! under a metadata key, the rest as JSON.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::bank::Bank;
use super::detector::{Calibration, Detector};
use crate::error::{Error, Result};
use crate::files;

/// The file's name in its folder.
pub const NAME: &str = "detector.safetensors";
const KEY: &str = "csae_detector";

impl Detector {
    /// Writes it into a folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(NAME);
        let depth = self.bank.mean.len();
        let bytes = |values: &[f32]| {
            values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()
        };
        let tensors = [
            ("apart", vec![self.bank.apart.len()], bytes(&self.bank.apart)),
            ("mean", vec![depth], bytes(&self.bank.mean)),
            ("members", vec![self.bank.members.len() / depth, depth], bytes(&self.bank.members)),
            ("whitening", vec![depth, depth], bytes(&self.bank.whitening)),
        ];
        let json = serde_json::to_string(&self.calibration).expect("a calibration is JSON");
        let views = tensors.iter().map(|(name, shape, data)| {
            Ok((*name, TensorView::new(Dtype::F32, shape.clone(), data)?))
        });
        let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
        let written = views.and_then(|views| {
            safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), json)])))
        });
        files::write_atomically(
            &path,
            &written.map_err(|error| Error::failed(format!("{}: {error}", path.display())))?,
        )
    }

    /// Reads the one in a folder, for the model whose hash this is.
    ///
    /// # Errors
    /// When there is none, it is broken, or it is another model's.
    pub fn load(folder: &Path, model: &str) -> Result<Self> {
        let path = folder.join(NAME);
        let bad = |what: String| {
            Error::usage(format!(
                "{}: {what}; make a detector by `csae anomaly fit`",
                path.display()
            ))
        };
        if !path.is_file() {
            return Err(bad("not there".to_owned()));
        }
        let bytes = files::read(&path)?;
        let broken = |error: &dyn std::fmt::Display| bad(format!("no detector ({error})"));
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| broken(&error))?;
        let json = metadata
            .metadata()
            .as_ref()
            .and_then(|map| map.get(KEY))
            .ok_or_else(|| broken(&"a file of something else"))?;
        let calibration: Calibration =
            serde_json::from_str(json).map_err(|error| broken(&error))?;
        if calibration.model != model {
            return Err(bad("of another model than the one beside it".to_owned()));
        }
        let file = SafeTensors::deserialize(&bytes).map_err(|error| broken(&error))?;
        let read = |name: &str| -> Result<Vec<f32>> {
            let view = file.tensor(name).map_err(|error| broken(&error))?;
            if view.dtype() != Dtype::F32 {
                return Err(broken(&format!("{name} is no F32")));
            }
            Ok(view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect())
        };
        let bank = Bank {
            mean: read("mean")?,
            whitening: read("whitening")?,
            members: read("members")?,
            apart: read("apart")?,
        };
        let depth = bank.mean.len();
        let sound = depth > 0
            && bank.whitening.len() == depth * depth
            && !bank.members.is_empty()
            && bank.members.len() == depth * bank.apart.len();
        if !sound {
            return Err(broken(&"its tensors do not fit each other"));
        }
        Ok(Self { bank, calibration })
    }
}
