//! `csae man`: manual pages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_mangen::Man;

use super::{CommandArgs, Common};
use crate::error::{Error, Result};
use crate::files;

/// Write manual pages: one for the program and one for each command and subcommand.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae man | man -l -
  csae man --out ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Folder for csae.1, csae-train.1 and so on [default: print all pages]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
}

/// File name and roff text of every page.
fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut program = super::Cli::command().disable_help_subcommand(true);
    program.build();
    with_subcommands(program).into_iter().map(page).collect()
}

/// A command and all its subcommands, recursively.
fn with_subcommands(command: clap::Command) -> Vec<clap::Command> {
    let below: Vec<clap::Command> =
        command.get_subcommands().cloned().flat_map(with_subcommands).collect();
    std::iter::once(command).chain(below).collect()
}

/// The page of a command. The command must have been built as part of its program, or it would not
/// know its full name.
fn page(command: clap::Command) -> Result<(String, Vec<u8>)> {
    let man = Man::new(command);
    let (name, mut roff) = (man.get_filename(), Vec::new());
    man.render(&mut roff).map_err(|error| Error::failed(format!("{name}: {error}")))?;
    Ok((name, roff))
}

impl CommandArgs for ManArgs {
    fn common(&self) -> Option<&Common> {
        None
    }

    fn writes_files(&self) -> bool {
        false
    }

    fn run(self) -> anyhow::Result<()> {
        run(&self)
    }
}

fn run(args: &ManArgs) -> anyhow::Result<()> {
    let pages = pages()?;
    let Some(folder) = &args.out else {
        pages.iter().for_each(|(_, roff)| super::out_raw(roff));
        return Ok(());
    };
    super::outputs::check_folder(folder)?;
    for (name, _) in &pages {
        super::refuse_existing(&folder.join(name), args.force)?;
    }
    files::make_folder(folder)?;
    for (name, roff) in &pages {
        files::write_atomically(&folder.join(name), roff)?;
        outln!("{}", folder.join(name).display());
    }
    Ok(())
}
