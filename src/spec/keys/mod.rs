//! The keys of a configuration: what each accepts, its default and its meaning. The list of `csae
//! keys`, its Markdown and the JSON Schema for editors are made from these tables.

mod aliases;
mod schema;
mod tables;

use std::sync::LazyLock;

pub use aliases::meant;
pub use schema::schema;

use crate::model::LayerOp;
use crate::model::keys::{self as values, KeyEntry};
pub use crate::model::keys::{Bounds, Unwritten, Values};
use crate::model::layers;

/// A key of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The name, with its tables: `train.batch`. The keys of a layer have only their own name.
    pub name: &'static str,
    /// What it accepts.
    pub values: Values,
    /// The value of a key that is not written.
    pub default: Unwritten,
    /// The meaning, in one line.
    pub about: &'static str,
    /// The operations of layers that have the key. Empty for keys of tables.
    pub ops: Vec<&'static str>,
}

impl Key {
    fn new(entry: &KeyEntry, ops: &[&'static str]) -> Self {
        let KeyEntry { name, values, default, about } = *entry;
        Self { name, values, default, about, ops: ops.to_vec() }
    }

    /// Whether it has the description of an entry.
    fn is(&self, entry: &KeyEntry) -> bool {
        let Self { name, values, default, about, .. } = *self;
        KeyEntry { name, values, default, about } == *entry
    }

    /// Whether it is a key of layers.
    pub fn is_of_layer(&self) -> bool {
        !self.ops.is_empty()
    }

    /// The name as it is written in an override: `train.batch`, `model.layers.LAYER.units`.
    pub fn path(&self) -> String {
        if self.is_of_layer() {
            format!("model.layers.LAYER.{}", self.name)
        } else {
            self.name.to_owned()
        }
    }

    /// The table that the key is in; empty for the top of the file.
    pub fn table(&self) -> &'static str {
        if self.is_of_layer() {
            return "model.layers";
        }
        self.name.rsplit_once('.').map_or("", |(table, _)| table)
    }

    /// The name without its tables.
    pub fn own_name(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, name)| name)
    }

    /// The default in words: `128`, `required`, `none: the last layer`.
    pub fn default_words(&self) -> String {
        match self.default {
            Unwritten::Is(value) => value.to_owned(),
            Unwritten::Required => "required".to_owned(),
            Unwritten::Without(what) => format!("none: {what}"),
        }
    }

    /// The operations of layers that have the key, in words; empty for keys of tables.
    pub fn ops_words(&self) -> String {
        if self.ops == LayerOp::NAMES { "every layer".to_owned() } else { self.ops.join(", ") }
    }

    /// Whether the name, the meaning, the values or the layers contain a word, ignoring case.
    pub fn matches(&self, word: &str) -> bool {
        let words = [self.path(), self.values.words(), self.ops.join(" ")];
        let texts = words.iter().map(String::as_str).chain([self.about]);
        let word = word.to_lowercase();
        texts.into_iter().any(|text| text.to_lowercase().contains(&word))
    }
}

/// All keys. Keys of several layers with the same description are one.
static ALL: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut all: Vec<Key> = tables::KEYS.iter().map(|entry| Key::new(entry, &[])).collect();
    all.extend(tables::OF_LAYERS.iter().map(|entry| Key::new(entry, LayerOp::NAMES)));
    for (op, entries) in layers::KEYS {
        for entry in *entries {
            match all.iter_mut().find(|key| key.is_of_layer() && key.is(entry)) {
                Some(key) => key.ops.push(op),
                None => all.push(Key::new(entry, &[op])),
            }
        }
    }
    all
});

/// Every key, in the order of the tables of a configuration.
pub fn keys() -> impl Iterator<Item = &'static Key> + Clone {
    ALL.iter()
}

/// The key of a name with its tables. For keys of layers, `model.layers.LAYER.units` for any layer.
pub fn find(path: &str) -> Option<&'static Key> {
    let of_layer = path.strip_prefix("model.layers.").and_then(|rest| rest.rsplit_once('.'));
    keys().find(|key| match of_layer {
        Some((_, name)) => key.is_of_layer() && key.name == name,
        None => !key.is_of_layer() && key.name == path,
    })
}

/// The tables, in their order: the empty name is the top of the file.
pub fn table_names() -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for key in keys() {
        if !names.contains(&key.table()) {
            names.push(key.table());
        }
    }
    names
}

/// All keys as Markdown, a table for each table of a configuration.
pub fn markdown() -> String {
    let mut text = String::new();
    let cell = |text: &str| text.replace('|', "\\|");
    for table in table_names() {
        let (title, more) = match table {
            "" => ("Top of the file".to_owned(), ""),
            "model.layers" => ("`[[model.layers]]`".to_owned(), " Layers |"),
            name => (format!("`[{name}]`"), ""),
        };
        let rule = if more.is_empty() { "" } else { "---|" };
        text += &format!("### {title}\n\n| Key | Values | Default | Meaning |{more}\n");
        text += &format!("|---|---|---|---|{rule}\n");
        for key in keys().filter(|key| key.table() == table) {
            let ops =
                if more.is_empty() { String::new() } else { format!(" {} |", key.ops_words()) };
            text += &format!(
                "| `{}` | {} | {} | {} |{ops}\n",
                key.own_name(),
                cell(&key.values.words()),
                cell(&key.default_words()),
                cell(key.about)
            );
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
