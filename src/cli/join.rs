//! `csae join`: joins the tables that shards wrote.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{CommandArgs, Common, refuse_existing};
use crate::tasks::shards::join::join;

/// Join the parts of a table that commands with --shard wrote: the file of a run without shards,
/// byte for byte.
///
/// The parts are checked: that all are there, and that they are from one command, model and list of
/// images. The file NAME.info.json beside each part says so. Names and labels beside features are
/// joined, too.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae join features.part-*.npy -o features.npy
  csae join labels.part-*.csv -o labels.csv
  csae join out/detections.part-*.json -o out/detections.json")]
pub struct JoinArgs {
    /// Files of all parts, in any order
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// File to write, with the ending of the parts
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

impl CommandArgs for JoinArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn run(self) -> anyhow::Result<()> {
        let files = join(&self.parts, &self.out, |file| refuse_existing(file, self.force))?;
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        if self.common.json {
            outln!("{}", json!({"kind": "join", "files": names}));
        } else {
            self.common.report_written(names.join(", "));
        }
        Ok(())
    }
}
