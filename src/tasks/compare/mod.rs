//! Runs side by side: their best validations, their curves, and the settings in which they differ.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::files;
use crate::report::chart;
use crate::report::history::Entry;
use crate::report::picture::Picture;
use crate::report::runs::{
    self, Curves, Measure, PAGE, RunView, State, differences, measures, panels,
};
use crate::tasks::watch;

/// The charts of the runs.
pub const CHART: &str = "compare.png";
/// The results as a table with tab-separated columns.
pub const TABLE: &str = "compare.tsv";
/// Names of all files that a comparison writes.
pub const FILE_NAMES: [&str; 3] = [PAGE, CHART, TABLE];
/// Maximum number of runs in [`CHART`], which has as many colours.
const DRAWN: usize = 6;
/// Maximum number of runs with pictures in the page. More would make it larger than browsers open
/// quickly.
const WITH_PICTURES: usize = 8;

/// The validation whose results a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The best one of each run.
    Best,
    /// The last one of each run.
    Last,
}

/// The runs that are compared.
#[derive(Debug)]
pub struct Comparison {
    /// The runs, in the order in which they were named.
    pub runs: Vec<RunView>,
}

impl Comparison {
    /// Reads runs from their folders.
    ///
    /// # Errors
    /// If a folder holds no run, or a log cannot be read.
    pub fn read(folders: &[PathBuf]) -> Result<Self> {
        let paths: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        let names = watch::names(&paths);
        let mut runs = Vec::new();
        for (folder, name) in paths.into_iter().zip(&names) {
            let mut run = RunView::new(folder, name);
            run.update()?;
            if run.state == State::Waiting {
                return Err(Error::usage(format!(
                    "{}: not the folder of a run; check the path",
                    folder.display()
                )));
            }
            runs.push(run);
        }
        Ok(Self { runs })
    }

    /// The keys in which the runs differ, with the value of every run.
    pub fn differences(&self) -> Vec<(String, Vec<Option<String>>)> {
        let settings: Vec<&BTreeMap<String, String>> =
            self.runs.iter().map(|run| &run.settings).collect();
        differences(&settings)
    }

    /// Headings and rows: run, state, steps, step of the best or the last validation, and its
    /// results.
    pub fn table(&self, shown: Shown) -> (Vec<String>, Vec<Vec<String>>) {
        let entries = self.runs.iter().map(|run| match shown {
            Shown::Best => run.curves.best.as_ref(),
            Shown::Last => run.curves.last.as_ref(),
        });
        let entries: Vec<Option<&Entry>> = entries.collect();
        let at = match shown {
            Shown::Best => "best at",
            Shown::Last => "last at",
        };
        let results: Vec<Vec<Measure>> = entries.iter().map(|entry| of(*entry)).collect();
        let mut labels: Vec<&str> = Vec::new();
        for measure in results.iter().flatten() {
            if !labels.contains(&measure.label.as_str()) {
                labels.push(&measure.label);
            }
        }
        let mut heads = ["run", "state", "steps", at].map(str::to_owned).to_vec();
        heads.extend(labels.iter().map(|label| (*label).to_owned()));
        let rows = self.runs.iter().zip(entries).zip(&results).map(|((run, entry), results)| {
            let at = entry.map_or("–".to_owned(), |entry| entry.step.to_string());
            let steps = run.curves.length.0.to_string();
            let mut row = vec![run.name.clone(), run.state.name().to_owned(), steps, at];
            row.extend(labels.iter().map(|label| {
                let found = results.iter().find(|measure| measure.label == *label);
                found.map_or("–".to_owned(), |measure| measure.text.clone())
            }));
            row
        });
        (heads, rows.collect())
    }

    /// Whether the last validation of every run is its best.
    pub fn ends_with_best(&self) -> bool {
        let step = |entry: &Option<Entry>| entry.as_ref().map(|entry| entry.step);
        self.runs.iter().all(|run| step(&run.curves.best) == step(&run.curves.last))
    }

    /// The runs as JSON, an object for each.
    pub fn lines(&self) -> Vec<Value> {
        let differences = self.differences();
        let numbers = |entry: Option<&Entry>| -> Value {
            let numbers: Map<String, Value> =
                of(entry).into_iter().map(|measure| (measure.key, json!(measure.value))).collect();
            if numbers.is_empty() { Value::Null } else { numbers.into() }
        };
        let line = |(i, run): (usize, &RunView)| {
            let settings: Map<String, Value> =
                differences.iter().map(|(key, values)| (key.clone(), json!(values[i]))).collect();
            json!({
                "kind": "run",
                "name": run.name,
                "folder": run.folder.display().to_string(),
                "state": run.state.name(),
                "steps": run.curves.length.0,
                "best_step": run.curves.best.as_ref().map(|best| best.step),
                "best": numbers(run.curves.best.as_ref()),
                "last": numbers(run.curves.last.as_ref()),
                "settings": settings,
            })
        };
        self.runs.iter().enumerate().map(line).collect()
    }

