//! `csae grid`: trains a model for every combination of values.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::compare;
use super::interrupt;
use super::members::{self, EachRun, Member, Training};
use super::{CommandArgs, Common};
use crate::bail_usage;
use crate::error::Result;
use crate::files;
use crate::model::Graph;
use crate::report::history::Kind;
use crate::report::runs::measures;
use crate::spec::{self, Config, Precision};
use crate::train::RunFolder;
use crate::train::data::{self, Prepared};

/// Train a model for every combination of values, and compare the runs.
///
/// --set key=a,b,c tries the values a, b and c; --set key=a sets one value for all runs. Every run
/// is in a folder of its own, named after its values. Finished runs are not trained again, and an
/// interrupted one continues: run the same command again, also with more values. Writes
/// index.html, compare.png and compare.tsv. `csae watch DIR` follows the runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae grid photos/ --set optimizer.lr=0.001,0.003 --set sparsity.lambda=0.1,0.3,1 -o grids/lr
  csae grid digits --set model.layers.code.units=64,128,256 --steps 2000 -o grids/units")]
pub struct GridArgs {
    /// Images to train on
    data: String,
    /// Folder for the runs and the results
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Values of a key of the configuration, comma-separated. Commas in brackets and in quotation
    /// marks are part of a value
    #[arg(long, value_name = "KEY=A,B,…", required = true)]
    set: Vec<String>,
    /// Configuration to start from
    #[arg(
        long,
        value_name = "NAME",
        default_value = spec::DEFAULT_PRESET,
        conflicts_with = "config"
    )]
    preset: String,
    #[command(flatten)]
    each: EachRun,
    #[command(flatten)]
    common: Common,
}

/// Maximum number of runs. More are a mistake in the values.
const MAX_RUNS: usize = 1000;

/// A key and the values to try.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Axis {
    key: String,
    values: Vec<String>,
}

impl Axis {
    /// Reads `key=a,b,c`.
    fn parse(set: &str) -> Result<Self> {
        let Some((key, text)) = set.split_once('=') else {
            bail_usage!("--set {set}: expected key=value,value");
        };
        let (mut values, mut depth, mut quote) = (vec![String::new()], 0_i32, None);
        for letter in text.chars() {
            match letter {
                '"' | '\'' if quote.is_none() => quote = Some(letter),
                _ if quote == Some(letter) => quote = None,
                '[' | '{' if quote.is_none() => depth += 1,
                ']' | '}' if quote.is_none() => depth -= 1,
                ',' if quote.is_none() && depth == 0 => {
                    values.push(String::new());
                    continue;
                }
                _ => {}
            }
            if let Some(value) = values.last_mut() {
                value.push(letter);
            }
        }
        let values: Vec<String> = values.iter().map(|value| value.trim().to_owned()).collect();
        if let Some(i) = values.iter().position(String::is_empty) {
            bail_usage!("--set {set}: value {} is empty; remove a comma", i + 1);
        }
        if let Some(twice) = values.iter().enumerate().find(|(i, v)| values[..*i].contains(v)) {
            bail_usage!("--set {set}: {} is there twice; remove one", twice.1);
        }
        Ok(Self { key: key.trim().to_owned(), values })
    }
}

/// Every combination of values, as `key=value`. The last axis changes fastest.
fn combinations(axes: &[Axis]) -> Vec<Vec<String>> {
    axes.iter().fold(vec![Vec::new()], |all, axis| {
        all.iter()
            .flat_map(|before| {
                axis.values.iter().map(|value| {
                    let mut set = before.clone();
                    set.push(format!("{}={value}", axis.key));
                    set
                })
            })
            .collect()
    })
}

/// The folder name of a combination of the keys that have several values: `lr-0.1_units-24`.
fn folder_name(set: &[String], axes: &[Axis]) -> String {
    let several = |axis: &&Axis| axis.values.len() > 1;
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let keys: Vec<&str> = axes.iter().filter(several).map(|axis| axis.key.as_str()).collect();
    let part = |(set, axis): (&String, &Axis)| {
        let (_, value) = set.split_once('=').unwrap_or_default();
        // The last part of a key names it, unless another key has the same.
        let twice = keys.iter().filter(|key| last(key) == last(&axis.key)).count() > 1;
        let key = if twice { axis.key.clone() } else { last(&axis.key) };
        let plain = |letter: char| {
            if letter.is_ascii_alphanumeric() || "._-".contains(letter) { letter } else { '-' }
        };
        format!("{key}-{value}").chars().map(plain).collect::<String>()
    };
    let parts = set.iter().zip(axes).filter(|(_, axis)| several(axis)).map(part);
    let name = parts.collect::<Vec<_>>().join("_");
    if name.is_empty() { "run".to_owned() } else { name }
}

/// The parts of a configuration that decide which images are prepared.
fn data_of(config: &Config) -> impl PartialEq {
    (
        config.data.clone(),
        config.model.input,
        config.model.normalization.clone(),
        config.model.spectrogram.clone(),
        config.output_range(),
        config.seed,
        config.corruption.clone(),
    )
}

impl CommandArgs for GridArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn run(self) -> anyhow::Result<()> {
        run(&self)
    }
}

