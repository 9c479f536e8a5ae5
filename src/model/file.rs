//! The model file: one safetensors file with every tensor in natural order and, under the metadata
//! key `csae`, the architecture as sorted JSON. No paths, times or host names: the same model gives
//! the same bytes.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::graph::Graph;
use super::params::ParamRole;
use super::store::{Purpose, Store};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files;
use crate::hash::Hash;
use crate::shape::Dims;
use crate::spec::{ModelSpec, Task};

const KEY: &str = "csae";
const FORMAT: u32 = 1;
/// A model file larger than this is taken for something else.
const LIMIT: u64 = 16 << 30;

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    /// Of names, shapes and values; absent: not checked.
    #[serde(default)]
    hash: Option<String>,
    model: ModelSpec,
}

/// Hash of tensors, in order of their names.
fn hash<'t>(tensors: impl IntoIterator<Item = (&'t str, &'t [usize], &'t [u8])>) -> String {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    tensors.sort_unstable_by_key(|(name, ..)| *name);
    let add = |hash: Hash, (name, shape, data): (&str, &[usize], &[u8])| {
        let shape: Vec<u8> = shape.iter().flat_map(|side| (*side as u64).to_le_bytes()).collect();
        hash.with(name.as_bytes()).with(&shape).with(data)
    };
    format!("{:016x}", tensors.into_iter().fold(Hash::default(), add).value())
}

/// Writes a model.
pub fn save(path: &Path, device: &mut Device, graph: &Graph, store: &Store) -> Result<()> {
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = store
        .read_all(device, graph)?
        .into_iter()
        .map(|(param, data)| {
            (param.name, param.shape, data.iter().flat_map(|x| x.to_le_bytes()).collect())
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, data)| {
            Ok((name.clone(), TensorView::new(Dtype::F32, shape.clone(), data)?))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
    let hash =
        hash(tensors.iter().map(|(name, shape, data)| (name.as_str(), &shape[..], &data[..])));
    let header = Header { format: FORMAT, hash: Some(hash), model: graph.spec.clone() };
    // Through a `Value`, whose tables are sorted.
    let json = serde_json::to_value(&header)
        .and_then(|value| serde_json::to_string(&value))
        .expect("a description is JSON");
    let bytes = views.and_then(|views| {
        safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), json)])))
    });
    let bytes = bytes.map_err(|error| Error::failed(format!("{}: {error}", path.display())))?;
    files::write_atomically(path, &bytes)
}

/// A model read from a file, with its tensors in natural order.
#[derive(Debug)]
pub struct LoadedModel {
    /// The graph at the size that the model was trained for.
    pub graph: Graph,
    /// Hash of the names, shapes and values of its tensors.
    pub hash: String,
    place: String,
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
}

impl LoadedModel {
    /// Takes over every parameter and state that a graph has by the same name and shape, into
    /// values that are on a device already; says how many of how many.
    ///
    /// # Errors
    /// When there is none.
    pub fn copy_matching(
        &self,
        device: &mut Device,
        graph: &Graph,
        store: &Store,
    ) -> Result<[usize; 2]> {
        let all = graph.params.iter().enumerate().map(|(i, param)| (param, store.weight(i)));
        let all =
            all.chain(graph.states.iter().enumerate().map(|(i, state)| (state, store.state(i))));
        let mut taken = 0;
        for (param, view) in all {
            let fitting = self.tensors.get(&param.name).filter(|(shape, data)| {
                *shape == param.shape && data.iter().all(|value| value.is_finite())
            });
            if let Some((_, data)) = fitting {
                device.write(view, &param.pack(data));
                taken += 1;
            }
        }
        if taken == 0 {
            return Err(Error::usage(format!(
                "{}: no parameter has a name and shape that this model's have",
                self.place
            )));
        }
        Ok([taken, graph.params.len() + graph.states.len()])
    }

    /// Takes over what is not learned by gradients, whose values an untrained model has too: the
    /// filters of whitening layers, and states.
    pub fn copy_fixed(&self, device: &mut Device, graph: &Graph, store: &Store) {
        let fixed =
            graph.params.iter().enumerate().filter(|(_, param)| param.role == ParamRole::Fixed);
        let fixed = fixed.map(|(i, param)| (param, store.weight(i)));
        for (param, view) in
            fixed.chain(graph.states.iter().enumerate().map(|(i, state)| (state, store.state(i))))
        {
            if let Some((_, data)) =
                self.tensors.get(&param.name).filter(|(shape, _)| *shape == param.shape)
            {
                device.write(view, &param.pack(data));
            }
        }
    }

