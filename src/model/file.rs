//! The model file: a safetensors file with every tensor in natural order. The metadata key `csae`
//! holds the architecture as JSON with sorted keys. It contains no paths, times or host names, so
//! that equal models have equal bytes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::f16;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::graph::Graph;
use super::params::ParamRole;
use super::state_dict::values;
use super::store::{Purpose, Store};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files;
use crate::hash::Hash;
use crate::model::{ModelSpec, Task};
use crate::shape::Dims;
use crate::tensor_file::{self, Tensor};

/// Metadata key of the header.
const KEY: &str = "csae";
/// Version of the format.
const FORMAT: u32 = 1;
/// Maximum size of a model file. It guards against reading a wrong file completely into memory.
const MAX_BYTES: u64 = 16 << 30;

#[derive(Serialize, Deserialize)]
struct ModelHeader {
    format: u32,
    /// Hash of the tensors' names, shapes and values. Files without it are not checked.
    #[serde(default)]
    hash: Option<String>,
    model: ModelSpec,
}

/// Hash of the names, shapes and values of tensors, sorted by name.
fn hash<'t, Bytes: AsRef<[u8]>>(
    tensors: impl IntoIterator<Item = (&'t str, &'t [usize], Bytes)>,
) -> String {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    tensors.sort_unstable_by_key(|(name, ..)| *name);
    let add = |hash: Hash, (name, shape, data): (&str, &[usize], Bytes)| {
        let shape: Vec<u8> = shape.iter().flat_map(|side| (*side as u64).to_le_bytes()).collect();
        hash.with(name.as_bytes()).with(&shape).with(data.as_ref())
    };
    format!("{:016x}", tensors.into_iter().fold(Hash::default(), add).value())
}

/// Tensors by name: shape, and values in natural order.
type Tensors = HashMap<String, (Vec<usize>, Vec<f32>)>;

/// Hash of the names, shapes and values of tensors.
fn hash_of(tensors: &Tensors) -> String {
    hash(
        tensors
            .iter()
            .map(|(name, (shape, values))| (name.as_str(), &shape[..], tensor_file::bytes(values))),
    )
}

/// The text of a header. A `Value` sorts its keys, so that equal models have equal bytes.
fn header(model: &ModelSpec, hash: String) -> String {
    let header = ModelHeader { format: FORMAT, hash: Some(hash), model: model.clone() };
    serde_json::to_value(&header)
        .and_then(|value| serde_json::to_string(&value))
        .expect("a header is JSON")
}

/// Writes a model file, atomically.
///
/// # Errors
/// When the device fails or the file cannot be written.
pub fn save(path: &Path, device: &mut Device, graph: &Graph, store: &Store) -> Result<()> {
    content(device, graph, store, |tensors, text| tensor_file::write(path, tensors, KEY, text))
}

/// The bytes of a model file.
///
/// # Errors
/// When the device fails.
pub fn to_bytes(device: &mut Device, graph: &Graph, store: &Store) -> Result<Vec<u8>> {
    content(device, graph, store, |tensors, text| tensor_file::encode(tensors, KEY, text))
}

