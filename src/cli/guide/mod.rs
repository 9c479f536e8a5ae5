//! `csae guide`: prints the guide.

mod markdown;
mod wrap;

use std::io::IsTerminal;

use clap::Args;

use super::{CommandArgs, Common};
use crate::bail_usage;
use crate::error::{Result, did_you_mean};
use crate::guide::{PAGES, Page};
use markdown::Style;

/// Width of the text if standard output is not a terminal and `COLUMNS` is not set.
const DEFAULT_WIDTH: usize = 80;
/// Narrower text has more line breaks than words.
const MIN_WIDTH: usize = 20;
/// Longer lines are hard to read.
const MAX_WIDTH: usize = 100;

/// Read the guide: how to use csae for a task, with commands to copy.
///
/// Without a topic, lists the pages. The text fits the width of the terminal; `COLUMNS` sets
/// another width.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae guide
  csae guide features
  csae guide restoration --raw > restoration.md")]
pub struct GuideArgs {
    /// Name of a page, or a part of it [default: list all pages]
    topic: Option<String>,
    /// Print the Markdown source of the page
    #[arg(long, requires = "topic")]
    raw: bool,
}

impl CommandArgs for GuideArgs {
    fn common(&self) -> Option<&Common> {
        None
    }

    fn writes_files(&self) -> bool {
        false
    }

    fn run(self) -> anyhow::Result<()> {
        Ok(run(&self)?)
    }
}

/// The page that `topic` names: by its whole name, or by a part that no other page has.
fn find(topic: &str) -> Result<&'static Page> {
    let wanted = topic.to_lowercase().replace([' ', '_'], "-");
    if let Some(page) = PAGES.iter().find(|page| page.name == wanted) {
        return Ok(page);
    }
    let mut parts = PAGES.iter().filter(|page| !wanted.is_empty() && page.name.contains(&wanted));
    if let (Some(page), None) = (parts.next(), parts.next()) {
        return Ok(page);
    }
    let names = || PAGES.iter().map(|page| page.name);
    bail_usage!(
        "the guide has no page {topic:?}: use one of {}{}",
        names().collect::<Vec<_>>().join(", "),
        did_you_mean(&wanted, names())
    );
}

/// The width of the terminal, or of `COLUMNS` if there is no terminal.
fn width() -> usize {
    let terminal = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    let named = || std::env::var("COLUMNS").ok()?.trim().parse().ok();
    terminal.or_else(named).unwrap_or(DEFAULT_WIDTH).clamp(MIN_WIDTH, MAX_WIDTH)
}

/// The list of pages, one line each. A narrow terminal has the summaries below the names.
fn list(width: usize) -> String {
    let names = PAGES.iter().map(|page| page.name.len()).max().unwrap_or_default();
    let summaries = PAGES.iter().map(|page| page.summary().len()).max().unwrap_or_default();
    let row = |page: &Page| {
        if names + 2 + summaries <= width {
            format!("{:names$}  {}\n", page.name, page.summary())
        } else {
            format!("{}\n{}", page.name, wrap::hanging(&page.summary(), "    ", "    ", width))
        }
    };
    PAGES.iter().map(row).collect()
}

fn run(args: &GuideArgs) -> Result<()> {
    let text = match &args.topic {
        None => list(width()),
        Some(topic) => {
            let page = find(topic)?;
            if args.raw {
                page.text.to_owned()
            } else {
                let bold =
                    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                markdown::render(page.text, Style { width: width(), bold })
            }
        }
    };
    super::out_raw(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_found_by_its_name_or_a_part_of_it() {
        assert_eq!(find("features").unwrap().name, "features");
        assert_eq!(find("gpu").unwrap().name, "gpus-and-speed");
        assert_eq!(find("File formats").unwrap().name, "file-formats");
        let error = find("fetures").unwrap_err().to_string();
        assert!(error.ends_with("did you mean features?"), "{error}");
        // Two pages have it.
        assert!(find("s").is_err());
        assert!(find("").is_err());
    }
}