    /// A tensor by its name: shape and values in natural order.
    pub fn tensor(&self, name: &str) -> Option<(&[usize], &[f32])> {
        self.tensors.get(name).map(|(shape, values)| (&shape[..], &values[..]))
    }

    /// Puts the model's values on a device; `graph` may be the same layers at another input size.
    pub fn place(&self, device: &mut Device, graph: &Graph, purpose: Purpose) -> Result<Store> {
        let store = Store::new(device, graph, purpose)?;
        store
            .write_all(device, graph, |name| self.tensors.get(name).cloned())
            .map_err(|error| error.at(&self.place))?;
        Ok(store)
    }
}

macro_rules! models {
    ($($name:literal)*) => {
        &[$(($name, include_bytes!(concat!("../../assets/models/", $name, ".safetensors")))),*]
    };
}

/// The bundled models by name: `assets/models` says what they were trained on and how good they
/// are.
const BUNDLED: &[(&str, &[u8])] =
    models!("denoise" "inpaint" "upscale" "paint-1" "paint-2" "paint-3");

/// The bundled model of a name, if there is one: a task's, or an autoencoder for textures and
/// styles.
pub fn bundled(name: &str) -> Option<LoadedModel> {
    let (_, bytes) = BUNDLED.iter().find(|(known, _)| *known == name)?;
    Some(load_bytes(bytes, &format!("the bundled model {name}")).expect("a bundled model loads"))
}

/// The bundled model for a task.
pub fn restorer(task: Task) -> LoadedModel {
    bundled(task.name()).expect("every task has one")
}

/// Reads a model file, the one in a run folder, or, where there is no such file, a bundled one by
/// its name.
pub fn load(path: &Path) -> Result<LoadedModel> {
    if !path.exists()
        && let Some(loaded) = path.to_str().and_then(bundled)
    {
        return Ok(loaded);
    }
    let inside = path.join("model.safetensors");
    let path = if path.is_dir() { inside.as_path() } else { path };
    let bad = |what: String| Error::usage(format!("{}: {what}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| Error::io(path, &error))?.len();
    if size > LIMIT {
        return Err(bad(format!("{size} bytes are too many for a model")));
    }
    load_bytes(&files::read(path)?, &path.display().to_string())
}

/// Reads a model from a file's bytes; `place` names it in errors.
///
/// # Errors
/// One line about what is wrong with the file.
pub fn load_bytes(bytes: &[u8], place: &str) -> Result<LoadedModel> {
    let bad = |what: String| {
        Error::usage(format!("{place}: {what}; name a model that csae wrote, or a run folder"))
    };
    let (_, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|error| bad(format!("not a model file ({error})")))?;
    let json = metadata.metadata().as_ref().and_then(|map| map.get(KEY));
    let json = json.ok_or_else(|| {
        bad("a safetensors file, but without the architecture that csae writes".to_owned())
    })?;
    let header: Header = serde_json::from_str(json)
        .map_err(|error| bad(format!("its architecture cannot be read: {error}")))?;
    if header.format != FORMAT {
        return Err(bad(format!(
            "format {} is not known to this version, which reads {FORMAT}",
            header.format
        )));
    }
    let [c, h, w] = header
        .model
        .input
        .ok_or_else(|| bad("its architecture lacks the input's size".to_owned()))?;
    let graph = Graph::new(&header.model, Dims::new(c, h, w)).map_err(|error| error.at(place))?;
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| bad(format!("not a model file ({error})")))?;
    let views = file.tensors();
    let hash = hash(views.iter().map(|(name, view)| (name.as_str(), view.shape(), view.data())));
    if header.hash.is_some_and(|wanted| wanted != hash) {
        return Err(bad(
            "its values are not those that were written: the file is damaged".to_owned()
        ));
    }
    let mut tensors = HashMap::new();
    for (name, view) in views {
        if view.dtype() != Dtype::F32 {
            return Err(bad(format!("tensor {name} holds {:?}, models hold F32", view.dtype())));
        }
        let data = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        tensors.insert(name.clone(), (view.shape().to_vec(), data));
    }
    Ok(LoadedModel { graph, hash, place: place.to_owned(), tensors })
}
