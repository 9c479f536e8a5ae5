//! The presets, and wrong configurations, under the JSON Schema for editors.

use serde_json::Value;

use super::schema;
use crate::spec::{Config, HeadKind, preset_names, preset_text};

/// A configuration that the schema accepts.
const MODEL: &str = r#"
[model]
code = "a"
[[model.layers]]
name = "a"
op = "linear"
units = 3
[[model.layers]]
name = "b"
op = "linear"
like = "input"
"#;

/// Whether a value satisfies a schema with the words that [`schema`] uses.
fn is_valid(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    let fail = |what: &str| Err(format!("{value}: {what} of {schema}"));
    if let Some(place) = schema["$ref"].as_str() {
        let target = root.pointer(place.trim_start_matches('#')).ok_or("no such reference")?;
        return is_valid(value, target, root);
    }
    if let Some(list) = schema["anyOf"].as_array()
        && !list.iter().any(|one| is_valid(value, one, root).is_ok())
    {
        return fail("anyOf");
    }
    if let Some(other) = schema.get("const")
        && other != value
    {
        return fail("const");
    }
    if let Some(list) = schema["enum"].as_array()
        && !list.contains(value)
    {
        return fail("enum");
    }
    let is_type = match schema["type"].as_str() {
        None => true,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some(other) => return Err(format!("unknown type {other}")),
    };
    if !is_type {
        return fail("type");
    }
    let bound = |name: &str| schema[name].as_f64();
    if let Some(x) = value.as_f64() {
        let inside = bound("minimum").is_none_or(|min| x >= min)
            && bound("maximum").is_none_or(|max| x <= max)
            && bound("exclusiveMinimum").is_none_or(|min| x > min)
            && bound("exclusiveMaximum").is_none_or(|max| x < max);
        if !inside {
            return fail("range");
        }
    }
    for item in value.as_array().into_iter().flatten() {
        is_valid(item, &schema["items"], root)?;
    }
    let count = value.as_array().map_or(0, Vec::len) as u64;
    if schema["minItems"].as_u64().is_some_and(|min| count < min)
        || schema["maxItems"].as_u64().is_some_and(|max| count > max)
    {
        return fail("length");
    }
    let Some(table) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !table.contains_key(name.as_str().unwrap_or_default()) {
            return fail("required");
        }
    }
    for (name, value) in table {
        match schema["properties"].get(name) {
            Some(inner) => is_valid(value, inner, root)?,
            None if schema["additionalProperties"] == false => return fail("additionalProperties"),
            None => {}
        }
    }
    Ok(())
}

/// A text of TOML as JSON.
fn json_of(text: &str) -> Value {
    serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap()
}

#[test]
fn every_preset_satisfies_the_schema() {
    let schema = schema();
    let heads = [HeadKind::Classify, HeadKind::Segment, HeadKind::Detect, HeadKind::Prior];
    let heads = heads.map(|head| (head.name(), head.preset().to_owned()));
    for name in preset_names() {
        let text = preset_text(name).unwrap();
        let complete = Config::parse(text, name, &[]).unwrap().to_toml();
        for text in [text.to_owned(), complete] {
            assert_eq!(is_valid(&json_of(&text), &schema, &schema), Ok(()), "{name}");
        }
    }
    for (name, text) in heads {
        assert_eq!(is_valid(&json_of(&text), &schema, &schema), Ok(()), "{name}");
    }
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let schema = schema();
    let base = json_of(MODEL);
    assert_eq!(is_valid(&base, &schema, &schema), Ok(()));
    for text in [
        "[train]\nbatch = 0\n",
        "[train]\nbach = 8\n",
        "[train]\nbatch = 2.5\n",
        "[optimizer]\nkind = \"adm\"\n",
        "[optimizer]\nbetas = [0.9]\n",
        "[optimizer]\nmomentum = 1\n",
        "[data]\nstrict = 1\n",
        "[model]\ncode = \"a\"\nlayers = [{ name = \"a\", op = \"linear\", unit = 3 }]\n",
        "[model]\ncode = \"a\"\nlayers = [{ name = \"a\", op = \"dropout\" }]\n",
        "[model]\nlayers = []\n",
    ] {
        let mut value = base.clone();
        for (name, table) in json_of(text).as_object().unwrap() {
            value[name] = table.clone();
        }
        assert!(is_valid(&value, &schema, &schema).is_err(), "{text}");
    }
}
