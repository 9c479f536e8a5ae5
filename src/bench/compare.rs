//! Compares benchmark times with an earlier run of `csae bench --json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::files;
use crate::spec::Precision;

/// Relative change above which a benchmark is reported as slower or faster. Below it, differences
/// between runs on one machine are mostly noise.
pub const NOTABLE: f64 = 0.10;

/// An earlier run.
#[derive(Clone, Debug)]
pub struct Earlier {
    path: PathBuf,
    times: BTreeMap<String, f64>,
    devices: BTreeSet<String>,
}

/// The change of one benchmark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// `compare`
    pub kind: &'static str,
    /// The benchmark.
    pub name: String,
    /// Milliseconds in the earlier run.
    pub then_ms: f64,
    /// Milliseconds in this run.
    pub now_ms: f64,
    /// `now_ms / then_ms`: below 1 is faster.
    pub ratio: f64,
    /// `slower` or `faster` beyond [`NOTABLE`], else `same`.
    pub change: &'static str,
}

/// Name and milliseconds of a line of `csae bench --json`. None for a line without a time.
pub fn timed(line: &Value) -> Option<(String, f64)> {
    let ms = line["ms"].as_f64().filter(|ms| *ms > 0.0)?;
    let name = match line["name"].as_str() {
        Some(name) => name.to_owned(),
        None => step_name(
            line["workload"].as_str()?,
            line["batch"].as_u64()? as usize,
            precision_of(line),
        ),
    };
    Some((name, ms))
}

/// The precision of maps; single precision if the line has none.
fn precision_of(line: &Value) -> Precision {
    serde_json::from_value(line["precision"].clone()).unwrap_or_default()
}

/// Name of the benchmark of a training step.
pub fn step_name(workload: &str, batch: usize, precision: Precision) -> String {
    format!("train_step/{workload}.n{batch}{}", suffix(precision))
}

/// Suffix of the names of benchmarks in half precision.
pub(super) const fn suffix(precision: Precision) -> &'static str {
    if matches!(precision, Precision::F16) { ".f16" } else { "" }
}

impl Earlier {
    /// Reads the output of `csae bench --json > FILE`.
    ///
    /// # Errors
    /// If the file cannot be read or contains no benchmarks.
    pub fn read(path: &Path) -> Result<Self> {
        let text = files::read_text(path).map_err(|error| error.and(Advice::BenchmarkFile))?;
        let mut found =
            Self { path: path.to_owned(), times: BTreeMap::new(), devices: BTreeSet::new() };
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let value: Value = serde_json::from_str(line).map_err(|error| {
                Error::usage(format!(
                    "{}:{}: not a line of JSON ({error}); {}",
                    path.display(),
                    i + 1,
                    Advice::BenchmarkFile
                ))
            })?;
            if let Some((name, ms)) = timed(&value) {
                found.times.insert(name, ms);
                found.devices.extend(value["device"].as_str().map(str::to_owned));
            }
        }
        if found.times.is_empty() {
            return Err(Error::usage(format!(
                "{}: contains no benchmarks; {}",
                path.display(),
                Advice::BenchmarkFile
            )));
        }
        Ok(found)
    }

    /// Checks that the file has at least one of these benchmarks.
    ///
    /// # Errors
    /// If it has none of them.
    pub fn check_contains_any<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<()> {
        if names.into_iter().any(|name| self.times.contains_key(name)) {
            return Ok(());
        }
        let some: Vec<&str> = self.times.keys().take(3).map(String::as_str).collect();
        Err(Error::usage(format!(
            "{}: contains none of these benchmarks, only others ({}, …); run the same benchmarks",
            self.path.display(),
            some.join(", ")
        )))
    }

    /// A note if the file was measured on another device.
    pub fn note(&self, device: &str) -> Option<String> {
        let others: Vec<&str> =
            self.devices.iter().map(String::as_str).filter(|other| *other != device).collect();
        let (path, others_text) = (self.path.display(), others.join(", "));
        (!others.is_empty())
            .then(|| format!("note: {path} was measured on {others_text}, this run on {device}"))
    }

    /// The changes of the benchmarks in both runs, in the order of this run.
    ///
    /// # Errors
    /// If no benchmark is in both.
    pub fn compare(&self, now: &[Value]) -> Result<Vec<Change>> {
        let timed: Vec<(String, f64)> = now.iter().filter_map(timed).collect();
        self.check_contains_any(timed.iter().map(|(name, _)| name.as_str()))?;
        let both =
            timed.into_iter().filter_map(|(name, now)| Some((*self.times.get(&name)?, name, now)));
        Ok(both
            .map(|(then_ms, name, now_ms)| {
                let ratio = now_ms / then_ms;
                let change = match ratio {
                    slower if slower > 1.0 + NOTABLE => "slower",
                    faster if faster < 1.0 / (1.0 + NOTABLE) => "faster",
                    _ => "same",
                };
                Change {
                    kind: "compare",
                    name,
                    then_ms,
                    now_ms,
                    ratio: (ratio * 1e4).round() / 1e4,
                    change,
                }
            })
            .collect())
    }
}

/// Formats the changes as the lines of a table.
pub fn table(changes: &[Change]) -> Vec<String> {
    let width = changes.iter().map(|change| change.name.len()).max().unwrap_or(0).max(9);
    let mut lines = vec![format!(
        "{:<width$}  {:>10}  {:>10}  {:>8}",
        "benchmark", "then ms", "now ms", "now/then"
    )];
    for Change { name, then_ms, now_ms, ratio, change, .. } in changes {
        let flag = if *change == "same" { String::new() } else { format!("  {change}") };
        lines.push(format!("{name:<width$}  {then_ms:>10.3}  {now_ms:>10.3}  {ratio:>8.3}{flag}"));
    }
    let count = |what: &str| changes.iter().filter(|change| change.change == what).count();
    let (slower, faster) = (count("slower"), count("faster"));
    lines.push(format!(
        "{} compared: {slower} slower and {faster} faster by more than {:.0} %",
        changes.len(),
        100.0 * NOTABLE
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_above_ten_percent_are_reported() {
        let then = ["a", "b", "c"].map(|name| (name.to_owned(), 10.0)).into();
        let earlier =
            Earlier { path: "then.json".into(), times: then, devices: ["x".to_owned()].into() };
        let now = [("a", 10.9), ("b", 12.0), ("c", 8.0), ("d", 1.0)]
            .map(|(name, ms)| json!({"name": name, "ms": ms}));
        let changes = earlier.compare(&now).unwrap();
        assert_eq!(
            changes.iter().map(|change| change.change).collect::<Vec<_>>(),
            ["same", "slower", "faster"]
        );
        assert!(table(&changes).last().unwrap().contains("3 compared: 1 slower and 1 faster"));
        assert!(earlier.note("x").is_none() && earlier.note("y").unwrap().contains("x"));
        let error = earlier.compare(&now[3..]).unwrap_err().to_string();
        assert!(error.contains("then.json") && error.contains("none of these"), "{error}");
    }

    #[test]
    fn training_steps_are_named_by_workload_and_batch() {
        let line = json!({"kind": "train_step", "workload": "w1", "batch": 128, "ms": 2.5});
        assert_eq!(timed(&line), Some(("train_step/w1.n128".to_owned(), 2.5)));
        assert_eq!(timed(&json!({"kind": "peak", "gbps": 3.0})), None);
        assert_eq!(timed(&json!({"name": "a", "ms": 0.0})), None);
    }
}
