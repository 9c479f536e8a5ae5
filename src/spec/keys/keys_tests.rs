//! Every key of the tables is checked against the parser: that it exists, that no key is missing,
//! and that its default and its range are the real ones.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::schema::value_of;
use super::*;
use crate::model::{Graph, LayerOp};
use crate::shape::Dims;
use crate::spec::Config;

/// A model that every table can stand beside.
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

/// What a key needs beside it to have its effect, as overrides.
fn beside(key: &str) -> Vec<String> {
    let needs: &[&str] = match key {
        "schedule.every_epochs" => &["schedule.kind=step"],
        "corruption.missing" => &["corruption.masks=[\"pixels\"]"],
        "corruption.masks" => &["corruption.missing=[0.1, 0.2]"],
        _ => &[],
    };
    needs.iter().map(|need| (*need).to_owned()).collect()
}

fn parse(key: &str, value: &str) -> crate::error::Result<Config> {
    let mut overrides = beside(key);
    overrides.push(format!("{key}={value}"));
    Config::parse(MODEL, "test", &overrides)
}

/// The names that an error of serde quotes behind "expected".
fn expected(message: &str) -> BTreeSet<String> {
    let (_, list) = message.split_once("expected").unwrap_or_default();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn of_tables() -> impl Iterator<Item = &'static Key> {
    keys().filter(|key| !key.is_of_layer())
}

