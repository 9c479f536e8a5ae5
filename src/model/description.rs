//! A model as a user describes it. What each layer takes is beside the layer, in `model/layers/`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::corruption::CorruptionSpec;
use super::layers::LayerOp;

/// A model: a graph of layers from an image to its reconstruction, through a code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Channels, height and width of the input. Left out, the data decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<[usize; 3]>,
    /// Name of the layer whose output is the code.
    pub code: String,
    /// Name of the layer whose output is the reconstruction: the last one unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Name of the layer whose output the reconstruction is to be like: the input unless named.
    /// Nothing that it depends on may be learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The layers, each after those that it reads.
    pub layers: Vec<LayerSpec>,
    /// Of a classifier, the classes' names: the output are their logits, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// What it was trained to undo; a training notes it.
    #[serde(default, skip_serializing_if = "CorruptionSpec::is_none")]
    pub undoes: CorruptionSpec,
}

/// A layer: its name, what it reads, and what it does.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// Name, also of its parameters: `{name}.weight`.
    pub name: String,
    /// Names of the layers that it reads (`input` is the image); empty: the layer before.
    pub from: Vec<String>,
    /// Whether its parameters stay as they are.
    pub frozen: bool,
    /// What it does.
    pub op: LayerOp,
}

impl LayerSpec {
    /// A layer of this name that reads those; none: the layer before.
    pub fn new(name: &str, from: Vec<String>, op: LayerOp) -> Self {
        Self { name: name.to_owned(), from, frozen: false, op }
    }

    /// Whether a layer of a graph is this one, or of those that this one is written out as.
    pub fn defines(&self, name: &str) -> bool {
        let part = || name.strip_prefix(&self.name).is_some_and(|rest| rest.starts_with('.'));
        name == self.name || matches!(self.op, LayerOp::Lista(_)) && part()
    }
}

impl Serialize for LayerSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut table = Map::new();
        table.insert("name".to_owned(), Value::from(self.name.clone()));
        table.insert("op".to_owned(), Value::from(self.op.name()));
        if !self.from.is_empty() {
            table.insert("from".to_owned(), Value::from(self.from.clone()));
        }
        if self.frozen {
            table.insert("frozen".to_owned(), Value::Bool(true));
        }
        if let Value::Object(keys) = self.op.keys().map_err(serde::ser::Error::custom)? {
            table.extend(keys);
        }
        table.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LayerSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = Map::deserialize(deserializer)?;
        let mut text = |key: &str| match table.remove(key) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            Some(other) => Err(D::Error::custom(format!("layer: {key} = {other} is not a name"))),
            None => Err(D::Error::custom(format!(
                "a layer has no {key}: every [[model.layers]] needs name and op"
            ))),
        };
        let (name, op) = (text("name")?, text("op")?);
        let from = match table.remove("from") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(list) => serde_json::from_value(list)
                .map_err(|error| D::Error::custom(format!("layer {name}: from: {error}")))?,
        };
        let frozen = match table.remove("frozen") {
            None => false,
            Some(Value::Bool(frozen)) => frozen,
            Some(other) => {
                return Err(D::Error::custom(format!(
                    "layer {name}: frozen = {other} is neither true nor false"
                )));
            }
        };
        let op = LayerOp::from_keys(&op, Value::Object(table))
            .map_err(|error| D::Error::custom(format!("layer {name}: {error}")))?;
        Ok(Self { name, from, frozen, op })
    }
}
