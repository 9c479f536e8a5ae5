//! The JSON Schema of a configuration, for editors (taplo, Even Better TOML).

use serde_json::{Map, Value, json};

use super::values::{MAX_FILTERS, MAX_SIDE, MAX_WHOLE};
use super::{Bounds, Key, Unwritten, Values, keys};
use crate::model::LayerOp;
use crate::model::spelling_for_signals;
use crate::ops::ActivationName;

/// The JSON Schema (draft 7) of a configuration.
pub fn schema() -> Value {
    let mut root = table("");
    root["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    root["title"] = "Configuration of csae".into();
    root["definitions"] = json!({ "corruption": table("corruption") });
    root
}

/// The schema of a table: its keys, and the tables inside it.
fn table(name: &str) -> Value {
    let inside = |key: &&Key| {
        let rest = if name.is_empty() {
            Some(key.name)
        } else {
            key.name.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'))
        };
        rest.filter(|_| !key.is_of_layer())
    };
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in keys() {
        let Some(rest) = inside(&key) else { continue };
        match rest.split_once('.') {
            None => {
                properties.insert(rest.to_owned(), described(key));
                if key.default == Unwritten::Required {
                    required.push(rest);
                }
            }
            Some((inner, _)) if !properties.contains_key(inner) => {
                let path =
                    if name.is_empty() { inner.to_owned() } else { format!("{name}.{inner}") };
                properties.insert(inner.to_owned(), table(&path));
            }
            Some(_) => {}
        }
    }
    object(properties, &required)
}

fn object(properties: Map<String, Value>, required: &[&str]) -> Value {
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false
    })
}

/// The schema of a key, with its meaning and default.
fn described(key: &Key) -> Value {
    let mut schema = of_values(&key.values);
    schema["description"] = key.about.into();
    if let Unwritten::Is(value) = key.default {
        schema["default"] = value_of(value);
    }
    schema
}

/// The JSON of a value that is written as TOML.
pub(super) fn value_of(text: &str) -> Value {
    let table: toml::Table = toml::from_str(&format!("v = {text}")).expect("the default is TOML");
    serde_json::to_value(&table["v"]).expect("TOML is JSON")
}

fn number(bounds: Bounds) -> Value {
    let mut schema = json!({"type": "number"});
    schema[if bounds.above { "exclusiveMinimum" } else { "minimum" }] = bounds.min.into();
    if bounds.max.is_finite() {
        schema[if bounds.below { "exclusiveMaximum" } else { "maximum" }] = bounds.max.into();
    }
    schema
}

fn whole(min: u64, max: u64) -> Value {
    let mut schema = json!({"type": "integer", "minimum": min});
    if max != MAX_WHOLE {
        schema["maximum"] = max.into();
    }
    schema
}

fn list(item: &Value, length: Option<usize>) -> Value {
    let mut schema = json!({"type": "array", "items": item});
    if let Some(length) = length {
        (schema["minItems"], schema["maxItems"]) = (length.into(), length.into());
    }
    schema
}

fn any(schemas: &[Value]) -> Value {
    json!({ "anyOf": schemas })
}

fn of_values(values: &Values) -> Value {
    let size = |min| {
        let side = whole(min, MAX_SIDE);
        [list(&side, Some(2)), side]
    };
    match *values {
        Values::Text => json!({"type": "string"}),
        Values::Texts => list(&json!({"type": "string"}), None),
        Values::Flag => json!({"type": "boolean"}),
        Values::Choice(names) => json!({"type": "string", "enum": names}),
        Values::Choices(names) => list(&json!({"type": "string", "enum": names}), None),
        Values::Number(bounds) => number(bounds),
        Values::TwoNumbers(bounds) => list(&number(bounds), Some(2)),
        Values::Whole(min, max) => whole(min, max),
        Values::Wholes(min, max) => list(&whole(min, max), None),
        Values::Dims => list(&whole(1, MAX_WHOLE), Some(3)),
        Values::Size(min) => any(&size(min)),
        Values::Padding => {
            let [pair, side] = size(0);
            any(&[pair, side, json!({"const": "same"})])
        }
        Values::Filters => any(&[whole(1, MAX_FILTERS), json!({"const": "input"})]),
        Values::Activation => {
            let names = json!({
                "type": "string",
                "enum": ActivationName::names().collect::<Vec<_>>()
            });
            let keys = json!({
                "kind": names, "slope": number(Bounds::from(0.0)), "alpha": number(Bounds::POSITIVE)
            });
            let Value::Object(keys) = keys else { unreachable!("it is written as an object") };
            any(&[names, object(keys, &["kind"])])
        }
        Values::Layers => {
            list(&any(&LayerOp::NAMES.iter().map(|op| layer(op)).collect::<Vec<_>>()), None)
        }
        Values::Corruption => json!({"$ref": "#/definitions/corruption"}),
        Values::Layout => json!({"type": "string"}),
        Values::Range => list(&json!({"type": "number"}), Some(2)),
        Values::Frequencies => list(&json!({"type": "number", "minimum": 0}), Some(2)),
        Values::Spectrogram => {
            let whole = json!({"type": "integer", "minimum": 0});
            let names = ["rate", "window", "hop", "mels", "frames"];
            let mut properties: Map<String, Value> =
                names.into_iter().map(|name| (name.to_owned(), whole.clone())).collect();
            properties.insert("range".to_owned(), list(&json!({"type": "number"}), Some(2)));
            json!({"type": "object", "properties": properties, "additionalProperties": false})
        }
        Values::Normalization => {
            let numbers = list(&json!({"type": "number"}), None);
            let names = ["offset", "divisor", "min", "max"];
            let mut properties: Map<String, Value> =
                names.into_iter().map(|name| (name.to_owned(), numbers.clone())).collect();
            properties.insert("samples".to_owned(), json!({"type": "string"}));
            json!({"type": "object", "properties": properties, "additionalProperties": false})
        }
    }
}

/// The schema of a layer with an operation.
fn layer(op: &str) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in keys().filter(|key| key.ops.contains(&op)) {
        properties.insert(key.name.to_owned(), described(key));
        if key.default == Unwritten::Required {
            required.push(key.name);
        }
    }
    let names = match spelling_for_signals(op) {
        Some(spelling) => json!({"enum": [op, spelling]}),
        None => json!({"const": op}),
    };
    properties.insert("op".to_owned(), names);
    // One name needs no list.
    let one = json!({"type": "string"});
    properties.insert("from".to_owned(), any(&[one.clone(), list(&one, None)]));
    object(properties, &required)
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
