//! Following runs: the log as curves, a table, charts and pages, while a training writes it and
//! afterwards.

mod allowance;
mod curves;
mod differences;
mod facts;
mod files;
mod measures;
mod page;
mod panels;
mod reader;
mod table;
mod view;

pub use allowance::Allowance;
pub use curves::{Curve, Curves, MAX_POINTS, Point};
pub use differences::{differences, settings};
pub use files::RunFiles;
pub use measures::{Measure, measures};
pub use page::{SCRIPT, data, live_page, static_page, write_page};
pub use panels::{Panel, panels};
pub use reader::{Entries, LogReader};
pub use table::Table;
pub use view::{Picture, RunView, State, run_folders};

pub use crate::files::{RUN_CONFIG as CONFIG, RUN_ORIGIN as ORIGIN};

/// The file that is locked during training.
pub const LOCK: &str = "run.lock";
/// The log, a JSON object in each line.
pub const LOG: &str = "metrics.jsonl";
/// The final model.
pub const MODEL: &str = "model.safetensors";
/// The log as a table.
pub const TABLE: &str = "metrics.csv";
/// The charts of the log.
pub const CHART: &str = "train.png";
/// The page with charts, pictures and results.
pub const PAGE: &str = "index.html";