/// Passes what a model file holds to `write`: its tensors and the text of its header.
fn content<R>(
    device: &mut Device,
    graph: &Graph,
    store: &Store,
    write: impl FnOnce(Vec<Tensor<'_>>, String) -> Result<R>,
) -> Result<R> {
    let all = store.read_all(device, graph)?;
    let hash = hash(all.iter().map(|(param, values)| {
        (param.name.as_str(), &param.shape[..], tensor_file::bytes(values))
    }));
    let tensors = all.iter().map(|(param, values)| Tensor {
        name: &param.name,
        shape: param.shape.clone(),
        values,
    });
    write(tensors.collect(), header(&graph.spec, hash))
}

/// A model read from a file: its graph, and its tensors in natural order.
#[derive(Debug)]
pub struct LoadedModel {
    /// The graph at the input size that the model was trained with.
    pub graph: Graph,
    /// Hash of the names, shapes and values of its tensors.
    pub hash: String,
    /// What a user should know about it, such as that its run has not finished.
    pub note: Option<String>,
    /// The file or bundled model, for errors.
    pub(super) place: String,
    pub(super) tensors: Tensors,
}

impl LoadedModel {
    /// A model of the values of a store in memory order: all parameters, and all states.
    /// `place` names their file in errors.
    ///
    /// # Errors
    /// When their number is not that of the model.
    pub fn of_values(
        graph: Graph,
        place: &str,
        parameters: &[f32],
        states: &[f32],
    ) -> Result<Self> {
        let layout = Store::layout(&graph, Purpose::Infer);
        if (layout.weights.len, layout.state.len) != (parameters.len(), states.len()) {
            return Err(Error::usage(format!(
                "{place}: it has {} parameters and {} states, but the model of its run has {} \
                 and {}; restore the files that the run wrote",
                parameters.len(),
                states.len(),
                layout.weights.len,
                layout.state.len
            )));
        }
        let tensors: HashMap<_, _> = layout
            .unpack_all(&graph, parameters, states)
            .into_iter()
            .map(|(param, values)| (param.name, (param.shape, values)))
            .collect();
        let hash = hash_of(&tensors);
        Ok(Self { graph, hash, note: None, place: place.to_owned(), tensors })
    }

    /// The bytes of a model file, with values of 16 bits or of 32. The former are rounded to the
    /// nearest, and the file has half the size.
    ///
    /// # Errors
    /// When a value is too large for 16 bits.
    pub fn to_bytes(&self, half: bool) -> Result<Vec<u8>> {
        let mut tensors = self.tensors.clone();
        if half {
            for (name, (_, values)) in &mut tensors {
                values.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
                if values.iter().any(|x| !x.is_finite()) {
                    return Err(Error::usage(format!(
                        "{}: tensor {name} has a value above 65504, the largest number of 16 bits",
                        self.place
                    )));
                }
            }
        }
        let text = header(&self.graph.spec, hash_of(&tensors));
        let list = tensors
            .iter()
            .map(|(name, (shape, values))| Tensor { name, shape: shape.clone(), values })
            .collect();
        let encode = if half { tensor_file::encode_half } else { tensor_file::encode };
        encode(list, KEY, text)
    }

    /// Copies every tensor whose name and shape match a parameter or state of `graph` into
    /// `store`. Returns the number copied and the number of parameters and states in `graph`.
    ///
    /// # Errors
    /// When no tensor matches.
    pub fn copy_matching(
        &self,
        device: &mut Device,
        graph: &Graph,
        store: &Store,
    ) -> Result<[usize; 2]> {
        let all = graph.params.iter().enumerate().map(|(i, param)| (param, store.weight(i)));
        let all =
            all.chain(graph.states.iter().enumerate().map(|(i, state)| (state, store.state(i))));
        let mut copied = 0;
        for (param, view) in all {
            let matching = self.tensors.get(&param.name).filter(|(shape, data)| {
                *shape == param.shape && data.iter().all(|value| value.is_finite())
            });
            if let Some((_, data)) = matching {
                device.write(view, &param.pack(data));
                copied += 1;
            }
        }
        if copied == 0 {
            return Err(Error::usage(format!(
                "{}: none of its parameters matches this model by name and shape",
                self.place
            )));
        }
        Ok([copied, graph.params.len() + graph.states.len()])
    }

    /// Copies the tensors that gradients do not learn: whitening filters and states. An untrained
    /// model needs them too.
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

    /// Shape and values of a tensor by name, in natural order.
    pub fn tensor(&self, name: &str) -> Option<(&[usize], &[f32])> {
        self.tensors.get(name).map(|(shape, values)| (&shape[..], &values[..]))
    }

    /// Writes the model's values to a device. `graph` has the same layers; its input size can
    /// differ.
    ///
    /// # Errors
    /// When the device has no memory for them, or a tensor is missing, has another shape or is not
    /// finite.
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

/// The bundled models by name. `assets/models` documents their training data and quality.
const BUNDLED: &[(&str, &[u8])] =
    models!("denoise" "inpaint" "upscale" "dejpeg" "paint-1" "paint-2" "paint-3" "photographs");

/// The bundled model with this name, if there is one: one for each restoration task, three
/// autoencoders for texture synthesis and style transfer, and one of the default preset.
pub fn bundled(name: &str) -> Option<LoadedModel> {
    let (_, bytes) = BUNDLED.iter().find(|(known, _)| *known == name)?;
    Some(load_bytes(bytes, &format!("the bundled model {name}")).expect("a bundled model loads"))
}

/// Names of the bundled models: one for each restoration task, three autoencoders for texture
/// synthesis and style transfer, and one of the default preset.
pub fn bundled_names() -> impl Iterator<Item = &'static str> {
    BUNDLED.iter().map(|(name, _)| *name)
}

/// The bundled model for a restoration task.
pub fn restorer(task: Task) -> LoadedModel {
    bundled(task.name()).expect("each restoration task has a bundled model")
}

/// Reads a model: a file, the last or else the best model in a run folder, or, if the path does not
/// exist, the bundled model with that name.
///
/// # Errors
/// When the file cannot be read or is not a sound model file.
pub fn load(path: &Path) -> Result<LoadedModel> {
    if !path.exists()
        && let Some(loaded) = path.to_str().and_then(bundled)
    {
        return Ok(loaded);
    }
    let inside = if path.is_dir() { Some(model_in(path)?) } else { None };
    let path = inside.as_deref().unwrap_or(path);
    let bad = |what: String| Error::usage(format!("{}: {what}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| Error::io(path, &error))?.len();
    if size > MAX_BYTES {
        return Err(bad(format!(
            "a file of {size} bytes is too large for a model; check that it is one"
        )));
    }
    load_bytes(&files::read(path)?, &path.display().to_string())
}

/// The model file in a folder: the last model of a run, or the best one of an unfinished run.
fn model_in(folder: &Path) -> Result<PathBuf> {
    let names = ["model.safetensors", "best.safetensors"];
    let found = names.map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
    found.ok_or_else(|| {
        Error::usage(format!(
            "{}: No such file, nor best.safetensors; name the folder of a run, or a model file",
            folder.join(names[0]).display()
        ))
    })
}

/// Reads a model from the bytes of a file; `place` names it in errors.
///
/// # Errors
/// When the bytes are not a safetensors file with a csae header of this version, the hash of the
/// values does not match, a tensor has no floats, or the architecture is invalid.
pub fn load_bytes(bytes: &[u8], place: &str) -> Result<LoadedModel> {
    let bad = |what: String| {
        Error::usage(format!("{place}: {what}; name a model written by csae, or a run folder"))
    };
    let (_, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|error| bad(format!("not a model file ({error})")))?;
    let json = metadata.metadata().as_ref().and_then(|map| map.get(KEY));
    let json = json.ok_or_else(|| {
        bad("a safetensors file without the architecture that csae writes".to_owned())
    })?;
    let header: ModelHeader = serde_json::from_str(json)
        .map_err(|error| bad(format!("its architecture cannot be read: {error}")))?;
    if header.format != FORMAT {
        return Err(bad(format!(
            "it has format {}, but this version reads {FORMAT}",
            header.format
        )));
    }
    let [c, h, w] =
        header.model.input.ok_or_else(|| bad("its architecture has no input size".to_owned()))?;
    let graph = Graph::new(&header.model, Dims::new(c, h, w)).map_err(|error| error.at(place))?;
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| bad(format!("not a model file ({error})")))?;
    let views = file.tensors();
    let mut tensors = HashMap::new();
    for (name, view) in views {
        let Some(data) = values(&view) else {
            return Err(bad(format!("tensor {name} has type {:?}, not floats", view.dtype())));
        };
        tensors.insert(name, (view.shape().to_vec(), data));
    }
    let hash = hash_of(&tensors);
    if header.hash.is_some_and(|wanted| wanted != hash) {
        return Err(bad("its values do not match their hash: the file is damaged".to_owned()));
    }
    Ok(LoadedModel { graph, hash, note: None, place: place.to_owned(), tensors })
}
