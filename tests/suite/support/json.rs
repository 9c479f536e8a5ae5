//! JSON that the program writes.

use serde_json::Value;

/// The objects of a text that has one a line.
#[track_caller]
pub fn lines(text: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    text.lines().map(parse).collect()
}

/// The number under a key.
#[track_caller]
pub fn number(object: &Value, key: &str) -> f64 {
    object[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {object}"))
}

/// The numbers under a key, of the objects that have it.
pub fn numbers(objects: &[Value], key: &str) -> Vec<f64> {
    objects.iter().filter_map(|object| object[key].as_f64()).collect()
}

/// The objects of a kind.
pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}
