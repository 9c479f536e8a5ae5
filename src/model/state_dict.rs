//! The values of a model from a `state_dict` of PyTorch, in a safetensors file.

use std::collections::HashMap;

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::LoadedModel;
use crate::error::{Error, Result};

/// What the names of a module's tensors begin with: `csae.torch` keeps them in `layers`, and
/// `DataParallel` puts a module into `module`.
const PREFIXES: [&str; 2] = ["module.", "layers."];

/// The values of a tensor. `None` if its type is not that of real numbers.
pub(super) fn values(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let data = view.data();
    Some(match view.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        Dtype::F16 => data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => {
            data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
        }
        _ => return None,
    })
}

/// At most three names, and whether there are more.
fn listed(names: &[&str]) -> String {
    let more = if names.len() > 3 { " and others" } else { "" };
    format!("{}{more}", names[..names.len().min(3)].join(", "))
}

impl LoadedModel {
    /// The same model with the values of a `state_dict`: of the tensors of this model by their
    /// names in the model file, with `layers.` in front or not. `place` names the file in errors.
    ///
    /// # Errors
    /// If the bytes are no safetensors file, a tensor is missing, unknown, or of another shape or
    /// type, or a value is not finite.
    pub fn with_state_dict(mut self, bytes: &[u8], place: &str) -> Result<Self> {
        let bad = |what: String| Err(Error::usage(format!("{place}: {what}")));
        // PyTorch's own files are zip archives of pickles, or pickles.
        if bytes.starts_with(b"PK") || bytes.starts_with(&[0x80]) {
            return bad("a pickle of PyTorch; write safetensors instead: \
                        safetensors.torch.save_file(module.state_dict(), \"state.safetensors\")"
                .to_owned());
        }
        let file = match SafeTensors::deserialize(bytes) {
            Ok(file) => file,
            Err(error) => return bad(format!("not a safetensors file ({error})")),
        };
        let mut given: HashMap<String, TensorView<'_>> = HashMap::new();
        for (name, view) in file.tensors() {
            let own = PREFIXES.iter().fold(&name[..], |own, prefix| {
                if self.tensors.contains_key(own) {
                    own
                } else {
                    own.strip_prefix(prefix).unwrap_or(own)
                }
            });
            let own = if self.tensors.contains_key(own) { own } else { &name[..] };
            if given.insert(own.to_owned(), view).is_some() {
                return bad(format!("tensor {own} is in the file twice"));
            }
        }
        let mut unknown: Vec<&str> =
            given.keys().filter(|name| !self.tensors.contains_key(*name)).map(|s| &s[..]).collect();
        let mut missing: Vec<&str> =
            self.tensors.keys().filter(|name| !given.contains_key(*name)).map(|s| &s[..]).collect();
        unknown.sort_unstable();
        missing.sort_unstable();
        if !unknown.is_empty() {
            return bad(format!("tensors that the model does not have: {}", listed(&unknown)));
        }
        if !missing.is_empty() {
            return bad(format!("tensors of the model are missing: {}", listed(&missing)));
        }
        for (name, (shape, own)) in &mut self.tensors {
            let view = &given[name];
            if view.shape() != &shape[..] {
                return bad(format!(
                    "tensor {name} has the shape {:?}, but that of the model has {shape:?}",
                    view.shape()
                ));
            }
            let Some(values) = values(view) else {
                return bad(format!(
                    "tensor {name} has the type {:?}; use floats of 16, 32 or 64 bits",
                    view.dtype()
                ));
            };
            if values.iter().any(|value| !value.is_finite()) {
                return bad(format!(
                    "tensor {name} has a value that is not finite as 32-bit float"
                ));
            }
            *own = values;
        }
        place.clone_into(&mut self.place);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use safetensors::serialize;

    use super::*;
    use crate::device::Device;
    use crate::model::{Purpose, bundled, load_bytes, save};

    type Tensors = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

    fn tensors(model: &LoadedModel, prefix: &str) -> Tensors {
        let each = model.tensors.iter().map(|(name, (shape, values))| {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (format!("{prefix}{name}"), Dtype::F32, shape.clone(), bytes)
        });
        each.collect()
    }

    fn file(tensors: &Tensors) -> Vec<u8> {
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        serialize(views, None).unwrap()
    }

    fn import(bytes: &[u8]) -> Result<LoadedModel> {
        bundled("denoise").unwrap().with_state_dict(bytes, "state.safetensors")
    }

    #[test]
    fn a_model_takes_the_values_of_a_state_dict() {
        let mut base = bundled("denoise").unwrap();
        for prefix in ["", "layers.", "module.layers."] {
            let read = import(&file(&tensors(&base, prefix))).unwrap();
            assert_eq!(read.tensors, base.tensors);
        }
        // Other values, one tensor in half precision.
        let name = base.tensors.keys().min().unwrap().clone();
        base.tensors.get_mut(&name).unwrap().1.iter_mut().for_each(|value| *value = 0.375);
        let mut all = tensors(&base, "layers.");
        let one = all.iter_mut().find(|(own, ..)| own.ends_with(&name)).unwrap();
        one.1 = Dtype::F16;
        one.3 = one.3.chunks_exact(4).flat_map(|_| f16::from_f32(0.375).to_le_bytes()).collect();
        let read = import(&file(&all)).unwrap();
        assert_eq!(read.tensors, base.tensors);
        assert_ne!(read.tensors, bundled("denoise").unwrap().tensors);
        let mut device = Device::cpu();
        let store = read.place(&mut device, &read.graph, Purpose::Infer).unwrap();
        let path = std::env::temp_dir().join(format!("csae-state-{}", std::process::id()));
        save(&path, &mut device, &read.graph, &store).unwrap();
        let written = load_bytes(&std::fs::read(&path).unwrap(), "written").unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(written.tensors, base.tensors);
        assert_eq!(written.graph.spec, base.graph.spec);
    }

    #[test]
    fn a_state_dict_of_another_model_is_refused() {
        let base = bundled("denoise").unwrap();
        let refused = |change: &dyn Fn(&mut Tensors)| {
            let mut all = tensors(&base, "layers.");
            all.sort();
            change(&mut all);
            import(&file(&all)).unwrap_err().to_string()
        };
        let has = |text: String, part: &str| assert!(text.contains(part), "{text}");
        has(refused(&|all| drop(all.pop())), "are missing: ");
        has(refused(&|all| all[0].0 = "layers.other".to_owned()), "does not have: layers.other");
        let flat = |all: &mut Tensors| {
            let one = all.iter_mut().find(|(.., shape, _)| shape.len() > 1).unwrap();
            one.2 = vec![one.2.iter().product()];
        };
        has(refused(&flat), "but that of the model has [");
        has(refused(&|all| all[0].1 = Dtype::I32), "has the type I32");
        has(refused(&|all| all[0].3[..4].copy_from_slice(&f32::NAN.to_le_bytes())), "not finite");
        let text = |bytes: &[u8]| import(bytes).unwrap_err().to_string();
        has(text(b"PK\x03\x04"), "a pickle of PyTorch; write safetensors");
        has(text(b"text"), "not a safetensors file");
    }
}
