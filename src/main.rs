//! The `csae` program: parse, run, print the error and leave with its status.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err((error, status)) => {
            eprintln!("csae: {error:#}");
            ExitCode::from(status)
        }
    }
}
