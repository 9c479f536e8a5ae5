//! `csae keys`: lists the keys of a configuration.

use clap::Args;
use serde_json::json;

use super::{CommandArgs, Common};
use crate::bail_usage;
use crate::error::{Result, did_you_mean};
use crate::spec::keys::{self, Key, find, keys, meant};

/// List the keys of a configuration: meaning, values, default.
///
/// A key is set in a configuration file (`csae train --config`) or by --set KEY=VALUE. The keys of
/// layers are set as model.layers.LAYER.KEY, where LAYER is the name of a layer.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae keys
  csae keys batch
  csae keys optimizer.
  csae keys --schema > csae.schema.json

An editor with taplo (Even Better TOML) completes and checks a file that begins with the line
  #:schema ./csae.schema.json")]
pub struct KeysArgs {
    /// Only keys whose name, meaning, values or layers contain this [default: all]
    word: Option<String>,
    /// Print the JSON Schema of a configuration
    #[arg(long, conflicts_with_all = ["word", "markdown", "json"])]
    schema: bool,
    /// Print Markdown tables
    #[arg(long, conflicts_with_all = ["word", "json"])]
    markdown: bool,
    #[command(flatten)]
    common: Common,
}

impl CommandArgs for KeysArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        false
    }

    fn run(self) -> anyhow::Result<()> {
        Ok(run(&self)?)
    }
}

fn run(args: &KeysArgs) -> Result<()> {
    if args.schema {
        outln!("{:#}", keys::schema());
        return Ok(());
    }
    if args.markdown {
        super::out_raw(keys::markdown().as_bytes());
        return Ok(());
    }
    let found = match &args.word {
        Some(word) => matching(word)?,
        None => keys().collect(),
    };
    for key in found {
        if args.common.json {
            outln!("{}", as_json(key));
        } else {
            print(key);
        }
    }
    Ok(())
}

/// The keys that a word finds: a key with this path alone; or the keys that it means, and then all
/// others that contain it.
fn matching(word: &str) -> Result<Vec<&'static Key>> {
    if let Some(key) = find(word) {
        return Ok(vec![key]);
    }
    let mut found = meant(word);
    let others: Vec<&Key> =
        keys().filter(|key| key.matches(word) && !found.contains(key)).collect();
    found.extend(others);
    if found.is_empty() {
        let names: Vec<String> =
            keys().flat_map(|key| [key.path(), key.own_name().to_owned()]).collect();
        bail_usage!(
            "no key has {word:?} in its name or meaning{}; `csae keys` lists all",
            did_you_mean(word, names.iter().map(String::as_str))
        );
    }
    Ok(found)
}

fn print(key: &Key) {
    outln!("{}", key.path());
    outln!("    {}", key.about);
    outln!("    {}; default {}", key.values.words(), key.default_words());
    if key.is_of_layer() {
        outln!("    layers: {}", key.ops_words());
    }
}

fn as_json(key: &Key) -> serde_json::Value {
    json!({
        "kind": "key",
        "key": key.path(),
        "values": key.values.words(),
        "default": key.default_words(),
        "about": key.about,
        "layers": key.ops
    })
}
