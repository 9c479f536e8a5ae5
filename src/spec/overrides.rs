//! `--set key=value` overrides, applied to a configuration that is still a tree of JSON values.

use serde_json::Value;

use super::keys::meant;
use crate::error::{Error, Result, did_you_mean};

/// Parses TOML into a tree of JSON values.
///
/// # Errors
/// When the text is not TOML; the message has the line number.
pub fn from_toml(text: &str) -> Result<Value> {
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let message = error.message().trim_end().replace('\n', "; ");
        let line = error
            .span()
            .map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        Error::usage(format!("line {line}: {message}"))
    })?;
    serde_json::to_value(table).map_err(|error| Error::usage(error.to_string()))
}

/// Applies one override `a.b.c=value`. The value is parsed as TOML, or taken as a string if it is
/// not TOML. Array elements are addressed by their `name`: `model.layers.code.units=64`.
///
/// # Errors
/// When there is no `=`, a part of the key is empty or below a plain value, or no layer has the
/// name.
pub fn apply(tree: &mut Value, assignment: &str) -> Result<()> {
    let (path, text) = assignment.split_once('=').ok_or_else(|| {
        Error::usage(format!("override {assignment}: write key=value, such as optimizer.lr=0.01"))
    })?;
    let (path, text) = (path.trim(), text.trim());
    let value = match toml::from_str::<toml::Table>(&format!("v = {text}")) {
        Ok(mut table) => serde_json::to_value(table.remove("v"))
            .map_err(|error| Error::usage(error.to_string()))?,
        Err(_) => Value::from(text),
    };
    let bad = |what: String| Error::usage(format!("override {assignment}: {what}"));
    let mut at = tree;
    let mut rest = path;
    loop {
        if let Value::Array(items) = at {
            let names =
                || items.iter().filter_map(|item| item["name"].as_str()).collect::<Vec<_>>();
            let known = names().join(", ");
            let found = items.iter().position(|item| {
                item["name"].as_str().is_some_and(|name| {
                    rest.strip_prefix(name).is_some_and(|tail| tail.starts_with('.'))
                })
            });
            let index = found.ok_or_else(|| {
                let hint =
                    did_you_mean(rest.rsplit_once('.').map_or(rest, |(layer, _)| layer), names());
                bad(format!("{rest:?} is not LAYER.KEY of a layer; the layers are {known}{hint}"))
            })?;
            rest = &rest[items[index]["name"].as_str().unwrap_or_default().len() + 1..];
            at = &mut items[index];
            continue;
        }
        let (key, tail) =
            rest.split_once('.').map_or((rest, None), |(key, tail)| (key, Some(tail)));
        if key.is_empty() {
            return Err(bad("a part of the key is empty".to_owned()));
        }
        if at.is_null() {
            *at = Value::Object(serde_json::Map::new());
        }
        let table =
            at.as_object_mut().ok_or_else(|| bad(format!("{key:?} is below a plain value")))?;
        let slot = table.entry(key).or_insert(Value::Null);
        match tail {
            None => {
                *slot = value;
                return Ok(());
            }
            Some(tail) => {
                at = slot;
                rest = tail;
            }
        }
    }
}

/// A "did you mean" hint from serde's message about an unknown field, which quotes the unknown
/// name first and then the known ones in backticks. If none of them is similar, the hint names keys
/// of other tables. Empty for other messages.
pub fn hint(message: &str) -> String {
    let mut names = message.split('`').skip(1).step_by(2);
    match names.next() {
        Some(unknown) if message.contains("unknown field `") => {
            let here = did_you_mean(unknown, names);
            let elsewhere: Vec<String> = meant(unknown).iter().map(|key| key.path()).collect();
            if here.is_empty() && !elsewhere.is_empty() {
                format!("; did you mean {}?", elsewhere.join(" or "))
            } else {
                here
            }
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_set_keys_of_layers_and_tables() {
        let mut tree =
            from_toml("seed = 1\n[[model.layers]]\nname = \"encoder.0\"\nfilters = 3\n").unwrap();
        apply(&mut tree, "seed=7").unwrap();
        apply(&mut tree, "optimizer.lr = 1e-2").unwrap();
        apply(&mut tree, "model.layers.encoder.0.filters=16").unwrap();
        apply(&mut tree, "data.source=../some where").unwrap();
        assert_eq!(tree["seed"], 7);
        assert_eq!(tree["optimizer"]["lr"], 0.01);
        assert_eq!(tree["model"]["layers"][0]["filters"], 16);
        assert_eq!(tree["data"]["source"], "../some where");
        assert!(
            apply(&mut tree, "model.layers.decoder.filters=1")
                .unwrap_err()
                .to_string()
                .contains("encoder.0")
        );
        assert!(apply(&mut tree, "seed.deep=1").is_err());
        assert!(apply(&mut tree, "nothing").is_err());
    }
}
