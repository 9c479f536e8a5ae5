//! The configuration of a model. The options of each layer are in `model/layers/`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::corruption::CorruptionSpec;
use super::layers::LayerOp;
use crate::data::{LogMel, Normalization};

/// A model: a graph of layers from an image through a code to a reconstruction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Input size [channels, height, width]. The default is the size of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<[usize; 3]>,
    /// Name of the layer whose output is the code.
    pub code: String,
    /// Name of the layer whose output is the reconstruction. The default is the last layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Name of the layer whose output is the reconstruction target. The default is the input. No
    /// layer that it depends on may have learned parameters, or the target would move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The layers in topological order: each comes after the layers that it reads.
    pub layers: Vec<LayerSpec>,
    /// Class names of a classifier, in the order of its output logits; empty for other models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// How training read label images, for a segmenter. Training records it here.
    #[serde(default, skip_serializing_if = "LabelReading::is_default")]
    pub labels: LabelReading,
    /// The corruption that the model was trained to undo. Training records it here.
    #[serde(default, skip_serializing_if = "CorruptionSpec::is_none")]
    pub undoes: CorruptionSpec,
    /// The normalization of the channels. Training records it here; without it, the full range of
    /// integers is 0…1, and floats are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
    /// How recordings become images. Training records it here; without it, they are signals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spectrogram: Option<LogMel>,
}

impl ModelSpec {
    /// Maps values of the model's input or output (…,C) to 0…1, for pictures: the range of each
    /// channel in training, if the model has a normalization; otherwise they are kept.
    pub fn to_unit(&self, values: &mut [f32]) {
        if let Some(normalization) = &self.normalization {
            normalization.to_unit(values);
        }
    }
}

/// How the numbers of label images are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LabelReading {
    /// Whether they are numbers of objects: 0 is the background, all others are the foreground.
    pub instances: bool,
    /// The number of pixels that are ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore: Option<u16>,
}

impl LabelReading {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A layer of a model: `[[model.layers]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// Unique name. Parameters are named after it: `{name}.weight`.
    pub name: String,
    /// Names of the layers that it reads; `input` is the image. Empty: the layer before.
    pub from: Vec<String>,
    /// Whether training leaves its parameters unchanged.
    pub frozen: bool,
    /// The operation and its options.
    pub op: LayerOp,
}

impl LayerSpec {
    /// A layer that is not frozen. An empty `from` reads the layer before.
    pub fn new(name: &str, from: Vec<String>, op: LayerOp) -> Self {
        Self { name: name.to_owned(), from, frozen: false, op }
    }

    /// Whether the graph node called `name` comes from this layer. `lista` expands to several
    /// nodes called `{layer}.…`; every other layer is one node.
    pub fn defines(&self, name: &str) -> bool {
        let is_part = || name.strip_prefix(&self.name).is_some_and(|rest| rest.starts_with('.'));
        name == self.name || matches!(self.op, LayerOp::Lista(_)) && is_part()
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

/// The layers that have a spelling for signals, such as `conv1d`: images of one row.
const ONE_DIMENSIONAL: [(&str, &str); 7] = [
    ("conv1d", "conv2d"),
    ("conv_transpose1d", "conv_transpose2d"),
    ("max_pool1d", "max_pool2d"),
    ("max_unpool1d", "max_unpool2d"),
    ("avg_pool1d", "avg_pool2d"),
    ("l2_pool1d", "l2_pool2d"),
    ("upsample_nearest1d", "upsample_nearest2d"),
];

/// The spelling of a layer for signals, such as `conv1d` for `conv2d`.
pub(crate) fn spelling_for_signals(op: &str) -> Option<&'static str> {
    ONE_DIMENSIONAL.iter().find(|(_, name)| *name == op).map(|(spelling, _)| *spelling)
}

/// Replaces the spelling of a layer for signals by its name, and sizes n along the signal by
/// [1, n], or [0, n] for paddings. Everything else stays as it is.
fn one_dimensional(op: String, mut table: Map<String, Value>) -> (String, Map<String, Value>) {
    let Some((_, name)) = ONE_DIMENSIONAL.iter().find(|(spelling, _)| *spelling == op) else {
        return (op, table);
    };
    for (key, row) in [
        ("kernel", 1),
        ("stride", 1),
        ("dilation", 1),
        ("scale", 1),
        ("padding", 0),
        ("output_padding", 0),
    ] {
        if let Some(value) = table.get_mut(key)
            && value.is_number()
        {
            *value = Value::from(vec![Value::from(row), value.take()]);
        }
    }
    ((*name).to_owned(), table)
}

impl<'de> Deserialize<'de> for LayerSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = Map::deserialize(deserializer)?;
        let mut text = |key: &str| match table.remove(key) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            Some(other) => Err(D::Error::custom(format!("layer: {key} = {other} is not a name"))),
            None => Err(D::Error::custom(format!(
                "a layer has no {key}: every [[model.layers]] needs a name and an op"
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
                    "layer {name}: frozen = {other}: use true or false"
                )));
            }
        };
        let (op, table) = one_dimensional(op, table);
        let op = LayerOp::from_keys(&op, Value::Object(table))
            .map_err(|error| D::Error::custom(format!("layer {name}: {error}")))?;
        Ok(Self { name, from, frozen, op })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(text: &str) -> LayerSpec {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn layers_of_signals_are_those_of_images_of_one_row() {
        let one = r#"{"name": "a", "op": "conv1d", "filters": 4, "kernel": 9, "stride": 2,
            "padding": 4, "dilation": 3}"#;
        let two = r#"{"name": "a", "op": "conv2d", "filters": 4, "kernel": [1, 9],
            "stride": [1, 2], "padding": [0, 4], "dilation": [1, 3]}"#;
        assert_eq!(layer(one), layer(two));
        let same = r#"{"name": "a", "op": "conv1d", "filters": 4, "kernel": 9, "padding": "same"}"#;
        let LayerOp::Conv2d(spec) = layer(same).op else { panic!("another layer") };
        assert_eq!(spec.kernel.0, [1, 9]);
        let up = layer(r#"{"name": "a", "op": "upsample_nearest1d", "scale": 3}"#);
        assert_eq!(up, layer(r#"{"name": "a", "op": "upsample_nearest2d", "scale": [1, 3]}"#));
        // Every spelling is one of a layer that exists.
        for (_, name) in ONE_DIMENSIONAL {
            assert!(LayerOp::NAMES.contains(&name), "{name}");
        }
    }
}
