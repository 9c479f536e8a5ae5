//! The prior file `prior.safetensors`, stored beside its model: tensors, and a JSON header in the
//! metadata.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::files;
use crate::priors::masked::{Masked, Sizes};
use crate::priors::mixture::{Gaussian, Mixture};
use crate::priors::prior::Prior;
use crate::priors::sparse::{SparsePrior, UNIT};
use crate::tensor_file::{self, Tensor};

/// Metadata key of the header.
const KEY: &str = "csae_prior";
/// Name of the file in a run folder.
const NAME: &str = "prior.safetensors";

#[derive(Serialize, Deserialize)]
struct PriorHeader {
    /// Hash of the model.
    model: String,
    fitted_to: usize,
    classes: Vec<String>,
    mixture: Shares,
    sparse: Shares,
    order: Vec<u32>,
    hidden: usize,
}

/// Probability and class of each mixture component or cluster.
#[derive(Serialize, Deserialize)]
struct Shares {
    weights: Vec<f32>,
    classes: Option<Vec<u32>>,
}

impl Shares {
    /// Whether there are `count` probabilities, and every class is below `names`.
    fn are_valid(&self, count: usize, names: usize) -> bool {
        let fits = |classes: &Vec<u32>| {
            classes.len() == count && classes.iter().all(|class| (*class as usize) < names)
        };
        self.weights.len() == count
            && count > 0
            && self.weights.iter().all(|weight| (0.0..=1.0).contains(weight))
            && self.classes.as_ref().is_none_or(fits)
    }
}

/// Path of the prior file of a model: in its run folder, or beside its file.
pub fn path_of(model: &Path) -> PathBuf {
    if model.is_dir() {
        return model.join(NAME);
    }
    let stem = model.file_stem().unwrap_or_default().to_string_lossy();
    let own =
        if stem == "model" || stem == "best" { NAME.to_owned() } else { format!("{stem}.{NAME}") };
    model.with_file_name(own)
}

/// Means of all components, and Cholesky factors of all components.
fn parts(mixture: &Mixture) -> [Vec<f32>; 2] {
    let all =
        |of: fn(&Gaussian) -> &Vec<f32>| mixture.components.iter().flat_map(of).copied().collect();
    [all(|gaussian| &gaussian.mean), all(|gaussian| &gaussian.factor)]
}

/// The inverse of [`parts`].
fn components(mean: &[f32], factor: &[f32], depth: usize) -> Vec<Gaussian> {
    let each = mean.chunks_exact(depth).zip(factor.chunks_exact(depth * depth));
    each.map(|(mean, factor)| Gaussian { mean: mean.to_vec(), factor: factor.to_vec() }).collect()
}

