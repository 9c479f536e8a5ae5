//! The settings in which runs differ.

use std::collections::{BTreeMap, BTreeSet};

use toml::Value;

/// The settings in a configuration file, by key as users write it: `model.layers.code.units`. Empty
/// if the text is not TOML.
pub fn settings(text: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if let Ok(table) = text.parse::<toml::Table>() {
        collect(String::new(), &Value::Table(table), &mut all);
    }
    all
}

fn collect(key: String, value: &Value, all: &mut BTreeMap<String, String>) {
    let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match value {
        Value::Table(table) => {
            table.iter().for_each(|(name, value)| collect(below(name), value, all));
        }
        Value::Array(values) if values.first().is_some_and(Value::is_table) => {
            for (i, value) in values.iter().enumerate() {
                // Layers have names, by which they can be overridden.
                let name = value.get("name").and_then(Value::as_str);
                collect(below(name.unwrap_or(&i.to_string())), value, all);
            }
        }
        Value::String(text) => {
            all.insert(key, text.clone());
        }
        other => {
            all.insert(key, other.to_string());
        }
    }
}

/// The keys whose values differ between runs, each with the value of every run. `None`: the run
/// does not have the key. A run without settings, which has not begun, does not differ.
pub fn differences(runs: &[&BTreeMap<String, String>]) -> Vec<(String, Vec<Option<String>>)> {
    let keys: BTreeSet<&String> = runs.iter().flat_map(|run| run.keys()).collect();
    let values = |key: &String| runs.iter().map(|run| run.get(key).cloned()).collect::<Vec<_>>();
    let all = keys.into_iter().map(|key| (key.clone(), values(key)));
    all.filter(|(_, values)| {
        let mut begun = values.iter().zip(runs).filter(|(_, run)| !run.is_empty());
        let first = begun.next();
        begun.any(|(value, _)| first.is_some_and(|(first, _)| first != value))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_differ_are_listed() {
        let text = "seed = 1\n[optimizer]\nlr = 0.1\nkind = \"adam\"\n[[model.layers]]\n\
                    name = \"code\"\nunits = 24\n[[model.layers]]\nop = \"linear\"\n";
        let one = settings(text);
        assert_eq!(one["model.layers.code.units"], "24");
        assert_eq!(one["model.layers.1.op"], "linear");
        let other = settings(&text.replace("lr = 0.1", "lr = 0.2").replace("seed = 1\n", ""));
        let found = differences(&[&one, &other, &one]);
        let own = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [
                ("optimizer.lr".to_owned(), vec![own("0.1"), own("0.2"), own("0.1")]),
                ("seed".to_owned(), vec![own("1"), None, own("1")]),
            ]
        );
        assert!(differences(&[&one, &one]).is_empty() && differences(&[&one]).is_empty());
        assert!(differences(&[&one, &settings("")]).is_empty());
        assert!(settings("not = = toml").is_empty());
    }
}
