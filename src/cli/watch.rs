//! `csae watch`: follows runs in a browser.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{CommandArgs, Common};
use crate::tasks::watch::Watch;

/// Follow runs in a browser: a page with charts, results, settings and pictures.
///
/// Runs can be running, finished or stopped; a folder that does not exist yet is waited for. A
/// folder of runs stands for the runs in it, also for those that begin later. Several runs are
/// drawn over each other. The page is served to this machine only and changes nothing. For a run on
/// another machine, forward the port: ssh -L 8427:localhost:8427 MACHINE. Ctrl-C ends the command.
/// The page of a finished run is also in its folder, as index.html.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae watch runs/001
  csae watch runs/001 runs/002
  csae watch runs --port 0")]
pub struct WatchArgs {
    /// Run folders, or folders of runs
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Port of the page; 0 chooses a free one
    #[arg(long, value_name = "N", default_value_t = 8427)]
    port: u16,
    /// Print JSON lines on standard output
    #[arg(long)]
    json: bool,
}

impl CommandArgs for WatchArgs {
    fn common(&self) -> Option<&Common> {
        None
    }

    fn writes_files(&self) -> bool {
        false
    }

    fn run(self) -> anyhow::Result<()> {
        let watch = Watch::new(&self.runs, self.port)?;
        for missing in self.runs.iter().filter(|run| !run.exists()) {
            errln!("note: {} does not exist yet; the page waits for it", missing.display());
        }
        let url = format!("http://127.0.0.1:{}/", watch.port()?);
        if self.json {
            outln!("{}", json!({"kind": "watch", "url": url, "port": watch.port()?}));
        } else {
            outln!("{url}");
            errln!("Ctrl-C ends");
        }
        watch.serve(&|| false);
        Ok(())
    }
}