/// The names in a table: of its keys, and of the tables inside it.
fn names_in(table: &str) -> BTreeSet<String> {
    let prefix = if table.is_empty() { String::new() } else { format!("{table}.") };
    let names = of_tables().filter_map(|key| key.name.strip_prefix(&prefix));
    names.map(|name| name.split('.').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_tables_have_exactly_the_keys_that_the_parser_accepts() {
    let tables = table_names();
    assert!(tables.len() > 12, "{tables:?}");
    for table in tables.into_iter().filter(|table| *table != "model.layers") {
        let key = if table.is_empty() { "zzz".to_owned() } else { format!("{table}.zzz") };
        let message = parse(&key, "1").unwrap_err().to_string();
        assert!(message.contains("unknown field `zzz`"), "{table}: {message}");
        assert_eq!(names_in(table), expected(&message), "[{table}]");
    }
    // The table of a key whose value is a table.
    let message = parse("model.undoes.zzz", "1").unwrap_err().to_string();
    assert_eq!(names_in("corruption"), expected(&message));
}

#[test]
fn the_layers_have_exactly_the_keys_that_the_parser_accepts() {
    let common = ["name", "op", "from", "frozen"];
    for op in LayerOp::NAMES {
        let error = LayerOp::from_keys(op, json!({"zzz": 1})).unwrap_err().to_string();
        assert!(error.contains("unknown field `zzz`"), "{op}: {error}");
        let names: BTreeSet<String> = keys()
            .filter(|key| key.ops.contains(op) && !common.contains(&key.name))
            .map(|key| key.name.to_owned())
            .collect();
        assert_eq!(names, expected(&error), "{op}");
    }
    let unknown = keys().flat_map(|key| key.ops.clone()).find(|op| !LayerOp::NAMES.contains(op));
    assert_eq!(unknown, None);
}

#[test]
fn no_key_is_listed_twice() {
    let mut seen = BTreeSet::new();
    for key in keys() {
        let ops = if key.is_of_layer() { key.ops.clone() } else { vec![""] };
        for op in ops {
            assert!(seen.insert((key.name, op)), "{} {op}", key.name);
        }
    }
}

#[test]
fn defaults_of_tables_are_the_real_ones() {
    for key in of_tables() {
        let table = key.table().split('.').next().unwrap_or_default();
        let head = ["classify", "segment", "detect", "prior"].contains(&table);
        // An empty table of a head is written, so that the run has the head.
        let text = if head { format!("{MODEL}\n[{table}]\n") } else { MODEL.to_owned() };
        let without = Config::parse(&text, "test", &[]).unwrap();
        match key.default {
            Unwritten::Is(value) => {
                let set = [format!("{}={value}", key.name)];
                let with = Config::parse(&text, "test", &set);
                assert_eq!(with.map_err(|error| error.to_string()), Ok(without), "{}", key.name);
            }
            Unwritten::Required => {
                assert!(["model.code", "model.layers"].contains(&key.name), "{}", key.name);
                let mut table: toml::Table = MODEL.parse().unwrap();
                table["model"].as_table_mut().unwrap().remove(key.own_name());
                let error = Config::parse(&table.to_string(), "test", &[]).unwrap_err();
                assert!(error.to_string().contains("missing field"), "{error}");
            }
            Unwritten::Without(what) => {
                let value = serde_json::to_value(&without).unwrap();
                let pointer = format!("/{}", key.name.replace('.', "/"));
                assert_eq!(value.pointer(&pointer), None, "{} ({what})", key.name);
            }
        }
    }
    // The comparison notices another default.
    let without = Config::parse(MODEL, "test", &[]).unwrap();
    assert_ne!(parse("train.keep", "2").unwrap(), without);
}

/// Values inside and outside of what a key accepts, as TOML.
fn samples(values: &Values) -> (Vec<String>, Vec<String>) {
    const STEP: f64 = 1e-6;
    let bounds = |b: Bounds| {
        let mut inside = vec![if b.above { b.min + STEP } else { b.min }];
        let mut outside = vec![if b.above { b.min } else { b.min - STEP }];
        if b.max.is_finite() {
            inside.push(if b.below { b.max - STEP } else { b.max });
            outside.push(if b.below { b.max } else { b.max + STEP });
        } else {
            inside.push(1e6);
        }
        (inside, outside)
    };
    let texts = |all: Vec<f64>| all.iter().map(|x| format!("{x:e}")).collect::<Vec<_>>();
    let own = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let whole = |min: u64, max: u64| {
        let mut outside = vec![i128::from(min) - 1];
        if max != values::MAX_WHOLE {
            outside.push(i128::from(max) + 1);
        }
        let max = if max == values::MAX_WHOLE { min + 1 } else { max };
        let write = |all: &[i128]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        (write(&[i128::from(min), i128::from(max)]), write(&outside))
    };
    let in_list = |(inside, outside): (Vec<String>, Vec<String>), copies: usize| {
        let list = |all: Vec<String>| -> Vec<String> {
            all.iter().map(|one| format!("[{}]", vec![one.as_str(); copies].join(", "))).collect()
        };
        (list(inside), list(outside))
    };
    let (mut inside, mut outside) = match *values {
        Values::Text => (own(&["\"x\""]), own(&["3", "true"])),
        Values::Texts => (own(&["[]", "[\"x\", \"y\"]"]), own(&["3", "[3]"])),
        Values::Flag => (own(&["true", "false"]), own(&["1", "\"yes\""])),
        Values::Choice(names) | Values::Choices(names) => {
            let quoted = names.iter().map(|name| format!("\"{name}\"")).collect();
            (quoted, own(&["\"zzz\"", "3"]))
        }
        Values::Number(b) | Values::TwoNumbers(b) => {
            let (inside, outside) = bounds(b);
            (texts(inside), texts(outside))
        }
        Values::Whole(min, max) | Values::Wholes(min, max) => whole(min, max),
        Values::Dims => (own(&["[1, 8, 8]"]), own(&["[1, 8]", "3", "[0, 8, 8]"])),
        Values::Size(min) => whole(min, values::MAX_SIDE),
        Values::Padding => {
            (own(&["0", "1", "[1, 1]", "\"same\""]), own(&["-1", "65537", "\"some\""]))
        }
        Values::Filters => (own(&["1", "\"input\""]), own(&["0", "1048577", "\"output\""])),
        Values::Activation => (
            own(&["\"relu\"", "{ kind = \"leaky_relu\", slope = 0.1 }"]),
            own(&["\"zzz\"", "3", "{ kind = \"relu\", zzz = 1 }"]),
        ),
        Values::Layers | Values::Corruption | Values::Normalization | Values::Spectrogram => {
            (own(&[]), own(&["3"]))
        }
        Values::Frequencies => (own(&["[0, 1]", "[50.5, 8000]"]), own(&["3", "[1]", "[-1, 1]"])),
        Values::Layout => (own(&["\"NCHW\"", "\"NCL\""]), own(&["3", "\"NC\""])),
        Values::Range => (own(&["[0, 1]", "[-5.5, 7.25]"]), own(&["3", "[1]", "[1, 1]"])),
    };
    match *values {
        Values::Choices(_) | Values::Wholes(..) => {
            (inside, outside) = in_list((inside, outside), 1);
        }
        Values::TwoNumbers(_) => (inside, outside) = in_list((inside, outside), 2),
        _ => {}
    }
    if !matches!(values, Values::Text) {
        outside.push("\"zzz zzz\"".to_owned());
    }
    outside.push("{ zzz = 1 }".to_owned());
    (inside, outside)
}

/// Keys of tables whose values are names of layers, or are checked only beside other data.
const NAMES_OF_LAYERS: &[&str] = &["model.input"];

#[test]
fn values_of_tables_are_accepted_inside_their_range_only() {
    for key in of_tables().filter(|key| !NAMES_OF_LAYERS.contains(&key.name)) {
        let (inside, outside) = samples(&key.values);
        for value in inside {
            let error = parse(key.name, &value).err().map(|error| error.to_string());
            // A dead key is no reason to refuse its values.
            assert_eq!(error, None, "{}={value}", key.name);
        }
        for value in outside {
            assert!(parse(key.name, &value).is_err(), "{}={value} is accepted", key.name);
        }
    }
}

/// The names that the parser accepts, from its message about another one: behind "use one of", or
/// quoted behind "expected".
fn accepted(message: &str) -> BTreeSet<String> {
    match message.split_once("use one of ") {
        Some((_, list)) => {
            let list = list.split(';').next().unwrap_or_default();
            list.split(", ").map(str::to_owned).collect()
        }
        None => expected(message),
    }
}

#[test]
fn choices_have_exactly_the_names_that_the_parser_accepts() {
    let mut choices = 0;
    for key in keys() {
        let (Values::Choice(names) | Values::Choices(names)) = key.values else { continue };
        let message = if key.name == "op" {
            LayerOp::from_keys("zzz zzz", json!({})).unwrap_err().to_string()
        } else if key.is_of_layer() {
            layer(key.ops[0], key.name, &json!("zzz zzz")).unwrap_err()
        } else {
            let is_list = matches!(key.values, Values::Choices(_));
            let value = if is_list { "[\"zzz zzz\"]" } else { "\"zzz zzz\"" };
            parse(key.name, value).unwrap_err().to_string()
        };
        let names: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(names, accepted(&message), "{}: {message}", key.name);
        choices += 1;
    }
    assert!(choices > 10, "{choices}");
}

/// A layer behind 64 maps of 64x64, with one key set; `Err` if parser or model refuse it.
fn layer(op: &str, name: &str, value: &Value) -> Result<LayerOp, String> {
    let mut table = serde_json::Map::new();
    for key in keys().filter(|key| key.ops.contains(&op) && key.default == Unwritten::Required) {
        let (inside, _) = samples(&key.values);
        table.insert(key.name.to_owned(), value_of(&inside[0]));
    }
    if op == "linear" {
        table.insert("units".to_owned(), json!(3));
    }
    // A kernel that the padding below fits.
    if table.contains_key("kernel") {
        table.insert("kernel".to_owned(), json!(3));
    }
    // One of two keys.
    if ["top_k", "batch_top_k"].contains(&op) && name != "per_position" {
        table.insert("k".to_owned(), json!(3));
    }
    let exclusive = ["shape", "like"];
    if exclusive.contains(&name) {
        table.remove("units");
    }
    for (other, of) in [("switches", "pool"), ("name", "x")] {
        if table.contains_key(other) {
            table.insert(other.to_owned(), json!(of));
        }
    }
    table.remove("name");
    table.remove("op");
    if !name.is_empty() {
        table.insert(name.to_owned(), value.clone());
    }
    let op = LayerOp::from_keys(op, Value::Object(table)).map_err(|error| error.to_string())?;
    let prepares = ["local_contrast", "whiten", "known"].contains(&op.name());
    let mut tree = json!({"code": "x", "layers": [
        {"name": "maps", "op": "conv2d", "filters": 64, "kernel": 1},
        {"name": "pool", "op": "max_pool2d", "kernel": 1},
    ]});
    let mut keys = op.keys().map_err(|error| error.to_string())?;
    (keys["name"], keys["op"]) = (json!("x"), json!(op.name()));
    keys["from"] = match op.name() {
        "add" | "sub" | "concat" => json!(["maps", "pool"]),
        _ if prepares => json!(["input"]),
        _ => json!(["pool"]),
    };
    tree["layers"].as_array_mut().unwrap().push(keys);
    let spec = serde_json::from_value(tree).map_err(|error| error.to_string())?;
    Graph::new(&spec, Dims::new(1, 64, 64)).map_err(|error| error.to_string())?;
    Ok(op)
}

#[test]
fn defaults_of_layers_are_the_real_ones() {
    for key in keys().filter(|key| key.is_of_layer() && !["name", "op", "from"].contains(&key.name))
    {
        for op in key.ops.iter().filter(|_| key.name != "frozen") {
            let without = layer(op, "", &Value::Null).unwrap();
            if let Unwritten::Is(value) = key.default {
                let with = layer(op, key.name, &value_of(value));
                assert_eq!(with, Ok(without.clone()), "{op}: {}", key.name);
            }
            if key.default == Unwritten::Required {
                let keys = without.keys().unwrap();
                let mut rest = keys.as_object().unwrap().clone();
                rest.remove(key.name);
                let error = LayerOp::from_keys(op, Value::Object(rest)).unwrap_err().to_string();
                assert!(error.contains("missing field"), "{op}: {}: {error}", key.name);
            }
        }
    }
    assert_ne!(layer("dropout", "p", &json!(0.5)), layer("dropout", "p", &json!(0.25)));
}

#[test]
fn values_of_layers_are_accepted_inside_their_range_only() {
    for key in keys().filter(|key| key.is_of_layer()) {
        // These are checked with the layers that they name.
        let named = ["name", "op", "from", "frozen", "like", "shape", "switches"];
        for op in key.ops.iter().filter(|_| !named.contains(&key.name)) {
            let (inside, outside) = samples(&key.values);
            for value in inside {
                let json = value_of(&value);
                // The largest kernels are larger than the maps here.
                let is_large = json.as_u64().is_some_and(|value| value > 255)
                    || key.name == "per_position" && json.as_f64().is_some_and(|each| each > 64.0);
                // A kernel of these layers is odd; groups must divide the channels; a dictionary
                // is an initialisation of convolutions.
                let odd = ["lista", "whiten"].contains(op) && key.name == "kernel";
                let is_even = json.as_u64().is_some_and(|value| value % 2 == 0);
                let other =
                    key.name == "init" || key.name == "groups" || key.name == "output_padding";
                if is_large || odd && is_even || other {
                    continue;
                }
                let error = layer(op, key.name, &json).err();
                assert_eq!(error, None, "{op}: {} = {value}", key.name);
            }
            for value in outside {
                let refused = layer(op, key.name, &value_of(&value)).is_err();
                assert!(refused, "{op}: {} = {value} is accepted", key.name);
            }
        }
    }
}

#[test]
fn markdown_has_a_row_for_every_key() {
    let text = markdown();
    let rows = text.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, keys().count());
    assert!(text.contains("| `batch` | a whole number, at least 1 | 128 | Samples"), "{text}");
    for table in ["### `[train]`", "### `[[model.layers]]`", "### Top of the file"] {
        assert!(text.contains(table), "{table}");
    }
}

#[test]
fn keys_are_found_by_their_paths() {
    assert_eq!(find("train.batch").unwrap().default, Unwritten::Is("128"));
    assert_eq!(find("model.layers.encoder.0.units").unwrap().name, "units");
    assert!(find("train.bach").is_none() && find("units").is_none());
    assert!(find("seed").unwrap().matches("RANDOM") && !find("seed").unwrap().matches("batch"));
}
