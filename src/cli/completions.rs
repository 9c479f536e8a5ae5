//! `csae completions`: shell completion.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{CommandArgs, Common};

/// Print a script that completes commands and flags in your shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  source <(csae completions bash)
  csae completions zsh > ~/.zfunc/_csae
  csae completions fish > ~/.config/fish/completions/csae.fish")]
pub struct CompletionsArgs {
    /// Name of the shell
    shell: Shell,
}

impl CommandArgs for CompletionsArgs {
    fn common(&self) -> Option<&Common> {
        None
    }

    fn writes_files(&self) -> bool {
        false
    }

    fn run(self) -> anyhow::Result<()> {
        run(&self);
        Ok(())
    }
}

fn run(args: &CompletionsArgs) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "csae", &mut script);
    super::out_raw(&script);
}