impl Prior {
    /// Writes the prior file, atomically.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let (depth, network) = (self.units.len(), &self.sparse.network);
        let Sizes { hidden, .. } = network.sizes;
        let (input, output) = (network.sizes.input(), network.sizes.output());
        let [gaussian_mean, gaussian_factor] = parts(&self.gaussian);
        let [mixture_mean, mixture_factor] = parts(&self.mixture);
        let count = self.mixture.components.len();
        let units = self.units.concat();
        let sparse_units = self.sparse.units.concat();
        let tensors: [(&str, Vec<usize>, &[f32]); 12] = [
            ("gaussian.factor", vec![depth, depth], &gaussian_factor),
            ("gaussian.mean", vec![depth], &gaussian_mean),
            ("mixture.factor", vec![count, depth, depth], &mixture_factor),
            ("mixture.mean", vec![count, depth], &mixture_mean),
            ("sparse.centres", vec![self.sparse.weights.len(), depth], &self.sparse.centres),
            ("sparse.network.bias", vec![output], &network.bias),
            ("sparse.network.direct", vec![output, input], &network.direct),
            ("sparse.network.hidden", vec![hidden], &network.hidden),
            ("sparse.network.into", vec![input, hidden], &network.into),
            ("sparse.network.out", vec![output, hidden], &network.out),
            ("sparse.units", vec![depth, UNIT], &sparse_units),
            ("units", vec![depth, 2], &units),
        ];
        let header = PriorHeader {
            model: self.model.clone(),
            fitted_to: self.fitted_to,
            classes: self.classes.clone(),
            mixture: Shares {
                weights: self.mixture.weights.clone(),
                classes: self.mixture.classes.clone(),
            },
            sparse: Shares {
                weights: self.sparse.weights.clone(),
                classes: self.sparse.classes.clone(),
            },
            order: self.sparse.order.clone(),
            hidden,
        };
        let json = serde_json::to_string(&header).expect("a header is JSON");
        let tensors = tensors.map(|(name, shape, values)| Tensor { name, shape, values });
        tensor_file::write(path, tensors.into(), KEY, json)
    }

    /// Reads the prior file of the model with this hash.
    ///
    /// # Errors
    /// When there is no file, it is damaged, or it belongs to another model.
    pub fn load(path: &Path, model: &str) -> Result<Self> {
        if !path.is_file() {
            return Err(Error::usage(format!(
                "the model has no fitted prior ({} does not exist); {}",
                path.display(),
                Advice::FitPrior
            )));
        }
        let bad = |what: String| {
            Error::usage(format!("{}: {what}; {}", path.display(), Advice::RefitPrior))
        };
        let bytes = files::read(path)?;
        let damaged = |error: &dyn std::fmt::Display| bad(format!("not a prior file ({error})"));
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(&error))?;
        let json = metadata
            .metadata()
            .as_ref()
            .and_then(|map| map.get(KEY))
            .ok_or_else(|| damaged(&"its metadata has no csae_prior"))?;
        let header: PriorHeader = serde_json::from_str(json).map_err(|error| damaged(&error))?;
        if header.model != model {
            return Err(bad(
                "the prior belongs to another model, or the model was trained further".to_owned(),
            ));
        }
        let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(&error))?;
        let read = |name: &str, shape: &[usize]| -> Result<Vec<f32>> {
            let view = file.tensor(name).map_err(|error| damaged(&error))?;
            if view.dtype() != Dtype::F32 || view.shape() != shape {
                return Err(damaged(&format!(
                    "tensor {name} has type {:?} and shape {:?}",
                    view.dtype(),
                    view.shape()
                )));
            }
            let values: Vec<f32> = view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            if values.iter().any(|value| !value.is_finite()) {
                return Err(damaged(&format!("tensor {name} has values that are not finite")));
            }
            Ok(values)
        };
        let depth = header.order.len();
        let (count, clusters) = (header.mixture.weights.len(), header.sparse.weights.len());
        let mut seen = vec![false; depth];
        for unit in &header.order {
            seen.get_mut(*unit as usize).into_iter().for_each(|seen| *seen = true);
        }
        let valid = depth > 0
            && header.hidden > 0
            && seen.iter().all(|seen| *seen)
            && header.mixture.are_valid(count, header.classes.len())
            && header.sparse.are_valid(clusters, header.classes.len());
        if !valid {
            return Err(damaged(&"its header is inconsistent"));
        }
        let sizes = Sizes { units: depth, conditions: clusters, hidden: header.hidden };
        let (input, output) = (sizes.input(), sizes.output());
        let gaussian = components(
            &read("gaussian.mean", &[depth])?,
            &read("gaussian.factor", &[depth, depth])?,
            depth,
        );
        let mixture = components(
            &read("mixture.mean", &[count, depth])?,
            &read("mixture.factor", &[count, depth, depth])?,
            depth,
        );
        let network = Masked {
            into: read("sparse.network.into", &[input, sizes.hidden])?,
            hidden: read("sparse.network.hidden", &[sizes.hidden])?,
            out: read("sparse.network.out", &[output, sizes.hidden])?,
            direct: read("sparse.network.direct", &[output, input])?,
            bias: read("sparse.network.bias", &[output])?,
            sizes,
        };
        Ok(Self {
            model: header.model,
            fitted_to: header.fitted_to,
            classes: header.classes,
            units: read("units", &[depth, 2])?.as_chunks::<2>().0.to_vec(),
            gaussian: Mixture { weights: vec![1.0], components: gaussian, classes: None },
            mixture: Mixture {
                weights: header.mixture.weights,
                components: mixture,
                classes: header.mixture.classes,
            },
            sparse: SparsePrior {
                order: header.order,
                units: read("sparse.units", &[depth, UNIT])?.as_chunks::<UNIT>().0.to_vec(),
                weights: header.sparse.weights,
                classes: header.sparse.classes,
                centres: read("sparse.centres", &[clusters, depth])?,
                network,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Labels;
    use crate::priors::codes::Codes;
    use crate::priors::training::fit_for_test;
    use crate::rng::Stream;
    use crate::testing::Folder;

    #[test]
    fn a_prior_is_read_as_it_was_written() {
        let mut stream = Stream::new(1, "codes");
        let of: Vec<u32> = (0..64).map(|i| i % 2).collect();
        let labels = Labels { classes: vec!["a".into(), "b".into()], of };
        let values = (0..64 * 4).map(|_| stream.normal().max(0.0)).collect();
        let codes = Codes { units: 4, values, labels: Some(labels) };
        let folder = Folder::new("prior");
        let path = path_of(&folder.path);
        for codes in [codes.clone(), Codes { labels: None, ..codes }] {
            let prior = fit_for_test(&codes, "abc").unwrap().0;
            prior.save(&path).unwrap();
            assert_eq!(Prior::load(&path, "abc").unwrap(), prior);
        }
        let message = |model: &str| Prior::load(&path, model).unwrap_err().to_string();
        assert!(message("other").contains("another model"));
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 7, bytes.len() / 2, bytes.len() - 4] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(message("abc").contains("again"), "{cut}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(message("abc").contains("no fitted prior"));
    }

    #[test]
    fn a_prior_file_is_beside_its_model() {
        assert_eq!(
            path_of(Path::new("runs/1/model.safetensors")),
            Path::new("runs/1/prior.safetensors")
        );
        assert_eq!(path_of(Path::new("digits.safetensors")), Path::new("digits.prior.safetensors"));
    }
}