fn run(args: &GridArgs) -> anyhow::Result<()> {
    super::outputs::check_folder(&args.out)?;
    let axes = args.set.iter().map(|set| Axis::parse(set)).collect::<Result<Vec<_>>>()?;
    let count: usize = axes.iter().map(|axis| axis.values.len()).product();
    if count > MAX_RUNS {
        return Err(crate::error::Error::usage(format!(
            "--set: {count} combinations of values, more than {MAX_RUNS}; give fewer values"
        ))
        .into());
    }
    let budget = super::budget(args.each.max_memory.as_deref())?;
    let mut shared: Option<(Config, Prepared)> = None;
    let mut members: Vec<Member> = Vec::new();
    // All configurations are checked before the first training begins.
    for set in combinations(&axes) {
        let name = folder_name(&set, &axes);
        let place = |error: crate::error::Error| error.at(&name);
        let base = args.each.base(&args.data, &args.preset, &set);
        let mut config = base.map_err(place)?;
        config.model.undoes = config.corruption.clone();
        if shared.as_ref().is_none_or(|(with, _)| data_of(with) != data_of(&config)) {
            let prepared = data::prepare_within(&config, budget).map_err(place)?;
            shared = Some((config.clone(), prepared));
        }
        let Some((_, prepared)) = &shared else { continue };
        config.model.normalization.clone_from(&prepared.normalization);
        config.model.spectrogram.clone_from(&prepared.spectrogram);
        let graph = Graph::new(&config.model, prepared.dims).map_err(place)?;
        graph.check_autoencoder().map_err(place)?;
        config.model = graph.spec;
        let member = Member { config, folder: RunFolder::at(&args.out.join(&name)) };
        member.check(args.each.force)?;
        if members.iter().any(|other| other.folder.path() == member.folder.path()) {
            return Err(crate::error::Error::usage(format!(
                "--set: two combinations have the folder {name}; write their values differently"
            ))
            .into());
        }
        members.push(member);
    }
    if let Some((_, prepared)) = &shared {
        args.common.status(&format!("data: {}", prepared.description));
        args.common.report_files(&prepared.report);
    }
    files::make_folder(&args.out)?;
    let half = members.iter().any(|member| member.config.train.precision == Precision::F16);
    let mut device = args.common.open_for(if half { Precision::F16 } else { Precision::F32 })?;
    device.limit_memory(budget.all);
    interrupt::watch();
    let training = Training { common: &args.common, budget, force: args.each.force };
    let title = format!("{count} trainings");
    for (i, member) in members.iter().enumerate() {
        let start = Instant::now();
        let with = &member.config;
        if shared.as_ref().is_none_or(|(other, _)| data_of(other) != data_of(with))
            && !member.is_finished()?
        {
            shared = Some((with.clone(), data::prepare_within(with, budget)?));
        }
        let Some((_, prepared)) = &shared else { continue };
        let last = member.train(&training, &mut device, prepared).inspect_err(|_| {
            members::compare_begun(&members.iter().collect::<Vec<_>>(), &args.out, &title);
        })?;
        let name = member.folder.path().file_name().unwrap_or_default().to_string_lossy();
        report(args, (i + 1, members.len()), &name, &last, start.elapsed().as_secs_f64());
    }
    let all: Vec<&Member> = members.iter().collect();
    let (found, written) = members::compare(&all, &args.out, &title)?;
    compare::print(&found, args.common.json);
    let folder = args.out.display();
    if args.common.json {
        outln!("{}", json!({"kind": "files", "folder": folder.to_string(), "files": written}));
    } else {
        args.common.report_written(format_args!("{folder}: {}", written.join(", ")));
    }
    Ok(())
}

/// Prints the last validation of a run.
fn report(args: &GridArgs, (i, of): (usize, usize), name: &str, last: &Value, seconds: f64) {
    if args.common.json {
        outln!("{}", json!({"kind": "member", "name": name, "last": last, "seconds": seconds}));
        return;
    }
    let entry = Kind::parse(&last.to_string()).map(|(_, entry)| entry);
    let results = entry.as_ref().map(measures).unwrap_or_default();
    let results: Vec<String> =
        results.iter().map(|result| format!("{} {}", result.label, result.text)).collect();
    outln!("{i:>2}/{of}  {name}  {}  {seconds:.0} s", results.join("  "));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(sets: &[&str]) -> Vec<Axis> {
        sets.iter().map(|set| Axis::parse(set).unwrap()).collect()
    }

    #[test]
    fn commas_separate_values_outside_of_brackets_and_quotes() {
        let values = |set: &str| Axis::parse(set).unwrap().values;
        assert_eq!(values("a.b=1, 2,3"), ["1", "2", "3"]);
        assert_eq!(values("a=[3,64,64],[3,32,32]"), ["[3,64,64]", "[3,32,32]"]);
        assert_eq!(values("a=\"x,y\",'z,\"'"), ["\"x,y\"", "'z,\"'"]);
        for (set, words) in [("a", "key=value"), ("a=1,,2", "value 2 is empty"), ("a=1,1", "twice")]
        {
            let error = Axis::parse(set).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn the_last_key_changes_fastest() {
        let axes = axes(&["a.lr=1,2", "seed=7", "b=x,y"]);
        let all = combinations(&axes);
        assert_eq!(all.len(), 4);
        assert_eq!(all[1], ["a.lr=1", "seed=7", "b=y"]);
        let names: Vec<String> = all.iter().map(|set| folder_name(set, &axes)).collect();
        assert_eq!(names, ["lr-1_b-x", "lr-1_b-y", "lr-2_b-x", "lr-2_b-y"]);
    }

    #[test]
    fn folder_names_are_plain_and_distinguish_keys() {
        let of = |sets: &[&str]| {
            let axes = axes(sets);
            folder_name(&combinations(&axes)[0], &axes)
        };
        assert_eq!(of(&["a.k=../x,2", "b.k=[1,2],3"]), "a.k-..-x_b.k--1-2-");
        assert_eq!(of(&["a=1"]), "run");
    }
}