    /// Charts with the curves of the runs over each other; of many runs, of the best ones.
    pub fn picture(&self) -> Picture {
        let score =
            |run: &RunView| run.curves.best.as_ref().map_or(f64::NEG_INFINITY, Entry::score);
        let mut order: Vec<usize> = (0..self.runs.len()).collect();
        order.sort_by(|a, b| score(&self.runs[*b]).total_cmp(&score(&self.runs[*a])));
        order.truncate(DRAWN);
        order.sort_unstable();
        let drawn: Vec<(&str, &Curves)> =
            order.iter().map(|i| (self.runs[*i].name.as_str(), &self.runs[*i].curves)).collect();
        let curves: Vec<&Curves> = drawn.iter().map(|(_, curves)| *curves).collect();
        let squares = self.runs.iter().all(RunView::squares);
        let of = match self.runs.len() {
            all if all > DRAWN => format!(", the best {DRAWN} of {all} runs"),
            _ => String::new(),
        };
        let charts: Vec<_> = panels(&curves, squares)
            .iter()
            .map(|panel| {
                let mut chart = panel.overlay(&drawn);
                chart.title += &of;
                chart
            })
            .collect();
        chart::charts(&charts, 1)
    }

    /// Writes page, charts and table into a folder and returns their names.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path, title: &str) -> Result<Vec<&'static str>> {
        files::make_folder(folder)?;
        let pictured = self.runs.len() <= WITH_PICTURES;
        let source = |run: usize, picture: &runs::Picture| {
            let bytes = self.runs[run].picture(picture.file).filter(|_| pictured)?;
            Some(crate::report::page::data_uri(&bytes))
        };
        let page = runs::static_page(title, &runs::data(&self.runs, &source));
        files::write_atomically(&folder.join(PAGE), page.as_bytes())?;
        self.picture().save(&folder.join(CHART))?;
        let (heads, rows) = self.table(Shown::Best);
        let differences = self.differences();
        let mut text = String::new();
        for (i, row) in std::iter::once(&heads).chain(&rows).enumerate() {
            let settings = differences.iter().map(|(key, values)| match i {
                0 => key.clone(),
                i => values[i - 1].clone().unwrap_or_default(),
            });
            let cells: Vec<String> = row.iter().cloned().chain(settings).collect();
            // A tab or line break within a cell would shift the columns.
            let cells: Vec<String> =
                cells.iter().map(|cell| cell.replace(['\t', '\n', '\r'], " ")).collect();
            text += &(cells.join("\t") + "\n");
        }
        files::write_atomically(&folder.join(TABLE), text.as_bytes())?;
        Ok(FILE_NAMES.to_vec())
    }
}

fn of(entry: Option<&Entry>) -> Vec<Measure> {
    entry.map(measures).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    fn run(folder: &Folder, name: &str, lr: f64, psnr: f64) -> PathBuf {
        let set = [format!("optimizer.lr={lr}")];
        let text = crate::spec::preset_text("w1").unwrap();
        let config = crate::spec::Config::parse(text, "w1", &set).unwrap().to_toml();
        folder.write(format!("{name}/config.toml"), config.as_bytes());
        let line = |step: u64, psnr: f64| {
            format!(
                "{{\"kind\":\"validation\",\"step\":{step},\"epoch\":{step},\"psnr\":{psnr},\
                 \"sum_squares\":1.0,\"score\":{psnr}}}\n"
            )
        };
        let lines = line(1, psnr) + &line(2, psnr - 1.0);
        folder.write(format!("{name}/metrics.jsonl"), lines.as_bytes());
        folder.path.join(name)
    }

    #[test]
    fn best_results_and_differences_are_compared() {
        let folder = Folder::new("compare");
        let runs = [run(&folder, "a", 0.1, 20.0), run(&folder, "b", 0.2, 25.0)];
        let found = Comparison::read(&runs).unwrap();
        let (heads, rows) = found.table(Shown::Best);
        assert_eq!(heads[..5], ["run", "state", "steps", "best at", "PSNR"]);
        assert_eq!(rows[1][..5], ["b", "stopped", "2", "1", "25.00 dB"]);
        assert_eq!(found.table(Shown::Last).1[1][3..5], ["2", "24.00 dB"]);
        assert!(!found.ends_with_best());
        let differences = found.differences();
        assert_eq!(differences.len(), 1);
        assert_eq!(differences[0].0, "optimizer.lr");
        let lines = found.lines();
        assert_eq!(
            (&lines[0]["best"]["psnr"], &lines[0]["last"]["psnr"]),
            (&20.0.into(), &19.0.into())
        );
        assert_eq!(lines[0]["settings"], json!({"optimizer.lr": "0.1"}));
        let out = folder.path.join("out");
        found.write(&out, "a < b").unwrap();
        let table = std::fs::read_to_string(out.join(TABLE)).unwrap();
        assert_eq!(table.lines().count(), 3);
        assert!(table.lines().next().unwrap().ends_with("\toptimizer.lr"), "{table}");
        let one = Comparison::read(&runs[..1]).unwrap();
        assert_ne!(found.picture(), one.picture());
        assert!(one.differences().is_empty());
        let error = Comparison::read(&[folder.path.join("none")]).unwrap_err().to_string();
        assert!(error.contains("not the folder of a run"), "{error}");
    }

    #[test]
    fn charts_of_many_runs_show_the_best() {
        let folder = Folder::new("compare-many");
        let runs: Vec<PathBuf> =
            (0..8).map(|i| run(&folder, &format!("r{i}"), 0.1, 20.0 + f64::from(i))).collect();
        let all = Comparison::read(&runs).unwrap().picture();
        let best = Comparison::read(&runs[2..]).unwrap().picture();
        assert_eq!(all.dims, best.dims);
    }
}
