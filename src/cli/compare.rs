//! `csae compare`: runs side by side.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{CommandArgs, Common};
use crate::bail_usage;
use crate::error::Result;
use crate::report::runs::run_folders;
use crate::tasks::compare::{Comparison, FILE_NAMES, Shown, TABLE};
use crate::train::RunFolder;

/// Compare runs: their best results, their curves, and the settings in which they differ.
///
/// A folder of runs stands for the runs in it. Prints a table. With --out it also writes a page
/// (index.html), charts (compare.png) and the table (compare.tsv).
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae compare runs/001 runs/002
  csae compare runs -o comparison")]
pub struct CompareArgs {
    /// Run folders, or folders of runs
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Folder for page, charts and table [default: only print the table]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Overwrite files that compare did not write
    #[arg(long, requires = "out")]
    force: bool,
    /// Print JSON lines on standard output
    #[arg(long)]
    json: bool,
}

impl CommandArgs for CompareArgs {
    fn common(&self) -> Option<&Common> {
        None
    }

    fn writes_files(&self) -> bool {
        self.out.is_some()
    }

    fn run(self) -> anyhow::Result<()> {
        if let Some(out) = &self.out {
            super::outputs::check_folder(out)?;
            if RunFolder::is_run(out) {
                return Err(crate::error::Error::usage(format!(
                    "-o {}: a run, whose page would be overwritten; name another folder",
                    out.display()
                ))
                .into());
            }
            let taken = FILE_NAMES.iter().map(|name| out.join(name)).find(|path| path.exists());
            if let Some(path) = taken.filter(|_| !out.join(TABLE).is_file()) {
                super::refuse_existing(&path, self.force)?;
            }
        }
        let found = Comparison::read(&named(&self.runs)?)?;
        print(&found, self.json);
        if let Some(out) = &self.out {
            let written = found.write(out, &format!("{} trainings", found.runs.len()))?;
            if self.json {
                let folder = out.display().to_string();
                outln!("{}", json!({"kind": "files", "folder": folder, "files": written}));
            } else {
                outln!("{}: {}", out.display(), written.join(", "));
            }
        }
        Ok(())
    }
}

/// The run folders that paths name. All must exist.
fn named(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in paths {
        if !path.exists() {
            bail_usage!("{}: no such folder; give the folder of a run", path.display());
        }
        all.extend(run_folders(path)?);
    }
    Ok(all)
}

/// Prints the results of runs and the settings in which they differ.
pub fn print(found: &Comparison, json: bool) {
    if json {
        found.lines().iter().for_each(|line| outln!("{line}"));
        return;
    }
    let (heads, rows) = found.table(Shown::Best);
    print_table(&heads, &rows);
    if !found.ends_with_best() {
        outln!("\nlast validations");
        let (heads, rows) = found.table(Shown::Last);
        print_table(&heads, &rows);
    }
    let differences = found.differences();
    if found.runs.len() < 2 {
        return;
    }
    if differences.is_empty() {
        outln!("\nall settings are equal");
        return;
    }
    outln!("\nsettings that differ");
    let heads: Vec<String> = std::iter::once("key".to_owned())
        .chain(found.runs.iter().map(|run| run.name.clone()))
        .collect();
    let rows: Vec<Vec<String>> = differences
        .into_iter()
        .map(|(key, values)| {
            let values = values.into_iter().map(|value| value.unwrap_or_else(|| "–".to_owned()));
            std::iter::once(key).chain(values).collect()
        })
        .collect();
    print_table(&heads, &rows);
}

/// Prints rows in columns: the first to the left, the others to the right.
fn print_table(heads: &[String], rows: &[Vec<String>]) {
    let width = |i: usize| {
        let cells = rows.iter().map(|row| &row[i]).chain([&heads[i]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    for row in std::iter::once(heads).chain(rows.iter().map(Vec::as_slice)) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(i, (cell, width))| match i {
                0 => format!("{cell:width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        outln!("{}", cells.join("  ").trim_end());
    }
}
